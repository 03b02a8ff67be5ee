//! The past of every step, as a clock, from the causes to the effects.
//!
//! ```text
//!   process 0   w x 1 ─▶ w x 2 ─────┐            past of r: process 0 up to 2, process 1 up to 1.
//!   process 1   w x 3 ─▶ w y 4 ──┐  │ found      Last writes of x in it: w x 2 and w x 3. It found 2,
//!   process 2             r y 4 ─▶ r x 2         so w x 3 comes before w x 2 in the order of writes.
//! ```
//!
//! Of each chain only the last write of the key in the past matters: those before it come before it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use super::program::{Program, Source, Step};
use crate::levels::Level;
use crate::session_order::Clock;

/// What is in the past of a step, and itself.
#[derive(Clone, Debug)]
pub(super) struct Past {
    clock: Clock,
    /// The loose steps that somebody saw, as a bitset.
    loose: Vec<u64>,
}

/// `newer` was found by `finder`, which had `older` in its past.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replaced {
    pub(super) older: usize,
    pub(super) newer: usize,
    pub(super) finder: usize,
}

/// Every step has a past.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) replaced: Vec<Replaced>,
    /// Of the steps that were to be kept.
    pub(super) pasts: Vec<Option<Rc<Past>>>,
}

/// Why some step cannot be.
#[derive(Debug)]
pub(super) enum Broken {
    /// These steps wait for each other.
    Cycle(Vec<usize>),
    /// It found the initial state, with this write in its past.
    Initial(usize, usize),
    /// It found an absent key; this write is in its past, and no delete comes after.
    Absent(usize, usize),
}

/// What an absent key shows, where deletes and versions leave it open.
pub(super) enum Nulls<'g> {
    /// Anything that can be: such a step has a past without it.
    Open,
    /// What was guessed.
    Guessed(&'g mut Guesses),
}

/// One choice of deletes after the other, the likeliest first.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    /// What was chosen at each choice, and whether there is another.
    chosen: Vec<(usize, bool)>,
    /// The next choice of this walk.
    next: usize,
    /// How many combinations were tried.
    pub(super) made: usize,
}

impl Guesses {
    /// Goes on to the next combination, if there is one.
    pub(super) fn advance(&mut self) -> bool {
        self.made += 1;
        self.chosen.truncate(self.next);
        self.next = 0;
        while let Some((choice, more)) = self.chosen.pop() {
            if more {
                self.chosen.push((choice + 1, false));
                return true;
            }
        }
        false
    }

    fn choose(&mut self, mut candidates: impl Iterator<Item = usize>) -> Option<usize> {
        let choice = self.chosen.get(self.next).map_or(0, |&(choice, _)| choice);
        let chosen = candidates.nth(choice)?;
        let more = candidates.next().is_some();
        match self.chosen.get_mut(self.next) {
            Some(known) => *known = (choice, more),
            None => self.chosen.push((choice, more)),
        }
        self.next += 1;
        Some(chosen)
    }
}

/// Goes through all steps. Returns what each found, as far as it is known then, and the pasts of the steps
/// to `keep`.
pub(super) fn walk(
    program: &Program<'_>,
    nulls: &mut Nulls<'_>,
    keep: &[usize],
) -> (Vec<Source>, Result<Walked, Broken>) {
    let mut walk = Walk::new(program, keep);
    let outcome = walk.run(nulls);
    let Walk { sources, replaced, pasts, .. } = walk;
    (sources, outcome.map(|()| Walked { replaced, pasts }))
}

/// A cycle in the order of the writes, if there is one: all steps that are on any.
pub(super) fn cyclic(
    program: &Program<'_>,
    sources: &[Source],
    replaced: &[Replaced],
) -> Option<Vec<bool>> {
    let count = program.steps.len();
    let mut edges: Vec<(usize, usize)> = Vec::new();
    for at in 0..count {
        edges.extend(before(program, sources, at).map(|before| (before, at)));
    }
    edges.extend(&program.own_order);
    edges.extend(replaced.iter().map(|edge| (edge.older, edge.newer)));
    let mut left = vec![true; count];
    // What nothing is before, or nothing is after, is on no cycle.
    for reverse in [false, true] {
        let ends = |&(from, to): &(usize, usize)| if reverse { (to, from) } else { (from, to) };
        let mut incoming = vec![0u32; count];
        let mut first = vec![0usize; count + 1];
        for (from, to) in edges.iter().map(ends) {
            incoming[to] += 1;
            first[from + 1] += 1;
        }
        for at in 0..count {
            first[at + 1] += first[at];
        }
        let mut next = first.clone();
        let mut outgoing = vec![0usize; edges.len()];
        for (from, to) in edges.iter().map(ends) {
            outgoing[next[from]] = to;
            next[from] += 1;
        }
        let mut ready: Vec<usize> = (0..count).filter(|&at| incoming[at] == 0).collect();
        while let Some(at) = ready.pop() {
            left[at] = false;
            for &to in &outgoing[first[at]..first[at + 1]] {
                incoming[to] -= 1;
                if incoming[to] == 0 {
                    ready.push(to);
                }
            }
        }
    }
    left.contains(&true).then_some(left)
}

/// The steps just before a step: in its session, and the one it found.
pub(super) fn before<'p>(
    program: &'p Program<'_>,
    sources: &[Source],
    at: usize,
) -> impl Iterator<Item = usize> + 'p {
    let found = match sources[at] {
        Source::Step(found) => Some(found),
        _ => None,
    };
    program.steps[at].after.iter().copied().chain(found)
}

impl Past {
    /// Whether a step is in it.
    pub(super) fn holds(&self, step: &Step<'_>) -> bool {
        step.place.is_some_and(|place| self.clock.holds(place))
            || step.loose.is_some_and(|bit| self.loose[bit / 64] >> (bit % 64) & 1 == 1)
    }

    fn join(&mut self, other: &Self) {
        self.clock.join(&other.clock);
        for (bits, more) in self.loose.iter_mut().zip(&other.loose) {
            *bits |= more;
        }
    }

    fn put(&mut self, step: &Step<'_>) {
        match (step.loose, step.place) {
            (Some(bit), _) => self.loose[bit / 64] |= 1 << (bit % 64),
            (None, Some(place)) => self.clock.raise(place),
            (None, None) => {}
        }
    }
}

struct Walk<'p, 'a> {
    program: &'p Program<'a>,
    sources: Vec<Source>,
    replaced: Vec<Replaced>,
    pasts: Vec<Option<Rc<Past>>>,
    keep: Vec<bool>,
    /// How many steps that are not done come just before.
    waiting: Vec<u32>,
    /// The steps just after.
    next: Vec<Vec<usize>>,
    /// How many of those have not taken over the past.
    uses: Vec<u32>,
    done: Vec<bool>,
    ready: BinaryHeap<Reverse<(usize, usize)>>,
}

impl<'p, 'a> Walk<'p, 'a> {
    fn new(program: &'p Program<'a>, keep: &[usize]) -> Self {
        let count = program.steps.len();
        let mut walk = Self {
            program,
            sources: program.sources.clone(),
            replaced: Vec::new(),
            pasts: vec![None; count],
            keep: vec![false; count],
            waiting: vec![0; count],
            next: vec![Vec::new(); count],
            uses: vec![0; count],
            done: vec![false; count],
            ready: BinaryHeap::new(),
        };
        for &at in keep {
            walk.keep[at] = true;
        }
        // Whoever finds one of several deletes is told apart by the pasts of the writes of the key.
        let mut open = vec![false; program.keys.len()];
        for (step, source) in program.steps.iter().zip(&program.sources) {
            open[step.key] |= *source == Source::Open;
        }
        for at in 0..count {
            let step = &program.steps[at];
            walk.keep[at] |= step.leaves().is_some() && open[step.key];
            for before in before(program, &walk.sources, at) {
                walk.waiting[at] += 1;
                walk.next[before].push(at);
                walk.uses[before] += 1;
            }
        }
        for at in 0..count {
            if walk.waiting[at] == 0 {
                walk.is_ready(at);
            }
        }
        walk
    }

    fn is_ready(&mut self, at: usize) {
        self.ready.push(Reverse((self.program.steps[at].source.invoke_line, at)));
    }

    fn run(&mut self, nulls: &mut Nulls<'_>) -> Result<(), Broken> {
        while let Some(Reverse((_, at))) = self.ready.pop() {
            let step = &self.program.steps[at];
            let (mut past, mut found_past) = self.take_past(at);
            if self.sources[at] == Source::Open {
                let source = self.look(at, &past, nulls)?;
                if let Some(Source::Step(delete)) = source {
                    self.sources[at] = Source::Step(delete);
                    if !self.done[delete] {
                        self.wait(at, delete, past);
                        continue;
                    }
                    let kept = self.kept(delete);
                    past.join(&kept);
                    found_past = Some(kept);
                } else if source == Some(Source::Initial) {
                    self.sources[at] = Source::Initial;
                }
            }
            match self.sources[at] {
                Source::Initial => {
                    if let Some(&write) = self.seen(at, &past).first() {
                        return Err(Broken::Initial(at, write));
                    }
                }
                Source::Step(found) => self.replace(at, found, &past, found_past.as_deref()),
                Source::Nothing | Source::Open => {}
            }
            self.done[at] = true;
            if self.uses[at] > 0 || self.keep[at] {
                past.put(step);
                self.pasts[at] = Some(Rc::new(past));
            }
            for next in std::mem::take(&mut self.next[at]) {
                self.waiting[next] -= 1;
                if self.waiting[next] == 0 {
                    self.is_ready(next);
                }
            }
        }
        let left: Vec<usize> = (0..self.done.len()).filter(|&at| !self.done[at]).collect();
        if left.is_empty() { Ok(()) } else { Err(Broken::Cycle(left)) }
    }

    /// The past of a step, without itself; and that of what it found. Pasts that nobody else needs are
    /// dropped.
    fn take_past(&mut self, at: usize) -> (Past, Option<Rc<Past>>) {
        let found = match self.sources[at] {
            Source::Step(found) => self.pasts[found].clone(),
            _ => None,
        };
        if let (Some(waited), Some(found)) = (self.pasts[at].take(), &found) {
            let mut past = Rc::unwrap_or_clone(waited);
            past.join(found);
            return (past, Some(Rc::clone(found)));
        }
        let mut past: Option<Past> = None;
        let before: Vec<usize> = before(self.program, &self.sources, at).collect();
        for before in before {
            self.uses[before] -= 1;
            let last = self.uses[before] == 0 && !self.keep[before];
            let known = if last { self.pasts[before].take() } else { self.pasts[before].clone() };
            let known = known.expect("a past is kept for those that need it");
            match &mut past {
                None => past = Some(Rc::unwrap_or_clone(known)),
                Some(past) => past.join(&known),
            }
        }
        let past = past.unwrap_or_else(|| Past {
            clock: Clock::new(self.program.chains),
            loose: vec![0; self.program.loose.div_ceil(64)],
        });
        (past, found)
    }

    fn kept(&self, at: usize) -> Rc<Past> {
        self.pasts[at].clone().expect("the writes of a key with open questions are kept")
    }

    /// Lets a step wait for the delete it is said to have found.
    fn wait(&mut self, at: usize, delete: usize, past: Past) {
        self.pasts[at] = Some(Rc::new(past));
        self.waiting[at] = 1;
        self.next[delete].push(at);
    }

    /// The last writes of its key that a step had to take into account.
    fn seen(&self, at: usize, past: &Past) -> Vec<usize> {
        let step = &self.program.steps[at];
        let writes = &self.program.writes[step.key];
        let log = step.level.is_log();
        let by_chain = if log { &writes.log_by_chain } else { &writes.by_chain };
        let mut seen = Vec::new();
        for (&chain, of_chain) in by_chain {
            seen.extend(of_chain.upto(past.clock.of(chain)).next_back());
        }
        for of_process in writes.loose.values() {
            let held = |&&write: &&usize| {
                let write = &self.program.steps[write];
                (!log || write.level.is_log()) && past.holds(write)
            };
            seen.extend(of_process.iter().rev().find(held));
        }
        if log {
            seen.extend(&self.program.own_writes[at]);
        }
        seen
    }

    /// Notes what a found write replaced. What was in its own past it replaced anyway.
    fn replace(&mut self, finder: usize, found: usize, past: &Past, found_past: Option<&Past>) {
        for older in self.seen(finder, past) {
            let step = &self.program.steps[older];
            if older != found && !found_past.is_some_and(|past| past.holds(step)) {
                self.replaced.push(Replaced { older, newer: found, finder });
            }
        }
    }

    /// What a step found that found a key absent; `None`: that stays open.
    fn look(
        &self,
        at: usize,
        past: &Past,
        nulls: &mut Nulls<'_>,
    ) -> Result<Option<Source>, Broken> {
        let seen = self.seen(at, past);
        // Nothing replaced the initial state. To have seen a delete instead would only add to the past.
        let Some(&write) = seen.first() else { return Ok(Some(Source::Initial)) };
        let steps = &self.program.steps;
        let is_before = |one: usize, other: usize| {
            let past = self.pasts[other].as_ref();
            one != other && past.is_some_and(|past| past.holds(&steps[one]))
        };
        let deletes = |write: &&usize| steps[**write].leaves() == Some(None);
        // A delete after all else that was to be seen: to have found it adds nothing.
        let last = |delete: &&usize| {
            seen.iter().all(|&other| other == **delete || is_before(other, **delete))
        };
        if let Some(&delete) = seen.iter().filter(deletes).find(last) {
            return Ok(Some(Source::Step(delete)));
        }
        let of_key = &self.program.writes[steps[at].key].deletes;
        let line = |at: usize| steps[at].source.invoke_line;
        let mut in_past: Vec<usize> = seen.iter().filter(deletes).copied().collect();
        let possible = |delete: &usize| {
            let carries = steps[*delete].level != Level::Eventual;
            let mine = steps[*delete].source.process == steps[at].source.process;
            let comes_later = mine && carries && line(*delete) > line(at);
            !comes_later && !seen.iter().any(|&other| is_before(*delete, other))
        };
        let others = of_key.iter().copied().filter(|delete| !in_past.contains(delete));
        match nulls {
            Nulls::Open => {
                let mut all = in_past.iter().copied().chain(others);
                let open = all.any(|delete| possible(&delete));
                if open { Ok(None) } else { Err(Broken::Absent(at, write)) }
            }
            Nulls::Guessed(guesses) => {
                // The likeliest first: the latest of what it had to see, if that is a delete; the first that
                // began after that; the other ones it had to see; and the rest.
                let rank = |at: usize| self.program.ranks[at];
                let newest = seen.iter().map(|&write| rank(write)).max().unwrap_or_default();
                let begun = |delete: usize| line(delete) < steps[at].line();
                let (mut newer, mut older): (Vec<usize>, Vec<usize>) =
                    others.partition(|&delete| rank(delete) > newest && begun(delete));
                newer.sort_unstable_by_key(|&delete| rank(delete));
                older.sort_unstable_by_key(|&delete| Reverse(rank(delete)));
                in_past.sort_unstable_by_key(|&delete| Reverse(rank(delete)));
                let latest = in_past.first().is_some_and(|&delete| rank(delete) == newest);
                let (first, third) = in_past.split_at(usize::from(latest));
                let candidates = first.iter().chain(&newer).chain(third).chain(&older).copied();
                match guesses.choose(candidates.filter(possible)) {
                    Some(delete) => Ok(Some(Source::Step(delete))),
                    None => Err(Broken::Absent(at, write)),
                }
            }
        }
    }
}
