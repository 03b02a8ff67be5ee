//! Closed times of a replica: asked of the leader, many reads to a question.
//!
//! ```text
//!   sequential reads ─┐                       ┌─ leads here: close()
//!                     ├─▶ rounds (rule) ─▶ ask ┤                       ─▶ (L, c) ─▶ ClosedTimes (rule)
//!   refresh, 150 ms ──┘                       └─ elsewhere: one message, answered when closed
//! ```
//!
//! A range that is read here, or was written lately, is refreshed, so that sequential reads of it need not
//! wait. The messages of all ranges that are due leave together, in one frame for each other node. A range
//! that nobody touches costs nothing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use latitude_consensus::LogPosition;
use latitude_consistency::{Closed, ClosedTimes, LogPlace};
use latitude_types::{Error, RangeId, Reason, Stamp, Timestamp};
use tokio::time::{Instant, sleep, timeout};

use crate::proposer::not_leader;
use crate::questions::Questions;
use crate::shared::{NO_PANIC, Shared};

/// How often closed times in use are refreshed.
const REFRESH_EVERY: Duration = Duration::from_millis(150);
/// A range is in use for so long after it was read or written.
const IN_USE: Duration = Duration::from_secs(10);

/// The closed times of one replica. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(crate) struct Closing {
    questions: Questions<Closed, Error>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    times: ClosedTimes,
    /// The last sequential read.
    read: Option<Instant>,
    /// The last stamp seen applied, and when.
    written: Option<(Stamp, Instant)>,
}

impl Closing {
    /// The closed times of this node's replica of `range`, and the loop somebody must run for them.
    pub(crate) fn new(
        shared: Arc<Shared>,
        range: RangeId,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let state: Arc<Mutex<State>> = Arc::default();
        let learn = Arc::clone(&state);
        let (questions, run) = Questions::new(gone(), move || {
            let (shared, learn) = (Arc::clone(&shared), Arc::clone(&learn));
            async move {
                let closed = ask(&shared, range).await?;
                learn.lock().expect(NO_PANIC).times.learn(closed);
                Ok(closed)
            }
            .boxed()
        });
        (Self { questions, state }, run)
    }

    /// The closed time that a replica which has applied up to `applied` has reached.
    pub(crate) fn reached(&self, applied: LogPosition) -> Option<Closed> {
        self.state().times.reached(place(applied))
    }

    /// A closed time that was asked for after this call.
    pub(crate) async fn demand(&self) -> Result<Closed, Error> {
        self.questions.ask().await
    }

    /// Has one asked for, by and by.
    pub(crate) fn nudge(&self) {
        self.questions.nudge();
    }

    /// Notes a sequential read: the replica is refreshed for a while.
    pub(crate) fn note_read(&self) {
        self.state().read = Some(Instant::now());
    }

    /// Asks for a newer closed time if the replica is in use.
    fn refresh(&self, last_stamp: Stamp) {
        if self.state().is_due(last_stamp, Instant::now()) {
            self.questions.nudge();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect(NO_PANIC)
    }
}

impl State {
    fn is_due(&mut self, last_stamp: Stamp, now: Instant) -> bool {
        let recent = |at: Instant| now.saturating_duration_since(at) < IN_USE;
        // What a replica finds applied when it first looks was written some time.
        let moved = self.written.is_none_or(|(stamp, _)| stamp != last_stamp);
        if moved {
            self.written = Some((last_stamp, now));
        }
        if self.read.is_some_and(recent) {
            return true;
        }
        // While writes flow each applied stamp is closed by itself.
        !moved && last_stamp > Stamp::ZERO && self.written.is_some_and(|(_, at)| recent(at))
    }
}

fn place(position: LogPosition) -> LogPlace {
    LogPlace { term: position.term, index: position.index }
}

/// Refreshes what is in use, for as long as the node runs.
pub(crate) async fn keep(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = sleep(REFRESH_EVERY) => {}
        }
        for handle in shared.all_ranges() {
            let (_, last_stamp) = handle.group.applied_position();
            handle.closing.refresh(last_stamp);
        }
    }
}

/// Asks whoever leads the range for a closed time.
async fn ask(shared: &Shared, range: RangeId) -> Result<Closed, Error> {
    let handle = shared.range(range).ok_or_else(gone)?;
    // Before the question leaves: what is acknowledged by now is below what the answer closes.
    let asked = shared.started.elapsed();
    let leadership = handle.group.leadership();
    let (at, time) = match leadership.leader {
        _ if leadership.token.is_some() => close_here(shared, range).await?,
        Some(leader) => shared
            .peers()
            .close(leader.node, range)
            .await
            .map_err(|error| Error::new(Reason::Unreachable, error.0))?,
        None => return Err(not_leader(range, None)),
    };
    Ok(Closed { at: place(at), time, asked })
}

/// Closes a time of a range that is led here, together with whoever else wants one.
pub(crate) async fn close_here(
    shared: &Shared,
    range: RangeId,
) -> Result<(LogPosition, Timestamp), Error> {
    let handle = shared.range(range).ok_or_else(|| {
        Error::new(Reason::RangeNotHere, format!("no replica of range {range} here"))
    })?;
    // Entries of a leader that has lost its quorum settle when another one takes over, not before.
    let patience = 2 * shared.config.settings.election_timeout_max;
    timeout(patience, handle.closes.ask()).await.unwrap_or_else(|_| {
        let message = format!("range {range} could not be closed within {patience:?}");
        Err(Error::new(Reason::NoQuorum, message))
    })
}

/// The error of whoever waits for a replica that goes away.
pub(crate) fn gone() -> Error {
    Error::new(Reason::RangeNotHere, "the replica has just left this node")
}
