//! Why a command failed, said to a person or a script: the reason, a sentence, what to do next.

use std::io;

use latitude_types::{Error, Kind, Outcome, Reason};
use serde_json::json;

use crate::config::ConfigError;
use crate::exit::Exit;
use crate::output::{Format, Output};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The cluster or the client library refused or lost the request.
    #[error(transparent)]
    Request(#[from] Error),
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
    /// Something of this machine failed.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// The exit code of the command.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Request(error) => Exit::of(error),
            Self::Usage(_) | Self::Config(_) => Exit::Refused,
            // Whoever reads our output wanted no more of it (`latitude scan | head`).
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Self::Output(_) | Self::Other(_) => Exit::Fault,
        }
    }

    /// Prints the failure to stderr and says how the command ends.
    pub fn report(&self, output: &mut Output<'_>) -> Exit {
        let exit = self.exit();
        if exit != Exit::Success {
            let line = match output.format() {
                Format::Text => self.text(),
                Format::Json => self.json().to_string(),
            };
            // Nothing is left to be told that stderr is gone.
            let _ = output.error_line(&line);
        }
        exit
    }

    fn text(&self) -> String {
        let mut text = match self {
            Self::Request(error) => {
                let mut text = format!("error: {}: {}", error.reason, error.message);
                if let Some(missing) = &error.missing_quorum {
                    text += &format!(" ({missing})");
                }
                text
            }
            other => format!("error: {other}"),
        };
        if let Some(hint) = self.hint() {
            text += &format!("\nhint: {hint}");
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let mut error = match self {
            Self::Request(error) => {
                let mut object = json!({
                    "reason": error.reason.name(),
                    "outcome": match error.outcome {
                        Outcome::NotApplied => "not_applied",
                        Outcome::Unknown => "unknown",
                    },
                    "message": error.message,
                });
                if let Some(wait) = error.retry_after {
                    object["retry_after_ms"] = json!(wait.as_millis() as u64);
                }
                if let Some(leader) = &error.leader {
                    object["leader"] = json!({ "range": leader.range, "node": leader.node });
                }
                if let Some(missing) = &error.missing_quorum {
                    object["missing_quorum"] = json!({
                        "range": missing.range,
                        "needed": missing.needed,
                        "silent_nodes": missing.silent,
                    });
                }
                object
            }
            Self::Usage(message) => json!({ "reason": "USAGE", "message": message }),
            Self::Config(error) => json!({ "reason": "CONFIG", "message": error.to_string() }),
            Self::Output(_) | Self::Other(_) => {
                json!({ "reason": "LOCAL", "message": self.to_string() })
            }
        };
        error["exit_code"] = json!(self.exit() as u8);
        if let Some(hint) = self.hint() {
            error["hint"] = json!(hint);
        }
        json!({ "error": error })
    }

    /// What to do next, where there is more to say than the message does.
    fn hint(&self) -> Option<String> {
        let Self::Request(error) = self else { return None };
        if error.may_have_applied() {
            return Some(
                "the write may have happened, or may yet: read before you write again".to_string(),
            );
        }
        let hint = match error.reason {
            Reason::Unreachable => {
                "is a node running there? name others with --to, or start one with `latitude start`"
            }
            Reason::NotInitialized => "make the cluster with `latitude init`, once, on any node",
            Reason::KeyspaceUnknown => {
                "see what exists with `latitude admin keyspace list`, or make it with `latitude admin keyspace create`"
            }
            Reason::LevelUnimplemented => "ask for --level strict",
            Reason::PlacementUnsatisfiable => "see the nodes with `latitude admin nodes`",
            Reason::TokenInvalid | Reason::TokenForeign | Reason::TokenFromFuture => {
                "begin a new session: give another --session file, or remove this one"
            }
            Reason::NoQuorum => "see which nodes are alive with `latitude admin nodes`",
            Reason::DeadlinePast | Reason::DeadlineExceeded => {
                "it had no effect; see which nodes are alive with `latitude admin nodes`, or allow more time with --timeout"
            }
            Reason::DiskFull => "make room on the node's disk; reads go on meanwhile",
            Reason::Internal => "this is a fault of Latitude: please report it with the node's log",
            _ => match error.kind() {
                Kind::Redirect | Kind::Unavailable | Kind::Exhausted => match error.retry_after {
                    Some(wait) => {
                        return Some(format!(
                            "it had no effect; try again in {} ms",
                            wait.as_millis()
                        ));
                    }
                    None => "it had no effect; try again",
                },
                _ => return None,
            },
        };
        Some(hint.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use latitude_types::{LeaderHint, MissingQuorum, NodeId, RangeId};

    use super::*;

    fn report(failure: impl Into<Failure>, format: Format) -> (Exit, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = failure.into().report(&mut Output::new(format, &mut out, &mut err));
        assert!(out.is_empty(), "an error is no answer");
        (exit, String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_text_error_names_reason_sentence_and_what_to_do() {
        let error = Error::new(Reason::TooManyRequests, "the node has 4096 requests in hand")
            .retry_after(Duration::from_millis(40));
        assert_eq!(
            report(error, Format::Text),
            (
                Exit::Unavailable,
                "error: TOO_MANY_REQUESTS: the node has 4096 requests in hand\n\
                 hint: it had no effect; try again in 40 ms\n"
                    .to_string()
            )
        );
    }

    #[test]
    fn an_unknown_outcome_is_said_before_anything_else() {
        let (exit, text) =
            report(Error::unknown(Reason::Unreachable, "the connection broke"), Format::Text);
        assert_eq!(exit, Exit::OutcomeUnknown);
        assert!(text.contains("the write may have happened"), "{text}");
    }

    #[test]
    fn a_json_error_is_one_line_with_every_detail() {
        let error = Error {
            leader: Some(LeaderHint { range: RangeId(7), node: NodeId(2) }),
            missing_quorum: Some(MissingQuorum {
                range: RangeId(7),
                needed: 2,
                silent: vec![NodeId(1), NodeId(3)],
            }),
            ..Error::new(Reason::NoQuorum, "two of three do not answer")
        };
        let (_, text) = report(error, Format::Json);
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value["error"],
            json!({
                "reason": "NO_QUORUM",
                "outcome": "not_applied",
                "message": "two of three do not answer",
                "leader": { "range": 7, "node": 2 },
                "missing_quorum": { "range": 7, "needed": 2, "silent_nodes": [1, 3] },
                "exit_code": 3,
                "hint": "see which nodes are alive with `latitude admin nodes`",
            })
        );
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(report(gone, Format::Text), (Exit::Success, String::new()));
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(report(full, Format::Text).0, Exit::Fault);
    }

    #[test]
    fn a_wrong_command_line_exits_like_a_wrong_request() {
        let (exit, text) = report(Failure::Usage("say what to write".into()), Format::Text);
        assert_eq!((exit, text.as_str()), (Exit::Refused, "error: say what to write\n"));
    }
}
