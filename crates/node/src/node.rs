//! A node's life: from its store and its ports to the last task.

use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use bytes::Bytes;
use latitude_clock::HybridClock;
use latitude_consensus::{Committer, Registry, Snapshots};
use latitude_directory::{Address, Directory};
use latitude_range::FEATURE_LEVEL;
use latitude_rpc::net::{self, Incoming};
use latitude_rpc::pb::peer::Greeting;
use latitude_rpc::pb::peer::peer_client::PeerClient;
use latitude_storage::{Batch, Column, key};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Server};

use crate::catalog::{self, Catalog};
use crate::clock_keeper::{self, Clock};
use crate::config::NodeConfig;
use crate::identity::{Identity, IdentityError, Membership};
use crate::leases::{Leases, Promise};
use crate::local::{Local, LocalMarks};
use crate::metrics::Metrics;
use crate::peers::{Peers, PeersConfig};
use crate::ports::Ports;
use crate::shared::{NO_PANIC, OwnIds, Shared};
use crate::{balancer, bootstrap, closing, disk_watch, liveness, local, reconciler, service};

/// How long a stopping node waits for others to take over its ranges.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(10);
/// How long it then waits for what it has in hand.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// A running node.
pub struct Node {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
    listens_on: String,
}

/// A node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error(transparent)]
    Storage(#[from] latitude_storage::Error),
    /// The store's rows about the node cannot be used.
    #[error("{0}")]
    Identity(String),
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// What is left of snapshots in the store cannot be used.
    #[error("the store's snapshots: {0}")]
    Snapshots(String),
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

impl From<IdentityError> for StartError {
    fn from(error: IdentityError) -> Self {
        Self::Identity(error.to_string())
    }
}

impl Node {
    /// Starts a node on its ports. It serves once it is in a cluster.
    pub async fn start(config: NodeConfig, ports: Ports) -> Result<Self, StartError> {
        let Ports { clock: physical, net, engine, flush, failpoints, seed } = ports;
        let mut identity = Identity::load(&*engine, config.store)?;
        let promise = Promise::of_start(&*engine, &config)?;
        let silent_until = promise.silent_until();
        // Decided before anything is synced: a sync may hide what was found.
        if let Some(damage) = engine.damage() {
            let reason =
                format!("{damage}: its replicas neither vote nor serve until they are rebuilt");
            tracing::error!(%reason, "the store is damaged");
            identity.quarantine = Some(reason);
        }
        identity.starts += 1;
        let snapshots = Snapshots::open(&*engine, config.snapshots, failpoints)
            .map_err(|error| StartError::Snapshots(error.to_string()))?;
        let (committer, run_committer) = Committer::new(FlushBox(flush));
        tokio::spawn(run_committer);
        let hybrid = HybridClock::start(
            Arc::clone(&physical),
            clock_keeper::durable_bound(&*engine)?,
            config.max_clock_offset,
        );
        // A restarted clock stands at its old bound; until real time is near, peers would refuse it.
        let settles = hybrid.settles_in();
        if settles > Duration::from_secs(5) {
            tracing::warn!(
                ?settles,
                "the wall clock is behind what this node has already told: waiting for it"
            );
        }
        sleep(settles).await;
        first_batch(&*engine, &committer, &identity, &promise, &hybrid).await?;
        let clock = Clock::new(hybrid, Arc::clone(&engine), committer.clone());
        let leases = Leases::new(promise, silent_until, physical, clock.clone());
        let (listens_on, incoming) = net
            .listen(&config.listen)
            .await
            .map_err(|source| StartError::Listen { address: config.listen.clone(), source })?;
        let address = config
            .advertise
            .clone()
            .unwrap_or_else(|| Address { default: listens_on.clone(), from_region: Vec::new() });
        let mut random = SmallRng::seed_from_u64(seed);
        let shared = Arc::new(Shared {
            admission: Arc::new(Semaphore::new(config.limits.requests_in_flight_max)),
            address,
            engine,
            committer,
            snapshots,
            clock,
            leases,
            registry: Registry::default(),
            catalog: Catalog::new(),
            net,
            metrics: Arc::new(Metrics::new()),
            reconcile: Notify::new(),
            joined: watch::Sender::new(None),
            peers: OnceLock::new(),
            local: OnceLock::new(),
            ranges: RwLock::default(),
            quarantined: Mutex::default(),
            disk_full: watch::Sender::new(false),
            draining: watch::Sender::new(false),
            stop: CancellationToken::new(),
            fatal: watch::Sender::new(None),
            started: Instant::now(),
            own_ids: Mutex::new(OwnIds::new(&mut random)),
            random: Mutex::new(random),
            identity: Mutex::new(identity),
            config,
        });
        tokio::spawn(shared.clock.clone().keep(shared.stop.clone()));
        tokio::spawn(watch_committer(Arc::clone(&shared)));
        tokio::spawn(disk_watch::keep(Arc::clone(&shared)));
        tokio::spawn(forget_former_promise(Arc::clone(&shared)));
        let server = serve(&shared, incoming)?;
        let (membership, founding) = {
            let identity = shared.identity.lock().expect(NO_PANIC);
            (identity.membership.clone(), identity.plan.is_some())
        };
        match membership {
            Some(membership) => join_cluster(&shared, membership),
            None if shared.config.join.is_empty() && !founding => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    if let Err(error) = bootstrap::init(&shared, Duration::from_secs(60)).await {
                        shared.fail(format!("no cluster could be made of this node: {error}"));
                    }
                });
            }
            None if !founding => {
                drop(tokio::spawn(bootstrap::look_for_cluster(Arc::clone(&shared))))
            }
            None => {}
        }
        if founding {
            tokio::spawn(bootstrap::resume(Arc::clone(&shared)));
        }
        Ok(Self { shared, server, listens_on })
    }

    /// Where the node listens: its port is known here if it was chosen by the system.
    pub fn listens_on(&self) -> &str {
        &self.listens_on
    }

    /// What the node holds true of local writes at this moment; `None` while it is in no cluster.
    pub fn local_marks(&self) -> Option<LocalMarks> {
        self.shared.local.get().map(Local::marks)
    }

    /// Resolves when the node must stop by itself, with the reason.
    pub async fn failed(&self) -> String {
        let mut fatal = self.shared.fatal.subscribe();
        let reason = fatal.wait_for(Option::is_some).await.map(|reason| reason.clone());
        match reason {
            Ok(reason) => reason.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Hands over every range it leads, finishes what it has in hand, and stops.
    pub async fn shut_down(self) {
        let Self { shared, server, .. } = self;
        if shared.membership().is_some() {
            balancer::hand_over(&shared, HAND_OVER_PATIENCE).await;
        }
        // Only now: while others took over, clients were still served here.
        shared.draining.send_replace(true);
        let all = shared.config.limits.requests_in_flight_max as u32;
        let _ = timeout(DRAIN_PATIENCE, shared.admission.acquire_many(all)).await;
        // Replies on their way leave before the connections close.
        sleep(Duration::from_millis(50)).await;
        shared.stop.cancel();
        for handle in shared.all_ranges() {
            handle.stop().await;
        }
        let _ = timeout(Duration::from_secs(2), server).await;
        // HAZARD: from here on the clock must give nothing, and nothing is left that would ask it.
        shared.clock.seal().await;
    }
}

/// What a start writes first, synced: the start is counted, what was found is noted, and the clock has a
/// bound to run up to; and what this life promises to leaders, or a former one did, is kept.
async fn first_batch(
    engine: &dyn latitude_storage::Engine,
    committer: &Committer,
    identity: &Identity,
    promise: &Promise,
    hybrid: &HybridClock,
) -> Result<(), StartError> {
    let mut batch = Batch::new();
    identity.stage(&mut batch);
    promise.stage(&mut batch);
    let bound = hybrid.bound_to_persist();
    if let Some(bound) = bound {
        batch.put(Column::Node, key::node::clock_bound(), bound.0.to_be_bytes().to_vec());
    }
    engine.write(batch)?;
    committer.durable().await.map_err(|error| StartError::Internal(error.to_string()))?;
    if let Some(bound) = bound {
        hybrid.raise_bound(bound);
    }
    Ok(())
}

/// Serves connections until the node stops.
fn serve(shared: &Arc<Shared>, incoming: Incoming) -> Result<JoinHandle<()>, StartError> {
    let routes =
        service::routes(shared).map_err(|error| StartError::Internal(error.to_string()))?;
    let stop = shared.stop.clone();
    let server = Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(1024)
        .initial_stream_window_size(16 << 20)
        .initial_connection_window_size(32 << 20)
        .http2_max_pending_accept_reset_streams(Some(64))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    let shared = Arc::clone(shared);
    Ok(tokio::spawn(async move {
        if let Err(error) = server.await {
            shared.fail(format!("the server stopped: {error}"));
        }
    }))
}

async fn watch_committer(shared: Arc<Shared>) {
    tokio::select! {
        biased;
        () = shared.stop.cancelled() => {}
        // HAZARD: what the disk holds is unknown now; only a new process that reads it can go on.
        message = shared.committer.failed() => shared.fail(format!("the store could not be synced: {message}")),
    }
}

/// Once the node has been silent for it, nobody counts on what a former life promised.
async fn forget_former_promise(shared: Arc<Shared>) {
    let Some(until) = shared.leases.silent_until() else { return };
    tokio::select! {
        biased;
        () = shared.stop.cancelled() => {}
        () = tokio::time::sleep_until(until) => {
            if let Some(batch) = shared.leases.after_silence()
                && let Err(error) = shared.engine.write(batch)
            {
                // It stays in the store, and the next start is silent for it once more.
                tracing::warn!(%error, "a former promise could not be forgotten");
            }
        }
    }
}

/// Begins a node's life in a cluster: from here on it says and hears things.
pub(crate) fn join_cluster(shared: &Arc<Shared>, membership: Membership) {
    let greeting = Greeting {
        cluster_id: Bytes::copy_from_slice(&membership.cluster.id.0),
        cluster_incarnation: membership.cluster.incarnation,
        node: membership.node.0,
        store_id: Bytes::copy_from_slice(&shared.config.store.0),
        feature_level: FEATURE_LEVEL,
        store_starts: shared.identity.lock().expect(NO_PANIC).starts,
        lease_us: shared.leases.promised_us(),
        ..Greeting::default()
    };
    let peers = Peers::new(PeersConfig {
        net: Arc::clone(&shared.net),
        clock: shared.clock.clone(),
        catalog: shared.catalog.clone(),
        leases: shared.leases.clone(),
        greeting,
        region: shared.config.region.clone(),
        silence_max: shared.config.settings.election_timeout_max.max(Duration::from_secs(1)),
        stop: shared.stop.clone(),
    });
    if shared.peers.set(peers).is_err() {
        // Two calls at once, for the same place: the other one does the rest.
        return;
    }
    let opened = Local::open(
        membership.node,
        shared.clock.clone(),
        Arc::clone(&shared.engine),
        shared.committer.clone(),
        &shared.config.limits,
        shared.metrics.local_write_folded(),
    );
    let (local, folder) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            shared.fail(format!("the store's local writes cannot be read: {error}"));
            return;
        }
    };
    let _ = shared.local.set(local.clone());
    shared.catalog.offer(Directory::of_meta(membership.meta.clone(), membership.founders.clone()));
    tracing::info!(node = %membership.node, cluster = %membership.cluster, "in the cluster");
    shared.joined.send_replace(Some(membership));
    tokio::spawn({
        let shared = Arc::clone(shared);
        async move {
            if let Err(error) = local.run_writer(shared.stop.clone()).await {
                shared.fail(format!("local writes cannot be written: {error}"));
            }
        }
    });
    tokio::spawn(folder.run(Arc::clone(shared)));
    tokio::spawn(local::keep_little(Arc::clone(shared)));
    let stable = {
        let shared = Arc::clone(shared);
        move || shared.local().all_stable()
    };
    tokio::spawn(local::keep_swept(Arc::clone(shared), stable));
    tokio::spawn(local::keep_streams(Arc::clone(shared)));
    tokio::spawn(local::keep_sealed(Arc::clone(shared)));
    tokio::spawn(local::keep_showing(Arc::clone(shared)));
    tokio::spawn(local::keep_standing(Arc::clone(shared)));
    tokio::spawn(reconciler::keep(Arc::clone(shared)));
    tokio::spawn(catalog::keep(Arc::clone(shared)));
    tokio::spawn(liveness::keep(Arc::clone(shared)));
    tokio::spawn(closing::keep(Arc::clone(shared)));
    tokio::spawn(balancer::keep(Arc::clone(shared)));
    tokio::spawn(bootstrap::announce(Arc::clone(shared)));
}

/// A client for calls to a node that may be in no cluster yet.
pub(crate) fn unary_peer(shared: &Shared, address: &str) -> Result<PeerClient<Channel>, String> {
    let channel = net::channel(Arc::clone(&shared.net), address, Duration::from_secs(2));
    Ok(PeerClient::new(channel.map_err(|error| format!("{address} is no address: {error}"))?))
}

/// The port's flush, as the committer takes it.
struct FlushBox(Box<dyn latitude_consensus::Flush>);

impl latitude_consensus::Flush for FlushBox {
    fn flush(&mut self) -> futures::future::BoxFuture<'_, latitude_storage::Result<()>> {
        self.0.flush()
    }
}
