//! Leases in a cluster: when reads are answered by them, and when not.

use std::time::Duration;

use latitude_client::{Level, Proof};
use latitude_node::ReadMode;
use latitude_sim::cluster::Crash;
use latitude_sim::{Cluster, Layout};

const WITHIN: Duration = Duration::from_secs(20);
/// Longer than any election and silence of this layout.
const SETTLED: Duration = Duration::from_secs(6);

/// How a strict read, by a client that knows nothing of the time before, is proved.
fn proof(cluster: &mut Cluster) -> Proof {
    let read = cluster.run_client(WITHIN, |host| async move {
        let keyspace = host.client.keyspace("default").with_level(Level::Strict);
        keyspace.with_receipt(latitude_client::ReceiptDetail::Full).get("k").await
    });
    let answer = read.expect("it ends").expect("it is served");
    assert_eq!(&answer.value.expect("it was written").bytes[..], b"v");
    answer.receipt.and_then(|receipt| receipt.proof).expect("a full receipt")
}

fn founded(layout: Layout) -> Cluster {
    let mut cluster = Cluster::new(layout);
    cluster.init().expect("a cluster is made");
    cluster.run_for(Duration::from_secs(3)).expect("nothing breaks");
    let put = cluster.run_client(WITHIN, |host| async move {
        host.client.keyspace("default").with_level(Level::Strict).put("k", "v").await.map(drop)
    });
    put.expect("it ends").expect("it is served");
    cluster.run_for(SETTLED).expect("nothing breaks");
    cluster
}

fn restart(cluster: &mut Cluster, node: u32, read_mode: ReadMode) {
    cluster.set_read_mode(node, read_mode);
    cluster.crash(node, Crash::Killed);
    cluster.restart(node);
    cluster.run_for(SETTLED).expect("nothing breaks");
}

#[test]
fn leases_begin_with_the_last_node_that_is_restarted_with_them_and_end_with_the_first_without() {
    let mut cluster = founded(Layout::small(1));
    assert_eq!(proof(&mut cluster), Proof::ReadIndex);
    for node in 1..=3 {
        restart(&mut cluster, node, ReadMode::Lease);
        let expected = if node == 3 { Proof::Lease } else { Proof::ReadIndex };
        assert_eq!(proof(&mut cluster), expected, "after node {node}");
    }
    for node in 1..=3 {
        restart(&mut cluster, node, ReadMode::ReadIndex);
        assert_eq!(proof(&mut cluster), Proof::ReadIndex, "after node {node}");
    }
}

#[test]
fn a_wall_clock_that_is_set_ends_a_lease_until_a_quorum_has_answered_again() {
    let mut cluster = founded(Layout::small(2).with_leases());
    assert_eq!(proof(&mut cluster), Proof::Lease);
    // Less than clocks may differ, and more than a tenth of a lease.
    for node in 1..=3 {
        cluster.skew(node, 200);
    }
    assert_eq!(proof(&mut cluster), Proof::ReadIndex);
    cluster.run_for(Duration::from_secs(1)).expect("nothing breaks");
    assert_eq!(proof(&mut cluster), Proof::Lease);
}
