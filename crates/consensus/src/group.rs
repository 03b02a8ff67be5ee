//! One replica of one range: what a node can ask of its Raft group.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use latitude_probe::Mark;
use latitude_range::{Applied, Origin, Range, RangeMeta, Staged};
use latitude_storage::{Batch, Engine, View};
use latitude_types::{Epoch, NodeId, RangeId, ReplicaId, Stamp, Timestamp};
use openraft::async_runtime::WatchReceiver;
use openraft::entry::RaftEntry;
use openraft::errors::{
    ClientWriteError, Fatal, ForwardReason, ForwardToLeader, LinearizableReadError, RaftError,
};
use openraft::impls::ProgressResponder;
use openraft::raft::VoteResponse;
use openraft::{Instant, LinearizerOption, Raft, ServerState};
use tokio::sync::watch;
use tokio::time::Instant as TokioInstant;

use crate::acks::Acks;
use crate::audit::{AuditOutcome, Audits};
use crate::committer::Committer;
use crate::log::RangeLog;
use crate::machine::{self, ClosedUsed, Progress, StateMachine, Watched};
use crate::network::{Network, Transport};
use crate::settings::Settings;
use crate::snapshot::Snapshots;
use crate::snapshot::install::{self, Place};
use crate::snapshot::receive::Receiver;
use crate::types::{Entry, LeaderId, LeaderToken, LogId, Membership, Proposal, TypeConfig};
use crate::wire::{self, Request, Response};

/// What every group of a node shares.
#[derive(Clone)]
pub struct GroupContext {
    /// The node's store.
    pub engine: Arc<dyn Engine>,
    /// Its group commit.
    pub committer: Committer,
    /// Its way to other nodes.
    pub transport: Arc<dyn Transport>,
    /// Raft's timing, the same on every node.
    pub settings: Settings,
    /// What its snapshots share.
    pub snapshots: Snapshots,
    /// Set while the node must keep silent after its start, because leases may rest on what it promised
    /// before: until then its replicas that have ever voted neither vote, nor campaign, nor take over.
    pub silent_until: Option<TokioInstant>,
}

/// A range as all its founding replicas begin it: each writes the same rows, so that none has to
/// initialize the others and a late one fits in as if it had been there.
#[derive(Clone, Debug)]
pub struct Birth {
    /// The range's metadata.
    pub meta: RangeMeta,
    /// Its voters.
    pub voters: Vec<ReplicaId>,
    /// Its replicas without a vote.
    pub learners: Vec<ReplicaId>,
}

/// The part a replica plays in its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Leads.
    Leader,
    /// Votes, and follows.
    Follower,
    /// Follows without a vote.
    Learner,
}

/// Who leads, as one replica knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leadership {
    /// The highest term seen.
    pub term: u64,
    /// The leader, if one is known.
    pub leader: Option<ReplicaId>,
    /// Set if this replica leads: to be given back with each proposal.
    pub token: Option<LeaderToken>,
}

/// What a replica knows of its group.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// Who leads.
    pub leadership: Leadership,
    /// The voters of the effective configuration.
    pub voters: BTreeSet<ReplicaId>,
    /// Whether a change of the voters is under way.
    pub joint: bool,
    /// The last entry in the log.
    pub last_index: u64,
    /// The last entry applied here.
    pub applied_index: u64,
    /// The first entry that is still in the log, or would be the next.
    pub first_index: u64,
    /// About how many bytes the log holds.
    pub log_bytes: u64,
    /// On the leader: the replicas whose log is known to equal the leader's.
    pub caught_up: BTreeSet<ReplicaId>,
    /// On the leader: the other replicas, learners among them, not heard from for more than two heartbeats,
    /// or not since it was seen here to lead, if that is as long ago.
    pub silent: BTreeSet<ReplicaId>,
}

impl GroupStatus {
    /// On the leader: the nodes of voters that are silent.
    pub fn silent_voters(&self) -> Vec<NodeId> {
        self.voters.intersection(&self.silent).map(|replica| replica.node).collect()
    }
}

/// A place in a range's log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct LogPosition {
    /// The leader's term.
    pub term: u64,
    /// The index.
    pub index: u64,
}

impl LogPosition {
    fn of(id: LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

/// A proposal that was committed and applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Where it stands.
    pub at: LogPosition,
    /// What it answered.
    pub applied: Applied,
}

/// Why a proposal was not applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProposeError {
    /// Certainly not appended: this replica does not lead, or not any more.
    NotLeader(Option<ReplicaId>),
    /// Certainly not appended: the leader has not heard from a quorum lately, or, newly elected, not yet.
    /// [`Group::read_index`] waits until it has.
    NoQuorum,
    /// It was appended, and another leader took over: it may have been committed.
    Unknown,
    /// The group stopped; it may have been committed.
    Stopped,
}

/// Why a read index could not be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// This replica does not lead.
    NotLeader(Option<ReplicaId>),
    /// Too few other voters answered; these replicas did.
    NoQuorum {
        /// Their nodes.
        heard: Vec<NodeId>,
    },
    /// The group stopped.
    Stopped,
}

/// Why leadership was not handed over.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TransferError {
    /// This replica does not lead.
    #[error("this replica does not lead the range")]
    NotLeader,
    /// The target is no voter.
    #[error("{0} holds no voter of the range")]
    NotVoter(NodeId),
    /// The target's log is behind: the range would be without a leader until it caught up.
    #[error("{0} has not caught up")]
    Behind(NodeId),
    /// The voters are being changed.
    #[error("the range's voters are being changed")]
    Joint,
    /// The group stopped.
    #[error("the replica has stopped")]
    Stopped,
}

/// Why a replica cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("replica {replica} of range {range} cannot be opened: {source}")]
pub struct OpenError {
    /// The range.
    pub range: RangeId,
    /// The replica.
    pub replica: ReplicaId,
    /// What the store said.
    pub source: io::Error,
}

/// One replica of one range. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    range: RangeId,
    epoch: Epoch,
    replica: ReplicaId,
    pub(crate) raft: Raft<TypeConfig, StateMachine>,
    pub(crate) log: RangeLog,
    pub(crate) progress: watch::Receiver<Progress>,
    origins: watch::Receiver<Arc<[Origin]>>,
    closed_used: Arc<ClosedUsed>,
    audits: Audits,
    settings: Settings,
    pub(crate) snapshots: Snapshots,
    pub(crate) receiver: Receiver,
    /// Until then it keeps silent: see [`GroupContext::silent_until`].
    silent_until: Option<TokioInstant>,
    pub(crate) network: Network,
    /// The leadership last seen here, and since when.
    leads_since: Arc<Mutex<Option<(LeaderToken, TokioInstant)>>>,
    /// The leadership that was last given away, and to whom.
    handed_over: Arc<Mutex<Option<(LeaderToken, ReplicaId)>>>,
}

impl Birth {
    /// Puts the first rows of a replica into a batch: the metadata, and the log's entry 0, which names
    /// the voters and the learners.
    pub fn stage(&self, replica: ReplicaId, engine: &dyn Engine, batch: &mut Batch) {
        let mut staged = Staged::new(engine);
        Range::create(&self.meta, &mut staged);
        batch.append(staged.into_batch());
        let nobody = LeaderId { term: 0, node_id: ReplicaId::default() };
        let membership = Membership::new_with_defaults(
            vec![self.voters.iter().copied().collect()],
            self.voters.iter().chain(&self.learners).copied(),
        );
        let entry = Entry::new_membership(LogId { leader_id: nobody, index: 0 }, membership);
        RangeLog::stage_birth(self.meta.id, replica.generation, &entry, batch);
    }
}

impl Group {
    /// Opens a replica whose rows are in the store, and starts it.
    ///
    /// What the rows say is taken for durable: they are those of a store just opened, of a [`Birth`] just
    /// written, or of a replica that was [stopped](Group::stop).
    ///
    /// # Errors
    /// Something the replica may have acknowledged is damaged or missing.
    pub async fn open(
        context: &GroupContext,
        range: RangeId,
        replica: ReplicaId,
    ) -> Result<Self, OpenError> {
        let fail = |source| OpenError { range, replica, source };
        let GroupContext { engine, committer, transport, settings, snapshots, silent_until } =
            context;
        let place = Place {
            engine: Arc::clone(engine),
            committer: committer.clone(),
            range,
            generation: replica.generation,
            snapshots: snapshots.clone(),
        };
        install::resume(&place).await.map_err(fail)?;
        let log = RangeLog::open(
            Arc::clone(engine),
            committer.clone(),
            range,
            replica.generation,
            snapshots.settings.log_bytes_max,
        )
        .map_err(fail)?;
        let closed_used = Arc::new(ClosedUsed::default());
        let audits = Audits::new(Arc::clone(&snapshots.pace));
        let (machine, Watched { progress, origins }) = StateMachine::open(
            place.clone(),
            log.clone(),
            Arc::clone(&closed_used),
            audits.clone(),
        )
        .map_err(fail)?;
        log.check_complete(progress.borrow().index).map_err(fail)?;
        let network = Network {
            transport: Arc::clone(transport),
            range,
            from: replica,
            settings: *settings,
            place: place.clone(),
            acks: Acks::default(),
        };
        // A replica that never voted never promised anybody anything: a new range is led at once.
        let has_voted = log.has_voted().map_err(fail)?;
        let silent_until = silent_until.filter(|until| has_voted && TokioInstant::now() < *until);
        let config = settings.raft_config(silent_until.is_none());
        let raft = Raft::new(replica, config, network.clone(), log.clone(), machine)
            .await
            .map_err(|error| fail(io::Error::other(error)))?;
        Ok(Self {
            range,
            epoch: Epoch(1),
            replica,
            raft,
            log,
            progress,
            origins,
            closed_used,
            audits,
            settings: *settings,
            snapshots: snapshots.clone(),
            receiver: Receiver::new(place),
            silent_until,
            network,
            leads_since: Arc::default(),
            handed_over: Arc::default(),
        })
    }

    /// The range.
    pub fn range(&self) -> RangeId {
        self.range
    }

    /// The range's epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The range's origins, and how far each is folded in what is applied here. Told once it can be read.
    pub fn origins(&self) -> watch::Receiver<Arc<[Origin]>> {
        self.origins.clone()
    }

    /// This replica.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Campaigns, if nobody has ever voted in this group; else nothing.
    ///
    /// Elections are openraft's business, and asking for one beside it would break leases; but before the
    /// first vote there is no leader and no lease, and waiting out an election timeout serves nobody. The
    /// others are asked first whether they would vote: this replica may be the one that has not heard yet
    /// of the leader they have.
    pub async fn campaign_at_birth(&self) {
        if matches!(self.log.has_voted(), Ok(false)) && self.leadership().term == 0 {
            // A group that has stopped needs no leader.
            let _ = self.raft.trigger().elect(true).await;
        }
    }

    /// Who leads, as far as this replica knows now. A group that has stopped leads nothing.
    pub fn leadership(&self) -> Leadership {
        let mut leadership = leadership_of(&self.raft.server_metrics().borrow_watched());
        if self.raft.metrics().borrow_watched().running_state.is_err() {
            leadership = Leadership { leader: None, token: None, ..leadership };
        }
        self.note(&leadership);
        leadership
    }

    fn note(&self, leadership: &Leadership) {
        let mut since = self.leads_since();
        if since.map(|(token, _)| token) != leadership.token {
            *since = leadership.token.map(|token| (token, TokioInstant::now()));
        }
    }

    fn leads_since(&self) -> MutexGuard<'_, Option<(LeaderToken, TokioInstant)>> {
        self.leads_since.lock().expect("nothing panics while it holds this")
    }

    /// Resolves when what [`Group::leadership`] says may have changed; `Err` once the group has stopped.
    pub async fn leadership_changed(&self, seen: &Leadership) -> Result<Leadership, ReadError> {
        let mut metrics = self.raft.server_metrics();
        loop {
            let now = leadership_of(&metrics.borrow_watched());
            if now != *seen {
                self.note(&now);
                return Ok(now);
            }
            metrics.changed().await.map_err(|_| ReadError::Stopped)?;
        }
    }

    /// What this replica knows of its group.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let leadership = self.leadership();
        let membership = metrics.membership_config.membership().clone();
        let voters: BTreeSet<_> = membership.voter_ids().collect();
        let last_index = metrics.last_log_index.unwrap_or(0);
        let mut caught_up = BTreeSet::new();
        for (replica, matched) in metrics.replication.iter().flatten() {
            if matched.as_ref().is_some_and(|id| id.index == last_index) {
                caught_up.insert(*replica);
            }
        }
        let patience = 2 * self.settings.heartbeat_interval;
        // Who has not answered this leader yet is silent only once it has had the time to.
        let leads_long = self.leads_since().is_some_and(|(_, since)| since.elapsed() > patience);
        let mut silent = BTreeSet::new();
        for (replica, acked) in metrics.heartbeat.iter().flatten() {
            let heard = acked.as_ref().map_or(!leads_long, |at| at.elapsed() <= patience);
            if *replica != self.replica && !heard {
                silent.insert(*replica);
            }
        }
        GroupStatus {
            leadership,
            joint: membership.get_joint_config().len() > 1,
            voters,
            last_index,
            applied_index: self.progress.borrow().index,
            first_index: self.log.first_index(),
            log_bytes: self.log.bytes(),
            caught_up,
            silent,
        }
    }

    /// About how many bytes this replica's log holds.
    pub fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// The voters of the effective configuration.
    pub fn voters(&self) -> BTreeSet<ReplicaId> {
        self.raft.voter_ids().collect()
    }

    /// The nodes whose logs are known, here on the leader, to hold the entry at `at` durably. There may be
    /// more: this is what has been told so far.
    pub fn durable_on(&self, at: LogPosition) -> Vec<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let holds =
            |matched: &Option<LogId>| matched.as_ref().is_some_and(|id| LogPosition::of(*id) >= at);
        let mut nodes: Vec<_> = metrics
            .replication
            .iter()
            .flatten()
            .filter(|(_, matched)| holds(matched))
            .map(|(replica, _)| replica.node)
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// The largest stamp in this replica's log, applied or not: the clock of a new leader must be above it
    /// before it stamps (INV-3).
    pub fn stamp_max(&self) -> Stamp {
        self.log.stamp_max()
    }

    /// Hands an encoded entry to Raft under the given leadership.
    ///
    /// The entry has its place in the queue when this returns; the future it returns resolves when the
    /// entry is applied here, or will not be. Called by one task per range, in the order of stamps.
    pub async fn propose(
        &self,
        token: LeaderToken,
        entry: Bytes,
    ) -> Result<impl Future<Output = Result<Appended, ProposeError>> + Send + use<>, ProposeError>
    {
        let (responder, complete) = ProgressResponder::complete_only();
        self.raft
            .write(Proposal(entry))
            .with_leader(token.leader_id())
            .responder(responder)
            .await
            // The group had stopped before it took the proposal.
            .map_err(|_| ProposeError::NotLeader(None))?;
        Ok(async move {
            match complete.await {
                Ok(Ok(written)) => {
                    Ok(Appended { at: LogPosition::of(written.log_id), applied: written.data })
                }
                Ok(Err(error)) => Err(propose_error(error)),
                Err(_) => Err(ProposeError::Stopped),
            }
        })
    }

    /// The index that a linearizable read which began before this call must see applied, if a quorum has
    /// acknowledged a message that this leader sent less than `age_max` ago; `None` otherwise. Waits for no
    /// message.
    ///
    /// It is for the caller to know that `age_max` is less than what the voters keep (see the rule of leases
    /// in `latitude-consistency`).
    pub async fn lease_index(&self, age_max: Duration) -> Result<Option<u64>, ReadError> {
        let leadership = self.leadership();
        let token = leadership.token.ok_or(ReadError::NotLeader(leadership.leader))?;
        let option = LinearizerOption::new(Some(age_max), false).with_wait_timeout(Duration::ZERO);
        // That it is not handing over is openraft's to say.
        match self.raft.get_read_linearizer(option).await {
            Ok(_) => {}
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                return Err(ReadError::NotLeader(forward.leader_id));
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Mark::LeaseTooOld.hit();
                return Ok(None);
            }
            Err(RaftError::Fatal(_)) => return Err(ReadError::Stopped),
        }
        let standing = self.standing().await?;
        let Some(standing) = standing.filter(|standing| standing.leadership == token) else {
            return Err(ReadError::NotLeader(self.leadership().leader));
        };
        // Asked after: what is fresh now was fresh then.
        let held = self.network.acks.are_fresh(token, &standing.configs, age_max);
        Ok(held.then_some(standing.index))
    }

    /// Resolves once entry `index` is applied here.
    pub async fn applied(&self, index: u64) -> Result<(), ReadError> {
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(|progress| progress.index >= index).await;
        reached.map(drop).map_err(|_| ReadError::Stopped)
    }

    /// How it is timed.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How far this replica has applied its log, and the last stamp it applied.
    pub fn applied_position(&self) -> (LogPosition, Stamp) {
        let Progress { index, term, stamp, .. } = *self.progress.borrow();
        (LogPosition { term, index }, stamp)
    }

    /// The last entry whose effects `view` shows. What else is read there stands for exactly that place in the log, while
    /// [`Group::applied_position`] may fall behind the rows for a moment.
    ///
    /// # Errors
    /// The store cannot be read, or its row was not written by this version.
    pub fn applied_in(&self, view: &dyn View) -> io::Result<LogPosition> {
        let (applied, _) = machine::read_applied(view, self.range)?;
        Ok(applied.map(LogPosition::of).unwrap_or_default())
    }

    /// Up to which time the range may be closed at all: set while it is frozen for a merge.
    pub fn freeze(&self) -> Option<Timestamp> {
        self.progress.borrow().freeze
    }

    /// Everything up to `time` has been taken for applied here. An entry that comes at or below it stops the
    /// replica (INV-4).
    pub fn rely_on_closed(&self, time: Timestamp) {
        self.closed_used.note(time);
    }

    /// What came here of the audit that stands at `index` of the log; `None` if it is not applied yet, or was not
    /// applied since the replica was opened: it may have taken a snapshot of what came later.
    pub fn audit(&self, index: u64) -> Option<AuditOutcome> {
        self.audits.outcome(index)
    }

    /// Makes the checksums that audits ask for. Somebody must run this for every replica.
    pub fn make_audits(&self) -> impl Future<Output = ()> + Send + use<> {
        self.audits.clone().run()
    }

    /// The part this replica plays.
    pub fn role(&self) -> Role {
        if self.leadership().token.is_some() {
            Role::Leader
        } else if self.raft.voter_ids().any(|voter| voter == self.replica) {
            Role::Follower
        } else {
            Role::Learner
        }
    }

    /// Watches entries being applied: resolves with each change.
    pub fn watch_applied(&self) -> impl futures::Stream<Item = u64> + Send + 'static {
        futures::stream::unfold(self.progress.clone(), |mut progress| async move {
            progress.changed().await.ok()?;
            let index = progress.borrow_and_update().index;
            Some((index, progress))
        })
    }

    /// Hands leadership to the voter on `to`.
    ///
    /// A transfer that fails costs an election timeout without a leader, so it is refused unless the target
    /// has everything.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), TransferError> {
        let status = self.status();
        if status.leadership.token.is_none() {
            return Err(TransferError::NotLeader);
        }
        if status.joint {
            return Err(TransferError::Joint);
        }
        let target = status
            .voters
            .iter()
            .find(|replica| replica.node == to)
            .ok_or(TransferError::NotVoter(to))?;
        if *target == self.replica {
            return Ok(());
        }
        if !status.caught_up.contains(target) || status.silent.contains(target) {
            Mark::TransferRefused.hit();
            return Err(TransferError::Behind(to));
        }
        // Before it begins: from then on openraft's leader takes nothing and is to fall silent.
        *self.handed_over() = status.leadership.token.map(|leadership| (leadership, *target));
        self.raft.trigger().transfer_leader(*target).await.map_err(|_| TransferError::Stopped)
    }

    /// To whom that leadership was given away, if it was. openraft never takes a transfer back: if it fails, the
    /// leader must not be heard of until another one is elected.
    pub(crate) fn handed_over_to(&self, leadership: LeaderToken) -> Option<ReplicaId> {
        let handed_over = *self.handed_over();
        handed_over.filter(|(given, _)| *given == leadership).map(|(_, to)| to)
    }

    fn handed_over(&self) -> MutexGuard<'_, Option<(LeaderToken, ReplicaId)>> {
        self.handed_over.lock().expect("nothing panics while it holds this")
    }

    /// Whether the replica keeps silent: see [`GroupContext::silent_until`].
    pub fn is_silent(&self) -> bool {
        self.silent_until.is_some_and(|until| TokioInstant::now() < until)
    }

    /// Lets the replica campaign once its silence is over. Somebody must run this for a replica that was
    /// opened in a silence.
    pub async fn end_silence(&self) {
        if let Some(until) = self.silent_until {
            tokio::time::sleep_until(until).await;
            Mark::SilenceEnded.hit();
            self.raft.runtime_config().elect(true);
        }
    }

    /// Answers another replica's message.
    ///
    /// The message takes its place in Raft's queue when the future is first polled, so the order of first
    /// polls is the order of messages.
    pub(crate) fn handle(
        &self,
        body: &[u8],
    ) -> Result<impl Future<Output = io::Result<Vec<u8>>> + Send + use<>, io::Error> {
        let request = wire::decode::<Request>(body)?;
        let (raft, receiver) = (self.raft.clone(), self.receiver.clone());
        let silent = self.is_silent();
        let answer = async move {
            let response = match request {
                // A transfer's vote as well: it makes voters break their promise to the leader that began
                // it, and that may have been another life of that leader (pitfall 9).
                Request::Vote(_) | Request::PreVote(_) if silent => {
                    Mark::SilentVoteRefused.hit();
                    refuse_vote(&raft).await?
                }
                Request::TransferLeader { .. } if silent => {
                    return Err(io::Error::other("the node has just started and keeps silent"));
                }
                Request::Append { vote, prev, entries, leader_commit } => {
                    let request = wire::append_request(vote, prev, entries, leader_commit);
                    raft.append_entries(request).await.map_err(stopped)?.into()
                }
                Request::Vote(body) => {
                    Response::from(&raft.vote(body.into()).await.map_err(stopped)?)
                }
                Request::PreVote(body) => {
                    Response::from(&raft.pre_vote(body.into()).await.map_err(stopped)?)
                }
                Request::TransferLeader { from, to, last } => {
                    let result =
                        raft.handle_transfer_leader(wire::transfer_request(from, to, last)).await;
                    Response::TransferLeader(result.map_err(io::Error::other)?.map_err(Into::into))
                }
                Request::Snapshot(part) => Response::Snapshot(receiver.take(&raft, part).await?),
            };
            Ok(wire::encode(&response))
        };
        // Outside tokio's budget: were the first poll put off because the task that reads the connection
        // has done much already, the next message would overtake this one.
        Ok(tokio::task::unconstrained(answer).boxed())
    }

    /// Resolves when the group stops by itself, with the reason: a fault of its store or of ours.
    pub async fn failed(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            let state = metrics.borrow_watched().running_state.clone();
            match state {
                Err(Fatal::Stopped) => return std::future::pending().await,
                Err(error) => return error.to_string(),
                Ok(()) => {}
            }
            if metrics.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Stops the replica. It hears and says nothing more; once this returns it writes nothing either, and
    /// what it has written is durable, so that it can be opened again.
    pub async fn stop(&self) {
        // A group that is gone has stopped.
        let _ = self.raft.shutdown().await;
        // openraft does not wait for its state machine, which may be applying a last batch: the sender of
        // the progress goes with it.
        let mut progress = self.progress.clone();
        while progress.changed().await.is_ok() {}
        // A failure is the committer's to tell: the node stops.
        let _ = self.log.durable().await;
    }
}

/// The answer of a silent replica to whoever asks for its vote: no, and what it knows, so that the asker
/// learns of a higher term or a longer log.
async fn refuse_vote(raft: &Raft<TypeConfig, StateMachine>) -> io::Result<Response> {
    let refused = raft.with_raft_state(|state| {
        VoteResponse::new(state.vote_ref(), state.log_ids.last().cloned(), false)
    });
    Ok(Response::from(&refused.await.map_err(io::Error::other)?))
}

fn stopped(error: RaftError<TypeConfig>) -> io::Error {
    io::Error::other(error)
}

fn leadership_of(metrics: &openraft::metrics::RaftServerMetrics<TypeConfig>) -> Leadership {
    let leader_id = metrics.vote.leader_id;
    let leads = metrics.state == ServerState::Leader && metrics.vote.committed;
    Leadership {
        term: leader_id.term,
        leader: metrics.current_leader,
        token: leads.then(|| LeaderToken::of(leader_id)),
    }
}

fn propose_error(error: ClientWriteError<TypeConfig>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(ForwardToLeader {
            reason: ForwardReason::LeaseExpired,
            ..
        }) => {
            Mark::ProposalWithoutQuorum.hit();
            ProposeError::NoQuorum
        }
        ClientWriteError::ForwardToLeader(forward) => ProposeError::NotLeader(forward.leader_id),
        // Refused before it was appended: the leadership it was proposed under is over.
        ClientWriteError::PreconditionFailed(_) => ProposeError::NotLeader(None),
        ClientWriteError::LogEntryDiscarded(_) | ClientWriteError::ChangeMembershipError(_) => {
            Mark::ProposalLost.hit();
            ProposeError::Unknown
        }
    }
}
