//! What a node costs that holds many ranges nobody asks for.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use latitude_client::Client;
use latitude_client::wire::{CreateKeyspaceRequest, RangeStatus};
use tokio::time::{Instant, sleep};

use crate::cluster::{Subject, Wiring};
use crate::report::IdleRow;
use crate::run::{Idle, Own, Say};

const KEYSPACE: &str = "idle";
/// Making hundreds of ranges takes a while.
const CREATE_TIMEOUT: Duration = Duration::from_secs(120);
/// Leaders must not change for so long before the measurement ...
const QUIET: Duration = Duration::from_secs(10);
/// ... and that must come about within so long.
const QUIET_WITHIN: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Brings up a cluster with `ranges` ranges more than an empty one and measures it at rest.
pub(crate) async fn measure(own: &Own, idle: &Idle, ranges: u32, say: Say<'_>) -> Result<IdleRow> {
    let binary = own.binaries.first().context("no program is named")?;
    let dir = own.dir.as_ref();
    let subject = Subject::start(binary, String::new(), dir, own.nodes, Wiring::Counted).await?;
    let client = Client::builder().seeds(&subject.addresses).timeout(CREATE_TIMEOUT).build();
    if ranges > 0 {
        let request = CreateKeyspaceRequest { name: KEYSPACE.into(), ranges, ..Default::default() };
        client.admin().create_keyspace(request).await.map_err(|error| anyhow!("{error}"))?;
    }
    say(&format!("{ranges} ranges: waiting until their leaders stay"));
    let led = await_quiet(&client).await?;
    say(&format!("{ranges} ranges: measuring {} s", idle.window.as_secs()));

    let read = || async { subject.usages().await?.context("the cluster is our own") };
    let (before, sent_before) = (read().await?, subject.bytes_sent().unwrap_or_default());
    let started = Instant::now();
    sleep(idle.window).await;
    let seconds = started.elapsed().as_secs_f64();
    let (after, sent_after) = (read().await?, subject.bytes_sent().unwrap_or_default());

    let cpu = before.iter().zip(&after);
    let sent = sent_before.iter().zip(&sent_after);
    Ok(IdleRow {
        ranges,
        ranges_led: led,
        seconds,
        cpu_percent: cpu
            .map(|(before, after)| {
                after.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds * 100.0
            })
            .collect(),
        resident: after.iter().map(|usage| usage.resident).collect(),
        sent_per_second: sent.map(|(before, after)| (after - before) as f64 / seconds).collect(),
    })
}

/// Waits until every range has had the same leader for a while; gives the number of ranges.
pub(crate) async fn await_quiet(client: &Client) -> Result<usize> {
    let deadline = Instant::now() + QUIET_WITHIN;
    let mut seen: Vec<(u64, u32, u64)> = Vec::new();
    let mut since = Instant::now();
    loop {
        let ranges = client.admin().ranges("").await.map_err(|error| anyhow!("{error}"))?;
        let now: Vec<_> = ranges.iter().map(leadership).collect();
        let all_led = now.iter().all(|(_, leader, _)| *leader != 0);
        if !all_led || now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() >= QUIET {
            return Ok(seen.len());
        }
        let unled = seen.iter().filter(|(_, leader, _)| *leader == 0).count();
        ensure!(
            Instant::now() < deadline,
            "leaders have not settled within {QUIET_WITHIN:?}; {unled} ranges have none"
        );
        sleep(LOOK_EVERY).await;
    }
}

fn leadership(range: &RangeStatus) -> (u64, u32, u64) {
    (range.range_id, range.leader, range.term)
}
