//! Local writes at this node: those it takes, those of others it holds, and what of them may be shown.
//!
//! ```text
//!   put (causal) ─▶ position + place in the queue ─▶ Stream column ─▶ sync ─▶ D ─▶ acknowledged, shown, sent
//!                        one lock (INV-5)
//!   other origins ─▶ stretches of their streams ─▶ Stream column ─▶ sync ─▶ W (INV-6) ─▶ causes met ─▶ V (INV-7)
//!                                                         │
//!   base has folded ──────────── prunes ────────────▶ overlays, in memory, by range
//! ```
//!
//! Pulled in stretches from their origins, or from whoever holds them (`streams`, `sending`); what others have told
//! says what is stable (`standing`).
//!
//! The rules are `latitude_gossip`'s and `latitude_range`'s; here they meet the disk and the clock. Everything
//! in the column `Stream` is loaded at the start, so an overlay survives restarts, and a snapshot of the base
//! that is installed touches none of it (pitfall 10).
//!
//! One lock for all of it: a position and its place in the queue, the frontier and what is shown, an overlay and
//! its watermark must not be seen apart.

mod causes;
mod folder;
mod freshness;
mod keeper;
mod logs;
mod marks;
mod report;
mod seal;
mod sending;
mod sequencer;
mod standing;
mod streams;
mod sweeper;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use latitude_consensus::Committer;
use latitude_directory::RangeRecord;
use latitude_gossip::{Followers, Frontier, Unmet, Visible, Watermarks};
use latitude_probe::Plant;
use latitude_range::{Delta, Origin, OriginState, Overlay, Reader, Shown};
use latitude_storage::{Batch, Column, Engine, key};
use latitude_types::{
    Error, KeySpan, NodeId, OperationId, Past, Positions, RangeId, Reason, Timestamp,
};
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::clock_keeper::Clock;
use crate::config::Limits;
use crate::shared::NO_PANIC;

pub(crate) use causes::{behind_told, follow_base, has_logs, keep as keep_showing, unmet_logs};
pub(crate) use folder::Folder;
pub(crate) use keeper::keep as keep_little;
pub use marks::LocalMarks;
pub(crate) use report::unfolded as report_unfolded;
pub(crate) use seal::keep as keep_sealed;
pub(crate) use sending::serve as serve_pull;
pub(crate) use sequencer::Draft;
pub(crate) use standing::keep as keep_standing;
pub(crate) use streams::keep as keep_streams;
pub(crate) use sweeper::keep as keep_swept;

/// For so long after the last local write streams are lifted often.
const ACTIVE: Duration = Duration::from_secs(5);

/// The local writes at this node. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(crate) struct Local {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    clock: Clock,
    engine: Arc<dyn Engine>,
    committer: Committer,
    /// Unfolded deltas of one range take about this much memory at most.
    quota: usize,
    /// See [`Limits::laggards_bytes_max`].
    laggards_bytes_max: usize,
    /// Seconds from a position given here to its fold being applied here.
    folded_after: Histogram,
    state: Mutex<State>,
    /// Something of what is held, shown or durable has changed.
    changed: watch::Sender<()>,
    /// Something was queued to be written.
    queued: Notify,
    /// Somebody has asked for the frontier at once.
    nudges: watch::Sender<()>,
    /// The number of each node's last nudge.
    nudged: Mutex<BTreeMap<NodeId, u64>>,
    /// Somebody has told how far this node's stream is held.
    told: watch::Sender<()>,
    /// This node is to stop taking local writes in some range.
    sealing: Notify,
    /// To the folder.
    needs: mpsc::UnboundedSender<folder::Need>,
    /// By subscriber and origin.
    subscribers: Mutex<BTreeMap<(NodeId, NodeId), Arc<sending::Subscriber>>>,
}

struct State {
    frontier: Frontier,
    queue: Vec<sequencer::Queued>,
    marks: Watermarks,
    visible: Visible,
    overlays: BTreeMap<RangeId, Overlay>,
    /// What was told last of each range's base.
    folded: BTreeMap<RangeId, Arc<[Origin]>>,
    /// Origins that have stopped in a range, as they say: until all replicas know it by the range's log.
    stopped: seal::Stopped,
    /// How far this node stands with others' streams, as noted.
    standing: standing::Standing,
    /// What others have told of this node's stream.
    followers: Followers,
    /// As of when others' streams are known here.
    fresh: freshness::Fresh,
    /// Of this node's own writes in a range the store has what is positioned above this.
    own_above: BTreeMap<RangeId, Timestamp>,
    /// An origin keeps of a range only what is positioned above this, it has said.
    refused_below: BTreeMap<(NodeId, RangeId), Timestamp>,
    /// Deltas found at the start, of ranges whose replicas are not open yet.
    unclaimed: BTreeMap<RangeId, Vec<Arc<Delta>>>,
    /// Where the rows of streams begin in the store.
    kept: keeper::Kept,
    /// The position of this node's last local write.
    last_write: Timestamp,
    /// What the store has of this node's own stream takes about this much there.
    own_bytes: usize,
    /// The last local write, here or from elsewhere.
    active: Option<Instant>,
}

impl Local {
    /// The local writes as the store has them, and the task that folds them.
    ///
    /// # Errors
    /// The store cannot be read, or holds what this version does not know.
    pub(crate) fn open(
        node: NodeId,
        clock: Clock,
        engine: Arc<dyn Engine>,
        committer: Committer,
        limits: &Limits,
        folded_after: Histogram,
    ) -> Result<(Self, Folder), String> {
        let mut unclaimed: BTreeMap<RangeId, Vec<Arc<Delta>>> = BTreeMap::new();
        let (mut last_write, mut own_bytes) = (Timestamp::ZERO, 0);
        let mut kept = keeper::Kept::default();
        let everything = key::stream::everything();
        for row in engine.scan(Column::Stream, everything.into()) {
            let (_, row) = row.map_err(|error| error.to_string())?;
            let delta = Delta::decode(&row).map_err(|error| error.to_string())?;
            if delta.origin == node {
                last_write = last_write.max(delta.position);
                own_bytes += row.len();
            }
            kept.expect(delta.origin, delta.range, delta.position);
            unclaimed.entry(delta.range).or_default().push(Arc::new(delta));
        }
        // What a store shows when it is opened is durable, and the clock is above all of it.
        let (mut frontier, mut visible) = (Frontier::default(), Visible::default());
        visible.show_own(node, frontier.lift(clock.hybrid().peek()));
        let state = State {
            frontier,
            queue: Vec::new(),
            marks: Watermarks::default(),
            visible,
            overlays: BTreeMap::new(),
            folded: BTreeMap::new(),
            stopped: seal::Stopped::default(),
            standing: standing::Standing::load(&*engine)?,
            followers: Followers::default(),
            fresh: freshness::Fresh::new(clock.hybrid().peek()),
            own_above: BTreeMap::new(),
            refused_below: BTreeMap::new(),
            unclaimed,
            kept,
            last_write,
            own_bytes,
            active: None,
        };
        let (needs, folder) = mpsc::unbounded_channel();
        let inner = Inner {
            node,
            clock,
            engine,
            committer,
            quota: limits.unfolded_bytes_max,
            laggards_bytes_max: limits.laggards_bytes_max,
            folded_after,
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            queued: Notify::new(),
            nudges: watch::Sender::new(()),
            nudged: Mutex::default(),
            told: watch::Sender::new(()),
            sealing: Notify::new(),
            needs,
            subscribers: Mutex::default(),
        };
        Ok((Self { inner: Arc::new(inner) }, Folder::new(folder)))
    }

    /// A replica of the range is open here, with such a base. Before it can be written to: whoever has a replica of
    /// it counts from then on, in what is said to be everywhere.
    pub(crate) fn open_range(&self, record: &RangeRecord, origins: &Arc<[Origin]>) {
        let (here, range) = (self.inner.node, record.id);
        let mut state = self.state();
        let State { overlays, visible, unclaimed, folded, standing, kept, last_write, .. } =
            &mut *state;
        standing.share(record, here);
        let overlay = overlays.entry(range).or_default();
        for delta in unclaimed.remove(&range).unwrap_or_default() {
            if delta.origin != here {
                visible.hold(range, delta.origin, delta.position, streams::causes(&delta, origins));
            }
            overlay.insert(delta);
        }
        // What this node takes in it comes after all that it has taken so far.
        kept.expect(here, range, last_write.next());
        folded.remove(&range);
        drop(state);
        self.folded(range, origins);
        // Every delta up to these marks was synced before the mark was noted, and those that have gone since are
        // folded: whoever drops one writes after the batch that folds it, to the same write-ahead log.
        let mut state = self.state();
        let State { marks, standing, .. } = &mut *state;
        for (origin, noted) in standing.take_former(range) {
            let folded = marks.of(range, origin).unwrap_or_default();
            marks.lift(range, origin, folded, noted);
        }
        // What an earlier life has dropped is folded.
        state.keep_own_above(range, folded_of(origins, here));
        drop(state);
        self.tell();
    }

    /// The replica of a range cannot be opened here. This node takes nothing in it, but what it took goes on to the
    /// others: the store has all of that that the base does not. Unless they are told so, they wait for it, and
    /// show nothing of this node in any range (B13).
    pub(crate) fn cannot_open(&self, range: RangeId) {
        match Reader::new(range, &*self.inner.engine) {
            Ok(base) => {
                let folded = folded_of(&base.meta().origins, self.inner.node);
                self.state().keep_own_above(range, folded);
                self.tell();
            }
            Err(error) => {
                tracing::error!(%range, %error, "what this node took in a range cannot be sent");
            }
        }
    }

    /// The replica has left this node.
    pub(crate) fn close_range(&self, range: RangeId) {
        let mut state = self.state();
        state.overlays.remove(&range);
        state.unclaimed.remove(&range);
        state.folded.remove(&range);
        state.marks.forget(range);
        state.visible.forget(range);
        state.own_above.remove(&range);
        state.stopped.forget(range);
        state.refused_below.retain(|(_, refused), _| *refused != range);
        state.standing.take_former(range);
        state.standing.logs.leave(range);
        let last = state.frontier.last();
        state.kept.leave(self.inner.node, range, last);
        drop(state);
        self.forget_marks(range);
        self.tell();
    }

    /// Deltas that were found at the start and are of none of these ranges will be claimed by nobody.
    pub(crate) fn give_up_all_but(&self, may_open: impl Fn(RangeId) -> bool) {
        self.state().unclaimed.retain(|range, _| may_open(*range));
    }

    /// The base of a range has folded so far; whoever takes a snapshot from now on sees it.
    ///
    /// Called by whoever follows the base, and before anything is concluded from which origins there are: an
    /// answer that follows an origin's admission must not be given without it (pitfall 12).
    pub(crate) fn folded(&self, range: RangeId, origins: &Arc<[Origin]>) {
        let mut state = self.state();
        let State { overlays, marks, visible, folded, standing, stopped, .. } = &mut *state;
        let Some(overlay) = overlays.get_mut(&range) else { return };
        // Whoever comes late brings nothing new; and an origin that has stopped must not seem to go on.
        let is_old = |known: &Arc<[Origin]>| {
            Arc::ptr_eq(known, origins) || Origin::are_behind(origins, known)
        };
        if folded.get(&range).is_some_and(is_old) {
            return;
        }
        folded.insert(range, Arc::clone(origins));
        self.observe_folded(overlay, origins);
        stopped.retain(range, origins);
        overlay.prune(origins);
        for origin in origins.iter() {
            if marks.of(range, origin.node).is_some_and(|mark| mark < origin.folded) {
                standing.hear(range, origin.node, origin.folded);
            }
            marks.folded(range, origin.node, origin.folded);
            visible.folded(range, origin.node, origin.folded);
            marks.seal(range, origin.node, origin.state == OriginState::Sealed);
            if origin.node == self.inner.node && origin.state == OriginState::Sealing {
                self.inner.sealing.notify_one();
            }
        }
        drop(state);
        self.tell();
    }

    /// Shows what may be shown by now.
    pub(crate) fn advance(&self, logs_met: impl FnMut(&Past) -> bool) {
        let mut state = self.state();
        let State { marks, visible, .. } = &mut *state;
        let changed = visible.advance(self.inner.node, marks, logs_met);
        drop(state);
        if changed {
            self.tell();
        }
    }

    /// Whether a delta is held and not shown.
    pub(crate) fn is_blocked(&self) -> bool {
        self.state().visible.blocked().next().is_some()
    }

    /// The pasts that keep the first hidden delta of each origin from being shown.
    pub(crate) fn blocked(&self) -> Vec<Past> {
        self.state().visible.blocked().map(|(_, _, past)| past.clone()).collect()
    }

    /// What of these positions, and of what tokens need not say, cannot be read here yet: in one range or, without
    /// one, in every range here.
    pub(crate) fn unreadable(&self, range: Option<RangeId>, seen: &Positions) -> Option<Unmet> {
        let seen = self.with_unsaid(seen);
        let state = self.state();
        state.visible.unreadable(self.inner.node, range, &seen, &state.marks)
    }

    /// Of which other origin of a range local writes up to such a position are not held here.
    pub(crate) fn lacked(&self, range: RangeId, positions: &Positions) -> Option<NodeId> {
        let state = self.state();
        let is_lacked = |(origin, held): &(NodeId, Timestamp)| {
            *origin != self.inner.node && *held < positions.of(*origin)
        };
        state.marks.taking_in(range).find(is_lacked).map(|(origin, _)| origin)
    }

    /// How far the streams of a range's origins are held and shown here, at least.
    pub(crate) fn readable(&self, range: RangeId) -> Positions {
        let state = self.state();
        let own = self.inner.node;
        let mut readable = Positions::default();
        for (origin, held) in state.marks.taking_in(range) {
            let shown = state.visible.of(origin);
            readable.raise(origin, if origin == own { shown } else { shown.min(held) });
        }
        readable
    }

    /// Whether a copy of the write is held here and not folded yet.
    pub(crate) fn holds(&self, range: RangeId, id: &OperationId) -> bool {
        self.state().overlays.get(&range).is_some_and(|overlay| overlay.of_id(id).is_some())
    }

    /// The other origins of a range that may take more.
    pub(crate) fn origins_of(&self, range: RangeId) -> Vec<NodeId> {
        let state = self.state();
        let origins = state.marks.taking_in(range).map(|(origin, _)| origin);
        origins.filter(|origin| *origin != self.inner.node).collect()
    }

    /// The deltas that a causal read of these keys shows: of each origin those whose causes are met here. To be
    /// asked before the read takes its snapshot of the base.
    pub(crate) fn causal_look(&self, range: RangeId, span: &KeySpan) -> Shown {
        let state = self.state();
        state.shown(range, span, |origin| state.visible.of(origin))
    }

    /// The same for an eventual read: everything that is durable here.
    pub(crate) fn eventual_look(&self, range: RangeId, span: &KeySpan) -> Shown {
        let state = self.state();
        let own = self.inner.node;
        let limit = |origin| match origin == own {
            true => state.frontier.durable(),
            false => state.marks.of(range, origin).unwrap_or_default(),
        };
        state.shown(range, span, limit)
    }

    /// Whether a base that has folded so far, or this node's overlay beside it, shows that none of the session's
    /// own writes in the range is missing from the base (`consistency.md`, own check). If not: of which origin
    /// something is, or may be.
    pub(crate) fn own_unfolded(
        &self,
        range: RangeId,
        origins: &[Origin],
        own: &Positions,
    ) -> Option<NodeId> {
        let cut = Plant::OwnCut.is_on().then(|| self.state().visible.clone());
        let behind = |origin: &&Origin| {
            let needed = own.of(origin.node);
            let is_cut = cut.as_ref().is_some_and(|cut| needed <= cut.of(origin.node));
            !is_cut && origin.folded < origin.capped(needed)
        };
        let mut behind = origins.iter().filter(behind).peekable();
        behind.peek()?;
        let state = self.state();
        let first = behind.peek().map(|origin| origin.node);
        let Some(overlay) = state.overlays.get(&range) else { return first };
        let here = self.inner.node;
        behind
            .find(|origin| {
                let held = if origin.node == here {
                    state.frontier.durable()
                } else {
                    state.marks.of(range, origin.node).unwrap_or_default()
                };
                let needed = origin.capped(own.of(origin.node));
                held < needed || !overlay.has_none(origin.node, origin.folded, needed)
            })
            .map(|origin| origin.node)
    }

    /// Something of what is held, shown or durable here changes.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        let mut changes = self.inner.changed.subscribe();
        changes.mark_unchanged();
        changes
    }

    /// Takes a time at or below which no position will be given any more, and tells how far this node's own
    /// writes are durable.
    pub(crate) fn lift(&self) -> Timestamp {
        let mut state = self.state();
        // Under this lock, as positions are. Without a time (its bound is being raised) the frontier stays.
        if let Ok(now) = self.inner.clock.hybrid().now() {
            let durable = state.frontier.lift(now);
            state.visible.show_own(self.inner.node, durable);
        }
        state.frontier.durable()
    }

    /// Counts how long the writes taken here that are folded now were on their way into the log.
    fn observe_folded(&self, overlay: &Overlay, origins: &[Origin]) {
        let Inner { node, clock, folded_after, .. } = &*self.inner;
        let Some(own) = origins.iter().find(|origin| origin.node == *node) else { return };
        let now_ms = clock.hybrid().physical_us() / 1_000;
        for delta in overlay.of_origin(*node, Timestamp::ZERO, own.folded) {
            let took_ms = now_ms.saturating_sub(delta.position.unix_ms());
            folded_after.observe(took_ms as f64 / 1_000.0);
        }
    }

    fn tell(&self) {
        self.inner.changed.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().expect(NO_PANIC)
    }

    /// Writes rows and makes them durable.
    async fn store(&self, batch: Batch) -> Result<(), Error> {
        let failed = |message: String| Error::unknown(Reason::Internal, message);
        self.inner.engine.write(batch).map_err(|error| failed(error.to_string()))?;
        self.inner.committer.durable().await.map_err(|error| failed(error.to_string()))
    }
}

fn folded_of(origins: &[Origin], node: NodeId) -> Timestamp {
    let of_node = origins.iter().find(|origin| origin.node == node);
    of_node.map(|origin| origin.folded).unwrap_or_default()
}

impl State {
    fn shown(&self, range: RangeId, span: &KeySpan, limit: impl Fn(NodeId) -> Timestamp) -> Shown {
        self.overlays.get(&range).map(|overlay| overlay.shown(span, limit)).unwrap_or_default()
    }

    fn is_active(&self) -> bool {
        self.active.is_some_and(|active| active.elapsed() < ACTIVE)
    }
}
