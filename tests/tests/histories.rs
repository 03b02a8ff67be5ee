//! Histories of at least 5,000 successful operations each, strict and sequential on the same keys, recorded
//! while something breaks, and judged.
//!
//! Leaders are spread, so every node leads some of the eight ranges and follows in the others; where a
//! node is to be a follower only, it hands over first.

use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use futures::future::try_join_all;
use latitude_client::{Reason, Timestamp, wire as v1};
use latitude_tests::bed::PATIENCE;
use latitude_tests::load::{Phase, RANGES};
use latitude_tests::raw::{self, Raw};
use latitude_tests::{Bed, Load, Subject, eventually, litmus};
use tokio::time::{Instant, sleep};

const KEYSPACE: &str = "recorded";
/// Successful operations before the fault.
const BEFORE: u64 = 1_500;
/// How long the fault lasts.
const FAULT: Duration = Duration::from_secs(3);

async fn loaded(name: &str) -> Result<(Bed, Load)> {
    let bed = Bed::three(name, Duration::from_millis(2)).await?;
    bed.keyspace(KEYSPACE, RANGES).await?;
    bed.leaders_spread(KEYSPACE).await?;
    let mut load = Load::start(&bed, Subject::Log)?;
    load.until_ok(Phase::Before, BEFORE).await?;
    Ok((bed, load))
}

async fn a_node_dies_and_comes_back(bed: Bed, mut load: Load, node: usize) -> Result<()> {
    let node = bed.cluster().node(node);
    load.enter(Phase::During, &format!("kill {}", node.name()))?;
    node.kill9().await?;
    load.until_ok(Phase::During, 200).await?;
    sleep(FAULT).await;
    node.restart(PATIENCE).await?;
    bed.live().await?;
    load.enter(Phase::After, "restarted")?;
    load.judge(&bed).await?;
    bed.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_hold_when_the_leader_is_killed() -> Result<()> {
    let (bed, load) = loaded("leader-killed").await?;
    a_node_dies_and_comes_back(bed, load, 0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_hold_when_a_follower_is_killed() -> Result<()> {
    let (bed, load) = loaded("follower-killed").await?;
    bed.hand_over(KEYSPACE, bed.number(2).await?, bed.number(1).await?).await?;
    a_node_dies_and_comes_back(bed, load, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_hold_when_all_nodes_are_killed_at_once() -> Result<()> {
    let (bed, load) = loaded("all-killed").await?;
    load.enter(Phase::During, "kill all")?;
    try_join_all(bed.cluster().nodes().iter().map(|node| node.kill9())).await?;
    try_join_all(bed.cluster().nodes().iter().map(|node| node.restart(PATIENCE))).await?;
    bed.live().await?;
    load.enter(Phase::After, "restarted")?;
    load.judge(&bed).await?;
    bed.passed();
    Ok(())
}

/// What a deposed leader that has slept through its deposition must not do: answer the reads that
/// waited for it from what it remembers.
#[tokio::test(flavor = "multi_thread")]
async fn levels_hold_when_the_leader_is_paused_with_reads_queued_on_it() -> Result<()> {
    let (bed, mut load) = loaded("leader-paused").await?;
    let leader = bed.cluster().node(0);
    load.add_readers_of(leader.address(), 6)?;
    load.until_ok(Phase::Before, BEFORE + 500).await?;
    load.enter(Phase::During, "pause n1")?;
    leader.pause().await?;
    sleep(FAULT).await;
    // Others must have written meanwhile, or no read could be stale.
    load.until_ok(Phase::During, 200).await?;
    leader.resume().await?;
    load.enter(Phase::After, "resume n1")?;
    bed.live().await?;
    load.judge(&bed).await?;
    bed.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_hold_when_a_region_is_cut_off() -> Result<()> {
    let (bed, mut load) = loaded("region-cut").await?;
    let wan = bed.cluster().wan().context("the cluster has links")?;
    load.enter(Phase::During, "isolate eu")?;
    wan.isolate("eu");
    load.until_ok(Phase::During, 500).await?;
    strict_operations_name_the_missing_quorum(&bed).await?;
    sleep(FAULT).await;
    wan.heal_all();
    load.enter(Phase::After, "heal")?;
    bed.live().await?;
    load.judge(&bed).await?;
    bed.passed();
    Ok(())
}

/// Programs whose outcomes tell sequential consistency from something weaker, while a leader dies and comes
/// back. No caller sees an error.
#[tokio::test(flavor = "multi_thread")]
async fn no_litmus_program_has_a_forbidden_outcome_when_a_leader_is_killed() -> Result<()> {
    const RUNS_OF_EACH: usize = 30;
    let bed = Bed::three("litmus", Duration::from_millis(10)).await?;
    bed.keyspace(KEYSPACE, RANGES).await?;
    bed.leaders_spread(KEYSPACE).await?;
    let runs = litmus::Runs::start(&bed, KEYSPACE, RUNS_OF_EACH);
    runs.until_done(80).await?;
    let node = bed.cluster().node(0);
    node.kill9().await?;
    runs.until_done(160).await?;
    node.restart(PATIENCE).await?;
    runs.finish().await?;
    bed.passed();
    Ok(())
}

/// A clock that is ten seconds ahead is fenced, not obeyed: nothing is stamped by it, and sessions that meet
/// its node go on at the others. Meanwhile another node does not hear from it.
#[tokio::test(flavor = "multi_thread")]
async fn levels_hold_when_a_link_is_cut_one_way_and_a_clock_is_ahead() -> Result<()> {
    let (bed, mut load) = loaded("clock-ahead").await?;
    let wan = bed.cluster().wan().context("the cluster has links")?;
    let ahead = bed.cluster().node(2);
    load.enter(Phase::During, "n3 ahead by 10 s; cut ap to us")?;
    let number = bed.number(2).await?;
    let told = bed.cluster().node(0).address().to_string();
    let clock = async || Ok::<_, Error>(bed.client("eu").status_of(&told).await?.clock);
    let (started, before) = (Instant::now(), Timestamp(clock().await?));
    ahead.restart_with(&["--clock-skew-ms", "10000"], PATIENCE).await?;
    let there = Raw::to(ahead.address())?;
    eventually("the node knows that its clock is wrong", async || {
        let put = raw::command(KEYSPACE, raw::put("z-fenced", "never"));
        let refused = there.execute(v1::Command { no_forward: true, ..put }).await.err();
        let error = refused.context("it takes writes")?;
        ensure!(error.reason == Reason::ClockUnsynced && !error.may_have_applied(), "{error:?}");
        Ok(())
    })
    .await?;
    wan.cut_one_way("ap", "us");
    load.until_ok(Phase::During, 500).await?;
    sleep(FAULT).await;
    let moved = Duration::from_millis(Timestamp(clock().await?).ms() - before.ms());
    let most = started.elapsed() + Duration::from_secs(5);
    ensure!(moved < most, "the cluster's clock has moved by {moved:?}: it obeys the one ahead");
    let led = bed.ranges(KEYSPACE).await?.iter().filter(|range| range.leader == number).count();
    ensure!(led == 0, "the node whose clock is ahead leads {led} ranges");
    wan.heal_all();
    ahead.restart(PATIENCE).await?;
    load.enter(Phase::After, "heal; n3 in step")?;
    bed.live().await?;
    load.judge(&bed).await?;
    bed.passed();
    Ok(())
}

/// In the region that is cut off, while it is: for ranges that its node leads, or led, and for others.
async fn strict_operations_name_the_missing_quorum(bed: &Bed) -> Result<()> {
    let node = Raw::to(bed.cluster().node(0).address())?;
    let here = bed.number(0).await?;
    let elsewhere: Vec<u32> = (1..=3).filter(|node| *node != here).collect();
    for start in bed.ranges(KEYSPACE).await?.into_iter().map(|range| range.start) {
        let key = format!("{}-cut", String::from_utf8(start.to_vec())?);
        for operation in [raw::get(&key), raw::put(&key, "never")] {
            let error = node.execute(raw::command(KEYSPACE, operation)).await.err();
            let error = error.with_context(|| format!("{key} was served without a quorum"))?;
            ensure!(error.reason == Reason::NoQuorum, "{key}: {error:?}");
            let missing = error.missing_quorum.clone().context("no quorum is named")?;
            let silent: Vec<u32> = missing.silent.iter().map(|node| node.0).collect();
            ensure!((missing.needed, &silent[..]) == (2, &elsewhere[..]), "{key}: {error:?}");
        }
    }
    // The SDK tries until its deadline, and then says what it lacked.
    let client = bed.client("eu").keyspace(KEYSPACE).with_timeout(Duration::from_secs(8));
    let error = client.get("a-cut").await.err().context("served without a quorum")?;
    ensure!(error.missing_quorum.is_some(), "{error:?}");
    Ok(())
}
