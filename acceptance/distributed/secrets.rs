//! What is configured as a secret is in no log line, however much is logged.

use services::NatsServer;

use crate::harness::{Program, eur};
use crate::parts::{ALL, Parts};
use crate::starting::one_saga;

const TOKEN: &str = "correct-horse-battery";
const PASSWORD: &str = "staple-of-the-bus";

/// The password in a database's URL.
fn password(url: &str) -> String {
    let login = url.strip_prefix("postgres://").unwrap().split_once('@').unwrap().0;
    login.split_once(':').unwrap().1.to_owned()
}

/// A platform behind this authorization, which logs everything there is to log.
async fn tells_nothing(authorization: &str, settings: &[(&'static str, &str)], secret: &str) {
    // given
    let mut parts = Parts::new().set("FINANCING_LOG", "trace");
    parts.services_mut().nats = NatsServer::start_with(authorization);
    for (name, value) in settings {
        parts = parts.set(name, value);
    }

    // when
    parts.run(&ALL).await;
    let platform = parts.platform().await;
    one_saga(&platform).await;
    let again = format!("{:?}", parts.operate(&["queue", "adopt"]).await);
    let migrated = format!("{:?}", parts.operate(&["migrate"]).await);
    let populate = parts.services().program(env!("CARGO_BIN_EXE_populate"));
    let populate = settings.iter().fold(populate, |program, (name, value)| program.set(name, value));
    let flags = ["--nats", "--issuers", "1", "--investors", "0"];
    let populated: Program = populate.set("FINANCING_QUERY_ADDR", parts.address("queries")).flags(&flags);
    let populated = populated.output().await;
    assert!(populated.status.success(), "{populated:?}");
    // Connections that break say more than others.
    parts.services_mut().nats.kill();
    parts.says("worker", "the connection to NATS is lost").await;
    parts.services_mut().nats.start_again();
    platform.sell(&platform.issuer().await, eur(1, 0)).await;
    parts.stop(&ALL).await;

    // then
    let services = parts.services();
    let secrets = [secret.to_owned(), password(&services.commands.url()), password(&services.queries.url())];
    let mut lines = 0;
    for name in ALL {
        let log = parts.logged(name);
        lines += log.lines().count();
        assert!(log.contains("DEBUG"), "{name} logs what only those who look for something want to see");
        for line in log.lines().chain([again.as_str(), migrated.as_str(), &format!("{populated:?}")]) {
            let told = secrets.iter().find(|secret| line.contains(secret.as_str()));
            assert!(told.is_none(), "{name}: a secret is in the log: {line}");
        }
    }
    println!("{lines} lines, no secret");
}

#[tokio::test]
async fn a_token_and_the_passwords_of_the_databases_are_in_no_log() {
    let authorization = format!("authorization {{ token: \"{TOKEN}\" }}");
    tells_nothing(&authorization, &[("FINANCING_NATS_TOKEN", TOKEN)], TOKEN).await;
}

#[tokio::test]
async fn a_password_of_nats_is_in_no_log() {
    let authorization = format!("authorization {{ user: \"platform\", password: \"{PASSWORD}\" }}");
    let settings = [("FINANCING_NATS_USER", "platform"), ("FINANCING_NATS_PASSWORD", PASSWORD)];
    tells_nothing(&authorization, &settings, PASSWORD).await;
}
