//! Where new ranges go, and who founds the cluster.

use std::collections::{BTreeMap, VecDeque};

use latitude_types::NodeId;

use crate::{NodeInfo, PerRegion, Policy, REPLICAS_DEFAULT, Unsatisfiable};

/// The nodes of one range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaSet {
    /// Those that vote: the preferred leader first, the others by id.
    pub voters: Vec<NodeId>,
    /// Those that follow without a vote, by id.
    pub learners: Vec<NodeId>,
}

/// Replica sets for `ranges` new ranges.
///
/// Replicas are spread over regions, then over zones, then go to the nodes with the fewest. Preferred
/// leaders are then spread over the nodes that hold the voters, as evenly as their sets allow, also
/// over regions where nodes are equal. What the nodes held before counts. Learners go to nodes of their
/// regions that hold no voter of the same range.
///
/// # Errors
///
/// If the live nodes cannot meet the policy; the message names the region that lacks nodes.
pub fn place(
    nodes: &[NodeInfo],
    policy: &Policy,
    learners: &PerRegion,
    ranges: usize,
) -> Result<Vec<ReplicaSet>, Unsatisfiable> {
    let mut load = Load::new(nodes);
    let voters: Vec<Vec<NodeId>> =
        (0..ranges).map(|_| load.voters(nodes, policy)).collect::<Result<_, _>>()?;
    let leaders = load.preferred_leaders(&voters);
    let sets = voters.into_iter().zip(leaders).map(|(set, leader)| {
        let learners = load.learners(nodes, learners, &set)?;
        let mut voters: Vec<_> = set.into_iter().filter(|node| *node != leader).collect();
        voters.sort_unstable();
        voters.insert(0, leader);
        Ok(ReplicaSet { voters, learners })
    });
    sets.collect()
}

/// The nodes that hold the meta range, by id: all live ones up to three, else three or five, spread over
/// regions and zones.
///
/// Of two nodes both hold it: then both must be up, but either disk may be lost. More than five would
/// make every change of the cluster slower and survive hardly more.
pub fn founders(nodes: &[NodeInfo]) -> Vec<NodeId> {
    let live = nodes.iter().filter(|node| node.live).count();
    let count = match live {
        0..=3 => live,
        4 => 3,
        _ => 5,
    };
    let mut founders = Load::new(nodes).spread(nodes.iter(), count);
    founders.sort_unstable();
    founders
}

/// What each live node holds, counting what has been decided so far.
struct Load<'a> {
    nodes: BTreeMap<NodeId, NodeLoad<'a>>,
}

struct NodeLoad<'a> {
    region: &'a str,
    replicas: usize,
    leaders: usize,
}

impl<'a> Load<'a> {
    fn new(nodes: &'a [NodeInfo]) -> Self {
        let load = |node: &'a NodeInfo| NodeLoad {
            region: &node.region,
            replicas: node.replicas,
            leaders: node.leaders,
        };
        let live = nodes.iter().filter(|node| node.live);
        Self { nodes: live.map(|node| (node.id, load(node))).collect() }
    }

    /// The voters of one more range, counted as placed.
    fn voters(
        &mut self,
        nodes: &[NodeInfo],
        policy: &Policy,
    ) -> Result<Vec<NodeId>, Unsatisfiable> {
        let set = match policy {
            Policy::Spread => {
                let count = if nodes.len() < REPLICAS_DEFAULT { 1 } else { REPLICAS_DEFAULT };
                let set = self.spread(nodes.iter(), count);
                enough(set.len(), count, "in the cluster", nodes.iter())?;
                set
            }
            Policy::PerRegion(regions) => self.in_regions(nodes, regions, &[])?,
        };
        self.count(&set);
        Ok(set)
    }

    /// The learners of a range that has these voters, counted as placed.
    fn learners(
        &mut self,
        nodes: &[NodeInfo],
        regions: &PerRegion,
        voters: &[NodeId],
    ) -> Result<Vec<NodeId>, Unsatisfiable> {
        let mut set = self.in_regions(nodes, regions, voters)?;
        set.sort_unstable();
        self.count(&set);
        Ok(set)
    }

    /// So many nodes of each region, none of them `taken`.
    fn in_regions(
        &self,
        nodes: &[NodeInfo],
        regions: &PerRegion,
        taken: &[NodeId],
    ) -> Result<Vec<NodeId>, Unsatisfiable> {
        let mut set = Vec::new();
        for (region, count) in regions.iter() {
            let there =
                || nodes.iter().filter(|node| node.region == region && !taken.contains(&node.id));
            let chosen = self.spread(there(), count as usize);
            let besides = if taken.is_empty() { "" } else { " besides the voters" };
            let place = format!("in region {region}{besides}");
            enough(chosen.len(), count as usize, &place, there())?;
            set.extend(chosen);
        }
        Ok(set)
    }

    fn count(&mut self, set: &[NodeId]) {
        for node in set {
            self.nodes.get_mut(node).expect("only live nodes are chosen").replicas += 1;
        }
    }

    /// Up to `count` live nodes out of `from`: each time one from the region with the fewest so far,
    /// then the zone with the fewest, then the node with the fewest replicas, then the smallest id.
    fn spread<'n>(&self, from: impl Iterator<Item = &'n NodeInfo>, count: usize) -> Vec<NodeId> {
        let mut left: Vec<_> = from.filter(|node| self.nodes.contains_key(&node.id)).collect();
        let mut chosen: Vec<&NodeInfo> = Vec::new();
        while chosen.len() < count {
            let crowd = |node: &NodeInfo| {
                let region = chosen.iter().filter(|other| other.region == node.region);
                let zone = region.clone().filter(|other| other.zone == node.zone).count();
                (region.count(), zone, self.nodes[&node.id].replicas, node.id)
            };
            let Some(best) = left.iter().copied().min_by_key(|node| crowd(node)) else { break };
            left.retain(|node| node.id != best.id);
            chosen.push(best);
        }
        chosen.into_iter().map(|node| node.id).collect()
    }

    /// The preferred leader of each set, such that no node has two more than another to which it could
    /// hand one, directly or through others.
    fn preferred_leaders(&mut self, sets: &[Vec<NodeId>]) -> Vec<NodeId> {
        let mut in_region: BTreeMap<&str, usize> = BTreeMap::new();
        for node in self.nodes.values() {
            *in_region.entry(node.region).or_default() += node.leaders;
        }
        let mut leaders = Vec::new();
        for set in sets {
            let crowd = |node: &NodeId| {
                let load = &self.nodes[node];
                (load.leaders, in_region[load.region], *node)
            };
            let leader = *set.iter().min_by_key(|node| crowd(node)).expect("no set is empty");
            let load = self.nodes.get_mut(&leader).expect("only live nodes are chosen");
            load.leaders += 1;
            *in_region.entry(load.region).or_default() += 1;
            leaders.push(leader);
        }
        // Taking each range by itself can paint the last ones into a corner; hand over until even.
        while self.hand_over(sets, &mut leaders) {}
        leaders
    }

    /// Finds a chain of ranges along which a node hands over one leader and another, with two fewer,
    /// gains one; those between keep their number. Each such chain makes the counts more even, so they
    /// end.
    fn hand_over(&mut self, sets: &[Vec<NodeId>], leaders: &mut [NodeId]) -> bool {
        let mut givers: Vec<NodeId> = self.nodes.keys().copied().collect();
        givers.sort_by_key(|node| std::cmp::Reverse(self.nodes[node].leaders));
        for giver in givers {
            // How each node can be reached: the range that would move to it.
            let mut reached: BTreeMap<NodeId, usize> = BTreeMap::new();
            let mut queue = VecDeque::from([giver]);
            while let Some(node) = queue.pop_front() {
                if self.nodes[&node].leaders + 2 <= self.nodes[&giver].leaders {
                    let mut taker = node;
                    self.nodes.get_mut(&taker).expect("reached by its id").leaders += 1;
                    while taker != giver {
                        let range = reached[&taker];
                        let from = std::mem::replace(&mut leaders[range], taker);
                        taker = from;
                    }
                    self.nodes.get_mut(&giver).expect("one of the keys").leaders -= 1;
                    return true;
                }
                for (range, set) in sets.iter().enumerate().filter(|(i, _)| leaders[*i] == node) {
                    for other in set {
                        if *other != giver && !reached.contains_key(other) {
                            reached.insert(*other, range);
                            queue.push_back(*other);
                        }
                    }
                }
            }
        }
        false
    }
}

/// An error that names the place and its nodes, unless there are enough.
fn enough<'n>(
    found: usize,
    needed: usize,
    place: &str,
    there: impl Iterator<Item = &'n NodeInfo>,
) -> Result<(), Unsatisfiable> {
    if found == needed {
        return Ok(());
    }
    let nodes = if needed == 1 { "node" } else { "nodes" };
    let mut message = format!("the placement needs {needed} live {nodes} {place}; found {found}");
    let mut down: Vec<_> = there.filter(|node| !node.live).map(|node| node.id).collect();
    down.sort_unstable();
    if !down.is_empty() {
        let down: Vec<_> = down.iter().map(ToString::to_string).collect();
        message += &format!("; down: {}", down.join(", "));
    }
    Err(Unsatisfiable { message })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn node(id: u32, region: usize, zone: usize) -> NodeInfo {
        NodeInfo {
            id: NodeId(id),
            region: format!("r{region}"),
            zone: format!("z{zone}"),
            live: true,
            replicas: 0,
            leaders: 0,
        }
    }

    fn nodes() -> impl Strategy<Value = Vec<NodeInfo>> {
        let one = (0usize..4, 0usize..3, prop::bool::weighted(0.8), 0usize..20, 0usize..10);
        prop::collection::vec(one, 1..12).prop_map(|nodes| {
            nodes
                .into_iter()
                .zip(1..)
                .map(|((region, zone, live, replicas, leaders), id)| NodeInfo {
                    live,
                    replicas,
                    leaders,
                    ..node(id, region, zone)
                })
                .collect()
        })
    }

    fn policies() -> impl Strategy<Value = Policy> {
        let regions = prop::collection::btree_map(0usize..4, 1u32..3, 1..4);
        prop_oneof![
            Just(Policy::Spread),
            regions.prop_map(|regions| {
                Policy::PerRegion(per_region(regions.into_iter().collect()))
            }),
        ]
    }

    fn per_region(regions: Vec<(usize, u32)>) -> PerRegion {
        PerRegion::new(regions.into_iter().map(|(r, n)| (format!("r{r}"), n)).collect()).unwrap()
    }

    fn learners() -> impl Strategy<Value = PerRegion> {
        let regions = prop::collection::btree_map(0usize..4, 1u32..3, 0..3);
        regions.prop_map(|regions| per_region(regions.into_iter().collect()))
    }

    fn voters(
        nodes: &[NodeInfo],
        policy: &Policy,
        ranges: usize,
    ) -> Result<Vec<Vec<NodeId>>, Unsatisfiable> {
        let sets = place(nodes, policy, &PerRegion::default(), ranges)?;
        Ok(sets.into_iter().map(|set| set.voters).collect())
    }

    fn leaders(sets: &[Vec<NodeId>], of: NodeId) -> usize {
        sets.iter().filter(|set| set[0] == of).count()
    }

    proptest! {
        #[test]
        fn every_set_meets_the_policy_or_there_is_none(
            nodes in nodes(), policy in policies(), ranges in 1usize..20
        ) {
            let live = |region: &str| nodes.iter().filter(|n| n.live && n.region == region).count();
            let live_count = nodes.iter().filter(|n| n.live).count();
            let spread = if nodes.len() < 3 { 1 } else { 3 };
            let possible = match &policy {
                Policy::Spread => live_count >= spread,
                Policy::PerRegion(regions) => regions.iter().all(|(r, n)| live(r) >= n as usize),
            };
            let placed = voters(&nodes, &policy, ranges);
            prop_assert_eq!(placed.is_ok(), possible);
            let Ok(sets) = placed else { return Ok(()) };
            prop_assert_eq!(sets.len(), ranges);
            for set in sets {
                let found: Vec<_> = nodes.iter().filter(|n| set.contains(&n.id)).collect();
                prop_assert_eq!(found.len(), set.len(), "distinct and known");
                prop_assert!(found.iter().all(|n| n.live));
                let regions: BTreeSet<_> = found.iter().map(|n| &n.region).collect();
                match &policy {
                    Policy::Spread => {
                        prop_assert_eq!(set.len(), spread);
                        let all: BTreeSet<_> = nodes.iter().filter(|n| n.live).map(|n| &n.region).collect();
                        prop_assert_eq!(regions.len(), all.len().min(spread), "as many regions as can be");
                    }
                    Policy::PerRegion(wanted) => {
                        prop_assert_eq!(regions.len(), wanted.iter().count());
                        for (region, count) in wanted.iter() {
                            let there = found.iter().filter(|n| n.region == region).count();
                            prop_assert_eq!(there, count as usize);
                        }
                    }
                }
            }
        }

        /// Learners change nothing for the voters, and are live nodes of their regions beside them.
        #[test]
        fn learners_are_where_they_are_wanted_and_never_on_a_voter(
            nodes in nodes(), policy in policies(), learners in learners(), ranges in 1usize..10
        ) {
            let Ok(sets) = place(&nodes, &policy, &learners, ranges) else { return Ok(()) };
            prop_assert_eq!(sets.len(), ranges);
            for set in &sets {
                let distinct: BTreeSet<_> = set.voters.iter().chain(&set.learners).collect();
                prop_assert_eq!(distinct.len(), set.voters.len() + set.learners.len());
                for (region, count) in learners.iter() {
                    let there = nodes.iter().filter(|n| n.live && n.region == region);
                    let there = there.filter(|n| set.learners.contains(&n.id)).count();
                    prop_assert_eq!(there, count as usize);
                }
                let wanted: u32 = learners.iter().map(|(_, count)| count).sum();
                prop_assert_eq!(set.learners.len(), wanted as usize);
            }
        }

        #[test]
        fn leaders_differ_by_at_most_one_across_equal_nodes(
            regions in 1usize..4, per_region in 1usize..5, ranges in 0usize..60
        ) {
            let nodes: Vec<_> = (0..regions * per_region)
                .map(|i| node(i as u32 + 1, i % regions, 0))
                .collect();
            let sets = voters(&nodes, &Policy::Spread, ranges).unwrap();
            let counts: Vec<_> = nodes.iter().map(|node| leaders(&sets, node.id)).collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{counts:?}");
        }

        /// No range's leader could move within its set and make the counts more even.
        #[test]
        fn no_leader_is_on_a_node_with_two_more_than_another_of_its_set(
            nodes in nodes(), policy in policies(), ranges in 1usize..30
        ) {
            let Ok(sets) = voters(&nodes, &policy, ranges) else { return Ok(()) };
            let total = |id: NodeId| {
                nodes.iter().find(|n| n.id == id).unwrap().leaders + leaders(&sets, id)
            };
            for set in &sets {
                for other in set {
                    prop_assert!(total(set[0]) <= total(*other) + 1);
                }
            }
        }

        #[test]
        fn the_order_of_the_nodes_does_not_matter(
            nodes in nodes(), policy in policies(), learners in learners(), ranges in 1usize..10
        ) {
            let reversed: Vec<_> = nodes.iter().rev().cloned().collect();
            let placed = place(&nodes, &policy, &learners, ranges);
            prop_assert_eq!(placed, place(&reversed, &policy, &learners, ranges));
            prop_assert_eq!(founders(&nodes), founders(&reversed));
        }

        #[test]
        fn founders_are_live_and_odd_beyond_three(nodes in nodes()) {
            let live = nodes.iter().filter(|n| n.live).count();
            let founders = founders(&nodes);
            prop_assert!(founders.is_sorted_by(|a, b| a < b));
            prop_assert!(founders.iter().all(|id| nodes.iter().any(|n| n.id == *id && n.live)));
            prop_assert!(founders.len() <= 5);
            if live <= 3 { prop_assert_eq!(founders.len(), live) } else { prop_assert!(founders.len() % 2 == 1) }
        }
    }
}
