//! The store's directory: whose it is, what it is, who has it open.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use latitude_storage::{Error, Kind, Result};
use latitude_types::StoreId;

use crate::marker::Marker;

/// The format this version writes and reads. Raised when an older version could not read the store.
const FORMAT: u32 = 1;

const IDENTITY: &str = "LATITUDE";
/// The identity while it is being written. A crash may leave it behind.
const IDENTITY_NEW: &str = "LATITUDE.new";
const FIRST_LINE: &str = "Latitude store";
/// What file systems put into an empty directory.
const LOST_AND_FOUND: &str = "lost+found";
const DATABASE: &str = "db";

/// A store's directory, locked for as long as this lives.
pub(crate) struct Directory {
    path: PathBuf,
    /// Holds the lock.
    handle: File,
    store: StoreId,
}

impl Directory {
    /// Locks the store at `path`, which must be there.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(no_store(path, "the directory does not exist"));
        }
        let handle = lock(path)?;
        match read_identity(path)? {
            Some(store) => Ok(Self { path: path.into(), handle, store }),
            None => Err(no_store(path, "it has no file LATITUDE")),
        }
    }

    /// Locks the store at `path`; if there is none and the directory is missing or empty, makes one.
    pub(crate) fn open_or_create(path: &Path, new: StoreId) -> Result<Self> {
        if !path.exists() {
            create_directory(path).map_err(|e| io_error(path, "cannot be created", &e))?;
        }
        let handle = lock(path)?;
        if let Some(store) = read_identity(path)? {
            return Ok(Self { path: path.into(), handle, store });
        }
        if let Some(name) = foreign_entry(path).map_err(|e| io_error(path, "cannot be read", &e))? {
            let why = format!("it has no file LATITUDE, but holds {name:?}");
            return Err(no_store(path, &why));
        }
        let directory = Self { path: path.into(), handle, store: new };
        directory.fill().map_err(|e| io_error(path, "cannot be filled", &e))?;
        Ok(directory)
    }

    /// The store's id.
    pub(crate) fn store(&self) -> StoreId {
        self.store
    }

    /// The store's directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where RocksDB lives.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Bytes an ordinary user can still write to the file system.
    pub(crate) fn free_space(&self) -> Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.handle)
            .map_err(|e| io_error(&self.path, "does not tell its free space", &e.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Makes an empty directory a store. The identity comes last: with it, everything else is there.
    fn fill(&self) -> io::Result<()> {
        let database = self.database();
        match DirBuilder::new().mode(0o700).create(&database) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Marker::create(&self.path)?;
        let new = self.path.join(IDENTITY_NEW);
        let mut file = File::create(&new)?;
        file.write_all(identity(self.store).as_bytes())?;
        file.sync_all()?;
        self.handle.sync_all()?;
        fs::rename(new, self.path.join(IDENTITY))?;
        self.handle.sync_all()
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // The directory's own name must survive a crash too.
    let parent = path.canonicalize()?;
    File::open(parent.parent().unwrap_or(&parent))?.sync_all()
}

fn lock(path: &Path) -> Result<File> {
    let cannot = |e: &io::Error| io_error(path, "cannot be opened", e);
    let handle = File::open(path).map_err(|e| cannot(&e))?;
    match handle.try_lock() {
        Ok(()) => Ok(handle),
        Err(TryLockError::WouldBlock) => {
            let message = format!("another process has the store {} open", path.display());
            Err(Error::new(Kind::InUse, message))
        }
        Err(TryLockError::Error(error)) => Err(io_error(path, "cannot be locked", &error)),
    }
}

/// An entry that neither we nor an interrupted [`Directory::fill`] have made.
fn foreign_entry(path: &Path) -> io::Result<Option<String>> {
    const OURS: [&str; 4] = [IDENTITY_NEW, Marker::NAME, DATABASE, LOST_AND_FOUND];
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let ours = OURS.iter().any(|ours| name == *ours);
        let empty = name != DATABASE || fs::read_dir(path.join(&name))?.next().is_none();
        if !ours || !empty {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

/// The identity file's text.
fn identity(store: StoreId) -> String {
    let text = format!("{FIRST_LINE}\nformat {FORMAT}\nstore {store}\n");
    let checksum = crc32c::crc32c(text.as_bytes());
    format!("{text}crc32c {checksum:08x}\n")
}

/// The store's id; `None` without an identity file.
fn read_identity(path: &Path) -> Result<Option<StoreId>> {
    let text = match fs::read(path.join(IDENTITY)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, "does not let its file LATITUDE be read", &error)),
    };
    parse_identity(&String::from_utf8_lossy(&text))
        .map(Some)
        .map_err(|(kind, why)| Error::new(kind, format!("{}/{IDENTITY}: {why}", path.display())))
}

fn parse_identity(text: &str) -> Result<StoreId, (Kind, String)> {
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err((Kind::Format, "not a Latitude store".into()));
    }
    // The format comes before the checksum: a newer one may do everything after it differently.
    let damaged = || (Kind::Corrupt, "the file is damaged".to_string());
    let field = |line: Option<&str>, name: &str| -> Option<String> {
        line?.strip_prefix(name)?.strip_prefix(' ').map(str::to_string)
    };
    let format: u32 =
        field(lines.next(), "format").and_then(|n| n.parse().ok()).ok_or_else(damaged)?;
    if format > FORMAT {
        let why = format!("written by a newer Latitude (format {format}; this one knows {FORMAT})");
        return Err((Kind::Format, why));
    }
    let store: StoreId =
        field(lines.next(), "store").and_then(|id| id.parse().ok()).ok_or_else(damaged)?;
    if text != identity(store) { Err(damaged()) } else { Ok(store) }
}

fn no_store(path: &Path, why: &str) -> Error {
    Error::new(Kind::Format, format!("{} is not a Latitude store: {why}", path.display()))
}

pub(crate) fn io_error(path: &Path, what: &str, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull => Kind::Full,
        _ => Kind::Io,
    };
    Error::new(kind, format!("{} {what}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ID: StoreId = StoreId([0xab; 16]);

    fn kind(result: Result<Directory>) -> Option<Kind> {
        result.err().map(|error| error.kind)
    }

    #[test]
    fn a_store_keeps_the_id_it_was_made_with_and_is_private() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        assert_eq!(kind(Directory::open(&path)), Some(Kind::Format));
        assert_eq!(Directory::open_or_create(&path, ID).unwrap().store(), ID);
        assert_eq!(Directory::open(&path).unwrap().store(), ID);
        assert_eq!(Directory::open_or_create(&path, StoreId([1; 16])).unwrap().store(), ID);
        for private in [path.clone(), path.join(DATABASE)] {
            assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert!(Directory::open(&path).unwrap().free_space().unwrap() > 0);
    }

    #[test]
    fn a_second_opener_is_refused_until_the_first_lets_go() {
        let path = tempfile::tempdir().unwrap();
        let first = Directory::open_or_create(path.path(), ID).unwrap();
        let error = Directory::open(path.path()).err().unwrap();
        assert_eq!(error.kind, Kind::InUse);
        assert!(error.message.contains(&path.path().display().to_string()), "{error}");
        drop(first);
        assert!(Directory::open(path.path()).is_ok());
    }

    #[test]
    fn a_directory_with_something_else_in_it_is_left_alone() {
        let path = tempfile::tempdir().unwrap();
        fs::write(path.path().join("thesis.tex"), "").unwrap();
        assert_eq!(kind(Directory::open_or_create(path.path(), ID)), Some(Kind::Format));
        assert_eq!(fs::read_dir(path.path()).unwrap().count(), 1);

        let path = tempfile::tempdir().unwrap();
        fs::create_dir(path.path().join(DATABASE)).unwrap();
        fs::write(path.path().join(DATABASE).join("CURRENT"), "").unwrap();
        assert_eq!(
            kind(Directory::open_or_create(path.path(), ID)),
            Some(Kind::Format),
            "a database whose identity is lost is not made a new store"
        );
    }

    #[test]
    fn a_creation_that_was_cut_off_is_taken_up_again() {
        let path = tempfile::tempdir().unwrap();
        fs::write(path.path().join(IDENTITY_NEW), "Lati").unwrap();
        fs::create_dir(path.path().join(DATABASE)).unwrap();
        fs::create_dir(path.path().join(LOST_AND_FOUND)).unwrap();
        assert_eq!(kind(Directory::open(path.path())), Some(Kind::Format));
        assert_eq!(Directory::open_or_create(path.path(), ID).unwrap().store(), ID);
    }

    #[test]
    fn a_newer_format_is_named_and_a_damaged_file_is_not_guessed_at() {
        let text = identity(ID);
        assert_eq!(parse_identity(&text), Ok(ID));
        let newer = "Latitude store\nformat 2\nanything";
        let why = "written by a newer Latitude (format 2; this one knows 1)".to_string();
        assert_eq!(parse_identity(newer), Err((Kind::Format, why)));
        let kind = |text: &str| parse_identity(text).map_err(|(kind, _)| kind);
        assert_eq!(kind("something else\n"), Err(Kind::Format));
        assert_eq!(kind(&text.replace("abab", "abac")), Err(Kind::Corrupt));
        assert_eq!(kind(&text[..text.len() - 3]), Err(Kind::Corrupt));
        assert_eq!(kind(&text.replace("format 1", "format x")), Err(Kind::Corrupt));
    }
}
