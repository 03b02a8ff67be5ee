//! A replica as the rest of the node sees it: its Raft group, its proposer, its readers.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use latitude_consensus::{Group, LogPosition, ReadError, Role};
use latitude_consistency::may_close;
use latitude_directory::RangeRecord;
use latitude_probe::{Mark, Plant};
use latitude_rpc::pb::v1::{self, Proof};
use latitude_types::{Error, MissingQuorum, NodeId, RangeId, Reason, Stamp, Timestamp};
use tokio::task::AbortHandle;

use crate::closing::Closing;
use crate::leases::Leases;
use crate::proposer::{Proposer, not_leader};
use crate::questions::Questions;

/// One replica of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RangeHandle {
    pub(crate) record: Arc<RangeRecord>,
    pub(crate) group: Group,
    pub(crate) proposer: Proposer,
    /// Read indexes.
    pub(crate) reads: Questions<u64, ReadError>,
    /// Whether the lease holds, and the read index if it does.
    pub(crate) leased_reads: Questions<Option<u64>, ReadError>,
    /// Closed times, while this replica leads.
    pub(crate) closes: Questions<(LogPosition, Timestamp), Error>,
    pub(crate) leases: Leases,
    pub(crate) closing: Closing,
    /// Its loops.
    pub(crate) tasks: Arc<[AbortHandle]>,
}

impl RangeHandle {
    pub(crate) fn id(&self) -> RangeId {
        self.record.id
    }

    /// The part the replica plays, on the wire.
    pub(crate) fn role(&self) -> v1::Role {
        match self.group.role() {
            Role::Leader => v1::Role::Leader,
            Role::Follower => v1::Role::Follower,
            Role::Learner => v1::Role::Learner,
        }
    }

    /// Waits until a strict read that began before this call can be answered from the base here.
    ///
    /// `stands`: where the read's session stands, which this node's clock has merged. Then every entry stamped
    /// up to there must be applied, also one that is under way and that no read index covers: the session would
    /// stand above it without having seen it (pitfall B6).
    pub(crate) fn strict_read_barrier(&self, stands: Stamp) -> BoxFuture<'_, Result<Proof, Error>> {
        async move {
            // Stamps rise in a log: what is to come is above what is applied.
            let (_, applied) = self.group.applied_position();
            if self.answers_at_once() {
                return Ok(Proof::ReadIndex);
            }
            let leased = if !self.leases.are_in_use() {
                None
            } else if stands > applied {
                self.settled_under_lease(stands).await?
            } else {
                let index = self.leased_reads.ask().await;
                index.map_err(|error| self.read_error(error))?
            };
            if let Some(index) = leased {
                self.applied(index).await?;
                return Ok(Proof::Lease);
            }
            if stands > applied {
                Mark::SessionClosesTime.hit();
                self.closes.ask().await?;
            } else {
                let index = self.reads.ask().await;
                self.applied(index.map_err(|error| self.read_error(error))?).await?;
            }
            Ok(Proof::ReadIndex)
        }
        .boxed()
    }

    /// The bugs [`Plant::FollowerAnswersStrict`] and [`Plant::NoReadIndex`].
    fn answers_at_once(&self) -> bool {
        let leads = || self.group.leadership().token.is_some();
        Plant::FollowerAnswersStrict.is_on() && !leads() || Plant::NoReadIndex.is_on() && leads()
    }

    /// The index that a read of a session which stands above what is applied must see applied, if the lease
    /// holds and nothing stamped up to there can come any more: neither from this leader, which has settled all
    /// it had stamped, nor from a later one, for a quorum has heard from this one's clock when it was there.
    /// `None`: a time must be closed.
    async fn settled_under_lease(&self, stands: Stamp) -> Result<Option<u64>, Error> {
        let token = self.group.leadership().token;
        let section = self.proposer.section().await?;
        let index = self.leases.read_index(&self.group, Some(stands.time)).await;
        let Some(index) = index.map_err(|error| self.read_error(error))? else { return Ok(None) };
        self.proposer.settled(section).await?;
        // Of a leadership that is over, what was settled may still be committed by another.
        let leads = token.is_some() && self.group.leadership().token == token;
        if leads {
            Mark::LeaseAfterSettling.hit();
        }
        Ok(leads.then_some(index))
    }

    async fn applied(&self, index: u64) -> Result<(), Error> {
        if self.group.applied_position().0.index < index {
            Mark::ReadWaitsForApply.hit();
        }
        self.group.applied(index).await.map_err(|error| self.read_error(error))
    }

    /// Closes a time that is above every stamp given in the range so far (INV-4): whoever has applied the log
    /// up to the position has every entry stamped up to the time, for ever.
    ///
    /// The time is taken first, between two entries of this leader's. The round that follows shows that a
    /// quorum has heard from this leadership when its clock was there, so that every later leader stamps
    /// above; and by the end everything this leader had stamped is applied here. An error if this replica
    /// does not lead, or is not known to. [`RangeHandle::closes`] does it for many at once.
    pub(crate) async fn close(&self) -> Result<(LogPosition, Timestamp), Error> {
        let section = self.proposer.section().await?;
        let round = async {
            if Plant::ClosedWithoutQuorum.is_on() {
                return Ok(self.group.applied_position().0.index);
            }
            self.reads.ask().await.map_err(|error| self.read_error(error))
        };
        let (index, ()) = futures::try_join!(round, self.proposer.settled(section))?;
        self.applied(index).await?;
        // Committed, so it is in the log of every later leader; and at or above all that was to be closed.
        let (at, _) = self.group.applied_position();
        if may_close(section.time, self.group.freeze()) {
            Ok((at, section.time))
        } else {
            Err(self.frozen())
        }
    }

    /// The error of a request to a range that is frozen for a merge.
    pub(crate) fn frozen(&self) -> Error {
        let message =
            format!("range {} is frozen for a moment, to be merged: try again", self.id());
        Error::new(Reason::RangeFrozen, message).retry_after(Duration::from_millis(50))
    }

    fn read_error(&self, error: ReadError) -> Error {
        match error {
            ReadError::NotLeader(leader) => not_leader(self.id(), leader),
            ReadError::NoQuorum { heard } => {
                let own = self.group.replica().node;
                let silent = self
                    .group
                    .voters()
                    .into_iter()
                    .map(|replica| replica.node)
                    .filter(|node| *node != own && !heard.contains(node));
                self.no_quorum(silent.collect())
            }
            ReadError::Stopped => {
                Error::new(Reason::RangeNotHere, "the replica has just left this node")
            }
        }
    }

    /// The error of a request that too few voters answered.
    pub(crate) fn no_quorum(&self, silent: Vec<NodeId>) -> Error {
        let needed = self.group.voters().len() as u32 / 2 + 1;
        let missing = MissingQuorum { range: self.id(), needed, silent };
        let message = missing.to_string();
        Error { missing_quorum: Some(missing), ..Error::new(Reason::NoQuorum, message) }
    }

    /// Stops the replica's loops and its Raft group.
    pub(crate) async fn stop(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.group.stop().await;
    }
}
