//! The same seed gives the same run, to the byte; another seed another one.

use std::time::Duration;

use latitude_sim::{Fault, FaultPlan, Scenario, Setup, run};

fn scenario(seed: u64) -> Scenario {
    let s = Duration::from_secs;
    let faults = FaultPlan::of(vec![
        (s(5), s(7), Fault::Crash { node: 2, power: true }),
        (s(8), s(10), Fault::Isolate { node: 1 }),
    ]);
    Scenario { setup: Setup::new(seed), faults, work_until: s(14) }
}

#[test]
fn a_seed_replays_to_the_byte_and_another_seed_does_not() {
    let first = run(&scenario(7)).expect("the run ends well");
    let second = run(&scenario(7)).expect("the run ends well");
    assert_eq!(first.trace, second.trace, "the same seed did something else");
    assert_eq!(first.history.events(), second.history.events());
    assert!(first.report.counts.ok > 100, "little happened: {:?}", first.report.counts);
    let other = run(&scenario(8)).expect("the run ends well");
    assert_ne!(first.trace, other.trace, "another seed did the same");
}
