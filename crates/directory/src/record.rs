//! The records, their keys and their bytes.

use latitude_crdt::ValueType;
use latitude_types::{Epoch, KeySpan, KeyspaceId, Level, NodeId, RangeId, ReplicaId, StoreId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const VERSION: u8 = 3;

/// The keys of the meta range.
pub mod key {
    use latitude_types::{Key, NodeId, RangeId};

    pub(crate) const NODE: &str = "node/";
    pub(crate) const KEYSPACE: &str = "keyspace/";
    pub(crate) const RANGE: &str = "range/";
    pub(crate) const NEXT: &str = "next/";

    fn make(prefix: &str, name: &str) -> Key {
        Key::new(format!("{prefix}{name}").as_bytes())
            .expect("the prefix is not empty and names are short")
    }

    /// Of a node's record.
    pub fn node(id: NodeId) -> Key {
        make(NODE, &format!("{:010}", id.0))
    }

    /// Of a keyspace's record. The name has been checked to be at most 64 bytes.
    pub fn keyspace(name: &str) -> Key {
        make(KEYSPACE, name)
    }

    /// Of a range's record.
    pub fn range(id: RangeId) -> Key {
        make(RANGE, &format!("{:020}", id.0))
    }

    /// Of the next free number of a kind.
    pub fn next(counter: super::Counter) -> Key {
        make(NEXT, counter.name())
    }
}

/// What is numbered, once and for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counter {
    /// Nodes.
    Node,
    /// Keyspaces.
    Keyspace,
    /// Ranges.
    Range,
}

impl Counter {
    fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Keyspace => "keyspace",
            Self::Range => "range",
        }
    }
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its number.
    pub id: NodeId,
    /// The store its number is bound to, for ever.
    pub store: StoreId,
    /// Where it is, in the large: latency within a region is small.
    pub region: String,
    /// Where it is, in the small: what fails together.
    pub zone: String,
    /// Where it is reached.
    pub address: Address,
}

/// Where a node is reached: `host:port`, and other ones for those who see it from elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Address {
    /// From anywhere not named below.
    pub default: String,
    /// By the region of whoever asks.
    pub from_region: Vec<(String, String)>,
}

impl Address {
    /// As seen from a region.
    pub fn seen_from(&self, region: &str) -> &str {
        let special = self.from_region.iter().find(|(viewer, _)| viewer == region);
        special.map_or(&self.default, |(_, address)| address)
    }
}

/// A keyspace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyspaceRecord {
    /// Its number, never reused.
    pub id: KeyspaceId,
    /// Its name.
    pub name: String,
    /// Whether it can be used.
    pub state: KeyspaceState,
    /// The ranges it began with; later ones come from these.
    pub ranges: Vec<RangeId>,
    /// How many voters a range has in each region; empty: three, spread.
    pub place: Vec<RegionReplicas>,
    /// How many learners a range has in each region.
    pub learners: Vec<RegionReplicas>,
    /// The type of its values.
    pub value_type: ValueType,
    /// The level of requests that name none.
    pub default_level: Level,
    /// Whether local writes are ruled out for ever.
    pub log_only: bool,
    /// The longest value, in bytes.
    pub value_len_max: u32,
}

/// Whether a keyspace can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum KeyspaceState {
    /// Yes.
    Active,
    /// No: it was dropped. Its record stays until its ranges are gone.
    Dropped,
}

/// So many replicas of each range in a region.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RegionReplicas {
    /// The region.
    pub region: String,
    /// How many.
    pub replicas: u32,
}

/// A range.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RangeRecord {
    /// Its number, never reused.
    pub id: RangeId,
    /// Rises with every change of its span.
    pub epoch: Epoch,
    /// The keyspace its keys belong to.
    pub keyspace: KeyspaceId,
    /// Its keys.
    pub span: KeySpan,
    /// Its voters; the first is the preferred leader.
    pub voters: Vec<ReplicaId>,
    /// Replicas that follow without a vote.
    pub learners: Vec<ReplicaId>,
    /// The type of its values.
    pub value_type: ValueType,
    /// The longest value, in bytes.
    pub value_len_max: u32,
    /// Whether local writes are ruled out for ever.
    pub log_only: bool,
}

impl RangeRecord {
    /// Every replica: the preferred leader first, the voters, then the learners.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> {
        self.voters.iter().chain(&self.learners).copied()
    }

    /// The replica a node has of it.
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.replicas().find(|replica| replica.node == node)
    }
}

/// A record cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the record of {what} cannot be read: {message}")]
pub struct RecordError {
    /// Which.
    pub what: &'static str,
    /// Why.
    pub message: String,
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("our records serialize")
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, RecordError> {
    let fail = |message: String| RecordError { what, message };
    match bytes {
        [VERSION, rest @ ..] => postcard::from_bytes(rest).map_err(|error| fail(error.to_string())),
        [version, ..] => {
            Err(fail(format!("it has version {version}; this Latitude knows {VERSION}")))
        }
        [] => Err(fail("it is empty".into())),
    }
}

macro_rules! record {
    ($name:ident, $what:literal) => {
        impl $name {
            /// As a value of the meta range.
            pub fn encode(&self) -> Vec<u8> {
                encode(self)
            }

            /// From a value of the meta range.
            pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
                decode($what, bytes)
            }
        }
    };
}

record!(NodeRecord, "a node");
record!(KeyspaceRecord, "a keyspace");
record!(RangeRecord, "a range");
