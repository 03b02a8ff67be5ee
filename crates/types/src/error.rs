//! The error of a request: what went wrong, what the caller does next, and whether a write may have
//! happened all the same.
//!
//! ```text
//!   Reason (one per cause, machine-readable) ──▶ Kind (one per thing the caller would do differently)
//!   Outcome: NOT_APPLIED, retry freely │ UNKNOWN, retry with the same id only
//! ```

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{NodeId, RangeId};

/// A request's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whether a write that failed may have taken effect, or may yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// It certainly had no effect and never will: retry freely.
    NotApplied,
    /// It may have had one, or may yet: retry with the same id only.
    Unknown,
}

/// What a caller does next: one kind for each thing it would do differently.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Change the request: it can never succeed as it is.
    Invalid,
    /// Name something that exists.
    NotFound,
    /// The state of the thing named forbids it: change that state first.
    Precondition,
    /// This server does not know how: use another level or a newer server.
    Unimplemented,
    /// Ask the node named, or learn the ranges again; at once.
    Redirect,
    /// Wait a little and retry, here or elsewhere.
    Unavailable,
    /// Too much at once: wait as long as the error says and retry.
    Exhausted,
    /// The deadline passed: decide whether it is still worth doing.
    Deadline,
    /// A fault of ours: report it.
    Internal,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $wire:literal, $kind:ident;)*) => {
        /// Why a request failed: one per cause, stable, machine-readable.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason's name on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $wire,)* }
            }

            /// What a caller does about it.
            pub fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }

            /// The reason of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.name() == name)
            }
        }
    };
}

reasons! {
    /// The key has no bytes.
    KeyEmpty = "KEY_EMPTY", Invalid;
    /// The key has more than 4096 bytes.
    KeyTooLong = "KEY_TOO_LONG", Invalid;
    /// A value has more bytes than the keyspace allows, its key holds as much as a key may, or a command or an answer has
    /// more than a message carries.
    ValueTooLarge = "VALUE_TOO_LARGE", Invalid;
    /// The level is none of the four.
    LevelUnknown = "LEVEL_UNKNOWN", Invalid;
    /// The level exists and this server does not serve it yet.
    LevelUnimplemented = "LEVEL_UNIMPLEMENTED", Unimplemented;
    /// A conditional write was asked for at a level that does not go through the log.
    LevelNotForCondition = "LEVEL_NOT_FOR_CONDITION", Invalid;
    /// The deadline had passed when the request arrived.
    DeadlinePast = "DEADLINE_PAST", Deadline;
    /// The deadline passed while the request was being served.
    DeadlineExceeded = "DEADLINE_EXCEEDED", Deadline;
    /// The batch holds more operations or bytes than a batch may, or the answer of this read found no room beside the
    /// others.
    BatchTooLarge = "BATCH_TOO_LARGE", Invalid;
    /// A scan's end is not above its start.
    ScanSpanEmpty = "SCAN_SPAN_EMPTY", Invalid;
    /// A scan's continuation was not made by this cluster for this scan.
    ContinuationInvalid = "CONTINUATION_INVALID", Invalid;
    /// The message does not parse, or lacks a field that must be there.
    Malformed = "MALFORMED", Invalid;
    /// An argument is outside what it may be.
    ArgumentInvalid = "ARGUMENT_INVALID", Invalid;
    /// No keyspace has that name.
    KeyspaceUnknown = "KEYSPACE_UNKNOWN", NotFound;
    /// The keyspace of that name is another one than the client knows: it was dropped and created anew.
    KeyspaceChanged = "KEYSPACE_CHANGED", Precondition;
    /// A keyspace of that name exists.
    KeyspaceExists = "KEYSPACE_EXISTS", Precondition;
    /// The keyspace's type has no such operation.
    TypeMismatch = "TYPE_MISMATCH", Precondition;
    /// The placement cannot be met by the nodes there are.
    PlacementUnsatisfiable = "PLACEMENT_UNSATISFIABLE", Precondition;
    /// The node belongs to no cluster yet.
    NotInitialized = "NOT_INITIALIZED", Precondition;
    /// The node belongs to a cluster already.
    AlreadyInitialized = "ALREADY_INITIALIZED", Precondition;
    /// The id's birth is more than ten minutes ago: the write can no longer be told from a repetition.
    IdExpired = "ID_EXPIRED", Precondition;
    /// The id's birth is further ahead of this cluster's clock than clocks may differ.
    IdFromFuture = "ID_FROM_FUTURE", Invalid;
    /// The id was answered before and its result is no longer kept.
    IdRetired = "ID_RETIRED", Precondition;
    /// The session token is damaged, or of a version this server does not know.
    TokenInvalid = "TOKEN_INVALID", Invalid;
    /// The session token was made by another cluster, or in an earlier life of this one.
    TokenForeign = "TOKEN_FOREIGN", Invalid;
    /// The session token is further ahead of this node's clock than clocks may differ: ask another node, whose clock may
    /// be right.
    TokenFromFuture = "TOKEN_FROM_FUTURE", Invalid;
    /// The node is not the leader of the range; the leader, if known, is named.
    NotLeader = "NOT_LEADER", Redirect;
    /// The key is not, or no longer, in the range the request was routed to.
    RangeMoved = "RANGE_MOVED", Redirect;
    /// The node holds no replica of the range.
    RangeNotHere = "RANGE_NOT_HERE", Redirect;
    /// Too few replicas answer; the missing quorum is named.
    NoQuorum = "NO_QUORUM", Unavailable;
    /// The replica does not know yet everything up to the session's time.
    ReplicaBehind = "REPLICA_BEHIND", Unavailable;
    /// The replica cannot prove that its answer is as fresh as asked for.
    StalenessUnproved = "STALENESS_UNPROVED", Unavailable;
    /// The range is frozen for a moment, to be merged with its neighbour.
    RangeFrozen = "RANGE_FROZEN", Unavailable;
    /// Local writes of the session are not in the range's log yet, and the request must not be served without.
    NotFolded = "NOT_FOLDED", Unavailable;
    /// The replica does not take local writes, or not yet.
    NotOrigin = "NOT_ORIGIN", Unavailable;
    /// A node that is to stop taking local writes has not, or not all it took is in the log; it goes on.
    SealPending = "SEAL_PENDING", Unavailable;
    /// The range has no leader at the moment.
    NoLeader = "NO_LEADER", Unavailable;
    /// A leader was deposed while it held the request.
    LeaderChanged = "LEADER_CHANGED", Unavailable;
    /// The node is stopping.
    ShuttingDown = "SHUTTING_DOWN", Unavailable;
    /// The node's clock differs from a majority's by more than clocks may differ.
    ClockUnsynced = "CLOCK_UNSYNCED", Unavailable;
    /// The replica lost entries it had acknowledged, and neither votes nor serves.
    ReplicaQuarantined = "REPLICA_QUARANTINED", Unavailable;
    /// No node could be reached.
    Unreachable = "UNREACHABLE", Unavailable;
    /// The node has as many requests in hand as it takes.
    TooManyRequests = "TOO_MANY_REQUESTS", Exhausted;
    /// The range has as many local writes that are not in its log yet as it takes: reads and log writes go on.
    UnfoldedQuota = "UNFOLDED_QUOTA", Exhausted;
    /// The disk has less free space than the floor: writes are refused, reads go on.
    DiskFull = "DISK_FULL", Exhausted;
    /// A fault of ours.
    Internal = "INTERNAL", Internal;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where the leader of a range is believed to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaderHint {
    /// The range.
    pub range: RangeId,
    /// The node that leads it.
    pub node: NodeId,
}

/// The quorum a request lacked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MissingQuorum {
    /// The range.
    pub range: RangeId,
    /// How many voters must answer.
    pub needed: u32,
    /// The voters' nodes that did not answer.
    pub silent: Vec<NodeId>,
}

impl fmt::Display for MissingQuorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let silent = self.silent.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        write!(
            f,
            "range {} needs {} voters and does not hear from {silent}",
            self.range, self.needed
        )
    }
}

/// Why a request failed, and what a caller needs to decide what to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Error {
    /// The cause.
    pub reason: Reason,
    /// Whether a write may have happened; for a read always [`Outcome::NotApplied`].
    pub outcome: Outcome,
    /// A sentence for a person: what happened and what to do.
    pub message: String,
    /// How long to wait before a retry, where the server knows.
    pub retry_after: Option<Duration>,
    /// Where the leader is, for [`Reason::NotLeader`].
    pub leader: Option<LeaderHint>,
    /// The quorum that is missing, for [`Reason::NoQuorum`].
    pub missing_quorum: Option<MissingQuorum>,
}

impl Error {
    /// An error that says the request certainly had no effect.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            outcome: Outcome::NotApplied,
            message: message.into(),
            retry_after: None,
            leader: None,
            missing_quorum: None,
        }
    }

    /// An error that says a write may have happened, or may yet.
    pub fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unknown, ..Self::new(reason, message) }
    }

    /// The same error with a time to wait before a retry.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// What the caller does next.
    pub fn kind(&self) -> Kind {
        self.reason.kind()
    }

    /// Whether the write may have taken effect, or may yet.
    pub fn may_have_applied(&self) -> bool {
        self.outcome == Outcome::Unknown
    }

    /// Whether the same request may succeed later or elsewhere (a write: with the same id).
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind(), Kind::Redirect | Kind::Unavailable | Kind::Exhausted)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_is_found_by_its_own_name() {
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.name()), Some(*reason));
        }
        assert_eq!(Reason::from_name("NO_SUCH_REASON"), None);
    }

    #[test]
    fn a_missing_quorum_names_the_silent_nodes() {
        let missing =
            MissingQuorum { range: RangeId(4), needed: 2, silent: vec![NodeId(2), NodeId(3)] };
        assert_eq!(missing.to_string(), "range r4 needs 2 voters and does not hear from n2, n3");
    }
}
