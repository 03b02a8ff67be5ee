//! The doors of a node: gRPC for clients, operators and peers, and `/metrics`, on one port.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, Stream, StreamExt};
use latitude_clock::{Judge, Reading};
use latitude_rpc::pb::peer::peer_server::{Peer, PeerServer};
use latitude_rpc::pb::peer::{self as pb, Frame, Greeting, Message};
use latitude_rpc::pb::v1;
use latitude_rpc::pb::v1::admin_server::{Admin, AdminServer};
use latitude_rpc::pb::v1::latitude_server::{Latitude, LatitudeServer};
use latitude_rpc::{
    COMMANDS_MAX, FILE_DESCRIPTOR_SET, FromWire, MESSAGE_LEN_MAX, error_to_pb, status_from_error,
};
use latitude_types::{
    ClusterId, Error, Generation, KeyspaceId, NodeId, RangeId, Reason, StoreId, Timestamp,
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::admin;
use crate::audit;
use crate::bootstrap;
use crate::catalog;
use crate::closing;
use crate::frames::{first_of, fitting, fitting_batch};
use crate::identity::Membership;
use crate::local;
use crate::origins;
use crate::peers::CLOCK_REFUSED;
use crate::router;
use crate::shared::{Shared, not_initialized};

/// Commands of one stream in hand, or answered and not sent, at once; more wait in the connection.
const STREAM_COMMANDS_MAX: usize = 1024;
/// The most bytes of a batch.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Everything a node answers.
pub(crate) fn routes(shared: &Arc<Shared>) -> Result<Routes, tonic_reflection::server::Error> {
    let doors = Doors { shared: Arc::clone(shared) };
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Many tools still ask in the older version's words.
    let (reflection, reflection_alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
    let (health, health_service) = tonic_health::server::health_reporter();
    tokio::spawn(report_health(Arc::clone(shared), health));
    let limit = MESSAGE_LEN_MAX;
    let latitude = LatitudeServer::new(doors.clone())
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    let peer = PeerServer::new(doors.clone())
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    let grpc = Routes::new(latitude)
        .add_service(AdminServer::new(doors))
        .add_service(peer)
        .add_service(reflection)
        .add_service(reflection_alpha)
        .add_service(health_service);
    let metrics = {
        let shared = Arc::clone(shared);
        axum::routing::get(move || {
            let text = shared.metrics.render(&shared);
            async move {
                (
                    [(
                        "content-type",
                        "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    )],
                    text,
                )
            }
        })
    };
    let clock = shared.clock.clone();
    // The date of an answer is this node's clock's, like every other time it tells: the HTTP library would
    // take the system's, which a simulation cannot replay.
    let dated = axum::middleware::map_response(move |mut response: axum::response::Response| {
        let now = std::time::UNIX_EPOCH + Duration::from_micros(clock.hybrid().physical_us());
        if let Ok(date) = axum::http::HeaderValue::try_from(httpdate::fmt_http_date(now)) {
            response.headers_mut().insert(axum::http::header::DATE, date);
        }
        async move { response }
    });
    let grpc = grpc.into_axum_router().layer(axum::middleware::map_response(tell_malformed));
    Ok(grpc.route("/metrics", metrics).layer(dated).into())
}

/// How the gRPC library says that bytes are not the message they should be.
const UNDECODABLE: &str = "failed to decode Protobuf message";

/// The error of bytes that are not the message they should be, if that is what the status is about.
fn malformed(status: &Status) -> Option<Status> {
    let why = status.message().strip_prefix(UNDECODABLE)?;
    let message = format!(
        "the request is not a message of this service{why}: make it from the files in /proto"
    );
    Some(status_from_error(&Error::new(Reason::Malformed, message)))
}

/// The library answers such bytes before any of ours sees them, as a fault of the server's.
async fn tell_malformed(response: axum::response::Response) -> axum::response::Response {
    match Status::from_header_map(response.headers()).as_ref().and_then(malformed) {
        Some(status) => status.into_http(),
        None => response,
    }
}

/// Tells the standard health service whether the node serves.
async fn report_health(shared: Arc<Shared>, health: tonic_health::server::HealthReporter) {
    let mut joined = shared.joined.subscribe();
    let mut draining = shared.draining.subscribe();
    loop {
        let serves = joined.borrow_and_update().is_some() && !*draining.borrow_and_update();
        if serves {
            health.set_serving::<LatitudeServer<Doors>>().await;
        } else {
            health.set_not_serving::<LatitudeServer<Doors>>().await;
        }
        let status = if serves {
            tonic_health::ServingStatus::Serving
        } else {
            tonic_health::ServingStatus::NotServing
        };
        health.set_service_status("", status).await;
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            changed = joined.changed() => if changed.is_err() { return },
            changed = draining.changed() => if changed.is_err() { return },
        }
    }
}

#[derive(Clone)]
struct Doors {
    shared: Arc<Shared>,
}

fn status(error: Error) -> Status {
    status_from_error(&error)
}

/// The deadline of a unary call as gRPC carries it: at most eight digits and a unit. Anything else is no deadline, as
/// for the gRPC library.
fn grpc_timeout<T>(request: &Request<T>) -> Option<Duration> {
    const DIGITS_MAX: usize = 8;
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // A sign would parse.
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// A command waits no longer than the call that carries it, so that the error that says why is there
/// before gRPC gives up.
fn limit_timeout(command: &mut v1::Command, call: Option<Duration>) -> Result<(), Error> {
    let Some(call) = call else { return Ok(()) };
    let ms = call.as_millis().min(u128::from(u32::MAX)) as u32;
    if ms == 0 {
        return Err(Error::new(
            Reason::DeadlinePast,
            "the deadline had passed when the request arrived: allow more",
        ));
    }
    if command.timeout_ms == 0 || command.timeout_ms > ms {
        command.timeout_ms = ms;
    }
    Ok(())
}

/// A reply as the answer of a unary call.
fn unary(reply: v1::Reply) -> Result<Response<v1::Reply>, Status> {
    match &reply.result {
        Some(v1::reply::Result::Error(error)) => {
            Err(status(Error::from_wire(error.clone()).map_err(status)?))
        }
        _ => Ok(Response::new(reply)),
    }
}

#[tonic::async_trait]
impl Latitude for Doors {
    async fn execute(&self, request: Request<v1::Command>) -> Result<Response<v1::Reply>, Status> {
        let deadline = grpc_timeout(&request);
        let mut command = request.into_inner();
        command.tag = 0;
        limit_timeout(&mut command, deadline).map_err(status)?;
        unary(execute(&self.shared, command).await)
    }

    async fn batch(
        &self,
        request: Request<v1::BatchRequest>,
    ) -> Result<Response<v1::BatchReply>, Status> {
        let deadline = grpc_timeout(&request);
        let mut batch = request.into_inner();
        for command in &mut batch.commands {
            limit_timeout(command, deadline).map_err(status)?;
        }
        if batch.commands.len() > COMMANDS_MAX {
            return Err(too_many_commands("batch"));
        }
        let bytes = batch.encoded_len();
        if bytes > BATCH_BYTES_MAX {
            let message = format!(
                "the batch has {bytes} bytes, and {BATCH_BYTES_MAX} are taken at once: send several"
            );
            return Err(status(Error::new(Reason::BatchTooLarge, message)));
        }
        let replies = batch.commands.into_iter().map(|command| execute(&self.shared, command));
        let replies = fitting_batch(futures::future::join_all(replies).await);
        Ok(Response::new(v1::BatchReply { replies }))
    }

    type StreamStream = BoxStream<'static, Result<v1::ReplyFrame, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::CommandFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (frames, replies) = mpsc::channel(16);
        tokio::spawn(serve_stream(Arc::clone(&self.shared), request.into_inner(), frames));
        Ok(Response::new(ReceiverStream::new(replies).boxed()))
    }

    async fn hello(
        &self,
        _request: Request<v1::HelloRequest>,
    ) -> Result<Response<v1::HelloReply>, Status> {
        let shared = &self.shared;
        let membership = shared.membership();
        Ok(Response::new(v1::HelloReply {
            cluster_id: membership
                .as_ref()
                .map_or_else(Bytes::new, |m| Bytes::copy_from_slice(&m.cluster.id.0)),
            cluster_incarnation: membership.as_ref().map_or(0, |m| m.cluster.incarnation),
            node: membership.map_or(0, |m| m.node.0),
            region: shared.config.region.clone(),
            zone: shared.config.zone.clone(),
            clock: shared.clock.now().await.map_err(status)?.0,
            version: env!("CARGO_PKG_VERSION").to_string(),
        }))
    }

    async fn locate(
        &self,
        request: Request<v1::LocateRequest>,
    ) -> Result<Response<v1::LocateReply>, Status> {
        admin::locate(&self.shared, request.into_inner()).await.map(Response::new).map_err(status)
    }
}

/// Does what a command says; its reply is one that a message can carry.
async fn execute(shared: &Arc<Shared>, command: v1::Command) -> v1::Reply {
    fitting(router::execute(shared, command).await)
}

/// How many there were nobody knows: they are not all decoded.
fn too_many_commands(of: &str) -> Status {
    let message = format!(
        "the {of} has more than the {COMMANDS_MAX} commands that are taken at once: send several"
    );
    status(Error::new(Reason::BatchTooLarge, message))
}

/// Serves a stream of commands: replies leave as they are ready, many to a frame.
async fn serve_stream(
    shared: Arc<Shared>,
    mut incoming: Streaming<v1::CommandFrame>,
    frames: mpsc::Sender<Result<v1::ReplyFrame, Status>>,
) {
    let mut in_hand = FuturesUnordered::new();
    let mut ready: Vec<v1::Reply> = Vec::new();
    let mut open = true;
    loop {
        while let Some(Some(reply)) = in_hand.next().now_or_never() {
            ready.push(reply);
        }
        let takes_more = open && in_hand.len() + ready.len() < STREAM_COMMANDS_MAX;
        tokio::select! {
            biased;
            permit = frames.reserve(), if !ready.is_empty() => match permit {
                Ok(permit) => permit.send(Ok(v1::ReplyFrame { replies: first_of(&mut ready) })),
                // The client is gone. What it began goes on to its end, unheard.
                Err(_) => return,
            },
            Some(reply) = in_hand.next(), if !in_hand.is_empty() => ready.push(reply),
            frame = incoming.next(), if takes_more => match frame {
                Some(Ok(frame)) if frame.commands.len() > COMMANDS_MAX => {
                    drop(frames.send(Err(too_many_commands("frame"))).await);
                    return;
                }
                Some(Ok(frame)) => {
                    for command in frame.commands {
                        let shared = Arc::clone(&shared);
                        in_hand.push(async move { execute(&shared, command).await }.boxed());
                    }
                }
                Some(Err(broken)) => {
                    if let Some(status) = malformed(&broken) {
                        // Where the next command begins nobody knows: the stream ends with the reason.
                        drop(frames.send(Err(status)).await);
                        return;
                    }
                    open = false;
                }
                None => open = false,
            },
            else => return,
        }
    }
}

#[tonic::async_trait]
impl Admin for Doors {
    async fn init(
        &self,
        request: Request<v1::InitRequest>,
    ) -> Result<Response<v1::InitReply>, Status> {
        let patience = match request.into_inner().timeout_ms {
            0 => Duration::from_secs(30),
            ms => Duration::from_millis(u64::from(ms)),
        };
        bootstrap::init(&self.shared, patience).await.map(Response::new).map_err(status)
    }

    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        Ok(Response::new(admin::status(&self.shared)))
    }

    async fn list_nodes(
        &self,
        _request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesReply>, Status> {
        self.shared.node().map_err(status)?;
        Ok(Response::new(v1::ListNodesReply { nodes: admin::node_statuses(&self.shared) }))
    }

    async fn list_deltas(
        &self,
        request: Request<v1::ListDeltasRequest>,
    ) -> Result<Response<v1::ListDeltasReply>, Status> {
        let reply = local::report_unfolded(&self.shared, &request.into_inner());
        reply.map(Response::new).map_err(status)
    }

    async fn list_origins(
        &self,
        request: Request<v1::ListOriginsRequest>,
    ) -> Result<Response<v1::ListOriginsReply>, Status> {
        origins::list(&self.shared, &request.into_inner()).map(Response::new).map_err(status)
    }

    async fn set_origin(
        &self,
        request: Request<v1::SetOriginRequest>,
    ) -> Result<Response<v1::SetOriginReply>, Status> {
        let passed_on = request.metadata().contains_key(admin::PASSED_ON);
        let reply = origins::set(&self.shared, request.into_inner(), passed_on).await;
        reply.map(Response::new).map_err(status)
    }

    async fn list_ranges(
        &self,
        request: Request<v1::ListRangesRequest>,
    ) -> Result<Response<v1::ListRangesReply>, Status> {
        admin::list_ranges(&self.shared, &request.into_inner()).map(Response::new).map_err(status)
    }

    async fn create_keyspace(
        &self,
        request: Request<v1::CreateKeyspaceRequest>,
    ) -> Result<Response<v1::CreateKeyspaceReply>, Status> {
        admin::create_keyspace(&self.shared, request.into_inner())
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn list_keyspaces(
        &self,
        _request: Request<v1::ListKeyspacesRequest>,
    ) -> Result<Response<v1::ListKeyspacesReply>, Status> {
        admin::list_keyspaces(&self.shared).map(Response::new).map_err(status)
    }

    async fn drop_keyspace(
        &self,
        request: Request<v1::DropKeyspaceRequest>,
    ) -> Result<Response<v1::DropKeyspaceReply>, Status> {
        admin::drop_keyspace(&self.shared, request.into_inner())
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn audit(
        &self,
        request: Request<v1::AuditRequest>,
    ) -> Result<Response<v1::AuditReply>, Status> {
        audit::run(&self.shared, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderReply>, Status> {
        let passed_on = request.metadata().contains_key(admin::PASSED_ON);
        let reply = admin::transfer_leader(&self.shared, request.into_inner(), passed_on).await;
        reply.map(Response::new).map_err(status)
    }
}

#[tonic::async_trait]
impl Peer for Doors {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send + 'static>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut incoming = request.into_inner();
        let membership = self.shared.membership().ok_or_else(|| status(not_initialized()))?;
        let hello =
            incoming.message().await?.ok_or_else(|| Status::invalid_argument("no greeting"))?;
        let greeting = hello.greeting.ok_or_else(|| Status::invalid_argument("no greeting"))?;
        let from = check_greeting(&self.shared, &membership, &greeting)?;
        let (frames, answers) = mpsc::channel(16);
        let hello = self.shared.peers().hello(from, greeting.class);
        frames.send(Ok(hello)).await.map_err(|_| Status::internal("the connection is gone"))?;
        tokio::spawn(serve_peer(Arc::clone(&self.shared), from, incoming, frames));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn identify(
        &self,
        _request: Request<pb::IdentifyRequest>,
    ) -> Result<Response<pb::IdentifyReply>, Status> {
        Ok(Response::new(bootstrap::identify(&self.shared)))
    }

    async fn adopt(
        &self,
        request: Request<pb::AdoptRequest>,
    ) -> Result<Response<pb::AdoptReply>, Status> {
        bootstrap::adopt(&self.shared, &request.into_inner()).await.map_err(status)?;
        Ok(Response::new(pb::AdoptReply {}))
    }

    async fn join(
        &self,
        request: Request<pb::JoinRequest>,
    ) -> Result<Response<pb::JoinReply>, Status> {
        bootstrap::admit(&self.shared, &request.into_inner())
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn directory(
        &self,
        request: Request<pb::DirectoryRequest>,
    ) -> Result<Response<pb::DirectoryReply>, Status> {
        let answer = catalog::answer(&self.shared, &request.into_inner()).await;
        answer.map(Response::new).map_err(status)
    }

    async fn forward(
        &self,
        request: Request<pb::ForwardRequest>,
    ) -> Result<Response<pb::ForwardReply>, Status> {
        let command = v1::Command::decode(request.into_inner().command)
            .map_err(|error| status(Error::new(Reason::Malformed, error.to_string())))?;
        let reply = if command.keyspace_id == KeyspaceId::META.0 {
            match router::execute_on_meta(&self.shared, command).await {
                Ok(reply) => reply,
                Err(error) => v1::Reply {
                    result: Some(v1::reply::Result::Error(error_to_pb(&error))),
                    ..v1::Reply::default()
                },
            }
        } else {
            execute(&self.shared, command).await
        };
        Ok(Response::new(pb::ForwardReply { reply: reply.encode_to_vec().into() }))
    }
}

/// Who is at the other end, if it may be there.
fn check_greeting(
    shared: &Shared,
    membership: &Membership,
    greeting: &Greeting,
) -> Result<NodeId, Status> {
    let refuse = |message: String| Err(Status::permission_denied(message));
    let cluster = <[u8; 16]>::try_from(&greeting.cluster_id[..]).map(ClusterId).unwrap_or_default();
    if (cluster, greeting.cluster_incarnation)
        != (membership.cluster.id, membership.cluster.incarnation)
    {
        return refuse(format!("this is cluster {}, not {cluster}", membership.cluster));
    }
    if greeting.to_node != membership.node.0 {
        return refuse(format!("this is {}, not n{}", membership.node, greeting.to_node));
    }
    let from = NodeId(greeting.node);
    let store = <[u8; 16]>::try_from(&greeting.store_id[..]).map(StoreId).unwrap_or_default();
    // A node whose disk was emptied, or copied, is not the node it was.
    let directory = shared.catalog.current();
    if let Some(known) = directory.node(from)
        && known.store != store
    {
        return refuse(format!("{from} is bound to store {}, not {store}", known.store));
    }
    Ok(from)
}

type MessageAnswer = futures::future::BoxFuture<'static, Message>;

/// Serves one connection of another node.
async fn serve_peer(
    shared: Arc<Shared>,
    from: NodeId,
    mut incoming: Streaming<Frame>,
    frames: mpsc::Sender<Result<Frame, Status>>,
) {
    let mut in_hand: FuturesUnordered<MessageAnswer> = FuturesUnordered::new();
    let mut ready: Vec<Message> = Vec::new();
    let mut open = true;
    let mut spoke = Instant::now();
    let speaks_within = shared.peers().silence_max() / 2;
    loop {
        while let Some(Some(message)) = in_hand.next().now_or_never() {
            ready.push(message);
        }
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            permit = frames.reserve(), if !ready.is_empty() => match permit {
                Ok(permit) => {
                    permit.send(Ok(shared.peers().frame(first_of(&mut ready))));
                    spoke = Instant::now();
                }
                Err(_) => return,
            },
            Some(message) = in_hand.next(), if !in_hand.is_empty() => ready.push(message),
            frame = incoming.next(), if open => match frame {
                Some(Ok(frame)) => take_frame(&shared, from, frame, &mut in_hand, &mut ready).await,
                Some(Err(_)) | None => open = false,
            },
            // What takes long (a snapshot is installed) is under way: a peer that hears nothing would give it up, and ask
            // for it anew.
            () = sleep_until(spoke + speaks_within), if !in_hand.is_empty() => {
                match frames.try_send(Ok(shared.peers().frame(Vec::new()))) {
                    Err(TrySendError::Closed(_)) => return,
                    // With so many to be sent nothing need be said.
                    Ok(()) | Err(TrySendError::Full(_)) => spoke = Instant::now(),
                }
            }
            else => return,
        }
    }
}

/// Hands a frame's messages to their replicas, in order. A frame refused for its clock has no effect at
/// all (INV-2).
async fn take_frame(
    shared: &Arc<Shared>,
    from: NodeId,
    frame: Frame,
    in_hand: &mut FuturesUnordered<MessageAnswer>,
    ready: &mut Vec<Message>,
) {
    let reading = Reading { physical_us: frame.physical_us, clock: Timestamp(frame.clock) };
    let verdict = shared.clock.receive(reading).await;
    shared.peers().observe_refusal(from, Judge::Us, verdict.is_err());
    let refusal = verdict.err().map(|refusal| format!("{CLOCK_REFUSED}{refusal}"));
    for message in frame.messages {
        let kind = message.kind();
        let Message { call, range_id, generation, body, .. } = message;
        let answer = move |body: Bytes, failure: String| Message {
            call,
            range_id,
            generation,
            body,
            failure,
            kind: kind as i32,
        };
        if let Some(refusal) = &refusal {
            ready.push(answer(Bytes::new(), refusal.clone()));
        } else if kind == pb::MessageKind::Ping {
            let physical_us = shared.clock.hybrid().physical_us();
            ready.push(answer(Bytes::copy_from_slice(&physical_us.to_be_bytes()), String::new()));
        } else if kind == pb::MessageKind::Nudge {
            // One of which nothing can be read is one without a number: it has no number to be answered with.
            let number = pb::Nudge::decode(body).map_or(0, |nudge| nudge.number);
            shared.local().nudged(from, number);
            ready.push(answer(Bytes::new(), String::new()));
        } else if kind == pb::MessageKind::Pull {
            let local = shared.local().clone();
            let mut served = async move {
                match pb::Pull::decode(body) {
                    Ok(pull) => {
                        let stretch = local::serve_pull(&local, from, pull).await;
                        answer(stretch.encode_to_vec().into(), String::new())
                    }
                    Err(error) => answer(Bytes::new(), error.to_string()),
                }
            }
            .boxed();
            // The first poll is the pull's place among those of its subscriber.
            match futures::poll!(&mut served) {
                std::task::Poll::Ready(message) => ready.push(message),
                std::task::Poll::Pending => in_hand.push(served),
            }
        } else if kind == pb::MessageKind::Close {
            let shared = Arc::clone(shared);
            in_hand.push(
                async move {
                    match closing::close_here(&shared, RangeId(range_id)).await {
                        Ok((at, time)) => {
                            let closed =
                                pb::Closed { term: at.term, index: at.index, time: time.0 };
                            answer(closed.encode_to_vec().into(), String::new())
                        }
                        Err(error) => answer(Bytes::new(), error.to_string()),
                    }
                }
                .boxed(),
            );
        } else if kind == pb::MessageKind::Audit {
            let shared = Arc::clone(shared);
            in_hand.push(
                async move {
                    match audit::answer(&shared, RangeId(range_id), body).await {
                        Ok(audited) => answer(audited.encode_to_vec().into(), String::new()),
                        Err(error) => answer(Bytes::new(), error.to_string()),
                    }
                }
                .boxed(),
            );
        } else {
            match shared.registry.dispatch(RangeId(range_id), Generation(generation), &body) {
                Ok(handled) => {
                    let mut handled = async move {
                        match handled.await {
                            Ok(body) => answer(body, String::new()),
                            Err(error) => answer(Bytes::new(), error.to_string()),
                        }
                    }
                    .boxed();
                    // The first poll is the message's place in Raft's queue.
                    match futures::poll!(&mut handled) {
                        std::task::Poll::Ready(message) => ready.push(message),
                        std::task::Poll::Pending => in_hand.push(handled),
                    }
                }
                Err(error) => ready.push(answer(Bytes::new(), error.to_string())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_of_more_digits_than_grpc_allows_is_no_deadline() {
        let timeout = |text: &str| {
            let mut request = Request::new(());
            request.metadata_mut().insert("grpc-timeout", text.parse().unwrap());
            grpc_timeout(&request)
        };
        assert_eq!(timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for text in
            ["18446744073709551615H", "307445734561825861M", "100000000n", "+5S", "-5S", "S", "5"]
        {
            assert_eq!(timeout(text), None, "{text}");
        }
    }
}
