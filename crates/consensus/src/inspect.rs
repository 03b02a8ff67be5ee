//! What the rows of a replica say, for whoever looks at a store from outside: simulations and tools.
//!
//! Rows are named in `latitude_storage::key`. Nothing here is for the node, which asks openraft.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use latitude_types::ReplicaId;
use openraft::EntryPayload;

use crate::types::{self, LeaderToken};
use crate::wire;

/// A place in a log: two entries of one range with the same place are the same entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct EntryId {
    /// The leadership that made it.
    pub leader: LeaderToken,
    /// Where it stands.
    pub index: u64,
}

/// A vote: for one leadership, whose order is that of (term, replica).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Vote {
    /// For whom.
    pub leader: LeaderToken,
    /// Whether a quorum is known to have voted so: then it leads.
    pub committed: bool,
}

/// An entry of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEntry {
    /// Its place.
    pub id: EntryId,
    /// The range's entry in it (`latitude_range::Entry`); `None`: only Raft has a use for it.
    pub command: Option<Bytes>,
}

/// How far a log is applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The last entry that was; `None`: none was.
    pub last: Option<EntryId>,
    /// The voters of the configuration applied last: two sets while they change.
    pub voters: Vec<BTreeSet<ReplicaId>>,
}

/// The row of a vote.
///
/// # Errors
/// It is none that this version wrote.
pub fn vote(row: &[u8]) -> io::Result<Vote> {
    let vote = types::Vote::from(wire::decode::<wire::Vote>(row)?);
    Ok(Vote { leader: LeaderToken::of(vote.leader_id), committed: vote.committed })
}

/// The row of a log's state: the last entry that was purged.
///
/// # Errors
/// As above.
pub fn purged(row: &[u8]) -> io::Result<EntryId> {
    wire::decode_log_id(row).map(|id| entry_id(&id))
}

/// The row of an entry.
///
/// # Errors
/// As above, or it is damaged.
pub fn entry(row: &[u8]) -> io::Result<LogEntry> {
    let entry = wire::decode_entry(row)?;
    let command = match entry.payload {
        EntryPayload::Normal(proposal) => Some(proposal.0),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    };
    Ok(LogEntry { id: entry_id(&entry.log_id), command })
}

/// The row of the base that says how far a log is applied.
///
/// # Errors
/// As above.
pub fn applied(row: &[u8]) -> io::Result<Applied> {
    let (last, membership) = wire::decode::<wire::AppliedRow>(row)?.into_parts();
    let voters = membership.membership().get_joint_config().clone();
    Ok(Applied { last: last.as_ref().map(entry_id), voters })
}

fn entry_id(id: &types::LogId) -> EntryId {
    EntryId { leader: LeaderToken::of(id.leader_id), index: id.index }
}

#[cfg(test)]
mod tests {
    use latitude_types::{Generation, NodeId};
    use openraft::entry::RaftEntry;

    use super::*;
    use crate::types::{Entry, LeaderId, LogId, Proposal};

    #[test]
    fn rows_say_what_was_written_into_them() {
        let node_id = ReplicaId { node: NodeId(3), generation: Generation(1) };
        let leader_id = LeaderId { term: 7, node_id };
        let id = LogId { leader_id, index: 5 };
        let leader = LeaderToken { term: 7, replica: node_id };
        let there = EntryId { leader, index: 5 };

        let vote_row = wire::encode(&wire::Vote::from(&types::Vote { leader_id, committed: true }));
        assert_eq!(vote(&vote_row).unwrap(), Vote { leader, committed: true });
        assert_eq!(purged(&wire::encode_log_id(&id)).unwrap(), there);
        let proposal = EntryPayload::Normal(Proposal(Bytes::from_static(b"put")));
        let row = wire::encode_entry(&Entry::new(id, proposal));
        let command = Some(Bytes::from_static(b"put"));
        assert_eq!(entry(&row).unwrap(), LogEntry { id: there, command });
        let voters = vec![BTreeSet::from([node_id])];
        let membership = types::Membership::new_with_defaults(voters.clone(), []);
        let membership = types::StoredMembership::new(Some(id), membership);
        let row = wire::encode(&wire::AppliedRow::new(Some(&id), &membership));
        assert_eq!(applied(&row).unwrap(), Applied { last: Some(there), voters });
        assert!(vote(&row[..1]).is_err() && entry(&row).is_err());
    }
}
