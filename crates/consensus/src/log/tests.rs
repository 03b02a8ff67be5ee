use latitude_range::{Body, Entry as RangeEntry, Write};
use latitude_storage::memory::{MemoryDisk, MemoryEngine};
use latitude_types::{Epoch, KeyspaceId, NodeId, ReplicaId, Timestamp};
use openraft::entry::RaftEntry;
use openraft::type_config::TypeConfigExt;

use super::*;
use crate::committer::FlushInline;
use crate::types::LeaderId;

const RANGE: RangeId = RangeId(7);
const GENERATION: Generation = Generation(1);

/// Four of these are more than the cache holds and more than one request carries.
const LARGE: usize = 300 << 10;

fn id(term: u64, index: u64) -> LogId {
    let node_id = ReplicaId { node: NodeId(1), generation: GENERATION };
    LogId { leader_id: LeaderId { term, node_id }, index }
}

fn entry(term: u64, index: u64, len: usize) -> Entry {
    let proposal = Proposal(vec![index as u8; len].into());
    RaftEntry::new(id(term, index), EntryPayload::Normal(proposal))
}

fn open(disk: &MemoryDisk) -> (Arc<dyn Engine>, io::Result<RangeLog>) {
    let engine: Arc<dyn Engine> =
        Arc::new(MemoryEngine::open(disk).expect("nobody else has it open"));
    let (committer, run) = Committer::new(FlushInline(Arc::clone(&engine)));
    tokio::spawn(run);
    let log = RangeLog::open(Arc::clone(&engine), committer, RANGE, GENERATION, u64::MAX);
    (engine, log)
}

fn open_whole(disk: &MemoryDisk) -> RangeLog {
    open(disk).1.expect("the log is whole")
}

/// The log after the power was cut: everything not synced is gone.
fn reopen(log: RangeLog, disk: &MemoryDisk) -> RangeLog {
    drop(log);
    disk.crash(|_| 0);
    open_whole(disk)
}

/// Appends and waits until it is durable.
async fn append(log: &mut RangeLog, entries: impl IntoIterator<Item = Entry>) {
    let (sender, flushed) = TypeConfig::oneshot();
    let entries: Vec<_> = entries.into_iter().collect();
    log.append(entries, IOFlushed::signal(sender)).await.expect("the disk has space");
    flushed.await.expect("the callback is called").expect("the sync succeeds");
}

fn ids(entries: &[Entry]) -> Vec<(u64, u64)> {
    entries.iter().map(|entry| (entry.log_id.leader_id.term, entry.log_id.index)).collect()
}

fn indexes(entries: io::Result<Vec<Entry>>) -> Vec<u64> {
    entries.expect("the log is whole").iter().map(|entry| entry.log_id.index).collect()
}

async fn all(log: &mut RangeLog) -> Vec<(u64, u64)> {
    ids(&log.try_get_log_entries(..).await.expect("the log is whole"))
}

#[tokio::test]
async fn every_read_finds_the_same_entries_whether_they_are_cached_or_only_stored() {
    let disk = MemoryDisk::new();
    let mut log = open_whole(&disk);
    let written: Vec<_> = (0..12).map(|index| entry(1, index, LARGE)).collect();
    append(&mut log, written.clone()).await;
    let cached_from = log.state().cached_from();
    assert!((1..12).contains(&cached_from), "some are cached and some are not: {cached_from}");
    for reopened in [false, true] {
        if reopened {
            log = reopen(log, &disk);
        }
        for start in 0..12 {
            for end in start..14 {
                let read = log.try_get_log_entries(start..end).await.expect("the log is whole");
                assert_eq!(read, written[start as usize..end.min(12) as usize], "{start}..{end}");
            }
        }
    }
}

#[tokio::test]
async fn an_entry_larger_than_the_cache_is_kept_in_it_alone_and_read_whole() {
    let disk = MemoryDisk::new();
    let mut log = open_whole(&disk);
    let huge = entry(1, 1, 2 * CACHE_BYTES_MAX);
    append(&mut log, [entry(1, 0, 10), huge.clone()]).await;
    assert_eq!(log.state().cached_from(), 1);
    append(&mut log, [entry(1, 2, 10)]).await;
    assert_eq!(log.state().cached_from(), 2, "it goes as soon as there is another");
    assert_eq!(log.state().cache_bytes, payload_len(&entry(1, 2, 10)));
    let read = log.try_get_log_entries(0..3).await.expect("the log is whole");
    assert_eq!(read, [entry(1, 0, 10), huge, entry(1, 2, 10)]);
}

#[tokio::test]
async fn a_limited_read_keeps_to_its_bytes_and_returns_at_least_one_entry() {
    let disk = MemoryDisk::new();
    let mut log = open_whole(&disk);
    append(&mut log, (0..8).map(|index| entry(1, index, LARGE))).await;
    append(&mut log, [entry(1, 8, 2 * REQUEST_BYTES_MAX), entry(1, 9, 10)]).await;
    let fitting = (REQUEST_BYTES_MAX / payload_len(&entry(1, 0, LARGE))) as u64;
    assert_eq!(fitting, 3);
    // From the store, and from store and cache together; an entry too large comes alone.
    for (start, expected) in [(0, vec![0, 1, 2]), (6, vec![6, 7]), (8, vec![8]), (9, vec![9])] {
        assert_eq!(indexes(log.limited_get_log_entries(start, 10).await), expected, "from {start}");
    }
    assert_eq!(indexes(log.limited_get_log_entries(0, 2).await), [0, 1]);
    // The same from the cache alone.
    let disk = MemoryDisk::new();
    let mut log = open_whole(&disk);
    append(&mut log, (0..3).map(|index| entry(1, index, LARGE))).await;
    assert_eq!(log.state().cached_from(), 0);
    assert_eq!(indexes(log.limited_get_log_entries(0, 3).await), [0, 1, 2]);
    assert_eq!(ids(&log.read(0, 3, LARGE).expect("the log is whole")), [(1, 0)]);
    assert_eq!(ids(&log.read(1, 3, 0).expect("the log is whole")), [(1, 1)]);
}

#[tokio::test]
async fn a_stream_of_entries_is_read_in_pieces_and_misses_none() {
    let disk = MemoryDisk::new();
    let mut log = open_whole(&disk);
    let written: Vec<_> = (0..12).map(|index| entry(1, index, LARGE)).collect();
    append(&mut log, written.clone()).await;
    let read: Vec<_> =
        log.entries_stream(1..12).await.try_collect().await.expect("the log is whole");
    assert_eq!(read, written[1..]);
}

#[tokio::test]
async fn entries_appended_after_a_truncation_replace_those_cut_off() {
    let disk = MemoryDisk::new();
    let mut log = open_whole(&disk);
    append(&mut log, (0..8).map(|index| entry(1, index, LARGE))).await;
    // Into the cached tail, then below it.
    for (term, keep) in [(2, 6), (3, 2)] {
        log.truncate_after(Some(id(1, keep))).await.expect("the disk has space");
        let state = log.get_log_state().await.expect("the log is open");
        assert_eq!(state.last_log_id, Some(id(1, keep)));
        assert_eq!(indexes(log.try_get_log_entries(keep..9).await), [keep]);
        append(&mut log, [entry(term, keep + 1, 10), entry(term, keep + 2, LARGE)]).await;
        let mut expected: Vec<_> = (0..=keep).map(|index| (1, index)).collect();
        expected.extend([(term, keep + 1), (term, keep + 2)]);
        assert_eq!(all(&mut log).await, expected);
        log = reopen(log, &disk);
        assert_eq!(all(&mut log).await, expected);
        assert_eq!(log.state().last, Some(id(term, keep + 2)));
    }
}

#[tokio::test]
async fn a_truncation_lost_with_the_power_leaves_what_was_durable_before() {
    let disk = MemoryDisk::new();
    let mut log = open_whole(&disk);
    append(&mut log, (0..4).map(|index| entry(1, index, 10))).await;
    log.truncate_after(Some(id(1, 1))).await.expect("the disk has space");
    assert_eq!(all(&mut log).await, [(1, 0), (1, 1)]);
    log = reopen(log, &disk);
    assert_eq!(all(&mut log).await, [(1, 0), (1, 1), (1, 2), (1, 3)]);
}

#[tokio::test]
async fn a_truncation_beyond_the_log_changes_nothing() {
    let disk = MemoryDisk::new();
    let mut log = open_whole(&disk);
    append(&mut log, (0..4).map(|index| entry(1, index, 10))).await;
    for last in [3, 4, 100] {
        log.truncate_after(Some(id(1, last))).await.expect("the disk has space");
        assert_eq!(log.state().last, Some(id(1, 3)));
    }
    append(&mut log, [entry(1, 4, 10)]).await;
    assert_eq!(all(&mut log).await.len(), 5);
}

#[tokio::test]
async fn a_purged_log_begins_after_what_was_purged_also_after_reopening() {
    let disk = MemoryDisk::new();
    let mut log = open_whole(&disk);
    append(&mut log, (0..8).map(|index| entry(1, index, LARGE))).await;
    let cached_from = log.state().cached_from();
    for upto in [1, cached_from, 7] {
        log.purge(id(1, upto)).await.expect("the disk has space");
        let (sender, flushed) = TypeConfig::oneshot();
        log.append([], IOFlushed::signal(sender)).await.expect("the disk has space");
        flushed.await.expect("the callback is called").expect("the sync succeeds");
        for reopened in [false, true] {
            if reopened {
                log = reopen(log, &disk);
            }
            let expected: Vec<_> = (upto + 1..8).map(|index| (1, index)).collect();
            assert_eq!(all(&mut log).await, expected, "up to {upto}, reopened: {reopened}");
            let state = log.get_log_state().await.expect("the log is open");
            assert_eq!(state.last_purged_log_id, Some(id(1, upto)));
            assert_eq!(state.last_log_id, Some(id(1, 7)));
        }
    }
    append(&mut log, [entry(1, 8, 10)]).await;
    assert_eq!(all(&mut log).await, [(1, 8)]);
}

#[tokio::test]
async fn a_vote_outlives_a_power_cut_and_an_unsynced_entry_does_not() {
    let disk = MemoryDisk::new();
    let mut log = open_whole(&disk);
    assert!(!log.has_voted().expect("the store reads"));
    append(&mut log, [entry(1, 0, 10)]).await;
    let vote = Vote { leader_id: id(3, 0).leader_id, committed: false };
    log.save_vote(&vote).await.expect("the sync succeeds");
    log.append([entry(3, 1, 10)], IOFlushed::noop()).await.expect("the disk has space");
    assert_eq!(all(&mut log).await, [(1, 0), (3, 1)], "readable before it is durable");
    log = reopen(log, &disk);
    assert_eq!(all(&mut log).await, [(1, 0)]);
    assert_eq!(log.read_vote().await.expect("the store reads"), Some(vote));
}

#[tokio::test]
async fn the_callback_of_an_append_reports_the_sync_that_failed() {
    let disk = MemoryDisk::new();
    let mut log = open_whole(&disk);
    disk.fail_next_sync();
    let (sender, flushed) = TypeConfig::oneshot();
    log.append([entry(1, 0, 10)], IOFlushed::signal(sender)).await.expect("the write succeeds");
    assert!(flushed.await.expect("the callback is called").is_err());
    let vote = Vote { leader_id: id(1, 0).leader_id, committed: false };
    assert!(log.save_vote(&vote).await.is_err(), "nothing is written after it");
}

#[tokio::test]
async fn a_missing_entry_is_noticed_when_it_is_read_and_when_the_log_is_opened() {
    let disk = MemoryDisk::new();
    let (engine, log) = open(&disk);
    let mut log = log.expect("the log is whole");
    append(&mut log, (0..8).map(|index| entry(1, index, LARGE))).await;
    for (missing, reads) in [(1, 0..3), (0, 0..1)] {
        let mut batch = Batch::new();
        batch.delete(Column::Log, key::log::entry(RANGE, GENERATION, missing));
        engine.write(batch).expect("the disk has space");
        let error = log.try_get_log_entries(reads).await.expect_err("an entry is missing");
        assert!(error.to_string().contains(&format!("entry {missing} is missing")), "{error}");
    }
    assert_eq!(indexes(log.try_get_log_entries(2..4).await), [2, 3]);
    engine.sync().expect("the sync succeeds");
    drop((engine, log));
    disk.crash(|_| 0);
    let error = open(&disk).1.err().expect("the first entries are missing");
    assert!(error.to_string().contains("entry 0 is missing"), "{error}");
}

#[tokio::test]
async fn a_damaged_entry_is_noticed_when_it_is_read_and_when_the_log_is_opened() {
    let disk = MemoryDisk::new();
    let mut log = open_whole(&disk);
    append(&mut log, (0..8).map(|index| entry(1, index, LARGE))).await;
    assert!(disk.flip_bit(Column::Log, &key::log::entry(RANGE, GENERATION, 1), 1000));
    let error = log.try_get_log_entries(0..3).await.expect_err("an entry is damaged");
    assert!(error.to_string().contains("checksum"), "{error}");
    assert_eq!(indexes(log.limited_get_log_entries(2, 4).await), [2, 3]);
    drop(log);
    disk.crash(|_| 0);
    assert!(open(&disk).1.is_err());
}

#[tokio::test]
async fn the_largest_stamp_is_known_again_after_reopening() {
    let stamped = |index, ms| {
        let stamp = Stamp { time: Timestamp::from_ms(ms), node: NodeId(1) };
        let body = Body::Write(Write::default());
        let (range, epoch, keyspace) = (RANGE, Epoch(1), KeyspaceId::DEFAULT);
        let proposal = Proposal(RangeEntry { stamp, range, epoch, keyspace, body }.encode());
        (stamp, Entry::new_normal(id(1, index), proposal))
    };
    let disk = MemoryDisk::new();
    let mut log = open_whole(&disk);
    assert_eq!(log.stamp_max(), Stamp::ZERO);
    let (low, first) = stamped(0, 5);
    let (high, second) = stamped(1, 9);
    append(&mut log, [first, second, entry(1, 2, LARGE)]).await;
    assert_eq!(log.stamp_max(), high);
    log.truncate_after(Some(id(1, 0))).await.expect("the disk has space");
    assert_eq!(log.stamp_max(), high, "a stamp given is never given again");
    append(&mut log, [entry(2, 1, 10)]).await;
    assert_eq!(reopen(log, &disk).stamp_max(), low);
}

#[tokio::test]
async fn what_would_leave_a_hole_is_refused_and_what_follows_a_snapshot_is_not() {
    let disk = MemoryDisk::new();
    let mut log = open_whole(&disk);
    append(&mut log, (0..3).map(|index| entry(1, index, 8))).await;
    let (sender, _flushed) = TypeConfig::oneshot();
    let refused = log.append([entry(1, 4, 8)], IOFlushed::signal(sender)).await.unwrap_err();
    assert!(refused.to_string().contains("entry 3 is missing"), "{refused}");
    assert_eq!(all(&mut log).await, [(1, 0), (1, 1), (1, 2)]);
    // A snapshot that is installed takes the log with it.
    log.purge(id(1, 3)).await.expect("the disk has space");
    append(&mut log, [entry(1, 4, 8)]).await;
    assert_eq!(all(&mut reopen(log, &disk)).await, [(1, 4)]);
}
