//! What was written, and what must be read back.
//!
//! Every write of the demo has a key of its own, so that each can be looked for by itself:
//!
//! ```text
//!   Europe/Berlin                        a zone, as imported
//!   Europe/Berlin#cost/eu/strict/put/17  a write of a later part
//! ```

use latitude_client::{Answer, Keyspace, Level, Result, WriteTime};

/// What became of a write, as its client was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It happened.
    Acknowledged,
    /// It may have happened, or may yet.
    Unknown,
    /// It certainly never happens.
    NotApplied,
}

/// A write of a key that nothing else writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Write {
    /// The key.
    pub(crate) key: String,
    /// The value.
    pub(crate) value: String,
    /// The level it was asked for at.
    pub(crate) level: Level,
    /// Index of the site it was written from.
    pub(crate) site: usize,
    /// What became of it.
    pub(crate) fate: Fate,
}

impl Write {
    /// A write of `key` from a site that went as `result` says.
    pub(crate) fn new<T>(
        key: String,
        value: String,
        level: Level,
        site: usize,
        result: &Result<T>,
    ) -> Self {
        let fate = match result {
            Ok(_) => Fate::Acknowledged,
            Err(error) if error.may_have_applied() => Fate::Unknown,
            Err(_) => Fate::NotApplied,
        };
        Self { key, value, level, site, fate }
    }

    /// Whether what a strict read found fits what became of the write.
    pub(crate) fn fits(&self, found: Option<&[u8]>) -> bool {
        match self.fate {
            Fate::Acknowledged => found == Some(self.value.as_bytes()),
            Fate::Unknown => found.is_none_or(|found| found == self.value.as_bytes()),
            Fate::NotApplied => found.is_none(),
        }
    }

    /// Whether it may take a while until a strict read finds it: it did not go through the log.
    pub(crate) fn may_appear_late(&self) -> bool {
        self.fate == Fate::Acknowledged && !self.level.writes_through_log()
    }
}

/// Writes a key of its own, and puts it down.
pub(crate) async fn put(
    keyspace: &Keyspace,
    level: Level,
    site: usize,
    key: String,
    value: String,
) -> (Write, Result<Answer<WriteTime>>) {
    let result = keyspace.put(&key, value.clone()).await;
    (Write::new(key, value, level, site, &result), result)
}

#[cfg(test)]
mod tests {
    use latitude_client::{Error, Reason};

    use super::*;

    fn write(result: &Result<()>, level: Level) -> Write {
        Write::new("k".to_string(), "v".to_string(), level, 0, result)
    }

    /// Whether nothing, the value written and another value fit.
    fn fits(result: &Result<()>) -> [bool; 3] {
        let write = write(result, Level::Strict);
        [None, Some("v"), Some("x")].map(|found| write.fits(found.map(str::as_bytes)))
    }

    #[test]
    fn an_acknowledged_write_is_there_and_nothing_else_is() {
        assert_eq!(fits(&Ok(())), [false, true, false]);
    }

    #[test]
    fn a_write_of_unknown_outcome_is_there_or_not() {
        assert_eq!(fits(&Err(Error::unknown(Reason::LeaderChanged, ""))), [true, true, false]);
    }

    #[test]
    fn a_write_said_not_to_have_happened_has_not() {
        assert_eq!(fits(&Err(Error::new(Reason::NoLeader, ""))), [true, false, false]);
    }

    #[test]
    fn only_an_acknowledged_write_beside_the_log_may_appear_late() {
        let refused = Err(Error::new(Reason::NoLeader, ""));
        assert!(write(&Ok(()), Level::Causal).may_appear_late());
        assert!(!write(&Ok(()), Level::Strict).may_appear_late());
        assert!(!write(&refused, Level::Causal).may_appear_late());
    }
}
