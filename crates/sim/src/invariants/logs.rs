//! What Raft promises of logs, seen where they meet the disk.
//!
//! | check | at every moment |
//! | --- | --- |
//! | log matching | two entries of one range with the same leadership and index have the same bytes and follow the same entry |
//! | leader completeness | whoever begins to lead has every entry that was applied anywhere under an earlier leadership |
//! | committed stays | an entry that was applied anywhere is neither cut off nor overwritten, and purged only once it is applied, until the range is dropped |
//! | vote | a replica's vote never goes back |
//!
//! Election safety is in the first: openraft orders leaderships by term, then replica, and lets several be elected
//! in a term, so the leadership that must be unique is that pair, and two leaders of one leadership would append
//! different entries at one index.
//!
//! Sources: Ongaro and Ousterhout, "In search of an understandable consensus algorithm" (2014), figure 3; openraft's
//! `docs/data/leader_id.md` for several leaders in a term.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use latitude_consensus::inspect::{self, EntryId, LogEntry, Vote};
use latitude_storage::{Batch, Column, View, Write, key};
use latitude_types::{Generation, NodeId, RangeId};
use xxhash_rust::xxh3::xxh3_64;

use super::applied::AppliedEntries;
use crate::violation::{Check, Violation};

/// The logs of all hosts, as the disks have them.
#[derive(Default)]
pub(crate) struct Logs {
    hosts: BTreeMap<Arc<str>, BTreeMap<(RangeId, Generation), Log>>,
    /// Every entry that ever stood in a log: the hash of its bytes and the entry before it.
    entries: BTreeMap<(RangeId, EntryId), (u64, Option<EntryId>)>,
    elections: u64,
}

/// One replica's log.
#[derive(Default)]
struct Log {
    vote: Option<Vote>,
    purged: Option<EntryId>,
    /// By index.
    entries: BTreeMap<u64, Row>,
}

/// An entry as it stands in a log.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) entry: LogEntry,
    pub(crate) hash: u64,
}

impl Logs {
    /// A host has opened its store: what was not durable is gone.
    pub(crate) fn opened(&mut self, host: &Arc<str>, store: &dyn View) {
        let mut logs = BTreeMap::<_, Log>::new();
        for (row, value) in
            store.scan(Column::Log, latitude_storage::Scan::all()).filter_map(Result::ok)
        {
            let Some((range, generation)) = replica_of(&row) else { continue };
            let log = logs.entry((range, generation)).or_default();
            if let Some((.., index)) = key::log::decode_entry(&row)
                && let Ok(entry) = inspect::entry(&value)
            {
                log.entries.insert(index, Row { entry, hash: xxh3_64(&value) });
            } else if *row == key::log::vote(range, generation)[..] {
                log.vote = inspect::vote(&value).ok();
            } else if *row == key::log::state(range, generation)[..] {
                log.purged = inspect::purged(&value).ok();
            }
        }
        self.hosts.insert(Arc::clone(host), logs);
    }

    /// A host writes.
    pub(crate) fn writes(
        &mut self,
        host: &Arc<str>,
        batch: &Batch,
        applied: &AppliedEntries,
        dropped: &BTreeSet<RangeId>,
    ) -> Vec<Violation> {
        let mut found = Vec::new();
        // Before deletions are judged: what is purged may go.
        for (range, generation, upto) in purges(batch) {
            found.extend(self.purges(host, range, generation, upto, applied));
        }
        for write in batch {
            match write {
                Write::Put { column: Column::Log, key: row, value } => {
                    let Some((range, generation)) = replica_of(row) else { continue };
                    if let Some((.., index)) = key::log::decode_entry(row)
                        && let Ok(entry) = inspect::entry(value)
                    {
                        let row = Row { entry, hash: xxh3_64(value) };
                        found.extend(self.appends(host, range, generation, index, row, applied));
                    } else if **row == key::log::vote(range, generation)[..]
                        && let Ok(vote) = inspect::vote(value)
                    {
                        found.extend(self.votes(host, range, generation, vote, applied));
                    }
                }
                Write::DeleteRange { column: Column::Log, start, end } => {
                    found.extend(self.cuts(host, start, end, applied, dropped));
                }
                Write::Delete { column: Column::Log, key } => {
                    let mut end = key.to_vec();
                    end.push(0);
                    found.extend(self.cuts(host, key, &end, applied, dropped));
                }
                _ => {}
            }
        }
        found
    }

    fn purges(
        &mut self,
        host: &Arc<str>,
        range: RangeId,
        generation: Generation,
        upto: EntryId,
        applied: &AppliedEntries,
    ) -> Option<Violation> {
        self.log(host, range, generation).purged = Some(upto);
        applied.by(host, range).is_none_or(|last| last < upto.index).then(|| {
            Check::Kept.found(format!("{range} purges up to {upto:?}, which is not applied here"))
        })
    }

    fn appends(
        &mut self,
        host: &Arc<str>,
        range: RangeId,
        generation: Generation,
        index: u64,
        row: Row,
        applied: &AppliedEntries,
    ) -> Option<Violation> {
        let log =
            self.hosts.entry(Arc::clone(host)).or_default().entry((range, generation)).or_default();
        let id = row.entry.id;
        let before =
            index.checked_sub(1).and_then(|index| log.entries.get(&index)).map(|row| row.entry.id);
        let over = log.entries.insert(index, row.clone()).map(|row| row.entry.id);
        if let Some(over) = over.filter(|over| *over != id)
            && applied.id(range, index) == Some(over)
        {
            let what = format!("{range} overwrites {over:?}, which was applied, by {id:?}");
            return Some(Check::Kept.found(what));
        }
        if id.index != index {
            return Some(Check::LogMatching.found(format!("{range} has {id:?} at index {index}")));
        }
        let known = self.entries.entry((range, id)).or_insert((row.hash, before));
        let follows = known.1.is_none() || before.is_none() || known.1 == before;
        known.1 = known.1.or(before);
        (known.0 != row.hash || !follows).then(|| {
            let what = if follows { "has other bytes than" } else { "follows another entry than" };
            Check::LogMatching.found(format!("{id:?} of {range} {what} in an earlier log"))
        })
    }

    fn votes(
        &mut self,
        host: &Arc<str>,
        range: RangeId,
        generation: Generation,
        vote: Vote,
        applied: &AppliedEntries,
    ) -> Option<Violation> {
        let log = self.log(host, range, generation);
        let before = log.vote.replace(vote);
        if before.is_some_and(|before| vote < before) {
            return Some(Check::Vote.found(format!("{range} votes {vote:?} after {before:?}")));
        }
        let leads = vote.committed && node_of(host) == Some(vote.leader.replica.node);
        if !leads || before == Some(vote) {
            return None;
        }
        let lacks = applied.of(range).find(|(index, id)| {
            let has = log.entries.get(index).map(|row| row.entry.id);
            let purged = log.purged.is_some_and(|purged| purged.index >= *index);
            id.leader < vote.leader && !purged && has != Some(*id)
        });
        let found = lacks.map(|(_, id)| {
            let what =
                format!("{range} is led by {:?}, which lacks {id:?}, applied before", vote.leader);
            Check::Leader.found(what)
        });
        self.elections += 1;
        found
    }

    /// Rows from `start` to `end` go.
    fn cuts(
        &mut self,
        host: &Arc<str>,
        start: &[u8],
        end: &[u8],
        applied: &AppliedEntries,
        dropped: &BTreeSet<RangeId>,
    ) -> Option<Violation> {
        let mut found = None;
        for ((range, generation), log) in self.hosts.entry(Arc::clone(host)).or_default() {
            let upto = log.purged.map(|purged| purged.index);
            log.entries.retain(|index, row| {
                let name = key::log::entry(*range, *generation, *index);
                let stays = !(start <= &name[..] && &name[..] < end);
                let is_committed =
                    applied.id(*range, *index) == Some(row.entry.id) && !dropped.contains(range);
                if !stays && is_committed && upto.is_none_or(|upto| *index > upto) {
                    let what = format!("{range} cuts off {:?}, which was applied", row.entry.id);
                    found.get_or_insert_with(|| Check::Kept.found(what));
                }
                stays
            });
        }
        found
    }

    /// The entry at an index of a host's newest replica of a range.
    pub(crate) fn entry(&self, host: &Arc<str>, range: RangeId, index: u64) -> Option<&Row> {
        let replicas =
            self.hosts.get(host)?.range((range, Generation(0))..=(range, Generation(u32::MAX)));
        replicas.rev().find_map(|(_, log)| log.entries.get(&index))
    }

    /// How often a replica was seen to begin to lead.
    pub(crate) fn elections(&self) -> u64 {
        self.elections
    }

    fn log(&mut self, host: &Arc<str>, range: RangeId, generation: Generation) -> &mut Log {
        self.hosts.entry(Arc::clone(host)).or_default().entry((range, generation)).or_default()
    }
}

/// Whose log a row belongs to.
fn replica_of(row: &[u8]) -> Option<(RangeId, Generation)> {
    let range = RangeId(u64::from_be_bytes(row.get(..8)?.try_into().ok()?));
    let generation = Generation(u32::from_be_bytes(row.get(8..12)?.try_into().ok()?));
    Some((range, generation))
}

/// What a batch says is purged from now on.
fn purges(batch: &Batch) -> impl Iterator<Item = (RangeId, Generation, EntryId)> {
    batch.iter().filter_map(|write| match write {
        Write::Put { column: Column::Log, key: row, value } => {
            let (range, generation) = replica_of(row)?;
            let is_state = **row == key::log::state(range, generation)[..];
            is_state
                .then(|| inspect::purged(value).ok())
                .flatten()
                .map(|upto| (range, generation, upto))
        }
        _ => None,
    })
}

/// The node of a host.
pub(crate) fn node_of(host: &str) -> Option<NodeId> {
    host.strip_prefix("node-")?.parse().ok().map(NodeId)
}

#[cfg(test)]
pub(crate) mod tests {
    use latitude_consensus::LeaderToken;
    use latitude_types::ReplicaId;

    use super::*;

    pub(crate) const RANGE: RangeId = RangeId(4);
    const GENERATION: Generation = Generation(1);

    pub(crate) fn leader(term: u64, node: u32) -> LeaderToken {
        LeaderToken { term, replica: ReplicaId { node: NodeId(node), generation: GENERATION } }
    }

    pub(crate) fn id(term: u64, index: u64) -> EntryId {
        EntryId { leader: leader(term, 1), index }
    }

    /// A log with these entries, put there without being looked at.
    pub(crate) fn log_of(host: &Arc<str>, entries: &[EntryId]) -> Logs {
        let mut logs = Logs::default();
        for id in entries {
            let row = Row { entry: LogEntry { id: *id, command: None }, hash: id.leader.term };
            logs.log(host, RANGE, GENERATION).entries.insert(id.index, row);
        }
        logs
    }

    fn append(logs: &mut Logs, host: &Arc<str>, id: EntryId, hash: u64) -> Option<Check> {
        let row = Row { entry: LogEntry { id, command: None }, hash };
        let applied = AppliedEntries::default();
        let found = logs.appends(host, RANGE, GENERATION, id.index, row, &applied);
        found.map(|found| found.check)
    }

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

    #[test]
    fn a_vote_does_not_go_back() {
        let host: Arc<str> = "node-1".into();
        let mut logs = Logs::default();
        let applied = AppliedEntries::default();
        let mut vote = |term, node, committed| {
            let vote = Vote { leader: leader(term, node), committed };
            logs.votes(&host, RANGE, GENERATION, vote, &applied).map(|found| found.check)
        };
        assert_eq!(vote(2, 1, false), None);
        assert_eq!(vote(2, 1, true), None);
        assert_eq!(vote(2, 2, false), None, "the greater replica of the same term");
        assert_eq!(vote(2, 1, true), Some(Check::Vote));
    }

    #[test]
    fn whoever_leads_has_what_was_applied_before() {
        let host: Arc<str> = "node-1".into();
        let applied = AppliedEntries::with(RANGE, &[id(1, 1), id(1, 2)]);
        let lead = |entries: &[EntryId], term| {
            let mut logs = log_of(&host, entries);
            let vote = Vote { leader: leader(term, 1), committed: true };
            let found = logs.votes(&host, RANGE, GENERATION, vote, &applied);
            assert_eq!(logs.elections(), 1);
            found.map(|found| found.check)
        };
        assert_eq!(lead(&[id(1, 1), id(1, 2)], 2), None);
        assert_eq!(lead(&[id(1, 1)], 2), Some(Check::Leader));
        assert_eq!(lead(&[id(1, 1)], 0), None, "an old leadership learns late that it was one");
    }

    #[test]
    fn what_was_applied_anywhere_is_cut_off_only_by_a_purge_of_what_is_applied_here() {
        let host: Arc<str> = "node-1".into();
        let applied = AppliedEntries::with(RANGE, &[id(1, 1)]);
        let check = |batch: &Batch, applied: &AppliedEntries| {
            let mut logs = log_of(&host, &[id(1, 1), id(1, 2)]);
            logs.writes(&host, batch, applied, &BTreeSet::new()).first().map(|found| found.check)
        };
        let cut = |from| {
            let span = key::log::entries_from(RANGE, GENERATION, from);
            let mut batch = Batch::new();
            batch.delete_range(Column::Log, span.start, span.end);
            batch
        };
        assert_eq!(check(&cut(2), &applied), None, "nobody has applied it");
        assert_eq!(check(&cut(1), &applied), Some(Check::Kept));
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
