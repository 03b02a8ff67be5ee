//! The way to other nodes: one multiplexed stream per node and class.
//!
//! ```text
//!   call(replica, class, body) ─▶ queue of (node, class) ─▶ frames ─▶ Exchange stream ─▶ peer
//!                                        calls under way ◀── frames ◀──────────────────────┘
//! ```
//!
//! A connection is made when something is to be said, and made anew, after a pause, when it breaks; what
//! was under way on it fails. Messages of one (node, class) keep their order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use latitude_clock::{Judge, OffsetQuorum, Reading};
use latitude_consensus::{Class, LogPosition, Transport, TransportError, carry_time};
use latitude_probe::Mark;
use latitude_rpc::net::{self, Net};
use latitude_rpc::pb::peer::peer_client::PeerClient;
use latitude_rpc::pb::peer::{self as pb, Frame, Greeting, Message};
use latitude_types::{NodeId, RangeId, ReplicaId, Timestamp};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::catalog::Catalog;
use crate::clock_keeper::Clock;
use crate::frames::{FRAME_BYTES_MAX, first_of};
use crate::leases::Leases;

/// Pause before a broken connection is made anew: doubles up to the last.
const RECONNECT_PAUSE: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_millis(1000));

/// A call on its way.
struct Call {
    kind: pb::MessageKind,
    range: RangeId,
    to: ReplicaId,
    body: Bytes,
    answer: oneshot::Sender<Result<Bytes, TransportError>>,
}

/// What is known of a peer from what it says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerState {
    /// When it last answered.
    pub(crate) heard: Option<Instant>,
    /// The smallest of its recent round trips.
    pub(crate) round_trip: Option<Duration>,
}

/// The way to other nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    net: Arc<dyn Net>,
    clock: Clock,
    catalog: Catalog,
    leases: Leases,
    greeting: Greeting,
    region: String,
    connect_timeout: Duration,
    silence_max: Duration,
    stop: CancellationToken,
    queues: Mutex<BTreeMap<(NodeId, Class), mpsc::UnboundedSender<Call>>>,
    channels: Mutex<BTreeMap<String, Channel>>,
    states: Mutex<BTreeMap<NodeId, PeerState>>,
    offsets: Mutex<OffsetQuorum>,
}

pub(crate) struct PeersConfig {
    pub(crate) net: Arc<dyn Net>,
    pub(crate) clock: Clock,
    pub(crate) catalog: Catalog,
    pub(crate) leases: Leases,
    /// What this node says of itself first; class and receiver are filled in.
    pub(crate) greeting: Greeting,
    /// This node's region: decides by which of a peer's addresses it is reached.
    pub(crate) region: String,
    /// A connection attempt, or an established connection's silence, longer than this is a failure.
    pub(crate) silence_max: Duration,
    pub(crate) stop: CancellationToken,
}

impl Peers {
    pub(crate) fn new(config: PeersConfig) -> Self {
        let PeersConfig { net, clock, catalog, leases, greeting, region, silence_max, stop } =
            config;
        let inner = Inner {
            net,
            clock,
            catalog,
            leases,
            greeting,
            region,
            connect_timeout: silence_max,
            silence_max,
            stop,
            queues: Mutex::default(),
            channels: Mutex::default(),
            states: Mutex::default(),
            offsets: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A channel for unary calls to an address.
    pub(crate) fn channel(&self, address: &str) -> Result<Channel, TransportError> {
        let mut channels = self.inner.channels.lock().expect(NO_PANIC);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel =
            net::channel(Arc::clone(&self.inner.net), address, self.inner.connect_timeout)
                .map_err(|error| TransportError(format!("{address} is no address: {error}")))?;
        channels.insert(address.to_string(), channel.clone());
        Ok(channel)
    }

    /// Where a node is reached from here.
    pub(crate) fn address_of(&self, node: NodeId) -> Option<String> {
        let directory = self.inner.catalog.current();
        Some(directory.node(node)?.address.seen_from(&self.inner.region).to_string())
    }

    /// A client for unary calls to a node.
    pub(crate) fn client(&self, node: NodeId) -> Result<PeerClient<Channel>, TransportError> {
        let address = self
            .address_of(node)
            .ok_or_else(|| TransportError(format!("{node} is in no directory")))?;
        Ok(client(self.channel(&address)?))
    }

    /// Asks a node whether it is there; notes how long the answer took and what time it has.
    pub(crate) async fn ping(&self, node: NodeId) -> Result<(), TransportError> {
        let sent = Instant::now();
        let sent_us = self.inner.clock.hybrid().physical_us();
        let body = self.send(node, pb::MessageKind::Ping, RangeId(0)).await?;
        let round_trip = sent.elapsed();
        self.note(node, |state| {
            // A recent minimum: a long answer tells of a busy machine, not of a long way.
            let eased = state.round_trip.map(|old| old + old / 16 + Duration::from_micros(50));
            state.round_trip = Some(eased.map_or(round_trip, |old| old.min(round_trip)));
        });
        if let Ok(physical_us) = <[u8; 8]>::try_from(&body[..]) {
            let received_us = self.inner.clock.hybrid().physical_us();
            let mut offsets = self.inner.offsets.lock().expect(NO_PANIC);
            offsets.observe_round_trip(node, sent_us, u64::from_be_bytes(physical_us), received_us);
        }
        Ok(())
    }

    /// Asks the node that leads a range to close a time that is not before this question.
    pub(crate) async fn close(
        &self,
        leader: NodeId,
        range: RangeId,
    ) -> Result<(LogPosition, Timestamp), TransportError> {
        let body = self.send(leader, pb::MessageKind::Close, range).await?;
        let pb::Closed { term, index, time } = pb::Closed::decode(body)
            .map_err(|error| TransportError(format!("{leader}: {error}")))?;
        Ok((LogPosition { term, index }, Timestamp(time)))
    }

    /// Asks a node for the next stretch of a stream of local writes. In its place among the pulls before this
    /// returns.
    pub(crate) fn pull(
        &self,
        via: NodeId,
        pull: &pb::Pull,
    ) -> BoxFuture<'static, Result<pb::Stretch, TransportError>> {
        let to = ReplicaId { node: via, ..ReplicaId::default() };
        let body = pull.encode_to_vec().into();
        let answer = self.queue(pb::MessageKind::Pull, to, RangeId(0), Class::Stream, body);
        async move {
            let body = answer.await?;
            pb::Stretch::decode(body).map_err(|error| TransportError(format!("{via}: {error}")))
        }
        .boxed()
    }

    /// Asks an origin to answer this node's pulls now.
    pub(crate) async fn nudge(&self, origin: NodeId, number: u64) -> Result<(), TransportError> {
        let to = ReplicaId { node: origin, ..ReplicaId::default() };
        let body = pb::Nudge { number }.encode_to_vec().into();
        let kind = pb::MessageKind::Nudge;
        self.queue(kind, to, RangeId(0), Class::Heartbeat, body).await.map(drop)
    }

    /// Begins an audit of a range that a node leads, or asks what came there of one.
    pub(crate) async fn audit(
        &self,
        node: NodeId,
        range: RangeId,
        question: pb::AuditQuestion,
    ) -> Result<pb::AuditAnswer, TransportError> {
        let to = ReplicaId { node, ..ReplicaId::default() };
        let (kind, body) = (pb::MessageKind::Audit, question.encode_to_vec().into());
        let body = self.queue(kind, to, range, Class::Heartbeat, body).await?;
        pb::AuditAnswer::decode(body).map_err(|error| TransportError(format!("{node}: {error}")))
    }

    /// Sends what is small and urgent to a node.
    fn send(
        &self,
        to: NodeId,
        kind: pb::MessageKind,
        range: RangeId,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let to = ReplicaId { node: to, ..ReplicaId::default() };
        self.queue(kind, to, range, Class::Heartbeat, Bytes::new())
    }

    /// What is known of a peer.
    pub(crate) fn state(&self, node: NodeId) -> PeerState {
        self.inner.states.lock().expect(NO_PANIC).get(&node).copied().unwrap_or_default()
    }

    /// A connection on which so long nothing is heard of what is asked is given up.
    pub(crate) fn silence_max(&self) -> Duration {
        self.inner.silence_max
    }

    /// The largest round trip to any peer.
    pub(crate) fn round_trip_max(&self) -> Duration {
        let states = self.inner.states.lock().expect(NO_PANIC);
        states.values().filter_map(|state| state.round_trip).max().unwrap_or_default()
    }

    /// How far a peer's clock is ahead, in milliseconds.
    pub(crate) fn clock_offset_ms(&self, node: NodeId) -> i64 {
        let offsets = self.inner.offsets.lock().expect(NO_PANIC);
        offsets.offset(node).map_or(0, |offset| offset.ahead_us / 1000)
    }

    /// Whether this node's clock differs from a majority's.
    pub(crate) fn is_unsynced(&self) -> bool {
        let nodes = self.inner.catalog.current().nodes().len();
        self.inner.offsets.lock().expect(NO_PANIC).is_unsynced(nodes)
    }

    /// Notes whether a message of a peer was refused for its clock, or the peer refused one of ours, and says so
    /// when that changes.
    pub(crate) fn observe_refusal(&self, node: NodeId, judge: Judge, refused: bool) {
        let changed = self.inner.offsets.lock().expect(NO_PANIC).observe(node, judge, refused);
        match (changed, refused, judge) {
            (false, ..) => {}
            (true, true, Judge::Us) => {
                tracing::warn!(peer = %node, "its messages are refused: its clock is too far ahead");
            }
            (true, true, Judge::Peer) => {
                tracing::warn!(peer = %node, "it refuses our messages: to it our clock is too far ahead");
            }
            (true, false, _) => tracing::info!(peer = %node, "clocks are in step again"),
        }
    }

    /// This node's clocks, for a message about to leave.
    pub(crate) fn reading(&self) -> Reading {
        self.inner.clock.hybrid().reading()
    }

    fn note(&self, node: NodeId, change: impl FnOnce(&mut PeerState)) {
        change(self.inner.states.lock().expect(NO_PANIC).entry(node).or_default());
    }

    fn heard(&self, node: NodeId) {
        self.note(node, |state| state.heard = Some(Instant::now()));
    }

    /// Runs the connection of one node and class for as long as the node runs.
    async fn run(self, node: NodeId, class: Class, mut queue: mpsc::UnboundedReceiver<Call>) {
        let stop = self.inner.stop.clone();
        let mut pause = RECONNECT_PAUSE.0;
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                call = queue.recv() => match call {
                    Some(call) => call,
                    None => return,
                },
            };
            let mut calls = CallsUnderWay::default();
            let connected = Instant::now();
            let error = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                ended = self.converse(node, class, first, &mut queue, &mut calls) => ended,
            };
            tracing::debug!(peer = %node, ?class, %error, "connection ended");
            calls.fail(&error);
            if connected.elapsed() > RECONNECT_PAUSE.1 {
                pause = RECONNECT_PAUSE.0;
            }
            // Until the next attempt nothing can be said: whoever tries is told at once.
            let again = sleep(pause);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = &mut again => break,
                    call = queue.recv() => match call {
                        Some(call) => drop(call.answer.send(Err(error.clone()))),
                        None => return,
                    },
                }
            }
            pause = (pause * 2).min(RECONNECT_PAUSE.1);
        }
    }

    /// Connects and carries calls until the connection breaks; says why it did.
    async fn converse(
        &self,
        node: NodeId,
        class: Class,
        first: Call,
        queue: &mut mpsc::UnboundedReceiver<Call>,
        calls: &mut CallsUnderWay,
    ) -> TransportError {
        let broken = |what: &str, error: &dyn std::fmt::Display| {
            TransportError(format!("{node}: {what}: {error}"))
        };
        calls.add(first);
        // A connection of its own for each class: one class's bytes must not wait for another's.
        let Some(address) = self.address_of(node) else {
            return TransportError(format!("{node} is in no directory"));
        };
        let channel =
            match net::channel(Arc::clone(&self.inner.net), &address, self.inner.connect_timeout) {
                Ok(channel) => channel,
                Err(error) => return broken("bad address", &error),
            };
        let (frames, outgoing) = mpsc::channel::<Frame>(8);
        if frames.send(self.hello(node, class_to_wire(class))).await.is_err() {
            return TransportError(format!("{node}: closed before it was opened"));
        }
        let mut client = client(channel);
        let opened =
            timeout(self.inner.connect_timeout, client.exchange(ReceiverStream::new(outgoing)))
                .await;
        let mut incoming = match opened {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => {
                // It lives and wants nothing to do with this node: no retry mends that, a person must.
                if status.code() == tonic::Code::PermissionDenied {
                    tracing::warn!(peer = %node, address, reason = status.message(), "refused");
                }
                return broken("refused", &status.message());
            }
            Err(_) => {
                return TransportError(format!(
                    "{node}: no connection within {:?}",
                    self.inner.connect_timeout
                ));
            }
        };
        let mut silent_since = Instant::now();
        loop {
            calls.gather(queue);
            let ready = !calls.unsent.is_empty();
            // A connection that owes answers and says nothing is broken, whatever TCP thinks.
            let owes = !calls.is_empty();
            let silence_max = self.inner.silence_max + carry_time(calls.bytes);
            tokio::select! {
                biased;
                received = incoming.message() => match received {
                    Ok(Some(frame)) => {
                        silent_since = Instant::now();
                        if let Err(error) = self.take_in(node, frame, calls).await {
                            return error;
                        }
                    }
                    Ok(None) => return TransportError(format!("{node}: it closed the connection")),
                    Err(status) => return broken("broke", &status.message()),
                },
                permit = frames.reserve(), if ready => match permit {
                    Ok(permit) => permit.send(self.frame(first_of(&mut calls.unsent))),
                    Err(_) => return TransportError(format!("{node}: the connection is gone")),
                },
                call = queue.recv(), if !ready => match call {
                    Some(call) => {
                        if calls.is_empty() {
                            silent_since = Instant::now();
                        }
                        calls.add(call);
                    }
                    None => return TransportError("the node is stopping".into()),
                },
                () = tokio::time::sleep_until(silent_since + silence_max), if owes => {
                    Mark::ConnectionSilent.hit();
                    return TransportError(format!("{node}: silent for {silence_max:?}"));
                }
            }
        }
    }

    /// A peer's frame of answers. Its clock is merged before anything it says has an effect (INV-2).
    async fn take_in(
        &self,
        node: NodeId,
        frame: Frame,
        calls: &mut CallsUnderWay,
    ) -> Result<(), TransportError> {
        let reading = Reading { physical_us: frame.physical_us, clock: Timestamp(frame.clock) };
        let verdict = self.inner.clock.receive(reading).await;
        self.observe_refusal(node, Judge::Us, verdict.is_err());
        if let Err(refusal) = verdict {
            return Err(TransportError(format!("{node}: {refusal}")));
        }
        self.heard(node);
        // The first frame of a connection: before any answer of the life that speaks here counts.
        if let Some(greeting) = frame.greeting.filter(|greeting| greeting.node == node.0) {
            self.inner.leases.heard(node, greeting.store_starts, greeting.lease_us);
        }
        for message in frame.messages {
            let refused_for_clock = message.failure.starts_with(CLOCK_REFUSED);
            self.observe_refusal(node, Judge::Peer, refused_for_clock);
            calls.answer(message);
        }
        Ok(())
    }

    /// The first frame to a node on a connection of a class.
    pub(crate) fn hello(&self, to: NodeId, class: i32) -> Frame {
        let greeting = Greeting { to_node: to.0, class, ..self.inner.greeting.clone() };
        Frame { greeting: Some(greeting), ..self.frame(Vec::new()) }
    }

    /// A frame with this node's clocks, read when it is made.
    pub(crate) fn frame(&self, messages: Vec<Message>) -> Frame {
        let Reading { physical_us, clock } = self.reading();
        Frame { greeting: None, physical_us, clock: clock.0, messages }
    }
}

const NO_PANIC: &str = "nothing panics while it holds the peers";
/// How the failure of a message refused for its sender's clock begins.
pub(crate) const CLOCK_REFUSED: &str = "clock refused: ";

pub(crate) fn class_to_wire(class: Class) -> i32 {
    (match class {
        Class::Heartbeat => pb::Class::Heartbeat,
        Class::Raft => pb::Class::Raft,
        Class::Bulk => pb::Class::Bulk,
        Class::Stream => pb::Class::Stream,
    }) as i32
}

fn client(channel: Channel) -> PeerClient<Channel> {
    PeerClient::new(channel)
        .max_decoding_message_size(latitude_rpc::MESSAGE_LEN_MAX)
        .max_encoding_message_size(latitude_rpc::MESSAGE_LEN_MAX)
}

impl Transport for Peers {
    fn call(
        &self,
        to: ReplicaId,
        range: RangeId,
        class: Class,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        self.queue(pb::MessageKind::Unspecified, to, range, class, body)
    }
}

impl Peers {
    /// Puts a call into the queue of its node and class, before this returns.
    fn queue(
        &self,
        kind: pb::MessageKind,
        to: ReplicaId,
        range: RangeId,
        class: Class,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (answer, received) = oneshot::channel();
        let call = Call { kind, range, to, body, answer };
        {
            let mut queues = self.inner.queues.lock().expect(NO_PANIC);
            let queue = queues.entry((to.node, class)).or_insert_with(|| {
                let (sender, queue) = mpsc::unbounded_channel();
                tokio::spawn(self.clone().run(to.node, class, queue));
                sender
            });
            // The task ends only when the node stops; then the sender below is dropped with the call.
            let _ = queue.send(call);
        }
        async move {
            received.await.unwrap_or_else(|_| Err(TransportError("the node is stopping".into())))
        }
        .boxed()
    }
}

/// The calls of one connection that wait for their answers.
#[derive(Default)]
struct CallsUnderWay {
    next: u64,
    /// Those that are in no frame yet, in their order.
    unsent: Vec<Message>,
    waiting: BTreeMap<u64, Waiting>,
    /// The length of all that wait.
    bytes: usize,
}

/// A call that waits for its answer.
struct Waiting {
    len: usize,
    answer: oneshot::Sender<Result<Bytes, TransportError>>,
}

impl CallsUnderWay {
    fn add(&mut self, call: Call) {
        let Call { kind, range, to, body, answer } = call;
        self.next += 1;
        let len = body.len();
        self.bytes += len;
        self.waiting.insert(self.next, Waiting { len, answer });
        let generation = to.generation.0;
        self.unsent.push(Message {
            call: self.next,
            range_id: range.0,
            generation,
            body,
            failure: String::new(),
            kind: kind as i32,
        });
    }

    /// Takes in what is ready, until it makes a frame. The last one may be more than fits: it begins the next frame.
    fn gather(&mut self, queue: &mut mpsc::UnboundedReceiver<Call>) {
        let mut bytes: usize = self.unsent.iter().map(|message| message.body.len()).sum();
        while bytes < FRAME_BYTES_MAX
            && let Ok(call) = queue.try_recv()
        {
            bytes += call.body.len();
            self.add(call);
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn answer(&mut self, message: Message) {
        // An answer to no call is one to a call of which we have despaired.
        if let Some(Waiting { len, answer }) = self.waiting.remove(&message.call) {
            self.bytes -= len;
            let result = if message.failure.is_empty() {
                Ok(message.body)
            } else {
                Err(TransportError(message.failure))
            };
            drop(answer.send(result));
        }
    }

    fn fail(self, error: &TransportError) {
        for waiting in self.waiting.into_values() {
            drop(waiting.answer.send(Err(error.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use latitude_rpc::MESSAGE_LEN_MAX;

    use super::*;

    /// In one they would be more than a peer takes, and the connection would break on them each time they are sent.
    #[test]
    fn calls_that_are_queued_together_leave_in_frames_that_a_peer_takes() {
        const LARGE: usize = 16 << 20;
        let (queue, mut waiting) = mpsc::unbounded_channel();
        for len in [10, LARGE, LARGE, 10, 10] {
            let (answer, _) = oneshot::channel();
            let (kind, range) = (pb::MessageKind::Unspecified, RangeId(4));
            let (to, body) = (ReplicaId::default(), Bytes::from(vec![0; len]));
            queue.send(Call { kind, range, to, body, answer }).unwrap();
        }
        let mut calls = CallsUnderWay::default();
        let mut frames = Vec::new();
        loop {
            calls.gather(&mut waiting);
            let messages = first_of(&mut calls.unsent);
            if messages.is_empty() {
                break;
            }
            let frame = Frame { messages, ..Frame::default() };
            assert!(frame.encoded_len() <= MESSAGE_LEN_MAX, "{} bytes", frame.encoded_len());
            frames.push(frame.messages.iter().map(|message| message.call).collect::<Vec<_>>());
        }
        assert_eq!(frames, [vec![1], vec![2], vec![3], vec![4, 5]]);
        assert_eq!(calls.waiting.len(), 5, "they all wait for their answers");
    }
}
