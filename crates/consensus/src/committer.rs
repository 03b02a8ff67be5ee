//! Group commit: one sync for everything that was written while the last one ran.
//!
//! ```text
//!   range 1: write ─ queue ┐
//!   range 7: write ─ queue ┼─▶ [ waiting ] ──▶ sync ──▶ complete all of them, in order
//!   range 3: write ─ queue ┘        ▲             │
//!                                   └── meanwhile ┘ the next group gathers
//! ```
//!
//! A writer writes to the engine first (unsynced) and queues second, so the sync that takes its place in
//! the queue began after its write, and covers it. Sources: group commit (DeWitt et al. 1984); the
//! ordering contract of openraft's `RaftLogStorage::append`.
//!
//! HAZARD: a sync that failed says nothing about what is on the disk, and a repetition would succeed
//! without writing (the kernel has dropped the pages). The first failure is final: every waiter of it
//! and after it is told, and the node must stop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use latitude_probe::{Mark, Plant};
use latitude_storage::Engine;
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot, watch};

use crate::types::TypeConfig;

/// How the engine's blocking `sync` is run: on a thread of its own, or inline in a simulation.
pub trait Flush: Send + 'static {
    /// Makes everything written so far durable.
    fn flush(&mut self) -> BoxFuture<'_, latitude_storage::Result<()>>;
}

/// Syncs inline: for engines that do not block, such as the one in memory.
pub struct FlushInline(pub Arc<dyn Engine>);

impl Flush for FlushInline {
    fn flush(&mut self) -> BoxFuture<'_, latitude_storage::Result<()>> {
        let result = self.0.sync();
        Box::pin(async move { result })
    }
}

/// What waits for a sync.
enum Waiter {
    Raft(IOFlushed<TypeConfig>),
    Caller(oneshot::Sender<io::Result<()>>),
}

/// Queues writes for the next sync. Cheap to clone.
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::UnboundedSender<Waiter>,
    stats: Arc<CommitStats>,
    failure: watch::Receiver<Option<String>>,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct CommitStats {
    syncs: AtomicU64,
    completions: AtomicU64,
}

impl CommitStats {
    /// Syncs done.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Writes made durable by them.
    pub fn completions(&self) -> u64 {
        self.completions.load(Ordering::Relaxed)
    }
}

impl Committer {
    /// A committer, and the loop that somebody must run for it to do anything.
    pub fn new(mut flush: impl Flush) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, mut waiting) = mpsc::unbounded_channel::<Waiter>();
        let (failed, failure) = watch::channel(None);
        let stats = Arc::new(CommitStats::default());
        let counts = Arc::clone(&stats);
        let run = async move {
            let mut group = Vec::new();
            while waiting.recv_many(&mut group, usize::MAX).await > 0 {
                if Plant::AckBeforeSync.is_on() {
                    group.drain(..).for_each(|waiter: Waiter| waiter.complete(&Ok(())));
                }
                let result = flush.flush().await;
                counts.syncs.fetch_add(1, Ordering::Relaxed);
                counts.completions.fetch_add(group.len() as u64, Ordering::Relaxed);
                if let Err(error) = &result {
                    Mark::SyncFailed.hit();
                    failed.send_replace(Some(error.to_string()));
                }
                for waiter in group.drain(..) {
                    waiter.complete(&result);
                }
            }
        };
        (Self { queue, stats, failure }, run)
    }

    /// Resolves when a sync has failed, with what the store said: the node must stop.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        let message = failure.wait_for(Option::is_some).await.map(|message| message.clone());
        match message {
            Ok(message) => message.unwrap_or_default(),
            // The loop ended without a failure: the node is stopping anyway.
            Err(_) => std::future::pending().await,
        }
    }

    /// The counts.
    pub fn stats(&self) -> &CommitStats {
        &self.stats
    }

    /// Resolves once everything written before this call is durable.
    pub async fn durable(&self) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.push(Waiter::Caller(sender));
        receiver.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Completes `callback` once everything written before this call is durable.
    pub(crate) fn durable_then(&self, callback: IOFlushed<TypeConfig>) {
        self.push(Waiter::Raft(callback));
    }

    fn push(&self, waiter: Waiter) {
        if let Err(mpsc::error::SendError(waiter)) = self.queue.send(waiter) {
            waiter.complete(&Err(latitude_storage::Error::new(
                latitude_storage::Kind::Fatal,
                "the committer stopped",
            )));
        }
    }
}

impl Waiter {
    fn complete(self, result: &latitude_storage::Result<()>) {
        let result = result.clone().map_err(io::Error::other);
        match self {
            Self::Raft(callback) => callback.io_completed(result),
            // A caller that went away does not need the answer.
            Self::Caller(sender) => drop(sender.send(result)),
        }
    }
}

fn stopped() -> io::Error {
    io::Error::other("the committer stopped")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use latitude_storage::{Error, Kind};

    use super::*;

    /// A disk that syncs when told to, with the result it is told.
    struct Gate {
        started: mpsc::UnboundedSender<()>,
        results: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<latitude_storage::Result<()>>>>,
    }

    impl Flush for Gate {
        fn flush(&mut self) -> BoxFuture<'_, latitude_storage::Result<()>> {
            let _ = self.started.send(());
            let results = Arc::clone(&self.results);
            Box::pin(async move {
                results.lock().await.recv().await.expect("the test holds the sender")
            })
        }
    }

    struct Disk {
        started: mpsc::UnboundedReceiver<()>,
        finish: mpsc::UnboundedSender<latitude_storage::Result<()>>,
    }

    fn committer() -> (Committer, Disk) {
        let (started, starts) = mpsc::unbounded_channel();
        let (finish, results) = mpsc::unbounded_channel();
        let gate = Gate { started, results: Arc::new(tokio::sync::Mutex::new(results)) };
        let (committer, run) = Committer::new(gate);
        tokio::spawn(run);
        (committer, Disk { started: starts, finish })
    }

    #[tokio::test]
    async fn everything_queued_during_a_sync_shares_the_next_one() {
        let (committer, mut disk) = committer();
        let order = Arc::new(Mutex::new(Vec::new()));
        let write = |n: u32| {
            let (committer, order) = (committer.clone(), Arc::clone(&order));
            tokio::spawn(async move {
                committer.durable().await.expect("the sync succeeds");
                order.lock().expect("no panic holds it").push(n);
            })
        };
        let first = write(0);
        disk.started.recv().await;
        let rest: Vec<_> = (1..=50).map(write).collect();
        tokio::task::yield_now().await;
        disk.finish.send(Ok(())).expect("the gate listens");
        first.await.expect("no panic");
        disk.started.recv().await;
        assert_eq!(
            *order.lock().expect("no panic holds it"),
            [0],
            "nobody is told before its sync ends"
        );
        disk.finish.send(Ok(())).expect("the gate listens");
        for task in rest {
            task.await.expect("no panic");
        }
        assert_eq!((committer.stats().syncs(), committer.stats().completions()), (2, 51));
    }

    #[tokio::test]
    async fn a_failed_sync_is_told_to_every_waiter_and_to_the_node() {
        let (committer, mut disk) = committer();
        let waiter = tokio::spawn({
            let committer = committer.clone();
            async move { committer.durable().await }
        });
        disk.started.recv().await;
        disk.finish.send(Err(Error::new(Kind::Io, "EIO"))).expect("the gate listens");
        assert!(waiter.await.expect("no panic").is_err());
        assert!(committer.failed().await.contains("EIO"));
    }
}
