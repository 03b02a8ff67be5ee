//! Streams of local writes between nodes.
//!
//! ```text
//!   subscriber                                              origin
//!   pull, pull, pull … (several under way) ───────────────▶ waits until there is something to say
//!   stored, synced ─▶ W, then V            ◀─────────────── stretch (from, to], up to D
//! ```
//!
//! A stretch says where it begins, so nothing rests on a connection: a stretch behind a gap lifts nothing, and
//! whoever is in doubt subscribes again from what it holds (INV-6). That several pulls are under way keeps a
//! stretch from waiting for the round trip of the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use latitude_probe::Plant;
use latitude_range::Delta;
use latitude_rpc::pb::peer as pb;
use latitude_storage::{Batch, Column, key};
use latitude_types::{Error, NodeId, Past, RangeId, Reason, Timestamp};
use rand::Rng;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Local, State};
use crate::shared::{NO_PANIC, Shared};

/// Pulls under way to one origin.
const PULLS: u32 = 8;
/// How long an origin waits for something to send before it says how far its stream is: while there are local
/// writes, and while there are none. A subscriber in need nudges.
const IDLE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(400));
/// The least and the longest time for which an origin gathers.
const GATHER_MS: (u32, u32) = (2, 100);
/// A stretch is closed at this size; one delta is always in it.
const STRETCH_BYTES_MAX: usize = 512 << 10;
/// Pause after a failure, and between looks for something to subscribe to.
const PAUSE: Duration = Duration::from_millis(50);

/// A subscription of another node, here.
pub(super) struct Subscriber {
    subscription: u64,
    ranges: BTreeSet<RangeId>,
    /// Sent up to here. Whoever holds the lock answers the next pull: they take their turns in their order.
    sent: Mutex<Timestamp>,
}

/// Answers a pull, when there is something to say.
pub(crate) async fn serve(local: &Local, from: NodeId, pull: pb::Pull) -> pb::Stretch {
    let subscriber = {
        let mut subscribers = local.inner.subscribers.lock().expect(NO_PANIC);
        let known = subscribers.get(&from).filter(|known| known.subscription == pull.subscription);
        match known {
            Some(known) => Arc::clone(known),
            None if pull.range_ids.is_empty() => {
                return pb::Stretch { unknown: true, ..pb::Stretch::default() };
            }
            None => {
                let new = Arc::new(Subscriber {
                    subscription: pull.subscription,
                    ranges: pull.range_ids.iter().map(|range| RangeId(*range)).collect(),
                    sent: Mutex::new(Timestamp(pull.after)),
                });
                subscribers.insert(from, Arc::clone(&new));
                new
            }
        }
    };
    let mut sent = subscriber.sent.lock().await;
    if *sent < local.kept_above() {
        // The next subscription begins from where the base has got by then.
        return pb::Stretch { kept_above: local.kept_above().0, ..pb::Stretch::default() };
    }
    let to = local.something_after(*sent, Duration::from_millis(pull.gather_ms.into())).await;
    let stretch = local.stretch(&subscriber.ranges, *sent, to);
    match stretch {
        Ok(stretch) => {
            if stretch.kept_above == 0 {
                *sent = Timestamp(stretch.to);
            }
            stretch
        }
        Err(error) => {
            tracing::error!(%error, "local writes cannot be read back");
            pb::Stretch { unknown: true, ..pb::Stretch::default() }
        }
    }
}

impl Local {
    /// Waits until there is something to say to a subscriber that holds everything up to `sent`: local writes, or
    /// that there are none. How far it may be said.
    async fn something_after(&self, sent: Timestamp, gather: Duration) -> Timestamp {
        let (mut changes, mut nudges) = (self.changes(), self.inner.nudges.subscribe());
        nudges.mark_unchanged();
        let idle = if self.state().is_active() { IDLE.0 } else { IDLE.1 };
        let patience = Instant::now() + idle;
        loop {
            if self.state().frontier_of_writes() > sent {
                sleep(gather).await;
                return self.state().frontier.durable();
            }
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                _ = nudges.changed() => return self.lift(),
                () = sleep_until(patience) => return self.lift(),
            }
        }
    }

    /// This node's local writes in the ranges, positioned in (`from`, `to`], or as many as fit.
    fn stretch(
        &self,
        ranges: &BTreeSet<RangeId>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<pb::Stretch, String> {
        let mut stretch =
            pb::Stretch { from: from.0, to: from.max(to).0, ..pb::Stretch::default() };
        let span = key::stream::span(self.inner.node, from.next()..=to.max(from));
        if to <= from {
            return Ok(stretch);
        }
        let mut bytes = 0;
        // In this order: rows that go meanwhile are in the snapshot, or it is known that they are gone.
        let view = self.inner.engine.snapshot();
        if from < self.kept_above() {
            return Ok(pb::Stretch { kept_above: self.kept_above().0, ..pb::Stretch::default() });
        }
        for row in view.scan(Column::Stream, span.into()) {
            let (row_key, row) = row.map_err(|error| error.to_string())?;
            let (_, position) = key::stream::decode(&row_key).ok_or("a damaged key of a delta")?;
            if bytes >= STRETCH_BYTES_MAX {
                // Everything before this one is in.
                stretch.to = position.0 - 1;
                break;
            }
            let delta = Delta::decode(&row).map_err(|error| error.to_string())?;
            if ranges.contains(&delta.range) {
                bytes += row.len();
                stretch.deltas.push(row);
            }
        }
        Ok(stretch)
    }

    /// Somebody waits for what this node has not said yet.
    pub(crate) fn nudged(&self) {
        self.inner.nudges.send_modify(|count| *count += 1);
    }

    /// Takes in a stretch of another node's stream: stored and synced first, then held, then it counts. `false`
    /// if there is a gap before it.
    async fn take_in(
        &self,
        origin: NodeId,
        ranges: &BTreeSet<RangeId>,
        stretch: &pb::Stretch,
    ) -> Result<bool, Error> {
        let (from, to) = (Timestamp(stretch.from), Timestamp(stretch.to));
        let damaged = |message: String| Error::new(Reason::Internal, message);
        let mut batch = Batch::new();
        let mut deltas = Vec::with_capacity(stretch.deltas.len());
        for bytes in &stretch.deltas {
            let delta = Delta::decode(bytes).map_err(|error| damaged(error.to_string()))?;
            if delta.origin != origin || delta.position <= from || delta.position > to {
                return Err(damaged(format!(
                    "a delta of {} in a stretch of {origin}",
                    delta.origin
                )));
            }
            if self.state().wants(&delta) {
                let row = key::stream::delta(origin, delta.position);
                batch.put(Column::Stream, row, bytes.clone());
                deltas.push(Arc::new(delta));
            }
        }
        if !deltas.is_empty() {
            self.store(batch).await?;
        }
        let mut state = self.state();
        let State { overlays, marks, visible, active, .. } = &mut *state;
        if !deltas.is_empty() {
            *active = Some(Instant::now());
        }
        for delta in deltas {
            let is_folded = |mark: Timestamp| delta.position <= mark;
            // Meanwhile the base may have got past it, or the replica have gone.
            if marks.of(delta.range, origin).is_none_or(is_folded) {
                continue;
            }
            if let Some(overlay) = overlays.get_mut(&delta.range) {
                let past = match Plant::CausesIgnored.is_on() {
                    true => Past::default(),
                    false => delta.past.clone(),
                };
                visible.hold(delta.range, origin, delta.position, past);
                overlay.insert(delta);
            }
        }
        let mut whole = true;
        let from = if Plant::LiftOverGap.is_on() { Timestamp::ZERO } else { from };
        for range in ranges {
            let lifted = marks.lift(*range, origin, from, to);
            whole &= lifted || marks.of(*range, origin).is_none();
        }
        drop(state);
        self.tell();
        Ok(whole)
    }
}

impl State {
    /// How far this node's own local writes are durable; not above the last of them.
    fn frontier_of_writes(&self) -> Timestamp {
        self.last_write.min(self.frontier.durable())
    }

    /// Whether a delta of another node is news: its range is here, knows the origin, and has it neither folded
    /// nor in its overlay.
    fn wants(&self, delta: &Delta) -> bool {
        let mark = self.marks.of(delta.range, delta.origin);
        mark.is_some_and(|mark| delta.position > mark)
    }
}

/// Follows the streams of all other nodes, for as long as the node runs.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut directory = shared.catalog.watch();
    let mut followed = BTreeMap::new();
    loop {
        let here = shared.node().ok();
        for node in shared.catalog.current().nodes().map(|node| node.id) {
            if Some(node) != here {
                followed.entry(node).or_insert_with(|| {
                    tokio::spawn(follow(Arc::clone(&shared), node)).abort_handle()
                });
            }
        }
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => {
                followed.values().for_each(tokio::task::AbortHandle::abort);
                return;
            }
            changed = directory.changed() => if changed.is_err() { return },
        }
    }
}

/// Follows the stream of one node.
async fn follow(shared: Arc<Shared>, origin: NodeId) {
    loop {
        let ranges = wanted(&shared, origin);
        if !ranges.is_empty()
            && let Err(error) = subscribe(&shared, origin, &ranges).await
        {
            tracing::debug!(%origin, %error, "a subscription ended");
        }
        sleep(PAUSE).await;
    }
}

/// The ranges here of which the node is an origin, as far as their bases say, and whose stream it can send from
/// where they are: below what it still has the base must come first, by the log.
fn wanted(shared: &Shared, origin: NodeId) -> BTreeSet<RangeId> {
    let state = shared.local().state();
    let least = state.refused_below.get(&origin).copied().unwrap_or_default();
    let may = |range: &RangeId| state.marks.of(*range, origin).is_some_and(|mark| mark >= least);
    state.overlays.keys().copied().filter(may).collect()
}

/// One subscription, until it breaks, or something else is wanted.
async fn subscribe(
    shared: &Arc<Shared>,
    origin: NodeId,
    ranges: &BTreeSet<RangeId>,
) -> Result<(), Error> {
    let local = shared.local();
    let after = {
        let state = local.state();
        ranges.iter().filter_map(|range| state.marks.of(*range, origin)).min().unwrap_or_default()
    };
    let subscription = shared.random.lock().expect(NO_PANIC).next_u64();
    let mut pulls = FuturesOrdered::new();
    let mut first = true;
    loop {
        while pulls.len() < PULLS as usize {
            let round_trip = shared.peers().state(origin).round_trip.unwrap_or_default();
            let gather = (round_trip / PULLS).as_millis() as u32;
            let pull = pb::Pull {
                subscription,
                after: after.0,
                range_ids: if first {
                    ranges.iter().map(|range| range.0).collect()
                } else {
                    vec![]
                },
                gather_ms: gather.clamp(GATHER_MS.0, GATHER_MS.1),
            };
            first = false;
            pulls.push_back(shared.peers().pull(origin, &pull));
        }
        let Some(answer) = pulls.next().await else { return Ok(()) };
        let stretch = answer.map_err(|error| Error::new(Reason::Unreachable, error.0))?;
        if stretch.kept_above > 0 {
            let above = Timestamp(stretch.kept_above);
            local.state().refused_below.insert(origin, above);
            let message = format!("it keeps only what is positioned above {above}");
            return Err(Error::new(Reason::ReplicaBehind, message));
        }
        if stretch.unknown {
            return Err(Error::new(Reason::Internal, "the origin does not know the subscription"));
        }
        let whole = local.take_in(origin, ranges, &stretch).await?;
        shared.show_what_may_be();
        if !whole || wanted(shared, origin) != *ranges {
            return Ok(());
        }
    }
}
