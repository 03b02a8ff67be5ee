//! Ids. The numbers of nodes, ranges and keyspaces are handed out by the meta range and never reused;
//! the 16-byte ids are drawn at random.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

number! {
    /// One process with one store. Bound to its [`StoreId`] for ever: an empty disk gets a new id.
    /// Zero is no node: the first one is 1.
    NodeId(u32), "n"
}
number! {
    /// A range: one contiguous span of keys of one keyspace, replicated by one Raft group.
    RangeId(u64), "r"
}
number! {
    /// Rises with every change of a range's span, so that a request routed by an older span is
    /// recognised.
    Epoch(u32), "e"
}
number! {
    /// A keyspace. Never reused, also not after a drop, so that a late message of a dropped keyspace
    /// cannot land in a new one of the same name.
    KeyspaceId(u32), "k"
}
number! {
    /// Which of a node's successive replicas of one range: rises each time the node gets a new one.
    Generation(u32), "g"
}

impl RangeId {
    /// The range that holds nodes, keyspaces and range descriptors.
    pub const META: Self = Self(1);
}

impl KeyspaceId {
    /// Rows that belong to a replica rather than to a user's key (range metadata, operation ids).
    pub const LOCAL: Self = Self(0);
    /// The keyspace of the meta range.
    pub const META: Self = Self(1);
    /// The keyspace called `default`, which always exists.
    pub const DEFAULT: Self = Self(2);
    /// The first number given to a keyspace a user creates.
    pub const FIRST_USER: Self = Self(16);
}

/// One node's copy of a range, for all time: its Raft id.
///
/// A rebalancer moves ranges away and back all the time. A replica that came back under an old Raft
/// id would replay configurations in which it voted and could be a quorum of one, so the generation
/// makes every replica's id new (TiKV's peer id, CockroachDB's ReplicaID).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ReplicaId {
    /// The node it lives on.
    pub node: NodeId,
    /// Which of that node's replicas of the range.
    pub generation: Generation,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.node, self.generation)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A 16-byte id was not 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id of 32 hexadecimal digits")]
pub struct ParseIdError(String);

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(s: &str) -> std::result::Result<Self, ParseIdError> {
                let wrong = || ParseIdError(s.to_string());
                if s.len() != 32 || !s.is_ascii() {
                    return Err(wrong());
                }
                let mut id = [0; 16];
                for (byte, digits) in id.iter_mut().zip(s.as_bytes().chunks_exact(2)) {
                    let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
                    *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
                }
                Ok(Self(id))
            }
        }
    };
}

random_id! {
    /// One process of one client, drawn at random when it starts: half of what makes the id of a
    /// write unique.
    ClientId
}
random_id! {
    /// A cluster, drawn at random by `latitude init`.
    ClusterId
}
random_id! {
    /// A store: one directory on one disk, drawn at random when it is created.
    StoreId
}

/// Which cluster, and which of its lives: a cluster restored from a backup is another incarnation, and
/// nothing of the old life (tokens, messages) is accepted in the new one.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct ClusterIdentity {
    /// The cluster.
    pub id: ClusterId,
    /// Rises with each restoration; 1 in its first life.
    pub incarnation: u32,
}

impl fmt::Display for ClusterIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.id, self.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_id_parses_back() {
        let id = ClusterId(std::array::from_fn(|i| (i * 17) as u8));
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in
            ["", "00", "zz112233445566778899aabbccddeeff", "é0112233445566778899aabbccddeef"]
        {
            assert_eq!(wrong.parse::<ClusterId>(), Err(ParseIdError(wrong.to_string())));
        }
    }

    #[test]
    fn ids_print_with_their_letter() {
        let replica = ReplicaId { node: NodeId(3), generation: Generation(2) };
        assert_eq!(format!("{replica} {} {}", RangeId::META, KeyspaceId::DEFAULT), "n3g2 r1 k2");
    }
}
