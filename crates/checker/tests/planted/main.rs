//! Bad histories from a seed: a right run with one anomaly planted in it, and which judges reject it.
//!
//! ```text
//!   right run      w a 1   r a 1   w b 2   r b 2   w a 3  ...  r a 3 (final)   r b 2 (final)
//!   planted           w x 7     w y 8    r y 8         r x null                at random places
//! ```
//!
//! The run is of a store in one place, one operation after the other, so every judge accepts it. What each makes
//! of an anomaly is part of what its level promises: the table says it for all of them.

mod anomalies;

use std::collections::BTreeMap;
use std::io;

use latitude_checker::history::{Extras, MicroOp, Operation, Outcome, Value};
use latitude_checker::{Level, Recorder, promise};
use latitude_checker::{
    causal, convergence, counter, durability, linearizable, sequential, sessions, set,
};

use anomalies::End::{Final, Ok, Unknown};
use anomalies::{End, Planted, Step, Type, absent, anomalies, append, remove, write};

/// A stream of numbers from a seed (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// A store in one place.
#[derive(Default)]
struct Store {
    registers: BTreeMap<String, Value>,
}

impl Store {
    fn perform(&mut self, op: MicroOp) -> MicroOp {
        let held = self.registers.entry(op.key().to_owned()).or_insert(Value::Absent);
        match op {
            MicroOp::Read { key, .. } => MicroOp::Read { key, value: held.clone() },
            MicroOp::Write { key, value } => {
                *held = Value::Integer(value);
                MicroOp::Write { key, value }
            }
            MicroOp::Append { key, value } => {
                let list = if let Value::List(list) = &*held { list.as_slice() } else { &[] };
                *held = Value::List([list, &[value]].concat());
                MicroOp::Append { key, value }
            }
            MicroOp::Remove { key, element } => {
                if let Value::List(list) = held {
                    list.retain(|other| *other != element);
                }
                MicroOp::Remove { key, element }
            }
            other => other,
        }
    }

    fn add(&mut self, key: String, amount: i64, of: Type) -> MicroOp {
        let held = self.registers.entry(key.clone()).or_insert(Value::Absent);
        *held = match (of, held.clone()) {
            (Type::Set, Value::List(list)) => {
                Value::List(list.into_iter().chain([amount]).collect())
            }
            (Type::Set, _) => Value::List(vec![amount]),
            (_, Value::Integer(sum)) => Value::Integer(sum + amount),
            _ => Value::Integer(amount),
        };
        MicroOp::Add { key, amount }
    }
}

const VALID: &str = "one operation after the other is a history";

/// A right run with an anomaly in it.
fn plant(seed: u64, anomaly: &Planted) -> Vec<Operation> {
    let mut numbers = Numbers(seed);
    let recorder = Recorder::new(io::sink());
    let record = |process: u64, op: MicroOp, end: End| {
        let asked = match &op {
            MicroOp::Read { key, .. } => absent(key),
            other => other.clone(),
        };
        let node = if let Final(node) = end { Some(node.to_owned()) } else { None };
        let extras = Extras { is_final: node.is_some(), node, ..Extras::default() };
        recorder.invoke(process, 0, vec![asked], Extras::default()).expect(VALID);
        match end {
            Unknown => drop(recorder.info(process, 0, extras).expect(VALID)),
            Ok | Final(_) => drop(recorder.ok(process, 0, vec![op], extras).expect(VALID)),
        }
    };
    let mut store = Store::default();
    let (sessions, noise) = (1 + numbers.below(3), 4 + numbers.below(14));
    let is_final = |step: &&Step| matches!(step.2, Final(_));
    let (mut ends, mut steps): (Vec<&Step>, Vec<&Step>) = anomaly.steps.iter().partition(is_final);
    steps.reverse();
    let mut value = 0;
    for left in (0..noise).rev() {
        while numbers.below(left + 1) < 1 + steps.len() / 2
            && let Some((process, op, end)) = steps.pop()
        {
            record(*process, op.clone(), *end);
        }
        let process = 100 + numbers.below(sessions) as u64;
        let key = ["a", "b"][numbers.below(2)].to_owned();
        value += 1;
        let done = match (numbers.below(3), anomaly.of) {
            (0, _) => store.perform(absent(&key)),
            (_, Type::Register) => store.perform(write(&key, value)),
            (_, Type::List) => store.perform(append(&key, value)),
            (1, Type::Set) => store.perform(remove(&key, value - 1)),
            (_, of) => store.add(key, value, of),
        };
        record(process, done, Ok);
    }
    for (process, op, end) in steps.into_iter().rev() {
        record(*process, op.clone(), *end);
    }
    // At the end every node reads every key that was used; of the anomaly's, what it says or the last value.
    for (at, node) in ["n1", "n2"].into_iter().enumerate() {
        let process = 200 + at as u64;
        for key in ["a", "b"] {
            let op = store.perform(absent(key));
            record(process, op, Final(node));
        }
    }
    if ends.is_empty() {
        for (at, node) in ["n1", "n2"].into_iter().enumerate() {
            let mut last = Store::default();
            let mut keys = Vec::new();
            for (_, op, _) in &anomaly.steps {
                match op.clone() {
                    MicroOp::Add { key, amount } => drop(last.add(key, amount, anomaly.of)),
                    op => drop(last.perform(op)),
                }
                keys.push(op.key());
            }
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let op = last.perform(absent(key));
                record(202 + at as u64, op, Final(node));
            }
        }
    }
    for (process, op, end) in ends.drain(..) {
        record(*process, op.clone(), *end);
    }
    recorder.history().operations()
}

fn is_broken(report: &promise::Report) -> bool {
    match &report.verdict {
        promise::Verdict::Kept => false,
        promise::Verdict::Violation(_) => true,
        promise::Verdict::Unknown(doubt) => panic!("{doubt}"),
    }
}

/// The judges that reject a history.
fn rejecting(operations: &[Operation], of: Type) -> Vec<&'static str> {
    let mut rejecting = Vec::new();
    let mut note = |name, rejects: bool| {
        if rejects {
            rejecting.push(name);
        }
    };
    // A set is no object that is judged so.
    if of != Type::Set {
        let budget = linearizable::Budget::default();
        let verdict = linearizable::check_operations(operations, budget).verdict;
        assert!(!matches!(verdict, linearizable::Verdict::Unknown { .. }), "{verdict}");
        note("strict", verdict != linearizable::Verdict::Linearizable);
    }
    match of {
        Type::Register => {
            let order = sequential::check_operations(operations, sequential::Budget::default());
            note("sequential", order.verdict != sequential::Verdict::Sequential);
            let causes = causal::check_operations(operations, causal::Budget::default());
            note("causal", causes.verdict != causal::Verdict::Causal);
            note("sessions", is_broken(&sessions::check_operations(operations, Level::Causal)));
            note("durability", is_broken(&durability::check_operations(operations, Level::Strict)));
            note("convergence", is_broken(&convergence::check_operations(operations)));
        }
        // Of a session in which nothing names a level, as of one at level causal.
        Type::Counter => {
            note("counter", is_broken(&counter::check_operations(operations, Level::Causal)))
        }
        Type::Set => note("set", is_broken(&set::check_operations(operations, Level::Causal))),
        Type::List => {}
    }
    rejecting
}

#[test]
fn each_anomaly_is_rejected_by_the_judges_whose_level_forbids_it_and_by_no_other() {
    let mut wrong = Vec::new();
    for anomaly in anomalies() {
        for seed in 0..100 {
            let rejected_by = rejecting(&plant(seed, &anomaly), anomaly.of);
            if rejected_by != anomaly.rejected_by {
                wrong.push(format!("{}, seed {seed}: {rejected_by:?}", anomaly.name));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_judge_rejects_something_and_the_runs_are_different() {
    let anomalies = anomalies();
    for judge in [
        "strict",
        "sequential",
        "causal",
        "sessions",
        "durability",
        "convergence",
        "counter",
        "set",
    ] {
        assert!(anomalies.iter().any(|anomaly| anomaly.rejected_by.contains(&judge)), "{judge}");
    }
    let one = &anomalies[1];
    let lengths: Vec<usize> = (0..20).map(|seed| plant(seed, one).len()).collect();
    assert!(lengths.iter().min() < lengths.iter().max(), "{lengths:?}");
    let ok = |op: &Operation| op.outcome == Outcome::Ok;
    assert!(plant(0, one).iter().all(ok));
}
