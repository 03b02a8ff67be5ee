//! Read index: the entry that a linearizable read must see applied, once a quorum has confirmed who leads.
//!
//! ```text
//!   read ─▶ ticket ─▶ core: leads? effective voters, committed ─▶ an empty append to each voter
//!                                                                       │
//!        index ◀── still the same leadership ◀── a quorum acknowledged a message sent after the ticket
//! ```
//!
//! Whoever acknowledges a message of this leadership had promised itself to no later leader when the message came
//! in, which was after the read had arrived. Quorums meet: so no later leader had committed anything by then,
//! and what earlier ones had committed is at or below the index.
//!
//! Any message of the leadership counts, also one with entries; the empty ones make sure that there is one. They
//! are answered by Raft itself, and fenced by its vote like any other.
//!
//! A leadership that has been given away is not confirmed any more: if its transfer fails, the group needs an
//! election, and each of these messages would put it off.
//!
//! openraft has a read index too. It keeps one heartbeat under way to each follower, so a read waits for the one
//! before its own, which makes two round trips, and a lost one costs a heartbeat interval; and it counts answers
//! for more than they say (see [`Acks`](crate::acks::Acks)).
//!
//! Source: Ongaro, *Consensus: Bridging Theory and Practice*, 6.4.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use latitude_probe::Mark;
use latitude_types::ReplicaId;
use openraft::{RPCTypes, ServerState};
use tokio::time::{Instant, sleep_until};

use crate::group::{Group, Leadership, ReadError};
use crate::network::Class;
use crate::types::LeaderToken;
use crate::wire::Request;

/// What a leader knows of its group at one moment.
pub(crate) struct Standing {
    pub(crate) leadership: LeaderToken,
    /// The voters of the effective configuration: two sets while they change.
    pub(crate) configs: Vec<BTreeSet<ReplicaId>>,
    /// At or above every entry that was committed before.
    pub(crate) index: u64,
}

impl Group {
    /// Confirms with a quorum that this replica leads, and resolves with the index that a linearizable read
    /// which began before this call must see applied. Waits no longer than `wait`.
    pub async fn read_index(&self, wait: Duration) -> Result<u64, ReadError> {
        let deadline = Instant::now() + wait;
        let ticket = self.network.acks.ticket();
        let Some(Standing { leadership, configs, index }) = self.standing().await? else {
            return Err(ReadError::NotLeader(self.leadership().leader));
        };
        // The messages of a leader that takes nothing any more would keep its followers from electing another.
        if let Some(to) = self.handed_over_to(leadership) {
            return Err(ReadError::NotLeader(Some(to)));
        }
        let others: BTreeSet<_> =
            configs.iter().flatten().copied().filter(|voter| *voter != self.replica()).collect();
        // The empty appends leave now; that their answers are noted is what they are for.
        let mut asked: FuturesUnordered<_> =
            others.iter().map(|voter| self.ask(*voter, leadership, wait)).collect();
        let confirmed = self.network.acks.confirmed(leadership, &configs, ticket);
        tokio::pin!(confirmed);
        let outvoted = self.outvoted(leadership);
        tokio::pin!(outvoted);
        loop {
            tokio::select! {
                biased;
                () = &mut confirmed => break,
                Some(()) = asked.next(), if !asked.is_empty() => {}
                outvoted = &mut outvoted => {
                    return Err(ReadError::NotLeader(outvoted?.leader));
                }
                () = sleep_until(deadline) => {
                    Mark::RoundWithoutQuorum.hit();
                    let heard = self.network.acks.heard(leadership, ticket);
                    return Err(ReadError::NoQuorum {
                        heard: heard.into_iter().map(|voter| voter.node).collect(),
                    });
                }
            }
        }
        Ok(index)
    }

    /// Resolves once this replica knows of a later vote than that of its leadership.
    async fn outvoted(&self, leadership: LeaderToken) -> Result<Leadership, ReadError> {
        let mut seen = self.leadership();
        while seen.term <= leadership.term {
            seen = self.leadership_changed(&seen).await?;
        }
        Ok(seen)
    }

    /// `None`: this replica does not lead.
    pub(crate) async fn standing(&self) -> Result<Option<Standing>, ReadError> {
        let own = self.replica();
        let standing = self.raft.with_raft_state(move |state| {
            let vote = state.vote_ref();
            let leads = state.server_state == ServerState::Leader
                && vote.committed
                && vote.leader_id.node_id == own;
            if !leads {
                return None;
            }
            let leadership = LeaderToken::of(vote.leader_id);
            // What earlier leaders had committed is below the first entry of this one. Until that is committed,
            // the end of the log is above it.
            let committed = state
                .local_committed()
                .filter(|committed| committed.leader_id.term == leadership.term)
                .or_else(|| state.log_ids.last());
            let effective = state.membership_state.effective().membership();
            Some(Standing {
                leadership,
                configs: effective.get_joint_config().clone(),
                index: committed.map_or(0, |id| id.index),
            })
        });
        standing.await.map_err(|_| ReadError::Stopped)
    }

    /// Sends a voter an append without entries, and resolves once its answer has been noted or will not be.
    fn ask(
        &self,
        voter: ReplicaId,
        leadership: LeaderToken,
        wait: Duration,
    ) -> impl Future<Output = ()> + Send + use<> {
        let request = Request::Append {
            vote: leadership.into(),
            // It ends before every entry, so it says nothing of the voter's log.
            prev: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        let peer = self.network.peer(voter, Class::Heartbeat);
        let answer = peer.call(RPCTypes::AppendEntries, Class::Heartbeat, &request, wait);
        // No answer confirms nothing; other messages may.
        async move { drop(answer.await) }
    }
}
