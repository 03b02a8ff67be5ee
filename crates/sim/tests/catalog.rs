//! A node that does not know something asks for it, and not only one node.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use anyhow::{Context, ensure};
use latitude_client::{Level, wire};
use latitude_rpc::ToWire;
use latitude_sim::cluster::Crash;
use latitude_sim::{Cluster, Layout};

const WITHIN: Duration = Duration::from_secs(60);
/// Less than such a node waits before it gives up, and more than it takes to ask the next one.
const KNOWN_WITHIN: Duration = Duration::from_millis(800);
/// The node without a replica of the meta range: of four nodes, the first three have one.
const ELSEWHERE: u32 = 4;

/// Four nodes in as many regions, of which the last has no replica of the meta range.
fn cluster() -> Cluster {
    let regions = ["ap", "eu", "us", "sa"].map(String::from).to_vec();
    let mut cluster = Cluster::new(Layout { nodes: ELSEWHERE, regions, ..Layout::small(1) });
    cluster.init().unwrap();
    cluster.run_for(Duration::from_secs(5)).unwrap();
    cluster
}

/// Creates keyspaces, and reads each at once through the node that has not heard of it.
fn each_is_known_at_once(cluster: &mut Cluster) {
    let program = cluster.run_client(WITHIN, |mut host| async move {
        // Who creates them hears of the others.
        host.begin_anew(Some(1));
        for at in 0..6 {
            let name = format!("new-{at}");
            let request = wire::CreateKeyspaceRequest {
                name: name.clone(),
                // Whoever is to have a replica is told at once.
                place: vec![wire::RegionReplicas { region: "eu".into(), replicas: 1 }],
                ..wire::CreateKeyspaceRequest::default()
            };
            host.client.admin().create_keyspace(request).await?;
            let get = wire::Get { key: b"k".to_vec().into() };
            let command = wire::Command {
                keyspace: name.clone(),
                level: Level::Strict.to_wire(),
                timeout_ms: 5_000,
                operation: Some(wire::command::Operation::Get(get)),
                ..wire::Command::default()
            };
            let asked = host.now();
            host.send(ELSEWHERE, command).await.context(name)?;
            let took = host.now() - asked;
            ensure!(took < KNOWN_WITHIN, "it took {took:?}");
        }
        anyhow::Ok(())
    });
    program.unwrap().unwrap();
}

/// It asked the first node of the meta range and no other: with that one down it gave up after a second, and said that there
/// was no such keyspace unless it had heard of it meanwhile.
#[test]
fn a_keyspace_just_created_is_known_though_the_first_node_of_the_meta_range_is_down() {
    let mut cluster = cluster();
    cluster.crash(1, Crash::Killed);
    cluster.run_for(Duration::from_secs(5)).unwrap();
    each_is_known_at_once(&mut cluster);
}

/// That one answers, and does not know either: only an answer that is proved counts.
#[test]
fn a_keyspace_just_created_is_known_though_the_first_node_of_the_meta_range_hears_of_nothing() {
    let mut cluster = cluster();
    for other in [2, 3] {
        cluster.partition(1, other);
    }
    cluster.run_for(Duration::from_secs(10)).unwrap();
    each_is_known_at_once(&mut cluster);
}
