//! What the tests of local writes share: keyspaces, who leads, single commands, and what tokens say.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use latitude_client::wire::command::Operation;
use latitude_client::{Level, wire};
use latitude_consistency::Token;
use latitude_rpc::ToWire;
use latitude_sim::workload::{KEYSPACE, Workload};
use latitude_sim::{ClientHost, Cluster, Layout};
use latitude_types::Timestamp;

use crate::common::run_near;

/// One way between two regions of the layout.
pub(crate) const ONE_WAY: Duration = Duration::from_millis(40);
/// One key of each range.
pub(crate) const KEYS: [&str; 4] = ["k000", "k002", "k004", "k006"];

/// A cluster over three regions with a keyspace of four ranges, whose leaders and origins have come to rest.
pub(crate) fn cluster(seed: u64) -> Cluster {
    cluster_of(Layout::three_regions(seed))
}

/// The same in another layout: each range has a replica on every node.
pub(crate) fn cluster_of(layout: Layout) -> Cluster {
    let on_all_nodes = layout.nodes > 3;
    let mut cluster = Cluster::new(layout);
    cluster.init().unwrap();
    Workload { on_all_nodes, ..Workload::default() }.prepare(&mut cluster).unwrap();
    cluster.run_for(Duration::from_secs(5)).unwrap();
    cluster
}

/// Creates a keyspace of one range, and waits until its leader and origins have come to rest.
pub(crate) fn create(cluster: &mut Cluster, name: &'static str, of: wire::ValueType) {
    run_near(cluster, 1, move |host| async move {
        let request = wire::CreateKeyspaceRequest {
            name: name.into(),
            r#type: of as i32,
            ..wire::CreateKeyspaceRequest::default()
        };
        host.client.admin().create_keyspace(request).await?;
        Ok(())
    });
    cluster.run_for(Duration::from_secs(5)).unwrap();
}

/// The node that leads the range of a key.
pub(crate) fn leader_of(cluster: &mut Cluster, keyspace: &'static str, key: &'static str) -> u32 {
    run_near(cluster, 1, move |host| async move {
        let ranges = host.client.admin().ranges(keyspace).await?;
        let of_key = ranges.into_iter().filter(|range| &range.start[..] <= key.as_bytes());
        Ok(of_key.max_by_key(|range| range.start.clone()).context("some range has it")?.leader)
    })
}

/// The other two of three nodes.
pub(crate) fn others(node: u32) -> [u32; 2] {
    [node % 3 + 1, (node + 1) % 3 + 1]
}

/// Takes back one cut of both ways between two nodes.
pub(crate) fn mend(cluster: &mut Cluster, a: u32, b: u32) {
    let [a, b]: [Arc<str>; 2] = [a, b].map(|node| format!("node-{node}").into());
    cluster.mend_hosts(&a, &b);
    cluster.mend_hosts(&b, &a);
}

/// A command for the node it is sent to alone, with a receipt that says all.
pub(crate) fn command(keyspace: &str, level: Level, operation: Operation) -> wire::Command {
    wire::Command {
        keyspace: keyspace.into(),
        level: level.to_wire(),
        timeout_ms: 3_000,
        receipt: wire::ReceiptDetail::Full as i32,
        no_forward: true,
        operation: Some(operation),
        ..wire::Command::default()
    }
}

/// Reads a register at one node, and at no other.
pub(crate) async fn get_at(
    host: &ClientHost,
    node: u32,
    level: Level,
    key: &str,
    token: &[u8],
) -> Result<(Option<String>, wire::Reply), latitude_client::Error> {
    let get = Operation::Get(wire::Get { key: key.as_bytes().to_vec().into() });
    let token = token.to_vec().into();
    let reply = host.send(node, wire::Command { token, ..command(KEYSPACE, level, get) }).await?;
    let value = match &reply.result {
        Some(wire::reply::Result::Get(got)) => got.value.clone(),
        _ => None,
    };
    Ok((value.map(|value| String::from_utf8_lossy(&value).into_owned()), reply))
}

pub(crate) fn put(key: &str, value: &str) -> Operation {
    let (key, value) = (key.as_bytes().to_vec().into(), value.as_bytes().to_vec().into());
    Operation::Put(wire::Put { key, value, ..wire::Put::default() })
}

/// An id that nothing has yet, born now, of a client beside the SDK's.
pub(crate) fn new_id(host: &ClientHost, sequence: u64) -> wire::OperationId {
    let mut client = host.client.id().0.to_vec();
    client.reverse();
    wire::OperationId {
        birth: Timestamp::from_unix_ms(host.unix_ms()).0,
        client: client.into(),
        sequence,
        answered_below: sequence,
    }
}

/// A session's token, as its bytes and read.
pub(crate) fn decoded(token: &str) -> (Vec<u8>, Token) {
    let bytes = BASE64.decode(token).unwrap();
    let token = Token::decode(&bytes).unwrap();
    (bytes, token)
}

/// The address of a node.
pub(crate) async fn address_of(host: &ClientHost, node: u32) -> Result<String> {
    let nodes = host.client.admin().nodes().await?;
    let of_node = nodes.into_iter().find(|of| of.node == node).context("it is a node")?;
    Ok(of_node.address)
}
