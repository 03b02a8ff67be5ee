//! What those who follow a node's stream have told of it, and what of it is everywhere.
//!
//! ```text
//!   stream of this node:  ───────────●──────●──────●──────▶ D
//!   n2 has told                  shown    held
//!   n3 has told          shown      held
//!                          │          └ held by all: nobody needs it from here any more
//!                          └ Stable: whoever reads at any node sees it, whatever its token says
//! ```
//!
//! A token need not name what is stable: the nodes that share a range with this one have shown it, durably, and a
//! node that starts again serves no session below what it has told. What is held somewhere is more: it is on a
//! disk there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use latitude_types::{NodeId, RangeId, Timestamp};

/// What one node has told of another's stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Told {
    /// The ranges it speaks of.
    pub ranges: Arc<BTreeSet<RangeId>>,
    /// It holds everything of these ranges up to here, durably.
    pub held: Timestamp,
    /// It shows everything up to here, and has noted durably that it has said so.
    pub shown: Timestamp,
}

/// What the others have told of this node's stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Followers {
    told: BTreeMap<NodeId, Told>,
}

impl Followers {
    /// The latest word of a node. What it shows never falls: an older word that comes late takes nothing back.
    /// What it holds is of its present ranges, so the latest counts.
    pub fn hear(&mut self, node: NodeId, told: Told) {
        let known = self.told.entry(node).or_default();
        let shown = known.shown.max(told.shown);
        *known = Told { shown, ..told };
    }

    /// Who holds what this node took in a range at that position, durably.
    pub fn holders(
        &self,
        range: RangeId,
        position: Timestamp,
    ) -> impl Iterator<Item = NodeId> + '_ {
        let holds = move |told: &Told| told.held >= position && told.ranges.contains(&range);
        self.told.iter().filter(move |(_, told)| holds(told)).map(|(node, _)| *node)
    }

    /// How far each of these nodes holds what it follows.
    pub fn held_by_all(&self, nodes: impl IntoIterator<Item = NodeId>) -> Timestamp {
        self.least(nodes, |told| told.held)
    }

    /// Stable: how far each of these nodes, all that share a range with this one, shows the stream.
    pub fn stable(&self, nodes: impl IntoIterator<Item = NodeId>) -> Timestamp {
        self.least(nodes, |told| told.shown)
    }

    /// Of nobody, everything; a node that has told nothing has nothing.
    fn least(
        &self,
        nodes: impl IntoIterator<Item = NodeId>,
        of: impl Fn(&Told) -> Timestamp,
    ) -> Timestamp {
        let told = |node| self.told.get(&node).map_or(Timestamp::ZERO, &of);
        nodes.into_iter().map(told).min().unwrap_or(Timestamp(u64::MAX))
    }

    /// Each node with what it has told.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Told)> {
        self.told.iter().map(|(node, told)| (*node, told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: RangeId = RangeId(4);
    const X: NodeId = NodeId(2);
    const Y: NodeId = NodeId(3);

    fn told(ranges: &[RangeId], held: u64, shown: u64) -> Told {
        let ranges = Arc::new(ranges.iter().copied().collect());
        Told { ranges, held: Timestamp(held), shown: Timestamp(shown) }
    }

    /// Pitfall 23, and B2: what is held and not shown yet is not stable, nor what one node has said nothing of.
    #[test]
    fn what_is_stable_is_shown_by_every_node_that_shares_a_range() {
        let mut followers = Followers::default();
        followers.hear(X, told(&[R], 30, 20));
        assert_eq!(followers.stable([X]), Timestamp(20));
        assert_eq!(followers.stable([X, Y]), Timestamp::ZERO, "one has said nothing yet");
        followers.hear(Y, told(&[R], 9, 7));
        assert_eq!(followers.stable([X, Y]), Timestamp(7));
        assert_eq!(followers.held_by_all([X, Y]), Timestamp(9));
    }

    #[test]
    fn what_was_shown_once_stays_shown() {
        let mut followers = Followers::default();
        followers.hear(X, told(&[R], 30, 20));
        followers.hear(X, told(&[R], 30, 10));
        assert_eq!(followers.stable([X]), Timestamp(20));
    }

    #[test]
    fn a_node_holds_what_is_of_the_ranges_it_speaks_of() {
        let mut followers = Followers::default();
        followers.hear(X, told(&[R], 30, 20));
        followers.hear(Y, told(&[RangeId(5)], 90, 20));
        let holders = |position| followers.holders(R, Timestamp(position)).collect::<Vec<_>>();
        assert_eq!(holders(30), [X]);
        assert_eq!(holders(31), []);
    }
}
