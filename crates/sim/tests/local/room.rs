//! A key holds only so much, unless nodes that do not hear of each other each find room for more: then it is kept, sent
//! and shortened all the same.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use latitude_client::{Level, NodeId, Reason, ReceiptDetail, wire};
use latitude_sim::{ClientHost, Layout};

use crate::common::run_near;
use crate::world::{cluster_of, leader_of, others};

const MAPS: &str = "maps";
const KEY: &str = "key";
/// Two of them are more than a key takes, three are more than a message carries.
const VALUE_LEN: usize = 7 << 20;

async fn put(host: &ClientHost, level: Level, field: String) -> Result<NodeId> {
    let maps = host.client.keyspace(MAPS).with_level(level).with_receipt(ReceiptDetail::Full);
    let maps = maps.with_timeout(Duration::from_secs(20));
    let put = maps.map_put(KEY, field, vec![1; VALUE_LEN]).await?;
    Ok(put.receipt.context("a receipt was asked for")?.node)
}

fn is_full(refused: &anyhow::Error) -> bool {
    let error = refused.downcast_ref::<latitude_client::Error>();
    error.is_some_and(|error| error.reason == Reason::ValueTooLarge && !error.may_have_applied())
}

#[test]
fn a_key_that_outgrew_a_message_while_nodes_were_cut_off_is_folded_sent_and_made_smaller() {
    let mut layout = Layout::three_regions(95);
    layout.snapshots.log_bytes_max = 4 << 10;
    let mut cluster = cluster_of(layout);
    run_near(&mut cluster, 1, |host| async move {
        let request = wire::CreateKeyspaceRequest {
            name: MAPS.into(),
            r#type: wire::ValueType::Map as i32,
            value_len_max: 8 << 20,
            ..wire::CreateKeyspaceRequest::default()
        };
        host.client.admin().create_keyspace(request).await?;
        Ok(())
    });
    cluster.run_for(Duration::from_secs(5)).unwrap();
    let leader = leader_of(&mut cluster, MAPS, KEY);
    for node in 1..=3 {
        cluster.isolate(node);
    }
    cluster.run_for(Duration::from_secs(2)).unwrap();
    for node in 1..=3 {
        run_near(&mut cluster, node, move |host| async move {
            let taken_by = put(&host, Level::Causal, format!("of {node}")).await?;
            ensure!(taken_by == NodeId(node), "{taken_by}");
            for level in [Level::Causal, Level::Eventual] {
                let refused = put(&host, level, "one more".into()).await.unwrap_err();
                ensure!(is_full(&refused), "{level}: {refused:#}");
            }
            Ok(())
        });
    }
    cluster.heal();
    cluster.run_for(Duration::from_secs(20)).unwrap();
    let refused_everywhere = |host: ClientHost| async move {
        for level in Level::ALL {
            let refused = put(&host, level, "one more".into()).await.unwrap_err();
            ensure!(is_full(&refused), "{level}: {refused:#}");
            let maps = host.client.keyspace(MAPS).with_level(level);
            let refused = maps.fields(KEY).await.map(drop).unwrap_err();
            ensure!(refused.reason == Reason::ValueTooLarge, "{level}: {refused}");
        }
        Ok(())
    };
    run_near(&mut cluster, leader, refused_everywhere);
    cluster.run_for(Duration::from_secs(2)).unwrap();
    assert_eq!(cluster.replicas_differ(), None);

    // Whoever was away meanwhile gets it in a snapshot.
    let [away, _] = others(leader);
    cluster.isolate(away);
    run_near(&mut cluster, leader, move |host| async move {
        let strict = host.client.keyspace(MAPS).with_level(Level::Strict);
        for at in 0..60 {
            strict.map_put(format!("other {at}"), "field", vec![b'x'; 500]).await?;
        }
        Ok(())
    });
    cluster.run_for(Duration::from_secs(5)).unwrap();
    let installed = cluster.snapshots_installed();
    cluster.heal();
    cluster.run_for(Duration::from_secs(20)).unwrap();
    assert!(cluster.snapshots_installed() > installed, "its log was purged meanwhile");
    assert_eq!(cluster.replicas_differ(), None);

    run_near(&mut cluster, away, move |host| async move {
        let near = host.client.keyspace(MAPS).with_level(Level::Causal);
        near.map_remove(KEY, "of 1").await?;
        near.map_remove(KEY, "of 2").await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        for level in Level::ALL {
            let maps = host.client.keyspace(MAPS).with_level(level);
            let fields = maps.fields(KEY).await?.value;
            let names: Vec<_> = fields.iter().map(|(name, _)| &name[..]).collect();
            ensure!(names == [b"of 3"], "{level}: {names:?}");
        }
        put(&host, Level::Strict, "of 3".into()).await?;
        Ok(())
    });
    cluster.run_for(Duration::from_secs(2)).unwrap();
    assert_eq!(cluster.replicas_differ(), None);
}
