//! A run from a seed: a phase of faults, in which nothing wrong may be answered; then a quorum is whole and must
//! serve; then all are, and must become the same.
//!
//! ```text
//!   found, create ranges ─▶ faults of the plan ─▶ a quorum: served ─▶ all: served, the same ─▶ judged
//!                           └──── clients write and read all along ────────┘
//! ```

mod fault;
mod nemesis;
mod plan;

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, bail};
use latitude_client::Error;
use latitude_probe::{Mark, Marks};
use nemesis::Nemesis;
use plan::{Away, Plan};

use crate::cluster::{Cluster, Crash};
use crate::trace::{Kind, Trace};
use crate::violation::{Check, Violation, catch};
use crate::workload::{KEYSPACE, Summary, Workload};

/// The seeds that are run before every commit. Together they must hit every [`Mark`].
pub const STANDARD: Range<u64> = 0..60;
/// How long a quorum that is whole may take to serve everything, and all nodes after it.
const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// A clock that was 10 s ahead is slewed back over as long, and until then its node is refused.
const SLEWED_WITHIN: Duration = Duration::from_secs(20);
/// How long replicas may then take to be the same.
const SAME_WITHIN: Duration = Duration::from_secs(30);

/// How long the phase of faults lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Length {
    /// Half a minute, full of operations and faults that meet.
    Short,
    /// A quarter of an hour and more, with seconds between a client's operations: ids and records of what is
    /// deleted outlive their ten minutes and are dropped, while faults go on.
    Long,
}

/// What a run was.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the clients did.
    pub summary: Summary,
    /// The kinds of the faults, in the order of their beginnings.
    pub faults: Vec<&'static str>,
    /// What happened.
    pub trace: Trace,
    /// How long it lasted, in simulated time.
    pub lasted: Duration,
    /// How often the invariants were looked at.
    pub invariants_looked_at: u64,
    /// How often a snapshot was installed.
    pub snapshots_installed: u64,
    /// How often a replica was seen to begin to lead.
    pub elections: u64,
    /// How many receipts of reads were held against what followed.
    pub receipts: u64,
}

/// A run, right or wrong.
#[derive(Debug)]
pub struct Ran {
    /// What it was, or what it found wrong first.
    pub result: Result<Outcome, Violation>,
    /// What happened until then. `None`: it did not even begin.
    pub trace: Option<Trace>,
    /// How often each mark was hit, if nothing else ran in the process meanwhile.
    pub marks: Vec<(Mark, u64)>,
}

/// Runs the short scenario of a seed.
///
/// # Errors
/// What the run found wrong first.
pub fn run(seed: u64) -> Result<Outcome, Violation> {
    run_traced(seed, Length::Short).result
}

/// Runs the scenario of a seed, and keeps what happened also when something was wrong.
pub fn run_traced(seed: u64, length: Length) -> Ran {
    let mut trace = None;
    let before = Marks::now();
    let result = catch(|| play(seed, length, &mut trace).map_err(|error| Violation::of(&error)));
    let marks = Marks::now().since(&before).collect();
    Ran { result, trace, marks }
}

fn play(seed: u64, length: Length, trace: &mut Option<Trace>) -> anyhow::Result<Outcome> {
    let plan = Plan::of(seed, length);
    let mut cluster = Cluster::new(plan.layout.clone());
    *trace = Some(cluster.trace().clone());
    let drawn = format!("{:?}; {:?}; {:?}", plan.layout, plan.workload, plan.faults);
    cluster.trace().say(Kind::Fault, &"plan".into(), &"cluster".into(), &drawn);
    cluster.init()?;
    plan.workload.prepare(&mut cluster)?;
    let running = plan.workload.start(&mut cluster);
    let mut nemesis = Nemesis::new(&mut cluster, running.hosts());
    make_faults(&mut cluster, &mut nemesis, &plan)?;
    let open = quorum_serves(&mut cluster, &mut nemesis, &plan)
        .context("while a quorum is whole and the others are away")?;
    nemesis.end(&mut cluster);
    served(&mut cluster, &mut nemesis, &plan.workload, "all", open).context("when all is whole")?;
    let is_far = plan.faults.contains(&fault::Kind::FarSkew);
    let history =
        running.finish(&mut cluster, if is_far { SLEWED_WITHIN } else { Duration::ZERO })?;
    become_the_same(&mut cluster)?;
    nemesis.look(&mut cluster)?;
    let summary = history.judge()?;
    if summary.by_lease > 0 && !plan.leases {
        let what =
            format!("{} reads were answered by a lease, and leases are off", summary.by_lease);
        bail!(Check::Proofs.found(what));
    }
    let (elections, receipts) = cluster.elections_and_receipts();
    Ok(Outcome {
        elections,
        receipts,
        summary,
        faults: plan.faults.iter().map(|fault| fault.name()).collect(),
        trace: cluster.trace().clone(),
        lasted: cluster.now(),
        invariants_looked_at: cluster.invariants_looked_at(),
        snapshots_installed: cluster.snapshots_installed(),
    })
}

fn make_faults(cluster: &mut Cluster, nemesis: &mut Nemesis, plan: &Plan) -> anyhow::Result<()> {
    let begun = cluster.now();
    for (at, action) in &plan.steps {
        nemesis.run_until(cluster, begun + *at)?;
        nemesis.act(cluster, *action);
    }
    nemesis.run_until(cluster, begun + plan.lasts)
}

/// Ends every fault but for some nodes, which are down or cut off; then the others must serve. Returns as [`served`].
fn quorum_serves(
    cluster: &mut Cluster,
    nemesis: &mut Nemesis,
    plan: &Plan,
) -> anyhow::Result<Option<&'static str>> {
    for Away { node, down } in &plan.away {
        if *down {
            cluster.crash(*node, Crash::Killed);
        }
    }
    let away = plan.away.iter().map(|away| away.node).collect();
    nemesis.spare(cluster, &away);
    for node in cluster.nodes() {
        if away.contains(&node) {
            cluster.isolate(node);
        }
    }
    served(cluster, nemesis, &plan.workload, "quorum", None)
}

/// Every range takes a write and a strict read, each from a client that knows nothing of the time before.
///
/// Nobody else writes these keys: the read finds `value`, or what an earlier write left open. Returns `value` if a write
/// of it was left open here.
fn served(
    cluster: &mut Cluster,
    nemesis: &mut Nemesis,
    workload: &Workload,
    value: &'static str,
    open: Option<&'static str>,
) -> anyhow::Result<Option<&'static str>> {
    let keys: Vec<_> = (0..workload.ranges).map(|range| workload.key_beside(range)).collect();
    let deadline = cluster.now() + SERVED_WITHIN;
    let client = cluster.start_client(SERVED_WITHIN, move |host| async move {
        let keyspace = host.client.keyspace(KEYSPACE).with_timeout(Duration::from_secs(5));
        let mut leaves_open = None;
        for key in keys {
            loop {
                let put = keyspace.put(&key, value).await;
                if put.as_ref().is_err_and(Error::may_have_applied) {
                    leaves_open = Some(value);
                }
                let read = match put {
                    Ok(_) => keyspace.get(&key).await,
                    Err(error) => Err(error),
                };
                let found = match read {
                    Ok(read) => read.value.map(|value| value.bytes),
                    Err(error) if host.now() > deadline => {
                        let what = format!(
                            "the range of {key} is not served within {SERVED_WITHIN:?}: {error}"
                        );
                        return Err(Check::Served.found(what));
                    }
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let may_be = [Some(value), open];
                if !may_be
                    .iter()
                    .flatten()
                    .any(|may_be| found.as_deref() == Some(may_be.as_bytes()))
                {
                    let what = format!("{key} is {found:?} after {value:?} was put");
                    return Err(Check::Linearizable.found(what));
                }
                break;
            }
        }
        Ok(leaves_open)
    });
    while !client.is_ready() {
        if cluster.now() > deadline + Duration::from_secs(10) {
            bail!(Check::Deadline.found("a put or a read does not end by its deadline"));
        }
        cluster.step()?;
        nemesis.look(cluster)?;
    }
    Ok(client.take().context("the client has ended")??)
}

fn become_the_same(cluster: &mut Cluster) -> anyhow::Result<()> {
    let deadline = cluster.now() + SAME_WITHIN;
    while let Some(difference) = cluster.replicas_differ() {
        if cluster.now() > deadline {
            bail!(difference);
        }
        cluster.run_for(Duration::from_millis(100))?;
    }
    Ok(())
}
