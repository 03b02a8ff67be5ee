//! What is not folded is bounded: writes get slower from half of the quota on, are refused when it is full, and are
//! taken again once the log has what was taken.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use latitude_client::{Level, NodeId, Reason, ReceiptDetail, Scan, wire};
use latitude_sim::Layout;
use latitude_sim::workload::KEYSPACE;

use crate::common::run_near;
use crate::world::{KEYS, ONE_WAY, cluster_of, command, get_at, mend, new_id, others, put};

/// Of each range at each node.
const QUOTA: usize = 16 << 10;
const VALUE_LEN: usize = 500;
/// What a write near by takes that nothing slows down.
const AT_ONCE: Duration = Duration::from_millis(30);
/// How long the client goes on with a write that is refused.
const PATIENCE: Duration = Duration::from_secs(3);

fn key(at: usize) -> String {
    format!("{}/{at:03}", KEYS[0])
}

fn value(at: usize) -> String {
    format!("{at:0width$}", width = VALUE_LEN)
}

/// Pitfall 29: the overlay of a node whose leaders are out of reach would grow for as long as they are.
#[test]
fn local_writes_that_are_not_folded_slow_down_then_are_refused_and_go_on_after_healing() {
    let mut layout = Layout::three_regions(71);
    layout.limits.unfolded_bytes_max = QUOTA;
    let mut cluster = cluster_of(layout);
    cluster.isolate(3);
    cluster.run_for(Duration::from_secs(3)).unwrap();
    let took = run_near(&mut cluster, 3, |host| async move {
        let keyspace = host.client.keyspace(KEYSPACE).with_receipt(ReceiptDetail::Full);
        let near = keyspace.with_level(Level::Causal).with_timeout(PATIENCE);
        // Learns the way.
        near.get(key(0)).await?;
        let mut took = Vec::new();
        let refused = loop {
            let at = took.len();
            ensure!(at < 10 * QUOTA / VALUE_LEN, "nothing ends it");
            let asked = host.now();
            match near.put(key(at), value(at)).await {
                Ok(_) => took.push(host.now() - asked),
                Err(error) => break error,
            }
        };
        ensure!(refused.reason == Reason::UnfoldedQuota, "{refused}");
        ensure!(!refused.may_have_applied(), "{refused}");
        ensure!(refused.retry_after.is_some(), "{refused}");
        // At both levels, and at once if nobody asks again.
        for (level, sequence) in [(Level::Causal, 1), (Level::Eventual, 2)] {
            let (key, asked) = (key(900 + sequence as usize), host.now());
            let id = Some(new_id(&host, sequence));
            let command = command(KEYSPACE, level, put(&key, &value(0)));
            let refused = host.send(3, wire::Command { id, ..command }).await.unwrap_err();
            ensure!(host.now() - asked < 2 * AT_ONCE + SLOWED_MAX, "{level}: {refused}");
            ensure!(refused.reason == Reason::UnfoldedQuota, "{level}: {refused}");
            ensure!(!refused.may_have_applied(), "{level}: {refused}");
            ensure!(refused.retry_after.is_some(), "{level}: {refused}");
        }
        // Reads go on, and so do other ranges.
        for level in [Level::Causal, Level::Eventual] {
            for at in [0, took.len() / 2, took.len() - 1] {
                let asked = host.now();
                let got = near.clone().with_level(level).get(key(at)).await?;
                ensure!(host.now() - asked < ONE_WAY, "{level}: it took {:?}", host.now() - asked);
                let receipt = got.receipt.context("a receipt was asked for")?;
                ensure!(receipt.node == NodeId(3), "{level}: {receipt}");
                let got = got.value.map(|value| value.bytes);
                ensure!(got.as_deref() == Some(value(at).as_bytes()), "{level}: {got:?}");
            }
            let got = near.clone().with_level(level).get(key(took.len())).await?;
            ensure!(got.value.is_none(), "{level}: it was refused");
        }
        let asked = host.now();
        near.put(KEYS[1], "elsewhere").await?;
        ensure!(host.now() - asked < AT_ONCE, "it took {:?}", host.now() - asked);
        Ok(took)
    });
    let mean = |part: &[Duration]| part.iter().sum::<Duration>() / part.len() as u32;
    let quarters: Vec<_> = took.chunks(took.len().div_ceil(4)).map(mean).collect();
    println!("{} writes: {quarters:?} each, {:?} the last", took.len(), took.last());
    assert!(quarters[0] < AT_ONCE && quarters[1] < AT_ONCE, "{took:?}");
    assert!(quarters[1] + ms(10) < quarters[2] && quarters[2] + ms(20) < quarters[3], "{took:?}");
    assert!(took.last() > Some(&ms(70)), "{took:?}");

    // The log has it again, and takes it in, before everybody is there.
    mend(&mut cluster, 3, others(3)[0]);
    cluster.run_for(Duration::from_secs(5)).unwrap();
    cluster.heal();
    cluster.run_for(Duration::from_secs(5)).unwrap();
    let count = took.len();
    run_near(&mut cluster, 3, move |host| async move {
        let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
        near.get(key(0)).await?;
        for at in count..2 * count {
            let asked = host.now();
            near.put(key(at), value(at)).await?;
            // Some of them are on their way into the log, and slow it down.
            let took = host.now() - asked;
            ensure!(took < SLOWED_MAX + 2 * AT_ONCE, "it took {took:?}");
        }
        Ok(())
    });
    cluster.run_for(Duration::from_secs(5)).unwrap();
    for node in 1..=3 {
        run_near(&mut cluster, node, move |host| async move {
            for level in Level::ALL {
                let keyspace = host.client.keyspace(KEYSPACE).with_level(level);
                let page = keyspace.scan(Scan::prefix(format!("{}/", KEYS[0]))).await?.value;
                let found: BTreeSet<_> =
                    page.rows.iter().map(|row| (row.key.to_vec(), row.value.to_vec())).collect();
                let expected: BTreeSet<_> = (0..2 * count)
                    .map(|at| (key(at).into_bytes(), value(at).into_bytes()))
                    .collect();
                ensure!(found == expected, "{level} at {node}: {} of {}", found.len(), 2 * count);
                let (got, _) = get_at(&host, node, Level::Causal, KEYS[1], &[]).await?;
                ensure!(got.as_deref() == Some("elsewhere"), "{got:?}");
            }
            Ok(())
        });
    }
    assert_eq!(cluster.replicas_differ(), None);
}

/// How long a write waits at most because the quota is nearly used up.
const SLOWED_MAX: Duration = Duration::from_millis(100);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
