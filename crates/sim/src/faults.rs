//! What goes wrong in a run, and when: a function of its seed.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use turmoil::Sim;

use crate::cluster::{Cluster, host_name};

/// Something that goes wrong, for a while.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A node's process dies; with `power`, its disk forgets what was not synced.
    Crash {
        /// Which.
        node: u32,
        /// Whether the power goes too.
        power: bool,
    },
    /// Every node loses power at once.
    PowerCut,
    /// A node and all others hear nothing of each other.
    Isolate {
        /// Which.
        node: u32,
    },
    /// What `from` says does not reach `to`; the other way is open.
    OneWay {
        /// Who is not heard.
        from: u32,
        /// Who does not hear.
        to: u32,
    },
    /// A node's wall clock is off. More than a quarter of a second must fence it.
    Skew {
        /// Which.
        node: u32,
        /// By so many milliseconds.
        ms: i64,
    },
}

/// Faults, each with when it begins and when it is over.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FaultPlan {
    faults: Vec<(Duration, Duration, Fault)>,
}

impl FaultPlan {
    /// `count` faults, one after the other, from `begin` on; `None` of them lasts longer than five seconds.
    pub fn draw(seed: u64, nodes: u32, begin: Duration, count: usize) -> Self {
        let mut random = SmallRng::seed_from_u64(seed ^ 0xfa_01_75);
        let mut at = begin;
        let mut faults = Vec::new();
        for _ in 0..count {
            at += Duration::from_millis(random.random_range(300..2_500));
            let until = at + Duration::from_millis(random.random_range(500..5_000));
            let node = random.random_range(1..=nodes);
            let other = node % nodes + 1;
            let fault = match random.random_range(0..7) {
                0 => Fault::Crash { node, power: false },
                1 | 2 => Fault::Crash { node, power: true },
                3 => Fault::PowerCut,
                4 => Fault::Isolate { node },
                5 => Fault::OneWay { from: node, to: other },
                _ => Fault::Skew {
                    node,
                    ms: [200, -200, 10_000, -10_000][random.random_range(0..4)],
                },
            };
            faults.push((at, until, fault));
            at = until;
        }
        Self { faults }
    }

    /// Exactly these, each with its beginning and end.
    pub fn of(faults: Vec<(Duration, Duration, Fault)>) -> Self {
        Self { faults }
    }

    /// When the last fault is over.
    pub fn end(&self) -> Duration {
        self.faults.iter().map(|(_, until, _)| *until).max().unwrap_or_default()
    }

    /// The faults.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter().map(|(_, _, fault)| fault)
    }

    /// Begins and ends what is due in the step from `before` to `now`.
    pub(crate) fn step(
        &self,
        sim: &mut Sim<'_>,
        cluster: &mut Cluster,
        before: Duration,
        now: Duration,
    ) {
        let due = |at: &Duration| before < *at && *at <= now;
        for (_, until, fault) in &self.faults {
            if due(until) {
                end(fault, sim, cluster);
            }
        }
        for (at, _, fault) in &self.faults {
            if due(at) {
                begin(fault, sim, cluster);
            }
        }
    }
}

fn others(cluster: &Cluster, node: u32) -> Vec<u32> {
    cluster.nodes().filter(|other| *other != node).collect()
}

fn begin(fault: &Fault, sim: &mut Sim<'_>, cluster: &mut Cluster) {
    match fault {
        Fault::Crash { node, power } => cluster.crash(sim, *node, *power),
        Fault::PowerCut => {
            for node in others(cluster, 0) {
                cluster.crash(sim, node, true);
            }
        }
        Fault::Isolate { node } => {
            for other in others(cluster, *node) {
                sim.partition(host_name(*node), host_name(other));
            }
        }
        Fault::OneWay { from, to } => sim.partition_oneway(host_name(*from), host_name(*to)),
        Fault::Skew { node, ms } => cluster.skew(*node, ms * 1_000),
    }
}

fn end(fault: &Fault, sim: &mut Sim<'_>, cluster: &mut Cluster) {
    match fault {
        Fault::Crash { node, .. } => cluster.bounce(sim, *node),
        Fault::PowerCut => {
            for node in others(cluster, 0) {
                cluster.bounce(sim, node);
            }
        }
        Fault::Isolate { node } => {
            for other in others(cluster, *node) {
                sim.repair(host_name(*node), host_name(other));
            }
        }
        Fault::OneWay { from, to } => sim.repair_oneway(host_name(*from), host_name(*to)),
        Fault::Skew { node, .. } => cluster.skew(*node, 0),
    }
}
