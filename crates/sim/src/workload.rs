//! Clients that write, read and compare, and what the judges say of what they saw.
//!
//! Values are unique in a run, so what a read saw says which write it saw. Every operation's outcome is
//! ok, fail (it certainly had no effect) or info (nobody knows), as the client's error says.

use std::collections::BTreeMap;
use std::io::Sink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use latitude_checker::history::{Extras, MicroOp, Outcome, Value as Seen};
use latitude_checker::linearizable::{self, Verdict};
use latitude_checker::{History, Recorder};
use latitude_client::{CasOutcome, Error, Expected, Keyspace, Reason, wire};
use rand::RngExt;

use crate::cluster::{ClientHost, Cluster, Pending};

/// The keyspace of the workload.
pub const KEYSPACE: &str = "sim";
/// How long an operation may take.
const TIMEOUT: Duration = Duration::from_secs(4);
/// How long a client waits between two operations, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 20..150;

/// What a workload touches.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Clients, each with one operation at a time.
    pub clients: u32,
    /// Keys, spread over the ranges.
    pub keys: u32,
    /// Ranges of the keyspace.
    pub ranges: u32,
}

impl Default for Workload {
    fn default() -> Self {
        Self { clients: 3, keys: 8, ranges: 4 }
    }
}

/// A workload under way.
pub struct Running {
    shared: Arc<Shared>,
    clients: Vec<Pending<Result<()>>>,
}

struct Shared {
    workload: Workload,
    recorder: Recorder<Sink>,
    next_value: AtomicI64,
    stop: AtomicBool,
}

impl Workload {
    /// Creates the keyspace and waits until every node knows it.
    pub fn prepare(&self, cluster: &mut Cluster) -> Result<()> {
        let split_at = (1..self.ranges)
            .map(|at| format!("k{:03}", at * self.keys / self.ranges).into_bytes().into())
            .collect();
        let request = wire::CreateKeyspaceRequest {
            name: KEYSPACE.into(),
            split_at,
            ..wire::CreateKeyspaceRequest::default()
        };
        cluster
            .run_client(Duration::from_secs(30), |host| async move {
                host.client.admin().create_keyspace(request).await
            })?
            .map_err(|error| anyhow!("the keyspace was not created: {error}"))?;
        // Nodes hear of it one after another, and one that has not heard says that there is none.
        let key = self.key(0);
        cluster.run_client(Duration::from_secs(30), |host| async move {
            let keyspace = host.client.keyspace(KEYSPACE);
            while keyspace.get(&key).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    }

    fn key(&self, at: u32) -> String {
        format!("k{at:03}")
    }

    /// Starts the clients.
    pub fn start(self, cluster: &mut Cluster) -> Running {
        let shared = Arc::new(Shared {
            workload: self,
            recorder: Recorder::new(std::io::sink()),
            next_value: AtomicI64::new(1),
            stop: AtomicBool::new(false),
        });
        let clients = (0..self.clients)
            .map(|_| {
                let shared = Arc::clone(&shared);
                cluster.start_client(TIMEOUT, |host| async move { shared.run(host).await })
            })
            .collect();
        Running { shared, clients }
    }
}

impl Running {
    /// Lets the clients finish what they have under way, reads every key once more and has everything
    /// judged.
    pub fn finish(self, cluster: &mut Cluster) -> Result<Summary> {
        let Self { shared, clients } = self;
        shared.stop.store(true, Ordering::Relaxed);
        let deadline = cluster.now() + 2 * TIMEOUT;
        while !clients.iter().all(Pending::is_ready) {
            if cluster.now() > deadline {
                bail!("a client's operation did not end by its deadline");
            }
            cluster.step()?;
        }
        for client in clients {
            client.take().context("the client has ended")??;
        }
        let last = Arc::clone(&shared);
        cluster.run_client(Duration::from_secs(30), |host| async move {
            last.read_all(host).await
        })??;
        let history = shared.recorder.history();
        judge(&history)
    }
}

/// What a workload did, once it was found right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Operations by outcome: ok, certainly without effect, unknown.
    pub outcomes: [usize; 3],
}

fn judge(history: &History) -> Result<Summary> {
    let report = linearizable::check(history);
    if report.verdict != Verdict::Linearizable {
        bail!("{}", report.verdict);
    }
    let operations = history.operations();
    let count = |outcome| operations.iter().filter(|op| op.outcome == outcome).count();
    Ok(Summary { outcomes: [Outcome::Ok, Outcome::Fail, Outcome::Info].map(count) })
}

impl Shared {
    async fn run(&self, mut host: ClientHost) -> Result<()> {
        let keyspace = host.client.keyspace(KEYSPACE).with_timeout(TIMEOUT);
        let mut process = self.recorder.process();
        let mut seen: BTreeMap<u32, Option<i64>> = BTreeMap::new();
        while !self.stop.load(Ordering::Relaxed) {
            let at = host.random.random_range(0..self.workload.keys);
            match host.random.random_range(0..10) {
                0..4 => {
                    let value = self.read(&host, &keyspace, process, at, false).await?;
                    if let Some(value) = value {
                        seen.insert(at, value);
                    }
                }
                4..8 => process = self.write(&host, &keyspace, process, at).await?,
                _ => {
                    let from = seen.get(&at).copied().flatten();
                    process = self.compare(&host, &keyspace, process, at, from).await?;
                }
            }
            let pause = Duration::from_millis(host.random.random_range(PAUSE_MS));
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// Reads every key, and must succeed.
    async fn read_all(&self, host: ClientHost) -> Result<()> {
        let keyspace = host.client.keyspace(KEYSPACE).with_timeout(Duration::from_secs(10));
        let process = self.recorder.process();
        for at in 0..self.workload.keys {
            if self.read(&host, &keyspace, process, at, true).await?.is_none() {
                bail!("key {at} could not be read at the end");
            }
        }
        Ok(())
    }

    /// Reads a key; the outer `None`: it could not be read.
    async fn read(
        &self,
        host: &ClientHost,
        keyspace: &Keyspace,
        process: u64,
        at: u32,
        is_final: bool,
    ) -> Result<Option<Option<i64>>> {
        let key = self.workload.key(at);
        let read = |value| vec![MicroOp::Read { key: key.clone(), value }];
        let extras = || Extras { is_final, ..Extras::default() };
        self.recorder.invoke(process, nanos(host), read(Seen::Absent), extras())?;
        match keyspace.get(&key).await {
            Ok(answer) => {
                let value = answer.value.map(|value| decode(&value.bytes)).transpose()?;
                let seen = value.map_or(Seen::Absent, Seen::Integer);
                self.recorder.ok(process, nanos(host), read(seen), extras())?;
                Ok(Some(value))
            }
            Err(error) => {
                expected(&error)?;
                self.recorder.fail(process, nanos(host), extras())?;
                Ok(None)
            }
        }
    }

    /// Writes a key; returns the process under which the client goes on.
    async fn write(
        &self,
        host: &ClientHost,
        keyspace: &Keyspace,
        process: u64,
        at: u32,
    ) -> Result<u64> {
        let key = self.workload.key(at);
        let value = self.next_value.fetch_add(1, Ordering::Relaxed);
        let write = vec![MicroOp::Write { key: key.clone(), value }];
        self.recorder.invoke(process, nanos(host), write.clone(), Extras::default())?;
        match keyspace.put(&key, value.to_string()).await {
            Ok(_) => {
                self.recorder.ok(process, nanos(host), write, Extras::default())?;
                Ok(process)
            }
            Err(error) => self.failed(host, process, &error),
        }
    }

    async fn compare(
        &self,
        host: &ClientHost,
        keyspace: &Keyspace,
        process: u64,
        at: u32,
        from: Option<i64>,
    ) -> Result<u64> {
        let key = self.workload.key(at);
        let to = self.next_value.fetch_add(1, Ordering::Relaxed);
        let compare = vec![MicroOp::CompareAndSet { key: key.clone(), from, to }];
        self.recorder.invoke(process, nanos(host), compare.clone(), Extras::default())?;
        let condition =
            from.map_or(Expected::Absent, |from| Expected::Value(from.to_string().into()));
        let answer = keyspace.compare_and_set(&key, condition, Some(to.to_string().into())).await;
        match answer.map(|answer| answer.value) {
            Ok(CasOutcome::Applied { .. }) => {
                self.recorder.ok(process, nanos(host), compare, Extras::default())?;
                Ok(process)
            }
            Ok(CasOutcome::Mismatch { .. }) => {
                self.recorder.mismatch(process, nanos(host), Extras::default())?;
                Ok(process)
            }
            Err(error) => self.failed(host, process, &error),
        }
    }

    fn failed(&self, host: &ClientHost, process: u64, error: &Error) -> Result<u64> {
        expected(error)?;
        if error.may_have_applied() {
            return Ok(self.recorder.info(process, nanos(host), Extras::default())?);
        }
        self.recorder.fail(process, nanos(host), Extras::default())?;
        Ok(process)
    }
}

/// Faults explain many errors, but not these.
fn expected(error: &Error) -> Result<()> {
    tracing::debug!(%error, "an operation failed");
    match error.reason {
        Reason::Internal | Reason::Malformed | Reason::ArgumentInvalid => {
            Err(anyhow!("no fault explains this: {error}"))
        }
        _ => Ok(()),
    }
}

fn nanos(host: &ClientHost) -> u64 {
    host.now().as_nanos() as u64
}

fn decode(bytes: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(bytes).context("a value that nobody wrote")?;
    text.parse().with_context(|| format!("nobody wrote {text:?}"))
}
