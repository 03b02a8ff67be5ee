//! Reading a range's base, from one snapshot.

use bytes::Bytes;
use latitude_storage::{Column, View, key};
use latitude_types::{Key, KeySpan, Past, RangeId, WriteTime};

use crate::meta::RangeMeta;
use crate::range::{ApplyError, read_meta};
use crate::row::ValueRow;

/// A range's base as one snapshot has it. Everything it answers stands at the same place in the log:
/// right after the entry stamped [`RangeMeta::last_stamp`].
pub struct Reader<'a> {
    view: &'a dyn View,
    meta: RangeMeta,
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
}

/// A key and its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanRow {
    /// The key.
    pub key: Bytes,
    /// The value; empty if only keys were wanted.
    pub value: Bytes,
    /// The value's version.
    pub version: WriteTime,
}

impl<'a> Reader<'a> {
    /// Reads range `id` in `view`, which must be a snapshot if more than one thing is read.
    pub fn new(id: RangeId, view: &'a dyn View) -> Result<Self, ApplyError> {
        Ok(Self { view, meta: read_meta(id, view)? })
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

    /// The key's row: `None` if it was never written; a row without a value if it was deleted. The
    /// caller has checked that the key is in the span of [`Reader::meta`].
    pub fn get(&self, key: &Key) -> Result<Option<ValueRow>, ApplyError> {
        let row = self.view.get(Column::Base, &key::base::value_key(self.meta.keyspace, key))?;
        Ok(row.as_deref().map(ValueRow::decode).transpose()?)
    }

    /// The rows of the wanted keys that this range holds.
    pub fn scan(&self, request: &ScanRequest) -> Result<Page, ApplyError> {
        let mut page = Page::default();
        let Some(span) = request.span.intersection(&self.meta.span) else { return Ok(page) };
        let mut scan = key::base::value_span(self.meta.keyspace, &span).scan();
        scan.reverse = request.reverse;
        let mut bytes = 0;
        for row in self.view.scan(Column::Base, scan) {
            let (row_key, row) = row?;
            let Some((_, user_key)) = key::base::key_of_value(&row_key) else { continue };
            let row = ValueRow::decode(&row)?;
            let Some(value) = row.value() else {
                page.past.join(&row.past);
                continue;
            };
            let full = page.rows.len() >= request.limit || bytes >= request.bytes_max;
            // One row at least, or whoever asks for the next page would get no further.
            if full && !page.rows.is_empty() {
                page.more = true;
                break;
            }
            page.past.join(&row.past);
            let value = if request.keys_only { Bytes::new() } else { value.clone() };
            bytes += user_key.as_bytes().len() + value.len();
            let key = Bytes::copy_from_slice(user_key.as_bytes());
            page.rows.push(ScanRow { key, value, version: row.version });
        }
        Ok(page)
    }
}
