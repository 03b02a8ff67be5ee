//! Sequential consistency, deliberately dumb: the definition, by trying every order.

use std::collections::BTreeMap;

use crate::history::{MicroOp, Operation, Outcome, Value, Version};

type Cell = (Option<i64>, Option<Version>);

/// Whether there is a legal order, whatever the versions say.
pub(super) fn some_order_exists(operations: &[Operation]) -> bool {
    extend(&operations.iter().collect::<Vec<_>>(), &State::default(), None)
}

/// Whether there is a legal order in which the versions of the writes rise, every reply carries the
/// version at its place, and each write of unknown outcome has one of the versions that replies carry,
/// or one that none does.
pub(super) fn some_order_has_the_versions(operations: &[Operation]) -> bool {
    let seen: Vec<Version> = operations.iter().filter_map(|op| op.extras.version.clone()).collect();
    extend(&operations.iter().collect::<Vec<_>>(), &State::default(), Some(&seen))
}

#[derive(Clone, Default)]
struct State {
    cells: BTreeMap<String, Cell>,
    last: Option<Version>,
}

fn is_before(a: &Operation, b: &Operation) -> bool {
    let by_session = a.process == b.process && a.invoke_line < b.invoke_line;
    let by_token = b.extras.token_from == Some(a.process)
        && a.return_line.is_some_and(|line| line < b.invoke_line);
    by_session || by_token
}

fn extend(left: &[&Operation], state: &State, versions: Option<&[Version]>) -> bool {
    if left.iter().all(|op| op.outcome.is_unknown()) {
        return true;
    }
    (0..left.len()).any(|at| {
        let mut rest = left.to_vec();
        let next = rest.remove(at);
        let free = !rest.iter().any(|other| is_before(other, next));
        free && outcomes(next, state, versions).iter().any(|after| extend(&rest, after, versions))
    })
}

/// The states after an operation; none if it is not legal here.
fn outcomes(op: &Operation, state: &State, versions: Option<&[Version]>) -> Vec<State> {
    let key = op.micro_ops[0].key();
    let (value, version) = state.cells.get(key).cloned().unwrap_or_default();
    let shown = op.extras.version.as_ref();
    let agrees = versions.is_none() || shown.is_none() || shown == version.as_ref();
    let same = |legal: bool| if legal { vec![state.clone()] } else { Vec::new() };
    let (legal, new) = match (&op.micro_ops[0], op.outcome) {
        (_, Outcome::Fail) => return same(true),
        (MicroOp::Read { .. }, Outcome::Info | Outcome::Pending) => return same(true),
        (MicroOp::Read { value: seen, .. }, _) => {
            let holds = value.map_or(Value::Absent, Value::Integer);
            return same(*seen == holds && agrees);
        }
        (MicroOp::CompareAndSet { from, .. }, Outcome::Mismatch) => {
            return same(*from != value && agrees);
        }
        (MicroOp::PutIfAbsent { .. }, Outcome::Mismatch) => return same(value.is_some() && agrees),
        (MicroOp::Write { value: new, .. }, _) => (true, Some(*new)),
        (MicroOp::Delete { .. }, _) => (true, None),
        (MicroOp::CompareAndSet { from, to, .. }, _) => (*from == value, Some(*to)),
        (MicroOp::PutIfAbsent { value: new, .. }, _) => (value.is_none(), Some(*new)),
        _ => panic!("no operation of a register"),
    };
    if !legal {
        return Vec::new();
    }
    // `None`: a version that no reply carries, which need not be told apart from others.
    let candidates: Vec<Option<Version>> = match versions {
        None => vec![None],
        Some(_) if !op.outcome.is_unknown() => vec![shown.cloned()],
        Some(seen) => seen.iter().cloned().map(Some).chain([None]).collect(),
    };
    let rises = |version: &Option<Version>| version.is_none() || *version > state.last;
    let after = |version: Option<Version>| {
        let mut after = state.clone();
        after.last = version.clone().or(after.last);
        after.cells.insert(key.to_owned(), (new, version));
        after
    };
    candidates.into_iter().filter(rises).map(after).collect()
}
