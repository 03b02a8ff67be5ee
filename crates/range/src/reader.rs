//! Reading a range's base, from one snapshot.

use std::collections::BTreeMap;

use bytes::Bytes;
use latitude_crdt::{Content, Ids, Value};
use latitude_storage::{Column, View, key};
use latitude_types::{
    Key, KeySpan, NodeId, OperationId, Past, RangeId, Stamp, Timestamp, WriteTime,
};

use crate::id_rows::ReadIds;
use crate::merge::into_apply_error;
use crate::meta::RangeMeta;
use crate::overlay::{Shown, is_folded};
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
    /// Stop after this many bytes of keys and values; at least one row is read.
    pub bytes_max: usize,
    /// Leave the values out.
    pub keys_only: bool,
}

/// Rows of a range, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// The rows.
    pub rows: Vec<ScanRow>,
    /// Whether the scan stopped at its limit, so that more rows may follow in this range.
    pub more: bool,
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
    pub fn unfolded(&self) -> BTreeMap<NodeId, (usize, Timestamp)> {
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

    /// Whether a local write of this id has taken effect in the base, or can have none any more.
    pub fn knows(&self, key: &Key, id: &OperationId) -> Result<bool, ApplyError> {
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
        let mut bytes = 0;
        for found in self.rows(&span, request.reverse) {
            let (user_key, row) = found?;
            let Some(row) = self.merged(&user_key, row)? else { continue };
            if !row.exists() {
                page.follow(&row);
                continue;
            }
            let full = page.rows.len() >= request.limit || bytes >= request.bytes_max;
            // One row at least, or whoever asks for the next page would get no further.
            if full && !page.rows.is_empty() {
                page.more = true;
                break;
            }
            page.follow(&row);
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
        let mut scan = key::base::value_span(self.meta.keyspace, span).scan();
        scan.reverse = reverse;
        let mut base = self
            .view
            .scan(Column::Base, scan)
            .filter_map(|found| match found {
                Ok((row_key, row)) => {
                    let (_, user_key) = key::base::key_of_value(&row_key)?;
                    Some(ValueRow::decode(&row).map(|row| (user_key, row)).map_err(Into::into))
                }
                Err(error) => Some(Err(ApplyError::from(error))),
            })
            .peekable();
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
}

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
