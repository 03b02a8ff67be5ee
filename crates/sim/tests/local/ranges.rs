//! Streams of local writes while ranges come and go: one that is dropped, one that is new, one whose replica cannot be
//! opened.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use latitude_client::{Level, NodeId, RangeId, Reason, ReceiptDetail, Session, wire};
use latitude_sim::cluster::{ClientHost, Crash};
use latitude_sim::workload::KEYSPACE;
use latitude_sim::{Cluster, Layout};

use crate::common::run_near;
use crate::{KEYS, cluster};

/// So often a busy client writes.
const BUSY: Duration = Duration::from_millis(100);

async fn create(host: &ClientHost, name: &str, voters: &[&str], learners: &[&str]) -> Result<()> {
    let one = |region: &&str| wire::RegionReplicas { region: (*region).into(), replicas: 1 };
    let request = wire::CreateKeyspaceRequest {
        name: name.into(),
        place: voters.iter().map(one).collect(),
        learners: learners.iter().map(one).collect(),
        ..wire::CreateKeyspaceRequest::default()
    };
    host.client.admin().create_keyspace(request).await?;
    Ok(())
}

/// Found by reading. A node restarted while it still had local writes of a keyspace that had just been dropped. Nobody
/// came for them, and the first one kept the node from dropping anything of the stream, for ever.
#[test]
fn what_is_left_of_a_dropped_keyspace_keeps_no_other_local_write_on_the_disk() {
    let mut cluster = cluster(51);
    let dropped = run_near(&mut cluster, 1, |host| async move {
        create(&host, "dropped", &["ap", "eu", "us"], &[]).await?;
        let near = host.client.keyspace("dropped").with_level(Level::Causal);
        for at in 0..20 {
            near.put(format!("k{at}"), "v").await?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ranges = host.client.admin().ranges("dropped").await?;
        Ok(RangeId(ranges.first().context("it has one")?.range_id))
    });
    cluster.range_dropped(dropped);
    run_near(&mut cluster, 1, |host| async move {
        host.client.admin().drop_keyspace("dropped").await?;
        Ok(())
    });
    // Long enough for the replica to go, and too short for the keeper to look.
    cluster.run_for(Duration::from_millis(500)).unwrap();
    cluster.crash(2, Crash::Killed);
    let left = |cluster: &Cluster| Some(cluster.stream_rows(2, 1)?.values().sum::<usize>());
    cluster.restart(2);
    cluster.run_for(Duration::from_millis(200)).unwrap();
    assert!(left(&cluster) > Some(19), "{:?}: there was nothing to drop", left(&cluster));
    run_near(&mut cluster, 1, |host| async move {
        let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
        let until = host.now() + Duration::from_secs(50);
        while host.now() < until {
            near.put(KEYS[0], "v").await?;
            tokio::time::sleep(BUSY).await;
        }
        Ok(())
    });
    // Those of ten seconds and of one look of the keeper.
    let left = left(&cluster);
    assert!(left < Some(200), "{left:?} rows");
}

/// Found by reading. What a node could not open the stream of stood still at every other node, and what is shown of a
/// node is one number for all ranges.
#[test]
fn a_replica_that_cannot_be_opened_hides_nothing_that_its_node_takes_or_took() {
    let mut cluster = cluster(52);
    let (broken, whole) = (KEYS[0], KEYS[1]);
    // Taken while nobody hears of it, and not lost: it is not what is damaged.
    cluster.isolate(3);
    let range = run_near(&mut cluster, 3, move |host| async move {
        let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
        let put = near.with_receipt(ReceiptDetail::Full).put(broken, "taken before").await?;
        let receipt = put.receipt.context("a receipt was asked for")?;
        ensure!(receipt.node == NodeId(3), "{receipt}");
        Ok(receipt.range)
    });
    cluster.crash(3, Crash::Killed);
    assert!(cluster.damage_log(3, range, 1));
    cluster.restart(3);
    cluster.heal();
    cluster.run_for(Duration::from_secs(5)).unwrap();
    let token = run_near(&mut cluster, 3, move |host| async move {
        let status = host.client.status_of("node-3:7400").await?;
        ensure!(status.quarantine.contains(&format!("range {range}")), "{}", status.quarantine);
        let session = Session::new();
        let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
        let near = near.with_session(session.clone()).with_receipt(ReceiptDetail::Full);
        let receipt = near.put(whole, "taken after").await?.receipt.context("one is given")?;
        ensure!(receipt.node == NodeId(3), "{receipt}");
        session.token().context("the session has written")
    });
    cluster.run_for(Duration::from_secs(1)).unwrap();
    for node in [1, 2] {
        let token = token.clone();
        run_near(&mut cluster, node, move |host| {
            let token = token.clone();
            async move {
                let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
                let near = near.with_receipt(ReceiptDetail::Full);
                let session = Session::from_token(&token)?;
                for (key, expected) in [(whole, "taken after"), (broken, "taken before")] {
                    let got = near.clone().with_session(session.clone()).get(key).await?;
                    let receipt = got.receipt.context("a receipt was asked for")?;
                    ensure!(receipt.node == NodeId(node), "{key}: {receipt}");
                    let value = got.value.map(|value| value.bytes);
                    ensure!(value.as_deref() == Some(expected.as_bytes()), "{key}: {value:?}");
                }
                Ok(())
            }
        });
    }
}

/// Found by reading. Who shares a range with a node was looked up once a second, and what those have shown, tokens need
/// not name. A range that opened in between was written to at once, and a node with a replica of it that had not
/// heard of the write was trusted to show it.
#[test]
fn a_token_names_what_a_node_with_a_replica_of_a_new_range_does_not_show() {
    let regions = ["r1", "r2", "r3", "r4", "r5"].map(String::from).to_vec();
    let far = (Duration::from_millis(5), Duration::from_millis(5));
    let mut cluster = Cluster::new(Layout { nodes: 5, regions, far, ..Layout::small(53) });
    cluster.init().unwrap();
    // The keyspace `default` is on the first three: n4 shares nothing with n5.
    let (origin, other) = (4, 5);
    run_near(
        &mut cluster,
        origin,
        |host| async move { create(&host, "busy", &["r4"], &["r1"]).await },
    );
    // That it notes how far it stands not when the origin does.
    cluster.crash(1, Crash::Killed);
    cluster.run_for(Duration::from_millis(300)).unwrap();
    cluster.restart(1);
    cluster.run_for(Duration::from_secs(5)).unwrap();
    for phase in [0_u64, 3, 6] {
        cluster.run_for(Duration::from_millis(100 * phase)).unwrap();
        let name = format!("new{phase}");
        let new = name.clone();
        run_near(&mut cluster, origin, move |host| {
            let new = new.clone();
            async move {
                create(&host, &new, &["r2", "r4", "r5"], &[]).await?;
                let near = host.client.keyspace(&new).with_receipt(ReceiptDetail::Full);
                let near = near.with_level(Level::Causal);
                loop {
                    if let Ok(put) = near.put("first", "v").await
                        && put.receipt.is_some_and(|receipt| receipt.node == NodeId(origin))
                    {
                        return Ok(());
                    }
                }
            }
        });
        cluster.partition(origin, 2);
        cluster.partition(origin, other);
        let new = name.clone();
        let tokens = run_near(&mut cluster, origin, move |host| {
            let new = new.clone();
            async move {
                let session = Session::new();
                let near = |name: &str| host.client.keyspace(name).with_level(Level::Causal);
                near(&new).with_session(session.clone()).put("k", "mine").await?;
                let mut tokens = Vec::new();
                for _ in 0..20 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    // Others are busy, so that there is something to tell.
                    near("busy").put("k", "v").await?;
                    near("busy").with_session(session.clone()).get("k").await?;
                    tokens.push(session.token().context("the session has read")?);
                }
                Ok(tokens)
            }
        });
        run_near(&mut cluster, other, move |host| {
            let (name, tokens) = (name.clone(), tokens.clone());
            async move {
                for (at, token) in tokens.iter().enumerate().step_by(4) {
                    let near = host.client.keyspace(&name).with_receipt(ReceiptDetail::Full);
                    let near = near.with_session(Session::from_token(token)?);
                    let near = near.with_timeout(Duration::from_secs(1));
                    match near.with_level(Level::Causal).get("k").await {
                        Ok(got) => ensure!(
                            got.value.is_some_and(|value| &value.bytes[..] == b"mine"),
                            "{name}, token {at}: {:?}",
                            got.receipt
                        ),
                        Err(error) => ensure!(error.reason == Reason::ReplicaBehind, "{error}"),
                    }
                }
                Ok(())
            }
        });
        cluster.heal();
        cluster.run_for(Duration::from_secs(2)).unwrap();
    }
}
