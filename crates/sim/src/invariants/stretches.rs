//! INV-6 on the wire: a stretch of a stream is all of it, whoever sends it.
//!
//! A pull says whose stream is wanted, of which ranges; the stretch that answers it says that it has every local write of
//! that origin in them positioned in (from, to]. What is held against that is what the origin took.
//!
//! Source: `pitfalls.md` B16, a relay that serves what it no longer keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use latitude_range::Delta;
use latitude_rpc::pb::peer::{Pull, Stretch};
use latitude_types::{NodeId, RangeId, Timestamp};

use super::deltas::Deltas;
use super::logs::node_of;
use crate::net::Wire;
use crate::violation::{Check, Violation};

/// What was asked for and not answered yet.
#[derive(Default)]
pub(crate) struct Stretches {
    /// By who asks, and the subscription.
    subscriptions: BTreeMap<(Arc<str>, u64), Wanted>,
    calls: BTreeMap<(Wire, u64), Wanted>,
}

/// A part of an origin's stream.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) origin: NodeId,
    /// How far whoever asks held each range when the subscription began: that need not be sent.
    pub(crate) ranges: Arc<BTreeMap<RangeId, Timestamp>>,
}

impl Stretches {
    /// A host asks another one, in that call. What for.
    pub(crate) fn asked(
        &mut self,
        host: &Arc<str>,
        to: &str,
        (wire, call): (&Wire, u64),
        pull: &Pull,
    ) -> Option<Wanted> {
        let name = (Arc::clone(host), pull.subscription);
        if !pull.ranges.is_empty() {
            let origin = if pull.origin == 0 { node_of(to)? } else { NodeId(pull.origin) };
            let after = pull.ranges.iter().map(|of| (RangeId(of.range_id), Timestamp(of.after)));
            let ranges = Arc::new(after.collect());
            self.subscriptions.insert(name.clone(), Wanted { origin, ranges });
        }
        let wanted = self.subscriptions.get(&name)?.clone();
        self.calls.insert((wire.clone(), call), wanted.clone());
        Some(wanted)
    }

    /// The call is answered. What it was about.
    pub(crate) fn answered(&mut self, (wire, call): (&Wire, u64)) -> Option<Wanted> {
        self.calls.remove(&(wire.clone(), call))
    }
}

/// A local write that a stretch leaves out.
pub(crate) fn violation(wanted: &Wanted, stretch: &Stretch, deltas: &Deltas) -> Option<Violation> {
    let Wanted { origin, ranges } = wanted;
    let mut taken = deltas
        .taken(*origin, Timestamp(stretch.from), Timestamp(stretch.to))
        .filter(|delta| ranges.get(&delta.range).is_some_and(|after| delta.position > *after))
        .peekable();
    taken.peek()?;
    let sent: BTreeSet<_> = stretch
        .deltas
        .iter()
        .filter_map(|bytes| Delta::decode(bytes).ok())
        .map(|delta| delta.position)
        .collect();
    let left_out = taken.find(|delta| !sent.contains(&delta.position))?;
    Some(Check::Held.found(format!(
        "it sends the local writes of {origin} above {} up to {}, and leaves out the one at {} in {}",
        Timestamp(stretch.from),
        Timestamp(stretch.to),
        left_out.position,
        left_out.range
    )))
}

#[cfg(test)]
mod tests {
    use latitude_rpc::pb::peer::SubscribedRange;

    use super::super::deltas::tests::{RANGE, delta, store};
    use super::*;

    #[test]
    fn a_stretch_has_everything_of_the_ranges_that_were_asked_for() {
        let (a, b): (Arc<str>, Arc<str>) = ("node-1".into(), "node-2".into());
        let mut deltas = Deltas::default();
        for at in [10, 12, 20, 30] {
            store(&mut deltas, &a, &delta(1, at));
        }
        let mut stretches = Stretches::default();
        let wire = (Arc::clone(&b), 7);
        let pull = |range: RangeId| Pull {
            subscription: range.0,
            ranges: vec![SubscribedRange { range_id: range.0, after: 15 }],
            ..Pull::default()
        };
        let wanted = stretches.asked(&b, "node-1", (&wire, 1), &pull(RANGE)).unwrap();
        assert_eq!(wanted.origin, NodeId(1));
        let again = Pull { ranges: vec![], ..pull(RANGE) };
        assert!(stretches.asked(&b, "node-1", (&wire, 2), &again).is_some());
        let wanted = stretches.answered((&wire, 2)).unwrap();
        assert!(stretches.answered((&wire, 2)).is_none(), "once");
        let sends = |wanted: &Wanted, at: &[u64]| {
            let deltas_of = at.iter().map(|at| delta(1, *at).encode());
            let stretch =
                Stretch { from: 10, to: 30, deltas: deltas_of.collect(), ..Stretch::default() };
            violation(wanted, &stretch, &deltas).is_none()
        };
        assert!(sends(&wanted, &[20, 30]), "what was held before need not come");
        assert!(!sends(&wanted, &[30]));
        let elsewhere = stretches.asked(&b, "node-1", (&wire, 3), &pull(RangeId(9))).unwrap();
        assert!(sends(&elsewhere, &[]));
    }
}
