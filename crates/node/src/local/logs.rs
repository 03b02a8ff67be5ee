//! How far the replicas of the ranges here have applied their logs: noted durably, told to the nodes that share the range,
//! and what all of them have, which tokens and pasts need not name.
//!
//! ```text
//!   applied here ─▶ noted: rows, synced ─▶ told with each pull ─▶ least of all replicas = applied by all ─▶ tokens drop it
//!                      │
//!                      └─ whoever comes again serves no session below what it has told
//! ```
//!
//! The rows go to the write-ahead log of what they speak of, so that a restart finds no less than was told. A replica
//! that leaves a node and comes back may: it waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use latitude_directory::Directory;
use latitude_gossip::Applied;
use latitude_rpc::pb::peer as pb;
use latitude_storage::{Batch, Column, Engine, key};
use latitude_types::{Epoch, NodeId, RangeId, Stamp, Timestamp};

use super::Local;

/// How far logs are applied, here and elsewhere.
#[derive(Default)]
pub(super) struct Logs {
    /// Of the ranges here, as noted; with the number of the noting.
    noted: BTreeMap<RangeId, (u64, Stamp)>,
    /// How often something was noted.
    number: u64,
    /// An earlier life has told that these logs are applied so far, and they are not here yet.
    behind: BTreeMap<RangeId, Stamp>,
    /// What was told.
    told: Applied,
    by_all: Arc<AppliedByAll>,
}

/// What the replicas of each range here have all applied of its log.
#[derive(Default)]
pub(crate) struct AppliedByAll(BTreeMap<RangeId, (Epoch, Stamp)>);

impl AppliedByAll {
    /// Whether every replica of a range, which is at that epoch, has applied its log up to this stamp.
    pub(crate) fn have(&self, range: RangeId, epoch: Epoch, at: Stamp) -> bool {
        let known = self.0.get(&range);
        known.is_some_and(|(known, stamp)| *known == epoch && at <= *stamp)
    }
}

impl Logs {
    pub(super) fn load(engine: &dyn Engine) -> Result<Self, String> {
        let mut logs = Self::default();
        for row in engine.scan(Column::Node, key::node::all_applied().into()) {
            let (row_key, row) = row.map_err(|error| error.to_string())?;
            let range = key::node::decode_applied(&row_key).ok_or("a damaged key of a log")?;
            logs.behind.insert(range, decode(&row)?);
        }
        Ok(logs)
    }

    /// What is to be noted, when so much is applied here.
    pub(super) fn news(
        &mut self,
        mut applied: BTreeMap<RangeId, Stamp>,
    ) -> BTreeMap<RangeId, Stamp> {
        let Self { noted, behind, .. } = self;
        behind.retain(|range, told| applied.get(range).is_none_or(|applied| applied < told));
        applied.retain(|range, applied| {
            let noted = noted.get(range).map(|(_, noted)| *noted).unwrap_or_default();
            // What is behind was noted higher.
            *applied > noted && !behind.contains_key(range)
        });
        applied
    }

    /// It is noted.
    pub(super) fn noted(&mut self, news: BTreeMap<RangeId, Stamp>) {
        self.number += 1;
        let number = self.number;
        self.noted.extend(news.into_iter().map(|(range, at)| (range, (number, at))));
    }

    /// The replica of a range has left this node. What was told of its log holds for one that comes again.
    pub(super) fn leave(&mut self, range: RangeId) {
        if let Some((_, told)) = self.noted.remove(&range) {
            self.behind.insert(range, told);
        }
    }

    /// Works out what all replicas have, from what was told and who they are.
    fn conclude(&mut self, here: NodeId, directory: &Directory) {
        let Self { noted, behind, told, by_all, .. } = self;
        noted.retain(|range, _| directory.range(*range).is_some());
        // Of what is not noted here yet others tell once, too.
        told.retain(|range| noted.contains_key(&range) || behind.contains_key(&range));
        for (range, (_, noted)) in &*noted {
            told.hear(*range, here, *noted);
        }
        let of = |range: &RangeId| {
            let record = directory.range(*range)?;
            let replicas = record.replicas().map(|replica| replica.node);
            Some((*range, (record.epoch, told.by_all(*range, replicas))))
        };
        *by_all = Arc::new(AppliedByAll(noted.keys().filter_map(of).collect()));
    }
}

impl Local {
    /// How far the log of a range must be applied before a session is served, because an earlier life of this node has told
    /// that it is.
    pub(crate) fn log_told(&self, range: RangeId) -> Stamp {
        self.state().standing.logs.behind.get(&range).copied().unwrap_or_default()
    }

    /// The same of all ranges in which it is not known to be.
    pub(super) fn logs_told(&self) -> Vec<(RangeId, Stamp)> {
        let state = self.state();
        state.standing.logs.behind.iter().map(|(range, told)| (*range, *told)).collect()
    }

    /// The nodes known to have a range's log up to here on disk, and applied. This one has.
    pub(crate) fn have_applied(&self, range: RangeId, at: Stamp) -> Vec<NodeId> {
        let mut nodes = BTreeSet::from([self.inner.node]);
        nodes.extend(self.state().standing.logs.told.have(range, at));
        nodes.into_iter().collect()
    }

    /// What every replica has applied of the logs of the ranges here, as far as is known.
    pub(crate) fn applied_by_all(&self) -> Arc<AppliedByAll> {
        Arc::clone(&self.state().standing.logs.by_all)
    }

    pub(super) fn conclude_applied(&self, directory: &Directory) {
        self.state().standing.logs.conclude(self.inner.node, directory);
    }

    /// A node has told how far it has applied logs.
    pub(super) fn hear_applied(&self, from: NodeId, logs: &[pb::AppliedLog]) {
        let mut state = self.state();
        for log in logs {
            let stamp = Stamp { time: Timestamp(log.time), node: NodeId(log.node) };
            state.standing.logs.told.hear(RangeId(log.range_id), from, stamp);
        }
    }

    /// What to tell of the logs of these ranges: what was noted after the noting of that number, and the number of the last.
    pub(super) fn logs_to_tell(
        &self,
        ranges: &BTreeSet<RangeId>,
        after: u64,
    ) -> (u64, Vec<pb::AppliedLog>) {
        let state = self.state();
        let Logs { noted, number: last, .. } = &state.standing.logs;
        let news = ranges.iter().filter_map(|range| {
            let (number, Stamp { time, node }) = *noted.get(range)?;
            let log = pb::AppliedLog { range_id: range.0, time: time.0, node: node.0 };
            (number > after).then_some(log)
        });
        (*last, news.collect())
    }
}

/// Adds what is to be noted to a batch.
pub(super) fn write(batch: &mut Batch, news: &BTreeMap<RangeId, Stamp>) {
    for (range, applied) in news {
        batch.put(Column::Node, key::node::applied(*range), encode(*applied));
    }
}

/// Its time and its node, 8 and 4 bytes, big-endian.
fn encode(Stamp { time, node }: Stamp) -> Vec<u8> {
    time.0.to_be_bytes().into_iter().chain(node.0.to_be_bytes()).collect()
}

fn decode(row: &[u8]) -> Result<Stamp, String> {
    let stamp = row.split_first_chunk::<8>().and_then(|(time, node)| {
        let node = <[u8; 4]>::try_from(node).ok()?;
        let time = Timestamp(u64::from_be_bytes(*time));
        Some(Stamp { time, node: NodeId(u32::from_be_bytes(node)) })
    });
    stamp.ok_or_else(|| "a stamp of the wrong length".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: RangeId = RangeId(4);

    fn stamp(at: u64) -> Stamp {
        Stamp { time: Timestamp(at), node: NodeId(3) }
    }

    fn applied(at: u64) -> BTreeMap<RangeId, Stamp> {
        BTreeMap::from([(RANGE, stamp(at))])
    }

    #[test]
    fn stamps_are_read_back() {
        assert_eq!(decode(&encode(stamp(u64::MAX - 7))), Ok(stamp(u64::MAX - 7)));
        assert!(decode(&encode(stamp(1))[1..]).is_err());
    }

    #[test]
    fn a_replica_that_comes_again_notes_nothing_until_it_is_where_it_was() {
        let mut logs = Logs::default();
        let news = logs.news(applied(7));
        assert_eq!(news, applied(7));
        logs.noted(news);
        assert_eq!(logs.news(applied(7)), BTreeMap::new(), "noted already");
        logs.leave(RANGE);
        assert_eq!(logs.behind, applied(7));
        assert_eq!(logs.news(BTreeMap::new()), BTreeMap::new());
        assert_eq!(logs.behind, applied(7), "it is not here");
        assert_eq!(logs.news(applied(5)), BTreeMap::new(), "told higher");
        assert_eq!(logs.behind, applied(7), "sessions wait");
        assert_eq!(logs.news(applied(8)), applied(8));
        assert_eq!(logs.behind, BTreeMap::new());
    }
}
