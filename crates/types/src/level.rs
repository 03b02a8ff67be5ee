//! The consistency levels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a request asks for; each request names its own, on the same keys. Strongest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Level {
    /// Linearizable over log operations.
    Strict,
    /// One total order over all ranges that holds every session's order; may be stale.
    Sequential,
    /// Causal convergence: no effect without its causes.
    Causal,
    /// Whatever the nearest replica holds; replicas converge.
    Eventual,
}

impl Level {
    /// All levels, strongest first.
    pub const ALL: [Self; 4] = [Self::Strict, Self::Sequential, Self::Causal, Self::Eventual];

    /// The level of requests that name none, in keyspaces that were created without one.
    pub const DEFAULT: Self = Self::Causal;

    /// Whether a write at this level goes through the range's log (else a nearby origin takes it).
    pub fn writes_through_log(self) -> bool {
        matches!(self, Self::Strict | Self::Sequential)
    }

    /// The level's name, as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Sequential => "sequential",
            Self::Causal => "causal",
            Self::Eventual => "eventual",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A level's name was not one of the four.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a consistency level: use strict, sequential, causal or eventual")]
pub struct ParseLevelError(String);

impl FromStr for Level {
    type Err = ParseLevelError;

    fn from_str(s: &str) -> Result<Self, ParseLevelError> {
        Self::ALL
            .into_iter()
            .find(|level| level.name() == s)
            .ok_or_else(|| ParseLevelError(s.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_parses_from_its_name() {
        for level in Level::ALL {
            assert_eq!(level.name().parse(), Ok(level));
        }
        assert_eq!("Strict".parse::<Level>(), Err(ParseLevelError("Strict".into())));
    }
}
