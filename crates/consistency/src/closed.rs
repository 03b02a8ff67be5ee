//! Closed times: up to which time a replica knows everything of its range's log.
//!
//! ```text
//!   leader, one section:  c = clock ──▶ round to a quorum ──▶ all given ≤ c applied at L ──▶ (L, c)
//!   any replica:          applied ≥ L  ⇒  every entry stamped ≤ c is in what it has applied
//! ```
//!
//! INV-4: (L, c) is published only if c is below every stamp given and not yet in the log at L, the range
//! is not frozen below c, and a quorum of the effective configuration answered, without a higher vote,
//! messages of the leader's vote sent when its clock was at c. Quorums meet and clocks only rise, so every
//! later leader stamps above c: no assumption on clock skew. An applied stamp is closed by itself, because
//! stamps rise in a log (INV-3).
//!
//! Source: closed timestamps of CockroachDB (follower reads) and safe time of Spanner, with an election
//! quorum in the place of a lease.

use std::time::Duration;

use latitude_probe::Mark;
use latitude_types::{NodeId, Stamp, Timestamp};

/// Closed times that wait to be reached, at most: the newest are kept.
const AHEAD_MAX: usize = 8;

/// A place in a range's log, as far as order goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LogPlace {
    /// The term of the entry's leader.
    pub term: u64,
    /// The entry's index.
    pub index: u64,
}

/// What a leader said: whoever has applied the log up to `at` has every entry stamped up to `time`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed {
    /// L.
    pub at: LogPlace,
    /// c.
    pub time: Timestamp,
    /// When this replica asked, on its own monotonic clock, from an origin of its choice. What was
    /// acknowledged before is in it: the leader took c afterwards.
    pub asked: Duration,
}

impl Closed {
    /// How long ago this replica asked: what it has applied is no staler than that, whatever the clocks of
    /// others say.
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.asked)
    }
}

/// What one replica knows of closed times.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClosedTimes {
    /// Reached by what is applied; the largest time.
    reached: Option<Closed>,
    /// Not reached yet; places and times both ascend.
    ahead: Vec<Closed>,
}

impl ClosedTimes {
    /// Takes in what a leader said.
    pub fn learn(&mut self, closed: Closed) {
        // What is neither earlier to reach nor later in time says nothing new.
        if self.ahead.iter().any(|known| known.at <= closed.at && known.time >= closed.time) {
            return;
        }
        self.ahead.retain(|known| !(closed.at <= known.at && closed.time >= known.time));
        let place = self.ahead.partition_point(|known| known.at < closed.at);
        self.ahead.insert(place, closed);
        if self.ahead.len() > AHEAD_MAX {
            // Not the newest, which others wait for, nor the next, which may be all a replica that lags
            // ever reaches.
            self.ahead.remove(1);
        }
    }

    /// The largest closed time that a replica which has applied up to `applied` has reached.
    pub fn reached(&mut self, applied: LogPlace) -> Option<Closed> {
        let count = self.ahead.partition_point(|closed| closed.at <= applied);
        if count < self.ahead.len() {
            Mark::ClosedNotReached.hit();
        }
        for closed in self.ahead.drain(..count) {
            if self.reached.is_none_or(|known| known.time < closed.time) {
                self.reached = Some(closed);
            }
        }
        self.reached
    }
}

/// The place up to which a replica knows everything: `max(last applied stamp, closed)`.
pub fn closed_up_to(last_stamp: Stamp, closed: Option<Closed>) -> Stamp {
    // Every stamp of that time, whichever node's, is below what a later leader gives.
    let end = closed.map(|closed| Stamp { time: closed.time, node: NodeId(u32::MAX) });
    last_stamp.max(end.unwrap_or(Stamp::ZERO))
}

/// Whether a leader may close up to `time` in a range frozen at `freeze` (pitfall 14).
pub fn may_close(time: Timestamp, freeze: Option<Timestamp>) -> bool {
    freeze.is_none_or(|freeze| time <= freeze)
}

/// How stale an answer may be, at most.
///
/// With a closed time that was asked for, the time since: no clock skew is in it. Without, what the
/// clocks say of the last applied stamp, which needs them to be within `max_offset` of each other
/// (pitfall 28): `None` if this node's is known not to be.
///
/// - `now`: the monotonic clock that [`Closed::asked`] is of.
/// - `physical_us`: the physical clock, microseconds since the Unix epoch.
/// - `max_offset`: ε; `None` if the clock is not in step with a majority's.
pub fn staleness(
    closed: Option<Closed>,
    now: Duration,
    last_stamp: Stamp,
    physical_us: u64,
    max_offset: Option<Duration>,
) -> Option<Duration> {
    let asked = closed.map(|closed| closed.age(now));
    let by_clocks = max_offset.filter(|_| last_stamp > Stamp::ZERO).map(|max_offset| {
        let stamped = Duration::from_millis(last_stamp.time.unix_ms());
        (Duration::from_micros(physical_us) + max_offset).saturating_sub(stamped)
    });
    // Never the smaller of the two: a clock that is slow, and not yet known to be, would make it nothing.
    asked.or(by_clocks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(term: u64, index: u64) -> LogPlace {
        LogPlace { term, index }
    }

    fn closed(index: u64, time: u64, asked: u64) -> Closed {
        Closed { at: place(1, index), time: Timestamp(time), asked: Duration::from_millis(asked) }
    }

    fn stamp(time: u64) -> Stamp {
        Stamp { time: Timestamp(time), node: NodeId(1) }
    }

    proptest! {
        /// Whatever was forgotten on the way: nothing is ever claimed that was not said of a place that
        /// has been reached, and what is claimed never goes back.
        #[test]
        fn nothing_is_closed_before_its_place_is_reached(
            said in prop::collection::vec((1u64..20, 1u64..40), 0..40),
            applied in prop::collection::vec(0u64..20, 0..40),
        ) {
            let mut times = ClosedTimes::default();
            let mut heard: Vec<Closed> = Vec::new();
            let (mut at, mut before) = (0, None);
            for (i, (index, time)) in said.iter().enumerate() {
                let one = closed(*index, *time, i as u64);
                times.learn(one);
                heard.push(one);
                at = at.max(applied.get(i).copied().unwrap_or_default());
                let reached = times.reached(place(1, at));
                if let Some(reached) = reached {
                    prop_assert!(heard.contains(&reached) && reached.at <= place(1, at));
                }
                prop_assert!(reached.map(|c| c.time) >= before);
                before = reached.map(|c| c.time);
            }
        }

        /// The newest is never forgotten, so a replica that catches up knows as much as it was told.
        #[test]
        fn a_replica_that_catches_up_knows_the_largest_time(
            said in prop::collection::vec((1u64..20, 1u64..40), 1..40)
        ) {
            let mut times = ClosedTimes::default();
            said.iter().for_each(|(index, time)| times.learn(closed(*index, *time, 0)));
            let largest = said.iter().map(|(_, time)| Timestamp(*time)).max();
            prop_assert_eq!(times.reached(place(1, 20)).map(|c| c.time), largest);
        }
    }

    #[test]
    fn a_place_is_a_term_and_an_index() {
        let mut times = ClosedTimes::default();
        times.learn(Closed { at: place(3, 10), ..closed(0, 150, 0) });
        assert_eq!(
            times.reached(place(2, 12)),
            None,
            "entry 12 of an earlier leader is not entry 10 of this one"
        );
        assert!(times.reached(place(3, 10)).is_some());
    }

    #[test]
    fn an_applied_stamp_is_closed_by_itself() {
        assert_eq!(closed_up_to(stamp(9), None), stamp(9));
        assert!(closed_up_to(stamp(9), Some(closed(1, 8, 0))) == stamp(9));
        let up_to = closed_up_to(stamp(9), Some(closed(1, 12, 0)));
        assert!(up_to >= stamp(12) && up_to < stamp(13));
    }

    /// Pitfall 14.
    #[test]
    fn a_frozen_range_closes_nothing_above_its_freeze() {
        assert!(may_close(Timestamp(9), None) && may_close(Timestamp(9), Some(Timestamp(9))));
        assert!(!may_close(Timestamp(10), Some(Timestamp(9))));
    }

    /// Pitfall 28.
    #[test]
    fn staleness_by_clocks_is_never_negative_and_needs_clocks_in_step() {
        let ms = Duration::from_millis;
        let last = Stamp {
            time: Timestamp::from_unix_ms(Timestamp::EPOCH_UNIX_MS + 1_000),
            node: NodeId(1),
        };
        let physical = |ms: u64| (Timestamp::EPOCH_UNIX_MS + ms) * 1_000;
        assert_eq!(staleness(None, ms(0), last, physical(1_200), Some(ms(500))), Some(ms(700)));
        assert_eq!(staleness(None, ms(0), last, physical(100), Some(ms(500))), Some(ms(0)));
        assert_eq!(staleness(None, ms(0), last, physical(1_200), None), None);
        assert_eq!(staleness(None, ms(0), Stamp::ZERO, physical(1_200), Some(ms(500))), None);
    }

    #[test]
    fn staleness_since_a_question_has_no_clock_skew_in_it() {
        let ms = Duration::from_millis;
        let asked = Some(closed(1, 5, 40));
        assert_eq!(staleness(asked, ms(100), Stamp::ZERO, 0, None), Some(ms(60)));
        // A clock that is 10 s slow takes the last stamp for one of the future, which is not stale at all.
        let last = Timestamp::from_unix_ms(Timestamp::EPOCH_UNIX_MS + 20_000);
        let last = Stamp { time: last, node: NodeId(1) };
        let slow_us = (Timestamp::EPOCH_UNIX_MS + 10_000) * 1_000;
        assert_eq!(staleness(asked, ms(100), last, slow_us, Some(ms(500))), Some(ms(60)));
    }
}
