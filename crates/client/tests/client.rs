//! The client against a scripted cluster. Time is paused: what takes seconds here takes none.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test binary uses its part of it")]
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use latitude_client::wire::CreateKeyspaceRequest;
use latitude_client::{
    CasOutcome, Client, Error, Expected, Keyspace, Level, NodeId, Operation, Outcome, RangeId,
    Reason, Scan,
};
use latitude_rpc::status_from_error;
use latitude_types::{KeyspaceId, Timestamp};
use support::{Act, Cluster, FakeRange, address, id_expired, id_retired, not_leader};
use tokio::time::Instant;
use tonic::Status;

fn zones(cluster: &Cluster) -> Keyspace {
    cluster.client().keyspace("zones")
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn no_quorum() -> Error {
    Error::new(Reason::NoQuorum, "two of three do not answer")
}

async fn get(keyspace: &Keyspace, key: &str) -> Option<Bytes> {
    keyspace.get(key).await.unwrap().value.map(|value| value.bytes)
}

#[tokio::test(start_paused = true)]
async fn what_is_put_is_read_and_what_is_deleted_is_gone() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    let put = zones.put("a", "1").await.unwrap();
    assert_eq!(put.attempts, 1);
    assert_eq!(put.receipt.unwrap().node.0, 1);
    let value = zones.get("a").await.unwrap().value.unwrap();
    assert_eq!((&value.bytes[..], value.version), (&b"1"[..], put.value));
    zones.delete("a").await.unwrap();
    assert_eq!(get(&zones, "a").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_condition_is_judged_and_a_mismatch_is_no_error() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    let first = zones.put_if_absent("a", "1").await.unwrap().value;
    let CasOutcome::Applied { version } = first else { panic!("{first:?}") };
    let again = zones.put_if_absent("a", "2").await.unwrap().value;
    assert_eq!(again, CasOutcome::Mismatch { found: Some(version) });
    let by_version = Expected::Version(version);
    assert!(zones.compare_and_set("a", by_version, None).await.unwrap().value.is_applied());
    let by_value = Expected::Value("1".into());
    let gone = zones.compare_and_set("a", by_value, Some("3".into())).await.unwrap().value;
    assert_eq!(gone, CasOutcome::Mismatch { found: None });
}

#[tokio::test(start_paused = true)]
async fn a_redirection_is_followed_at_once_and_remembered() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    zones.put("a", "1").await.unwrap();
    cluster.set_leader(3);
    let put = zones.put("a", "2").await.unwrap();
    assert_eq!((put.attempts, put.latency), (2, Duration::ZERO));
    assert_eq!(zones.put("a", "3").await.unwrap().attempts, 1);
    let nodes: Vec<_> = cluster.seen().iter().map(|seen| seen.node).collect();
    assert_eq!(nodes, [1, 1, 3, 3]);
    assert!(cluster.seen().iter().all(|seen| seen.command.no_forward));
}

#[tokio::test(start_paused = true)]
async fn without_a_hint_the_other_replicas_are_asked() {
    let cluster = Cluster::start().await;
    cluster.set_leader(3);
    cluster.script(3, [Act::Fail(not_leader(7, None))]);
    cluster.habit(1, Act::Fail(not_leader(7, None)));
    cluster.habit(2, Act::Fail(not_leader(7, None)));
    let put = zones(&cluster).put("a", "1").await.unwrap();
    let nodes: Vec<_> = cluster.seen().iter().map(|seen| seen.node).collect();
    assert_eq!(nodes[..3].iter().collect::<BTreeSet<_>>().len(), 3, "{nodes:?}");
    assert_eq!(nodes.last(), Some(&3));
    assert!(put.latency < ms(500), "{:?}", put.latency);
    assert_eq!(cluster.applied(), 1);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_redirect_in_circles_are_not_asked_without_pause() {
    let cluster = Cluster::start().await;
    cluster.habit(1, Act::Fail(not_leader(7, Some(2))));
    cluster.habit(2, Act::Fail(not_leader(7, Some(1))));
    let zones = zones(&cluster).with_timeout(Duration::from_secs(5));
    let error = zones.put("a", "1").await.unwrap_err();
    assert_eq!((error.reason, error.may_have_applied()), (Reason::DeadlineExceeded, false));
    assert!(error.message.contains("NOT_LEADER"), "{error}");
    assert!(cluster.seen().len() < 200, "{}", cluster.seen().len());
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_stream_is_cut_is_retried_with_its_id_and_counts_once() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    cluster.script(1, [Act::ApplyAndCut]);
    let put = zones.put_if_absent("a", "1").await.unwrap();
    assert!(put.value.is_applied(), "the retry is told what the first attempt did");
    assert!(put.attempts > 1);
    assert_eq!(cluster.applied(), 1);
    let ids: BTreeSet<_> =
        cluster.seen().iter().map(|seen| (seen.id().birth, seen.id().sequence)).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_unknown_stays_unknown_at_the_deadline() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster).with_timeout(Duration::from_secs(3));
    cluster.script(1, [Act::ApplyAndCut]);
    for node in support::NODES {
        cluster.habit(node, Act::Fail(no_quorum()));
    }
    let error = zones.put("a", "1").await.unwrap_err();
    assert_eq!(error.reason, Reason::NoQuorum);
    assert!(error.may_have_applied());
    assert!(error.message.contains("NO_QUORUM"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_no_attempt_can_have_done_is_not_applied_at_the_deadline() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster).with_timeout(Duration::from_secs(3));
    for node in support::NODES {
        cluster.habit(node, Act::Fail(no_quorum()));
    }
    let before = Instant::now();
    let error = zones.put("a", "1").await.unwrap_err();
    assert_eq!((error.reason, error.may_have_applied()), (Reason::NoQuorum, false));
    assert_eq!(before.elapsed().as_secs(), 3);
}

/// In a minority: the node near by says which quorum is missing, and the others say nothing. Whichever was asked last.
#[tokio::test(start_paused = true)]
async fn what_a_node_said_outweighs_that_others_cannot_be_reached() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    assert_eq!(get(&zones, "a").await, None);
    cluster.habit(1, Act::Fail(no_quorum()));
    for node in [2, 3] {
        cluster.net.refuse(&address(node));
    }
    for timeout in (1000..3000).step_by(170) {
        let error = zones.clone().with_timeout(ms(timeout)).put("a", "1").await.unwrap_err();
        assert_eq!(error.reason, Reason::NoQuorum, "{error}");
        assert!(error.message.contains("two of three do not answer"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_without_what_it_needs_folded_fails_for_that_reason() {
    let cluster = Cluster::start().await;
    for node in support::NODES {
        let error = Error::new(Reason::NotFolded, "local writes are not here");
        cluster.habit(node, Act::Fail(error));
    }
    let error = zones(&cluster).with_timeout(ms(1500)).get("a").await.unwrap_err();
    assert_eq!(error.reason, Reason::NotFolded, "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_id_retired_after_an_unknown_attempt_is_unknown_and_before_it_is_not() {
    let retired = id_retired();
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    cluster.script(1, [Act::Fail(retired.clone())]);
    let error = zones.put("a", "1").await.unwrap_err();
    assert_eq!((error.reason, error.may_have_applied()), (Reason::IdRetired, false));
    cluster.script(1, [Act::ApplyAndCut]);
    for node in support::NODES {
        cluster.habit(node, Act::Fail(retired.clone()));
    }
    let error = zones.put("a", "1").await.unwrap_err();
    assert_eq!((error.reason, error.may_have_applied()), (Reason::IdRetired, true));
}

#[tokio::test(start_paused = true)]
async fn a_read_is_never_unknown() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster).with_timeout(Duration::from_secs(2));
    for node in support::NODES {
        cluster.habit(node, Act::Silent);
    }
    let error = zones.get("a").await.unwrap_err();
    assert_eq!((error.reason, error.may_have_applied()), (Reason::Unreachable, false));
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_node_is_given_the_time_it_asks_for() {
    let cluster = Cluster::start().await;
    let full = Error::new(Reason::TooManyRequests, "too many").retry_after(ms(700));
    cluster.script(1, [Act::Fail(full.clone())]);
    zones(&cluster).put("a", "1").await.unwrap();
    let at: Vec<_> = cluster.seen().iter().map(|seen| seen.at).collect();
    assert!((700..710).contains(&(at[1] - at[0]).as_millis()), "{at:?}");

    // Longer than the deadline allows: the caller hears it now.
    let full = full.retry_after(Duration::from_secs(60));
    cluster.script(1, [Act::Fail(full)]);
    let before = Instant::now();
    let error = zones(&cluster).put("a", "2").await.unwrap_err();
    assert_eq!((error.reason, before.elapsed()), (Reason::TooManyRequests, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn what_can_never_succeed_is_not_tried_again() {
    let cluster = Cluster::start().await;
    for reason in [
        Reason::ValueTooLarge,
        Reason::LevelUnimplemented,
        Reason::TypeMismatch,
        Reason::KeyspaceUnknown,
        Reason::Internal,
    ] {
        let before = cluster.seen().len();
        cluster.script(1, [Act::Fail(Error::new(reason, "no"))]);
        let error = zones(&cluster).put("a", "1").await.unwrap_err();
        assert_eq!((error.reason, cluster.seen().len() - before), (reason, 1));
    }
    let error = zones(&cluster).put("", "1").await.unwrap_err();
    assert_eq!(error.reason, Reason::KeyEmpty);
    let error = cluster.client().keyspace("nowhere").get("a").await.unwrap_err();
    assert_eq!(error.reason, Reason::KeyspaceUnknown);
}

#[tokio::test(start_paused = true)]
async fn a_keyspace_made_anew_is_located_again() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    zones.put("a", "1").await.unwrap();
    let located = cluster.locates();
    cluster.script(1, [Act::Fail(Error::new(Reason::KeyspaceChanged, "another one"))]);
    assert_eq!(zones.put("a", "2").await.unwrap().attempts, 2);
    assert_eq!(cluster.locates(), located + 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_is_left_without_an_error() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    zones.put("a", "1").await.unwrap();
    let stopping = Error::new(Reason::ShuttingDown, "the node is stopping");
    cluster.habit(1, Act::Fail(stopping));
    cluster.set_leader(2);
    let put = zones.put("a", "2").await.unwrap();
    assert!(put.latency < ms(100), "{:?}", put.latency);
}

#[tokio::test(start_paused = true)]
async fn a_paused_leader_does_not_eat_the_deadline() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    zones.put("a", "1").await.unwrap();
    cluster.net.hold(&address(1));
    cluster.set_leader(2);
    let put = zones.put("a", "2").await.unwrap();
    assert!(put.latency < Duration::from_secs(2), "{:?}", put.latency);
    // The next one does not wait for it at all.
    assert_eq!(zones.put("a", "3").await.unwrap().latency, Duration::ZERO);
    // What the paused node held back arrives in the end and changes nothing.
    let applied = cluster.applied();
    cluster.net.release(&address(1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(get(&zones, "a").await.unwrap(), "3");
    assert_eq!(cluster.applied(), applied);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_only_other_nodes_reach_is_reached_through_them() {
    let cluster = Cluster::start().await;
    cluster.net.refuse(&address(1));
    let put = zones(&cluster).put("a", "1").await.unwrap();
    assert!(put.latency < ms(500), "{:?}", put.latency);
    let last = cluster.seen().pop().unwrap();
    assert_ne!(last.node, 1);
    assert!(!last.command.no_forward);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_never_left_is_not_unknown() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster).with_timeout(Duration::from_secs(2));
    zones.get("a").await.unwrap();
    for node in support::NODES {
        cluster.net.refuse(&address(node));
    }
    tokio::time::sleep(ms(10)).await;
    let error = zones.put("a", "1").await.unwrap_err();
    assert_eq!((error.reason, error.may_have_applied()), (Reason::Unreachable, false));
    assert!(error.message.contains("UNREACHABLE"), "{error}");

    for node in support::NODES {
        cluster.net.accept(&address(node));
    }
    zones.put("a", "2").await.unwrap();
    assert_eq!(cluster.applied(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_waited_for_a_connection_in_vain_is_not_unknown() {
    let cluster = Cluster::start().await;
    cluster.set_leader(3);
    cluster.net.hold(&address(3));
    for node in [1, 2] {
        cluster.habit(node, Act::Fail(not_leader(7, Some(3))));
    }
    let zones = zones(&cluster).with_timeout(Duration::from_secs(3));
    let error = zones.put("a", "1").await.unwrap_err();
    assert_eq!((error.reason, error.may_have_applied()), (Reason::DeadlineExceeded, false));
}

#[tokio::test(start_paused = true)]
async fn a_batch_answers_in_order_and_one_failure_is_one_failure() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    zones.put("a", "1").await.unwrap();
    let results = zones
        .batch(vec![
            Operation::get("a"),
            Operation::put("", "the empty key is none"),
            Operation::put("b", "2"),
            Operation::compare_and_set("c", Expected::Value("x".into()), None),
        ])
        .await;
    let values: Vec<_> = results.into_iter().map(|result| result.map(|a| a.value)).collect();
    assert!(matches!(&values[0], Ok(Outcome::Got(Some(value))) if value.bytes == "1"));
    assert!(matches!(&values[1], Err(error) if error.reason == Reason::KeyEmpty));
    assert!(matches!(&values[2], Ok(Outcome::Written(_))));
    assert_eq!(values[3], Ok(Outcome::Compared(CasOutcome::Mismatch { found: None })));
}

async fn three_ranges() -> (Cluster, Keyspace) {
    let cluster = Cluster::start_with(vec![
        FakeRange { id: 7, start: "", end: Some("c"), leader: 1 },
        FakeRange { id: 8, start: "c", end: Some("e"), leader: 2 },
        FakeRange { id: 9, start: "e", end: None, leader: 3 },
    ])
    .await;
    let zones = zones(&cluster);
    for key in ["a", "b", "c", "d", "e", "f", "g"] {
        zones.put(key, key.to_uppercase()).await.unwrap();
    }
    (cluster, zones)
}

/// Every page of a scan, as the keys it holds.
async fn pages(zones: &Keyspace, scan: Scan) -> Vec<String> {
    let mut pages = Vec::new();
    let mut next = Some(scan);
    while let Some(scan) = next {
        let page = zones.scan(scan).await.unwrap().value;
        let keys = page.rows.iter().map(|row| String::from_utf8_lossy(&row.key).into_owned());
        pages.push(keys.collect::<Vec<_>>().concat());
        next = page.next;
    }
    pages
}

#[tokio::test(start_paused = true)]
async fn a_scan_goes_on_over_ranges_until_its_limit_and_then_where_it_stopped() {
    let (_cluster, zones) = three_ranges().await;
    assert_eq!(pages(&zones, Scan::all()).await, ["abcdefg"]);
    assert_eq!(pages(&zones, Scan::all().reverse()).await, ["gfedcba"]);
    assert_eq!(pages(&zones, Scan::all().limit(3)).await, ["abc", "def", "g"]);
    assert_eq!(pages(&zones, Scan::all().limit(3).reverse()).await, ["gfe", "dcb", "a"]);
    assert_eq!(pages(&zones, Scan::span("b", "f")).await, ["bcde"]);
    assert_eq!(pages(&zones, Scan::span("b", "f").reverse().limit(2)).await, ["ed", "cb"]);
    assert_eq!(pages(&zones, Scan::prefix("d")).await, ["d"]);
    // A page takes whole answers, here of one range each, until it has its bytes.
    assert_eq!(pages(&zones, Scan::all().page_bytes(1)).await, ["ab", "cd", "efg"]);
    assert_eq!(pages(&zones, Scan::all().page_bytes(5)).await, ["abcd", "efg"]);
    assert_eq!(pages(&zones, Scan::all().page_bytes(1000)).await, ["abcdefg"]);
    let rows = zones.scan(Scan::all().keys_only()).await.unwrap().value.rows;
    assert!(rows.iter().all(|row| row.value.is_empty()));
    let error = zones.scan(Scan::span("f", "b")).await.unwrap_err();
    assert_eq!(error.reason, Reason::ScanSpanEmpty);
}

#[tokio::test(start_paused = true)]
async fn a_scan_survives_a_split_and_a_new_leader_between_its_parts() {
    let (cluster, zones) = three_ranges().await;
    let first = zones.scan(Scan::all().limit(1)).await.unwrap().value;
    cluster.set_ranges(vec![
        FakeRange { id: 7, start: "", end: Some("b"), leader: 1 },
        FakeRange { id: 10, start: "b", end: Some("d"), leader: 3 },
        FakeRange { id: 11, start: "d", end: None, leader: 2 },
    ]);
    assert_eq!(pages(&zones, first.next.unwrap()).await, ["b", "c", "d", "e", "f", "g"]);
    assert_eq!(pages(&zones, Scan::all().reverse()).await, ["gfedcba"]);
}

#[tokio::test(start_paused = true)]
async fn answered_below_advances_only_past_what_is_finished() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    zones.put("a", "1").await.unwrap();
    cluster.script(1, [Act::After(ms(300))]);
    let slow = tokio::spawn({
        let zones = zones.clone();
        async move { zones.put("slow", "2").await.unwrap() }
    });
    tokio::time::sleep(ms(1)).await;
    zones.put("b", "3").await.unwrap();
    zones.put("c", "4").await.unwrap();
    slow.await.unwrap();
    zones.put("d", "5").await.unwrap();
    let ids: Vec<_> =
        cluster.seen().iter().map(|seen| (seen.id().sequence, seen.id().answered_below)).collect();
    assert_eq!(ids, [(1, 1), (2, 2), (3, 2), (4, 2), (5, 5)]);
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_write_is_finished_and_never_retried() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    cluster.script(1, [Act::Silent]);
    let abandoned = tokio::time::timeout(ms(50), zones.put("a", "1")).await;
    assert!(abandoned.is_err());
    tokio::time::sleep(Duration::from_secs(20)).await;
    zones.put("b", "2").await.unwrap();
    let ids: Vec<_> =
        cluster.seen().iter().map(|seen| (seen.id().sequence, seen.id().answered_below)).collect();
    assert_eq!(ids, [(1, 1), (2, 2)]);
}

#[tokio::test(start_paused = true)]
async fn births_never_decrease_and_follow_the_clusters_clock() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    for round in 0..20 {
        zones.put("a", "1").await.unwrap();
        tokio::time::sleep(ms(900)).await;
        if round == 10 {
            cluster.set_clock_back(5_000);
        }
    }
    let births: Vec<_> = cluster.seen().iter().map(|seen| seen.id().birth >> 22).collect();
    assert!(births.is_sorted(), "{births:?}");
    assert_eq!(births[1] - births[0], 900);
    assert!(births[19] < 1_000_000 + 20 * 900, "the client follows a clock set back: {births:?}");
}

#[tokio::test(start_paused = true)]
async fn many_commands_share_one_stream_and_its_frames() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    let puts = (0..2000).map(|i| {
        let zones = zones.clone();
        tokio::spawn(async move { zones.put(format!("{i:04}"), "x").await.unwrap() })
    });
    join_all(puts).await;
    let (commands, frames) = (cluster.seen().len(), cluster.frames().len());
    assert_eq!((commands, cluster.applied()), (2000, 2000));
    assert!(frames * 20 < commands, "{commands} commands in {frames} frames");
    assert!(cluster.frames().iter().all(|&commands| commands <= 512));
    assert_eq!((cluster.streams(), cluster.locates()), (1, 1));
    // Also when nothing need be learnt first.
    let operations = (0..500).map(|i| Operation::get(format!("{i:04}"))).collect();
    assert!(zones.batch(operations).await.iter().all(Result::is_ok));
    let more = cluster.frames().split_off(frames);
    assert!(more.len() <= 8, "{more:?}");
}

#[tokio::test(start_paused = true)]
async fn large_values_do_not_share_a_frame() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    let value = Bytes::from(vec![7; 700 << 10]);
    let puts = (0..4).map(|i| zones.put(format!("{i}"), value.clone()));
    assert!(join_all(puts).await.iter().all(Result::is_ok));
    assert_eq!(cluster.frames(), [1, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_read_below_strict_goes_to_a_replica_near_by() {
    let cluster = Cluster::start().await;
    let client = Client::builder()
        .seeds([address(2)])
        .region("eu")
        .net(std::sync::Arc::clone(&cluster.net) as _)
        .random_seed(1)
        .build();
    client.cluster().await.unwrap();
    let zones = client.keyspace("zones").with_level(Level::Causal).with_request_id("tour");
    zones.get("a").await.unwrap();
    let seen = cluster.seen().pop().unwrap();
    assert_eq!((seen.node, seen.command.no_forward), (2, true));
    assert_eq!((seen.command.level, &*seen.command.request_id), (3, "tour"));
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let cluster = Cluster::start().await;
        cluster.script(1, [Act::Fail(no_quorum()), Act::Silent, Act::ApplyAndCut]);
        let zones = zones(&cluster);
        let started = Instant::now();
        for key in ["a", "b", "c"] {
            zones.put(key, key).await.unwrap();
        }
        let at = |seen: &support::Seen| (seen.node, seen.at - started, seen.id().clone());
        runs.push(cluster.seen().iter().map(at).collect::<Vec<_>>());
    }
    assert!(runs[0].len() > 3);
    assert_eq!(runs[0], runs[1]);
}

#[test]
fn what_runs_in_tasks_can_be_sent_to_them() {
    fn sendable<T: Send>(_: T) {}
    let client = Client::builder().seeds(["a:1"]).build();
    let zones = client.keyspace("zones");
    let admin = client.admin();
    sendable(zones.get("a"));
    sendable(zones.put("a", "b"));
    sendable(zones.scan(Scan::all()));
    sendable(zones.batch(vec![Operation::get("a")]));
    sendable(client.cluster());
    sendable(client.status_of("a:1"));
    sendable(admin.init(None));
    sendable(admin.nodes());
    sendable(admin.ranges("zones"));
    sendable(admin.drop_keyspace("zones"));
}

/// A machine that sleeps stops the clock that births are made with. A node that refuses such a birth cannot know
/// whether an earlier copy of the write took effect; the client knows that there was none.
#[tokio::test(start_paused = true)]
async fn a_birth_of_before_a_standstill_is_replaced_if_the_write_has_not_happened() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    zones.put("a", "1").await.unwrap();
    cluster.set_clock_forward(3_600_000);
    assert_eq!(zones.put("a", "2").await.unwrap().attempts, 2);
    let seen = cluster.seen();
    let sequences: Vec<_> = seen.iter().map(|seen| seen.id().sequence).collect();
    assert_eq!(sequences, [1, 2, 3]);
    assert!(cluster.now().ms() - Timestamp(seen[2].id().birth).ms() < 100);
    // The births after it are of the new time, too.
    assert_eq!(zones.put("a", "3").await.unwrap().attempts, 1);

    cluster.script(1, [Act::ApplyAndCut]);
    for node in support::NODES {
        cluster.habit(node, Act::Fail(id_expired()));
    }
    let error = zones.put("a", "4").await.unwrap_err();
    assert_eq!((error.reason, error.may_have_applied()), (Reason::IdExpired, true));
    assert!(cluster.seen().iter().skip(4).all(|seen| seen.id().sequence == 5));
}

/// Then the cluster is at fault, not this client; but the write still has not happened.
#[tokio::test(start_paused = true)]
async fn a_write_gets_one_new_birth_and_no_more() {
    let cluster = Cluster::start().await;
    cluster.habit(1, Act::Fail(id_expired()));
    let error = zones(&cluster).put("a", "1").await.unwrap_err();
    assert_eq!((error.reason, error.may_have_applied()), (Reason::IdExpired, false));
    assert_eq!(cluster.seen().len(), 2);
}

/// A node that passes a command on may have lost the answer to a copy that took effect.
#[tokio::test(start_paused = true)]
async fn what_a_node_that_passes_on_says_of_an_id_is_believed() {
    let cluster = Cluster::start().await;
    cluster.net.refuse(&address(1));
    for node in [2, 3] {
        cluster.script(node, [Act::Fail(not_leader(7, Some(1))), Act::Fail(id_expired())]);
    }
    let error = zones(&cluster).put("a", "1").await.unwrap_err();
    assert!(!cluster.seen().pop().unwrap().command.no_forward);
    assert_eq!((error.reason, error.may_have_applied()), (Reason::IdExpired, true));
}

/// The link is everybody's: what one command does to it befalls all that is on it.
#[tokio::test(start_paused = true)]
async fn a_command_that_no_message_can_carry_is_refused_and_harms_no_other() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    zones.put("a", "1").await.unwrap();
    cluster.script(1, [Act::After(ms(300))]);
    let large = Bytes::from(vec![7; 20 << 20]);
    let (beside, refused) = tokio::join!(zones.put("b", "2"), zones.put("c", large));
    let error = refused.unwrap_err();
    assert_eq!((error.reason, error.may_have_applied()), (Reason::ValueTooLarge, false));
    assert_eq!(beside.unwrap().attempts, 1);
    assert_eq!((cluster.applied(), cluster.streams()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_for_ever_is_a_long_one() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster).with_timeout(Duration::MAX);
    zones.put("a", "1").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_swallows_everything_is_replaced() {
    let cluster = Cluster::start().await;
    let zones = zones(&cluster);
    zones.put("a", "1").await.unwrap();
    // Bytes on the old connections are lost for good; new ones work.
    cluster.net.lose(&address(1));
    zones.put("a", "2").await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let put = zones.put("a", "3").await.unwrap();
    assert_eq!((put.attempts, put.latency), (1, Duration::ZERO));
    assert_eq!(cluster.seen().pop().unwrap().node, 1);
}

#[tokio::test(start_paused = true)]
async fn the_administration_passes_over_nodes_that_cannot_answer() {
    let cluster = Cluster::start().await;
    let admin = cluster.client().admin();
    assert!(admin.init(None).await.unwrap().created);
    assert_eq!(admin.status().await.unwrap().node, 1);
    cluster.net.refuse(&address(1));
    cluster.take_admin_calls();
    assert_eq!(admin.nodes().await.unwrap().len(), 3);
    assert_eq!(admin.ranges("zones").await.unwrap()[0].keyspace, "zones");
    let request = CreateKeyspaceRequest { name: "zones".into(), ..Default::default() };
    assert_eq!(admin.create_keyspace(request).await.unwrap().keyspace_id, 16);
    assert_eq!(admin.drop_keyspace("zones").await.unwrap(), KeyspaceId(16));
    assert!(admin.keyspaces().await.unwrap().is_empty());
    let asked: BTreeSet<_> = cluster.take_admin_calls().iter().map(|(node, _)| *node).collect();
    assert_eq!(asked, BTreeSet::from([2]));
}

#[tokio::test(start_paused = true)]
async fn a_change_without_an_id_is_not_repeated_when_it_may_have_happened() {
    let cluster = Cluster::start().await;
    let admin = cluster.client().admin();
    cluster.fail_admin(1, Status::unavailable("the connection broke"));
    let request = CreateKeyspaceRequest { name: "zones".into(), ..Default::default() };
    let error = admin.create_keyspace(request.clone()).await.unwrap_err();
    assert!(error.may_have_applied());
    assert_eq!(cluster.take_admin_calls(), [(1, "create_keyspace")]);
    // What reads, or can be repeated, goes on to the next node.
    assert_eq!(admin.status().await.unwrap().node, 2);
    admin.transfer_leader(RangeId(7), NodeId(3)).await.unwrap();
    // So does a change that certainly has not happened.
    let stopping = Error::new(Reason::ShuttingDown, "the node is stopping");
    cluster.fail_admin(1, status_from_error(&stopping));
    admin.create_keyspace(request).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_says_which_cluster_it_talks_to_and_how_a_node_is() {
    let cluster = Cluster::start().await;
    let client = cluster.client();
    let told = client.cluster().await.unwrap();
    assert_eq!((told.identity, told.node.0), (None, 1));
    assert_eq!(client.status_of(&address(3)).await.unwrap().node, 3);
    let error = client.status_of("n9:7400").await.unwrap_err();
    assert_eq!(error.reason, Reason::Unreachable);
    let error = client.status_of("not an address").await.unwrap_err();
    assert_eq!(error.reason, Reason::ArgumentInvalid);
    let error = Client::builder().build().keyspace("zones").get("a").await.unwrap_err();
    assert_eq!(error.reason, Reason::ArgumentInvalid);
}
