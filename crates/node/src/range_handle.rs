//! A replica as the rest of the node sees it: its Raft group, its proposer, its readers.

use std::sync::Arc;

use latitude_consensus::{Group, ReadError};
use latitude_directory::RangeRecord;
use latitude_types::{Error, MissingQuorum, NodeId, RangeId, Reason};
use tokio::task::AbortHandle;

use crate::proposer::{Proposer, not_leader};
use crate::reader::ReadQueue;

/// One replica of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RangeHandle {
    pub(crate) record: Arc<RangeRecord>,
    pub(crate) group: Group,
    pub(crate) proposer: Proposer,
    pub(crate) reads: ReadQueue,
    /// Its loops.
    pub(crate) tasks: Arc<[AbortHandle]>,
}

impl RangeHandle {
    pub(crate) fn id(&self) -> RangeId {
        self.record.id
    }

    /// Waits until a strict read that began before this call can be answered from the base here.
    pub(crate) async fn strict_read_barrier(&self) -> Result<(), Error> {
        let index = self.reads.read_index().await.map_err(|error| self.read_error(error))?;
        self.group.applied(index).await.map_err(|error| self.read_error(error))
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
