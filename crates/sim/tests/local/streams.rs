//! Streams of local writes: relayed while their origin is not heard, held where a client wants them to be held, as
//! fresh as is said, and forgotten by tokens once every node shows them.

use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use latitude_client::{Level, NodeId, Reason, ReceiptDetail, Session, wire};
use latitude_consistency::Token;
use latitude_sim::cluster::Crash;
use latitude_sim::workload::KEYSPACE;
use latitude_sim::{Cluster, Layout};

use crate::common::run_near;
use crate::world::{KEYS, cluster, cluster_of, command, get_at, leader_of, new_id, put};

/// From one region of the layout to another and back.
const ROUND_TRIP: Duration = Duration::from_millis(80);
/// Writes of a key whose stream is late, and how late it is.
const WRITES: u64 = 200;
const LATE: Duration = Duration::from_millis(500);

/// Pitfall 26: some of the ranges are led by a node that does not hear the writer, or that the reader does not hear: only
/// the third node can bring the one's writes to the other.
#[test]
fn what_two_nodes_do_not_hear_of_each_other_comes_by_a_third() {
    let mut cluster = cluster(41);
    cluster.partition(1, 3);
    cluster.run_for(Duration::from_secs(2)).unwrap();
    for (writer, reader) in [(1, 3), (3, 1)] {
        run_near(&mut cluster, writer, move |host| async move {
            let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
            for key in KEYS {
                near.put(key, format!("of {writer}")).await?;
            }
            Ok(())
        });
        cluster.run_for(Duration::from_secs(3)).unwrap();
        run_near(&mut cluster, reader, move |host| async move {
            let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
            for key in KEYS {
                let got = near.clone().with_receipt(ReceiptDetail::Full).get(key).await?;
                let receipt = got.receipt.context("a receipt was asked for")?;
                ensure!(receipt.node == NodeId(reader), "{receipt}");
                let value = got.value.map(|value| value.bytes);
                let expected = format!("of {writer}");
                ensure!(value.as_deref() == Some(expected.as_bytes()), "{key}: {value:?}");
            }
            Ok(())
        });
    }
}

/// A leader that is quicker than the writer's stream folds at the relay what the stream has not brought yet. The relay stores
/// it all the same when it comes, and passes it on.
#[test]
fn what_comes_by_a_third_goes_on_coming_while_the_log_is_ahead_of_the_stream() {
    let mut layout = Layout::three_regions(46);
    layout.nodes = 5;
    let mut cluster = cluster_of(layout);
    let leader = leader_of(&mut cluster, KEYSPACE, KEYS[0]);
    let others: Vec<u32> = (1..=5).filter(|node| *node != leader).collect();
    let [writer, relay, reader, fourth] = others[..] else { unreachable!("four are left") };
    for unheard in [leader, writer, fourth] {
        cluster.partition(reader, unheard);
    }
    cluster.delay(writer, relay, LATE);
    cluster.run_for(Duration::from_secs(3)).unwrap();
    run_near(&mut cluster, writer, move |host| async move {
        for write in 1..=WRITES {
            let put = put(KEYS[0], &write.to_string());
            let put = command(KEYSPACE, Level::Eventual, put);
            let id = Some(new_id(&host, write));
            host.send(writer, wire::Command { id, ..put }).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    });
    run_near(&mut cluster, reader, move |host| async move {
        let began = host.now();
        loop {
            let got = get_at(&host, reader, Level::Eventual, KEYS[0], &[]).await?.0;
            if got.as_ref().is_some_and(|got| *got == WRITES.to_string()) {
                return Ok(());
            }
            ensure!(host.now() - began < 4 * LATE, "{got:?} of {WRITES}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

/// Two nodes beside each other do not hear a third, and are each other's nearest relay: neither has what the other lacks.
#[test]
fn two_nodes_that_are_each_other_s_nearest_turn_to_one_that_hears_the_writer() {
    let mut layout = Layout::three_regions(47);
    layout.nodes = 5;
    let mut cluster = cluster_of(layout);
    // Nodes 2 and 5 are of one region.
    let led: Vec<u32> = KEYS.map(|key| leader_of(&mut cluster, KEYSPACE, key)).into();
    let writer = led.iter().copied().find(|node| [1, 3, 4].contains(node));
    let writer = writer.expect("not all leaders are of one region");
    for apart in [2, 5] {
        cluster.partition(writer, apart);
    }
    cluster.run_for(Duration::from_secs(4)).unwrap();
    run_near(&mut cluster, writer, move |host| async move {
        // In its region there may be another node, which is to be left alone.
        let near = host.client.keyspace(KEYSPACE).with_level(Level::Eventual);
        for turn in 0..100 {
            for key in KEYS {
                let put = near.clone().with_receipt(ReceiptDetail::Short);
                let put = put.put(format!("{key}/{turn}"), "relayed").await?;
                let receipt = put.receipt.context("a receipt was asked for")?;
                ensure!([writer, 1, 4].contains(&receipt.node.0), "{receipt}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    });
    run_near(&mut cluster, 2, |host| async move {
        let near = host.client.keyspace(KEYSPACE).with_level(Level::Eventual);
        for key in KEYS {
            let began = host.now();
            while near.get(format!("{key}/99")).await?.value.is_none() {
                ensure!(host.now() - began < Duration::from_secs(4), "{key} does not arrive");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    });
}

/// Pitfall 30: a write that is on fewer disks than asked for has happened, and its error does not say otherwise.
#[test]
fn a_write_is_acknowledged_once_as_many_replicas_hold_it_as_its_client_wants() {
    let mut cluster = cluster(42);
    run_near(&mut cluster, 3, |host| async move {
        let keyspace = host.client.keyspace(KEYSPACE).with_receipt(ReceiptDetail::Full);
        keyspace.clone().with_level(Level::Causal).get(KEYS[0]).await?;
        for level in [Level::Causal, Level::Eventual, Level::Strict] {
            for replicas in [2, 3] {
                let asked = host.now();
                let put = keyspace.clone().with_level(level).with_ack_replicas(replicas);
                let put = put.put(KEYS[0], "held").await?;
                ensure!(host.now() - asked > ROUND_TRIP / 2, "nobody else can have it by then");
                let on = put.receipt.context("a receipt was asked for")?.durable_on;
                ensure!(on.len() >= replicas as usize, "{level}: on {on:?}");
            }
        }
        let too_many = keyspace.with_level(Level::Causal).with_ack_replicas(4);
        let error = too_many.put(KEYS[0], "held").await.map(drop).unwrap_err();
        ensure!(error.reason == Reason::ArgumentInvalid, "{error}");
        Ok(())
    });
    for node in 1..=3 {
        cluster.isolate(node);
    }
    run_near(&mut cluster, 3, |host| async move {
        let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
        let error = near
            .clone()
            .with_timeout(Duration::from_secs(2))
            .with_ack_replicas(2)
            .put(KEYS[1], "on one")
            .await
            .map(drop)
            .unwrap_err();
        ensure!(error.may_have_applied(), "it has happened: {error}");
        let got = near.get(KEYS[1]).await?.value.map(|value| value.bytes);
        ensure!(got.as_deref() == Some(b"on one"), "{got:?}");
        Ok(())
    });
}

#[test]
fn a_bound_of_staleness_is_kept_at_every_level_or_refused() {
    let mut cluster = cluster(43);
    let bound = Duration::from_millis(500);
    let read = move |level, may: bool| {
        move |host: latitude_sim::cluster::ClientHost| async move {
            let keyspace = host.client.keyspace(KEYSPACE).with_level(level);
            let keyspace = keyspace.with_max_staleness(bound).with_timeout(Duration::from_secs(5));
            let got = keyspace.with_receipt(ReceiptDetail::Full).get(KEYS[0]).await;
            match got {
                Ok(answer) => {
                    let receipt = answer.receipt.context("a receipt was asked for")?;
                    ensure!(may, "nobody can prove it: {receipt}");
                    let staleness = receipt.staleness.context("it was to be proved")?;
                    ensure!(staleness <= bound, "{level}: {staleness:?}");
                    let value = answer.value.map(|value| value.bytes);
                    ensure!(value.as_deref() == Some(b"fresh"), "{level}: {value:?}");
                }
                Err(error) => ensure!(!may, "{error}"),
            }
            Ok(())
        }
    };
    run_near(&mut cluster, 1, |host| async move {
        let keyspace = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
        keyspace.put(KEYS[0], "fresh").await?;
        Ok(())
    });
    cluster.run_for(bound).unwrap();
    for level in [Level::Causal, Level::Eventual] {
        for node in 1..=3 {
            run_near(&mut cluster, node, read(level, true));
        }
    }
    // What node 1 takes now nobody else can know.
    cluster.isolate(1);
    cluster.run_for(Duration::from_secs(1)).unwrap();
    for level in [Level::Causal, Level::Eventual] {
        run_near(&mut cluster, 3, read(level, false));
    }
}

/// Pitfall 30: a write gives way only once it has certainly not happened.
#[test]
fn a_write_that_finds_no_quorum_gives_way_to_a_level_its_client_accepts() {
    let mut cluster = cluster(44);
    for node in 1..=3 {
        cluster.isolate(node);
    }
    cluster.run_for(Duration::from_secs(5)).unwrap();
    run_near(&mut cluster, 2, |host| async move {
        let keyspace = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
        let keyspace = keyspace.with_timeout(Duration::from_secs(8));
        let refused = keyspace.put(KEYS[2], "strict").await.map(drop).unwrap_err();
        ensure!(!refused.may_have_applied(), "{refused}");
        let accepting = keyspace.with_accept([Level::Sequential, Level::Causal]);
        let receipt = accepting.put(KEYS[2], "causal").await?.receipt.context("one is given")?;
        ensure!(receipt.level_asked == Some(Level::Strict), "{receipt}");
        ensure!(receipt.level_given == Some(Level::Causal), "{receipt}");
        ensure!(receipt.fallback.is_some(), "{receipt}");
        Ok(())
    });
    cluster.heal();
    cluster.run_for(Duration::from_secs(8)).unwrap();
    run_near(&mut cluster, 1, |host| async move {
        let strict = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
        let got = strict.get(KEYS[2]).await?.value.map(|value| value.bytes);
        ensure!(got.as_deref() == Some(b"causal"), "{got:?}");
        Ok(())
    });
}

/// The same for reads, at the servers: who lists no weaker level is told what is missing, and gets none.
#[test]
fn a_read_that_finds_no_quorum_gives_way_to_a_level_its_client_accepts() {
    let mut cluster = cluster(47);
    run_near(&mut cluster, 3, |host| async move {
        host.client.keyspace(KEYSPACE).with_level(Level::Strict).put(KEYS[0], "before").await?;
        Ok(())
    });
    cluster.run_for(Duration::from_secs(2)).unwrap();
    for node in 1..=3 {
        cluster.isolate(node);
    }
    cluster.run_for(Duration::from_secs(5)).unwrap();
    run_near(&mut cluster, 3, |host| async move {
        // In a session: else any node may answer, and the others do not have what is written here.
        let keyspace = host.client.keyspace(KEYSPACE).with_receipt(ReceiptDetail::Full);
        let keyspace = keyspace.with_session(Session::new());
        keyspace.clone().with_level(Level::Causal).put(KEYS[1], "near").await?;
        let strict = keyspace.with_level(Level::Strict).with_timeout(Duration::from_secs(8));
        for (key, value) in [(KEYS[0], &b"before"[..]), (KEYS[1], &b"near"[..])] {
            let refused = strict.get(key).await.map(drop).unwrap_err();
            ensure!(refused.reason == Reason::NoQuorum, "{refused}");
            let got = strict.clone().with_accept([Level::Causal]).get(key).await?;
            let receipt = got.receipt.context("one is given")?;
            ensure!(receipt.level_asked == Some(Level::Strict), "{receipt}");
            ensure!(receipt.level_given == Some(Level::Causal), "{receipt}");
            ensure!(receipt.fallback.is_some(), "{receipt}");
            let got = got.value.map(|value| value.bytes);
            ensure!(got.as_deref() == Some(value), "{got:?}, {receipt}");
        }
        Ok(())
    });
    cluster.heal();
    cluster.run_for(Duration::from_secs(8)).unwrap();
    run_near(&mut cluster, 3, |host| async move {
        let strict = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
        let got = strict.with_accept([Level::Causal]).get(KEYS[1]).await?;
        let receipt = got.receipt.context("one is given")?;
        ensure!(receipt.level_given == Some(Level::Strict), "{receipt}");
        ensure!(receipt.fallback.is_none(), "{receipt}");
        Ok(())
    });
}

/// Pitfalls 23 and B2: what tokens need not say is in no token: after a restart a node must reach it by what it has noted
/// itself, in ranges without news as well.
#[test]
fn a_node_that_restarts_while_cut_off_serves_the_sessions_it_served_before() {
    let mut cluster = cluster(46);
    run_near(&mut cluster, 1, |host| async move {
        let near = host.client.keyspace(KEYSPACE).with_level(Level::Causal);
        near.put(KEYS[0], "before").await?;
        Ok(())
    });
    cluster.run_for(Duration::from_secs(3)).unwrap();
    let read_all = |cluster: &mut Cluster, token: Option<String>| {
        run_near(cluster, 3, move |host| {
            let token = token.clone();
            async move {
                let session = match token {
                    Some(token) => Session::from_token(&token)?,
                    None => Session::new(),
                };
                let keyspace = host.client.keyspace(KEYSPACE).with_session(session.clone());
                let keyspace = keyspace.with_level(Level::Causal);
                for (at, key) in KEYS.into_iter().enumerate() {
                    let got = keyspace.clone().with_receipt(ReceiptDetail::Full).get(key).await?;
                    let receipt = got.receipt.context("a receipt was asked for")?;
                    ensure!(
                        receipt.node == NodeId(3),
                        "{key}: {receipt}, at {:?}, attempts {}",
                        host.now(),
                        got.attempts
                    );
                    ensure!(got.value.is_some() == (at == 0), "{key}: {:?}", got.value);
                }
                session.token().context("the session has read")
            }
        })
    };
    let token = read_all(&mut cluster, None);
    cluster.crash(1, Crash::Killed);
    cluster.crash(2, Crash::Killed);
    cluster.crash(3, Crash::Killed);
    cluster.run_for(Duration::from_secs(1)).unwrap();
    cluster.restart(3);
    cluster.run_for(Duration::from_secs(5)).unwrap();
    read_all(&mut cluster, Some(token));
}

#[test]
fn a_token_forgets_what_every_node_shows() {
    let mut cluster = cluster(45);
    let mut token = None;
    for node in 1..=3 {
        let before: Option<String> = token.take();
        token = Some(run_near(&mut cluster, node, move |host| {
            let before = before.clone();
            async move {
                let session = match before {
                    Some(token) => Session::from_token(&token)?,
                    None => Session::new(),
                };
                let keyspace = host.client.keyspace(KEYSPACE).with_session(session.clone());
                keyspace.with_level(Level::Causal).put(KEYS[0], "seen").await?;
                session.token().context("the session has written")
            }
        }));
    }
    let before = token.unwrap();
    assert_eq!(seen(&before).len(), 3, "{before}");
    cluster.run_for(Duration::from_secs(5)).unwrap();
    let after = run_near(&mut cluster, 2, move |host| {
        let before = before.clone();
        async move {
            let session = Session::from_token(&before)?;
            let keyspace = host.client.keyspace(KEYSPACE).with_session(session.clone());
            keyspace.with_level(Level::Causal).get(KEYS[0]).await?;
            session.token().context("the session has read")
        }
    });
    assert_eq!(seen(&after), [], "every node shows all of it: {after}");
    assert_eq!(met(&after), 0, "every replica has applied it: {after}");
    // What one replica does not have is named: it cannot have told that it does.
    cluster.isolate(3);
    cluster.run_for(Duration::from_secs(3)).unwrap();
    let after = run_near(&mut cluster, 1, move |host| {
        let after = after.clone();
        async move {
            let session = Session::from_token(&after)?;
            let keyspace = host.client.keyspace(KEYSPACE).with_session(session.clone());
            keyspace.clone().with_level(Level::Strict).put(KEYS[0], "not at n3").await?;
            tokio::time::sleep(Duration::from_secs(4)).await;
            keyspace.with_level(Level::Causal).get(KEYS[0]).await?;
            session.token().context("the session has read")
        }
    });
    assert_eq!(met(&after), 1, "{after}");
}

/// How many entries of logs a token names.
fn met(token: &str) -> usize {
    let token = Token::decode(&BASE64.decode(token).unwrap()).unwrap();
    token.past().log.len()
}

/// The local writes that a token names as seen.
fn seen(token: &str) -> Vec<(NodeId, latitude_types::Timestamp)> {
    let token = Token::decode(&BASE64.decode(token).unwrap()).unwrap();
    token.past().seen.by_node.clone()
}
