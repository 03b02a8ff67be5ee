//! Raft's durability: what is applied anywhere is durable on a quorum.
//!
//! Seen from the disks: when a replica applies its log up to an entry, a majority of the voters have synced
//! that very entry, or a snapshot of what came of it. Otherwise a loss of power could undo what somebody was
//! told is done. Not even the moment in between is allowed: replies leave once an entry is applied.
//!
//! Source: Ongaro and Ousterhout, *In Search of an Understandable Consensus Algorithm*, 5.3 and figure 3
//! (state machine safety); Ongaro, *Consensus: Bridging Theory and Practice*, 3.8.

use std::collections::BTreeMap;
use std::sync::Arc;

use latitude_consensus::inspect::{self, Applied};
use latitude_range::RangeMeta;
use latitude_storage::{Batch, Column, View, Write, key};
use latitude_types::{Generation, RangeId, ReplicaId};
use xxhash_rust::xxh3::xxh3_64;

use crate::violation::{Check, Violation};

/// A replica's log on its host.
type Log = (RangeId, Generation);

/// What is durable on which host.
#[derive(Default)]
pub(crate) struct Committed(BTreeMap<Arc<str>, Disk>);

#[derive(Default)]
struct Disk {
    /// Written since the last sync, in order.
    unsynced: Vec<Change>,
    /// The hash of each entry; those that were purged since stay.
    durable: BTreeMap<(Log, u64), u64>,
    /// The last entry that a snapshot holds.
    snapshots: BTreeMap<RangeId, u64>,
}

enum Change {
    Entry(Log, u64, u64),
    /// Entries from this index on are gone.
    Cut(Log, u64),
}

impl Committed {
    /// A host has opened its store, as it was left. What it finds there may not be durable before its next sync.
    pub(crate) fn opened(&mut self, host: &Arc<str>, store: &dyn View) {
        let disk = self.0.entry(Arc::clone(host)).or_default();
        disk.unsynced.clear();
        let everything = key::Span { start: Vec::new(), end: vec![0xff; 32] };
        let mut begun = None;
        for (row, value) in store.scan(Column::Log, everything.scan()).filter_map(Result::ok) {
            let Some((range, generation, index)) = key::log::decode_entry(&row) else { continue };
            let log = (range, generation);
            if begun.replace(log) != Some(log) {
                disk.unsynced.push(Change::Cut(log, index));
            }
            disk.unsynced.push(Change::Entry(log, index, xxh3_64(&value)));
        }
    }

    pub(crate) fn writes(&mut self, host: &Arc<str>, batch: &Batch) {
        let unsynced = &mut self.0.entry(Arc::clone(host)).or_default().unsynced;
        for write in batch {
            match write {
                Write::Put { column: Column::Log, key, value } => {
                    if let Some((range, generation, index)) = key::log::decode_entry(key) {
                        unsynced.push(Change::Entry((range, generation), index, xxh3_64(value)));
                    }
                }
                // A span that ends at an entry is purged: what was there had been applied.
                Write::DeleteRange { column: Column::Log, start, end }
                    if key::log::decode_entry(end).is_none() =>
                {
                    if let Some((range, generation, index)) = key::log::decode_entry(start) {
                        unsynced.push(Change::Cut((range, generation), index));
                    }
                }
                _ => {}
            }
        }
    }

    pub(crate) fn synced(&mut self, host: &Arc<str>) {
        let disk = self.0.entry(Arc::clone(host)).or_default();
        for change in disk.unsynced.drain(..) {
            match change {
                Change::Entry(log, index, hash) => {
                    disk.durable.insert((log, index), hash);
                }
                Change::Cut(log, from) => {
                    disk.durable.retain(|(of, index), _| *of != log || *index < from);
                }
            }
        }
    }

    /// A host has made a snapshot durable that says so of itself.
    pub(crate) fn replaced(&mut self, host: &Arc<str>, range: RangeId, row: &[u8]) {
        if let Ok(Applied { last: Some(at), .. }) = inspect::applied(row) {
            let disk = self.0.entry(Arc::clone(host)).or_default();
            let last = disk.snapshots.entry(range).or_default();
            *last = at.index.max(*last);
        }
    }

    /// A host applies up to where the row says.
    pub(crate) fn violation(
        &self,
        host: &str,
        store: &dyn View,
        row: &[u8],
        meta: &RangeMeta,
    ) -> Option<Violation> {
        let range = meta.id;
        let Applied { last: Some(at), voters: configs } = inspect::applied(row).ok()? else {
            return None;
        };
        // What a replica without a vote applies, some voter has applied before.
        let own = configs.iter().flatten().find(|voter| name(voter) == host)?;
        let entry = key::log::entry(range, own.generation, at.index);
        let entry = store.get(Column::Log, &entry).ok()??;
        let hash = xxh3_64(&entry);
        let holds = |voter: &&ReplicaId| {
            self.0.get(&*name(voter)).is_some_and(|disk| {
                let place = ((range, voter.generation), at.index);
                disk.durable.get(&place) == Some(&hash)
                    || disk.snapshots.get(&range).is_some_and(|last| *last >= at.index)
            })
        };
        // While voters change, an entry may have been committed by either configuration.
        let mut holders =
            configs.iter().map(|voters| (voters.iter().filter(holds).count(), voters));
        let durable = holders.any(|(holders, voters)| holders > voters.len() / 2);
        (!durable).then(|| {
            let holders: Vec<_> = configs.iter().flatten().filter(holds).collect();
            Check::Committed.found(format!(
                "{range} is applied up to entry {}, which is durable on no more than {holders:?}",
                at.index
            ))
        })
    }
}

/// The host of a replica.
fn name(replica: &ReplicaId) -> String {
    format!("node-{}", replica.node.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LOG: Log = (RangeId(4), Generation(1));

    fn entry(index: u64, value: &[u8]) -> Batch {
        let mut batch = Batch::new();
        batch.put(Column::Log, key::log::entry(LOG.0, LOG.1, index), value.to_vec());
        batch
    }

    fn durable(committed: &Committed, host: &Arc<str>) -> BTreeSet<u64> {
        committed.0[host].durable.keys().map(|(_, index)| *index).collect()
    }

    #[test]
    fn what_is_written_is_durable_after_a_sync_unless_it_was_cut_off() {
        let (mut committed, host) = (Committed::default(), Arc::from("node-1"));
        for index in 1..=3 {
            committed.writes(&host, &entry(index, b"a"));
        }
        assert_eq!(committed.0[&host].durable, BTreeMap::new());
        committed.synced(&host);
        let mut batch = Batch::new();
        let cut = key::log::entries_from(LOG.0, LOG.1, 2);
        batch.delete_range(Column::Log, cut.start, cut.end);
        committed.writes(&host, &batch);
        assert_eq!(durable(&committed, &host), [1, 2, 3].into(), "until the next sync");
        committed.synced(&host);
        assert_eq!(durable(&committed, &host), [1].into());
    }

    #[test]
    fn what_is_purged_was_durable_and_stays_so() {
        let (mut committed, host) = (Committed::default(), Arc::from("node-1"));
        committed.writes(&host, &entry(1, b"a"));
        let mut batch = Batch::new();
        let purged = key::log::entries(LOG.0, LOG.1, 0..2);
        batch.delete_range(Column::Log, purged.start, purged.end);
        committed.writes(&host, &batch);
        committed.synced(&host);
        assert_eq!(durable(&committed, &host), [1].into());
    }
}
