//! The durable record of one local write.
//!
//! ```text
//!   ┌─────────┬──────────────────┬──────────┬────────────────────────────────┬──────┬──────────┐
//!   │ version │ origin, position │ range, m │ keyspace, key, op, id, named … │ past │ checksum │
//!   └─────────┴──────────────────┴──────────┴────────────────────────────────┴──────┴──────────┘
//! ```
//!
//! The same bytes are written to the store, sent to other nodes and carried by the entry that folds it, so a
//! delta is what its origin made of it wherever it is.

use bytes::Bytes;
use latitude_crdt::{Op, Write};
use latitude_types::{
    Key, KeyspaceId, Level, NodeId, OperationId, Past, RangeId, Stamp, Timestamp, WriteTime,
};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::{self, DecodeError};
use crate::entry::{Extension, op_size};

const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 8;
/// What an overlay's three indexes and the allocator take for a delta, as `examples/metadata` measures it.
const IN_OVERLAY: usize = 384;

/// One local write, as its origin took it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Delta {
    /// The node that took it.
    pub origin: NodeId,
    /// Its place in that node's stream.
    pub position: Timestamp,
    /// The range that held the key there and then.
    pub range: RangeId,
    /// m: the stamp that made the node an origin of that range.
    pub admitted: Stamp,
    /// The keyspace of the key.
    pub keyspace: KeyspaceId,
    /// The key.
    pub key: Key,
    /// What to do with it.
    pub op: Op,
    /// With it the write takes effect at most once.
    pub id: OperationId,
    /// Causal or eventual.
    pub level: Level,
    /// The ids of live elements it ends.
    pub named: Vec<OperationId>,
    /// Room for what is to come. Must-understand: this version knows none.
    pub extensions: Vec<Extension>,
    /// What it causally follows; nothing for an eventual one.
    pub past: Past,
}

impl Delta {
    /// The time by which it compares with other writes to a register: its birth, below its position.
    pub fn time(&self) -> WriteTime {
        WriteTime::of_local_write(&self.id)
    }

    /// As it is merged.
    pub fn write(&self) -> Write<'_> {
        Write::local(&self.id, &self.op, &self.named)
    }

    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut bytes = codec::encode(VERSION, self);
        let sum = xxh3_64(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes.into()
    }

    /// The delta of these bytes.
    ///
    /// # Errors
    /// [`DecodeError`] for damage, and for what this version does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "delta";
        let damaged = |message: &str| DecodeError::Damaged { what, message: message.into() };
        let (body, sum) =
            bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or_else(|| damaged("it is cut short"))?;
        if xxh3_64(body) != u64::from_le_bytes(*sum) {
            return Err(damaged("its checksum is wrong"));
        }
        let delta: Self = codec::decode(what, VERSION, body)?;
        match delta.extensions.first() {
            None => Ok(delta),
            Some(extension) => Err(DecodeError::Extension { what, kind: extension.kind }),
        }
    }

    /// About how many bytes of memory it takes in an overlay.
    pub fn size(&self) -> usize {
        let past = self.past.log.len() * 24 + self.past.seen.by_node.len() * 16;
        size_of::<Self>()
            + IN_OVERLAY
            + self.key.as_bytes().len()
            + op_size(&self.op)
            + self.named.len() * size_of::<OperationId>()
            + past
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::{ClientId, Epoch, OperationKind};
    use proptest::prelude::*;

    use super::*;

    fn delta() -> Delta {
        let id = OperationId {
            birth: Timestamp::from_ms(5),
            client: ClientId([7; 16]),
            sequence: 3,
            kind: OperationKind::Local,
        };
        let mut past = Past::default();
        past.add_log(RangeId(4), Epoch(1), Stamp { time: Timestamp::from_ms(3), node: NodeId(1) });
        Delta {
            origin: NodeId(2),
            position: Timestamp::from_ms(9),
            range: RangeId(4),
            admitted: Stamp { time: Timestamp::from_ms(1), node: NodeId(1) },
            keyspace: KeyspaceId(16),
            key: Key::new(b"k").unwrap(),
            op: Op::Put { value: Bytes::from_static(b"v") },
            id,
            level: Level::Causal,
            named: vec![],
            extensions: vec![],
            past,
        }
    }

    /// The bytes on disk, on the wire and in the log. If this changes, [`VERSION`] must.
    #[test]
    fn the_layout_of_version_1_never_changes() {
        let hex: String = delta().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("delta_v1.hex").trim());
        assert_eq!(Delta::decode(&delta().encode()), Ok(delta()));
    }

    #[test]
    fn its_time_is_its_birth() {
        assert!(delta().time().time < delta().position);
        let log = Stamp { time: Timestamp::from_ms(5), node: NodeId(1) };
        assert!(WriteTime::of_log_write(log, 0) > delta().time(), "at equal times the log wins");
    }

    proptest! {
        #[test]
        fn a_changed_byte_or_a_missing_one_is_noticed(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut bytes = delta().encode().to_vec();
            let at = at.index(bytes.len());
            prop_assert!(Delta::decode(&bytes[..at]).is_err());
            bytes[at] ^= flip;
            prop_assert!(Delta::decode(&bytes).is_err());
        }
    }
}
