//! A view with writes not yet made on top: what an entry reads while it is applied.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use latitude_storage::key::Span;
use latitude_storage::{Batch, Column, Result, View};

/// The base as it will be once the writes collected here are made. Several entries can be applied on
/// top of each other and written as one batch.
pub struct Staged<'a> {
    view: &'a dyn View,
    writes: BTreeMap<Vec<u8>, Option<Bytes>>,
}

impl<'a> Staged<'a> {
    /// Nothing written yet on top of `view`.
    pub fn new(view: &'a dyn View) -> Self {
        Self { view, writes: BTreeMap::new() }
    }

    /// The row as the writes so far leave it.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.view.get(Column::Base, key),
        }
    }

    /// The rows of a span, upwards, as the writes so far leave them.
    pub fn scan(&self, span: Span) -> impl Iterator<Item = Result<(Bytes, Bytes)>> + '_ {
        let bounds = (Bound::Included(&span.start[..]), Bound::Excluded(&span.end[..]));
        let mut written = self.writes.range::<[u8], _>(bounds).peekable();
        let mut there = self.view.scan(Column::Base, span.scan()).peekable();
        std::iter::from_fn(move || {
            loop {
                let written_first = match (written.peek(), there.peek()) {
                    (None, _) => false,
                    (Some(_), None) => true,
                    (Some(_), Some(Err(_))) => false,
                    (Some((key, _)), Some(Ok((other, _)))) => {
                        if key[..] == other[..] {
                            // Written over.
                            there.next();
                            continue;
                        }
                        key[..] < other[..]
                    }
                };
                if !written_first {
                    return there.next();
                }
                // A row that is removed is none.
                if let Some((key, Some(row))) = written.next() {
                    return Some(Ok((Bytes::copy_from_slice(key), row.clone())));
                }
            }
        })
    }

    /// Sets a row.
    pub fn put(&mut self, key: Vec<u8>, row: impl Into<Bytes>) {
        self.writes.insert(key, Some(row.into()));
    }

    /// Removes a row.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    /// The writes, as one batch.
    pub fn into_batch(self) -> Batch {
        let mut batch = Batch::new();
        for (key, row) in self.writes {
            match row {
                Some(row) => batch.put(Column::Base, key, row),
                None => batch.delete(Column::Base, key),
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use latitude_storage::Engine;
    use latitude_storage::memory::{MemoryDisk, MemoryEngine};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_scan_is_what_is_there_once_it_is_written(
            there in prop::collection::btree_map(0u8..20, any::<u8>(), 0..12),
            written in prop::collection::btree_map(0u8..20, prop::option::of(any::<u8>()), 0..12),
            (start, end) in (0u8..20, 0u8..20),
        ) {
            let engine = MemoryEngine::open(&MemoryDisk::new()).unwrap();
            let mut before = Staged::new(&engine);
            there.iter().for_each(|(key, row)| before.put(vec![*key], vec![*row]));
            let batch = before.into_batch();
            engine.write(batch).unwrap();
            let mut staged = Staged::new(&engine);
            for (key, row) in &written {
                match row {
                    Some(row) => staged.put(vec![*key], vec![*row]),
                    None => staged.delete(vec![*key]),
                }
            }
            let span = || Span { start: vec![start.min(end)], end: vec![start.max(end)] };
            let found: Vec<_> = staged.scan(span()).map(Result::unwrap).collect();
            let batch = staged.into_batch();
            engine.write(batch).unwrap();
            let after: Vec<_> = engine.scan(Column::Base, span().scan()).map(Result::unwrap).collect();
            prop_assert_eq!(found, after);
        }
    }
}
