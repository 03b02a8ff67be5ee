//! The one place where a range's entries are stamped, ordered and handed to Raft (INV-3).
//!
//! ```text
//!   operations ─▶ [ queue ] ─▶ as many as are waiting ─▶ one Entry: stamp, encode, propose ─▶ Raft
//!                                                               └── one task per range ──┘
//! ```
//!
//! Commands are gathered *before* Raft, because what costs there is the entry, not the command: while
//! entries are under way up to the limit, the next one fills up. On a fast network few entries are let
//! under way, so that they are large; over an ocean many, so that none waits for a round trip that is
//! not its own.
//!
//! The same section gives times to be closed (INV-4): what it stamped before is told apart from what it will
//! stamp after.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use latitude_consensus::{Appended, Group, LeaderToken, LogPosition, ProposeError, ReadError};
use latitude_probe::{Mark, Plant};
use latitude_range::{AUDIT_FORMAT, Audit, Body, Entry, Operation, Reply, Segment, Sweep, Write};
use latitude_types::{
    Error, KeyspaceId, LeaderHint, NodeId, RangeId, Reason, ReplicaId, Stamp, Timestamp,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::clock_keeper::Clock;
use crate::metrics::Metrics;

/// One entry carries at most this many operations ...
const OPERATIONS_MAX: usize = 1024;
/// ... and this many bytes of keys and values, unless a single operation has more.
const BYTES_MAX: usize = 1 << 20;
/// Entries under way at once where a commit takes less than [`FAST_COMMIT`], and where it takes more.
const IN_FLIGHT: (usize, usize) = (2, 16);
/// How long a new leader waits for its first quorum.
const FIRST_ROUND: Duration = Duration::from_secs(5);
const FAST_COMMIT: Duration = Duration::from_millis(5);

/// An operation's answer: its reply and where it stands in the log.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) reply: Reply,
    pub(crate) at: LogPosition,
    pub(crate) stamp: Stamp,
}

/// What waits to be in an entry.
enum Proposal {
    Operation {
        operation: Box<Operation>,
        /// The bug [`Plant::StampOutsideSection`]: a stamp taken before the section.
        early: Option<Timestamp>,
        answer: oneshot::Sender<Result<Written, Error>>,
    },
    /// Deltas for the base; ahead of every operation that comes after.
    Fold { segments: Vec<Segment>, answer: Done },
    /// A node may take local writes, is to stop, or has: an entry of its own.
    Origins { body: Body, answer: Done },
    /// What may go of some keys, goes: an entry of its own.
    Sweep { sweep: Sweep, answer: Done },
    /// Every replica makes the checksum of its base: an entry of its own.
    Audit { answer: oneshot::Sender<Result<LogPosition, Error>> },
}

/// Told once the entry is applied here, or why it is not.
type Done = oneshot::Sender<Result<(), Error>>;

/// A time between two entries of this leader: see [`Proposer::section`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    /// Above every stamp given before, below every one given after.
    pub(crate) time: Timestamp,
    /// How many entries had been stamped.
    given: u64,
    /// Under which leadership it was taken.
    token: LeaderToken,
}

/// What became of the entries so far.
#[derive(Clone, Copy, Default, Debug)]
struct Settled {
    /// The first so many have been answered, or have failed.
    count: u64,
    /// The latest leadership under which one was lost: appended, and then nobody knows.
    lost_under: Option<LeaderToken>,
}

type Asking = oneshot::Sender<Result<Section, Error>>;

/// Queues operations for a range. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Proposer {
    queue: mpsc::UnboundedSender<Proposal>,
    sections: mpsc::UnboundedSender<Asking>,
    settled: watch::Receiver<Settled>,
    /// Set for the bug [`Plant::StampOutsideSection`] alone.
    clock: Option<Clock>,
}

impl Proposer {
    /// A proposer, and the loop somebody must run for it.
    pub(crate) fn new(
        group: Group,
        keyspace: KeyspaceId,
        clock: Clock,
        node: NodeId,
        metrics: Arc<Metrics>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, waiting) = mpsc::unbounded_channel();
        let (sections, asking) = mpsc::unbounded_channel();
        let (settle, settled) = watch::channel(Settled::default());
        let early = Plant::StampOutsideSection.is_on().then(|| clock.clone());
        let stamper = Stamper { group, keyspace, clock, node, stamped_under: None, given: 0 };
        let run = run(stamper, metrics, waiting, asking, settle);
        (Self { queue, sections, settled, clock: early }, run)
    }

    /// A time of this leader's that separates what it has stamped from what it will stamp. An error if this
    /// replica does not lead.
    pub(crate) async fn section(&self) -> Result<Section, Error> {
        let (answer, received) = oneshot::channel();
        let gone = || Error::new(Reason::RangeNotHere, "the replica has just left this node");
        self.sections.send(answer).map_err(|_| gone())?;
        received.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Resolves once every entry that was stamped before the section, under its leadership, is applied here,
    /// or certainly was not appended.
    ///
    /// # Errors
    /// One was lost with the leadership: another leader may yet commit it, stamped below the section.
    pub(crate) async fn settled(&self, section: Section) -> Result<(), Error> {
        let mut settled = self.settled.clone();
        if settled.borrow().count < section.given {
            Mark::SectionWaits.hit();
        }
        let now = settled.wait_for(|settled| settled.count >= section.given).await;
        // What was lost under an earlier leadership is in the log by now, below the first entry of this one,
        // or will never be.
        match now.map(|settled| settled.lost_under) {
            Ok(lost) if lost < Some(section.token) => Ok(()),
            Ok(_) => Err(Error::new(
                Reason::LeaderChanged,
                "another leader took over while entries of this one were under way",
            )),
            Err(_) => Err(Error::new(Reason::RangeNotHere, "the replica has just left this node")),
        }
    }

    /// Proposes an operation and waits for its answer.
    pub(crate) async fn propose(&self, operation: Operation) -> Result<Written, Error> {
        let (answer, received) = oneshot::channel();
        let early = match &self.clock {
            Some(clock) => {
                let time = clock.now().await?;
                sleep(Duration::from_millis(time.ms() % 5)).await;
                Some(time)
            }
            None => None,
        };
        let operation = Box::new(operation);
        self.queue(Proposal::Operation { operation, early, answer })?;
        // Once queued it may have been appended, whatever became of the queue.
        received.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Queues a fold, before this returns, and resolves once it is applied here: ahead of every operation that
    /// is proposed after this call.
    pub(crate) fn fold(
        &self,
        segments: Vec<Segment>,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (answer, received) = oneshot::channel();
        self.queued(Proposal::Fold { segments, answer }, received)
    }

    /// Has an origin admitted or sealed, and resolves once that is applied here.
    pub(crate) fn change_origins(
        &self,
        body: Body,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (answer, received) = oneshot::channel();
        self.queued(Proposal::Origins { body, answer }, received)
    }

    /// Has part of the base swept, and resolves once that is applied here.
    pub(crate) fn sweep(
        &self,
        sweep: Sweep,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (answer, received) = oneshot::channel();
        self.queued(Proposal::Sweep { sweep, answer }, received)
    }

    /// Has every replica make the checksum of its base right after one entry, and says where that stands once it is
    /// applied here.
    pub(crate) async fn audit(&self) -> Result<LogPosition, Error> {
        let (answer, received) = oneshot::channel();
        self.queue(Proposal::Audit { answer })?;
        received.await.unwrap_or_else(|_| Err(stopped()))
    }

    fn queued(
        &self,
        proposal: Proposal,
        received: oneshot::Receiver<Result<(), Error>>,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let queued = self.queue(proposal);
        async move {
            queued?;
            received.await.unwrap_or_else(|_| Err(stopped()))
        }
    }

    fn queue(&self, proposal: Proposal) -> Result<(), Error> {
        let gone = |_| Error::new(Reason::RangeNotHere, "the replica has just left this node");
        self.queue.send(proposal).map_err(gone)
    }
}

/// Whoever holds it is in the section.
struct Stamper {
    group: Group,
    keyspace: KeyspaceId,
    clock: Clock,
    node: NodeId,
    stamped_under: Option<LeaderToken>,
    /// How many entries it has stamped.
    given: u64,
}

async fn run(
    mut stamper: Stamper,
    metrics: Arc<Metrics>,
    mut waiting: mpsc::UnboundedReceiver<Proposal>,
    mut asking: mpsc::UnboundedReceiver<Asking>,
    settle: watch::Sender<Settled>,
) {
    let range = stamper.group.range();
    let mut unsettled = BTreeSet::new();
    let mut under_way = FuturesUnordered::new();
    let mut commit_takes = Duration::ZERO;
    let mut held: Option<Proposal> = None;
    let stalls_after = stamper.group.settings().election_timeout_max;
    // No entry that is under way has ended for long, and what waits would be refused.
    let mut refuses = false;
    // When one ended last, or was looked at for that.
    let mut moved = Instant::now();
    loop {
        let limit = if commit_takes < FAST_COMMIT { IN_FLIGHT.0 } else { IN_FLIGHT.1 };
        let is_full = under_way.len() >= limit;
        let first = tokio::select! {
            biased;
            Some((entry, took, lost)) = under_way.next(), if !under_way.is_empty() => {
                (refuses, moved) = (false, Instant::now());
                unsettled.remove(&entry);
                settle.send_modify(|settled| {
                    settled.count = unsettled.first().copied().unwrap_or(stamper.given);
                    settled.lost_under = settled.lost_under.max(lost);
                });
                if let Some(took) = took {
                    // Follows a change within a few commits and forgets a hiccup as fast.
                    commit_takes = (commit_takes * 3 + took) / 4;
                }
                continue;
            }
            Some(answer) = asking.recv() => {
                drop(answer.send(stamper.section().await));
                continue;
            }
            first = next(&mut held, &mut waiting), if !is_full || refuses => match first {
                Some(first) => first,
                None => return,
            },
            // Not from here on: whoever asks for sections would put it off for ever.
            () = sleep_until(moved + stalls_after), if is_full && !refuses => {
                (refuses, moved) = (stamper.refusal().is_some(), Instant::now());
                continue;
            }
        };
        if is_full {
            // Raft refuses what comes now, but keeps what it has: without this the next would wait behind it and
            // nobody could say that it was never proposed.
            match stamper.refusal() {
                Some(error) => {
                    first.fail(&error);
                }
                None => (refuses, held) = (false, Some(first)),
            }
            continue;
        }
        let Batch { body, early, answers } = gather(first, &mut held, &mut waiting);
        if let Body::Write(write) = &body {
            metrics.observe_entry(write.operations.len());
        }
        match stamper.append(body, early).await {
            Ok((stamp, done)) => {
                let started = Instant::now();
                let (entry, token) = (stamper.given, stamper.stamped_under);
                stamper.given += 1;
                unsettled.insert(entry);
                moved = Instant::now();
                under_way.push(
                    async move {
                        let (took, lost) = match done.await {
                            Ok(appended) => {
                                answers.tell(appended, stamp);
                                (Some(started.elapsed()), None)
                            }
                            Err(error) => {
                                let error = into_error(range, error);
                                answers.fail(&error);
                                (None, token.filter(|_| error.may_have_applied()))
                            }
                        };
                        (entry, took, lost)
                    }
                    .boxed(),
                );
            }
            Err(error) => answers.fail(&error),
        }
    }
}

/// What one entry does, and who waits for it.
struct Batch {
    body: Body,
    early: Option<Timestamp>,
    answers: Answers,
}

#[derive(Default)]
struct Answers {
    /// In the order of the entry's operations.
    operations: Vec<oneshot::Sender<Result<Written, Error>>>,
    others: Vec<Done>,
    audit: Option<oneshot::Sender<Result<LogPosition, Error>>>,
}

impl Answers {
    fn tell(self, appended: Appended, stamp: Stamp) {
        for (answer, reply) in self.operations.into_iter().zip(appended.applied.replies) {
            drop(answer.send(Ok(Written { reply, at: appended.at, stamp })));
        }
        self.others.into_iter().for_each(|answer| drop(answer.send(Ok(()))));
        self.audit.into_iter().for_each(|answer| drop(answer.send(Ok(appended.at))));
    }

    fn fail(self, error: &Error) {
        self.operations.into_iter().for_each(|answer| drop(answer.send(Err(error.clone()))));
        self.others.into_iter().for_each(|answer| drop(answer.send(Err(error.clone()))));
        self.audit.into_iter().for_each(|answer| drop(answer.send(Err(error.clone()))));
    }
}

async fn next(
    held: &mut Option<Proposal>,
    waiting: &mut mpsc::UnboundedReceiver<Proposal>,
) -> Option<Proposal> {
    match held.take() {
        Some(proposal) => Some(proposal),
        None => waiting.recv().await,
    }
}

/// `first` and what else is waiting, as far as it fits; what does not is held for the next entry.
fn gather(
    first: Proposal,
    held: &mut Option<Proposal>,
    waiting: &mut mpsc::UnboundedReceiver<Proposal>,
) -> Batch {
    let mut answers = Answers::default();
    let (mut write, mut early) = (Write::default(), None);
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(proposal) = next {
        let is_first = write.operations.is_empty() && write.segments.is_empty();
        bytes += proposal.size();
        let fits = bytes <= BYTES_MAX && write.operations.len() < OPERATIONS_MAX;
        match proposal {
            // Nobody waits for it any more, and it was never proposed.
            Proposal::Operation { answer, .. } if answer.is_closed() && !is_first => {}
            proposal if !fits && !is_first => {
                *held = Some(proposal);
                break;
            }
            Proposal::Operation { operation, early: stamp, answer } => {
                early = stamp.or(early);
                write.operations.push(*operation);
                answers.operations.push(answer);
            }
            Proposal::Fold { segments, answer } => {
                write.segments.extend(segments);
                answers.others.push(answer);
            }
            Proposal::Origins { body, answer } if is_first => {
                answers.others.push(answer);
                return Batch { body, early: None, answers };
            }
            Proposal::Sweep { sweep, answer } if is_first => {
                answers.others.push(answer);
                return Batch { body: Body::Sweep(sweep), early: None, answers };
            }
            Proposal::Audit { answer } if is_first => {
                answers.audit = Some(answer);
                let body = Body::Audit(Audit { format: AUDIT_FORMAT });
                return Batch { body, early: None, answers };
            }
            alone
            @ (Proposal::Origins { .. } | Proposal::Sweep { .. } | Proposal::Audit { .. }) => {
                *held = Some(alone);
                break;
            }
        }
        next = waiting.try_recv().ok();
    }
    Batch { body: Body::Write(write), early, answers }
}

impl Proposal {
    /// It was not proposed.
    fn fail(self, error: &Error) {
        match self {
            Self::Operation { answer, .. } => drop(answer.send(Err(error.clone()))),
            Self::Fold { answer, .. }
            | Self::Origins { answer, .. }
            | Self::Sweep { answer, .. } => {
                drop(answer.send(Err(error.clone())));
            }
            Self::Audit { answer } => drop(answer.send(Err(error.clone()))),
        }
    }

    /// About how many bytes it brings.
    fn size(&self) -> usize {
        match self {
            Self::Operation { operation, .. } => operation.size(),
            Self::Fold { segments, .. } => segments.iter().map(Segment::size).sum(),
            Self::Origins { .. } | Self::Sweep { .. } | Self::Audit { .. } => 0,
        }
    }
}

impl Stamper {
    /// Why nothing can be proposed: this replica does not lead, or a quorum is silent.
    fn refusal(&self) -> Option<Error> {
        let status = self.group.status();
        let range = self.group.range();
        if status.leadership.token.is_none() {
            return Some(not_leader(range, status.leadership.leader));
        }
        let heard = status.voters.len() - status.silent_voters().len();
        let has_quorum = heard > status.voters.len() / 2;
        (!has_quorum).then(|| into_error(range, ProposeError::NoQuorum))
    }

    /// A time between what it has stamped and what it will stamp.
    async fn section(&self) -> Result<Section, Error> {
        let leadership = self.group.leadership();
        let token =
            leadership.token.ok_or_else(|| not_leader(self.group.range(), leadership.leader))?;
        Ok(Section { time: self.clock.now().await?, given: self.given, token })
    }

    /// Stamps an entry and hands it to Raft.
    async fn append(
        &mut self,
        body: Body,
        early: Option<Timestamp>,
    ) -> Result<(Stamp, impl Future<Output = Result<Appended, ProposeError>> + Send + use<>), Error>
    {
        let Self { group, keyspace, clock, node, stamped_under, .. } = self;
        let leadership = group.leadership();
        let token = leadership.token.ok_or_else(|| not_leader(group.range(), leadership.leader))?;
        if *stamped_under != Some(token) {
            // Raft takes entries of a leader only once a quorum has answered it, and refuses those before:
            // one round of messages, rather than an error to a client who has done nothing wrong.
            let first_round = async { group.applied(group.read_index(FIRST_ROUND).await?).await };
            let late = |_| ReadError::NoQuorum { heard: Vec::new() };
            let first_round = timeout(FIRST_ROUND, first_round).await.map_err(late).flatten();
            first_round.map_err(|error| match error {
                ReadError::NotLeader(leader) => not_leader(group.range(), leader),
                ReadError::NoQuorum { .. } => into_error(group.range(), ProposeError::NoQuorum),
                ReadError::Stopped => not_leader(group.range(), None),
            })?;
            // A new leader is above every stamp in its own log before it gives its first (INV-3 ii).
            clock.merge(group.stamp_max().time).await?;
            *stamped_under = Some(token);
        }
        // The births, and the clocks of sessions, were merged when the requests came in, so the stamp is
        // above each.
        let time = match early {
            Some(time) => time,
            None => clock.now().await?,
        };
        let stamp = Stamp { time, node: *node };
        let entry =
            Entry { stamp, range: group.range(), epoch: group.epoch(), keyspace: *keyspace, body };
        let done = group
            .propose(token, entry.encode())
            .await
            .map_err(|error| into_error(group.range(), error))?;
        Ok((stamp, done))
    }
}

fn stopped() -> Error {
    Error::unknown(Reason::ShuttingDown, "the node stopped meanwhile")
}

pub(crate) fn not_leader(range: RangeId, leader: Option<ReplicaId>) -> Error {
    match leader {
        Some(leader) => Error {
            leader: Some(LeaderHint { range, node: leader.node }),
            ..Error::new(Reason::NotLeader, format!("range {range} is led by {}", leader.node))
        },
        None => Error::new(Reason::NoLeader, format!("range {range} has no leader at the moment")),
    }
}

fn into_error(range: RangeId, error: ProposeError) -> Error {
    match error {
        ProposeError::NotLeader(leader) => not_leader(range, leader),
        ProposeError::NoQuorum => Error::new(
            Reason::NoQuorum,
            format!("the leader of range {range} does not hear from a quorum"),
        ),
        ProposeError::Unknown => Error::unknown(
            Reason::LeaderChanged,
            format!("another leader took over range {range} while the write was under way"),
        ),
        ProposeError::Stopped => Error::unknown(
            Reason::ShuttingDown,
            "the replica stopped while the write was under way",
        ),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use latitude_types::Generation;

    use super::*;

    fn leadership(term: u64) -> LeaderToken {
        let replica = ReplicaId { node: NodeId(1), generation: Generation(1) };
        LeaderToken { term, replica }
    }

    fn proposer() -> (Proposer, watch::Sender<Settled>) {
        let (settle, settled) = watch::channel(Settled::default());
        let (queue, sections) = (mpsc::unbounded_channel().0, mpsc::unbounded_channel().0);
        (Proposer { queue, sections, settled, clock: None }, settle)
    }

    /// Entries 0 and 1 were stamped before it, under the leadership of term 3.
    fn section() -> Section {
        Section { time: Timestamp::from_ms(9), given: 2, token: leadership(3) }
    }

    #[tokio::test]
    async fn a_section_is_settled_once_every_earlier_entry_is() {
        let (proposer, settle) = proposer();
        let mut settled = Box::pin(proposer.settled(section()));
        settle.send_replace(Settled { count: 1, lost_under: None });
        assert!((&mut settled).now_or_never().is_none(), "entry 1 is under way");
        settle.send_replace(Settled { count: 2, lost_under: Some(leadership(2)) });
        assert_eq!(
            settled.await,
            Ok(()),
            "what an earlier leadership lost is no business of this one"
        );
    }

    /// The next leader may commit it, stamped below the section: a time closed then would lie (INV-4).
    #[tokio::test]
    async fn a_section_whose_leadership_has_lost_an_entry_is_never_settled() {
        let (proposer, settle) = proposer();
        settle.send_replace(Settled { count: 2, lost_under: Some(leadership(3)) });
        let error = proposer.settled(section()).await.unwrap_err();
        assert_eq!(error.reason, Reason::LeaderChanged);
        settle.send_replace(Settled { count: 5, lost_under: Some(leadership(4)) });
        assert!(proposer.settled(section()).await.is_err());
    }
}
