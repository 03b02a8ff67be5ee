//! How a node comes into a cluster, and how a cluster comes to be.
//!
//! ```text
//!   latitude init ─▶ one node: asks all of its join list who they are
//!                    └─ writes a plan (synced) ─▶ Adopt ─▶ every founder ─▶ itself ─▶ meta range elects
//!                                                                              └─ node records, `default`
//!   a node that is in no cluster: asks its join list for a place (Join), until one has it
//! ```
//!
//! Every step can be repeated: a founder that dies half-way finds its plan when init is run again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use latitude_directory::{
    Address, Counter, Directory, KeyspaceRecord, KeyspaceState, NodeRecord, RangeRecord,
    key as directory_key,
};
use latitude_placement::{PerRegion, Policy, place};
use latitude_range::ValueType;
use latitude_rpc::pb::{peer as pb, v1};
use latitude_storage::Batch;
use latitude_types::{
    ClusterId, ClusterIdentity, Epoch, Error, KeySpan, KeyspaceId, Level, NodeId, RangeId, Reason,
    StoreId,
};
use rand::Rng;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::admin;
use crate::identity::{Membership, Plan};
use crate::node;
use crate::router::execute_meta;
use crate::shared::{NO_PANIC, Shared, not_initialized};

const ASK_EVERY: Duration = Duration::from_millis(500);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
const RESUME_PATIENCE: Duration = Duration::from_secs(30);
/// The longest value of a new keyspace that names no limit.
const VALUE_LEN_MAX: u32 = 1 << 20;

/// Who this node is, for others that found a cluster.
pub(crate) fn identify(shared: &Shared) -> pb::IdentifyReply {
    let membership = shared.membership();
    pb::IdentifyReply {
        store_id: Bytes::copy_from_slice(&shared.config.store.0),
        region: shared.config.region.clone(),
        zone: shared.config.zone.clone(),
        address: shared.address.default.clone(),
        region_addresses: shared
            .address
            .from_region
            .iter()
            .map(|(region, address)| pb::RegionAddress {
                region: region.clone(),
                address: address.clone(),
            })
            .collect(),
        cluster_id: membership
            .as_ref()
            .map_or_else(Bytes::new, |m| Bytes::copy_from_slice(&m.cluster.id.0)),
        node: membership.map_or(0, |membership| membership.node.0),
    }
}

fn sixteen(bytes: &[u8], what: &str) -> Result<[u8; 16], Error> {
    <[u8; 16]>::try_from(bytes)
        .map_err(|_| Error::new(Reason::Malformed, format!("{what} has 16 bytes")))
}

fn record_of(id: NodeId, who: &pb::IdentifyReply) -> Result<NodeRecord, Error> {
    let from_region = who
        .region_addresses
        .iter()
        .map(|special| (special.region.clone(), special.address.clone()))
        .collect();
    Ok(NodeRecord {
        id,
        store: StoreId(sixteen(&who.store_id, "a store id")?),
        region: who.region.clone(),
        zone: who.zone.clone(),
        address: Address { default: who.address.clone(), from_region },
    })
}

/// Founds a cluster of this node and all it was told to join; or finishes a founding, or says that there
/// is a cluster already.
pub(crate) async fn init(shared: &Arc<Shared>, patience: Duration) -> Result<v1::InitReply, Error> {
    let deadline = Instant::now() + patience;
    let planned = shared.identity.lock().expect(NO_PANIC).plan.clone();
    if let (Some(membership), None) = (shared.membership(), &planned) {
        // Another node may still be at it; a cluster is one once it serves.
        wait_until_furnished(shared, deadline).await?;
        return init_reply(shared, &membership, false);
    }
    let plan = match planned {
        Some(plan) => plan,
        None => {
            let plan = match draw_up(shared, deadline).await? {
                DrawnUp::Here(plan) => plan,
                DrawnUp::Elsewhere(address) => {
                    return init_elsewhere(shared, &address, deadline).await;
                }
            };
            let mut identity = shared.identity.lock().expect(NO_PANIC).clone();
            identity.plan = Some(plan.clone());
            save(shared, identity).await?;
            plan
        }
    };
    for founder in plan.founders.iter().filter(|founder| founder.store != shared.config.store) {
        adopt_elsewhere(shared, &plan, founder, deadline).await?;
    }
    let own = plan.founders.iter().find(|founder| founder.store == shared.config.store);
    let own =
        own.ok_or_else(|| Error::new(Reason::Internal, "the plan does not hold this node"))?;
    let membership = Membership {
        cluster: plan.cluster,
        node: own.id,
        meta: plan.meta.clone(),
        founders: plan.founders.clone(),
    };
    become_member(shared, membership.clone()).await?;
    furnish(shared, &plan, deadline).await?;
    let mut identity = shared.identity.lock().expect(NO_PANIC).clone();
    identity.plan = None;
    save(shared, identity).await?;
    init_reply(shared, &membership, true)
}

fn init_reply(
    shared: &Shared,
    membership: &Membership,
    created: bool,
) -> Result<v1::InitReply, Error> {
    Ok(v1::InitReply {
        cluster_id: Bytes::copy_from_slice(&membership.cluster.id.0),
        nodes: admin::node_statuses(shared),
        created,
    })
}

/// Who founds the cluster.
enum DrawnUp {
    /// This node.
    Here(Plan),
    /// The node at this address: the first of all by address, so that several nodes told at once to found
    /// the cluster do not found several.
    Elsewhere(String),
}

/// Asks everybody who they are and decides who becomes which node.
async fn draw_up(shared: &Arc<Shared>, deadline: Instant) -> Result<DrawnUp, Error> {
    let mut found: Vec<(String, pb::IdentifyReply)> = vec![(String::new(), identify(shared))];
    for address in &shared.config.join {
        let who = loop {
            match ask_who(shared, address).await {
                Ok(who) => break who,
                Err(error) if Instant::now() >= deadline => {
                    let message = format!(
                        "{address} does not answer ({error}): start every node of the join list first"
                    );
                    return Err(Error::new(Reason::Unreachable, message));
                }
                Err(_) => sleep(ASK_EVERY).await,
            }
        };
        if !who.cluster_id.is_empty() {
            let message = format!("the node at {address} belongs to a cluster already");
            return Err(Error::new(Reason::AlreadyInitialized, message));
        }
        if found.iter().all(|(_, other)| other.store_id != who.store_id) {
            found.push((address.clone(), who));
        }
    }
    // The order of the join list depends on who was asked; that of addresses does not.
    found.sort_by(|(_, a), (_, b)| a.address.cmp(&b.address));
    if let Some((address, first)) = found.first()
        && first.store_id != shared.config.store.0.as_slice()
    {
        return Ok(DrawnUp::Elsewhere(address.clone()));
    }
    let founders = found
        .iter()
        .zip(1..)
        .map(|((_, who), id)| record_of(NodeId(id), who))
        .collect::<Result<Vec<_>, _>>()?;
    let nodes: Vec<_> = founders.iter().map(admin::node_info).collect();
    let voters = admin::first_generation(latitude_placement::founders(&nodes));
    let mut id = [0; 16];
    shared.random.lock().expect(NO_PANIC).fill_bytes(&mut id);
    Ok(DrawnUp::Here(Plan {
        cluster: ClusterIdentity { id: ClusterId(id), incarnation: 1 },
        founders,
        meta: RangeRecord {
            id: RangeId::META,
            epoch: Epoch(1),
            keyspace: KeyspaceId::META,
            span: KeySpan::all(),
            voters,
            learners: Vec::new(),
            value_type: ValueType::Register,
            value_len_max: 8 << 20,
            log_only: true,
        },
    }))
}

/// Has another node found the cluster.
async fn init_elsewhere(
    shared: &Shared,
    address: &str,
    deadline: Instant,
) -> Result<v1::InitReply, Error> {
    let unreachable =
        |message: String| Error::new(Reason::Unreachable, format!("{address}: {message}"));
    let channel = latitude_rpc::net::channel(Arc::clone(&shared.net), address, CALL_TIMEOUT)
        .map_err(|error| unreachable(error.to_string()))?;
    let left = deadline.saturating_duration_since(Instant::now());
    let request = v1::InitRequest { timeout_ms: (left.as_millis() as u32).max(1) };
    let mut admin = v1::admin_client::AdminClient::new(channel);
    let reply = timeout_at(deadline, admin.init(request)).await;
    let reply = reply.map_err(|_| unreachable("no answer within the deadline".into()))?;
    reply
        .map(tonic::Response::into_inner)
        .map_err(|status| latitude_rpc::error_from_status(&status))
}

async fn ask_who(shared: &Shared, address: &str) -> Result<pb::IdentifyReply, String> {
    let mut client = node::unary_peer(shared, address)?;
    let reply = timeout(CALL_TIMEOUT, client.identify(pb::IdentifyRequest {})).await;
    reply
        .map_err(|_| "no answer".to_string())?
        .map(tonic::Response::into_inner)
        .map_err(|status| status.message().into())
}

async fn adopt_elsewhere(
    shared: &Shared,
    plan: &Plan,
    founder: &NodeRecord,
    deadline: Instant,
) -> Result<(), Error> {
    let request = pb::AdoptRequest {
        cluster_id: Bytes::copy_from_slice(&plan.cluster.id.0),
        cluster_incarnation: plan.cluster.incarnation,
        node: founder.id.0,
        store_id: Bytes::copy_from_slice(&founder.store.0),
        meta_descriptor: plan.meta.encode().into(),
        nodes: plan.founders.iter().map(|founder| founder.encode().into()).collect(),
    };
    let address = founder.address.seen_from(&shared.config.region);
    loop {
        let attempt = async {
            let mut client = node::unary_peer(shared, address)?;
            client.adopt(request.clone()).await.map_err(|status| status.message().to_string())
        };
        match timeout_at(deadline, attempt).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) if Instant::now() < deadline => sleep(ASK_EVERY).await,
            Ok(Err(message)) => {
                return Err(Error::new(
                    Reason::Unreachable,
                    format!("{address} cannot be made a founder: {message}"),
                ));
            }
            Err(_) => {
                return Err(Error::new(Reason::Unreachable, format!("{address} does not answer")));
            }
        }
    }
}

/// Becomes a founder, as another node has decided.
pub(crate) async fn adopt(shared: &Arc<Shared>, request: &pb::AdoptRequest) -> Result<(), Error> {
    if StoreId(sixteen(&request.store_id, "a store id")?) != shared.config.store {
        return Err(Error::new(
            Reason::AlreadyInitialized,
            "another store lives at this address now",
        ));
    }
    let id = ClusterId(sixteen(&request.cluster_id, "a cluster id")?);
    let membership = Membership {
        cluster: ClusterIdentity { id, incarnation: request.cluster_incarnation },
        node: NodeId(request.node),
        meta: decode_range(&request.meta_descriptor)?,
        founders: request.nodes.iter().map(|node| decode_node(node)).collect::<Result<_, _>>()?,
    };
    become_member(shared, membership).await
}

fn decode_range(bytes: &[u8]) -> Result<RangeRecord, Error> {
    RangeRecord::decode(bytes).map_err(|error| Error::new(Reason::Malformed, error.to_string()))
}

fn decode_node(bytes: &[u8]) -> Result<NodeRecord, Error> {
    NodeRecord::decode(bytes).map_err(|error| Error::new(Reason::Malformed, error.to_string()))
}

/// Takes a place in a cluster, durably, and begins to act on it. The same place again changes nothing.
async fn become_member(shared: &Arc<Shared>, membership: Membership) -> Result<(), Error> {
    if let Some(current) = shared.membership() {
        if (current.cluster, current.node) == (membership.cluster, membership.node) {
            return Ok(());
        }
        let message =
            format!("this node is {} of cluster {} already", current.node, current.cluster);
        return Err(Error::new(Reason::AlreadyInitialized, message));
    }
    let mut identity = shared.identity.lock().expect(NO_PANIC).clone();
    identity.membership = Some(membership.clone());
    save(shared, identity).await?;
    node::join_cluster(shared, membership);
    Ok(())
}

async fn save(shared: &Shared, identity: crate::identity::Identity) -> Result<(), Error> {
    let internal = |message: String| Error::new(Reason::Internal, message);
    let mut batch = Batch::new();
    identity.stage(&mut batch);
    shared.engine.write(batch).map_err(|error| internal(error.to_string()))?;
    *shared.identity.lock().expect(NO_PANIC) = identity;
    shared.committer.durable().await.map_err(|error| internal(error.to_string()))
}

/// Writes what every cluster has into its meta range: the founders and the keyspace `default`.
async fn furnish(shared: &Arc<Shared>, plan: &Plan, deadline: Instant) -> Result<(), Error> {
    for founder in &plan.founders {
        put_if_absent(shared, directory_key::node(founder.id), founder.encode(), deadline).await?;
    }
    let next_node = plan.founders.len() + 1;
    let counters = [
        (Counter::Node, next_node as u64),
        (Counter::Keyspace, u64::from(KeyspaceId::FIRST_USER.0)),
        (Counter::Range, RangeId::META.0 + 2),
    ];
    for (counter, next) in counters {
        put_if_absent(
            shared,
            directory_key::next(counter),
            next.to_string().into_bytes(),
            deadline,
        )
        .await?;
    }
    let nodes: Vec<_> = plan.founders.iter().map(admin::node_info).collect();
    let mut placed = place(&nodes, &Policy::default(), &PerRegion::default(), 1)?;
    let replicas = placed.remove(0);
    let range = RangeRecord {
        id: RangeId(RangeId::META.0 + 1),
        epoch: Epoch(1),
        keyspace: KeyspaceId::DEFAULT,
        span: KeySpan::all(),
        voters: admin::first_generation(replicas.voters),
        learners: admin::first_generation(replicas.learners),
        value_type: ValueType::Register,
        value_len_max: VALUE_LEN_MAX,
        log_only: false,
    };
    put_if_absent(shared, directory_key::range(range.id), range.encode(), deadline).await?;
    let keyspace = KeyspaceRecord {
        id: KeyspaceId::DEFAULT,
        name: "default".into(),
        state: KeyspaceState::Active,
        ranges: vec![range.id],
        place: Vec::new(),
        learners: Vec::new(),
        value_type: ValueType::Register,
        default_level: Level::DEFAULT,
        log_only: false,
        value_len_max: VALUE_LEN_MAX,
    };
    put_if_absent(shared, directory_key::keyspace(&keyspace.name), keyspace.encode(), deadline)
        .await?;
    wait_until_furnished(shared, deadline).await
}

/// The last record of a founding is the keyspace `default`.
async fn wait_until_furnished(shared: &Arc<Shared>, deadline: Instant) -> Result<(), Error> {
    admin::wait_until_served(shared, "default", deadline).await
}

/// Goes on with a founding that this node began in an earlier life.
pub(crate) async fn resume(shared: Arc<Shared>) {
    while let Err(error) = init(&shared, RESUME_PATIENCE).await {
        tracing::warn!(%error, "the cluster this node began to found is not finished yet");
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = sleep(ASK_EVERY) => {}
        }
    }
}

/// Writes a record of the meta range unless there is one; `true`: it was written.
pub(crate) async fn put_if_absent(
    shared: &Arc<Shared>,
    key: latitude_types::Key,
    value: Vec<u8>,
    deadline: Instant,
) -> Result<bool, Error> {
    let operation = v1::command::Operation::CompareAndSet(v1::CompareAndSet {
        key: Bytes::copy_from_slice(key.as_bytes()),
        expected: Some(v1::compare_and_set::Expected::Absent(true)),
        new_value: Some(value.into()),
    });
    match execute_meta(shared, operation, deadline).await?.result {
        Some(v1::reply::Result::CompareAndSet(result)) => Ok(result.applied),
        _ => Err(Error::new(Reason::Internal, "the meta range answered something else")),
    }
}

/// Gives a node a place in the cluster this one is in.
pub(crate) async fn admit(
    shared: &Arc<Shared>,
    request: &pb::JoinRequest,
) -> Result<pb::JoinReply, Error> {
    let membership = shared.membership().ok_or_else(not_initialized)?;
    let who = request.who.as_ref().ok_or_else(|| Error::new(Reason::Malformed, "nobody asks"))?;
    let store = StoreId(sixteen(&who.store_id, "a store id")?);
    let deadline = Instant::now() + Duration::from_secs(10);
    let known = |directory: &Directory| directory.node_of_store(store).map(|node| node.id);
    let founder =
        membership.founders.iter().find(|founder| founder.store == store).map(|founder| founder.id);
    let id = match founder.or_else(|| known(&shared.catalog.current())) {
        Some(id) => id,
        None => {
            let id = NodeId(admin::allocate(shared, Counter::Node, 1, deadline).await? as u32);
            put_if_absent(shared, directory_key::node(id), record_of(id, who)?.encode(), deadline)
                .await?;
            id
        }
    };
    Ok(pb::JoinReply {
        cluster_id: Bytes::copy_from_slice(&membership.cluster.id.0),
        cluster_incarnation: membership.cluster.incarnation,
        node: id.0,
        meta_descriptor: membership.meta.encode().into(),
        nodes: membership.founders.iter().map(|founder| founder.encode().into()).collect(),
    })
}

/// Tells the cluster where this node is reached now and where it stands, if that is not what its record
/// says: a node may be started anew at another address.
pub(crate) async fn announce(shared: Arc<Shared>) {
    let Ok(node) = shared.node() else { return };
    let record = shared.catalog.wait_for(|directory| {
        // Its own record, from the meta range and not from the founding.
        (directory.version() > 0).then(|| directory.node(node).cloned()).flatten()
    });
    let known = tokio::select! {
        biased;
        () = shared.stop.cancelled() => return,
        known = record => known,
    };
    let now = NodeRecord {
        region: shared.config.region.clone(),
        zone: shared.config.zone.clone(),
        address: shared.address.clone(),
        ..known.clone()
    };
    if now == known {
        return;
    }
    loop {
        let put = v1::command::Operation::Put(v1::Put {
            key: Bytes::copy_from_slice(directory_key::node(node).as_bytes()),
            value: now.encode().into(),
            ..v1::Put::default()
        });
        match execute_meta(&shared, put, Instant::now() + RESUME_PATIENCE).await {
            Ok(_) => {
                tracing::info!(
                    address = now.address.default,
                    "the cluster knows this node's new place"
                );
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the cluster does not know this node's new place yet")
            }
        }
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = sleep(ASK_EVERY) => {}
        }
    }
}

/// Looks for a cluster until this node is in one.
pub(crate) async fn look_for_cluster(shared: Arc<Shared>) {
    let mut joined = shared.joined.subscribe();
    while shared.membership().is_none() {
        for address in &shared.config.join {
            if let Ok(Some(membership)) =
                timeout(CALL_TIMEOUT, ask_for_place(&shared, address)).await
                && let Err(error) = become_member(&shared, membership).await
            {
                tracing::warn!(%error, address, "the place in a cluster could not be taken");
            }
        }
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            _ = joined.changed() => {}
            () = sleep(ASK_EVERY) => {}
        }
    }
}

async fn ask_for_place(shared: &Shared, address: &str) -> Option<Membership> {
    let mut client = node::unary_peer(shared, address).ok()?;
    let who = client.identify(pb::IdentifyRequest {}).await.ok()?.into_inner();
    // A node that is not in a cluster has no place to give; and one does not ask oneself.
    if who.cluster_id.is_empty() || who.store_id == shared.config.store.0.as_slice() {
        return None;
    }
    let reply =
        client.join(pb::JoinRequest { who: Some(identify(shared)) }).await.ok()?.into_inner();
    Some(Membership {
        cluster: ClusterIdentity {
            id: ClusterId(sixteen(&reply.cluster_id, "a cluster id").ok()?),
            incarnation: reply.cluster_incarnation,
        },
        node: NodeId(reply.node),
        meta: decode_range(&reply.meta_descriptor).ok()?,
        founders: reply
            .nodes
            .iter()
            .map(|node| decode_node(node))
            .collect::<Result<_, _>>()
            .ok()?,
    })
}
