//! What keeps local writes out of the log, as an operator is told (`latitude admin deltas`).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use latitude_client::wire::{HeldBack, UnfoldedDeltas};
use latitude_client::{Level, NodeId, ReceiptDetail, wire};
use latitude_sim::workload::KEYSPACE;
use latitude_sim::{ClientHost, Cluster};
use tokio::time::sleep;

use crate::common::run_near;
use crate::world::{KEYS, address_of, cluster, command, leader_of, new_id, others, put};

/// What a node says of its own writes in the range of a key, if it has any there that are not folded.
async fn own(
    host: &ClientHost,
    address: &str,
    node: u32,
    range: u64,
) -> Result<Option<UnfoldedDeltas>> {
    let said = host.client.deltas_at(address, KEYSPACE).await?;
    ensure!(said.node == node, "{said:?}");
    let mut of_range = said.deltas.into_iter().filter(|of| of.range_id == range);
    Ok(of_range.find(|of| of.origin == node))
}

/// Writes at a node, and follows what it says of it for a while: each reason once, with the nodes that it names.
fn follow(cluster: &mut Cluster, node: u32, key: &'static str) -> Vec<(HeldBack, Vec<u32>)> {
    run_near(cluster, node, move |host| async move {
        let address = address_of(&host, node).await?;
        // Before anything is measured: the way there.
        host.client.deltas_at(&address, KEYSPACE).await?;
        let put = command(KEYSPACE, Level::Causal, put(key, "v"));
        let put = wire::Command { id: Some(new_id(&host, 1)), ..put };
        let range =
            host.send(node, put).await?.receipt.context("a receipt was asked for")?.range_id;
        let (mut said, began) = (Vec::new(), host.now());
        while host.now() < began + Duration::from_secs(5) {
            let Some(of) = own(&host, &address, node, range).await? else { break };
            ensure!(of.count == 1 && of.bytes > 0 && of.keyspace == KEYSPACE, "{of:?}");
            let age = Duration::from_millis(of.oldest_ms);
            ensure!(age <= host.now() - began + Duration::from_millis(50), "{of:?}");
            let mut named = of.held_back_by.clone();
            named.sort_unstable();
            let why = (of.held_back(), named);
            if said.last() != Some(&why) {
                said.push(why);
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(said)
    })
}

fn sorted(mut nodes: [u32; 2]) -> Vec<u32> {
    nodes.sort_unstable();
    nodes.to_vec()
}

/// For pitfall 29: whoever finds that a quota fills up must learn which node it is that does not fold.
#[test]
fn an_operator_is_told_why_local_writes_are_not_in_the_log_and_which_nodes_that_has_to_do_with() {
    let mut cluster = cluster(91);
    let key = KEYS[0];
    let leader = leader_of(&mut cluster, KEYSPACE, key);
    let [x, _] = others(leader);

    assert_eq!(follow(&mut cluster, leader, key), [(HeldBack::BeingFolded, vec![])]);
    let said = follow(&mut cluster, x, key);
    let is_usual = |why: &(HeldBack, Vec<u32>)| {
        matches!(why.0, HeldBack::OnItsWay | HeldBack::AtLeader) && why.1 == [leader]
    };
    assert!(!said.is_empty() && said.iter().all(is_usual), "{said:?}");

    cluster.isolate(x);
    let said = follow(&mut cluster, x, key);
    let noticed = [(HeldBack::OnItsWay, vec![leader]), (HeldBack::LeaderSilent, vec![leader])];
    assert_eq!(said[..2], noticed);
    // Whoever hears from nobody may go on naming the leader it knew.
    assert!(
        said[2..].iter().all(|why| *why == (HeldBack::NoLeader, sorted(others(x)))),
        "{said:?}"
    );
    cluster.heal();
    cluster.run_for(Duration::from_secs(10)).unwrap();

    let leader = leader_of(&mut cluster, KEYSPACE, key);
    cluster.isolate(leader);
    let said = follow(&mut cluster, leader, key);
    assert!(said.contains(&(HeldBack::NoQuorum, sorted(others(leader)))), "{said:?}");
    let is_explained = |(why, named): &(HeldBack, Vec<u32>)| match why {
        // Until it has noticed.
        HeldBack::BeingFolded => named.is_empty(),
        HeldBack::NoQuorum | HeldBack::NoLeader => !named.contains(&leader),
        _ => false,
    };
    assert!(said.iter().all(is_explained), "{said:?}");

    cluster.heal();
    cluster.run_for(Duration::from_secs(5)).unwrap();
    for node in 1..=3 {
        run_near(&mut cluster, node, move |host| async move {
            let address = address_of(&host, node).await?;
            let said = host.client.deltas_at(&address, "").await?;
            ensure!(said.deltas.is_empty(), "{said:?}");
            let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
            let got = near.with_receipt(ReceiptDetail::Short).get(key).await?;
            ensure!(got.receipt.is_some_and(|receipt| receipt.node == NodeId(node)));
            ensure!(got.value.is_some());
            Ok(())
        });
    }
}
