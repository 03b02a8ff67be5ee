//! A replica behind a purged log: caught up by a snapshot, whatever happens on the way.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use common::{Cluster, RANGE, written};
use latitude_consensus::{LeaderToken, SnapshotSettings, Step};
use latitude_storage::{Column, Engine, Scan, View, key};
use latitude_types::{Generation, NodeId};
use tokio::time::Instant;

const WAIT: Duration = Duration::from_secs(10);
const SMALL: SnapshotSettings =
    SnapshotSettings { log_bytes_max: 64 << 10, bytes_per_second: 32 << 20 };

/// Three nodes whose logs are short, led by node 1.
async fn cluster() -> (Cluster, LeaderToken) {
    Cluster::with(Duration::from_millis(5), SMALL).await.lead().await
}

fn value(key: &str) -> String {
    format!("{key}:{}", "x".repeat(2_000))
}

/// Puts so many keys at a node, all of which must be acknowledged.
async fn fill(cluster: &Cluster, node: u32, token: LeaderToken, prefix: &str, keys: usize) {
    for i in 0..keys {
        let key = format!("{prefix}{i}");
        let put = cluster.put(node, token, &key, &value(&key)).await;
        assert!(written(&put.expect("a quorum is up")));
    }
}

/// All rows of a node's base.
fn rows(cluster: &Cluster, node: u32) -> Vec<(Bytes, Bytes)> {
    let base = cluster.node(node).engine.scan(Column::Base, Scan::all());
    base.map(|row| row.expect("the row reads")).collect()
}

/// Waits until a node's log begins after `index`.
async fn purged(cluster: &Cluster, node: u32, index: u64) {
    let begins_later = || (cluster.group(node).status().first_index > index + 1).then_some(());
    cluster.wait("the log is purged", begins_later).await;
}

/// Node 3 is cut off until the logs of the others no longer reach back to it.
async fn behind(cluster: &Cluster, token: LeaderToken) {
    fill(cluster, 1, token, "before", 5).await;
    cluster.net.isolate(3);
    let last = cluster.group(3).status().last_index;
    fill(cluster, 1, token, "key", 150).await;
    purged(cluster, 1, last).await;
    purged(cluster, 2, last).await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_behind_a_purge_is_caught_up_by_one_snapshot_and_can_lead() {
    let (cluster, token) = cluster().await;
    behind(&cluster, token).await;
    let status = cluster.group(1).status();
    assert!(status.log_bytes <= 2 * SMALL.log_bytes_max, "{status:?}");
    cluster.net.heal();
    cluster.applied_everywhere(status.applied_index).await;
    assert_eq!(rows(&cluster, 3), rows(&cluster, 1));
    let stats = |node: u32| cluster.node(node).context.snapshots.stats();
    cluster.wait("the leader knows", || (stats(1).sent() > 0).then_some(())).await;
    assert_eq!((stats(1).sent(), stats(3).received(), stats(3).installed()), (1, 1, 1));
    assert_eq!((stats(1).broken(), stats(3).broken()), (0, 0));
    assert!(stats(1).bytes_sent() > 300_000 && stats(3).bytes_received() > 300_000);
    assert_eq!(cluster.node(3).engine.staged(), Ok(vec![]), "nothing is left behind");

    // From here on it is served by the log.
    fill(&cluster, 1, token, "after", 5).await;
    cluster.applied_everywhere(cluster.group(1).status().applied_index).await;
    assert_eq!(stats(1).sent(), 1);
    assert_eq!(cluster.group(3).stamp_max(), cluster.group(1).stamp_max());
    let caught_up = || cluster.group(1).transfer_leader(NodeId(3));
    while caught_up().await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (leader, token) = cluster.leader_other_than(1).await;
    assert_eq!(leader, 3);
    cluster.group(3).read_index(WAIT).await.expect("all are up");
    fill(&cluster, 3, token, "led by 3, ", 5).await;
    cluster.applied_everywhere(cluster.group(3).status().applied_index).await;
    assert_eq!(rows(&cluster, 1), rows(&cluster, 3));
}

#[tokio::test(start_paused = true)]
async fn a_short_absence_needs_no_snapshot() {
    let (cluster, token) = cluster().await;
    fill(&cluster, 1, token, "before", 100).await;
    cluster.net.isolate(3);
    fill(&cluster, 1, token, "key", 10).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    cluster.net.heal();
    cluster.applied_everywhere(cluster.group(1).status().applied_index).await;
    assert_eq!(cluster.node(1).context.snapshots.stats().sent(), 0);
    assert!(cluster.node(1).context.snapshots.stats().purges() > 0);
    assert_eq!(rows(&cluster, 3), rows(&cluster, 1));
}

#[tokio::test(start_paused = true)]
async fn a_purged_replica_opens_again_and_knows_the_stamps_it_held() {
    let (mut cluster, token) = cluster().await;
    fill(&cluster, 1, token, "key", 100).await;
    purged(&cluster, 2, 10).await;
    let stamp = cluster.group(2).stamp_max();
    for node in [2, 2] {
        cluster.crash(node).await;
        cluster.start(node).await.expect("a purge loses nothing that is needed");
    }
    assert!(cluster.group(2).status().first_index > 10);
    assert_eq!(cluster.group(2).stamp_max(), stamp);
    cluster.applied_everywhere(cluster.group(1).status().applied_index).await;
    assert_eq!(rows(&cluster, 2), rows(&cluster, 1));
}

#[tokio::test(start_paused = true)]
async fn a_replica_without_an_entry_after_the_purged_ones_is_not_opened() {
    let (mut cluster, token) = cluster().await;
    fill(&cluster, 1, token, "key", 100).await;
    purged(&cluster, 3, 10).await;
    let first = cluster.group(3).status().first_index;
    cluster.node(3).group.stop().await;
    let mut batch = latitude_storage::Batch::new();
    batch.delete(Column::Log, key::log::entry(RANGE, Generation(1), first));
    cluster.node(3).engine.write(batch).expect("the disk has space");
    cluster.shut_down(3).await;
    let error = cluster.start(3).await.expect_err("something is lost").to_string();
    assert!(error.contains(&format!("entry {first} is missing")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_sent_no_faster_than_it_may_be() {
    let slow = SnapshotSettings { bytes_per_second: 10 << 10, ..SMALL };
    let (cluster, token) = Cluster::with(Duration::from_millis(5), slow).await.lead().await;
    behind(&cluster, token).await;
    let begun = Instant::now();
    cluster.net.heal();
    while cluster.node(3).context.snapshots.stats().installed() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(600));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let bytes = cluster.node(1).context.snapshots.stats().bytes_sent();
    let seconds = bytes / slow.bytes_per_second;
    assert!(seconds > 20 && begun.elapsed().as_secs() + 1 >= seconds, "{:?}", begun.elapsed());
    assert_eq!(cluster.group(1).leadership().token, Some(token), "nobody lost patience");
}

/// What was acknowledged: keys and their values.
type Acknowledged = BTreeMap<String, String>;

/// Writes while it can: a key that is refused or lost is not acknowledged.
async fn write_some(cluster: &Cluster, acknowledged: &mut Acknowledged, round: usize) {
    for i in 0..4 {
        let leader = cluster
            .nodes()
            .into_iter()
            .find_map(|node| Some((node, cluster.group(node).leadership().token?)));
        let Some((leader, token)) = leader else { return };
        let key = format!("round {round}, {i}");
        let text = value(&key);
        let put = cluster.put(leader, token, &key, &text);
        if let Ok(Ok(appended)) = tokio::time::timeout(Duration::from_secs(2), put).await
            && written(&appended)
        {
            acknowledged.insert(key.clone(), value(&key));
        }
    }
}

/// Whoever reaches the step loses its power, twice in a row; then everything must be there.
async fn crash_twice_at(step: Step) {
    let (mut cluster, token) = cluster().await;
    let mut acknowledged = Acknowledged::new();
    behind(&cluster, token).await;
    for key in (0..5).map(|i| format!("before{i}")).chain((0..150).map(|i| format!("key{i}"))) {
        acknowledged.insert(key.clone(), value(&key));
    }
    cluster.crash_at(step, 2);
    cluster.net.heal();
    let mut crashes = 0;
    for round in 0.. {
        crashes += cluster.restart_crashed().await;
        let installed = cluster.node(3).context.snapshots.stats().installed();
        if cluster.crashes_left() == 0 && (installed > 0 || step >= Step::Mark) {
            break;
        }
        assert!(round < 600, "{crashes} crashes at {step}, and no end");
        write_some(&cluster, &mut acknowledged, round).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    crashes += cluster.restart_crashed().await;
    assert_eq!(crashes, 2, "{step}");
    let (leader, _) = cluster.leader().await;
    let read = loop {
        match cluster.group(leader).read_index(WAIT).await {
            Ok(index) => break index,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    cluster.applied_everywhere(read).await;
    for node in 1..=3 {
        for (key, value) in &acknowledged {
            assert_eq!(cluster.value(node, key).as_ref(), Some(value), "node {node}, {step}");
        }
    }
    assert_eq!(rows(&cluster, 3), rows(&cluster, leader), "{step}");
    assert_eq!(rows(&cluster, 2), rows(&cluster, leader), "{step}");
    let marker = key::node::installing(RANGE);
    assert_eq!(cluster.node(3).engine.get(Column::Node, &marker), Ok(None), "{step}");
    assert_eq!(cluster.node(3).engine.staged(), Ok(vec![]), "{step}");
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_twice_in_a_row_loses_nothing_and_ends_equal() {
    for step in Step::ALL {
        crash_twice_at(step).await;
    }
}
