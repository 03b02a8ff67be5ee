//! A list as the search takes it: as far as it is the beginning of a list that was found.
//!
//! ```text
//!   found: [1, 2, 3], [1, 4]       0 ──1──▶ 1 ──2──▶ 2 ──3──▶ 3
//!                                           └───4──▶ 4
//!   any other list                 nobody finds it, nor what becomes of it: all of them are one state
//! ```
//!
//! Lists only grow, so no list comes back: none is left before all its certain finders were taken, and none
//! that nobody finds is entered before all certain finders were.

use std::collections::HashMap;

use super::{Action, Found, List, show};
use crate::linearizable::object::{Object, Step};

/// Every list that is not the beginning of one that was found.
const NEVER_FOUND: usize = usize::MAX;

/// See the module. Beginnings have numbers; that of the empty list is 0.
#[derive(Clone, Debug)]
pub(in crate::linearizable) struct Beginnings<'r, 'a> {
    list: &'r List<'a>,
    /// The beginning that is one element longer.
    longer: HashMap<(usize, i64), usize>,
    /// The beginning each step found.
    found: Vec<Option<usize>>,
    /// Certain finders of each beginning, and of all, that were not taken.
    finders_left: Vec<usize>,
    all_finders_left: usize,
}

impl<'r, 'a> Beginnings<'r, 'a> {
    pub(in crate::linearizable) fn new(list: &'r List<'a>) -> Self {
        let mut beginnings = Self {
            list,
            longer: HashMap::new(),
            found: vec![None; list.steps.len()],
            finders_left: vec![0],
            all_finders_left: 0,
        };
        let mut finders: Vec<(usize, &[i64])> = list
            .steps
            .iter()
            .enumerate()
            .filter_map(|(at, step)| Some((at, step.action.before()?)))
            .collect();
        finders.sort_by_key(|(_, before)| before.len());
        let mut last: (&[i64], usize) = (&[], 0);
        for (at, before) in finders {
            // If all is right, each list is the beginning of the next.
            let (from, more) = match before.strip_prefix(last.0) {
                Some(more) => (last.1, more),
                None => (0, before),
            };
            let number =
                more.iter().fold(from, |number, &element| beginnings.enter(number, element));
            last = (before, number);
            beginnings.found[at] = Some(number);
            beginnings.finders_left[number] += 1;
            beginnings.all_finders_left += 1;
        }
        beginnings
    }

    /// The number of the beginning that is one element longer.
    fn enter(&mut self, number: usize, element: i64) -> usize {
        let fresh = self.finders_left.len();
        let longer = *self.longer.entry((number, element)).or_insert(fresh);
        if longer == fresh {
            self.finders_left.push(0);
        }
        longer
    }
}

impl<'a> Object for Beginnings<'_, 'a> {
    type Action = Action<'a>;
    type State = usize;

    fn key(&self) -> &str {
        self.list.key
    }

    fn steps(&self) -> &[Step<'_, Action<'a>>] {
        &self.list.steps
    }

    fn initial(&self) -> usize {
        0
    }

    fn after(&self, step: usize, state: usize) -> Option<usize> {
        let Action { found, appends } = &self.list.steps[step].action;
        let legal = match found {
            Found::Anything => true,
            Found::List(_) => self.found[step] == Some(state),
            Found::Contradiction(_) => false,
        };
        let longer = |state, &element| self.longer.get(&(state, element)).copied();
        legal.then(|| appends.iter().try_fold(state, longer).unwrap_or(NEVER_FOUND))
    }

    fn looks(&self, step: usize) -> bool {
        self.list.steps[step].action.appends.is_empty()
    }

    fn number(state: usize) -> u128 {
        state as u128
    }

    fn is_promising(&self, step: usize, state: usize, after: usize) -> bool {
        let own = usize::from(self.found[step].is_some());
        let found_here = self.finders_left.get(state).is_some_and(|&left| left > own);
        !found_here && (after != NEVER_FOUND || self.all_finders_left == own)
    }

    fn take(&mut self, step: usize) {
        if let Some(found) = self.found[step] {
            self.finders_left[found] -= 1;
            self.all_finders_left -= 1;
        }
    }

    fn put_back(&mut self, step: usize) {
        if let Some(found) = self.found[step] {
            self.finders_left[found] += 1;
            self.all_finders_left += 1;
        }
    }

    fn show(&self, state: usize) -> String {
        if state == NEVER_FOUND {
            return "a list that nobody found".to_owned();
        }
        let back: HashMap<usize, (usize, i64)> = self
            .longer
            .iter()
            .map(|(&(before, element), &after)| (after, (before, element)))
            .collect();
        let mut list = Vec::new();
        let mut at = state;
        while let Some(&(before, element)) = back.get(&at) {
            list.push(element);
            at = before;
        }
        list.reverse();
        show(&list)
    }

    fn demand(&self, step: usize) -> String {
        let Action { found, appends } = &self.list.steps[step].action;
        let found = match found {
            Found::Anything => "any list".to_owned(),
            Found::List(list) => show(list),
            Found::Contradiction(list) => format!("{} and other than that", show(list)),
        };
        let appended = if appends.is_empty() {
            String::new()
        } else {
            format!(", and appended {}", show(appends))
        };
        format!("found {found}{appended}")
    }

    fn made(&self, writer: usize, finder: usize) -> bool {
        let before = self.list.steps[finder].action.before();
        let last = before.and_then(<[i64]>::last);
        last.is_some_and(|last| self.list.steps[writer].action.appends.contains(last))
    }
}
