//! Audits: replicas that hold the same are never said to differ, whatever happens meanwhile; one that does not is
//! named.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use latitude_client::wire::{AuditReply, AuditVerdict};
use latitude_client::{Level, RangeId};
use latitude_sim::cluster::{Crash, RowPart};
use latitude_sim::workload::{KEYSPACE, Workload};
use latitude_sim::{ClientHost, Cluster, Layout};
use latitude_types::{Key, KeyspaceId};

use common::{WITHIN, run_near};

/// How long an audit waits for a replica.
const WAIT: Duration = Duration::from_secs(10);

fn cluster(layout: Layout, workload: Workload) -> Cluster {
    let mut cluster = Cluster::new(layout);
    cluster.init().unwrap();
    workload.prepare(&mut cluster).unwrap();
    cluster.run_for(Duration::from_secs(5)).unwrap();
    cluster
}

/// Audits every range, the meta range among them.
async fn audit_all(host: &ClientHost) -> Result<Vec<AuditReply>> {
    let admin = host.client.admin();
    let mut found = Vec::new();
    for range in admin.ranges("").await? {
        found.push(admin.audit(RangeId(range.range_id), Some(WAIT)).await?);
    }
    Ok(found)
}

/// The nodes that an audit names: those that differ, and those that were not compared.
fn named(found: &AuditReply) -> (Vec<u32>, Vec<u32>) {
    let nodes = |which: &dyn Fn(&latitude_client::wire::ReplicaAudit) -> bool| {
        found.replicas.iter().filter(|of| which(of)).map(|of| of.node).collect()
    };
    (nodes(&|of| of.differs), nodes(&|of| of.checksum.is_none()))
}

#[test]
fn replicas_are_equal_while_clients_write_at_all_levels_and_a_node_dies_and_comes_back() {
    let workload = Workload { local: 4, typed: 3, deletes: 2, ..Workload::default() };
    let mut cluster = cluster(Layout::small(51), workload);
    let running = workload.start(&mut cluster);
    cluster.run_for(Duration::from_secs(2)).unwrap();
    let before = run_near(&mut cluster, 1, |host| async move { audit_all(&host).await });
    for found in &before {
        assert_eq!(found.verdict(), AuditVerdict::Equal, "{found:?}");
        assert_eq!(found.replicas.len(), 3, "{found:?}");
    }
    assert!(before.iter().any(|found| found.replicas[0].keys > 0), "nothing was written");

    cluster.crash(2, Crash::Killed);
    let without = run_near(&mut cluster, 1, |host| async move { audit_all(&host).await });
    for found in &without {
        assert_eq!(found.verdict(), AuditVerdict::Incomplete, "{found:?}");
        assert_eq!(named(found), (vec![], vec![2]), "{found:?}");
    }
    // One that is back before the entry reaches it is compared like the others.
    let back = Rc::new(Cell::new(None));
    let pending = cluster.start_client(WITHIN, |host| {
        let back = Rc::clone(&back);
        async move { back.set(audit_all(&host).await.ok()) }
    });
    cluster.run_for(Duration::from_secs(1)).unwrap();
    cluster.restart(2);
    while pending.take().is_none() {
        cluster.step().unwrap();
    }
    let back = back.take().unwrap();
    let (after, _) = running_ends(&mut cluster, running);
    for (found, again) in back.iter().zip(&after) {
        assert_ne!(found.verdict(), AuditVerdict::Differs, "{found:?}");
        assert_eq!(again.verdict(), AuditVerdict::Equal, "{again:?}");
        assert!(again.index > found.index);
    }
    assert_eq!(back.last().unwrap().verdict(), AuditVerdict::Equal, "{back:?}");
    assert_eq!(cluster.replicas_differ(), None);
}

/// What is found when the clients have come to their end, and the judges have nothing to say.
fn running_ends(
    cluster: &mut Cluster,
    running: latitude_sim::workload::Running,
) -> (Vec<AuditReply>, latitude_sim::workload::Seen) {
    let seen = running.finish(cluster, Duration::ZERO).unwrap();
    (run_near(cluster, 1, |host| async move { audit_all(&host).await }), seen)
}

#[test]
fn what_is_not_folded_yet_is_neither_compared_nor_touched() {
    let workload = Workload { ranges: 1, ..Workload::default() };
    let mut cluster = cluster(Layout::three_regions(52), workload);
    const WRITES: u32 = 400;
    let writer = cluster.start_client(WITHIN, |host| async move {
        let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
        for value in 0..WRITES {
            near.put("k000", value.to_string()).await?;
        }
        anyhow::Ok(())
    });
    let held = run_near(&mut cluster, 2, |host| async move {
        let mut held = 0;
        for _ in 0..10 {
            for found in audit_all(&host).await? {
                ensure!(found.verdict() == AuditVerdict::Equal, "{found:?}");
            }
            for node in host.client.admin().nodes().await? {
                let unfolded = host.client.deltas_at(&node.address, KEYSPACE).await?.deltas;
                held += unfolded.iter().map(|of| of.count).sum::<u64>();
            }
        }
        Ok(held)
    });
    assert!(held > 0, "no audit met a write that was not folded");
    let written = loop {
        cluster.step().unwrap();
        if let Some(written) = writer.take() {
            break written;
        }
    };
    written.unwrap();
    cluster.run_for(Duration::from_secs(2)).unwrap();
    run_near(&mut cluster, 2, |host| async move {
        let got = host.client.keyspace(KEYSPACE).with_level(Level::Strict).get("k000").await?;
        ensure!(
            got.value.is_some_and(|value| &value.bytes[..] == (WRITES - 1).to_string().as_bytes())
        );
        Ok(())
    });
}

#[test]
fn a_replica_whose_disk_has_turned_a_bit_is_named_and_no_other() {
    let mut cluster = cluster(Layout::three_regions(53), Workload::default());
    let keyspace = run_near(&mut cluster, 1, |host| async move {
        let strict = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
        for key in ["k000", "k002", "k004", "k006"] {
            strict.put(key, "value").await?;
        }
        let keyspaces = host.client.admin().keyspaces().await?;
        let ours = keyspaces.into_iter().find(|of| of.name == KEYSPACE).map(|of| of.keyspace_id);
        Ok(KeyspaceId(ours.unwrap()))
    });
    let audit = |cluster: &mut Cluster| {
        let found = run_near(cluster, 3, |host| async move { audit_all(&host).await });
        let odd = found.into_iter().filter(|found| found.verdict() != AuditVerdict::Equal);
        odd.collect::<Vec<_>>()
    };
    assert_eq!(audit(&mut cluster), []);
    for node in 1..=3 {
        let damaged = cluster.damage_row(node, keyspace, &key("k002"), RowPart::Value);
        assert!(damaged, "node {node} has the row");
        let [found] = &audit(&mut cluster)[..] else { panic!("one range differs") };
        assert_eq!(found.verdict(), AuditVerdict::Differs);
        assert_eq!(named(found), (vec![node], vec![]), "{found:?}");
        let metrics = found.replicas.iter().map(|of| (of.keys, of.rows));
        assert!(metrics.collect::<std::collections::BTreeSet<_>>().len() == 1, "{found:?}");
        // What the log writes anew is the same everywhere again.
        run_near(&mut cluster, 1, |host| async move {
            let strict = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
            strict.put("k002", "anew").await?;
            Ok(())
        });
        assert_eq!(audit(&mut cluster), []);
    }
    assert!(cluster.damage_row(2, keyspace, &key("k004"), RowPart::Version));
    let [found] = &audit(&mut cluster)[..] else { panic!("one range differs") };
    assert_eq!(named(found), (vec![2], vec![2]), "{found:?}");
    let why = &found.replicas.iter().find(|of| of.node == 2).unwrap().why;
    assert!(why.contains("value row"), "{why}");
}

fn key(key: &str) -> Key {
    Key::new(key.as_bytes()).unwrap()
}
