//! What an answer tells, its session follows; and what has not happened is said not to have.

use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use latitude_client::{CasOutcome, Expected, Level, NodeId, ReceiptDetail, Session, wire};
use latitude_consistency::Token;
use latitude_sim::Cluster;
use latitude_sim::workload::KEYSPACE;
use latitude_types::Timestamp;

use crate::common::{WITHIN, run_near};
use crate::world::{command, leader_of, new_id, others, put};
use crate::{KEYS, cluster};

/// How far a session has seen the stream of a node.
fn seen_of(session: &Session, node: u32) -> anyhow::Result<Timestamp> {
    let token = session.token().context("the session has done something")?;
    let token = Token::decode(&BASE64.decode(token)?)?;
    Ok(token.past().seen.of(NodeId(node)))
}

/// A condition that holds, or does not, and a sum: whoever is told of what a key held has read it, and so has
/// whoever reads what was put in its place. (Pitfall 4, where the effect is not read but compared.)
#[test]
fn who_writes_on_a_condition_follows_what_was_there() {
    let mut cluster = cluster(61);
    counters(&mut cluster);
    // So that not every node shows what the second takes, and tokens must name it.
    cluster.isolate(3);
    cluster.run_for(Duration::from_secs(5)).unwrap();
    let cause = run_near(&mut cluster, 2, |host| async move {
        let session = Session::new();
        let of =
            |level| host.client.keyspace(KEYSPACE).with_level(level).with_session(session.clone());
        of(Level::Causal).put(KEYS[2], "cause").await?;
        of(Level::Strict).put(KEYS[0], "effect").await?;
        let counters = host.client.keyspace("counters").with_session(session.clone());
        counters.with_level(Level::Strict).add("sum", 7).await?;
        seen_of(&session, 2)
    });
    run_near(&mut cluster, 1, move |host| async move {
        let strict = |session: &Session| {
            host.client.keyspace(KEYSPACE).with_level(Level::Strict).with_session(session.clone())
        };
        let failed = Session::new();
        let other = Expected::Value("something else".into());
        let compared =
            strict(&failed).compare_and_set(KEYS[0], other, Some("never".into())).await?;
        ensure!(matches!(compared.value, CasOutcome::Mismatch { .. }), "{compared:?}");
        let held = Session::new();
        let effect = Expected::Value("effect".into());
        let compared =
            strict(&held).compare_and_set(KEYS[0], effect, Some("after it".into())).await?;
        ensure!(compared.value.is_applied(), "{compared:?}");
        let reader = Session::new();
        let causal = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
        let read = causal.with_session(reader.clone()).get(KEYS[0]).await?;
        ensure!(read.value.is_some_and(|value| &value.bytes[..] == b"after it"));
        let counters = host.client.keyspace("counters").with_level(Level::Strict);
        let (bounded, added) = (Session::new(), Session::new());
        let within = counters.clone().with_session(bounded.clone());
        ensure!(!within.add_within("sum", -9, Some(0), None).await?.value.is_applied());
        let sum = counters.with_session(added.clone()).add("sum", 1).await?.value.sum;
        ensure!(sum == Some(8), "{sum:?}");
        for (who, session) in [
            ("a condition that did not hold", failed),
            ("a condition that held", held),
            ("a reader of what it wrote", reader),
            ("bounds that would be left", bounded),
            ("an add that is told the sum", added),
        ] {
            let seen = seen_of(&session, 2)?;
            ensure!(seen >= cause, "{who}: {seen}, and the cause is at {cause}");
        }
        Ok(())
    });
}

/// Contract 1.2 rule 6: a copy that finds its write in the log does not know who has it on disk.
#[test]
fn a_copy_of_a_folded_write_is_acknowledged_once_as_many_disks_have_it_as_its_client_wants() {
    let mut cluster = cluster(62);
    counters(&mut cluster);
    cluster.isolate(3);
    cluster.run_for(Duration::from_secs(5)).unwrap();
    let on_all = |host: latitude_sim::ClientHost| async move {
        let counters = host.client.keyspace("counters").with_level(Level::Causal);
        let counters = counters.with_ack_replicas(3).with_receipt(ReceiptDetail::Full);
        // Long enough for the SDK to send it again after it is folded.
        let added = counters.with_timeout(Duration::from_secs(8)).add("all", 1).await;
        Ok(added.map(|added| added.receipt.map(|receipt| receipt.durable_on)))
    };
    let error = run_near(&mut cluster, 1, on_all).unwrap_err();
    assert!(error.may_have_applied(), "it has happened: {error}");
    cluster.heal();
    cluster.run_for(Duration::from_secs(5)).unwrap();
    let on = run_near(&mut cluster, 1, on_all).unwrap().unwrap();
    assert_eq!(on.len(), 3, "{on:?}");
    run_near(&mut cluster, 2, |host| async move {
        let counters = host.client.keyspace("counters").with_level(Level::Strict);
        let sum = counters.counter("all").await?.value;
        ensure!(sum == 2, "two adds, each once: {sum}");
        Ok(())
    });
}

/// What is under way when a leader loses its quorum stays under way, for as long as nobody else leads. What comes then
/// is refused before it is proposed, so that it may give way.
#[test]
fn a_leader_that_is_cut_off_under_load_says_what_was_not_proposed() {
    let mut cluster = cluster(63);
    let leader = run_near(&mut cluster, 1, |host| async move {
        let strict = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
        let got = strict.with_receipt(ReceiptDetail::Full).get(KEYS[0]).await?;
        Ok(got.receipt.context("a receipt was asked for")?.node.0)
    });
    let region = cluster.layout().regions[leader as usize - 1].clone();
    for _ in 0..96 {
        let here = region.clone();
        drop(cluster.start_client(WITHIN, move |host| async move {
            let strict = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
            let strict = strict.with_timeout(Duration::from_secs(30));
            while host.region == here && strict.put(KEYS[0], "load").await.is_ok() {}
        }));
    }
    cluster.run_for(Duration::from_secs(2)).unwrap();
    for node in 1..=3 {
        cluster.isolate(node);
    }
    cluster.run_for(Duration::from_secs(5)).unwrap();
    run_near(&mut cluster, leader, |host| async move {
        let strict = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
        let strict = strict.with_timeout(Duration::from_secs(8));
        let error = strict.put(KEYS[0], "late").await.map(drop).unwrap_err();
        ensure!(!error.may_have_applied(), "nothing of it was proposed: {error}");
        let accepting = strict.with_accept([Level::Causal]);
        let receipt = accepting.put(KEYS[0], "late").await?.receipt.context("one is given")?;
        ensure!(receipt.level_given == Some(Level::Causal), "{receipt}");
        ensure!(receipt.fallback.as_deref() == Some("NO_QUORUM"), "{receipt}");
        Ok(())
    });
}

/// Found by reading. A node that passes a command on gives it an id, of which its client knows nothing: what it repeats is
/// another write, and the node that did the first could not tell.
#[test]
fn a_write_that_its_client_has_not_named_is_not_safe_to_repeat_wherever_it_was_done() {
    let mut cluster = cluster(64);
    let leader = leader_of(&mut cluster, KEYSPACE, KEYS[0]);
    for (named, node) in [(false, leader), (false, others(leader)[0]), (true, others(leader)[0])] {
        run_near(&mut cluster, leader, move |host| async move {
            let put = command(KEYSPACE, Level::Strict, put(KEYS[0], "v"));
            let id = named.then(|| new_id(&host, 1));
            let put = wire::Command { id, no_forward: false, ..put };
            let receipt = host.send(node, put).await?.receipt.context("one was asked for")?;
            ensure!(receipt.node == leader, "{receipt:?}");
            ensure!(receipt.retry_safe == named, "{receipt:?}");
            Ok(())
        });
    }
}

/// A keyspace of counters, which every node knows.
fn counters(cluster: &mut Cluster) {
    run_near(cluster, 1, |host| async move {
        let request = wire::CreateKeyspaceRequest {
            name: "counters".into(),
            r#type: wire::ValueType::Counter as i32,
            ..wire::CreateKeyspaceRequest::default()
        };
        host.client.admin().create_keyspace(request).await?;
        Ok(())
    });
    cluster.run_for(Duration::from_secs(5)).unwrap();
}
