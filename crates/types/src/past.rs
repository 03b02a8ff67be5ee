//! What an operation causally follows: places in the streams of local writes, and log stamps.
//!
//! ```text
//!   Past ─┬─ seen: {node: position} + floor           local writes
//!         └─ log:  (range, epoch, stamp) × 16 + floor  log entries: exact for some ranges, one bound for the rest
//! ```
//!
//! Both are lattices: [`Past::join`] is commutative, associative, idempotent, and loses nothing: what one
//! of its arguments demands, the result demands too. A floor demands more than was seen; it never demands
//! less. That keeps a past small whatever a session touches.

use serde::{Deserialize, Serialize};

use crate::{Epoch, NodeId, RangeId, Stamp, Timestamp};

/// How many ranges a past names exactly.
pub const PAST_RANGES_MAX: usize = 16;

/// How far into each origin's stream, and a floor for all it does not name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Positions {
    /// By origin, ascending; each above the floor.
    pub by_node: Vec<(NodeId, Timestamp)>,
    /// For every other origin.
    pub floor: Timestamp,
}

impl Positions {
    /// How far into this origin's stream.
    pub fn of(&self, node: NodeId) -> Timestamp {
        match self.by_node.binary_search_by_key(&node, |(node, _)| *node) {
            Ok(at) => self.by_node[at].1.max(self.floor),
            Err(_) => self.floor,
        }
    }

    /// At least `position` in this origin's stream.
    pub fn raise(&mut self, node: NodeId, position: Timestamp) {
        if position <= self.floor {
            return;
        }
        match self.by_node.binary_search_by_key(&node, |(node, _)| *node) {
            Ok(at) => self.by_node[at].1 = self.by_node[at].1.max(position),
            Err(at) => self.by_node.insert(at, (node, position)),
        }
    }

    /// What either demands.
    pub fn join(&mut self, other: &Self) {
        self.floor = self.floor.max(other.floor);
        for (node, position) in &other.by_node {
            self.raise(*node, *position);
        }
        let floor = self.floor;
        self.by_node.retain(|(_, position)| *position > floor);
    }

    /// Drops what is at or below `stable`: what is held everywhere needs no naming. Whether that was anything.
    ///
    /// The floor goes only if every origin is stable up to it, those that `stable` does not name included.
    pub fn drop_up_to(&mut self, stable: &Self) -> bool {
        let before = (self.by_node.len(), self.floor);
        self.by_node.retain(|(node, position)| *position > stable.of(*node));
        if self.floor <= stable.floor {
            self.floor = Timestamp::ZERO;
        }
        before != (self.by_node.len(), self.floor)
    }

    /// The furthest place named.
    pub fn highest(&self) -> Timestamp {
        self.by_node.iter().map(|(_, position)| *position).fold(self.floor, Timestamp::max)
    }
}

/// What an operation causally follows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Past {
    /// Local writes.
    pub seen: Positions,
    /// Log entries, exactly: range, epoch and stamp; by range, ascending; each stamp above the floor.
    pub log: Vec<(RangeId, Epoch, Stamp)>,
    /// Log entries of every other range.
    pub log_floor: Stamp,
}

impl Past {
    /// Adds an entry of a range's log. The stamp must be one that was met: any other may block its
    /// readers for ever.
    pub fn add_log(&mut self, range: RangeId, epoch: Epoch, stamp: Stamp) {
        self.note_log(range, epoch, stamp);
        self.trim_log();
    }

    /// What either follows.
    pub fn join(&mut self, other: &Self) {
        self.seen.join(&other.seen);
        self.log_floor = self.log_floor.max(other.log_floor);
        for (range, epoch, stamp) in &other.log {
            self.note_log(*range, *epoch, *stamp);
        }
        self.trim_log();
    }

    /// Drops what need not be named: local writes at or below `stable`, and entries of which `is_applied` says that every
    /// replica of the range, at that epoch, has them.
    pub fn forget_stable(
        &mut self,
        stable: &Positions,
        is_applied: impl Fn(RangeId, Epoch, Stamp) -> bool,
    ) {
        self.seen.drop_up_to(stable);
        self.log.retain(|(range, epoch, stamp)| !is_applied(*range, *epoch, *stamp));
    }

    /// The largest stamp it follows.
    pub fn log_highest(&self) -> Stamp {
        self.log.iter().map(|(_, _, stamp)| *stamp).fold(self.log_floor, Stamp::max)
    }

    fn note_log(&mut self, range: RangeId, epoch: Epoch, stamp: Stamp) {
        if stamp <= self.log_floor {
            return;
        }
        match self.log.binary_search_by_key(&range, |(range, _, _)| *range) {
            Ok(at) => {
                let (_, known_epoch, known) = &mut self.log[at];
                // A range's epoch rises with its stamps, so the later stamp's is the later one.
                (*known, *known_epoch) = (*known, *known_epoch).max((stamp, epoch));
            }
            Err(at) => self.log.insert(at, (range, epoch, stamp)),
        }
    }

    /// The lowest go into the floor: the highest there would make every reader wait for about now.
    fn trim_log(&mut self) {
        if self.log.len() > PAST_RANGES_MAX {
            let mut stamps: Vec<_> = self.log.iter().map(|(_, _, stamp)| *stamp).collect();
            stamps.sort_unstable();
            self.log_floor = self.log_floor.max(stamps[stamps.len() - 1 - PAST_RANGES_MAX]);
        }
        let floor = self.log_floor;
        self.log.retain(|(_, _, stamp)| *stamp > floor);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn positions() -> impl Strategy<Value = Positions> {
        (prop::collection::vec((1u32..6, 1u64..20), 0..6), 0u64..10).prop_map(|(raised, floor)| {
            let mut positions = Positions { by_node: vec![], floor: Timestamp(floor) };
            raised.iter().for_each(|(node, at)| positions.raise(NodeId(*node), Timestamp(*at)));
            positions
        })
    }

    /// Stamps of few ranges collide, those of many overflow.
    fn pasts() -> impl Strategy<Value = Past> {
        let entry = (1u64..24, 1u32..3, 1u64..200, 1u32..4);
        (positions(), prop::collection::vec(entry, 0..40)).prop_map(|(seen, entries)| {
            let mut past = Past { seen, ..Past::default() };
            for (range, epoch, time, node) in entries {
                let stamp = Stamp { time: Timestamp(time), node: NodeId(node) };
                past.add_log(RangeId(range), Epoch(epoch), stamp);
            }
            past
        })
    }

    fn joined(a: &Past, b: &Past) -> Past {
        let mut joined = a.clone();
        joined.join(b);
        joined
    }

    /// What a past demands of a range.
    fn demand(past: &Past, range: RangeId) -> Stamp {
        let exact = past.log.iter().find(|(known, _, _)| *known == range);
        exact.map_or(past.log_floor, |(_, _, stamp)| *stamp)
    }

    proptest! {
        #[test]
        fn pasts_are_a_lattice(a in pasts(), b in pasts(), c in pasts()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a);
        }

        #[test]
        fn a_join_demands_what_either_did(a in pasts(), b in pasts()) {
            let both = joined(&a, &b);
            for range in (1..26).map(RangeId) {
                prop_assert!(demand(&both, range) >= demand(&a, range).max(demand(&b, range)));
            }
            for node in (1..8).map(NodeId) {
                prop_assert_eq!(both.seen.of(node), a.seen.of(node).max(b.seen.of(node)));
            }
            prop_assert!(both.log.len() <= PAST_RANGES_MAX);
            prop_assert!(both.log.iter().all(|(_, _, stamp)| *stamp > both.log_floor));
        }

        #[test]
        fn what_is_dropped_was_stable_and_nothing_else_changes(past in positions(), stable in positions()) {
            let mut left = past.clone();
            let dropped = left.drop_up_to(&stable);
            prop_assert_eq!(dropped, left != past);
            for node in (1..8).map(NodeId) {
                let (before, after) = (past.of(node), left.of(node));
                prop_assert!(after == before || before <= stable.of(node) && after <= before);
            }
            prop_assert!(left.by_node.iter().all(|(node, at)| *at > stable.of(*node)));
            prop_assert!(!left.drop_up_to(&stable), "there is nothing more to drop");
        }

        #[test]
        fn what_is_highest_is_never_lost(a in pasts(), b in pasts()) {
            prop_assert_eq!(joined(&a, &b).log_highest(), a.log_highest().max(b.log_highest()));
        }
    }

    /// Pitfall B15: the highest in the floor would make every later reader wait for about now.
    #[test]
    fn the_lowest_stamps_go_into_the_floor() {
        let mut past = Past::default();
        for range in 1..=20 {
            let stamp = Stamp { time: Timestamp(100 + range), node: NodeId(1) };
            past.add_log(RangeId(range), Epoch(1), stamp);
        }
        assert_eq!(past.log_floor.time, Timestamp(104));
        assert_eq!(past.log.len(), PAST_RANGES_MAX);
        assert_eq!(past.log[0].0, RangeId(5));
    }
}
