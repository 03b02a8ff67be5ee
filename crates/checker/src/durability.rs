//! Is every acknowledged write of a register there at the end?
//!
//! ```text
//!   w x 1 ──ok──▶ w x 2 ──ok──▶ r x 1 (final) !     2 is certainly after 1, and nobody wrote x after 2
//! ```
//!
//! A final read must show an acknowledged write of its key, or one that may have replaced it: one that is
//! not certainly before it. A write is certainly before another of its key
//! - if both went through the log, and the first had returned when the second was invoked;
//! - if it is of the second's session (tokens included);
//! - if the second's session had seen it, and neither that read nor the second is eventual.
//!
//! Nothing else is certain: of two local writes of different sessions either may win, whatever the lines say,
//! since it is the clocks of the nodes that decide ("acknowledged does not mean winning").
//!
//! Of a value written several times, and of an absent key, any write that left it may be the one that was seen.
//! A write of unknown outcome may be what is seen, but is not missed. Final reads are marked by the harness,
//! and begin when all else has returned; what returned later is not missed either. Only keys that have
//! final reads can be judged; if one that was written has none, the verdict is at best unknown.

use std::collections::{BTreeMap, HashMap};

use crate::history::{Operation, Outcome};
use crate::known::Known;
use crate::linearizable::register::{Action, State, action, show};
use crate::promise::{Broken, Doubt, Report, violation};
use crate::session_order::Clock;
use crate::{History, Level, Violation};

/// Judges every final read of a history; operations that name no level are strict.
pub fn check(history: &History) -> Report {
    check_operations(&history.operations(), Level::Strict)
}

/// As [`check`], for the operations of one history in the order of their invocations; those that name no
/// level are `unnamed`. O(n) as long as few writes may be what a final read saw.
pub fn check_operations(operations: &[Operation], unnamed: Level) -> Report {
    Report::new(operations, judge(operations, unnamed))
}

/// What a final read may have seen.
struct Suspect {
    /// `None`: the initial state.
    write: Option<usize>,
    /// Where sessions first saw it: by chain, the place.
    seen: BTreeMap<usize, u32>,
    /// An acknowledged write that is certainly after it, and whose.
    missing: Option<usize>,
}

/// What the final reads of a key saw: one state, with all that may have left it.
struct Final {
    read: usize,
    began: usize,
    suspects: Vec<Suspect>,
}

fn judge(operations: &[Operation], unnamed: Level) -> Result<(), Broken> {
    let known = Known::new(operations, unnamed)?;
    let actions: Vec<Action> = operations
        .iter()
        .map(|operation| action(operation).ok_or_else(|| Doubt::of_type(operation).into()))
        .collect::<Result<_, Broken>>()?;
    let mut finals = finals(operations, &actions)?;
    known.order.walk(|at, own| {
        let operation = &operations[at];
        if operation.outcome != Outcome::Ok {
            return;
        }
        let Some(of_key) = finals.get_mut(operation.micro_ops[0].key()) else { return };
        for end in of_key.iter_mut() {
            see(&known, at, &actions[at], end);
            let returned = operation.return_line.is_some_and(|line| line < end.began);
            if actions[at].leaves().is_some() && returned {
                for suspect in &mut end.suspects {
                    if suspect.missing.is_none() && is_before(&known, suspect, at, own) {
                        suspect.missing = Some(at);
                    }
                }
            }
        }
    });
    let mut ends: Vec<&Final> = finals.values().flatten().collect();
    ends.sort_by_key(|end| end.read);
    for end in ends {
        if end.suspects.iter().all(|suspect| suspect.missing.is_some()) {
            return Err(lost(operations, end, &actions[end.read]).into());
        }
    }
    let unread = operations.iter().zip(&actions).find(|(operation, action)| {
        action.leaves().is_some()
            && operation.outcome == Outcome::Ok
            && !finals.contains_key(operation.micro_ops[0].key())
    });
    match unread {
        _ if finals.is_empty() => Err(Doubt::NoFinalReads.into()),
        Some((write, _)) => {
            let key = write.micro_ops[0].key().to_owned();
            Err(Doubt::NotReadAtTheEnd { key, node: None }.into())
        }
        None => Ok(()),
    }
}

/// The final reads by key, those that saw the same together: the last to begin stands for them.
fn finals<'a>(
    operations: &'a [Operation],
    actions: &[Action],
) -> Result<HashMap<&'a str, Vec<Final>>, Broken> {
    let mut writers: HashMap<(&str, State), Vec<usize>> = HashMap::new();
    for (at, operation) in operations.iter().enumerate() {
        let happened = operation.outcome == Outcome::Ok || operation.outcome.is_unknown();
        if let Some(state) = actions[at].leaves().filter(|_| happened) {
            writers.entry((operation.micro_ops[0].key(), state)).or_default().push(at);
        }
    }
    let mut finals: HashMap<&str, Vec<Final>> = HashMap::new();
    for (at, operation) in operations.iter().enumerate() {
        let Action::Read(state) = actions[at] else { continue };
        if !operation.extras.is_final || operation.outcome != Outcome::Ok {
            continue;
        }
        let key = operation.micro_ops[0].key();
        let of_key = finals.entry(key).or_default();
        if let Some(known) = of_key.iter_mut().find(|end| actions[end.read] == actions[at]) {
            (known.read, known.began) = (at, operation.invoke_line);
            continue;
        }
        let writers = writers.get(&(key, state)).map_or(&[][..], Vec::as_slice);
        let initial = state.is_none().then_some(None);
        let suspects: Vec<Suspect> = initial
            .into_iter()
            .chain(writers.iter().copied().map(Some))
            .map(|write| Suspect { write, seen: BTreeMap::new(), missing: None })
            .collect();
        if suspects.is_empty() {
            let why =
                format!("{} is there at the end, but no write could have left it", show(state));
            return Err(violation("a value from thin air at the end", &[operation], why).into());
        }
        of_key.push(Final { read: at, began: operation.invoke_line, suspects });
    }
    Ok(finals)
}

/// Notes that a session saw what a final read saw, if nobody else can have left it.
fn see(known: &Known<'_>, at: usize, action: &Action, end: &mut Final) {
    let [suspect] = end.suspects.as_mut_slice() else { return };
    let same = match (action.finds(), suspect.write) {
        (Some(found), Some(write)) => {
            crate::linearizable::register::action(&known.operations[write])
                .and_then(Action::leaves)
                .is_some_and(|left| left == found)
        }
        _ => false,
    };
    if let Some(place) = known.order.places[at].filter(|_| same)
        && known.levels[at] != Level::Eventual
    {
        suspect.seen.entry(place.chain).or_insert(place.at);
    }
}

/// Whether a suspect is certainly before an acknowledged write. `own`: what comes before that one.
fn is_before(known: &Known<'_>, suspect: &Suspect, write: usize, own: &Clock) -> bool {
    let Some(one) = suspect.write else { return true };
    if one == write {
        return false;
    }
    let operations = known.operations;
    let returned = operations[one].return_line.filter(|_| operations[one].outcome == Outcome::Ok);
    let by_log = known.levels[one].is_log()
        && known.levels[write].is_log()
        && returned.is_some_and(|line| line < operations[write].invoke_line);
    let by_session = known.order.places[one].is_some_and(|place| own.holds(place));
    let by_sight = known.levels[write] != Level::Eventual
        && suspect.seen.iter().any(|(&chain, &at)| own.of(chain) >= at);
    by_log || by_session || by_sight
}

fn lost(operations: &[Operation], end: &Final, read: &Action) -> Violation {
    let read_of = &operations[end.read];
    let mut cited = vec![read_of];
    let mut lines = Vec::new();
    for suspect in end.suspects.iter().rev().take(SUSPECTS_SHOWN_MAX) {
        let missing = &operations[suspect.missing.expect("every suspect has one")];
        cited.push(missing);
        let after = missing.return_line.unwrap_or(missing.invoke_line);
        lines.push(match suspect.write {
            Some(write) => {
                cited.push(&operations[write]);
                let line = operations[write].return_line.unwrap_or(operations[write].invoke_line);
                format!("of line {line}, which line {after} came after")
            }
            None => format!("the initial state, which line {after} came after"),
        });
    }
    let found = read.finds().map_or_else(String::new, show);
    let why = format!(
        "{found} is there at the end ({}), and the later write was acknowledged and nothing replaced it",
        lines.join("; ")
    );
    violation("an acknowledged write is missing at the end", &cited, why)
}

/// Writes that an explanation cites at most.
const SUSPECTS_SHOWN_MAX: usize = 3;

#[cfg(test)]
mod durability_test;
