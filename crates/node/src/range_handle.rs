//! A replica as the rest of the node sees it: its Raft group, its proposer, its readers.

use std::sync::Arc;
use std::time::Duration;

use latitude_consensus::{Group, LogPosition, ReadError};
use latitude_consistency::may_close;
use latitude_directory::RangeRecord;
use latitude_types::{Error, MissingQuorum, NodeId, RangeId, Reason, Timestamp};
use tokio::task::AbortHandle;

use crate::closing::Closing;
use crate::proposer::{Proposer, not_leader};
use crate::reader::ReadQueue;

/// One replica of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RangeHandle {
    pub(crate) record: Arc<RangeRecord>,
    pub(crate) group: Group,
    pub(crate) proposer: Proposer,
    pub(crate) reads: ReadQueue,
    pub(crate) closing: Closing,
    /// Its loops.
    pub(crate) tasks: Arc<[AbortHandle]>,
}

impl RangeHandle {
    pub(crate) fn id(&self) -> RangeId {
        self.record.id
    }

    /// Waits until a strict read that began before this call can be answered from the base here.
    ///
    /// `after_session`: the read is of a session that stands at some time, which this node's clock has
    /// merged. Then every entry stamped up to that time must be applied, also one that is under way and that
    /// no read index covers: the session would stand above it without having seen it (pitfall B6).
    pub(crate) async fn strict_read_barrier(&self, after_session: bool) -> Result<(), Error> {
        if after_session {
            return self.close().await.map(drop);
        }
        let index = self.reads.read_index().await.map_err(|error| self.read_error(error))?;
        self.group.applied(index).await.map_err(|error| self.read_error(error))
    }

    /// Closes a time that is above every stamp given in the range so far (INV-4): whoever has applied the log
    /// up to the position has every entry stamped up to the time, for ever.
    ///
    /// The time is taken first, between two entries of this leader's. The round that follows shows that a
    /// quorum has heard from this leadership when its clock was there, so that every later leader stamps
    /// above; and by the end everything this leader had stamped is applied here. An error if this replica
    /// does not lead, or is not known to.
    pub(crate) async fn close(&self) -> Result<(LogPosition, Timestamp), Error> {
        let section = self.proposer.section().await?;
        let (index, ()) = futures::join!(self.reads.read_index(), self.proposer.settled(section));
        let index = index.map_err(|error| self.read_error(error))?;
        self.group.applied(index).await.map_err(|error| self.read_error(error))?;
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
