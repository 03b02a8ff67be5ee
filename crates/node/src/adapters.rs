//! The real world behind the ports: the system's clocks, and a thread that syncs the disk.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::BoxFuture;
use latitude_clock::PhysicalClock;
use latitude_consensus::Flush;
use latitude_storage::{Engine, Error, Kind, Result};
use tokio::sync::{mpsc, oneshot};

/// The system's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// The clocks, with now as the origin of the monotonic one.
    #[expect(clippy::disallowed_methods, reason = "this is the adapter behind the port")]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl PhysicalClock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the adapter behind the port")]
    fn wall_us(&self) -> u64 {
        // A system clock before 1970 reads as 1970, which every peer refuses.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
    }

    fn monotonic_us(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }
}

/// Syncs an engine on a thread of its own, so that no task waits for the disk on a runtime thread.
pub struct FlushThread {
    /// Dropped to end the thread.
    orders: Option<mpsc::UnboundedSender<oneshot::Sender<Result<()>>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl FlushThread {
    /// Starts the thread; it has ended, and let go of the engine, once this is dropped. A thread that
    /// outlived the process's `main` would use the engine's library while it is torn down.
    #[expect(clippy::disallowed_methods, reason = "this is the adapter behind the port")]
    pub fn start(engine: Arc<dyn Engine>) -> Self {
        let (orders, mut waiting) = mpsc::unbounded_channel::<oneshot::Sender<Result<()>>>();
        let thread = std::thread::spawn(move || {
            while let Some(answer) = waiting.blocking_recv() {
                // Who asked and went away does not need the answer.
                let _ = answer.send(engine.sync());
            }
        });
        Self { orders: Some(orders), thread: Some(thread) }
    }
}

impl Drop for FlushThread {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // If it panicked, whoever waited for its answer has been told.
            let _ = thread.join();
        }
    }
}

impl Flush for FlushThread {
    fn flush(&mut self) -> BoxFuture<'_, Result<()>> {
        let (answer, result) = oneshot::channel();
        if let Some(orders) = &self.orders {
            let _ = orders.send(answer);
        }
        async move {
            result
                .await
                .unwrap_or_else(|_| Err(Error::new(Kind::Fatal, "the syncing thread ended")))
        }
        .boxed()
    }
}
