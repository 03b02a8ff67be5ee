//! A run from a seed: a phase of faults, in which nothing wrong may be answered; then none, and everything
//! must be served again.
//!
//! ```text
//!   found, create 4 ranges ─▶ faults of the seed, one after another ─▶ heal all ─▶ served ─▶ judged
//!                             └──── clients write and read all along ─────────────────┘
//! ```

use std::time::Duration;

use anyhow::{Context, bail};
use latitude_client::{NodeId, RangeId};
use latitude_consensus::Step;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use crate::cluster::{Cluster, Crash, Layout};
use crate::seeds::derive;
use crate::trace::Trace;
use crate::violation::{Check, Violation, catch};
use crate::workload::{KEYSPACE, Running, Summary, Workload};

/// How long the phase of faults lasts, at least.
const FAULTS_FOR: Duration = Duration::from_secs(25);
/// How long everything may take to be served once there are no faults any more.
const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// How long replicas may then take to be the same. A clock that was 10 s ahead is slewed back over 20 s,
/// and until then its node is refused.
const SAME_WITHIN: Duration = Duration::from_secs(30);

/// A fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// A node is killed or loses its power, and starts again after a while.
    Crash(Crash),
    /// All of them do, at the same moment.
    CrashAll(Crash),
    /// A node is cut from the others.
    Isolate,
    /// One way between two nodes is cut.
    OneWay,
    /// What two nodes say to each other is held back for a while.
    Hold,
    /// A node is cut off until it needs snapshots, and twice whoever gets to some step of one loses its
    /// power there.
    CrashInSnapshot,
    /// A range is led by another node.
    Transfer,
    /// A clock is wrong within what is tolerated.
    Skew,
    /// A clock is wrong by 10 s: its node must be fenced, not obeyed.
    FarSkew,
}

const FAULTS: [Fault; 12] = [
    Fault::CrashInSnapshot,
    Fault::Crash(Crash::Killed),
    Fault::Crash(Crash::PowerLost),
    Fault::Crash(Crash::PowerLost),
    Fault::CrashAll(Crash::Killed),
    Fault::CrashAll(Crash::PowerLost),
    Fault::Isolate,
    Fault::OneWay,
    Fault::Hold,
    Fault::Transfer,
    Fault::Skew,
    Fault::FarSkew,
];

/// What a run was.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the clients did.
    pub summary: Summary,
    /// The faults, in their order.
    pub faults: Vec<String>,
    /// What happened.
    pub trace: Trace,
    /// How long it lasted, in simulated time.
    pub lasted: Duration,
    /// How often the invariants were looked at.
    pub invariants_looked_at: u64,
    /// How often a snapshot was installed.
    pub snapshots_installed: u64,
}

/// A run, right or wrong.
#[derive(Debug)]
pub struct Ran {
    /// What it was, or what it found wrong first.
    pub result: Result<Outcome, Violation>,
    /// What happened until then. `None`: it did not even begin.
    pub trace: Option<Trace>,
}

/// Runs the scenario of a seed.
///
/// # Errors
/// What the run found wrong first.
pub fn run(seed: u64) -> Result<Outcome, Violation> {
    run_traced(seed).result
}

/// Runs the scenario of a seed, and keeps what happened also when something was wrong.
pub fn run_traced(seed: u64) -> Ran {
    let mut trace = None;
    let result = catch(|| play(seed, &mut trace).map_err(|error| Violation::of(&error)));
    Ran { result, trace }
}

fn play(seed: u64, trace: &mut Option<Trace>) -> anyhow::Result<Outcome> {
    let mut random = SmallRng::seed_from_u64(derive(seed, "scenario"));
    let mut layout =
        if random.random() { Layout::small(seed) } else { Layout::three_regions(seed) };
    // So short that a node which was down for a while needs snapshots.
    layout.snapshots.log_bytes_max = 4 << 10;
    // Leases are opt-in: a third of the seeds reads by them.
    let leases = derive(seed, "read mode").is_multiple_of(3);
    if leases {
        layout = layout.with_leases();
    }
    let mut cluster = Cluster::new(layout);
    *trace = Some(cluster.trace().clone());
    cluster.init()?;
    let workload = Workload::default();
    workload.prepare(&mut cluster)?;
    let running = workload.start(&mut cluster);
    let faults = make_faults(&mut cluster, &mut random)?;
    let summary = recover(&mut cluster, running)
        .with_context(|| format!("after the faults {}", faults.join(", ")))?;
    if (summary.by_lease > 0) != leases {
        bail!(Check::Proofs.found(format!(
            "{} reads were answered by a lease, and leases are on: {leases}",
            summary.by_lease
        )));
    }
    Ok(Outcome {
        summary,
        faults,
        trace: cluster.trace().clone(),
        lasted: cluster.now(),
        invariants_looked_at: cluster.invariants_looked_at(),
        snapshots_installed: cluster.snapshots_installed(),
    })
}

fn make_faults(cluster: &mut Cluster, random: &mut SmallRng) -> anyhow::Result<Vec<String>> {
    let until = cluster.now() + FAULTS_FOR;
    let mut faults = Vec::new();
    while cluster.now() < until {
        cluster.run_for(Duration::from_millis(random.random_range(500..3_000)))?;
        let fault = *FAULTS.choose(random).context("there are faults")?;
        faults.push(format!("{fault:?}"));
        let lasts = Duration::from_millis(random.random_range(200..5_000));
        make(cluster, random, fault, lasts)?;
    }
    Ok(faults)
}

/// Makes a fault, and heals it after it has lasted.
fn make(
    cluster: &mut Cluster,
    random: &mut SmallRng,
    fault: Fault,
    lasts: Duration,
) -> anyhow::Result<()> {
    let mut nodes = cluster.nodes();
    nodes.shuffle(random);
    let (one, other) = (nodes[0], nodes[1]);
    match fault {
        Fault::Crash(how) => {
            cluster.crash(one, how);
            run_with_failures(cluster, lasts)?;
            cluster.restart(one);
        }
        Fault::CrashAll(how) => {
            nodes.iter().for_each(|node| cluster.crash(*node, how));
            cluster.run_for(lasts)?;
            for node in nodes {
                cluster.restart(node);
                cluster.run_for(Duration::from_millis(random.random_range(0..500)))?;
            }
        }
        Fault::Isolate => {
            cluster.isolate(one);
            run_with_failures(cluster, lasts)?;
            cluster.heal();
        }
        Fault::OneWay => {
            cluster.cut(one, other);
            run_with_failures(cluster, lasts)?;
            cluster.heal();
        }
        Fault::Hold => {
            cluster.hold(one, other);
            run_with_failures(cluster, lasts)?;
            cluster.release(one, other);
        }
        Fault::CrashInSnapshot => {
            let step = *Step::ALL.choose(random).context("there are steps")?;
            cluster.isolate(one);
            run_with_failures(cluster, Duration::from_secs(3))?;
            cluster.crash_at(step, 2);
            cluster.heal();
            for _ in 0..2 {
                run_with_failures(cluster, lasts)?;
                nodes.iter().for_each(|node| cluster.restart(*node));
            }
            cluster.crash_at(step, 0);
        }
        Fault::Transfer => transfer(cluster, random)?,
        Fault::Skew => {
            cluster.skew(one, random.random_range(-200..=200));
            run_with_failures(cluster, lasts)?;
            cluster.skew(one, 0);
        }
        Fault::FarSkew => {
            cluster.skew(one, if random.random() { 10_000 } else { -10_000 });
            run_with_failures(cluster, lasts)?;
            cluster.skew(one, 0);
        }
    }
    Ok(())
}

/// Lets time pass; no fault made here is one at which a node may give up.
fn run_with_failures(cluster: &mut Cluster, time: Duration) -> anyhow::Result<()> {
    cluster.run_for(time)?;
    match cluster.failures().first() {
        Some((node, why)) => {
            let check = if why.contains("ALARM") { Check::Alarm } else { Check::Stopped };
            bail!(check.found(format!("node {node} stopped by itself: {why}")))
        }
        None => Ok(()),
    }
}

/// Asks for a random range to be led by a random node. Whether it works is the cluster's affair.
fn transfer(cluster: &mut Cluster, random: &mut SmallRng) -> anyhow::Result<()> {
    let draw: u32 = random.random();
    let to = NodeId(random.random_range(1..=cluster.layout().nodes));
    cluster.run_client(Duration::from_secs(5), move |host| async move {
        let admin = host.client.admin();
        if let Ok(ranges) = admin.ranges("").await
            && !ranges.is_empty()
        {
            let range = ranges[draw as usize % ranges.len()].range_id;
            let _ = admin.transfer_leader(RangeId(range), to).await;
        }
    })
}

/// Ends every fault; then everything must be served, be the same on all replicas, and have been right.
fn recover(cluster: &mut Cluster, running: Running) -> anyhow::Result<Summary> {
    cluster.heal();
    for node in cluster.nodes() {
        cluster.skew(node, 0);
        cluster.restart(node);
    }
    run_with_failures(cluster, Duration::ZERO)?;
    served(cluster)?;
    let summary = running.finish(cluster)?;
    let deadline = cluster.now() + SAME_WITHIN;
    while let Some(difference) = cluster.replicas_differ() {
        if cluster.now() > deadline {
            bail!(difference);
        }
        cluster.run_for(Duration::from_millis(100))?;
    }
    run_with_failures(cluster, Duration::ZERO)?;
    Ok(summary)
}

/// Every range takes a write, each from a client that knows nothing of the time before.
fn served(cluster: &mut Cluster) -> anyhow::Result<()> {
    let ranges = Workload::default().ranges;
    let deadline = cluster.now() + SERVED_WITHIN;
    cluster
        .run_client(SERVED_WITHIN, move |host| async move {
            let keyspace = host.client.keyspace(KEYSPACE).with_timeout(Duration::from_secs(5));
            for range in 0..ranges {
                // Beside the keys of the workload, of which the judge knows all values.
                let key = format!("k{:03}-served", 2 * range);
                loop {
                    match keyspace.put(&key, "yes").await {
                        Ok(_) => break,
                        Err(error) if host.now() > deadline => return Err((range, error)),
                        Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    }
                }
            }
            Ok(())
        })
        .with_context(|| format!("not everything is served within {SERVED_WITHIN:?}"))?
        .map_err(|(range, error)| {
            let what = format!("part {range} is not served within {SERVED_WITHIN:?}: {error}");
            Check::Served.found(what).into()
        })
}
