//! Sending streams of local writes: this node's own, and those of others as far as they are held here.
//!
//! ```text
//!   own:    column Stream ──── above what was dropped, up to D ───▶ stretch (from, to]
//!   relay:  column Stream ──── above what came by the log or was dropped, up to where the stream is ───▶ stretch
//! ```
//!
//! Whoever asks for what is not kept here any more is told so: the base must bring it, by the log (pitfall B16).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use latitude_gossip::Told;
use latitude_probe::{Mark, Plant};
use latitude_range::Delta;
use latitude_rpc::pb::peer as pb;
use latitude_storage::{Column, key};
use latitude_types::{NodeId, RangeId, Timestamp};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Local, State};
use crate::shared::NO_PANIC;

/// How long a sender waits for something to send before it says how far the stream is: while there are local
/// writes, and while there are none. A subscriber in need nudges.
const IDLE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(400));
/// A stretch is closed at this size; one delta is always in it.
const STRETCH_BYTES_MAX: usize = 512 << 10;

/// A subscription of another node, here.
pub(super) struct Subscriber {
    subscription: u64,
    ranges: Arc<BTreeSet<RangeId>>,
    /// How far the subscriber held each of them when it began.
    after: BTreeMap<RangeId, Timestamp>,
    /// Sent up to here. Whoever holds the lock answers the next pull: they take their turns in their order.
    sent: Mutex<Timestamp>,
}

/// Answers a pull, when there is something to say.
pub(crate) async fn serve(local: &Local, from: NodeId, pull: pb::Pull) -> pb::Stretch {
    let own = local.inner.node;
    let origin = if pull.origin == 0 { own } else { NodeId(pull.origin) };
    let Some(subscriber) = local.subscriber(from, origin, &pull) else { return unknown() };
    if origin == own {
        let ranges = Arc::clone(&subscriber.ranges);
        let told = Told { ranges, held: Timestamp(pull.held), shown: Timestamp(pull.shown) };
        local.hear(from, told);
        local.hear_applied(from, &pull.applied);
    }
    let mut sent = subscriber.sent.lock().await;
    let gather = Duration::from_millis(pull.gather_ms.into());
    let stretch = if origin == own {
        let (to, nudge) = local.something_after(from, *sent, gather).await;
        local.stretch(own, &subscriber, *sent, to).map(|stretch| {
            let is_whole = stretch.to >= to.0 && stretch.refused.is_empty();
            pb::Stretch { nudge: if is_whole { nudge } else { 0 }, ..stretch }
        })
    } else {
        // Of ranges that are not here nothing is waited for: they are refused.
        let to = local.something_streamed_after(origin, &subscriber.ranges, *sent, gather).await;
        let refused = match to {
            Some(to) if to <= *sent => local.standing_still(origin, &subscriber.ranges, *sent),
            _ => Vec::new(),
        };
        match refused.is_empty() {
            true => local.stretch(origin, &subscriber, *sent, to.unwrap_or(*sent)),
            false => {
                Mark::StreamRefused.hit();
                Ok(pb::Stretch { refused, ..pb::Stretch::default() })
            }
        }
    };
    match stretch {
        Ok(stretch) => {
            if stretch.refused.is_empty() {
                *sent = Timestamp(stretch.to);
            }
            let stable = local.stable(origin).0;
            pb::Stretch { stable, stopped: local.said_by(origin), ..stretch }
        }
        Err(error) => {
            tracing::error!(%origin, %error, "local writes cannot be read back");
            unknown()
        }
    }
}

fn unknown() -> pb::Stretch {
    pb::Stretch { unknown: true, ..pb::Stretch::default() }
}

impl Local {
    /// The subscription a pull goes on with, or begins.
    fn subscriber(&self, from: NodeId, origin: NodeId, pull: &pb::Pull) -> Option<Arc<Subscriber>> {
        let mut subscribers = self.inner.subscribers.lock().expect(NO_PANIC);
        let known = subscribers.get(&(from, origin));
        if let Some(known) = known.filter(|known| known.subscription == pull.subscription) {
            return Some(Arc::clone(known));
        }
        let after: BTreeMap<_, _> = pull
            .ranges
            .iter()
            .map(|range| (RangeId(range.range_id), Timestamp(range.after)))
            .collect();
        let sent = after.values().min()?;
        let new = Arc::new(Subscriber {
            subscription: pull.subscription,
            ranges: Arc::new(after.keys().copied().collect()),
            sent: Mutex::new(*sent),
            after,
        });
        subscribers.insert((from, origin), Arc::clone(&new));
        Some(new)
    }

    /// Waits until there is something to say to a subscriber that has been sent everything up to `sent`: local
    /// writes, or that there are none. How far it may be said, and up to which of its nudges it says all.
    async fn something_after(
        &self,
        from: NodeId,
        sent: Timestamp,
        gather: Duration,
    ) -> (Timestamp, u64) {
        let (mut changes, mut nudges) = (self.changes(), self.inner.nudges.subscribe());
        nudges.mark_unchanged();
        let idle = if self.state().is_active() { IDLE.0 } else { IDLE.1 };
        let patience = Instant::now() + idle;
        // The nudge first: what is durable after it was when the nudge came, or later.
        let until_now = || (self.nudge_of(from), self.lift());
        loop {
            if self.state().frontier_of_writes() > sent {
                sleep(gather).await;
                let nudge = self.nudge_of(from);
                return (self.state().frontier.durable(), nudge);
            }
            tokio::select! {
                biased;
                _ = changes.changed() => continue,
                _ = nudges.changed() => {}
                () = sleep_until(patience) => {}
            }
            let (nudge, to) = until_now();
            return (to, nudge);
        }
    }

    /// The same for another origin's stream, as far as it has come here. `None` if it has not, in one of the ranges.
    async fn something_streamed_after(
        &self,
        origin: NodeId,
        ranges: &BTreeSet<RangeId>,
        sent: Timestamp,
        gather: Duration,
    ) -> Option<Timestamp> {
        let mut changes = self.changes();
        let patience = Instant::now() + IDLE.1;
        loop {
            let up_to = self.streamed(origin, ranges)?;
            if up_to > sent {
                sleep(gather).await;
                return self.streamed(origin, ranges);
            }
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = sleep_until(patience) => return Some(up_to),
            }
        }
    }

    /// How far all of a stream in these ranges has come here. Where the log is further, that does not count: it is
    /// not stored what it brought.
    fn streamed(&self, origin: NodeId, ranges: &BTreeSet<RangeId>) -> Option<Timestamp> {
        let state = self.state();
        let streamed = |range: &RangeId| Some(state.marks.kept(*range, origin)?.1);
        // `None` is the least of all.
        ranges.iter().map(streamed).min().flatten()
    }

    /// The ranges of which a relay has no more of a stream than it has sent, while it has more of others: they would
    /// hold those up.
    fn standing_still(
        &self,
        origin: NodeId,
        ranges: &BTreeSet<RangeId>,
        sent: Timestamp,
    ) -> Vec<pb::SubscribedRange> {
        let state = self.state();
        let known = |range: &RangeId| Some((*range, state.marks.kept(*range, origin)?));
        let (still, further): (Vec<_>, Vec<_>) =
            ranges.iter().filter_map(known).partition(|(_, (_, streamed))| *streamed <= sent);
        let refused = |(range, (above, _)): (RangeId, (Timestamp, Timestamp))| {
            pb::SubscribedRange { range_id: range.0, after: above.0 }
        };
        match further.is_empty() {
            true => Vec::new(),
            false => still.into_iter().map(refused).collect(),
        }
    }

    /// Above which position all of a stream in a range is kept here. `None` if it is not known here; or stands still,
    /// because the base is behind what the origin keeps: it would hold up the other ranges.
    pub(super) fn kept_above(&self, origin: NodeId, range: RangeId) -> Option<Timestamp> {
        let state = self.state();
        match origin == self.inner.node {
            true => state.own_above.get(&range).copied(),
            false if !state.can_follow(origin, range) => None,
            false => state.marks.kept(range, origin).map(|(above, _)| above),
        }
    }

    /// The deltas of a stream in the ranges, positioned in (`from`, `to`], or as many as fit.
    fn stretch(
        &self,
        origin: NodeId,
        subscriber: &Subscriber,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<pb::Stretch, String> {
        let to = to.max(from);
        let mut stretch = pb::Stretch { from: from.0, to: to.0, ..pb::Stretch::default() };
        // In this order: rows that go meanwhile are in the snapshot, or it is known that they are gone.
        let view = self.inner.engine.snapshot();
        let mut refused = Vec::new();
        for (range, after) in &subscriber.after {
            // A range that is not here, or not yet, is refused for the moment.
            let above = self.kept_above(origin, *range);
            let is_kept = |above| from.max(*after) >= above || Plant::RelayForgets.is_on();
            if !above.is_some_and(is_kept) {
                let after = above.unwrap_or_default().0;
                refused.push(pb::SubscribedRange { range_id: range.0, after });
            }
        }
        if !refused.is_empty() {
            Mark::StreamRefused.hit();
            return Ok(pb::Stretch { refused, ..pb::Stretch::default() });
        }
        if to == from {
            return Ok(stretch);
        }
        let mut bytes = 0;
        let span = key::stream::span(origin, from.next()..=to);
        for row in view.scan(Column::Stream, span.into()) {
            let (row_key, row) = row.map_err(|error| error.to_string())?;
            let (_, position) = key::stream::decode(&row_key).ok_or("a damaged key of a delta")?;
            if bytes >= STRETCH_BYTES_MAX {
                // Everything before this one is in.
                stretch.to = position.0 - 1;
                break;
            }
            let delta = Delta::decode(&row).map_err(|error| error.to_string())?;
            if subscriber.ranges.contains(&delta.range) {
                if origin != self.inner.node {
                    Mark::StreamRelayed.hit();
                }
                bytes += row.len();
                stretch.deltas.push(row);
            }
        }
        Ok(stretch)
    }

    /// Another node waits for what this one has not said yet.
    pub(crate) fn nudged(&self, from: NodeId, number: u64) {
        let mut nudged = self.inner.nudged.lock().expect(NO_PANIC);
        let last = nudged.entry(from).or_default();
        *last = number.max(*last);
        drop(nudged);
        self.inner.nudges.send_replace(());
    }

    fn nudge_of(&self, from: NodeId) -> u64 {
        self.inner.nudged.lock().expect(NO_PANIC).get(&from).copied().unwrap_or_default()
    }
}

impl State {
    /// How far this node's own local writes are durable; not above the last of them.
    pub(super) fn frontier_of_writes(&self) -> Timestamp {
        self.last_write.min(self.frontier.durable())
    }
}
