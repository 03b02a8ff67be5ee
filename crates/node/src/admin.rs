//! What an operator asks: keyspaces, nodes, ranges.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use latitude_directory::{
    Counter, KeyspaceRecord, KeyspaceState, NodeRecord, RangeRecord, RegionReplicas,
    key as directory_key,
};
use latitude_placement::{NodeInfo, PerRegion, Policy, SPLIT_RANGES_MAX, place, split_points};
use latitude_rpc::pb::v1;
use latitude_rpc::{FromWire, ToWire};
use latitude_types::{
    Epoch, Error, Generation, KEY_LEN_MAX, KeySpan, KeyspaceId, Level, NodeId, Outcome, RangeId,
    Reason, ReplicaId,
};
use tokio::time::{Instant, sleep};

use crate::bootstrap::put_if_absent;
use crate::liveness::is_live;
use crate::router;
use crate::shared::{NO_PANIC, Shared};
use crate::typed;

/// How long an operator's command may take on the server.
const PATIENCE: Duration = Duration::from_secs(30);
/// Marks a call that another node has passed on, so that two nodes that each take the other for the
/// leader do not pass it to and fro.
pub(crate) const PASSED_ON: &str = "latitude-passed-on";
const NAME_LEN_MAX: usize = 64;
/// The longest value of a keyspace that names no limit, and the longest it may name.
const VALUE_LEN: (u32, u32) = (1 << 20, 8 << 20);

/// A node as placement sees it, with nothing on it.
pub(crate) fn node_info(record: &NodeRecord) -> NodeInfo {
    NodeInfo {
        id: record.id,
        region: record.region.clone(),
        zone: record.zone.clone(),
        live: true,
        replicas: 0,
        leaders: 0,
    }
}

/// Takes `count` numbers that nobody has had or will have; returns the first.
pub(crate) async fn allocate(
    shared: &Arc<Shared>,
    counter: Counter,
    count: u64,
    deadline: Instant,
) -> Result<u64, Error> {
    let internal = |message: &str| Error::new(Reason::Internal, message);
    let key = Bytes::copy_from_slice(directory_key::next(counter).as_bytes());
    loop {
        let get = v1::command::Operation::Get(v1::Get { key: key.clone() });
        let Some(v1::reply::Result::Get(found)) =
            router::execute_meta(shared, get, deadline).await?.result
        else {
            return Err(internal("the meta range answered something else"));
        };
        let value = found.value.ok_or_else(|| internal("the meta range lacks a counter"))?;
        let next = std::str::from_utf8(&value).ok().and_then(|text| text.parse::<u64>().ok());
        let next = next.ok_or_else(|| internal("a counter of the meta range is no number"))?;
        let swap = v1::command::Operation::CompareAndSet(v1::CompareAndSet {
            key: key.clone(),
            expected: Some(v1::compare_and_set::Expected::Value(value)),
            new_value: Some((next + count).to_string().into_bytes().into()),
        });
        match router::execute_meta(shared, swap, deadline).await?.result {
            Some(v1::reply::Result::CompareAndSet(result)) if result.applied => return Ok(next),
            // Somebody else took some meanwhile.
            Some(v1::reply::Result::CompareAndSet(_)) => {}
            _ => return Err(internal("the meta range answered something else")),
        }
    }
}

pub(crate) async fn create_keyspace(
    shared: &Arc<Shared>,
    request: v1::CreateKeyspaceRequest,
) -> Result<v1::CreateKeyspaceReply, Error> {
    let deadline = Instant::now() + PATIENCE;
    shared.node()?;
    check_name(&request.name)?;
    let invalid = |message: String| Error::new(Reason::ArgumentInvalid, message);
    let value_type = typed::value_type_from_wire(request.r#type)?;
    let default_level =
        Option::<Level>::from_wire(request.default_level)?.unwrap_or(Level::DEFAULT);
    let value_len_max = match request.value_len_max {
        0 => VALUE_LEN.0,
        asked if asked <= VALUE_LEN.1 => asked,
        asked => {
            return Err(invalid(format!(
                "values of {asked} bytes are too long: up to {} are taken",
                VALUE_LEN.1
            )));
        }
    };
    let points = split_at(&request)?;
    let policy = match request.place.as_slice() {
        [] => Policy::Spread,
        place => Policy::PerRegion(per_region(place)?),
    };
    let learners = per_region(&request.learners)?;
    // The freshest directory there is: another node may have just created one of the same name.
    if shared.catalog.current().keyspace(&request.name, None).is_ok() {
        return Err(exists(&request.name));
    }
    let placed = place(&nodes_with_load(shared), &policy, &learners, points.len() + 1)?;
    // Numbers and ranges that no keyspace names are nobody's: until it is published, nothing has happened.
    let nothing_yet = |error: Error| Error { outcome: Outcome::NotApplied, ..error };
    let keyspace = allocate(shared, Counter::Keyspace, 1, deadline).await.map_err(nothing_yet)?;
    let keyspace = KeyspaceId(keyspace as u32);
    let first = allocate(shared, Counter::Range, placed.len() as u64, deadline).await;
    let first = first.map_err(nothing_yet)?;
    let mut ranges = Vec::with_capacity(placed.len());
    for (index, replicas) in placed.into_iter().enumerate() {
        let start = index.checked_sub(1).map_or(&[][..], |before| &points[before]);
        let span = KeySpan::new(start, points.get(index).map(Vec::as_slice));
        ranges.push(RangeRecord {
            id: RangeId(first + index as u64),
            epoch: Epoch(1),
            keyspace,
            span: span.ok_or_else(|| invalid("the split points do not ascend".into()))?,
            voters: first_generation(replicas.voters),
            learners: first_generation(replicas.learners),
            value_type,
            value_len_max,
            log_only: request.log_only,
        });
    }
    try_join_all(ranges.iter().map(|range| {
        put_if_absent(shared, directory_key::range(range.id), range.encode(), deadline)
    }))
    .await
    .map_err(nothing_yet)?;
    let record = KeyspaceRecord {
        id: keyspace,
        name: request.name.clone(),
        state: KeyspaceState::Active,
        ranges: ranges.iter().map(|range| range.id).collect(),
        place: request.place.into_iter().map(from_wire).collect(),
        learners: request.learners.into_iter().map(from_wire).collect(),
        value_type,
        default_level,
        log_only: request.log_only,
        value_len_max,
    };
    publish(shared, &record, deadline).await?;
    let served = wait_until_served(shared, &record.name, deadline).await;
    served.map_err(|error| done_but("the keyspace is created, and not served yet", error))?;
    Ok(v1::CreateKeyspaceReply { keyspace: Some(keyspace_status(&record)) })
}

/// The error of a command whose effect is there, and not all that follows from it.
fn done_but(what: &str, error: Error) -> Error {
    Error { outcome: Outcome::Unknown, message: format!("{what}: {}", error.message), ..error }
}

/// The first replicas of a range, on these nodes.
pub(crate) fn first_generation(nodes: Vec<NodeId>) -> Vec<ReplicaId> {
    nodes.into_iter().map(|node| ReplicaId { node, generation: Generation(1) }).collect()
}

fn per_region(regions: &[v1::RegionReplicas]) -> Result<PerRegion, Error> {
    PerRegion::new(regions.iter().map(|p| (p.region.clone(), p.replicas)).collect())
        .map_err(|error| Error::new(Reason::ArgumentInvalid, error.to_string()))
}

fn from_wire(regions: v1::RegionReplicas) -> RegionReplicas {
    RegionReplicas { region: regions.region, replicas: regions.replicas }
}

fn to_wire(regions: &RegionReplicas) -> v1::RegionReplicas {
    v1::RegionReplicas { region: regions.region.clone(), replicas: regions.replicas }
}

fn check_name(name: &str) -> Result<(), Error> {
    let letter_first = name.starts_with(|first: char| first.is_ascii_alphabetic());
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if letter_first && name.len() <= NAME_LEN_MAX && name.chars().all(allowed) {
        return Ok(());
    }
    Err(Error::new(
        Reason::ArgumentInvalid,
        format!(
            "{name:?} cannot name a keyspace: a name has 1 to {NAME_LEN_MAX} letters, digits, `-`, `_` and `.`, and \
             begins with a letter"
        ),
    ))
}

/// Where the keys are cut: as asked, or evenly.
fn split_at(request: &v1::CreateKeyspaceRequest) -> Result<Vec<Vec<u8>>, Error> {
    let invalid = |message: String| Error::new(Reason::ArgumentInvalid, message);
    if request.split_at.is_empty() {
        return Ok(split_points(request.ranges.max(1) as usize)?);
    }
    if request.split_at.len() >= SPLIT_RANGES_MAX {
        return Err(invalid(format!(
            "{} split points are too many: a keyspace begins with up to {SPLIT_RANGES_MAX} ranges",
            request.split_at.len()
        )));
    }
    let points: Vec<_> = request.split_at.iter().map(|point| point.to_vec()).collect();
    if request.ranges != 0 && request.ranges as usize != points.len() + 1 {
        let message = format!(
            "{} split points make {} ranges, not {}",
            points.len(),
            points.len() + 1,
            request.ranges
        );
        return Err(invalid(message));
    }
    if points.iter().any(|point| point.is_empty() || point.len() > KEY_LEN_MAX) {
        return Err(invalid(format!("a split point has 1 to {KEY_LEN_MAX} bytes")));
    }
    if points.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(invalid("the split points must strictly ascend".into()));
    }
    Ok(points)
}

fn exists(name: &str) -> Error {
    Error::new(Reason::KeyspaceExists, format!("there is a keyspace {name:?} already"))
}

/// Writes a keyspace's record, unless one of that name is in use.
async fn publish(
    shared: &Arc<Shared>,
    record: &KeyspaceRecord,
    deadline: Instant,
) -> Result<(), Error> {
    let key = directory_key::keyspace(&record.name);
    if put_if_absent(shared, key.clone(), record.encode(), deadline).await? {
        return Ok(());
    }
    // The name was used before; it may be taken if that keyspace was dropped.
    let wire_key = Bytes::copy_from_slice(key.as_bytes());
    let get = v1::command::Operation::Get(v1::Get { key: wire_key.clone() });
    let Some(v1::reply::Result::Get(found)) =
        router::execute_meta(shared, get, deadline).await?.result
    else {
        return Err(Error::new(Reason::Internal, "the meta range answered something else"));
    };
    let old = found.value.ok_or_else(|| exists(&record.name))?;
    let dropped = KeyspaceRecord::decode(&old).is_ok_and(|old| old.state == KeyspaceState::Dropped);
    if !dropped {
        return Err(exists(&record.name));
    }
    let swap = v1::command::Operation::CompareAndSet(v1::CompareAndSet {
        key: wire_key,
        expected: Some(v1::compare_and_set::Expected::Value(old)),
        new_value: Some(record.encode().into()),
    });
    match router::execute_meta(shared, swap, deadline).await?.result {
        Some(v1::reply::Result::CompareAndSet(result)) if result.applied => Ok(()),
        _ => Err(exists(&record.name)),
    }
}

/// Waits until every range of a keyspace answers a strict read.
pub(crate) async fn wait_until_served(
    shared: &Arc<Shared>,
    name: &str,
    deadline: Instant,
) -> Result<(), Error> {
    let known = shared.catalog.wait_for(|directory| directory.keyspace(name, None).ok().cloned());
    let keyspace = tokio::time::timeout_at(deadline, known).await.map_err(|_| {
        Error::new(Reason::DeadlineExceeded, format!("this node has not heard of {name:?} in time"))
    })?;
    let directory = shared.catalog.current();
    let everything = KeySpan::all();
    let probes = directory.ranges_in(keyspace.id, &everything).map(|range| {
        // The least key of the range.
        let key = match range.span.start() {
            [] => Bytes::from_static(&[0]),
            start => Bytes::copy_from_slice(start),
        };
        probe(shared, name.to_string(), key, deadline)
    });
    try_join_all(probes.collect::<Vec<_>>()).await.map(drop)
}

async fn probe(
    shared: &Arc<Shared>,
    keyspace: String,
    key: Bytes,
    deadline: Instant,
) -> Result<(), Error> {
    loop {
        let command = v1::Command {
            keyspace: keyspace.clone(),
            level: Level::Strict.to_wire(),
            timeout_ms: 2_000,
            operation: Some(v1::command::Operation::Get(v1::Get { key: key.clone() })),
            ..v1::Command::default()
        };
        let error = match router::execute(shared, command).await.result {
            Some(v1::reply::Result::Error(error)) => Error::from_wire(error)?,
            _ => return Ok(()),
        };
        if Instant::now() >= deadline {
            return Err(error);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn drop_keyspace(
    shared: &Arc<Shared>,
    request: v1::DropKeyspaceRequest,
) -> Result<v1::DropKeyspaceReply, Error> {
    let deadline = Instant::now() + PATIENCE;
    if request.name == "default" {
        return Err(Error::new(Reason::ArgumentInvalid, "the keyspace \"default\" always exists"));
    }
    let directory = shared.catalog.current();
    let keyspace = directory.keyspace(&request.name, None)?;
    let dropped = KeyspaceRecord {
        state: KeyspaceState::Dropped,
        ranges: Vec::new(),
        ..KeyspaceRecord::clone(keyspace)
    };
    let swap = v1::command::Operation::CompareAndSet(v1::CompareAndSet {
        key: Bytes::copy_from_slice(directory_key::keyspace(&keyspace.name).as_bytes()),
        expected: Some(v1::compare_and_set::Expected::Value(keyspace.encode().into())),
        new_value: Some(dropped.encode().into()),
    });
    match router::execute_meta(shared, swap, deadline).await?.result {
        Some(v1::reply::Result::CompareAndSet(result)) if result.applied => {}
        _ => {
            return Err(Error::new(
                Reason::KeyspaceChanged,
                "the keyspace was changed meanwhile: look again",
            ));
        }
    }
    // Their records are of no more use; what is left of them is garbage, not data.
    try_join_all(keyspace.ranges.iter().map(|range| {
        let key = Bytes::copy_from_slice(directory_key::range(*range).as_bytes());
        let delete = v1::Delete { key, ..v1::Delete::default() };
        router::execute_meta(shared, v1::command::Operation::Delete(delete), deadline)
    }))
    .await
    .map_err(|error| {
        done_but("the keyspace is dropped, and not all of its records are removed", error)
    })?;
    Ok(v1::DropKeyspaceReply { keyspace_id: keyspace.id.0 })
}

pub(crate) fn list_keyspaces(shared: &Shared) -> Result<v1::ListKeyspacesReply, Error> {
    shared.node()?;
    let directory = shared.catalog.current();
    Ok(v1::ListKeyspacesReply {
        keyspaces: directory.keyspaces().map(|keyspace| keyspace_status(keyspace)).collect(),
    })
}

fn keyspace_status(record: &KeyspaceRecord) -> v1::KeyspaceStatus {
    v1::KeyspaceStatus {
        keyspace_id: record.id.0,
        name: record.name.clone(),
        r#type: typed::value_type_to_wire(record.value_type),
        ranges: record.ranges.len() as u32,
        place: record.place.iter().map(to_wire).collect(),
        learners: record.learners.iter().map(to_wire).collect(),
        log_only: record.log_only,
        default_level: record.default_level.to_wire(),
        value_len_max: record.value_len_max,
    }
}

/// The nodes with what the directory puts on them.
fn nodes_with_load(shared: &Shared) -> Vec<NodeInfo> {
    let directory = shared.catalog.current();
    let mut replicas: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut leaders: BTreeMap<NodeId, usize> = BTreeMap::new();
    for range in directory.ranges() {
        for replica in range.replicas() {
            *replicas.entry(replica.node).or_default() += 1;
        }
        if let Some(preferred) = range.voters.first() {
            *leaders.entry(preferred.node).or_default() += 1;
        }
    }
    directory
        .nodes()
        .map(|record| NodeInfo {
            live: is_live(shared, record.id),
            replicas: replicas.get(&record.id).copied().unwrap_or(0),
            leaders: leaders.get(&record.id).copied().unwrap_or(0),
            ..node_info(record)
        })
        .collect()
}

/// Every node as this one sees it.
pub(crate) fn node_statuses(shared: &Shared) -> Vec<v1::NodeStatus> {
    if shared.joined.borrow().is_none() {
        return Vec::new();
    }
    let directory = shared.catalog.current();
    let peers = shared.peers();
    directory
        .nodes()
        .map(|record| v1::NodeStatus {
            node: record.id.0,
            address: record.address.default.clone(),
            region: record.region.clone(),
            zone: record.zone.clone(),
            live: is_live(shared, record.id),
            round_trip_us: peers
                .state(record.id)
                .round_trip
                .map_or(0, |rtt| rtt.as_micros() as u64),
            clock_offset_ms: peers.clock_offset_ms(record.id),
            store_id: Bytes::copy_from_slice(&record.store.0),
        })
        .collect()
}

pub(crate) fn status(shared: &Shared) -> v1::StatusReply {
    let membership = shared.membership();
    let ranges = shared.all_ranges();
    let identity = shared.identity.lock().expect(NO_PANIC).clone();
    let reading = shared.clock.hybrid().reading();
    v1::StatusReply {
        cluster_id: membership
            .as_ref()
            .map_or_else(Bytes::new, |m| Bytes::copy_from_slice(&m.cluster.id.0)),
        cluster_incarnation: membership.as_ref().map_or(0, |m| m.cluster.incarnation),
        node: membership.map_or(0, |membership| membership.node.0),
        region: shared.config.region.clone(),
        zone: shared.config.zone.clone(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        store_id: Bytes::copy_from_slice(&shared.config.store.0),
        store_starts: identity.starts,
        replicas: ranges.len() as u32,
        leaders: ranges.iter().filter(|handle| handle.group.leadership().token.is_some()).count()
            as u32,
        free_bytes: shared.engine.free_space().unwrap_or(0),
        writes_refused: *shared.disk_full.borrow(),
        quarantine: quarantine(shared, identity.quarantine),
        clock: reading.clock.0,
        physical_unix_ms: reading.physical_us / 1000,
        nodes: node_statuses(shared),
        uptime_ms: shared.started.elapsed().as_millis() as u64,
        read_mode: shared.config.read_mode.name().to_string(),
        snapshots_sent: shared.snapshots.stats().sent(),
        snapshots_installed: shared.snapshots.stats().installed(),
    }
}

/// Why replicas here neither vote nor serve: the whole store's reason first.
fn quarantine(shared: &Shared, store: Option<String>) -> String {
    let replicas = shared.quarantined.lock().expect(NO_PANIC);
    let reasons: Vec<_> = store.into_iter().chain(replicas.values().cloned()).collect();
    reasons.join("; ")
}

pub(crate) fn list_ranges(
    shared: &Shared,
    request: &v1::ListRangesRequest,
) -> Result<v1::ListRangesReply, Error> {
    shared.node()?;
    let directory = shared.catalog.current();
    let wanted = match request.keyspace.as_str() {
        "" => None,
        name => Some(directory.keyspace(name, None)?.id),
    };
    let names: BTreeMap<_, _> =
        directory.keyspaces().map(|keyspace| (keyspace.id, keyspace.name.clone())).collect();
    let ranges =
        directory.ranges().filter(|range| wanted.is_none_or(|wanted| range.keyspace == wanted));
    let statuses = ranges.map(|range| {
        let here = shared.range(range.id);
        let leadership = here.as_ref().map(|handle| handle.group.leadership()).unwrap_or_default();
        v1::RangeStatus {
            range_id: range.id.0,
            epoch: range.epoch.0,
            keyspace: names.get(&range.keyspace).cloned().unwrap_or_else(|| "(meta)".into()),
            start: Bytes::copy_from_slice(range.span.start()),
            end: range.span.end().map(Bytes::copy_from_slice),
            replicas: range
                .replicas()
                .map(|replica| v1::ReplicaStatus {
                    node: replica.node.0,
                    generation: replica.generation.0,
                    learner: range.learners.contains(&replica),
                })
                .collect(),
            leader: leadership.leader.map_or(0, |leader| leader.node.0),
            term: leadership.term,
            applied_index: here.map_or(0, |handle| handle.group.applied_position().0.index),
        }
    });
    Ok(v1::ListRangesReply { ranges: statuses.collect() })
}

/// Which ranges hold a span of keys, and where their nodes are reached.
pub(crate) async fn locate(
    shared: &Arc<Shared>,
    request: v1::LocateRequest,
) -> Result<v1::LocateReply, Error> {
    shared.node()?;
    let name = if request.keyspace.is_empty() { "default" } else { &request.keyspace };
    let span = KeySpan::from_wire((&request.start, request.end.as_ref()))?;
    let keyspace = router::find_keyspace(shared, name, None).await?;
    let directory = shared.catalog.current();
    let limit = if request.limit == 0 { 1000 } else { request.limit as usize };
    let ranges = directory.ranges_in(keyspace.id, &span).take(limit).map(|range| {
        let leader = shared.range(range.id).and_then(|handle| handle.group.leadership().leader);
        v1::RangeLocation {
            range_id: range.id.0,
            epoch: range.epoch.0,
            start: Bytes::copy_from_slice(range.span.start()),
            end: range.span.end().map(Bytes::copy_from_slice),
            nodes: range.replicas().map(|replica| replica.node.0).collect(),
            leader: leader.map_or(0, |leader| leader.node.0),
        }
    });
    Ok(v1::LocateReply {
        keyspace_id: keyspace.id.0,
        default_level: keyspace.default_level.to_wire(),
        ranges: ranges.collect(),
        nodes: directory
            .nodes()
            .map(|node| v1::NodeLocation {
                node: node.id.0,
                address: node.address.seen_from(&request.region).to_string(),
                region: node.region.clone(),
                zone: node.zone.clone(),
            })
            .collect(),
    })
}

/// Hands a range to another of its nodes; passed on, once, to the leader if that is elsewhere.
pub(crate) async fn transfer_leader(
    shared: &Arc<Shared>,
    request: v1::TransferLeaderRequest,
    passed_on: bool,
) -> Result<v1::TransferLeaderReply, Error> {
    let own = shared.node()?;
    let range = RangeId(request.range_id);
    let directory = shared.catalog.current();
    let record = directory.range(range);
    let record = record
        .ok_or_else(|| Error::new(Reason::ArgumentInvalid, format!("there is no range {range}")))?;
    let to = NodeId(request.to_node);
    if record.replica_on(to).is_none() {
        return Err(Error::new(
            Reason::ArgumentInvalid,
            format!("{to} holds no replica of range {range}"),
        ));
    }
    let handle = shared.range(range);
    let leader = handle.as_ref().and_then(|handle| handle.group.leadership().leader);
    match (handle, leader) {
        (Some(handle), Some(leader)) if leader.node == own => {
            handle
                .group
                .transfer_leader(to)
                .await
                .map_err(|error| Error::new(Reason::NoLeader, error.to_string()))?;
            Ok(v1::TransferLeaderReply {})
        }
        (_, leader) => {
            let target =
                leader.map(|leader| leader.node).or_else(|| record.voters.first().map(|r| r.node));
            let target = target.filter(|target| *target != own && !passed_on);
            let target = target.ok_or_else(|| crate::proposer::not_leader(range, leader))?;
            let address = shared.peers().address_of(target).unwrap_or_default();
            let channel = shared
                .peers()
                .channel(&address)
                .map_err(|e| Error::new(Reason::Unreachable, e.0))?;
            let mut admin = v1::admin_client::AdminClient::new(channel);
            let mut request = tonic::Request::new(request);
            request
                .metadata_mut()
                .insert(PASSED_ON, tonic::metadata::MetadataValue::from_static("1"));
            let reply = admin.transfer_leader(request).await;
            reply
                .map(tonic::Response::into_inner)
                .map_err(|status| latitude_rpc::error_from_status(&status))
        }
    }
}
