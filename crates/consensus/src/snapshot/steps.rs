//! The steps of a snapshot's way, at each of which a test can stop the node.

use std::fmt;
use std::io;
use std::str::FromStr;

use latitude_types::RangeId;

/// A step that is done, while the next has not begun.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    /// The leader's log was shortened.
    Purge,
    /// The leader took its engine's snapshot and has sent nothing.
    Build,
    /// The leader sent some of it.
    Send,
    /// The follower staged some of it.
    Receive,
    /// The follower staged all of it, durably.
    Stage,
    /// It is noted durably that the set is being installed.
    Mark,
    /// The set's rows have replaced the range's.
    Replace,
    /// The log is cut to the snapshot and the note is gone, durably.
    Apply,
    /// The set is removed.
    Cleanup,
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Self; 9] = [
        Self::Purge,
        Self::Build,
        Self::Send,
        Self::Receive,
        Self::Stage,
        Self::Mark,
        Self::Replace,
        Self::Apply,
        Self::Cleanup,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Purge => "purge",
            Self::Build => "build",
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Stage => "stage",
            Self::Mark => "mark",
            Self::Replace => "replace",
            Self::Apply => "apply",
            Self::Cleanup => "cleanup",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|step| step.name() == name);
        found.ok_or_else(|| format!("{name:?} is no step of a snapshot"))
    }
}

/// Told of every step. In production it does nothing.
///
/// To play a crash, it makes the store fail, or ends the process; what it was told of goes no further if
/// it returns an error.
pub trait Failpoints: Send + Sync + 'static {
    /// A step of a range's snapshot is done.
    fn reached(&self, range: RangeId, step: Step) -> io::Result<()>;
}

/// Lets everything pass.
pub struct NoFailpoints;

impl Failpoints for NoFailpoints {
    fn reached(&self, _: RangeId, _: Step) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_found_by_its_name() {
        for step in Step::ALL {
            assert_eq!(step.name().parse(), Ok(step));
        }
        assert!("ingest".parse::<Step>().is_err());
    }
}
