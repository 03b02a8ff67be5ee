//! The connection to one node: one stream that everybody shares.
//!
//! ```text
//!   callers ──Job──▶ queue ──▶ ┌───────── event loop ─────────┐ ──CommandFrame──▶ node
//!                              │ pending: tag ▶ who waits      │
//!   callers ◀────── answer ─── └───────────────────────────────┘ ◀──ReplyFrame──── node
//! ```
//!
//! All commands that are ready leave in one frame, which costs a fraction of a call each. When the
//! stream breaks, what was in a frame is *unknown* and what was still queued certainly was not sent; the
//! loop then reconnects on its own and refuses newcomers meanwhile, so that they go elsewhere at once.
//!
//! A link that is silent while something is outstanding is probed with `Hello`: a network that swallows
//! packets shows no other sign. The probes also measure the round trip, without the server's work.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use latitude_rpc::net::{Net, channel};
use latitude_rpc::pb::v1;
use latitude_rpc::pb::v1::admin_client::AdminClient;
use latitude_rpc::pb::v1::latitude_client::LatitudeClient;
use latitude_rpc::{MESSAGE_LEN_MAX, error_from_status};
use latitude_types::{Error, Outcome, Reason, Result, Timestamp};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tonic::Streaming;
use tonic::transport::Channel;
use tracing::debug;

use crate::ids::Ids;
use crate::lock;

/// The most commands in a frame.
const FRAME_COMMANDS_MAX: usize = 512;
/// About the most bytes in a frame; one command alone may have more.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// What a command weighs beside what may be long: ids, tag, numbers.
const COMMAND_OVERHEAD: usize = 128;
/// The most a command may weigh: the message that carries it alone is a little longer.
const COMMAND_WEIGHT_MAX: usize = MESSAGE_LEN_MAX - 1024;
/// The most commands sent and not answered.
const IN_FLIGHT_MAX: usize = 8192;
/// The most commands waiting to be put in a frame; more wait in their callers.
const QUEUE_MAX: usize = 1024;
/// How long a connection may take to come about, stream included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a probe may take before the connection counts as dead.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a link in use looks after itself.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often a link in use measures the round trip.
const MEASURE_INTERVAL: Duration = Duration::from_secs(5);
/// Of how many recent measurements the smallest counts.
const ROUND_TRIPS_KEPT: usize = 8;
const RECONNECT_WAIT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(1);
/// After so many failed reconnections in a row a link rests until it is wanted again.
const RECONNECTS_MAX: u32 = 30;

/// The connection to one address.
#[derive(Debug)]
pub(crate) struct Link {
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
}

impl Link {
    /// Starts a link: spawns its event loop, which connects when the first command comes. It ends when
    /// the link is dropped.
    pub(crate) fn start(
        net: Arc<dyn Net>,
        address: &str,
        region: &str,
        ids: Arc<Ids>,
        seed: u64,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            channel: Mutex::new(new_channel(&net, address)?),
            net,
            address: address.to_string(),
            region: region.to_string(),
            ids,
            round_trips: Mutex::default(),
            frames_heard: AtomicU64::new(0),
            doubtful: AtomicBool::new(false),
        });
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(Arc::clone(&shared), queue, SmallRng::seed_from_u64(seed)));
        Ok(Self { jobs, shared })
    }

    /// Where the node is.
    pub(crate) fn address(&self) -> &str {
        &self.shared.address
    }

    /// Whether the event loop is gone, because the runtime that ran it is.
    pub(crate) fn is_dead(&self) -> bool {
        self.jobs.is_closed()
    }

    /// The smallest recent round trip, if any was measured.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        lock(&self.shared.round_trips).iter().min().copied()
    }

    /// Whether the node has lately been silent or unreachable: ask another one first.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.shared.doubtful.load(Ordering::Relaxed)
    }

    /// Sends a command and waits for its reply for `patience`, and no longer than until `deadline`.
    ///
    /// The outcome of an error is exact: `Unknown` only if the command was in a frame. A reply that says
    /// the command failed is a reply. A command that no frame can carry is refused: to try would end the stream, and
    /// all that is on it.
    pub(crate) async fn send(
        &self,
        command: v1::Command,
        patience: Duration,
        deadline: Instant,
    ) -> Result<v1::Reply> {
        let heard = self.shared.frames_heard.load(Ordering::Relaxed);
        let give_up = (Instant::now() + patience).min(deadline);
        let claim = Claim::default();
        let (reply, answer) = oneshot::channel();
        let job = Job { command, claim: claim.clone(), reply };
        let weight = job.weight();
        if weight > COMMAND_WEIGHT_MAX {
            let message = format!(
                "the command has about {weight} bytes, and a message carries up to {COMMAND_WEIGHT_MAX}: send less"
            );
            return Err(Error::new(Reason::ValueTooLarge, message));
        }
        let address = &self.shared.address;
        match timeout_at(give_up, self.jobs.send(job)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.ended(&claim)),
            Err(_) => {
                let message = format!("the queue to {address} has been full for {patience:?}");
                return Err(Error::new(Reason::Unreachable, message));
            }
        }
        match timeout_at(give_up, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.ended(&claim)),
            Err(_) => {
                let silent = self.shared.frames_heard.load(Ordering::Relaxed) == heard;
                if silent && give_up < deadline {
                    self.shared.doubtful.store(true, Ordering::Relaxed);
                }
                let message = format!("{address} has not answered in time");
                let outcome = claim.withdraw();
                Err(Error { outcome, ..Error::new(Reason::Unreachable, message) })
            }
        }
    }

    fn ended(&self, claim: &Claim) -> Error {
        let message =
            format!("the connection to {} was closed by this client", self.shared.address);
        Error { outcome: claim.withdraw(), ..Error::new(Reason::Unreachable, message) }
    }

    /// Asks the node who it is; takes in its clock and the round trip.
    pub(crate) async fn hello(&self, patience: Duration) -> Result<v1::HelloReply> {
        self.shared.hello(self.shared.client(), patience).await
    }

    /// Asks the node where ranges are.
    pub(crate) async fn locate(
        &self,
        request: v1::LocateRequest,
        patience: Duration,
    ) -> Result<v1::LocateReply> {
        let mut client = self.shared.client();
        self.shared.unary(patience, client.locate(request)).await
    }

    /// A client of the node's administration.
    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(lock(&self.shared.channel).clone())
            .max_decoding_message_size(MESSAGE_LEN_MAX)
    }

    /// Runs a unary call. One that is not answered in time makes the next call open a new connection.
    pub(crate) async fn unary<T>(
        &self,
        patience: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T> {
        self.shared.unary(patience, call).await
    }
}

/// Who may decide about a command that has not left yet: the event loop claims it to send it, the
/// caller to withdraw it. The first one wins, so that exactly what was sent counts as unknown.
#[derive(Debug, Clone, Default)]
struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Whether the command may be sent.
    fn send(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Takes the command back: certainly not applied if it had not been sent.
    fn withdraw(&self) -> Outcome {
        if self.0.swap(true, Ordering::AcqRel) { Outcome::Unknown } else { Outcome::NotApplied }
    }
}

/// A command and who waits for its reply.
#[derive(Debug)]
struct Job {
    command: v1::Command,
    claim: Claim,
    reply: oneshot::Sender<Result<v1::Reply>>,
}

impl Job {
    fn weight(&self) -> usize {
        use v1::command::Operation;
        let data = match &self.command.operation {
            Some(Operation::Put(put)) => put.key.len() + put.value.len() + put.context.len(),
            Some(Operation::CompareAndSet(cas)) => {
                let expected = match &cas.expected {
                    Some(v1::compare_and_set::Expected::Value(value)) => value.len(),
                    _ => 0,
                };
                cas.key.len() + expected + cas.new_value.as_ref().map_or(0, |new| new.len())
            }
            Some(Operation::Get(get)) => get.key.len(),
            Some(Operation::Delete(delete)) => delete.key.len() + delete.context.len(),
            Some(Operation::Scan(scan)) => {
                scan.start.len() + scan.end.as_ref().map_or(0, |end| end.len())
            }
            Some(Operation::CounterAdd(add)) => add.key.len(),
            Some(Operation::CounterReset(reset)) => reset.key.len(),
            Some(Operation::SetAdd(add)) => add.key.len() + add.element.len(),
            Some(Operation::SetRemove(remove)) => remove.key.len() + remove.element.len(),
            Some(Operation::MapPut(put)) => put.key.len() + put.field.len() + put.value.len(),
            Some(Operation::MapRemove(remove)) => remove.key.len() + remove.field.len(),
            Some(Operation::FlagEnable(enable)) => enable.key.len(),
            Some(Operation::FlagDisable(disable)) => disable.key.len(),
            None => 0,
        };
        let v1::Command { keyspace, token, request_id, .. } = &self.command;
        data + keyspace.len() + token.len() + request_id.len() + COMMAND_OVERHEAD
    }

    /// Tells the caller that the command was not sent. A caller who no longer waits does not mind.
    fn refuse(self, why: &Error) {
        let error = Error { outcome: Outcome::NotApplied, ..why.clone() };
        let _ = self.reply.send(Err(error));
    }
}

/// What the link and its event loop both see.
struct Shared {
    net: Arc<dyn Net>,
    address: String,
    region: String,
    ids: Arc<Ids>,
    /// The connection for the next call; replaced when it is found dead.
    channel: Mutex<Channel>,
    round_trips: Mutex<VecDeque<Duration>>,
    /// Counts signs of life.
    frames_heard: AtomicU64,
    doubtful: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("address", &self.address).finish_non_exhaustive()
    }
}

fn new_channel(net: &Arc<dyn Net>, address: &str) -> Result<Channel> {
    channel(Arc::clone(net), address, OPEN_TIMEOUT).map_err(|error| {
        let message = format!("{address:?} is not an address (host:port): {error}");
        Error::new(Reason::ArgumentInvalid, message)
    })
}

impl Shared {
    fn client(&self) -> LatitudeClient<Channel> {
        LatitudeClient::new(lock(&self.channel).clone())
            .max_decoding_message_size(MESSAGE_LEN_MAX)
            .max_encoding_message_size(MESSAGE_LEN_MAX)
    }

    /// Leaves the connection to those who still use it; the next call opens a new one.
    fn renew(&self) {
        if let Ok(channel) = new_channel(&self.net, &self.address) {
            *lock(&self.channel) = channel;
        }
    }

    fn heard(&self) {
        self.frames_heard.fetch_add(1, Ordering::Relaxed);
        self.doubtful.store(false, Ordering::Relaxed);
    }

    async fn unary<T>(
        &self,
        patience: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T> {
        match timeout(patience, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.explain(&status)),
            Err(_) => {
                self.renew();
                // Not the nearest any more, until it is measured again.
                lock(&self.round_trips).clear();
                let message = format!("{} has not answered in {patience:?}", self.address);
                Err(Error::unknown(Reason::Unreachable, message))
            }
        }
    }

    /// The error of a status, with the node's address where the gRPC library made it.
    fn explain(&self, status: &tonic::Status) -> Error {
        let error = error_from_status(status);
        if error.reason != Reason::Unreachable {
            return error;
        }
        let mut message = format!("{}: {}", self.address, error.message);
        let mut source = std::error::Error::source(status);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Error { message, ..error }
    }

    async fn hello(
        &self,
        mut client: LatitudeClient<Channel>,
        patience: Duration,
    ) -> Result<v1::HelloReply> {
        let asked = Instant::now();
        let request = v1::HelloRequest { region: self.region.clone() };
        let reply = self.unary(patience, client.hello(request)).await?;
        let mut round_trips = lock(&self.round_trips);
        round_trips.push_back(asked.elapsed());
        if round_trips.len() > ROUND_TRIPS_KEPT {
            round_trips.pop_front();
        }
        drop(round_trips);
        self.ids.observe(&self.address, Timestamp(reply.clock));
        Ok(reply)
    }

    /// Opens the stream.
    async fn open(&self) -> Result<Stream> {
        // One frame ahead: whatever comes while the connection is busy goes into the next frame.
        let (outgoing, mut frames) = mpsc::channel(1);
        let frames = futures::stream::poll_fn(move |cx| frames.poll_recv(cx));
        let mut client = self.client();
        let incoming = self.unary(OPEN_TIMEOUT, client.stream(frames)).await?;
        Ok(Stream { client, outgoing, incoming })
    }
}

struct Stream {
    /// A client of the stream's own connection: the link may have opened another one since.
    client: LatitudeClient<Channel>,
    outgoing: mpsc::Sender<v1::CommandFrame>,
    incoming: Streaming<v1::ReplyFrame>,
}

/// The event loop. Ends when the link is dropped.
async fn run(shared: Arc<Shared>, mut jobs: mpsc::Receiver<Job>, mut rng: SmallRng) {
    loop {
        let mut pump = Pump::new(&shared);
        // Nothing to do until somebody wants something.
        if jobs.recv_many(&mut pump.backlog, FRAME_COMMANDS_MAX).await == 0 {
            return;
        }
        let mut failure = match shared.open().await {
            Ok(stream) => match pump.run(stream, &mut jobs).await {
                Some(failure) => failure,
                None => return,
            },
            Err(failure) => failure,
        };
        pump.fail(&failure);

        let mut failed = 0;
        while failed < RECONNECTS_MAX {
            debug!(address = shared.address, %failure, "connection lost");
            shared.doubtful.store(true, Ordering::Relaxed);
            shared.renew();
            let wait = (RECONNECT_WAIT_MIN * 2u32.pow(failed.min(8))).min(RECONNECT_WAIT_MAX);
            let wait = wait.mul_f64(rng.random_range(0.5..1.0));
            let reopen = async {
                sleep(wait).await;
                shared.open().await
            };
            tokio::pin!(reopen);
            let reopened = loop {
                tokio::select! {
                    biased;
                    reopened = &mut reopen => break reopened,
                    job = jobs.recv() => match job {
                        Some(job) => job.refuse(&failure),
                        None => return,
                    },
                }
            };
            failure = match reopened {
                Ok(stream) => {
                    failed = 0;
                    let mut pump = Pump::new(&shared);
                    let Some(failure) = pump.run(stream, &mut jobs).await else { return };
                    pump.fail(&failure);
                    failure
                }
                Err(failure) => {
                    failed += 1;
                    failure
                }
            };
        }
        // Rests: whoever wants the node next tries it himself.
        shared.doubtful.store(false, Ordering::Relaxed);
    }
}

/// One stream's life.
struct Pump<'a> {
    shared: &'a Arc<Shared>,
    /// Taken from the queue and not yet in a frame.
    backlog: Vec<Job>,
    /// In a frame and not answered, by tag.
    pending: BTreeMap<u64, oneshot::Sender<Result<v1::Reply>>>,
    next_tag: u64,
}

impl<'a> Pump<'a> {
    fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared, backlog: Vec::new(), pending: BTreeMap::new(), next_tag: 1 }
    }

    /// Moves commands and replies until the stream breaks, and says why; `None` if the link was dropped.
    async fn run(&mut self, stream: Stream, jobs: &mut mpsc::Receiver<Job>) -> Option<Error> {
        let Stream { client, outgoing, mut incoming } = stream;
        self.shared.heard();
        let mut probe: Option<BoxFuture<'static, Result<()>>> = Some(self.probe(&client));
        let mut probed_at = Instant::now();
        let mut heard = self.shared.frames_heard.load(Ordering::Relaxed);
        let mut used = false;
        let mut check_at = Instant::now() + CHECK_INTERVAL;
        loop {
            let room = self.pending.len() < IN_FLIGHT_MAX;
            tokio::select! {
                biased;
                frame = incoming.message() => match frame {
                    Ok(Some(frame)) => self.take(frame),
                    Ok(None) => {
                        let message = format!("{} closed the stream", self.shared.address);
                        return Some(Error::unknown(Reason::Unreachable, message));
                    }
                    Err(status) => return Some(self.shared.explain(&status)),
                },
                probed = async { probe.as_mut().expect("guarded").await }, if probe.is_some() => {
                    probe = None;
                    match probed {
                        Ok(()) => self.shared.heard(),
                        Err(failure) => return Some(failure),
                    }
                }
                permit = outgoing.reserve(), if room && !self.backlog.is_empty() => {
                    let Ok(permit) = permit else {
                        let message = format!("{} closed the stream", self.shared.address);
                        return Some(Error::unknown(Reason::Unreachable, message));
                    };
                    while self.backlog.len() < FRAME_COMMANDS_MAX {
                        let Ok(job) = jobs.try_recv() else { break };
                        self.backlog.push(job);
                    }
                    if !used && self.pending.is_empty() {
                        // The link was idle: its silence begins now.
                        check_at = Instant::now() + CHECK_INTERVAL;
                        heard = self.shared.frames_heard.load(Ordering::Relaxed);
                    }
                    let frame = self.frame();
                    if !frame.commands.is_empty() {
                        used = true;
                        permit.send(frame);
                    }
                }
                taken = jobs.recv_many(&mut self.backlog, FRAME_COMMANDS_MAX),
                    if room && self.backlog.is_empty() =>
                {
                    if taken == 0 {
                        return None;
                    }
                }
                () = sleep_until(check_at), if used || !self.pending.is_empty() => {
                    check_at = Instant::now() + CHECK_INTERVAL;
                    let heard_now = self.shared.frames_heard.load(Ordering::Relaxed);
                    let silent = heard == heard_now && !self.pending.is_empty()
                        || self.shared.doubtful.load(Ordering::Relaxed);
                    heard = heard_now;
                    // Replies nobody waits for any more; they would hold their places until the end.
                    self.pending.retain(|_, reply| !reply.is_closed());
                    if probe.is_none() && (silent || probed_at.elapsed() >= MEASURE_INTERVAL) {
                        probed_at = Instant::now();
                        probe = Some(self.probe(&client));
                        used = false;
                    }
                }
            }
        }
    }

    fn probe(&self, client: &LatitudeClient<Channel>) -> BoxFuture<'static, Result<()>> {
        let (shared, client) = (Arc::clone(self.shared), client.clone());
        Box::pin(async move { shared.hello(client, PROBE_TIMEOUT).await.map(drop) })
    }

    /// The next frame: what is ready, as far as it fits. Empty if all of it had been withdrawn.
    fn frame(&mut self) -> v1::CommandFrame {
        let mut bytes = 0;
        let mut fits = 0;
        for job in self.backlog.iter().take(FRAME_COMMANDS_MAX) {
            bytes += job.weight();
            if fits > 0 && bytes > FRAME_BYTES_MAX {
                break;
            }
            fits += 1;
        }
        let mut commands = Vec::with_capacity(fits);
        for job in self.backlog.drain(..fits) {
            if job.reply.is_closed() || !job.claim.send() {
                continue;
            }
            let tag = self.next_tag;
            self.next_tag += 1;
            commands.push(v1::Command { tag, ..job.command });
            self.pending.insert(tag, job.reply);
        }
        v1::CommandFrame { commands }
    }

    fn take(&mut self, frame: v1::ReplyFrame) {
        self.shared.heard();
        if let Some(clock) = frame.replies.iter().map(|reply| reply.clock).max() {
            self.shared.ids.observe(&self.shared.address, Timestamp(clock));
        }
        for reply in frame.replies {
            // A tag that is not pending belongs to a command that was given up.
            if let Some(waiting) = self.pending.remove(&reply.tag) {
                let _ = waiting.send(Ok(reply));
            }
        }
    }

    /// Ends the life of a stream: what was sent is unknown, the rest certainly was not sent.
    fn fail(&mut self, why: &Error) {
        // First, so that whoever is told here does not come straight back.
        self.shared.doubtful.store(true, Ordering::Relaxed);
        for (_, waiting) in std::mem::take(&mut self.pending) {
            let error = Error::unknown(Reason::Unreachable, why.message.clone());
            let _ = waiting.send(Err(error));
        }
        let why = Error::new(Reason::Unreachable, why.message.clone());
        for job in self.backlog.drain(..) {
            job.refuse(&why);
        }
    }
}
