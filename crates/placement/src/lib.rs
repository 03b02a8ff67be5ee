//! Where the replicas and the leaders of ranges go.
//!
//! ```text
//!   nodes ──▶ founders ─────────▶ holders of the meta range
//!   nodes, policy ──▶ place ────▶ replica sets of new ranges, preferred leader first
//!   count ──▶ split_points ─────▶ where new ranges of a keyspace begin
//!   nodes, ranges ──▶ rebalance_leaders ──▶ transfers worth making now
//! ```
//!
//! Every decision is a pure function from a snapshot of the cluster to a proposal: the same snapshot
//! gives the same proposal, ties go to the smaller node id. Nothing here knows how a proposal is
//! carried out, and none assumes that an earlier one was.
//!
//! - The nodes of a replica set, learners among them, are distinct, live and meet the policy, or there is no
//!   set at all.
//! - Leaders are spread: no node is given two more than another that could have had one of them.
//! - A leader is moved only to a live voter that has every entry, never within a joint configuration,
//!   because a failed transfer costs a time without a leader.

mod leaders;
mod place;
mod policy;
mod split;

pub use leaders::{RangeInfo, ReplicaInfo, Transfer, rebalance_leaders};
pub use place::{ReplicaSet, founders, place};
pub use policy::{ParsePolicyError, PerRegion, Policy, REPLICAS_DEFAULT, Unsatisfiable};
pub use split::{SPLIT_RANGES_MAX, split_points};

use latitude_types::NodeId;

/// A node, as far as placement cares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeInfo {
    /// Its id.
    pub id: NodeId,
    /// The region it was started in, as its operator named it.
    pub region: String,
    /// The zone within the region; zones of different regions are different whatever their names.
    pub zone: String,
    /// Whether it has been heard of lately. Nothing is placed on a node that is not.
    pub live: bool,
    /// Replicas it holds.
    pub replicas: usize,
    /// Ranges it is the preferred leader of.
    pub leaders: usize,
}
