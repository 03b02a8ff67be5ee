//! The logs of all hosts, as their disks have them, and what Raft promises of logs, held against every write.
//!
//! ```text
//!   a batch ─┬─ put entry ──▶ append_only, kept (overwrites), matching
//!            ├─ put vote ───▶ votes, then completeness if that makes its host a leader
//!            ├─ put purged ─▶ kept (purges)
//!            └─ deletes ────▶ append_only, kept (cuts)
//! ```

mod append_only;
mod completeness;
mod kept;
mod matching;
mod votes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use latitude_consensus::LeaderToken;
use latitude_consensus::inspect::{self, EntryId, LogEntry, Vote};
use latitude_storage::{Batch, Column, View, Write, key};
use latitude_types::{Generation, NodeId, RangeId};
use xxhash_rust::xxh3::xxh3_64;

use self::matching::Places;
use super::applied::AppliedEntries;
use crate::violation::Violation;

/// The logs of all hosts, as the disks have them.
#[derive(Default)]
pub(crate) struct Logs {
    hosts: BTreeMap<Arc<str>, BTreeMap<(RangeId, Generation), Log>>,
    places: Places,
    elections: u64,
}

/// One replica's log.
#[derive(Default)]
struct Log {
    /// The node it is on.
    node: Option<NodeId>,
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
            let log = logs
                .entry((range, generation))
                .or_insert_with(|| Log { node: node_of(host), ..Log::default() });
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
        kept::purges(range, upto, applied.by(host, range))
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
        let log = self.log(host, range, generation);
        let id = row.entry.id;
        let before =
            index.checked_sub(1).and_then(|index| log.entries.get(&index)).map(|row| row.entry.id);
        let hash = row.hash;
        let over = log.entries.insert(index, row).map(|row| row.entry.id);
        let overwritten = over.filter(|over| *over != id).and_then(|over| {
            kept::overwrites(range, over, id, applied)
                .or_else(|| append_only::changes(range, over, log.leads()))
        });
        overwritten.or_else(|| self.places.appends(range, index, id, hash, before))
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
        if let Some(found) = votes::votes(range, before, vote) {
            return Some(found);
        }
        if before == Some(vote) {
            return None;
        }
        let leadership = log.leads()?;
        let found = completeness::begins_to_lead(range, leadership, log, applied);
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
            let leads = log.leads();
            // The first entry of a log is at index 0, so nothing purged is not the same as up to there.
            let upto = log.purged.map(|purged| purged.index);
            log.entries.retain(|index, row| {
                let name = key::log::entry(*range, *generation, *index);
                let goes = start <= &name[..] && &name[..] < end;
                // What is purged may go, and so may the log of a range that is no more.
                let must_stay = upto.is_none_or(|upto| *index > upto) && !dropped.contains(range);
                if goes && must_stay && found.is_none() {
                    found = kept::cuts(*range, row.entry.id, applied)
                        .or_else(|| append_only::changes(*range, row.entry.id, leads));
                }
                !goes
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
        let log = self.hosts.entry(Arc::clone(host)).or_default().entry((range, generation));
        log.or_insert_with(|| Log { node: node_of(host), ..Log::default() })
    }
}

impl Log {
    /// The leadership it is the log of, by its vote: that of its own node, elected by a quorum. A node that has
    /// started again leads no more, and its vote says so only once it has heard of another.
    fn leads(&self) -> Option<LeaderToken> {
        let vote = self.vote.filter(|vote| vote.committed)?;
        (self.node == Some(vote.leader.replica.node)).then_some(vote.leader)
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
    use latitude_types::ReplicaId;

    use super::*;
    use crate::violation::Check;

    pub(crate) const RANGE: RangeId = RangeId(4);
    pub(super) const GENERATION: Generation = Generation(1);

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

    /// Appends an entry, nothing being applied anywhere.
    pub(super) fn append(
        logs: &mut Logs,
        host: &Arc<str>,
        id: EntryId,
        hash: u64,
    ) -> Option<Check> {
        let row = Row { entry: LogEntry { id, command: None }, hash };
        let applied = AppliedEntries::default();
        let found = logs.appends(host, RANGE, GENERATION, id.index, row, &applied);
        found.map(|found| found.check)
    }

    /// Votes, nothing being applied anywhere.
    pub(super) fn vote(
        logs: &mut Logs,
        host: &Arc<str>,
        term: u64,
        node: u32,
        committed: bool,
    ) -> Option<Check> {
        let vote = Vote { leader: leader(term, node), committed };
        let applied = AppliedEntries::default();
        logs.votes(host, RANGE, GENERATION, vote, &applied).map(|found| found.check)
    }

    /// A batch that deletes the entries from this index on.
    pub(super) fn cut(from: u64) -> Batch {
        let span = key::log::entries_from(RANGE, GENERATION, from);
        let mut batch = Batch::new();
        batch.delete_range(Column::Log, span.start, span.end);
        batch
    }
}
