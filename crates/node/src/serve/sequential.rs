//! Sequential reads: from whichever replica was asked, as soon as it knows everything up to the session's
//! time.
//!
//! ```text
//!   applied, closed ─▶ one snapshot: value, last stamp a ─▶ s ≤ max(a, closed), fresh enough? ─ yes ─▶ answer
//!          ▲                                                           │ no                    session: max(s, a)
//!          └── what the leader closes now is applied here ◀── ask ─────┘
//! ```
//!
//! Why that is right: `latitude_consistency::Known`.

use std::time::Duration;

use latitude_consistency::{Known, SequentialRead, Token, closed_up_to, staleness};
use latitude_probe::{Mark, Plant};
use latitude_range::Reader;
use latitude_rpc::pb::v1;
use latitude_types::{Error, Reason, Stamp};
use tokio::time::{Instant, sleep, timeout_at};

use super::read::Proven;
use super::{Answer, Serving, internal};
use crate::proposer::not_leader;

/// Pause before a leader that could not close is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// What a replica lacks to answer a sequential read.
struct Lack {
    reason: Reason,
    message: String,
}

impl Serving<'_> {
    pub(super) async fn sequential_read(&self) -> Result<Answer, Error> {
        self.handle.closing.note_read();
        let give_up = self.soon();
        let mut waited = false;
        // How long the last question to the leader took.
        let mut took = None;
        loop {
            let lack = match self.answer_by_closed_time().await? {
                Ok(answer) => return Ok(answer),
                Err(lack) => lack,
            };
            if !waited {
                waited = true;
                self.shared.metrics.observe_sequential_wait();
            }
            if self.handle.group.leadership().token.is_some() {
                // The leader knows all there is once it has applied what it has given; and a quorum's word
                // that it still leads makes the answer as fresh as any.
                Mark::LeaderReadsStrictly.hit();
                return self.strict_read().await;
            }
            if let Some(took) = took
                && lack.reason == Reason::StalenessUnproved
                && self.request.staleness_max.is_some_and(|most| took > most)
            {
                // The answer's age counts from the question, and asking again takes as long.
                return Err(self.too_far(lack, took));
            }
            Mark::ClosedOnDemand.hit();
            let asked = Instant::now();
            match timeout_at(give_up, self.catch_up()).await {
                Ok(Ok(())) => took = Some(asked.elapsed()),
                Ok(Err(error)) if Instant::now() + PAUSE >= give_up => {
                    return Err(self.behind(lack, Some(error)));
                }
                Ok(Err(_)) => sleep(PAUSE).await,
                Err(_) => return Err(self.behind(lack, None)),
            }
        }
    }

    /// Has a time closed, and applies everything up to it.
    async fn catch_up(&self) -> Result<(), Error> {
        let closed = self.handle.closing.demand().await?;
        let gone = |_| Error::new(Reason::RangeNotHere, "the replica has just left this node");
        self.handle.group.applied(closed.at.index).await.map_err(gone)
    }

    /// The answer of what is here now, if it is enough.
    async fn answer_by_closed_time(&self) -> Result<Result<Answer, Lack>, Error> {
        // In this order: whatever is applied by now is in the snapshot taken after.
        let (applied, _) = self.handle.group.applied_position();
        let closed = self.handle.closing.reached(applied);
        if let Some(closed) = closed {
            self.handle.group.rely_on_closed(closed.time);
        }
        let snapshot = self.shared.engine.snapshot();
        let mut reader = Reader::new(self.handle.id(), &*snapshot).map_err(internal)?;
        if Plant::TwoSnapshots.is_on() {
            sleep(Duration::from_millis(5)).await;
            let later = self.shared.engine.snapshot();
            reader.stand_where(&*later).map_err(internal)?;
        }
        let last_stamp = reader.meta().last_stamp;
        let clock = self.shared.clock.hybrid();
        let in_step = !self.shared.peers().is_unsynced();
        let now = self.shared.started.elapsed();
        // What keeps a bound is the question alone. Where there was none, clocks may tell the receipt more.
        let age = closed.map(|closed| closed.age(now));
        let max_offset = in_step.then(|| clock.max_offset());
        let staleness = staleness(closed, now, last_stamp, clock.physical_us(), max_offset);
        let session = self.request.session.as_ref().filter(|_| !Plant::SessionIgnored.is_on());
        let stood = session.map_or(Stamp::ZERO, Token::stood);
        let most = self.request.staleness_max;
        match (Known { last_stamp, closed, staleness: age }.sequential_read(stood, most)) {
            SequentialRead::Answer { .. } => {}
            SequentialRead::Behind { up_to } => {
                let message = format!(
                    "the replica knows everything up to {up_to}, and the session stands at {stood}"
                );
                return Ok(Err(Lack { reason: Reason::ReplicaBehind, message }));
            }
            SequentialRead::Stale => {
                let provable = age.map_or("nothing".into(), |bound| format!("{bound:?}"));
                let message = format!(
                    "the answer must be no staler than {:?}, and {provable} can be proved",
                    most.unwrap_or_default()
                );
                return Ok(Err(Lack { reason: Reason::StalenessUnproved, message }));
            }
        }
        if let Some(origin) = self.own_unfolded(&reader) {
            let message = format!(
                "local writes of the session that {origin} took are not in the log here yet"
            );
            return Ok(Err(Lack { reason: Reason::NotFolded, message }));
        }
        let staleness_ms = staleness.map(|bound| bound.as_micros().div_ceil(1000) as u64);
        let closed = Some(closed_up_to(last_stamp, closed).time);
        let proven = Proven::in_log(v1::Proof::ClosedTime);
        self.read_from(&reader, Proven { staleness_ms, closed, ..proven }).map(Ok)
    }

    /// The error of a replica that is too far from the leader to be as fresh as asked for. Only the leader is
    /// nearer, so the request is to go there.
    fn too_far(&self, lack: Lack, took: Duration) -> Error {
        let message = format!(
            "{}; to ask the leader takes {took:?} from here. The leader itself may be fresh enough",
            lack.message
        );
        let leader = self.handle.group.leadership().leader;
        Error {
            leader: not_leader(self.handle.id(), leader).leader,
            ..Error::new(lack.reason, message)
        }
    }

    /// The error of a replica that does not get to know enough.
    fn behind(&self, lack: Lack, cause: Option<Error>) -> Error {
        Mark::ReadMovedOn.hit();
        let why = match cause {
            Some(cause) => format!("{}; the leader could not be asked: {cause}", lack.message),
            None => format!("{}; the leader's word has not arrived yet", lack.message),
        };
        let error = Error::new(lack.reason, format!("{why}. Another replica may know enough"));
        if lack.reason != Reason::NotFolded {
            return error;
        }
        // The leader can have them folded.
        let leader = self.handle.group.leadership().leader;
        Error { leader: not_leader(self.handle.id(), leader).leader, ..error }
    }
}
