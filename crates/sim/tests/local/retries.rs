//! A write that is asked again at a node that cannot know of it takes effect once, whoever is back first.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use latitude_client::wire::command::Operation;
use latitude_client::{Level, NodeId, RangeId, wire};
use latitude_consistency::Token;
use latitude_sim::cluster::Crash;
use latitude_sim::{ClientHost, Cluster, Layout};

use crate::common::run_near;
use crate::world::{ONE_WAY, cluster_of, command, create, leader_of, mend, new_id, others};

const COUNTERS: &str = "counters";
const BASE: i64 = 100;
const AMOUNT: i64 = 7;

/// What happens between the two writes and their way into the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meanwhile {
    Nothing,
    /// The node that took the write first loses its power.
    Restart,
    /// Whoever is back last needs a snapshot, with its own copy still in its overlay.
    Snapshot,
}

async fn add(
    host: &ClientHost,
    node: u32,
    key: &str,
    id: wire::OperationId,
) -> Result<wire::Receipt> {
    added(host, node, key, id).await.map(|(receipt, _)| receipt)
}

/// What an add at a node is answered, and the token of a session that has done nothing else.
async fn added(
    host: &ClientHost,
    node: u32,
    key: &str,
    id: wire::OperationId,
) -> Result<(wire::Receipt, Token)> {
    let add = wire::CounterAdd {
        key: key.as_bytes().to_vec().into(),
        amount: AMOUNT,
        ..wire::CounterAdd::default()
    };
    let command = command(COUNTERS, Level::Causal, Operation::CounterAdd(add));
    let reply = host.send(node, wire::Command { id: Some(id), ..command }).await?;
    let receipt = reply.receipt.unwrap_or_default();
    ensure!(receipt.node == node && receipt.retry_safe, "{receipt:?}");
    Ok((receipt, Token::decode(&reply.token)?))
}

/// Found by reading. A node that had got the first copy from its origin answered the second with the origin's position, and
/// with the entry that had admitted itself. Whoever had not applied the origin's did not know that there was something to
/// miss.
#[test]
fn the_answer_to_a_copy_names_the_entry_that_admitted_whoever_took_the_first() {
    let mut cluster = cluster_of(Layout::three_regions(96));
    create(&mut cluster, COUNTERS, wire::ValueType::Counter);
    let leader = leader_of(&mut cluster, COUNTERS, "c");
    let [away, origin] = others(leader);
    // It applies nothing meanwhile, so that tokens must say what the others have.
    cluster.isolate(away);
    let range = run_near(&mut cluster, leader, move |host| async move {
        let admin = host.client.admin();
        let range = admin.ranges(COUNTERS).await?.first().context("it has one")?.range_id;
        let (range, origin) = (RangeId(range), NodeId(origin));
        admin.seal(range, origin, Duration::from_secs(5)).await?;
        admin.admit(range, origin, Duration::from_secs(5)).await?;
        Ok(range)
    });
    cluster.run_for(Duration::from_secs(1)).unwrap();
    run_near(&mut cluster, origin, move |host| async move {
        let id = new_id(&host, 1);
        let (first, token) = added(&host, origin, "c", id.clone()).await?;
        ensure!(first.duplicate() == wire::Duplicate::No, "{first:?}");
        // Its stream is faster than this, and its way into the log is not.
        tokio::time::sleep(ONE_WAY / 2).await;
        let (second, again) = added(&host, leader, "c", id).await?;
        ensure!(second.duplicate() == wire::Duplicate::Yes, "{second:?}");
        let admitted = |token: &Token| {
            let mut entries = token.past().log.iter();
            entries.find(|(of, ..)| *of == range).map(|(.., stamp)| *stamp)
        };
        ensure!(again.own() == token.own(), "{again:?}, {token:?}");
        ensure!(admitted(&token).is_some(), "{token:?}");
        ensure!(admitted(&again) >= admitted(&token), "{again:?}, {token:?}");
        Ok(())
    });
}

/// The same add at X, which nobody hears, then at Y; and back they come, X first or Y first.
fn play(cluster: &mut Cluster, turn: u32, x_first: bool, meanwhile: Meanwhile) {
    let what = format!("X first: {x_first}, {meanwhile:?}");
    let key = format!("c{turn}");
    let leader = leader_of(cluster, COUNTERS, "c");
    let [x, y] = others(leader);
    let (first, last) = if x_first { (x, y) } else { (y, x) };
    let of_key = key.clone();
    run_near(cluster, leader, move |host| {
        let key = of_key.clone();
        async move {
            host.client.keyspace(COUNTERS).with_level(Level::Strict).add(key, BASE).await?;
            Ok(())
        }
    });
    // Followers hear that it is committed.
    cluster.run_for(Duration::from_secs(1)).unwrap();
    for (a, b) in [(1, 2), (2, 3), (1, 3)] {
        cluster.partition(a, b);
    }
    cluster.run_for(Duration::from_secs(2)).unwrap();
    let of_key = key.clone();
    let id = run_near(cluster, x, move |host| {
        let key = of_key.clone();
        async move {
            let id = new_id(&host, 1);
            let receipt = add(&host, x, &key, id.clone()).await?;
            ensure!(receipt.duplicate() == wire::Duplicate::No, "{receipt:?}");
            // The reply is lost, and nobody else can have heard of it.
            let receipt = add(&host, y, &key, id.clone()).await?;
            ensure!(receipt.duplicate() == wire::Duplicate::No, "{receipt:?}");
            for node in [x, y] {
                ensure!(sum_at(&host, node, &key).await? == BASE + AMOUNT);
            }
            Ok(id)
        }
    });
    if meanwhile == Meanwhile::Restart {
        cluster.crash(x, Crash::PowerLost);
        cluster.run_for(Duration::from_secs(1)).unwrap();
        cluster.restart(x);
        cluster.run_for(Duration::from_secs(2)).unwrap();
    }
    mend(cluster, leader, first);
    cluster.run_for(Duration::from_secs(6)).unwrap();
    let of_key = key.clone();
    run_near(cluster, leader, move |host| {
        let key = of_key.clone();
        async move {
            let strict = host.client.keyspace(COUNTERS).with_level(Level::Strict);
            let sum = strict.counter(key).await?.value;
            ensure!(sum == BASE + AMOUNT, "one copy is in the log: {sum}");
            Ok(())
        }
    });
    let installed = cluster.snapshots_installed();
    if meanwhile == Meanwhile::Snapshot {
        run_near(cluster, leader, move |host| async move {
            let strict = host.client.keyspace(COUNTERS).with_level(Level::Strict);
            for at in 0..40 {
                strict.add(format!("{}{turn}/{at}", "f".repeat(500)), 1).await?;
            }
            Ok(())
        });
        cluster.run_for(Duration::from_secs(3)).unwrap();
    }
    cluster.heal();
    cluster.run_for(Duration::from_secs(8)).unwrap();
    if meanwhile == Meanwhile::Snapshot {
        assert!(cluster.snapshots_installed() > installed, "{what}: node {last} needed none");
    }
    find_everywhere(cluster, &key);
    assert_eq!(cluster.replicas_differ(), None, "{what}");
    // And once more, at everybody.
    for node in 1..=3 {
        let (key, id) = (key.clone(), id.clone());
        run_near(cluster, node, move |host| {
            let (key, id) = (key.clone(), id.clone());
            async move {
                let receipt = add(&host, node, &key, id).await?;
                ensure!(receipt.duplicate() == wire::Duplicate::Yes, "{receipt:?}");
                Ok(())
            }
        });
    }
    cluster.run_for(Duration::from_secs(3)).unwrap();
    find_everywhere(cluster, &key);
}

async fn sum_at(host: &ClientHost, node: u32, key: &str) -> Result<i64> {
    let get = Operation::Get(wire::Get { key: key.as_bytes().to_vec().into() });
    let reply = host.send(node, command(COUNTERS, Level::Causal, get)).await?;
    match reply.result {
        Some(wire::reply::Result::Get(got)) => match got.typed.and_then(|typed| typed.value) {
            Some(wire::typed_value::Value::Counter(sum)) => Ok(sum),
            other => anyhow::bail!("{other:?}"),
        },
        other => anyhow::bail!("{other:?}"),
    }
}

/// The sum is exact at every level, at every node.
fn find_everywhere(cluster: &mut Cluster, key: &str) {
    for node in 1..=3 {
        let key = key.to_string();
        run_near(cluster, node, move |host| {
            let key = key.clone();
            async move {
                for level in Level::ALL {
                    let counters = host.client.keyspace(COUNTERS).with_level(level);
                    let sum = counters.counter(&key).await?.value;
                    ensure!(sum == BASE + AMOUNT, "{level} at {node}: {sum}");
                }
                Ok(())
            }
        });
    }
}

/// Pitfall 2: X's copy and Y's copy both get into the log.
#[test]
fn an_add_that_two_nodes_took_under_one_id_counts_once_whichever_is_back_first() {
    let mut cluster = cluster_of(Layout::three_regions(72));
    create(&mut cluster, COUNTERS, wire::ValueType::Counter);
    for (turn, meanwhile) in [Meanwhile::Nothing, Meanwhile::Restart].into_iter().enumerate() {
        for x_first in [true, false] {
            play(&mut cluster, 2 * turn as u32 + u32::from(x_first), x_first, meanwhile);
        }
    }
}

/// Pitfall 2, and 10: the id comes in a snapshot, and the copy in the overlay of whoever installs it counts no more.
#[test]
fn an_add_that_two_nodes_took_under_one_id_counts_once_also_where_a_snapshot_brings_it() {
    let mut layout = Layout::three_regions(73);
    layout.snapshots.log_bytes_max = 4 << 10;
    let mut cluster = cluster_of(layout);
    create(&mut cluster, COUNTERS, wire::ValueType::Counter);
    for x_first in [true, false] {
        play(&mut cluster, u32::from(x_first), x_first, Meanwhile::Snapshot);
    }
}
