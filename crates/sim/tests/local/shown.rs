//! What a node shows of local writes, from their acknowledgement to their place in the log: what receipts say of each
//! step, and that nothing on the way hides one.

use std::time::Duration;

use anyhow::{Context, ensure};
use latitude_client::{Duplicate, Level, NodeId, Proof, ReceiptDetail, Session, wire};
use latitude_sim::Layout;
use latitude_sim::cluster::Crash;
use latitude_sim::workload::KEYSPACE;

use crate::common::{WITHIN, run_near};
use crate::world::{
    KEYS, address_of, cluster, cluster_of, command, get_at, leader_of, mend, new_id, others, put,
};

/// A receipt tells each step of a local write: that one node has it, that it goes into what is read there, that the log
/// has it; its version is the same all along.
#[test]
fn receipts_tell_where_a_local_write_is() {
    let mut cluster = cluster(87);
    let (key, x, elsewhere) = (KEYS[0], 3, 1);
    cluster.isolate(x);
    cluster.run_for(Duration::from_secs(3)).unwrap();
    let version = run_near(&mut cluster, x, move |host| async move {
        let near = host.client.keyspace(KEYSPACE).with_receipt(ReceiptDetail::Full);
        let causal = near.clone().with_level(Level::Causal).with_session(Session::new());
        let put = causal.put(key, "v").await?;
        let receipt = put.receipt.context("a receipt was asked for")?;
        ensure!(receipt.proof == Some(Proof::Durable), "{receipt}");
        ensure!(receipt.durable_on == [NodeId(x)], "{:?}", receipt.durable_on);
        ensure!(receipt.duplicate == Some(Duplicate::No) && receipt.retry_safe, "{receipt:?}");
        ensure!(receipt.level_given == Some(Level::Causal), "{receipt}");
        ensure!(receipt.version == Some(put.value), "{receipt:?}");
        ensure!(receipt.log.is_none(), "no log has it: {receipt:?}");
        for keyspace in [causal, near.with_level(Level::Eventual)] {
            let got = keyspace.get(key).await?;
            let read = got.receipt.context("a receipt was asked for")?;
            let [unfolded] = &read.unfolded[..] else { anyhow::bail!("{read:?}") };
            ensure!((unfolded.node, unfolded.count) == (NodeId(x), 1), "{read:?}");
            ensure!(Some(unfolded.highest) == receipt.as_of, "{read:?}");
            ensure!(read.to_string().contains("1 not in the log yet"), "{read}");
            ensure!(read.version == receipt.version && read.proof == Some(Proof::Watermarks));
            ensure!(got.value.is_some_and(|value| value.version == put.value));
        }
        Ok(put.value)
    });
    run_near(&mut cluster, elsewhere, move |host| async move {
        let strict = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
        let got = strict.with_receipt(ReceiptDetail::Full).get(key).await?;
        let receipt = got.receipt.context("a receipt was asked for")?;
        ensure!(got.value.is_none() && receipt.version.is_none(), "{receipt:?}");
        ensure!(receipt.unfolded.is_empty(), "a strict read sees the log alone: {receipt:?}");
        Ok(())
    });
    cluster.heal();
    cluster.run_for(Duration::from_secs(5)).unwrap();
    for node in 1..=3 {
        run_near(&mut cluster, node, move |host| async move {
            for level in Level::ALL {
                let keyspace = host.client.keyspace(KEYSPACE).with_level(level);
                let got = keyspace.with_receipt(ReceiptDetail::Full).get(key).await?;
                let receipt = got.receipt.context("a receipt was asked for")?;
                ensure!(receipt.unfolded.is_empty(), "{level} at {node}: {receipt:?}");
                ensure!(receipt.version == Some(version), "{level} at {node}: {receipt:?}");
                let value = got.value.context("it was acknowledged")?;
                ensure!(value.version == version && &value.bytes[..] == b"v", "{value:?}");
            }
            Ok(())
        });
    }
}

/// Pitfall 10, execution 3: the node falls so far behind that it gets a snapshot of the base, which has nothing of what
/// it has acknowledged meanwhile.
#[test]
fn a_snapshot_that_is_installed_touches_no_local_write_that_it_does_not_have() {
    for (seed, restarts) in [(88, false), (89, true)] {
        let mut layout = Layout::three_regions(seed);
        layout.snapshots.log_bytes_max = 4 << 10;
        let mut cluster = cluster_of(layout);
        let leader = leader_of(&mut cluster, KEYSPACE, KEYS[0]);
        let [x, _] = others(leader);
        let key = |at: usize| format!("{}/{at}", KEYS[0]);
        cluster.isolate(x);
        cluster.run_for(Duration::from_secs(2)).unwrap();
        run_near(&mut cluster, x, move |host| async move {
            let near = host.client.keyspace(KEYSPACE);
            for (at, level) in
                [Level::Causal, Level::Eventual, Level::Causal].into_iter().enumerate()
            {
                let put = near.clone().with_level(level).with_receipt(ReceiptDetail::Short);
                let receipt = put.put(key(at), "of x").await?.receipt;
                ensure!(receipt.is_some_and(|receipt| receipt.node == NodeId(x)));
            }
            Ok(())
        });
        run_near(&mut cluster, leader, move |host| async move {
            let strict = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
            for at in 0..40 {
                strict.put(format!("{}-{at}", KEYS[0]), vec![b'x'; 500]).await?;
            }
            Ok(())
        });
        if restarts {
            cluster.crash(x, Crash::PowerLost);
            cluster.run_for(Duration::from_secs(1)).unwrap();
            cluster.restart(x);
        }
        cluster.run_for(Duration::from_secs(3)).unwrap();
        // Whoever reads there sees them all along, whatever their base is replaced by.
        let readers: Vec<_> = (0..3)
            .map(|at| {
                cluster.start_client(WITHIN, move |host| async move {
                    let until = host.now() + Duration::from_secs(10);
                    let mut seen = 0;
                    while host.now() < until {
                        let (got, _) = get_at(&host, x, Level::Causal, &key(at), &[]).await?;
                        ensure!(got.as_deref() == Some("of x"), "after {seen} reads: {got:?}");
                        seen += 1;
                    }
                    anyhow::Ok(seen)
                })
            })
            .collect();
        cluster.run_for(Duration::from_secs(1)).unwrap();
        let installed = cluster.snapshots_installed();
        cluster.heal();
        cluster.run_for(Duration::from_secs(10)).unwrap();
        assert!(cluster.snapshots_installed() > installed, "its log was purged meanwhile");
        for reader in readers {
            assert!(reader.take().unwrap().unwrap() > 10, "it was to read all along");
        }
        run_near(&mut cluster, x, move |host| async move {
            let address = address_of(&host, x).await?;
            let unfolded = host.client.deltas_at(&address, KEYSPACE).await?.deltas;
            ensure!(unfolded.is_empty(), "{unfolded:?}");
            Ok(())
        });
        for node in 1..=3 {
            run_near(&mut cluster, node, move |host| async move {
                for level in Level::ALL {
                    for at in 0..3 {
                        let keyspace = host.client.keyspace(KEYSPACE).with_level(level);
                        let got = keyspace.get(key(at)).await?.value.map(|value| value.bytes);
                        ensure!(got.as_deref() == Some(b"of x"), "{level} at {node}: {got:?}");
                    }
                }
                Ok(())
            });
        }
        assert_eq!(cluster.replicas_differ(), None);
    }
}

/// Pitfall 26: two nodes of a minority hear each other. What the one has folded, and has in its base alone, the other gets
/// from it all the same, as long as it is kept for laggards: its own writes, and those of nodes that neither hears.
#[test]
fn a_laggard_gets_from_another_what_that_one_has_folded() {
    let mut cluster = cluster_of(Layout { nodes: 5, ..Layout::three_regions(90) });
    let key = KEYS[0];
    let leader = leader_of(&mut cluster, KEYSPACE, key);
    let nodes: Vec<u32> = (1..=5).filter(|node| *node != leader).collect();
    let (x, y, z) = (nodes[0], nodes[1], nodes[2]);
    let key = move |of: u32| format!("{key}/{of}");
    cluster.isolate(y);
    cluster.run_for(Duration::from_secs(1)).unwrap();
    run_near(&mut cluster, 1, move |host| async move {
        for (of, sequence) in [(x, 1), (z, 2)] {
            let value = format!("of {of}");
            let put = command(KEYSPACE, Level::Causal, put(&key(of), &value));
            let id = Some(new_id(&host, sequence));
            host.send(of, wire::Command { id, ..put }).await?;
        }
        Ok(())
    });
    cluster.run_for(Duration::from_secs(3)).unwrap();
    for other in (1..=5).filter(|node| ![x, y].contains(node)) {
        cluster.partition(x, other);
    }
    mend(&mut cluster, x, y);
    cluster.run_for(Duration::from_secs(4)).unwrap();
    run_near(&mut cluster, 1, move |host| async move {
        for of in [x, z] {
            let expected = format!("of {of}");
            for level in [Level::Causal, Level::Eventual] {
                for (node, unfolded) in [(x, &[][..]), (y, &[of][..])] {
                    let (got, reply) = get_at(&host, node, level, &key(of), &[]).await?;
                    ensure!(got.as_deref() == Some(&expected[..]), "{level} at {node}: {got:?}");
                    let receipt = reply.receipt.context("a receipt was asked for")?;
                    let of_nodes: Vec<_> = receipt.unfolded.iter().map(|of| of.node).collect();
                    ensure!(of_nodes == unfolded, "{level} at {node}: {receipt:?}");
                }
            }
            // The log comes from its leader alone.
            let (got, _) = get_at(&host, y, Level::Sequential, &key(of), &[]).await?;
            ensure!(got.is_none(), "{got:?}");
            let (got, _) = get_at(&host, x, Level::Sequential, &key(of), &[]).await?;
            ensure!(got.as_deref() == Some(&expected[..]), "{got:?}");
        }
        Ok(())
    });
    cluster.heal();
    cluster.run_for(Duration::from_secs(8)).unwrap();
    run_near(&mut cluster, 1, move |host| async move {
        for (node, of) in (1..=5).flat_map(|node| [(node, x), (node, z)]) {
            let (got, reply) = get_at(&host, node, Level::Causal, &key(of), &[]).await?;
            ensure!(got == Some(format!("of {of}")), "at {node}: {got:?}");
            ensure!(reply.receipt.is_some_and(|receipt| receipt.unfolded.is_empty()));
        }
        Ok(())
    });
    assert_eq!(cluster.replicas_differ(), None);
}
