//! For tests: what a counter and a list do, clients of one that is right or has a fault, and every order tried.

use std::io;

use super::*;
use crate::Recorder;
use crate::history::{Extras, MicroOp, Outcome, Value};
use crate::numbers::Numbers;

/// What the key holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Held {
    Sum(i64),
    List(Vec<i64>),
}

/// What a store does wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Fault {
    /// Answers a read from the past.
    StaleRead,
    /// Acknowledges an update and forgets it.
    Lost,
    /// Does an update twice.
    Doubled,
    /// Puts an element before others.
    Reordered,
    /// Does an update that nobody asked for.
    Phantom,
    /// Adds though the bounds forbid it.
    OutOfBounds,
}

/// What a simulated run is like.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) clients: usize,
    pub(super) operations: usize,
    /// Before the first operation.
    pub(super) empty: Held,
    /// The operations to draw from; `+` between micro-operations.
    pub(super) mix: &'static [&'static str],
    /// What is added or appended is drawn from this many; `None`: each is larger than all before.
    pub(super) values: Option<usize>,
    /// How many in a hundred operations end unknown, and as many fail before they took effect.
    pub(super) trouble_percent: usize,
    /// The fault, after how many operations it may begin, in how many of a hundred cases, how often at most.
    pub(super) fault: Option<(Fault, usize, usize, usize)>,
}

pub(super) const COUNTER: &[&str] = &["r", "r", "add", "add", "badd", "add+r", "r+badd"];
pub(super) const ADDITIONS: &[&str] = &["r", "add"];
pub(super) const LIST: &[&str] = &["r", "r", "append", "append", "append+r", "append+append"];
pub(super) const APPENDS: &[&str] = &["r", "append"];

/// What a micro-operation finds, and the state after it; `None`: it is out of bounds.
fn perform(op: &MicroOp, held: &mut Held) -> Option<MicroOp> {
    let answer = match (op, held) {
        (MicroOp::Read { key, .. }, Held::Sum(sum)) => {
            MicroOp::Read { key: key.clone(), value: Value::Integer(*sum) }
        }
        (MicroOp::Read { key, .. }, Held::List(list)) => {
            MicroOp::Read { key: key.clone(), value: Value::List(list.clone()) }
        }
        (MicroOp::Add { amount, .. }, Held::Sum(sum)) => {
            *sum += amount;
            op.clone()
        }
        (MicroOp::BoundedAdd { amount, low, high, .. }, Held::Sum(sum)) => {
            *sum = Some(*sum + amount).filter(|after| (low..=high).contains(&after))?;
            op.clone()
        }
        (MicroOp::Append { value, .. }, Held::List(list)) => {
            list.push(*value);
            op.clone()
        }
        (op, held) => panic!("{held:?} has no {op}"),
    };
    Some(answer)
}

/// What an operation is answered; if it is out of bounds, nothing happened.
fn perform_all(ops: &[MicroOp], held: &mut Held) -> Option<Vec<MicroOp>> {
    let mut after = held.clone();
    let answers = ops.iter().map(|op| perform(op, &mut after)).collect::<Option<_>>()?;
    *held = after;
    Some(answers)
}

/// Tries every order that real time allows, with and without each unknown operation.
pub(super) fn some_order_is_legal(operations: &[Operation], empty: &Held) -> bool {
    fn extend(left: &[&Operation], held: &Held) -> bool {
        let Some(deadline) = left.iter().filter_map(|op| op.return_line).min() else { return true };
        left.iter().enumerate().any(|(at, op)| {
            let mut after = held.clone();
            let answers = perform_all(&op.micro_ops, &mut after);
            let legal = match op.outcome {
                Outcome::Ok => answers.as_ref() == Some(&op.micro_ops),
                Outcome::Mismatch => answers.is_none(),
                _ => true,
            };
            let mut rest = left.to_vec();
            rest.remove(at);
            op.invoke_line < deadline && legal && extend(&rest, &after)
        })
    }
    let counts: Vec<_> = operations.iter().filter(|op| op.outcome != Outcome::Fail).collect();
    extend(&counts, empty)
}

enum Client {
    Idle,
    Called(Vec<MicroOp>),
    /// Took effect: what to answer, `None` if it was out of bounds.
    Applied(Option<Vec<MicroOp>>),
}

/// A store and its concurrent clients: each operation takes effect at one moment between its call and its
/// return; an unknown one before or after its `info`, or never. Returns whether the fault occurred, too.
pub(super) fn simulate(seed: u64, shape: &Shape) -> (Vec<Operation>, bool) {
    let mut numbers = Numbers(seed);
    let recorder = Recorder::new(io::sink());
    let mut clients: Vec<_> =
        (0..shape.clients).map(|_| (recorder.process(), Client::Idle)).collect();
    let mut store = Store { held: shape.empty.clone(), past: Vec::new(), faults: 0 };
    let (mut invoked, mut time) = (0, 0);
    let mut late: Vec<Vec<MicroOp>> = Vec::new();
    while invoked < shape.operations || clients.iter().any(|(_, c)| !matches!(c, Client::Idle)) {
        time += 1;
        if !late.is_empty() && numbers.percent(10) {
            let ops = late.swap_remove(numbers.below(late.len()));
            perform_all(&ops, &mut store.held);
        }
        let chosen = numbers.below(shape.clients);
        let (process, client) = &mut clients[chosen];
        *client = match std::mem::replace(client, Client::Idle) {
            Client::Idle if invoked == shape.operations => Client::Idle,
            Client::Idle => {
                invoked += 1;
                let ops = draw(&mut numbers, shape, invoked as i64);
                recorder.invoke(*process, time, ops.clone(), Extras::default()).unwrap();
                Client::Called(ops)
            }
            Client::Called(ops) if numbers.percent(shape.trouble_percent) => {
                if numbers.percent(50) {
                    recorder.fail(*process, time, Extras::default()).unwrap();
                } else {
                    *process = recorder.info(*process, time, Extras::default()).unwrap();
                    late.push(ops);
                }
                Client::Idle
            }
            Client::Called(ops) => {
                Client::Applied(store.answer(&ops, shape, invoked, &mut numbers))
            }
            Client::Applied(answer) => {
                if numbers.percent(shape.trouble_percent / 2) {
                    *process = recorder.info(*process, time, Extras::default()).unwrap();
                } else if let Some(ops) = answer {
                    recorder.ok(*process, time, ops, Extras::default()).unwrap();
                } else {
                    recorder.mismatch(*process, time, Extras::default()).unwrap();
                }
                Client::Idle
            }
        };
    }
    (recorder.history().operations(), store.faults > 0)
}

fn draw(numbers: &mut Numbers, shape: &Shape, fresh: i64) -> Vec<MicroOp> {
    let mix = shape.mix[numbers.below(shape.mix.len())];
    let mut micro_op = |(at, name): (usize, &str)| {
        let key = "k".to_owned();
        let value =
            shape.values.map_or(2 * fresh + at as i64, |count| numbers.below(count) as i64 + 1);
        let amount = if shape.values.is_some() && numbers.percent(30) { -value } else { value };
        match name {
            "r" => MicroOp::Read { key, value: Value::Absent },
            "add" => MicroOp::Add { key, amount },
            "badd" => MicroOp::BoundedAdd { key, amount, low: 0, high: 5 },
            "append" => MicroOp::Append { key, value },
            other => panic!("{other}"),
        }
    };
    mix.split('+').enumerate().map(&mut micro_op).collect()
}

struct Store {
    held: Held,
    past: Vec<Held>,
    faults: usize,
}

impl Store {
    fn answer(
        &mut self,
        ops: &[MicroOp],
        shape: &Shape,
        invoked: usize,
        numbers: &mut Numbers,
    ) -> Option<Vec<MicroOp>> {
        let faulty = shape.fault.filter(|&(_, from, percent, most)| {
            invoked >= from && self.faults < most && numbers.percent(percent)
        });
        let before = self.held.clone();
        self.past.push(before.clone());
        let mut answer = perform_all(ops, &mut self.held);
        let changed = self.held != before;
        let is_fault = match (faulty.map(|(fault, ..)| fault), &mut self.held) {
            (Some(Fault::StaleRead), held) if !changed && self.past[0] != *held => {
                let past = &mut self.past[numbers.below(self.past.len().div_ceil(2))].clone();
                answer = perform_all(ops, past);
                true
            }
            (Some(Fault::Lost), held) if changed => {
                *held = before;
                true
            }
            (Some(Fault::Doubled), held) if changed => perform_all(ops, held).is_some(),
            (Some(Fault::Reordered), Held::List(list)) if changed && list.len() > 1 => {
                let last = list.pop().unwrap();
                list.insert(numbers.below(list.len().div_ceil(2)), last);
                true
            }
            (Some(Fault::Phantom), Held::List(list)) => {
                list.push(-7);
                true
            }
            (Some(Fault::Phantom), Held::Sum(sum)) => {
                *sum += 1;
                true
            }
            (Some(Fault::OutOfBounds), Held::Sum(sum)) if answer.is_none() => {
                let bounded = |op: &MicroOp| match op {
                    MicroOp::BoundedAdd { amount, .. } => *amount,
                    _ => 0,
                };
                let unbounded = ops.iter().map(|op| perform(op, &mut Held::Sum(*sum)));
                answer =
                    Some(unbounded.zip(ops).map(|(done, op)| done.unwrap_or(op.clone())).collect());
                *sum += ops.iter().map(bounded).sum::<i64>();
                true
            }
            _ => false,
        };
        self.faults += usize::from(is_fault);
        answer
    }
}

/// Changes what some operation saw or what became of it.
pub(super) fn corrupt(operations: &mut [Operation], numbers: &mut Numbers) {
    let operation = &mut operations[numbers.below(operations.len())];
    let (invoke_line, outcome) = (operation.invoke_line, operation.outcome);
    let at = numbers.below(operation.micro_ops.len());
    let reads = operation.micro_ops.iter().any(|op| matches!(op, MicroOp::Read { .. }));
    match (&mut operation.micro_ops[at], outcome) {
        (MicroOp::Read { value: Value::Integer(sum), .. }, Outcome::Ok) => {
            *sum += numbers.below(5) as i64 - 2;
        }
        (MicroOp::Read { value: Value::List(list), .. }, Outcome::Ok) => {
            let place = numbers.below(list.len() + 1);
            match numbers.below(3) {
                0 => list.insert(place, numbers.below(6) as i64 + 1),
                1 if place > 1 => list.swap(place - 2, place - 1),
                _ => drop(list.pop()),
            }
        }
        (_, Outcome::Ok) if numbers.percent(50) => operation.outcome = Outcome::Fail,
        (MicroOp::BoundedAdd { .. }, Outcome::Ok) => operation.outcome = Outcome::Mismatch,
        (_, Outcome::Ok) => operation.return_line = Some(invoke_line + 1),
        // Nobody knows what it would have read.
        _ if reads => {}
        (_, Outcome::Fail | Outcome::Mismatch) => operation.outcome = Outcome::Ok,
        (_, Outcome::Info | Outcome::Pending) => {
            operation.outcome = Outcome::Ok;
            operation.return_line = Some(invoke_line + 1);
        }
    }
}
