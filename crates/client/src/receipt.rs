//! What was delivered: the receipt of an answer.

use std::fmt;
use std::time::Duration;

use latitude_rpc::FromWire;
use latitude_rpc::pb::v1;
use latitude_types::{Epoch, KeyspaceId, Level, NodeId, RangeId, Result, Timestamp, WriteTime};

/// How much an answer says about how it was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReceiptDetail {
    /// No receipt.
    None,
    /// Level, node, region, role, range and version.
    #[default]
    Short,
    /// Everything the server knows.
    Full,
}

impl ReceiptDetail {
    pub(crate) fn to_wire(self) -> i32 {
        (match self {
            Self::None => v1::ReceiptDetail::None,
            Self::Short => v1::ReceiptDetail::Short,
            Self::Full => v1::ReceiptDetail::Full,
        }) as i32
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$word_doc])* $word,)* }

        impl $name {
            /// `None` if the server did not say, or said what this version does not know.
            fn from_wire(wire: v1::$name) -> Option<Self> {
                match wire { v1::$name::Unspecified => None, $(v1::$name::$word => Some(Self::$word),)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$word => $text,)* })
            }
        }
    };
}

words! {
    /// The part the replica played that served a request.
    Role {
        /// It leads the range.
        Leader = "leader",
        /// It votes and follows.
        Follower = "follower",
        /// It follows without a vote.
        Learner = "learner",
    }
}

words! {
    /// What proves that an answer is what its level promises.
    Proof {
        /// The entry was committed by a quorum and applied.
        Committed = "committed",
        /// A quorum confirmed the leader after the request arrived.
        ReadIndex = "read index",
        /// The leader's lease covered the read.
        Lease = "lease",
        /// The replica's closed time covered the session's time.
        ClosedTime = "closed time",
        /// The replica's watermarks covered the session's past.
        Watermarks = "watermarks",
        /// The node that took the local write has it on its disk.
        Durable = "durable",
    }
}

words! {
    /// Whether a write's id had been seen before.
    Duplicate {
        /// This request made the write.
        No = "no",
        /// An earlier attempt had made it; the answer is that attempt's.
        Yes = "yes",
        /// The server cannot tell.
        Unknown = "unknown",
    }
}

/// What was delivered. The second half is there in full receipts only.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// The level asked for, the keyspace's default filled in.
    pub level_asked: Option<Level>,
    /// The level delivered.
    pub level_given: Option<Level>,
    /// Why another level was given than asked for: the reason of the failure at that level.
    pub fallback: Option<String>,
    /// The node that served the request.
    pub node: NodeId,
    /// Its region.
    pub region: String,
    /// The part its replica played.
    pub role: Option<Role>,
    /// The range that holds the key.
    pub range: RangeId,
    /// The range's epoch.
    pub epoch: Epoch,
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The version of the value read or written.
    pub version: Option<WriteTime>,

    /// Term and index of a write's own log entry; for a read, of the last entry applied before it.
    pub log: Option<(u64, u64)>,
    /// The time the answer stands for.
    pub as_of: Option<Timestamp>,
    /// Up to when a replica that answered a sequential read knew every entry of the range.
    pub closed: Option<Timestamp>,
    /// What proves the level.
    pub proof: Option<Proof>,
    /// For a write: whether an earlier attempt had made it.
    pub duplicate: Option<Duplicate>,
    /// The nodes known to hold the write durably.
    pub durable_on: Vec<NodeId>,
    /// Whether any node would recognise a retry.
    pub retry_safe: bool,
    /// Upper bound of the staleness; `None` where none is proved.
    pub staleness: Option<Duration>,
    /// Whether the answer takes the whole session into account.
    pub covers_session: bool,
    /// Whether a scan's parts of different ranges are *not* closed over each other's pasts.
    pub not_closed: bool,
    /// Local writes that went into the answer and were not in the range's log there yet.
    pub unfolded: Vec<Unfolded>,
    /// Whether a write is known to be outweighed by one whose time is larger: it was taken, and nobody will read it.
    pub superseded: bool,
    /// Nodes that take no local writes of the range any more, with the position up to which they took any there: of
    /// what the session has seen or done at them nothing above was waited for.
    pub capped: Vec<(NodeId, Timestamp)>,
    /// How long the server worked on the request.
    pub server_time: Duration,
}

impl Receipt {
    /// The receipt of an answer that was put together from one more part, of another range or of the same one later.
    /// Where it was served and where that stood is told of the last part; what is promised holds for all of them.
    pub(crate) fn with_part(self, last: Self) -> Self {
        let mut unfolded = self.unfolded;
        for of in last.unfolded {
            match unfolded.iter_mut().find(|known| known.node == of.node) {
                Some(known) => {
                    known.count += of.count;
                    known.highest = known.highest.max(of.highest);
                }
                None => unfolded.push(of),
            }
        }
        let mut capped = self.capped;
        capped.extend(last.capped);
        capped.sort_unstable();
        capped.dedup();
        let is_causal = last.level_given == Some(Level::Causal);
        Self {
            // The weakest.
            level_given: self.level_given.max(last.level_given),
            fallback: self.fallback.or(last.fallback),
            staleness: self.staleness.zip(last.staleness).map(|(one, other)| one.max(other)),
            covers_session: self.covers_session && last.covers_session,
            // Each part knows its own range only.
            not_closed: self.not_closed || last.not_closed || is_causal,
            unfolded,
            capped,
            server_time: self.server_time + last.server_time,
            ..last
        }
    }
}

/// Local writes of one node that are not in the log yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfolded {
    /// The node that took them.
    pub node: NodeId,
    /// How many.
    pub count: u64,
    /// The position of the last one in that node's stream.
    pub highest: Timestamp,
}

impl FromWire<v1::Receipt> for Receipt {
    fn from_wire(wire: v1::Receipt) -> Result<Self> {
        Ok(Self {
            level_asked: Option::<Level>::from_wire(wire.level_asked)?,
            level_given: Option::<Level>::from_wire(wire.level_given)?,
            fallback: Some(wire.fallback_reason.clone()).filter(|reason| !reason.is_empty()),
            node: NodeId(wire.node),
            role: Role::from_wire(wire.role()),
            proof: Proof::from_wire(wire.proof()),
            duplicate: Duplicate::from_wire(wire.duplicate()),
            region: wire.region,
            range: RangeId(wire.range_id),
            epoch: Epoch(wire.range_epoch),
            keyspace: KeyspaceId(wire.keyspace_id),
            version: wire.version.as_ref().map(WriteTime::from_wire).transpose()?,
            log: wire.log.map(|position| (position.term, position.index)),
            as_of: (wire.as_of != 0).then_some(Timestamp(wire.as_of)),
            closed: (wire.closed != 0).then_some(Timestamp(wire.closed)),
            durable_on: wire.durable_on.into_iter().map(NodeId).collect(),
            retry_safe: wire.retry_safe,
            staleness: wire.staleness_ms.map(Duration::from_millis),
            covers_session: wire.covers_session,
            not_closed: wire.not_closed,
            superseded: wire.superseded,
            unfolded: wire
                .unfolded
                .into_iter()
                .map(|of| Unfolded {
                    node: NodeId(of.node),
                    count: of.count,
                    highest: Timestamp(of.highest),
                })
                .collect(),
            capped: wire
                .capped
                .into_iter()
                .map(|of| (NodeId(of.node), Timestamp(of.last)))
                .collect(),
            server_time: Duration::from_micros(wire.server_us),
        })
    }
}

/// One line for a person: `strict by leader n1 (eu), range r7e2, read index`.
impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level_given {
            Some(level) => write!(f, "{level}")?,
            None => f.write_str("level not named")?,
        }
        f.write_str(" by ")?;
        if let Some(role) = self.role {
            write!(f, "{role} ")?;
        }
        write!(f, "{} ({}), range {}{}", self.node, self.region, self.range, self.epoch)?;
        if let Some(proof) = self.proof {
            write!(f, ", {proof}")?;
        }
        if self.duplicate == Some(Duplicate::Yes) {
            f.write_str(", by an earlier attempt")?;
        }
        let unfolded: u64 = self.unfolded.iter().map(|of| of.count).sum();
        if unfolded > 0 {
            write!(f, ", {unfolded} not in the log yet")?;
        }
        Ok(())
    }
}
