//! What is wrong with a start is said before anything is touched.

use crate::harness::{Home, Platform, eur};

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
        let home = Home::embedded();

        // when
        let (code, message) = Platform::refusal_to_start(&home.data(), &[&format!("{flag}={value}")]).await;

        // then
        assert_eq!(code, Some(64), "{flag}: {message}");
        assert!(message.contains(flag), "{flag}: {message}");
        assert!(!home.data().exists(), "{flag}={value}: nothing was touched");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    // given
    let platform = Platform::start_in(Home::embedded(), &[]).await;
    let taken = platform.query_address.trim_start_matches("http://").to_owned();
    let home = Home::embedded();

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
    let home = Home::embedded();
    std::fs::write(home.data(), "a file").unwrap();

    // when
    let (code, message) = Platform::refusal_to_start(&home.data(), &[]).await;

    // then
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {message}");
    assert!(message.contains(&home.data().display().to_string()), "{message}");
    assert!(!message.contains("panicked"), "{message}");
}

#[tokio::test]
async fn a_log_that_was_restored_is_not_shown_through_later_read_models() {
    // given a copy of the log, and more that happened after it was made
    let platform = Platform::start_in(Home::embedded(), &[]).await;
    let issuer_id = platform.issuer().await;
    platform.signal("-TERM").await;
    let (_, home) = platform.ended().await;
    let copy = std::fs::read(home.data().join("platform.db")).unwrap();
    let platform = Platform::start_in(home, &[]).await;
    let sold = platform.sell(&issuer_id, eur(50, 0)).await;
    platform.outcome(&sold.command_id).await;
    platform.signal("-TERM").await;
    let (_, home) = platform.ended().await;

    // when
    std::fs::write(home.data().join("platform.db"), copy).unwrap();
    let (code, message) = Platform::refusal_to_start(&home.data(), &[]).await;

    // then it says what to do, and that helps
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("delete") && message.contains("readmodels.db"), "{message}");
    std::fs::remove_file(home.data().join("readmodels.db")).unwrap();
    let platform = Platform::start_in(home, &[]).await;
    platform.sell(&issuer_id, eur(50, 0)).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_log_that_cannot_be_written_stops_nobody() {
    // given standard error on a device that is always full
    let platform = Platform::start_with_full_log(Home::embedded()).await;

    // when
    platform.issuer().await;
    platform.signal("-TERM").await;
    let (status, _) = platform.ended().await;

    // then
    assert_eq!(status, Some(0));
}
