//! What openraft is made of here.

use std::fmt;

use bytes::Bytes;
use latitude_range::{Applied, Entry as RangeEntry};
use latitude_types::{ReplicaId, Stamp};

use crate::runtime::NodeRuntime;

openraft::declare_raft_types!(
    /// openraft's view of a range.
    pub(crate) TypeConfig:
        D = Proposal,
        R = Applied,
        NodeId = ReplicaId,
        Node = openraft::EmptyNode,
        AsyncRuntime = NodeRuntime,
);

pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<ReplicaId, openraft::EmptyNode>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;

/// An encoded log entry of a range: the same bytes in the log, on the wire and when it is applied.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proposal(pub(crate) Bytes);

impl Proposal {
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        RangeEntry::stamp_of(&self.0)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One leadership of one replica: proposals carry it, so that one made under an earlier leadership is
/// refused instead of appended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LeaderToken {
    /// The term.
    pub term: u64,
    /// The replica that leads in it.
    pub replica: ReplicaId,
}

impl LeaderToken {
    pub(crate) fn of(id: LeaderId) -> Self {
        Self { term: id.term, replica: id.node_id }
    }

    pub(crate) fn leader_id(self) -> LeaderId {
        LeaderId { term: self.term, node_id: self.replica }
    }
}
