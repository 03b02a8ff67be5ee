//! Bad histories from a seed: a right run with one anomaly planted in it, and which judges reject it.
//!
//! ```text
//!   right run      w a 1   r a 1   w b 2   r b 2   w a 3  ...  r a 3 (final)   r b 2 (final)
//!   planted           w x 7     w y 8    r y 8         r x null                at random places
//! ```
//!
//! The run is of a store in one place, one operation after the other, so every judge accepts it. What each makes
//! of an anomaly is part of what its level promises: the table says it for all of them.

use std::collections::BTreeMap;
use std::io;

use latitude_checker::history::{Extras, MicroOp, Operation, Outcome, Value};
use latitude_checker::{Level, Recorder, promise};
use latitude_checker::{
    causal, convergence, counter, durability, linearizable, sequential, sessions, set,
};

/// How an operation of an anomaly ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Ok,
    Unknown,
    /// Acknowledged, and a final read of this node.
    Final(&'static str),
}

/// One operation of an anomaly: who, what, and how it ends.
type Step = (u64, MicroOp, End);

use End::{Final, Ok, Unknown};

fn write(key: &str, value: i64) -> MicroOp {
    MicroOp::Write { key: key.to_owned(), value }
}

fn read(key: &str, value: i64) -> MicroOp {
    MicroOp::Read { key: key.to_owned(), value: Value::Integer(value) }
}

fn absent(key: &str) -> MicroOp {
    MicroOp::Read { key: key.to_owned(), value: Value::Absent }
}

fn list(key: &str, list: &[i64]) -> MicroOp {
    MicroOp::Read { key: key.to_owned(), value: Value::List(list.to_vec()) }
}

fn add(key: &str, amount: i64) -> MicroOp {
    MicroOp::Add { key: key.to_owned(), amount }
}

fn remove(key: &str, element: i64) -> MicroOp {
    MicroOp::Remove { key: key.to_owned(), element }
}

/// What the run beside an anomaly is made of.
#[derive(Clone, Copy, PartialEq)]
enum Type {
    Register,
    Counter,
    Set,
}

/// An anomaly.
struct Planted {
    name: &'static str,
    of: Type,
    steps: Vec<Step>,
    rejected_by: &'static [&'static str],
}

/// Every anomaly. Values from 1,000 on are its own.
fn anomalies() -> Vec<Planted> {
    let register =
        |name, steps, rejected_by| Planted { name, of: Type::Register, steps, rejected_by };
    let counter =
        |name, steps, rejected_by| Planted { name, of: Type::Counter, steps, rejected_by };
    let set = |name, steps, rejected_by| Planted { name, of: Type::Set, steps, rejected_by };
    vec![
        register("none", vec![(0, write("x", 1_000), Ok), (1, read("x", 1_000), Ok)], &[]),
        register(
            "stale read: of a session that had not seen the newer write",
            vec![(0, write("x", 1_000), Ok), (0, write("x", 1_001), Ok), (1, read("x", 1_000), Ok)],
            &["strict"],
        ),
        register(
            "stale read: of a session that had seen the newer write",
            vec![
                (0, write("x", 1_000), Ok),
                (0, write("x", 1_001), Ok),
                (1, read("x", 1_001), Ok),
                (1, read("x", 1_000), Ok),
            ],
            &["strict", "sequential", "causal", "sessions"],
        ),
        register(
            "stale read: of a session's own write",
            vec![(0, write("x", 1_000), Ok), (0, write("x", 1_001), Ok), (0, read("x", 1_000), Ok)],
            &["strict", "sequential", "causal", "sessions"],
        ),
        register(
            "lost write: nobody sees it, not even at the end",
            vec![
                (0, write("x", 1_000), Ok),
                (1, write("x", 1_001), Ok),
                (2, read("x", 1_000), Final("n1")),
                (3, read("x", 1_000), Final("n2")),
            ],
            &["strict", "durability"],
        ),
        register(
            "lost write: one node lacks it at the end",
            vec![
                (0, write("x", 1_000), Ok),
                (2, read("x", 1_000), Final("n1")),
                (3, absent("x"), Final("n2")),
            ],
            &["strict", "durability", "convergence"],
        ),
        register(
            "duplicate: an unknown write takes effect again after it was replaced",
            vec![
                (0, write("x", 1_000), Unknown),
                (1, read("x", 1_000), Ok),
                (1, write("x", 1_001), Ok),
                (2, read("x", 1_001), Ok),
                (2, read("x", 1_000), Ok),
            ],
            &["strict", "sequential", "causal"],
        ),
        register(
            "long fork: two observers see two writes in opposite orders",
            vec![
                (0, write("x", 1_000), Ok),
                (1, write("y", 1_001), Ok),
                (2, read("x", 1_000), Ok),
                (3, read("y", 1_001), Ok),
                (2, absent("y"), Ok),
                (3, absent("x"), Ok),
            ],
            &["strict", "sequential"],
        ),
        register(
            "two observers see two writes of one key in opposite orders",
            vec![
                (0, write("x", 1_000), Ok),
                (1, write("x", 1_001), Ok),
                (2, read("x", 1_000), Ok),
                (3, read("x", 1_001), Ok),
                (2, read("x", 1_001), Ok),
                (3, read("x", 1_000), Ok),
            ],
            &["strict", "sequential", "causal"],
        ),
        register(
            "effect without cause: message passing",
            vec![
                (0, write("x", 1_000), Ok),
                (0, write("y", 1_001), Ok),
                (1, read("y", 1_001), Ok),
                (1, absent("x"), Ok),
            ],
            &["strict", "sequential", "causal", "sessions"],
        ),
        register(
            "effect without cause: over one session",
            vec![
                (0, write("x", 1_000), Ok),
                (1, read("x", 1_000), Ok),
                (1, write("y", 1_001), Ok),
                (2, read("y", 1_001), Ok),
                (2, absent("x"), Ok),
            ],
            &["strict", "sequential", "causal", "sessions"],
        ),
        register(
            "effect without cause: over two sessions, further than the guarantees look",
            vec![
                (0, write("x", 1_000), Ok),
                (1, read("x", 1_000), Ok),
                (1, write("y", 1_001), Ok),
                (2, read("y", 1_001), Ok),
                (2, write("z", 1_002), Ok),
                (3, read("z", 1_002), Ok),
                (3, absent("x"), Ok),
            ],
            &["strict", "sequential", "causal"],
        ),
        register(
            "effect without cause: a value nobody wrote",
            vec![(0, write("x", 1_000), Ok), (1, read("x", 1_009), Ok)],
            &["strict", "sequential", "causal"],
        ),
        counter("none", vec![(0, add("x", 5), Ok), (0, read("x", 5), Ok)], &[]),
        counter(
            "stale read: of a session's own addition",
            vec![(0, add("x", 5), Ok), (0, add("x", 2), Ok), (0, read("x", 5), Ok)],
            &["counter"],
        ),
        counter(
            "lost write: an addition is missing at the end",
            vec![(0, add("x", 5), Ok), (1, add("x", 2), Ok), (2, read("x", 5), Final("n1"))],
            &["counter"],
        ),
        counter(
            "duplicate: an unknown addition counts twice",
            vec![(0, add("x", 5), Ok), (1, add("x", 2), Unknown), (2, read("x", 9), Ok)],
            &["counter"],
        ),
        counter(
            "duplicate: seen at the end only, within the bounds",
            vec![
                (0, add("x", 3), Unknown),
                (1, add("x", 3), Unknown),
                (2, add("x", 10), Unknown),
                (3, read("x", 12), Final("n1")),
            ],
            &["counter"],
        ),
        counter(
            "effect without cause: more than was added",
            vec![(0, read("x", 1), Ok), (1, add("x", 1), Ok)],
            &["counter"],
        ),
        set("none", vec![(0, add("x", 5), Ok), (1, list("x", &[5]), Ok)], &[]),
        set(
            "stale read: of a session's own element",
            vec![(0, add("x", 5), Ok), (0, list("x", &[]), Ok)],
            &["set"],
        ),
        set(
            "lost write: an element is missing at the end",
            vec![(0, add("x", 5), Ok), (1, add("x", 6), Ok), (2, list("x", &[6]), Final("n1"))],
            &["set"],
        ),
        set(
            "lost write: a removed element is back at the end",
            vec![(0, add("x", 5), Ok), (0, remove("x", 5), Ok), (2, list("x", &[5]), Final("n1"))],
            &["set"],
        ),
        set(
            "duplicate: an element twice",
            vec![(0, add("x", 5), Ok), (1, list("x", &[5, 5]), Ok)],
            &["set"],
        ),
        set(
            "effect without cause: an element nobody added",
            vec![(0, add("x", 5), Ok), (1, list("x", &[5, 6]), Ok)],
            &["set"],
        ),
    ]
}

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
    match of {
        Type::Register => {
            let strict =
                linearizable::check_operations(operations, linearizable::Budget::default());
            note("strict", strict.verdict != linearizable::Verdict::Linearizable);
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
