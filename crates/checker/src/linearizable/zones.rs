//! Registers whose values are written once, in O(n log n).
//!
//! A value written once is current once, without a gap. So the steps that write or find it, its
//! cluster, stand together in every legal order, and clusters as wholes are ordered:
//!
//! ```text
//!   f = least return of the cluster, s = greatest call
//!
//!   write 1 ├──┤f                      f < s: the forward zone [f, s]; throughout it the value is
//!    read 1        s├───┤              certainly current
//!   write 2 s├──────────┤f             f > s: the backward zone [s, f]; the value may have been
//!    read 2   s├────┤                  current for a moment in it
//! ```
//!
//! Cluster A precedes B if some step of A returned before some step of B was called: `f(A) < s(B)`. It
//! is a contradiction if they precede each other, which two backward zones never do:
//! - two forward zones that overlap,
//! - a backward zone inside a forward zone,
//!
//! and within a cluster, a step that returned before its write was called. If all steps are reads and
//! writes and every value is written once, nothing else can be wrong (Gibbons and Korach). If others
//! are among them, what is found here is still a violation, but what is not found may be.
//!
//! A step that found a value and left another belongs to both clusters. The initial null is a
//! virtual write at line 0.

use std::collections::HashMap;

use super::object::{NEVER, Step};
use super::register::{Action, Register, State, show};
use crate::Violation;
use crate::history::Operation;

/// Whether [`judge`] finds every violation of this register that the thin-air check leaves.
pub(super) fn is_complete(register: &Register<'_>) -> bool {
    let plain = |action| matches!(action, Action::Read(_) | Action::Write(Some(_)));
    register.steps.iter().all(|step| plain(step.action))
        && register.writers().values().all(|writers| writers.len() <= 1)
}

/// The steps that write or find one value.
#[derive(Debug)]
struct Cluster {
    state: State,
    /// The step that wrote it; `None` is the virtual first write.
    writer: Option<usize>,
    /// The least return and its step.
    f: (usize, Option<usize>),
    /// The greatest call and its step.
    s: (usize, Option<usize>),
}

/// Finds values that cannot be ordered.
pub(super) fn judge(register: &Register<'_>) -> Option<Violation> {
    let mut clusters = match clusters(register) {
        Ok(clusters) => clusters,
        Err(violation) => return Some(violation),
    };
    clusters.sort_unstable_by_key(|cluster| (cluster.f, cluster.s));
    let (forward, backward): (Vec<_>, Vec<_>) =
        clusters.iter().partition(|cluster| cluster.f.0 < cluster.s.0);

    // Sorted by f, two zones overlap only if two neighbours do.
    if let Some(pair) = forward.windows(2).find(|pair| pair[1].f.0 < pair[0].s.0) {
        return Some(contradiction(register, pair[0], pair[1]));
    }
    // So the forward zones are disjoint, and only the last to begin before s can enclose [s, f].
    backward.into_iter().find_map(|inner| {
        let after = forward.partition_point(|outer| outer.f.0 < inner.s.0);
        let outer = forward[..after].last()?;
        (inner.f.0 < outer.s.0).then(|| contradiction(register, outer, inner))
    })
}

/// The clusters of the values that are written once, unless one is already wrong by itself.
fn clusters(register: &Register<'_>) -> Result<Vec<Cluster>, Violation> {
    let steps = &register.steps;
    let mut clusters: HashMap<State, Cluster> = HashMap::new();
    for (state, writers) in register.writers() {
        let cluster = match (state, writers.as_slice()) {
            (None, []) => Cluster { state, writer: None, f: (0, None), s: (0, None) },
            (Some(_), &[writer]) => {
                let (f, s) =
                    ((steps[writer].ret, Some(writer)), (steps[writer].call, Some(writer)));
                Cluster { state, writer: Some(writer), f, s }
            }
            _ => continue,
        };
        clusters.insert(state, cluster);
    }
    let mut swaps: HashMap<State, usize> = HashMap::new();
    for (at, step) in steps.iter().enumerate() {
        // An unknown swap may never have found anything.
        let Some(state) = step.action.finds().filter(|_| step.is_certain()) else { continue };
        let Some(cluster) = clusters.get_mut(&state) else { continue };
        if let Some(writer) = cluster.writer
            && step.ret < steps[writer].call
        {
            return Err(from_the_future(register, at, writer));
        }
        if matches!(step.action, Action::Swap(..))
            && let Some(first) = swaps.insert(state, at)
        {
            return Err(swapped_twice(register, state, first, at));
        }
        cluster.f = cluster.f.min((step.ret, Some(at)));
        cluster.s = cluster.s.max((step.call, Some(at)));
    }
    // A value of an unknown write that nobody certainly found may never have been there.
    Ok(clusters.into_values().filter(|cluster| cluster.f.0 != NEVER).collect())
}

fn from_the_future(register: &Register<'_>, finder: usize, writer: usize) -> Violation {
    let (finder, writer) = (&register.steps[finder], &register.steps[writer]);
    Violation {
        key: register.key.to_owned(),
        rule: "a value was seen before its write",
        operations: register.cite(&[finder.source, writer.source]),
        why: format!(
            "line {}: {} was there, but its only write was invoked later, on line {}",
            finder.ret,
            show(finder.action.finds().flatten()),
            writer.call
        ),
    }
}

fn swapped_twice(register: &Register<'_>, state: State, first: usize, second: usize) -> Violation {
    let (first, second) = (&register.steps[first], &register.steps[second]);
    let mut sources = vec![first.source, second.source];
    let writer = register.steps.iter().find(|step| step.action.leaves() == Some(state));
    sources.extend(writer.map(|step| step.source));
    let value = show(state);
    Violation {
        key: register.key.to_owned(),
        rule: "two conditional writes replaced the same value",
        operations: register.cite(&sources),
        why: format!(
            "{value} was there once, so only one of the conditional writes of lines {} and {} can have \
             found it and replaced it",
            first.call, second.call
        ),
    }
}

/// `one` and `other` precede each other.
fn contradiction(register: &Register<'_>, one: &Cluster, other: &Cluster) -> Violation {
    // The initial value is always the older; else the step that was called last is the one that saw
    // what it should not have.
    let age = |cluster: &Cluster| (cluster.writer.is_none(), cluster.s);
    let (old, new) = if age(one) > age(other) { (one, other) } else { (other, one) };
    let step = |at: Option<usize>| at.map(|at| &register.steps[at]);
    let (old_first, old_last) = (step(old.f.1), step(old.s.1));
    let (new_first, new_last) = (step(new.f.1), step(new.s.1));
    let (old_value, new_value) = (show(old.state), show(new.state));

    let acknowledged = new.f.1 == new.writer;
    let is_final = old_last.is_some_and(|step| step.source.extras.is_final);
    let rule = match old_last.map(|step| step.action) {
        Some(Action::Swap(..)) if acknowledged => {
            "a conditional write replaced a value no longer there"
        }
        _ if acknowledged && is_final => "an acknowledged write is missing at the final read",
        _ if acknowledged => "stale read after an acknowledged write",
        _ => "reads went back from a newer value to an older",
    };
    let older = match old_first {
        Some(first) => format!(
            "{old_value} is older than {new_value}: {} before line {} was invoked",
            shown(first, old.state),
            new.s.0
        ),
        None => format!("{old_value} is the initial value and older than {new_value}"),
    };
    let newer = new_first.expect("only the initial value has a virtual write, and it is the older");
    let why = format!(
        "{older}; but {} before line {} was invoked, which found {old_value}",
        shown(newer, new.state),
        old.s.0
    );
    let cited = [old_first, old_last, new_first, new_last];
    let sources: Vec<&Operation> = cited.iter().flatten().map(|step| step.source).collect();
    Violation { key: register.key.to_owned(), rule, operations: register.cite(&sources), why }
}

/// How the return of a step showed that its cluster's value had been current.
fn shown(step: &Step<'_, Action>, state: State) -> String {
    let verb = match step.action {
        Action::Read(_) => "returned",
        action if action.leaves() == Some(state) => "acknowledged",
        _ => "replaced",
    };
    format!("line {} {verb} {}", step.ret, show(state))
}
