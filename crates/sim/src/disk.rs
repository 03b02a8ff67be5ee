//! A disk whose syncs take time and can be cut short by a crash.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use latitude_consensus::Flush;
use latitude_storage::{Engine, Result};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Syncs after a while that follows from the seed. A host that crashes meanwhile has not synced.
pub(crate) struct SlowFlush {
    engine: Arc<dyn Engine>,
    random: SmallRng,
}

impl SlowFlush {
    pub(crate) fn new(engine: Arc<dyn Engine>, seed: u64) -> Self {
        Self { engine, random: SmallRng::seed_from_u64(seed) }
    }
}

impl Flush for SlowFlush {
    fn flush(&mut self) -> BoxFuture<'_, Result<()>> {
        async move {
            tokio::time::sleep(Duration::from_micros(self.random.random_range(200..3_000))).await;
            self.engine.sync()
        }
        .boxed()
    }
}
