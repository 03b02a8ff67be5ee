//! Log matching: two entries of one range with the same leadership and index have the same bytes and follow the same
//! entry.
//!
//! Election safety is in it: openraft orders leaderships by term, then replica, and lets several be elected
//! in a term, so the leadership that must be unique is that pair, and two leaders of one leadership would append
//! different entries at one index.
//!
//! Source: Ongaro and Ousterhout, "In search of an understandable consensus algorithm" (2014), figure 3; openraft's
//! `docs/data/leader_id.md` for several leaders in a term.

use std::collections::BTreeMap;

use latitude_consensus::inspect::EntryId;
use latitude_types::RangeId;

use crate::violation::{Check, Violation};

/// Every entry that ever stood in a log: the hash of its bytes and the entry before it.
#[derive(Default)]
pub(super) struct Places {
    entries: BTreeMap<(RangeId, EntryId), (u64, Option<EntryId>)>,
}

impl Places {
    /// An entry is written at an index, behind another if that is there.
    pub(super) fn appends(
        &mut self,
        range: RangeId,
        index: u64,
        id: EntryId,
        hash: u64,
        before: Option<EntryId>,
    ) -> Option<Violation> {
        if id.index != index {
            return Some(Check::LogMatching.found(format!("{range} has {id:?} at index {index}")));
        }
        let known = self.entries.entry((range, id)).or_insert((hash, before));
        let follows = known.1.is_none() || before.is_none() || known.1 == before;
        known.1 = known.1.or(before);
        (known.0 != hash || !follows).then(|| {
            let what = if follows { "has other bytes than" } else { "follows another entry than" };
            Check::LogMatching.found(format!("{id:?} of {range} {what} in an earlier log"))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Logs;
    use super::super::tests::{append, id};
    use super::*;

    #[test]
    fn one_place_holds_one_entry_in_every_log_and_the_same_one_before_it() {
        let (a, b): (Arc<str>, Arc<str>) = ("node-1".into(), "node-2".into());
        let mut logs = Logs::default();
        assert_eq!(append(&mut logs, &a, id(1, 1), 10), None);
        assert_eq!(append(&mut logs, &a, id(1, 2), 20), None);
        assert_eq!(append(&mut logs, &b, id(1, 1), 10), None);
        assert_eq!(append(&mut logs, &b, id(1, 2), 21), Some(Check::LogMatching), "other bytes");
        let c: Arc<str> = "node-3".into();
        assert_eq!(append(&mut logs, &c, id(2, 1), 30), None);
        assert_eq!(
            append(&mut logs, &c, id(1, 2), 20),
            Some(Check::LogMatching),
            "another before it"
        );
    }
}
