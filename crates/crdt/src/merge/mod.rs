//! Merging one write into a key's state.

mod counter;
mod elements;
mod register;

use latitude_types::{OperationId, OperationKind, WriteTime};

use crate::{Content, Fate, Ids, LogPlace, Misfit, Op, ValueType};

/// A key's content and version: a row of the base, or what a read makes of it and of deltas.
///
/// The default is a key that was never written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// `None` before the first write. A register: the time of the write that won. Every other type: the
    /// largest time of the writes merged, whether or not they still have an effect.
    ///
    /// A log write's time is its stamp and place, a local write's its birth, wherever and whenever its copies
    /// are merged. So a version is the same before and after a fold, and the same in whatever order
    /// writes were merged. Only of a register does it tell the content: a late add with an
    /// earlier birth changes a counter or a set and leaves its version.
    pub version: Option<WriteTime>,
    /// What the key holds.
    pub content: Content,
}

/// A write, as it is merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Write<'a> {
    /// Its id. The kind in it says by which way it came.
    pub id: &'a OperationId,
    /// Its place in the log, unless it is a local write: then `None`, also where the log folds it.
    pub logged: Option<LogPlace>,
    /// What it does.
    pub op: &'a Op,
    /// The ids it ends wherever it is merged. Writes of registers and adds to counters end nothing, and
    /// ignore them.
    pub named: &'a [OperationId],
}

/// What a write did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was merged.
    Applied {
        /// A register's value did not change, because one with a larger time is there.
        superseded: bool,
    },
    /// It was known: nothing was added. What it names was ended all the same.
    Duplicate,
    /// The condition did not hold, and nothing changed; the version found, if the key exists.
    Mismatch {
        /// The version found.
        found: Option<WriteTime>,
    },
    /// The sum would be out of bounds, and nothing changed; the sum found.
    OutOfBounds {
        /// The sum found.
        found: i64,
    },
}

/// A write could not be merged. The state may have been changed half-way and is good for nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MergeError<E> {
    /// The table of ids failed.
    #[error(transparent)]
    Ids(E),
    /// The operation does not fit the type or the way. Checked before a write is taken, so in a log or an
    /// overlay it is damage.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// The content is not one of the keyspace's type: damage.
    #[error("the key's content is not that of a {0}")]
    Content(ValueType),
}

impl<'a> Write<'a> {
    /// A local write: a delta, in an overlay or in a fold.
    pub fn local(id: &'a OperationId, op: &'a Op, named: &'a [OperationId]) -> Self {
        Self { id, logged: None, op, named }
    }

    /// A log write, at its place.
    pub fn log(id: &'a OperationId, at: LogPlace, op: &'a Op, named: &'a [OperationId]) -> Self {
        Self { id, logged: Some(at), op, named }
    }

    /// The time by which it compares.
    pub fn time(&self) -> WriteTime {
        self.logged.map_or_else(|| WriteTime::of_local_write(self.id), LogPlace::time)
    }

    fn kind(&self) -> OperationKind {
        match self.logged {
            Some(_) => OperationKind::Log,
            None => OperationKind::Local,
        }
    }
}

impl State {
    /// Merges a write. Local writes commute with each other; a log write is at its place, after
    /// everything merged before it.
    ///
    /// What must be remembered is recorded in `ids`: every local write that took effect, registers
    /// excepted, and every id that was ended before it was met. A log write that is known must not come
    /// here again.
    ///
    /// # Errors
    /// Whatever asking or recording ids may fail with, and damage.
    pub fn merge<I: Ids>(
        &mut self,
        value_type: ValueType,
        write: &Write<'_>,
        ids: &mut I,
    ) -> Result<Outcome, MergeError<I::Error>> {
        write.op.check(value_type, write.kind())?;
        match value_type {
            ValueType::Register => register::merge(self, write),
            ValueType::Counter => counter::merge(self, write, ids),
            ValueType::Siblings | ValueType::Set | ValueType::Map | ValueType::Flag => {
                elements::merge(self, value_type, write, ids)
            }
        }
    }

    /// Whether the key exists for a reader.
    pub fn exists(&self) -> bool {
        self.content != Content::Deleted
    }

    /// Counts a write's time into the version of a type whose version is the largest time.
    fn raise_version(&mut self, time: WriteTime) {
        self.version = self.version.max(Some(time));
    }
}

/// Spends an id that is not live here, unless it is known.
fn spend<I: Ids>(id: &OperationId, ids: &mut I) -> Result<(), MergeError<I::Error>> {
    if ids.fate(id).map_err(MergeError::Ids)?.is_none() {
        ids.record(id, Fate::Spent).map_err(MergeError::Ids)?;
    }
    Ok(())
}

/// Whether a write adds what it adds, now; if it is a local one, this was its only time.
fn takes_effect<I: Ids>(write: &Write<'_>, ids: &mut I) -> Result<bool, MergeError<I::Error>> {
    if ids.fate(write.id).map_err(MergeError::Ids)?.is_some() {
        return Ok(false);
    }
    if write.kind() == OperationKind::Local {
        ids.record(write.id, Fate::TookEffect).map_err(MergeError::Ids)?;
    }
    Ok(true)
}
