//! Sequential consistency by search: exact without versions, for small histories.
//!
//! A configuration is how far each session is, what each key holds, and which writes of unknown outcome
//! were used. From it every session's next step may come, and every unknown write whose past is taken.
//!
//! ```text
//!   process 0   w x 1 │ r y 0             x = 1, y = null      next: r y 0 does not fit,
//!   process 1         │ w y 1   r x 1                                w y 1 does
//! ```
//!
//! What keeps it short:
//! - A configuration reached before with the same unknown writes or fewer is not entered: nobody needs
//!   to have used one.
//! - A step that only looks is taken as soon as it fits, and no other is tried in its stead: where it
//!   stands it changes nothing for the others.
//! - A value with one writer is not replaced before all its certain finders were taken: it will not
//!   come back. (This is foresight: the search gives up before the step that cannot be.)
//! - An unknown write whose value nobody finds is not tried, unless there is a mismatch on its key.
//!
//! The writes are tried in the order of their returns, which is right for most of a real history.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Budget;
use super::program::Program;
use crate::history::{Operation, Outcome};
use crate::linearizable::register::{State, show};
use crate::{Cited, Violation};

/// How a search ended.
#[derive(Debug)]
pub(super) enum Found {
    /// A legal order.
    Order,
    /// Every order fails.
    Violation(Violation),
    /// Neither, within the budget.
    OutOfBudget,
}

/// Searches for a legal order.
pub(super) fn judge(program: &Program<'_>, budget: Budget) -> Found {
    match Search::new(program, Foresight::Used).run(budget) {
        Outcomes::Order => Found::Order,
        Outcomes::OutOfBudget => Found::OutOfBudget,
        Outcomes::None(_) => Found::Violation(explain(program, budget)),
    }
}

/// Whether a search looks at what later steps will find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Foresight {
    Used,
    None,
}

enum Outcomes {
    Order,
    /// No order. The configuration nearest to one.
    None(Node),
    OutOfBudget,
}

/// What a step demands and does, with the states of all keys replaced by small numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Demand {
    key: usize,
    finds: Option<usize>,
    avoids: Option<usize>,
    leaves: Option<usize>,
}

/// A configuration, and what to do from it.
#[derive(Clone, Debug)]
struct Node {
    /// Certain steps taken of each session.
    taken: Vec<u32>,
    /// What each key holds.
    holds: Vec<u32>,
    /// The unknown writes used, as a bitset.
    used: Vec<u64>,
    /// Certain finders of each state that were not taken.
    finders_left: Vec<u32>,
    /// Writes still to be tried, the last first.
    choices: Vec<usize>,
}

struct Search<'p, 'a> {
    program: &'p Program<'a>,
    foresight: Foresight,
    /// The certain steps of each process; a local write is a session of its own.
    sessions: Vec<Vec<usize>>,
    /// Of a certain step its session and its place there; of an unknown one its bit.
    rank: Vec<(usize, usize)>,
    unknown: Vec<usize>,
    demands: Vec<Demand>,
    /// A key and a state, by number; the first are the absent states of all keys.
    states: Vec<(usize, State)>,
    /// Whether a state is current once at most, because it has one writer.
    single: Vec<bool>,
    /// For the steps taken and what the keys hold, the sets of unknown writes used.
    visited: HashMap<Box<[u32]>, Vec<Box<[u64]>>>,
    spent: Spent,
}

/// What a search used of its budget.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    configurations: usize,
    comparisons: usize,
}

/// Comparisons of sets of unknown writes that are allowed for each configuration.
const COMPARISONS_PER_CONFIGURATION: usize = 32;

impl<'p, 'a> Search<'p, 'a> {
    fn new(program: &'p Program<'a>, foresight: Foresight) -> Self {
        let mut states: Vec<(usize, State)> =
            (0..program.keys.len()).map(|key| (key, None)).collect();
        let mut numbers: HashMap<(usize, State), usize> =
            states.iter().enumerate().map(|(number, &state)| (state, number)).collect();
        let mut number = |state: (usize, State)| {
            *numbers.entry(state).or_insert_with(|| {
                states.push(state);
                states.len() - 1
            })
        };
        let mut demands = Vec::with_capacity(program.steps.len());
        for step in &program.steps {
            let mut numbered = |state: Option<State>| state.map(|state| number((step.key, state)));
            demands.push(Demand {
                key: step.key,
                finds: numbered(step.finds()),
                avoids: numbered(step.avoids()),
                leaves: numbered(step.leaves()),
            });
        }
        let mut writers = vec![0; states.len()];
        for state in demands.iter().filter_map(|demand| demand.leaves) {
            writers[state] += 1;
        }
        let single = (0..states.len())
            .map(|at| {
                foresight == Foresight::Used && writers[at] == usize::from(states[at].1.is_some())
            })
            .collect();

        let mut sessions: Vec<Vec<usize>> = Vec::new();
        let mut processes: BTreeMap<(u64, Option<usize>), usize> = BTreeMap::new();
        let unknown = useful(program, &demands);
        let mut rank = vec![(0, 0); program.steps.len()];
        for (at, step) in program.steps.iter().enumerate().filter(|(_, step)| step.certain) {
            let session = (step.source.process, step.local.then_some(at));
            let session = *processes.entry(session).or_insert_with(|| {
                sessions.push(Vec::new());
                sessions.len() - 1
            });
            rank[at] = (session, sessions[session].len());
            sessions[session].push(at);
        }
        for (bit, &at) in unknown.iter().enumerate() {
            rank[at] = (bit / 64, bit % 64);
        }
        Self {
            program,
            foresight,
            sessions,
            rank,
            unknown,
            demands,
            states,
            single,
            visited: HashMap::new(),
            spent: Spent::default(),
        }
    }

    fn run(mut self, budget: Budget) -> Outcomes {
        let mut finders_left = vec![0; self.states.len()];
        for (step, demand) in self.program.steps.iter().zip(&self.demands) {
            if let (true, Some(state)) = (step.certain, demand.finds) {
                finders_left[state] += 1;
            }
        }
        let mut root = Node {
            taken: vec![0; self.sessions.len()],
            holds: (0..self.program.keys.len() as u32).collect(),
            used: vec![0; self.unknown.len().div_ceil(64)],
            finders_left,
            choices: Vec::new(),
        };
        self.take_looks(&mut root);
        self.choose(&mut root);
        let progress = |node: &Node| node.taken.iter().map(|&taken| u64::from(taken)).sum::<u64>();
        let certain: u64 = self.sessions.iter().map(|steps| steps.len() as u64).sum();
        if progress(&root) == certain {
            return Outcomes::Order;
        }
        let comparisons = budget.configurations.saturating_mul(COMPARISONS_PER_CONFIGURATION);
        let mut nearest = root.clone();
        let mut stack = vec![root];
        while let Some(node) = stack.last_mut() {
            let Some(step) = node.choices.pop() else {
                stack.pop();
                continue;
            };
            let mut next = node.clone();
            self.take(&mut next, step);
            self.take_looks(&mut next);
            if progress(&next) == certain {
                return Outcomes::Order;
            }
            if !self.enter(&next) {
                continue;
            }
            if self.spent.configurations > budget.configurations
                || self.spent.comparisons > comparisons
            {
                return Outcomes::OutOfBudget;
            }
            if self.foresight == Foresight::None && progress(&next) > progress(&nearest) {
                nearest.clone_from(&next);
            }
            self.choose(&mut next);
            stack.push(next);
        }
        Outcomes::None(nearest)
    }

    /// Whether all that must come before a step was taken.
    fn is_next(&self, node: &Node, step: usize) -> bool {
        self.program.steps[step].after.iter().all(|&before| {
            let (session, place) = self.rank[before];
            node.taken[session] as usize > place
        })
    }

    /// Whether a step finds what it must, and replaces nothing that is still wanted.
    fn fits(&self, node: &Node, step: usize) -> bool {
        if self.program.steps[step].action.is_none() {
            return true;
        }
        let demand = &self.demands[step];
        let holds = node.holds[demand.key] as usize;
        if demand.finds.is_some_and(|state| state != holds) || demand.avoids == Some(holds) {
            return false;
        }
        let own = u32::from(self.program.steps[step].certain && demand.finds.is_some());
        let wanted = self.single[holds] && node.finders_left[holds] > own;
        demand.leaves.is_none() || !wanted
    }

    fn take(&self, node: &mut Node, step: usize) {
        let demand = &self.demands[step];
        let (at, place) = self.rank[step];
        if self.program.steps[step].certain {
            node.taken[at] += 1;
            if let Some(state) = demand.finds {
                node.finders_left[state] -= 1;
            }
        } else {
            node.used[at] |= 1 << place;
        }
        if let Some(state) = demand.leaves {
            node.holds[demand.key] = state as u32;
        }
    }

    /// The next certain step of a session.
    fn next(&self, node: &Node, session: usize) -> Option<usize> {
        self.sessions[session].get(node.taken[session] as usize).copied()
    }

    /// Takes every step that only looks and may come next.
    fn take_looks(&self, node: &mut Node) {
        let mut moved = true;
        while moved {
            moved = false;
            for session in 0..self.sessions.len() {
                while let Some(step) = self.next(node, session)
                    && self.demands[step].leaves.is_none()
                    && self.is_next(node, step)
                    && self.fits(node, step)
                {
                    self.take(node, step);
                    moved = true;
                }
            }
        }
    }

    /// Notes the writes that may come next.
    fn choose(&self, node: &mut Node) {
        let may_come = |step: &usize| {
            self.demands[*step].leaves.is_some()
                && self.is_next(node, *step)
                && self.fits(node, *step)
        };
        let unused = |&&step: &&usize| {
            let (word, bit) = self.rank[step];
            node.used[word] & (1 << bit) == 0
        };
        let next = (0..self.sessions.len()).filter_map(|session| self.next(node, session));
        let mut certain: Vec<_> = next.filter(may_come).collect();
        certain.sort_unstable_by_key(|&step| std::cmp::Reverse(self.program.steps[step].line()));
        let mut choices: Vec<_> =
            self.unknown.iter().filter(unused).copied().filter(may_come).collect();
        choices.extend(certain);
        node.choices = choices;
    }

    /// Remembers a configuration; false if there is no use in entering it.
    fn enter(&mut self, node: &Node) -> bool {
        let key: Box<[u32]> = node.taken.iter().chain(&node.holds).copied().collect();
        let reached = self.visited.entry(key).or_default();
        self.spent.comparisons += reached.len();
        if reached.iter().any(|fewer| is_subset(fewer, &node.used)) {
            return false;
        }
        reached.retain(|more| !is_subset(&node.used, more));
        reached.push(node.used.as_slice().into());
        self.spent.configurations += 1;
        true
    }
}

fn is_subset(fewer: &[u64], more: &[u64]) -> bool {
    fewer.iter().zip(more).all(|(fewer, more)| fewer & !more == 0)
}

/// The unknown writes whose state someone finds, or that may explain a mismatch. Without one of the
/// others an order is as legal: the next step of the key finds nothing, or writes blindly.
fn useful(program: &Program<'_>, demands: &[Demand]) -> Vec<usize> {
    let unknown = |at: &usize| !program.steps[*at].certain;
    let mut left: Vec<usize> = (0..program.steps.len()).filter(unknown).collect();
    // Dropping an unknown cas may leave what it found unseen: again until nothing changes.
    loop {
        let mut found: Vec<bool> = Vec::new();
        let mut avoided = vec![false; program.keys.len()];
        let certain = (0..program.steps.len()).filter(|at| program.steps[*at].certain);
        for at in certain.chain(left.iter().copied()) {
            if let Some(state) = demands[at].finds {
                found.resize(found.len().max(state + 1), false);
                found[state] = true;
            }
            if demands[at].avoids.is_some() {
                avoided[demands[at].key] = true;
            }
        }
        let before = left.len();
        left.retain(|&at| {
            let seen = |state: usize| found.get(state) == Some(&true);
            avoided[demands[at].key] || demands[at].leaves.is_some_and(seen)
        });
        if left.len() == before {
            return left;
        }
    }
}

/// If at most so many operations had been answered, they are shown all.
const WHOLE_MAX: usize = 10;
/// Writers of a value that was found an explanation names at most.
const WRITERS_SHOWN_MAX: usize = 2;

/// Says where the first lines that fit no order stop.
fn explain(program: &Program<'_>, budget: Budget) -> Violation {
    // Forgetting what was answered after a line only makes a history fit more orders. So the first
    // answer that is too much is found by halving.
    let mut returns: Vec<usize> =
        program.steps.iter().filter_map(|step| step.source.return_line).collect();
    returns.sort_unstable();
    let (mut low, mut high) = (0, returns.len() - 1);
    while low < high {
        let middle = low.midpoint(high);
        let operations = until(program.operations, returns[middle]);
        let known = in_part(program, &operations);
        match Search::new(&known, Foresight::Used).run(budget) {
            Outcomes::Order => low = middle + 1,
            Outcomes::None(_) => high = middle,
            Outcomes::OutOfBudget => break,
        }
    }
    let operations = until(program.operations, returns[high]);
    let known = in_part(program, &operations);
    let (steps, why) = describe(&known, returns[high], budget);
    let lines: BTreeSet<usize> =
        steps.iter().map(|&at| known.steps[at].source.invoke_line).collect();
    let cited = program.operations.iter().filter(|op| lines.contains(&op.invoke_line));
    let breaks = |op: &&Operation| op.return_line == Some(returns[high]);
    let last = program.operations.iter().find(breaks).expect("the line is one of these returns");
    Violation {
        key: last.micro_ops[0].key().to_owned(),
        rule: "no order of all sessions",
        operations: cited.map(Cited::across).collect(),
        why,
    }
}

/// The program of what was known of another just after a line.
fn in_part<'a>(whole: &Program<'_>, operations: &'a [Operation]) -> Program<'a> {
    Program::mixed(operations, &whole.local).expect("what is read whole is read in part")
}

/// What was known just after a line. All that was answered later may have happened, and is bound by
/// nothing but what was answered by then.
fn until(operations: &[Operation], line: usize) -> Vec<Operation> {
    let known = |op: &Operation| match (op.return_line, op.outcome) {
        (Some(ret), Outcome::Fail | Outcome::Mismatch) if ret > line => None,
        (Some(ret), _) if ret > line => {
            Some(Operation { return_line: None, outcome: Outcome::Pending, ..op.clone() })
        }
        _ => Some(op.clone()),
    };
    operations.iter().filter_map(known).collect()
}

/// The steps to show, and why they fit no order.
fn describe(program: &Program<'_>, line: usize, budget: Budget) -> (Vec<usize>, String) {
    let last = program.steps.iter().position(|step| step.source.return_line == Some(line));
    let last = last.expect("the line is a return of a step");
    let search = Search::new(program, Foresight::None);
    let sessions = search.sessions.clone();
    let states = search.states.clone();
    let mut why = format!("no order holds all that was answered up to line {line}");
    let mut cited = vec![last];
    // Slower than with foresight, so there may be no time for it.
    if let Outcomes::None(nearest) = search.run(budget) {
        why += "; the one that gets furthest stops with";
        let mut stops = Vec::new();
        for (steps, &taken) in sessions.iter().zip(&nearest.taken) {
            let Some(&next) = steps.get(taken as usize) else { continue };
            let step = &program.steps[next];
            cited.push(next);
            if let Some(state) = step.finds() {
                let writes = |&at: &usize| {
                    program.steps[at].key == step.key && program.steps[at].leaves() == Some(state)
                };
                cited.extend((0..program.steps.len()).filter(writes).take(WRITERS_SHOWN_MAX));
            }
            let (key, held) = (program.keys[step.key], states[nearest.holds[step.key] as usize].1);
            stops.push(match step.action {
                Some(_) => {
                    let held = show(held);
                    format!(
                        " {key} = {held} before line {} (process {})",
                        step.line(),
                        step.source.process
                    )
                }
                None => format!(" line {} (process {})", step.line(), step.source.process),
            });
        }
        why += &stops.join(",");
    }
    let certain = || (0..program.steps.len()).filter(|&at| program.steps[at].certain);
    if certain().count() <= WHOLE_MAX {
        cited.extend(certain());
    }
    (cited, why)
}
