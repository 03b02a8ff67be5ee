//! The row of a key in the base.

use bytes::Bytes;
use latitude_crdt::{Content, State, Value, ValueType};
use latitude_types::{Past, Stamp, WriteTime};
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::entry::Extension;

const VERSION: u8 = 1;

/// The ordinal of a row that a fold changed last.
pub const FOLDED: u32 = u32::MAX;

/// A key's row. A deleted key keeps one, with its stamp and past, until nothing can bring it back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ValueRow {
    /// The stamp of the entry that last changed it.
    pub stamp: Stamp,
    /// Which operation of that entry; [`FOLDED`] if it folded a local write.
    pub ordinal: u32,
    /// The time of the write that won; also the value's version.
    pub version: WriteTime,
    /// What the key holds.
    pub content: Content,
    /// Room for what is to come (expiry, codec). Must-understand: this version knows none, and reads
    /// no row that has one.
    pub extensions: Vec<Extension>,
    /// What the value causally follows. Last, and not part of what replicas compare: each may know
    /// of another part of it that it is stable.
    pub past: Past,
}

impl ValueRow {
    /// As a row of the base.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(VERSION, self)
    }

    /// From a row of the base.
    ///
    /// # Errors
    /// [`DecodeError::Extension`] for a row with more to it than this version knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "value row";
        let row: Self = codec::decode(what, VERSION, bytes)?;
        match row.extensions.first() {
            None => Ok(row),
            Some(extension) => Err(DecodeError::Extension { what, kind: extension.kind }),
        }
    }

    /// What a reader of a keyspace of this type gets.
    pub fn read(&self, value_type: ValueType) -> Value {
        self.state().value(value_type)
    }

    /// A register's value, unless the key was deleted.
    pub fn value(&self) -> Option<&Bytes> {
        match &self.content {
            Content::Plain(value) => Some(value),
            Content::Deleted | Content::Live(_) | Content::Counter(_) => None,
        }
    }

    /// Whether the key exists for a reader.
    pub fn exists(&self) -> bool {
        self.content != Content::Deleted
    }

    /// What merging works on.
    pub fn state(&self) -> State {
        State { version: Some(self.version), content: self.content.clone() }
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::{NodeId, Timestamp};

    use super::*;

    /// The bytes on disk. If this changes, [`VERSION`] must.
    #[test]
    fn the_layout_of_version_1_never_changes() {
        let stamp = Stamp { time: Timestamp::from_ms(9), node: NodeId(1) };
        let row = ValueRow {
            stamp,
            ordinal: 2,
            version: WriteTime::of_log_write(stamp, 2),
            content: Content::Plain(Bytes::from_static(b"v")),
            extensions: vec![],
            past: Past::default(),
        };
        let hex: String = row.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0180808012010280808012010102010176000000000000");
    }
}
