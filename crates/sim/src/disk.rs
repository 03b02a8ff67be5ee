//! The store of a host: in memory, behind a watch, with a sync that takes its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use latitude_consensus::Flush;
use latitude_storage::key::Span;
use latitude_storage::memory::MemoryEngine;
use latitude_storage::{
    Batch, Column, Damage, Done, Engine, Result, Rows, Scan, SetName, Staging, View, Write,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use xxhash_rust::xxh3::Xxh3;

use crate::invariants::Invariants;
use crate::trace::{Kind, Trace};

/// The engine in memory, every write of which is in the trace and looked at by the invariants.
pub(crate) struct SimEngine {
    engine: MemoryEngine,
    host: Arc<str>,
    trace: Trace,
    invariants: Invariants,
}

impl SimEngine {
    pub(crate) fn new(
        engine: MemoryEngine,
        host: Arc<str>,
        trace: Trace,
        invariants: Invariants,
    ) -> Self {
        invariants.opened(&host, &engine);
        Self { engine, host, trace, invariants }
    }
}

impl View for SimEngine {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>> {
        self.engine.get(column, key)
    }

    fn scan(&self, column: Column, scan: Scan) -> Rows<'_> {
        self.engine.scan(column, scan)
    }
}

impl Engine for SimEngine {
    fn write(&self, batch: Batch) -> Result<()> {
        let digest = digest(&batch);
        self.invariants.writes(&self.host, &self.engine, &batch);
        self.engine.write(batch)?;
        self.trace.note(Kind::Wrote, &self.host, &self.host, &digest.to_le_bytes());
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.engine.sync()?;
        self.invariants.synced(&self.host);
        self.trace.note(Kind::Synced, &self.host, &self.host, b"");
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn View + '_> {
        self.engine.snapshot()
    }

    fn stage(&self, set: SetName, column: Column, spans: Vec<Span>) -> Result<Box<dyn Staging>> {
        self.engine.stage(set, column, spans)
    }

    fn staged(&self) -> Result<Vec<SetName>> {
        self.engine.staged()
    }

    fn replace(&self, set: SetName, done: Done) {
        let before = self.engine.snapshot();
        // The engine in memory is done when this returns.
        self.engine.replace(set, done);
        self.invariants.replaced(&self.host, &*before, &self.engine);
        self.trace.note(Kind::Wrote, &self.host, &self.host, &set.0.to_le_bytes());
    }

    fn discard(&self, set: SetName) -> Result<()> {
        self.engine.discard(set)
    }

    fn damage(&self) -> Option<&Damage> {
        self.engine.damage()
    }

    fn free_space(&self) -> Result<u64> {
        self.engine.free_space()
    }
}

fn digest(batch: &Batch) -> u64 {
    let mut digest = Xxh3::new();
    let mut part = |tag: u8, column: Column, parts: [&[u8]; 2]| {
        digest.update(&[tag, column as u8]);
        for part in parts {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part);
        }
    };
    for write in batch {
        match write {
            Write::Put { column, key, value } => part(0, *column, [key, value]),
            Write::Delete { column, key } => part(1, *column, [key, b""]),
            Write::DeleteRange { column, start, end } => part(2, *column, [start, end]),
        }
    }
    digest.digest()
}

/// How slow a disk is: added to each of its syncs. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace(Arc<AtomicU64>);

impl Pace {
    pub(crate) fn set(&self, more: Duration) {
        self.0.store(more.as_micros() as u64, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// A sync of 1 to 3 ms, longer on a slow disk, which covers what was written until some moment of it.
pub(crate) struct SlowFlush {
    engine: Arc<dyn Engine>,
    random: SmallRng,
    pace: Pace,
}

impl SlowFlush {
    pub(crate) fn new(engine: Arc<dyn Engine>, seed: u64, pace: Pace) -> Self {
        Self { engine, random: SmallRng::seed_from_u64(seed), pace }
    }
}

impl Flush for SlowFlush {
    fn flush(&mut self) -> BoxFuture<'_, Result<()>> {
        let more = self.pace.get();
        let before = Duration::from_millis(self.random.random_range(0..=2))
            + more.mul_f64(self.random.random());
        let after = Duration::from_millis(1) + more / 2;
        async move {
            tokio::time::sleep(before).await;
            let result = self.engine.sync();
            tokio::time::sleep(after).await;
            result
        }
        .boxed()
    }
}
