//! Replicas without a vote: they answer near by, and nothing rests on them.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use anyhow::{Context, ensure};
use latitude_client::{Level, NodeId, Proof, ReceiptDetail, Role, Session, wire};
use latitude_sim::cluster::Crash;
use latitude_sim::workload::KEYSPACE;
use latitude_sim::{Cluster, Layout};

use common::{WITHIN, run_near};

/// The node of the learner; the others vote.
const LEARNER: u32 = 4;
/// One way between two regions of the layout.
const ONE_WAY: Duration = Duration::from_millis(40);

/// Voters in three regions and a learner in a fourth, of one range.
fn cluster(layout: Layout) -> Cluster {
    let regions = ["ap", "eu", "us", "sa"].map(String::from).to_vec();
    let mut cluster = Cluster::new(Layout { nodes: LEARNER, regions, ..layout });
    cluster.init().unwrap();
    let one = |region: &str| wire::RegionReplicas { region: region.into(), replicas: 1 };
    let request = wire::CreateKeyspaceRequest {
        name: KEYSPACE.into(),
        place: vec![one("ap"), one("eu"), one("us")],
        learners: vec![one("sa")],
        default_level: wire::Level::Strict as i32,
        ..wire::CreateKeyspaceRequest::default()
    };
    cluster
        .run_client(
            WITHIN,
            |host| async move { host.client.admin().create_keyspace(request).await },
        )
        .unwrap()
        .unwrap();
    cluster.run_for(Duration::from_secs(5)).unwrap();
    cluster
}

/// Who leads the range.
fn leader(cluster: &mut Cluster) -> u32 {
    let ranges = cluster
        .run_client(WITHIN, |host| async move { host.client.admin().ranges(KEYSPACE).await });
    let ranges = ranges.unwrap().unwrap();
    let learners: Vec<_> = ranges[0].replicas.iter().filter(|replica| replica.learner).collect();
    assert_eq!((ranges[0].replicas.len(), learners.len(), learners[0].node), (4, 1, LEARNER));
    ranges[0].leader
}

#[test]
fn a_learner_serves_sequential_reads_near_by_and_says_what_it_is() {
    let mut cluster = cluster(Layout::small(1));
    leader(&mut cluster);
    run_near(&mut cluster, LEARNER, move |host| async move {
        let session = Session::new();
        let keyspace = host.client.keyspace(KEYSPACE).with_session(session);
        keyspace.put("k", "1").await?;
        let near = keyspace.with_level(Level::Sequential).with_receipt(ReceiptDetail::Full);
        near.get("k").await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        for _ in 0..20 {
            let asked = host.now();
            let answer = near.get("k").await?;
            ensure!(host.now() - asked < ONE_WAY, "a read near by took {:?}", host.now() - asked);
            ensure!(answer.value.is_some_and(|value| &value.bytes[..] == b"1"));
            let receipt = answer.receipt.context("a receipt was asked for")?;
            ensure!(receipt.node == NodeId(LEARNER), "{receipt}");
            ensure!(receipt.role == Some(Role::Learner), "{receipt}");
            ensure!(receipt.proof == Some(Proof::ClosedTime), "{receipt}");
            tokio::time::sleep(Duration::from_millis(37)).await;
        }
        // What is strict is asked of the leader, and the answer says so.
        let strict = near.with_level(Level::Strict).get("k").await?;
        ensure!(strict.receipt.is_some_and(|receipt| receipt.role == Some(Role::Leader)));
        Ok(())
    });
}

/// Pitfall 7 (b): three voters that hear nobody but the learner are no quorum, however they read.
#[test]
fn a_learner_is_counted_neither_for_a_write_nor_for_a_read_nor_for_a_closed_time() {
    for layout in [Layout::small(2), Layout::small(3).with_leases()] {
        let mut cluster = cluster(layout);
        let leader = leader(&mut cluster);
        run_near(&mut cluster, LEARNER, |host| async move {
            let keyspace = host.client.keyspace(KEYSPACE);
            keyspace.put("k", "1").await?;
            keyspace.with_level(Level::Sequential).get("k").await?;
            Ok(())
        });
        cluster.partition(1, 2);
        cluster.partition(2, 3);
        cluster.partition(1, 3);
        // Longer than any lease.
        cluster.run_for(Duration::from_secs(3)).unwrap();
        run_near(&mut cluster, leader, |host| async move {
            let keyspace = host.client.keyspace(KEYSPACE).with_timeout(Duration::from_secs(4));
            ensure!(keyspace.put("k", "2").await.is_err(), "no quorum, no write");
            ensure!(
                keyspace.with_level(Level::Strict).get("k").await.is_err(),
                "nor a strict read"
            );
            Ok(())
        });
        run_near(&mut cluster, LEARNER, |host| async move {
            let near = host.client.keyspace(KEYSPACE).with_level(Level::Sequential);
            let near = near.with_timeout(Duration::from_secs(4));
            ensure!(near.get("k").await?.value.is_some(), "what is known is answered");
            let fresh = near.with_max_staleness(Duration::from_millis(900));
            ensure!(fresh.get("k").await.is_err(), "no quorum, no time is closed");
            Ok(())
        });
        cluster.heal();
        run_near(&mut cluster, LEARNER, |host| async move {
            host.client.keyspace(KEYSPACE).put("k", "3").await?;
            Ok(())
        });
    }
}

#[test]
fn no_write_waits_for_a_learner_and_it_catches_up_when_it_is_back() {
    let mut layout = Layout::small(4);
    layout.snapshots.log_bytes_max = 4 << 10;
    let mut cluster = cluster(layout);
    cluster.crash(LEARNER, Crash::PowerLost);
    run_near(&mut cluster, 1, |host| async move {
        let keyspace = host.client.keyspace(KEYSPACE);
        for n in 0..40 {
            keyspace.put(format!("k{n}").as_str(), vec![b'x'; 500]).await?;
        }
        Ok(())
    });
    cluster.run_for(Duration::from_secs(3)).unwrap();
    cluster.restart(LEARNER);
    // It opens its store first, and is compared from then on.
    cluster.run_for(Duration::from_secs(1)).unwrap();
    let deadline = cluster.now() + WITHIN;
    while let Some(difference) = cluster.replicas_differ() {
        assert!(cluster.now() < deadline, "{difference}");
        cluster.run_for(Duration::from_millis(100)).unwrap();
    }
    assert!(cluster.snapshots_installed() > 0, "its log was purged meanwhile");
}

/// Pitfall 7: a leader that has been replaced without knowing it closes no time, whoever asks, so the session of
/// a client that has met its successor is not answered from before.
#[test]
fn p7_a_leader_that_was_replaced_closes_no_time_for_its_learner() {
    let mut cluster = cluster(Layout::small(5));
    let old = leader(&mut cluster);
    // Ahead of the others, by less than what they refuse: what it closed would cover what they stamp.
    cluster.skew(old, 200);
    run_near(&mut cluster, LEARNER, |host| async move {
        let keyspace = host.client.keyspace(KEYSPACE);
        keyspace.put("k", "old").await?;
        keyspace.with_level(Level::Sequential).get("k").await?;
        Ok(())
    });
    // The old leader and the learner hear each other and nobody else.
    let others: Vec<u32> = (1..=3).filter(|node| *node != old).collect();
    for other in &others {
        cluster.partition(old, *other);
        cluster.partition(LEARNER, *other);
    }
    let token = run_near(&mut cluster, others[0], |host| async move {
        let session = Session::new();
        let keyspace = host.client.keyspace(KEYSPACE).with_session(session.clone());
        keyspace.with_timeout(Duration::from_secs(40)).put("k", "new").await?;
        session.token().context("it has seen its write")
    });
    run_near(&mut cluster, LEARNER, move |host| {
        let token = token.clone();
        async move {
            let near = host.client.keyspace(KEYSPACE).with_level(Level::Sequential);
            let near = near.with_receipt(ReceiptDetail::Full).with_timeout(Duration::from_secs(6));
            for _ in 0..10 {
                let session = Session::from_token(&token)?;
                let answer = near.clone().with_session(session).get("k").await?;
                ensure!(answer.value.is_some_and(|value| &value.bytes[..] == b"new"));
                ensure!(answer.receipt.is_some_and(|receipt| receipt.node != NodeId(LEARNER)));
            }
            Ok(())
        }
    });
}
