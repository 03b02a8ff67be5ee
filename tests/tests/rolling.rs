//! What an operator does on purpose must not reach a caller: restarts in turn, leaders moved about.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use latitude_client::{NodeId, RangeId};
use latitude_tests::Bed;
use latitude_tests::bed::PATIENCE;
use latitude_tests::steady::Steady;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

const KEYSPACE: &str = "steady";
const RANGES: u32 = 8;
/// How long leaders are moved about, in seconds, unless this variable says otherwise.
const SECONDS_VAR: &str = "LATITUDE_TRANSFER_SECONDS";
const SECONDS: u64 = 10;

async fn loaded(name: &str) -> Result<(Bed, Steady)> {
    let bed = Bed::three(name, Duration::from_millis(2)).await?;
    bed.keyspace(KEYSPACE, RANGES).await?;
    bed.leaders_spread(KEYSPACE).await?;
    let mut load = Steady::start(&bed, KEYSPACE);
    load.advance(300).await?;
    Ok((bed, load))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_lets_no_error_reach_a_caller() -> Result<()> {
    let (bed, mut load) = loaded("rolling").await?;
    for node in bed.cluster().nodes() {
        let status = node.terminate(PATIENCE).await?;
        ensure!(status.success(), "{} ended with {status}", node.name());
        load.advance(100).await.with_context(|| format!("while {} is down", node.name()))?;
        node.restart(PATIENCE).await?;
        bed.live().await?;
        load.advance(100).await.with_context(|| format!("after {} came back", node.name()))?;
    }
    load.finish().await?;
    bed.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_moved_twice_a_second_let_no_error_reach_a_caller() -> Result<()> {
    let (bed, mut load) = loaded("transfers").await?;
    let seconds = match std::env::var(SECONDS_VAR) {
        Ok(seconds) => seconds.parse().context(SECONDS_VAR)?,
        Err(_) => SECONDS,
    };
    let admin = bed.client("eu").admin();
    let mut random = SmallRng::seed_from_u64(1);
    let ends = Instant::now() + Duration::from_secs(seconds);
    let (mut moved, mut refused) = (0, 0);
    while Instant::now() < ends {
        let ranges = bed.ranges(KEYSPACE).await?;
        let range = ranges.choose(&mut random).context("there are ranges")?;
        let to = (range.leader + random.random_range(0..2)) % 3 + 1;
        // One that asks while another hands over is refused, and that is fine: it is no caller.
        match admin.transfer_leader(RangeId(range.range_id), NodeId(to)).await {
            Ok(()) => moved += 1,
            Err(_) => refused += 1,
        }
        load.ensure_untroubled()?;
        sleep(Duration::from_millis(500)).await;
    }
    load.advance(100).await?;
    load.finish().await?;
    ensure!(moved > refused, "{refused} of {} transfers were refused", moved + refused);
    bed.passed();
    Ok(())
}
