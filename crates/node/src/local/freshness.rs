//! As of when this node knows the streams of others, on its own monotonic clock.
//!
//! ```text
//!   nudge n sent ────────▶ origin: D                                  all it has acknowledged when n came
//!        │                        │                                   is at or below D
//!        └── age counts from here ┴─▶ stretch (.., D], answers n ──▶ held, shown
//! ```
//!
//! No clock but this node's own is in the argument, as with closed times.

use std::collections::BTreeMap;
use std::time::Duration;

use latitude_types::{NodeId, RangeId, Timestamp};
use tokio::time::Instant;

use super::Local;

/// Nudges on their way, and what the last answer said.
pub(super) struct Fresh {
    /// Of the last nudge. They begin at the clock, which no earlier life of this node has reached: an origin that
    /// remembers a nudge of that life answers none of these.
    number: u64,
    /// When the last nudge of each origin left, or will.
    last: BTreeMap<NodeId, Instant>,
    sent: BTreeMap<NodeId, BTreeMap<u64, Instant>>,
    answers: BTreeMap<NodeId, Answered>,
}

/// All that an origin had acknowledged by then is positioned up to there.
#[derive(Clone, Copy)]
struct Answered {
    as_of: Instant,
    up_to: Timestamp,
}

/// Nudges to one origin leave this far from each other at least; whoever asks in between shares the next one. So fewer
/// are under way than are remembered, unless a round trip takes [`PACE`] times [`UNANSWERED_MAX`].
const PACE: Duration = Duration::from_millis(5);
/// Unanswered nudges to one origin that are remembered.
const UNANSWERED_MAX: usize = 64;

impl Fresh {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            number: now.0,
            last: BTreeMap::new(),
            sent: BTreeMap::new(),
            answers: BTreeMap::new(),
        }
    }

    /// When a nudge is to be sent for somebody who asks now. `None`: one is about to be, for somebody else.
    fn next(&mut self, origin: NodeId, now: Instant) -> Option<Instant> {
        let last = self.last.get(&origin).copied();
        if last.is_some_and(|last| last > now) {
            return None;
        }
        let next = last.map_or(now, |last| now.max(last + PACE));
        self.last.insert(origin, next);
        Some(next)
    }

    fn begin(&mut self, origin: NodeId, now: Instant) -> u64 {
        self.number += 1;
        let sent = self.sent.entry(origin).or_default();
        // Never instead of an older one: the next answer may be to the oldest, and to no other.
        if sent.len() < UNANSWERED_MAX {
            sent.insert(self.number, now);
        }
        self.number
    }

    fn forget(&mut self, origin: NodeId, number: u64) {
        if let Some(sent) = self.sent.get_mut(&origin) {
            sent.remove(&number);
        }
    }

    fn answered(&mut self, origin: NodeId, number: u64, up_to: Timestamp) {
        let Some(sent) = self.sent.get_mut(&origin) else { return };
        let later = sent.split_off(&(number + 1));
        if let Some((_, as_of)) = std::mem::replace(sent, later).pop_last() {
            self.answers.insert(origin, Answered { as_of, up_to });
        }
    }
}

impl Local {
    /// When to nudge an origin for somebody who asks now. `None`: that is about to happen anyway.
    pub(crate) fn next_nudge(&self, origin: NodeId) -> Option<Instant> {
        self.state().fresh.next(origin, Instant::now())
    }

    /// Numbers a nudge that is about to be sent.
    pub(crate) fn begin_nudge(&self, origin: NodeId) -> u64 {
        self.state().fresh.begin(origin, Instant::now())
    }

    /// A nudge did not arrive, as far as is known: it need not be remembered.
    pub(crate) fn forget_nudge(&self, origin: NodeId, number: u64) {
        self.state().fresh.forget(origin, number);
    }

    /// A stretch that was taken in without a gap answers every nudge up to this number.
    pub(super) fn answered(&self, origin: NodeId, number: u64, up_to: Timestamp) {
        self.state().fresh.answered(origin, number, up_to);
    }

    /// As of when a read of the range misses nothing that another origin of it has acknowledged: of what is shown
    /// if `shown`, else of what is held. The origin that is the oldest, and `None` for one that never answered, or
    /// whose answer is not met here yet.
    pub(crate) fn as_of(&self, range: RangeId, shown: bool) -> Option<(NodeId, Option<Instant>)> {
        let state = self.state();
        let others = state.marks.taking_in(range).filter(|(origin, _)| *origin != self.inner.node);
        others
            .map(|(origin, held)| {
                let known = if shown { held.min(state.visible.of(origin)) } else { held };
                let answer = state.fresh.answers.get(&origin);
                (origin, answer.filter(|answer| answer.up_to <= known).map(|answer| answer.as_of))
            })
            .min_by_key(|(_, as_of)| *as_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: NodeId = NodeId(2);

    fn fresh() -> Fresh {
        Fresh::new(Timestamp(1_000))
    }

    /// As many readers as you like wait for one origin over a long round trip, and each answer is to an early one.
    #[test]
    fn an_answer_to_an_early_nudge_counts_however_many_have_left_since() {
        let (mut fresh, began) = (fresh(), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        let first = fresh.begin(ORIGIN, at(0));
        for ms in 1..100 {
            fresh.begin(ORIGIN, at(ms));
        }
        fresh.answered(ORIGIN, first + 10, Timestamp(70));
        assert_eq!(fresh.answers[&ORIGIN].as_of, at(10));
        // What was forgotten is answered with what is remembered: older, never fresher than it was.
        fresh.answered(ORIGIN, first + 99, Timestamp(80));
        assert_eq!(fresh.answers[&ORIGIN].as_of, at(63));
        let next = fresh.begin(ORIGIN, at(200));
        fresh.answered(ORIGIN, next, Timestamp(90));
        assert_eq!(fresh.answers[&ORIGIN].as_of, at(200));
    }

    #[test]
    fn whoever_asks_soon_after_another_shares_the_next_nudge() {
        let (mut fresh, began) = (fresh(), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        assert_eq!(fresh.next(ORIGIN, at(0)), Some(at(0)), "nobody has asked: at once");
        assert_eq!(fresh.next(ORIGIN, at(1)), Some(at(5)), "the first has left");
        assert_eq!(fresh.next(ORIGIN, at(2)), None);
        assert_eq!(fresh.next(NodeId(3), at(2)), Some(at(2)), "another origin");
        assert_eq!(fresh.next(ORIGIN, at(4)), None);
        // That one has left, or is leaving.
        assert_eq!(fresh.next(ORIGIN, at(5)), Some(at(10)));
        assert_eq!(fresh.next(ORIGIN, at(30)), Some(at(30)));
    }
}
