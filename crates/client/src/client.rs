//! The client: what all its keyspaces share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use latitude_rpc::net::{Net, Tcp};
use latitude_rpc::pb::v1;
use latitude_types::{
    ClientId, ClusterId, ClusterIdentity, Error, NodeId, Reason, Result, Timestamp,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::admin::Admin;
use crate::ids::Ids;
use crate::keyspace::Keyspace;
use crate::link::Link;
use crate::lock;
use crate::routes::Routes;
use crate::run::patience;

/// How long an operation may take, all attempts included, unless set otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// A client of one cluster. Cheap to clone; all clones share connections, cache and ids.
///
/// A program needs one client, however many tasks use it: commands that are ready at the same time
/// share a frame.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

impl Client {
    /// Settings of a new client.
    pub fn builder() -> Builder {
        Builder {
            seeds: Vec::new(),
            region: String::new(),
            timeout: TIMEOUT_DEFAULT,
            net: Arc::new(Tcp),
            random_seed: None,
        }
    }

    /// A keyspace by its name; `default` always exists. Does not ask the cluster.
    pub fn keyspace(&self, name: impl Into<String>) -> Keyspace {
        Keyspace::new(self.clone(), name.into())
    }

    /// The administration of the cluster.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// The id of this client, part of the id of each of its writes.
    pub fn id(&self) -> ClientId {
        self.inner.ids.client()
    }

    /// Which cluster this is, as the first node that answers says.
    pub async fn cluster(&self) -> Result<Cluster> {
        let mut last = None;
        for link in self.inner.links_to_ask()? {
            match link.hello(patience(&link, 0)).await {
                Ok(reply) => return Cluster::from_hello(reply),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("there is at least one node to ask").into_read())
    }

    /// The status of the node at `host:port`.
    pub async fn status_of(&self, address: &str) -> Result<v1::StatusReply> {
        let link = self.inner.link(address)?;
        let mut admin = link.admin();
        let reply = link.unary(patience(&link, 0), admin.status(v1::StatusRequest {})).await;
        reply.map_err(IntoRead::into_read)
    }

    /// The local writes that one node holds and that are not in the log there yet; of all keyspaces if the name is
    /// empty.
    pub async fn deltas_at(&self, address: &str, keyspace: &str) -> Result<v1::ListDeltasReply> {
        let link = self.inner.link(address)?;
        let mut admin = link.admin();
        let request = v1::ListDeltasRequest { keyspace: keyspace.to_string() };
        let reply = link.unary(patience(&link, 0), admin.list_deltas(request)).await;
        reply.map_err(IntoRead::into_read)
    }

    /// Who takes local writes of the ranges that one node has replicas of; of all keyspaces if the name is empty.
    pub async fn origins_at(&self, address: &str, keyspace: &str) -> Result<v1::ListOriginsReply> {
        let link = self.inner.link(address)?;
        let mut admin = link.admin();
        let request = v1::ListOriginsRequest { keyspace: keyspace.to_string() };
        let reply = link.unary(patience(&link, 0), admin.list_origins(request)).await;
        reply.map_err(IntoRead::into_read)
    }
}

/// A cluster, and the node that spoke for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster and its incarnation; `None` if the node belongs to none yet.
    pub identity: Option<ClusterIdentity>,
    /// The node that answered.
    pub node: NodeId,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub zone: String,
    /// Its version of Latitude.
    pub version: String,
    /// Its clock when it answered.
    pub clock: Timestamp,
}

impl Cluster {
    fn from_hello(reply: v1::HelloReply) -> Result<Self> {
        let identity = match <[u8; 16]>::try_from(reply.cluster_id.as_ref()) {
            Ok(id) => {
                Some(ClusterIdentity { id: ClusterId(id), incarnation: reply.cluster_incarnation })
            }
            Err(_) if reply.cluster_id.is_empty() => None,
            Err(_) => {
                return Err(Error::new(Reason::Internal, "a cluster's id has 16 bytes: report it"));
            }
        };
        Ok(Self {
            identity,
            node: NodeId(reply.node),
            region: reply.region,
            zone: reply.zone,
            version: reply.version,
            clock: Timestamp(reply.clock),
        })
    }
}

/// Settings of a [`Client`].
#[derive(Clone)]
pub struct Builder {
    seeds: Vec<String>,
    region: String,
    timeout: Duration,
    net: Arc<dyn Net>,
    random_seed: Option<u64>,
}

impl Builder {
    /// Some nodes of the cluster, as `host:port`. One that answers is enough: it names the others.
    #[must_use]
    pub fn seeds<S: Into<String>>(mut self, seeds: impl IntoIterator<Item = S>) -> Self {
        self.seeds.extend(seeds.into_iter().map(Into::into));
        self
    }

    /// The region the client is in: decides which of a node's addresses it uses and which nodes it takes
    /// for near before it has measured.
    #[must_use]
    pub fn region(self, region: impl Into<String>) -> Self {
        Self { region: region.into(), ..self }
    }

    /// How long an operation may take, all attempts included. 10 s unless set.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The network; TCP unless set.
    #[must_use]
    pub fn net(self, net: Arc<dyn Net>) -> Self {
        Self { net, ..self }
    }

    /// Makes the client's randomness (its id, its waits) repeatable, for simulations.
    ///
    /// HAZARD: two clients of one cluster with the same seed have the same id, and the cluster takes
    /// the writes of one for repetitions of the other's.
    #[must_use]
    pub fn random_seed(self, seed: u64) -> Self {
        Self { random_seed: Some(seed), ..self }
    }

    /// The client. Connects when it is first used.
    pub fn build(self) -> Client {
        let mut rng = match self.random_seed {
            Some(seed) => SmallRng::seed_from_u64(seed),
            None => rand::make_rng(),
        };
        let ids = Arc::new(Ids::new(ClientId(rng.random())));
        let inner = Inner {
            seeds: self.seeds,
            region: self.region,
            timeout: self.timeout,
            net: self.net,
            ids,
            rng: Mutex::new(rng),
            routes: Mutex::default(),
            links: Mutex::default(),
            locating: tokio::sync::Mutex::default(),
            learnt: tokio::sync::Notify::new(),
        };
        Client { inner: Arc::new(inner) }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("seeds", &self.seeds)
            .field("region", &self.region)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// What all clones share.
pub(crate) struct Inner {
    seeds: Vec<String>,
    pub(crate) region: String,
    pub(crate) timeout: Duration,
    net: Arc<dyn Net>,
    pub(crate) ids: Arc<Ids>,
    rng: Mutex<SmallRng>,
    pub(crate) routes: Mutex<Routes>,
    /// By address. Lock order: routes before links.
    links: Mutex<BTreeMap<String, Arc<Link>>>,
    /// Held by whoever asks where ranges are.
    pub(crate) locating: tokio::sync::Mutex<()>,
    /// Tells those who wait to ask that something was learnt.
    pub(crate) learnt: tokio::sync::Notify,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

impl Inner {
    /// The link to an address, started if need be.
    pub(crate) fn link(&self, address: &str) -> Result<Arc<Link>> {
        let mut links = lock(&self.links);
        if let Some(link) = links.get(address).filter(|link| !link.is_dead()) {
            return Ok(Arc::clone(link));
        }
        let seed = lock(&self.rng).random();
        let (net, ids) = (Arc::clone(&self.net), Arc::clone(&self.ids));
        let link = Arc::new(Link::start(net, address, &self.region, ids, seed)?);
        links.insert(address.to_string(), Arc::clone(&link));
        Ok(link)
    }

    pub(crate) fn link_if_started(&self, address: &str) -> Option<Arc<Link>> {
        lock(&self.links).get(address).cloned()
    }

    /// The link to a node.
    pub(crate) fn link_of(&self, node: NodeId) -> Result<Arc<Link>> {
        let address = lock(&self.routes).place(node).map(|place| place.address.clone());
        let address = address.ok_or_else(|| {
            Error::new(Reason::RangeMoved, format!("nobody has said where {node} is"))
        })?;
        self.link(&address)
    }

    /// The links to ask about the cluster, best first: nodes already known, nearest first, then the
    /// seeds; doubtful ones last. Never empty.
    pub(crate) fn links_to_ask(&self) -> Result<Vec<Arc<Link>>> {
        let known: Vec<String> =
            lock(&self.routes).places().map(|place| place.address.clone()).collect();
        let mut seen = BTreeSet::new();
        let mut links = Vec::new();
        for address in known.iter().chain(&self.seeds) {
            if seen.insert(address) {
                links.push(self.link(address)?);
            }
        }
        if links.is_empty() {
            return Err(Error::new(Reason::ArgumentInvalid, "the client has no seeds: name one"));
        }
        links.sort_by_key(|link| {
            (link.is_doubtful(), link.round_trip().unwrap_or(Duration::from_secs(1)))
        });
        Ok(links)
    }

    /// A time to wait: between half of `wait` and all of it, so that clients that failed together do not
    /// come back together; at most `max`.
    pub(crate) fn jittered(&self, wait: Duration, max: Duration) -> Duration {
        wait.min(max).mul_f64(lock(&self.rng).random_range(0.5..1.0))
    }
}

/// An error of a call that changes nothing.
pub(crate) trait IntoRead {
    /// The same error, certain to have had no effect.
    fn into_read(self) -> Self;
}

impl IntoRead for Error {
    fn into_read(self) -> Self {
        Self { outcome: latitude_types::Outcome::NotApplied, ..self }
    }
}
