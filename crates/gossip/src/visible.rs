//! How much of each origin's stream a node may show to causal reads (INV-7).
//!
//! ```text
//!   o's stream as held here:   ●────●────●────●────●──────┤ W (least over the ranges here)
//!                              └ met ────┘    └ its past names what is not here yet
//!                                     V
//! ```
//!
//! A delta of another node is shown once all it follows is shown here: so what a session has read from the
//! overlays of a node never makes it wait at that node (pitfall 18). V is a prefix, one number per origin and
//! node, over all ranges served here (B13).

use std::collections::{BTreeMap, BTreeSet};

use latitude_types::{NodeId, Past, Positions, RangeId, Timestamp};

use crate::watermarks::Watermarks;

/// V of every origin at one node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Visible {
    shown: BTreeMap<NodeId, Timestamp>,
    /// Held and not shown yet, with what they follow.
    waiting: BTreeMap<NodeId, BTreeMap<Timestamp, Waiting>>,
}

/// A delta that is held and not shown yet.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Waiting {
    range: RangeId,
    past: Past,
}

/// What keeps a past from being met here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unmet {
    /// This origin's stream is not shown ...
    pub origin: NodeId,
    /// ... up to here.
    pub up_to: Timestamp,
}

impl Visible {
    /// A delta of another node, in this range, is held or about to be.
    pub fn hold(&mut self, range: RangeId, origin: NodeId, position: Timestamp, past: Past) {
        if position > self.of(origin) {
            self.waiting.entry(origin).or_default().insert(position, Waiting { range, past });
        }
    }

    /// The base of a range has folded an origin up to there: every read sees it, whatever it follows.
    pub fn folded(&mut self, range: RangeId, origin: NodeId, up_to: Timestamp) {
        if let Some(waiting) = self.waiting.get_mut(&origin) {
            waiting.retain(|position, delta| delta.range != range || *position > up_to);
        }
    }

    /// The range is not served here any more: nobody waits for what its deltas follow.
    pub fn forget(&mut self, range: RangeId) {
        self.waiting.retain(|_, waiting| {
            waiting.retain(|_, delta| delta.range != range);
            !waiting.is_empty()
        });
    }

    /// This node's own frontier is here: a local write was taken only once its past was met, so it is shown as
    /// soon as it is durable.
    pub fn show_own(&mut self, node: NodeId, durable: Timestamp) {
        let shown = self.shown.entry(node).or_default();
        *shown = (*shown).max(durable);
    }

    /// Shows what may be shown by now. Whether anything was.
    ///
    /// - `own`: this node, whose stream is shown by [`Visible::show_own`].
    /// - `logs_met`: whether every replica here has what a past follows of the logs.
    pub fn advance(
        &mut self,
        own: NodeId,
        marks: &Watermarks,
        mut logs_met: impl FnMut(&Past) -> bool,
    ) -> bool {
        // Once for all deltas: there may be many, and many ranges.
        let (least, taking) = (marks.all_least(), marks.taking());
        let mut any = false;
        loop {
            let mut again = false;
            for (origin, held) in least.iter().filter(|(origin, _)| **origin != own) {
                let (origin, held) = (*origin, *held);
                let mut up_to = held;
                while let Some((position, delta)) = self.first_waiting(origin) {
                    if position > held {
                        break;
                    }
                    let seen_is_shown =
                        self.follows_shown(origin, position, &delta.past.seen, &taking);
                    if !seen_is_shown || !logs_met(&delta.past) {
                        up_to = Timestamp(position.0 - 1);
                        break;
                    }
                    self.waiting.entry(origin).or_default().pop_first();
                }
                if up_to > self.of(origin) {
                    self.shown.insert(origin, up_to);
                    again = true;
                }
            }
            any |= again;
            if !again {
                return any;
            }
        }
    }

    fn first_waiting(&self, origin: NodeId) -> Option<(Timestamp, &Waiting)> {
        let (position, delta) = self.waiting.get(&origin)?.first_key_value()?;
        Some((*position, delta))
    }

    /// Whether all that a delta follows of streams is shown. What precedes it in its own stream is, if it is
    /// looked at in order.
    fn follows_shown(
        &self,
        origin: NodeId,
        position: Timestamp,
        seen: &Positions,
        taking: &BTreeSet<NodeId>,
    ) -> bool {
        let own_is_before = |unmet: &Unmet| unmet.origin == origin && unmet.up_to < position;
        self.unmet(seen, taking.iter().copied()).all(|unmet| own_is_before(&unmet))
    }

    /// What of `seen` is not shown here, among the streams of these origins.
    pub fn unmet(
        &self,
        seen: &Positions,
        origins: impl IntoIterator<Item = NodeId>,
    ) -> impl Iterator<Item = Unmet> {
        origins.into_iter().filter_map(|origin| {
            let up_to = seen.of(origin);
            (up_to > self.of(origin)).then_some(Unmet { origin, up_to })
        })
    }

    /// What of `seen` cannot be read here yet, in one range or, without one, in every range here: not shown, or
    /// not held in that range. V alone does not say the latter: a range whose replica came after V had risen, at a
    /// restart say, begins with what its base has folded. Of an origin that is sealed in the range the base has all.
    ///
    /// `own`: this node, of whose stream every range here has all that is shown.
    pub fn unreadable(
        &self,
        own: NodeId,
        range: Option<RangeId>,
        seen: &Positions,
        marks: &Watermarks,
    ) -> Option<Unmet> {
        let origins: Vec<_> = match range {
            Some(range) => marks.taking_in(range).map(|(origin, _)| origin).collect(),
            None => marks.taking().into_iter().collect(),
        };
        if let Some(unmet) = self.unmet(seen, origins.iter().copied()).next() {
            return Some(unmet);
        }
        let held = |origin| match range {
            Some(range) => marks.of(range, origin),
            None => marks.least(origin),
        };
        origins.into_iter().filter(|origin| *origin != own).find_map(|origin| {
            let up_to = seen.of(origin);
            (held(origin)? < up_to).then_some(Unmet { origin, up_to })
        })
    }

    /// V.
    pub fn of(&self, origin: NodeId) -> Timestamp {
        self.shown.get(&origin).copied().unwrap_or_default()
    }

    /// The first delta of each origin that is not shown, and what it follows: what holds the rest back, if it is
    /// held.
    pub fn blocked(&self) -> impl Iterator<Item = (NodeId, Timestamp, &Past)> {
        let first = |waiting: &BTreeMap<Timestamp, Waiting>| waiting.keys().next().copied();
        self.waiting.iter().filter_map(move |(origin, waiting)| {
            let position = first(waiting)?;
            Some((*origin, position, &waiting[&position].past))
        })
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::{Epoch, Stamp};
    use proptest::prelude::*;

    use super::*;

    const HERE: NodeId = NodeId(9);
    const X: NodeId = NodeId(1);
    const Y: NodeId = NodeId(2);

    fn past(seen: &[(NodeId, u64)]) -> Past {
        let mut past = Past::default();
        seen.iter().for_each(|(node, at)| past.seen.raise(*node, Timestamp(*at)));
        past
    }

    fn marks(of: &[(u64, NodeId, u64)]) -> Watermarks {
        let mut marks = Watermarks::default();
        for (range, node, at) in of {
            marks.folded(RangeId(*range), *node, Timestamp(*at));
        }
        marks
    }

    #[test]
    fn a_delta_is_shown_once_what_it_follows_is() {
        let mut visible = Visible::default();
        visible.hold(RangeId(1), Y, Timestamp(20), past(&[(X, 10)]));
        visible.advance(HERE, &marks(&[(1, X, 5), (1, Y, 30)]), |_| true);
        assert_eq!((visible.of(X), visible.of(Y)), (Timestamp(5), Timestamp(19)));
        // X's stream comes: both move, the one because of the other.
        visible.advance(HERE, &marks(&[(1, X, 12), (1, Y, 30)]), |_| true);
        assert_eq!((visible.of(X), visible.of(Y)), (Timestamp(12), Timestamp(30)));
    }

    #[test]
    fn what_follows_a_log_entry_waits_for_it() {
        let mut visible = Visible::default();
        let mut after = past(&[]);
        after.add_log(RangeId(1), Epoch(1), Stamp { time: Timestamp(50), node: X });
        visible.hold(RangeId(1), Y, Timestamp(60), after);
        let marks = marks(&[(1, Y, 70)]);
        visible.advance(HERE, &marks, |past| past.log.is_empty());
        assert_eq!(visible.of(Y), Timestamp(59));
        assert!(visible.advance(HERE, &marks, |_| true));
        assert_eq!(visible.of(Y), Timestamp(70));
        assert_eq!(visible.blocked().count(), 0);
    }

    /// Pitfall B13: of a stream that comes by two ways only what both have brought is shown.
    #[test]
    fn b13_one_number_for_all_ranges_served_here() {
        let mut visible = Visible::default();
        visible.hold(RangeId(1), Y, Timestamp(85), past(&[]));
        visible.advance(HERE, &marks(&[(1, Y, 85), (2, Y, 80)]), |_| true);
        assert_eq!(
            visible.of(Y),
            Timestamp(80),
            "a session that read 85 could not read the other range"
        );
    }

    /// A node starts again: one range is open and caught up before the other, and V rises. What a session has seen
    /// in the other is not there yet, whatever V says.
    #[test]
    fn a_range_that_comes_late_is_not_read_below_what_was_seen() {
        let mut visible = Visible::default();
        let (first, late) = (RangeId(1), RangeId(2));
        let mut marks = marks(&[(1, Y, 100)]);
        visible.advance(HERE, &marks, |_| true);
        marks.folded(late, Y, Timestamp(50));
        let seen = past(&[(Y, 80)]).seen;
        let unreadable = |marks: &Watermarks, range| visible.unreadable(HERE, range, &seen, marks);
        assert_eq!(visible.of(Y), Timestamp(100));
        assert_eq!(unreadable(&marks, Some(first)), None);
        let unmet = Some(Unmet { origin: Y, up_to: Timestamp(80) });
        assert_eq!((unreadable(&marks, Some(late)), unreadable(&marks, None)), (unmet, unmet));
        marks.lift(late, Y, Timestamp(50), Timestamp(100));
        assert_eq!((unreadable(&marks, Some(late)), unreadable(&marks, None)), (None, None));
    }

    #[test]
    fn what_is_folded_is_waited_for_no_longer() {
        let mut visible = Visible::default();
        visible.hold(RangeId(1), Y, Timestamp(20), past(&[(X, 10)]));
        let marks = marks(&[(1, X, 5), (1, Y, 30)]);
        visible.folded(RangeId(2), Y, Timestamp(25));
        assert!(visible.advance(HERE, &marks, |_| true));
        assert_eq!(visible.of(Y), Timestamp(19));
        visible.folded(RangeId(1), Y, Timestamp(25));
        visible.advance(HERE, &marks, |_| true);
        assert_eq!(visible.of(Y), Timestamp(30));
    }

    /// A keyspace is dropped while a delta of it waits here: its causes come no more, and no fold brings it.
    #[test]
    fn a_delta_of_a_range_that_has_left_holds_nothing_back() {
        let mut visible = Visible::default();
        let (dropped, rest) = (RangeId(1), RangeId(2));
        visible.hold(dropped, Y, Timestamp(20), past(&[(X, 10)]));
        visible.hold(rest, Y, Timestamp(25), past(&[(X, 4)]));
        let mut marks = marks(&[(1, X, 5), (1, Y, 30), (2, X, 5), (2, Y, 30)]);
        visible.advance(HERE, &marks, |_| true);
        assert_eq!(visible.of(Y), Timestamp(19));
        marks.forget(dropped);
        visible.forget(dropped);
        assert!(visible.advance(HERE, &marks, |_| true));
        assert_eq!((visible.of(Y), visible.blocked().count()), (Timestamp(30), 0));
    }

    /// What a session has seen of a sealed origin was taken in other ranges, or is in the base.
    #[test]
    fn a_sealed_origin_is_waited_for_only_where_it_is_not_sealed() {
        let mut visible = Visible::default();
        let (sealed, other) = (RangeId(1), RangeId(2));
        let mut marks = marks(&[(1, X, 10), (2, X, 20), (1, Y, 50)]);
        marks.seal(sealed, X, true);
        visible.advance(HERE, &marks, |_| true);
        let seen = past(&[(X, 30)]).seen;
        let unmet = Some(Unmet { origin: X, up_to: Timestamp(30) });
        let unreadable = |marks: &Watermarks, range| visible.unreadable(HERE, range, &seen, marks);
        assert_eq!(unreadable(&marks, Some(sealed)), None);
        assert_eq!((unreadable(&marks, Some(other)), unreadable(&marks, None)), (unmet, unmet));
        marks.seal(other, X, true);
        assert_eq!((unreadable(&marks, Some(other)), unreadable(&marks, None)), (None, None));
        let mut follower = visible.clone();
        follower.hold(sealed, Y, Timestamp(40), past(&[(X, 30)]));
        follower.advance(HERE, &marks, |_| true);
        assert_eq!(follower.of(Y), Timestamp(50), "nothing of X can be missing");
        marks.folded(sealed, X, Timestamp(25));
        marks.seal(sealed, X, false);
        assert_eq!(unreadable(&marks, Some(sealed)), unmet, "it was admitted again");
    }

    /// A node that shares no range with this one sends nothing here, and what follows its writes need not wait.
    #[test]
    fn an_origin_of_no_range_here_is_not_waited_for() {
        let mut visible = Visible::default();
        visible.hold(RangeId(1), Y, Timestamp(20), past(&[(NodeId(7), 15)]));
        visible.advance(HERE, &marks(&[(1, Y, 30)]), |_| true);
        assert_eq!(visible.of(Y), Timestamp(30));
    }

    proptest! {
        /// INV-7 by its definition: whatever comes in whatever order, what is shown is closed over causes, and
        /// once everything is held everything is shown.
        #[test]
        fn what_is_shown_is_closed_over_its_causes(
            // Each delta: its origin, and which earlier ones it follows.
            deltas in prop::collection::vec((1u32..4, any::<u16>()), 1..16),
            arrivals in prop::collection::vec((1u32..4, 0u64..18), 1..20),
        ) {
            let mut pasts: Vec<(NodeId, Timestamp, Past)> = Vec::new();
            for (i, (origin, follows)) in deltas.iter().enumerate() {
                let mut past = Past::default();
                for (j, (of, at, earlier)) in pasts.iter().enumerate() {
                    if follows >> j & 1 == 1 {
                        past.join(earlier);
                        past.seen.raise(*of, *at);
                    }
                }
                pasts.push((NodeId(*origin), Timestamp(i as u64 + 1), past));
            }
            let mut visible = Visible::default();
            let mut marks = Watermarks::default();
            (1..4).for_each(|node| marks.folded(RangeId(1), NodeId(node), Timestamp::ZERO));
            let all = arrivals.into_iter().chain((1..4).map(|node| (node, 18)));
            for (origin, to) in all {
                let (origin, to) = (NodeId(origin), Timestamp(to));
                let from = marks.of(RangeId(1), origin).unwrap();
                for (of, at, past) in &pasts {
                    if *of == origin && *at > from && *at <= to {
                        visible.hold(RangeId(1), origin, *at, past.clone());
                    }
                }
                marks.lift(RangeId(1), origin, from, to);
                visible.advance(HERE, &marks, |_| true);
                for (of, at, past) in &pasts {
                    if *at <= visible.of(*of) {
                        prop_assert!(visible.unmet(&past.seen, marks.origins()).next().is_none());
                    }
                    prop_assert!(visible.of(*of) <= marks.of(RangeId(1), *of).unwrap());
                }
            }
            prop_assert!((1..4).all(|node| visible.of(NodeId(node)) == Timestamp(18)));
        }
    }
}
