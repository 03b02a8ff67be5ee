//! Reading a range's base, from one snapshot.

use bytes::Bytes;
use latitude_crdt::{Content, Ids, Value, ValueType};
use latitude_storage::{Column, Scan, View, key};
use latitude_types::{Key, KeySpan, OperationId, Past, RangeId, Stamp, Timestamp, WriteTime};

use crate::id_rows::ReadIds;
use crate::merge::into_apply_error;
use crate::meta::RangeMeta;
use crate::overlay::{Shown, Unfolded, is_folded};
use crate::range::{ApplyError, read_meta};
use crate::row::ValueRow;
use crate::staged::Staged;
use crate::sweep::{self, Looked, Sweep};

/// A range's base as one snapshot has it. Everything it answers stands at the same place in the log:
/// right after the entry stamped [`RangeMeta::last_stamp`].
pub struct Reader<'a> {
    view: &'a dyn View,
    meta: RangeMeta,
    shown: Shown,
}

/// Which rows of a range to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanRequest {
    /// The keys wanted; those outside the range are not looked for.
    pub span: KeySpan,
    /// From the last key down.
    pub reverse: bool,
    /// At most this many rows; 0 counts as 1.
    pub limit: usize,
    /// Stop after this many bytes of keys and values, and after eight times as many, 8 KiB at least, of what was read for
    /// them, deleted keys and values that are not wanted among it. One key at least is looked at.
    pub bytes_max: usize,
    /// Leave the values out.
    pub keys_only: bool,
}

/// Rows of a range, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// The rows.
    pub rows: Vec<ScanRow>,
    /// Whether the scan stopped at one of its limits, so that more rows may follow in this range: beyond `reached`.
    pub more: bool,
    /// The last key that was looked at, whether it has a row or not.
    pub reached: Option<Key>,
    /// The deltas of the keys that were looked at, as far as they are merged and not in the snapshot's base.
    pub unfolded: Unfolded,
    /// What the rows follow, those of deleted keys included.
    pub past: Past,
    /// The largest stamp of an entry that changed one of the rows, those of deleted keys included.
    pub stamp: Stamp,
}

/// A key and its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanRow {
    /// The key.
    pub key: Bytes,
    /// The value; `None` if only keys were wanted.
    pub value: Option<Value>,
    /// The value's version.
    pub version: WriteTime,
}

impl Page {
    fn follow(&mut self, row: &ValueRow) {
        self.past.join(&row.past);
        self.stamp = self.stamp.max(row.stamp);
    }
}

impl<'a> Reader<'a> {
    /// What it reads from.
    pub fn view(&self) -> &'a dyn View {
        self.view
    }

    /// Reads range `id` in `view`, which must be a snapshot if more than one thing is read.
    pub fn new(id: RangeId, view: &'a dyn View) -> Result<Self, ApplyError> {
        Ok(Self { view, meta: read_meta(id, view)?, shown: Shown::default() })
    }

    /// Merges these deltas into what is read, as far as the snapshot has not folded them. They were looked up
    /// before the snapshot was taken.
    pub fn with_deltas(self, shown: Shown) -> Self {
        Self { shown, ..self }
    }

    /// The bug `TwoSnapshots` of `latitude-probe`: takes the metadata of another snapshot.
    #[doc(hidden)]
    pub fn stand_where(&mut self, other: &dyn View) -> Result<(), ApplyError> {
        self.meta = read_meta(self.meta.id, other)?;
        Ok(())
    }

    /// The range's metadata at the snapshot.
    pub fn meta(&self) -> &RangeMeta {
        &self.meta
    }

    /// The deltas that are merged, and not in the snapshot's base: of each origin how many, and the highest.
    pub fn unfolded(&self) -> Unfolded {
        self.shown.unfolded(&self.meta.origins)
    }

    /// The key's row: `None` if it was never written; a row without a value if it was deleted. The
    /// caller has checked that the key is in the span of [`Reader::meta`].
    pub fn get(&self, key: &Key) -> Result<Option<ValueRow>, ApplyError> {
        let row = self.view.get(Column::Base, &key::base::value_key(self.meta.keyspace, key))?;
        self.merged(key, row.as_deref().map(ValueRow::decode).transpose()?)
    }

    /// A row of the base with the key's deltas merged into it. What it follows is what they follow, and they.
    fn merged(&self, key: &Key, row: Option<ValueRow>) -> Result<Option<ValueRow>, ApplyError> {
        let origins = &self.meta.origins;
        let mut deltas =
            self.shown.of_key(key).iter().filter(|delta| !is_folded(delta, origins)).peekable();
        let Some(first) = deltas.peek() else { return Ok(row) };
        let (stamp, ordinal) =
            row.as_ref().map_or((Stamp::ZERO, 0), |row| (row.stamp, row.ordinal));
        let base = row.as_ref().map(ValueRow::state).unwrap_or_default();
        let otherwise = first.time();
        let mut past = row.map(|row| row.past).unwrap_or_default();
        let writes = deltas.map(|delta| {
            past.join(&delta.past);
            past.seen.raise(delta.origin, delta.position);
            past.add_log(delta.range, self.meta.epoch, delta.admitted);
            delta.write()
        });
        let ids = ReadIds { view: self.view, keyspace: self.meta.keyspace, key };
        let state =
            base.with_deltas(self.meta.value_type, &ids, writes).map_err(into_apply_error)?;
        let version = state.version.unwrap_or(otherwise);
        let extensions = Vec::new();
        Ok(Some(ValueRow { stamp, ordinal, version, content: state.content, extensions, past }))
    }

    /// Whether a local write of this id has taken effect in the base, or can have none any more. Of a register this is
    /// known as long as the write is the winning one: its version is its id.
    pub fn knows(&self, key: &Key, id: &OperationId) -> Result<bool, ApplyError> {
        if self.meta.value_type == ValueType::Register {
            let row =
                self.view.get(Column::Base, &key::base::value_key(self.meta.keyspace, key))?;
            let row = row.as_deref().map(ValueRow::decode).transpose()?;
            return Ok(row.is_some_and(|row| row.version == WriteTime::of_local_write(id)));
        }
        let ids = ReadIds { view: self.view, keyspace: self.meta.keyspace, key };
        Ok(ids.fate(id)?.is_some())
    }

    /// What a sweep proposed at this time or later finds of what the snapshot holds: at least this goes.
    pub fn look(&self, now: Timestamp, sweep: &Sweep) -> Result<Looked, ApplyError> {
        sweep::look(&self.meta, now, sweep, &Staged::new(self.view))
    }

    /// The rows of the wanted keys that this range holds.
    pub fn scan(&self, request: &ScanRequest) -> Result<Page, ApplyError> {
        let mut page = Page::default();
        let Some(span) = request.span.intersection(&self.meta.span) else { return Ok(page) };
        let (mut bytes, mut work) = (0, 0);
        let work_max = request.bytes_max.max(WORK_BYTES_MIN).saturating_mul(WORK_PER_BYTE);
        for found in self.rows(&span, request.reverse) {
            let (user_key, row) = found?;
            // One key at least, or whoever asks for the next page would get no further.
            if page.reached.is_some() && work >= work_max {
                page.more = true;
                break;
            }
            let row = self.merged(&user_key, row)?;
            let exists = row.as_ref().is_some_and(ValueRow::exists);
            let is_full = page.rows.len() >= request.limit || bytes >= request.bytes_max;
            if exists && is_full && !page.rows.is_empty() {
                page.more = true;
                break;
            }
            self.shown.count_unfolded(&user_key, &self.meta.origins, &mut page.unfolded);
            work += ROW_WORK + user_key.as_bytes().len();
            page.reached = Some(user_key.clone());
            let Some(row) = row else { continue };
            page.follow(&row);
            work += size(&row.content);
            if !exists {
                continue;
            }
            let value = (!request.keys_only).then(|| row.read(self.meta.value_type));
            bytes += user_key.as_bytes().len();
            bytes += value.as_ref().map_or(0, |_| size(&row.content));
            let key = Bytes::copy_from_slice(user_key.as_bytes());
            page.rows.push(ScanRow { key, value, version: row.version });
        }
        Ok(page)
    }

    /// The keys of a span that have a row in the base or deltas to be shown, in order, with their rows.
    fn rows(
        &self,
        span: &KeySpan,
        reverse: bool,
    ) -> impl Iterator<Item = Result<(Key, Option<ValueRow>), ApplyError>> {
        let mut base = self.values(span, reverse).peekable();
        let mut keys: Vec<_> =
            self.shown.keys().filter(|key| span.contains(key.as_bytes())).collect();
        // The next one is at the end.
        if !reverse {
            keys.reverse();
        }
        std::iter::from_fn(move || {
            let delta_first = match (base.peek(), keys.last()) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(Err(_)), Some(_)) => false,
                (Some(Ok((in_base, _))), Some(key)) if in_base == *key => {
                    keys.pop();
                    false
                }
                (Some(Ok((in_base, _))), Some(key)) => (*key < in_base) != reverse,
            };
            if delta_first {
                return keys.pop().map(|key| Ok((key.clone(), None)));
            }
            base.next().map(|found| found.map(|(key, row)| (key, Some(row))))
        })
    }

    /// The rows of values in the base, in order. Beside a key there may be any number of ids: beyond some of them the
    /// walk begins anew behind the rest.
    fn values(
        &self,
        span: &KeySpan,
        reverse: bool,
    ) -> impl Iterator<Item = Result<(Key, ValueRow), ApplyError>> {
        let keyspace = self.meta.keyspace;
        let mut rest = key::base::value_span(keyspace, span);
        let walk = move |rest: &key::Span| {
            self.view.scan(Column::Base, Scan { reverse, ..rest.clone().scan() })
        };
        let mut rows = walk(&rest);
        let mut ids = 0;
        std::iter::from_fn(move || {
            loop {
                let (row_key, row) = match rows.next()? {
                    Ok(found) => found,
                    Err(error) => return Some(Err(error.into())),
                };
                let Some(of) = key::base::decode(&row_key) else { continue };
                if of.kind == key::base::RowKind::Value {
                    ids = 0;
                    return Some(
                        ValueRow::decode(&row).map(|row| (of.key, row)).map_err(Into::into),
                    );
                }
                ids += 1;
                if ids == IDS_STEPPED_MAX {
                    ids = 0;
                    let beside = key::base::id_span(keyspace, &of.key);
                    match reverse {
                        true => rest.end = beside.start,
                        false => rest.start = beside.end,
                    }
                    rows = walk(&rest);
                }
            }
        })
    }
}

/// Bytes that a scan may read for each that it may answer, and the least that it may answer for this.
const WORK_PER_BYTE: usize = 8;
const WORK_BYTES_MIN: usize = 1 << 10;
/// What a row costs beside its bytes, as so many of them.
const ROW_WORK: usize = 64;
/// Ids of a key that are stepped over one by one: to begin anew costs about as much.
const IDS_STEPPED_MAX: u32 = 16;

/// About how many bytes a value takes in an answer.
fn size(content: &Content) -> usize {
    match content {
        Content::Deleted => 0,
        Content::Plain(value) => value.len(),
        Content::Counter(_) => size_of::<i64>(),
        Content::Live(elements) => {
            elements.iter().map(|element| element.name.len() + element.value.len()).sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use latitude_storage::memory::{MemoryDisk, MemoryEngine};
    use latitude_storage::{Engine, Rows};
    use latitude_types::{ClientId, KeyspaceId, OperationKind, Timestamp};

    use super::*;
    use crate::range::Range;

    const IDS: u64 = 100_000;
    const DELETED: usize = 100_000;

    /// Counts the rows that are walked over.
    struct Counted<'a> {
        engine: &'a MemoryEngine,
        rows: Arc<AtomicUsize>,
    }

    impl View for Counted<'_> {
        fn get(&self, column: Column, key: &[u8]) -> latitude_storage::Result<Option<Bytes>> {
            self.engine.get(column, key)
        }

        fn scan(&self, column: Column, scan: Scan) -> Rows<'_> {
            let count = Arc::clone(&self.rows);
            Box::new(self.engine.scan(column, scan).inspect(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            }))
        }
    }

    fn key(name: &str) -> Key {
        Key::new(name.as_bytes()).expect("it is a key")
    }

    fn row(content: Content) -> Vec<u8> {
        let (stamp, ordinal) = (Stamp::ZERO, 0);
        let version = WriteTime::of_log_write(stamp, ordinal);
        let (extensions, past) = (Vec::new(), Past::default());
        ValueRow { stamp, ordinal, version, content, extensions, past }.encode()
    }

    /// Two counters with many ids beside the first, and many deleted keys between them.
    fn filled() -> (RangeMeta, MemoryEngine) {
        let engine = MemoryEngine::open(&MemoryDisk::new()).expect("nobody has it open");
        let keyspace = KeyspaceId::DEFAULT;
        let meta = RangeMeta::new(RangeId(7), keyspace, KeySpan::all(), 1 << 20, false);
        let meta = RangeMeta { value_type: ValueType::Counter, ..meta };
        let mut staged = Staged::new(&engine);
        Range::create(&meta, &mut staged);
        let mut batch = staged.into_batch();
        for name in ["a", "z"] {
            let counter = row(Content::Counter(1));
            batch.put(Column::Base, key::base::value_key(keyspace, &key(name)), counter);
        }
        for sequence in 0..IDS {
            let (birth, client) = (Timestamp::from_ms(sequence), ClientId([7; 16]));
            let id = OperationId { birth, client, sequence, kind: OperationKind::Local };
            batch.put(Column::Base, key::base::id_key(keyspace, &key("a"), &id), Vec::new());
        }
        for at in 0..DELETED {
            let deleted = key(&format!("d{at:08}"));
            let deleted = key::base::value_key(keyspace, &deleted);
            batch.put(Column::Base, deleted, row(Content::Deleted));
        }
        engine.write(batch).expect("there is room");
        (meta, engine)
    }

    /// A scan looks at about as much as it may answer, whatever lies between; pages follow each other to the end.
    #[test]
    fn a_page_looks_at_few_rows_however_many_ids_and_deleted_keys_there_are() {
        let (meta, engine) = filled();
        for reverse in [false, true] {
            let rows = Arc::new(AtomicUsize::new(0));
            let counted = Counted { engine: &engine, rows: Arc::clone(&rows) };
            let reader = Reader::new(meta.id, &counted).expect("it is there");
            let (limit, bytes_max, keys_only) = (2, 10_000, false);
            let mut request =
                ScanRequest { span: KeySpan::all(), reverse, limit, bytes_max, keys_only };
            let mut found = Vec::new();
            let mut pages = 0;
            loop {
                rows.store(0, Ordering::Relaxed);
                let page = reader.scan(&request).expect("it can be read");
                let looked = rows.load(Ordering::Relaxed);
                assert!(looked < 2_000, "a page of {} rows looked at {looked}", page.rows.len());
                found.extend(page.rows.into_iter().map(|row| row.key));
                pages += 1;
                if !page.more {
                    break;
                }
                let reached = page.reached.expect("it looked at one");
                let reached = reached.as_bytes();
                request.span = match reverse {
                    true => KeySpan::new(b"", Some(reached)).expect("there are keys below"),
                    false => KeySpan::new(&[reached, &[0]].concat(), None).expect("there may be"),
                };
            }
            let expected = if reverse { ["z", "a"] } else { ["a", "z"] };
            assert_eq!(found, expected);
            assert!((50..200).contains(&pages), "{pages}");
        }
    }
}
