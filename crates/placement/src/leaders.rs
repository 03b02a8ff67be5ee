//! Which leaders to move now.

use std::collections::BTreeMap;

use latitude_types::{NodeId, RangeId};

use crate::NodeInfo;

/// A range, as its leader sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeInfo {
    /// Its id.
    pub id: RangeId,
    /// Its replicas, the preferred leader first.
    pub replicas: Vec<ReplicaInfo>,
    /// The node that leads it, if one does.
    pub leader: Option<NodeId>,
    /// Whether its configuration is joint.
    pub is_joint: bool,
    /// Where its leader is being moved to, if it is. A transfer the caller has given up but whose range
    /// should rest a while may be left in here.
    pub transferring_to: Option<NodeId>,
}

/// A replica of a range, as the range's leader sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaInfo {
    /// Its node.
    pub node: NodeId,
    /// Voter, else learner.
    pub is_voter: bool,
    /// Whether it has every entry of the leader's log.
    pub is_caught_up: bool,
}

/// A proposal to move a leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// The range.
    pub range: RangeId,
    /// The node that leads it.
    pub from: NodeId,
    /// The node that should.
    pub to: NodeId,
}

/// The transfers worth making now, by range id within each of two kinds:
///
/// 1. to the preferred leader, wherever it can lead;
/// 2. where the preferred leader is down, any leader is fine; but one that leads two or more ranges above
///    its fair share gives one to the replica with the fewest, if that makes the two more even. (The
///    fair share: leaders per live node, rounded up.)
///
/// A node takes part in at most `per_node_max` transfers at once, those under way included, on either
/// side: a failed transfer leaves its range without a leader for a while, and many on one node would
/// leave much of the data without.
pub fn rebalance_leaders(
    nodes: &[NodeInfo],
    ranges: &[RangeInfo],
    per_node_max: usize,
) -> Vec<Transfer> {
    let mut ranges: Vec<&RangeInfo> = ranges.iter().collect();
    ranges.sort_unstable_by_key(|range| range.id);
    let mut plan = Plan::new(nodes, &ranges, per_node_max);
    for range in &ranges {
        if let Some(preferred) = range.replicas.first() {
            plan.propose(range, preferred);
        }
    }
    for range in &ranges {
        let Some(leader) = range.leader else { continue };
        let preferred_is_live =
            range.replicas.first().is_none_or(|replica| plan.is_live(replica.node));
        if preferred_is_live || plan.leaders_of(leader) < plan.fair_share + 2 {
            continue;
        }
        let fewer = range
            .replicas
            .iter()
            .filter(|replica| plan.can_lead(replica))
            .filter(|replica| plan.leaders_of(replica.node) + 2 <= plan.leaders_of(leader))
            .min_by_key(|replica| (plan.leaders_of(replica.node), replica.node));
        if let Some(taker) = fewer {
            plan.propose(range, taker);
        }
    }
    plan.transfers
}

/// The proposals so far and what they lead to.
struct Plan {
    /// The live nodes.
    nodes: BTreeMap<NodeId, NodePlan>,
    per_node_max: usize,
    /// Leaders per live node, rounded up.
    fair_share: usize,
    transfers: Vec<Transfer>,
}

#[derive(Default)]
struct NodePlan {
    /// Ranges it leads once all transfers, under way and proposed, are done.
    leaders: usize,
    /// Transfers it takes part in.
    transfers: usize,
}

impl Plan {
    fn new(nodes: &[NodeInfo], ranges: &[&RangeInfo], per_node_max: usize) -> Self {
        let live = nodes.iter().filter(|node| node.live);
        let mut nodes: BTreeMap<_, _> = live.map(|node| (node.id, NodePlan::default())).collect();
        let mut led = 0;
        for range in ranges {
            let Some(leader) = range.leader else { continue };
            led += 1;
            if let Some(node) = nodes.get_mut(&range.transferring_to.unwrap_or(leader)) {
                node.leaders += 1;
            }
            if range.transferring_to.is_some() {
                for end in [Some(leader), range.transferring_to].into_iter().flatten() {
                    nodes.entry(end).and_modify(|node| node.transfers += 1);
                }
            }
        }
        let fair_share = usize::div_ceil(led, nodes.len().max(1));
        Self { nodes, per_node_max, fair_share, transfers: Vec::new() }
    }

    fn is_live(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }

    fn leaders_of(&self, node: NodeId) -> usize {
        self.nodes.get(&node).map_or(0, |node| node.leaders)
    }

    fn can_lead(&self, replica: &ReplicaInfo) -> bool {
        self.is_live(replica.node) && replica.is_voter && replica.is_caught_up
    }

    fn has_room(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.transfers < self.per_node_max)
    }

    /// Proposes to move the range's leader to `to`, if it is elsewhere and may be moved now.
    fn propose(&mut self, range: &RangeInfo, to: &ReplicaInfo) {
        let Some(from) = range.leader else { return };
        let rests = range.is_joint || range.transferring_to.is_some();
        if rests || from == to.node || !self.can_lead(to) {
            return;
        }
        let to = to.node;
        if !self.has_room(from) || !self.has_room(to) {
            return;
        }
        self.nodes.entry(from).and_modify(|node| {
            node.leaders = node.leaders.saturating_sub(1);
            node.transfers += 1;
        });
        self.nodes.entry(to).and_modify(|node| {
            node.leaders += 1;
            node.transfers += 1;
        });
        self.transfers.push(Transfer { range: range.id, from, to });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NODES: u32 = 5;

    fn nodes() -> impl Strategy<Value = Vec<NodeInfo>> {
        prop::collection::vec(prop::bool::weighted(0.7), NODES as usize).prop_map(|live| {
            live.into_iter()
                .zip(1..)
                .map(|(live, id)| NodeInfo {
                    id: NodeId(id),
                    region: "r".into(),
                    zone: "z".into(),
                    live,
                    replicas: 0,
                    leaders: 0,
                })
                .collect()
        })
    }

    fn range() -> impl Strategy<Value = RangeInfo> {
        let ids: Vec<u32> = (1..=NODES).collect();
        (
            prop::sample::subsequence(ids, 3).prop_shuffle(),
            prop::collection::vec(prop::bool::weighted(0.8), 6),
            prop::option::weighted(0.9, 0usize..3),
            prop::bool::weighted(0.1),
            prop::option::weighted(0.1, 0usize..3),
        )
            .prop_map(|(ids, flags, leader, is_joint, to)| RangeInfo {
                id: RangeId(0),
                replicas: ids
                    .iter()
                    .zip(flags.chunks(2))
                    .map(|(id, flags)| ReplicaInfo {
                        node: NodeId(*id),
                        is_voter: flags[0],
                        is_caught_up: flags[1],
                    })
                    .collect(),
                leader: leader.map(|i| NodeId(ids[i])),
                is_joint,
                transferring_to: to.map(|i| NodeId(ids[i])),
            })
    }

    fn ranges() -> impl Strategy<Value = Vec<RangeInfo>> {
        prop::collection::vec(range(), 0..30).prop_map(|mut ranges| {
            ranges.iter_mut().zip(1..).for_each(|(range, id)| range.id = RangeId(id));
            ranges
        })
    }

    proptest! {
        #[test]
        fn a_leader_moves_only_where_it_can_and_may(
            nodes in nodes(), ranges in ranges(), per_node_max in 0usize..4
        ) {
            let live = |id| nodes.iter().any(|node| node.id == id && node.live);
            let transfers = rebalance_leaders(&nodes, &ranges, per_node_max);
            for transfer in &transfers {
                let range = ranges.iter().find(|range| range.id == transfer.range).unwrap();
                prop_assert_eq!(range.leader, Some(transfer.from));
                prop_assert!(!range.is_joint && range.transferring_to.is_none());
                let to = range.replicas.iter().find(|replica| replica.node == transfer.to).unwrap();
                prop_assert!(to.is_voter && to.is_caught_up && live(to.node));
                prop_assert!(transfer.from != transfer.to && live(transfer.from));
                let others = transfers.iter().filter(|other| other.range == transfer.range);
                prop_assert_eq!(others.count(), 1);
            }
            for node in &nodes {
                let proposed = transfers.iter().filter(|t| [t.from, t.to].contains(&node.id)).count();
                if proposed > 0 {
                    let under_way = ranges
                        .iter()
                        .filter(|range| range.leader.is_some() && range.transferring_to.is_some())
                        .filter(|range| [range.leader, range.transferring_to].contains(&Some(node.id)))
                        .count();
                    prop_assert!(proposed + under_way <= per_node_max);
                }
            }
        }

        /// Carried out, the proposals lead to a state in which there is nothing to propose: no leader
        /// moves to and fro.
        #[test]
        fn rebalancing_comes_to_rest(nodes in nodes(), mut ranges in ranges()) {
            for range in &mut ranges {
                range.transferring_to = None;
            }
            let mut rounds = 0;
            loop {
                let transfers = rebalance_leaders(&nodes, &ranges, 1);
                if transfers.is_empty() { break }
                for transfer in transfers {
                    let range = ranges.iter_mut().find(|range| range.id == transfer.range).unwrap();
                    range.leader = Some(transfer.to);
                }
                rounds += 1;
                prop_assert!(rounds <= 2 * ranges.len(), "still moving");
            }
            // Whoever prefers a live node that can lead is led by it.
            for range in ranges.iter().filter(|range| !range.is_joint) {
                let first = range.replicas[0];
                let leads = |id| nodes.iter().any(|node| node.id == id && node.live);
                let can = first.is_voter && first.is_caught_up && leads(first.node);
                if can && range.leader.is_some_and(leads) {
                    prop_assert_eq!(range.leader, Some(first.node));
                }
            }
        }
    }
}
