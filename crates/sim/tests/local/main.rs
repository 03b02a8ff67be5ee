//! Causal and eventual operations in a cluster over three regions: taken and read near by, also while the region
//! is cut off; folded into the log once; and sessions over all levels.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod clocks;
#[path = "../common/mod.rs"]
mod common;
mod fair;
mod healing;
mod held_back;
mod laggards;
mod limits;
mod origins;
mod prompt;
mod ranges;
mod retries;
mod room;
mod session_ends;
mod sessions;
mod shown;
mod standing;
mod streams;
mod told;
mod world;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use latitude_client::{Level, NodeId, ReceiptDetail, Session, wire};
use latitude_sim::Cluster;
use latitude_sim::cluster::Crash;
use latitude_sim::workload::KEYSPACE;

use common::{WITHIN, run_near};
use world::{KEYS, ONE_WAY, cluster};

#[test]
fn a_causal_write_is_taken_near_read_there_at_once_and_everywhere_soon() {
    let mut cluster = cluster(31);
    for node in 1..=3 {
        run_near(&mut cluster, node, move |host| async move {
            let near = host
                .client
                .keyspace(KEYSPACE)
                .with_level(Level::Causal)
                .with_receipt(ReceiptDetail::Full);
            near.get("k000").await?;
            for key in KEYS {
                let value = format!("{node}");
                let asked = host.now();
                let put = near.put(key, value.clone()).await?;
                let got = near.get(key).await?;
                let took = host.now() - asked;
                ensure!(took < ONE_WAY, "a put and a get near by took {took:?}");
                let receipt = put.receipt.context("a receipt was asked for")?;
                ensure!(receipt.node == NodeId(node), "{receipt}");
                ensure!(
                    got.value.is_some_and(|value| &value.bytes[..] == format!("{node}").as_bytes())
                );
            }
            Ok(())
        });
        cluster.run_for(Duration::from_secs(1)).unwrap();
        for (reader, level) in
            [(1, Level::Strict), (2, Level::Sequential), (3, Level::Causal), (2, Level::Eventual)]
        {
            run_near(&mut cluster, reader, move |host| async move {
                let keyspace = host.client.keyspace(KEYSPACE).with_level(level);
                for key in KEYS {
                    let value = keyspace.get(key).await?.value.context("it was written")?;
                    ensure!(
                        &value.bytes[..] == format!("{node}").as_bytes(),
                        "{level} at {reader}: {value:?}"
                    );
                }
                Ok(())
            });
        }
    }
}

/// Pitfall 18: nothing that is read or written near by waits for what is out of reach.
#[test]
fn a_region_that_is_cut_off_goes_on_and_what_it_wrote_is_folded_once_it_is_back() {
    let mut cluster = cluster(32);
    for other in [1, 2] {
        cluster.cut(3, other);
        cluster.cut(other, 3);
    }
    cluster.run_for(Duration::from_secs(3)).unwrap();
    run_near(&mut cluster, 3, |host| async move {
        let near = host.client.keyspace(KEYSPACE).with_session(Session::new());
        // Learns the way.
        near.clone().with_level(Level::Eventual).get(KEYS[0]).await?;
        for level in [Level::Causal, Level::Eventual] {
            for key in KEYS {
                let asked = host.now();
                near.clone().with_level(level).put(key, level.name()).await?;
                let got = near.clone().with_level(Level::Causal).get(key).await?;
                ensure!(host.now() - asked < ONE_WAY, "it took {:?}", host.now() - asked);
                ensure!(got.value.is_some_and(|value| &value.bytes[..] == level.name().as_bytes()));
            }
        }
        Ok(())
    });
    run_near(&mut cluster, 1, |host| async move {
        for key in KEYS {
            for level in [Level::Strict, Level::Causal] {
                let got = host.client.keyspace(KEYSPACE).with_level(level).get(key).await?;
                ensure!(got.value.is_none(), "{level}: nobody here can know of it");
            }
        }
        Ok(())
    });
    cluster.heal();
    cluster.run_for(Duration::from_secs(5)).unwrap();
    for node in 1..=3 {
        run_near(&mut cluster, node, |host| async move {
            for key in KEYS {
                for level in Level::ALL {
                    let got = host.client.keyspace(KEYSPACE).with_level(level).get(key).await?;
                    let value = got.value.context("it was acknowledged")?;
                    ensure!(&value.bytes[..] == b"eventual", "{level}: {value:?}");
                }
            }
            Ok(())
        });
    }
}

/// Rule 4 of the contract: within one session own writes at any level are seen at every other.
#[test]
fn a_session_sees_its_own_writes_at_every_level() {
    let mut cluster = cluster(33);
    for (turn, node) in [(0, 3), (1, 2), (2, 1)] {
        run_near(&mut cluster, node, move |host| async move {
            let keyspace = host.client.keyspace(KEYSPACE).with_session(Session::new());
            for (at, writes) in Level::ALL.into_iter().enumerate() {
                for (after, reads) in
                    Level::ALL.into_iter().enumerate().filter(|(_, l)| *l != Level::Eventual)
                {
                    let key = KEYS[(at + after) % KEYS.len()];
                    let value = format!("{turn} {writes} {reads}");
                    keyspace.clone().with_level(writes).put(key, value.clone()).await?;
                    let got = keyspace.clone().with_level(reads).get(key).await?;
                    let got = got.value.map(|value| value.bytes);
                    ensure!(
                        got.as_deref() == Some(value.as_bytes()),
                        "{writes}, then {reads}: {got:?}"
                    );
                }
            }
            Ok(())
        });
    }
}

/// Rule 3 of the contract: acknowledged does not mean winning, and whoever is told so need not read it back.
#[test]
fn a_put_that_a_larger_time_outweighs_is_told_so() {
    let mut cluster = cluster(36);
    let late = cluster.start_client(WITHIN, |host| async move {
        let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
        let near = near.with_receipt(ReceiptDetail::Full);
        near.get(KEYS[0]).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut superseded = Vec::new();
        for key in &KEYS[..2] {
            let put = near.put(*key, "born early").await?;
            superseded.push(put.receipt.context("a receipt was asked for")?.superseded);
        }
        anyhow::Ok(superseded)
    });
    cluster.run_for(Duration::from_millis(900)).unwrap();
    // Its first put is on its way while another one overtakes it.
    let (client, nodes) = (late.host().clone(), cluster.nodes());
    let hosts: Vec<Arc<str>> = nodes.iter().map(|node| format!("node-{node}").into()).collect();
    hosts.iter().for_each(|node| cluster.cut_hosts(&client, node));
    cluster.run_for(Duration::from_secs(1)).unwrap();
    run_near(&mut cluster, 1, |host| async move {
        host.client.keyspace(KEYSPACE).with_level(Level::Causal).put(KEYS[0], "born late").await?;
        Ok(())
    });
    cluster.run_for(Duration::from_secs(1)).unwrap();
    hosts.iter().for_each(|node| cluster.mend_hosts(&client, node));
    cluster.run_for(Duration::from_secs(30)).unwrap();
    assert_eq!(late.take().unwrap().unwrap(), [true, false], "nobody else wrote the second key");
    run_near(&mut cluster, 2, |host| async move {
        let got = host.client.keyspace(KEYSPACE).with_level(Level::Strict).get(KEYS[0]).await?;
        let got = got.value.context("it was written")?;
        ensure!(&got.bytes[..] == b"born late", "{got:?}");
        Ok(())
    });
}

/// Found by hand on three processes. An origin dropped what was folded after a minute, and a node that restarted held of
/// others' streams what its bases had folded. It was refused the whole stream from below what had been dropped, also
/// for ranges in which nothing had: what was written there later was acknowledged, and never folded or shown.
#[test]
fn a_stream_goes_on_after_a_restart_in_ranges_of_which_nothing_was_dropped() {
    let mut cluster = cluster(34);
    let put = |cluster: &mut Cluster, keys: &'static [&'static str], value: &'static str| {
        run_near(cluster, 3, move |host| async move {
            let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
            for key in keys {
                near.put(*key, value).await?;
            }
            Ok(())
        });
    };
    put(&mut cluster, &KEYS[..1], "early");
    // Longer than folded writes are kept for others, or were.
    cluster.run_for(Duration::from_secs(70)).unwrap();
    for node in [1, 2] {
        cluster.crash(node, Crash::PowerLost);
    }
    cluster.run_for(Duration::from_secs(1)).unwrap();
    for node in [1, 2] {
        cluster.restart(node);
    }
    cluster.run_for(Duration::from_secs(10)).unwrap();
    put(&mut cluster, &KEYS, "late");
    cluster.run_for(Duration::from_secs(5)).unwrap();
    for node in 1..=3 {
        run_near(&mut cluster, node, |host| async move {
            for key in KEYS {
                for level in Level::ALL {
                    let got = host.client.keyspace(KEYSPACE).with_level(level).get(key).await?;
                    let value = got.value.with_context(|| format!("{level}: {key} was written"))?;
                    ensure!(&value.bytes[..] == b"late", "{level}: {key} holds {value:?}");
                }
            }
            Ok(())
        });
    }
}

/// What an eventual read shows may be hidden from causal ones, because what it follows is not here. An eventual remove
/// ends what eventual reads show.
#[test]
fn an_eventual_remove_ends_what_an_eventual_read_has_shown() {
    let mut cluster = cluster(35);
    run_near(&mut cluster, 1, |host| async move {
        let sets = wire::ValueType::Set as i32;
        let request = wire::CreateKeyspaceRequest {
            name: "sets".into(),
            r#type: sets,
            ..wire::CreateKeyspaceRequest::default()
        };
        host.client.admin().create_keyspace(request).await?;
        Ok(())
    });
    cluster.run_for(Duration::from_secs(5)).unwrap();
    // The last of the three hears nothing from the leader, and nobody passes its log on.
    let leader = run_near(&mut cluster, 1, |host| async move {
        let sets = host.client.keyspace("sets").with_level(Level::Strict);
        let got = sets.with_receipt(ReceiptDetail::Full).members("k").await?;
        Ok(got.receipt.context("a receipt was asked for")?.node.0)
    });
    let (near, cut_off) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    cluster.partition(leader, cut_off);
    let token = run_near(&mut cluster, leader, |host| async move {
        let session = Session::new();
        let sets = host.client.keyspace("sets").with_level(Level::Strict);
        sets.with_session(session.clone()).set_add("k", "cause").await?;
        session.token().context("it has written")
    });
    run_near(&mut cluster, near, |host| {
        let token = token.clone();
        async move {
            let sets = host.client.keyspace("sets").with_level(Level::Causal);
            sets.with_session(Session::from_token(&token)?).set_add("k", "effect").await?;
            Ok(())
        }
    });
    cluster.run_for(Duration::from_secs(1)).unwrap();
    run_near(&mut cluster, cut_off, |host| async move {
        let sets = |level| host.client.keyspace("sets").with_level(level);
        let (causal, eventual) = (sets(Level::Causal), sets(Level::Eventual));
        ensure!(causal.members("k").await?.value.is_empty(), "its cause is not here");
        ensure!(eventual.members("k").await?.value == ["effect"]);
        eventual.set_remove("k", "effect").await?;
        ensure!(eventual.members("k").await?.value.is_empty(), "it was shown, and removed");
        Ok(())
    });
    cluster.heal();
    cluster.run_for(Duration::from_secs(5)).unwrap();
    for node in 1..=3 {
        run_near(&mut cluster, node, |host| async move {
            for level in Level::ALL {
                let got = host.client.keyspace("sets").with_level(level).members("k").await?;
                ensure!(got.value == ["cause"], "{level}: {:?}", got.value);
            }
            Ok(())
        });
    }
}
