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
//! How far logs are applied is noted with it, and told in the same way (`logs`).
//!
//! A token that does not name what is stable relies on every node: so what was told of V holds over restarts. That
//! is kept by refusing, or letting wait, causal requests of sessions until streams are there again as far as noted.
//! W is noted beside it, so that this needs nobody else. What is told lags behind by a second; nothing waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use latitude_directory::RangeRecord;
use latitude_gossip::Told;
use latitude_storage::{Batch, Column, Engine, key};
use latitude_types::{Error, NodeId, Positions, RangeId, Stamp, Timestamp};
use tokio::sync::watch;
use tokio::time::sleep;

use super::logs::{self, Logs};
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
    /// How far logs are applied, here and elsewhere.
    pub(super) logs: Logs,
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
        standing.logs = Logs::load(engine)?;
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

    /// A replica of this range opens here: the nodes that have the others share it from now on.
    pub(super) fn share(&mut self, record: &RangeRecord, here: NodeId) {
        if let Some(known) = &mut self.sharers {
            known.extend(sharers(record, here));
        }
    }

    /// These share a range with this node, and nobody else.
    #[cfg(test)]
    pub(super) fn share_with(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.sharers = Some(nodes.into_iter().collect());
    }

    /// W of a range, as noted by an earlier life of this node.
    pub(super) fn take_former(&mut self, range: RangeId) -> Vec<(NodeId, Timestamp)> {
        self.former.remove(&range).unwrap_or_default()
    }
}

/// The nodes that share a range with this one, if this one has a replica of it, and it can have local writes.
fn sharers(record: &RangeRecord, here: NodeId) -> impl Iterator<Item = NodeId> {
    let shares = !record.log_only && record.replica_on(here).is_some();
    let nodes = record.replicas().map(|replica| replica.node);
    nodes.filter(move |node| shares && *node != here)
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
        if shared.catalog.current().version() != version
            && let Ok(here) = shared.node()
        {
            let mut state = shared.local().state();
            // Under the lock under which ranges open: of what this directory does not have none is open.
            let directory = shared.catalog.current();
            version = directory.version();
            let of_ranges = directory.ranges().flat_map(|record| sharers(record, here));
            state.standing.sharers = Some(of_ranges.collect());
        }
        let directory = shared.catalog.current();
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
    async fn note(&self, logs: BTreeMap<RangeId, Stamp>) -> Result<(), Error> {
        let (shown, risen, logs, batch) = {
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
            let logs = state.standing.logs.news(logs);
            if shown.is_empty() && risen.is_empty() && logs.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            logs::write(&mut batch, &logs);
            for (origin, shown) in &shown {
                let row = shown.0.to_be_bytes().to_vec();
                batch.put(Column::Node, key::node::visible(*origin), row);
            }
            for range in &risen {
                let marks = encode_marks(state.marks.of_range(*range));
                batch.put(Column::Node, key::node::marks(*range), marks);
            }
            (shown, risen, logs, batch)
        };
        self.store(batch).await?;
        let mut state = self.state();
        for (origin, shown) in shown {
            state.standing.noted.raise(origin, shown);
        }
        state.standing.logs.noted(logs);
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
    use latitude_storage::memory::{MemoryDisk, MemoryEngine};

    use super::super::testing::{HERE, local, origins, record};
    use super::*;

    /// A keyspace is created, and written to at once. The directory was looked at a moment ago.
    #[tokio::test]
    async fn whoever_has_a_replica_of_a_range_counts_from_when_it_opens() {
        let (known, new, silent) = (NodeId(2), NodeId(3), NodeId(4));
        let engine = MemoryEngine::open(&MemoryDisk::new()).expect("it is new");
        let local = local(&(Arc::new(engine) as Arc<dyn Engine>));
        let open = |record: RangeRecord| local.open_range(&record, &origins(&[]));
        let hear = |node, shown| {
            let told = Told { shown: Timestamp(shown), held: Timestamp(shown), ..Told::default() };
            local.hear(node, told);
        };
        open(record(RangeId(3), &[HERE, known]));
        hear(known, 70);
        assert_eq!(local.stable(HERE), Timestamp::ZERO, "who else there is is not known yet");
        local.state().standing.share_with([known]);
        assert_eq!(local.stable(HERE), Timestamp(70));
        open(RangeRecord { log_only: true, ..record(RangeId(4), &[HERE, silent]) });
        assert_eq!(local.stable(HERE), Timestamp(70), "of that one there is no stream");
        open(record(RangeId(5), &[new, HERE]));
        let nothing = (Timestamp::ZERO, Timestamp::ZERO);
        assert_eq!((local.stable(HERE), local.state().held_by_all()), nothing);
        hear(new, 30);
        assert_eq!(local.stable(HERE), Timestamp(30));
    }

    #[test]
    fn watermarks_are_read_back() {
        let marks = vec![(NodeId(1), Timestamp(7)), (NodeId(u32::MAX), Timestamp(u64::MAX))];
        let row = encode_marks(marks.iter().copied());
        assert_eq!(decode_marks(&row), Ok(marks));
        assert!(decode_marks(&row[1..]).is_err());
        assert_eq!(decode_marks(&[]), Ok(vec![]));
    }
}
