//! Counters, sets, maps, flags and siblings against a scripted cluster. Time is paused.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test binary uses its part of it")]
mod support;

use bytes::Bytes;
use latitude_client::{
    AddOutcome, Keyspace, Level, Operation, Outcome, Reason, ReceiptDetail, TypedValue,
};
use support::{Act, Cluster};

async fn things() -> (Cluster, Keyspace) {
    let cluster = Cluster::start().await;
    let things = cluster.client().keyspace("things").with_receipt(ReceiptDetail::None);
    (cluster, things)
}

#[tokio::test(start_paused = true)]
async fn an_add_whose_answer_was_lost_counts_once_and_says_the_same_sum() {
    let (cluster, likes) = things().await;
    assert_eq!(likes.add("k", 2).await.unwrap().value.sum, Some(2));
    cluster.script(1, [Act::ApplyAndCut]);
    let added = likes.add("k", 3).await.unwrap();
    assert_eq!(added.value.sum, Some(5));
    assert!(added.attempts > 1);
    assert_eq!(likes.counter("k").await.unwrap().value, 5);
    assert_eq!(cluster.applied(), 2);
}

#[tokio::test(start_paused = true)]
async fn bounds_that_would_be_left_are_an_answer_and_a_reset_begins_anew() {
    let (_, stock) = things().await;
    stock.add("k", 1).await.unwrap();
    let taken = stock.add_within("k", -1, Some(0), None).await.unwrap().value;
    assert!(matches!(taken, AddOutcome::Applied(added) if added.sum == Some(0)));
    let none_left = stock.add_within("k", -1, Some(0), Some(9)).await.unwrap().value;
    assert_eq!(none_left, AddOutcome::OutOfBounds { found: 0 });
    assert!(!none_left.is_applied());
    stock.add("k", 7).await.unwrap();
    stock.reset("k").await.unwrap();
    assert_eq!(stock.counter("k").await.unwrap().value, 0);
}

/// What is judged in the log goes to the leader at once, whatever the level of the handle.
#[tokio::test(start_paused = true)]
async fn what_is_judged_in_the_log_is_sent_to_the_leader() {
    let cluster = Cluster::start().await;
    let client = cluster.client();
    let near = client.keyspace("things").with_level(Level::Causal);
    cluster.set_leader(3);
    near.add_within("k", 1, None, Some(9)).await.unwrap();
    near.reset("k").await.unwrap();
    assert!(cluster.seen().iter().all(|seen| seen.node == 3), "{:?}", cluster.seen());
}

#[tokio::test(start_paused = true)]
async fn sets_maps_and_flags_are_written_and_read_as_what_they_are() {
    let (_, things) = things().await;
    for element in ["milk", "bread", "milk"] {
        things.set_add("cart", element).await.unwrap();
    }
    assert_eq!(things.members("cart").await.unwrap().value, ["bread", "milk"]);
    things.set_remove("cart", "bread").await.unwrap();
    assert_eq!(things.members("cart").await.unwrap().value, ["milk"]);

    things.map_put("profile", "city", "Lima").await.unwrap();
    things.map_put("profile", "name", "Ada").await.unwrap();
    things.map_remove("profile", "city").await.unwrap();
    let fields = things.fields("profile").await.unwrap().value;
    assert_eq!(fields, [(Bytes::from("name"), Bytes::from("Ada"))]);

    things.enable("dark").await.unwrap();
    assert!(things.flag("dark").await.unwrap().value);
    things.disable("dark").await.unwrap();
    assert!(!things.flag("dark").await.unwrap().value);
}

#[tokio::test(start_paused = true)]
async fn a_sibling_takes_the_place_of_those_that_were_read() {
    let notes = Cluster::start().await.client().keyspace("notes");
    notes.put_sibling("k", "a", Bytes::new()).await.unwrap();
    notes.put_sibling("k", "b", Bytes::new()).await.unwrap();
    let read = notes.siblings("k").await.unwrap().value;
    let values: Vec<_> = read.values.iter().map(|sibling| &sibling.value[..]).collect();
    assert_eq!(values, [b"a", b"b"]);
    notes.put_sibling("k", "ab", read.context).await.unwrap();
    let read = notes.siblings("k").await.unwrap().value;
    assert_eq!(read.values.len(), 1);
    notes.delete_siblings("k", read.context).await.unwrap();
    assert!(notes.siblings("k").await.unwrap().value.values.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_value_of_another_type_than_asked_for_is_an_error_that_names_it() {
    let (_, things) = things().await;
    things.add("k", 1).await.unwrap();
    let error = things.members("k").await.unwrap_err();
    assert_eq!(error.reason, Reason::TypeMismatch);
    assert!(error.message.contains("counter"), "{error}");
    let error = things.get("k").await.unwrap_err();
    assert_eq!(error.reason, Reason::TypeMismatch);
    let held = things.get_any("k").await.unwrap().value;
    assert_eq!(held.value, TypedValue::Counter(1));
    assert!(held.version.is_some());
    let absent = things.get_any("register").await.unwrap().value;
    assert_eq!((absent.value, absent.version), (TypedValue::Register(None), None));
}

#[tokio::test(start_paused = true)]
async fn a_batch_answers_each_operation_by_its_kind() {
    let (_, things) = things().await;
    let answers = things
        .batch(vec![
            Operation::add("likes", 4),
            Operation::set_add("cart", "milk"),
            Operation::add_within("seats", 9, None, Some(8)),
        ])
        .await;
    let outcomes: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().value).collect();
    assert!(matches!(outcomes[0], Outcome::Added(AddOutcome::Applied(_))));
    assert!(matches!(outcomes[1], Outcome::Written(_)));
    assert_eq!(outcomes[2], Outcome::Added(AddOutcome::OutOfBounds { found: 0 }));
    let got = things.batch(vec![Operation::get("likes")]).await.remove(0).unwrap().value;
    assert!(matches!(got, Outcome::GotTyped(held) if held.value == TypedValue::Counter(4)));
}
