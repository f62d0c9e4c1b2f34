//! What each program says of its settings, and of settings that cannot be right: at once, by name, and without a secret.

use std::collections::BTreeSet;
use std::process::Output;

use services::NatsServer;

use crate::harness::{Program, Services};
use crate::parts::{ALL, Parts};

/// How every program of the platform is set.
const COMMON: &str = "PARTITIONS GRACE_SECONDS NATS_REPLICAS NATS_DUPLICATE_WINDOW QUEUE_BYTES LOG_FORMAT LOG CONFIG \
     METRICS_ADDR OTLP_ENDPOINT TRACE_RATIO";
/// How NATS is reached.
const NATS: &str = "NATS_URL NATS_USER NATS_PASSWORD NATS_TOKEN NATS_NKEY NATS_CREDENTIALS NATS_CA NATS_CERTIFICATE NATS_KEY \
                    NATS_TLS";
const LOG_DATABASE: &str = "COMMAND_DATABASE_URL COMMAND_DATABASE_CONNECTIONS";
const MODELS_DATABASE: &str = "QUERY_DATABASE_URL QUERY_DATABASE_CONNECTIONS";

/// The programs, and the settings that each of them reads.
fn programs() -> [(&'static str, Vec<&'static str>); 6] {
    [
        (
            env!("CARGO_BIN_EXE_commandsd"),
            vec![COMMON, NATS, LOG_DATABASE, "COMMAND_ADDR HEALTH_ADDR ADMIN_ADDR"],
        ),
        (env!("CARGO_BIN_EXE_relayerd"), vec![COMMON, NATS, LOG_DATABASE, "HEALTH_ADDR"]),
        (
            env!("CARGO_BIN_EXE_queryprojectord"),
            vec![COMMON, NATS, MODELS_DATABASE, "HEALTH_ADDR ADMIN_ADDR"],
        ),
        (env!("CARGO_BIN_EXE_queriesd"), vec![COMMON, NATS, MODELS_DATABASE, "QUERY_ADDR"]),
        (env!("CARGO_BIN_EXE_populate"), vec![NATS, "COMMAND_ADDR QUERY_ADDR CONFIG"]),
        (
            env!("CARGO_BIN_EXE_financing"),
            vec![
                "DATA_DIR COMMAND_ADDR QUERY_ADDR ADMIN_ADDR PARTITIONS GRACE_SECONDS LOG_FORMAT LOG CONFIG",
                "METRICS_ADDR OTLP_ENDPOINT TRACE_RATIO",
            ],
        ),
    ]
}

/// The four that are processes of the distributed platform.
fn servers() -> impl Iterator<Item = &'static str> {
    programs().into_iter().take(4).map(|(path, _)| path)
}

/// What a program has said, on both outputs.
fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

/// The message that a program ended with, without what stands in front of it.
#[track_caller]
fn complaint(output: &Output) -> String {
    let said = said(output);
    assert!(output.status.code().is_some_and(|code| code != 0), "{:?}: {said}", output.status);
    assert!(!said.contains("panicked"), "{said}");
    let last = said.lines().rfind(|line| line.contains("ERROR"));
    last.and_then(|line| line.split_once("ERROR")).map_or_else(|| said.clone(), |(_, what)| what.to_owned())
}

#[tokio::test]
async fn help_shows_every_setting_that_a_program_reads() {
    for (path, settings) in programs() {
        for flag in ["--help", "-h"] {
            let output = Program::new(path)
                .set("FINANCING_NATS_TOKEN", "hunter2")
                .set("FINANCING_NATS_URL", "nats://hunter2")
                .set("FINANCING_COMMAND_DATABASE_URL", "postgres://u:hunter2@h/d")
                .set("FINANCING_QUERY_DATABASE_URL", "postgres://u:hunter2@h/d")
                .flags(&[flag])
                .output()
                .await;
            assert_eq!(output.status.code(), Some(0), "{path}");
            let help = String::from_utf8(output.stdout).unwrap();
            let words = help.split(|c: char| !c.is_ascii_uppercase() && c != '_');
            let shown: BTreeSet<&str> = words.filter_map(|word| word.strip_prefix("FINANCING_")).collect();
            // (An explanation may say FINANCING_NAME for any of them.)
            let shown: BTreeSet<&str> = shown.into_iter().filter(|name| *name != "NAME").collect();
            let read: BTreeSet<&str> = settings.iter().flat_map(|group| group.split_whitespace()).collect();
            assert_eq!(shown, read, "{path}");
            assert!(!help.contains("hunter2"), "{path}: {help}");
        }
    }
}

#[tokio::test]
async fn a_wrong_value_is_refused_by_the_name_of_its_flag() {
    let wrong = [
        ("--partitions", "0"),
        ("--grace-seconds", "soon"),
        ("--nats-replicas", "9"),
        ("--nats-duplicate-window", "-1"),
        ("--queue-bytes", "12"),
        ("--log-format", "loud"),
        ("--nats-tls", "perhaps"),
    ];
    for path in servers() {
        for (flag, value) in wrong {
            let by_flag = Program::new(path).flags(&[&format!("{flag}={value}")]);
            let name = format!("FINANCING_{}", flag.trim_start_matches('-').replace('-', "_").to_uppercase());
            for program in [by_flag, Program::new(path).set(&name, value)] {
                let output = program.output().await;
                assert_eq!(output.status.code(), Some(64), "{program}: {}", said(&output));
                assert!(said(&output).contains(flag), "{program}: {}", said(&output));
                assert!(output.stdout.is_empty(), "{program}: nothing was started");
            }
        }
    }
    for (path, flag) in [
        (env!("CARGO_BIN_EXE_commandsd"), "--command-addr"),
        (env!("CARGO_BIN_EXE_commandsd"), "--command-database-connections"),
        (env!("CARGO_BIN_EXE_relayerd"), "--health-addr"),
        (env!("CARGO_BIN_EXE_queryprojectord"), "--query-database-connections"),
        (env!("CARGO_BIN_EXE_queriesd"), "--query-addr"),
    ] {
        let output = Program::new(path).flags(&[flag, "nonsense"]).output().await;
        assert_eq!(output.status.code(), Some(64), "{path}: {}", said(&output));
        assert!(said(&output).contains(flag), "{path}: {}", said(&output));
    }
}

#[tokio::test]
async fn a_database_that_is_not_named_is_asked_for_by_its_setting() {
    let health = |program: Program| program.set("FINANCING_HEALTH_ADDR", "127.0.0.1:0");
    for (path, flags, setting) in [
        (env!("CARGO_BIN_EXE_commandsd"), &["--worker"][..], "FINANCING_COMMAND_DATABASE_URL"),
        (env!("CARGO_BIN_EXE_commandsd"), &["--policies"], "FINANCING_COMMAND_DATABASE_URL"),
        (
            env!("CARGO_BIN_EXE_commandsd"),
            &["--command-addr", "127.0.0.1:0"],
            "FINANCING_COMMAND_DATABASE_URL",
        ),
        (env!("CARGO_BIN_EXE_relayerd"), &[], "FINANCING_COMMAND_DATABASE_URL"),
        (env!("CARGO_BIN_EXE_queryprojectord"), &[], "FINANCING_QUERY_DATABASE_URL"),
        (env!("CARGO_BIN_EXE_queriesd"), &["--query-addr", "127.0.0.1:0"], "FINANCING_QUERY_DATABASE_URL"),
    ] {
        let output = health(Program::new(path).flags(flags)).output().await;
        let complaint = complaint(&output);
        assert!(complaint.contains(setting), "{path}: {complaint}");
    }
}

#[tokio::test]
async fn another_number_of_partitions_is_refused_by_every_process() {
    // given
    let parts = Parts::start().await;

    // when
    for name in ALL {
        let output = parts.program(name).flags(&["--partitions", "8"]).output().await;

        // then
        let complaint = complaint(&output);
        let numbers = complaint.split(|c: char| !c.is_ascii_digit());
        let numbers: BTreeSet<&str> = numbers.collect();
        assert!(numbers.contains("16") && numbers.contains("8"), "{name} names both numbers: {complaint}");
        assert!(complaint.contains("partitions"), "{name}: {complaint}");
        assert!(output.stdout.is_empty(), "{name} does not say that it answers");
    }
    parts.platform().await.issuer().await;
}

/// The settings with which a program reaches the wrong place, or the right one with the wrong secret.
fn with(services: &Services, name: &str, setting: &'static str, value: &str) -> Program {
    let commandsd = env!("CARGO_BIN_EXE_commandsd");
    let program = match name {
        "worker" => services.program(commandsd).flags(&["--worker"]),
        "policies" => services.program(commandsd).flags(&["--policies"]),
        "relayer" => services.program(env!("CARGO_BIN_EXE_relayerd")),
        "projector" => services.program(env!("CARGO_BIN_EXE_queryprojectord")),
        "queries" => {
            services.program(env!("CARGO_BIN_EXE_queriesd")).set("FINANCING_QUERY_ADDR", "127.0.0.1:0")
        }
        _ => services.program(commandsd).set("FINANCING_COMMAND_ADDR", "127.0.0.1:0").flags(&["--listener"]),
    };
    program.set("FINANCING_LOG", "trace").set(setting, value)
}

#[tokio::test]
async fn a_wrong_password_of_a_database_ends_a_process_and_is_not_shown() {
    // given: all that comes before the database is there
    let parts = Parts::start().await;
    let services = parts.services();

    for (name, setting, database) in [
        ("worker", "FINANCING_COMMAND_DATABASE_URL", &services.commands),
        ("policies", "FINANCING_COMMAND_DATABASE_URL", &services.commands),
        ("relayer", "FINANCING_COMMAND_DATABASE_URL", &services.commands),
        ("projector", "FINANCING_QUERY_DATABASE_URL", &services.queries),
        ("queries", "FINANCING_QUERY_DATABASE_URL", &services.queries),
    ] {
        // when
        let output = with(services, name, setting, &database.url_as("financing", "hunter2")).output().await;

        // then
        let complaint = complaint(&output);
        assert!(complaint.contains("password authentication failed"), "{name}: {complaint}");
        assert!(complaint.contains(database.name()), "{name} says which database: {complaint}");
        assert!(!said(&output).contains("hunter2"), "{name}: {}", said(&output));
    }
}

#[tokio::test]
async fn a_wrong_token_of_nats_ends_a_process_and_is_not_shown() {
    // given
    let mut parts = Parts::new();
    parts.services_mut().nats = NatsServer::start_with("authorization { token: \"correct-horse\" }");
    let services = parts.services();
    // (The relayer looks at the log first.)
    assert!(parts.operate(&["migrate"]).await.status.success());

    for name in ALL {
        // when
        let output = with(services, name, "FINANCING_NATS_TOKEN", "hunter2").output().await;

        // then
        let complaint = complaint(&output);
        assert!(complaint.contains("authorization violation"), "{name}: {complaint}");
        assert!(!said(&output).contains("hunter2"), "{name}: {}", said(&output));
        let output =
            with(services, name, "FINANCING_NATS_URL", "nats://me:hunter2@127.0.0.1:1").output().await;
        assert!(!said(&output).contains("hunter2"), "{name}: {}", said(&output));
        assert!(self::complaint(&output).contains("credentials"), "{name}: {}", said(&output));
    }
}
