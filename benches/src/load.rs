//! Closed loops: clients that ask, wait for the answer, and ask again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use latitude_client::{Error, Expected, Keyspace, Role};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::keys::{Chooser, Keys};
use crate::manner::Manner;
use crate::workload::{Step, Workload};

/// Latencies are told in microseconds, up to this many (ten minutes), to three digits.
const LATENCY_MAX_US: u64 = 600_000_000;
const DIGITS: u8 = 3;
/// How long a client waits after an error before it asks again: one that fails at once must not spin.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
/// Clients that write the keys before the measurement.
const PRELOADERS: u64 = 64;
/// Values are cut from so many random bytes.
const VALUE_POOL: usize = 1 << 20;

/// Values to write: random bytes, which do not compress.
#[derive(Debug)]
pub(crate) struct Values {
    pool: Bytes,
    size: usize,
}

impl Values {
    pub(crate) fn new(size: usize, rng: &mut SmallRng) -> Self {
        let mut pool = vec![0; VALUE_POOL + size];
        rng.fill_bytes(&mut pool);
        Self { pool: pool.into(), size }
    }

    fn next(&self, rng: &mut SmallRng) -> Bytes {
        let at = rng.random_range(0..VALUE_POOL);
        self.pool.slice(at..at + self.size)
    }
}

/// What all clients of a run have in common.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) keys: Keys,
    pub(crate) values: Values,
}

/// What happened in a window: all that began in it, however late it ended.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Of operations that succeeded, in microseconds.
    pub(crate) latencies: Histogram<u64>,
    /// Of those, how many wrote.
    pub(crate) writes: u64,
    /// Latencies of the others.
    pub(crate) reads: Histogram<u64>,
    /// Of the others, how many came with a receipt, and how many of those from a replica that does not
    /// lead.
    pub(crate) receipted: u64,
    pub(crate) by_followers: u64,
    /// Operations that failed, by reason.
    pub(crate) errors: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS)
            .expect("the bounds are in order and the digits few");
        let reads = latencies.clone();
        Self { latencies, writes: 0, reads, receipted: 0, by_followers: 0, errors: BTreeMap::new() }
    }

    pub(crate) fn operations(&self) -> u64 {
        self.latencies.len()
    }

    fn merge(&mut self, other: &Self) {
        self.latencies.add(&other.latencies).expect("all have the same bounds");
        self.reads.add(&other.reads).expect("all have the same bounds");
        self.writes += other.writes;
        self.receipted += other.receipted;
        self.by_followers += other.by_followers;
        for (reason, count) in &other.errors {
            *self.errors.entry(reason).or_default() += count;
        }
    }
}

/// Clients that ask from now on until `end`.
#[derive(Debug)]
pub(crate) struct Running(JoinSet<Tally>);

impl Running {
    /// Starts `clients` clients that share `keyspaces` in turn. What begins from `begin` to `end` is
    /// counted: an operation that hangs must show, not vanish behind the end.
    pub(crate) fn start(
        common: &Arc<Common>,
        keyspaces: &[Keyspace],
        (workload, manner): (Workload, Manner),
        chooser: Chooser,
        clients: u32,
        window: (Instant, Instant),
        seed: u64,
    ) -> Self {
        let mut running = JoinSet::new();
        for (client, keyspace) in (0..clients).zip(keyspaces.iter().cycle()) {
            let rng = SmallRng::seed_from_u64(seed ^ (u64::from(client) << 32));
            let (common, keyspace) = (Arc::clone(common), manner.client(keyspace));
            running.spawn(ask(common, keyspace, workload, chooser, window, rng));
        }
        Self(running)
    }

    /// What all clients saw together.
    pub(crate) async fn end(self) -> Tally {
        let mut all = Tally::new();
        for tally in self.0.join_all().await {
            all.merge(&tally);
        }
        all
    }
}

async fn ask(
    common: Arc<Common>,
    keyspace: Keyspace,
    workload: Workload,
    chooser: Chooser,
    (begin, end): (Instant, Instant),
    mut rng: SmallRng,
) -> Tally {
    let mut tally = Tally::new();
    loop {
        let step = workload.step(&mut rng);
        let key = common.keys.get(chooser.next(&mut rng));
        let started = Instant::now();
        if started >= end {
            return tally;
        }
        let result = take(&keyspace, step, key, common.values.next(&mut rng)).await;
        let now = Instant::now();
        let counts = started >= begin;
        match result {
            Ok(by) if counts => {
                let took = ((now - started).as_micros() as u64).max(1);
                tally.latencies.saturating_record(took);
                if step == Step::Get {
                    tally.reads.saturating_record(took);
                    tally.receipted += u64::from(by.is_some());
                    tally.by_followers += u64::from(by.is_some_and(|role| role != Role::Leader));
                } else {
                    tally.writes += 1;
                }
            }
            Ok(_) => {}
            Err(error) => {
                if counts {
                    *tally.errors.entry(error.reason.name()).or_default() += 1;
                }
                sleep_until((now + PAUSE_AFTER_ERROR).min(end)).await;
            }
        }
    }
}

/// Does it, and tells the part of the replica that served it, if the receipt does.
async fn take(
    keyspace: &Keyspace,
    step: Step,
    key: &[u8],
    value: Bytes,
) -> Result<Option<Role>, Error> {
    let receipt = match step {
        Step::Get => keyspace.get(key).await?.receipt,
        Step::Put => keyspace.put(key, value).await?.receipt,
        Step::Delete => keyspace.delete(key).await?.receipt,
        Step::CompareAndSet => {
            let expected = match keyspace.get(key).await?.value {
                Some(found) => Expected::Version(found.version),
                None => Expected::Absent,
            };
            keyspace.compare_and_set(key, expected, Some(value)).await?.receipt
        }
    };
    Ok(receipt.and_then(|receipt| receipt.role))
}

/// Writes every key once.
///
/// # Errors
/// When a key cannot be written in several attempts.
pub(crate) async fn preload(common: &Arc<Common>, keyspaces: &[Keyspace], seed: u64) -> Result<()> {
    const ATTEMPTS: u32 = 5;
    let mut loading = JoinSet::new();
    for (first, keyspace) in (0..PRELOADERS).zip(keyspaces.iter().cycle()) {
        let (common, keyspace) = (Arc::clone(common), keyspace.clone());
        let mut rng = SmallRng::seed_from_u64(seed ^ first);
        loading.spawn(async move {
            for index in (first..common.keys.len()).step_by(PRELOADERS as usize) {
                let mut attempt = 1;
                while let Err(error) =
                    keyspace.put(common.keys.get(index), common.values.next(&mut rng)).await
                {
                    if attempt == ATTEMPTS {
                        bail!("the keys cannot be written: {}: {}", error.reason, error.message);
                    }
                    attempt += 1;
                    sleep(PAUSE_AFTER_ERROR).await;
                }
            }
            Ok(())
        });
    }
    loading.join_all().await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_size_and_differ() {
        let mut rng = SmallRng::seed_from_u64(1);
        let values = Values::new(1000, &mut rng);
        let (first, second) = (values.next(&mut rng), values.next(&mut rng));
        assert_eq!((first.len(), second.len()), (1000, 1000));
        assert_ne!(first, second);
        assert!(Values::new(0, &mut rng).next(&mut rng).is_empty());
    }

    #[test]
    fn tallies_add_up() {
        let mut one = Tally::new();
        one.latencies.saturating_record(100);
        one.reads.saturating_record(100);
        (one.writes, one.receipted, one.by_followers) = (1, 3, 2);
        one.errors.insert("NO_QUORUM", 2);
        let mut both = one.clone();
        both.merge(&one);
        assert_eq!((both.operations(), both.writes, both.reads.len()), (2, 2, 2));
        assert_eq!((both.receipted, both.by_followers), (6, 4));
        assert_eq!(both.errors, BTreeMap::from([("NO_QUORUM", 4)]));
    }
}
