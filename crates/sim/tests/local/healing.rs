//! After healing: local writes are everywhere within 5 s, and in the log within 5 s and an election.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use latitude_client::{Level, NodeId, ReceiptDetail};
use latitude_sim::cluster::{ClientHost, Crash};
use latitude_sim::workload::KEYSPACE;
use latitude_sim::{Cluster, Layout};

use crate::common::run_near;
use crate::world::{KEYS, cluster};

/// What the contract's tests allow after healing.
const HEALED_WITHIN: Duration = Duration::from_secs(5);
/// How long a cut lasts: leaders are elected on the other side, connections are given up.
const CUT_FOR: Duration = Duration::from_secs(8);

/// What is wrong with the network or the nodes for a while.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// A node and all others do not hear each other.
    Alone(u32),
    /// Nobody hears anybody.
    AllAlone,
    /// Two nodes do not hear each other: only the third can relay.
    Apart(u32, u32),
    /// The first is not heard by the second, which it hears.
    OneWay(u32, u32),
    /// The first is heard by nobody, and hears all.
    Unheard(u32),
    /// A node has written, lost its power, and comes back when the others heal.
    Down(u32),
}

impl Trouble {
    fn begins(self, cluster: &mut Cluster) {
        match self {
            Self::Alone(node) => cluster.isolate(node),
            Self::AllAlone => (1..=3).for_each(|node| cluster.isolate(node)),
            Self::Apart(one, other) => cluster.partition(one, other),
            Self::OneWay(from, to) => cluster.cut(from, to),
            Self::Unheard(from) => {
                (1..=3).filter(|to| *to != from).for_each(|to| cluster.cut(from, to));
            }
            // It takes writes first.
            Self::Down(node) => cluster.isolate(node),
        }
    }

    fn ends(self, cluster: &mut Cluster) {
        if let Self::Down(node) = self {
            cluster.crash(node, Crash::PowerLost);
            cluster.run_for(Duration::from_secs(1)).unwrap();
            cluster.restart(node);
        }
        cluster.heal();
    }
}

/// A key beside one of each range, of one writer.
fn keys(node: u32) -> impl Iterator<Item = String> {
    KEYS.into_iter().map(move |key| format!("{key}/{node}"))
}

async fn write(host: ClientHost, node: u32, value: String) -> Result<()> {
    let near = host.client.keyspace(KEYSPACE).with_receipt(ReceiptDetail::Short);
    for (at, key) in keys(node).enumerate() {
        let level = [Level::Causal, Level::Eventual][at % 2];
        let put = near.clone().with_level(level).put(key, value.clone()).await?;
        let receipt = put.receipt.context("a receipt was asked for")?;
        ensure!(receipt.node == NodeId(node), "{receipt}");
    }
    Ok(())
}

/// Reads what every node has written until all of it is there.
async fn await_all(host: ClientHost, level: Level, value: String, near: u32) -> Result<()> {
    let keyspace = host.client.keyspace(KEYSPACE).with_receipt(ReceiptDetail::Short);
    let keyspace = keyspace.with_level(level).with_timeout(Duration::from_secs(2));
    let is_there = async |key: String| loop {
        if let Ok(got) = keyspace.get(&key).await {
            let receipt = got.receipt.context("a receipt was asked for")?;
            let is_near = level == Level::Strict || receipt.node == NodeId(near);
            if is_near && got.value.is_some_and(|got| got.bytes == value.as_bytes()) {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    try_join_all((1..=3).flat_map(keys).map(is_there)).await.map(drop)
}

#[test]
fn after_healing_local_writes_are_everywhere_within_5_s_and_in_the_log_an_election_later() {
    let mut cluster = cluster(61);
    let election = 2 * Layout::three_regions(0).settings().election_timeout_max;
    let troubles = [
        Trouble::Alone(1),
        Trouble::AllAlone,
        Trouble::Apart(1, 3),
        Trouble::OneWay(2, 1),
        Trouble::Unheard(3),
        Trouble::Down(2),
        Trouble::Alone(3),
    ];
    for (turn, trouble) in troubles.into_iter().enumerate() {
        let value = format!("in turn {turn}");
        trouble.begins(&mut cluster);
        cluster.run_for(CUT_FOR).unwrap();
        for node in 1..=3 {
            let value = value.clone();
            run_near(&mut cluster, node, move |host| write(host, node, value.clone()));
        }
        trouble.ends(&mut cluster);
        let healed = cluster.now();
        for (level, within) in [
            (Level::Eventual, HEALED_WITHIN),
            (Level::Causal, HEALED_WITHIN),
            (Level::Strict, HEALED_WITHIN + election),
        ] {
            for node in 1..=3 {
                let value = value.clone();
                let all = move |host| await_all(host, level, value.clone(), node);
                run_near(&mut cluster, node, all);
                let took = cluster.now() - healed;
                println!("{trouble:?}: {level} at {node} after {took:?}");
                assert!(took <= within, "{trouble:?}: {level} at {node} took {took:?}");
            }
        }
        cluster.run_for(Duration::from_secs(5)).unwrap();
    }
}
