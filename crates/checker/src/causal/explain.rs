//! What is said of a bad pattern, so that a person can follow it.

use std::collections::{HashMap, VecDeque};

use super::Pattern;
use super::program::{Program, Source};
use super::walk::{Broken, Nulls, Replaced, before, walk};
use crate::history::Outcome;
use crate::linearizable::register::{Action, show};
use crate::{Cited, Violation};

/// Why a step comes before another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hop {
    /// In its session.
    Session,
    /// The second saw the first.
    Saw,
    /// Both are of one session and one key, and the second is eventual.
    Own,
    /// This step found the second though the first was in its past.
    Replaced(usize),
}

/// From a step to one after it.
type Path = Vec<(usize, Hop, usize)>;

pub(super) struct Explain<'p, 'a> {
    program: &'p Program<'a>,
    sources: &'p [Source],
}

impl<'p, 'a> Explain<'p, 'a> {
    pub(super) fn new(program: &'p Program<'a>) -> Self {
        Self { program, sources: &program.sources }
    }

    /// With what the steps found.
    pub(super) fn with_sources(self, sources: &'p [Source]) -> Self {
        Self { sources, ..self }
    }

    /// A value that only a conditional write could have left that found what was never there.
    pub(super) fn thin_swap(&self) -> Option<Violation> {
        let swap = self.program.thin_swap?;
        let steps = &self.program.steps;
        let finder = self.sources.iter().position(|&source| source == Source::Step(swap))?;
        let action = steps[swap].action?;
        let why = format!(
            "line {} found {}, which only line {} could have left, by replacing {}; but nobody ever wrote \
             that",
            self.line(finder),
            show(action.leaves()?),
            self.line(swap),
            show(action.finds()?),
        );
        let operations = self.cite([swap, finder]);
        Some(Violation { key: self.key(swap), rule: "a value from thin air", operations, why })
    }

    pub(super) fn broken(&self, broken: &Broken) -> (Pattern, Violation) {
        match broken {
            Broken::Cycle(left) => {
                let cycle = self.cycle(left);
                let saw = cycle.iter().find(|(_, hop, _)| *hop == Hop::Saw);
                let at = saw.map_or(left[0], |&(from, ..)| from);
                let why = format!("each is in the past of the next: {}", self.told(&cycle));
                let rule = "an operation is in its own past";
                (Pattern::CyclicCO, self.violation(at, rule, &cycle, &[], why))
            }
            &Broken::Initial(finder, write) | &Broken::Absent(finder, write) => {
                let path = self.path(write, finder);
                let no_delete = match broken {
                    Broken::Absent(..) => {
                        ", and every delete of it that could have been seen is older"
                    }
                    _ => "",
                };
                let why = format!(
                    "line {} found {} absent, though {} of line {} is in its past{no_delete}: {}",
                    self.line(finder),
                    self.key(finder),
                    self.left(write),
                    self.line(write),
                    self.told(&path),
                );
                let rule = "absent though a write of it is in the past";
                let violation = self.violation(finder, rule, &path, &[finder, write], why);
                (Pattern::WriteCOInitRead, violation)
            }
        }
    }

    /// The writes have no order: these steps are on cycles.
    pub(super) fn no_order(
        &self,
        on_cycle: &[bool],
        replaced: &[Replaced],
    ) -> (Pattern, Violation) {
        let mut edges: Vec<&Replaced> =
            replaced.iter().filter(|edge| on_cycle[edge.older] && on_cycle[edge.newer]).collect();
        edges.sort_by_key(|edge| self.line(edge.finder));
        if let Some(edge) = self.overwritten(&edges) {
            let (newer, older) =
                (self.path(edge.newer, edge.older), self.path(edge.older, edge.finder));
            let why = format!(
                "line {} found {} of line {}, though {} of line {} had replaced it in its past: {}; {}",
                self.line(edge.finder),
                self.left(edge.newer),
                self.line(edge.newer),
                self.left(edge.older),
                self.line(edge.older),
                self.told(&newer),
                self.told(&older),
            );
            let rule = "a value that the past had replaced";
            let path: Path = newer.into_iter().chain(older).collect();
            let others = [edge.finder, edge.newer, edge.older];
            let violation = self.violation(edge.finder, rule, &path, &others, why);
            return (Pattern::WriteCORead, violation);
        }
        let mut best: Option<Path> = None;
        let found = edges.iter().map(|edge| (edge.older, Hop::Replaced(edge.finder), edge.newer));
        let own = self.program.own_order.iter().map(|&(older, newer)| (older, Hop::Own, newer));
        let own = own.filter(|&(older, _, newer)| on_cycle[older] && on_cycle[newer]);
        let closing: Vec<(usize, Hop, usize)> = found.chain(own).collect();
        let mut incoming: HashMap<usize, Vec<(usize, Hop)>> = HashMap::new();
        for &(older, hop, newer) in &closing {
            incoming.entry(newer).or_default().push((older, hop));
        }
        for (tried, &closing) in closing.iter().enumerate() {
            if tried >= CYCLES_TRIED && best.is_some() {
                break;
            }
            let (older, _, newer) = closing;
            let Some(mut cycle) = self.back(older, newer, on_cycle, &incoming) else { continue };
            cycle.push(closing);
            if best.as_ref().is_none_or(|best| cycle.len() < best.len()) {
                best = Some(cycle);
            }
        }
        let cycle = best.expect("a cycle of the order is none of the pasts alone");
        let at = cycle.last().map_or(0, |&(from, ..)| from);
        let why = format!("no order of the writes fits: {}", self.told(&cycle));
        let rule = "two writes of which each won";
        (Pattern::CyclicCF, self.violation(at, rule, &cycle, &[], why))
    }

    /// The first of some pairs whose older write had the newer in its past.
    fn overwritten<'e>(&self, edges: &[&'e Replaced]) -> Option<&'e Replaced> {
        let keep: Vec<usize> = edges.iter().map(|edge| edge.older).collect();
        let settled = Program { sources: self.sources.to_vec(), ..self.program.clone() };
        let (_, walked) = walk(&settled, &mut Nulls::Open, &keep);
        let pasts = walked.ok()?.pasts;
        edges.iter().copied().find(|edge| {
            let past = pasts[edge.older].as_ref();
            past.is_some_and(|past| past.holds(&self.program.steps[edge.newer]))
        })
    }

    /// The shortest way from a newer write back to the older one, among the steps on cycles.
    fn back(
        &self,
        older: usize,
        newer: usize,
        on_cycle: &[bool],
        incoming: &HashMap<usize, Vec<(usize, Hop)>>,
    ) -> Option<Path> {
        let mut came: Vec<Option<(usize, Hop)>> = vec![None; self.program.steps.len()];
        let mut queue = VecDeque::from([older]);
        while let Some(at) = queue.pop_front() {
            if at == newer {
                return Some(follow(&came, newer, older));
            }
            let before = self.hops(at);
            let others = incoming.get(&at).into_iter().flatten().copied();
            for (from, hop) in before.chain(others) {
                if on_cycle[from] && came[from].is_none() && from != older {
                    came[from] = Some((at, hop));
                    queue.push_back(from);
                }
            }
        }
        None
    }

    /// The shortest way by which a step comes to be in another's past.
    fn path(&self, from: usize, to: usize) -> Path {
        let mut came: Vec<Option<(usize, Hop)>> = vec![None; self.program.steps.len()];
        let mut queue = VecDeque::from([to]);
        while let Some(at) = queue.pop_front() {
            if at == from {
                return follow(&came, from, to);
            }
            for (before, hop) in self.hops(at) {
                if came[before].is_none() && before != to {
                    came[before] = Some((at, hop));
                    queue.push_back(before);
                }
            }
        }
        Vec::new()
    }

    /// A cycle among steps of which each waits for another of them.
    fn cycle(&self, left: &[usize]) -> Path {
        let among = |at: usize| left.binary_search(&at).is_ok();
        let mut way: Path = Vec::new();
        let mut position = vec![None; self.program.steps.len()];
        let mut at = left[0];
        while position[at].is_none() {
            position[at] = Some(way.len());
            let before = self.hops(at).find(|&(before, _)| among(before));
            let (before, hop) = before.expect("it waits for one of them");
            way.push((before, hop, at));
            at = before;
        }
        let mut cycle = way.split_off(position[at].unwrap_or_default());
        cycle.reverse();
        cycle
    }

    fn hops(&self, at: usize) -> impl Iterator<Item = (usize, Hop)> + use<'_, 'p, 'a> {
        let after = &self.program.steps[at].after;
        let hop = |before| if after.contains(&before) { Hop::Session } else { Hop::Saw };
        before(self.program, self.sources, at).map(move |before| (before, hop(before)))
    }

    /// A path in words. A walk along sessions is one step.
    fn told(&self, path: &Path) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut rest = path.as_slice();
        while let Some(&(from, hop, mut to)) = rest.first() {
            rest = &rest[1..];
            while hop == Hop::Session
                && let Some(&(_, Hop::Session, further)) = rest.first()
            {
                to = further;
                rest = &rest[1..];
            }
            let (one, other) = (self.line(from), self.line(to));
            let processes = [from, to].map(|at| self.program.steps[at].source.process);
            parts.push(match hop {
                // The two halves of an eventual write.
                Hop::Session if one == other => continue,
                Hop::Session if processes[0] == processes[1] => {
                    format!("line {one} comes before line {other} in process {}", processes[0])
                }
                Hop::Session => format!(
                    "line {one} of process {} comes before line {other} of process {} by a token",
                    processes[0], processes[1]
                ),
                Hop::Saw => format!("line {other} found {} of line {one}", self.left(from)),
                Hop::Own => format!("line {other} is a later write of line {one}'s session"),
                Hop::Replaced(finder) => format!(
                    "line {} found {} of line {other} with {} of line {one} in its past",
                    self.line(finder),
                    self.left(to),
                    self.left(from),
                ),
            });
        }
        parts.join("; ")
    }

    fn violation(
        &self,
        at: usize,
        rule: &'static str,
        path: &Path,
        others: &[usize],
        why: String,
    ) -> Violation {
        let mut cited: Vec<usize> = others.to_vec();
        for (at, &(from, hop, to)) in path.iter().enumerate() {
            // Of a walk along sessions, its ends.
            let follows =
                |next: usize| path.get(next).is_some_and(|&(_, other, _)| other == Hop::Session);
            let session = hop == Hop::Session;
            if !(session && at > 0 && follows(at - 1)) {
                cited.push(from);
            }
            if !(session && follows(at + 1)) {
                cited.push(to);
            }
            if let Hop::Replaced(finder) = hop {
                cited.push(finder);
            }
        }
        Violation { key: self.key(at), rule, operations: self.cite(cited), why }
    }

    fn cite(&self, steps: impl IntoIterator<Item = usize>) -> Vec<Cited> {
        let steps = steps.into_iter().map(|at| &self.program.steps[at]);
        let mut cited: Vec<_> = steps.map(|step| Cited::across(step.source)).collect();
        cited.sort();
        cited.dedup();
        cited
    }

    fn line(&self, at: usize) -> usize {
        self.program.steps[at].line()
    }

    fn key(&self, at: usize) -> String {
        self.program.keys[self.program.steps[at].key].to_owned()
    }

    /// What a write left: `x = 1`, or of a delete `x = null`.
    fn left(&self, at: usize) -> String {
        let step = &self.program.steps[at];
        let left = step.action.and_then(Action::leaves);
        debug_assert!(step.source.outcome != Outcome::Fail, "a failed write leaves nothing");
        format!("{} = {}", self.key(at), left.map_or_else(|| "something".to_owned(), show))
    }
}

fn follow(came: &[Option<(usize, Hop)>], from: usize, to: usize) -> Path {
    let (mut path, mut at) = (Vec::new(), from);
    while at != to {
        let Some((next, hop)) = came[at] else { break };
        path.push((at, hop, next));
        at = next;
    }
    path
}

/// Cycles that are compared to show the shortest.
const CYCLES_TRIED: usize = 32;
