//! INV-6 (`consistency.md`): W of an origin in a range is over deltas that are held durably, in base or stream.
//!
//! Seen from the disks: when a node raises a mark, or tells another that it holds everything up to some position, it
//! has every delta of that origin in the range up to there; and it drops none that its base has not folded.
//!
//! Source: `pitfalls.md` 10, 18, B16.

use std::collections::BTreeMap;
use std::sync::Arc;

use latitude_types::{NodeId, RangeId, Timestamp};

use super::deltas::Deltas;
use crate::violation::{Check, Violation};

/// The marks that were looked at, of each host since it started.
#[derive(Default)]
pub(crate) struct Held(BTreeMap<Arc<str>, BTreeMap<(RangeId, NodeId), Timestamp>>);

impl Held {
    /// A host has started.
    pub(crate) fn opened(&mut self, host: &Arc<str>) {
        self.0.remove(host);
    }

    /// A host's marks are these.
    pub(crate) fn marks(
        &mut self,
        host: &Arc<str>,
        marks: &[(RangeId, NodeId, Timestamp)],
        deltas: &Deltas,
    ) -> Option<Violation> {
        let known = self.0.entry(Arc::clone(host)).or_default();
        let mut found = None;
        for (range, origin, mark) in marks {
            let before = known.entry((*range, *origin)).or_default();
            if *mark > *before {
                let lacks = lacks(host, *range, *origin, (*before, *mark), deltas);
                found = found.or(lacks);
                *before = *mark;
            }
        }
        found
    }

    /// A host tells an origin that it holds everything of it in a range up to there.
    pub(crate) fn tells(
        host: &Arc<str>,
        origin: NodeId,
        range: RangeId,
        up_to: Timestamp,
        deltas: &Deltas,
    ) -> Option<Violation> {
        lacks(host, range, origin, (Timestamp::ZERO, up_to), deltas)
    }

    /// A host drops a delta from its store.
    pub(crate) fn drops(
        host: &Arc<str>,
        (origin, position): (NodeId, Timestamp),
        deltas: &Deltas,
    ) -> Option<Violation> {
        let disk = deltas.disk(host)?;
        let before = Timestamp(position.0.saturating_sub(1));
        let delta = deltas.taken(origin, before, position).next()?;
        let is_lost = disk.base(delta.range).is_some() && !disk.has_folded(delta);
        is_lost.then(|| {
            Check::Held.found(format!(
                "the local write of {origin} at {position} is dropped, and is not in the base of {}",
                delta.range
            ))
        })
    }
}

fn lacks(
    host: &Arc<str>,
    range: RangeId,
    origin: NodeId,
    (from, to): (Timestamp, Timestamp),
    deltas: &Deltas,
) -> Option<Violation> {
    let disk = deltas.disk(host)?;
    let mut of_range = deltas.taken(origin, from, to).filter(|delta| delta.range == range);
    let lacked = of_range.find(|delta| !disk.has(delta))?;
    Some(Check::Held.found(format!(
        "it says that it holds the local writes of {origin} in {range} up to {to}, and lacks the one at {}",
        lacked.position
    )))
}

#[cfg(test)]
mod tests {
    use super::super::deltas::tests::{RANGE, delta, meta, row, store};
    use super::*;

    /// Pitfall 10, execution 2: what is told of others' streams is synced, or in the base.
    #[test]
    fn a_mark_is_over_what_is_held_or_folded() {
        let (a, b): (Arc<str>, Arc<str>) = ("node-1".into(), "node-2".into());
        let mut deltas = Deltas::default();
        for at in [10, 20, 30] {
            store(&mut deltas, &a, &delta(1, at));
        }
        let mut held = Held::default();
        let check = |mark, held: &mut Held, deltas: &Deltas| {
            let marks = [(RANGE, NodeId(1), Timestamp(mark))];
            held.marks(&b, &marks, deltas).map(|found| found.check)
        };
        deltas.applies(&b, &meta(&[(1, 10)]));
        assert_eq!(check(15, &mut held, &deltas), None, "10 is in the base");
        deltas.writes(&b, &row(&delta(1, 20)));
        assert_eq!(check(20, &mut held, &deltas), Some(Check::Held), "not synced");
        held.opened(&b);
        deltas.synced(&b);
        assert_eq!(check(29, &mut held, &deltas), None);
        assert_eq!(check(30, &mut held, &deltas), Some(Check::Held));
        let tells = |up_to| {
            Held::tells(&b, NodeId(1), RANGE, Timestamp(up_to), &deltas).map(|found| found.check)
        };
        assert_eq!(tells(29), None);
        assert_eq!(tells(30), Some(Check::Held));
    }

    #[test]
    fn only_what_is_folded_is_dropped() {
        let host: Arc<str> = "node-1".into();
        let mut deltas = Deltas::default();
        store(&mut deltas, &host, &delta(1, 10));
        deltas.applies(&host, &meta(&[(1, 9)]));
        let row = (NodeId(1), Timestamp(10));
        assert!(Held::drops(&host, row, &deltas).is_some());
        deltas.applies(&host, &meta(&[(1, 10)]));
        assert!(Held::drops(&host, row, &deltas).is_none());
    }
}
