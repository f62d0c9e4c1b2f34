//! Who gets a connection, and who does not.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::NatsError;
use super::*;

async fn refused(settings: &Connect) -> NatsError {
    let refused = connect(settings).await.expect_err("no connection");
    let text = format!("{refused} {refused:?} {settings:?}");
    assert!(!text.contains("hunter2") && !text.contains(SEED), "{text}");
    refused
}

#[tokio::test]
async fn a_server_that_is_not_up_may_come_up() {
    // Nobody listens on a port that was free a moment ago, and is kept from others.
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    drop(taken);
    let refused = refused(&Connect::to(&format!("nats://127.0.0.1:{port}"))).await;
    assert!(matches!(refused, NatsError::Unreachable(_)) && refused.retryable(), "{refused}");
}

#[tokio::test]
async fn settings_that_cannot_be_read_are_refused_at_once() {
    for url in ["", "nats://", "not a url"] {
        let refused = refused(&Connect::to(url)).await;
        assert!(matches!(refused, NatsError::Settings(_)) && !refused.retryable(), "{url:?}: {refused}");
    }
    let missing =
        Connect { ca_file: Some(PathBuf::from("/nowhere/ca.pem")), ..Connect::to("nats://localhost") };
    assert!(refused(&missing).await.to_string().contains("/nowhere/ca.pem"));
}

#[tokio::test]
async fn a_user_needs_the_password() {
    let server = NatsServer::start_with("authorization { user: me, password: hunter2 }");
    let url = server.url();
    let with = |password: &str| Connect {
        user: Some("me".to_owned()),
        password: Some(password.to_owned()),
        ..Connect::to(&url)
    };
    assert!(connect(&with("hunter2")).await.unwrap().is_connected());
    for wrong in [with("hunter2 "), Connect::to(&url)] {
        let refused = refused(&wrong).await;
        assert!(matches!(refused, NatsError::Refused(_)) && !refused.retryable(), "{refused}");
    }
}

#[tokio::test]
async fn a_token_opens_the_door() {
    let server = NatsServer::start_with("authorization { token: hunter2 }");
    let with = |token: &str| Connect { token: Some(token.to_owned()), ..Connect::to(&server.url()) };
    assert!(connect(&with("hunter2")).await.unwrap().is_connected());
    assert!(matches!(refused(&with("other")).await, NatsError::Refused(_)));
}

/// A user's nkey, made for this test.
const SEED: &str = "SUAOWBBRNAIH4DFIJXSYGDW65G24MYTB4KVLXZMFRCVH5SVY4CO5DQ7GHM";
const PUBLIC: &str = "UCJD2UB4GFITC3DSB2X7ZSZJ4Q7D7F2OBSSHKQONVLLZAOG2A5FN663Y";

#[tokio::test]
async fn an_nkey_opens_the_door() {
    let server = NatsServer::start_with(&format!("authorization {{ users: [ {{ nkey: {PUBLIC} }} ] }}"));
    let with = |seed: &str| Connect { nkey_seed: Some(seed.to_owned()), ..Connect::to(&server.url()) };
    assert!(connect(&with(SEED)).await.unwrap().is_connected());
    let broken = refused(&with("SUnothing")).await;
    assert!(matches!(broken, NatsError::Settings(_)) && !broken.retryable(), "{broken}");
}

/// An operator, its system account, an account and a user, made for this test.
const OPERATOR: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJqdGkiOiJ4IiwiaWF0IjoxNzAwMDAwMDAwLCJpc3MiOiJPQVpLUEY0MzI3QlFMQjRYNUNIS01VNURCRE9HWk1VTlc2TEZYTk0yTldLWU1QRjZSRzdaN0s3QSIsIm5hbWUiOiJvcCIsInN1YiI6Ik9BWktQRjQzMjdCUUxCNFg1Q0hLTVU1REJET0daTVVOVzZMRlhOTTJOV0tZTVBGNlJHN1o3SzdBIiwibmF0cyI6eyJ0eXBlIjoib3BlcmF0b3IiLCJ2ZXJzaW9uIjoyfX0.5fNColcmZgFQ4fV64oPOF0zF1pqvLTMUxXJ42-5xPV8PAzwl0jRqDZI31aNUh5AitEtj4n_jaxwbCmM5Dq6hDw";
const SYSTEM: &str = "ABSOTGSLIUPY6OT4WH7KFDBE7R3NQTUDQYSX4UVVWYENHNVMSO465YCU";
const SYSTEM_JWT: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJqdGkiOiJ4IiwiaWF0IjoxNzAwMDAwMDAwLCJpc3MiOiJPQVpLUEY0MzI3QlFMQjRYNUNIS01VNURCRE9HWk1VTlc2TEZYTk0yTldLWU1QRjZSRzdaN0s3QSIsIm5hbWUiOiJzeXMiLCJzdWIiOiJBQlNPVEdTTElVUFk2T1Q0V0g3S0ZEQkU3UjNOUVRVRFFZU1g0VVZWV1lFTkhOVk1TTzQ2NVlDVSIsIm5hdHMiOnsibGltaXRzIjp7InN1YnMiOi0xLCJkYXRhIjotMSwicGF5bG9hZCI6LTEsImltcG9ydHMiOi0xLCJleHBvcnRzIjotMSwid2lsZGNhcmRzIjp0cnVlLCJjb25uIjotMSwibGVhZiI6LTF9LCJkZWZhdWx0X3Blcm1pc3Npb25zIjp7InB1YiI6e30sInN1YiI6e319LCJ0eXBlIjoiYWNjb3VudCIsInZlcnNpb24iOjJ9fQ.rsH8Q-8rlZ_SaXPkPIPBvbJWFTC0kqqpvebnAe6wgnYeinTs6V7nmb9kZl9XXNmYXczfzx9xnSmGvBz_v4WGCA";
const ACCOUNT: &str = "ACCJCU4WOYTKM63FCFO4X7FHQXID4RFCAHTAWI6DIVDFRAM7GMFZRNNF";
const ACCOUNT_JWT: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJqdGkiOiJ4IiwiaWF0IjoxNzAwMDAwMDAwLCJpc3MiOiJPQVpLUEY0MzI3QlFMQjRYNUNIS01VNURCRE9HWk1VTlc2TEZYTk0yTldLWU1QRjZSRzdaN0s3QSIsIm5hbWUiOiJhYyIsInN1YiI6IkFDQ0pDVTRXT1lUS002M0ZDRk80WDdGSFFYSUQ0UkZDQUhUQVdJNkRJVkRGUkFNN0dNRlpSTk5GIiwibmF0cyI6eyJsaW1pdHMiOnsic3VicyI6LTEsImRhdGEiOi0xLCJwYXlsb2FkIjotMSwiaW1wb3J0cyI6LTEsImV4cG9ydHMiOi0xLCJ3aWxkY2FyZHMiOnRydWUsImNvbm4iOi0xLCJsZWFmIjotMSwibWVtX3N0b3JhZ2UiOi0xLCJkaXNrX3N0b3JhZ2UiOi0xLCJzdHJlYW1zIjotMSwiY29uc3VtZXIiOi0xfSwiZGVmYXVsdF9wZXJtaXNzaW9ucyI6eyJwdWIiOnt9LCJzdWIiOnt9fSwidHlwZSI6ImFjY291bnQiLCJ2ZXJzaW9uIjoyfX0.xLozNcU49kNndoj3Ht65JXW7XmADNq7IIrl8TR9i7i2waWXNRXff0vOf3Asn2aJ55fs06hYVKjAFvI_K4_ezCw";
const USER_JWT: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJqdGkiOiJ4IiwiaWF0IjoxNzAwMDAwMDAwLCJpc3MiOiJBQ0NKQ1U0V09ZVEtNNjNGQ0ZPNFg3RkhRWElENFJGQ0FIVEFXSTZESVZERlJBTTdHTUZaUk5ORiIsIm5hbWUiOiJ1cyIsInN1YiI6IlVBM0VYSUpRNEVBMkFBVlZFSjczWE1TNEhZRUxST1RURzdPU0hDVEoySE5PNTJKUVg3MlY2RUhCIiwibmF0cyI6eyJwdWIiOnt9LCJzdWIiOnt9LCJzdWJzIjotMSwiZGF0YSI6LTEsInBheWxvYWQiOi0xLCJ0eXBlIjoidXNlciIsInZlcnNpb24iOjJ9fQ.0TzudYIOygbmSWdLXUbQV7r6S-pQdb6pwGRRCsGHxvnhiQ6K3CAdl8uKGXj8lqKA-_OdF-9ply4ab6P4LHYaCg";
const USER_SEED: &str = "SUANIKPAZ2PF3NWAOLEIBQYYL5FUCO6QDQUFZRUP2CTBPDCBBMOHW52Q6M";

#[tokio::test]
async fn a_file_with_credentials_opens_the_door() {
    let server = NatsServer::start_with(&format!(
        "operator: {OPERATOR}\nsystem_account: {SYSTEM}\nresolver: MEMORY\n\
         resolver_preload: {{ {SYSTEM}: {SYSTEM_JWT}, {ACCOUNT}: {ACCOUNT_JWT} }}"
    ));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("user.creds");
    let credentials = |jwt: &str| {
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{USER_SEED}\n------END USER NKEY SEED------\n"
        )
    };
    std::fs::write(&file, credentials(USER_JWT)).unwrap();
    let settings = Connect { credentials_file: Some(file.clone()), ..Connect::to(&server.url()) };
    assert!(connect(&settings).await.unwrap().is_connected());
    std::fs::write(&file, credentials(ACCOUNT_JWT)).unwrap();
    let refused = refused(&settings).await;
    assert!(matches!(refused, NatsError::Refused(_)), "{refused}");
}

#[tokio::test]
async fn a_file_without_credentials_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("user.creds");
    std::fs::write(&file, "hunter2").unwrap();
    let settings = Connect { credentials_file: Some(file), ..Connect::to("nats://127.0.0.1:1") };
    assert!(matches!(refused(&settings).await, NatsError::Settings(_)));
}

#[tokio::test]
async fn a_server_that_stores_nothing_for_us_is_refused() {
    let server =
        NatsServer::start_with("accounts { PLAIN: { users: [ { user: me, password: hunter2 } ] } }\n");
    let settings = Connect {
        user: Some("me".to_owned()),
        password: Some("hunter2".to_owned()),
        ..Connect::to(&server.url())
    };
    let refused = refused(&settings).await;
    assert_eq!(refused, NatsError::NotForAccount);
}

#[tokio::test]
async fn a_server_that_stores_nothing_now_may_do_so_later() {
    let server = NatsServer::start_with("jetstream: false\n");
    let refused = refused(&Connect::to(&server.url())).await;
    assert_eq!(refused, NatsError::NoJetStream);
    assert!(refused.retryable());
}

/// What becomes of a connection that a network has forgotten, too: nobody is told that it is gone.
#[tokio::test]
async fn a_server_that_says_nothing_any_more_is_noticed_before_others_notice_that_nothing_is_done() {
    let server = NatsServer::start();
    let nats = connect(&Connect::to(&server.url())).await.unwrap();
    let lost = nats.lost();
    server.signal("STOP");
    let noticed = tokio::time::timeout(std::time::Duration::from_secs(15), lost).await;
    server.signal("CONT");
    assert!(noticed.is_ok(), "three questions without an answer are enough");
}

/// An authority, and certificates of a server and a client that it vouches for.
fn certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        let output = command.current_dir(folder).args(arguments.split(' ')).output().expect("openssl runs");
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    std::fs::write(folder.join("san.cnf"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 2"));
    openssl(&format!("req -x509 {key} -keyout other.key -out other.pem -subj /CN=other -days 2"));
    for name in ["server", "client"] {
        openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 -extfile san.cnf"
        ));
    }
}

#[tokio::test]
async fn certificates_are_checked_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let path = |name: &str| folder.path().join(name);
    let server = NatsServer::start_with(&format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}",
        path("server.pem"),
        path("server.key"),
        path("ca.pem")
    ));
    let good = Connect {
        ca_file: Some(path("ca.pem")),
        client_certificate: Some(path("client.pem")),
        client_key: Some(path("client.key")),
        require_tls: true,
        ..Connect::to(&server.url())
    };
    assert!(connect(&good).await.unwrap().is_connected());
    let stranger = Connect { ca_file: Some(path("other.pem")), ..good.clone() };
    let refused_by_us = refused(&stranger).await;
    assert!(matches!(refused_by_us, NatsError::Refused(_)) && !refused_by_us.retryable(), "{refused_by_us}");
    let nobody = Connect { client_certificate: None, client_key: None, ..good };
    refused(&nobody).await;
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_it_is_required() {
    let server = NatsServer::start();
    let settings = Connect { require_tls: true, ..Connect::to(&server.url()) };
    refused(&settings).await;
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_an_authority_or_a_certificate_is_given() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let path = |name: &str| Some(folder.path().join(name));
    let server = NatsServer::start();
    let plain = Connect::to(&server.url());
    let authority = Connect { ca_file: path("ca.pem"), ..plain.clone() };
    let certificate =
        Connect { client_certificate: path("client.pem"), client_key: path("client.key"), ..plain.clone() };
    // The first server asks for nothing; what it says of others comes without `tls://`.
    let mixed = Connect {
        urls: vec![server.url(), server.url().replace("nats://", "tls://").replace("127.0.0.1", "localhost")],
        ..plain
    };
    for settings in [authority, certificate, mixed] {
        refused(&settings).await;
    }
}
