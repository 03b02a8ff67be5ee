//! A stream that is not what was sent is refused, and changes nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use latitude_range::{ImageChecksum, RangeMeta, image_spans};
use latitude_storage::memory::{MemoryDisk, MemoryEngine};
use latitude_storage::{Batch, Column, Engine, Scan, key};
use latitude_types::{Generation, Key, KeySpan, KeyspaceId, NodeId, RangeId, ReplicaId};

use super::*;
use crate::committer::{Committer, FlushInline};
use crate::group::{Birth, Group, GroupContext};
use crate::network::{Class, Transport, TransportError};
use crate::settings::Settings;
use crate::types::{LeaderId, LogId, Vote};
use crate::wire::{Part, Request, Response, SnapshotAnswer, SnapshotPart};

const RANGE: RangeId = RangeId(7);

struct Down;

impl Transport for Down {
    fn call(
        &self,
        _: ReplicaId,
        _: RangeId,
        _: Class,
        _: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        async { Err(TransportError("no connection".into())) }.boxed()
    }
}

fn replica(node: u32) -> ReplicaId {
    ReplicaId { node: NodeId(node), generation: Generation(1) }
}

fn meta() -> RangeMeta {
    RangeMeta::new(RANGE, KeyspaceId::DEFAULT, KeySpan::all(), 1 << 20, true)
}

fn vote() -> Vote {
    Vote { leader_id: LeaderId { term: 3, node_id: replica(2) }, committed: true }
}

/// A follower that has applied nothing but its birth, and its engine.
async fn follower() -> (Group, Arc<dyn Engine>) {
    let engine: Arc<dyn Engine> =
        Arc::new(MemoryEngine::open(&MemoryDisk::new()).expect("nobody has it open"));
    let birth = Birth { meta: meta(), voters: (1..=3).map(replica).collect(), learners: vec![] };
    let mut batch = Batch::new();
    birth.stage(replica(1), &*engine, &mut batch);
    batch.put(Column::Base, value_key("old"), "old");
    batch.put(Column::Stream, "delta", "stays");
    batch.put(Column::Overlay, "delta", "stays");
    engine.write(batch).expect("the disk has space");
    let (committer, run) = Committer::new(FlushInline(Arc::clone(&engine)));
    tokio::spawn(run);
    let snapshots = Snapshots::open(&*engine, SnapshotSettings::default(), Arc::new(NoFailpoints));
    let context = GroupContext {
        engine: Arc::clone(&engine),
        committer,
        transport: Arc::new(Down),
        settings: Settings::for_round_trip(Duration::from_millis(10)),
        snapshots: snapshots.expect("the disk is new"),
        silent_until: None,
    };
    (Group::open(&context, RANGE, replica(1)).await.expect("it was just born"), engine)
}

fn value_key(name: &str) -> Vec<u8> {
    key::base::value_key(KeyspaceId::DEFAULT, &Key::new(name.as_bytes()).expect("a short key"))
}

/// What a leader that has applied entry 9 would send, in chunks of two rows.
fn stream() -> (Header, Vec<(Bytes, Bytes)>, Vec<Part>) {
    let last = LogId { leader_id: LeaderId { term: 2, node_id: replica(3) }, index: 9 };
    let header = Header { meta: meta(), last, membership: Default::default(), closed: None };
    let mut rows: Vec<(Bytes, Bytes)> = vec![
        (key::local::meta(RANGE).into(), header.meta.encode().into()),
        (key::local::applied(RANGE).into(), wire::encode(&header.applied_row()).into()),
    ];
    for i in 0..6 {
        rows.push((value_key(&format!("k{i}")).into(), Bytes::from(vec![i; 100])));
    }
    let encoded = header.encode();
    let mut checksum = ImageChecksum::default();
    checksum.add(&encoded, b"");
    rows.iter().for_each(|(key, value)| checksum.add(key, value));
    let mut parts = vec![Part::Begin(encoded)];
    for (seq, rows) in (0..).zip(rows.chunks(2)) {
        let rows = Bytes::from(wire::encode(&rows.to_vec()));
        parts.push(Part::Chunk { seq, crc: crc32c::crc32c(&rows), rows });
    }
    parts.push(Part::End { rows: rows.len() as u64, checksum: checksum.value() });
    (header, rows, parts)
}

async fn hand_over(group: &Group, parts: &[Part]) -> Vec<SnapshotAnswer> {
    let mut answers = Vec::new();
    for part in parts {
        let part = SnapshotPart { vote: (&vote()).into(), transfer: 5, part: part.clone() };
        let request = wire::encode(&Request::Snapshot(part));
        let answer = group.handle(&request).expect("it parses").await.expect("the group runs");
        match wire::decode::<Response>(&answer).expect("it was just encoded") {
            Response::Snapshot(answer) => answers.push(answer),
            other => panic!("{other:?}"),
        }
    }
    answers
}

fn rows_of(engine: &dyn Engine, column: Column) -> Vec<(Bytes, Bytes)> {
    engine.scan(column, Scan::all()).map(|row| row.expect("the row reads")).collect()
}

/// Pitfall 10, execution 3.
#[tokio::test(start_paused = true)]
async fn a_whole_stream_replaces_the_base_and_touches_no_delta() {
    let (group, engine) = follower().await;
    let (header, rows, parts) = stream();
    let answers = hand_over(&group, &parts).await;
    assert_eq!(answers.last(), Some(&SnapshotAnswer::Installed((&vote()).into())), "{answers:?}");
    assert_eq!(rows_of(&*engine, Column::Base), rows);
    for column in [Column::Stream, Column::Overlay] {
        assert_eq!(rows_of(&*engine, column), [("delta".into(), "stays".into())]);
    }
    let (at, stamp) = group.applied_position();
    assert_eq!((at.index, at.term, stamp), (9, 2, header.meta.last_stamp));
    assert_eq!(engine.staged(), Ok(vec![]));
    assert_eq!(group.status().first_index, 10);
    // Again: it has it.
    let answers = hand_over(&group, &parts[..1]).await;
    assert_eq!(answers, [SnapshotAnswer::Installed((&vote()).into())]);
}

/// The same stream with one chunk in pieces, as one is sent that is longer than a message.
fn in_pieces() -> Vec<Part> {
    let (.., parts) = stream();
    let mut pieces = Vec::new();
    let mut next = 0;
    for part in parts {
        match part {
            Part::Chunk { mut rows, .. } => {
                while next > 0 && rows.len() > 70 {
                    let bytes = rows.split_to(70);
                    pieces.push(Part::Piece { seq: next, crc: crc32c::crc32c(&bytes), bytes });
                    next += 1;
                }
                pieces.push(Part::Chunk { seq: next, crc: crc32c::crc32c(&rows), rows });
                next += 1;
            }
            other => pieces.push(other),
        }
    }
    pieces
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_comes_in_pieces_is_taken_as_a_whole() {
    let (group, engine) = follower().await;
    let parts = in_pieces();
    let pieces = parts.iter().filter(|part| matches!(part, Part::Piece { .. })).count();
    assert!(pieces > 6, "{pieces}");
    let answers = hand_over(&group, &parts).await;
    assert_eq!(answers.last(), Some(&SnapshotAnswer::Installed((&vote()).into())), "{answers:?}");
    let (_, rows, _) = stream();
    assert_eq!(rows_of(&*engine, Column::Base), rows);
}

/// Hands over a stream that is not quite the one that was sent: something of it must be refused, and
/// nothing of the follower change.
async fn refused(what: &str, change: impl FnOnce(&mut Vec<Part>)) {
    let (_, _, parts) = stream();
    refused_of(parts, what, change).await;
}

async fn refused_of(mut parts: Vec<Part>, what: &str, change: impl FnOnce(&mut Vec<Part>)) {
    let (group, engine) = follower().await;
    let before = rows_of(&*engine, Column::Base);
    change(&mut parts);
    let answers = hand_over(&group, &parts).await;
    assert!(matches!(answers.last(), Some(SnapshotAnswer::Refused(_))), "{what}: {answers:?}");
    assert!(!answers.iter().any(|answer| matches!(answer, SnapshotAnswer::Installed(_))), "{what}");
    assert_eq!(rows_of(&*engine, Column::Base), before, "{what}");
    assert_eq!(group.applied_position().0.index, 0, "{what}");
    assert_eq!(engine.staged(), Ok(vec![]), "{what}: what was staged is gone");
    // And what comes after it is taken.
    let (_, rows, parts) = stream();
    hand_over(&group, &parts).await;
    assert_eq!(rows_of(&*engine, Column::Base), rows, "{what}");
}

/// The same chunk with other bytes, and a checksum that fits them.
fn rewritten(part: &Part, change: impl FnOnce(&mut Vec<(Bytes, Bytes)>)) -> Part {
    let Part::Chunk { seq, rows, .. } = part else { panic!("{part:?}") };
    let mut decoded = wire::decode(rows).expect("it was just encoded");
    change(&mut decoded);
    let rows = Bytes::from(wire::encode(&decoded));
    Part::Chunk { seq: *seq, crc: crc32c::crc32c(&rows), rows }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_what_was_sent_is_refused_and_changes_nothing() {
    refused("a chunk is missing", |parts| drop(parts.remove(2))).await;
    refused("the last chunk is missing", |parts| drop(parts.remove(4))).await;
    refused("a chunk comes twice", |parts| parts.insert(2, parts[2].clone())).await;
    refused("chunks change places", |parts| parts.swap(2, 3)).await;
    refused("the beginning is missing", |parts| drop(parts.remove(0))).await;
    for byte in [0, 1, 30, 150] {
        refused("a bit is turned on the way", |parts| {
            let Part::Chunk { rows, .. } = &mut parts[2] else { panic!("a chunk") };
            let mut turned = rows.to_vec();
            turned[byte] ^= 4;
            *rows = turned.into();
        })
        .await;
    }
    let piece = in_pieces().iter().position(|part| matches!(part, Part::Piece { .. })).unwrap();
    refused_of(in_pieces(), "a piece is missing", |parts| drop(parts.remove(piece))).await;
    refused_of(in_pieces(), "a piece comes twice", |parts| {
        parts.insert(piece, parts[piece].clone());
    })
    .await;
    refused_of(in_pieces(), "pieces change places", |parts| parts.swap(piece, piece + 1)).await;
    refused_of(in_pieces(), "the rest of a chunk is missing", |parts| {
        let last = parts.len() - 2;
        drop(parts.remove(last));
    })
    .await;
    refused_of(in_pieces(), "a bit of a piece is turned on the way", |parts| {
        let Part::Piece { bytes, .. } = &mut parts[piece] else { panic!("a piece") };
        let mut turned = bytes.to_vec();
        turned[60] ^= 4;
        *bytes = turned.into();
    })
    .await;
    refused("a value is another", |parts| {
        parts[3] = rewritten(&parts[3], |rows| rows[0].1 = "other".into());
    })
    .await;
    refused("a row is missing", |parts| {
        parts[3] = rewritten(&parts[3], |rows| drop(rows.pop()));
    })
    .await;
    refused("rows change places", |parts| {
        parts[3] = rewritten(&parts[3], |rows| rows.swap(0, 1));
    })
    .await;
    refused("a row is of another range", |parts| {
        parts[4] = rewritten(&parts[4], |rows| {
            rows[1].0 = key::local::meta(RangeId(8)).into();
        });
    })
    .await;
    refused("the header is of another entry", |parts| {
        let (mut header, ..) = stream();
        header.last.index += 1;
        parts[0] = Part::Begin(header.encode());
    })
    .await;
    refused("the header is cut short", |parts| {
        let (header, ..) = stream();
        let encoded = header.encode();
        parts[0] = Part::Begin(encoded.slice(..encoded.len() - 1));
    })
    .await;
    refused("it holds what was written after its sender led", |parts| {
        let (mut header, ..) = stream();
        header.last.leader_id.term = 4;
        parts[0] = Part::Begin(header.encode());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_falls_silent_is_given_up() {
    let (group, engine) = follower().await;
    let keep = tokio::spawn(group.keep_log_short());
    let (_, _, parts) = stream();
    hand_over(&group, &parts[..3]).await;
    assert_eq!(engine.staged().map(|sets| sets.len()), Ok(1));
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(engine.staged(), Ok(vec![]));
    let answers = hand_over(&group, &parts[3..4]).await;
    assert!(matches!(answers[0], SnapshotAnswer::Refused(_)), "{answers:?}");
    keep.abort();
}

#[test]
fn what_a_crash_left_of_transfers_is_removed_but_not_what_is_being_installed() {
    let engine = MemoryEngine::open(&MemoryDisk::new()).expect("nobody has it open");
    for set in [3, 8] {
        engine.stage(SetName(set), Column::Base, image_spans(&meta())).expect("it begins");
    }
    let (header, ..) = stream();
    let marker = Installing { set: 3, header: header.encode() };
    let mut batch = Batch::new();
    batch.put(Column::Node, key::node::installing(RANGE), wire::encode(&marker));
    engine.write(batch).expect("the disk has space");
    let settings = SnapshotSettings::default();
    let snapshots = Snapshots::open(&engine, settings, Arc::new(NoFailpoints));
    assert_eq!(engine.staged(), Ok(vec![SetName(3)]));
    assert_eq!(snapshots.expect("the store reads").next(), 9);
}
