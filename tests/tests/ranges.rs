//! A keyspace of 64 ranges on three nodes.

use anyhow::{Context, Result, ensure};
use latitude_client::wire::AuditVerdict;
use latitude_client::{Client, Keyspace, Level, RangeId};
use latitude_tests::bed::PATIENCE;
use latitude_tests::{Bed, eventually};

const RANGES: u32 = 64;

/// A key in every range: the first of each.
async fn keys(bed: &Bed, keyspace: &str) -> Result<Vec<Vec<u8>>> {
    let ranges = bed.ranges(keyspace).await?;
    Ok(ranges.iter().map(|range| [&range.start[..], b"!"].concat()).collect())
}

fn open(client: &Client, keyspace: &str) -> Keyspace {
    client.keyspace(keyspace).with_level(Level::Strict).with_timeout(PATIENCE)
}

async fn serves(keyspace: &Keyspace, keys: &[Vec<u8>], round: &str) -> Result<()> {
    for key in keys {
        let range = || format!("{} in {round}", key.escape_ascii());
        keyspace.put(key, round.to_owned()).await.with_context(range)?;
        let found = keyspace.get(key).await.with_context(range)?.value;
        ensure!(found.is_some_and(|found| found.bytes == round.as_bytes()), "{}", range());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_ranges_are_led_by_all_nodes_survive_one_and_vanish_when_dropped() -> Result<()>
{
    let bed = Bed::three("ranges", std::time::Duration::from_millis(2)).await?;
    let first = bed.keyspace("many", RANGES).await?;
    ensure!(bed.ranges("many").await?.len() == RANGES as usize, "not every range is there");
    bed.leaders_spread("many").await?;
    let (client, keys) = (bed.client("eu"), keys(&bed, "many").await?);
    let keyspace = open(&client, "many");
    serves(&keyspace, &keys, "peace").await?;

    // A third of the ranges lose their leader at once.
    bed.cluster().node(2).kill9().await?;
    serves(&keyspace, &keys, "one node dead").await?;
    bed.cluster().node(2).restart(PATIENCE).await?;
    bed.live().await?;

    for range in bed.ranges("many").await? {
        let found = client.admin().audit(RangeId(range.range_id), Some(PATIENCE)).await?;
        ensure!(found.verdict() == AuditVerdict::Equal, "{found:?}");
        ensure!(
            found.replicas.len() == 3 && found.replicas.iter().all(|of| of.keys == 1),
            "{found:?}"
        );
    }

    let dropped = client.admin().drop_keyspace("many").await?;
    ensure!(dropped.0 == first.keyspace_id, "{dropped:?} was dropped");
    eventually("every node has let go of the dropped ranges", async || {
        for node in bed.cluster().nodes() {
            let status = client.status_of(&node.address().to_string()).await?;
            // The meta range and the one of `default` stay.
            ensure!(status.replicas == 2, "{} holds {} replicas", node.name(), status.replicas);
        }
        Ok(())
    })
    .await?;
    ensure!(bed.ranges("").await?.iter().all(|range| range.keyspace != "many"), "still listed");

    let second = bed.keyspace("many", RANGES).await?;
    ensure!(second.keyspace_id != first.keyspace_id, "the number was used again");
    let keyspace = open(&bed.client("us"), "many");
    for key in &keys {
        let found = keyspace.get(key).await?.value;
        ensure!(found.is_none(), "{} still holds {found:?}", key.escape_ascii());
    }
    let page = keyspace.scan(latitude_client::Scan::all()).await?.value;
    ensure!(page.rows.is_empty(), "{:?}", page.rows);
    // A client that knew the dropped one finds the new one by its name.
    serves(&open(&client, "many"), &keys, "anew").await?;
    bed.passed();
    Ok(())
}
