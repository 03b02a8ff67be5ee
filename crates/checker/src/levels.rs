//! The consistency levels an operation of a history can name.

use std::fmt;
use std::str::FromStr;

use crate::history::{MicroOp, Operation};

/// What an operation asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Accepted anywhere, read from anywhere, and carries no past.
    Eventual,
    /// Accepted anywhere, with its session's past.
    Causal,
    /// Through the log; reads may be old.
    Sequential,
    /// Through the log; reads are not old.
    Strict,
}

impl Level {
    /// Whether it is served by the log, and by nothing that the log does not have yet.
    pub fn is_log(self) -> bool {
        self >= Self::Sequential
    }

    /// What an operation is judged at: what it names, or `unnamed`. Conditional writes go through the log
    /// whatever they name. `Err`: it names no level there is.
    pub(crate) fn of(operation: &Operation, unnamed: Self) -> Result<Self, &str> {
        let level = match operation.extras.level.as_deref() {
            Some(name) => name.parse().map_err(|()| name)?,
            None => unnamed,
        };
        let conditional = |op: &MicroOp| {
            use MicroOp::{BoundedAdd, CompareAndSet, PutIfAbsent};
            matches!(op, CompareAndSet { .. } | PutIfAbsent { .. } | BoundedAdd { .. })
        };
        let by_log = !level.is_log() && operation.micro_ops.iter().any(conditional);
        Ok(if by_log { Self::Strict } else { level })
    }
}

impl FromStr for Level {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "strict" => Ok(Self::Strict),
            "sequential" => Ok(Self::Sequential),
            "causal" => Ok(Self::Causal),
            "eventual" => Ok(Self::Eventual),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Sequential => "sequential",
            Self::Causal => "causal",
            Self::Eventual => "eventual",
        })
    }
}
