//! What a load is about: keys of one type, the levels at which they are written and read, and what is done next.

use latitude_checker::history::{MicroOp, Value};
use latitude_client::Level;
use latitude_rpc::pb::v1;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

/// What a load is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// Registers, strictly and sequentially.
    Log,
    /// Registers, at all four levels on the same keys.
    AllLevels,
    /// Counters, at all four levels on the same keys.
    Counters,
    /// Sets, at all four levels on the same keys. Each element is added once.
    Sets,
}

/// What a process asks for besides the subject, and whose sessions it goes on with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Habit {
    /// All levels of the subject, and sessions that others have left, in any region.
    Roams,
    /// Local levels only, in its own sessions. It leaves one that cannot go on: what came through the log may have causes
    /// that its region lacks, and whoever has read it waits for them (consistency.md 1.1).
    Stays,
    /// As [`Stays`](Self::Stays), and reads at level eventual only, which brings no causes: a region that is cut off serves
    /// all of it.
    ReadsAlone,
}

impl Subject {
    /// The keyspace it runs on.
    pub fn keyspace(self) -> &'static str {
        match self {
            Self::Log | Self::AllLevels => "recorded",
            Self::Counters => "recorded-counters",
            Self::Sets => "recorded-sets",
        }
    }

    /// What the keyspace holds.
    pub fn value_type(self) -> v1::ValueType {
        match self {
            Self::Log | Self::AllLevels => v1::ValueType::Register,
            Self::Counters => v1::ValueType::Counter,
            Self::Sets => v1::ValueType::Set,
        }
    }

    pub(super) fn keys(self) -> usize {
        match self {
            Self::Log | Self::AllLevels => 40,
            Self::Counters | Self::Sets => 4,
        }
    }

    pub(super) fn processes(self) -> usize {
        match self {
            Self::Log | Self::AllLevels => 12,
            Self::Counters | Self::Sets => 6,
        }
    }

    /// The successful operations a history must have.
    pub(super) fn ok_min(self) -> u64 {
        match self {
            Self::Log | Self::AllLevels => 5_000,
            Self::Counters | Self::Sets => 1_000,
        }
    }

    /// Of these, those after the fault.
    pub(super) fn ok_after_min(self) -> u64 {
        self.ok_min() / 5
    }

    /// The habit of a process. Processes take turns over the regions, so each region has all of them.
    pub(super) fn habit(self, process: u64) -> Habit {
        match (self, process % 12) {
            (Self::Log, _) | (_, 3..9) => Habit::Roams,
            (_, 0..3) => Habit::Stays,
            (_, 9..) => Habit::ReadsAlone,
        }
    }

    /// The level of the next operation.
    pub(super) fn level(self, habit: Habit, random: &mut impl Rng) -> Level {
        let levels: &[Level] = match (self, habit) {
            (Self::Log, _) => &[Level::Strict, Level::Sequential],
            (_, Habit::Stays | Habit::ReadsAlone) => {
                &[Level::Causal, Level::Causal, Level::Eventual]
            }
            _ => &[Level::Strict, Level::Sequential, Level::Causal, Level::Eventual],
        };
        *levels.choose(random).unwrap_or(&Level::Strict)
    }

    /// The next operation on a key, and the level it can be asked for at. `number` is new, `seen` what the process saw
    /// there last.
    pub(super) fn next(
        self,
        key: &str,
        number: i64,
        seen: &Value,
        level: Level,
        random: &mut SmallRng,
    ) -> MicroOp {
        let key = || key.to_owned();
        let is_log = matches!(level, Level::Strict | Level::Sequential);
        match (self, random.random_range(0..100), seen) {
            (_, 0..45, _) => MicroOp::Read { key: key(), value: Value::Absent },
            (Self::Counters, 45..95, _) => MicroOp::Add { key: key(), amount: number % 9 + 1 },
            (Self::Counters, ..) => MicroOp::Add { key: key(), amount: -(number % 5) - 1 },
            (Self::Sets, 45..80, _) => MicroOp::Add { key: key(), amount: number },
            (Self::Sets, _, Value::List(list)) if !list.is_empty() => {
                let element = *list.choose(random).unwrap_or(&list[0]);
                MicroOp::Remove { key: key(), element }
            }
            (Self::Sets, ..) => MicroOp::Read { key: key(), value: Value::Absent },
            (_, 45..66, _) => MicroOp::Write { key: key(), value: number },
            (_, 66..84, Value::Integer(from)) if is_log => {
                MicroOp::CompareAndSet { key: key(), from: Some(*from), to: number }
            }
            (_, 66..95, _) if is_log => MicroOp::PutIfAbsent { key: key(), value: number },
            // Of a deleted key no answer says which delete it shows; beside local writes that leaves too much open.
            (Self::Log, ..) => MicroOp::Delete { key: key() },
            (Self::AllLevels, ..) => MicroOp::Write { key: key(), value: number },
        }
    }
}
