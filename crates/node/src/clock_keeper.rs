//! The node's clock, and the task that keeps its durable bound ahead of it (INV-1).
//!
//! ```text
//!   physical ───── clock ≤ ───────── bound (in the store, synced)
//!                    │   < 1.5 s left: write bound + 3 s, sync, raise
//! ```

use std::sync::Arc;

use latitude_clock::{Admission, ClockError, HybridClock, Reading, ReceiveError, Refusal};
use latitude_consensus::Committer;
use latitude_probe::{Mark, Plant};
use latitude_storage::{Batch, Column, Engine, key};
use latitude_types::{Error, Reason, Timestamp};
use tokio::sync::Mutex;
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;

/// How often the bound is looked at. Well below half the reserve.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The node's clock with its durable bound. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Clock {
    inner: Arc<Inner>,
}

struct Inner {
    hybrid: HybridClock,
    engine: Arc<dyn Engine>,
    committer: Committer,
    /// One raise at a time.
    raising: Mutex<()>,
}

/// The bound in the store; zero for a new one.
pub(crate) fn durable_bound(engine: &dyn Engine) -> latitude_storage::Result<Timestamp> {
    let row = engine.get(Column::Node, &key::node::clock_bound())?;
    let bound = row.map(|row| <[u8; 8]>::try_from(&row[..]).map(u64::from_be_bytes));
    match bound {
        None => Ok(Timestamp::ZERO),
        Some(Ok(bound)) => Ok(Timestamp(bound)),
        Some(Err(_)) => {
            let message = "the bound of the node's clock has the wrong length";
            Err(latitude_storage::Error::new(latitude_storage::Kind::Corrupt, message))
        }
    }
}

impl Clock {
    pub(crate) fn new(hybrid: HybridClock, engine: Arc<dyn Engine>, committer: Committer) -> Self {
        Self { inner: Arc::new(Inner { hybrid, engine, committer, raising: Mutex::new(()) }) }
    }

    /// The clock itself, for what never waits.
    pub(crate) fn hybrid(&self) -> &HybridClock {
        &self.inner.hybrid
    }

    /// A new timestamp, above every one given or merged on this node.
    pub(crate) async fn now(&self) -> Result<Timestamp, Error> {
        self.retrying(HybridClock::now).await
    }

    /// Takes in a time from elsewhere.
    pub(crate) async fn merge(&self, time: Timestamp) -> Result<(), Error> {
        self.retrying(|clock| clock.merge(time)).await
    }

    /// Takes in a peer's reading; refused, nothing has changed and its message must have no effect
    /// (INV-2).
    pub(crate) async fn receive(&self, reading: Reading) -> Result<(), Refusal> {
        loop {
            match self.inner.hybrid.receive(reading) {
                Ok(()) => return Ok(()),
                Err(ReceiveError::Refused(refusal)) => return Err(refusal),
                Err(ReceiveError::Clock(ClockError::BeyondBound { needed }))
                    if self.raise(needed).await => {}
                Err(ReceiveError::Clock(_)) => {
                    let limit = self.inner.hybrid.max_offset();
                    return Err(Refusal::Alarm { ahead: limit, limit });
                }
            }
        }
    }

    /// Takes in the birth of a client's operation, waiting for it if it is a little ahead.
    pub(crate) async fn admit(&self, birth: Timestamp) -> Result<(), Error> {
        self.admit_or(birth, || {
            Error::new(
                Reason::IdFromFuture,
                "the write's id was born further ahead of this cluster's clock than clocks may differ: \
                 make births from the clock in replies",
            )
        })
        .await
    }

    /// Takes in the clock of a session, waiting for it if it is a little ahead (pitfall 22).
    pub(crate) async fn admit_session(&self, clock: Timestamp) -> Result<(), Error> {
        self.admit_or(clock, || {
            Error::new(
                Reason::TokenFromFuture,
                "the session is further ahead of this node's clock than clocks may differ: this node's clock is \
                 slow, the one that made the token was fast, or the token is made up. Ask another node, or begin \
                 a new session",
            )
        })
        .await
    }

    async fn admit_or(
        &self,
        time: Timestamp,
        refused: impl FnOnce() -> Error,
    ) -> Result<(), Error> {
        loop {
            match self.inner.hybrid.admit(time) {
                Admission::Merge => return self.merge(time).await,
                Admission::Wait(wait) => sleep(wait).await,
                Admission::Refuse => return Err(refused()),
            }
        }
    }

    async fn retrying<T>(
        &self,
        mut call: impl FnMut(&HybridClock) -> Result<T, ClockError>,
    ) -> Result<T, Error> {
        loop {
            match call(&self.inner.hybrid) {
                Ok(value) => return Ok(value),
                Err(ClockError::BeyondBound { needed }) if self.raise(needed).await => {}
                Err(error) => return Err(Error::new(Reason::ClockUnsynced, error.to_string())),
            }
        }
    }

    /// Makes a bound of at least `needed`, with a reserve, durable, and raises the clock's. `false`: the
    /// store failed.
    async fn raise(&self, needed: Timestamp) -> bool {
        Mark::BoundRaisedOnDemand.hit();
        let bound = self.inner.hybrid.bound_covering(needed);
        self.raise_to(needed, bound).await
    }

    /// Makes `bound` durable and raises the clock's to it, unless that is at `enough` already.
    async fn raise_to(&self, enough: Timestamp, bound: Timestamp) -> bool {
        let Inner { hybrid, engine, committer, raising } = &*self.inner;
        let _one_at_a_time = raising.lock().await;
        if hybrid.bound() >= enough {
            return true;
        }
        if Plant::BoundNotPersisted.is_on() {
            hybrid.raise_bound(bound);
            return true;
        }
        let mut batch = Batch::new();
        batch.put(Column::Node, key::node::clock_bound(), bound.0.to_be_bytes().to_vec());
        if engine.write(batch).is_err() || committer.durable().await.is_err() {
            return false;
        }
        hybrid.raise_bound(bound);
        true
    }

    /// The last thing of a node's life: lowers the durable bound to what the clock has reached, so that the
    /// next life need not wait for real time to come near it. Nothing may be given or merged afterwards.
    pub(crate) async fn seal(&self) {
        let Inner { hybrid, engine, committer, raising } = &*self.inner;
        let _nobody_raises = raising.lock().await;
        let mut batch = Batch::new();
        batch.put(Column::Node, key::node::clock_bound(), hybrid.peek().0.to_be_bytes().to_vec());
        // If it fails the old bound stands, which is as safe.
        if engine.write(batch).is_ok() {
            let _ = committer.durable().await;
        }
    }

    /// Keeps the bound ahead, so that nobody waits for it.
    pub(crate) async fn keep(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Some(bound) = self.inner.hybrid.bound_to_persist()
                && !self.raise_to(bound, bound).await
            {
                // The committer tells the node that the store has failed.
                return;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }
}
