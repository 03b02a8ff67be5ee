//! Sessions and sequential reads against a scripted cluster. Time is paused.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test binary uses its part of it")]
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::future::join_all;
use latitude_client::{
    Client, ClusterIdentity, Error, Expected, Keyspace, Level, Operation, Reason, ReceiptDetail,
    Scan, Session, Timestamp,
};
use latitude_consistency::Token;
use latitude_rpc::pb::v1;
use support::{Act, Cluster, FakeRange, Seen, address, not_leader, token_from_future};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A client in the region `eu` that knows n1.
fn client(cluster: &Cluster, seed: u64) -> Client {
    Client::builder()
        .seeds([address(1)])
        .region("eu")
        .net(std::sync::Arc::clone(&cluster.net) as _)
        .random_seed(seed)
        .build()
}

fn sequential(cluster: &Cluster) -> Keyspace {
    client(cluster, 1).keyspace("zones").with_level(Level::Sequential)
}

/// The leader n1 is in another region; n2 is near, n3 still nearer.
async fn spread() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.place(1, "us", ms(80));
    cluster.place(2, "eu", ms(30));
    cluster.place(3, "eu", ms(5));
    cluster
}

/// A handle that has measured n2 and n3, and the number of commands until then.
async fn measured(cluster: &Cluster) -> (Keyspace, usize) {
    let zones = sequential(cluster);
    for _ in 0..2 {
        zones.get("a").await.unwrap();
        tokio::time::sleep(ms(50)).await;
    }
    let before = cluster.seen().len();
    (zones, before)
}

fn behind() -> Error {
    Error::new(Reason::ReplicaBehind, "the replica's closed time is below the session's")
}

fn nodes(seen: &[Seen]) -> Vec<u32> {
    seen.iter().map(|seen| seen.node).collect()
}

fn token_of(seen: &Seen) -> Token {
    Token::decode_for(&seen.command.token, support::CLUSTER).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_session_begins_also_where_no_receipts_are_asked_for() {
    let cluster = Cluster::start().await;
    let session = Session::new();
    let zones = sequential(&cluster).with_receipt(ReceiptDetail::None);
    let zones = zones.with_session(session.clone());
    for _ in 0..2 {
        assert_eq!(zones.put("a", "1").await.unwrap().receipt, None);
        assert!(session.token().is_some());
    }
    let seen = cluster.seen();
    let receipts: Vec<_> = seen.iter().map(|seen| seen.command.receipt()).collect();
    assert_eq!(receipts, [v1::ReceiptDetail::Short, v1::ReceiptDetail::None]);
}

#[tokio::test(start_paused = true)]
async fn a_sequential_read_goes_to_the_nearest_replica_whatever_its_role() {
    let cluster = spread().await;
    let (zones, before) = measured(&cluster).await;
    for _ in 0..3 {
        let answer = zones.get("a").await.unwrap();
        assert_eq!((answer.attempts, answer.latency), (1, Duration::ZERO));
    }
    let seen = cluster.seen().split_off(before);
    assert_eq!(nodes(&seen), [3, 3, 3]);
    assert!(seen.iter().all(|seen| seen.command.level == v1::Level::Sequential as i32));
    // A write of the same handle, and a strict read, go to the leader.
    zones.put("a", "1").await.unwrap();
    zones.clone().with_level(Level::Strict).get("a").await.unwrap();
    let seen = cluster.seen().split_off(before + 3);
    assert_eq!(nodes(&seen), [1, 1]);
    assert!(seen.iter().all(|seen| seen.command.no_forward));
}

#[tokio::test(start_paused = true)]
async fn a_region_counts_more_than_a_round_trip() {
    let cluster = Cluster::start().await;
    cluster.place(1, "us", Duration::ZERO);
    cluster.place(2, "ap", Duration::ZERO);
    cluster.place(3, "eu", ms(20));
    let zones = sequential(&cluster);
    for _ in 0..3 {
        zones.get("a").await.unwrap();
        tokio::time::sleep(ms(50)).await;
    }
    assert_eq!(nodes(&cluster.seen()), [3, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_cannot_serve_is_left_at_once_for_the_next_nearest() {
    for reason in [Reason::ReplicaBehind, Reason::StalenessUnproved, Reason::ShuttingDown] {
        let cluster = spread().await;
        let (zones, before) = measured(&cluster).await;
        let refusal = Error::new(reason, "not here").retry_after(ms(400));
        cluster.script(3, [Act::Fail(refusal.clone())]);
        cluster.script(2, [Act::Fail(refusal)]);
        let answer = zones.get("a").await.unwrap();
        assert_eq!(nodes(&cluster.seen().split_off(before)), [3, 2, 1], "{reason}");
        assert_eq!((answer.attempts, answer.latency), (3, Duration::ZERO), "{reason}");
        // The nearest is still the nearest.
        zones.get("a").await.unwrap();
        assert_eq!(cluster.seen().pop().unwrap().node, 3, "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_no_replica_can_serve_they_are_asked_again_after_a_pause_until_the_deadline() {
    let cluster = spread().await;
    let (zones, before) = measured(&cluster).await;
    let located = cluster.locates();
    for node in support::NODES {
        cluster.habit(node, Act::Fail(behind()));
    }
    let zones = zones.with_timeout(Duration::from_secs(2));
    let error = zones.get("a").await.unwrap_err();
    assert_eq!((error.reason, error.may_have_applied()), (Reason::ReplicaBehind, false));
    let asked = cluster.seen().len() - before;
    assert!((6..200).contains(&asked), "{asked}");
    // At first the client looks for a replica itself, then whoever it reaches may.
    let seen = cluster.seen().split_off(before);
    assert!(seen[..3].iter().all(|seen| seen.command.no_forward));
    assert!(seen[3..].iter().all(|seen| !seen.command.no_forward));
    assert_eq!(cluster.locates(), located, "the map was right");
}

#[tokio::test(start_paused = true)]
async fn a_silent_replica_costs_a_share_of_the_deadline() {
    let cluster = spread().await;
    let (zones, before) = measured(&cluster).await;
    cluster.habit(3, Act::Silent);
    cluster.habit(2, Act::Silent);
    let answer = zones.with_timeout(ms(900)).get("a").await.unwrap();
    assert!(answer.latency < ms(700), "{:?}", answer.latency);
    let seen = cluster.seen().split_off(before);
    assert_eq!(nodes(&seen), [3, 2, 1]);
    // Each was told its share, none was to pass it on; the last one may take what is left.
    assert!(seen.iter().all(|seen| seen.command.no_forward));
    let times: Vec<_> = seen.iter().map(|seen| seen.command.timeout_ms).collect();
    assert_eq!(times[0], 300);
    assert!(times[1] < 310 && times[2] > 200, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_share_has_passed_is_not_the_end_of_the_read() {
    let cluster = spread().await;
    let (zones, before) = measured(&cluster).await;
    let late = Error::new(Reason::DeadlineExceeded, "the closed time did not come in time");
    cluster.script(3, [Act::Fail(late.clone())]);
    zones.get("a").await.unwrap();
    assert_eq!(nodes(&cluster.seen().split_off(before)), [3, 2]);
    // Of a strict read it is.
    cluster.script(1, [Act::Fail(late)]);
    let error = zones.with_level(Level::Strict).get("a").await.unwrap_err();
    assert_eq!(error.reason, Reason::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn without_a_session_no_token_is_sent() {
    let cluster = Cluster::start().await;
    let zones = sequential(&cluster);
    zones.put("a", "1").await.unwrap();
    let answer = zones.get("a").await.unwrap();
    assert!(cluster.seen().iter().all(|seen| seen.command.token.is_empty()));
    // What the reply said is still there for whoever asks.
    Token::decode_for(&answer.token, support::CLUSTER).unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_operation_of_a_session_carries_what_the_earlier_ones_have_seen() {
    let cluster = Cluster::start().await;
    let session = Session::new();
    let zones = sequential(&cluster).with_session(session.clone());
    assert_eq!(session.token(), None);
    let put = zones.put("a", "1").await.unwrap();
    tokio::time::sleep(ms(10)).await;
    // Levels mix in one session.
    zones.clone().with_level(Level::Strict).get("a").await.unwrap();
    zones.get("b").await.unwrap();
    let seen = cluster.seen();
    assert!(seen[0].command.token.is_empty());
    assert_eq!(seen[1].command.token, put.token);
    assert!(token_of(&seen[2]).stood() > token_of(&seen[1]).stood());
    assert!(session.token().is_some());
}

#[tokio::test(start_paused = true)]
async fn operations_side_by_side_lose_nothing_that_one_of_them_has_seen() {
    let cluster = Cluster::start_with(vec![
        FakeRange { id: 7, start: "", end: Some("m"), leader: 1 },
        FakeRange { id: 8, start: "m", end: None, leader: 2 },
    ])
    .await;
    let session = Session::new();
    let zones = sequential(&cluster).with_session(session.clone());
    cluster.script(1, [Act::After(ms(300))]);
    let results = zones.batch(vec![Operation::put("a", "1"), Operation::put("z", "2")]).await;
    assert!(results.iter().all(Result::is_ok));
    zones.get("a").await.unwrap();
    let known = token_of(&cluster.seen()[2]);
    let ranges: Vec<_> = known.past().log.iter().map(|(range, ..)| range.0).collect();
    assert_eq!(ranges, [7, 8]);

    // Also from many tasks at once.
    let puts = (0..200).map(|i| {
        let zones = zones.clone();
        tokio::spawn(async move { zones.put(format!("{i:03}"), "x").await.unwrap().token })
    });
    let tokens: Vec<_> = join_all(puts).await.into_iter().map(Result::unwrap).collect();
    zones.get("a").await.unwrap();
    let known = token_of(&cluster.seen().pop().unwrap());
    for token in tokens {
        let mut both = known.clone();
        both.join(&Token::decode(&token).unwrap()).unwrap();
        assert_eq!(both, known);
    }
}

#[tokio::test(start_paused = true)]
async fn the_parts_of_a_scan_follow_each_other() {
    let cluster = Cluster::start_with(vec![
        FakeRange { id: 7, start: "", end: Some("m"), leader: 1 },
        FakeRange { id: 8, start: "m", end: None, leader: 2 },
    ])
    .await;
    let session = Session::new();
    let zones = sequential(&cluster).with_session(session.clone());
    zones.scan(Scan::all()).await.unwrap();
    let seen = cluster.seen();
    assert!(seen[0].command.token.is_empty() && !seen[1].command.token.is_empty());
    let known = Session::from_token(&session.token().unwrap()).unwrap();
    assert_eq!(known.token(), session.token());
}

/// Contract 1.1: a scan is a sequence of reads. One without a session is a session of its own, not as many as it has parts,
/// and its caller is given no more than was asked for.
#[tokio::test(start_paused = true)]
async fn the_parts_of_a_scan_without_a_session_follow_each_other() {
    let cluster = Cluster::start_with(vec![
        FakeRange { id: 7, start: "", end: Some("m"), leader: 1 },
        FakeRange { id: 8, start: "m", end: None, leader: 2 },
    ])
    .await;
    for receipt in [ReceiptDetail::None, ReceiptDetail::Full] {
        let before = cluster.seen().len();
        let answer = sequential(&cluster).with_receipt(receipt).scan(Scan::all()).await.unwrap();
        let seen = cluster.seen();
        let [first, second] = &seen[before..] else { panic!("{} parts", seen.len() - before) };
        assert!(first.command.token.is_empty() && !second.command.token.is_empty());
        let is_told = receipt == ReceiptDetail::Full;
        assert_eq!((answer.receipt.is_some(), !answer.token.is_empty()), (is_told, is_told));
    }
}

/// Contract 1.1: the parts of a causal scan are closed over each other's pasts, or the receipt says that they are not; each
/// server knows its own range alone.
#[tokio::test(start_paused = true)]
async fn a_causal_scan_of_several_ranges_says_that_it_is_not_closed() {
    let cluster = Cluster::start_with(vec![
        FakeRange { id: 7, start: "", end: Some("m"), leader: 1 },
        FakeRange { id: 8, start: "m", end: None, leader: 2 },
    ])
    .await;
    let zones = client(&cluster, 1).keyspace("zones").with_receipt(ReceiptDetail::Full);
    for (level, scan, not_closed) in [
        (Level::Causal, Scan::all(), true),
        (Level::Causal, Scan::span("a", "b"), false),
        (Level::Sequential, Scan::all(), false),
    ] {
        let answer = zones.clone().with_level(level).scan(scan).await.unwrap();
        let receipt = answer.receipt.unwrap();
        assert_eq!(receipt.not_closed, not_closed, "{level}: {receipt}");
        assert!(receipt.covers_session);
    }
}

#[tokio::test(start_paused = true)]
async fn another_process_goes_on_with_a_session_and_its_births_are_above_it() {
    let cluster = Cluster::start().await;
    let first = Session::new();
    let zones = sequential(&cluster).with_session(first.clone());
    zones.put("a", "1").await.unwrap();
    let cookie = first.token().unwrap();
    // The node that the other process asks has a clock that lags.
    cluster.set_clock_back(400);
    let second = Session::from_token(&cookie).unwrap();
    let zones =
        client(&cluster, 2).keyspace("zones").with_level(Level::Sequential).with_session(second);
    zones.put("a", "2").await.unwrap();
    let last = cluster.seen().pop().unwrap();
    assert_eq!(BASE64.encode(&last.command.token), cookie);
    assert!(Timestamp(last.id().birth) > token_of(&last).clock());
}

#[tokio::test(start_paused = true)]
async fn a_session_of_the_future_is_refused_before_a_write_and_spoils_no_other() {
    let mut token = Token::new(support::CLUSTER);
    token.meet_clock(Timestamp::from_ms(9_000_000));
    let text = BASE64.encode(token.encode());
    let cluster = Cluster::start().await;
    let zones = sequential(&cluster);
    let future = zones.clone().with_session(text.parse().unwrap());
    let error = future.put("a", "1").await.unwrap_err();
    assert_eq!((error.reason, error.may_have_applied()), (Reason::TokenFromFuture, false));
    assert!(cluster.seen().is_empty());
    zones.put("a", "1").await.unwrap();
    assert!(Timestamp(cluster.seen()[0].id().birth) < Timestamp::from_ms(1_001_000));
}

#[tokio::test(start_paused = true)]
async fn a_retried_write_is_in_its_session_and_a_failed_one_is_not() {
    let cluster = Cluster::start().await;
    let session = Session::new();
    let zones = sequential(&cluster).with_session(session.clone());
    cluster.script(1, [Act::ApplyAndCut]);
    let put = zones.put("a", "1").await.unwrap();
    assert!(put.attempts > 1);
    zones.get("b").await.unwrap();
    assert_eq!(cluster.seen().pop().unwrap().command.token, put.token);

    let before = session.token();
    cluster.script(1, [Act::ApplyAndCut]);
    for node in support::NODES {
        cluster.habit(node, Act::Fail(not_leader(7, None)));
    }
    let error = zones.with_timeout(ms(800)).put("a", "2").await.unwrap_err();
    assert!(error.may_have_applied());
    assert_eq!(session.token(), before);
    session.check().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_cluster_refuses_is_the_end_of_the_operation() {
    for reason in [Reason::TokenForeign, Reason::TokenInvalid] {
        let cluster = Cluster::start().await;
        let zones = sequential(&cluster).with_session(Session::new());
        cluster.script(1, [Act::Fail(Error::new(reason, "not ours"))]);
        let error = zones.get("a").await.unwrap_err();
        assert_eq!((error.reason, cluster.seen().len()), (reason, 1));
    }
}

/// It may be the node's clock that is wrong.
#[tokio::test(start_paused = true)]
async fn a_node_to_which_a_session_is_of_the_future_is_left_for_another() {
    for level in [Level::Sequential, Level::Causal, Level::Eventual] {
        let cluster = Cluster::start().await;
        let zones = sequential(&cluster).with_level(level).with_session(Session::new());
        cluster.habit(1, Act::Fail(token_from_future()));
        let answer = zones.get("a").await.unwrap();
        assert_eq!((answer.attempts, answer.latency), (2, Duration::ZERO), "{level}");
        assert_eq!(nodes(&cluster.seen()), [1, 2], "{level}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_of_the_future_to_every_node_is() {
    for level in [Level::Strict, Level::Sequential] {
        let cluster = Cluster::start().await;
        let zones = sequential(&cluster).with_level(level).with_session(Session::new());
        (1..=3).for_each(|node| cluster.habit(node, Act::Fail(token_from_future())));
        let error = zones.get("a").await.unwrap_err();
        assert_eq!((error.reason, error.may_have_applied()), (Reason::TokenFromFuture, false));
        assert_eq!(nodes(&cluster.seen()), [1, 2, 3], "{level}");
        let error = zones.put("a", "1").await.unwrap_err();
        assert_eq!((error.reason, error.may_have_applied()), (Reason::TokenFromFuture, false));
    }
    // Nor does one that says nothing say otherwise.
    let cluster = Cluster::start().await;
    let zones = sequential(&cluster).with_session(Session::new()).with_timeout(ms(2000));
    (1..=2).for_each(|node| cluster.habit(node, Act::Fail(token_from_future())));
    cluster.net.refuse(&address(3));
    let error = zones.get("a").await.unwrap_err();
    assert_eq!(error.reason, Reason::TokenFromFuture, "{error}");
}

/// A leader whose clock is slow hands over before long.
#[tokio::test(start_paused = true)]
async fn a_leader_to_which_a_session_is_of_the_future_is_asked_until_another_leads() {
    let cluster = Cluster::start().await;
    let zones = sequential(&cluster).with_session(Session::new());
    cluster.habit(1, Act::Fail(token_from_future()));
    let put = tokio::spawn(async move { zones.put("a", "1").await });
    tokio::time::sleep(ms(1500)).await;
    let asked = cluster.seen().len();
    assert!((4..60).contains(&asked), "{asked}");
    cluster.set_leader(2);
    let put = put.await.unwrap().unwrap();
    assert!(put.latency < ms(2500), "{:?}", put.latency);
    assert_eq!(cluster.applied(), 1);
}

/// After a standstill the client's estimate of the cluster's clock is of before it, and one node alone is not believed.
#[tokio::test(start_paused = true)]
async fn a_session_that_seems_of_the_future_after_a_standstill_has_other_nodes_asked() {
    let cluster = Cluster::start().await;
    let zones = sequential(&cluster);
    zones.put("a", "1").await.unwrap();
    cluster.set_clock_forward(60_000);
    let mut token = Token::new(support::CLUSTER);
    token.meet_clock(cluster.now());
    let session = Session::from_token(&BASE64.encode(token.encode())).unwrap();
    let put = zones.with_session(session).put("a", "2").await.unwrap();
    assert_eq!(put.attempts, 1);
    assert!(Timestamp(cluster.seen()[1].id().birth) > token.clock());
}

#[tokio::test(start_paused = true)]
async fn a_reply_whose_token_cannot_be_read_is_a_success_and_the_next_operation_is_not_sent() {
    type Change = fn(&mut v1::Reply);
    let damage: [(Change, Reason); 3] = [
        (|reply| reply.token = "no token".into(), Reason::TokenInvalid),
        (|reply| reply.token.clear(), Reason::TokenInvalid),
        (
            |reply| {
                let other = ClusterIdentity { incarnation: 2, ..support::CLUSTER };
                reply.token = Token::new(other).encode().into();
            },
            Reason::TokenForeign,
        ),
    ];
    for (change, reason) in damage {
        let cluster = Cluster::start().await;
        let session = Session::new();
        let zones = sequential(&cluster).with_session(session.clone());
        zones.get("a").await.unwrap();
        cluster.script(1, [Act::Change(change)]);
        zones.put("a", "1").await.unwrap();
        let sent = cluster.seen().len();
        let errors = [
            zones.put("a", "2").await.unwrap_err(),
            zones.scan(Scan::all()).await.unwrap_err(),
            session.check().unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.reason, error.may_have_applied()), (reason, false));
            assert!(error.message.contains("no longer knows"), "{error}");
        }
        assert_eq!(cluster.seen().len(), sent);
        zones.with_session(Session::new()).get("a").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn reads_say_how_stale_they_may_be_and_what_else_they_accept() {
    let cluster = Cluster::start().await;
    let zones = sequential(&cluster)
        .with_max_staleness(ms(500))
        .with_accept([Level::Causal, Level::Eventual]);
    zones.get("a").await.unwrap();
    zones.scan(Scan::all()).await.unwrap();
    zones.put("a", "1").await.unwrap();
    let seen = cluster.seen();
    let stale: Vec<_> = seen.iter().map(|seen| seen.command.max_staleness_ms).collect();
    assert_eq!(stale, [Some(500), Some(500), None]);
    let accept: Vec<_> = seen.iter().map(|seen| &seen.command.accept[..]).collect();
    assert_eq!(accept, [&[3, 4][..], &[3, 4], &[]], "a write gives way before it is sent");

    for level in [Level::Strict, Level::Sequential] {
        let error = zones.clone().with_accept([level]).get("a").await.unwrap_err();
        assert_eq!(error.reason, Reason::ArgumentInvalid);
        assert!(error.message.contains("not weaker"), "{error}");
    }
    assert_eq!(cluster.seen().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_weaker_level_that_was_accepted_is_a_success() {
    let cluster = Cluster::start().await;
    let zones = sequential(&cluster).with_accept([Level::Eventual]);
    cluster.script(
        1,
        [Act::Change(|reply| {
            let receipt = reply.receipt.as_mut().unwrap();
            receipt.level_asked = v1::Level::Sequential as i32;
            receipt.level_given = v1::Level::Eventual as i32;
        })],
    );
    let receipt = zones.get("a").await.unwrap().receipt.unwrap();
    assert_eq!(receipt.level_asked, Some(Level::Sequential));
    assert_eq!(receipt.level_given, Some(Level::Eventual));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_have_happened_gives_way_to_nothing() {
    let cluster = Cluster::start().await;
    let zones = sequential(&cluster).with_level(Level::Strict).with_accept([Level::Causal]);
    cluster.script(1, [Act::Fail(behind()), Act::ApplyAndCut]);
    cluster.habit(2, Act::Fail(not_leader(7, Some(1))));
    cluster.habit(3, Act::Fail(not_leader(7, Some(1))));
    zones.put("a", "1").await.unwrap();
    let seen = cluster.seen();
    assert!(seen.len() > 2, "the unknown attempt is followed by others");
    let first = &seen[0].command;
    assert!(seen.iter().all(|seen| (seen.command.level, &seen.command.id) == (1, &first.id)));
    assert_eq!(cluster.applied(), 1);
}

/// At another level it is another write: were the ids the same, a copy that comes late could count twice.
#[tokio::test(start_paused = true)]
async fn a_write_gives_way_with_another_id_and_only_if_it_has_no_condition() {
    let cluster = Cluster::start().await;
    let zones = sequential(&cluster).with_level(Level::Strict).with_accept([Level::Causal]);
    let zones = zones.with_timeout(ms(4000));
    (1..=3).for_each(|node| cluster.habit(node, Act::Fail(behind())));
    let error = zones.put("a", "1").await.unwrap_err();
    assert!(!error.may_have_applied(), "{error}");
    let seen = cluster.seen();
    let of_level = |level| {
        let ids = seen.iter().filter(move |seen| seen.command.level == level);
        ids.map(|seen| seen.command.id.clone().unwrap().sequence).collect::<BTreeSet<_>>()
    };
    let (strict, causal) = (of_level(1), of_level(3));
    assert_eq!((strict.len(), causal.len()), (1, 1));
    assert!(strict.is_disjoint(&causal));
    zones.compare_and_set("a", Expected::Absent, Some("1".into())).await.unwrap_err();
    let conditional = &cluster.seen()[seen.len()..];
    assert!(conditional.iter().all(|seen| seen.command.level == 1));
}

/// A partition that has no leader in it can still give what was accepted, if it is asked to.
#[tokio::test(start_paused = true)]
async fn a_strict_read_that_accepts_less_lets_any_node_answer_once_the_leader_has_failed() {
    let cluster = Cluster::start().await;
    let zones = sequential(&cluster).with_level(Level::Strict).with_accept([Level::Sequential]);
    zones.get("a").await.unwrap();
    cluster.net.refuse(&address(1));
    zones.get("a").await.unwrap();
    let last = cluster.seen().pop().unwrap();
    assert_ne!(last.node, 1);
    assert_eq!((last.command.level, &last.command.accept[..]), (1, &[2][..]));
    assert!(!last.command.no_forward);
}
