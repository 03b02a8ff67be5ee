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

use super::keeper::RELAYED_MS;
use super::{Local, State};
use crate::liveness::is_live;
use crate::shared::{NO_PANIC, Shared};

/// Pulls under way to one origin.
const PULLS: u32 = 8;
/// The least and the longest time for which a sender gathers.
const GATHER_MS: (u32, u32) = (2, 100);
/// Pause after a failure, and between looks for something to subscribe to.
const PAUSE: Duration = Duration::from_millis(50);
/// For so long a subscription does without what the origin has refused.
const SKIPPED_FOR: Duration = Duration::from_secs(1);
/// A relay that brings nothing for so long is left.
const RELAY_SILENT_MAX: Duration = Duration::from_secs(1);
/// For so long a relay is followed that brings some of the ranges only. The others have their turns after it, and that of
/// the origin takes a while if it is not heard.
const RELAY_OF_SOME_FOR: Duration = Duration::from_secs(3);

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
    let mut turn = 0;
    // What each node has refused the last time: it is not asked for that the next time.
    let mut refusals: BTreeMap<NodeId, BTreeSet<RangeId>> = BTreeMap::new();
    loop {
        let ranges = wanted(&shared, origin);
        let relays = match is_live(&shared, origin) {
            true => Vec::new(),
            false => relays(&shared, origin, &ranges),
        };
        // The origin has its turn too: whether it lives is known late.
        let (via, mut ranges) = match turn % (relays.len() + 1) {
            0 => (origin, ranges),
            relay => relays[relay - 1].clone(),
        };
        let skipped = refusals.remove(&via).unwrap_or_default();
        ranges.retain(|range| !skipped.contains(range));
        turn += 1;
        if !ranges.is_empty() {
            let left_out = skipped.clone();
            match subscribe(&shared, Stream { origin, via, ranges, skipped }).await {
                Ok(Some(mut refused)) => {
                    // The rest can be had there, at once.
                    refused.extend(left_out);
                    refusals.insert(via, refused);
                    turn -= 1;
                }
                Ok(None) => {}
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
    state.overlays.keys().copied().filter(|range| state.can_follow(origin, *range)).collect()
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
    ///
    /// - `since`: the subscription began.
    /// - `risen`: the stream last came further.
    fn is_wanted(&self, shared: &Shared, since: Instant, risen: Instant) -> bool {
        let Self { origin, via, ranges, skipped } = self;
        let mut wanted = wanted(shared, *origin);
        if via != origin {
            // Others have their turns too: a relay may be in need of one itself, or lack some of the ranges.
            return ranges.is_subset(&wanted)
                && !is_live(shared, *origin)
                && risen.elapsed() < RELAY_SILENT_MAX
                && (*ranges == wanted || since.elapsed() < RELAY_OF_SOME_FOR);
        }
        if !skipped.is_empty() && since.elapsed() > SKIPPED_FOR {
            return false;
        }
        wanted.retain(|range| !skipped.contains(range));
        wanted == *ranges
    }
}

/// One subscription to a stream, until it breaks, or something else is wanted, or some of it is refused: then the
/// ranges that are not to be asked for again.
async fn subscribe(
    shared: &Arc<Shared>,
    stream: Stream,
) -> Result<Option<BTreeSet<RangeId>>, Error> {
    let local = shared.local();
    let began = Instant::now();
    let mut risen = began;
    let Stream { origin, via, ref ranges, .. } = stream;
    local.leave_out_what_is_gone(origin, ranges);
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
        let Some(answer) = pulls.next().await else { return Ok(None) };
        let stretch = answer.map_err(|error| Error::new(Reason::Unreachable, error.0))?;
        if !stretch.refused.is_empty() {
            return Ok(Some(local.refused(origin, via, &stretch.refused)));
        }
        if stretch.unknown {
            return Err(Error::new(Reason::Internal, "it does not know the subscription"));
        }
        if stretch.to > stretch.from {
            risen = Instant::now();
        }
        let whole = local.take_in(origin, ranges, &stretch).await?;
        shared.show_what_may_be();
        local.learn_stable(origin, Timestamp(stretch.stable));
        local.hear_stopped(origin, &stretch.stopped);
        if whole && via == origin {
            local.answered(origin, stretch.nudge, Timestamp(stretch.to));
        }
        if !whole || !stream.is_wanted(shared, began, risen) {
            return Ok(None);
        }
    }
}

impl Local {
    /// Of what is folded here nobody is asked for what the origin has refused, or for what is too old to be relayed.
    fn leave_out_what_is_gone(&self, origin: NodeId, ranges: &BTreeSet<RangeId>) {
        let old = self.inner.clock.hybrid().peek().ms().saturating_sub(RELAYED_MS);
        let mut state = self.state();
        let State { marks, refused_below, .. } = &mut *state;
        for range in ranges {
            let refused = refused_below.get(&(origin, *range)).copied().unwrap_or_default();
            let held = marks.of(*range, origin).unwrap_or_default();
            marks.go_on_from(*range, origin, refused.max(Timestamp::from_ms(old)).min(held));
        }
    }

    /// What to subscribe to, and from where.
    fn subscribed(&self, origin: NodeId, ranges: &BTreeSet<RangeId>) -> Vec<pb::SubscribedRange> {
        let state = self.state();
        let held = |range: &RangeId| state.marks.of(*range, origin).unwrap_or_default().0;
        let furthest = ranges.iter().map(held).max().filter(|_| Plant::LiftOverGap.is_on());
        // Also where the base is further: what is stored without a gap can be relayed.
        let streamed = |range| state.marks.kept(range, origin).unwrap_or_default().1.0;
        let after = |range| furthest.unwrap_or_else(|| streamed(range));
        let subscribed =
            |range: &RangeId| pb::SubscribedRange { range_id: range.0, after: after(*range) };
        ranges.iter().map(subscribed).collect()
    }

    /// A node does not have a stream from where it ends here, in some ranges. Those that it is not to be asked for
    /// again: the others are followed from where it has them, because the base here has what is before.
    fn refused(
        &self,
        origin: NodeId,
        via: NodeId,
        refused: &[pb::SubscribedRange],
    ) -> BTreeSet<RangeId> {
        let mut state = self.state();
        let mut skipped = BTreeSet::new();
        for of in refused {
            let (range, above) = (RangeId(of.range_id), Timestamp(of.after));
            if state.marks.go_on_from(range, origin, above) {
                Mark::StreamGoesOnFurther.hit();
                continue;
            }
            skipped.insert(range);
            if via == origin {
                state.refused_below.insert((origin, range), above);
            }
        }
        skipped
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
            // The base may be past it, or the replica have gone.
            let mark = marks.of(delta.range, origin);
            if mark.is_some_and(is_folded) {
                Mark::StreamBehindLog.hit();
            }
            if mark.is_none_or(is_folded) {
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
    /// Whether the base of a range knows an origin, and is not behind what the origin has said that it keeps.
    pub(super) fn can_follow(&self, origin: NodeId, range: RangeId) -> bool {
        let least = self.refused_below.get(&(origin, range)).copied().unwrap_or_default();
        self.marks.of(range, origin).is_some_and(|mark| mark >= least)
    }

    /// Whether a delta of another node is news to the store: its range is here, knows the origin, and its stream has
    /// not come so far. If the base has it already, it is stored to be relayed.
    fn wants(&self, delta: &Delta) -> bool {
        let kept = self.marks.kept(delta.range, delta.origin);
        kept.is_some_and(|(_, streamed)| delta.position > streamed)
    }
}
