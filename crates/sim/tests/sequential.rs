//! Sequential reads and sessions in a cluster over three regions: who answers, how old the answer may be,
//! and the executions of the design's list of pitfalls that concern them, by number.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use latitude_checker::sequential::{Verdict, litmus};
use latitude_client::{
    ClusterIdentity, Level, NodeId, Proof, RangeId, ReceiptDetail, Role, Session,
};
use latitude_consistency::Token;
use latitude_sim::workload::{KEYSPACE, Workload};
use latitude_sim::{Cluster, Layout};
use latitude_types::{Stamp, Timestamp};
use rand::RngExt;

use common::{WITHIN, run_near};

/// One way between two regions of the layout.
const ONE_WAY: Duration = Duration::from_millis(40);

/// A cluster over three regions with a keyspace of four ranges.
fn cluster(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(Layout::three_regions(seed));
    cluster.init().unwrap();
    Workload::default().prepare(&mut cluster).unwrap();
    cluster
}

/// Keys of different ranges, and who leads them; leaders have come to rest where they are preferred.
fn led_by(cluster: &mut Cluster) -> Vec<(&'static str, u32)> {
    cluster.run_for(Duration::from_secs(5)).unwrap();
    let ranges = cluster
        .run_client(WITHIN, |host| async move { host.client.admin().ranges(KEYSPACE).await });
    let ranges = ranges.unwrap().unwrap();
    let holds = |key: &str| {
        let of_key = ranges.iter().filter(|range| &range.start[..] <= key.as_bytes());
        of_key.max_by_key(|range| range.start.clone()).unwrap().leader
    };
    ["k000", "k002", "k004", "k006"].map(|key| (key, holds(key))).to_vec()
}

#[test]
fn the_nearest_replica_answers_and_proves_how_old_the_answer_may_be() {
    let mut cluster = cluster(11);
    let (key, leader) = led_by(&mut cluster)[0];
    run_near(&mut cluster, 1, move |host| async move {
        host.client.keyspace(KEYSPACE).put(key, "1").await?;
        Ok(())
    });
    for node in 1..=3 {
        run_near(&mut cluster, node, move |host| async move {
            let near = host
                .client
                .keyspace(KEYSPACE)
                .with_level(Level::Sequential)
                .with_receipt(ReceiptDetail::Full)
                .with_session(Session::new());
            // The range is in use from now on.
            near.get(key).await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            let before = host.now();
            for _ in 0..20 {
                let asked = host.now();
                let answer = near.get(key).await?;
                let took = host.now() - asked;
                let receipt = answer.receipt.context("a receipt was asked for")?;
                ensure!(receipt.node == NodeId(node), "served by {}", receipt.node);
                ensure!(took < ONE_WAY, "a read near by took {took:?}");
                ensure!(receipt.proof == Some(Proof::ClosedTime), "{receipt}");
                let role = if node == leader { Role::Leader } else { Role::Follower };
                ensure!(receipt.role == Some(role), "{receipt}");
                // It is counted from the question on, which was a way to the leader before the closed time.
                let staleness = receipt.staleness.context("a bound is proved")?;
                ensure!(staleness < Duration::from_millis(500) + 2 * ONE_WAY, "{staleness:?}");
                let closed = receipt.closed.context("a time is closed")?;
                let lag = Duration::from_millis(host.unix_ms().saturating_sub(closed.unix_ms()));
                ensure!(lag < Duration::from_millis(500) + ONE_WAY, "closed time lags by {lag:?}");
                tokio::time::sleep(Duration::from_millis(37)).await;
            }
            ensure!(host.now() > before);
            Ok(())
        });
    }
}

#[test]
fn a_range_that_nobody_has_used_costs_one_question_and_a_bound_is_kept_or_the_leader_answers() {
    let mut cluster = cluster(12);
    let led = led_by(&mut cluster);
    let (key, leader) = led[0];
    let (other_key, _) = led[3];
    run_near(&mut cluster, 1, move |host| async move {
        host.client.keyspace(KEYSPACE).put(key, "1").await?;
        // Long after its last use nobody refreshes what is known of the range.
        tokio::time::sleep(Duration::from_secs(15)).await;
        Ok(())
    });
    let away = if leader == 3 { 2 } else { 3 };
    run_near(&mut cluster, away, move |host| async move {
        let keyspace = host.client.keyspace(KEYSPACE).with_receipt(ReceiptDetail::Full);
        // Learns the way, in another range.
        keyspace.clone().with_level(Level::Sequential).get(other_key).await?;
        let session = Session::new();
        keyspace.clone().with_session(session.clone()).put(other_key, "new").await?;
        let sequential = keyspace.with_level(Level::Sequential).with_session(session.clone());
        let asked = host.now();
        let answer = sequential.get(key).await?;
        let took = host.now() - asked;
        ensure!(answer.value.is_some_and(|value| &value.bytes[..] == b"1"));
        let receipt = answer.receipt.context("a receipt was asked for")?;
        ensure!(receipt.node == NodeId(away), "{receipt}");
        ensure!(receipt.proof == Some(Proof::ClosedTime), "{receipt}");
        // To the leader, from there to its quorum (which may wait for the heartbeat before), and back.
        ensure!(took < 6 * ONE_WAY + Duration::from_millis(50), "{took:?}");
        // A bound that only the leader can keep: it answers, and no older state does.
        let strictest = sequential.with_max_staleness(Duration::ZERO);
        let receipt = strictest.get(key).await?.receipt.context("a receipt was asked for")?;
        ensure!(receipt.staleness == Some(Duration::ZERO), "{receipt}");
        ensure!(receipt.node == NodeId(leader), "{receipt}");
        ensure!(receipt.level_given == Some(Level::Sequential), "{receipt}");
        Ok(())
    });
}

/// Own writes and what was read are never lost from sight, whichever replica answers.
#[test]
fn a_session_that_travels_sees_what_it_did() {
    let mut cluster = cluster(13);
    let mut token = None;
    for (turn, node) in [1, 3, 2, 3, 1].into_iter().enumerate() {
        let before: Option<String> = token.clone();
        token = run_near(&mut cluster, node, move |host| {
            let before = before.clone();
            async move {
                let session = match before {
                    Some(token) => Session::from_token(&token)?,
                    None => Session::new(),
                };
                let keyspace = host
                    .client
                    .keyspace(KEYSPACE)
                    .with_level(Level::Sequential)
                    .with_session(session.clone());
                for earlier in 0..turn {
                    let key = format!("k00{}-t", 2 * earlier % 8);
                    let value = keyspace.get(&key).await?.value;
                    ensure!(value.is_some(), "the write of turn {earlier} is gone at {node}");
                }
                keyspace.put(format!("k00{}-t", 2 * turn % 8), "done").await?;
                Ok(session.token())
            }
        });
    }
}

/// The session's own store is written in one region and its reader sits in another: SB, MP, LB, IRIW, ...
#[test]
fn no_litmus_program_has_a_forbidden_outcome() {
    let mut cluster = cluster(14);
    let mut outcomes = 0;
    for round in 0..4 {
        for (number, program) in litmus::ALL.iter().enumerate() {
            let mut running = Vec::new();
            for steps in program.sessions {
                running.push(cluster.start_client(WITHIN, move |mut host| async move {
                    let keyspace = host
                        .client
                        .keyspace(KEYSPACE)
                        .with_level(Level::Sequential)
                        .with_session(Session::new());
                    // Both keys in use everywhere; in different ranges.
                    let name = |key: &str| {
                        let range = if key == "x" { 0 } else { 6 };
                        format!("k00{range}-{key}-{number}-{round}")
                    };
                    let mut seen = Vec::new();
                    for step in *steps {
                        let pause = host.random.random_range(0..60);
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                        match step {
                            litmus::Step::Write(key, value) => {
                                keyspace.put(name(key), value.to_string()).await?;
                            }
                            litmus::Step::Read(key) => {
                                let value = keyspace.get(name(key)).await?.value;
                                let value = value.map(|value| {
                                    String::from_utf8_lossy(&value.bytes).parse::<i64>()
                                });
                                seen.push(value.transpose()?);
                            }
                        }
                    }
                    anyhow::Ok(seen)
                }));
            }
            let deadline = cluster.now() + WITHIN;
            while running.iter().any(|client| !client.is_ready()) {
                assert!(cluster.now() < deadline, "a session did not end");
                cluster.step().unwrap();
            }
            let outcome: Vec<_> =
                running.into_iter().map(|client| client.take().unwrap().unwrap()).collect();
            let report = program.judge(&outcome).expect("a value for each read");
            assert_eq!(report.verdict, Verdict::Sequential, "{}: {outcome:?}", program.name);
            outcomes += 1;
        }
    }
    assert_eq!(outcomes, 4 * litmus::ALL.len());
}

/// In a minority: what is known is answered, nothing else is, and a weaker level only if asked for.
#[test]
fn a_replica_that_is_cut_off_answers_what_it_knows_and_falls_back_only_if_told_to() {
    let mut cluster = cluster(15);
    let (key, leader) = led_by(&mut cluster)[0];
    let cut_off = leader % 3 + 1;
    run_near(&mut cluster, leader, move |host| async move {
        host.client.keyspace(KEYSPACE).put(key, "1").await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(())
    });
    // From the other nodes only: clients reach it.
    let others: Vec<u32> = (1..=3).filter(|node| *node != cut_off).collect();
    others.iter().for_each(|other| cluster.partition(cut_off, *other));
    cluster.run_for(Duration::from_secs(3)).unwrap();
    let ahead = run_near(&mut cluster, leader, move |host| async move {
        let session = Session::new();
        host.client.keyspace(KEYSPACE).with_session(session.clone()).put(key, "2").await?;
        session.token().context("it has seen its write")
    });
    run_near(&mut cluster, cut_off, move |host| {
        let ahead = ahead.clone();
        async move {
            let keyspace = host
                .client
                .keyspace(KEYSPACE)
                .with_receipt(ReceiptDetail::Full)
                .with_timeout(Duration::from_secs(6));
            let sequential = keyspace.with_level(Level::Sequential);
            let answer = sequential.clone().with_session(Session::new()).get(key).await?;
            ensure!(answer.receipt.is_some_and(|receipt| receipt.node == NodeId(cut_off)));
            ensure!(answer.value.is_some_and(|value| &value.bytes[..] == b"1"));
            // A session that stands above what is known here is answered by another replica.
            let there = sequential.with_session(Session::from_token(&ahead)?).get(key).await?;
            ensure!(there.value.is_some_and(|value| &value.bytes[..] == b"2"));
            ensure!(there.receipt.is_some_and(|receipt| receipt.node != NodeId(cut_off)));
            Ok(())
        }
    });
    cluster.heal();
    // No node hears another one: nothing strict can be answered anywhere.
    cluster.partition(1, 2);
    cluster.partition(2, 3);
    cluster.partition(1, 3);
    cluster.run_for(Duration::from_secs(3)).unwrap();
    run_near(&mut cluster, cut_off, move |host| async move {
        let strict = host
            .client
            .keyspace(KEYSPACE)
            .with_receipt(ReceiptDetail::Full)
            .with_level(Level::Strict)
            .with_timeout(Duration::from_secs(8));
        ensure!(strict.get(key).await.is_err(), "no quorum, no strict answer");
        let answer = strict.with_accept([Level::Sequential]).get(key).await?;
        let receipt = answer.receipt.context("a receipt was asked for")?;
        ensure!(receipt.level_asked == Some(Level::Strict), "{receipt}");
        ensure!(receipt.level_given == Some(Level::Sequential), "{receipt}");
        Ok(())
    });
}

/// Pitfalls B6 and 20 (c): an entry that was stamped below the session and is still on its way to its quorum.
#[test]
fn b6_a_strict_read_waits_for_what_was_stamped_below_its_session() {
    let mut seen = [0, 0];
    for seed in 20..26 {
        let mut cluster = cluster(seed);
        let led = led_by(&mut cluster);
        let (key, leader) = led[0];
        // Another range, led elsewhere: there the session gets its time.
        let Some((elsewhere, _)) = led.into_iter().find(|(_, other)| *other != leader) else {
            continue;
        };
        let knows_the_way = Rc::new(Cell::new(false));
        let known = Rc::clone(&knows_the_way);
        let writer = cluster.start_client(WITHIN, move |host| async move {
            let keyspace = host.client.keyspace(KEYSPACE);
            // A leader has a quorum confirm it before it stamps for the first time.
            keyspace.put(key, "d").await?;
            known.set(true);
            tokio::time::sleep(Duration::from_millis(20)).await;
            keyspace.put(key, "e").await
        });
        while !knows_the_way.get() {
            cluster.step().unwrap();
        }
        // e is stamped and reaches nobody for a while.
        let others: Vec<u32> = (1..=3).filter(|node| *node != leader).collect();
        others.iter().for_each(|other| cluster.hold(leader, *other));
        cluster.run_for(Duration::from_millis(150)).unwrap();
        let reader = cluster.start_client(WITHIN, move |host| async move {
            let session = Session::new();
            let keyspace = host.client.keyspace(KEYSPACE).with_session(session.clone());
            keyspace.put(elsewhere, "w").await?;
            // Below w in the one order, if it is there at all.
            let e = keyspace.get(key).await?;
            Ok::<_, latitude_client::Error>((e.value, session.token()))
        });
        cluster.run_for(Duration::from_millis(300)).unwrap();
        others.iter().for_each(|other| cluster.release(leader, *other));
        let deadline = cluster.now() + WITHIN;
        while !(writer.is_ready() && reader.is_ready()) {
            assert!(cluster.now() < deadline, "neither may wait for ever");
            cluster.step().unwrap();
        }
        let (read, token) = reader.take().unwrap().unwrap();
        let stood = Token::decode(&BASE64.decode(token.unwrap()).unwrap()).unwrap().stood();
        if let Ok(written) = writer.take().unwrap() {
            let below = written.value.time < stood.time;
            seen[usize::from(below)] += 1;
            assert!(
                !below || read.is_some_and(|value| &value.bytes[..] == b"e"),
                "seed {seed}: the session stands at {stood} and has not seen what is below"
            );
        }
    }
    assert!(seen[1] > 0, "no run had the entry below the session: {seen:?}");
}

/// Pitfall 8: a leader stamps, is deposed before anybody has the entry, and is elected again. What it had stamped is
/// below what its successor closed, so it must not come back as it was.
#[test]
fn p8_what_was_stamped_before_another_leader_closed_is_not_appended_after() {
    for seed in 30..33 {
        let mut cluster = cluster(seed);
        let (key, old) = led_by(&mut cluster)[0];
        run_near(&mut cluster, old, move |host| async move {
            // A leader has a quorum confirm it before it stamps for the first time.
            host.client.keyspace(KEYSPACE).put(key, "a").await?;
            Ok(())
        });
        let others: Vec<u32> = (1..=3).filter(|node| *node != old).collect();
        others.iter().for_each(|other| cluster.partition(old, *other));
        let region = cluster.layout().regions[old as usize - 1].clone();
        // Of three clients one is near the old leader, and writes to it at once: the entry reaches nobody.
        let near = Rc::new(Cell::new(0));
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let (region, near) = (region.clone(), Rc::clone(&near));
                cluster.start_client(WITHIN, move |host| async move {
                    if host.region != region {
                        return None;
                    }
                    near.set(near.get() + 1);
                    // Not longer than the others take to elect, so that none of them is asked.
                    let keyspace = host.client.keyspace(KEYSPACE);
                    Some(keyspace.with_timeout(Duration::from_secs(1)).put(key, "e").await)
                })
            })
            .collect();
        let token = run_near(&mut cluster, others[0], move |host| async move {
            let session = Session::new();
            let keyspace = host.client.keyspace(KEYSPACE).with_session(session.clone());
            let patient = keyspace.with_timeout(Duration::from_secs(40));
            patient.put(key, "c").await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            // A time is closed above it, and relied on.
            let fresh = patient.clone().with_max_staleness(Duration::from_millis(500));
            fresh.with_level(Level::Sequential).get(key).await?;
            session.token().context("it has seen its write")
        });
        assert_eq!(near.get(), 1);
        let stood = Token::decode(&BASE64.decode(&token).unwrap()).unwrap().stood();
        cluster.heal();
        run_near(&mut cluster, old, move |host| async move {
            let admin = host.client.admin();
            loop {
                let ranges = admin.ranges(KEYSPACE).await?;
                let of_key = ranges.iter().filter(|range| &range.start[..] <= key.as_bytes());
                let range =
                    of_key.max_by_key(|range| range.start.clone()).context("it is there")?;
                if range.leader == old {
                    return Ok(());
                }
                // It may lag, or be on its way.
                let _ = admin.transfer_leader(RangeId(range.range_id), NodeId(old)).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        let outcome = writers.into_iter().find_map(|writer| writer.take().unwrap()).unwrap();
        assert!(
            outcome.is_err_and(|error| error.may_have_applied()),
            "seed {seed}: it was stamped"
        );
        let last = run_near(&mut cluster, old, move |host| async move {
            let keyspace = host.client.keyspace(KEYSPACE).with_level(Level::Strict);
            let found = keyspace.get(key).await?.value.context("it was written")?;
            ensure!(&found.bytes[..] == b"c", "seed {seed}: {found:?}");
            Ok(keyspace.put(key, "f").await?.value.time)
        });
        assert!(last > stood.time, "seed {seed}: {last} is not above {stood}");
    }
}

/// Pitfalls 22 and B19: a token's clock is waited for, or refused; one of another cluster means nothing.
#[test]
fn tokens_from_the_future_and_from_elsewhere_are_refused() {
    let mut cluster = cluster(16);
    run_near(&mut cluster, 1, |host| async move {
        let about = host.client.cluster().await?;
        let ours = about.identity.context("it is initialized")?;
        let at = |cluster, ahead_ms| {
            let mut token = Token::new(cluster);
            let time = Timestamp::from_ms(about.clock.ms() + ahead_ms);
            token.stand_at(Stamp { time, node: NodeId(1) });
            Session::from_token(&BASE64.encode(token.encode()))
        };
        let with = |session| {
            host.client.keyspace(KEYSPACE).with_level(Level::Sequential).with_session(session)
        };
        let asked = host.now();
        with(at(ours, 400)?).get("k000").await?;
        ensure!(host.now() - asked > Duration::from_millis(50), "it was waited for");
        let error = with(at(ours, 60_000)?).get("k000").await.unwrap_err();
        ensure!(error.reason.name() == "TOKEN_FROM_FUTURE", "{error}");
        let restored = ClusterIdentity { incarnation: ours.incarnation + 1, ..ours };
        let error = with(at(restored, 0)?).get("k000").await.unwrap_err();
        ensure!(error.reason.name() == "TOKEN_FOREIGN", "{error}");
        Ok(())
    });
}
