//! A cluster in the simulation is a cluster: it elects, serves the SDK, and survives what a cluster
//! survives.

use std::time::Duration;

use futures::future::join;
use latitude_client::{Level, Operation, Session};
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

/// Asked for in one frame, they are more than one message may hold.
#[test]
fn large_values_are_read_together_and_a_write_beside_them_is_not_lost() {
    const VALUES: usize = 24;
    let mut cluster = Cluster::new(Layout::small(3));
    cluster.init().unwrap();
    let program = cluster.run_client(3 * WITHIN, |host| async move {
        // Nodes hear of the keyspace one after another.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let keyspace = host.client.keyspace("default").with_level(Level::Causal);
        let keyspace = keyspace.with_session(Session::new());
        for at in 0..VALUES {
            keyspace.put(format!("{at}"), vec![at as u8; 1 << 20]).await?;
        }
        // Whichever node is asked has them.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let gets = (0..VALUES).map(|at| Operation::get(format!("{at}"))).collect();
        let (got, put) = join(keyspace.batch(gets), keyspace.put("beside", "it")).await;
        let got = got.into_iter().map(|got| got.map(|got| got.attempts));
        Ok::<_, latitude_client::Error>((got.collect::<Result<Vec<_>, _>>()?, put?.attempts))
    });
    assert_eq!(program.unwrap().unwrap(), (vec![1; VALUES], 1));
}
