//! From a command to the replica that serves it, here or elsewhere, and back.
//!
//! ```text
//!   command ─▶ keyspace ─▶ request ─▶ range ─▶ here and leading? ─ yes ─▶ propose │ read index + snapshot
//!                                                └─ no ─▶ NOT_LEADER with a hint, or passed on
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use latitude_consistency::Route;
use latitude_directory::{Directory, KeyspaceRecord, RangeRecord};
use latitude_range::{Done, Op, Operation as LogOperation, Reader, ScanRequest};
use latitude_rpc::pb::{peer, v1};
use latitude_rpc::{FromWire, ToWire, error_to_pb};
use latitude_types::{Error, KeySpan, KeyspaceId, Kind, NodeId, Outcome, Past, Positions, Reason};
use prost::Message;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::Instrument;

use crate::catalog::{self, meta_keyspace};
use crate::liveness::is_live;
use crate::proposer::{Written, not_leader};
use crate::range_handle::RangeHandle;
use crate::request::{Operation, Request, RoutingKey, Scan, WriteId};
use crate::shared::{OwnId, Shared, not_initialized};

/// A command is passed on to other nodes at most this often before its error is told.
const PASSES_MAX: u32 = 8;
/// Answers kept for one client at most: they are written with every entry the client is in.
const UNANSWERED_MAX: u64 = 1 << 16;

/// An answer, before it becomes a message.
struct Answer {
    result: v1::reply::Result,
    receipt: v1::Receipt,
}

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
    let request =
        Request::parse(command.clone(), &keyspace, started, shared.config.limits.default_timeout)?;
    let span =
        tracing::debug_span!("request", id = %command.request_id, op = request.operation.name());
    let result = route(shared, command, request, &keyspace, started).instrument(span.clone()).await;
    if let Err(error) = &result {
        span.in_scope(|| tracing::debug!(%error, outcome = ?error.outcome, "failed"));
    }
    result
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
        let attempt = match here {
            Some(handle) => serve(shared, &handle, &request, started)
                .await
                .map(Answer::into_reply)
                .map_err(|error| explained(shared, &handle, error)),
            None => Err(elsewhere(&record)),
        };
        let error = match attempt {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        let passable = matches!(error.kind(), Kind::Redirect) || error.reason == Reason::NoLeader;
        if request.no_forward || !passable || passes >= PASSES_MAX {
            return Err(after_passes(error, unknown));
        }
        if Instant::now() >= request.deadline {
            return Err(after_passes(late_on_the_way(&error), unknown));
        }
        passes += 1;
        if request.operation.is_write() && command.id.is_none() {
            // Every node it is passed to must recognise it.
            let id = OwnId::make(shared).await?;
            command.id = Some(id_to_wire(&id.id));
            own_id = Some(id);
        }
        let target =
            error.leader.as_ref().map(|hint| hint.node).filter(|node| shared.node() != Ok(*node));
        let target = target.or_else(|| other_replica(shared, &record, passes));
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
                    if !matches!(error.kind(), Kind::Redirect) && error.reason != Reason::NoLeader {
                        return Err(after_passes(error, unknown));
                    }
                    shared.catalog.is_behind();
                    go_to = error.leader.map(|hint| hint.node);
                    if go_to.is_none() {
                        sleep(Duration::from_millis(50)).await;
                    }
                }
                _ => return Ok(reply),
            },
            Err(error) => {
                unknown |= request.operation.is_write();
                tracing::debug!(%target, %error, "a command could not be passed on");
                sleep(Duration::from_millis(50)).await;
                go_to = None;
            }
        }
    }
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
    let error = not_leader(record.id, record.replicas.first().copied());
    Error { reason: Reason::RangeNotHere, ..error }
}

/// Another replica of the range, a different one each time.
fn other_replica(shared: &Shared, record: &RangeRecord, turn: u32) -> Option<NodeId> {
    let own = shared.node().ok()?;
    let others: Vec<_> =
        record.replicas.iter().map(|replica| replica.node).filter(|node| *node != own).collect();
    others.get(turn as usize % others.len().max(1)).copied()
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

/// Serves a request from this node's replica.
async fn serve(
    shared: &Arc<Shared>,
    handle: &RangeHandle,
    request: &Request,
    started: Instant,
) -> Result<Answer, Error> {
    if let Some((range, epoch)) = request.routed_by
        && (range != handle.id() || epoch != handle.record.epoch)
    {
        let message = format!("the key is in range {} now: learn the ranges again", handle.id());
        return Err(Error::new(Reason::RangeMoved, message));
    }
    match request.plan.route {
        Route::ThroughLog => write(shared, handle, request, started).await,
        Route::ReadIndex => read(shared, handle, request, started).await,
    }
}

async fn write(
    shared: &Arc<Shared>,
    handle: &RangeHandle,
    request: &Request,
    started: Instant,
) -> Result<Answer, Error> {
    if *shared.disk_full.borrow() {
        return Err(Error::new(
            Reason::DiskFull,
            "the node's disk has less free space than its floor: writes are refused until there is room, reads go on",
        )
        .retry_after(Duration::from_secs(1)));
    }
    if shared.peers().is_unsynced() {
        return Err(Error::new(
            Reason::ClockUnsynced,
            "the node's clock differs from those of most nodes",
        ));
    }
    let own_id = match request.id {
        Some(_) => None,
        None => Some(OwnId::make(shared).await?),
    };
    let WriteId { id, answered_below } = match (&own_id, request.id) {
        (Some(own), _) => own.id,
        (None, Some(id)) => id,
        (None, None) => return Err(Error::new(Reason::Internal, "a write without an id")),
    };
    if id.sequence - answered_below > UNANSWERED_MAX {
        return Err(Error::new(
            Reason::TooManyRequests,
            format!(
                "the client has more than {UNANSWERED_MAX} writes whose answers are kept: raise answered_below as \
                 answers arrive"
            ),
        )
        .retry_after(Duration::from_millis(100)));
    }
    shared.clock.admit(id.birth).await?;
    let (key, op) = match &request.operation {
        Operation::Put { key, value } => (key, Op::Put { value: value.clone() }),
        Operation::Delete { key } => (key, Op::Delete),
        Operation::CompareAndSet { key, expected, new_value } => {
            (key, Op::CompareAndSet { expected: expected.clone(), new_value: new_value.clone() })
        }
        Operation::Get { .. } | Operation::Scan(_) => {
            return Err(Error::new(Reason::Internal, "a read was planned as a write"));
        }
    };
    let operation = LogOperation {
        id,
        answered_below,
        level: request.plan.level,
        key: key.clone(),
        op,
        named: Vec::new(),
        need: Positions::default(),
        past: Past::default(),
        extensions: Vec::new(),
    };
    let conditional = matches!(operation.op, Op::CompareAndSet { .. });
    let give_up = give_up_at(shared, request, started);
    let Written { reply, at, stamp } =
        match timeout_at(give_up, handle.proposer.propose(operation)).await {
            Ok(written) => written.map_err(|error| with_silent(handle, error))?,
            Err(_) => return Err(late(handle, true)),
        };
    let done = reply.result.map_err(latitude_range::Refusal::into_error)?;
    let version = match &done {
        Done::Written { version } => Some(*version),
        Done::Mismatch { found } => *found,
    };
    let result = if conditional {
        v1::reply::Result::CompareAndSet(v1::CompareAndSetResult {
            applied: matches!(done, Done::Written { .. }),
            version: version.as_ref().map(ToWire::to_wire),
        })
    } else {
        v1::reply::Result::Write(v1::WriteResult { version: version.as_ref().map(ToWire::to_wire) })
    };
    let mut receipt = receipt(shared, handle, request);
    receipt.version = version.as_ref().map(ToWire::to_wire);
    if request.receipt == v1::ReceiptDetail::Full {
        receipt.log = Some(v1::LogPosition { term: at.term, index: at.index });
        receipt.as_of = stamp.time.0;
        receipt.set_proof(v1::Proof::Committed);
        receipt.set_duplicate(if reply.duplicate { v1::Duplicate::Yes } else { v1::Duplicate::No });
        receipt.retry_safe = request.id.is_some();
        receipt.durable_on = handle.group.durable_on(at).into_iter().map(|node| node.0).collect();
        receipt.covers_session = true;
        receipt.server_us = started.elapsed().as_micros() as u64;
    }
    Ok(Answer { result, receipt })
}

async fn read(
    shared: &Arc<Shared>,
    handle: &RangeHandle,
    request: &Request,
    started: Instant,
) -> Result<Answer, Error> {
    let give_up = give_up_at(shared, request, started);
    match timeout_at(give_up, handle.strict_read_barrier()).await {
        Ok(ready) => ready?,
        Err(_) => return Err(late(handle, false)),
    }
    let internal =
        |error: latitude_range::ApplyError| Error::new(Reason::Internal, error.to_string());
    let snapshot = shared.engine.snapshot();
    let reader = Reader::new(handle.id(), &*snapshot).map_err(internal)?;
    let mut receipt = receipt(shared, handle, request);
    let result = match &request.operation {
        Operation::Get { key } => {
            if !reader.meta().span.contains(key.as_bytes()) {
                return Err(latitude_range::Refusal::Moved.into_error());
            }
            let row = reader.get(key).map_err(internal)?;
            let value = row.as_ref().and_then(|row| row.value().cloned());
            let version = row.filter(|row| row.value().is_some()).map(|row| row.version.to_wire());
            receipt.version.clone_from(&version);
            v1::reply::Result::Get(v1::GetResult { value, version })
        }
        Operation::Scan(scan) => {
            v1::reply::Result::Scan(read_scan(&reader, scan).map_err(internal)?)
        }
        Operation::Put { .. } | Operation::Delete { .. } | Operation::CompareAndSet { .. } => {
            return Err(Error::new(Reason::Internal, "a write was planned as a read"));
        }
    };
    if request.receipt == v1::ReceiptDetail::Full {
        let (at, _) = handle.group.applied_position();
        receipt.log = Some(v1::LogPosition { term: at.term, index: at.index });
        receipt.as_of = reader.meta().last_stamp.time.0;
        receipt.set_proof(v1::Proof::ReadIndex);
        receipt.staleness_ms = Some(0);
        receipt.covers_session = true;
        receipt.server_us = started.elapsed().as_micros() as u64;
    }
    Ok(Answer { result, receipt })
}

/// A scan's part in one range, and where it goes on.
fn read_scan(
    reader: &Reader<'_>,
    scan: &Scan,
) -> Result<v1::ScanResult, latitude_range::ApplyError> {
    let page = reader.scan(&ScanRequest {
        span: scan.span.clone(),
        reverse: scan.reverse,
        limit: scan.limit,
        bytes_max: scan.bytes_max,
        keys_only: scan.keys_only,
    })?;
    let range = &reader.meta().span;
    let resume = if page.more {
        page.rows.last().map(|row| {
            if scan.reverse {
                row.key.clone()
            } else {
                // The least key above the last one answered.
                [&row.key[..], &[0]].concat().into()
            }
        })
    } else if scan.reverse {
        // The range ends here; does the span go on below it?
        (range.start() > scan.span.start()).then(|| Bytes::copy_from_slice(range.start()))
    } else {
        let goes_on = range.end().filter(|end| scan.span.end().is_none_or(|wanted| *end < wanted));
        goes_on.map(Bytes::copy_from_slice)
    };
    let rows = page.rows.into_iter().map(|row| v1::Row {
        key: row.key,
        value: row.value,
        version: Some(row.version.to_wire()),
    });
    Ok(v1::ScanResult { rows: rows.collect(), resume })
}

/// The instant at which waiting makes no more sense: a round trip before the deadline, so that the error
/// that says why is there in time.
fn give_up_at(shared: &Shared, request: &Request, started: Instant) -> Instant {
    let whole = request.deadline.saturating_duration_since(started);
    let round_trip = shared.peers().round_trip_max().max(Duration::from_millis(5));
    request.deadline - round_trip.min(whole / 4)
}

/// The error of a request that waited in vain, naming who is silent.
fn late(handle: &RangeHandle, is_write: bool) -> Error {
    let status = handle.group.status();
    let needed = status.voters.len() / 2 + 1;
    let error = if status.leadership.token.is_none() {
        not_leader(handle.id(), status.leadership.leader)
    } else if status.voters.len() - status.silent.len() < needed {
        handle.no_quorum(status.silent)
    } else {
        Error::new(Reason::DeadlineExceeded, "the deadline passed before the range had answered")
    };
    // Handed to the proposer, it may be in the log.
    let outcome = if is_write { Outcome::Unknown } else { Outcome::NotApplied };
    Error { outcome, ..error }
}

/// Adds who is silent to an error for want of a quorum.
fn with_silent(handle: &RangeHandle, error: Error) -> Error {
    if error.reason != Reason::NoQuorum {
        return error;
    }
    Error { outcome: error.outcome, ..handle.no_quorum(handle.group.status().silent) }
}

/// Names the missing quorum in the error of a replica that knows no leader, or only one that is silent, when
/// too few of the range's nodes are heard from: in a minority no other answer will come.
fn explained(shared: &Shared, handle: &RangeHandle, error: Error) -> Error {
    let leader_is_heard = error.leader.as_ref().is_some_and(|hint| is_live(shared, hint.node));
    if leader_is_heard || !matches!(error.reason, Reason::NotLeader | Reason::NoLeader) {
        return error;
    }
    let voters = handle.group.voters();
    let silent: Vec<_> =
        voters.iter().map(|replica| replica.node).filter(|node| !is_live(shared, *node)).collect();
    if voters.len() - silent.len() > voters.len() / 2 {
        return error;
    }
    Error { outcome: error.outcome, ..handle.no_quorum(silent) }
}

fn receipt(shared: &Shared, handle: &RangeHandle, request: &Request) -> v1::Receipt {
    let mut receipt = v1::Receipt {
        level_asked: request.level_asked.to_wire(),
        level_given: request.plan.level.to_wire(),
        node: shared.node().map_or(0, |node| node.0),
        region: shared.config.region.clone(),
        range_id: handle.id().0,
        range_epoch: handle.record.epoch.0,
        keyspace_id: handle.record.keyspace.0,
        ..v1::Receipt::default()
    };
    receipt.set_role(v1::Role::Leader);
    if request.receipt == v1::ReceiptDetail::None { v1::Receipt::default() } else { receipt }
}

impl Answer {
    fn into_reply(self) -> v1::Reply {
        let receipt = (self.receipt != v1::Receipt::default()).then_some(self.receipt);
        v1::Reply { result: Some(self.result), receipt, ..v1::Reply::default() }
    }
}

/// A command of this node's own, on the meta range.
pub(crate) async fn execute_meta(
    shared: &Arc<Shared>,
    operation: v1::command::Operation,
    deadline: Instant,
) -> Result<v1::Reply, Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    let own_id = OwnId::make(shared).await?;
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
    let request =
        Request::parse(command.clone(), &keyspace, started, shared.config.limits.default_timeout)?;
    loop {
        let result = route(shared, command.clone(), request.clone(), &keyspace, started).await;
        let error = match result {
            Ok(v1::Reply { result: Some(v1::reply::Result::Error(wire)), .. }) => {
                Error::from_wire(wire)?
            }
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        // The id is the same each time, so the outcome of an earlier attempt does not matter.
        if !error.is_retryable() || Instant::now() >= request.deadline || request.no_forward {
            return Err(error);
        }
        sleep(Duration::from_millis(100)).await;
    }
}
