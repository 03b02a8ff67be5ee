//! A replica for tests: a range's state machine on a store in memory, fed with encoded entries.

use bytes::Bytes;
use latitude_range::{
    Applied, ApplyError, Audited, Auditor, Content, Entry, Range, RangeMeta, Reader, Staged,
    ValueRow, image_spans,
};
use latitude_storage::key::base::{RowKind, decode, value_key};
use latitude_storage::memory::{MemoryDisk, MemoryEngine};
use latitude_storage::{Batch, Column, Engine, Scan, View};
use latitude_types::{Key, KeyspaceId, Past, RangeId, Stamp, WriteTime};

/// One replica of one range.
pub(crate) struct Replica {
    engine: MemoryEngine,
    range: Range,
}

impl Replica {
    /// A replica that has applied nothing, on a store that holds the rows of these keys too: other
    /// ranges have their rows beside this one's, of its keyspace and of others.
    pub(crate) fn create(
        meta: &RangeMeta,
        neighbours: &[(KeyspaceId, Key)],
    ) -> Result<Self, ApplyError> {
        let engine = MemoryEngine::open(&MemoryDisk::new())?;
        let mut staged = Staged::new(&engine);
        Range::create(meta, &mut staged);
        let row = ValueRow {
            stamp: Stamp::ZERO,
            ordinal: 0,
            version: WriteTime::of_log_write(Stamp::ZERO, 0),
            content: Content::Plain(Bytes::from_static(b"a neighbour's")),
            extensions: Vec::new(),
            past: Past::default(),
        };
        for (keyspace, key) in neighbours {
            staged.put(value_key(*keyspace, key), row.encode());
        }
        let batch = staged.into_batch();
        engine.write(batch)?;
        let range = Range::open(meta.id, &engine)?;
        Ok(Self { engine, range })
    }

    /// A replica that has applied the whole log, `batch_len` entries to a batch, and, if so wanted, was
    /// opened anew before each batch. With it, what it answered.
    pub(crate) fn replay(
        meta: &RangeMeta,
        neighbours: &[(KeyspaceId, Key)],
        log: &[Entry],
        batch_len: usize,
        reopen: bool,
    ) -> Result<(Self, Vec<Applied>), ApplyError> {
        let mut replica = Self::create(meta, neighbours)?;
        let mut applied = Vec::new();
        for batch in log.chunks(batch_len) {
            if reopen {
                replica.range = replica.reopened()?;
            }
            applied.extend(replica.apply(batch)?);
        }
        Ok((replica, applied))
    }

    /// Applies entries, as they stand in a log, and writes what they did as one batch.
    pub(crate) fn apply(&mut self, entries: &[Entry]) -> Result<Vec<Applied>, ApplyError> {
        let mut staged = Staged::new(&self.engine);
        let mut applied = Vec::new();
        for entry in entries {
            let entry = Entry::decode(&entry.encode())?;
            applied.push(self.range.apply(&entry, &mut staged)?);
        }
        let batch = staged.into_batch();
        self.engine.write(batch)?;
        Ok(applied)
    }

    /// Becomes what another replica of the range is, by that one's rows.
    pub(crate) fn take(&mut self, other: &Self) -> Result<(), ApplyError> {
        let mut batch = Batch::new();
        for span in image_spans(other.range.meta()) {
            batch.delete_range(Column::Base, span.start.clone(), span.end.clone());
            for row in other.engine.scan(Column::Base, span.scan()) {
                let (key, value) = row?;
                batch.put(Column::Base, key, value);
            }
        }
        self.engine.write(batch)?;
        self.range = self.reopened()?;
        Ok(())
    }

    /// Removes rows of the keys behind the state machine's back.
    pub(crate) fn lose(
        &mut self,
        is_lost: impl Fn(&RowKind, &[u8]) -> bool,
    ) -> Result<(), ApplyError> {
        let mut batch = Batch::new();
        for row in self.engine.scan(Column::Base, Scan::all()) {
            let (key, value) = row?;
            if decode(&key).is_some_and(|row| is_lost(&row.kind, &value)) {
                batch.delete(Column::Base, key);
            }
        }
        self.engine.write(batch)?;
        Ok(())
    }

    /// The state machine as it is in memory.
    pub(crate) fn range(&self) -> &Range {
        &self.range
    }

    /// The state machine as the store alone gives it.
    pub(crate) fn reopened(&self) -> Result<Range, ApplyError> {
        Range::open(self.id(), &self.engine)
    }

    /// The range's rows, for reading.
    pub(crate) fn reader(&self) -> Result<Reader<'_>, ApplyError> {
        Reader::new(self.id(), &self.engine)
    }

    /// What its base comes to.
    pub(crate) fn audited(&self) -> Result<Audited, ApplyError> {
        let mut auditor = Auditor::new(self.id());
        for span in image_spans(self.range.meta()) {
            for row in self.engine.scan(Column::Base, span.scan()) {
                let (key, value) = row?;
                auditor.add(&key, &value)?;
            }
        }
        Ok(auditor.finish())
    }

    /// Every row of the base, byte for byte.
    pub(crate) fn base(&self) -> Result<Vec<(Bytes, Bytes)>, ApplyError> {
        Ok(self.engine.scan(Column::Base, Scan::all()).collect::<Result<_, _>>()?)
    }

    fn id(&self) -> RangeId {
        self.range.meta().id
    }
}
