//! Where dead letters are kept in a platform that needs no place of its own for them.
//!
//! The rule this module protects: whoever says that a dead letter is kept can say where people find it.

use crate::ports::{DeadLetter, DeadLetters, ForeignLetter, ForeignLetters, PortError, PortResult};

/// Dead commands are kept in the event log itself, whose CommandDead records say everything about them: where the log is
/// what people look into, nothing more is to be kept. For a platform in one process, which imports nothing: a malformed
/// message of another context is in no log of ours, and is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct InTheLog;

impl DeadLetters for InTheLog {
    async fn keep(&self, letters: Vec<DeadLetter>) -> PortResult<()> {
        for letter in letters {
            match letter {
                // It was read from the bus, so its record is committed.
                DeadLetter::Command(_) => {}
                DeadLetter::Foreign { message, reason, .. } => {
                    return Err(PortError::Broken(format!(
                        "message {} of another context is malformed ({reason}), and the event log does not keep it",
                        message.message
                    )));
                }
            }
        }
        Ok(())
    }
}

/// And nothing of another context is kept there.
impl ForeignLetters for InTheLog {
    async fn foreign(&self, _: u64, _: usize) -> PortResult<Vec<ForeignLetter>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::outcome::Fingerprint;
    use crate::ports::{ForeignMessage, ForeignPosition};

    #[test]
    fn what_is_in_no_log_of_ours_is_not_said_to_be_kept() {
        let position = ForeignPosition { created_at: 1, message: 7, fingerprint: Fingerprint::of(b"{") };
        let message =
            ForeignMessage { message: 7, subject: "other".to_owned(), payload: Arc::from(&b"{"[..]) };
        let letter = DeadLetter::Foreign { position, message, reason: "malformed".to_owned() };
        let answer = pin!(InTheLog.keep(vec![letter])).poll(&mut Context::from_waker(Waker::noop()));
        assert!(
            matches!(answer, Poll::Ready(Err(PortError::Broken(reason))) if reason.contains("message 7"))
        );
    }
}
