//! A seed is a run: the same seed is the same run to the last byte on the network and the last write to a
//! disk, with faults of every kind in it, and another seed is another run.
//!
//! One test, because two runs at once in one process disturb each other.

use std::time::Duration;

use latitude_sim::cluster::Crash;
use latitude_sim::scenario::{self, Length};
use latitude_sim::workload::Workload;
use latitude_sim::{Cluster, Layout, Trace};

/// Seeds of the general scenario that are also run twice.
const SWARM: std::ops::Range<u64> = 900..904;

fn run(seed: u64) -> anyhow::Result<Trace> {
    let mut cluster = Cluster::new(Layout::small(seed));
    cluster.init()?;
    let workload = Workload::default();
    workload.prepare(&mut cluster)?;
    let running = workload.start(&mut cluster);
    let second = Duration::from_secs(1);
    cluster.run_for(2 * second)?;
    cluster.isolate(1);
    cluster.run_for(3 * second)?;
    cluster.heal();
    cluster.crash(2, Crash::PowerLost);
    cluster.run_for(2 * second)?;
    cluster.restart(2);
    cluster.run_for(5 * second)?;
    let summary = running.finish(&mut cluster, Duration::ZERO)?.judge()?;
    assert!(summary.outcomes[0] > 50, "hardly anything was done: {summary:?}");
    Ok(cluster.trace().clone())
}

#[test]
fn the_same_seed_is_the_same_run_and_another_seed_is_another() {
    let first = run(7).unwrap();
    let second = run(7).unwrap();
    assert_eq!(first.first_difference(&second), None);
    assert_eq!(first.hash(), second.hash());
    assert_ne!(first.hash(), run(8).unwrap().hash());
    for seed in SWARM {
        let runs =
            [0, 1].map(|_| scenario::run_traced(seed, Length::Short).trace.expect("it begins"));
        assert_eq!(runs[0].first_difference(&runs[1]), None, "seed {seed}");
    }
}
