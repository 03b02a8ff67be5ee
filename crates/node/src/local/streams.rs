//! Following the streams of local writes of other nodes.
//!
//! ```text
//!   subscriber                                              origin, or a relay while the origin is not heard
//!   pull, pull, pull … (several under way) ───────────────▶ waits until there is something to say
//!   stored, synced ─▶ W, then V            ◀─────────────── stretch (from, to], up to D or the relay's W
//! ```
//!
//! A stretch says where it begins, so nothing rests on a connection or on who sends it: a stretch behind a gap
//! lifts nothing, and whoever is in doubt subscribes again from what it holds (INV-6). That several pulls are
//! under way keeps a stretch from waiting for the round trip of the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use latitude_probe::{Mark, Plant};
use latitude_range::{Delta, Origin};
use latitude_rpc::pb::peer as pb;
use latitude_storage::{Batch, Column, key};
use latitude_types::{Epoch, Error, NodeId, Past, RangeId, Reason, Timestamp};
use rand::Rng;
use tokio::time::{Instant, sleep};

use super::{Local, State};
use crate::liveness::is_live;
use crate::shared::{NO_PANIC, Shared};

/// Pulls under way to one origin.
const PULLS: u32 = 8;
/// The least and the longest time for which a sender gathers.
const GATHER_MS: (u32, u32) = (2, 100);
/// Pause after a failure, and between looks for something to subscribe to.
const PAUSE: Duration = Duration::from_millis(50);
/// For so long a subscription does without what was refused.
const SKIPPED_FOR: Duration = Duration::from_secs(1);

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

/// Follows the stream of one node: as it sends it itself or, while it is not heard, as others hold it.
async fn follow(shared: Arc<Shared>, origin: NodeId) {
    let mut attempt = 0;
    // What each node has refused the last time: it is not asked for that the next time.
    let mut refusals: BTreeMap<NodeId, BTreeSet<RangeId>> = BTreeMap::new();
    loop {
        let ranges = wanted(&shared, origin);
        let relays = match is_live(&shared, origin) {
            true => Vec::new(),
            false => relays(&shared, origin, &ranges),
        };
        // The origin has its turn too: whether it lives is known late.
        let (via, mut ranges) = match attempt % (relays.len() + 1) {
            0 => (origin, ranges),
            turn => relays[turn - 1].clone(),
        };
        attempt += 1;
        let skipped = refusals.remove(&via).unwrap_or_default();
        ranges.retain(|range| !skipped.contains(range));
        if !ranges.is_empty() {
            match subscribe(&shared, Stream { origin, via, ranges, skipped }).await {
                Ok(refused) => drop(refusals.insert(via, refused)),
                Err(error) => tracing::debug!(%origin, %via, %error, "a subscription ended"),
            }
        }
        sleep(PAUSE).await;
    }
}

/// The ranges here of which the node is an origin, as far as their bases say, and whose stream it can send from
/// where they are: below what it still has the base must come first, by the log.
fn wanted(shared: &Shared, origin: NodeId) -> BTreeSet<RangeId> {
    let state = shared.local().state();
    let may = |range: &RangeId| {
        let least = state.refused_below.get(&(origin, *range)).copied().unwrap_or_default();
        state.marks.of(*range, origin).is_some_and(|mark| mark >= least)
    };
    state.overlays.keys().copied().filter(may).collect()
}

/// The other nodes that are heard and have some of these ranges, with those ranges; the nearest first.
fn relays(
    shared: &Shared,
    origin: NodeId,
    ranges: &BTreeSet<RangeId>,
) -> Vec<(NodeId, BTreeSet<RangeId>)> {
    let here = shared.node().ok();
    let directory = shared.catalog.current();
    let mut relays: Vec<_> = directory
        .nodes()
        .map(|node| node.id)
        .filter(|node| *node != origin && Some(*node) != here && is_live(shared, *node))
        .map(|node| {
            let has = |range: &RangeId| {
                directory.range(*range).is_some_and(|record| record.replica_on(node).is_some())
            };
            (node, ranges.iter().copied().filter(has).collect::<BTreeSet<_>>())
        })
        .filter(|(_, ranges)| !ranges.is_empty())
        .collect();
    relays.sort_by_key(|(node, _)| shared.peers().state(*node).round_trip);
    relays
}

/// What to subscribe to.
struct Stream {
    origin: NodeId,
    via: NodeId,
    ranges: BTreeSet<RangeId>,
    /// Wanted too, and refused there a moment ago.
    skipped: BTreeSet<RangeId>,
}

impl Stream {
    /// Whether this is still what to ask that node for.
    fn is_wanted(&self, shared: &Shared, since: Instant) -> bool {
        let Self { origin, via, ranges, skipped } = self;
        if !skipped.is_empty() && since.elapsed() > SKIPPED_FOR {
            return false;
        }
        let mut wanted = wanted(shared, *origin);
        if via != origin {
            return ranges.is_subset(&wanted) && !is_live(shared, *origin);
        }
        wanted.retain(|range| !skipped.contains(range));
        wanted == *ranges
    }
}

/// One subscription to a stream, until it breaks, or something else is wanted. The ranges that were refused.
async fn subscribe(shared: &Arc<Shared>, stream: Stream) -> Result<BTreeSet<RangeId>, Error> {
    let local = shared.local();
    let began = Instant::now();
    let Stream { origin, via, ref ranges, .. } = stream;
    let mut subscribed = local.subscribed(origin, ranges);
    let subscription = shared.random.lock().expect(NO_PANIC).next_u64();
    let mut pulls = FuturesOrdered::new();
    let mut told = 0;
    loop {
        let (held, shown) = local.to_tell(origin, ranges);
        while pulls.len() < PULLS as usize {
            let round_trip = shared.peers().state(via).round_trip.unwrap_or_default();
            let gather = (round_trip / PULLS).as_millis() as u32;
            let (noted, applied) = match via == origin {
                true => local.logs_to_tell(ranges, told),
                false => Default::default(),
            };
            told = noted;
            let pull = pb::Pull {
                subscription,
                ranges: std::mem::take(&mut subscribed),
                gather_ms: gather.clamp(GATHER_MS.0, GATHER_MS.1),
                origin: origin.0,
                held: held.0,
                shown: shown.0,
                applied,
            };
            pulls.push_back(shared.peers().pull(via, &pull));
        }
        let Some(answer) = pulls.next().await else { return Ok(BTreeSet::new()) };
        let stretch = answer.map_err(|error| Error::new(Reason::Unreachable, error.0))?;
        if !stretch.refused.is_empty() {
            let refused = stretch.refused.iter().map(|of| (RangeId(of.range_id), of.after));
            if via == origin {
                let mut state = local.state();
                for (range, above) in refused.clone() {
                    state.refused_below.insert((origin, range), Timestamp(above));
                }
            }
            return Ok(refused.map(|(range, _)| range).collect());
        }
        if stretch.unknown {
            return Err(Error::new(Reason::Internal, "it does not know the subscription"));
        }
        let whole = local.take_in(origin, ranges, &stretch).await?;
        shared.show_what_may_be();
        local.learn_stable(origin, Timestamp(stretch.stable));
        local.hear_stopped(origin, &stretch.stopped);
        if whole && via == origin {
            local.answered(origin, stretch.nudge, Timestamp(stretch.to));
        }
        if !whole || !stream.is_wanted(shared, began) {
            return Ok(BTreeSet::new());
        }
    }
}

impl Local {
    /// What to subscribe to, and from where.
    fn subscribed(&self, origin: NodeId, ranges: &BTreeSet<RangeId>) -> Vec<pb::SubscribedRange> {
        let state = self.state();
        let held = |range: RangeId| state.marks.of(range, origin).unwrap_or_default().0;
        let furthest = ranges.iter().map(|range| held(*range)).max();
        let furthest = furthest.filter(|_| Plant::LiftOverGap.is_on());
        let after = |range| furthest.unwrap_or_else(|| held(range));
        let subscribed =
            |range: &RangeId| pb::SubscribedRange { range_id: range.0, after: after(*range) };
        ranges.iter().map(subscribed).collect()
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
        let State { overlays, marks, visible, active, standing, folded, kept, .. } = &mut *state;
        if !deltas.is_empty() {
            *active = Some(Instant::now());
        }
        for delta in deltas {
            kept.stored(origin, delta.range, delta.position);
            standing.hear(delta.range, origin, delta.position);
            let is_folded = |mark: Timestamp| delta.position <= mark;
            // Meanwhile the base may have got past it, or the replica have gone.
            if marks.of(delta.range, origin).is_none_or(is_folded) {
                continue;
            }
            if let Some(overlay) = overlays.get_mut(&delta.range) {
                let past = match Plant::CausesIgnored.is_on() {
                    true => Past::default(),
                    false => causes(&delta, folded.get(&delta.range).map_or(&[], |known| known)),
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
        if visible.of(origin) < to {
            Mark::HeldAndNotShown.hit();
        }
        drop(state);
        self.tell();
        Ok(whole)
    }
}

/// What must be here before a delta is shown. An origin may have been admitted again by an entry that is not applied
/// here yet: then that as well.
pub(super) fn causes(delta: &Delta, origins: &[Origin]) -> Past {
    let mut past = delta.past.clone();
    let is_news = |origin: &Origin| origin.node == delta.origin && origin.admitted < delta.admitted;
    if origins.iter().any(is_news) {
        // A range that is served here is known by its number alone.
        past.add_log(delta.range, Epoch(1), delta.admitted);
    }
    past
}

impl State {
    /// Whether a delta of another node is news: its range is here, knows the origin, and has it neither folded
    /// nor in its overlay.
    fn wants(&self, delta: &Delta) -> bool {
        let mark = self.marks.of(delta.range, delta.origin);
        mark.is_some_and(|mark| delta.position > mark)
    }
}
