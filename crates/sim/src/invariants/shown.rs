//! INV-7 (`consistency.md`): what a causal read shows of each origin's stream (V) is closed over causes.
//!
//! Seen at the end of every step: when a node shows more of an origin's stream, it has it, and of every delta that
//! is new in it the causes in the ranges it serves: local writes are shown or folded, entries of logs applied.
//!
//! Source: `pitfalls.md` 4, 18, B13; Lloyd et al., "Don't settle for eventual" (SOSP 2011).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use latitude_node::LocalMarks;
use latitude_range::Delta;
use latitude_types::{NodeId, RangeId, Stamp, Timestamp};

use super::deltas::{Deltas, Disk};
use super::logs::node_of;
use crate::violation::{Check, Violation};

/// What each host has shown since it started, and the ranges it served then with the origins they had there.
#[derive(Default)]
pub(crate) struct Shown(BTreeMap<Arc<str>, Showing>);

#[derive(Default)]
struct Showing {
    up_to: BTreeMap<NodeId, Timestamp>,
    streams: BTreeSet<(RangeId, NodeId)>,
}

impl Shown {
    /// A host has started.
    pub(crate) fn opened(&mut self, host: &Arc<str>) {
        self.0.remove(host);
    }

    /// What a host shows is this. `stamps`: the last stamp up to a floor that anybody has applied of a range.
    pub(crate) fn marks(
        &mut self,
        host: &Arc<str>,
        marks: &LocalMarks,
        deltas: &Deltas,
        stamps: impl Fn(RangeId, Stamp) -> Option<Stamp>,
    ) -> Option<Violation> {
        let (here, disk) = (node_of(host)?, deltas.disk(host)?);
        let before = self.0.entry(Arc::clone(host)).or_default();
        let now: BTreeMap<_, _> = marks.shown.iter().copied().collect();
        let streams: BTreeSet<_> = marks.held.iter().map(|(of, by, _)| (*of, *by)).collect();
        // One that came in this very step may have come after what was shown. An origin comes with the entry that
        // admits it, and whoever follows a write of it follows that entry: until that is applied, reads of the range wait.
        let served: BTreeSet<_> = streams.intersection(&before.streams).copied().collect();
        let look = Look { disk, now: &now, served: &served, deltas };
        let mut found = None;
        for (origin, up_to) in &now {
            let from = before.up_to.get(origin).copied().unwrap_or_default();
            if *origin == here || *up_to <= from {
                continue;
            }
            let new = deltas.taken(*origin, from, *up_to);
            let mut new =
                new.filter(|d| served.contains(&(d.range, d.origin)) && !disk.has_folded(d));
            found = found.or_else(|| new.find_map(|delta| look.unmet(delta, &stamps)));
        }
        *before = Showing { up_to: now, streams };
        found
    }
}

/// A host at a moment.
struct Look<'a> {
    disk: &'a Disk,
    now: &'a BTreeMap<NodeId, Timestamp>,
    served: &'a BTreeSet<(RangeId, NodeId)>,
    deltas: &'a Deltas,
}

impl Look<'_> {
    fn unmet(
        &self,
        delta: &Delta,
        stamps: impl Fn(RangeId, Stamp) -> Option<Stamp>,
    ) -> Option<Violation> {
        let Self { disk, now, served, deltas } = self;
        let found = |cause: String| {
            Check::Shown.found(format!(
                "it shows the local write of {} at {}, and {cause}, which it follows",
                delta.origin, delta.position
            ))
        };
        if !disk.has(delta) {
            return Some(found("does not hold it itself".into()));
        }
        for (origin, shown) in *now {
            let mut causes = deltas.taken(*origin, *shown, delta.past.seen.of(*origin));
            let is_before = |d: &Delta| d.origin == delta.origin && d.position <= delta.position;
            let hidden = causes.find(|cause| {
                let stream = (cause.range, cause.origin);
                served.contains(&stream) && !disk.has_folded(cause) && !is_before(cause)
            });
            if let Some(cause) = hidden {
                return Some(found(format!(
                    "not that of {} at {} in {}",
                    cause.origin, cause.position, cause.range
                )));
            }
        }
        let ranges: BTreeSet<_> = served.iter().map(|(range, _)| range).collect();
        ranges.into_iter().find_map(|range| {
            let exact = delta.past.log.iter().find(|(of, ..)| of == range);
            let exact = exact.map(|(.., stamp)| *stamp).unwrap_or_default();
            let needed = stamps(*range, delta.past.log_floor).unwrap_or_default().max(exact);
            let applied = disk.base(*range)?.last_stamp;
            (applied < needed)
                .then(|| found(format!("not entry {needed} of {range}, which is at {applied}")))
        })
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::Epoch;

    use super::super::deltas::tests::{RANGE, delta, meta, store};
    use super::*;

    const X: NodeId = NodeId(1);
    const Y: NodeId = NodeId(2);

    fn marks(x: u64, y: u64) -> LocalMarks {
        LocalMarks {
            durable: Timestamp::ZERO,
            held: vec![(RANGE, X, Timestamp(99)), (RANGE, Y, Timestamp(99))],
            shown: vec![(X, Timestamp(x)), (Y, Timestamp(y))],
        }
    }

    /// What is found when a host shows so much of both streams, of which Y's delta at 20 follows `change`.
    fn shows(x: u64, y: u64, change: impl Fn(&mut Delta), last: u64) -> Option<Check> {
        let hosts: Vec<Arc<str>> = (1..=3).map(|node| format!("node-{node}").into()).collect();
        let mut deltas = Deltas::default();
        let cause = delta(1, 10);
        let mut effect = delta(2, 20);
        change(&mut effect);
        store(&mut deltas, &hosts[0], &cause);
        store(&mut deltas, &hosts[1], &effect);
        store(&mut deltas, &hosts[2], &cause);
        store(&mut deltas, &hosts[2], &effect);
        let mut base = meta(&[(1, 0), (2, 0)]);
        base.last_stamp = Stamp { time: Timestamp(last), node: X };
        deltas.applies(&hosts[2], &base);
        let mut shown = Shown::default();
        let floor = Stamp { time: Timestamp(6), node: X };
        let stamps = |_, up_to| (up_to >= floor).then_some(floor);
        assert_eq!(shown.marks(&hosts[2], &marks(0, 0), &deltas, stamps), None);
        shown.marks(&hosts[2], &marks(x, y), &deltas, stamps).map(|found| found.check)
    }

    #[test]
    fn a_delta_is_shown_with_the_local_writes_it_follows() {
        let after_x = |effect: &mut Delta| effect.past.seen.raise(X, Timestamp(10));
        assert_eq!(shows(0, 19, after_x, 0), None, "not shown yet");
        assert_eq!(shows(9, 20, after_x, 0), Some(Check::Shown));
        assert_eq!(shows(10, 20, after_x, 0), None);
        assert_eq!(shows(0, 20, |_| {}, 0), None, "it follows nothing");
    }

    #[test]
    fn a_delta_is_shown_with_the_entries_it_follows() {
        let stamp = |at| Stamp { time: Timestamp(at), node: X };
        let after = |effect: &mut Delta| effect.past.add_log(RANGE, Epoch(1), stamp(7));
        assert_eq!(shows(0, 20, after, 6), Some(Check::Shown));
        assert_eq!(shows(0, 20, after, 7), None);
        let floor = |effect: &mut Delta| effect.past.log_floor = stamp(8);
        assert_eq!(shows(0, 20, floor, 5), Some(Check::Shown));
        assert_eq!(shows(0, 20, floor, 6), None, "there is no other up to the floor");
        let elsewhere = |effect: &mut Delta| effect.past.add_log(RangeId(9), Epoch(1), stamp(7));
        assert_eq!(shows(0, 20, elsewhere, 0), None, "a range that is not here");
    }
}
