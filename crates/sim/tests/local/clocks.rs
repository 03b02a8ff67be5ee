//! A node whose clock is far ahead: it takes nothing, and nothing that it stamps outweighs what others write.

use std::time::Duration;

use anyhow::{Context, ensure};
use latitude_client::{Level, NodeId, Reason, ReceiptDetail, Session, wire};
use latitude_sim::workload::KEYSPACE;

use crate::common::run_near;
use crate::world::{KEYS, cluster, command, new_id, put};

/// How far clocks may differ.
const OFFSET_MAX: Duration = Duration::from_millis(500);

/// Pitfall 22: it is refused by the others, and so it stops giving times; a birth of its own would win for 10 s.
#[test]
fn a_node_whose_clock_is_far_ahead_takes_no_local_write_and_nothing_of_its_time_wins() {
    let mut cluster = cluster(92);
    let liar = 3;
    run_near(&mut cluster, 1, |host| async move {
        let strict = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
        for key in KEYS {
            strict.put(key, "before").await?;
        }
        Ok(())
    });
    cluster.skew(liar, 10_000);
    cluster.run_for(Duration::from_secs(3)).unwrap();
    run_near(&mut cluster, liar, move |host| async move {
        let mut sequence = 0;
        for level in [Level::Causal, Level::Eventual, Level::Strict, Level::Sequential] {
            for key in KEYS {
                // With an id of the right time, and with one that the node would have to make.
                for named in [true, false] {
                    sequence += 1;
                    let id = named.then(|| new_id(&host, sequence));
                    let command = command(KEYSPACE, level, put(key, "of the liar"));
                    let command = wire::Command { id, timeout_ms: 500, ..command };
                    let refused = host.send(liar, command).await.map(drop).unwrap_err();
                    ensure!(!refused.may_have_applied(), "{level}: {refused}");
                    let is_local = !level.writes_through_log();
                    ensure!(
                        !is_local || refused.reason == Reason::ClockUnsynced,
                        "{level}: {refused}"
                    );
                }
            }
        }
        Ok(())
    });
    // Those whose clocks are right go on, and their times are true.
    run_near(&mut cluster, 1, |host| async move {
        let keyspace = host.client.keyspace(KEYSPACE).with_receipt(ReceiptDetail::Full);
        for (at, key) in KEYS.into_iter().enumerate() {
            let level = [Level::Causal, Level::Strict][at % 2];
            let put = keyspace.clone().with_level(level).put(key, "of the others").await?;
            let receipt = put.receipt.context("a receipt was asked for")?;
            ensure!(receipt.node != NodeId(liar), "{receipt}");
            let time = put.value.time.unix_ms();
            let ahead = Duration::from_millis(time.saturating_sub(host.unix_ms()));
            ensure!(ahead < OFFSET_MAX, "{level}: {ahead:?} ahead");
        }
        Ok(())
    });
    cluster.set_clock_right(liar);
    // It runs slow until it is right, and is refused till then; and then it catches up.
    cluster.run_for(Duration::from_secs(40)).unwrap();
    for node in 1..=3 {
        run_near(&mut cluster, node, move |host| async move {
            // Strictly first: without a session what is read sequentially may be as old as it likes.
            let keyspace = host.client.keyspace(KEYSPACE).with_session(Session::new());
            for key in KEYS {
                for level in Level::ALL {
                    let got = keyspace.clone().with_level(level).get(key).await?;
                    let got = got.value.context("it was written")?;
                    ensure!(&got.bytes[..] == b"of the others", "{level} at {node}: {got:?}");
                }
            }
            // And it takes writes again.
            let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
            let near = near.with_receipt(ReceiptDetail::Short);
            let put = near.put(format!("{}/{node}", KEYS[0]), "v").await?;
            let receipt = put.receipt.context("a receipt was asked for")?;
            ensure!(receipt.node == NodeId(node), "{receipt}");
            Ok(())
        });
    }
    assert_eq!(cluster.replicas_differ(), None);
}
