//! What the demo shows, in order; each part is told when it is over.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

use crate::crash::{self, Crash};
use crate::handover::{self, Handovers, Step};
use crate::latencies::{Latencies, text};
use crate::ledger::{Fate, Write};
use crate::screen::{Screen, count, table};
use crate::world::{ROUND_TRIP_MAX, Range, WAIT_MAX, World};
use crate::zones::Zone;
use crate::{cost, cut_off, import, reads, verify};

/// Shows everything but the start of the cluster.
///
/// # Errors
/// When anything is not as it should be.
pub(crate) async fn tell(world: &World, zones: &[Zone], screen: &mut Screen) -> Result<()> {
    let (ranges, mut ledger) = import(world, zones, screen).await?;
    show_cost(world, &ranges, &mut ledger, screen).await?;
    hand_over(world, &ranges, &mut ledger, screen).await?;
    cut_off(world, &ranges, &mut ledger, screen).await?;
    kill_and_restart(world, zones, &mut ledger, screen).await?;
    verify_all(world, &ledger, screen).await
}

/// Says what runs where.
pub(crate) async fn introduce(world: &World, took: Duration, screen: &mut Screen) -> Result<()> {
    let mut rows = Vec::new();
    for (index, site) in world.sites.iter().enumerate() {
        let node = world.process(index);
        let pid = node.pid().await.map_or("–".to_string(), |pid| pid.to_string());
        rows.push([
            site.node.to_string(),
            site.region.clone(),
            node.address().to_string(),
            pid,
            node.log().file_name().unwrap_or_default().display().to_string(),
        ]);
    }
    screen.text(table(["node", "region", "address", "pid", "log"], [3], rows))?;
    screen.space()?;
    screen.text(format!(
        "round trips      eu–us 80 ms, us–ap 150 ms, eu–ap 220 ms, by a proxy between regions\n\
         stores and logs  {}\n\
         ready after      {}",
        world.cluster.dir().display(),
        seconds(took)
    ))?;
    Ok(())
}

async fn import(
    world: &World,
    zones: &[Zone],
    screen: &mut Screen,
) -> Result<(Vec<Range>, Vec<Write>)> {
    screen.heading("Import the world's time zones, from eu")?;
    screen.progress("making the keyspace")?;
    world.create_keyspace().await?;
    let ranges = world.settled_ranges(zones).await?;
    let began = Instant::now();
    let writes = import::import(world, 0, zones, |done| {
        screen.progress(format!("{done} of {} zones", zones.len()))
    })
    .await?;
    let took = began.elapsed();
    let rows = ranges.iter().map(|range| {
        let leader = world.site_of(range.leader).map_or("–".into(), |site| world.name(site));
        [range.id.to_string(), range.label(), range.zones.len().to_string(), leader]
    });
    screen.text(table(["range", "keys", "zones", "led by"], [2], rows))?;
    screen.space()?;
    screen.text(format!(
        "{} of zone1970.tab in {}; {}, each on one node of every region",
        count(writes.len(), "zone"),
        seconds(took),
        count(ranges.len(), "range"),
    ))?;
    Ok((ranges, writes))
}

async fn show_cost(
    world: &World,
    ranges: &[Range],
    ledger: &mut Vec<Write>,
    screen: &mut Screen,
) -> Result<()> {
    screen.heading("What a request costs, from each region")?;
    let rows = cost::measure(world, ranges, ledger, |what| {
        screen.progress(format!("measuring {what}, from all regions at once"))
    })
    .await?;
    let nodes: Vec<String> = (0..world.sites.len()).map(|site| world.name(site)).collect();
    screen.text(cost::render(&rows, &nodes))?;
    screen.space()?;
    screen.text(
        "A write costs a round trip to the leader, and one from it to the nearest other node.\n\
         36 × 81 ms: that node served 36 of the writes, half of them within 81 ms.",
    )?;

    screen.space()?;
    let rows = reads::measure(world, ranges, ledger, |what| {
        screen.progress(format!("measuring {what}, from all regions at once"))
    })
    .await?;
    screen.text(reads::render(&rows, &nodes))?;
    screen.space()?;
    if let Some(summary) = reads::summary(&rows) {
        screen.text(summary)?;
    }
    screen.text(
        "The age of an answer is what its receipt proves. A client in eu was writing the same keys\n\
         meanwhile: no answer missed a write that was acknowledged longer ago. In a session no read is\n\
         older than what the session has read elsewhere, so some wait for a leader's word.",
    )?;
    Ok(())
}

async fn hand_over(
    world: &World,
    ranges: &[Range],
    ledger: &mut Vec<Write>,
    screen: &mut Screen,
) -> Result<()> {
    screen.heading("A session, handed from eu to ap")?;
    let Handovers { first, token_len, count: times, reads, too_early } =
        handover::show(world, ranges, ledger, |what| screen.progress(what)).await?;
    let line = |who: &str, what: &str, step: &Step| {
        let role = step.role.map_or("–".to_string(), |role| role.to_string());
        [
            who.to_string(),
            format!("{what} {}", step.key),
            format!("range {}", step.range),
            format!("{}, {role}", world.name(step.by)),
            text(step.latency),
        ]
    };
    let [photo, album, seen_album, seen_photo] = &first;
    let rows = [
        line("writer in eu", "put", photo),
        line("", "put", album),
        line("reader in ap", "get", seen_album),
        line("", "get", seen_photo),
    ];
    screen.text(table(["", "sequential", "", "by", "took"], [4], rows))?;
    screen.space()?;
    screen.text(format!(
        "The writer's token, {token_len} characters, went to the reader, which saw both at once.\n\
         {} over pairs of ranges that different nodes lead: never missed, each read within {}.\n\
         A reader in us without the token looked {} too early; each time it found the album,\n\
         the photo was there as well.",
        count(times, "time"),
        reads.percentile(100).map_or("–".into(), text),
        count(too_early, "time"),
    ))?;
    Ok(())
}

async fn cut_off(
    world: &World,
    ranges: &[Range],
    ledger: &mut Vec<Write>,
    screen: &mut Screen,
) -> Result<()> {
    screen.heading(&format!("{} is cut off, and goes on", cut_off::REGION))?;
    screen.progress("no message gets in or out")?;
    let (key, events) = cut_off::show(world, ranges, ledger).await?;
    let rows = events.into_iter().map(|event| {
        let cut_off::Event { at, region, what, answer, took } = event;
        [seconds(at), region.unwrap_or_default(), what, took.map_or(String::new(), text), answer]
    });
    screen.text(table(["at", "in", "", "took", ""], [0, 3], rows))?;
    screen.space()?;
    screen.text(format!(
        "The write of {key} was taken, and read, where the client was. Once the region was\n\
         back it was folded into the range's log: from then on strict reads see it, everywhere."
    ))?;
    Ok(())
}

async fn kill_and_restart(
    world: &World,
    zones: &[Zone],
    ledger: &mut Vec<Write>,
    screen: &mut Screen,
) -> Result<()> {
    let ranges = world.settled_ranges(zones).await?;
    let victim = crash::leads_most(world, &ranges);
    let pid = world.process(victim).pid().await.context("the node to kill is not running")?;
    let name = world.name(victim);
    screen.heading(&format!("kill -9 {pid}: {name}, which leads most ranges"))?;
    screen.progress("clients write to every range")?;
    let Crash { writer, back, others, writes, reads } =
        crash::kill(world, &ranges, victim, |what| screen.progress(what)).await?;
    let led = ranges.iter().filter(|range| back.contains_key(&range.id));
    let rows = led.map(|range| {
        let (after, by) = back[&range.id];
        [range.id.to_string(), range.label(), world.name(by), seconds(after)]
    });
    screen.text(table(["range", "keys", "now led by", "writes back after"], [3], rows))?;
    screen.space()?;
    let after = back.values().map(|(after, _)| *after);
    if let (Some(first), Some(last)) = (after.clone().min(), after.max()) {
        screen.text(format!(
            "writes from {} came back after {}, on every range after {}: the dead leader's lease,\n\
             then an election timeout, both of which follow from --round-trip-max {ROUND_TRIP_MAX}",
            world.sites[writer].region,
            seconds(first),
            seconds(last)
        ))?;
    }
    for (site, meanwhile) in &reads {
        let of = |some: &Latencies, percent| some.percentile(percent).map_or("–".into(), text);
        screen.text(format!(
            "until then {} of these ranges were answered in {}: half within {},\n\
             all within {}, and at most {} old",
            count(meanwhile.latencies.count(), "sequential read"),
            world.sites[*site].region,
            of(&meanwhile.latencies, 50),
            of(&meanwhile.latencies, 100),
            of(&meanwhile.ages, 100),
        ))?;
    }
    if let (Some(p50), Some(most)) = (others.percentile(50), others.percentile(100)) {
        screen.text(format!(
            "meanwhile {} to the other ranges: half within {}, all within {}",
            count(others.count(), "write"),
            text(p50),
            text(most)
        ))?;
    }
    ledger.extend(writes);

    let began = Instant::now();
    screen.progress(format!("starting {name} again"))?;
    world.process(victim).restart(WAIT_MAX).await?;
    world.cluster.live_within(WAIT_MAX).await?;
    world.caught_up(victim, writer).await?;
    screen.text(format!(
        "{name} started again: live and caught up after {}",
        seconds(began.elapsed())
    ))?;
    Ok(())
}

async fn verify_all(world: &World, ledger: &[Write], screen: &mut Screen) -> Result<()> {
    screen.heading("Verify every write, by a strict read from another region")?;
    let began = Instant::now();
    let differences = verify::verify(world, ledger, |done| {
        screen.progress(format!("{done} of {}", count(ledger.len(), "write")))
    })
    .await?;
    let of_fate = |fate| ledger.iter().filter(|write| write.fate == fate).count();
    screen.text(format!(
        "{} acknowledged, {} of unknown outcome, {} refused",
        count(of_fate(Fate::Acknowledged), "write"),
        of_fate(Fate::Unknown),
        of_fate(Fate::NotApplied),
    ))?;
    if differences.is_empty() {
        screen.text(format!(
            "all looked for in {}: every acknowledged write is there, no refused one is",
            seconds(began.elapsed())
        ))?;
        return Ok(());
    }
    screen.text(format!("{} not as told:", count(differences.len(), "write")))?;
    screen.text(differences.join("\n"))?;
    bail!("{} not as its client was told", count(differences.len(), "write"))
}

/// Says how to reach the cluster from each region. `latitude` is the program.
pub(crate) fn invite(world: &World, latitude: &Path, screen: &mut Screen) -> Result<()> {
    screen.heading("The cluster stays up until Ctrl-C")?;
    // Shorter, and good for a shell in this directory.
    let here = std::env::current_dir()?;
    let latitude = latitude.strip_prefix(here).unwrap_or(latitude).display();
    for (index, site) in world.sites.iter().enumerate() {
        let to = world.process(index).address();
        screen.text(format!(
            "{latitude} get Europe/Berlin -k zones --receipt --region {} --to {to}",
            site.region
        ))?;
    }
    screen.space()?;
    screen.text(format!("{latitude} admin ranges -k zones --to {}", world.process(0).address()))?;
    Ok(())
}

/// A span of time for a person: `2.3 s`.
fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}
