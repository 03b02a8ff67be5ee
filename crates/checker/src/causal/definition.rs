//! Causal convergence, deliberately dumb: the definition, by trying every source of an absent key, and
//! by putting the writes in an order one by one.

use crate::history::{MicroOp, Operation, Outcome, Value};

/// What the definition needs to know of an operation.
struct Event<'a> {
    source: &'a Operation,
    log: bool,
    eventual: bool,
    finds: Option<Option<i64>>,
    leaves: Option<Option<i64>>,
}

/// Whether there is an order of the writes that explains every read.
pub(super) fn some_order_exists(operations: &[Operation]) -> bool {
    let events: Vec<Event<'_>> = operations.iter().map(event).collect();
    // Even a read that promises nothing finds only what was written.
    let thin = |event: &Event<'_>| {
        event.source.outcome == Outcome::Ok
            && matches!(event.finds, Some(Some(_)))
            && sources(&events, event).is_empty()
    };
    if events.iter().any(thin) {
        return false;
    }
    choose(&events, &mut vec![None; events.len()], 0)
}

fn event(source: &Operation) -> Event<'_> {
    let level = source.extras.level.as_deref().unwrap_or("causal");
    let (finds, leaves, conditional) = match &source.micro_ops[0] {
        MicroOp::Read { value: Value::Integer(value), .. } => (Some(Some(*value)), None, false),
        MicroOp::Read { .. } => (Some(None), None, false),
        MicroOp::Write { value, .. } => (None, Some(Some(*value)), false),
        MicroOp::Delete { .. } => (None, Some(None), false),
        MicroOp::CompareAndSet { from, to, .. } => (Some(*from), Some(Some(*to)), true),
        MicroOp::PutIfAbsent { value, .. } => (Some(None), Some(Some(*value)), true),
        _ => panic!("no operation of a register"),
    };
    let did = !matches!(source.outcome, Outcome::Fail | Outcome::Mismatch);
    Event {
        source,
        log: conditional || matches!(level, "strict" | "sequential"),
        eventual: !conditional && level == "eventual",
        finds: finds.filter(|_| did),
        leaves: leaves.filter(|_| did),
    }
}

fn key<'a>(event: &Event<'a>) -> &'a str {
    event.source.micro_ops[0].key()
}

/// The writes that an event may have found, by their number.
fn sources(events: &[Event<'_>], finder: &Event<'_>) -> Vec<usize> {
    let fits = |write: &Event<'_>| write.leaves == finder.finds && key(write) == key(finder);
    let all: Vec<usize> = (0..events.len()).filter(|&at| fits(&events[at])).collect();
    let shown = finder.source.extras.version.as_ref();
    let by_version = |&at: &usize| {
        let write = events[at].source;
        shown.is_some() && write.outcome == Outcome::Ok && write.extras.version.as_ref() == shown
    };
    if finder.finds == Some(None) && finder.leaves.is_none() && is_shown(events, finder) {
        return all.into_iter().filter(by_version).collect();
    }
    all
}

/// Whether a read that found nothing shows the version of one delete.
fn is_shown(events: &[Event<'_>], finder: &Event<'_>) -> bool {
    let shown = finder.source.extras.version.as_ref();
    let fits = |write: &&Event<'_>| {
        write.leaves == Some(None)
            && key(write) == key(finder)
            && write.source.outcome == Outcome::Ok
            && write.source.extras.version.as_ref() == shown
    };
    shown.is_some() && finder.leaves.is_none() && events.iter().filter(fits).count() == 1
}

/// Chooses what each event found, from `next` on. `None` in `found`: the initial state, or nothing.
fn choose(events: &[Event<'_>], found: &mut Vec<Option<usize>>, next: usize) -> bool {
    let Some(event) = events.get(next) else { return fits(events, found) };
    let looks = event.finds.is_some()
        && !(event.eventual && event.leaves.is_none())
        && !(event.source.outcome.is_unknown() && event.leaves.is_none());
    if !looks {
        return choose(events, found, next + 1);
    }
    let candidates = sources(events, event);
    let initial = event.finds == Some(None) && !is_shown(events, event);
    let nowhere = candidates.is_empty() && event.source.outcome.is_unknown();
    for candidate in candidates.into_iter().map(Some).chain((initial || nowhere).then_some(None)) {
        found[next] = candidate;
        if choose(events, found, next + 1) {
            return true;
        }
    }
    found[next] = None;
    false
}

fn fits(events: &[Event<'_>], found: &[Option<usize>]) -> bool {
    let count = events.len();
    // An unknown operation happened if somebody found it who did.
    let mut happened: Vec<bool> =
        events.iter().map(|event| !event.source.outcome.is_unknown()).collect();
    for _ in 0..count {
        for at in 0..count {
            if let Some(source) = found[at].filter(|_| happened[at]) {
                happened[source] = true;
            }
        }
    }
    let looks = |at: usize| {
        let event = &events[at];
        happened[at] && event.finds.is_some() && !(event.eventual && event.leaves.is_none())
    };
    // One that certainly found a value found it somewhere.
    if (0..count).any(|at| looks(at) && events[at].finds != Some(None) && found[at].is_none()) {
        return false;
    }
    let mut session = vec![vec![false; count]; count];
    for (a, from) in events.iter().enumerate() {
        for (b, to) in events.iter().enumerate() {
            let (one, other) = (from.source, to.source);
            let mine = one.process == other.process || other.extras.token_from == Some(one.process);
            session[a][b] = mine && one.return_line.is_some_and(|line| line < other.invoke_line);
        }
    }
    close(&mut session);
    let mut past = session.clone();
    for at in 0..count {
        if events[at].eventual && events[at].leaves.is_some() {
            past.iter_mut().for_each(|row| row[at] = false);
        }
        if let Some(source) = found[at].filter(|_| looks(at)) {
            past[source][at] = true;
        }
    }
    close(&mut past);
    if (0..count).any(|at| past[at][at]) {
        return false;
    }
    // `before[a][b]`: write a comes before write b in the order.
    let mut before = past.clone();
    let writes = |at: usize| happened[at] && events[at].leaves.is_some();
    let same_key = |a: usize, b: usize| key(&events[a]) == key(&events[b]);
    for b in (0..count).filter(|&b| writes(b) && events[b].eventual) {
        for a in (0..count).filter(|&a| writes(a) && same_key(a, b) && session[a][b]) {
            before[a][b] = true;
        }
    }
    for finder in (0..count).filter(|&at| looks(at)) {
        let counts = |&a: &usize| {
            let told = !events[finder].log || events[a].log || session[a][finder];
            writes(a) && same_key(a, finder) && past[a][finder] && told
        };
        for a in (0..count).filter(counts) {
            match found[finder] {
                None => return false,
                Some(source) if source != a => before[a][source] = true,
                Some(_) => {}
            }
        }
    }
    let left: Vec<usize> = (0..count).filter(|&at| happened[at]).collect();
    extend(&left, &before)
}

fn close(pairs: &mut [Vec<bool>]) {
    let count = pairs.len();
    for middle in 0..count {
        for from in 0..count {
            for to in 0..count {
                pairs[from][to] |= pairs[from][middle] && pairs[middle][to];
            }
        }
    }
}

/// Whether what is left can be put in an order. What may come first may always do so.
fn extend(left: &[usize], before: &[Vec<bool>]) -> bool {
    let first = left.iter().position(|&at| !left.iter().any(|&other| before[other][at]));
    match first {
        _ if left.is_empty() => true,
        Some(first) => {
            let mut rest = left.to_vec();
            rest.remove(first);
            extend(&rest, before)
        }
        None => false,
    }
}
