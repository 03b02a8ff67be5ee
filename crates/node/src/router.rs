//! From a command to the replica that serves it, here or elsewhere, and back.
//!
//! ```text
//!   command ─▶ keyspace ─▶ request ─▶ range ─▶ here and leading? ─ yes ─▶ propose │ read index + snapshot
//!                                                └─ no ─▶ NOT_LEADER with a hint, or passed on
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use latitude_consistency::Token;
use latitude_directory::{Directory, KeyspaceRecord, RangeRecord};
use latitude_probe::Mark;
use latitude_range::OriginState;
use latitude_rpc::pb::{peer, v1};
use latitude_rpc::{FromWire, ToWire, error_to_pb};
use latitude_types::{Error, KeySpan, KeyspaceId, Kind, NodeId, OperationKind, Outcome, Reason};
use prost::Message;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::Instrument;

use crate::catalog::{self, meta_keyspace};
use crate::liveness::is_live;
use crate::proposer::not_leader;
use crate::range_handle::RangeHandle;
use crate::request::{Request, RoutingKey, WriteId};
use crate::serve::{Answer, serve};
use crate::shared::{OwnId, Shared, not_initialized};

/// A command is passed on to other nodes at most this often before its error is told.
const PASSES_MAX: u32 = 8;

/// Does what a client's command says; every error becomes part of the reply.
pub(crate) async fn execute(shared: &Arc<Shared>, command: v1::Command) -> v1::Reply {
    let started = Instant::now();
    let tag = command.tag;
    let mut reply = match admitted(shared, command, started).await {
        Ok(reply) => reply,
        Err(error) => v1::Reply {
            result: Some(v1::reply::Result::Error(error_to_pb(&error))),
            ..v1::Reply::default()
        },
    };
    reply.tag = tag;
    // Read last: above everything the reply tells of (INV-2).
    reply.clock = shared.clock.hybrid().peek().0;
    shared.metrics.observe_reply(&reply, started.elapsed());
    reply
}

async fn admitted(
    shared: &Arc<Shared>,
    command: v1::Command,
    started: Instant,
) -> Result<v1::Reply, Error> {
    if shared.joined.borrow().is_none() {
        return Err(not_initialized());
    }
    let Ok(_permit) = shared.admission.try_acquire() else {
        let message = format!(
            "the node has {} requests in hand, as many as it takes: wait and retry",
            shared.config.limits.requests_in_flight_max
        );
        return Err(
            Error::new(Reason::TooManyRequests, message).retry_after(Duration::from_millis(50))
        );
    };
    if *shared.draining.borrow() {
        return Err(Error::new(Reason::ShuttingDown, "the node is stopping: ask another one"));
    }
    let name = if command.keyspace.is_empty() { "default" } else { &command.keyspace };
    let known = (command.keyspace_id != 0).then_some(KeyspaceId(command.keyspace_id));
    let keyspace = find_keyspace(shared, name, known).await?;
    let request = parse(shared, command.clone(), &keyspace, started)?;
    if let Some(session) = &request.session {
        check_nodes(shared, session).await?;
        // Before the request has any effect (INV-2): what it leads to is above all the session has seen.
        shared.clock.admit_session(session.clock()).await?;
    }
    let span =
        tracing::debug_span!("request", id = %command.request_id, op = request.operation.name());
    let result = at_an_accepted_level(shared, command, request, &keyspace, started)
        .instrument(span.clone())
        .await;
    if let Err(error) = &result {
        span.in_scope(|| tracing::debug!(%error, outcome = ?error.outcome, "failed"));
    }
    result
}

fn parse(
    shared: &Shared,
    command: v1::Command,
    keyspace: &KeyspaceRecord,
    now: Instant,
) -> Result<Request, Error> {
    let cluster = shared.membership().ok_or_else(not_initialized)?.cluster;
    Request::parse(command, keyspace, cluster, now, shared.config.limits.default_timeout)
}

/// A token names only nodes that there are, or were: their numbers bound its size. One that is made up would
/// otherwise grow every session that meets what was written with it.
async fn check_nodes(shared: &Shared, session: &Token) -> Result<(), Error> {
    let unknown = || {
        let highest = shared.catalog.current().nodes().map(|node| node.id).max();
        session.nodes().find(|node| Some(*node) > highest || node.0 == 0)
    };
    if unknown().is_none() {
        return Ok(());
    }
    // A node that joined a moment ago, of which this one has not heard.
    let is_current = catalog::refresh(shared).await;
    match unknown() {
        None => Ok(()),
        Some(node) if !is_current => Err(Error::new(
            Reason::ReplicaBehind,
            format!(
                "the session token names {node}, which this node does not know, and it cannot learn which nodes there are: \
                 ask another one"
            ),
        )),
        Some(node) => Err(Error::new(
            Reason::TokenInvalid,
            format!(
                "the session token names {node}, which is no node of this cluster: begin a new session"
            ),
        )),
    }
}

/// Serves a request at its level or, if that cannot be had and its client said so, at a weaker one.
async fn at_an_accepted_level(
    shared: &Arc<Shared>,
    mut command: v1::Command,
    mut request: Request,
    keyspace: &KeyspaceRecord,
    started: Instant,
) -> Result<v1::Reply, Error> {
    let deadline = request.deadline;
    loop {
        if request.may_fall_back() {
            // What is left must be enough for the weaker level.
            request.deadline -= deadline.saturating_duration_since(Instant::now()) / 4;
        }
        let result = route(shared, command.clone(), request.clone(), keyspace, started).await;
        let error = match result {
            Ok(mut reply) => {
                if let (Some(why), Some(receipt)) = (request.fallback, &mut reply.receipt) {
                    // Another node that served it knows the level that it was passed on with.
                    receipt.level_asked = request.level_asked.to_wire();
                    receipt.fallback_reason = why.name().into();
                }
                return Ok(reply);
            }
            Err(error) => error,
        };
        let elsewhere = !matches!(error.kind(), Kind::Unavailable | Kind::Deadline);
        // A write that may have happened must not happen again under another id.
        if elsewhere || error.may_have_applied() {
            return Err(error);
        }
        request = request.fall_back(error.reason).ok_or(error)?;
        request.deadline = deadline;
        // Whoever it is passed on to begins where it stands.
        command.level = request.plan.level.to_wire();
        command.accept = request.accepted_levels().map(|level| level.to_wire()).collect();
    }
}

/// The keyspace of that name; if this node knows none, it may only not have heard of it yet.
pub(crate) async fn find_keyspace(
    shared: &Shared,
    name: &str,
    known: Option<KeyspaceId>,
) -> Result<Arc<KeyspaceRecord>, Error> {
    let found = shared.catalog.current().keyspace(name, known).cloned();
    if found.is_ok() {
        return found;
    }
    // One look that is not older than the question: what was created before it is there.
    catalog::refresh(shared).await;
    shared.catalog.current().keyspace(name, known).cloned()
}

/// Serves a request here, or passes its command on.
async fn route(
    shared: &Arc<Shared>,
    mut command: v1::Command,
    mut request: Request,
    keyspace: &KeyspaceRecord,
    started: Instant,
) -> Result<v1::Reply, Error> {
    let mut go_to: Option<NodeId> = None;
    let mut passes = 0;
    // The first attempt whose outcome is unknown decides the outcome of the whole.
    let mut unknown = false;
    // Kept until no attempt can be under way.
    let mut own_id: Option<OwnId> = None;
    loop {
        if let Some(own) = &own_id {
            request.id = Some(own.id);
        }
        let directory = shared.catalog.current();
        let record = find_range(&directory, keyspace.id, request.routing_key())?;
        let here =
            shared.range(record.id).filter(|_| go_to.is_none_or(|node| shared.node() == Ok(node)));
        let attempt = match &here {
            Some(handle) => serve(shared, handle, &request, started).await.map(Answer::into_reply),
            None => Err(elsewhere(&record)),
        };
        let error = match attempt {
            Ok(reply) => return Ok(named_by_client(reply, own_id.is_none())),
            Err(error) => error,
        };
        unknown |= error.may_have_applied();
        // Under another id it would be another write.
        let is_lost = unknown && request.operation.is_write() && command.id.is_none();
        if request.no_forward || is_lost || !is_passable(&error) || passes >= PASSES_MAX {
            return Err(after_passes(error, unknown));
        }
        if Instant::now() >= request.deadline {
            return Err(after_passes(late_on_the_way(&error), unknown));
        }
        passes += 1;
        if request.operation.is_write() && command.id.is_none() {
            // Every node it is passed to must recognise it.
            let id = OwnId::make(shared, request.id_kind()).await?;
            command.id = Some(id_to_wire(&id.id));
            own_id = Some(id);
        }
        // Unless it is told where to go, a local write goes to the nearest node that takes it.
        let origins = here.filter(|_| error.reason == Reason::NotOrigin);
        let origin = origins.and_then(|handle| other_origin(shared, &handle, passes));
        let target =
            error.leader.as_ref().map(|hint| hint.node).filter(|node| shared.node() != Ok(*node));
        let target = target.or(origin).or_else(|| other_replica(shared, &record, passes));
        let Some(target) = target else {
            sleep(Duration::from_millis(50)).await;
            go_to = None;
            continue;
        };
        match forward(shared, target, &command, &request).await {
            Ok(reply) => match &reply.result {
                Some(v1::reply::Result::Error(wire)) => {
                    let error = Error::from_wire(wire.clone())?;
                    unknown |= error.may_have_applied();
                    if !is_passable(&error) {
                        return Err(after_passes(error, unknown));
                    }
                    shared.catalog.is_behind();
                    go_to = error.leader.map(|hint| hint.node);
                    if go_to.is_none() {
                        sleep(Duration::from_millis(50)).await;
                    }
                }
                _ => {
                    Mark::PassedOn.hit();
                    return Ok(named_by_client(reply, own_id.is_none()));
                }
            },
            Err(error) => {
                Mark::PassedOnInVain.hit();
                unknown |= request.operation.is_write();
                tracing::debug!(%target, %error, "a command could not be passed on");
                sleep(Duration::from_millis(50)).await;
                go_to = None;
            }
        }
    }
}

/// The reply to a command; where this node gave it an id, its client knows of none and must not repeat it.
fn named_by_client(mut reply: v1::Reply, is_named: bool) -> v1::Reply {
    if let Some(receipt) = reply.receipt.as_mut().filter(|_| !is_named) {
        receipt.retry_safe = false;
    }
    reply
}

/// Whether another replica may do what this one cannot.
fn is_passable(error: &Error) -> bool {
    error.kind() == Kind::Redirect
        || matches!(
            error.reason,
            Reason::NoLeader
                | Reason::ReplicaBehind
                | Reason::StalenessUnproved
                | Reason::NotOrigin
        )
}

/// The error of a command that was passed on: an earlier node may have done what the last one refused.
fn after_passes(error: Error, unknown: bool) -> Error {
    if unknown { Error { outcome: Outcome::Unknown, ..error } } else { error }
}

/// The error of a command whose deadline passed before a node was found that serves it.
fn late_on_the_way(last: &Error) -> Error {
    let message = format!(
        "the deadline passed before a node that serves this answered; the last word was: {last}"
    );
    Error { reason: Reason::DeadlineExceeded, message, leader: None, ..last.clone() }
}

fn find_range(
    directory: &Directory,
    keyspace: KeyspaceId,
    at: RoutingKey<'_>,
) -> Result<Arc<RangeRecord>, Error> {
    let found = match at {
        RoutingKey::At(key) => directory.range_at(keyspace, key),
        RoutingKey::Below(key) => {
            let span = KeySpan::new(&[], Some(key));
            return span
                .and_then(|span| directory.ranges_in(keyspace, &span).next_back().cloned())
                .ok_or_else(|| {
                    Error::new(Reason::RangeMoved, "no range of this keyspace is known here")
                });
        }
        RoutingKey::Last => {
            let all = KeySpan::all();
            return directory.ranges_in(keyspace, &all).next_back().cloned().ok_or_else(|| {
                Error::new(Reason::RangeMoved, "no range of this keyspace is known here")
            });
        }
    };
    found
        .cloned()
        .ok_or_else(|| Error::new(Reason::RangeMoved, "no range of this keyspace is known here"))
}

/// The error of a request for a range that has no replica here: its preferred leader knows best.
fn elsewhere(record: &RangeRecord) -> Error {
    let error = not_leader(record.id, record.voters.first().copied());
    Error { reason: Reason::RangeNotHere, ..error }
}

/// Another replica of the range, a different one each time.
fn other_replica(shared: &Shared, record: &RangeRecord, turn: u32) -> Option<NodeId> {
    let own = shared.node().ok()?;
    let others: Vec<_> =
        record.replicas().map(|replica| replica.node).filter(|node| *node != own).collect();
    others.get(turn as usize % others.len().max(1)).copied()
}

/// Another node that takes local writes of the range and is heard: the nearest, then the next.
fn other_origin(shared: &Shared, handle: &RangeHandle, turn: u32) -> Option<NodeId> {
    let own = shared.node().ok()?;
    let origins = handle.group.origins();
    let mut others: Vec<_> = origins
        .borrow()
        .iter()
        .filter(|origin| origin.state == OriginState::Active && origin.node != own)
        .map(|origin| origin.node)
        .filter(|node| is_live(shared, *node))
        .collect();
    others.sort_by_key(|node| shared.peers().state(*node).round_trip);
    others.get((turn as usize - 1) % others.len().max(1)).copied()
}

async fn forward(
    shared: &Shared,
    target: NodeId,
    command: &v1::Command,
    request: &Request,
) -> Result<v1::Reply, Error> {
    let unreachable = |message: String| Error::unknown(Reason::Unreachable, message);
    let left = request.deadline.saturating_duration_since(Instant::now());
    let command = v1::Command {
        no_forward: true,
        timeout_ms: (left.as_millis() as u32).max(1),
        ..command.clone()
    };
    let mut client = shared.peers().client(target).map_err(|error| unreachable(error.0))?;
    let call = client.forward(peer::ForwardRequest { command: command.encode_to_vec().into() });
    let reply = timeout_at(request.deadline, call)
        .await
        .map_err(|_| unreachable(format!("{target} did not answer within the deadline")))?
        .map_err(|status| unreachable(format!("{target}: {}", status.message())))?;
    v1::Reply::decode(reply.into_inner().reply).map_err(|error| unreachable(error.to_string()))
}

/// A command of this node's own, on the meta range.
pub(crate) async fn execute_meta(
    shared: &Arc<Shared>,
    operation: v1::command::Operation,
    deadline: Instant,
) -> Result<v1::Reply, Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    let own_id = OwnId::make(shared, OperationKind::Log).await?;
    let command = v1::Command {
        // How the node it is passed on to knows that the meta range is meant.
        keyspace_id: KeyspaceId::META.0,
        operation: Some(operation),
        timeout_ms: (left.as_millis() as u32).max(1),
        id: Some(id_to_wire(&own_id.id)),
        ..v1::Command::default()
    };
    execute_on_meta(shared, command).await
}

fn id_to_wire(id: &WriteId) -> v1::OperationId {
    v1::OperationId {
        birth: id.id.birth.0,
        client: Bytes::copy_from_slice(&id.id.client.0),
        sequence: id.id.sequence,
        answered_below: id.answered_below,
    }
}

/// Does what a command says on the meta range, here or at another node.
pub(crate) async fn execute_on_meta(
    shared: &Arc<Shared>,
    command: v1::Command,
) -> Result<v1::Reply, Error> {
    let keyspace = meta_keyspace();
    let started = Instant::now();
    let request = parse(shared, command.clone(), &keyspace, started)?;
    let mut unknown = false;
    loop {
        let result = route(shared, command.clone(), request.clone(), &keyspace, started).await;
        let error = match result {
            Ok(v1::Reply { result: Some(v1::reply::Result::Error(wire)), .. }) => {
                Error::from_wire(wire)?
            }
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        // The id is the same each time, so it may be asked again whatever became of an earlier attempt; but that one may
        // have happened.
        unknown |= error.may_have_applied();
        if !error.is_retryable() || Instant::now() >= request.deadline || request.no_forward {
            return Err(after_passes(error, unknown));
        }
        sleep(Duration::from_millis(100)).await;
    }
}
