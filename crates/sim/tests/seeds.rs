//! Scenarios from seeds. A failure prints the command that replays it.
//!
//! `LATITUDE_SIM_SEED=9` runs one more, `LATITUDE_SIM_SEEDS=100..200` a hundred instead of the usual ones.

use std::env;

use latitude_probe::Marks;
use latitude_sim::scenario;

fn seeds() -> Vec<u64> {
    let number = |text: &str| text.trim().parse::<u64>().expect("a seed is a whole number");
    if let Ok(seed) = env::var("LATITUDE_SIM_SEED") {
        return vec![number(&seed)];
    }
    match env::var("LATITUDE_SIM_SEEDS") {
        Ok(seeds) => {
            let (from, to) = seeds.split_once("..").expect("LATITUDE_SIM_SEEDS is from..to");
            (number(from)..number(to)).collect()
        }
        Err(_) => scenario::STANDARD.collect(),
    }
}

#[test]
fn whatever_the_seed_nothing_wrong_is_answered_and_everything_is_served_again() {
    if env::var("RUST_LOG").is_ok() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .without_time()
            .init();
    }
    let before = Marks::now();
    let mut failed = Vec::new();
    let mut snapshots_installed = 0;
    for seed in seeds() {
        match scenario::run(seed) {
            Ok(outcome) => {
                assert!(outcome.invariants_looked_at > 0);
                assert!(outcome.elections > 0, "no replica was seen to begin to lead");
                assert!(outcome.receipts > 0, "no receipt was held against what followed");
                snapshots_installed += outcome.snapshots_installed;
                println!(
                    "seed {seed}: {:?} in {:?}, trace {:016x}, {} snapshots; {}",
                    outcome.summary,
                    outcome.lasted,
                    outcome.trace.hash(),
                    outcome.snapshots_installed,
                    outcome.faults.join(", ")
                );
            }
            Err(found) => failed.push((seed, found)),
        }
    }
    for (seed, found) in &failed {
        println!("seed {seed} WRONG: {found}\n  replay: cargo xtask sim --seed {seed} --trace");
    }
    if env::var("LATITUDE_SIM_SEED").is_err() {
        assert!(snapshots_installed > 0, "no run needed a snapshot: they show nothing about them");
    }
    assert!(failed.is_empty(), "{} seeds were wrong", failed.len());
    if seeds() == scenario::STANDARD.collect::<Vec<_>>() {
        let now = Marks::now();
        let missed: Vec<_> = now.since(&before).filter(|(_, count)| *count == 0).collect();
        assert!(missed.is_empty(), "never hit, so nothing is shown about them: {missed:?}");
    }
}
