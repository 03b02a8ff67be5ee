//! One line of a history.

use serde::{Deserialize, Serialize};

use super::MicroOp;

/// One thing that happened, in the order in which the recorder saw it.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// Grows from line to line.
    pub index: u64,
    /// Monotonic nanoseconds of the harness. For people: the order of the lines is the clock.
    pub time_nanos: u64,
    /// What was done: of a client `txn`, or why it failed; of the nemesis the fault.
    pub f: String,
    /// Who did it, and with what.
    pub body: Body,
}

/// Who an event belongs to.
#[derive(Clone, PartialEq, Debug)]
pub enum Body {
    /// A client's operation began or ended.
    Client {
        /// The session.
        process: u64,
        /// Began, or ended how.
        phase: Phase,
        /// What it does, in order; results of reads only in an `ok`.
        micro_ops: Vec<MicroOp>,
        /// What else is known of it.
        extras: Extras,
    },
    /// A fault was made or healed.
    Nemesis {
        /// Free form.
        value: serde_json::Value,
    },
}

/// The `type` of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Sent.
    Invoke,
    /// Certainly took effect.
    Ok,
    /// Certainly had no effect and never will.
    Fail,
    /// Nobody knows: it may have taken effect, may do so later, or never.
    Info,
}

/// What may be said of an operation beside what it did. A completion's word replaces its invocation's.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Extras {
    /// The node asked, or the node that answered.
    pub node: Option<String>,
    /// The consistency level asked for.
    pub level: Option<String>,
    /// The version of the key that was read or written.
    pub version: Option<Version>,
    /// How many times the client sent the operation again.
    pub retry: Option<u32>,
    /// The process whose session token this one took over.
    pub token_from: Option<u64>,
    /// What the server gave as proof of the write. Free form.
    pub receipt: Option<serde_json::Value>,
    /// A read after every fault was healed.
    pub is_final: bool,
}

impl Extras {
    /// These, with whatever `later` knows put over them.
    pub(crate) fn overlaid(&self, later: &Self) -> Self {
        let (early, late) = (self.clone(), later.clone());
        Self {
            node: late.node.or(early.node),
            level: late.level.or(early.level),
            version: late.version.or(early.version),
            retry: late.retry.or(early.retry),
            token_from: late.token_from.or(early.token_from),
            receipt: late.receipt.or(early.receipt),
            is_final: late.is_final || early.is_final,
        }
    }
}

/// A place in the order of a key's versions: a log index or a position is one number, a stamp is its
/// time and its node. Compares number by number, the first first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(from = "VersionForm", into = "VersionForm")]
pub struct Version(pub Vec<u64>);

/// How a version stands in a line: a number alone, or several in an array.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum VersionForm {
    One(u64),
    Several(Vec<u64>),
}

impl From<VersionForm> for Version {
    fn from(form: VersionForm) -> Self {
        match form {
            VersionForm::One(number) => Self(vec![number]),
            VersionForm::Several(numbers) => Self(numbers),
        }
    }
}

impl From<Version> for VersionForm {
    fn from(Version(numbers): Version) -> Self {
        match numbers[..] {
            [number] => Self::One(number),
            _ => Self::Several(numbers),
        }
    }
}

impl From<u64> for Version {
    fn from(number: u64) -> Self {
        Self(vec![number])
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, number) in self.0.iter().enumerate() {
            write!(f, "{}{number}", if at == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}
