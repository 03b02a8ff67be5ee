//! What is kept against latecomers alone goes once none can come, and not before: half an hour of simulated time,
//! most of it idle.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use anyhow::{Result, ensure};
use latitude_client::{Level, wire};
use latitude_sim::cluster::Crash;
use latitude_sim::workload::{KEYSPACE, Workload};
use latitude_sim::{ClientHost, Cluster, Layout, RowCounts};

use common::run_near;

const LIKES: &str = "likes";
const CARTS: &str = "carts";
const ADDS: i64 = 20;

fn cluster(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(Layout::three_regions(seed));
    cluster.init().unwrap();
    Workload::default().prepare(&mut cluster).unwrap();
    for (name, of) in [(LIKES, wire::ValueType::Counter), (CARTS, wire::ValueType::Set)] {
        run_near(&mut cluster, 1, move |host| async move {
            let request = wire::CreateKeyspaceRequest {
                name: name.into(),
                r#type: of as i32,
                ranges: 1,
                ..wire::CreateKeyspaceRequest::default()
            };
            host.client.admin().create_keyspace(request).await?;
            Ok(())
        });
    }
    cluster.run_for(Duration::from_secs(5)).unwrap();
    cluster
}

fn run_minutes(cluster: &mut Cluster, minutes: u64) {
    cluster.run_for(Duration::from_secs(minutes * 60)).unwrap();
}

/// What everybody is to find, at every level.
async fn find(host: &ClientHost) -> Result<()> {
    for level in Level::ALL {
        let of = |name: &str| host.client.keyspace(name).with_level(level);
        for key in ["k000", "k001"] {
            let got = of(KEYSPACE).get(key).await?.value;
            ensure!(got.is_none(), "{level}: the deleted {key} is back: {got:?}");
        }
        let sum = of(LIKES).counter("photo").await?.value;
        ensure!(sum == ADDS + 1, "{level}: {sum} likes");
        let gone = of(CARTS).members("bob").await?.value;
        ensure!(gone.is_empty(), "{level}: what was removed is back: {gone:?}");
        let there = of(CARTS).members("alice").await?.value;
        ensure!(there == ["milk"], "{level}: {there:?}");
    }
    Ok(())
}

#[test]
fn what_was_deleted_stays_deleted_and_nothing_is_kept_of_it() {
    let mut cluster = cluster(41);
    for other in [1, 2] {
        cluster.partition(3, other);
    }
    cluster.run_for(Duration::from_secs(3)).unwrap();
    // What nobody else gets to see for long: older than the deletions.
    run_near(&mut cluster, 3, |host| async move {
        let of = |name: &str| host.client.keyspace(name).with_level(Level::Causal);
        for key in ["k000", "k001"] {
            of(KEYSPACE).put(key, "old").await?;
        }
        of(LIKES).add("photo", 1).await?;
        of(CARTS).set_add("alice", "milk").await?;
        Ok(())
    });
    cluster.crash(3, Crash::PowerLost);
    cluster.heal();
    run_near(&mut cluster, 1, |host| async move {
        let of = |name: &str, level| host.client.keyspace(name).with_level(level);
        // One through the log, one without it.
        for (key, level) in [("k000", Level::Strict), ("k001", Level::Causal)] {
            of(KEYSPACE, level).put(key, "new").await?;
            of(KEYSPACE, level).delete(key).await?;
        }
        for _ in 0..ADDS {
            of(LIKES, Level::Causal).add("photo", 1).await?;
        }
        of(CARTS, Level::Causal).set_add("bob", "bread").await?;
        of(CARTS, Level::Causal).set_remove("bob", "bread").await?;
        Ok(())
    });
    cluster.run_for(Duration::from_secs(5)).unwrap();
    // Two registers and a set; the likes of this side, an add and its removal.
    let kept = RowCounts { values: 1, deleted: 3, ids: ADDS as usize + 2 };
    let keys = |cluster: &Cluster| [1, 2].map(|node| cluster.rows(node).unwrap());
    assert_eq!(keys(&cluster), [kept; 2]);

    // However long: node 3 has something older. Those who lead instead of it do so in peace: once they handed the
    // ranges it prefers to lead to and fro, every second.
    let (elections, _) = cluster.elections_and_receipts();
    run_minutes(&mut cluster, 11);
    assert!(cluster.elections_and_receipts().0 <= elections + 4, "leaders do not stay");
    assert_eq!(keys(&cluster), [kept; 2]);
    cluster.restart(3);
    cluster.run_for(Duration::from_secs(10)).unwrap();
    for node in 1..=3 {
        run_near(&mut cluster, node, |host| async move { find(&host).await });
    }

    // Ten minutes, a pass, and idle origins that have to be lifted.
    run_minutes(&mut cluster, 12);
    let kept = RowCounts { values: 2, deleted: 0, ids: 0 };
    for node in 1..=3 {
        assert_eq!(cluster.rows(node), Some(kept), "node {node}");
        run_near(&mut cluster, node, |host| async move { find(&host).await });
    }
    assert_eq!(cluster.replicas_differ(), None);

    // And then a range that nobody writes to is left alone.
    let applied = cluster.applied_rows(1);
    run_minutes(&mut cluster, 3);
    assert_eq!(cluster.applied_rows(1), applied);
}
