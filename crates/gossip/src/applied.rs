//! How far the replicas of each range have applied its log, as they tell; and what of it all of them have.
//!
//! A token need not name an entry that every replica of its range has applied: whoever reads there reads behind it. That
//! holds over restarts because a replica tells what it has noted durably, and serves no session below that again.

use std::collections::BTreeMap;

use latitude_types::{NodeId, RangeId, Stamp};

/// What replicas have told of their logs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    told: BTreeMap<RangeId, BTreeMap<NodeId, Stamp>>,
}

impl Applied {
    /// A replica has applied everything up to this stamp. An older word that comes late takes nothing back.
    pub fn hear(&mut self, range: RangeId, node: NodeId, stamp: Stamp) {
        let known = self.told.entry(range).or_default().entry(node).or_default();
        *known = stamp.max(*known);
    }

    /// The nodes known to have applied a range's log up to here.
    pub fn have(&self, range: RangeId, at: Stamp) -> impl Iterator<Item = NodeId> {
        let told = self.told.get(&range).into_iter().flatten();
        told.filter(move |(_, applied)| **applied >= at).map(|(node, _)| *node)
    }

    /// How far each of these nodes, all that have a replica of the range, has applied its log; [`Stamp::ZERO`] as long as
    /// one has not told.
    pub fn by_all(&self, range: RangeId, replicas: impl IntoIterator<Item = NodeId>) -> Stamp {
        let told = self.told.get(&range);
        let of = |node| told.and_then(|told| told.get(&node)).copied().unwrap_or_default();
        replicas.into_iter().map(of).min().unwrap_or_default()
    }

    /// What is known of these ranges only.
    pub fn retain(&mut self, is_here: impl Fn(RangeId) -> bool) {
        self.told.retain(|range, _| is_here(*range));
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::Timestamp;

    use super::*;

    fn stamp(at: u64) -> Stamp {
        Stamp { time: Timestamp(at), node: NodeId(1) }
    }

    #[test]
    fn an_entry_is_applied_by_all_once_the_last_replica_has_told() {
        let (range, replicas) = (RangeId(1), [NodeId(1), NodeId(2), NodeId(3)]);
        let mut applied = Applied::default();
        applied.hear(range, NodeId(1), stamp(9));
        applied.hear(range, NodeId(2), stamp(7));
        assert_eq!(applied.by_all(range, replicas), Stamp::ZERO, "one has told nothing");
        applied.hear(range, NodeId(3), stamp(8));
        assert_eq!(applied.by_all(range, replicas), stamp(7));
        applied.hear(range, NodeId(2), stamp(5));
        assert_eq!(applied.by_all(range, replicas), stamp(7), "an old word came late");
        assert_eq!(applied.by_all(range, []), Stamp::ZERO, "no replica is known");
        assert_eq!(applied.by_all(RangeId(2), replicas), Stamp::ZERO, "another range");
        applied.retain(|_| false);
        assert_eq!(applied.by_all(range, replicas), Stamp::ZERO, "forgotten");
    }
}
