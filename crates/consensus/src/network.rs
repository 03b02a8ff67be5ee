//! openraft's network: one replica's messages to another, over the [`Transport`] port.
//!
//! ```text
//!   openraft ── request stream ──▶ Peer::stream_append ── many in flight ──▶ Transport::call
//!            ◀── answers, in order ──────────┘
//! ```

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use latitude_types::{RangeId, ReplicaId};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};

use crate::acks::Acks;
use crate::settings::Settings;
use crate::snapshot::install::Place;
use crate::snapshot::{SnapshotData, send};
use crate::types::{LogId, TypeConfig, Vote};
use crate::wire::{self, Request, Response};

/// Requests of one replication stream under way at once.
const PIPELINE_MAX: usize = 32;

/// Which of a node pair's connections a message takes, so that one kind does not wait behind another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Small and urgent.
    Heartbeat,
    /// Log entries and votes.
    Raft,
    /// Snapshots.
    Bulk,
    /// Local writes, as they are taken.
    Stream,
}

/// A message was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(pub String);

/// Carries messages between replicas.
pub trait Transport: Send + Sync + 'static {
    /// Sends `body` to a replica of a range and resolves with its answer.
    ///
    /// The message takes its place on the connection *before* this returns, so that messages sent one
    /// after the other to the same node and class arrive in that order. Without a connection the future
    /// fails, at once or when the attempt to make one has.
    fn call(
        &self,
        to: ReplicaId,
        range: RangeId,
        class: Class,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>>;
}

/// Makes the connections of one replica.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) range: RangeId,
    pub(crate) from: ReplicaId,
    pub(crate) settings: Settings,
    /// What snapshots are made of.
    pub(crate) place: Place,
    /// Takes down who has acknowledged what this replica sent as a leader.
    pub(crate) acks: Acks,
}

impl Network {
    /// A replica as this one reaches it, by one class of connection.
    pub(crate) fn peer(&self, target: ReplicaId, class: Class) -> Peer {
        Peer { network: self.clone(), target, class }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: ReplicaId, _node: &EmptyNode) -> Peer {
        self.peer(target, Class::Raft)
    }

    async fn new_heartbeat_client(&mut self, target: ReplicaId, _node: &EmptyNode) -> Peer {
        self.peer(target, Class::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: ReplicaId, _node: &EmptyNode) -> Peer {
        self.peer(target, Class::Bulk)
    }
}

/// One replica as another one reaches it.
pub(crate) struct Peer {
    pub(crate) network: Network,
    pub(crate) target: ReplicaId,
    class: Class,
}

/// What a line carries at least, in bytes a second: 8 Mbit/s.
const CARRIED_PER_SECOND: usize = 1 << 20;

/// How much longer than a small message one of this length may be on its way. Without this a line that is slower than
/// timeouts are short would never carry it, however often it is sent.
pub fn carry_time(bytes: usize) -> Duration {
    Duration::from_secs_f64(bytes as f64 / CARRIED_PER_SECOND as f64)
}

impl Peer {
    /// Sends at once; the answer must come within `timeout`, and what carrying the request takes.
    pub(crate) fn call(
        &self,
        kind: RPCTypes,
        class: Class,
        request: &Request,
        timeout: Duration,
    ) -> impl Future<Output = Result<Response, RPCError<TypeConfig>>> + Send + use<> {
        let Network { transport, range, from, acks, .. } = &self.network;
        let sent = acks.sending();
        let leads = request.leadership().map(|leadership| (acks.clone(), leadership));
        let body = Bytes::from(wire::encode(request));
        let timeout = timeout + carry_time(body.len());
        let answer = transport.call(self.target, *range, class, body);
        let (from, target) = (*from, self.target);
        async move {
            match tokio::time::timeout(timeout, answer).await {
                Ok(Ok(body)) => {
                    let response = wire::decode::<Response>(&body);
                    if let (Some((acks, leadership)), Ok(true)) =
                        (leads, response.as_ref().map(Response::acknowledges))
                    {
                        acks.note(leadership, target, sent);
                    }
                    response.map_err(|error| unreachable(&error))
                }
                Ok(Err(error)) => Err(unreachable(&error)),
                Err(_) => {
                    Err(RPCError::Timeout(Timeout { action: kind, id: from, target, timeout }))
                }
            }
        }
    }
}

fn unreachable(error: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

/// An answer to another question than was asked.
pub(crate) fn unexpected(response: &Response) -> RPCError<TypeConfig> {
    unreachable(&TransportError(format!("the peer answered something else: {response:?}")))
}

fn into_append(
    response: Response,
) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
    match response {
        Response::Append(answer) => Ok(answer.into()),
        other => Err(unexpected(&other)),
    }
}

fn into_vote(response: Response) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
    match response {
        Response::Vote { vote, granted, last } => Ok(wire::vote_response(vote, granted, last)),
        other => Err(unexpected(&other)),
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        into_append(
            self.call(RPCTypes::AppendEntries, self.class, &(&rpc).into(), option.hard_ttl())
                .await?,
        )
    }

    /// Sends requests as openraft has them, without waiting for the answers to earlier ones, and yields
    /// the answers in the order of the requests.
    ///
    /// The returned stream is always `Ok` and takes its first request before it can fail: openraft waits
    /// out its backoff when it is asked for a request, so a stream that failed without asking would be
    /// made again at once, for ever, at the price of a core.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendAnswers<'s>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let pipeline = Pipeline { peer: self, input, in_flight: VecDeque::new(), ended: false };
        let answers = futures::stream::unfold(Some(pipeline), |pipeline| async move {
            let mut pipeline = pipeline?;
            let answer = pipeline.next_answer().await?;
            // openraft sends nothing more on a stream that ran into an error or stopped half-way.
            let goes_on = matches!(&answer, Ok((Ok(_), Completeness::Whole)));
            Some((answer.map(|(result, _)| result), goes_on.then_some(pipeline)))
        });
        async move { Ok(answers.boxed()) }.boxed()
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let timeout = self.network.settings.vote_timeout();
        into_vote(
            self.call(RPCTypes::Vote, Class::Raft, &Request::Vote((&rpc).into()), timeout).await?,
        )
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        // openraft's own version grants without asking anybody.
        let timeout = self.network.settings.vote_timeout();
        into_vote(
            self.call(RPCTypes::Vote, Class::Raft, &Request::PreVote((&rpc).into()), timeout)
                .await?,
        )
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        // What it stands for is read when it is sent.
        _snapshot: openraft::alias::SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = Box::pin(send::send(self, vote)) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let timeout = self.network.settings.vote_timeout();
        match self.call(RPCTypes::TransferLeader, Class::Raft, &(&req).into(), timeout).await? {
            Response::TransferLeader(result) => Ok(result.map_err(Into::into)),
            other => Err(unexpected(&other)),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        // A node that comes back should be heard within a heartbeat, and one that does not costs a
        // message per range and interval.
        let wait = self.network.settings.heartbeat_interval.min(Duration::from_millis(500));
        Some(Backoff::new(std::iter::repeat(wait)))
    }
}

type AppendAnswers<'s> =
    BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Completeness {
    Whole,
    Partial,
}

type Answer = Result<(StreamAppendResult<TypeConfig>, Completeness), RPCError<TypeConfig>>;

/// A replication stream: requests under way, oldest first.
struct Pipeline<'s, S> {
    peer: &'s mut Peer,
    input: S,
    in_flight: VecDeque<BoxFuture<'static, Answer>>,
    ended: bool,
}

impl<S> Pipeline<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
{
    /// The answer to the oldest request; sends what else is ready while it waits. `None`: no request is
    /// left and none will come.
    async fn next_answer(&mut self) -> Option<Answer> {
        loop {
            let takes_more = !self.ended && self.in_flight.len() < PIPELINE_MAX;
            tokio::select! {
                biased;
                request = self.input.next(), if takes_more => match request {
                    Some(request) => self.send(request),
                    None => self.ended = true,
                },
                Some(answer) = oldest(&mut self.in_flight), if !self.in_flight.is_empty() => {
                    self.in_flight.pop_front();
                    return Some(answer);
                }
                else => return None,
            }
        }
    }

    fn send(&mut self, request: AppendEntriesRequest<TypeConfig>) {
        if !is_of_one_leadership(&request) {
            let error =
                TransportError("the log changed under the stream: it is another leader's".into());
            self.in_flight.push_back(async move { Err(unreachable(&error)) }.boxed());
            return;
        }
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let timeout = self.peer.network.settings.append_timeout();
        let wire = Request::from(&request);
        let response = self.peer.call(RPCTypes::AppendEntries, self.peer.class, &wire, timeout);
        self.in_flight.push_back(
            async move {
                let response = into_append(response.await?)?;
                let completeness = completeness(&response, last.as_ref());
                Ok((response.into_stream_result(prev, last), completeness))
            }
            .boxed(),
        );
    }
}

/// Whether the entries are the sender's own log, as it was when the sender led.
///
/// A leader that is deposed has its log cut and overwritten while its streams may still be reading it.
/// What they read then, behind an entry that is gone, would forge a log that nobody ever had; a receiver
/// that knows of no newer vote would take it.
fn is_of_one_leadership(request: &AppendEntriesRequest<TypeConfig>) -> bool {
    let leaders = request.entries.iter().map(|entry| entry.log_id.leader_id);
    let vote = std::iter::once(request.vote.leader_id);
    let prev = request.prev_log_id.iter().map(|id| id.leader_id);
    prev.chain(leaders).chain(vote).is_sorted()
}

async fn oldest(in_flight: &mut VecDeque<BoxFuture<'static, Answer>>) -> Option<Answer> {
    match in_flight.front_mut() {
        Some(answer) => Some(answer.await),
        None => None,
    }
}

fn completeness(
    response: &AppendEntriesResponse<TypeConfig>,
    last: Option<&LogId>,
) -> Completeness {
    match response {
        AppendEntriesResponse::PartialSuccess(taken) if taken.as_ref() != last => {
            Completeness::Partial
        }
        _ => Completeness::Whole,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use latitude_storage::Engine;
    use latitude_storage::memory::{MemoryDisk, MemoryEngine};
    use latitude_types::{Generation, NodeId};
    use openraft::entry::RaftEntry;
    use tokio::sync::oneshot;

    use super::*;
    use crate::committer::{Committer, FlushInline};
    use crate::snapshot::{NoFailpoints, SnapshotSettings, Snapshots};
    use crate::types::{Entry, LeaderId};
    use crate::wire::AppendAnswer;

    fn replica(node: u32) -> ReplicaId {
        ReplicaId { node: NodeId(node), generation: Generation(1) }
    }

    fn peer(transport: Arc<dyn Transport>) -> Peer {
        let settings = Settings::for_round_trip(Duration::from_millis(10));
        let engine: Arc<dyn Engine> =
            Arc::new(MemoryEngine::open(&MemoryDisk::new()).expect("nobody has it open"));
        let snapshots =
            Snapshots::open(&*engine, SnapshotSettings::default(), Arc::new(NoFailpoints));
        let (committer, _) = Committer::new(FlushInline(Arc::clone(&engine)));
        let place = Place {
            engine,
            committer,
            range: RangeId(7),
            generation: Generation(1),
            snapshots: snapshots.expect("the disk is new"),
        };
        let (range, from) = (RangeId(7), replica(1));
        let network = Network { transport, range, from, settings, place, acks: Acks::default() };
        Peer { network, target: replica(2), class: Class::Raft }
    }

    fn request(index: u64) -> AppendEntriesRequest<TypeConfig> {
        let leader_id = LeaderId { term: 1, node_id: replica(1) };
        let id = |index| LogId { leader_id, index };
        AppendEntriesRequest {
            vote: Vote { leader_id, committed: true },
            prev_log_id: Some(id(index - 1)),
            entries: vec![Entry::new_blank(id(index))],
            leader_commit: None,
        }
    }

    #[test]
    fn entries_of_a_later_leader_or_behind_a_later_one_are_not_of_one_leadership() {
        let with_terms = |prev: u64, entry: u64, vote: u64| {
            let mut request = request(5);
            let leader_id = |term| LeaderId { term, node_id: replica(1) };
            request.prev_log_id = Some(LogId { leader_id: leader_id(prev), index: 4 });
            request.entries =
                vec![Entry::new_blank(LogId { leader_id: leader_id(entry), index: 5 })];
            request.vote.leader_id = leader_id(vote);
            is_of_one_leadership(&request)
        };
        assert!(with_terms(1, 1, 1) && with_terms(1, 2, 2) && with_terms(1, 2, 3));
        assert!(!with_terms(2, 3, 2), "written by the leader after the sender");
        assert!(!with_terms(2, 1, 2), "behind an entry that is gone");
    }

    #[tokio::test]
    async fn a_stream_sends_nothing_of_another_leadership_and_ends() {
        let mut peer = peer(Arc::new(Down));
        let option = RPCOption::new(Duration::from_secs(1));
        let mut forged = request(5);
        forged.vote.leader_id.term = 0;
        let input = futures::stream::iter([forged]);
        let mut answers =
            peer.stream_append(input, option).await.expect("making the stream never fails");
        let Some(Err(error)) = answers.next().await else { panic!("an error was expected") };
        assert!(error.to_string().contains("another leader"), "{error}");
        assert!(answers.next().await.is_none());
    }

    struct Down;

    impl Transport for Down {
        fn call(
            &self,
            _: ReplicaId,
            _: RangeId,
            _: Class,
            _: Bytes,
        ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
            async { Err(TransportError("no connection".into())) }.boxed()
        }
    }

    #[tokio::test]
    async fn a_stream_to_an_unreachable_peer_takes_a_request_before_it_fails() {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let input = futures::stream::iter(1..).map(move |index| {
            counter.fetch_add(1, Ordering::Relaxed);
            request(index)
        });
        let mut peer = peer(Arc::new(Down));
        let option = RPCOption::new(Duration::from_secs(1));
        let mut answers =
            peer.stream_append(input, option).await.expect("making the stream never fails");
        assert_eq!(taken.load(Ordering::Relaxed), 0);
        assert!(matches!(answers.next().await, Some(Err(RPCError::Unreachable(_)))));
        assert!(taken.load(Ordering::Relaxed) >= 1);
        assert!(answers.next().await.is_none(), "the stream ends with its error");
    }

    /// Answers when the test says so, in any order.
    #[derive(Default)]
    struct Manual(Mutex<Vec<oneshot::Sender<Bytes>>>);

    impl Transport for Manual {
        fn call(
            &self,
            _: ReplicaId,
            _: RangeId,
            _: Class,
            _: Bytes,
        ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
            let (sender, receiver) = oneshot::channel();
            self.0.lock().expect("no panic holds it").push(sender);
            async move { receiver.await.map_err(|_| TransportError("dropped".into())) }.boxed()
        }
    }

    #[tokio::test]
    async fn requests_overtake_no_answer_and_answers_come_in_the_order_of_requests() {
        let transport = Arc::new(Manual::default());
        let mut peer = peer(Arc::clone(&transport) as Arc<dyn Transport>);
        let option = RPCOption::new(Duration::from_secs(1));
        let input = futures::stream::iter((1..=3).map(request));
        let mut answers =
            peer.stream_append(input, option).await.expect("making the stream never fails");
        assert!(futures::poll!(answers.next()).is_pending());
        let mut waiting = std::mem::take(&mut *transport.0.lock().expect("no panic holds it"));
        assert_eq!(waiting.len(), 3, "all three are under way before any is answered");
        let success = || Bytes::from(wire::encode(&Response::Append(AppendAnswer::Success)));
        for sender in waiting.drain(..).rev() {
            sender.send(success()).expect("the stream waits for it");
        }
        for index in 1..=3 {
            let answer = answers
                .next()
                .await
                .expect("an answer to each")
                .expect("no error")
                .expect("success");
            assert_eq!(answer.map(|id| id.index), Some(index));
        }
        assert!(answers.next().await.is_none());
    }
}
