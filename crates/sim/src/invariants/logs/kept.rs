//! What is committed stays: an entry that was applied anywhere is neither cut off nor overwritten, and is purged
//! only once it is applied, until the range is dropped.
//!
//! Stronger than what Raft needs, a quorum of copies: a follower cuts off only what its leader does not have, and no leader
//! lacks what is committed.
//!
//! Source: Ongaro and Ousterhout, "In search of an understandable consensus algorithm" (2014), figure 3, leader
//! completeness and state machine safety.

use latitude_consensus::inspect::EntryId;
use latitude_types::RangeId;

use super::super::applied::AppliedEntries;
use crate::violation::{Check, Violation};

/// A log is purged up to an entry by a host that has applied the range so far.
pub(super) fn purges(range: RangeId, upto: EntryId, applied: Option<u64>) -> Option<Violation> {
    applied.is_none_or(|last| last < upto.index).then(|| {
        Check::Kept.found(format!("{range} purges up to {upto:?}, which is not applied here"))
    })
}

/// An entry gives way to another.
pub(super) fn overwrites(
    range: RangeId,
    over: EntryId,
    by: EntryId,
    applied: &AppliedEntries,
) -> Option<Violation> {
    (applied.id(range, over.index) == Some(over)).then(|| {
        Check::Kept.found(format!("{range} overwrites {over:?}, which was applied, by {by:?}"))
    })
}

/// An entry goes that is not purged.
pub(super) fn cuts(range: RangeId, entry: EntryId, applied: &AppliedEntries) -> Option<Violation> {
    (applied.id(range, entry.index) == Some(entry))
        .then(|| Check::Kept.found(format!("{range} cuts off {entry:?}, which was applied")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use latitude_consensus::inspect::LogEntry;
    use latitude_storage::Batch;

    use super::super::Row;
    use super::super::tests::{GENERATION, RANGE, cut, id, log_of};
    use super::*;

    #[test]
    fn what_was_applied_anywhere_is_cut_off_only_by_a_purge_of_what_is_applied_here() {
        let host: Arc<str> = "node-1".into();
        let applied = AppliedEntries::with(RANGE, &[id(1, 1)]);
        let check = |batch: &Batch, applied: &AppliedEntries| {
            let mut logs = log_of(&host, &[id(1, 1), id(1, 2)]);
            logs.writes(&host, batch, applied, &BTreeSet::new()).first().map(|found| found.check)
        };
        assert_eq!(check(&cut(2), &applied), None, "nobody has applied it");
        assert_eq!(check(&cut(1), &applied), Some(Check::Kept));
        let mut first = log_of(&host, &[id(1, 0)]);
        let at_first = AppliedEntries::with(RANGE, &[id(1, 0)]);
        let found = first.writes(&host, &cut(0), &at_first, &BTreeSet::new());
        assert_eq!(found.first().map(|found| found.check), Some(Check::Kept), "the very first");
        let mut logs = log_of(&host, &[id(1, 1), id(1, 2)]);
        let found = logs.purges(&host, RANGE, GENERATION, id(1, 1), &applied);
        assert_eq!(found.map(|found| found.check), Some(Check::Kept), "it is not applied here");
        let none = BTreeSet::new();
        assert!(logs.writes(&host, &cut(1), &applied, &none).is_empty(), "purged is not cut off");
        let mut logs = log_of(&host, &[id(1, 1)]);
        let dropped = BTreeSet::from([RANGE]);
        assert!(logs.writes(&host, &cut(1), &applied, &dropped).is_empty(), "nobody misses it");
        let mut over = log_of(&host, &[id(1, 1)]);
        let row = Row { entry: LogEntry { id: id(2, 1), command: None }, hash: 2 };
        let found = over.appends(&host, RANGE, GENERATION, 1, row, &applied);
        assert_eq!(found.map(|found| found.check), Some(Check::Kept));
    }
}
