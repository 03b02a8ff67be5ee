//! Giving positions to local writes, and writing them in that order (INV-5).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use latitude_clock::ClockError;
use latitude_probe::{Mark, Plant};
use latitude_range::{Delta, Op, Origin, OriginState, Refusal};
use latitude_storage::{Batch, Column, key};
use latitude_types::{
    Error, Key, KeyspaceId, Level, OperationId, Past, RangeId, Reason, Stamp, Timestamp,
};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Local, State};

/// Writes under way to the disk at once: while one is synced the next are written.
const IN_FLIGHT: usize = 4;
/// How long a write waits at most because the quota is nearly used up.
const SLOWED_MAX: Duration = Duration::from_millis(100);

/// A local write before it has a position.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) range: RangeId,
    pub(crate) admitted: Stamp,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key: Key,
    pub(crate) op: Op,
    pub(crate) id: OperationId,
    pub(crate) level: Level,
    pub(crate) named: Vec<OperationId>,
    pub(crate) past: Past,
}

/// A local write that was taken, durably.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// The origin that took it first, as far as is known here, and its position there.
    pub(crate) delta: (latitude_types::NodeId, Timestamp),
    /// The entry that admitted that origin.
    pub(crate) admitted: Stamp,
    /// The id was known: nothing was written.
    pub(crate) duplicate: bool,
}

/// A delta that waits to be written.
pub(super) struct Queued {
    delta: Arc<Delta>,
    answer: oneshot::Sender<Result<(), Error>>,
}

enum Attempt {
    Queued(Timestamp, oneshot::Receiver<Result<(), Error>>),
    Known(Arc<Delta>),
    /// The clock's bound must be raised first.
    AtBound,
}

impl Local {
    /// Takes a local write: it is durable when this resolves.
    ///
    /// # Errors
    /// [`Reason::UnfoldedQuota`] if the range has as much unfolded as it may; outcomes are unknown only if the
    /// disk failed.
    pub(crate) async fn write(&self, draft: Draft) -> Result<Taken, Error> {
        if let Some(pause) = self.slowed(draft.range) {
            tokio::time::sleep(pause).await;
        }
        loop {
            match self.attempt(&draft)? {
                Attempt::Queued(position, written) => {
                    self.inner.queued.notify_one();
                    written.await.unwrap_or_else(|_| Err(stopped()))?;
                    let (delta, admitted) = ((self.inner.node, position), draft.admitted);
                    return Ok(Taken { delta, admitted, duplicate: false });
                }
                Attempt::Known(delta) => {
                    self.durable(&delta).await?;
                    let (at, admitted) = ((delta.origin, delta.position), delta.admitted);
                    return Ok(Taken { delta: at, admitted, duplicate: true });
                }
                Attempt::AtBound => drop(self.inner.clock.now().await?),
            }
        }
    }

    /// How long a write waits because much of its range is not folded: from half of the quota on, and the longer the
    /// fuller it is, so that folding has a chance to catch up before writes are refused.
    fn slowed(&self, range: RangeId) -> Option<Duration> {
        let half = self.inner.quota / 2;
        let unfolded = self.state().overlays.get(&range)?.bytes();
        let over = unfolded.checked_sub(half).filter(|over| *over > 0)?;
        Mark::QuotaSlowed.hit();
        let share = (over as f64 / half.max(1) as f64).min(1.0);
        Some(SLOWED_MAX.mul_f64(share))
    }

    /// One critical section: the look for an earlier copy, the position, the place in the queue.
    fn attempt(&self, draft: &Draft) -> Result<Attempt, Error> {
        let mut state = self.state();
        let State { overlays, frontier, queue, active, last_write, folded, .. } = &mut *state;
        let gone = || Error::new(Reason::RangeNotHere, "the replica has just left this node");
        let overlay = overlays.get_mut(&draft.range).ok_or_else(gone)?;
        if let Some(known) = overlay.of_id(&draft.id) {
            return Ok(Attempt::Known(Arc::clone(known)));
        }
        // Under the lock under which it is said up to where this node took any (INV-5).
        let own = folded.get(&draft.range).and_then(|origins| {
            origins.iter().find(|origin| origin.node == self.inner.node).map(Origin::stands)
        });
        if own != Some((draft.admitted, OriginState::Active)) && !Plant::SealIgnored.is_on() {
            return Err(Error::new(
                Reason::NotOrigin,
                format!("this node has just stopped taking local writes in range {}", draft.range),
            ));
        }
        if overlay.bytes() >= self.inner.quota {
            Mark::QuotaRefused.hit();
            let message = format!(
                "range {} has {} bytes of local writes that are not in its log yet, as much as it takes: wait until \
                 it has a leader that this node reaches, or write at level strict",
                draft.range,
                overlay.bytes()
            );
            return Err(
                Error::new(Reason::UnfoldedQuota, message).retry_after(Duration::from_millis(500))
            );
        }
        let position = match self.inner.clock.hybrid().now() {
            // Later a copy elsewhere may be folded and forgotten, and this one would count again.
            Ok(position) if position > draft.id.expires_at() => {
                return Err(Refusal::IdExpired.into_error());
            }
            Ok(position) if frontier.give(position) => position,
            // A clock gives each time once; but whatever it did, no position is given twice.
            Ok(_) | Err(ClockError::BeyondBound { .. }) => return Ok(Attempt::AtBound),
            Err(error) => return Err(Error::new(Reason::ClockUnsynced, error.to_string())),
        };
        let delta = Arc::new(draft.clone().at(self.inner.node, position));
        if Plant::PublishedEarly.is_on() {
            frontier.synced(position);
        }
        overlay.insert(Arc::clone(&delta));
        (*active, *last_write) = (Some(Instant::now()), position);
        let (answer, written) = oneshot::channel();
        queue.push(Queued { delta, answer });
        Ok(Attempt::Queued(position, written))
    }

    /// Waits until a delta in an overlay is durable. Those of others are before they get there.
    async fn durable(&self, delta: &Delta) -> Result<(), Error> {
        if delta.origin != self.inner.node {
            return Ok(());
        }
        let mut changes = self.changes();
        while self.state().frontier.durable() < delta.position {
            changes.changed().await.map_err(|_| stopped())?;
        }
        Ok(())
    }

    /// Writes what is queued, in order, for as long as the node runs. An error is the disk's.
    pub(crate) async fn run_writer(&self, stop: CancellationToken) -> Result<(), String> {
        let mut under_way = FuturesOrdered::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some((up_to, answers, result)) = under_way.next(), if !under_way.is_empty() => {
                    self.written(up_to, answers, result)?;
                }
                () = self.inner.queued.notified(), if under_way.len() < IN_FLIGHT => {
                    let queue = std::mem::take(&mut self.state().queue);
                    let Some(last) = queue.last() else { continue };
                    let up_to = last.delta.position;
                    let mut batch = Batch::new();
                    let mut answers = Vec::with_capacity(queue.len());
                    let mut bytes = 0;
                    for Queued { delta, answer } in queue {
                        let row = delta.encode();
                        bytes += row.len();
                        batch.put(Column::Stream, key::stream::delta(delta.origin, delta.position), row);
                        answers.push(answer);
                    }
                    self.state().own_bytes += bytes;
                    // Written in the order of the positions, before anything else is: so a sync covers a prefix.
                    self.inner.engine.write(batch).map_err(|error| error.to_string())?;
                    let committer = self.inner.committer.clone();
                    under_way.push_back(async move { (up_to, answers, committer.durable().await) });
                }
            }
        }
    }

    fn written(
        &self,
        up_to: Timestamp,
        answers: Vec<oneshot::Sender<Result<(), Error>>>,
        result: std::io::Result<()>,
    ) -> Result<(), String> {
        result.map_err(|error| error.to_string())?;
        let mut state = self.state();
        state.frontier.synced(up_to);
        let durable = state.frontier.durable();
        state.visible.show_own(self.inner.node, durable);
        drop(state);
        self.tell();
        answers.into_iter().for_each(|answer| drop(answer.send(Ok(()))));
        Ok(())
    }
}

impl Draft {
    fn at(self, origin: latitude_types::NodeId, position: Timestamp) -> Delta {
        let Self { range, admitted, keyspace, key, op, id, level, named, past } = self;
        let extensions = Vec::new();
        Delta {
            origin,
            position,
            range,
            admitted,
            keyspace,
            key,
            op,
            id,
            level,
            named,
            extensions,
            past,
        }
    }
}

fn stopped() -> Error {
    Error::unknown(Reason::ShuttingDown, "the node stopped meanwhile")
}
