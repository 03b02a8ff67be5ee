//! Histories of all four levels on the same keys, of registers, counters and sets at once, recorded while something
//! breaks, and judged.
//!
//! Whoever is cut off goes on at the local levels: each test demands that a region did.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use latitude_client::{Level, ReceiptDetail};
use latitude_tests::bed::PATIENCE;
use latitude_tests::load::{Phase, RANGES};
use latitude_tests::{Bed, Load, Subject, eventually};
use tokio::time::sleep;

/// How long the fault lasts.
const FAULT: Duration = Duration::from_secs(3);
/// Local writes of registers that a region must take while the fault is there.
const TAKEN_MIN: u64 = 100;

/// Registers, counters and sets.
struct Loads([Load; 3]);

impl Loads {
    async fn start(bed: &Bed) -> Result<Self> {
        let subjects = [Subject::AllLevels, Subject::Counters, Subject::Sets];
        for subject in subjects {
            bed.keyspace_of(subject.keyspace(), RANGES, subject.value_type()).await?;
            bed.leaders_spread(subject.keyspace()).await?;
        }
        let [registers, counters, sets] = subjects.map(|subject| Load::start(bed, subject));
        let mut loads = Self([registers?, counters?, sets?]);
        loads.until_ok(Phase::Before, [1_000, 200, 200]).await?;
        Ok(loads)
    }

    fn enter(&self, phase: Phase, fault: &str) -> Result<()> {
        self.0.iter().try_for_each(|load| load.enter(phase, fault))
    }

    async fn until_ok(&mut self, phase: Phase, counts: [u64; 3]) -> Result<()> {
        for (load, count) in self.0.iter_mut().zip(counts) {
            load.until_ok(phase, count).await?;
        }
        Ok(())
    }

    /// The fault lasts a while, and until each of these regions has taken local writes.
    async fn while_it_lasts(&mut self, regions: &[&str]) -> Result<()> {
        sleep(FAULT).await;
        let registers = &self.0[0];
        eventually("the regions take local writes", async || {
            for region in regions {
                let taken = registers.taken_during(region);
                ensure!(taken >= TAKEN_MIN, "{region} has taken {taken}");
            }
            Ok(())
        })
        .await
    }

    async fn judge(self, bed: &Bed) -> Result<()> {
        bed.live().await?;
        for load in self.0 {
            load.judge(bed).await?;
        }
        Ok(())
    }
}

async fn loaded(name: &str) -> Result<(Bed, Loads)> {
    let bed = Bed::three(name, Duration::from_millis(2)).await?;
    let loads = Loads::start(&bed).await?;
    Ok((bed, loads))
}

/// What was acknowledged by one disk alone is on it.
#[tokio::test(flavor = "multi_thread")]
async fn all_levels_hold_when_all_nodes_are_killed_at_once() -> Result<()> {
    let (bed, loads) = loaded("levels-all-killed").await?;
    loads.enter(Phase::During, "kill all")?;
    try_join_all(bed.cluster().nodes().iter().map(|node| node.kill9())).await?;
    try_join_all(bed.cluster().nodes().iter().map(|node| node.restart(PATIENCE))).await?;
    bed.live().await?;
    loads.enter(Phase::After, "restarted")?;
    loads.judge(&bed).await?;
    bed.passed();
    Ok(())
}

/// A node dies with local writes that nobody else has heard of, is away for a while, and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn all_levels_hold_when_a_node_is_cut_off_killed_and_restarted() -> Result<()> {
    let (bed, mut loads) = loaded("levels-killed").await?;
    let wan = bed.cluster().wan().context("the cluster has links")?;
    loads.enter(Phase::During, "isolate ap")?;
    wan.isolate("ap");
    loads.while_it_lasts(&["eu", "us", "ap"]).await?;
    let node = bed.cluster().node(2);
    node.kill9().await?;
    wan.heal_all();
    sleep(FAULT).await;
    node.restart(PATIENCE).await?;
    loads.enter(Phase::After, "heal; n3 killed and restarted")?;
    loads.judge(&bed).await?;
    bed.passed();
    Ok(())
}

/// Two regions hear of each other's local writes by the third only.
#[tokio::test(flavor = "multi_thread")]
async fn all_levels_hold_when_two_regions_have_only_a_relay_between_them() -> Result<()> {
    let (bed, mut loads) = loaded("levels-relay").await?;
    let wan = bed.cluster().wan().context("the cluster has links")?;
    loads.enter(Phase::During, "cut eu from ap")?;
    wan.partition(&["eu"], &["ap"]);
    loads.while_it_lasts(&["eu", "us", "ap"]).await?;
    what_is_written_in_one_is_read_in_the_other(&bed, ("eu", 0), ("ap", 2)).await?;
    what_is_written_in_one_is_read_in_the_other(&bed, ("ap", 2), ("eu", 0)).await?;
    wan.heal_all();
    loads.enter(Phase::After, "heal")?;
    loads.judge(&bed).await?;
    bed.passed();
    Ok(())
}

/// Nothing of a clock that is ten seconds ahead enters a register: its node is fenced, and takes no write. Meanwhile
/// another node is not heard by a third.
#[tokio::test(flavor = "multi_thread")]
async fn all_levels_hold_when_a_clock_is_ahead_and_a_link_is_cut_one_way() -> Result<()> {
    let (bed, mut loads) = loaded("levels-clock").await?;
    let wan = bed.cluster().wan().context("the cluster has links")?;
    loads.enter(Phase::During, "n3 ahead by 10 s; cut us to eu")?;
    let ahead = bed.cluster().node(2);
    ahead.restart_with(&["--clock-skew-ms", "10000"], PATIENCE).await?;
    wan.cut_one_way("us", "eu");
    loads.while_it_lasts(&["eu", "us"]).await?;
    wan.heal_all();
    ahead.restart(PATIENCE).await?;
    loads.enter(Phase::After, "heal; n3 in step")?;
    loads.judge(&bed).await?;
    bed.passed();
    Ok(())
}

/// And not from the log: it is read while it is unfolded there, so only its stream can have brought it.
async fn what_is_written_in_one_is_read_in_the_other(
    bed: &Bed,
    (from, writes): (&str, usize),
    (to, reads): (&str, usize),
) -> Result<()> {
    let keyspace = |region, level| {
        let client = bed.client(region).keyspace(Subject::AllLevels.keyspace());
        client.with_level(level).with_receipt(ReceiptDetail::Full)
    };
    // A causal read would not show it: what other sessions wrote before follows entries of logs that the writer's node
    // leads.
    let (writer, reader) = (keyspace(from, Level::Causal), keyspace(to, Level::Eventual));
    let (writes, reads) = (bed.number(writes).await?, bed.number(reads).await?);
    let mut written = 0;
    eventually(&format!("{to} reads what {from} wrote, unfolded"), async || {
        written += 1;
        let value = format!("from {from}, {written}");
        // Of a range that the writer's node leads nobody brings the log to the reader's.
        let ranges = bed.ranges(Subject::AllLevels.keyspace()).await?;
        let range = ranges.iter().find(|range| range.leader == writes).context("it leads none")?;
        let key = [&range.start[..], b"relayed"].concat();
        writer.put(&key, value.clone()).await?;
        for _ in 0..1_000 {
            let answer = reader.get(&key).await?;
            let receipt = answer.receipt.context("a receipt was asked for")?;
            ensure!(receipt.node.0 == reads, "answered by {}", receipt.node);
            if answer.value.is_some_and(|found| found.bytes == value) {
                let unfolded: Vec<u32> = receipt.unfolded.iter().map(|of| of.node.0).collect();
                ensure!(
                    unfolded.contains(&writes),
                    "it was folded before it was read: {unfolded:?}"
                );
                return Ok(());
            }
            sleep(Duration::from_millis(1)).await;
        }
        bail!("{value:?} does not arrive");
    })
    .await
}
