//! The anomalies, and which judges reject each.

use latitude_checker::history::{MicroOp, Value};

/// How an operation of an anomaly ends.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum End {
    Ok,
    Unknown,
    /// Acknowledged, and a final read of this node.
    Final(&'static str),
}

/// One operation of an anomaly: who, what, and how it ends.
pub(crate) type Step = (u64, MicroOp, End);

use End::{Final, Ok, Unknown};

pub(crate) fn write(key: &str, value: i64) -> MicroOp {
    MicroOp::Write { key: key.to_owned(), value }
}

pub(crate) fn read(key: &str, value: i64) -> MicroOp {
    MicroOp::Read { key: key.to_owned(), value: Value::Integer(value) }
}

pub(crate) fn absent(key: &str) -> MicroOp {
    MicroOp::Read { key: key.to_owned(), value: Value::Absent }
}

pub(crate) fn list(key: &str, list: &[i64]) -> MicroOp {
    MicroOp::Read { key: key.to_owned(), value: Value::List(list.to_vec()) }
}

pub(crate) fn add(key: &str, amount: i64) -> MicroOp {
    MicroOp::Add { key: key.to_owned(), amount }
}

pub(crate) fn append(key: &str, value: i64) -> MicroOp {
    MicroOp::Append { key: key.to_owned(), value }
}

pub(crate) fn remove(key: &str, element: i64) -> MicroOp {
    MicroOp::Remove { key: key.to_owned(), element }
}

/// What the run beside an anomaly is made of.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Type {
    Register,
    Counter,
    Set,
    List,
}

/// An anomaly.
pub(crate) struct Planted {
    pub(crate) name: &'static str,
    pub(crate) of: Type,
    pub(crate) steps: Vec<Step>,
    pub(crate) rejected_by: &'static [&'static str],
}

/// Every anomaly. Values from 1,000 on are its own.
pub(crate) fn anomalies() -> Vec<Planted> {
    let register =
        |name, steps, rejected_by| Planted { name, of: Type::Register, steps, rejected_by };
    let counter =
        |name, steps, rejected_by| Planted { name, of: Type::Counter, steps, rejected_by };
    let set = |name, steps, rejected_by| Planted { name, of: Type::Set, steps, rejected_by };
    let of_list = |name, steps, rejected_by| Planted { name, of: Type::List, steps, rejected_by };
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
            &["strict", "counter"],
        ),
        counter(
            "stale read: of a session that had not seen the newer addition",
            vec![(0, add("x", 5), Ok), (0, add("x", 2), Ok), (1, read("x", 5), Ok)],
            &["strict"],
        ),
        counter(
            "stale read: of a session that had seen the newer addition",
            vec![
                (0, add("x", 5), Ok),
                (0, add("x", 2), Unknown),
                (1, read("x", 7), Ok),
                (1, read("x", 5), Ok),
            ],
            &["strict"],
        ),
        counter(
            "lost write: an addition is missing at the end",
            vec![(0, add("x", 5), Ok), (1, add("x", 2), Ok), (2, read("x", 5), Final("n1"))],
            &["strict", "counter"],
        ),
        counter(
            "duplicate: an unknown addition counts twice",
            vec![(0, add("x", 5), Ok), (1, add("x", 2), Unknown), (2, read("x", 9), Ok)],
            &["strict", "counter"],
        ),
        counter(
            "duplicate: seen at the end only, within the bounds",
            vec![
                (0, add("x", 3), Unknown),
                (1, add("x", 3), Unknown),
                (2, add("x", 10), Unknown),
                (3, read("x", 12), Final("n1")),
            ],
            &["strict", "counter"],
        ),
        counter(
            "effect without cause: more than was added",
            vec![(0, read("x", 1), Ok), (1, add("x", 1), Ok)],
            &["strict", "counter"],
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
        of_list("none", vec![(0, append("x", 5), Ok), (1, list("x", &[5]), Ok)], &[]),
        of_list(
            "stale read: of a session that had not seen the newer element",
            vec![(0, append("x", 5), Ok), (0, append("x", 6), Ok), (1, list("x", &[5]), Ok)],
            &["strict"],
        ),
        of_list(
            "lost write: nobody sees an element, not even at the end",
            vec![
                (0, append("x", 5), Ok),
                (1, append("x", 6), Ok),
                (2, list("x", &[6]), Final("n1")),
                (3, list("x", &[6]), Final("n2")),
            ],
            &["strict"],
        ),
        of_list(
            "reordered: a later element before an earlier one",
            vec![(0, append("x", 5), Ok), (1, append("x", 6), Ok), (2, list("x", &[6, 5]), Ok)],
            &["strict"],
        ),
        of_list(
            "two observers see two unknown appends in opposite orders",
            vec![
                (0, append("x", 5), Unknown),
                (1, append("x", 6), Unknown),
                (2, list("x", &[5, 6]), Ok),
                (3, list("x", &[6, 5]), Ok),
            ],
            &["strict"],
        ),
        of_list(
            "duplicate: an unknown append takes effect twice",
            vec![
                (0, append("x", 5), Unknown),
                (1, append("x", 6), Ok),
                (2, list("x", &[5, 6, 5]), Ok),
            ],
            &["strict"],
        ),
        of_list(
            "effect without cause: an element nobody appended",
            vec![(0, append("x", 5), Ok), (1, list("x", &[5, 6]), Ok)],
            &["strict"],
        ),
        of_list(
            "effect without cause: an element before its append",
            vec![(0, list("x", &[5]), Ok), (1, append("x", 5), Ok)],
            &["strict"],
        ),
    ]
}
