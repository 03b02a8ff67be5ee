//! The durable frontier of a node's own local writes (INV-5).
//!
//! ```text
//!   given, synced │ given, not synced yet │ not given
//!   ──●───●───●───┼────●──────●───────────┼──────────▶ positions
//!                 D                       last given
//! ```

use std::collections::VecDeque;

use latitude_types::Timestamp;

/// How far every local write of this node is durable.
///
/// Whoever gives positions holds this, takes a position and a place in the write queue together, and writes in
/// the order of the places: so a sync covers a prefix.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frontier {
    /// Given and not synced yet, ascending.
    in_flight: VecDeque<Timestamp>,
    /// The last one given, or the largest time of which it was said that none is given at or below.
    last: Timestamp,
    durable: Timestamp,
}

impl Frontier {
    /// Gives a position. `false`, and nothing is given, if it is not above all that were: its time was not
    /// taken under this lock.
    #[must_use]
    pub fn give(&mut self, position: Timestamp) -> bool {
        if position <= self.last {
            return false;
        }
        self.last = position;
        self.in_flight.push_back(position);
        true
    }

    /// Every delta given up to here is synced.
    pub fn synced(&mut self, up_to: Timestamp) {
        while self.in_flight.front().is_some_and(|first| *first <= up_to) {
            self.in_flight.pop_front();
        }
        self.durable = self.durable.max(up_to.min(self.last));
    }

    /// Says that no position at or below `now` will be given, and how far that makes the frontier: up to `now`
    /// if nothing is in flight, else to just below the first that is. `now` was taken from the clock under the
    /// lock that positions are given under.
    pub fn lift(&mut self, now: Timestamp) -> Timestamp {
        self.last = self.last.max(now);
        let lifted = match self.in_flight.front() {
            Some(first) => Timestamp(first.0 - 1),
            None => self.last,
        };
        self.durable = self.durable.max(lifted);
        self.durable
    }

    /// The largest position given, or said to be given to nothing: every later one is above.
    pub fn last(&self) -> Timestamp {
        self.last
    }

    /// D: every delta positioned up to here is synced, and none will be given.
    pub fn durable(&self) -> Timestamp {
        self.durable
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Give,
        /// The first so many of those in flight are synced.
        Sync(usize),
        Lift,
    }

    fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
        let step =
            prop_oneof![Just(Step::Give), (1usize..4).prop_map(Step::Sync), Just(Step::Lift)];
        prop::collection::vec((1u64..4, step), 1..60)
    }

    proptest! {
        /// Pitfall 10, executions 1 and 2: INV-5 by its definition, and that an idle node's frontier follows its clock.
        #[test]
        fn nothing_at_or_below_the_frontier_is_unsynced_or_still_to_come(steps in steps()) {
            let mut frontier = Frontier::default();
            let (mut clock, mut said) = (0, Timestamp::ZERO);
            let mut unsynced = BTreeSet::new();
            for (passes, step) in steps {
                clock += passes;
                match step {
                    Step::Give => {
                        prop_assert!(frontier.give(Timestamp(clock)));
                        prop_assert!(Timestamp(clock) > said, "given at or below what was said");
                        unsynced.insert(Timestamp(clock));
                    }
                    Step::Sync(count) => {
                        let synced: Vec<_> = unsynced.iter().take(count).copied().collect();
                        if let Some(last) = synced.last() {
                            frontier.synced(*last);
                        }
                        unsynced.retain(|position| !synced.contains(position));
                    }
                    Step::Lift => {
                        let lifted = frontier.lift(Timestamp(clock));
                        prop_assert!(!unsynced.is_empty() || lifted == Timestamp(clock));
                    }
                }
                prop_assert!(frontier.durable() >= said, "it went back");
                said = frontier.durable();
                prop_assert!(unsynced.first().is_none_or(|first| *first > said));
            }
        }
    }

    /// Pitfall 1: an idle lift overtakes a delta that is being synced.
    #[test]
    fn p1_an_idle_lift_stays_below_what_is_being_synced() {
        let mut frontier = Frontier::default();
        assert!(frontier.give(Timestamp(100)));
        assert_eq!(frontier.lift(Timestamp(110)), Timestamp(99));
        assert!(!frontier.give(Timestamp(105)), "it was said that none is given up to 110");
        assert!(frontier.give(Timestamp(111)));
        frontier.synced(Timestamp(100));
        assert_eq!(frontier.durable(), Timestamp(100));
        frontier.synced(Timestamp(111));
        assert_eq!(frontier.lift(Timestamp(120)), Timestamp(120));
    }
}
