//! The error of storage: one kind for each thing a caller would do differently.

use std::fmt;

/// A storage operation's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller does about a storage error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The disk or the system failed. Stop.
    Io,
    /// What is stored contradicts its checksum or itself. Stop; have the replicas rebuilt.
    Corrupt,
    /// Another process holds the store. Stop that one, or use another directory.
    InUse,
    /// Not a store of ours, or one that a newer version has written. Use another directory or version.
    Format,
    /// No space is left. Nothing was written; make space.
    Full,
    /// A sync or write failed before. Stop: only a new process, reading from the disk, can go on.
    Fatal,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "input/output error",
            Self::Corrupt => "corrupt",
            Self::InUse => "in use",
            Self::Format => "unknown format",
            Self::Full => "disk full",
            Self::Fatal => "stopped",
        })
    }
}

/// Why a storage operation failed. Cheap to clone: one failed sync answers many waiting writers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct Error {
    /// What the caller does about it.
    pub kind: Kind,
    /// What happened, for a person.
    pub message: String,
}

impl Error {
    /// An error of that kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}
