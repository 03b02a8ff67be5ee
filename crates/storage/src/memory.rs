//! An engine in memory whose disk can crash, fill up and lose data: for tests and simulations.
//!
//! ```text
//!   MemoryDisk                                        MemoryEngine (one at a time)
//!   ┌────────────┬──────────────────┬─────────────┐
//!   │ checkpoint │ log: synced      │ unsynced    │ ◀── write: a batch more
//!   └────────────┴──────────────────┴─────────────┘
//!                         synced ──▶┤              ◀── sync: moves to the end
//!                   crash keeps all ┤ and a prefix
//!   tables: the sum of the three, which reads see      marker: `synced`, noted outside the log
//! ```
//!
//! It takes no time, draws nothing at random and starts no thread: the same calls have the same
//! results. Which unsynced batches a crash spares is for the caller to say, who has the random numbers.
//!
//! Staged sets lie beside all that. A replacement by one is durable at once and not part of the log's
//! prefix: it keeps its place among the batches, and a crash that loses those before it spares it.
//!
//! The tables are persistent maps (their clones share structure), so a snapshot costs nothing. The last
//! [`LOG_KEPT_MAX`] synced batches are kept apart from the checkpoint, so that they can be lost again.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rpds::RedBlackTreeMapSync;

use crate::key::Span;
use crate::{
    Batch, Column, Damage, Done, Engine, Error, Kind, Result, Rows, Scan, SetName, Staging, View,
    Write,
};

/// How many synced batches can be lost again with [`MemoryDisk::lose_synced`].
pub const LOG_KEPT_MAX: usize = 1024;

/// What `free_space` answers until told otherwise: 1 TiB.
const FREE_SPACE_DEFAULT: u64 = 1 << 40;

/// A disk in memory: outlives the engines opened on it. Clones are the same disk.
#[derive(Clone)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

/// The engine opened on a [`MemoryDisk`].
///
/// Dropping it is like killing the process: nothing is synced, and what was written is still there for
/// the next one. Only [`MemoryDisk::crash`] loses writes.
pub struct MemoryEngine {
    disk: MemoryDisk,
    /// The opening this engine belongs to. The disk has moved on if it is not the disk's any more.
    opening: u64,
    damage: Option<Damage>,
}

#[derive(Default)]
struct State {
    tables: Tables,
    checkpoint: Tables,
    /// How many batches the checkpoint holds.
    checkpoint_len: u64,
    /// What was done after the checkpoint, oldest first.
    log: VecDeque<Change>,
    /// How many batches are in the log.
    batches: u64,
    sets: BTreeMap<SetName, Arc<StagedSet>>,
    /// How many batches, counted from the first one ever, are durable.
    synced: u64,
    /// `synced` at the last sync, noted outside the log.
    marker: u64,
    /// Counts openings and crashes.
    opening: u64,
    open: bool,
    /// A sync has failed since the disk was opened.
    failed: bool,
    sync_fails: bool,
    free_space: u64,
}

/// What changed the tables.
enum Change {
    Written(Batch),
    Replaced(Arc<StagedSet>),
}

/// Rows that are to replace others.
#[derive(Clone)]
struct StagedSet {
    column: Column,
    spans: Vec<Span>,
    rows: Vec<(Bytes, Bytes)>,
    finished: bool,
}

impl MemoryDisk {
    /// An empty disk.
    #[expect(clippy::new_without_default, reason = "a disk is a thing, not a value")]
    pub fn new() -> Self {
        let state = State { free_space: FREE_SPACE_DEFAULT, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Cuts the power. Of the batches not yet synced a prefix survives: `keep` is told how many there
    /// are and answers how many of them. The open engine, if any, fails from now on.
    ///
    /// A torn tail is a batch less: a write-ahead log finds a record that is not whole by its checksum, and
    /// ends before it.
    pub fn crash(&self, keep: impl FnOnce(usize) -> usize) {
        let mut state = self.lock();
        let unsynced = (state.written() - state.synced) as usize;
        let kept = keep(unsynced);
        assert!(kept <= unsynced, "{kept} batches cannot be kept: only {unsynced} are unsynced");
        let len = state.batches as usize - (unsynced - kept);
        state.truncate(len);
        for set in state.sets.values_mut().filter(|set| !set.finished) {
            // Some of it may have reached the disk; nobody knows what.
            Arc::make_mut(set).rows.clear();
        }
        state.opening += 1;
        state.open = false;
    }

    /// How many batches are written and not synced.
    pub fn unsynced(&self) -> usize {
        let state = self.lock();
        (state.written() - state.synced) as usize
    }

    /// Lets the next `sync` fail: from then on the open engine refuses every write and sync.
    pub fn fail_next_sync(&self) {
        self.lock().sync_fails = true;
    }

    /// Takes back a [`MemoryDisk::fail_next_sync`] that has not been met yet.
    pub fn spare_next_sync(&self) {
        self.lock().sync_fails = false;
    }

    /// Whether a sync has failed since the disk was opened: what was not synced may be lost by now.
    pub fn has_failed(&self) -> bool {
        self.lock().failed
    }

    /// Sets what `free_space` answers. A batch of more bytes than that is refused as
    /// [`Kind::Full`]; a write does not lessen it.
    pub fn set_free_space(&self, bytes: u64) {
        self.lock().free_space = bytes;
    }

    /// Loses the last `count` synced batches, and everything unsynced: what a disk does that lied about
    /// a sync, or an operator who restored an old copy. The next opening reports the damage.
    ///
    /// At most [`LOG_KEPT_MAX`] can be lost; returns how many were. The disk must not be open.
    pub fn lose_synced(&self, count: usize) -> usize {
        let mut state = self.lock();
        assert!(!state.open, "batches are lost under a store that is not open: crash it first");
        let synced = (state.synced - state.checkpoint_len) as usize;
        let lost = count.min(synced);
        state.truncate(synced - lost);
        lost
    }

    /// Inverts the lowest bit of a byte of a value, where it is stored. Returns whether the key has a
    /// value with that many bytes.
    ///
    /// A read returns the value so changed: finding out is up to the reader's own checksum.
    pub fn flip_bit(&self, column: Column, key: &[u8], byte: usize) -> bool {
        let mut state = self.lock();
        let flipped = |value: &Bytes| {
            let mut value = value.to_vec();
            *value.get_mut(byte)? ^= 1;
            Some(Bytes::from(value))
        };
        let Some(value) = state.tables.get(column, key).and_then(flipped) else { return false };
        state.tables.put(column, Bytes::copy_from_slice(key), value.clone());
        // The key's newest write is what the store holds of it: in the log, or else in the checkpoint.
        let State { log, checkpoint, .. } = &mut *state;
        for change in log.iter_mut().rev() {
            match change {
                Change::Written(batch) => {
                    if let Some(stored) = batch.value_mut(column, key) {
                        *stored = value;
                        return true;
                    }
                }
                Change::Replaced(set) if set.clears(column, key) => {
                    let set = Arc::make_mut(set);
                    let at = set.rows.binary_search_by(|(row, _)| row[..].cmp(key));
                    let at = at.expect("the tables hold what the last replacement brought");
                    set.rows[at].1 = value;
                    return true;
                }
                Change::Replaced(_) => {}
            }
        }
        checkpoint.put(column, Bytes::copy_from_slice(key), value);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves no half-made change here that would be worse than stopping.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryEngine {
    /// Opens the store on `disk`, or refuses ([`Kind::InUse`]) if another engine has it open.
    pub fn open(disk: &MemoryDisk) -> Result<Self> {
        let mut state = disk.lock();
        if state.open {
            return Err(Error::new(Kind::InUse, "another engine has this disk open"));
        }
        state.open = true;
        state.failed = false;
        state.sync_fails = false;
        state.opening += 1;
        state.synced = state.written();
        let (recovered, synced) = (state.written(), state.marker);
        let damage = (recovered < synced).then_some(Damage::WritesMissing { recovered, synced });
        Ok(Self { disk: disk.clone(), opening: state.opening, damage })
    }

    /// The disk's state, if the disk is still this engine's.
    fn state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        if state.opening != self.opening {
            return Err(Error::new(Kind::Fatal, "the disk has crashed since it was opened"));
        }
        Ok(state)
    }

    fn writable(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state()?;
        if state.failed {
            return Err(Error::new(Kind::Fatal, "a sync has failed before"));
        }
        Ok(state)
    }
}

impl Drop for MemoryEngine {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state() {
            state.open = false;
        }
    }
}

impl View for MemoryEngine {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.state()?.tables.get(column, key).cloned())
    }

    fn scan(&self, column: Column, scan: Scan) -> Rows<'_> {
        match self.state() {
            Ok(state) => state.tables.scan(column, scan),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }
}

impl Engine for MemoryEngine {
    fn write(&self, batch: Batch) -> Result<()> {
        let mut state = self.writable()?;
        if batch.is_empty() {
            return Ok(());
        }
        if batch.byte_size() as u64 > state.free_space {
            return Err(Error::new(Kind::Full, "no space is left on the disk in memory"));
        }
        state.tables.apply(&batch);
        state.log.push_back(Change::Written(batch));
        state.batches += 1;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.writable()?;
        if std::mem::take(&mut state.sync_fails) {
            state.failed = true;
            return Err(Error::new(Kind::Io, "the sync failed, as it was told to"));
        }
        state.synced = state.written();
        state.marker = state.synced;
        while state.batches > LOG_KEPT_MAX as u64 {
            match state.log.pop_front().expect("the log holds the batches that were counted") {
                Change::Written(batch) => {
                    state.checkpoint.apply(&batch);
                    state.checkpoint_len += 1;
                    state.batches -= 1;
                }
                Change::Replaced(set) => state.checkpoint.replace(&set),
            }
        }
        Ok(())
    }

    fn stage(&self, set: SetName, column: Column, spans: Vec<Span>) -> Result<Box<dyn Staging>> {
        let mut state = self.writable()?;
        if state.sets.contains_key(&set) {
            return Err(Error::new(Kind::Io, format!("the set {set:?} is there already")));
        }
        let begun = StagedSet { column, spans, rows: Vec::new(), finished: false };
        state.sets.insert(set, Arc::new(begun));
        Ok(Box::new(MemoryStaging { disk: self.disk.clone(), opening: self.opening, set }))
    }

    fn staged(&self) -> Result<Vec<SetName>> {
        Ok(self.state()?.sets.keys().copied().collect())
    }

    fn replace(&self, set: SetName, done: Done) {
        let replaced = self.writable().and_then(|mut state| {
            let Some(rows) = state.sets.get(&set).filter(|set| set.finished).map(Arc::clone) else {
                return Err(Error::new(Kind::Corrupt, format!("the set {set:?} is not whole")));
            };
            state.tables.replace(&rows);
            state.log.push_back(Change::Replaced(rows));
            Ok(())
        });
        done(replaced);
    }

    fn discard(&self, set: SetName) -> Result<()> {
        self.writable()?.sets.remove(&set);
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn View + '_> {
        Box::new(Snapshot(self.state().map(|state| state.tables.clone())))
    }

    fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    fn free_space(&self) -> Result<u64> {
        Ok(self.state()?.free_space)
    }
}

/// A set being filled.
struct MemoryStaging {
    disk: MemoryDisk,
    opening: u64,
    set: SetName,
}

impl MemoryStaging {
    fn change(&self, change: impl FnOnce(&mut StagedSet) -> Result<()>) -> Result<()> {
        let mut state = self.disk.lock();
        if state.opening != self.opening {
            return Err(Error::new(Kind::Fatal, "the disk has crashed since it was opened"));
        }
        match state.sets.get_mut(&self.set) {
            Some(set) => change(Arc::make_mut(set)),
            None => Err(Error::new(Kind::Io, "the set was discarded while it was filled")),
        }
    }
}

impl Staging for MemoryStaging {
    fn put(&mut self, rows: Vec<(Bytes, Bytes)>, done: Done) {
        done(self.change(|set| {
            for (key, value) in rows {
                let last = set.rows.last().map(|(last, _)| last);
                if last.is_some_and(|last| *last >= key) || !set.clears(set.column, &key) {
                    let key = key.escape_ascii();
                    return Err(Error::new(Kind::Corrupt, format!("{key} is out of place")));
                }
                set.rows.push((key, value));
            }
            Ok(())
        }));
    }

    fn finish(self: Box<Self>, done: Done) {
        done(self.change(|set| {
            set.finished = true;
            Ok(())
        }));
    }
}

impl StagedSet {
    /// Whether a replacement by it decides what that key holds.
    fn clears(&self, column: Column, key: &[u8]) -> bool {
        column == self.column && self.spans.iter().any(|span| span.contains(key))
    }
}

/// The tables as they once were, or why they could not be had.
struct Snapshot(Result<Tables>);

impl View for Snapshot {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>> {
        let tables = self.0.as_ref().map_err(Clone::clone)?;
        Ok(tables.get(column, key).cloned())
    }

    fn scan(&self, column: Column, scan: Scan) -> Rows<'_> {
        match &self.0 {
            Ok(tables) => tables.scan(column, scan),
            Err(error) => Box::new(std::iter::once(Err(error.clone()))),
        }
    }
}

impl State {
    /// How many batches there are, counted from the first one ever.
    fn written(&self) -> u64 {
        self.checkpoint_len + self.batches
    }

    /// Forgets all but the first `len` batches of the log. What is left is durable; replacements are,
    /// wherever they stand.
    fn truncate(&mut self, len: usize) {
        let mut batches = 0;
        self.log.retain(|change| match change {
            Change::Written(_) => {
                batches += 1;
                batches <= len
            }
            Change::Replaced(_) => true,
        });
        self.batches = len as u64;
        self.tables = self.checkpoint.clone();
        for change in &self.log {
            match change {
                Change::Written(batch) => self.tables.apply(batch),
                Change::Replaced(set) => self.tables.replace(set),
            }
        }
        self.synced = self.written();
    }
}

type Table = RedBlackTreeMapSync<Bytes, Bytes>;

/// The rows of every column.
#[derive(Clone, Default)]
struct Tables([Table; Column::ALL.len()]);

impl Tables {
    fn get(&self, column: Column, key: &[u8]) -> Option<&Bytes> {
        self.0[column as usize].get(key)
    }

    fn put(&mut self, column: Column, key: Bytes, value: Bytes) {
        self.0[column as usize].insert_mut(key, value);
    }

    fn apply(&mut self, batch: &Batch) {
        for write in batch {
            match write {
                Write::Put { column, key, value } => self.put(*column, key.clone(), value.clone()),
                Write::Delete { column, key } => {
                    self.0[*column as usize].remove_mut(key);
                }
                Write::DeleteRange { column, start, end } => {
                    self.delete_range(*column, start, end);
                }
            }
        }
    }

    fn delete_range(&mut self, column: Column, start: &[u8], end: &[u8]) {
        let table = &mut self.0[column as usize];
        let span = (Bound::Included(start), Bound::Excluded(end));
        let keys: Vec<_> = table.range::<[u8], _>(span).map(|(key, _)| key.clone()).collect();
        for key in keys {
            table.remove_mut(&key);
        }
    }

    fn replace(&mut self, set: &StagedSet) {
        for span in &set.spans {
            self.delete_range(set.column, &span.start, &span.end);
        }
        for (key, value) in &set.rows {
            self.put(set.column, key.clone(), value.clone());
        }
    }

    fn scan(&self, column: Column, scan: Scan) -> Rows<'static> {
        if scan.is_empty() {
            return Box::new(std::iter::empty());
        }
        Box::new(Walk {
            table: self.0[column as usize].clone(),
            lower: Bound::Included(scan.start.into()),
            upper: scan.end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.into())),
            reverse: scan.reverse,
        })
    }
}

/// A scan: owns the table as it was, and looks up its place anew at each step.
struct Walk {
    table: Table,
    lower: Bound<Bytes>,
    upper: Bound<Bytes>,
    reverse: bool,
}

impl Iterator for Walk {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        let span = (self.lower.as_ref().map(|b| &b[..]), self.upper.as_ref().map(|b| &b[..]));
        let mut rows = self.table.range::<[u8], _>(span);
        let (key, value) = if self.reverse { rows.next_back() } else { rows.next() }?;
        let row = (key.clone(), value.clone());
        let passed = Bound::Excluded(row.0.clone());
        if self.reverse {
            self.upper = passed;
        } else {
            self.lower = passed;
        }
        Some(Ok(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(engine: &MemoryEngine, key: &'static str, value: &'static str) -> Result<()> {
        let mut batch = Batch::new();
        batch.put(Column::Base, key, value);
        engine.write(batch)
    }

    fn rows(engine: &MemoryEngine) -> Vec<String> {
        let row = |row: Result<(Bytes, Bytes)>| {
            let (key, value) = row.unwrap();
            format!("{}={}", key.escape_ascii(), value.escape_ascii())
        };
        engine.scan(Column::Base, Scan::all()).map(row).collect()
    }

    #[test]
    fn it_is_an_engine() {
        crate::conformance::check(|| MemoryEngine::open(&MemoryDisk::new()).unwrap());
    }

    #[test]
    fn it_reopens_as_an_engine_does() {
        let disk = MemoryDisk::new();
        crate::conformance::check_reopening(|| MemoryEngine::open(&disk).unwrap());
        let disk = MemoryDisk::new();
        crate::conformance::check_staging_reopened(|| MemoryEngine::open(&disk).unwrap());
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_the_prefix_it_was_told() {
        for kept in 0..=2 {
            let disk = MemoryDisk::new();
            let engine = MemoryEngine::open(&disk).unwrap();
            put(&engine, "a", "1").unwrap();
            engine.sync().unwrap();
            put(&engine, "b", "2").unwrap();
            put(&engine, "a", "3").unwrap();
            assert_eq!(disk.unsynced(), 2);

            disk.crash(|unsynced| {
                assert_eq!(unsynced, 2);
                kept
            });
            let engine = MemoryEngine::open(&disk).unwrap();
            let expected = [&["a=1"][..], &["a=1", "b=2"], &["a=3", "b=2"]];
            assert_eq!(rows(&engine), expected[kept]);
            assert_eq!(engine.damage(), None);
        }
    }

    #[test]
    fn after_a_crash_the_old_engine_fails_and_spares_the_new_one() {
        let disk = MemoryDisk::new();
        let old = MemoryEngine::open(&disk).unwrap();
        disk.crash(|_| 0);
        let new = MemoryEngine::open(&disk).unwrap();
        assert_eq!(put(&old, "a", "1").unwrap_err().kind, Kind::Fatal);
        assert_eq!(old.sync().unwrap_err().kind, Kind::Fatal);
        assert_eq!(old.get(Column::Base, b"a").unwrap_err().kind, Kind::Fatal);
        assert_eq!(old.snapshot().get(Column::Base, b"a").unwrap_err().kind, Kind::Fatal);
        drop(old);
        assert_eq!(MemoryEngine::open(&disk).err().map(|e| e.kind), Some(Kind::InUse));
        put(&new, "a", "2").unwrap();
    }

    #[test]
    fn a_killed_process_loses_nothing_it_wrote() {
        let disk = MemoryDisk::new();
        put(&MemoryEngine::open(&disk).unwrap(), "a", "1").unwrap();
        let engine = MemoryEngine::open(&disk).unwrap();
        assert_eq!(rows(&engine), ["a=1"]);
        disk.crash(|_| 0);
        assert_eq!(rows(&MemoryEngine::open(&disk).unwrap()), ["a=1"], "seen at opening: durable");
    }

    #[test]
    fn after_a_failed_sync_nothing_is_written_or_synced_until_reopened() {
        let disk = MemoryDisk::new();
        let engine = MemoryEngine::open(&disk).unwrap();
        put(&engine, "a", "1").unwrap();
        disk.fail_next_sync();
        disk.spare_next_sync();
        engine.sync().unwrap();
        put(&engine, "a", "2").unwrap();
        disk.fail_next_sync();
        assert!(!disk.has_failed());
        assert_eq!(engine.sync().unwrap_err().kind, Kind::Io);
        assert!(disk.has_failed());
        assert_eq!(engine.sync().unwrap_err().kind, Kind::Fatal);
        assert_eq!(put(&engine, "b", "2").unwrap_err().kind, Kind::Fatal);
        assert_eq!(disk.unsynced(), 1, "the failed sync made nothing durable");

        disk.crash(|_| 0);
        let engine = MemoryEngine::open(&disk).unwrap();
        assert_eq!(rows(&engine), ["a=1"]);
        put(&engine, "b", "2").unwrap();
        engine.sync().unwrap();
    }

    #[test]
    fn a_full_disk_refuses_a_write_whole_and_takes_it_once_there_is_space() {
        let disk = MemoryDisk::new();
        let engine = MemoryEngine::open(&disk).unwrap();
        disk.set_free_space(1);
        assert_eq!(engine.free_space(), Ok(1));
        assert_eq!(put(&engine, "a", "1").unwrap_err().kind, Kind::Full);
        assert_eq!(rows(&engine), [""; 0]);
        disk.set_free_space(1 << 20);
        put(&engine, "a", "1").unwrap();
        engine.sync().unwrap();
    }

    #[test]
    fn lost_synced_batches_are_reported_until_something_is_synced() {
        let disk = MemoryDisk::new();
        let engine = MemoryEngine::open(&disk).unwrap();
        for key in ["a", "b", "c"] {
            put(&engine, key, "1").unwrap();
            engine.sync().unwrap();
        }
        put(&engine, "d", "1").unwrap();
        drop(engine);
        disk.crash(|_| 0);
        assert_eq!(disk.lose_synced(2), 2);

        let damage = Damage::WritesMissing { recovered: 1, synced: 3 };
        for _ in 0..2 {
            let engine = MemoryEngine::open(&disk).unwrap();
            assert_eq!(rows(&engine), ["a=1"]);
            assert_eq!(engine.damage(), Some(&damage));
        }
        let engine = MemoryEngine::open(&disk).unwrap();
        put(&engine, "rebuilt", "1").unwrap();
        engine.sync().unwrap();
        drop(engine);
        assert_eq!(MemoryEngine::open(&disk).unwrap().damage(), None);
    }

    #[test]
    fn only_so_many_synced_batches_can_be_lost() {
        let disk = MemoryDisk::new();
        let engine = MemoryEngine::open(&disk).unwrap();
        for i in 0..LOG_KEPT_MAX + 10 {
            let mut batch = Batch::new();
            batch.put(Column::Log, i.to_be_bytes().to_vec(), "");
            engine.write(batch).unwrap();
        }
        engine.sync().unwrap();
        drop(engine);
        assert_eq!(disk.lose_synced(usize::MAX), LOG_KEPT_MAX);
        let engine = MemoryEngine::open(&disk).unwrap();
        assert_eq!(engine.scan(Column::Log, Scan::all()).count(), 10);
    }

    #[test]
    fn a_replacement_outlives_a_crash_that_loses_what_was_written_before_and_after() {
        let disk = MemoryDisk::new();
        let engine = MemoryEngine::open(&disk).unwrap();
        put(&engine, "a", "old").unwrap();
        put(&engine, "z", "kept").unwrap();
        engine.sync().unwrap();
        put(&engine, "b", "lost before").unwrap();
        crate::conformance::stage(&engine, SetName(1), &[("a", "m")], &[("c", "new")]).unwrap();
        crate::conformance::replace(&engine, SetName(1)).unwrap();
        put(&engine, "d", "lost after").unwrap();
        assert_eq!(rows(&engine), ["c=new", "d=lost after", "z=kept"]);
        disk.crash(|unsynced| {
            assert_eq!(unsynced, 2);
            0
        });
        let engine = MemoryEngine::open(&disk).unwrap();
        assert_eq!(rows(&engine), ["c=new", "z=kept"]);
        assert_eq!(engine.damage(), None);
        assert_eq!(engine.staged(), Ok(vec![SetName(1)]));
        crate::conformance::replace(&engine, SetName(1)).expect("it can be repeated");
        assert!(disk.flip_bit(Column::Base, b"c", 0));
        disk.crash(|_| 0);
        assert_eq!(rows(&MemoryEngine::open(&disk).unwrap()), ["c=oew", "z=kept"]);
    }

    #[test]
    fn a_set_that_was_not_finished_when_the_power_went_can_only_be_discarded() {
        let disk = MemoryDisk::new();
        let engine = MemoryEngine::open(&disk).unwrap();
        let span = Span { start: b"a".to_vec(), end: b"m".to_vec() };
        let mut staging = engine.stage(SetName(1), Column::Base, vec![span]).unwrap();
        staging.put(vec![("b".into(), "1".into())], Box::new(|put| put.unwrap()));
        disk.crash(|_| 0);
        staging.finish(Box::new(|finished| assert_eq!(finished.unwrap_err().kind, Kind::Fatal)));
        let engine = MemoryEngine::open(&disk).unwrap();
        assert_eq!(engine.staged(), Ok(vec![SetName(1)]));
        let refused = crate::conformance::replace(&engine, SetName(1)).unwrap_err();
        assert_eq!(refused.kind, Kind::Corrupt);
        engine.discard(SetName(1)).unwrap();
        assert_eq!(engine.staged(), Ok(vec![]));
    }

    #[test]
    fn a_flipped_bit_stays_flipped_through_a_crash() {
        let disk = MemoryDisk::new();
        let engine = MemoryEngine::open(&disk).unwrap();
        put(&engine, "a", "00").unwrap();
        engine.sync().unwrap();
        assert!(disk.flip_bit(Column::Base, b"a", 1));
        assert!(!disk.flip_bit(Column::Base, b"a", 2), "the value has two bytes");
        assert!(!disk.flip_bit(Column::Base, b"b", 0));
        assert_eq!(rows(&engine), ["a=01"]);
        disk.crash(|_| 0);
        assert_eq!(rows(&MemoryEngine::open(&disk).unwrap()), ["a=01"]);
    }
}
