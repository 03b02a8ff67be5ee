//! Audits: whatever is in one batch with the entry, every replica looks at exactly what is there right after it.

mod common;

use std::collections::BTreeSet;

use common::{Cluster, written};
use latitude_consensus::AuditOutcome;
use latitude_range::Audited;

const BEFORE: usize = 20;

/// Three audits among writes, proposed all at once: where they stand.
async fn audit_among_writes(cluster: &Cluster) -> Vec<u64> {
    let (leader, token) = cluster.leader().await;
    let group = cluster.group(leader).clone();
    let (mut writes, mut audits) = (Vec::new(), Vec::new());
    for round in 0..3 {
        for i in 0..BEFORE {
            let (_, entry) = cluster.entry(&format!("{round}-{i:02}"), "v");
            writes.push(group.propose(token, entry).await.expect("a quorum is up"));
        }
        audits.push(group.propose(token, cluster.audit_entry()).await.expect("a quorum is up"));
    }
    let mut indexes = Vec::new();
    for audit in audits {
        indexes.push(audit.await.expect("a quorum is up").at.index);
    }
    for write in writes {
        assert!(written(&write.await.expect("a quorum is up")));
    }
    indexes
}

/// What a replica came to, or that another audit took the place of this one.
async fn outcome(cluster: &Cluster, node: u32, index: u64) -> Option<Audited> {
    let known = cluster.wait("the audit has an outcome", || {
        cluster.group(node).audit(index).filter(|outcome| *outcome != AuditOutcome::UnderWay)
    });
    match known.await {
        AuditOutcome::Done(audited) => Some(audited),
        AuditOutcome::NotMade(_) => None,
        other => panic!("node {node} at {index}: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_are_compared_right_after_the_entry_whatever_is_applied_with_it() {
    let (mut cluster, _) = Cluster::led().await;
    cluster.crash(3).await;
    let indexes = audit_among_writes(&cluster).await;
    // It gets all of them at once, with what follows them.
    cluster.start(3).await.expect("what was synced is there");
    cluster.applied_everywhere(*indexes.last().expect("there are three")).await;
    let mut compared = Vec::new();
    for (round, index) in (1u64..).zip(&indexes) {
        let mut found = BTreeSet::new();
        for node in 1..=3 {
            let audited = outcome(&cluster, node, *index).await;
            compared.extend(audited.map(|_| *index));
            found.extend(audited);
        }
        assert!(found.len() <= 1, "replicas differ at {index}: {found:?}");
        let keys = found.first().map(|audited| audited.keys);
        assert!(keys.is_none_or(|keys| keys == round * BEFORE as u64), "{round}: {found:?}");
    }
    let last = compared.iter().filter(|index| **index == indexes[2]).count();
    assert_eq!(last, 3, "no later one took its place: {compared:?}");
    assert_eq!(cluster.group(1).audit(indexes[2] + 1), None, "there is no such audit");
}
