//! Bad input over real gRPC: each is refused with its own reason and a sentence that says what to do;
//! none of it panics, hangs or loses a write. And values as large as they may be, over an ocean.

mod sequential;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BufMut, Bytes};
use latitude_client::{
    Client, Error, Expected, Operation as Of, Outcome, Reason, Scan, Session, wire as v1,
};
use latitude_rpc::error_from_status;
use latitude_testbed::RoundTrips;
use latitude_tests::Bed;
use latitude_tests::bed::PATIENCE;
use latitude_tests::raw::{self, Raw};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};
use v1::command::Operation;

const KEYSPACE: &str = "strictly";

/// Two clusters' worth of tests on one cluster.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_its_own_reason_and_large_values_commit_under_one_leader()
-> Result<()> {
    let bed = Bed::start("bad-input", |builder| {
        builder.wan(RoundTrips::published()).flags(["--round-trip-max", "250ms"])
    })
    .await?;
    let made = bed.keyspace(KEYSPACE, 1).await?;
    let client = bed.client("eu");
    let keyspace = client.keyspace(KEYSPACE);
    keyspace.put("kept", "written before").await?;

    let node = Raw::to(bed.cluster().node(0).address())?;
    let mut reasons = BTreeSet::new();
    for (what, command, wanted) in bad_commands(made.keyspace_id) {
        let refused = node.execute(command).await.err();
        let error = refused.with_context(|| format!("{what} was served"))?;
        ensure_refused(what, &error, &[wanted])?;
        reasons.insert(error.reason);
    }
    ensure!(reasons.len() >= 10, "the reasons are not distinct: {reasons:?}");

    a_deadline_that_passes_is_told(&node).await?;
    a_batch_too_large_is_refused(&node).await?;
    more_split_points_than_ranges_there_may_be_are_refused(&client).await?;
    bytes_that_are_no_message_are_refused(&node).await?;
    the_sdk_tells_the_same(&client).await?;

    sequential::tokens_are_refused_for_what_is_wrong_with_them(&node).await?;
    sequential::made_up_tokens_do_no_harm(&node).await?;
    sequential::a_bound_nobody_can_prove_moves_the_read_on(&bed).await?;
    sequential::only_weaker_levels_are_accepted_instead(&node).await?;
    sequential::a_node_without_a_replica_passes_the_read_on(&bed).await?;
    sequential::a_token_is_handed_on_as_text(&bed).await?;
    sequential::the_sdk_tells_the_same_of_tokens(&bed, &node).await?;

    // All of this has lost nothing and stopped nobody.
    let found = keyspace.get("kept").await?.value.context("the write is lost")?;
    ensure!(&found.bytes[..] == b"written before", "{found:?}");
    for node in bed.cluster().nodes() {
        ensure!(node.pid().await.is_some(), "{} is gone", node.name());
        ensure!(!node.log_tail(10_000).contains("panicked"), "{} panicked", node.name());
    }
    large_values_commit_under_one_leader(&bed, &client).await?;
    large_conditions_commit_side_by_side(&client).await?;
    answers_too_large_for_one_message_are_sent_in_several(&bed, &client).await?;
    bed.passed();
    Ok(())
}

fn get(key: impl Into<Bytes>) -> Operation {
    Operation::Get(v1::Get { key: key.into() })
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Operation {
    Operation::Put(v1::Put { key: key.into(), value: value.into(), ..v1::Put::default() })
}

/// What is wrong, the command, and the reason it is refused for.
fn bad_commands(keyspace_id: u32) -> Vec<(&'static str, v1::Command, Reason)> {
    let with = |operation| raw::command(KEYSPACE, operation);
    let at = |level, operation| v1::Command { level, ..with(operation) };
    let span = |start: &'static str, end: &'static str| {
        let (start, end) = (start.into(), Some(end.into()));
        Operation::Scan(v1::Scan { start, end, ..v1::Scan::default() })
    };
    let causal = v1::Level::Causal as i32;
    let strangers = raw::Ids::new();
    vec![
        ("a get of no key", with(get("")), Reason::KeyEmpty),
        ("a put of no key", with(put("", "v")), Reason::KeyEmpty),
        ("a key too long", with(get(vec![b'k'; 4097])), Reason::KeyTooLong),
        ("a value too large", with(put("k", vec![0; (1 << 20) + 1])), Reason::ValueTooLarge),
        (
            "an expected value too large",
            with(raw::swap("k", Some(&"x".repeat((1 << 20) + 1)), "v")),
            Reason::ValueTooLarge,
        ),
        (
            "an expected value that would not fit into the log's frame",
            with(raw::swap("k", Some(&"x".repeat((20 << 20) - 200)), "v")),
            Reason::ValueTooLarge,
        ),
        ("an unknown keyspace", raw::command("nowhere", get("k")), Reason::KeyspaceUnknown),
        (
            "an unknown keyspace of a long name",
            raw::command(&"n".repeat(100_000), get("k")),
            Reason::KeyspaceUnknown,
        ),
        (
            "a keyspace made anew",
            v1::Command { keyspace_id: keyspace_id + 1, ..with(get("k")) },
            Reason::KeyspaceChanged,
        ),
        ("a level nobody knows", at(9, get("k")), Reason::LevelUnknown),
        (
            "a condition outside the log",
            at(causal, raw::swap("k", None, "v")),
            Reason::LevelNotForCondition,
        ),
        ("a scan backwards", with(span("b", "a")), Reason::ScanSpanEmpty),
        ("no operation", v1::Command { operation: None, ..with(get("k")) }, Reason::Malformed),
        (
            "a condition that expects nothing",
            with(Operation::CompareAndSet(v1::CompareAndSet {
                key: "k".into(),
                ..v1::CompareAndSet::default()
            })),
            Reason::Malformed,
        ),
        (
            "an id of the far future",
            v1::Command { id: Some(strangers.next(u64::MAX >> 2)), ..with(put("k", "v")) },
            Reason::IdFromFuture,
        ),
        (
            "an id born long ago",
            v1::Command { id: Some(strangers.next(1 << 22)), ..with(put("k", "v")) },
            Reason::IdExpired,
        ),
        (
            "more levels than there are",
            v1::Command { accept: vec![4; 5], ..with(get("k")) },
            Reason::ArgumentInvalid,
        ),
        (
            "a client's id too short",
            v1::Command {
                id: Some(v1::OperationId { client: "short".into(), ..strangers.next(1) }),
                ..with(put("k", "v"))
            },
            Reason::Malformed,
        ),
        (
            "a request id too long",
            v1::Command { request_id: "r".repeat(65), ..with(get("k")) },
            Reason::ArgumentInvalid,
        ),
    ]
}

/// For one of these reasons, certainly without effect where the request could never succeed, and in a
/// sentence.
fn ensure_refused(what: &str, error: &Error, reasons: &[Reason]) -> Result<()> {
    ensure!(reasons.contains(&error.reason), "{what}: {error:?}");
    ensure!(error.message.split_whitespace().count() >= 4, "{what} says no sentence: {error:?}");
    Ok(())
}

async fn a_deadline_that_passes_is_told(node: &Raw) -> Result<()> {
    // The quorum is an ocean away: one millisecond is over before it can answer.
    let command = v1::Command { timeout_ms: 1, ..raw::command(KEYSPACE, get("k")) };
    let error = node.execute(command).await.err().context("an ocean was crossed in 1 ms")?;
    ensure_refused("a deadline", &error, &[Reason::DeadlinePast, Reason::DeadlineExceeded])
}

async fn a_batch_too_large_is_refused(node: &Raw) -> Result<()> {
    let many = vec![raw::command(KEYSPACE, get("k")); 1025];
    let long = vec![raw::command(KEYSPACE, put("k", vec![0; 1 << 20])); 17];
    for commands in [many, long] {
        let refused = node.client().batch(v1::BatchRequest { commands }).await.err();
        let error = error_from_status(&refused.context("the batch was served")?);
        ensure_refused("a batch too large", &error, &[Reason::BatchTooLarge])?;
    }
    // Each of these commands is two bytes here, and hundreds in memory.
    let empty = Bytes::from([0x0a, 0x00].repeat(9 << 20));
    for call in ["Batch", "Stream"] {
        let status = said(node, call, empty.clone()).await?.err();
        let error = error_from_status(&status.with_context(|| format!("{call} was served"))?);
        ensure_refused("millions of empty commands", &error, &[Reason::BatchTooLarge])?;
    }
    Ok(())
}

/// What a node says to a message of these bytes.
async fn said(node: &Raw, call: &str, bytes: Bytes) -> Result<Result<Option<Bytes>, Status>> {
    let path = format!("/latitude.v1.Latitude/{call}").parse()?;
    let mut grpc = tonic::client::Grpc::new(node.channel());
    grpc.ready().await?;
    let what = format!("{call} of {} bytes", bytes.len());
    let request = Request::new(futures::stream::iter([bytes]));
    let answered = async {
        let mut answer = grpc.streaming(request, path, Verbatim).await?.into_inner();
        answer.message().await
    };
    let answered = tokio::time::timeout(PATIENCE, answered).await;
    answered.with_context(|| format!("{what} hangs"))
}

async fn more_split_points_than_ranges_there_may_be_are_refused(client: &Client) -> Result<()> {
    let split_at = (0..200_000u32).map(|at| Bytes::copy_from_slice(&at.to_be_bytes())).collect();
    let request = v1::CreateKeyspaceRequest {
        name: "cut-up".to_owned(),
        split_at,
        ..v1::CreateKeyspaceRequest::default()
    };
    let error = client.admin().create_keyspace(request).await.err();
    let error = error.context("200,000 split points were taken")?;
    ensure_refused("split points", &error, &[Reason::ArgumentInvalid])?;
    ensure!(!error.may_have_applied(), "{error:?}");
    Ok(())
}

/// Sends bytes as they are.
#[derive(Clone, Default)]
struct Verbatim;

impl Codec for Verbatim {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Verbatim {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, bytes: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(bytes);
        Ok(())
    }
}

impl Decoder for Verbatim {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

async fn bytes_that_are_no_message_are_refused(node: &Raw) -> Result<()> {
    let nonsense: [&'static [u8]; 4] = [
        // The keyspace's name as a number.
        &[0x10, 0x07],
        // A name that is no UTF-8.
        &[0x12, 0x02, 0xff, 0xfe],
        // A length beyond the end.
        &[0x12, 0x7f, b'k'],
        // A wire type that does not exist.
        &[0x17, 0x00],
    ];
    for call in ["Execute", "Stream"] {
        for bytes in nonsense {
            // A frame holds commands: field 1.
            let framed = [&[0x0a, bytes.len() as u8][..], bytes].concat();
            let bytes = if call == "Stream" { framed } else { bytes.to_vec() };
            let answered = said(node, call, Bytes::from(bytes.clone())).await?;
            let status = answered.err().with_context(|| format!("{call} took {bytes:?}"))?;
            let error = error_from_status(&status);
            ensure!(error.reason == Reason::Malformed, "{call} {bytes:?}: {status:?}");
            ensure!(!status.message().is_empty(), "{call} {bytes:?}: {status:?}");
        }
    }
    Ok(())
}

/// The SDK refuses what no server would take, and passes on what the server says.
async fn the_sdk_tells_the_same(client: &Client) -> Result<()> {
    let keyspace = client.keyspace(KEYSPACE);
    let long = vec![b'k'; 4097];
    let refused = [
        ("a key too long", keyspace.put(&long, "v").await.err(), Reason::KeyTooLong),
        ("no key", keyspace.delete("").await.err(), Reason::KeyEmpty),
        (
            "a value too large",
            keyspace.put("k", vec![0; (1 << 20) + 1]).await.err(),
            Reason::ValueTooLarge,
        ),
        (
            "a value that no message carries",
            keyspace.put("k", vec![0; 20 << 20]).await.err(),
            Reason::ValueTooLarge,
        ),
        (
            "an unknown keyspace",
            client.keyspace("nowhere").put("k", "v").await.err(),
            Reason::KeyspaceUnknown,
        ),
        (
            "a scan backwards",
            keyspace.scan(Scan::span("b", "a")).await.err(),
            Reason::ScanSpanEmpty,
        ),
    ];
    for (what, error, reason) in refused {
        let error = error.with_context(|| format!("{what} was served"))?;
        ensure_refused(what, &error, &[reason])?;
        ensure!(!error.may_have_applied(), "{what}: {error:?}");
    }
    Ok(())
}

async fn large_values_commit_under_one_leader(bed: &Bed, client: &Client) -> Result<()> {
    let request = v1::CreateKeyspaceRequest {
        name: "large".to_owned(),
        ranges: 1,
        default_level: v1::Level::Strict as i32,
        value_len_max: 8 << 20,
        ..v1::CreateKeyspaceRequest::default()
    };
    client.admin().create_keyspace(request).await?;
    let term = async || {
        let ranges = bed.ranges("large").await?;
        let [range] = &ranges[..] else { anyhow::bail!("one range, not {ranges:?}") };
        Ok((range.leader, range.term))
    };
    // Settled: a leader that is moved to where it is wanted is no change for the worse.
    let keyspace = client.keyspace("large").with_timeout(PATIENCE);
    keyspace.put("warm", "up").await?;
    let before = term().await?;
    for megabytes in [1usize, 8, 8, 1] {
        let value = Bytes::from(vec![megabytes as u8; megabytes << 20]);
        let key = format!("{megabytes} MiB");
        keyspace.put(&key, value.clone()).await.with_context(|| key.clone())?;
        // From the other side of the ocean.
        let far = bed.client("ap").keyspace("large").with_timeout(PATIENCE);
        let found = far.get(&key).await?.value.context("it is not there")?;
        ensure!(found.bytes == value, "{key} is damaged");
    }
    let after = term().await?;
    ensure!(before == after, "the leader and term changed from {before:?} to {after:?}");
    Ok(())
}

/// Each carries two values of 8 MiB: two of them in one frame would be more than a node takes from another.
async fn large_conditions_commit_side_by_side(client: &Client) -> Result<()> {
    let keyspace = client.keyspace("large").with_timeout(PATIENCE);
    let held = |key: usize| Bytes::from(vec![key as u8; 8 << 20]);
    for key in 0..2 {
        keyspace.put(key.to_string(), held(key)).await?;
    }
    let swaps = (0..2).map(|key| {
        let expected = Expected::Value(held(key));
        Of::compare_and_set(key.to_string(), expected, Some(held(key + 2)))
    });
    for swapped in keyspace.batch(swaps.collect()).await {
        let Outcome::Compared(outcome) = swapped?.value else { anyhow::bail!("no condition") };
        ensure!(outcome.is_applied(), "{outcome:?}");
    }
    // And the range goes on.
    keyspace.put("after", "them").await?;
    Ok(())
}

/// Reads that are ready together are more than a message carries: the stream sends several, and a batch, which is one
/// message, answers what fits. What is written beside them is not lost.
async fn answers_too_large_for_one_message_are_sent_in_several(
    bed: &Bed,
    client: &Client,
) -> Result<()> {
    const VALUES: usize = 24;
    let request = v1::CreateKeyspaceRequest {
        name: "many".to_owned(),
        ranges: 1,
        default_level: v1::Level::Causal as i32,
        ..v1::CreateKeyspaceRequest::default()
    };
    client.admin().create_keyspace(request).await?;
    let keyspace = client.keyspace("many").with_session(Session::new()).with_timeout(PATIENCE);
    for key in 0..VALUES {
        keyspace.put(key.to_string(), vec![key as u8; 1 << 20]).await?;
    }
    let gets = (0..VALUES).map(|key| Of::get(key.to_string()));
    let (got, beside) =
        futures::future::join(keyspace.batch(gets.collect()), keyspace.put("beside", "it")).await;
    for got in got {
        let attempts = got?.attempts;
        ensure!(attempts == 1, "a read took {attempts} attempts");
    }
    let attempts = beside?.attempts;
    ensure!(attempts == 1, "the write beside them took {attempts} attempts");

    let node = Raw::to(bed.cluster().node(0).address())?;
    let causal = |operation| v1::Command {
        level: v1::Level::Causal as i32,
        ..raw::command("many", operation)
    };
    let mut commands = vec![causal(put("first", "w"))];
    commands.extend((0..VALUES).map(|key| causal(get(key.to_string()))));
    commands.push(causal(put("last", "w")));
    let replies = node.client().batch(v1::BatchRequest { commands }).await?.into_inner().replies;
    ensure!(replies.len() == VALUES + 2, "{} replies", replies.len());
    let mut fit = 0;
    for (at, reply) in replies.into_iter().enumerate() {
        match reply.result.context("a reply without a result")? {
            v1::reply::Result::Write(_) => ensure!(at == 0 || at == VALUES + 1, "reply {at}"),
            v1::reply::Result::Get(_) => fit += 1,
            v1::reply::Result::Error(error) => {
                ensure!(error.reason == Reason::BatchTooLarge.name(), "{error:?}");
                ensure!(error.outcome() == v1::Outcome::NotApplied, "{error:?}");
            }
            other => anyhow::bail!("reply {at} is {other:?}"),
        }
    }
    ensure!((15..VALUES).contains(&fit), "{fit} of {VALUES} values came in one message");
    Ok(())
}
