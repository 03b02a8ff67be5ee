//! Recorded load: processes that read and write a few keys, and what they were told.
//!
//! ```text
//!   process ─▶ invoke ─▶ SDK ─▶ ok        it took effect
//!      │                      ├─ mismatch the condition was judged and did not hold
//!      │                      ├─ fail     an error whose outcome is NOT_APPLIED
//!      │                      └─ info     an error whose outcome is UNKNOWN; the session goes on as a new process
//!      └─ now and then leaves its session, and goes on with one that was left in another region
//! ```
//!
//! Each operation is at one of the levels of the load's [`Subject`], on the same keys. A process of the history is a
//! session, which goes on over nodes and regions. A value's version in the history is its write's: its time, then log
//! above local, then its writer, which compare over all keys.

mod asking;
mod judging;
mod subject;

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use latitude_checker::Recorder;
use latitude_checker::history::{Extras, MicroOp, Value};
use latitude_client::{Client, Keyspace, Level, Proof, ReceiptDetail, Session};
use latitude_rpc::ToWire;
use latitude_rpc::pb::v1;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::bed::{Bed, PATIENCE, regions};
use crate::raw::{self, Raw};
use asking::{Ended, ask, found};
use subject::Habit;
pub use subject::Subject;

/// The ranges of a keyspace that a load runs on.
pub const RANGES: u32 = 8;
/// How long one operation may take, all attempts included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);
/// A session is handed on after so many operations, about.
const OPERATIONS_OF_A_SESSION: u32 = 40;

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
    subject: Subject,
    recorder: Recorder<BufWriter<File>>,
    started: Instant,
    keys: Vec<String>,
    value_next: AtomicI64,
    phase: AtomicUsize,
    ok: [AtomicU64; 3],
    /// Reads answered by a replica's closed time, without a word from the leader.
    by_closed_time: AtomicU64,
    /// Local writes that were acknowledged while the fault was there, by region.
    taken_during: [AtomicU64; 3],
    stop: AtomicBool,
    /// Sessions that were left: process and token. Whoever takes one over goes on with it.
    left: Mutex<Vec<(u64, String)>>,
}

/// A session, and the process it is in the history.
struct Caller {
    process: u64,
    session: Session,
    /// The process whose token the next operation takes over.
    token_from: Option<u64>,
}

/// How an operation is asked for.
#[derive(Clone, Copy)]
struct Way<'a> {
    keyspace: &'a Keyspace,
    region: &'a str,
    level: Level,
    is_final: bool,
}

/// Recorded load on a cluster.
pub struct Load {
    shared: Arc<Shared>,
    processes: JoinSet<Result<()>>,
    history: PathBuf,
}

impl Load {
    /// Starts processes in every region on the subject's keyspace; the history is written into the cluster's directory.
    ///
    /// # Errors
    /// When the history cannot be written.
    pub fn start(bed: &Bed, subject: Subject) -> Result<Self> {
        let history = bed.dir().join(format!("{}.jsonl", subject.keyspace()));
        let file = File::create(&history).context("the history cannot be written")?;
        // Evenly over letters and digits, as the ranges are.
        let letters = b"059BGLQVaeimrw";
        let keys = (0..subject.keys())
            .map(|i| format!("{}{i}", letters[i % letters.len()] as char))
            .collect();
        let shared = Arc::new(Shared {
            subject,
            recorder: Recorder::new(BufWriter::new(file)),
            started: Instant::now(),
            keys,
            value_next: AtomicI64::new(1),
            phase: AtomicUsize::new(0),
            ok: Default::default(),
            by_closed_time: AtomicU64::new(0),
            taken_during: Default::default(),
            stop: AtomicBool::new(false),
            left: Mutex::default(),
        });
        let clients: Vec<(&str, Client)> =
            regions().into_iter().map(|region| (region, bed.client(region))).collect();
        let mut processes = JoinSet::new();
        let many = clients.iter().cycle().take(subject.processes());
        for (at, &(region, ref client)) in many.enumerate() {
            let keyspace = recorded(client, subject);
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

    /// Local writes that were acknowledged in a region while the fault was there.
    pub fn taken_during(&self, region: &str) -> u64 {
        let at = regions().iter().position(|known| *known == region);
        at.map_or(0, |at| self.shared.taken_during[at].load(Ordering::SeqCst))
    }

    /// Waits for what is missing from a valid history, and until all local writes are in the log and every replica has
    /// applied it; reads every key once more in every region, and has the checker judge it all.
    ///
    /// # Errors
    /// When the history is not valid, or what a judge says of it; the error names its file.
    pub async fn judge(mut self, bed: &Bed) -> Result<()> {
        let subject = self.shared.subject;
        let so_far = self.ok_in(Phase::Before) + self.ok_in(Phase::During);
        let missing = subject.ok_min().saturating_sub(so_far).max(subject.ok_after_min());
        self.until_ok(Phase::After, missing).await?;
        self.shared.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.processes.join_next().await {
            ended??;
        }
        let levels = match subject {
            Subject::Log => &[Level::Strict][..],
            _ => &[Level::Strict, Level::Causal, Level::Eventual],
        };
        if subject != Subject::Log {
            bed.replicas_equal(subject.keyspace()).await?;
        }
        for region in regions() {
            let keyspace = recorded(&bed.client(region), subject).with_timeout(PATIENCE);
            for &level in levels {
                let way = Way { keyspace: &keyspace, region, level, is_final: true };
                let mut caller = self.shared.new_caller();
                for key in &self.shared.keys {
                    let read = read(key, Value::Absent);
                    self.shared.run(way, &mut caller, read, &mut Value::Absent).await?;
                }
            }
        }
        let history = self.history.display().to_string();
        let shared = Arc::into_inner(self.shared).context("a process of the load still runs")?;
        let by_closed_time = shared.by_closed_time.into_inner();
        let (recorded, _) = shared.recorder.finish()?;
        judging::judge(&recorded, subject, by_closed_time)
            .with_context(|| format!("the history is in {history}"))
    }
}

fn recorded(client: &Client, subject: Subject) -> Keyspace {
    client
        .keyspace(subject.keyspace())
        .with_receipt(ReceiptDetail::Full)
        .with_timeout(OPERATION_TIMEOUT)
}

impl Shared {
    fn nanos(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn phase(&self) -> usize {
        self.phase.load(Ordering::SeqCst)
    }

    fn new_caller(&self) -> Caller {
        let (process, session) = (self.recorder.process(), Session::new());
        Caller { process, session, token_from: None }
    }

    /// Operations one after the other, chosen by the seed.
    async fn process(self: Arc<Self>, keyspace: Keyspace, region: &str, seed: u64) -> Result<()> {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut caller = self.new_caller();
        let (subject, habit) = (self.subject, self.subject.habit(seed));
        // What it saw last, to have conditions that hold.
        let mut seen = vec![Value::Absent; self.keys.len()];
        while !self.stop.load(Ordering::SeqCst) {
            let at = random.random_range(0..self.keys.len());
            let number = self.value_next.fetch_add(1, Ordering::SeqCst);
            let level = subject.level(habit, &mut random);
            let micro_op = subject.next(&self.keys[at], number, &seen[at], level, &mut random);
            let level = match (habit, &micro_op) {
                (Habit::ReadsAlone, MicroOp::Read { .. }) => Level::Eventual,
                _ => level,
            };
            let way = Way { keyspace: &keyspace, region, level, is_final: false };
            let is_answered = self.run(way, &mut caller, micro_op, &mut seen[at]).await?;
            let is_stuck = habit == Habit::Stays && !is_answered;
            if is_stuck || random.random_ratio(1, OPERATIONS_OF_A_SESSION) {
                self.change_session(&mut caller, habit)?;
            }
        }
        Ok(())
    }

    /// Leaves the session to whoever wants it, and goes on with the one that was left longest ago, as it
    /// would in another process: by its text. Only those who roam take one over.
    fn change_session(&self, caller: &mut Caller, habit: Habit) -> Result<()> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        // A process has something to hand on only once it has sent an operation.
        if caller.token_from.is_none()
            && let Some(token) = caller.session.token()
        {
            left.push((caller.process, token));
        }
        *caller = self.new_caller();
        if habit == Habit::Roams && left.len() > self.subject.processes() / 2 {
            let (process, token) = left.remove(0);
            caller.session = token.parse()?;
            caller.token_from = Some(process);
        }
        Ok(())
    }

    /// Runs and records one operation. Returns whether it was answered. After an unknown outcome the caller goes on as
    /// another process, with the session as the last answer left it.
    async fn run(
        &self,
        way: Way<'_>,
        caller: &mut Caller,
        micro_op: MicroOp,
        seen: &mut Value,
    ) -> Result<bool> {
        let extras = Extras {
            node: Some(way.region.to_owned()),
            level: Some(way.level.name().to_owned()),
            token_from: caller.token_from.take(),
            is_final: way.is_final,
            ..Extras::default()
        };
        let phase = self.phase();
        let process = caller.process;
        self.recorder.invoke(process, self.nanos(), vec![micro_op.clone()], extras)?;
        let keyspace =
            way.keyspace.clone().with_level(way.level).with_session(caller.session.clone());
        let ended = ask(self.subject, &keyspace, &micro_op).await?;
        let now = self.nanos();
        match ended {
            Ended::Ok { done, version, receipt } => {
                *seen = match &done {
                    MicroOp::Read { value, .. } => value.clone(),
                    MicroOp::Write { value, .. }
                    | MicroOp::PutIfAbsent { value, .. }
                    | MicroOp::CompareAndSet { to: value, .. } => Value::Integer(*value),
                    _ => Value::Absent,
                };
                self.note_taken(way, phase, &done);
                let proof = receipt.as_ref().and_then(|receipt| receipt.proof);
                if proof == Some(Proof::ClosedTime) {
                    self.by_closed_time.fetch_add(1, Ordering::SeqCst);
                }
                let receipt = receipt.map(|receipt| receipt.to_string().into());
                let extras = Extras { version, receipt, ..Extras::default() };
                self.recorder.ok(process, now, vec![done], extras)?;
                self.ok[phase].fetch_add(1, Ordering::SeqCst);
            }
            Ended::Mismatch { version } => {
                *seen = Value::Absent;
                let extras = Extras { version, ..Extras::default() };
                self.recorder.mismatch(process, now, extras)?;
            }
            Ended::Failed(error) => {
                let extras =
                    Extras { receipt: Some(error.to_string().into()), ..Extras::default() };
                let is_final = way.is_final;
                ensure!(!is_final, "a key cannot be read after the fault is gone: {error}");
                if error.may_have_applied() {
                    caller.process = self.recorder.info(process, now, extras)?;
                    caller.token_from = Some(process);
                } else {
                    self.recorder.fail(process, now, extras)?;
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn note_taken(&self, way: Way<'_>, phase: usize, done: &MicroOp) {
        let is_local = matches!(way.level, Level::Causal | Level::Eventual);
        let is_write = !matches!(done, MicroOp::Read { .. });
        if is_local && is_write && phase == Phase::During as usize {
            let at = regions().iter().position(|region| *region == way.region);
            at.inspect(|at| _ = self.taken_during[*at].fetch_add(1, Ordering::SeqCst));
        }
    }

    /// A process that reads at one node only, and carries its session's token from answer to question
    /// itself.
    async fn reader(self: Arc<Self>, raw: Raw, seed: u64) -> Result<()> {
        let mut random = SmallRng::seed_from_u64(seed);
        let process = self.recorder.process();
        let mut token = Bytes::new();
        while !self.stop.load(Ordering::SeqCst) {
            let key = &self.keys[random.random_range(0..self.keys.len())];
            let phase = self.phase();
            let level = self.subject.level(Habit::Roams, &mut random);
            let extras = Extras { level: Some(level.name().to_owned()), ..Extras::default() };
            let invoked = vec![read(key, Value::Absent)];
            self.recorder.invoke(process, self.nanos(), invoked, extras)?;
            let command = v1::Command {
                level: level.to_wire(),
                token: token.clone(),
                ..raw::command(self.subject.keyspace(), raw::get(key))
            };
            let answer = raw.execute(command).await;
            let now = self.nanos();
            match answer {
                Ok(v1::Reply { result: Some(v1::reply::Result::Get(got)), token: new, .. }) => {
                    ensure!(!new.is_empty(), "the answer to a read of a session carries no token");
                    token = new;
                    let (value, version) = found(got)?;
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
