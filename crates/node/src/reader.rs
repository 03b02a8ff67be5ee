//! Strict reads of a range: one round of messages for all that wait (read index).
//!
//! ```text
//!   reads ─▶ rounds (rule) ─▶ read_index ─▶ applied ≥ index ─▶ one snapshot ─▶ answer
//! ```
//!
//! Source: Ongaro, *Consensus: Bridging Theory and Practice*, 6.4.

use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use latitude_consensus::{Group, ReadError};
use latitude_consistency::{ROUNDS_IN_FLIGHT_MAX, Rounds};
use tokio::sync::{mpsc, oneshot};

type Waiter = oneshot::Sender<Result<u64, ReadError>>;

/// Queues strict reads of a range. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ReadQueue {
    queue: mpsc::UnboundedSender<Waiter>,
}

impl ReadQueue {
    /// A queue, and the loop somebody must run for it. A round fails after `wait`.
    pub(crate) fn new(
        group: Group,
        wait: Duration,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, arrivals) = mpsc::unbounded_channel();
        (Self { queue }, run(group, wait, arrivals))
    }

    /// The index that must be applied before a read that begins now can be answered.
    pub(crate) async fn read_index(&self) -> Result<u64, ReadError> {
        let (waiter, index) = oneshot::channel();
        self.queue.send(waiter).map_err(|_| ReadError::Stopped)?;
        index.await.unwrap_or(Err(ReadError::Stopped))
    }
}

async fn run(group: Group, wait: Duration, mut arrivals: mpsc::UnboundedReceiver<Waiter>) {
    let mut rounds = Rounds::new(ROUNDS_IN_FLIGHT_MAX);
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some((round, outcome)) = under_way.next(), if !under_way.is_empty() => {
                let completed = rounds.completed(round, outcome);
                for waiter in completed.waiters {
                    let waiter: Waiter = waiter;
                    drop(waiter.send(completed.outcome.clone()));
                }
            }
            arrival = arrivals.recv() => match arrival {
                Some(waiter) => {
                    rounds.join(waiter);
                    // Whoever arrived together takes one round.
                    while let Ok(waiter) = arrivals.try_recv() {
                        rounds.join(waiter);
                    }
                }
                None => return,
            },
        }
        rounds.retain(|waiter| !waiter.is_closed());
        while let Some(round) = rounds.next_round() {
            let group = group.clone();
            under_way.push(async move { (round, group.read_index(wait).await) }.boxed());
        }
    }
}
