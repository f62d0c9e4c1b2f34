//! What is wrong with a start is said before anything is touched.

use crate::harness::{Home, Platform};

#[tokio::test]
async fn a_wrong_setting_is_named_before_a_directory_is_touched() {
    for (flag, value) in [
        ("--partitions", "0"),
        ("--partitions", "1025"),
        ("--command-addr", "nonsense"),
        ("--query-addr", "127.0.0.1:99999"),
        ("--grace-seconds", "soon"),
        ("--log-format", "poem"),
        ("--nonsense", "1"),
    ] {
        // given
        let home = Home::new();

        // when
        let (code, message) = Platform::refusal_to_start(&home.data(), &[&format!("{flag}={value}")]).await;

        // then
        assert_eq!(code, Some(2), "{flag}: {message}");
        assert!(message.contains(flag), "{flag}: {message}");
        assert!(!home.data().exists(), "{flag}={value}: nothing was touched");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    // given
    let platform = Platform::start().await;
    let taken = platform.query_address.trim_start_matches("http://").to_owned();
    let home = Home::new();

    for flag in ["--command-addr", "--query-addr"] {
        // when
        let (code, message) = Platform::refusal_to_start(&home.data(), &[&format!("{flag}={taken}")]).await;

        // then
        assert!(code.is_some_and(|code| code != 0), "{code:?}: {message}");
        assert!(message.contains(&taken) && message.contains(flag), "{message}");
    }
    platform.issuer().await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    // given
    let home = Home::new();
    std::fs::write(home.data(), "a file").unwrap();

    // when
    let (code, message) = Platform::refusal_to_start(&home.data(), &[]).await;

    // then
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {message}");
    assert!(message.contains(&home.data().display().to_string()), "{message}");
    assert!(!message.contains("panicked"), "{message}");
}
