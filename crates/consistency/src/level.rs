//! From a request's level to the way it is served.

use latitude_types::{Error, Level, Reason, Result};

/// The levels this version serves. The others are refused, never replaced by a weaker or a stronger
/// one: a client must know what it relies on.
pub const SERVED: &[Level] = &[Level::Strict, Level::Sequential];

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
}

impl KeyspaceLevels {
    /// The levels of a keyspace about to be created.
    ///
    /// - `default`: for requests that name no level.
    /// - `log_only`: no local write can pass under a lock or a bound.
    ///
    /// # Errors
    ///
    /// [`Reason::LevelUnimplemented`] if the default is not served.
    pub fn new(default: Level, log_only: bool) -> Result<Self> {
        if SERVED.contains(&default) {
            Ok(Self { default, log_only })
        } else {
            Err(unimplemented_level(default))
        }
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
/// First those that no version will serve, so that nobody waits for a newer server in vain:
///
/// - [`Reason::LevelNotForCondition`]: a condition at causal or eventual.
/// - [`Reason::ArgumentInvalid`]: a write at causal or eventual in a log-only keyspace.
/// - [`Reason::LevelUnimplemented`]: a level not in [`SERVED`].
pub fn plan(operation: Operation, level: Option<Level>, keyspace: KeyspaceLevels) -> Result<Plan> {
    let is_write = operation != Operation::Read;
    let level = match (level, operation) {
        (Some(level), _) => level,
        (None, Operation::ConditionalWrite) => Level::Strict,
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
    if !SERVED.contains(&level) {
        return Err(unimplemented_level(level));
    }
    let route = match level {
        _ if is_write => Route::ThroughLog,
        Level::Strict => Route::ReadIndex,
        // The weaker levels are not served yet, and are refused above.
        Level::Sequential | Level::Causal | Level::Eventual => Route::ClosedTime,
    };
    Ok(Plan { level, route })
}

fn unimplemented_level(level: Level) -> Error {
    let served: Vec<_> = SERVED.iter().map(|level| level.name()).collect();
    Error::new(
        Reason::LevelUnimplemented,
        format!(
            "the level {level} is not served by this version, only {}: ask for {}",
            served.join(", "),
            Level::Strict
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATIONS: [Operation; 3] =
        [Operation::Read, Operation::Write, Operation::ConditionalWrite];

    #[test]
    fn a_request_gets_its_own_level_or_an_error() {
        for log_only in [false, true] {
            let keyspace = KeyspaceLevels::new(Level::Strict, log_only).unwrap();
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
    fn no_write_avoids_the_log() {
        let keyspace = KeyspaceLevels::new(Level::Strict, false).unwrap();
        for operation in [Operation::Write, Operation::ConditionalWrite] {
            assert_eq!(plan(operation, None, keyspace).unwrap().route, Route::ThroughLog);
        }
    }
}
