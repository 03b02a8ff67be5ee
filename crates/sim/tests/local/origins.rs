//! Origins that take leave of ranges, and come back: whoever is killed meanwhile, nothing acknowledged is lost, nothing
//! counts twice, and nobody waits for what cannot come.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use latitude_client::wire::{OriginState, OriginStatus};
use latitude_client::{Level, NodeId, RangeId, Reason, ReceiptDetail, Session};
use latitude_sim::cluster::{ClientHost, Crash};
use latitude_sim::workload::{KEYSPACE, Workload};
use latitude_sim::{Cluster, Layout};
use tokio::time::sleep;

use crate::common::run_near;
use crate::world::{KEYS, cluster};

/// How long one call of an operator may take ...
const PATIENCE: Duration = Duration::from_secs(5);
/// ... and all together.
const WITHIN: Duration = Duration::from_secs(120);

/// Has a node stop, or go on, in every range.
async fn set_everywhere(host: ClientHost, node: u32, wanted: OriginState) -> Result<()> {
    let (admin, node) = (host.client.admin(), NodeId(node));
    for range in ranges(&host, "").await? {
        loop {
            let within = Duration::from_secs(5);
            let set = match wanted {
                OriginState::Sealed => admin.seal(range, node, within).await,
                _ => admin.admit(range, node, within).await,
            };
            match set {
                Ok(origin) => {
                    ensure!(origin.state() == wanted, "{origin:?}");
                    host.say(&format!("{node} is {:?} in {range}", origin.state()));
                    break;
                }
                Err(error) if error.is_retryable() => sleep(Duration::from_millis(100)).await,
                Err(error) => bail!("{range}: {error}"),
            }
        }
    }
    Ok(())
}

async fn ranges(host: &ClientHost, keyspace: &str) -> Result<Vec<RangeId>> {
    loop {
        match host.client.admin().ranges(keyspace).await {
            Ok(ranges) => {
                let of_data = ranges.into_iter().filter(|range| range.keyspace != "(meta)");
                return Ok(of_data.map(|range| RangeId(range.range_id)).collect());
            }
            Err(error) if error.is_retryable() => sleep(Duration::from_millis(100)).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a node says of an origin, in every range.
async fn origins(host: &ClientHost, at: u32, of: u32) -> Result<Vec<OriginStatus>> {
    let nodes = host.client.admin().nodes().await?;
    let asked = nodes.iter().find(|node| node.node == at).context("it is a node")?;
    let reply = host.client.origins_at(&asked.address, "").await?;
    Ok(reply.origins.into_iter().filter(|origin| origin.node == of).collect())
}

/// Which node takes a causal write of each key, for a client near a node.
fn taken_by(cluster: &mut Cluster, near: u32) -> Vec<NodeId> {
    run_near(cluster, near, |host| async move {
        let keyspace = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
        let keyspace = keyspace.with_receipt(ReceiptDetail::Full);
        let mut taken_by = Vec::new();
        // Learns the way.
        keyspace.get(KEYS[0]).await?;
        for key in KEYS {
            let put = keyspace.put(key, "mine").await?;
            taken_by.push(put.receipt.context("a receipt was asked for")?.node);
        }
        Ok(taken_by)
    })
}

fn run_until(cluster: &mut Cluster, mut is_done: impl FnMut() -> bool) {
    let deadline = cluster.now() + WITHIN;
    while !is_done() {
        assert!(cluster.now() < deadline, "it takes too long");
        cluster.run_for(Duration::from_millis(100)).unwrap();
    }
}

/// Pitfall 17: clients write and read at every level all along, registers, counters and sets; whoever leads is killed,
/// and so is the node that takes leave. The judges of the simulation look at all of it.
#[test]
fn an_origin_takes_leave_and_comes_back_while_clients_write_and_nodes_are_killed() {
    for (seed, first, second) in [(51, 1, 2), (52, 3, 1), (53, 2, 3)] {
        let mut cluster = Cluster::new(Layout::three_regions(seed));
        cluster.init().unwrap();
        let workload = Workload {
            clients: 6,
            strict: 3,
            local: 7,
            typed: 4,
            deletes: 1,
            chases: 3,
            ..Workload::default()
        };
        workload.prepare(&mut cluster).unwrap();
        cluster.run_for(Duration::from_secs(5)).unwrap();
        let running = workload.start(&mut cluster);
        cluster.run_for(Duration::from_secs(3)).unwrap();
        for wanted in [OriginState::Sealed, OriginState::Active, OriginState::Sealed] {
            let set = cluster.start_client(PATIENCE, |host| set_everywhere(host, 2, wanted));
            for killed in [first, second] {
                cluster.run_for(Duration::from_millis(400)).unwrap();
                cluster.crash(killed, Crash::PowerLost);
                cluster.run_for(Duration::from_secs(4)).unwrap();
                cluster.restart(killed);
            }
            run_until(&mut cluster, || set.is_ready());
            set.take().unwrap().unwrap();
        }
        cluster.run_for(Duration::from_secs(3)).unwrap();
        let seen = running.finish(&mut cluster, Duration::ZERO).unwrap();
        assert_eq!(cluster.replicas_differ(), None);
        let summary = seen.judge().unwrap();
        println!("seed {seed}: {summary:?}");
        for node in 1..=3 {
            run_near(&mut cluster, node, move |host| async move {
                let sealed = origins(&host, node, 2).await?;
                ensure!(!sealed.is_empty());
                ensure!(sealed.iter().all(|of| of.state() == OriginState::Sealed), "{sealed:?}");
                Ok(())
            });
        }
    }
}

/// Writes go to another node meanwhile; a sealed node is not admitted again by the leader that admits new replicas.
#[test]
fn a_sealed_node_passes_local_writes_on_until_it_is_admitted_again() {
    let mut cluster = cluster(54);
    assert_eq!(taken_by(&mut cluster, 2), [NodeId(2); 4]);
    run_near(&mut cluster, 1, |host| set_everywhere(host, 2, OriginState::Sealed));
    for pause in [0, 30] {
        cluster.run_for(Duration::from_secs(pause)).unwrap();
        let taken_by = taken_by(&mut cluster, 2);
        assert!(!taken_by.contains(&NodeId(2)), "{taken_by:?}");
    }
    run_near(&mut cluster, 3, |host| set_everywhere(host, 2, OriginState::Active));
    cluster.run_for(Duration::from_secs(1)).unwrap();
    assert_eq!(taken_by(&mut cluster, 2), [NodeId(2); 4]);
}

/// Pitfall 17, execution 2: what only the node that is down has is not lost: the seal waits for it, and says so.
#[test]
fn a_seal_waits_for_a_node_that_is_down_and_for_all_that_it_took() {
    let mut cluster = cluster(55);
    cluster.isolate(2);
    run_near(&mut cluster, 2, |host| async move {
        let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
        near.put(KEYS[1], "of two alone").await?;
        Ok(())
    });
    cluster.crash(2, Crash::PowerLost);
    cluster.heal();
    cluster.run_for(Duration::from_secs(8)).unwrap();
    let range = run_near(&mut cluster, 1, |host| async move {
        let keyspace = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
        let got = keyspace.with_receipt(ReceiptDetail::Full).get(KEYS[1]).await?;
        ensure!(got.value.is_none(), "nobody else has it");
        let range = got.receipt.context("a receipt was asked for")?.range;
        let admin = host.client.admin();
        let error = admin.seal(range, NodeId(2), Duration::from_secs(3)).await.unwrap_err();
        ensure!(error.reason == Reason::SealPending && error.is_retryable(), "{error}");
        ensure!(error.message.contains("n2") && error.message.contains("not heard"), "{error}");
        let found = origins(&host, 1, 2).await?;
        let of_range = found.iter().find(|of| of.range_id == range.0).context("it is one")?;
        ensure!(of_range.state() == OriginState::Sealing && !of_range.live, "{of_range:?}");
        // Nobody else is kept from anything.
        let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
        near.put(KEYS[1], "of one").await?;
        near.with_level(Level::Strict).get(KEYS[1]).await?;
        Ok(range)
    });
    cluster.restart(2);
    cluster.run_for(Duration::from_secs(10)).unwrap();
    for node in 1..=3 {
        run_near(&mut cluster, node, move |host| async move {
            let found = origins(&host, node, 2).await?;
            for of in found {
                let is_it = of.range_id == range.0;
                ensure!((of.state() == OriginState::Sealed) == is_it, "{of:?}");
                ensure!(of.last.is_some() == is_it, "{of:?}");
            }
            for level in Level::ALL {
                let got = host.client.keyspace(KEYSPACE).with_level(level).get(KEYS[1]).await?;
                let value = got.value.map(|value| value.bytes);
                ensure!(value.as_deref() == Some(b"of one"), "{level}: {value:?}");
            }
            Ok(())
        });
    }
    // It was taken before, and counts: it is in the log's past of the key, below what was written later.
    assert_eq!(cluster.replicas_differ(), None);
}

/// Pitfall 17, execution 1: a session that wrote at the node in another range waits for nothing of it where it is sealed,
/// and is told so; where it is not sealed the session waits as ever.
#[test]
fn nobody_waits_for_a_sealed_origin_that_is_out_of_reach() {
    let mut cluster = cluster(56);
    let sealed = run_near(&mut cluster, 1, |host| async move {
        let keyspace = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
        let got = keyspace.with_receipt(ReceiptDetail::Full).get(KEYS[0]).await?;
        let range = got.receipt.context("a receipt was asked for")?.range;
        let sealed = host.client.admin().seal(range, NodeId(2), Duration::from_secs(10)).await?;
        Ok(sealed)
    });
    let last = sealed.last.unwrap();
    cluster.run_for(Duration::from_secs(1)).unwrap();
    cluster.isolate(2);
    cluster.run_for(Duration::from_secs(8)).unwrap();
    let token = run_near(&mut cluster, 2, |host| async move {
        let session = Session::new();
        let near = host.client.keyspace(KEYSPACE).with_session(session.clone());
        near.with_level(Level::Causal).put(KEYS[1], "unheard").await?;
        session.token().context("it has written")
    });
    cluster.crash(2, Crash::PowerLost);
    run_near(&mut cluster, 1, move |host| {
        let token = token.clone();
        async move {
            let keyspace = || -> Result<_> {
                let session = Session::from_token(&token)?;
                let keyspace = host.client.keyspace(KEYSPACE).with_session(session);
                let keyspace = keyspace.with_timeout(Duration::from_secs(3));
                Ok(keyspace.with_receipt(ReceiptDetail::Full))
            };
            for level in [Level::Strict, Level::Sequential, Level::Causal] {
                let got = keyspace()?.with_level(level).get(KEYS[0]).await?;
                let receipt = got.receipt.context("a receipt was asked for")?;
                let capped: Vec<_> = receipt.capped.iter().map(|(of, at)| (*of, at.0)).collect();
                ensure!(capped == [(NodeId(2), last)], "{level}: {capped:?}");
                // The client itself would ask node 2, were it up.
                let other = keyspace()?.with_level(level).get(KEYS[1]).await;
                let refused = other.map(drop).unwrap_err();
                let expected = match level {
                    Level::Causal => Reason::ReplicaBehind,
                    _ => Reason::NotFolded,
                };
                ensure!(refused.reason == expected, "{level}: {refused}");
            }
            let put = keyspace()?.with_level(Level::Strict).put(KEYS[0], "after").await?;
            let capped = put.receipt.context("a receipt was asked for")?.capped;
            ensure!(capped.len() == 1, "{capped:?}");
            Ok(())
        }
    });
    cluster.heal();
    cluster.restart(2);
    cluster.run_for(Duration::from_secs(10)).unwrap();
    run_near(&mut cluster, 3, |host| async move {
        let strict = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
        let got = strict.get(KEYS[1]).await?.value.map(|value| value.bytes);
        ensure!(got.as_deref() == Some(b"unheard"), "{got:?}");
        Ok(())
    });
}
