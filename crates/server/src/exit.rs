//! What the exit codes mean. Scripts rely on them: they change only with a major version.

use latitude_types::{Error, Kind};

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// The request was served, and the answer is no: the key does not exist, the condition did not hold, replicas
    /// differ.
    No = 1,
    /// The request can never succeed as it is.
    Refused = 2,
    /// It cannot be served now, and it certainly had no effect.
    Unavailable = 3,
    /// A write may have happened, or may yet.
    OutcomeUnknown = 4,
    /// A fault of ours or of this machine.
    Fault = 5,
}

impl Exit {
    /// The same as `latitude help exit-codes` says it.
    pub const MEANING: &str = "\
The exit code says what a script may do next:

  0  Done.
  1  The answer is no: `get` found no such key, the condition of `cas` did not hold, or `admin audit`
     found replicas that differ.
  2  The command or the request is wrong, or the cluster's state forbids it: change something first.
  3  Not now: no node or quorum answered in time, or there was too much to do. A write certainly had
     no effect and never will: run the command again.
  4  The outcome of a write is unknown: it may have happened, or may yet. Read before writing again.
  5  A fault of Latitude or of this machine: the message says which.

With --output json, the error on stderr says the same in its fields `reason` and `outcome`.";

    /// The exit of a request that failed with `error`. Whether a write may have happened comes first:
    /// whatever the reason, that is what a script must know.
    pub fn of(error: &Error) -> Self {
        if error.may_have_applied() {
            return Self::OutcomeUnknown;
        }
        match error.kind() {
            Kind::Invalid | Kind::NotFound | Kind::Precondition | Kind::Unimplemented => {
                Self::Refused
            }
            Kind::Redirect | Kind::Unavailable | Kind::Exhausted | Kind::Deadline => {
                Self::Unavailable
            }
            Kind::Internal => Self::Fault,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::Reason;

    use super::*;

    #[test]
    fn every_reason_without_effect_has_its_exit_code() {
        for reason in Reason::ALL {
            let expected = match reason {
                Reason::KeyEmpty
                | Reason::KeyTooLong
                | Reason::ValueTooLarge
                | Reason::LevelUnknown
                | Reason::LevelUnimplemented
                | Reason::LevelNotForCondition
                | Reason::BatchTooLarge
                | Reason::ScanSpanEmpty
                | Reason::ContinuationInvalid
                | Reason::Malformed
                | Reason::ArgumentInvalid
                | Reason::KeyspaceUnknown
                | Reason::KeyspaceChanged
                | Reason::KeyspaceExists
                | Reason::TypeMismatch
                | Reason::PlacementUnsatisfiable
                | Reason::NotInitialized
                | Reason::AlreadyInitialized
                | Reason::IdExpired
                | Reason::IdFromFuture
                | Reason::IdRetired
                | Reason::TokenInvalid
                | Reason::TokenForeign
                | Reason::TokenFromFuture => 2,
                Reason::DeadlinePast
                | Reason::DeadlineExceeded
                | Reason::NotLeader
                | Reason::RangeMoved
                | Reason::RangeNotHere
                | Reason::NoQuorum
                | Reason::ReplicaBehind
                | Reason::StalenessUnproved
                | Reason::RangeFrozen
                | Reason::NotFolded
                | Reason::NotOrigin
                | Reason::SealPending
                | Reason::NoLeader
                | Reason::LeaderChanged
                | Reason::ShuttingDown
                | Reason::ClockUnsynced
                | Reason::ReplicaQuarantined
                | Reason::Unreachable
                | Reason::TooManyRequests
                | Reason::UnfoldedQuota
                | Reason::DiskFull => 3,
                Reason::Internal => 5,
            };
            assert_eq!(Exit::of(&Error::new(*reason, "why")) as u8, expected, "{reason}");
        }
    }

    #[test]
    fn a_write_that_may_have_happened_exits_with_4_whatever_the_reason() {
        for reason in Reason::ALL {
            assert_eq!(Exit::of(&Error::unknown(*reason, "why")) as u8, 4, "{reason}");
        }
    }

    #[test]
    fn the_help_explains_every_code() {
        for exit in [
            Exit::Success,
            Exit::No,
            Exit::Refused,
            Exit::Unavailable,
            Exit::OutcomeUnknown,
            Exit::Fault,
        ] {
            assert!(Exit::MEANING.contains(&format!("\n  {}  ", exit as u8)), "{exit:?}");
        }
    }
}
