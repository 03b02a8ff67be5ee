//! A node that does not know something asks for it, and not only one node.

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

/// It asked the first node of the meta range and no other: with that one down it gave up after a second, and said that there
/// was no such keyspace unless it had heard of it meanwhile.
#[test]
fn a_keyspace_just_created_is_known_though_the_first_node_of_the_meta_range_is_down() {
    let regions = ["ap", "eu", "us", "sa"].map(String::from).to_vec();
    let mut cluster = Cluster::new(Layout { nodes: ELSEWHERE, regions, ..Layout::small(1) });
    cluster.init().unwrap();
    cluster.run_for(Duration::from_secs(5)).unwrap();
    cluster.crash(1, Crash::Killed);
    cluster.run_for(Duration::from_secs(5)).unwrap();
    let program = cluster.run_client(WITHIN, |host| async move {
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
