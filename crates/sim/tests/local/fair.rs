//! Local writes and log writes of one range share its log: many of one kind do not keep the other waiting. Folds are made of
//! bytes and few are under way at once, and whatever is proposed stands in one queue.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use latitude_client::{Level, ReceiptDetail};
use latitude_sim::cluster::Pending;
use latitude_sim::workload::KEYSPACE;
use latitude_sim::{ClientHost, Cluster};

use crate::common::{WITHIN, run_near};
use crate::world::{KEYS, ONE_WAY, cluster, leader_of};

/// Clients that put one value after another.
const CROWD: usize = 24;
/// Bytes of each.
const SIZE: usize = 8 << 10;
/// How long they do.
const LASTS: Duration = Duration::from_secs(4);
/// What is measured, one after another.
const MEASURED: usize = 20;
/// What the design allows a fold beside one round trip.
const FOLDED_WITHIN: Duration = Duration::from_millis(250);

/// Starts a crowd in all regions. How many puts each of them gets done.
fn crowd(cluster: &mut Cluster, level: Level) -> Vec<Pending<Result<usize>>> {
    let until = cluster.now() + LASTS;
    let client = move |host: ClientHost| async move {
        let keyspace = host.client.keyspace(KEYSPACE).with_level(level);
        let mut done = 0;
        while host.now() < until {
            keyspace.put(format!("{}/{done}", KEYS[0]), vec![7; SIZE]).await?;
            done += 1;
        }
        Ok(done)
    };
    (0..CROWD).map(|_| cluster.start_client(WITHIN, client)).collect()
}

/// What the crowd got done in all. It is there still: else what was measured was measured beside nobody.
fn done(cluster: &mut Cluster, crowd: Vec<Pending<Result<usize>>>) -> usize {
    assert!(crowd.iter().all(|client| !client.is_ready()), "the crowd was gone before the end");
    cluster.run_for(2 * LASTS).unwrap();
    crowd.into_iter().map(|client| client.take().expect("it has ended").unwrap()).sum()
}

/// The longest of some strict puts from near the leader.
async fn strict_puts(host: ClientHost) -> Result<Duration> {
    let strict = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
    let mut longest = Duration::ZERO;
    // The first one learns who leads.
    strict.put(KEYS[0], "first").await?;
    for at in 0..MEASURED {
        let asked = host.now();
        strict.put(KEYS[0], format!("{at}")).await?;
        longest = longest.max(host.now() - asked);
    }
    Ok(longest)
}

/// The longest time that some causal puts near the leader were not folded.
async fn folds(host: ClientHost) -> Result<Duration> {
    let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
    let near = near.with_receipt(ReceiptDetail::Full);
    let mut longest = Duration::ZERO;
    for at in 0..MEASURED {
        near.put(KEYS[0], format!("{at}")).await?;
        let taken = host.now();
        loop {
            let got = near.get(KEYS[0]).await?;
            if got.receipt.context("a receipt was asked for")?.unfolded.is_empty() {
                break;
            }
            ensure!(host.now() - taken < WITHIN / 2, "it is not folded");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        longest = longest.max(host.now() - taken);
    }
    Ok(longest)
}

/// What is measured near the leader, at its longest: alone, and beside a crowd that puts at this level; and how many puts.
fn measured<F: Future<Output = Result<Duration>> + 'static>(
    seed: u64,
    level: Level,
    measure: impl Fn(ClientHost) -> F,
) -> (Duration, Duration, usize) {
    let mut cluster = cluster(seed);
    let leader = leader_of(&mut cluster, KEYSPACE, KEYS[0]);
    let alone = run_near(&mut cluster, leader, &measure);
    let crowd = crowd(&mut cluster, level);
    cluster.run_for(LASTS / 4).unwrap();
    let beside = run_near(&mut cluster, leader, &measure);
    let done = done(&mut cluster, crowd);
    assert!(done > 10 * CROWD, "it was no crowd: {done}");
    (alone, beside, done)
}

#[test]
fn a_crowd_of_local_writes_does_not_keep_strict_ones_waiting() {
    let (alone, beside, done) = measured(73, Level::Causal, strict_puts);
    println!("{alone:?} alone, {beside:?} beside {done} local writes");
    assert!(beside <= alone + 2 * ONE_WAY, "{beside:?}, {alone:?} alone");
}

#[test]
fn a_crowd_of_strict_writes_does_not_keep_local_ones_from_the_log() {
    let (alone, beside, done) = measured(74, Level::Strict, folds);
    println!("folded within {alone:?} alone, {beside:?} beside {done} strict writes");
    assert!(beside <= FOLDED_WITHIN + 2 * ONE_WAY, "{beside:?}");
}
