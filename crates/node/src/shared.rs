//! What the tasks of a node share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use latitude_consensus::{Committer, GroupContext, Registry, Snapshots};
use latitude_rpc::net::Net;
use latitude_storage::Engine;
use latitude_types::{
    ClientId, Error, NodeId, OperationId, OperationKind, RangeId, Reason, Timestamp,
};
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::clock_keeper::Clock;
use crate::config::NodeConfig;
use crate::identity::{Identity, Membership};
use crate::leases::Leases;
use crate::local::Local;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::range_handle::RangeHandle;
use crate::request::WriteId;

/// What the tasks of a node share.
pub(crate) struct Shared {
    pub(crate) config: NodeConfig,
    /// Where others reach this node.
    pub(crate) address: latitude_directory::Address,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) net: Arc<dyn Net>,
    pub(crate) committer: Committer,
    /// What the snapshots of all ranges share.
    pub(crate) snapshots: Snapshots,
    pub(crate) clock: Clock,
    pub(crate) leases: Leases,
    pub(crate) registry: Registry,
    pub(crate) catalog: Catalog,
    pub(crate) metrics: Arc<Metrics>,
    /// The directory changed, or a replica is wanted for another reason.
    pub(crate) reconcile: Notify,
    /// The store's rows about the node; changed only under this lock.
    pub(crate) identity: Mutex<Identity>,
    /// The node's place in a cluster, once it has one.
    pub(crate) joined: watch::Sender<Option<Membership>>,
    /// Set when the node has joined a cluster.
    pub(crate) peers: OnceLock<Peers>,
    /// Set when the node has joined a cluster.
    pub(crate) local: OnceLock<Local>,
    pub(crate) ranges: RwLock<BTreeMap<RangeId, RangeHandle>>,
    /// Replicas that cannot be opened, and why: they neither vote nor serve until they are rebuilt.
    pub(crate) quarantined: Mutex<BTreeMap<RangeId, String>>,
    /// Requests in hand.
    pub(crate) admission: Arc<Semaphore>,
    /// Too little space is left for writes.
    pub(crate) disk_full: watch::Sender<bool>,
    /// The node hands over and takes nothing new.
    pub(crate) draining: watch::Sender<bool>,
    pub(crate) stop: CancellationToken,
    /// Why the node must stop, once it must.
    pub(crate) fatal: watch::Sender<Option<String>>,
    pub(crate) started: Instant,
    pub(crate) own_ids: Mutex<OwnIds>,
    pub(crate) random: Mutex<SmallRng>,
}

/// Makes the ids of writes that came without one.
pub(crate) struct OwnIds {
    client: ClientId,
    next: u64,
    last_birth: Timestamp,
    /// Sequences given and not yet finished.
    outstanding: BTreeSet<u64>,
}

impl OwnIds {
    pub(crate) fn new(random: &mut SmallRng) -> Self {
        let mut client = [0; 16];
        random.fill_bytes(&mut client);
        Self {
            client: ClientId(client),
            next: 1,
            last_birth: Timestamp::ZERO,
            outstanding: BTreeSet::new(),
        }
    }

    fn next(&mut self, now: Timestamp, kind: OperationKind) -> WriteId {
        self.last_birth = self.last_birth.max(now);
        let sequence = self.next;
        self.next += 1;
        self.outstanding.insert(sequence);
        let answered_below = self.outstanding.first().copied().unwrap_or(sequence);
        let id = OperationId { birth: self.last_birth, client: self.client, sequence, kind };
        WriteId { id, answered_below }
    }
}

/// An id of this node's own, for one write. Dropped once nothing sends the write any more, for only then
/// may its answer be forgotten.
pub(crate) struct OwnId {
    pub(crate) id: WriteId,
    shared: Arc<Shared>,
}

impl OwnId {
    /// A new id, born now.
    pub(crate) async fn make(shared: &Arc<Shared>, kind: OperationKind) -> Result<Self, Error> {
        let now = shared.clock.now().await?;
        let id = shared.own_ids.lock().expect(NO_PANIC).next(now, kind);
        Ok(Self { id, shared: Arc::clone(shared) })
    }
}

impl Drop for OwnId {
    fn drop(&mut self) {
        self.shared.own_ids.lock().expect(NO_PANIC).outstanding.remove(&self.id.id.sequence);
    }
}

pub(crate) const NO_PANIC: &str = "nothing panics while it holds this";

impl Shared {
    /// The node's place in a cluster.
    pub(crate) fn membership(&self) -> Option<Membership> {
        self.joined.borrow().clone()
    }

    /// The node's number; an error while it has none.
    pub(crate) fn node(&self) -> Result<NodeId, Error> {
        self.joined.borrow().as_ref().map(|membership| membership.node).ok_or_else(not_initialized)
    }

    /// The way to other nodes. Only for what runs once the node is in a cluster.
    pub(crate) fn peers(&self) -> &Peers {
        self.peers.get().expect("set before the node says that it has joined")
    }

    /// Local writes. Only for what runs once the node is in a cluster.
    pub(crate) fn local(&self) -> &Local {
        self.local.get().expect("set before the node says that it has joined")
    }

    /// Asks an origin to tell how far its stream is, now or with others in a moment. This node itself always knows.
    pub(crate) fn nudge(&self, origin: NodeId) {
        if self.node() == Ok(origin) {
            return;
        }
        let (local, peers) = (self.local().clone(), self.peers().clone());
        let Some(at) = local.next_nudge(origin) else { return };
        tokio::spawn(async move {
            // Not even a tick of the timer, if it need not be.
            if at > Instant::now() {
                sleep_until(at).await;
            }
            let number = local.begin_nudge(origin);
            if peers.nudge(origin, number).await.is_err() {
                local.forget_nudge(origin, number);
            }
        });
    }

    /// The node's replica of a range.
    pub(crate) fn range(&self, id: RangeId) -> Option<RangeHandle> {
        self.ranges.read().expect(NO_PANIC).get(&id).cloned()
    }

    /// Every replica of the node.
    pub(crate) fn all_ranges(&self) -> Vec<RangeHandle> {
        self.ranges.read().expect(NO_PANIC).values().cloned().collect()
    }

    /// What a Raft group needs of the node.
    pub(crate) fn group_context(&self) -> GroupContext {
        GroupContext {
            engine: Arc::clone(&self.engine),
            committer: self.committer.clone(),
            transport: Arc::new(self.peers().clone()),
            settings: self.config.settings,
            snapshots: self.snapshots.clone(),
            silent_until: self.leases.silent_until(),
        }
    }

    /// The node must stop; the first reason is kept.
    pub(crate) fn fail(&self, reason: String) {
        tracing::error!(%reason, "the node must stop");
        self.fatal.send_if_modified(|fatal| {
            let first = fatal.is_none();
            if first {
                *fatal = Some(reason);
            }
            first
        });
        self.stop.cancel();
    }
}

pub(crate) fn not_initialized() -> Error {
    Error::new(
        Reason::NotInitialized,
        "this node belongs to no cluster yet: run `latitude init` against one of the nodes",
    )
}
