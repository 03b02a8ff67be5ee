//! How soon what was taken locally is in the log, in a cluster in which nothing is wrong.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::try_join;
use latitude_client::{Level, NodeId, ReceiptDetail, Session};
use latitude_sim::ClientHost;
use latitude_sim::workload::KEYSPACE;

use crate::common::{WITHIN, run_near};
use crate::world::{KEYS, ONE_WAY, cluster, leader_of};

/// What the design allows beside one round trip, for 99 of 100.
const FOLDED_WITHIN: Duration = Duration::from_millis(250);

/// Local writes by one client.
const WRITES: usize = 80;

/// A local write that was acknowledged, and when; who leads its range.
struct Taken {
    key: String,
    leader: u32,
    at: Duration,
}

async fn write(host: &ClientHost, leaders: [u32; 4], taken: &Mutex<Vec<Taken>>) -> Result<()> {
    let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
    for at in 0..WRITES {
        let (key, leader) = (KEYS[at % KEYS.len()], leaders[at % KEYS.len()]);
        let key = format!("{key}/{}/{at}", host.region);
        near.put(&key, "here").await?;
        taken.lock().unwrap().push(Taken { key, leader, at: host.now() });
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// How long after its acknowledgement each write is in the base of the leader near which this client is: a read of what
/// a node holds tells how much of that is not in the log yet.
async fn watch(
    host: &ClientHost,
    node: u32,
    wanted: usize,
    taken: &Mutex<Vec<Taken>>,
) -> Result<Vec<Duration>> {
    let near = host.client.keyspace(KEYSPACE).with_level(Level::Eventual);
    let near = near.with_receipt(ReceiptDetail::Full);
    let (mut open, mut lags) = (Vec::new(), Vec::new());
    while lags.len() < wanted {
        open.extend(taken.lock().unwrap().extract_if(.., |taken| taken.leader == node));
        let looked_at = host.now();
        let mut left = Vec::new();
        for Taken { key, leader, at } in open {
            let got = near.get(&key).await?;
            let receipt = got.receipt.context("a receipt was asked for")?;
            ensure!(receipt.node == NodeId(node), "{receipt}");
            match got.value.is_some() && receipt.unfolded.is_empty() {
                true => lags.push(host.now() - at),
                false => left.push(Taken { key, leader, at }),
            }
        }
        open = left;
        tokio::time::sleep(Duration::from_millis(2)).await;
        ensure!(host.now() - looked_at < FOLDED_WITHIN, "it looks too seldom");
    }
    Ok(lags)
}

#[test]
fn a_local_write_is_folded_within_a_quarter_of_a_second_and_a_round_trip() {
    let mut cluster = cluster(71);
    let leaders = KEYS.map(|key| leader_of(&mut cluster, KEYSPACE, key));
    let regions = cluster.layout().regions.clone();
    let taken: Arc<Mutex<Vec<Taken>>> = Arc::default();
    let clients: Vec<_> = (0..regions.len())
        .map(|_| {
            let (regions, taken) = (regions.clone(), Arc::clone(&taken));
            cluster.start_client(WITHIN, move |host| async move {
                let place = regions.iter().position(|region| *region == host.region);
                let node = place.context("clients are in regions")? as u32 + 1;
                let led = leaders.iter().filter(|leader| **leader == node).count();
                let wanted = led * regions.len() * WRITES / KEYS.len();
                let (_, lags) =
                    try_join!(write(&host, leaders, &taken), watch(&host, node, wanted, &taken))?;
                Result::<_>::Ok(lags)
            })
        })
        .collect();
    cluster.run_for(WITHIN).unwrap();
    let ended = clients.iter().map(|client| client.take().expect("it has ended").unwrap());
    let mut lags: Vec<_> = ended.flatten().collect();
    assert_eq!(lags.len(), regions.len() * WRITES);
    lags.sort();
    let (median, most) = (lags[lags.len() / 2], lags[lags.len() * 99 / 100]);
    println!("of {}: median {median:?}, 99 of 100 within {most:?}", lags.len());
    assert!(most <= FOLDED_WITHIN + 2 * ONE_WAY, "{most:?}");
}

/// What the session wrote comes to the leader by itself, and is folded together with the read.
#[test]
fn a_strict_read_after_a_local_write_of_its_session_takes_no_second_round_trip() {
    let mut cluster = cluster(72);
    let leaders = KEYS.map(|key| leader_of(&mut cluster, KEYSPACE, key));
    for (key, leader) in KEYS.into_iter().zip(leaders) {
        let node = leader % 3 + 1;
        let took = |cluster: &mut _, writes: bool| {
            run_near(cluster, node, move |host| async move {
                let keyspace = host.client.keyspace(KEYSPACE).with_session(Session::new());
                keyspace.clone().with_level(Level::Eventual).get(key).await?;
                if writes {
                    keyspace.clone().with_level(Level::Causal).put(key, "mine").await?;
                }
                let asked = host.now();
                let got = keyspace.with_level(Level::Strict).get(key).await?;
                let is_mine = got.value.is_some_and(|got| &got.bytes[..] == b"mine");
                ensure!(is_mine || !writes, "it does not see what it wrote");
                Result::<Duration>::Ok(host.now() - asked)
            })
        };
        took(&mut cluster, false);
        let (without, with) = (took(&mut cluster, false), took(&mut cluster, true));
        println!("{key} at {node}, led by {leader}: {with:?}, {without:?} without a write");
        assert!(with < without + 2 * ONE_WAY, "{key}: {with:?}, {without:?} without a write");
    }
}
