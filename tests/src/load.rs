//! Recorded load: processes that read and write a few keys, and what they were told.
//!
//! ```text
//!   process ─▶ invoke ─▶ SDK ─▶ ok        it took effect
//!                             ├─ mismatch the condition was judged and did not hold
//!                             ├─ fail     an error whose outcome is NOT_APPLIED
//!                             └─ info     an error whose outcome is UNKNOWN; a new process goes on
//! ```
//!
//! A key's version in the history is the log index of a full receipt: a write's own entry, or the last
//! entry applied where a read was served. A key stays in one range here, so its versions have one order.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use latitude_checker::history::{Extras, MicroOp, Operation, Value, Version};
use latitude_checker::linearizable::{self, Verdict, monitor};
use latitude_checker::{History, Recorder};
use latitude_client::{
    Answer, CasOutcome, Client, Error, Expected, Keyspace, Level, Receipt, ReceiptDetail,
};
use latitude_rpc::pb::v1;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::bed::{Bed, PATIENCE, regions};
use crate::raw::{self, Raw};

/// The successful operations a history must have.
pub const OK_MIN: u64 = 5_000;
/// The keyspace the load runs on, and its ranges.
pub const KEYSPACE: &str = "recorded";
/// Its ranges.
pub const RANGES: u32 = 8;
const KEYS: usize = 40;
const PROCESSES: usize = 12;
/// How long one operation may take, all attempts included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);

/// When something was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// All is well.
    Before,
    /// The fault is there.
    During,
    /// The fault is gone.
    After,
}

struct Shared {
    recorder: Recorder<BufWriter<File>>,
    started: Instant,
    keys: Vec<String>,
    value_next: AtomicI64,
    phase: AtomicUsize,
    ok: [AtomicU64; 3],
    stop: AtomicBool,
}

/// Recorded load on a cluster.
pub struct Load {
    shared: Arc<Shared>,
    processes: JoinSet<Result<()>>,
    history: PathBuf,
}

/// What became of an operation, as the history has it.
enum Ended {
    Ok(Vec<MicroOp>, Option<Receipt>),
    Mismatch,
    Failed(Error),
}

impl Load {
    /// Starts processes in every region; the history is written into the cluster's directory.
    ///
    /// # Errors
    /// When the history cannot be written.
    pub fn start(bed: &Bed) -> Result<Self> {
        let history = bed.dir().join("history.jsonl");
        let file = File::create(&history).context("the history cannot be written")?;
        // Evenly over letters and digits, as the ranges are.
        let letters = b"059BGLQVaeimrw";
        let keys =
            (0..KEYS).map(|i| format!("{}{i}", letters[i % letters.len()] as char)).collect();
        let shared = Arc::new(Shared {
            recorder: Recorder::new(BufWriter::new(file)),
            started: Instant::now(),
            keys,
            value_next: AtomicI64::new(1),
            phase: AtomicUsize::new(0),
            ok: Default::default(),
            stop: AtomicBool::new(false),
        });
        let clients: Vec<(&str, Client)> =
            regions().into_iter().map(|region| (region, bed.client(region))).collect();
        let mut processes = JoinSet::new();
        for (at, &(region, ref client)) in clients.iter().cycle().take(PROCESSES).enumerate() {
            let keyspace = recorded(client);
            processes.spawn(Arc::clone(&shared).process(keyspace, region, at as u64));
        }
        Ok(Self { shared, processes, history })
    }

    /// Adds readers that ask one node by bare gRPC and wait long for it, so that reads queue on it
    /// while it stands still.
    ///
    /// # Errors
    /// When the address is none.
    pub fn add_readers_of(&mut self, address: std::net::SocketAddr, readers: u64) -> Result<()> {
        let raw = Raw::to(address)?;
        for at in 0..readers {
            self.processes.spawn(Arc::clone(&self.shared).reader(raw.clone(), 1_000 + at));
        }
        Ok(())
    }

    /// Notes a fault, or its end, in the history.
    ///
    /// # Errors
    /// When the history cannot be written.
    pub fn enter(&self, phase: Phase, fault: &str) -> Result<()> {
        self.shared.phase.store(phase as usize, Ordering::SeqCst);
        self.shared.recorder.nemesis(self.shared.nanos(), fault, serde_json::Value::Null)?;
        Ok(())
    }

    /// Operations that succeeded in a phase.
    pub fn ok_in(&self, phase: Phase) -> u64 {
        self.shared.ok[phase as usize].load(Ordering::SeqCst)
    }

    /// Waits until so many operations have succeeded in a phase.
    ///
    /// # Errors
    /// When a process failed, or they have not in time.
    pub async fn until_ok(&mut self, phase: Phase, count: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE * 2;
        while self.ok_in(phase) < count {
            if let Some(ended) = self.processes.try_join_next() {
                ended??;
                bail!("a process of the load ended by itself");
            }
            if Instant::now() >= deadline {
                bail!("only {} of {count} operations succeeded {phase:?}", self.ok_in(phase));
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Waits for what is missing from a valid history, reads every key once more in every region, and
    /// has the checker judge it all.
    ///
    /// # Errors
    /// When the history is not valid or not linearizable; the error names its file.
    pub async fn judge(mut self, bed: &Bed) -> Result<()> {
        let so_far = self.ok_in(Phase::Before) + self.ok_in(Phase::During);
        self.until_ok(Phase::After, OK_MIN.saturating_sub(so_far).max(1_000)).await?;
        self.shared.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.processes.join_next().await {
            ended??;
        }
        for region in regions() {
            let keyspace = recorded(&bed.client(region)).with_timeout(PATIENCE);
            let process = self.shared.recorder.process();
            for key in &self.shared.keys {
                self.shared.read_finally(&keyspace, region, process, key).await?;
            }
        }
        let history = self.history.display().to_string();
        let shared = Arc::into_inner(self.shared).context("a process of the load still runs")?;
        let (recorded, _) = shared.recorder.finish()?;
        judge(&recorded).with_context(|| format!("the history is in {history}"))
    }
}

fn judge(history: &History) -> Result<()> {
    let report = linearizable::check(history);
    ensure!(report.counts.ok as u64 >= OK_MIN, "too few operations succeeded: {}", report.counts);
    ensure!(report.verdict == Verdict::Linearizable, "{}\n{}", report.verdict, report.counts);
    if let Some(violation) = monitor::check(&history.operations()) {
        bail!("{violation}");
    }
    let versioned = |op: &&Operation| op.extras.version.is_some();
    let versions = history.operations().iter().filter(versioned).count();
    ensure!(versions as u64 >= OK_MIN, "only {versions} replies carried a version");
    Ok(())
}

fn recorded(client: &Client) -> Keyspace {
    client
        .keyspace(KEYSPACE)
        .with_level(Level::Strict)
        .with_receipt(ReceiptDetail::Full)
        .with_timeout(OPERATION_TIMEOUT)
}

fn bytes_of(value: i64) -> Bytes {
    value.to_string().into()
}

fn value_of(bytes: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(bytes).context("a value nobody wrote")?;
    text.parse().with_context(|| format!("a value nobody wrote: {text:?}"))
}

impl Shared {
    fn nanos(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn phase(&self) -> usize {
        self.phase.load(Ordering::SeqCst)
    }

    /// One process: operations one after the other, chosen by its number.
    async fn process(self: Arc<Self>, keyspace: Keyspace, region: &str, seed: u64) -> Result<()> {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut process = self.recorder.process();
        // What it saw last, to have conditions that hold.
        let mut seen = vec![None; self.keys.len()];
        while !self.stop.load(Ordering::SeqCst) {
            let at = random.random_range(0..self.keys.len());
            let key = &self.keys[at];
            let to = self.value_next.fetch_add(1, Ordering::SeqCst);
            let micro_op = match (random.random_range(0..100), seen[at]) {
                (0..40, _) => read(key, Value::Absent),
                (40..62, _) => MicroOp::Write { key: key.clone(), value: to },
                (62..80, Some(from)) => {
                    MicroOp::CompareAndSet { key: key.clone(), from: Some(from), to }
                }
                (62..92, _) => MicroOp::PutIfAbsent { key: key.clone(), value: to },
                _ => MicroOp::Delete { key: key.clone() },
            };
            process = self.run(&keyspace, region, process, micro_op, &mut seen[at], false).await?;
        }
        Ok(())
    }

    /// Runs and records one operation; returns the process that goes on.
    async fn run(
        &self,
        keyspace: &Keyspace,
        region: &str,
        process: u64,
        micro_op: MicroOp,
        seen: &mut Option<i64>,
        is_final: bool,
    ) -> Result<u64> {
        let extras = Extras {
            node: Some(region.to_owned()),
            level: Some(Level::Strict.name().to_owned()),
            is_final,
            ..Extras::default()
        };
        let phase = self.phase();
        self.recorder.invoke(process, self.nanos(), vec![micro_op.clone()], extras)?;
        let ended = ask(keyspace, &micro_op).await?;
        let now = self.nanos();
        match ended {
            Ended::Ok(done, receipt) => {
                *seen = match &done[..] {
                    [MicroOp::Read { value: Value::Integer(value), .. }] => Some(*value),
                    [MicroOp::Write { value, .. } | MicroOp::PutIfAbsent { value, .. }] => {
                        Some(*value)
                    }
                    [MicroOp::CompareAndSet { to, .. }] => Some(*to),
                    _ => None,
                };
                let index =
                    receipt.as_ref().and_then(|receipt| receipt.log).map(|(_, index)| index);
                let extras = Extras {
                    version: index.map(Version::from),
                    receipt: receipt.map(|receipt| receipt.to_string().into()),
                    ..Extras::default()
                };
                self.recorder.ok(process, now, done, extras)?;
                self.ok[phase].fetch_add(1, Ordering::SeqCst);
            }
            Ended::Mismatch => {
                *seen = None;
                self.recorder.mismatch(process, now, Extras::default())?;
            }
            Ended::Failed(error) => {
                let extras =
                    Extras { receipt: Some(error.to_string().into()), ..Extras::default() };
                ensure!(!is_final, "a key cannot be read after the fault is gone: {error}");
                if error.may_have_applied() {
                    return Ok(self.recorder.info(process, now, extras)?);
                }
                self.recorder.fail(process, now, extras)?;
            }
        }
        Ok(process)
    }

    async fn read_finally(
        &self,
        keyspace: &Keyspace,
        region: &str,
        process: u64,
        key: &str,
    ) -> Result<()> {
        let micro_op = read(key, Value::Absent);
        self.run(keyspace, region, process, micro_op, &mut None, true).await.map(drop)
    }

    /// A process that reads at one node only.
    async fn reader(self: Arc<Self>, raw: Raw, seed: u64) -> Result<()> {
        let mut random = SmallRng::seed_from_u64(seed);
        let process = self.recorder.process();
        while !self.stop.load(Ordering::SeqCst) {
            let key = &self.keys[random.random_range(0..self.keys.len())];
            let phase = self.phase();
            let invoked = vec![read(key, Value::Absent)];
            self.recorder.invoke(process, self.nanos(), invoked, Extras::default())?;
            let answer = raw.execute(raw::command(KEYSPACE, raw::get(key))).await;
            let now = self.nanos();
            match answer {
                Ok(v1::Reply { result: Some(v1::reply::Result::Get(found)), receipt, .. }) => {
                    let value = match found.value {
                        Some(bytes) => Value::Integer(value_of(&bytes)?),
                        None => Value::Absent,
                    };
                    let log = receipt.and_then(|receipt| receipt.log);
                    let version = log.map(|log| Version::from(log.index));
                    let extras = Extras { version, ..Extras::default() };
                    self.recorder.ok(process, now, vec![read(key, value)], extras)?;
                    self.ok[phase].fetch_add(1, Ordering::SeqCst);
                }
                Ok(reply) => bail!("a get was answered with {reply:?}"),
                Err(error) => {
                    let extras =
                        Extras { receipt: Some(error.to_string().into()), ..Extras::default() };
                    self.recorder.fail(process, now, extras)?;
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
        Ok(())
    }
}

fn read(key: &str, value: Value) -> MicroOp {
    MicroOp::Read { key: key.to_owned(), value }
}

/// Asks the SDK for what a step says.
async fn ask(keyspace: &Keyspace, micro_op: &MicroOp) -> Result<Ended> {
    let same = || vec![micro_op.clone()];
    Ok(match micro_op {
        MicroOp::Read { key, .. } => match keyspace.get(key).await {
            Ok(Answer { value, receipt, .. }) => {
                let value = match value {
                    Some(found) => Value::Integer(value_of(&found.bytes)?),
                    None => Value::Absent,
                };
                Ended::Ok(vec![read(key, value)], receipt)
            }
            Err(error) => Ended::Failed(error),
        },
        MicroOp::Write { key, value } => match keyspace.put(key, bytes_of(*value)).await {
            Ok(answer) => Ended::Ok(same(), answer.receipt),
            Err(error) => Ended::Failed(error),
        },
        MicroOp::Delete { key } => match keyspace.delete(key).await {
            Ok(answer) => Ended::Ok(same(), answer.receipt),
            Err(error) => Ended::Failed(error),
        },
        MicroOp::PutIfAbsent { key, value } => {
            compared(same(), keyspace.put_if_absent(key, bytes_of(*value)).await)
        }
        MicroOp::CompareAndSet { key, from, to } => {
            let expected = from.map_or(Expected::Absent, |from| Expected::Value(bytes_of(from)));
            compared(same(), keyspace.compare_and_set(key, expected, Some(bytes_of(*to))).await)
        }
        other => bail!("the load does not know {other}"),
    })
}

fn compared(done: Vec<MicroOp>, answer: Result<Answer<CasOutcome>, Error>) -> Ended {
    match answer {
        Ok(answer) if answer.value.is_applied() => Ended::Ok(done, answer.receipt),
        Ok(_) => Ended::Mismatch,
        Err(error) => Ended::Failed(error),
    }
}
