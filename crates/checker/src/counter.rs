//! Does every read of a counter lie within what was added, and does it end at the exact sum?
//!
//! ```text
//!   process 0   add 5 ──ok──▶ read v         certain: 5, acknowledged in its own session
//!   process 1      add -2 (unknown)          possible: -2 and 3
//!   process 2           add 3 ...            so 5 - 2 ≤ v ≤ 5 + 3
//! ```
//!
//! A read shows every addition that is *certain*, and any of those that are *possible*: begun before the
//! read returned, and not failed. So it lies between the certain sum with all that takes away and the certain
//! sum with all that adds. What is certain depends on the read:
//! - eventual: nothing;
//! - causal and sequential: what was acknowledged in its session before (with tokens), at any level;
//! - strict: that, and what the log acknowledged before the read began;
//! - final (marked by the harness, after all was healed): whatever was acknowledged before it began. What is
//!   left open then is of unknown outcome, and each of those counts once or not at all: the read must be
//!   the certain sum with *some* of them, exactly.
//!
//! An addition within bounds goes through the log, and counts if it succeeded. An addition that answers the sum it
//! left is one operation of two: `add`, and a read, which shows that addition too. An absent counter is 0. A history
//! in which a counter is deleted cannot be judged yet: that ends some additions, and not others.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{MicroOp, Operation, Outcome, Value};
use crate::known::{By, Known};
use crate::promise::{Broken, Doubt, Report, violation};
use crate::session_order::Clock;
use crate::{History, Level, Violation};

/// Judges every counter of a history; operations that name no level are strict.
pub fn check(history: &History) -> Report {
    check_operations(&history.operations(), Level::Strict)
}

/// As [`check`], for the operations of one history in the order of their invocations; those that name no
/// level are `unnamed`. O(n × (log n + sessions)); final reads beside many unknown additions take longer.
pub fn check_operations(operations: &[Operation], unnamed: Level) -> Report {
    Report::new(operations, judge(operations, unnamed))
}

/// The sums that a final read is compared with, one by one, at most. Beyond, only their bounds count.
const SUMS_MAX: usize = 100_000;

/// Sums of what adds and of what takes away.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum {
    pub(crate) up: i128,
    pub(crate) down: i128,
}

impl Sum {
    fn plus(self, amount: i128) -> Self {
        Self { up: self.up + amount.max(0), down: self.down + amount.min(0) }
    }

    pub(crate) fn net(self) -> i128 {
        self.up + self.down
    }
}

/// Additions in some order, with their sums up to each.
#[derive(Default)]
pub(crate) struct Sums(Vec<(u64, Sum)>);

impl Sums {
    /// `at`: not below that of the last.
    pub(crate) fn push(&mut self, at: u64, amount: impl Into<i128>) {
        let last = self.0.last().map_or(Sum::default(), |&(_, sum)| sum);
        self.0.push((at, last.plus(amount.into())));
    }

    /// Of those below `at`.
    pub(crate) fn below(&self, at: u64) -> Sum {
        let count = self.0.partition_point(|&(other, _)| other < at);
        count.checked_sub(1).map_or(Sum::default(), |last| self.0[last].1)
    }
}

/// What was added to a counter.
#[derive(Default)]
struct Counter {
    additions: Vec<(usize, i64)>,
    /// That may have happened, by the line of the invocation.
    possible: Sums,
    /// That were acknowledged, and of those the log's, by the line of the return.
    acknowledged: Sums,
    by_log: Sums,
    /// Acknowledged, by chain and place; and of those the local ones.
    own: BTreeMap<usize, Sums>,
    own_local: BTreeMap<usize, Sums>,
}

fn judge(operations: &[Operation], unnamed: Level) -> Result<(), Broken> {
    let known = Known::new(operations, unnamed)?;
    let mut counters: BTreeMap<&str, Counter> = BTreeMap::new();
    for (at, operation) in operations.iter().enumerate() {
        let counter = counters.entry(operation.micro_ops[0].key()).or_default();
        if let Some(amount) = amount(operation)? {
            counter.additions.push((at, amount));
        }
    }
    for counter in counters.values_mut() {
        counter.sum(&known);
    }
    let mut broken = None;
    known.order.walk(|at, own| {
        let operation = &operations[at];
        let value = match operation.micro_ops.last() {
            Some(MicroOp::Read { value: Value::Integer(value), .. }) => *value,
            Some(MicroOp::Read { .. }) => 0,
            _ => return,
        };
        if operation.outcome == Outcome::Ok && broken.is_none() {
            let counter = &counters[operation.micro_ops[0].key()];
            broken = counter.judge(&known, at, i128::from(value), own);
        }
    });
    broken.map_or(Ok(()), |violation| Err(violation.into()))
}

/// What an operation adds, if it may have. It is a read, an addition, or an addition and the sum it left.
fn amount(operation: &Operation) -> Result<Option<i64>, Broken> {
    let happened = operation.outcome == Outcome::Ok || operation.outcome.is_unknown();
    match operation.micro_ops.as_slice() {
        [MicroOp::Read { value: Value::Absent | Value::Integer(_), .. }] => Ok(None),
        [MicroOp::Add { amount, .. } | MicroOp::BoundedAdd { amount, .. }] => {
            Ok(happened.then_some(*amount))
        }
        [
            MicroOp::Add { key, amount } | MicroOp::BoundedAdd { key, amount, .. },
            MicroOp::Read { key: read, value: Value::Absent | Value::Integer(_) },
        ] if key == read => Ok(happened.then_some(*amount)),
        [MicroOp::Delete { .. }] if !happened => Ok(None),
        _ => Err(Doubt::of_type(operation).into()),
    }
}

impl Counter {
    fn sum(&mut self, known: &Known<'_>) {
        let mut returned = Vec::new();
        for &(at, amount) in &self.additions {
            let operation = &known.operations[at];
            self.possible.push(operation.invoke_line as u64, amount);
            let (Some(line), Some(place)) = (operation.return_line, known.order.places[at]) else {
                continue;
            };
            let log = known.levels[at].is_log();
            returned.push((line as u64, amount, log));
            self.own.entry(place.chain).or_default().push(place.at.into(), amount);
            if !log {
                self.own_local.entry(place.chain).or_default().push(place.at.into(), amount);
            }
        }
        returned.sort_unstable();
        for (line, amount, log) in returned {
            self.acknowledged.push(line, amount);
            if log {
                self.by_log.push(line, amount);
            }
        }
    }

    /// The sum of what a read certainly shows, beside its own addition.
    fn certain(&self, known: &Known<'_>, read: usize, own: &Clock) -> Sum {
        let operation = &known.operations[read];
        let began = operation.invoke_line as u64;
        if operation.extras.is_final {
            return self.acknowledged.below(began);
        }
        let (mut sum, own_sums) = match known.levels[read] {
            Level::Eventual => return Sum::default(),
            Level::Strict => (self.by_log.below(began), &self.own_local),
            Level::Sequential | Level::Causal => (Sum::default(), &self.own),
        };
        for (&chain, sums) in own_sums {
            let of_chain = sums.below(u64::from(own.of(chain)) + 1);
            sum = Sum { up: sum.up + of_chain.up, down: sum.down + of_chain.down };
        }
        sum
    }

    fn judge(&self, known: &Known<'_>, read: usize, value: i128, own: &Clock) -> Option<Violation> {
        let operation = &known.operations[read];
        let line = operation.return_line?;
        let of_itself = self.additions.binary_search_by_key(&read, |&(at, _)| at);
        let of_itself = of_itself.map_or(0, |at| self.additions[at].1.into());
        let certain = self.certain(known, read, own).plus(of_itself);
        let possible = self.possible.below(line as u64);
        let (low, high) = (certain.up + possible.down, certain.down + possible.up);
        if value < low || value > high {
            let why = format!(
                "line {line} read {value}, but what is certain adds up to {}, and what is possible beside it \
                 leaves {low} to {high}",
                certain.net()
            );
            return Some(self.violation(known, read, own, value > high, why));
        }
        if operation.extras.is_final {
            let open = |&&(at, _): &&(usize, i64)| {
                at != read && known.may_show(read, at) && known.shows(read, own, at).is_none()
            };
            let open: Vec<i64> =
                self.additions.iter().filter(open).map(|&(_, amount)| amount).collect();
            if !some_sum_is(&open, value - certain.net()) {
                let why = format!(
                    "line {line} read {value} at the end, but what was acknowledged adds up to {}, and none \
                     of the {} unknown additions, alone or together, make the difference",
                    certain.net(),
                    open.len()
                );
                return Some(self.violation(known, read, own, value > certain.net(), why));
            }
        }
        None
    }

    /// Shows the read, and some of what it should have had or what is all that it may have had.
    fn violation(
        &self,
        known: &Known<'_>,
        read: usize,
        own: &Clock,
        too_much: bool,
        why: String,
    ) -> Violation {
        let operation = &known.operations[read];
        let shown = |&&(at, amount): &&(usize, i64)| {
            let by: Option<By> = known.shows(read, own, at);
            known.may_show(read, at) && ((amount > 0) == too_much || by.is_some())
        };
        let additions = self.additions.iter().rev().filter(shown).take(ADDITIONS_SHOWN_MAX);
        let mut cited: Vec<&Operation> = additions.map(|&(at, _)| &known.operations[at]).collect();
        cited.insert(0, operation);
        let rule = match (operation.extras.is_final, too_much) {
            (true, false) => "a counter ends below its additions",
            (true, true) => "a counter ends above its additions",
            (false, false) => "a counter below what it certainly had",
            (false, true) => "a counter above what was ever added",
        };
        violation(rule, &cited, why)
    }
}

/// Whether some of the amounts add up to a sum. With too many different sums: whether it is in their bounds.
fn some_sum_is(amounts: &[i64], wanted: i128) -> bool {
    let mut sums = BTreeSet::from([0i128]);
    for &amount in amounts {
        let more: Vec<i128> = sums.iter().map(|sum| sum + i128::from(amount)).collect();
        sums.extend(more);
        if sums.len() > SUMS_MAX {
            return true;
        }
    }
    sums.contains(&wanted)
}

/// Additions that an explanation cites at most.
const ADDITIONS_SHOWN_MAX: usize = 5;

#[cfg(test)]
mod counter_test;
