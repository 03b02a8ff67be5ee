//! What a node does when its disk is full, has room again, or fails.

use std::time::Duration;

use latitude_client::{Client, Level};
use latitude_consensus::SnapshotSettings;
use latitude_sim::cluster::Crash;
use latitude_sim::{Cluster, Layout};
use latitude_types::{RangeId, Reason};

const WITHIN: Duration = Duration::from_secs(60);
const A_LITTLE: u64 = 1 << 20;
const PLENTY: u64 = 1 << 40;

/// A cluster that serves.
fn cluster(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(Layout::small(seed));
    cluster.init().expect("its nodes found it");
    cluster.run_for(Duration::from_secs(3)).expect("nothing is violated");
    cluster
}

async fn put(client: &Client, key: &str, value: &str) -> Result<(), latitude_types::Error> {
    let keyspace =
        client.keyspace("default").with_level(Level::Strict).with_timeout(Duration::from_secs(20));
    keyspace.put(key, value.to_string()).await.map(drop)
}

async fn get(client: &Client, key: &str) -> Option<Vec<u8>> {
    let answer = client
        .keyspace("default")
        .with_level(Level::Strict)
        .get(key)
        .await
        .expect("reads are served");
    answer.value.map(|value| value.bytes.to_vec())
}

#[test]
fn below_the_floor_writes_are_refused_reads_go_on_and_writes_come_back_with_the_room() {
    let mut cluster = cluster(3);
    let before =
        cluster.run_client(WITHIN, |host| async move { put(&host.client, "k", "1").await });
    before.unwrap().expect("there is room");
    for node in cluster.nodes() {
        cluster.leave_free(node, A_LITTLE);
    }
    cluster.run_for(Duration::from_secs(3)).unwrap();
    let (refused, seen) = cluster
        .run_client(WITHIN, |host| async move {
            let refused = put(&host.client, "k", "2").await.expect_err("there is no room");
            (refused, get(&host.client, "k").await)
        })
        .unwrap();
    assert!(refused.to_string().contains(Reason::DiskFull.name()), "{refused}");
    assert!(!refused.may_have_applied(), "{refused}");
    assert_eq!(seen.as_deref(), Some(&b"1"[..]));
    for node in cluster.nodes() {
        cluster.leave_free(node, PLENTY);
    }
    cluster.run_for(Duration::from_secs(3)).unwrap();
    let after = cluster.run_client(WITHIN, |host| async move { put(&host.client, "k", "3").await });
    after.unwrap().expect("there is room again, and nobody was restarted");
}

#[test]
fn a_node_whose_sync_fails_stops_and_the_others_lose_nothing() {
    let mut cluster = cluster(4);
    let before =
        cluster.run_client(WITHIN, |host| async move { put(&host.client, "k", "1").await });
    before.unwrap().expect("all is well");
    cluster.fail_next_sync(1);
    cluster.run_for(Duration::from_secs(5)).unwrap();
    let stopped = cluster.failures();
    assert!(matches!(&stopped[..], [(1, why)] if why.contains("sync")), "{stopped:?}");
    let (seen, written) = cluster
        .run_client(WITHIN, |host| async move {
            let written = put(&host.client, "other", "2").await;
            (get(&host.client, "k").await, written)
        })
        .unwrap();
    written.expect("two of three nodes are a quorum");
    assert_eq!(seen.as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_replica_whose_log_is_damaged_is_quarantined_and_its_node_and_the_others_go_on() {
    let mut cluster = cluster(5);
    let before =
        cluster.run_client(WITHIN, |host| async move { put(&host.client, "k", "1").await });
    before.unwrap().expect("all is well");
    cluster.crash(1, Crash::Killed);
    // The range of the keyspace `default` comes after the meta range.
    assert!(cluster.damage_log(1, RangeId(2), 1));
    cluster.restart(1);
    cluster.run_for(Duration::from_secs(5)).unwrap();
    assert_eq!(cluster.failures(), [], "the node goes on");
    let (told, seen) = cluster
        .run_client(WITHIN, |host| async move {
            let told = host.client.status_of("node-1:7400").await.map(|status| status.quarantine);
            (told, get(&host.client, "k").await)
        })
        .unwrap();
    let told = told.expect("the node answers");
    assert!(told.contains("range r2"), "{told:?}");
    assert_eq!(seen.as_deref(), Some(&b"1"[..]));
}

/// Found by reading. To install a snapshot takes as long as the disk takes, and a sender that heard nothing for a second gave
/// the connection up and sent all of it again; meanwhile the range had been written to, so what had been installed was
/// behind again: for as long as anybody wrote.
#[test]
fn a_snapshot_that_takes_long_to_install_is_sent_once() {
    let mut cluster = Cluster::new(Layout {
        snapshots: SnapshotSettings { log_bytes_max: 128 << 10, ..SnapshotSettings::default() },
        ..Layout::small(5)
    });
    cluster.init().expect("its nodes found it");
    cluster.run_for(Duration::from_secs(3)).expect("nothing is violated");
    let write = |cluster: &mut Cluster, from: u32, count: u32, pause: u64| {
        let written = cluster.run_client(WITHIN, move |host| async move {
            for at in from..from + count {
                put(&host.client, &format!("k{at}"), &"v".repeat(500)).await?;
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            Ok::<_, latitude_types::Error>(())
        });
        written.unwrap().expect("two of three are there");
    };
    cluster.isolate(3);
    write(&mut cluster, 0, 400, 1);
    let installed = cluster.snapshots_installed();
    cluster.slow_disk(3, Duration::from_secs(2));
    cluster.heal();
    write(&mut cluster, 400, 150, 100);
    assert_eq!(cluster.snapshots_installed() - installed, 1, "then it goes on by the log");
    cluster.slow_disk(3, Duration::ZERO);
    cluster.run_for(Duration::from_secs(10)).unwrap();
    assert_eq!(cluster.replicas_differ(), None);
}
