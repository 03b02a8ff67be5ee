//! Sessions whose past is not everywhere: what waits for it, what says that it did not, and what refuses.

use std::time::Duration;

use anyhow::{Context, ensure};
use latitude_client::wire::command::Operation;
use latitude_client::{Level, NodeId, Reason, ReceiptDetail, Session, wire};
use latitude_sim::Cluster;
use latitude_sim::workload::KEYSPACE;

use crate::common::run_near;
use crate::world::{
    KEYS, ONE_WAY, cluster, command, create, decoded, get_at, leader_of, new_id, others, put,
};

/// Pitfall 19, and rule 4 of the contract: a strict operation has its session's local writes folded ahead of it, or says
/// that it could not; it is never done silently without them.
#[test]
fn a_strict_operation_without_its_sessions_local_writes_is_not_done_and_says_why() {
    let mut cluster = cluster(75);
    let key = KEYS[1];
    let leader = leader_of(&mut cluster, KEYSPACE, key);
    let [x, _] = others(leader);
    cluster.isolate(x);
    cluster.run_for(Duration::from_secs(3)).unwrap();
    let token = run_near(&mut cluster, x, move |host| async move {
        let session = Session::new();
        let near = host.client.keyspace(KEYSPACE).with_session(session.clone());
        near.with_level(Level::Causal).put(key, "unheard").await?;
        session.token().context("it has written")
    });
    let before = token.clone();
    run_near(&mut cluster, leader, move |host| {
        let token = before.clone();
        async move {
            let refused = get_at(&host, leader, Level::Strict, key, &decoded(&token).0).await;
            let refused = refused.map(drop).unwrap_err();
            ensure!(refused.reason == Reason::NotFolded, "{refused}");
            ensure!(refused.message.contains(&NodeId(x).to_string()), "{refused}");
            let put = command(KEYSPACE, Level::Strict, put(key, "refused"));
            let (id, of_session) = (Some(new_id(&host, 1)), decoded(&token).0.into());
            let put = wire::Command { id, token: of_session, ..put };
            let refused = host.send(leader, put).await.unwrap_err();
            ensure!(refused.reason == Reason::NotFolded, "{refused}");
            ensure!(!refused.may_have_applied(), "{refused}");
            ensure!(refused.message.contains(&NodeId(x).to_string()), "{refused}");
            // The library says the same, however often it has asked.
            let strict = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
            let within = strict.clone().with_timeout(Duration::from_secs(4));
            let of_session = within.with_session(Session::from_token(&token)?);
            let refused = of_session.get(key).await.map(drop).unwrap_err();
            ensure!(refused.reason == Reason::NotFolded, "{refused}");
            let refused = of_session.put(key, "refused").await.map(drop).unwrap_err();
            ensure!(refused.reason == Reason::NotFolded, "{refused}");
            // Nobody else is kept from anything, and nothing of it has happened.
            let got = strict.get(key).await?.value;
            ensure!(got.is_none(), "{got:?}");
            Ok(())
        }
    });
    cluster.heal();
    cluster.run_for(Duration::from_secs(5)).unwrap();
    for near in [leader, x] {
        let token = token.clone();
        run_near(&mut cluster, near, move |host| {
            let token = token.clone();
            async move {
                let strict = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
                let of_session = strict.with_session(Session::from_token(&token)?);
                let got = of_session.get(key).await?.value.map(|value| value.bytes);
                let expected = if near == leader { "unheard" } else { "after" };
                ensure!(got.as_deref() == Some(expected.as_bytes()), "{got:?}");
                of_session.put(key, "after").await?;
                let got = of_session.get(key).await?.value.map(|value| value.bytes);
                ensure!(got.as_deref() == Some(b"after"), "{got:?}");
                Ok(())
            }
        });
    }
}

/// Rule 4 of the contract: an eventual remove follows nothing, but ends what its own session has added before, at whatever
/// level and wherever; a replica that does not have it yet does not take the remove. What ends nothing is taken at once,
/// and its receipt says that its session is not covered.
#[test]
fn an_eventual_remove_ends_what_its_session_has_added_elsewhere() {
    const SETS: &str = "sets";
    let mut cluster = cluster(78);
    create(&mut cluster, SETS, wire::ValueType::Set);
    let leader = leader_of(&mut cluster, SETS, "k");
    let [x, y] = others(leader);
    // Neither the leader's log nor the other's stream comes to x.
    cluster.isolate(x);
    cluster.run_for(Duration::from_secs(1)).unwrap();
    let added = |cluster: &mut Cluster, near: u32, level: Level, element: &'static str| {
        run_near(cluster, near, move |host| async move {
            let session = Session::new();
            let sets = host.client.keyspace(SETS).with_level(level).with_session(session.clone());
            sets.set_add("k", element).await?;
            session.token().context("it has written")
        })
    };
    let by_log = added(&mut cluster, leader, Level::Strict, "by log");
    let by_stream = added(&mut cluster, y, Level::Causal, "by stream");
    for (token, element) in [(by_log.clone(), "by log"), (by_stream.clone(), "by stream")] {
        run_near(&mut cluster, x, move |host| {
            let token = token.clone();
            async move {
                let (key, element) = (b"k".to_vec().into(), element.as_bytes().to_vec().into());
                let remove = wire::SetRemove { key, element };
                let add = wire::SetAdd { key: remove.key.clone(), element: b"x".to_vec().into() };
                let at_x = |operation, sequence| wire::Command {
                    id: Some(new_id(&host, sequence)),
                    token: decoded(&token).0.into(),
                    ..command(SETS, Level::Eventual, operation)
                };
                let remove = Operation::SetRemove(remove);
                let refused = host.send(x, at_x(remove, 1)).await.unwrap_err();
                ensure!(refused.reason == Reason::ReplicaBehind, "{refused}");
                ensure!(!refused.may_have_applied(), "{refused}");
                let taken = host.send(x, at_x(Operation::SetAdd(add), 2)).await?;
                let receipt = taken.receipt.context("a receipt was asked for")?;
                ensure!(!receipt.covers_session, "{receipt:?}");
                Ok(())
            }
        });
    }
    for (token, element) in [(by_log, "by log"), (by_stream, "by stream")] {
        // From where x is: the library asks another.
        run_near(&mut cluster, x, move |host| {
            let token = token.clone();
            async move {
                let sets = host.client.keyspace(SETS).with_level(Level::Eventual);
                let sets = sets.with_session(Session::from_token(&token)?);
                sets.set_remove("k", element).await?;
                Ok(())
            }
        });
    }
    cluster.heal();
    cluster.run_for(Duration::from_secs(6)).unwrap();
    for node in 1..=3 {
        run_near(&mut cluster, node, |host| async move {
            for level in Level::ALL {
                let got = host.client.keyspace(SETS).with_level(level).members("k").await?;
                ensure!(got.value == ["x"], "{level}: {:?}", got.value);
            }
            Ok(())
        });
    }
}

/// Pitfall 24: an eventual read answers at once, from whatever is there; it says that this is not all its session has
/// seen, and what it finds is nothing the session follows from then on.
#[test]
fn an_eventual_read_says_whether_it_covers_its_session_and_adds_nothing_to_it() {
    let mut cluster = cluster(76);
    let (x, y) = (3, 1);
    cluster.isolate(x);
    cluster.run_for(Duration::from_secs(3)).unwrap();
    let token = run_near(&mut cluster, x, move |host| async move {
        let session = Session::new();
        let near = host.client.keyspace(KEYSPACE).with_session(session.clone());
        near.with_level(Level::Causal).put(KEYS[0], "unheard").await?;
        session.token().context("it has written")
    });
    let before = token.clone();
    run_near(&mut cluster, y, move |host| {
        let token = before.clone();
        async move {
            let near = host.client.keyspace(KEYSPACE).with_receipt(ReceiptDetail::Full);
            let eventual = near.clone().with_level(Level::Eventual);
            let causal = near.with_level(Level::Causal);
            // Of somebody else, taken here.
            causal.put(KEYS[1], "theirs").await?;
            let session = Session::from_token(&token)?;
            let of_session = eventual.with_session(session.clone());
            for (key, expected) in [(KEYS[0], None), (KEYS[1], Some(&b"theirs"[..]))] {
                let asked = host.now();
                let got = of_session.get(key).await?;
                ensure!(host.now() - asked < ONE_WAY, "it took {:?}", host.now() - asked);
                let receipt = got.receipt.context("a receipt was asked for")?;
                ensure!(receipt.node == NodeId(y), "{receipt}");
                ensure!(!receipt.covers_session, "{key}: {receipt}");
                let got = got.value.map(|value| value.bytes);
                ensure!(got.as_deref() == expected, "{key}: {got:?}");
            }
            let after = session.token().context("it has read")?;
            let (before, after) = (decoded(&token).1, decoded(&after).1);
            ensure!(after.past().seen == before.past().seen, "{after:?}");
            // It may name less of the logs, because every replica has that.
            let mut log = after.past().log.iter();
            ensure!(log.all(|entry| before.past().log.contains(entry)), "{after:?}");
            ensure!(after.own() == before.own(), "{after:?}");
            // A causal read would have added it.
            let session = Session::new();
            causal.with_session(session.clone()).get(KEYS[1]).await?;
            let after = decoded(&session.token().context("it has read")?).1;
            ensure!(after.past().seen.of(NodeId(y)) > before.past().seen.of(NodeId(y)));
            // It would wait for what is not here as well.
            let refused = get_at(&host, y, Level::Causal, KEYS[0], &decoded(&token).0).await;
            let refused = refused.map(drop).unwrap_err();
            ensure!(refused.reason == Reason::ReplicaBehind, "{refused}");
            Ok(())
        }
    });
    cluster.heal();
    cluster.run_for(Duration::from_secs(5)).unwrap();
    run_near(&mut cluster, y, move |host| {
        let token = token.clone();
        async move {
            for level in Level::ALL {
                let session = Session::from_token(&token)?;
                let keyspace = host.client.keyspace(KEYSPACE).with_session(session);
                let keyspace = keyspace.with_level(level).with_receipt(ReceiptDetail::Full);
                let got = keyspace.get(KEYS[0]).await?;
                let receipt = got.receipt.context("a receipt was asked for")?;
                ensure!(receipt.covers_session, "{level}: {receipt}");
                ensure!(got.value.is_some_and(|value| &value.bytes[..] == b"unheard"), "{level}");
                let put = keyspace.put(KEYS[2], "next").await?;
                let receipt = put.receipt.context("a receipt was asked for")?;
                ensure!(receipt.covers_session, "{level}: {receipt}");
            }
            Ok(())
        }
    });
}

/// Pitfall 4: a log write follows what its session has done and seen. Who reads it where that is not yet does not read
/// on without it.
#[test]
fn who_reads_a_log_write_reads_on_only_where_its_causes_are() {
    let mut cluster = cluster(77);
    let led: Vec<_> =
        KEYS.into_iter().map(|key| (key, leader_of(&mut cluster, KEYSPACE, key))).collect();
    // The log of the cause comes from X, and that of the effect from another.
    let (cause, x) = led[0];
    let (effect, leader) = led.into_iter().find(|(_, of)| *of != x).unwrap();
    let z = 6 - x - leader;
    cluster.partition(x, z);
    run_near(&mut cluster, x, move |host| async move {
        let keyspace = host.client.keyspace(KEYSPACE).with_session(Session::new());
        keyspace.clone().with_level(Level::Causal).put(cause, "a").await?;
        keyspace.with_level(Level::Strict).put(effect, "b").await?;
        Ok(())
    });
    run_near(&mut cluster, z, move |host| async move {
        // Somebody who follows nothing sees the one without the other.
        let mut at = None;
        while at.is_none() {
            (at, _) = get_at(&host, z, Level::Eventual, effect, &[]).await?;
        }
        let (got, _) = get_at(&host, z, Level::Eventual, cause, &[]).await?;
        ensure!(got.is_none(), "it came too soon to show anything: {got:?}");
        let (got, reply) = get_at(&host, z, Level::Causal, effect, &[]).await?;
        ensure!(got.as_deref() == Some("b"), "{got:?}");
        // Through its token as well, as by somebody else.
        let keyspace = host.client.keyspace(KEYSPACE).with_session(Session::new());
        let causal = keyspace.with_level(Level::Causal).with_receipt(ReceiptDetail::Full);
        let got = causal.get(effect).await?;
        ensure!(got.receipt.is_some_and(|receipt| receipt.node == NodeId(z)));
        let there = get_at(&host, z, Level::Causal, cause, &reply.token);
        let (there, moved_on) = tokio::join!(there, causal.get(cause));
        match there {
            Ok((got, _)) => ensure!(got.as_deref() == Some("a"), "{got:?}"),
            Err(error) => ensure!(error.reason == Reason::ReplicaBehind, "{error}"),
        }
        let moved_on = moved_on?;
        let got = moved_on.value.map(|value| value.bytes);
        ensure!(got.as_deref() == Some(b"a"), "{got:?}, {:?}", moved_on.receipt);
        Ok(())
    });
}
