//! How far this node stands with the streams it follows, noted durably and told to their origins; and what of each
//! stream every node shows.
//!
//! ```text
//!   W, V ─▶ noted: rows, synced ─▶ told with each pull ─▶ origin: least of all followers = Stable ─▶ with each stretch
//!              │                                                                                       │
//!              └─ after a restart: W is there again, and no session             tokens and pasts drop ◀─┘
//!                 is served below V as it was told                              what is at or below it
//! ```
//!
//! In the same way replicas tell each other how far they have applied the logs of the ranges they share, and tokens drop the
//! entries that every replica of a range has.
//!
//! A token that does not name what is stable relies on every node: so what was told of V holds over restarts. That
//! is kept by refusing, or letting wait, causal requests of sessions until streams are there again as far as noted.
//! W is noted beside it, so that this needs nobody else. What is told lags behind by a second; nothing waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use latitude_directory::Directory;
use latitude_gossip::{Applied, Told};
use latitude_rpc::pb::peer as pb;
use latitude_storage::{Batch, Column, Engine, key};
use latitude_types::{Epoch, Error, NodeId, Positions, RangeId, Stamp, Timestamp};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Local, State};
use crate::shared::Shared;

/// How often it is looked whether there is something new to note.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// How far a node stands, as its store says, and what it knows of others.
#[derive(Default)]
pub(super) struct Standing {
    /// V of each origin, as noted. No session is served below it.
    noted: Positions,
    /// The highest position of a delta of each origin that came, by the stream or by the log.
    heard: BTreeMap<NodeId, Timestamp>,
    /// The ranges whose marks have risen over a delta since they were noted.
    risen: BTreeSet<RangeId>,
    /// W as the store had it at the start, of ranges that are not open yet.
    former: BTreeMap<RangeId, Vec<(NodeId, Timestamp)>>,
    /// Every node shows each of these streams up to there.
    stable: Positions,
    /// The nodes that share a range with this one; `None` until the directory is known.
    sharers: Option<BTreeSet<NodeId>>,
    /// How far the logs of the ranges here are applied, as noted; with the number of the noting.
    logs: BTreeMap<RangeId, (u64, Stamp)>,
    /// How often something was noted of logs.
    logs_noted: u64,
    /// An earlier life has told that these logs are applied so far, and they are not here yet.
    behind: BTreeMap<RangeId, Stamp>,
    /// What others have told of their logs.
    applied: Applied,
    /// What every replica of a range has applied of its log.
    applied_by_all: Arc<AppliedByAll>,
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

impl Standing {
    pub(super) fn load(engine: &dyn Engine) -> Result<Self, String> {
        let mut standing = Self::default();
        let rows = |span: key::Span| engine.scan(Column::Node, span.into());
        for row in rows(key::node::visibles()) {
            let (row_key, row) = row.map_err(|error| error.to_string())?;
            let origin = key::node::decode_visible(&row_key).ok_or("a damaged key of an origin")?;
            standing.noted.raise(origin, position(&row)?);
        }
        for row in rows(key::node::all_marks()) {
            let (row_key, row) = row.map_err(|error| error.to_string())?;
            let range = key::node::decode_marks(&row_key).ok_or("a damaged key of watermarks")?;
            standing.former.insert(range, decode_marks(&row)?);
        }
        for row in rows(key::node::all_applied()) {
            let (row_key, row) = row.map_err(|error| error.to_string())?;
            let range = key::node::decode_applied(&row_key).ok_or("a damaged key of a log")?;
            standing.behind.insert(range, decode_stamp(&row)?);
        }
        Ok(standing)
    }

    /// A delta of another node came.
    pub(super) fn hear(&mut self, range: RangeId, origin: NodeId, position: Timestamp) {
        let heard = self.heard.entry(origin).or_default();
        if position > *heard {
            *heard = position;
        }
        self.risen.insert(range);
    }

    /// W of a range, as noted by an earlier life of this node.
    pub(super) fn take_former(&mut self, range: RangeId) -> Vec<(NodeId, Timestamp)> {
        self.former.remove(&range).unwrap_or_default()
    }
}

/// Notes and tells how far this node stands, for as long as it runs.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut version = 0;
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = sleep(NOTE_EVERY) => {}
        }
        let directory = shared.catalog.current();
        if directory.version() != version
            && let Ok(here) = shared.node()
        {
            version = directory.version();
            let sharers = directory
                .ranges()
                .filter(|range| !range.log_only && range.replica_on(here).is_some())
                .flat_map(|range| range.replicas().map(|replica| replica.node).collect::<Vec<_>>())
                .filter(|node| *node != here)
                .collect();
            shared.local().state().standing.sharers = Some(sharers);
        }
        let shares = |range| {
            let record = directory.range(range);
            record.is_some_and(|record| !record.log_only && record.replicas().count() > 1)
        };
        let here = shared.all_ranges().into_iter().filter(|handle| shares(handle.id()));
        let logs = here.map(|handle| (handle.id(), handle.group.applied_position().1)).collect();
        // What cannot be noted now is not told yet.
        if let Err(error) = shared.local().note(logs).await {
            tracing::warn!(%error, "how far local writes of other nodes are held cannot be noted");
        }
        shared.local().conclude_applied(&directory);
    }
}

impl Local {
    /// Notes what is new, and tells it from then on.
    async fn note(&self, mut logs: BTreeMap<RangeId, Stamp>) -> Result<(), Error> {
        let (shown, risen, batch) = {
            let mut state = self.state();
            let state = &mut *state;
            let Standing { noted, heard, risen, .. } = &mut state.standing;
            let visible = &state.visible;
            heard.retain(|origin, position| *position > noted.of(*origin));
            let shown: Vec<_> = heard
                .keys()
                .map(|origin| (*origin, visible.of(*origin)))
                .filter(|(origin, shown)| *shown > noted.of(*origin))
                .collect();
            let mut risen = std::mem::take(risen);
            // Every range of these origins, also those without news: after a restart each must reach what is told.
            let is_told = |origin: NodeId| shown.iter().any(|(told, _)| *told == origin);
            let of_told =
                |range: &&RangeId| state.marks.of_range(**range).any(|(origin, _)| is_told(origin));
            risen.extend(state.overlays.keys().filter(of_told).copied());
            let Standing { logs: noted_logs, behind, .. } = &mut state.standing;
            behind.retain(|range, told| logs.get(range).is_none_or(|applied| applied < told));
            logs.retain(|range, applied| {
                let noted = noted_logs.get(range).map(|(_, noted)| *noted).unwrap_or_default();
                // What is behind was noted higher.
                *applied > noted && !behind.contains_key(range)
            });
            if shown.is_empty() && risen.is_empty() && logs.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for (range, applied) in &logs {
                batch.put(Column::Node, key::node::applied(*range), encode_stamp(*applied));
            }
            for (origin, shown) in &shown {
                let row = shown.0.to_be_bytes().to_vec();
                batch.put(Column::Node, key::node::visible(*origin), row);
            }
            for range in &risen {
                let marks = encode_marks(state.marks.of_range(*range));
                batch.put(Column::Node, key::node::marks(*range), marks);
            }
            (shown, risen, batch)
        };
        self.store(batch).await?;
        let mut state = self.state();
        for (origin, shown) in shown {
            state.standing.noted.raise(origin, shown);
        }
        let number = state.standing.logs_noted + 1;
        state.standing.logs_noted = number;
        state.standing.logs.extend(logs.into_iter().map(|(range, at)| (range, (number, at))));
        // One that has left meanwhile is not to be found again with marks of before.
        let gone: Vec<_> =
            risen.into_iter().filter(|range| !state.overlays.contains_key(range)).collect();
        drop(state);
        gone.into_iter().for_each(|range| self.forget_marks(range));
        Ok(())
    }

    /// A range has left this node, and what was noted of it goes before any of its deltas does.
    pub(super) fn forget_marks(&self, range: RangeId) {
        let mut batch = Batch::new();
        batch.delete(Column::Node, key::node::marks(range));
        if let Err(error) = self.inner.engine.write(batch) {
            tracing::warn!(%range, %error, "noted watermarks of a range cannot be dropped");
        }
    }

    /// What a session follows here of other nodes: what it says, and what it need not say because this node has told
    /// that it shows it.
    pub(super) fn with_unsaid(&self, seen: &Positions) -> Positions {
        let mut all = seen.clone();
        let state = self.state();
        all.join(&state.standing.noted);
        all.join(&state.standing.stable);
        all
    }

    /// The same and, of this node's own stream, everything. For what ends all that its session has seen: shown
    /// everywhere is not folded.
    pub(crate) fn all_it_may_have_seen(&self, seen: &Positions) -> Positions {
        let mut all = self.with_unsaid(seen);
        all.raise(self.inner.node, self.state().frontier_of_writes());
        all
    }

    /// Somebody tells how far this node's stream is held.
    pub(crate) fn told(&self) -> watch::Receiver<()> {
        self.inner.told.subscribe()
    }

    /// The nodes known to have a local write on disk: of another origin's, it and this node; of this node's own, it
    /// and those who have told so.
    pub(crate) fn holders(
        &self,
        range: RangeId,
        origin: NodeId,
        position: Timestamp,
    ) -> Vec<NodeId> {
        let here = self.inner.node;
        let mut holders = BTreeSet::from([here, origin]);
        if origin == here {
            holders.extend(self.state().followers.holders(range, position));
        }
        holders.into_iter().collect()
    }

    /// A node has told how far it stands with this node's stream.
    pub(super) fn hear(&self, from: NodeId, told: Told) {
        self.state().followers.hear(from, told);
        self.inner.told.send_replace(());
    }

    /// How far every node shows a stream, as far as is known here.
    pub(crate) fn stable(&self, origin: NodeId) -> Timestamp {
        let state = self.state();
        let Standing { stable, sharers, .. } = &state.standing;
        match sharers {
            _ if origin != self.inner.node => stable.of(origin),
            Some(sharers) => state
                .followers
                .stable(sharers.iter().copied())
                .min(state.visible.of(self.inner.node)),
            None => Timestamp::ZERO,
        }
    }

    /// The same of all streams.
    pub(crate) fn all_stable(&self) -> Positions {
        let mut stable = self.state().standing.stable.clone();
        stable.raise(self.inner.node, self.stable(self.inner.node));
        stable
    }

    /// An origin says, or a relay of its stream, that every node shows it up to here.
    pub(super) fn learn_stable(&self, origin: NodeId, up_to: Timestamp) {
        self.state().standing.stable.raise(origin, up_to);
    }

    /// The replica of a range has left this node. What was told of its log holds for one that comes again.
    pub(super) fn leave_log(&self, range: RangeId) {
        let Standing { logs, behind, .. } = &mut self.state().standing;
        if let Some((_, told)) = logs.remove(&range) {
            behind.insert(range, told);
        }
    }

    /// How far the log of a range must be applied before a session is served, because an earlier life of this node has told
    /// that it is.
    pub(crate) fn log_told(&self, range: RangeId) -> Stamp {
        self.state().standing.behind.get(&range).copied().unwrap_or_default()
    }

    /// The same of all ranges in which it is not known to be.
    pub(super) fn logs_told(&self) -> Vec<(RangeId, Stamp)> {
        let state = self.state();
        state.standing.behind.iter().map(|(range, told)| (*range, *told)).collect()
    }

    /// What every replica has applied of the logs of the ranges here, as far as is known.
    pub(crate) fn applied_by_all(&self) -> Arc<AppliedByAll> {
        Arc::clone(&self.state().standing.applied_by_all)
    }

    /// Works that out from what was told and who has replicas.
    fn conclude_applied(&self, directory: &Directory) {
        let here = self.inner.node;
        let mut state = self.state();
        let Standing { logs, applied, applied_by_all, .. } = &mut state.standing;
        logs.retain(|range, _| directory.range(*range).is_some());
        applied.retain(|range| logs.contains_key(&range));
        for (range, (_, noted)) in &*logs {
            applied.hear(*range, here, *noted);
        }
        let of = |range: &RangeId| {
            let record = directory.range(*range)?;
            let replicas = record.replicas().map(|replica| replica.node);
            Some((*range, (record.epoch, applied.by_all(*range, replicas))))
        };
        *applied_by_all = Arc::new(AppliedByAll(logs.keys().filter_map(of).collect()));
    }

    /// A node has told how far it has applied logs.
    pub(super) fn hear_applied(&self, from: NodeId, logs: &[pb::AppliedLog]) {
        let mut state = self.state();
        for log in logs {
            let stamp = Stamp { time: Timestamp(log.time), node: NodeId(log.node) };
            state.standing.applied.hear(RangeId(log.range_id), from, stamp);
        }
    }

    /// What to tell of the logs of these ranges: what was noted after the noting of that number, and the number of the last.
    pub(super) fn logs_to_tell(
        &self,
        ranges: &BTreeSet<RangeId>,
        after: u64,
    ) -> (u64, Vec<pb::AppliedLog>) {
        let state = self.state();
        let Standing { logs, logs_noted, .. } = &state.standing;
        let news = ranges.iter().filter_map(|range| {
            let (number, Stamp { time, node }) = *logs.get(range)?;
            let log = pb::AppliedLog { range_id: range.0, time: time.0, node: node.0 };
            (number > after).then_some(log)
        });
        (*logs_noted, news.collect())
    }

    /// What to tell an origin: how far its stream is held in these ranges, and shown as noted.
    pub(super) fn to_tell(
        &self,
        origin: NodeId,
        ranges: &BTreeSet<RangeId>,
    ) -> (Timestamp, Timestamp) {
        let state = self.state();
        let held = ranges.iter().map(|range| state.marks.of(*range, origin).unwrap_or_default());
        (held.min().unwrap_or_default(), state.standing.noted.of(origin))
    }
}

impl State {
    /// How far everybody who follows this node's stream holds it.
    pub(super) fn held_by_all(&self) -> Timestamp {
        match &self.standing.sharers {
            Some(sharers) => self.followers.held_by_all(sharers.iter().copied()),
            None => Timestamp::ZERO,
        }
    }
}

fn position(row: &[u8]) -> Result<Timestamp, String> {
    let bytes = <[u8; 8]>::try_from(row).map_err(|_| "a position of the wrong length")?;
    Ok(Timestamp(u64::from_be_bytes(bytes)))
}

/// Its time and its node, 8 and 4 bytes, big-endian.
fn encode_stamp(Stamp { time, node }: Stamp) -> Vec<u8> {
    time.0.to_be_bytes().into_iter().chain(node.0.to_be_bytes()).collect()
}

fn decode_stamp(row: &[u8]) -> Result<Stamp, String> {
    let stamp = row.split_first_chunk::<8>().and_then(|(time, node)| {
        let node = <[u8; 4]>::try_from(node).ok()?;
        let time = Timestamp(u64::from_be_bytes(*time));
        Some(Stamp { time, node: NodeId(u32::from_be_bytes(node)) })
    });
    stamp.ok_or_else(|| "a stamp of the wrong length".into())
}

const MARK_LEN: usize = 4 + 8;

/// Each origin and its mark, 4 and 8 bytes, big-endian.
fn encode_marks(marks: impl Iterator<Item = (NodeId, Timestamp)>) -> Vec<u8> {
    let mark = |(origin, up_to): (NodeId, Timestamp)| {
        origin.0.to_be_bytes().into_iter().chain(up_to.0.to_be_bytes())
    };
    marks.flat_map(mark).collect()
}

fn decode_marks(row: &[u8]) -> Result<Vec<(NodeId, Timestamp)>, String> {
    if !row.len().is_multiple_of(MARK_LEN) {
        return Err("watermarks of the wrong length".into());
    }
    let mark = |bytes: &[u8]| {
        let (origin, up_to) = bytes.split_first_chunk::<4>()?;
        let up_to = <[u8; 8]>::try_from(up_to).ok()?;
        Some((NodeId(u32::from_be_bytes(*origin)), Timestamp(u64::from_be_bytes(up_to))))
    };
    Ok(row.chunks(MARK_LEN).filter_map(mark).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_are_read_back() {
        let marks = vec![(NodeId(1), Timestamp(7)), (NodeId(u32::MAX), Timestamp(u64::MAX))];
        let row = encode_marks(marks.iter().copied());
        assert_eq!(decode_marks(&row), Ok(marks));
        assert!(decode_marks(&row[1..]).is_err());
        assert_eq!(decode_marks(&[]), Ok(vec![]));
    }

    #[test]
    fn stamps_are_read_back() {
        let stamp = Stamp { time: Timestamp(u64::MAX - 7), node: NodeId(3) };
        assert_eq!(decode_stamp(&encode_stamp(stamp)), Ok(stamp));
        assert!(decode_stamp(&encode_stamp(stamp)[1..]).is_err());
    }
}
