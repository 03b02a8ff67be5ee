//! A run: what is measured, in which order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use latitude_client::wire::CreateKeyspaceRequest;
use latitude_client::{Client, Keyspace, Level, Reason};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::{Instant, sleep_until};

use crate::cluster::{Subject, Wiring};
use crate::idle;
use crate::keys::{Chooser, Distribution, Keys};
use crate::load::{Common, Running, Values, preload};
use crate::machine;
use crate::manner::Manner;
use crate::process::Usage;
use crate::report::{Case, Report, Round};
use crate::scrape::Counts;
use crate::wide_area::{self, WideArea};
use crate::workload::Workload;

/// A client's timeout: longer than any answer under the load a run makes.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Is told what a run does at the moment.
pub(crate) type Say<'a> = &'a mut dyn FnMut(&str);

/// What to run, and against what.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose nodes.
    pub target: Target,
    /// Under load.
    pub load: Option<Load>,
    /// At rest.
    pub idle: Option<Idle>,
    /// Over a wide area.
    pub wide_area: Option<WideArea>,
}

/// Whose nodes are measured.
#[derive(Clone, Debug)]
pub enum Target {
    /// A running cluster's, at these addresses (`host:port`): what its processes use is not seen.
    Running(Vec<String>),
    /// Of clusters brought up for the run and gone after it.
    Own(Own),
}

/// A cluster brought up for a run.
#[derive(Clone, Debug)]
pub struct Own {
    /// The programs; one cluster each, whose rounds take turns.
    pub binaries: Vec<PathBuf>,
    /// Below which directory the stores are; the system's temporary one if none is named.
    pub dir: Option<PathBuf>,
    /// How many nodes.
    pub nodes: usize,
}

/// A closed loop of clients.
#[derive(Clone, Debug)]
pub struct Load {
    /// What clients ask; one after another.
    pub workloads: Vec<Workload>,
    /// How many clients ask at once; one count after another.
    pub clients: Vec<u32>,
    /// How many connections they share; at most one a client is used.
    pub connections: u32,
    /// How long each round counts.
    pub window: Duration,
    /// How long each round runs before it counts.
    pub warm_up: Duration,
    /// How often everything is repeated.
    pub rounds: u32,
    /// Bytes of a value.
    pub value_size: usize,
    /// How many keys there are.
    pub keys: u64,
    /// How keys are chosen; `None`: as the workload says.
    pub distribution: Option<Distribution>,
    /// The keyspace; made if there is none of this name.
    pub keyspace: String,
    /// Its ranges, if it is made.
    pub ranges: u32,
    /// How operations are asked for, one manner after another.
    pub manners: Vec<Manner>,
    /// Makes the choice of keys repeatable.
    pub seed: u64,
}

/// Nodes at rest.
#[derive(Clone, Debug)]
pub struct Idle {
    /// How many ranges the cluster has, beside those every cluster has; one count after another, each on
    /// a cluster of its own.
    pub ranges: Vec<u32>,
    /// How long it is watched.
    pub window: Duration,
}

/// Runs it; `say` is told what goes on.
///
/// # Errors
/// When a cluster does not start or answer. Operations that fail under load are counted, not errors.
pub async fn run(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let mut report = Report::default();
    if let Some(load) = &options.load {
        report.rounds = Box::pin(run_load(&options.target, load, say)).await?;
    }
    if let Some(idle) = &options.idle {
        let Target::Own(own) = &options.target else {
            bail!("idle ranges are measured on a cluster of this command's own: name no nodes");
        };
        for ranges in &idle.ranges {
            report.idle.push(Box::pin(idle::measure(own, idle, *ranges, say)).await?);
        }
    }
    if let Some(wide) = &options.wide_area {
        let Target::Own(own) = &options.target else {
            bail!("distances are those of a cluster of this command's own: name no nodes");
        };
        report.wide_area = Box::pin(wide_area::measure(own, wide, 0, say)).await?;
    }
    Ok(report)
}

/// A cluster and the clients of it.
struct Side {
    subject: Subject,
    keyspaces: Vec<Keyspace>,
}

async fn run_load(target: &Target, load: &Load, say: Say<'_>) -> Result<Vec<Round>> {
    ensure!(load.keys > 0, "there must be a key to ask for");
    ensure!(load.connections > 0, "clients need a connection");
    let subjects = match target {
        Target::Running(addresses) => vec![Subject::running(addresses)],
        Target::Own(own) => start_all(own, say).await?,
    };
    let mut rng = SmallRng::seed_from_u64(load.seed);
    let common = Arc::new(Common {
        keys: Keys::new(load.keys),
        values: Values::new(load.value_size, &mut rng),
    });
    let mut sides = Vec::new();
    for subject in subjects {
        let keyspaces = connect(&subject, load).await?;
        say(&format!("writing {} keys", load.keys));
        preload(&common, &keyspaces, load.seed).await?;
        sides.push(Side { subject, keyspaces });
    }
    let mut rounds = Vec::new();
    for round in 1..=load.rounds {
        for workload in &load.workloads {
            let distribution = load.distribution.unwrap_or_else(|| workload.distribution());
            let chooser = Chooser::new(distribution, load.keys);
            // What is to be compared comes one after the other: the machine changes.
            for clients in &load.clients {
                for (manner, side) in load
                    .manners
                    .iter()
                    .flat_map(|manner| sides.iter().map(move |side| (manner, side)))
                {
                    let case = Case {
                        label: side.subject.label.clone(),
                        workload: *workload,
                        manner: *manner,
                        distribution,
                        clients: *clients,
                    };
                    say(&format!("round {round} of {}: {case}", load.rounds));
                    let seed = load.seed ^ u64::from(round) << 48;
                    let measured = measure(side, &common, load, case, chooser, seed).await?;
                    rounds.push(Round { round, ..measured });
                }
            }
        }
    }
    Ok(rounds)
}

async fn start_all(own: &Own, say: Say<'_>) -> Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for (at, binary) in own.binaries.iter().enumerate() {
        let label = if own.binaries.len() > 1 { format!("#{}", at + 1) } else { String::new() };
        say(&format!("starting {} nodes of {}", own.nodes, binary.display()));
        let dir = own.dir.as_ref();
        subjects.push(Subject::start(binary, label, dir, own.nodes, Wiring::Direct).await?);
    }
    Ok(subjects)
}

/// The connections to a cluster, its keyspace made if need be. Those to a cluster of our own are of its
/// regions in turn, as are the nodes.
async fn connect(subject: &Subject, load: &Load) -> Result<Vec<Keyspace>> {
    let client = |region: &str| {
        Client::builder().seeds(&subject.addresses).region(region).timeout(TIMEOUT).build()
    };
    let mut regions = subject.regions.iter().map(String::as_str).cycle();
    let mut client = || client(regions.next().unwrap_or_default());
    let request = CreateKeyspaceRequest {
        name: load.keyspace.clone(),
        ranges: load.ranges,
        ..Default::default()
    };
    let first = client();
    match first.admin().create_keyspace(request).await {
        Ok(_) => {}
        Err(error) if error.reason == Reason::KeyspaceExists => {}
        Err(error) => return Err(anyhow!("the keyspace cannot be made: {error}")),
    }
    let most = load.clients.iter().copied().max().context("no count of clients is named")?;
    let clients = std::iter::once(first).chain(std::iter::repeat_with(client));
    Ok(clients
        .take(load.connections.min(most.max(1)) as usize)
        .map(|client| client.keyspace(&load.keyspace).with_level(Level::Strict))
        .collect())
}

/// What is read at the beginning and the end of a window.
struct Reading {
    at: Instant,
    own: Usage,
    nodes: Option<Vec<Usage>>,
    machine: Duration,
    counts: Vec<Counts>,
}

impl Reading {
    async fn take(subject: &Subject) -> Result<Self> {
        let (at, own, machine) = (Instant::now(), Usage::own()?, machine::busy()?);
        let nodes = subject.usages().await?;
        // Last: a node in trouble takes its time to answer, and what it uses is told without it.
        let mut counts = Vec::new();
        for address in &subject.addresses {
            counts.push(Counts::of(address).await?);
        }
        Ok(Self { at, own, nodes, machine, counts })
    }
}

async fn measure(
    side: &Side,
    common: &Arc<Common>,
    load: &Load,
    case: Case,
    chooser: Chooser,
    seed: u64,
) -> Result<Round> {
    let begin = Instant::now() + load.warm_up;
    let end = begin + load.window;
    let running = Running::start(
        common,
        &side.keyspaces,
        (case.workload, case.manner),
        chooser,
        case.clients,
        (begin, end),
        seed,
    );
    sleep_until(begin).await;
    let before = Reading::take(&side.subject).await?;
    sleep_until(end).await;
    // Before the clients have ended: what still hangs must not stretch the reading.
    let after = Reading::take(&side.subject).await?;
    let tally = running.end().await;

    let seconds = load.window.as_secs_f64();
    // The readings are a little off the window's ends; rates of theirs are scaled to it.
    let scale = seconds / (after.at - before.at).as_secs_f64().max(f64::EPSILON);
    let operations = tally.operations() as f64;
    let per_operation =
        |cpu: Duration| (operations > 0.0).then(|| cpu.as_secs_f64() * scale * 1e6 / operations);
    let own_cpu = after.own.cpu.saturating_sub(before.own.cpu);
    let nodes_cpu = before.nodes.zip(after.nodes).map(|(before, after)| {
        let pairs = before.iter().zip(&after);
        pairs.map(|(before, after)| after.cpu.saturating_sub(before.cpu)).sum::<Duration>()
    });
    let machine_cpu = after.machine.saturating_sub(before.machine);
    let others = nodes_cpu.map(|nodes| machine_cpu.saturating_sub(nodes + own_cpu));
    let counts: Vec<_> = before
        .counts
        .iter()
        .zip(&after.counts)
        .map(|(before, after)| after.since(*before))
        .collect();
    let syncs = counts.iter().map(|node| node.syncs * scale * 1000.0 / tally.writes as f64);
    let entries: f64 = counts.iter().map(|node| node.entries).sum();
    let in_entries: f64 = counts.iter().map(|node| node.entry_operations).sum();
    let waits: Option<f64> = counts.iter().map(|node| node.waits).sum();
    let reads = tally.reads.len() as f64;
    let percentile = |share: f64| tally.latencies.value_at_quantile(share) as f64;
    let read_percentile = |share: f64| tally.reads.value_at_quantile(share) as f64;
    let share = |some: f64, of: f64| (of > 0.0).then(|| some / of);
    Ok(Round {
        case,
        round: 0,
        seconds,
        operations: tally.operations(),
        per_second: operations / seconds,
        latency_us: [0.5, 0.95, 0.99, 0.999].map(percentile),
        latency_max_us: tally.latencies.max() as f64,
        read_latency_us: (reads > 0.0).then(|| [0.5, 0.99].map(read_percentile)),
        by_followers: share(tally.by_followers as f64, tally.receipted as f64),
        waited: waits.and_then(|waits| share(waits * scale, reads)),
        server_us: nodes_cpu.and_then(per_operation),
        client_us: per_operation(own_cpu),
        syncs_per_1000_writes: if tally.writes > 0 { syncs.collect() } else { Vec::new() },
        operations_per_entry: (entries > 0.0).then(|| in_entries / entries),
        other_cores: others
            .map(|cpu| cpu.as_secs_f64() / (after.at - before.at).as_secs_f64().max(f64::EPSILON)),
        errors: tally.errors,
    })
}
