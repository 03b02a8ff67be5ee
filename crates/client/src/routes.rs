//! What the client knows of where things are: the ranges of each keyspace, who leads them, and where
//! the nodes are reached. All of it may be out of date; a node that is asked wrongly says so.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use latitude_rpc::FromWire;
use latitude_rpc::pb::v1;
use latitude_types::{Epoch, KeyspaceId, Level, NodeId, RangeId, Result};

/// What an operation must reach.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// The range that holds this key (or, for a scan, this lower bound, which may be empty).
    At(Bytes),
    /// The range that holds the keys just below `end`; `None`: the last range. `start` is where the
    /// scan ends, so that no range below it need be located.
    Below {
        /// The scan's lower bound.
        start: Bytes,
        /// The scan's upper bound, excluded.
        end: Option<Bytes>,
    },
}

/// One range as the client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) keyspace: KeyspaceId,
    /// The keyspace's default level, if the node named one.
    pub(crate) default_level: Option<Level>,
    pub(crate) range: RangeId,
    pub(crate) epoch: Epoch,
    pub(crate) start: Bytes,
    pub(crate) end: Option<Bytes>,
    /// The preferred leader first. Never empty.
    pub(crate) replicas: Vec<NodeId>,
    pub(crate) leader: Option<NodeId>,
}

impl Route {
    fn covers(&self, target: &Target) -> bool {
        match target {
            Target::At(key) => self.start <= *key && self.end.as_ref().is_none_or(|end| key < end),
            Target::Below { end: None, .. } => self.end.is_none(),
            Target::Below { end: Some(bound), .. } => {
                self.start < *bound && self.end.as_ref().is_none_or(|end| bound <= end)
            }
        }
    }

    /// Whether they share a key.
    fn overlaps(&self, other: &Self) -> bool {
        let below = |a: &Self, b: &Self| a.end.as_ref().is_some_and(|end| *end <= b.start);
        !below(self, other) && !below(other, self)
    }
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: String,
    pub(crate) region: String,
}

/// The cache.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    keyspaces: BTreeMap<String, Ranges>,
    nodes: BTreeMap<NodeId, Place>,
}

#[derive(Debug, Default)]
struct Ranges {
    id: KeyspaceId,
    /// By their start; disjoint, with gaps where nothing is known.
    by_start: BTreeMap<Bytes, Arc<Route>>,
}

impl Ranges {
    /// The known ranges that share a key with `route`.
    fn overlapping(&self, route: &Route) -> Vec<Arc<Route>> {
        let up_to_end = match &route.end {
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        };
        // They are disjoint, so seen from the end downwards the first that does not overlap is the last.
        let below_end = self.by_start.range::<Bytes, _>((Bound::Unbounded, up_to_end)).rev();
        below_end
            .map(|(_, known)| known)
            .take_while(|known| known.overlaps(route))
            .cloned()
            .collect()
    }
}

impl Routes {
    /// The range the target is in, if known.
    pub(crate) fn find(&self, keyspace: &str, target: &Target) -> Option<Arc<Route>> {
        let ranges = &self.keyspaces.get(keyspace)?.by_start;
        let candidate = match target {
            Target::At(key) => {
                ranges.range::<Bytes, _>((Bound::Unbounded, Bound::Included(key))).next_back()
            }
            Target::Below { end: Some(end), .. } => {
                ranges.range::<Bytes, _>((Bound::Unbounded, Bound::Excluded(end))).next_back()
            }
            Target::Below { end: None, .. } => ranges.last_key_value(),
        };
        candidate.map(|(_, route)| route).filter(|route| route.covers(target)).cloned()
    }

    /// Whether any range of the keyspace is known.
    pub(crate) fn knows(&self, keyspace: &str) -> bool {
        self.keyspaces.get(keyspace).is_some_and(|ranges| !ranges.by_start.is_empty())
    }

    /// Takes in an answer. It replaces what it overlaps, except a range known at a higher epoch: that
    /// answer comes from a node that lags.
    pub(crate) fn learn(&mut self, keyspace: &str, reply: v1::LocateReply) -> Result<()> {
        let id = KeyspaceId(reply.keyspace_id);
        let default_level = Option::<Level>::from_wire(reply.default_level)?;
        for node in reply.nodes {
            let place = Place { address: node.address, region: node.region };
            self.nodes.insert(NodeId(node.node), place);
        }
        let ranges = self.keyspaces.entry(keyspace.to_string()).or_default();
        if ranges.id != id {
            *ranges = Ranges { id, by_start: BTreeMap::new() };
        }
        for range in reply.ranges.into_iter().filter(|range| !range.nodes.is_empty()) {
            let route = Route {
                keyspace: id,
                default_level,
                range: RangeId(range.range_id),
                epoch: Epoch(range.epoch),
                start: range.start,
                end: range.end,
                replicas: range.nodes.into_iter().map(NodeId).collect(),
                leader: Some(NodeId(range.leader)).filter(|node| node.0 != 0),
            };
            let replaced = ranges.overlapping(&route);
            let newer = |known: &Route| known.range == route.range && known.epoch > route.epoch;
            if replaced.iter().any(|known| newer(known)) {
                continue;
            }
            for known in replaced {
                ranges.by_start.remove(&known.start);
            }
            ranges.by_start.insert(route.start.clone(), Arc::new(route));
        }
        Ok(())
    }

    /// Notes who leads a range; `None`: not the one that was thought to.
    pub(crate) fn set_leader(&mut self, keyspace: &str, route: &Route, leader: Option<NodeId>) {
        let known = self.keyspaces.get_mut(keyspace).and_then(|r| r.by_start.get_mut(&route.start));
        if let Some(known) = known.filter(|known| known.range == route.range) {
            Arc::make_mut(known).leader = leader;
        }
    }

    /// Drops what is known of a range, so that the next operation locates it anew.
    pub(crate) fn forget_range(&mut self, keyspace: &str, route: &Route) {
        if let Some(ranges) = self.keyspaces.get_mut(keyspace)
            && ranges.by_start.get(&route.start).is_some_and(|known| known.range == route.range)
        {
            ranges.by_start.remove(&route.start);
        }
    }

    /// Drops what is known of a keyspace.
    pub(crate) fn forget_keyspace(&mut self, keyspace: &str) {
        self.keyspaces.remove(keyspace);
    }

    /// Where a node is.
    pub(crate) fn place(&self, node: NodeId) -> Option<&Place> {
        self.nodes.get(&node)
    }

    /// Every node known.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        self.nodes.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(
        id: u64,
        epoch: u32,
        start: &'static str,
        end: Option<&'static str>,
    ) -> v1::RangeLocation {
        v1::RangeLocation {
            range_id: id,
            epoch,
            start: start.into(),
            end: end.map(Into::into),
            nodes: vec![1, 2, 3],
            leader: 1,
        }
    }

    fn reply(keyspace_id: u32, ranges: Vec<v1::RangeLocation>) -> v1::LocateReply {
        v1::LocateReply { keyspace_id, default_level: 0, ranges, nodes: vec![] }
    }

    fn at(key: &'static str) -> Target {
        Target::At(key.into())
    }

    fn id(routes: &Routes, target: &Target) -> Option<u64> {
        routes.find("k", target).map(|route| route.range.0)
    }

    #[test]
    fn a_key_is_found_in_the_range_that_covers_it_and_a_gap_holds_nothing() {
        let mut routes = Routes::default();
        let ranges = vec![range(1, 1, "", Some("f")), range(3, 1, "p", None)];
        routes.learn("k", reply(16, ranges)).unwrap();
        assert_eq!(id(&routes, &at("")), Some(1));
        assert_eq!(id(&routes, &at("eee")), Some(1));
        assert_eq!(id(&routes, &at("f")), None);
        assert_eq!(id(&routes, &at("zebra")), Some(3));
    }

    #[test]
    fn a_reverse_scan_finds_the_range_just_below_its_end() {
        let mut routes = Routes::default();
        let ranges = vec![range(1, 1, "", Some("f")), range(2, 1, "f", None)];
        routes.learn("k", reply(16, ranges)).unwrap();
        let below = |end: Option<&'static str>| Target::Below {
            start: "".into(),
            end: end.map(Into::into),
        };
        assert_eq!(id(&routes, &below(Some("f"))), Some(1));
        assert_eq!(id(&routes, &below(Some("fa"))), Some(2));
        assert_eq!(id(&routes, &below(None)), Some(2));
    }

    #[test]
    fn a_split_replaces_the_range_it_split_and_an_answer_of_before_it_is_ignored() {
        let mut routes = Routes::default();
        let before = reply(16, vec![range(1, 1, "", None)]);
        routes.learn("k", before.clone()).unwrap();
        let after = vec![range(1, 2, "", Some("m")), range(2, 2, "m", None)];
        routes.learn("k", reply(16, after)).unwrap();
        assert_eq!(id(&routes, &at("z")), Some(2));
        routes.learn("k", before).unwrap();
        assert_eq!(id(&routes, &at("z")), Some(2));
    }

    #[test]
    fn a_keyspace_made_anew_keeps_nothing_of_the_old_one() {
        let mut routes = Routes::default();
        let ranges = vec![range(1, 9, "", Some("m")), range(2, 9, "m", None)];
        routes.learn("k", reply(16, ranges)).unwrap();
        routes.learn("k", reply(17, vec![range(5, 1, "", Some("c"))])).unwrap();
        assert_eq!(id(&routes, &at("b")), Some(5));
        assert_eq!(id(&routes, &at("z")), None);
    }
}
