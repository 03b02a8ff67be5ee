//! Clients of the real SDK against a simulated cluster, every operation recorded and judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use latitude_checker::Recorder;
use latitude_checker::history::{Extras, History, MicroOp, Value};
use latitude_checker::linearizable::{self, Report};
use latitude_client::{CasOutcome, Client, Expected, Keyspace, Result, wire};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use crate::clock::virtual_now;
use crate::cluster::{Cluster, Setup, address, client_net};
use crate::faults::FaultPlan;
use crate::trace::Trace;

const KEYSPACE: &str = "sim";
const KEYS: u32 = 12;
const WORKERS: u32 = 4;

/// A run: a cluster, what goes wrong in it, and how long its clients work.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The cluster.
    pub setup: Setup,
    /// What goes wrong.
    pub faults: FaultPlan,
    /// When the clients stop, in virtual time: well after the last fault, for by then all must be well.
    pub work_until: Duration,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The hash over everything that was sent, and how many events are in it.
    pub trace: (u64, u64),
    /// What the clients did and saw.
    pub history: History,
    /// Whether that is linearizable.
    pub report: Report,
    /// Virtual time it took.
    pub took: Duration,
}

impl Scenario {
    /// Several faults drawn from the seed, then ten seconds without.
    pub fn draw(seed: u64) -> Self {
        let setup = Setup::new(seed);
        let faults = FaultPlan::draw(seed, setup.nodes, Duration::from_secs(5), 4);
        let work_until = faults.end() + Duration::from_secs(10);
        Self { setup, faults, work_until }
    }
}

/// Runs a scenario to its end.
///
/// # Errors
/// A node stopped by itself, a client could not finish its work although the faults were over, or the
/// virtual time ran out: with what happened, for a person.
pub fn run(scenario: &Scenario) -> std::result::Result<Outcome, String> {
    let (mut sim, mut cluster) = Cluster::start(&scenario.setup);
    let recorder = Arc::new(Recorder::new(std::io::sink()));
    let ready = Arc::new(AtomicBool::new(false));
    let values = Arc::new(AtomicI64::new(1));
    let trace = cluster.trace();
    sim.client("operator", operate(scenario.setup.clone(), trace.clone(), Arc::clone(&ready)));
    for worker in 0..WORKERS {
        let work = Work {
            worker,
            seed: scenario.setup.seed,
            nodes: scenario.setup.nodes,
            until: scenario.work_until,
            trace: trace.clone(),
            recorder: Arc::clone(&recorder),
            values: Arc::clone(&values),
            ready: Arc::clone(&ready),
        };
        sim.client(format!("worker-{worker}"), work.run());
    }
    let mut before = Duration::ZERO;
    loop {
        let finished = sim.step().map_err(|error| format!("after {:?}: {error}", sim.elapsed()))?;
        let now = sim.elapsed();
        if finished {
            break;
        }
        scenario.faults.step(&mut sim, &mut cluster, before, now);
        before = now;
    }
    let took = sim.elapsed();
    drop(sim);
    let history = recorder.history();
    let report = linearizable::check(&history);
    Ok(Outcome { trace: trace.digest(), history, report, took })
}

fn client(name: &str, seed: u64, nodes: u32, trace: &Trace) -> Client {
    Client::builder()
        .seeds((1..=nodes).map(address))
        .region("eu")
        .net(Arc::new(client_net(name, trace)))
        .random_seed(seed)
        .timeout(Duration::from_secs(5))
        .build()
}

/// Makes the cluster and the keyspace, as an operator would.
async fn operate(setup: Setup, trace: Trace, ready: Arc<AtomicBool>) -> turmoil::Result {
    let admin = client("operator", setup.seed ^ 0x0b, setup.nodes, &trace).admin();
    loop {
        match admin.init(None).await {
            Ok(_) => break,
            Err(error) if error.is_retryable() => sleep(Duration::from_millis(200)).await,
            Err(error) => return Err(error.into()),
        }
    }
    let request = wire::CreateKeyspaceRequest {
        name: KEYSPACE.into(),
        split_at: ["k03", "k06", "k09"].map(|key| key.as_bytes().into()).into(),
        ..wire::CreateKeyspaceRequest::default()
    };
    admin.create_keyspace(request).await?;
    ready.store(true, Ordering::Release);
    Ok(())
}

/// One client.
struct Work {
    worker: u32,
    seed: u64,
    nodes: u32,
    until: Duration,
    trace: Trace,
    recorder: Arc<Recorder<std::io::Sink>>,
    values: Arc<AtomicI64>,
    ready: Arc<AtomicBool>,
}

impl Work {
    async fn run(self) -> turmoil::Result {
        let seed = self.seed ^ (u64::from(self.worker) + 1) << 8;
        let mut random = SmallRng::seed_from_u64(seed);
        while !self.ready.load(Ordering::Acquire) {
            sleep(Duration::from_millis(20)).await;
        }
        let name = format!("worker-{}", self.worker);
        let keyspace = client(&name, seed, self.nodes, &self.trace).keyspace(KEYSPACE);
        let mut process = self.recorder.process();
        while virtual_now() < self.until {
            let key = format!("k{:02}", random.random_range(0..KEYS));
            process = self.operate(&keyspace, process, &key, random.random_range(0..10)).await?;
            sleep(Duration::from_millis(random.random_range(1..40))).await;
        }
        // The faults are long over: each key must be readable, whatever happened to it.
        for key in (0..KEYS).filter(|key| key % WORKERS == self.worker) {
            let key = format!("k{key:02}");
            let bounded = tokio::time::timeout(
                Duration::from_secs(60),
                self.read_until_answered(&keyspace, &mut process, &key),
            );
            bounded.await.map_err(|_| {
                format!("{key} could not be read in a minute after the last fault")
            })??;
        }
        Ok(())
    }

    async fn read_until_answered(
        &self,
        keyspace: &Keyspace,
        process: &mut u64,
        key: &str,
    ) -> turmoil::Result {
        loop {
            self.recorder.invoke(*process, now(), vec![read(key, None)], Extras::default())?;
            match keyspace.get(key).await {
                Ok(answer) => {
                    let seen = answer.value.map(|value| number(&value.bytes)).transpose()?;
                    self.recorder.ok(*process, now(), vec![read(key, seen)], Extras::default())?;
                    return Ok(());
                }
                Err(_) => drop(self.recorder.fail(*process, now(), Extras::default())?),
            }
        }
    }

    /// Does one operation; returns the process that does the next.
    async fn operate(
        &self,
        keyspace: &Keyspace,
        process: u64,
        key: &str,
        dice: u32,
    ) -> std::result::Result<u64, Box<dyn std::error::Error>> {
        let fresh = self.values.fetch_add(1, Ordering::Relaxed);
        let text = fresh.to_string();
        let recorder = &self.recorder;
        let extras = Extras::default;
        let failed = match dice {
            0..5 => {
                recorder.invoke(process, now(), vec![read(key, None)], extras())?;
                match keyspace.get(key).await {
                    Ok(answer) => {
                        let seen = answer.value.map(|value| number(&value.bytes)).transpose()?;
                        recorder.ok(process, now(), vec![read(key, seen)], extras())?;
                        return Ok(process);
                    }
                    Err(error) => error,
                }
            }
            5..8 => {
                let write = || vec![MicroOp::Write { key: key.into(), value: fresh }];
                recorder.invoke(process, now(), write(), extras())?;
                match keyspace.put(key, text).await {
                    Ok(_) => {
                        recorder.ok(process, now(), write(), extras())?;
                        return Ok(process);
                    }
                    Err(error) => error,
                }
            }
            _ => {
                let found: Result<_> = keyspace.get(key).await;
                let Ok(found) = found else { return Ok(process) };
                let from = found.value.as_ref().map(|value| number(&value.bytes)).transpose()?;
                let expected =
                    found.value.map_or(Expected::Absent, |value| Expected::Value(value.bytes));
                let cas = || vec![MicroOp::CompareAndSet { key: key.into(), from, to: fresh }];
                recorder.invoke(process, now(), cas(), extras())?;
                match keyspace.compare_and_set(key, expected, Some(text.into())).await {
                    Ok(answer) => {
                        match answer.value {
                            CasOutcome::Applied { .. } => {
                                recorder.ok(process, now(), cas(), extras())?
                            }
                            CasOutcome::Mismatch { .. } => {
                                recorder.mismatch(process, now(), extras())?
                            }
                        };
                        return Ok(process);
                    }
                    Err(error) => error,
                }
            }
        };
        if failed.may_have_applied() {
            return Ok(recorder.info(process, now(), extras())?);
        }
        recorder.fail(process, now(), extras())?;
        Ok(process)
    }
}

fn now() -> u64 {
    virtual_now().as_nanos() as u64
}

fn read(key: &str, seen: Option<i64>) -> MicroOp {
    MicroOp::Read { key: key.into(), value: seen.map_or(Value::Absent, Value::Integer) }
}

fn number(bytes: &[u8]) -> std::result::Result<i64, Box<dyn std::error::Error>> {
    Ok(std::str::from_utf8(bytes)?.parse()?)
}
