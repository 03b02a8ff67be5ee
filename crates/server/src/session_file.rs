//! A session in a file: its token in base64, on one line.
//!
//! ```text
//!   command a ── reads ── asks ── lock │ read again, join, write beside, rename │ unlock
//!   command b ──── reads ── asks ────────────────────────────────────── lock │ ...
//! ```
//!
//! Invariants: the file holds a whole token or nothing at any moment, whoever is killed; what any of the
//! commands that share it has seen stays in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use latitude_client::Session;
use latitude_types::{Error, Reason};

use crate::failure::Failure;

/// More than any token has in base64.
const FILE_LEN_MAX: u64 = 128 * 1024;
/// Nobody else's business: whoever has the token can hold up the session's operations, not read data.
const MODE: u32 = 0o600;

/// A session kept in a file.
#[derive(Debug)]
pub struct SessionFile {
    path: PathBuf,
    session: Session,
    /// What the file held when it was last read or written here.
    kept: Option<String>,
}

impl SessionFile {
    /// Reads the session. A file that does not exist, or is empty, begins one; it is made when there is
    /// something to keep.
    ///
    /// # Errors
    /// A usage error if the file cannot be read or could not be made; [`Reason::TokenInvalid`] if what it
    /// holds is no token.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        // A link is followed once and for all: what is renamed takes the place of what it leads to.
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(_) => path.to_path_buf(),
        };
        let wrong = |why: &dyn std::fmt::Display| {
            Failure::Usage(format!("the session file {} cannot be used: {why}", path.display()))
        };
        match fs::metadata(&path) {
            // It would be replaced by a file.
            Ok(found) if !found.is_file() => return Err(wrong(&"it is no regular file")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Better now than after a write.
                if !directory(&path).is_dir() {
                    return Err(wrong(&"its directory does not exist"));
                }
            }
            Err(error) => return Err(wrong(&error)),
        }
        let session = match File::open(&path) {
            Ok(mut file) => read(&mut file, &path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Session::new(),
            Err(error) => return Err(wrong(&error)),
        };
        Ok(Self { kept: session.token(), path, session })
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Keeps what the session knows now, together with what others have put into the file since.
    ///
    /// # Errors
    /// What was asked was answered all the same; the error says so, and what to do with the token.
    pub fn save(&mut self) -> Result<(), Failure> {
        let token = self.session.token();
        if token == self.kept && self.session.check().is_ok() {
            return Ok(());
        }
        self.kept = self.join_and_replace().with_context(|| {
            format!(
                "the request was served, but the session cannot be kept in {} (its token is {})",
                self.path.display(),
                token.as_deref().unwrap_or("not known"),
            )
        })?;
        Ok(())
    }

    /// Gives what the file holds then.
    fn join_and_replace(&self) -> anyhow::Result<Option<String>> {
        self.session.check()?;
        let mut locked = lock(&self.path)?;
        let others = read(&mut locked, &self.path).map_err(|failure| anyhow!("{failure}"))?;
        self.session.join(&others)?;
        let joined = self.session.token();
        replace(&self.path, joined.as_deref().unwrap_or_default())?;
        Ok(joined)
    }
}

/// A session given as a file or as its token.
///
/// # Errors
/// [`Reason::TokenInvalid`] if it is neither.
pub fn session_of(text: &str) -> Result<Session, Failure> {
    let path = Path::new(text);
    if path.exists() {
        let mut file = File::open(path)
            .map_err(|error| Failure::Usage(format!("{text} cannot be read: {error}")))?;
        return read(&mut file, path);
    }
    Session::from_token(text).map_err(|error| {
        let message = format!("there is no file {text:?}, and as a token: {}", error.message);
        Failure::Request(Error { message, ..error })
    })
}

/// The directory a file is in.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn read(file: &mut File, path: &Path) -> Result<Session, Failure> {
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", path.display())))?;
    let wrong = |why: &str| {
        let message = format!("the file {} holds no session: {why}", path.display());
        Failure::Request(Error::new(Reason::TokenInvalid, message))
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not text"))?;
    if text.trim().is_empty() {
        return Ok(Session::new());
    }
    Session::from_token(text).map_err(|error| wrong(&error.message))
}

/// The file, locked against all others who save; made if need be.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).mode(MODE).open(path)?;
        file.lock()?;
        // Whoever held the lock meanwhile has put another file in its place.
        let held = file.metadata()?;
        match fs::metadata(path) {
            Ok(now) if (now.dev(), now.ino()) == (held.dev(), held.ino()) => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// Puts a file with this line in the place of another, at one moment. Not synced: after a power cut an
/// older session is as good as the operations that are forgotten with it.
fn replace(path: &Path, line: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = directory(path).join(format!(".{name}.{}", std::process::id()));
    // One that a process of the same number has left when it was killed. The name is ours alone, because
    // we hold the lock.
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
    let written = writeln!(file, "{line}").and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use latitude_consistency::Token;
    use latitude_types::{ClusterId, ClusterIdentity, Epoch, NodeId, RangeId, Stamp, Timestamp};

    use super::*;
    use crate::exit::Exit;
    use crate::text::to_base64;

    /// A session that has met an entry of this range.
    fn met(range: u64) -> Session {
        let mut token = Token::new(ClusterIdentity { id: ClusterId([7; 16]), incarnation: 1 });
        let stamp = Stamp { time: Timestamp::from_ms(1000 + range), node: NodeId(1) };
        token.meet_entry(RangeId(range), Epoch(1), stamp);
        Session::from_token(&to_base64(&token.encode())).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_session_begins_with_no_file_and_is_kept_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine");
        let mut file = SessionFile::open(&path).unwrap();
        file.save().unwrap();
        assert!(!path.exists(), "there is nothing to keep yet");
        file.session().join(&met(4)).unwrap();
        file.save().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), met(4).token().unwrap() + "\n");
        assert_eq!(SessionFile::open(&path).unwrap().session().token(), met(4).token());
        assert_eq!(names(directory.path()), ["mine"]);
    }

    #[test]
    fn commands_that_share_a_file_lose_nothing_of_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ours");
        let all = Session::new();
        std::thread::scope(|scope| {
            for range in 1..=12 {
                all.join(&met(range)).unwrap();
                let mut file = SessionFile::open(&path).unwrap();
                scope.spawn(move || {
                    file.session().join(&met(range)).unwrap();
                    file.save().unwrap();
                });
            }
        });
        assert_eq!(session_of(path.to_str().unwrap()).unwrap().token(), all.token());
        assert_eq!(names(directory.path()), ["ours"]);
    }

    #[test]
    fn an_empty_file_begins_a_session_and_a_link_stays_one() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("mine"), directory.path().join("link"));
        fs::write(&path, "").unwrap();
        symlink(&path, &link).unwrap();
        let mut file = SessionFile::open(&link).unwrap();
        assert_eq!(file.session().token(), None);
        file.session().join(&met(4)).unwrap();
        file.save().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(session_of(path.to_str().unwrap()).unwrap().token(), met(4).token());
    }

    #[test]
    fn what_is_no_session_is_refused_before_anything_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine");
        let token = met(4).token().unwrap();
        for damaged in ["no token at all", &token[4..], "\u{0}"] {
            fs::write(&path, damaged).unwrap();
            let failure = SessionFile::open(&path).unwrap_err();
            assert_eq!(failure.exit(), Exit::Refused);
            assert!(failure.to_string().contains("mine holds no session"), "{failure}");
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(SessionFile::open(&path).is_err());
        for (path, why) in [
            (directory.path().to_path_buf(), "no regular file"),
            (PathBuf::from("/dev/null"), "no regular file"),
            (directory.path().join("none/mine"), "does not exist"),
        ] {
            let failure = SessionFile::open(&path).unwrap_err();
            assert_eq!(failure.exit(), Exit::Refused);
            assert!(failure.to_string().contains(why), "{failure}");
        }
    }

    #[test]
    fn a_session_that_cannot_be_kept_says_that_the_request_was_served_and_gives_its_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine");
        let mut file = SessionFile::open(&path).unwrap();
        file.session().join(&met(4)).unwrap();
        // Somebody else's, written over it meanwhile.
        fs::write(&path, "a shopping list").unwrap();
        let failure = file.save().unwrap_err();
        assert_eq!(failure.exit(), Exit::Fault);
        let text = failure.to_string();
        assert!(text.contains("was served") && text.contains(&met(4).token().unwrap()), "{text}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a shopping list");
    }

    #[test]
    fn a_session_is_named_by_its_file_or_its_token() {
        let token = met(4).token().unwrap();
        assert_eq!(session_of(&token).unwrap().token(), Some(token));
        let failure = session_of("mime").unwrap_err();
        assert!(failure.to_string().contains("there is no file \"mime\""), "{failure}");
    }
}
