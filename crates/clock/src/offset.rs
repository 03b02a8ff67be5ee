//! How far the clocks of the peers are from ours, and whether it is ours that is wrong.

use std::collections::{BTreeMap, VecDeque};

use latitude_types::NodeId;

/// Who found whom wrong. A fast node hears refusals, a slow one makes them: either way it is the one
/// that differs from the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judge {
    /// We checked a message of the peer.
    Us,
    /// The peer checked a message of ours.
    Peer,
}

/// An estimate of a peer's clock, from one exchange of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offset {
    /// How far the peer's physical clock is ahead of ours, in microseconds; below zero: behind.
    pub ahead_us: i64,
    /// How wrong the estimate may be: half the round trip.
    pub uncertainty_us: u64,
}

/// The latest verdicts between this node and its peers.
///
/// A node that refuses, or is refused by, a majority of the cluster is *unsynced*: it is far likelier
/// that one clock is wrong than that most are. It then stops stamping and gives up leadership.
#[derive(Clone, Debug, Default)]
pub struct OffsetQuorum {
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Clone, Debug, Default)]
struct Peer {
    refused_by_us: bool,
    refuses_us: bool,
    /// The latest estimates, oldest first.
    offsets: VecDeque<Offset>,
}

impl OffsetQuorum {
    /// Estimates kept per peer: of these the one with the shortest round trip is shown.
    const OFFSETS_KEPT: usize = 8;

    /// Takes in a verdict; it replaces the earlier one of the same judge. Whether it is another one.
    pub fn observe(&mut self, peer: NodeId, judge: Judge, refused: bool) -> bool {
        let peer = self.peers.entry(peer).or_default();
        let before = match judge {
            Judge::Us => &mut peer.refused_by_us,
            Judge::Peer => &mut peer.refuses_us,
        };
        std::mem::replace(before, refused) != refused
    }

    /// Takes in one exchange: our physical clock when the request left and when the reply came, and
    /// the peer's in between; all in microseconds.
    pub fn observe_round_trip(
        &mut self,
        peer: NodeId,
        sent_us: u64,
        peer_us: u64,
        received_us: u64,
    ) {
        // Half the round trip went by, more or less, when the peer read its clock.
        let half = received_us.saturating_sub(sent_us) / 2;
        let ahead = i128::from(peer_us) - i128::from(sent_us) - i128::from(half);
        let ahead_us = ahead.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        let offsets = &mut self.peers.entry(peer).or_default().offsets;
        if offsets.len() == Self::OFFSETS_KEPT {
            offsets.pop_front();
        }
        offsets.push_back(Offset { ahead_us, uncertainty_us: half });
    }

    /// Forgets a peer that left the cluster.
    pub fn forget(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
    }

    /// Whether more than half of a cluster of `cluster_size` nodes, this one included, refuse us or are
    /// refused by us. This node counts as fine, and so does a peer not heard of.
    pub fn is_unsynced(&self, cluster_size: usize) -> bool {
        self.refused().count() * 2 > cluster_size
    }

    /// The peers that refuse us or are refused by us, by id.
    pub fn refused(&self) -> impl Iterator<Item = NodeId> {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.refused_by_us || peer.refuses_us)
            .map(|(id, _)| *id)
    }

    /// The best recent estimate of a peer's offset.
    pub fn offset(&self, peer: NodeId) -> Option<Offset> {
        // The newest of equals: `min_by_key` takes the first it meets.
        self.peers.get(&peer)?.offsets.iter().rev().min_by_key(|o| o.uncertainty_us).copied()
    }

    /// The best recent estimates of all peers, by id.
    pub fn offsets(&self) -> impl Iterator<Item = (NodeId, Offset)> {
        self.peers.keys().filter_map(|peer| Some((*peer, self.offset(*peer)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_round_trip_is_taken_off_and_the_shortest_one_is_believed() {
        let mut quorum = OffsetQuorum::default();
        quorum.observe_round_trip(NodeId(2), 1_000, 2_100, 1_200);
        assert_eq!(quorum.offset(NodeId(2)), Some(Offset { ahead_us: 1_000, uncertainty_us: 100 }));
        quorum.observe_round_trip(NodeId(2), 2_000, 9_000, 4_000);
        assert_eq!(
            quorum.offset(NodeId(2)).unwrap().ahead_us,
            1_000,
            "a worse one changes nothing"
        );
        quorum.observe_round_trip(NodeId(2), 5_000, 4_010, 5_020);
        assert_eq!(quorum.offset(NodeId(2)).unwrap().ahead_us, -1_000, "a better one does");
        assert_eq!(quorum.offset(NodeId(3)), None);
    }

    #[test]
    fn an_old_estimate_gives_way_at_last() {
        let mut quorum = OffsetQuorum::default();
        quorum.observe_round_trip(NodeId(2), 0, 500, 2);
        for _ in 0..OffsetQuorum::OFFSETS_KEPT {
            quorum.observe_round_trip(NodeId(2), 0, 10, 20);
        }
        assert_eq!(quorum.offset(NodeId(2)), Some(Offset { ahead_us: 0, uncertainty_us: 10 }));
    }
}
