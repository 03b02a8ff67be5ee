//! What replicas still have after a power cut, a stop, or a disk that lost something.

mod common;

use std::time::Duration;

use common::{Cluster, RANGE, replica, written};
use latitude_consensus::Group;
use latitude_storage::{Batch, Column, Damage, Engine, View, key};
use latitude_types::Generation;

const WAIT: Duration = Duration::from_secs(10);
const GENERATION: Generation = Generation(1);

#[tokio::test(start_paused = true)]
async fn everything_acknowledged_outlives_a_power_cut_of_all_nodes() {
    let (mut cluster, token) = Cluster::led().await;
    let keys: Vec<_> = (0..20).map(|i| format!("k{i}")).collect();
    for key in &keys {
        assert!(written(&cluster.put(1, token, key, key).await.expect("all are up")));
    }
    let unsynced: usize = (1..=3).map(|node| cluster.disk(node).unsynced()).sum();
    assert!(unsynced > 0, "something is lost: what was applied last");
    for node in 1..=3 {
        cluster.crash(node).await;
    }
    for node in 1..=3 {
        cluster.start(node).await.expect("only what was unsynced is gone");
        assert_eq!(cluster.node(node).engine.damage(), None);
    }
    let (leader, token) = cluster.leader().await;
    assert!(token.term > 1, "no leadership outlives its leader's restart");
    let read = cluster.group(leader).read_index(WAIT).await.expect("all are up");
    cluster.applied_everywhere(read).await;
    for node in 1..=3 {
        for key in &keys {
            assert_eq!(cluster.value(node, key).as_ref(), Some(key), "node {node}");
        }
    }
    assert!(written(&cluster.put(leader, token, "after", "x").await.expect("all are up")));
}

#[tokio::test(start_paused = true)]
async fn what_was_applied_and_lost_is_applied_again_from_the_log() {
    let (mut cluster, token) = Cluster::led().await;
    for i in 0..5 {
        cluster.put(1, token, "counter", &i.to_string()).await.expect("all are up");
    }
    let applied = cluster.group(1).applied_position().0.index;
    cluster.applied_everywhere(applied).await;
    let lost = cluster.disk(3).unsynced();
    assert!(lost > 0, "the last batches applied are not synced");
    cluster.crash(3).await;
    cluster.start(3).await.expect("only what was unsynced is gone");
    let behind = cluster.group(3).applied_position().0.index;
    assert!(behind < applied, "{behind} of {applied}");
    cluster.applied_everywhere(applied).await;
    assert_eq!(cluster.value(3, "counter").as_deref(), Some("4"));
    let rows = |node: u32| -> Vec<_> {
        let base = cluster.node(node).engine.scan(Column::Base, latitude_storage::Scan::all());
        base.map(|row| row.expect("the row reads")).collect()
    };
    assert_eq!(rows(3), rows(2), "the base is a function of the log");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_stopped_opens_again_on_the_same_store() {
    let (cluster, token) = Cluster::led().await;
    for i in 0..5 {
        cluster.put(1, token, "k", &i.to_string()).await.expect("all are up");
    }
    let node = cluster.node(1);
    let before = node.registry.remove(RANGE).expect("it was there");
    // Still on its way when the replica stops.
    let (_, entry) = cluster.entry("k", "last");
    let pending = before.propose(token, entry).await.expect("it leads");
    before.stop().await;
    assert_eq!(cluster.disk(1).unsynced(), 0, "what it wrote is durable");
    assert_eq!(before.leadership().token, None, "what has stopped leads nothing");
    assert!(before.read_index(WAIT).await.is_err());
    assert!(pending.await.is_err(), "nobody knows yet what becomes of it");
    let rows = |column| -> Vec<_> {
        let rows = node.engine.scan(column, latitude_storage::Scan::all());
        rows.map(|row| row.expect("the row reads")).collect()
    };
    let stopped_with = (rows(Column::Log), rows(Column::Base));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((rows(Column::Log), rows(Column::Base)), stopped_with, "it writes nothing more");

    let after = Group::open(&node.context, RANGE, replica(1)).await.expect("its rows are whole");
    assert!(node.registry.insert(after.clone()).is_none());
    drop(before);
    let (leader, token) = cluster.leader_other_than(1).await;
    let read = cluster.group(leader).read_index(WAIT).await.expect("all are up");
    after.applied(read).await.expect("the group runs");
    let appended = cluster.put(leader, token, "k", "new").await.expect("all are up");
    after.applied(appended.at.index).await.expect("the group runs");
    assert_eq!(cluster.value(1, "k").as_deref(), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_replica_lets_go_of_its_store() {
    let (mut cluster, _) = Cluster::led().await;
    cluster.shut_down(3).await;
    // Only one engine can be open on a disk.
    cluster.start(3).await.expect("its rows are whole");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_synced_writes_says_so_before_any_replica_votes() {
    let (mut cluster, token) = Cluster::led().await;
    for i in 0..5 {
        cluster.put(1, token, "k", &i.to_string()).await.expect("all are up");
    }
    cluster.crash(3).await;
    assert_eq!(cluster.disk(3).lose_synced(4), 4);
    let engine = latitude_storage::memory::MemoryEngine::open(cluster.disk(3));
    let engine = engine.expect("nobody else has it open");
    assert!(matches!(engine.damage(), Some(Damage::WritesMissing { .. })), "{:?}", engine.damage());
}

/// Opens node 3 after some of its rows are gone, which no engine noticed.
async fn open_without(lost: &[Vec<u8>]) -> String {
    let (mut cluster, token) = Cluster::led().await;
    for i in 0..3 {
        cluster.put(1, token, "k", &i.to_string()).await.expect("all are up");
    }
    cluster.applied_everywhere(4).await;
    let node = cluster.node(3);
    node.group.stop().await;
    let mut batch = Batch::new();
    for row in lost {
        assert!(node.engine.get(Column::Log, row).expect("the store reads").is_some());
        batch.delete(Column::Log, row.clone());
    }
    node.engine.write(batch).expect("the disk has space");
    cluster.shut_down(3).await;
    cluster.start(3).await.expect_err("something is lost").to_string()
}

fn log_rows(indexes: impl IntoIterator<Item = u64>) -> Vec<Vec<u8>> {
    indexes.into_iter().map(|index| key::log::entry(RANGE, GENERATION, index)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_replica_without_its_whole_log_is_not_opened() {
    let error = open_without(&log_rows(0..=4)).await;
    assert!(error.contains("is empty"), "{error}");
    let error = open_without(&log_rows([2])).await;
    assert!(error.contains("entry 2 is missing"), "{error}");
    let error = open_without(&log_rows([0])).await;
    assert!(error.contains("entry 0 is missing"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_has_applied_more_than_its_log_holds_is_not_opened() {
    let error = open_without(&log_rows([3, 4])).await;
    assert!(error.contains("has applied entry 4, and its log ends at entry 2"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_lost_its_vote_is_not_opened() {
    let error = open_without(&[key::log::vote(RANGE, GENERATION)]).await;
    assert!(error.contains("ends in term 1, and its last vote was for term 0"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_fails_stops_the_replica_and_is_told_to_the_node() {
    let (cluster, token) = Cluster::led().await;
    cluster.disk(1).fail_next_sync();
    let failed = cluster.put(1, token, "k", "v").await;
    let node = cluster.node(1);
    assert!(node.committer.failed().await.contains("sync failed"));
    node.group.failed().await;
    assert_eq!(node.group.leadership().token, None);
    // The others may have committed it, but this node did not say so.
    assert!(failed.is_err(), "{failed:?}");
    let (leader, token) = cluster.leader_other_than(1).await;
    cluster.group(leader).read_index(WAIT).await.expect("two are up");
    assert!(written(&cluster.put(leader, token, "k", "v").await.expect("two are up")));
}
