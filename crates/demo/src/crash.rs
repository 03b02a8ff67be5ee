//! The node that leads most ranges is killed while clients write and read, and comes back.
//!
//! ```text
//!            kill -9                      a new leader
//!   writes  ──┤                                ├───────▶
//!   reads   ───────────────────────────────────────────▶   sequential, from the regions that are left
//! ```

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use latitude_client::{Level, NodeId, RangeId, ReceiptDetail};
use tokio::time::{Instant, sleep};

use crate::latencies::Latencies;
use crate::ledger::{Write, put};
use crate::world::{Range, WAIT_MAX, World};

/// How long clients write before the kill, and after all is well again.
const CALM: Duration = Duration::from_millis(1500);

const POLL: Duration = Duration::from_millis(20);

/// A writer that was told no waits so long before its next write.
const AFTER_NO: Duration = Duration::from_millis(100);

/// A reader's pause between two reads.
const READ_PAUSE: Duration = Duration::from_millis(20);

/// What a kill did to the clients.
pub(crate) struct Crash {
    /// The site whose clients wrote.
    pub(crate) writer: usize,
    /// For each range the victim led: from the kill to the first write acknowledged by another node,
    /// and which site's.
    pub(crate) back: BTreeMap<RangeId, (Duration, usize)>,
    /// Writes to the other ranges, from the kill until all was well again.
    pub(crate) others: Latencies,
    /// Every write.
    pub(crate) writes: Vec<Write>,
    /// Sequential reads of ranges the victim led that were asked and answered while those took no writes:
    /// from each other site.
    pub(crate) reads: BTreeMap<usize, Meanwhile>,
}

/// Reads that were answered while no writes were.
#[derive(Default)]
pub(crate) struct Meanwhile {
    pub(crate) latencies: Latencies,
    /// How old the answers are proved to be, at most.
    pub(crate) ages: Latencies,
}

/// The site whose node leads most of the ranges; the first of several.
pub(crate) fn leads_most(world: &World, ranges: &[Range]) -> usize {
    let leads =
        |site: usize| ranges.iter().filter(|range| range.leader == world.sites[site].node).count();
    let sites = 0..world.sites.len();
    sites.rev().max_by_key(|&site| leads(site)).expect("a cluster has at least one node")
}

/// An acknowledged write.
struct Acknowledged {
    range: usize,
    by: NodeId,
    at: Instant,
    latency: Duration,
}

/// A read that was answered.
struct Read {
    range: usize,
    site: usize,
    began: Instant,
    latency: Duration,
    age: Option<Duration>,
}

/// Kills the node of a site while clients in another write, one for each range, and clients in all others
/// read, and waits until every range takes writes.
///
/// # Errors
/// When a range takes no writes for too long, or a sequential read is not answered as it must be.
pub(crate) async fn kill(
    world: &World,
    ranges: &[Range],
    victim: usize,
    progress: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<Crash> {
    let writer = (0..world.sites.len()).find(|site| *site != victim).context("nobody is left")?;
    let log = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let writers = (0..ranges.len()).map(|range| write(world, ranges, range, writer, &log, &stop));
    let watch = async {
        let watched = watch(world, ranges, victim, &log, progress).await;
        stop.store(true, Ordering::Relaxed);
        watched
    };
    let others = (0..world.sites.len()).filter(|site| *site != victim);
    let readers = others.clone().map(|site| read(world, ranges, victim, site, &stop));
    let (writes, reads, watched) = tokio::join!(join_all(writers), join_all(readers), watch);
    let killed_at = watched?;
    let reads = reads.into_iter().collect::<Result<Vec<_>>>()?;

    let log = log.into_inner().expect("no writer panics");
    let mut crash = Crash {
        writer,
        back: BTreeMap::new(),
        others: Latencies::default(),
        writes: writes.into_iter().flatten().collect(),
        reads: others.map(|site| (site, Meanwhile::default())).collect(),
    };
    for (index, range) in ranges.iter().enumerate() {
        let after = log.iter().filter(|done| done.range == index && done.at > killed_at);
        if range.leader != world.sites[victim].node {
            after.for_each(|done| crash.others.add(done.latency));
        } else if let Some(first) = by_others(after, world, victim).min_by_key(|done| done.at) {
            crash.back.insert(range.id, (first.at - killed_at, world.site_of(first.by)?));
            let gap = killed_at..first.at;
            let of_range = reads.iter().flatten().filter(|read| read.range == index);
            for read in of_range.filter(|read| {
                gap.contains(&read.began) && gap.contains(&(read.began + read.latency))
            }) {
                let meanwhile = crash.reads.entry(read.site).or_default();
                meanwhile.latencies.add(read.latency);
                read.age.into_iter().for_each(|age| meanwhile.ages.add(age));
            }
        }
    }
    for (site, meanwhile) in &crash.reads {
        ensure!(
            meanwhile.latencies.count() > 0,
            "no sequential read was answered in {} while {} was gone",
            world.sites[*site].region,
            world.name(victim)
        );
    }
    Ok(crash)
}

/// Kills the node once clients have written a while, and returns when it was killed, once every range
/// it led has taken a write.
async fn watch(
    world: &World,
    ranges: &[Range],
    victim: usize,
    log: &Mutex<Vec<Acknowledged>>,
    mut progress: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<Instant> {
    sleep(CALM).await;
    let killed_at = Instant::now();
    world.process(victim).kill9().await?;
    let led: Vec<usize> = (0..ranges.len())
        .filter(|&range| ranges[range].leader == world.sites[victim].node)
        .collect();
    loop {
        let back = {
            let log = log.lock().expect("no writer panics");
            let after = || log.iter().filter(|done| done.at > killed_at);
            let is_back = |range: &&usize| {
                by_others(after(), world, victim).any(|done| done.range == **range)
            };
            led.iter().filter(is_back).count()
        };
        if back == led.len() {
            break;
        }
        let elapsed = killed_at.elapsed();
        ensure!(
            elapsed < WAIT_MAX,
            "{} of the {} ranges that {} led take no writes {WAIT_MAX:?} after it was killed",
            led.len() - back,
            led.len(),
            world.name(victim)
        );
        progress(&format!(
            "{:.1} s since the kill: {back} of its {} ranges take writes again",
            elapsed.as_secs_f64(),
            led.len()
        ))?;
        sleep(POLL).await;
    }
    sleep(CALM).await;
    Ok(killed_at)
}

/// Those that the node of a site did not acknowledge: what it did may still be on its way.
fn by_others<'a>(
    log: impl Iterator<Item = &'a Acknowledged>,
    world: &World,
    site: usize,
) -> impl Iterator<Item = &'a Acknowledged> {
    let node = world.sites[site].node;
    log.filter(move |done| done.by != node)
}

/// Writes to one range, one write after another, until told to stop.
async fn write(
    world: &World,
    ranges: &[Range],
    range: usize,
    site: usize,
    log: &Mutex<Vec<Acknowledged>>,
    stop: &AtomicBool,
) -> Vec<Write> {
    let level = Level::Strict;
    let keyspace = world.sites[site].keyspace(level);
    let zones = &ranges[range].zones;
    let mut writes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let turn = writes.len();
        let key = format!("{}#crash/{turn}", zones[turn % zones.len()].name);
        let value = format!("written around a kill, {turn}");
        let (write, result) = put(&keyspace, level, site, key, value).await;
        match result {
            Ok(answer) => {
                if let Some(receipt) = answer.receipt {
                    log.lock().expect("no writer panics").push(Acknowledged {
                        range,
                        by: receipt.node,
                        at: Instant::now(),
                        latency: answer.latency,
                    });
                }
            }
            Err(_) => sleep(AFTER_NO).await,
        }
        writes.push(write);
    }
    writes
}

/// Reads the ranges that a site's node leads from another site, one after another, until told to stop. A
/// replica there needs nobody to answer, so no read may fail.
async fn read(
    world: &World,
    ranges: &[Range],
    victim: usize,
    site: usize,
    stop: &AtomicBool,
) -> Result<Vec<Read>> {
    let reader = &world.sites[site];
    let keyspace = reader.keyspace(Level::Sequential).with_receipt(ReceiptDetail::Full);
    let led =
        ranges.iter().enumerate().filter(|(_, range)| range.leader == world.sites[victim].node);
    let mut reads = Vec::new();
    for (turn, (index, range)) in led.cycle().enumerate() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let zone = &range.zones[turn % range.zones.len()];
        let began = Instant::now();
        let answer = keyspace.get(&zone.name).await.with_context(|| {
            format!("a sequential get of {} from {} failed around a kill", zone.name, reader.region)
        })?;
        let found = answer.value.as_ref().map(|value| &value.bytes[..]);
        ensure!(
            found == Some(zone.description.as_bytes()),
            "a sequential get of {} from {} found {:?}",
            zone.name,
            reader.region,
            found.map(String::from_utf8_lossy)
        );
        let age = answer.receipt.and_then(|receipt| receipt.staleness);
        reads.push(Read { range: index, site, began, latency: answer.latency, age });
        sleep(READ_PAUSE).await;
    }
    Ok(reads)
}
