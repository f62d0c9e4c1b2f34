//! Many dead letters, one after the other.
//!
//! The rule this module protects: one that cannot be resolved, for whatever reason, holds up no other, and each is accounted for at
//! the end.

use tonic::{Code, Status};

use crate::api::proto::financing::v1::{CommandState, DeadLetterResolution};
use crate::runtime::client::ClientError;
use crate::runtime::terminal::Terminal;

use super::show;

/// The reason of a letter that has to wait for another.
const EARLIER: &str = "EARLIER_DEAD_LETTER";

/// How many there are of each end.
#[derive(Debug, Default)]
struct Tally {
    done: usize,
    refused: usize,
    failed: usize,
}

impl Tally {
    fn count(&mut self, resolution: &DeadLetterResolution) {
        match resolution.state() {
            CommandState::Applied | CommandState::Unchanged => self.done += 1,
            CommandState::Refused => self.refused += 1,
            CommandState::Dead | CommandState::Pending | CommandState::Unspecified => self.failed += 1,
        }
    }

    /// What is printed at the end, or failed with.
    fn end(&self, what: &str) -> Result<String, ClientError> {
        let Self { done, refused, failed } = *self;
        let message = format!("{done} {what}, {refused} refused, {failed} failed");
        match (refused, failed) {
            (0, 0) if done == 0 => Ok("there are no open dead letters\n".to_owned()),
            (0, 0) => Ok(String::new()),
            (_, 0) => Err(ClientError::Ended { message, code: 2 }),
            (_, _) => Err(ClientError::Ended { message, code: 1 }),
        }
    }
}

/// Why a letter stays as it is for now.
enum Stays {
    Refused(String),
    Failed(String),
}

/// Letters that are resolved in turn.
pub(super) struct Turns<S> {
    pub(super) terminal: Terminal,
    /// What is done about them: `retried`, `discarded`.
    pub(super) what: &'static str,
    /// Prints a line.
    pub(super) say: S,
}

impl<S: FnMut(&str) -> Result<(), ClientError>> Turns<S> {
    /// Resolves them in order. One that has to wait for an earlier letter, or for a platform that gives no answer, comes again, as long as
    /// any other is done.
    pub(super) async fn take(
        mut self,
        ids: Vec<String>,
        mut resolve: impl AsyncFnMut(String) -> Result<DeadLetterResolution, Status>,
    ) -> Result<String, ClientError> {
        let alone = ids.len() == 1;
        let (mut tally, mut left) = (Tally::default(), ids);
        loop {
            let (before, mut waiting) = (left.len(), Vec::new());
            for id in std::mem::take(&mut left) {
                let status = match resolve(id.clone()).await {
                    Ok(resolution) => {
                        (self.say)(&show::resolved(self.terminal, self.what, &id, &resolution))?;
                        tally.count(&resolution);
                        continue;
                    }
                    Err(status) => status,
                };
                let unavailable = status.code() == Code::Unavailable;
                let (stays, waits) = match ClientError::from(status) {
                    ClientError::Refused { reason, message } => {
                        let line = show::refused(self.terminal, &id, &reason, &message);
                        (Stays::Refused(line), reason == EARLIER)
                    }
                    error @ (ClientError::Ended { .. } | ClientError::Failed(_)) if alone => {
                        return Err(error);
                    }
                    error @ (ClientError::Ended { .. } | ClientError::Failed(_)) => {
                        (Stays::Failed(show::failed(self.terminal, &id, &error.to_string())), unavailable)
                    }
                };
                if waits {
                    waiting.push((id, stays));
                } else {
                    self.stays(stays, &mut tally)?;
                }
            }
            if waiting.is_empty() || waiting.len() == before {
                for (_, stays) in waiting {
                    self.stays(stays, &mut tally)?;
                }
                return tally.end(self.what);
            }
            left = waiting.into_iter().map(|(id, _)| id).collect();
        }
    }

    fn stays(&mut self, stays: Stays, tally: &mut Tally) -> Result<(), ClientError> {
        let line = match stays {
            Stays::Refused(line) => {
                tally.refused += 1;
                line
            }
            Stays::Failed(line) => {
                tally.failed += 1;
                line
            }
        };
        (self.say)(&line)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;

    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    /// What was said, the end, and how often each was asked for.
    async fn turns(
        ids: &[&str],
        mut answer: impl FnMut(&str, usize) -> Result<CommandState, Status>,
    ) -> (Vec<String>, Result<String, ClientError>, HashMap<String, usize>) {
        let (lines, mut asked) = (RefCell::new(Vec::new()), HashMap::<String, usize>::new());
        let say = |line: &str| {
            lines.borrow_mut().push(line.to_owned());
            Ok(())
        };
        let resolve = async |id: String| {
            let times = asked.entry(id.clone()).or_default();
            *times += 1;
            let state = answer(&id, *times)?;
            Ok(DeadLetterResolution { state: state.into(), ..DeadLetterResolution::default() })
        };
        let ids = ids.iter().map(|&id| id.to_owned()).collect();
        let turns = Turns { terminal: Terminal::new(160, false), what: "retried", say };
        let end = turns.take(ids, resolve).await;
        (lines.into_inner(), end, asked)
    }

    fn earlier() -> Status {
        let details = ErrorDetails::with_error_info(EARLIER, "financing", HashMap::new());
        Status::with_error_details(Code::FailedPrecondition, "one is open", details)
    }

    #[tokio::test]
    async fn one_that_gets_no_answer_holds_up_no_other_and_fails_the_whole() {
        let (lines, end, asked) = turns(&["a", "b", "c"], |id, _| match id {
            "a" => Err(Status::unavailable("the event bus is behind the event log")),
            _ => Ok(CommandState::Applied),
        })
        .await;
        let error = end.unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (1, "2 retried, 0 refused, 1 failed"));
        assert!(lines[0].starts_with("b  retried") && lines[1].starts_with("c  retried"), "{lines:?}");
        assert_eq!(lines[2], "a  failed: the event bus is behind the event log\n");
        assert_eq!(asked["a"], 2, "once more after the others");
    }

    #[tokio::test]
    async fn one_that_gets_an_answer_the_second_time_is_done() {
        let (lines, end, _) = turns(&["a", "b", "c"], |id, times| match (id, times) {
            ("a", 1) => Err(Status::unavailable("a moment")),
            ("b", 1) => Err(earlier()),
            _ => Ok(CommandState::Applied),
        })
        .await;
        assert_eq!(end.unwrap(), "");
        let order: Vec<&str> = lines.iter().map(|line| &line[..1]).collect();
        assert_eq!(order, ["c", "a", "b"]);
    }

    #[tokio::test]
    async fn what_is_broken_is_not_asked_for_again_and_holds_up_no_other() {
        let (_, end, asked) = turns(&["a", "b", "c"], |id, _| match id {
            "a" => Err(Status::internal("a defect")),
            "b" => Err(earlier()),
            _ => Ok(CommandState::Dead),
        })
        .await;
        let error = end.unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (1, "0 retried, 1 refused, 2 failed"));
        assert_eq!((asked["a"], asked["c"]), (1, 1));
    }

    #[tokio::test]
    async fn one_alone_fails_with_what_it_was_told() {
        let (lines, end, _) = turns(&["a"], |_, _| Err(Status::unavailable("not now"))).await;
        assert_eq!((end.unwrap_err().to_string().as_str(), lines.len()), ("not now", 0));
        assert_eq!(turns(&[], |_, _| Err(earlier())).await.1.unwrap(), "there are no open dead letters\n");
        assert_eq!(turns(&["a"], |_, _| Err(earlier())).await.1.unwrap_err().exit_code(), 2);
    }
}
