//! What a node makes of its replicas when it starts and knows no directory yet, or hears of one that is long out of
//! date.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use latitude_client::{Level, wire};
use latitude_sim::cluster::Crash;
use latitude_sim::workload::KEYSPACE;
use latitude_sim::{Cluster, Layout};
use latitude_types::RangeId;

const WITHIN: Duration = Duration::from_secs(60);
/// Long enough for others to take a node for dead.
const A_WHILE: Duration = Duration::from_secs(5);
/// Three of the nodes vote in the meta range; so does the first, and it is asked first by whoever asks in order.
const FIRST: u32 = 1;
/// All but the first; the last has no replica of the meta range.
const OTHERS: [u32; 3] = [2, 3, 4];
const LAST: u32 = 4;

fn cluster(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(Layout { nodes: 4, ..Layout::small(seed) });
    cluster.init().unwrap();
    cluster.run_for(A_WHILE).unwrap();
    let meta: Vec<_> =
        cluster.nodes().into_iter().filter(|node| cluster.holds(*node, RangeId::META)).collect();
    assert_eq!(meta, [1, 2, 3]);
    cluster
}

/// Creates the keyspace, through the second node, and puts a value; tells its range.
fn create(cluster: &mut Cluster) -> RangeId {
    let request = wire::CreateKeyspaceRequest {
        name: KEYSPACE.into(),
        default_level: wire::Level::Strict as i32,
        ..wire::CreateKeyspaceRequest::default()
    };
    let ranges = cluster.run_client(WITHIN, |mut host| async move {
        host.begin_anew(Some(1));
        host.client.admin().create_keyspace(request).await?;
        host.client.keyspace(KEYSPACE).put("k", "v").await?;
        host.client.admin().ranges(KEYSPACE).await
    });
    let ranges = ranges.unwrap().unwrap();
    let range = &ranges[0];
    let mut nodes: Vec<_> = range.replicas.iter().map(|replica| replica.node).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, OTHERS, "the first node was down, or seemed so");
    RangeId(range.range_id)
}

fn drop_keyspace(cluster: &mut Cluster, range: RangeId) {
    cluster.range_dropped(range);
    let dropped = cluster.run_client(WITHIN, |mut host| async move {
        host.begin_anew(Some(1));
        host.client.admin().drop_keyspace(KEYSPACE).await
    });
    dropped.unwrap().unwrap();
}

fn read(cluster: &mut Cluster) -> Option<Vec<u8>> {
    let read = cluster.run_client(WITHIN, |host| async move {
        let keyspace = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
        keyspace.with_timeout(Duration::from_secs(30)).get("k").await
    });
    read.unwrap().unwrap().value.map(|value| value.bytes.to_vec())
}

/// Lets time pass in which these nodes have a replica of the range, or have none, at every moment.
fn keeps(cluster: &mut Cluster, nodes: &[u32], range: RangeId, held: bool) {
    let until = cluster.now() + 2 * A_WHILE;
    while cluster.now() < until {
        cluster.step().unwrap();
        for node in nodes {
            assert_eq!(
                cluster.holds(*node, range),
                held,
                "n{node}, {range}, after {:?}",
                cluster.now()
            );
        }
    }
}

/// Waits until these nodes have a replica of the range, or have none.
fn becomes(cluster: &mut Cluster, nodes: &[u32], range: RangeId, held: bool) {
    let deadline = cluster.now() + A_WHILE;
    while nodes.iter().any(|node| cluster.holds(*node, range) != held) {
        assert!(cluster.now() < deadline, "not in time: {nodes:?}, {range}, held: {held}");
        cluster.step().unwrap();
    }
}

/// Starts all nodes. The first has opened its replica of the meta range when the others come, and cannot be told what
/// it has missed before they have.
fn restart_all(cluster: &mut Cluster) {
    cluster.nodes().into_iter().for_each(|node| cluster.crash(node, Crash::Killed));
    cluster.restart(FIRST);
    cluster.run_for(Duration::from_secs(1)).unwrap();
    OTHERS.into_iter().for_each(|node| cluster.restart(node));
}

#[test]
fn a_keyspace_outlives_a_start_at_which_all_hear_of_a_directory_from_before_it() {
    let mut cluster = cluster(1);
    cluster.crash(FIRST, Crash::Killed);
    cluster.run_for(A_WHILE).unwrap();
    let range = create(&mut cluster);
    restart_all(&mut cluster);
    // Their stores are open. A replica that goes and comes back would be found by the invariants as well.
    becomes(&mut cluster, &OTHERS, range, true);
    keeps(&mut cluster, &OTHERS, range, true);
    assert_eq!(read(&mut cluster).as_deref(), Some(&b"v"[..]));
}

#[test]
fn a_replica_outlives_a_start_at_which_its_node_hears_of_a_directory_from_before_it() {
    let mut cluster = cluster(2);
    // From here on the first node learns nothing, and says what it knows to the last one alone.
    cluster.partition(FIRST, 2);
    cluster.partition(FIRST, 3);
    cluster.run_for(A_WHILE).unwrap();
    let range = create(&mut cluster);
    becomes(&mut cluster, &[LAST], range, true);
    cluster.crash(LAST, Crash::Killed);
    cluster.restart(LAST);
    becomes(&mut cluster, &[LAST], range, true);
    keeps(&mut cluster, &[LAST], range, true);
    cluster.heal();
    assert_eq!(read(&mut cluster).as_deref(), Some(&b"v"[..]));
}

#[test]
fn a_replica_goes_when_its_keyspace_was_dropped_while_its_node_was_down() {
    let mut cluster = cluster(3);
    cluster.crash(FIRST, Crash::Killed);
    cluster.run_for(A_WHILE).unwrap();
    let range = create(&mut cluster);
    cluster.restart(FIRST);
    becomes(&mut cluster, &OTHERS, range, true);
    cluster.crash(LAST, Crash::Killed);
    drop_keyspace(&mut cluster, range);
    becomes(&mut cluster, &[2, 3], range, false);
    cluster.restart(LAST);
    // It has not heard of it yet.
    becomes(&mut cluster, &[LAST], range, true);
    becomes(&mut cluster, &[LAST], range, false);
    keeps(&mut cluster, &OTHERS, range, false);
}

#[test]
fn a_dropped_keyspace_does_not_come_back_at_a_start_at_which_all_hear_of_a_directory_that_has_it() {
    let mut cluster = cluster(4);
    cluster.crash(FIRST, Crash::Killed);
    cluster.run_for(A_WHILE).unwrap();
    let range = create(&mut cluster);
    cluster.restart(FIRST);
    cluster.run_for(A_WHILE).unwrap();
    cluster.crash(FIRST, Crash::Killed);
    drop_keyspace(&mut cluster, range);
    becomes(&mut cluster, &OTHERS, range, false);
    restart_all(&mut cluster);
    keeps(&mut cluster, &OTHERS, range, false);
}
