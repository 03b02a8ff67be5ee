//! Questions about a range that many requests share: one is asked for all that wait.
//!
//! ```text
//!   requests ─▶ rounds (rule) ─▶ ask ─▶ the answer, for whoever had come before it was asked
//! ```
//!
//! | question | asked by | of whom | answer |
//! | --- | --- | --- | --- |
//! | read index | strict reads, and whoever closes a time | a quorum | which entry must be applied |
//! | lease | strict reads where leases are on | nobody | the same, or that it does not hold |
//! | close | sequential reads of all replicas, refreshes | the leader's own log and a quorum | a closed time |
//!
//! A strict read takes effect at a moment after it arrived, at which nobody else led; its snapshot is taken later
//! and holds everything that was committed then.
//!
//! Source: Ongaro, *Consensus: Bridging Theory and Practice*, 6.4.

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use latitude_consistency::{NextRound, Rounds};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// `None`: nobody waits, the answer is wanted all the same.
type Waiter<T, E> = Option<oneshot::Sender<Result<T, E>>>;

/// One kind of question about one range. Cheap to clone; clones share their rounds.
pub(crate) struct Questions<T, E> {
    queue: mpsc::UnboundedSender<Waiter<T, E>>,
    /// The error once nobody asks any more.
    gone: E,
}

impl<T, E: Clone> Clone for Questions<T, E> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), gone: self.gone.clone() }
    }
}

impl<T: Clone + Send + 'static, E: Clone + Send + 'static> Questions<T, E> {
    /// The questions, and the loop somebody must run for them. `ask` asks one.
    pub(crate) fn new(
        gone: E,
        ask: impl Fn() -> BoxFuture<'static, Result<T, E>> + Send + 'static,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, arrivals) = mpsc::unbounded_channel();
        (Self { queue, gone }, run(ask, arrivals))
    }

    /// The answer to a question that is asked after this call.
    pub(crate) async fn ask(&self) -> Result<T, E> {
        let (waiter, answer) = oneshot::channel();
        self.queue.send(Some(waiter)).map_err(|_| self.gone.clone())?;
        answer.await.unwrap_or_else(|_| Err(self.gone.clone()))
    }

    /// Has the question asked, and waits for nothing.
    pub(crate) fn nudge(&self) {
        // Once nobody asks any more nobody needs the answer.
        let _ = self.queue.send(None);
    }
}

async fn run<T: Clone, E: Clone>(
    ask: impl Fn() -> BoxFuture<'static, Result<T, E>>,
    mut arrivals: mpsc::UnboundedReceiver<Waiter<T, E>>,
) {
    let began = Instant::now();
    let mut rounds = Rounds::<Waiter<T, E>>::default();
    let mut under_way = FuturesUnordered::new();
    let mut next = NextRound::No;
    loop {
        let due = match next {
            NextRound::NotBefore(due) => Some(began + due),
            NextRound::Starts(_) | NextRound::No => None,
        };
        tokio::select! {
            biased;
            Some((round, outcome)) = under_way.next(), if !under_way.is_empty() => {
                let completed = rounds.completed(round, outcome, began.elapsed());
                for waiter in completed.waiters.into_iter().flatten() {
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
            () = sleep_until(due.unwrap_or(began)), if due.is_some() => {}
        }
        // Where nobody waits one wish is enough; while a link is slow they must not heap up.
        let mut nudges = 0;
        rounds.retain(|waiter| match waiter {
            Some(waiter) => !waiter.is_closed(),
            None => {
                nudges += 1;
                nudges == 1
            }
        });
        next = rounds.next_round(began.elapsed());
        while let NextRound::Starts(round) = next {
            let question = ask();
            under_way.push(question.map(move |outcome| (round, outcome)));
            next = rounds.next_round(began.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    const TAKES: Duration = Duration::from_millis(100);

    /// Questions whose answer is how many were asked before, and that count.
    fn counted() -> (Questions<u32, ()>, Arc<AtomicU32>) {
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let (questions, run) = Questions::new((), move || {
            let turn = count.fetch_add(1, Ordering::Relaxed);
            async move {
                sleep(TAKES).await;
                Ok(turn)
            }
            .boxed()
        });
        tokio::spawn(run);
        (questions, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_while_a_question_is_under_way_waits_for_the_next() {
        let (questions, _) = counted();
        let first = tokio::spawn({
            let questions = questions.clone();
            async move { questions.ask().await }
        });
        sleep(TAKES / 2).await;
        assert_eq!(questions.ask().await, Ok(1));
        assert_eq!(first.await.unwrap(), Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn many_share_few_questions_and_nobody_waits_long_for_a_start() {
        let (questions, asked) = counted();
        questions.ask().await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..1_000 {
            let questions = questions.clone();
            waiting.push(tokio::spawn(async move {
                let began = Instant::now();
                questions.ask().await.unwrap();
                began.elapsed()
            }));
            sleep(Duration::from_millis(1)).await;
        }
        for took in waiting {
            let took = took.await.unwrap();
            assert!(took <= TAKES + TAKES / 4 + Duration::from_millis(2), "{took:?}");
        }
        let asked = asked.load(Ordering::Relaxed);
        assert!((40..=46).contains(&asked), "{asked} questions in ten times what one takes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_nudge_asks_once_however_often_it_is_given() {
        let (questions, asked) = counted();
        (0..100).for_each(|_| questions.nudge());
        sleep(2 * TAKES).await;
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn once_nobody_asks_any_more_whoever_waits_is_told() {
        let (questions, run) = Questions::<(), _>::new("gone", || std::future::pending().boxed());
        let run = tokio::spawn(run);
        let waits = tokio::spawn({
            let questions = questions.clone();
            async move { questions.ask().await }
        });
        sleep(TAKES).await;
        run.abort();
        assert_eq!(waits.await.unwrap(), Err("gone"));
        assert_eq!(questions.ask().await, Err("gone"));
    }
}
