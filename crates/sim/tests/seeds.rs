//! Runs with faults drawn from seeds: what clients saw must be linearizable, and once the faults are over
//! everything must be served again.
//!
//! `LATITUDE_SIM_SEED=17` runs one seed, `LATITUDE_SIM_SEEDS=100..200` many.

use latitude_checker::linearizable::Verdict;
use latitude_sim::{Scenario, run};

fn seeds() -> Vec<u64> {
    let number = |text: &str| text.trim().parse::<u64>().expect("a seed is a number");
    if let Ok(seed) = std::env::var("LATITUDE_SIM_SEED") {
        return vec![number(&seed)];
    }
    if let Ok(range) = std::env::var("LATITUDE_SIM_SEEDS") {
        let (from, to) = range.split_once("..").expect("seeds are written from..to");
        return (number(from)..number(to)).collect();
    }
    (1..=6).collect()
}

#[test]
fn whatever_fails_what_clients_see_is_linearizable_and_all_comes_back() {
    for seed in seeds() {
        let replay = format!("LATITUDE_SIM_SEED={seed} cargo test -p latitude-sim --test seeds");
        let scenario = Scenario::draw(seed);
        let faults: Vec<_> = scenario.faults.faults().cloned().collect();
        let outcome = run(&scenario)
            .unwrap_or_else(|error| panic!("seed {seed}, {faults:?}: {error}\nreplay: {replay}"));
        let verdict = &outcome.report.verdict;
        assert!(
            matches!(verdict, Verdict::Linearizable),
            "seed {seed}, {faults:?}: {verdict:?}\nreplay: {replay}"
        );
        assert!(
            outcome.report.counts.ok > 100,
            "seed {seed}: little happened: {:?}",
            outcome.report.counts
        );
    }
}
