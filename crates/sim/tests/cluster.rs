//! A cluster in the simulation is a cluster: it elects, serves the SDK, and survives what a cluster
//! survives.

use std::time::Duration;

use latitude_client::Level;
use latitude_sim::{Cluster, Layout};

const WITHIN: Duration = Duration::from_secs(20);

#[test]
fn a_cluster_serves_the_real_client_and_a_run_is_the_same_twice() {
    let run = |seed| {
        let mut cluster = Cluster::new(Layout::small(seed));
        cluster.init().unwrap();
        let read = cluster
            .run_client(WITHIN, |host| async move {
                // Nodes hear of the keyspace one after another.
                tokio::time::sleep(Duration::from_secs(3)).await;
                let keyspace = host.client.keyspace("default").with_level(Level::Strict);
                keyspace.put("k", "v").await?;
                keyspace.get("k").await
            })
            .unwrap();
        let value = read.expect("both are served").value.expect("it was written");
        assert_eq!(&value.bytes[..], b"v");
        assert!(cluster.invariants_looked_at() > 0);
        cluster.trace().clone()
    };
    let (first, second, other) = (run(1), run(1), run(2));
    assert_eq!(first.first_difference(&second), None);
    assert_eq!(first.hash(), second.hash());
    assert_ne!(first.hash(), other.hash());
}
