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
///   stream of o in a range:  ────────┬──────────────┬───────────┬──▶
///                        by the log, │  stored      │  by the   W
///                        or dropped  │  whole       │  log
///                                  above        streamed
/// ```
///
/// What came by the stream is stored, delta by delta, so it can be relayed; what came by the log is not. So it is
/// known apart what is stored whole, and folds leave that alone: a fold that is ahead of the stream, be it over
/// nothing, raises W, and the stream goes on from where it was. The log may be ahead for a moment at each fold, and a
/// relay that forgot at each what it has would refuse whoever hears neither the origin nor the range's leader.
///
/// An origin that is sealed in a range takes nothing there, and nothing of it is waited for there. Its mark rises as
/// ever: it may be admitted again, and take more, before that is known here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Watermarks {
    ranges: BTreeMap<RangeId, BTreeMap<NodeId, Mark>>,
}

/// `above` ≤ `streamed` ≤ `up_to`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    /// The store has every delta of (`above`, `streamed`].
    above: Timestamp,
    streamed: Timestamp,
    /// W.
    up_to: Timestamp,
    /// All there is of it is in the base.
    sealed: bool,
}

impl Watermarks {
    /// The base of a range has folded an origin up to there. The first word of an origin is how a range gets to
    /// know it.
    pub fn folded(&mut self, range: RangeId, origin: NodeId, up_to: Timestamp) {
        let new = Mark { above: up_to, streamed: up_to, up_to, sealed: false };
        let mark = self.ranges.entry(range).or_default().entry(origin).or_insert(new);
        mark.up_to = mark.up_to.max(up_to);
    }

    /// Whether an origin that a range knows is sealed there.
    pub fn seal(&mut self, range: RangeId, origin: NodeId, sealed: bool) {
        if let Some(mark) = self.mark(range, origin) {
            mark.sealed = sealed;
        }
    }

    /// The store may lack deltas of an origin in a range up to there: they are folded, and dropped.
    pub fn dropped(&mut self, range: RangeId, origin: NodeId, up_to: Timestamp) {
        if let Some(mark) = self.mark(range, origin) {
            // What is not held cannot have been dropped.
            mark.above = mark.above.max(up_to.min(mark.up_to));
            mark.streamed = mark.streamed.max(mark.above);
        }
    }

    /// Every delta of the origin in the range in (`from`, `to`] is held durably, and stored as far as it is above
    /// what [`Watermarks::kept`] says. No effect if there is a gap between the mark and `from`, or if the range does
    /// not know the origin: `false`.
    pub fn lift(&mut self, range: RangeId, origin: NodeId, from: Timestamp, to: Timestamp) -> bool {
        match self.mark(range, origin) {
            Some(mark) if from <= mark.up_to => {
                mark.go_on_from(from);
                mark.streamed = mark.streamed.max(to);
                mark.up_to = mark.up_to.max(to);
                true
            }
            _ => false,
        }
    }

    /// Whoever is to send the stream of an origin in a range does not have it from where it ends here, but from further
    /// on: it is followed from there, if the base has what is before. `false`, and no effect, if that is not so.
    pub fn go_on_from(&mut self, range: RangeId, origin: NodeId, from: Timestamp) -> bool {
        match self.mark(range, origin) {
            Some(mark) if mark.streamed < from && from <= mark.up_to => {
                mark.go_on_from(from);
                true
            }
            _ => false,
        }
    }

    fn mark(&mut self, range: RangeId, origin: NodeId) -> Option<&mut Mark> {
        self.ranges.get_mut(&range)?.get_mut(&origin)
    }

    /// The range is not served here any more.
    pub fn forget(&mut self, range: RangeId) {
        self.ranges.remove(&range);
    }

    /// W; `None` if the range is not served here, or does not know the origin.
    pub fn of(&self, range: RangeId, origin: NodeId) -> Option<Timestamp> {
        Some(self.ranges.get(&range)?.get(&origin)?.up_to)
    }

    /// What of an origin's stream in a range is stored here whole, and can be relayed: (`above`, `streamed`] (INV-6:
    /// nothing is served from where something has gone). The stream is followed from its end. `None` if the range is
    /// not here, or does not know the origin.
    pub fn kept(&self, range: RangeId, origin: NodeId) -> Option<(Timestamp, Timestamp)> {
        let Mark { above, streamed, .. } = *self.ranges.get(&range)?.get(&origin)?;
        Some((above, streamed))
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

impl Mark {
    /// What is stored next begins there. If that leaves a gap, what is stored before it is not relayed any more.
    fn go_on_from(&mut self, from: Timestamp) {
        if self.streamed < from {
            (self.above, self.streamed) = (from, from);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RANGE: RangeId = RangeId(4);
    const ORIGIN: NodeId = NodeId(1);

    #[derive(Clone, Debug)]
    enum Act {
        Stretch,
        Fold,
        Drop,
        GoOn,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![3 => Just(Act::Stretch), 2 => Just(Act::Fold), 1 => Just(Act::Drop), 1 => Just(Act::GoOn)]
    }

    proptest! {
        /// INV-6 by its definition, with stretches that come in any order, twice, or not at all.
        #[test]
        fn every_delta_up_to_the_mark_is_held(
            deltas in prop::collection::btree_set(1u64..50, 0..20),
            messages in prop::collection::vec((0u64..50, 0u64..20, act()), 1..30),
        ) {
            let mut marks = Watermarks::default();
            marks.folded(RANGE, ORIGIN, Timestamp::ZERO);
            let mut base: BTreeSet<u64> = BTreeSet::new();
            let mut stored: BTreeSet<u64> = BTreeSet::new();
            for (at, len, act) in messages {
                let to = at + len;
                let mark = marks.of(RANGE, ORIGIN).unwrap().0;
                let streamed = marks.kept(RANGE, ORIGIN).unwrap().1.0;
                match act {
                    Act::Fold => {
                        // A base that has folded up to there has every delta up to there.
                        base.extend(deltas.range(..=at));
                        marks.folded(RANGE, ORIGIN, Timestamp(at));
                    }
                    Act::Drop => {
                        let folded = base.last().copied().unwrap_or_default();
                        stored.retain(|position| *position > at.min(folded));
                        marks.dropped(RANGE, ORIGIN, Timestamp(at));
                    }
                    Act::GoOn => {
                        let goes_on = marks.go_on_from(RANGE, ORIGIN, Timestamp(at));
                        prop_assert_eq!(goes_on, streamed < at && at <= mark);
                    }
                    Act::Stretch => {
                        // What came by the stream before is not stored again; what came by the log is.
                        let new = |position: &&u64| (at + 1..=to).contains(*position) && **position > streamed;
                        stored.extend(deltas.iter().filter(new));
                        marks.lift(RANGE, ORIGIN, Timestamp(at), Timestamp(to));
                    }
                }
                let now = marks.of(RANGE, ORIGIN).unwrap().0;
                prop_assert!(now >= mark);
                let is_held = |position: &u64| base.contains(position) || stored.contains(position);
                prop_assert!(deltas.range(..=now).all(is_held));
                let (above, streamed) = marks.kept(RANGE, ORIGIN).unwrap();
                prop_assert!(above <= streamed && streamed.0 <= now);
                if above < streamed {
                    let mut relayed = deltas.range(above.0 + 1..=streamed.0);
                    prop_assert!(relayed.all(|position| stored.contains(position)));
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
        assert!(marks.lift(RANGE, ORIGIN, Timestamp(10), Timestamp(35)));
        assert_eq!(
            kept(&marks),
            (Timestamp(15), Timestamp(35)),
            "what has gone does not come back"
        );
        marks.dropped(RANGE, ORIGIN, Timestamp(36));
        assert_eq!(kept(&marks), (Timestamp(35), Timestamp(35)), "what is not held is not dropped");
        assert_eq!(marks.kept(RangeId(6), ORIGIN), None);
    }

    /// The log may be ahead of the stream at any fold, also of one that brings nothing.
    #[test]
    fn a_fold_that_is_ahead_of_the_stream_leaves_alone_what_can_be_relayed() {
        let mut marks = Watermarks::default();
        marks.folded(RANGE, ORIGIN, Timestamp(10));
        marks.lift(RANGE, ORIGIN, Timestamp(10), Timestamp(30));
        marks.folded(RANGE, ORIGIN, Timestamp(40));
        let both = |marks: &Watermarks| {
            (marks.kept(RANGE, ORIGIN).unwrap(), marks.of(RANGE, ORIGIN).unwrap())
        };
        let at = Timestamp;
        assert_eq!(both(&marks), ((at(10), at(30)), at(40)));
        assert!(marks.lift(RANGE, ORIGIN, at(30), at(35)));
        assert_eq!(both(&marks), ((at(10), at(35)), at(40)));
        assert!(marks.lift(RANGE, ORIGIN, at(35), at(50)));
        assert_eq!(both(&marks), ((at(10), at(50)), at(50)));
        // A stretch that begins where the log is, and not where the stream was: what was before it is not whole.
        marks.folded(RANGE, ORIGIN, at(70));
        assert!(marks.lift(RANGE, ORIGIN, at(60), at(80)));
        assert_eq!(both(&marks), ((at(60), at(80)), at(80)));
    }

    #[test]
    fn a_stream_goes_on_where_somebody_has_it_if_the_base_has_what_is_before() {
        let mut marks = Watermarks::default();
        assert!(!marks.go_on_from(RANGE, ORIGIN, Timestamp(1)));
        marks.folded(RANGE, ORIGIN, Timestamp(10));
        marks.lift(RANGE, ORIGIN, Timestamp(10), Timestamp(20));
        marks.folded(RANGE, ORIGIN, Timestamp(40));
        assert!(!marks.go_on_from(RANGE, ORIGIN, Timestamp(41)), "the base does not have it");
        assert!(!marks.go_on_from(RANGE, ORIGIN, Timestamp(20)), "it goes on from there by itself");
        let kept = |marks: &Watermarks| marks.kept(RANGE, ORIGIN).unwrap();
        assert_eq!(kept(&marks), (Timestamp(10), Timestamp(20)));
        assert!(marks.go_on_from(RANGE, ORIGIN, Timestamp(30)));
        assert_eq!(kept(&marks), (Timestamp(30), Timestamp(30)));
        assert_eq!(marks.of(RANGE, ORIGIN), Some(Timestamp(40)));
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
