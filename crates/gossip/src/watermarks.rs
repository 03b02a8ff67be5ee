//! How much of each origin's stream a node holds, range by range (INV-6).

use std::collections::{BTreeMap, BTreeSet};

use latitude_types::{NodeId, RangeId, Timestamp};

/// W of every range and origin at one node: every delta of the origin in the range positioned up to there is
/// held durably, in base or overlay.
///
/// A mark rises in two ways: by a stretch of the stream that begins where the mark is, or lower; and by folds,
/// because what is folded is in the base.
///
/// ```text
///   stream of o in a range:  ──────────┬───────────────┬──▶
///                             by the log │ by the stream W
///                                      above
/// ```
///
/// Of what came by the stream every delta is stored, so it can be relayed; what came by the log is not: each range
/// and origin has a second mark for where that ends.
///
/// An origin that is sealed in a range takes nothing there, and nothing of it is waited for there. Its mark rises as
/// ever: it may be admitted again, and take more, before that is known here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Watermarks {
    ranges: BTreeMap<RangeId, BTreeMap<NodeId, Mark>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Mark {
    /// The store has every delta of (`above`, `up_to`].
    above: Timestamp,
    /// W.
    up_to: Timestamp,
    /// All there is of it is in the base.
    sealed: bool,
}

impl Watermarks {
    /// The base of a range has folded an origin up to there. The first word of an origin is how a range gets to
    /// know it.
    pub fn folded(&mut self, range: RangeId, origin: NodeId, up_to: Timestamp) {
        let mark = self.ranges.entry(range).or_default().entry(origin).or_default();
        if mark.up_to < up_to {
            *mark = Mark { above: up_to, up_to, ..*mark };
        }
    }

    /// Whether an origin that a range knows is sealed there.
    pub fn seal(&mut self, range: RangeId, origin: NodeId, sealed: bool) {
        let mark = self.ranges.get_mut(&range).and_then(|marks| marks.get_mut(&origin));
        if let Some(mark) = mark {
            mark.sealed = sealed;
        }
    }

    /// The store may lack deltas of an origin in a range up to there: they are folded, and dropped.
    pub fn dropped(&mut self, range: RangeId, origin: NodeId, up_to: Timestamp) {
        let mark = self.ranges.get_mut(&range).and_then(|marks| marks.get_mut(&origin));
        if let Some(mark) = mark {
            mark.above = mark.above.max(up_to);
        }
    }

    /// Every delta of the origin in the range in (`from`, `to`] is held durably. No effect if there is a gap
    /// between the mark and `from`, or if the range does not know the origin: `false`.
    pub fn lift(&mut self, range: RangeId, origin: NodeId, from: Timestamp, to: Timestamp) -> bool {
        let mark = self.ranges.get_mut(&range).and_then(|marks| marks.get_mut(&origin));
        match mark {
            Some(mark) if from <= mark.up_to => {
                mark.up_to = mark.up_to.max(to);
                true
            }
            _ => false,
        }
    }

    /// The range is not served here any more.
    pub fn forget(&mut self, range: RangeId) {
        self.ranges.remove(&range);
    }

    /// W; `None` if the range is not served here, or does not know the origin.
    pub fn of(&self, range: RangeId, origin: NodeId) -> Option<Timestamp> {
        Some(self.ranges.get(&range)?.get(&origin)?.up_to)
    }

    /// What of an origin's stream in a range is stored here whole, and can be relayed: (`above`, `up_to`] (INV-6:
    /// nothing is served from where something has gone). `None` if the range is not here, or does not know the origin.
    pub fn kept(&self, range: RangeId, origin: NodeId) -> Option<(Timestamp, Timestamp)> {
        let Mark { above, up_to, .. } = *self.ranges.get(&range)?.get(&origin)?;
        Some((above, up_to))
    }

    /// The least mark of an origin over all ranges served here that know it: how far its stream is held whole.
    pub fn least(&self, origin: NodeId) -> Option<Timestamp> {
        self.ranges.values().filter_map(|marks| marks.get(&origin)).map(|mark| mark.up_to).min()
    }

    /// The same of every origin that some range here knows.
    pub fn all_least(&self) -> BTreeMap<NodeId, Timestamp> {
        let mut least = BTreeMap::new();
        for (origin, mark) in self.ranges.values().flatten() {
            let of_origin = least.entry(*origin).or_insert(mark.up_to);
            *of_origin = mark.up_to.min(*of_origin);
        }
        least
    }

    /// The origins that may take more in some range here.
    pub fn taking(&self) -> BTreeSet<NodeId> {
        let marks = self.ranges.values().flatten().filter(|(_, mark)| !mark.sealed);
        marks.map(|(origin, _)| *origin).collect()
    }

    /// The origins of a range that may take more there, with their marks.
    pub fn taking_in(&self, range: RangeId) -> impl Iterator<Item = (NodeId, Timestamp)> {
        let marks = self.ranges.get(&range).into_iter().flatten();
        marks.filter(|(_, mark)| !mark.sealed).map(|(origin, mark)| (*origin, mark.up_to))
    }

    /// Every origin that some range here knows.
    pub fn origins(&self) -> BTreeSet<NodeId> {
        self.ranges.values().flat_map(|marks| marks.keys().copied()).collect()
    }

    /// The origins of a range with their marks.
    pub fn of_range(&self, range: RangeId) -> impl Iterator<Item = (NodeId, Timestamp)> {
        self.ranges.get(&range).into_iter().flatten().map(|(origin, mark)| (*origin, mark.up_to))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RANGE: RangeId = RangeId(4);
    const ORIGIN: NodeId = NodeId(1);

    proptest! {
        /// INV-6 by its definition, with stretches that come in any order, twice, or not at all.
        #[test]
        fn every_delta_up_to_the_mark_is_held(
            deltas in prop::collection::btree_set(1u64..50, 0..20),
            messages in prop::collection::vec((0u64..50, 0u64..20, any::<bool>()), 1..30),
        ) {
            let mut marks = Watermarks::default();
            marks.folded(RANGE, ORIGIN, Timestamp::ZERO);
            let mut base: BTreeSet<u64> = BTreeSet::new();
            let mut stored: BTreeSet<u64> = BTreeSet::new();
            for (from, len, is_fold) in messages {
                let to = from + len;
                if is_fold && len > 0 {
                    // A base that has folded up to there has every delta up to there.
                    base.extend(deltas.range(..=from));
                    marks.folded(RANGE, ORIGIN, Timestamp(from));
                } else if is_fold {
                    let drop = from.min(base.last().copied().unwrap_or_default());
                    stored.retain(|position| *position > drop);
                    marks.dropped(RANGE, ORIGIN, Timestamp(drop));
                } else {
                    // What is held already is not stored.
                    let mark = marks.of(RANGE, ORIGIN).unwrap().0;
                    let new = deltas.iter().filter(|at| (from + 1..=to).contains(at) && **at > mark);
                    stored.extend(new);
                    marks.lift(RANGE, ORIGIN, Timestamp(from), Timestamp(to));
                }
                let mark = marks.of(RANGE, ORIGIN).unwrap().0;
                let is_held = |position: &u64| base.contains(position) || stored.contains(position);
                prop_assert!(deltas.range(..=mark).all(is_held));
                let (above, up_to) = marks.kept(RANGE, ORIGIN).unwrap();
                if above < up_to {
                    let relayed = deltas.range(above.0 + 1..=up_to.0);
                    prop_assert!(relayed.clone().all(|position| stored.contains(position)));
                }
            }
        }
    }

    #[test]
    fn a_stretch_behind_a_gap_lifts_nothing() {
        let mut marks = Watermarks::default();
        assert!(
            !marks.lift(RANGE, ORIGIN, Timestamp(0), Timestamp(9)),
            "an origin nobody admitted"
        );
        marks.folded(RANGE, ORIGIN, Timestamp(10));
        assert!(!marks.lift(RANGE, ORIGIN, Timestamp(11), Timestamp(20)));
        assert!(marks.lift(RANGE, ORIGIN, Timestamp(5), Timestamp(20)));
        assert!(
            marks.lift(RANGE, ORIGIN, Timestamp(5), Timestamp(15)),
            "known already, and no gap"
        );
        assert_eq!(marks.of(RANGE, ORIGIN), Some(Timestamp(20)));
    }

    /// Pitfall B16: a relay does not pass on what it does not have any more, or never had.
    #[test]
    fn b16_what_came_by_the_log_is_not_relayed() {
        let mut marks = Watermarks::default();
        marks.folded(RANGE, ORIGIN, Timestamp(10));
        marks.lift(RANGE, ORIGIN, Timestamp(10), Timestamp(30));
        let kept = |marks: &Watermarks| marks.kept(RANGE, ORIGIN).unwrap();
        assert_eq!(kept(&marks), (Timestamp(10), Timestamp(30)));
        marks.folded(RANGE, ORIGIN, Timestamp(20));
        assert_eq!(kept(&marks), (Timestamp(10), Timestamp(30)), "stored, folded or not");
        marks.dropped(RANGE, ORIGIN, Timestamp(15));
        assert_eq!(kept(&marks), (Timestamp(15), Timestamp(30)));
        marks.folded(RANGE, ORIGIN, Timestamp(40));
        assert_eq!(kept(&marks), (Timestamp(40), Timestamp(40)), "a snapshot of the base came");
        assert_eq!(marks.kept(RangeId(6), ORIGIN), None);
    }

    #[test]
    fn a_stream_is_held_whole_as_far_as_every_range_holds_it() {
        let mut marks = Watermarks::default();
        marks.folded(RANGE, ORIGIN, Timestamp(10));
        marks.folded(RangeId(5), ORIGIN, Timestamp(7));
        marks.folded(RangeId(6), NodeId(2), Timestamp(3));
        assert_eq!(marks.least(ORIGIN), Some(Timestamp(7)));
        let all = BTreeMap::from([(ORIGIN, Timestamp(7)), (NodeId(2), Timestamp(3))]);
        assert_eq!(marks.all_least(), all);
        marks.forget(RangeId(5));
        assert_eq!(marks.least(ORIGIN), Some(Timestamp(10)));
        assert_eq!(marks.least(NodeId(3)), None);
        assert_eq!(marks.origins(), BTreeSet::from([ORIGIN, NodeId(2)]));
    }

    #[test]
    fn a_sealed_origin_s_mark_rises_and_is_waited_for_by_nobody() {
        let mut marks = Watermarks::default();
        marks.folded(RANGE, ORIGIN, Timestamp(10));
        marks.folded(RangeId(5), ORIGIN, Timestamp(30));
        marks.seal(RANGE, ORIGIN, true);
        assert!(marks.lift(RANGE, ORIGIN, Timestamp(10), Timestamp(20)));
        assert_eq!(marks.least(ORIGIN), Some(Timestamp(20)), "it may have been admitted again");
        assert_eq!(marks.taking_in(RANGE).count(), 0);
        assert_eq!(marks.taking(), BTreeSet::from([ORIGIN]));
        marks.seal(RangeId(5), ORIGIN, true);
        assert_eq!(marks.taking(), BTreeSet::new());
        marks.folded(RANGE, ORIGIN, Timestamp(40));
        marks.seal(RANGE, ORIGIN, false);
        assert_eq!(marks.taking_in(RANGE).collect::<Vec<_>>(), [(ORIGIN, Timestamp(40))]);
    }
}
