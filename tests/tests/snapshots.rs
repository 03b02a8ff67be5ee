//! A node that was away while the others shortened their logs, killed while it is caught up.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use latitude_tests::bed::PATIENCE;
use latitude_tests::{Bed, eventually};

const KEYSPACE: &str = "large";
const KEYS: usize = 64;
const VALUE_BYTES: usize = 128 << 10;

fn value(key: usize) -> Vec<u8> {
    let mut value = vec![key as u8; VALUE_BYTES];
    value[..8].copy_from_slice(&key.to_be_bytes());
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_behind_a_purge_is_caught_up_though_it_is_killed_while_it_installs() -> Result<()> {
    let bed = Bed::start("snapshots", |builder| {
        builder.without_wan().flags(["--snapshot-log-bytes", "1MiB", "--round-trip-max", "20ms"])
    })
    .await?;
    bed.keyspace(KEYSPACE, 1).await?;
    let client = bed.client("eu");
    let keyspace = client.keyspace(KEYSPACE).with_timeout(PATIENCE);
    keyspace.put("before", "1").await?;

    let away = bed.cluster().node(2);
    away.kill9().await?;
    for key in 0..KEYS {
        keyspace.put(format!("k{key}"), value(key)).await.with_context(|| format!("key {key}"))?;
    }
    for step in ["receive", "replace", "replace"] {
        away.start_with("LATITUDE_ABORT_AT", step).await?;
        let status = away.ended(PATIENCE).await.with_context(|| format!("at {step}"))?;
        ensure!(!status.success(), "at {step}: {status}");
        keyspace.put(format!("after {step}"), "1").await?;
    }
    away.restart(PATIENCE).await?;
    // With another node down, it is one of the two of which a quorum needs both.
    bed.cluster().node(0).kill9().await?;
    eventually("it is part of a quorum", async || {
        let hasty = client.keyspace(KEYSPACE).with_timeout(Duration::from_secs(5));
        Ok(hasty.put("quorum", "1").await.map(drop)?)
    })
    .await?;
    let log = std::fs::read_to_string(away.log())?;
    ensure!(log.contains("installing a snapshot, again"), "a crash interrupted no installation");
    for key in 0..KEYS {
        let found = keyspace.get(format!("k{key}")).await?.value;
        let found = found.with_context(|| format!("key {key} is lost"))?;
        ensure!(found.bytes[..] == value(key)[..], "key {key} is another");
    }
    for key in ["before", "after receive", "after replace"] {
        ensure!(keyspace.get(key).await?.value.is_some(), "{key:?} is lost");
    }
    bed.passed();
    Ok(())
}
