//! Sets of staged rows: table files beside the database, and the way from there into it.
//!
//! ```text
//!   staging/
//!   ├── 000000000000002a.new/     a set being filled, or left behind by a crash
//!   └── 0000000000000007/         a whole one: synced, and renamed only then
//!       ├── base-000000.sst       rows and, over all of the file's keys, a range tombstone
//!       └── base-000001.sst       the next keys; files do not overlap
//! ```
//!
//! The tombstones make a replacement atomic. RocksDB gives all that a file brings one sequence number: its
//! tombstone hides what the database held before, but not the file's own rows
//! (`SstFileWriter::DeleteRange`). All files of one ingestion appear in one version, and in no snapshot
//! taken before the manifest with them was written (`CommitFileIngestionHandle` in db_impl.cc).
//!
//! Files are copied into the database, not moved, so that an ingestion can be repeated.
//!
//! Everything that waits for the disk is done by a thread per set: a staged file is synced when it is
//! closed, and an ingestion copies it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::{Builder, JoinHandle};

use bytes::Bytes;
use latitude_storage::key::Span;
use latitude_storage::{Column, Done, Error, Kind, Result, SetName, Staging};
use rocksdb::{DB, IngestExternalFileOptions, SstFileWriter};

use crate::directory::io_error;
use crate::engine::convert;

const UNFINISHED: &str = "new";
const TABLE: &str = "sst";

/// Where the sets of a store are.
pub(crate) struct StagingArea {
    path: PathBuf,
}

impl StagingArea {
    /// The name of the area in a store's directory.
    pub(crate) const NAME: &str = "staging";

    pub(crate) fn new(store: &Path) -> Self {
        Self { path: store.join(Self::NAME) }
    }

    /// Begins a set, written with `options` in files of about `file_bytes`.
    pub(crate) fn stage(
        &self,
        set: SetName,
        column: Column,
        spans: Vec<Span>,
        options: rocksdb::Options,
        file_bytes: u64,
    ) -> Result<Box<dyn Staging>> {
        if self.staged()?.contains(&set) {
            return Err(Error::new(Kind::Io, format!("the set {set:?} is there already")));
        }
        let (unfinished, finished) = (self.unfinished(set), self.finished(set));
        let cannot = |error| io_error(&unfinished, "cannot be made", &error);
        DirBuilder::new().recursive(true).mode(0o700).create(&unfinished).map_err(cannot)?;
        let (commands, received) = mpsc::channel();
        let filling = Filling {
            directory: unfinished,
            finished,
            column,
            spans,
            file_bytes,
            cleared: Vec::new(),
            last: None,
            files: 0,
        };
        let thread = Builder::new()
            .name("storage-staging".into())
            .spawn(move || filling.run(&options, &received))
            .map_err(|error| Error::new(Kind::Io, format!("no thread to stage: {error}")))?;
        Ok(Box::new(Filler { commands: Some(commands), thread: Some(thread) }))
    }

    /// The sets there are.
    pub(crate) fn staged(&self) -> Result<Vec<SetName>> {
        let cannot = |error| io_error(&self.path, "cannot be read", &error);
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(cannot)?,
        };
        let mut sets = Vec::new();
        for entry in entries {
            let name = PathBuf::from(entry.map_err(cannot)?.file_name());
            let stem = name.file_stem().and_then(OsStr::to_str);
            sets.extend(stem.and_then(|stem| u64::from_str_radix(stem, 16).ok()).map(SetName));
        }
        sets.sort_unstable();
        sets.dedup();
        Ok(sets)
    }

    /// Brings a whole set into the database, on a thread of its own.
    pub(crate) fn replace(&self, set: SetName, db: Arc<DB>, keep: impl Send + 'static, done: Done) {
        let directory = self.finished(set);
        let (sender, receiver) = mpsc::sync_channel::<Done>(1);
        let ingestion = move || {
            let Ok(done) = receiver.recv() else { return };
            let result = ingest(&db, &directory);
            // Before anybody hears of it, who may then want to open the store again.
            drop((db, keep));
            done(result);
        };
        match Builder::new().name("storage-replace".into()).spawn(ingestion) {
            Ok(_) => drop(sender.send(done)),
            Err(error) => {
                done(Err(Error::new(Kind::Io, format!("no thread to replace rows: {error}"))));
            }
        }
    }

    /// Removes a set.
    pub(crate) fn discard(&self, set: SetName) -> Result<()> {
        let (unfinished, finished) = (self.unfinished(set), self.finished(set));
        let cannot = |error| io_error(&unfinished, "cannot be removed", &error);
        let remove = || match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot(error)),
            _ => Ok(()),
        };
        remove()?;
        // Unfinished first: half of a set must not look whole.
        match fs::rename(&finished, &unfinished) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed.map_err(cannot).and_then(|()| remove()),
        }
    }

    fn finished(&self, set: SetName) -> PathBuf {
        self.path.join(format!("{:016x}", set.0))
    }

    fn unfinished(&self, set: SetName) -> PathBuf {
        self.finished(set).with_extension(UNFINISHED)
    }
}

fn ingest(db: &DB, directory: &Path) -> Result<()> {
    let cannot = |error| io_error(directory, "cannot be read", &error);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = format!("{} is no whole set of staged rows", directory.display());
            return Err(Error::new(Kind::Corrupt, message));
        }
        entries => entries.map_err(cannot)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(cannot)?.path());
    }
    files.sort_unstable();
    let damaged = || {
        let message = format!("{} holds what is no set of staged rows", directory.display());
        Error::new(Kind::Corrupt, message)
    };
    let column = files.first().and_then(|file| {
        let name = file.file_stem()?.to_str()?.split_once('-')?.0;
        db.cf_handle(name)
    });
    let column = column.ok_or_else(damaged)?;
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(false);
    db.ingest_external_file_cf_opts(column, &options, files).map_err(|error| convert(&error))
}

enum Command {
    Put(Vec<(Bytes, Bytes)>, Done),
    Finish(Done),
}

/// A set's end in the hand of whoever fills it.
struct Filler {
    /// `None` only while it is dropped.
    commands: Option<mpsc::Sender<Command>>,
    /// `None` once the set's end has been asked for.
    thread: Option<JoinHandle<()>>,
}

impl Filler {
    fn send(&self, command: Command) {
        let Some(commands) = &self.commands else { return };
        if let Err(mpsc::SendError(Command::Put(_, done) | Command::Finish(done))) =
            commands.send(command)
        {
            done(Err(Error::new(Kind::Io, "the set is lost: an earlier write to it failed")));
        }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // Whoever gives a set up may begin another of its name, in the same directory. A panic of the
            // thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Staging for Filler {
    fn put(&mut self, rows: Vec<(Bytes, Bytes)>, done: Done) {
        self.send(Command::Put(rows, done));
    }

    fn finish(mut self: Box<Self>, done: Done) {
        self.thread = None;
        self.send(Command::Finish(done));
    }
}

/// A set being filled, on its thread.
struct Filling {
    directory: PathBuf,
    /// What the directory is called once the set is whole.
    finished: PathBuf,
    column: Column,
    spans: Vec<Span>,
    file_bytes: u64,
    /// Up to here the spans are covered by the tombstones of closed files.
    cleared: Vec<u8>,
    /// The last row.
    last: Option<Bytes>,
    files: u32,
}

impl Filling {
    /// Until the set is finished, given up, or lost by a failure.
    fn run(mut self, options: &rocksdb::Options, commands: &Receiver<Command>) {
        let mut writer = None;
        while let Ok(command) = commands.recv() {
            match command {
                Command::Put(rows, done) => {
                    let put = rows
                        .iter()
                        .try_for_each(|row| self.put(options, &mut writer, &row.0, &row.1));
                    let lost = put.is_err();
                    done(put);
                    if lost {
                        return;
                    }
                }
                Command::Finish(done) => return done(self.finish(options, writer)),
            }
        }
    }

    fn put<'o>(
        &mut self,
        options: &'o rocksdb::Options,
        writer: &mut Option<SstFileWriter<'o>>,
        key: &Bytes,
        value: &[u8],
    ) -> Result<()> {
        let ascends = self.last.as_ref().is_none_or(|last| last < key);
        if !ascends || !self.spans.iter().any(|span| span.contains(key)) {
            return Err(Error::new(
                Kind::Corrupt,
                format!("{} is out of place", key.escape_ascii()),
            ));
        }
        if writer.as_ref().is_some_and(|writer| writer.file_size() >= self.file_bytes)
            && let Some(full) = writer.take()
        {
            self.close(full, Some(key))?;
        }
        let current = match writer {
            Some(current) => current,
            None => writer.insert(self.open(options)?),
        };
        self.last = Some(key.clone());
        current.put(key, value).map_err(|error| convert(&error))
    }

    fn open<'o>(&mut self, options: &'o rocksdb::Options) -> Result<SstFileWriter<'o>> {
        let name = format!("{}-{:06}.{TABLE}", self.column.name(), self.files);
        self.files += 1;
        let writer = SstFileWriter::create(options);
        writer.open(self.directory.join(name)).map_err(|error| convert(&error))?;
        Ok(writer)
    }

    /// Closes and syncs a file, which replaces everything from where the one before ended up to `next`,
    /// the next file's first row; without one, to the end of the spans.
    fn close(&mut self, mut writer: SstFileWriter<'_>, next: Option<&[u8]>) -> Result<()> {
        for Span { start, end } in &self.spans {
            let start = start.as_slice().max(&self.cleared);
            let end = next.map_or(end.as_slice(), |next| next.min(end));
            if start < end {
                writer.delete_range(start, end).map_err(|error| convert(&error))?;
            }
        }
        if let Some(next) = next {
            self.cleared = next.to_vec();
        }
        writer.finish().map_err(|error| convert(&error))
    }

    fn finish(
        &mut self,
        options: &rocksdb::Options,
        writer: Option<SstFileWriter<'_>>,
    ) -> Result<()> {
        let writer = match writer {
            Some(writer) => writer,
            None => self.open(options)?,
        };
        self.close(writer, None)?;
        let whole = || {
            File::open(&self.directory)?.sync_all()?;
            fs::rename(&self.directory, &self.finished)?;
            let area = self.finished.parent().unwrap_or(&self.finished);
            File::open(area)?.sync_all()?;
            // The area's own name, which is new with the first set.
            File::open(area.parent().unwrap_or(area))?.sync_all()
        };
        whole().map_err(|error| io_error(&self.directory, "cannot be finished", &error))
    }
}
