//! INV-9 (`consistency.md`): the base is a function of the log alone.
//!
//! ```text
//!   entries, as first applied by anybody ─▶ a replica of our own ─▶ rows, as each entry leaves them
//!                                                                        │ the same?
//!   host: batch that applies entries (a, b] ── its rows ─────────────────┘
//! ```
//!
//! At every batch: the rows that it writes are those that applying these entries to nothing but what came before them
//! leaves, and it leaves none out. When a snapshot is installed: all rows of the range.
//!
//! What the rows should *be* is looked at in `values`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use latitude_range::{Content, Entry, Range, Staged, ValueRow, image_spans};
use latitude_storage::{Batch, Column, Result, Rows, Scan, View, Write, key};
use latitude_types::{Key, Past, RangeId, Stamp, WriteTime};

use super::values::Values;
use crate::violation::{Check, Violation};

/// A replica of each range, that has every entry anybody has applied.
#[derive(Default)]
pub(crate) struct Replays(BTreeMap<RangeId, Replay>);

struct Replay {
    range: Range,
    rows: History,
    /// The rows that each entry changed.
    changes: BTreeMap<u64, Vec<Vec<u8>>>,
    values: Values,
}

/// Rows as entries left them: for each the entries that changed it, ascending, and what it was after them.
#[derive(Default)]
struct History(BTreeMap<Vec<u8>, Vec<(u64, Option<Bytes>)>>);

impl History {
    fn at(&self, row: &[u8], index: u64) -> Option<&Bytes> {
        let states = self.0.get(row)?;
        states[..states.partition_point(|(at, _)| *at <= index)].last()?.1.as_ref()
    }

    fn last(&self, row: &[u8]) -> Option<&Bytes> {
        self.0.get(row)?.last()?.1.as_ref()
    }
}

impl View for History {
    fn get(&self, _: Column, row: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.last(row).cloned())
    }

    fn scan(&self, _: Column, Scan { start, end, reverse }: Scan) -> Rows<'_> {
        let within = self
            .0
            .range(start..)
            .take_while(move |(row, _)| end.as_ref().is_none_or(|end| row[..] < end[..]));
        let rows = within.filter_map(|(row, states)| {
            let value = states.last()?.1.clone()?;
            Some(Ok((Bytes::copy_from_slice(row), value)))
        });
        if reverse {
            let mut rows: Vec<_> = rows.collect();
            rows.reverse();
            return Box::new(rows.into_iter());
        }
        Box::new(rows)
    }
}

impl Replays {
    /// The local writes that won a register when they were folded: which, what they left, and the entry's stamp.
    pub(crate) fn winners(&self) -> impl Iterator<Item = (WriteTime, Key, Content, Stamp)> {
        self.0.values().flat_map(|replay| replay.values.winners())
    }

    /// Whether the entries of a range are followed.
    pub(crate) fn follows(&self, range: RangeId) -> bool {
        self.0.contains_key(&range)
    }

    /// Follows a range from here on: a store that has applied it up to that entry, further than any other.
    pub(crate) fn follow(&mut self, range: RangeId, index: u64, store: &dyn View) {
        let Ok(opened) = Range::open(range, store) else { return };
        let mut rows = History::default();
        let mut values = Values::default();
        for span in image_spans(opened.meta()) {
            for (row, value) in store.scan(Column::Base, span.into()).filter_map(Result::ok) {
                if ValueRow::decode(&value).is_ok() {
                    values.know_nothing();
                }
                rows.0.insert(row.to_vec(), vec![(index, Some(value))]);
            }
        }
        rows.0.remove(&key::local::applied(range)[..]);
        self.0.insert(range, Replay { range: opened, rows, changes: BTreeMap::new(), values });
    }

    /// An entry was applied for the first time.
    pub(crate) fn applied(
        &mut self,
        range: RangeId,
        index: u64,
        entry: &Entry,
    ) -> Option<Violation> {
        let replay = self.0.get_mut(&range)?;
        let before = replay.range.meta().clone();
        let mut staged = Staged::new(&replay.rows);
        let applied = match replay.range.apply(entry, &mut staged) {
            Ok(applied) => applied,
            Err(error) => {
                self.0.remove(&range);
                let what = format!("entry {index} of {range} cannot be applied again: {error}");
                return Some(Check::Replicas.found(what));
            }
        };
        for write in &staged.into_batch() {
            let (row, value) = match write {
                Write::Put { key, value, .. } => (key, Some(value.clone())),
                Write::Delete { key, .. } => (key, None),
                Write::DeleteRange { .. } => continue,
            };
            replay.rows.0.entry(row.to_vec()).or_default().push((index, value));
            replay.changes.entry(index).or_default().push(row.to_vec());
        }
        let (after, rows) = (replay.range.meta(), &replay.rows);
        replay.values.applied(entry, &before, after, &applied, |row| rows.last(row).cloned())
    }

    /// A host applies the entries above `from` and up to `to` with this batch.
    pub(crate) fn writes(
        &self,
        range: RangeId,
        (from, to): (u64, u64),
        batch: &Batch,
    ) -> Option<Violation> {
        let replay = self.0.get(&range)?;
        let applied = key::local::applied(range);
        let spans = image_spans(replay.range.meta());
        let mut written = BTreeSet::new();
        for write in batch {
            let (row, value) = match write {
                Write::Put { column: Column::Base, key, value } => (key, Some(value)),
                Write::Delete { column: Column::Base, key } => (key, None),
                _ => continue,
            };
            if row[..] == applied[..] || !spans.iter().any(|span| span.contains(row)) {
                continue;
            }
            if !is_same(replay.rows.at(row, to), value) {
                return Some(differs(range, to, row));
            }
            written.insert(&row[..]);
        }
        let changed = replay.changes.range(from + 1..=to).flat_map(|(_, rows)| rows);
        let left_out = changed.map(|row| &row[..]).find(|row| !written.contains(row))?;
        // It may have been made and removed again within the batch.
        let stays = is_same(replay.rows.at(left_out, to), replay.rows.at(left_out, from));
        (!stays).then(|| differs(range, to, left_out))
    }

    /// A host holds a range as a snapshot has it, up to that entry.
    pub(crate) fn installed(
        &self,
        range: RangeId,
        index: u64,
        store: &dyn View,
    ) -> Option<Violation> {
        let replay = self.0.get(&range)?;
        let found = |row: &[u8]| store.get(Column::Base, row).ok().flatten();
        let wrong = replay
            .rows
            .0
            .keys()
            .find(|row| !is_same(replay.rows.at(row, index), found(row).as_ref()))?;
        Some(differs(range, index, wrong))
    }
}

/// Whether two rows are the same; of a value's what it follows does not count.
fn is_same(expected: Option<&Bytes>, found: Option<&Bytes>) -> bool {
    if expected == found {
        return true;
    }
    let content = |row: &Bytes| {
        ValueRow::decode(row).ok().map(|row| ValueRow { past: Past::default(), ..row })
    };
    match (expected.and_then(content), found.and_then(content)) {
        (Some(expected), Some(found)) => expected == found,
        _ => false,
    }
}

fn differs(range: RangeId, index: u64, row: &[u8]) -> Violation {
    Check::Replicas.found(format!(
        "{range} has another row {} than its log up to entry {index} leaves",
        row.escape_ascii()
    ))
}

#[cfg(test)]
mod tests {
    use latitude_range::{Body, Op, Operation, RangeMeta};
    use latitude_storage::Engine;
    use latitude_storage::memory::{MemoryDisk, MemoryEngine};
    use latitude_types::{
        ClientId, Epoch, KeySpan, KeyspaceId, Level, NodeId, OperationId, OperationKind, Positions,
        Stamp, Timestamp,
    };

    use super::*;

    const RANGE: RangeId = RangeId(4);

    fn put(sequence: u64, key: &str) -> Entry {
        let operation = Operation {
            id: OperationId {
                birth: Timestamp::from_ms(1),
                client: ClientId([7; 16]),
                sequence,
                kind: OperationKind::Log,
            },
            answered_below: 1,
            level: Level::Strict,
            key: Key::new(key.as_bytes()).unwrap(),
            op: Op::Put { value: Bytes::from_static(b"v") },
            named: Vec::new(),
            need: Positions::default(),
            past: Past::default(),
            extensions: Vec::new(),
        };
        Entry {
            stamp: Stamp { time: Timestamp::from_ms(sequence + 1), node: NodeId(1) },
            range: RANGE,
            epoch: Epoch(1),
            keyspace: KeyspaceId(16),
            body: Body::Write(latitude_range::Write {
                segments: Vec::new(),
                operations: vec![operation],
            }),
        }
    }

    /// A store with an empty range, and what follows it from there.
    fn followed() -> (MemoryEngine, Replays) {
        let store = MemoryEngine::open(&MemoryDisk::new()).unwrap();
        let meta = RangeMeta::new(RANGE, KeyspaceId(16), KeySpan::all(), 1024, false);
        let mut staged = Staged::new(&store);
        Range::create(&meta, &mut staged);
        let batch = staged.into_batch();
        store.write(batch).unwrap();
        let mut replays = Replays::default();
        replays.follow(RANGE, 0, &store);
        assert!(replays.follows(RANGE));
        (store, replays)
    }

    /// What a host writes that applies these entries.
    fn batch(store: &MemoryEngine, entries: &[Entry]) -> Batch {
        let mut range = Range::open(RANGE, store).unwrap();
        let mut staged = Staged::new(store);
        for entry in entries {
            range.apply(entry, &mut staged).unwrap();
        }
        staged.into_batch()
    }

    #[test]
    fn a_host_writes_the_rows_that_its_entries_leave_however_many_it_takes_at_once() {
        let (store, mut replays) = followed();
        let entries = [put(1, "a"), put(2, "b")];
        for (index, entry) in (1..).zip(&entries) {
            assert_eq!(replays.applied(RANGE, index, entry), None);
        }
        assert_eq!(replays.writes(RANGE, (0, 2), &batch(&store, &entries)), None);
        assert_eq!(replays.writes(RANGE, (0, 1), &batch(&store, &entries[..1])), None);
        let other = replays.writes(RANGE, (0, 1), &batch(&store, &[put(1, "c")]));
        assert_eq!(other.unwrap().check, Check::Replicas);
        let too_little = replays.writes(RANGE, (0, 2), &batch(&store, &entries[..1]));
        assert!(too_little.is_some());
    }

    #[test]
    fn a_snapshot_is_what_the_entries_up_to_it_leave() {
        let (store, mut replays) = followed();
        let entries = [put(1, "a"), put(2, "b")];
        for (index, entry) in (1..).zip(&entries) {
            replays.applied(RANGE, index, entry);
        }
        let written = batch(&store, &entries[..1]);
        store.write(written).unwrap();
        assert_eq!(replays.installed(RANGE, 1, &store), None);
        assert!(replays.installed(RANGE, 2, &store).is_some());
        assert!(replays.installed(RANGE, 0, &store).is_some());
    }
}
