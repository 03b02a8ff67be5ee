//! Stores that are in use, of another cluster, too new, lost, damaged or full.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use latitude_client::{Keyspace, Level, Reason, wire as v1};
use latitude_testbed::Node;
use latitude_tests::bed::{Kept, PATIENCE};
use latitude_tests::single::Single;
use latitude_tests::{Bed, eventually};
use tokio::time::sleep;

/// The store notes once a second how far it is synced: after this long it has.
const SYNC_NOTED: Duration = Duration::from_millis(2_500);

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_newer_format_is_refused_and_the_reason_is_told() -> Result<()> {
    let dir = Kept::new("format")?;
    let store = dir.path().join("store");
    let address = Single::free_address()?;
    let node = Single::start(&store, address, &[])?;
    node.serves().await?;

    let second = Single::start(&store, Single::free_address()?, &[])?;
    let said = second.refused().await?;
    ensure!(said.contains("another process has the store"), "{said}");
    node.stop().await?;

    let identity = store.join("LATITUDE");
    let text = fs::read_to_string(&identity)?;
    ensure!(text.contains("format 1\n"), "{text}");
    fs::write(&identity, text.replace("format 1\n", "format 2\n"))?;
    let said = Single::start(&store, address, &[])?.refused().await?;
    ensure!(said.contains("newer Latitude") && said.contains("format 2"), "{said}");

    fs::write(&identity, text)?;
    let node = Single::start(&store, address, &[])?;
    node.serves().await?;
    node.stop().await?;
    dir.discard();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_free_space_floor_writes_are_refused_and_reads_go_on() -> Result<()> {
    let dir = Kept::new("floor")?;
    let store = dir.path().join("store");
    let address = Single::free_address()?;
    let node = Single::start(&store, address, &["--free-space-floor", "0"])?;
    node.serves().await?;
    node.client().keyspace("default").with_level(Level::Strict).put("k", "v").await?;
    node.stop().await?;

    let node = Single::start(&store, address, &["--free-space-floor", "100TiB"])?;
    node.serves().await?;
    let client = node.client();
    let keyspace = client.keyspace("default").with_level(Level::Strict);
    let status = eventually("the node notices its disk", async || {
        let status = client.status_of(&node.address().to_string()).await?;
        ensure!(status.writes_refused, "not yet");
        Ok(status)
    });
    status.await?;
    let hasty = keyspace.clone().with_timeout(Duration::from_secs(3));
    for error in [hasty.put("k", "w").await.err(), hasty.delete("k").await.err()] {
        let error = error.context("written to a full disk")?;
        ensure!(error.reason == Reason::DiskFull && !error.may_have_applied(), "{error:?}");
    }
    let found = keyspace.get("k").await?.value.context("the value is lost")?;
    ensure!(&found.bytes[..] == b"v", "{found:?}");
    node.stop().await?;

    let node = Single::start(&store, address, &["--free-space-floor", "0"])?;
    node.serves().await?;
    node.client().keyspace("default").with_level(Level::Strict).put("k", "w").await?;
    node.stop().await?;
    dir.discard();
    Ok(())
}

/// A node's store with another in its place, while the node is down.
struct Swapped<'a> {
    node: &'a Node,
    original: PathBuf,
}

impl<'a> Swapped<'a> {
    async fn take_away(node: &'a Node) -> Result<Self> {
        node.kill9().await?;
        let original = node.store().with_extension("original");
        fs::rename(node.store(), &original)?;
        Ok(Self { node, original })
    }

    async fn put_back(self) -> Result<()> {
        self.node.kill9().await?;
        fs::remove_dir_all(self.node.store())?;
        fs::rename(&self.original, self.node.store())?;
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, to) = (entry?, to);
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

async fn status(bed: &Bed, node: &Node) -> Result<v1::StatusReply> {
    Ok(bed.client("eu").status_of(&node.address().to_string()).await?)
}

/// Whether the first node hears from the node of that number.
async fn is_live(bed: &Bed, number: u32) -> Result<bool> {
    let seen = status(bed, bed.cluster().node(0)).await?;
    Ok(seen.nodes.iter().any(|node| node.node == number && node.live))
}

/// Waits until the node of that number is missed, and looks again a little later: whoever answers at its
/// address must not pass for it.
async fn not_live(bed: &Bed, number: u32) -> Result<()> {
    let missed = async || {
        ensure!(!is_live(bed, number).await?, "n{number} passes for live");
        Ok(())
    };
    eventually("the node is missed", missed).await?;
    sleep(SYNC_NOTED).await;
    missed().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_store_is_not_its_own_or_is_damaged_is_not_the_node_it_was() -> Result<()> {
    let bed = Bed::three("stores", Duration::from_millis(2)).await?;
    bed.keyspace("kept", 4).await?;
    let keyspace = bed.client("eu").keyspace("kept").with_timeout(PATIENCE);
    keyspace.put("k", "v").await?;
    let (node, number) = (bed.cluster().node(2), bed.number(2).await?);

    let foreign = foreign_store(&bed).await?;
    let swapped = Swapped::take_away(node).await?;
    copy(&foreign, node.store())?;
    a_foreign_store_is_kept_out(&bed, node, number, &keyspace).await?;
    swapped.put_back().await?;

    let swapped = Swapped::take_away(node).await?;
    fs::create_dir(node.store())?;
    an_empty_store_is_a_new_node(&bed, node, number, &keyspace).await?;
    swapped.put_back().await?;

    node.restart(PATIENCE).await?;
    eventually("the node is back with its own store", async || {
        ensure!(is_live(&bed, number).await?, "not yet");
        ensure!(status(&bed, node).await?.node == number, "it is another");
        Ok(())
    })
    .await?;
    a_shortened_log_is_quarantined(&bed, node, number, &keyspace).await?;
    bed.passed();
    Ok(())
}

/// The store of a node that is a cluster of its own.
async fn foreign_store(bed: &Bed) -> Result<PathBuf> {
    let store = bed.dir().join("foreign");
    let node = Single::start(&store, Single::free_address()?, &[])?;
    node.serves().await?;
    node.client().keyspace("default").with_level(Level::Strict).put("k", "foreign").await?;
    node.stop().await?;
    Ok(store)
}

async fn a_foreign_store_is_kept_out(
    bed: &Bed,
    node: &Node,
    number: u32,
    keyspace: &Keyspace,
) -> Result<()> {
    let cluster = status(bed, bed.cluster().node(0)).await?.cluster_id;
    node.start().await?;
    // Either side may say so; one must, and with both clusters' names.
    eventually("somebody says that the store is of another cluster", async || {
        let logs: String = bed.cluster().nodes().iter().map(|node| node.log_tail(500)).collect();
        ensure!(logs.contains("this is cluster"), "{logs}");
        Ok(())
    })
    .await?;
    if node.pid().await.is_some() {
        ensure!(status(bed, node).await?.cluster_id != cluster, "it was let in");
    }
    not_live(bed, number).await?;
    keyspace.put("k", "v").await?;
    Ok(())
}

async fn an_empty_store_is_a_new_node(
    bed: &Bed,
    node: &Node,
    number: u32,
    keyspace: &Keyspace,
) -> Result<()> {
    node.restart(PATIENCE).await?;
    let new = eventually("the node with the empty store is in the cluster", async || {
        let status = status(bed, node).await?;
        ensure!(status.node != 0, "not yet");
        Ok(status)
    })
    .await?;
    ensure!(new.node != number, "it came back as the node whose store is gone");
    ensure!(new.replicas == 0, "it holds {} replicas of the node it replaced", new.replicas);
    not_live(bed, number).await?;
    keyspace.put("k", "v").await?;
    Ok(())
}

async fn a_shortened_log_is_quarantined(
    bed: &Bed,
    node: &Node,
    number: u32,
    keyspace: &Keyspace,
) -> Result<()> {
    for round in 0..50 {
        keyspace.put(format!("k{round}"), vec![b'x'; 1_000]).await?;
    }
    sleep(SYNC_NOTED).await;
    node.kill9().await?;
    shorten_log(&node.store().join("db"))?;
    node.restart(PATIENCE).await?;
    let status = eventually("the node tells its status", async || status(bed, node).await).await?;
    ensure!(!status.quarantine.is_empty(), "the damage was not noticed: {status:?}");
    ensure!(status.quarantine.contains("neither vote nor serve"), "{}", status.quarantine);
    ensure!(status.leaders == 0, "it leads {} ranges", status.leaders);

    // The two others are a quorum, and the third is none of it: with one of them gone, nothing commits.
    keyspace.put("k", "by two").await?;
    eventually("others lead every range", async || {
        let ranges = bed.ranges("kept").await?;
        ensure!(ranges.iter().all(|range| range.leader != number), "it still leads one");
        Ok(())
    })
    .await?;
    bed.cluster().node(1).kill9().await?;
    let hasty = keyspace.clone().with_timeout(Duration::from_secs(5));
    let written = hasty.put("k", "by one").await;
    ensure!(written.is_err(), "a quarantined replica voted or acknowledged: {written:?}");
    bed.cluster().node(1).restart(PATIENCE).await?;
    keyspace.put("k", "by two again").await?;
    Ok(())
}

/// Cuts the last half off the newest write-ahead log that holds anything.
fn shorten_log(database: &Path) -> Result<()> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        let length = fs::metadata(&path)?.len();
        if path.extension().is_some_and(|extension| extension == "log") && length > 0 {
            logs.push((path, length));
        }
    }
    logs.sort();
    let (newest, length) = logs.pop().context("there is no write-ahead log")?;
    fs::OpenOptions::new().write(true).open(newest)?.set_len(length / 2)?;
    Ok(())
}
