//! From a request's level to the way it is served.

use latitude_types::{Error, Level, Reason, Result};

/// What a request does, as far as levels care.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Get or scan.
    Read,
    /// A write that takes effect whatever is there.
    Write,
    /// A write that depends on what is there: compare-and-set, put-if-absent, add within bounds.
    ConditionalWrite,
}

/// What a keyspace says of levels. Always one that can be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyspaceLevels {
    default: Level,
    log_only: bool,
}

/// How a request is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The level the answer will have: the one asked for, or the default.
    pub level: Level,
    /// The way there.
    pub route: Route,
}

/// The way a request takes to its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Proposed to the range's log; answered after commit and apply.
    ThroughLog,
    /// One read-index round that starts after the read's arrival; answered when the replica has
    /// applied the index it yields.
    ReadIndex,
    /// From whichever replica is near, once its closed time has reached the session's.
    ClosedTime,
    /// Taken by the nearest origin, durably, and folded into the log later. A causal one waits until what its
    /// session follows is there.
    LocalWrite,
    /// From base and overlay of whichever replica is near, once what the session follows is there.
    CausalRead,
    /// From base and overlay of whichever replica is near, as they are.
    EventualRead,
}

impl KeyspaceLevels {
    /// The levels of a keyspace about to be created.
    ///
    /// - `default`: for requests that name no level.
    /// - `log_only`: no local write can pass under a lock or a bound.
    pub fn new(default: Level, log_only: bool) -> Self {
        Self { default, log_only }
    }

    /// The level of a request that names none.
    pub fn default_level(self) -> Level {
        self.default
    }

    /// Whether every write goes through the log.
    pub fn is_log_only(self) -> bool {
        self.log_only
    }
}

/// How `operation` is served when its request asks for `level` (`None`: names no level).
///
/// A conditional write without a level is strict whatever the keyspace's default, because a condition
/// is judged at one place in the log.
///
/// # Errors
///
/// - [`Reason::LevelNotForCondition`]: a condition at causal or eventual.
/// - [`Reason::ArgumentInvalid`]: a write at causal or eventual in a log-only keyspace.
pub fn plan(operation: Operation, level: Option<Level>, keyspace: KeyspaceLevels) -> Result<Plan> {
    let is_write = operation != Operation::Read;
    let level = match (level, operation) {
        (Some(level), _) => level,
        (None, Operation::ConditionalWrite) => Level::Strict,
        // A log-only keyspace may well be read at a local level by default.
        (None, Operation::Write) if keyspace.log_only && !keyspace.default.writes_through_log() => {
            Level::Strict
        }
        (None, _) => keyspace.default,
    };
    if operation == Operation::ConditionalWrite && !level.writes_through_log() {
        return Err(Error::new(
            Reason::LevelNotForCondition,
            format!(
                "a conditional write is judged at its place in the log and cannot be {level}: \
                 ask for strict, or name no level"
            ),
        ));
    }
    if is_write && keyspace.log_only && !level.writes_through_log() {
        return Err(Error::new(
            Reason::ArgumentInvalid,
            format!(
                "the keyspace is log-only and takes no {level} write: \
                 ask for strict, or name no level"
            ),
        ));
    }
    let route = match level {
        Level::Strict | Level::Sequential if is_write => Route::ThroughLog,
        Level::Causal | Level::Eventual if is_write => Route::LocalWrite,
        Level::Strict => Route::ReadIndex,
        Level::Sequential => Route::ClosedTime,
        Level::Causal => Route::CausalRead,
        Level::Eventual => Route::EventualRead,
    };
    Ok(Plan { level, route })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATIONS: [Operation; 3] =
        [Operation::Read, Operation::Write, Operation::ConditionalWrite];

    #[test]
    fn a_request_gets_its_own_level_or_an_error() {
        for log_only in [false, true] {
            let keyspace = KeyspaceLevels::new(Level::Strict, log_only);
            for operation in OPERATIONS {
                for level in Level::ALL {
                    match plan(operation, Some(level), keyspace) {
                        Ok(plan) => assert_eq!(plan.level, level),
                        Err(error) => {
                            assert!(!error.may_have_applied() && !error.is_retryable());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_write_goes_through_the_log_exactly_if_its_level_does() {
        for default in Level::ALL {
            let keyspace = KeyspaceLevels::new(default, false);
            let write = plan(Operation::Write, None, keyspace).unwrap();
            assert_eq!(write.route == Route::ThroughLog, default.writes_through_log());
            let condition = plan(Operation::ConditionalWrite, None, keyspace).unwrap();
            assert_eq!((condition.level, condition.route), (Level::Strict, Route::ThroughLog));
        }
    }

    /// Pitfall 31: there, and only there, a bound or a lock holds against everybody.
    #[test]
    fn no_local_write_passes_into_a_log_only_keyspace() {
        let keyspace = KeyspaceLevels::new(Level::Strict, true);
        for level in [Level::Causal, Level::Eventual] {
            assert!(plan(Operation::Write, Some(level), keyspace).is_err());
            assert!(plan(Operation::Read, Some(level), keyspace).is_ok());
        }
        let keyspace = KeyspaceLevels::new(Level::Causal, true);
        assert_eq!(plan(Operation::Write, None, keyspace).unwrap().level, Level::Strict);
        assert_eq!(plan(Operation::Read, None, keyspace).unwrap().level, Level::Causal);
    }
}
