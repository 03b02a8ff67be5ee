//! Load whose callers must never see an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use latitude_client::Level;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::bed::{Bed, PATIENCE, regions};

const WORKERS_PER_REGION: usize = 3;
/// What a caller would wait for an answer.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Workers in every region: each writes a key of its own and reads back what it wrote.
pub struct Steady {
    workers: JoinSet<Result<()>>,
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Steady {
    /// Starts them on a keyspace.
    pub fn start(bed: &Bed, keyspace: &str) -> Self {
        let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut workers = JoinSet::new();
        for region in regions() {
            let client = bed.client(region);
            for worker in 0..WORKERS_PER_REGION {
                let keyspace = client
                    .keyspace(keyspace)
                    .with_level(Level::Strict)
                    .with_timeout(OPERATION_TIMEOUT);
                let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
                workers.spawn(async move {
                    let mut round = 0u64;
                    while !stop.load(Ordering::SeqCst) {
                        round += 1;
                        // First letters over all ranges.
                        let letter = b"07DKRYbipw"[(round % 10) as usize] as char;
                        let key = format!("{letter}-{region}-{worker}");
                        let value = round.to_string();
                        let here = || format!("in {region}, round {round}");
                        keyspace.put(&key, value.clone()).await.with_context(here)?;
                        let found = keyspace.get(&key).await.with_context(here)?.value;
                        let found = found.map(|found| found.bytes);
                        ensure!(
                            found.as_deref() == Some(value.as_bytes()),
                            "{key} holds {found:?}, not {value}, {}",
                            here()
                        );
                        done.fetch_add(2, Ordering::SeqCst);
                    }
                    Ok(())
                });
            }
        }
        Self { workers, done, stop }
    }

    /// Operations answered so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    /// Waits until so many more operations are answered.
    ///
    /// # Errors
    /// A caller's, if one saw an error; or when they are not answered in time.
    pub async fn advance(&mut self, operations: u64) -> Result<()> {
        let (from, deadline) = (self.done(), Instant::now() + PATIENCE);
        while self.done() < from + operations {
            self.ensure_untroubled()?;
            ensure!(Instant::now() < deadline, "the load stands still");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Whether no caller has seen an error.
    ///
    /// # Errors
    /// The caller's.
    pub fn ensure_untroubled(&mut self) -> Result<()> {
        match self.workers.try_join_next() {
            Some(ended) => {
                ended?.context("an error reached a caller")?;
                bail!("a caller went away")
            }
            None => Ok(()),
        }
    }

    /// Ends the load.
    ///
    /// # Errors
    /// A caller's, if one saw an error.
    pub async fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.workers.join_next().await {
            ended?.context("an error reached a caller")?;
        }
        Ok(())
    }
}
