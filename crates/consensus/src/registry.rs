//! The replicas of a node, and the way of a message to the right one.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use latitude_types::{Generation, RangeId};

use crate::group::Group;

/// The replicas of a node, by range. Cheap to clone; all clones are the same registry.
#[derive(Clone, Default)]
pub struct Registry {
    groups: Arc<RwLock<BTreeMap<RangeId, Group>>>,
}

/// Why a message reached no replica.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DispatchError {
    /// The node has no replica of the range, or not one of that generation.
    #[error("no replica of range {0}, generation {1} here")]
    NotHere(RangeId, Generation),
    /// The message does not parse, or the replica stopped.
    #[error("{0}")]
    Failed(String),
}

impl Registry {
    /// Adds a replica; the former one of its range, if any, is returned.
    pub fn insert(&self, group: Group) -> Option<Group> {
        self.write().insert(group.range(), group)
    }

    /// Takes a replica out.
    pub fn remove(&self, range: RangeId) -> Option<Group> {
        self.write().remove(&range)
    }

    /// The node's replica of a range.
    pub fn get(&self, range: RangeId) -> Option<Group> {
        self.groups.read().expect("nothing panics while it holds the registry").get(&range).cloned()
    }

    /// Every replica, by range.
    pub fn all(&self) -> Vec<Group> {
        self.groups
            .read()
            .expect("nothing panics while it holds the registry")
            .values()
            .cloned()
            .collect()
    }

    /// Answers a message to a replica. Poll the futures of one connection first in the order of its
    /// messages: the first poll is the message's place in Raft's queue.
    pub fn dispatch(
        &self,
        range: RangeId,
        generation: Generation,
        body: &[u8],
    ) -> Result<impl Future<Output = Result<Bytes, DispatchError>> + Send + use<>, DispatchError>
    {
        // A message to an earlier or later replica of this node is not for the one that is here.
        let group = self.get(range).filter(|group| group.replica().generation == generation);
        let group = group.ok_or(DispatchError::NotHere(range, generation))?;
        let answer =
            group.handle(body).map_err(|error| DispatchError::Failed(error.to_string()))?;
        Ok(async move {
            answer.await.map(Bytes::from).map_err(|error| DispatchError::Failed(error.to_string()))
        })
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<RangeId, Group>> {
        self.groups.write().expect("nothing panics while it holds the registry")
    }
}
