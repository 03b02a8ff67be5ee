//! A seed is a run: the same seed is the same run to the last byte on the network and the last write to a
//! disk, with faults in it, and another seed is another run.

use std::time::Duration;

use latitude_sim::cluster::Crash;
use latitude_sim::workload::Workload;
use latitude_sim::{Cluster, Layout, Trace};

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
    let summary = running.finish(&mut cluster)?;
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
}
