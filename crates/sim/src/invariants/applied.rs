//! State machine safety: whatever is applied at an index of a range is the same entry on every replica.
//!
//! Source: Ongaro and Ousterhout, "In search of an understandable consensus algorithm" (2014), figure 3.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use latitude_consensus::inspect::EntryId;
use latitude_range::Entry;
use latitude_types::{RangeId, Stamp};

use super::logs::Logs;
use crate::violation::{Check, Violation};

/// The entries that were applied, by anybody.
#[derive(Default)]
pub(crate) struct AppliedEntries {
    ranges: BTreeMap<RangeId, BTreeMap<u64, (EntryId, u64)>>,
    /// How far each host has applied each range.
    hosts: BTreeMap<Arc<str>, BTreeMap<RangeId, u64>>,
    /// The stamps of each range's entries, without those that did not rise.
    stamps: BTreeMap<RangeId, BTreeSet<Stamp>>,
}

/// An entry that was applied for the first time.
pub(crate) struct First {
    pub(crate) range: RangeId,
    pub(crate) index: u64,
    pub(crate) entry: Entry,
}

impl AppliedEntries {
    /// A host has opened its store, in which these ranges are applied so far.
    pub(crate) fn opened(&mut self, host: &Arc<str>, ranges: BTreeMap<RangeId, u64>) {
        self.hosts.insert(Arc::clone(host), ranges);
    }

    /// A host applies a range up to an entry, from its log. Returns what nobody had applied before.
    pub(crate) fn applies(
        &mut self,
        host: &Arc<str>,
        range: RangeId,
        upto: EntryId,
        logs: &Logs,
    ) -> Result<Vec<First>, Violation> {
        let before = self.hosts.entry(Arc::clone(host)).or_default().insert(range, upto.index);
        let known = self.ranges.entry(range).or_default();
        let mut first = Vec::new();
        for index in before.map_or(upto.index, |before| before + 1)..=upto.index {
            let Some(row) = logs.entry(host, range, index) else {
                let what = format!("{range} applies entry {index}, which is not in its log");
                return Err(Check::StateMachine.found(what));
            };
            let (id, hash) = (row.entry.id, row.hash);
            if index == upto.index && id != upto {
                let what = format!("{range} says it applied {upto:?}, and its log has {id:?}");
                return Err(Check::StateMachine.found(what));
            }
            let mut is_first = false;
            let expected = known.entry(index).or_insert_with(|| {
                is_first = true;
                (id, hash)
            });
            if *expected != (id, hash) {
                let what =
                    format!("{range} applies {id:?}, and another replica applied {:?}", expected.0);
                return Err(Check::StateMachine.found(what));
            }
            let command = row.entry.command.as_ref().filter(|_| is_first);
            if let Some(Ok(entry)) = command.map(|command| Entry::decode(command)) {
                let stamps = self.stamps.entry(range).or_default();
                if stamps.last().is_none_or(|last| *last < entry.stamp) {
                    stamps.insert(entry.stamp);
                }
                first.push(First { range, index, entry });
            }
        }
        Ok(first)
    }

    /// A snapshot has brought a host up to an entry.
    pub(crate) fn installed(
        &mut self,
        host: &Arc<str>,
        range: RangeId,
        upto: EntryId,
    ) -> Option<Violation> {
        self.hosts.entry(Arc::clone(host)).or_default().insert(range, upto.index);
        let known = self.id(range, upto.index).filter(|known| *known != upto)?;
        let what = format!("{range} installs a snapshot up to {upto:?}, and {known:?} was applied");
        Some(Check::StateMachine.found(what))
    }

    /// The entry that was applied at an index.
    pub(crate) fn id(&self, range: RangeId, index: u64) -> Option<EntryId> {
        self.ranges.get(&range)?.get(&index).map(|(id, _)| *id)
    }

    /// All entries of a range that were applied, by index.
    pub(crate) fn of(&self, range: RangeId) -> impl Iterator<Item = (u64, EntryId)> {
        self.ranges.get(&range).into_iter().flatten().map(|(index, (id, _))| (*index, *id))
    }

    /// How far a host has applied a range.
    pub(crate) fn by(&self, host: &Arc<str>, range: RangeId) -> Option<u64> {
        self.hosts.get(host)?.get(&range).copied()
    }

    /// The last stamp of a range that is not above this one, of the entries that anybody has applied.
    pub(crate) fn last_stamp(&self, range: RangeId, up_to: Stamp) -> Option<Stamp> {
        self.stamps.get(&range)?.range(..=up_to).next_back().copied()
    }

    #[cfg(test)]
    pub(crate) fn with(range: RangeId, entries: &[EntryId]) -> Self {
        let entries = entries.iter().map(|id| (id.index, (*id, id.leader.term))).collect();
        Self { ranges: BTreeMap::from([(range, entries)]), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::logs::tests::{RANGE, id, log_of};
    use super::*;

    #[test]
    fn another_entry_at_an_index_that_was_applied_is_a_violation() {
        let (a, b): (Arc<str>, Arc<str>) = ("node-1".into(), "node-2".into());
        let mut applied = AppliedEntries::default();
        let check = |applies: Result<Vec<First>, Violation>| applies.err().map(|found| found.check);
        let logs = log_of(&a, &[id(1, 1), id(1, 2)]);
        applied.opened(&a, BTreeMap::from([(RANGE, 0)]));
        assert_eq!(check(applied.applies(&a, RANGE, id(1, 2), &logs)), None);
        assert_eq!(applied.by(&a, RANGE), Some(2));
        let logs = log_of(&b, &[id(1, 1), id(2, 2)]);
        applied.opened(&b, BTreeMap::from([(RANGE, 0)]));
        assert_eq!(check(applied.applies(&b, RANGE, id(1, 1), &logs)), None);
        assert_eq!(check(applied.applies(&b, RANGE, id(2, 2), &logs)), Some(Check::StateMachine));
        assert_eq!(applied.installed(&b, RANGE, id(1, 2)), None);
        assert!(applied.installed(&b, RANGE, id(2, 2)).is_some());
    }

    #[test]
    fn what_is_applied_is_in_the_log() {
        let host: Arc<str> = "node-1".into();
        let mut applied = AppliedEntries::default();
        applied.opened(&host, BTreeMap::from([(RANGE, 1)]));
        let logs = log_of(&host, &[id(1, 1)]);
        assert!(applied.applies(&host, RANGE, id(1, 2), &logs).is_err());
    }
}
