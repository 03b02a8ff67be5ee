//! What the log decides about a range as a whole. Part of the base, on every replica alike.

use latitude_crdt::ValueType;
use latitude_types::{Epoch, KeySpan, KeyspaceId, NodeId, Past, RangeId, Stamp, Timestamp};
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::entry::Admission;

const VERSION: u8 = 1;

/// The highest feature level this version knows. A range's own level only rises through its log.
pub const FEATURE_LEVEL: u32 = 1;

/// A range's metadata.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RangeMeta {
    /// The range.
    pub id: RangeId,
    /// Rises with every change of the span.
    pub epoch: Epoch,
    /// The keyspace its keys belong to.
    pub keyspace: KeyspaceId,
    /// Its keys.
    pub span: KeySpan,
    /// The type of its values.
    pub value_type: ValueType,
    /// The longest value, in bytes.
    pub value_len_max: u32,
    /// Whether local writes are ruled out for ever.
    pub log_only: bool,
    /// The stamp of the last entry applied; [`Stamp::ZERO`] before the first.
    pub last_stamp: Stamp,
    /// Every stamp given in the range is above this: the stamp of the split that made it.
    pub floor: Stamp,
    /// While frozen for a merge: nothing above this is closed or taken.
    pub freeze: Option<Timestamp>,
    /// The nodes that take local writes, and how far each has been folded.
    pub origins: Vec<Origin>,
    /// The largest stamp at which a deleted key that has since been dropped took effect.
    pub gc_stamp: Stamp,
    /// What those deletions followed.
    pub gc_past: Past,
    /// Which entry kinds may be proposed.
    pub feature_level: u32,
}

/// A node that takes, or took, local writes in a range.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// The node.
    pub node: NodeId,
    /// Where it stands.
    pub state: OriginState,
    /// The stamp that admitted it: its first possible position.
    pub admitted: Stamp,
    /// Every delta of it up to here is in the base.
    pub folded: Timestamp,
    /// For a sealed or lost one: nothing of it is positioned above this.
    pub last: Option<Timestamp>,
}

/// Where an origin stands, in the order it gets there under one admission.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum OriginState {
    /// Takes local writes.
    Active,
    /// Is to stop.
    Sealing,
    /// Has stopped, and everything of it is folded.
    Sealed,
    /// Is lost; what nobody else holds is lost with it.
    Lost,
}

impl Origin {
    /// Under which admission it stands so.
    pub fn admission(&self) -> Admission {
        Admission { node: self.node, stamp: self.admitted }
    }

    /// The stamp that admitted it, and where it stands since.
    pub fn stands(&self) -> (Stamp, OriginState) {
        (self.admitted, self.state)
    }

    /// How far of `needed` there can be anything: of one that has stopped for good, as far as it went.
    pub fn capped(&self, needed: Timestamp) -> Timestamp {
        self.last.map_or(needed, |last| needed.min(last))
    }

    /// Whether a range of which one replica has these origins is further in its log than one that has those.
    pub fn are_behind(those: &[Self], these: &[Self]) -> bool {
        let at = |origin: &Self| (origin.admitted, origin.state, origin.folded);
        let of = |node| those.iter().find(|origin: &&Self| origin.node == node);
        these.iter().any(|origin| of(origin.node).is_none_or(|that| at(that) < at(origin)))
    }
}

impl RangeMeta {
    /// A range that has applied nothing.
    pub fn new(
        id: RangeId,
        keyspace: KeyspaceId,
        span: KeySpan,
        value_len_max: u32,
        log_only: bool,
    ) -> Self {
        Self {
            id,
            epoch: Epoch(1),
            keyspace,
            span,
            value_type: ValueType::Register,
            value_len_max,
            log_only,
            last_stamp: Stamp::ZERO,
            floor: Stamp::ZERO,
            freeze: None,
            origins: Vec::new(),
            gc_stamp: Stamp::ZERO,
            gc_past: Past::default(),
            feature_level: FEATURE_LEVEL,
        }
    }

    /// As a row of the base.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(VERSION, self)
    }

    /// From a row of the base.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode("range metadata", VERSION, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes on disk. If this changes, [`VERSION`] must.
    #[test]
    fn the_layout_of_version_1_never_changes() {
        let span = KeySpan::new(b"a", Some(b"m")).unwrap();
        let mut meta = RangeMeta::new(RangeId(4), KeyspaceId(16), span, 1024, false);
        meta.last_stamp = Stamp { time: Timestamp::from_ms(9), node: NodeId(1) };
        let hex: String = meta.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "01040110016101016d008008008080801201000000000000000000000001");
    }
}
