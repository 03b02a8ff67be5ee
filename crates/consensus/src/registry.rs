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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use futures::future::BoxFuture;
    use latitude_range::RangeMeta;
    use latitude_storage::memory::{MemoryDisk, MemoryEngine};
    use latitude_storage::{Batch, Engine};
    use latitude_types::{KeySpan, KeyspaceId, NodeId, ReplicaId};
    use openraft::entry::RaftEntry;
    use openraft::raft::AppendEntriesRequest;

    use super::*;
    use crate::committer::{Committer, FlushInline};
    use crate::group::{Birth, GroupContext};
    use crate::network::{Class, Transport, TransportError};
    use crate::settings::Settings;
    use crate::snapshot::{NoFailpoints, SnapshotSettings, Snapshots};
    use crate::types::{Entry, LeaderId, LogId, Vote};
    use crate::wire::{self, AppendAnswer, Request, Response};

    const RANGE: RangeId = RangeId(7);

    struct Down;

    impl Transport for Down {
        fn call(
            &self,
            _: ReplicaId,
            _: RangeId,
            _: Class,
            _: Bytes,
        ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
            async { Err(TransportError("no connection".into())) }.boxed()
        }
    }

    fn replica(node: u32) -> ReplicaId {
        ReplicaId { node: NodeId(node), generation: Generation(1) }
    }

    /// The only replica of a range of three that is up.
    async fn follower() -> Group {
        let engine: Arc<dyn Engine> =
            Arc::new(MemoryEngine::open(&MemoryDisk::new()).expect("nobody has it open"));
        let meta = RangeMeta::new(RANGE, KeyspaceId::DEFAULT, KeySpan::all(), 1 << 20, true);
        let birth = Birth { meta, voters: (1..=3).map(replica).collect(), learners: vec![] };
        let mut batch = Batch::new();
        birth.stage(replica(1), &*engine, &mut batch);
        engine.write(batch).expect("the disk has space");
        let (committer, run) = Committer::new(FlushInline(Arc::clone(&engine)));
        tokio::spawn(run);
        let settings = Settings::for_round_trip(Duration::from_millis(10));
        let snapshots =
            Snapshots::open(&*engine, SnapshotSettings::default(), Arc::new(NoFailpoints));
        let snapshots = snapshots.expect("the disk is new");
        let transport = Arc::new(Down);
        let context =
            GroupContext { engine, committer, transport, settings, snapshots, silent_until: None };
        Group::open(&context, RANGE, replica(1)).await.expect("it was just born")
    }

    fn append(index: u64) -> Vec<u8> {
        let leader_id = LeaderId { term: 1, node_id: replica(2) };
        let prev = match index {
            1 => LogId { leader_id: LeaderId { term: 0, node_id: ReplicaId::default() }, index: 0 },
            _ => LogId { leader_id, index: index - 1 },
        };
        wire::encode(&Request::from(&AppendEntriesRequest {
            vote: Vote { leader_id, committed: true },
            prev_log_id: Some(prev),
            entries: vec![Entry::new_blank(LogId { leader_id, index })],
            leader_commit: None,
        }))
    }

    /// More messages than a task of tokio may handle in one go: each extends the log by one entry, so one
    /// that was overtaken would conflict.
    #[tokio::test(start_paused = true)]
    async fn messages_keep_the_order_in_which_they_are_first_polled() {
        let registry = Registry::default();
        registry.insert(follower().await);
        let mut answers = Vec::new();
        for index in 1..=300 {
            let answer = registry.dispatch(RANGE, Generation(1), &append(index));
            let mut answer = Box::pin(answer.expect("the replica is here"));
            let polled = futures::poll!(&mut answer);
            assert!(polled.is_pending(), "the group has had no turn yet");
            answers.push(answer);
        }
        // The order of the later polls does not matter.
        for answer in answers.into_iter().rev() {
            let answer = answer.await.expect("the group runs");
            let response = wire::decode::<Response>(&answer).expect("it was just encoded");
            assert_eq!(response, Response::Append(AppendAnswer::Success));
        }
    }
}
