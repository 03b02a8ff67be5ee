//! Lists that cannot have been there, and lists that cannot have been there one after the other.
//!
//! The search finds all that is found here, and more: what is found here is told in its own words.

use std::collections::HashMap;

use super::{Action, Found, List, show};
use crate::Violation;
use crate::history::Operation;
use crate::linearizable::object::Step;

/// A step on a list.
type ListStep<'a> = Step<'a, Action<'a>>;
/// A step and the list it found.
type Finder<'l, 'a> = (&'l ListStep<'a>, &'a [i64]);

/// Finds elements from nowhere or there too often, two lists of which neither is the other's beginning, elements
/// that were there and are missing later, and elements before others that were there earlier.
pub(in crate::linearizable) fn judge(list: &List<'_>) -> Option<Violation> {
    let mut finders: Vec<_> = list.finders().collect();
    finders.sort_by_key(|(_, found)| found.len());
    let mut appended: HashMap<i64, Vec<&ListStep<'_>>> = HashMap::new();
    for step in &list.steps {
        for &element in &step.action.appends {
            appended.entry(element).or_default().push(step);
        }
    }
    contradiction(list)
        .or_else(|| from_nowhere(list, &finders, &appended))
        .or_else(|| forked(list, &finders))
        .or_else(|| too_often(list, &finders, &appended))
        .or_else(|| missing(list))
        .or_else(|| misplaced(list, &finders, &appended))
}

fn contradiction(list: &List<'_>) -> Option<Violation> {
    list.steps.iter().find_map(|step| match step.action.found {
        Found::Contradiction(seen) => {
            let why = format!("line {}: {} does not fit the rest", step.ret, show(seen));
            Some(list.violation("one operation contradicts itself", &[step.source], why))
        }
        Found::Anything | Found::List(_) => None,
    })
}

/// An element that nobody appended. `finders` are in the order of the lengths of their lists.
fn from_nowhere(
    list: &List<'_>,
    finders: &[Finder<'_, '_>],
    appended: &HashMap<i64, Vec<&ListStep<'_>>>,
) -> Option<Violation> {
    let mut known: &[i64] = &[];
    for &(finder, found) in finders {
        let more = found.strip_prefix(known).unwrap_or(found);
        known = found;
        let Some(&element) = more.iter().find(|&element| !appended.contains_key(element)) else {
            continue;
        };
        let line = finder.ret;
        let Some(failed) = list.failed.get(&element) else {
            let why = format!("line {line}: {element} was there, but nobody ever appended it");
            return Some(list.violation("an element from thin air", &[finder.source], why));
        };
        let why = format!(
            "line {line}: {element} was there, but its only append (line {}) failed, which promises that it \
             had no effect and never will",
            failed.invoke_line
        );
        let rule = "an element of a failed append was seen";
        return Some(list.violation(rule, &[failed, finder.source], why));
    }
    None
}

/// Two lists, neither the beginning of the other.
fn forked(list: &List<'_>, finders: &[Finder<'_, '_>]) -> Option<Violation> {
    let pair = finders.windows(2).find(|pair| !pair[1].1.starts_with(pair[0].1))?;
    let ((one, shorter), (other, longer)) = (pair[0], pair[1]);
    let why = format!(
        "a list only grows, at its end; but line {} found {} and line {} found {}",
        one.ret,
        show(shorter),
        other.ret,
        show(longer)
    );
    let rule = "two lists of which neither is the beginning of the other";
    Some(list.violation(rule, &[one.source, other.source], why))
}

/// An element that is there more often than appends of it had begun; in the longest list, of which the
/// others are beginnings.
fn too_often(
    list: &List<'_>,
    finders: &[Finder<'_, '_>],
    appended: &HashMap<i64, Vec<&ListStep<'_>>>,
) -> Option<Violation> {
    let (_, longest) = finders.last()?;
    let mut counts: HashMap<i64, usize> = HashMap::new();
    let mut count = |&element: &i64| {
        let count = counts.entry(element).or_default();
        *count += 1;
        (element, *count)
    };
    let counted: Vec<(i64, usize)> = longest.iter().map(&mut count).collect();
    // From the last element back, with the earliest return of those that found it.
    let mut finders = finders.iter().rev().peekable();
    let mut earliest: Option<&ListStep<'_>> = None;
    for (at, &(element, count)) in counted.iter().enumerate().rev() {
        while let Some((finder, _)) = finders.next_if(|(_, found)| found.len() > at) {
            earliest = earliest.filter(|other| other.ret < finder.ret).or(Some(finder));
        }
        let finder = earliest?;
        let others = appended.get(&element).map_or(&[][..], Vec::as_slice);
        let begun = others.partition_point(|other| other.call < finder.ret);
        let own = others[..begun].iter().filter(|other| other.call == finder.call).count();
        if count > begun - own {
            return Some(appended_less(list, finder, element, others, begun - own));
        }
    }
    None
}

/// `finder` saw an element more often than it was appended.
fn appended_less(
    list: &List<'_>,
    finder: &ListStep<'_>,
    element: i64,
    appends: &[&ListStep<'_>],
    begun: usize,
) -> Violation {
    let line = finder.ret;
    let (rule, why) = if let (0, Some(first)) = (begun, appends.first()) {
        let later = first.call;
        let why = format!(
            "line {line}: {element} was there, but its append was invoked later, on line {later}"
        );
        ("an element was seen before its append", why)
    } else {
        let why = format!(
            "line {line}: {element} was there more often than appends of it had begun: {begun}"
        );
        ("an append took effect twice", why)
    };
    let appends = appends.iter().take(APPENDS_SHOWN_MAX).map(|step| step.source);
    let sources: Vec<&Operation> = appends.chain([finder.source]).collect();
    list.violation(rule, &sources, why)
}

/// An element that was certainly there when an operation began that did not find it; of lists that
/// [`forked`] let pass.
fn missing(list: &List<'_>) -> Option<Violation> {
    let finders: Vec<_> = list.finders().collect();
    let longest = finders.iter().map(|(_, found)| found).max_by_key(|found| found.len())?;
    let mut lengths: HashMap<i64, usize> = HashMap::new();
    for (at, &element) in longest.iter().enumerate() {
        lengths.entry(element).or_insert(at + 1);
    }
    // The shortest list found by this finder and those that began after it.
    let mut shortest = finders.clone();
    for at in (1..shortest.len()).rev() {
        if shortest[at].1.len() < shortest[at - 1].1.len() {
            shortest[at - 1] = shortest[at];
        }
    }
    list.steps.iter().filter(|step| step.is_certain()).find_map(|step| {
        // What the list has at least once the step returned.
        let length = match (step.action.before(), step.action.appends.as_slice()) {
            (Some(before), appends) => before.len() + appends.len(),
            (None, [.., last]) => lengths.get(last).copied().unwrap_or(usize::MAX),
            (None, []) => 0,
        };
        let later = finders.partition_point(|(finder, _)| finder.call <= step.ret);
        let &(finder, found) = shortest.get(later)?;
        (found.len() < length).then(|| lost(list, step, finder, found))
    })
}

/// An element before one whose append had returned when its own began; of those appended once.
fn misplaced(
    list: &List<'_>,
    finders: &[Finder<'_, '_>],
    appended: &HashMap<i64, Vec<&ListStep<'_>>>,
) -> Option<Violation> {
    let &(finder, longest) = finders.last()?;
    let mut earliest: Option<(i64, &ListStep<'_>)> = None;
    for &element in longest.iter().rev() {
        let Some(&[append]) = appended.get(&element).map(Vec::as_slice) else { continue };
        if let Some((later, other)) = earliest.filter(|(_, other)| other.ret < append.call) {
            let why = format!(
                "line {} acknowledged the append of {later} before that of {element} was invoked on line {}; but \
                 line {} found {element} before {later}",
                other.ret, append.call, finder.ret
            );
            let sources = [other.source, append.source, finder.source];
            return Some(list.violation("two elements are in the wrong order", &sources, why));
        }
        earliest = earliest.filter(|(_, other)| other.ret < append.ret).or(Some((element, append)));
    }
    None
}

/// `finder` found a list without what was there when `step` returned.
fn lost(list: &List<'_>, step: &ListStep<'_>, finder: &ListStep<'_>, found: &[i64]) -> Violation {
    let (rule, was) = match step.action.before() {
        None => ("an acknowledged append is missing", "acknowledged an append".to_owned()),
        Some(before) => ("a list became shorter", format!("found {}", show(before))),
    };
    let (ret, call, found) = (step.ret, finder.call, show(found));
    let why = format!("line {ret} {was} before line {call} was invoked, which found {found}");
    list.violation(rule, &[step.source, finder.source], why)
}

/// Appends of one element that an explanation cites at most.
const APPENDS_SHOWN_MAX: usize = 2;
