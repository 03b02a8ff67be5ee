//! What is folded is kept for those who lag behind, and not without bound: who lags further has it by the log.

use std::time::Duration;

use anyhow::{Context, ensure};
use latitude_client::{Level, NodeId, ReceiptDetail};
use latitude_sim::Layout;
use latitude_sim::workload::KEYSPACE;

use crate::common::run_near;
use crate::world::{KEYS, cluster_of};

const WRITES: usize = 40;
const VALUE_LEN: usize = 500;

fn key(at: usize) -> String {
    format!("{}/{at:03}", KEYS[at % KEYS.len()])
}

#[test]
fn a_node_that_lags_behind_more_than_is_kept_for_it_has_the_rest_by_the_log() {
    for (kept_max, kept) in [(usize::MAX, WRITES), (WRITES * VALUE_LEN / 2, 0)] {
        let mut layout = Layout::three_regions(75);
        layout.limits.laggards_bytes_max = kept_max;
        let mut cluster = cluster_of(layout);
        cluster.isolate(3);
        run_near(&mut cluster, 1, |host| async move {
            let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
            for at in 0..WRITES {
                near.put(key(at), format!("{at:0width$}", width = VALUE_LEN)).await?;
            }
            Ok(())
        });
        // They are folded, and looked at twice.
        cluster.run_for(Duration::from_secs(15)).unwrap();
        let rows = cluster.stream_rows(1, 1).expect("it is up");
        assert_eq!(rows.values().sum::<usize>(), kept, "of at most {kept_max} bytes: {rows:?}");

        cluster.heal();
        cluster.run_for(Duration::from_secs(10)).unwrap();
        run_near(&mut cluster, 3, |host| async move {
            let near = host.client.keyspace(KEYSPACE).with_receipt(ReceiptDetail::Full);
            for level in [Level::Causal, Level::Eventual] {
                for at in 0..WRITES {
                    let got = near.clone().with_level(level).get(key(at)).await?;
                    let receipt = got.receipt.context("a receipt was asked for")?;
                    ensure!(receipt.node == NodeId(3), "{level}: {receipt}");
                    let found = got.value.context("it was acknowledged")?.bytes;
                    ensure!(found == format!("{at:0width$}", width = VALUE_LEN), "{level}: {at}");
                }
            }
            Ok(())
        });
        assert_eq!(cluster.replicas_differ(), None);
    }
}
