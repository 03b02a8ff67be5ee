//! Strict reads of a range: one question for all that wait, whether the lease holds, or to a quorum.
//!
//! ```text
//!   reads ─▶ rounds (rule) ─▶ lease? ── yes ──────────────────┐
//!                               no ─▶ rounds ─▶ read index ───┴─▶ applied ≥ index ─▶ one snapshot ─▶ answer
//! ```
//!
//! Either way the read takes effect at a moment after it arrived, at which nobody else led; the snapshot is
//! taken later and holds everything that was committed then.
//!
//! Source: Ongaro, *Consensus: Bridging Theory and Practice*, 6.4.

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use latitude_consensus::ReadError;
use latitude_consistency::{ROUNDS_IN_FLIGHT_MAX, Rounds};
use tokio::sync::{mpsc, oneshot};

type Waiter<T> = oneshot::Sender<Result<T, ReadError>>;

/// Queues strict reads of a range for one kind of question. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ReadQueue<T> {
    queue: mpsc::UnboundedSender<Waiter<T>>,
}

impl<T: Clone + Send + 'static> ReadQueue<T> {
    /// A queue, and the loop somebody must run for it. `ask` begins a round.
    pub(crate) fn new(
        ask: impl Fn() -> BoxFuture<'static, Result<T, ReadError>> + Send + 'static,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, arrivals) = mpsc::unbounded_channel();
        (Self { queue }, run(ask, arrivals))
    }

    /// The answer to a question that is asked after this call: which index must be applied before a read that
    /// begins now can be answered.
    pub(crate) async fn read_index(&self) -> Result<T, ReadError> {
        let (waiter, index) = oneshot::channel();
        self.queue.send(waiter).map_err(|_| ReadError::Stopped)?;
        index.await.unwrap_or(Err(ReadError::Stopped))
    }
}

async fn run<T: Clone + Send + 'static>(
    ask: impl Fn() -> BoxFuture<'static, Result<T, ReadError>> + Send + 'static,
    mut arrivals: mpsc::UnboundedReceiver<Waiter<T>>,
) {
    let mut rounds = Rounds::new(ROUNDS_IN_FLIGHT_MAX);
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some((round, outcome)) = under_way.next(), if !under_way.is_empty() => {
                let completed = rounds.completed(round, outcome);
                for waiter in completed.waiters {
                    let waiter: Waiter<T> = waiter;
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
            let question = ask();
            under_way.push(async move { (round, question.await) });
        }
    }
}
