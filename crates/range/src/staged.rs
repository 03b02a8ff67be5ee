//! A view with writes not yet made on top: what an entry reads while it is applied.

use std::collections::BTreeMap;

use bytes::Bytes;
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
