//! A history as steps on registers, with what is known of their order before anybody is asked what an
//! absent key shows.
//!
//! Step `i` is operation `i`. An acknowledged eventual write is two steps: the write, which nothing comes
//! before, and the operation, which hands on its session's past and has the write in it:
//!
//! ```text
//!   process 0 ─▶ w x 1 ─────▶ (operation) ─▶ r x          r has both writes in its past;
//!                   w x 2 ──────▲                         who sees x = 2 elsewhere has not x = 1
//! ```

use std::collections::{BTreeMap, HashMap};

use super::Doubt;
use crate::Cited;
use crate::history::{Operation, Outcome, Version};
use crate::levels::Level;
use crate::linearizable::register::{Action, State, action};
use crate::session_order::{Place, SessionOrder};

/// Something that happened to a key, or that hands on a past.
#[derive(Clone, Debug)]
pub(super) struct Step<'a> {
    pub(super) source: &'a Operation,
    /// What it does to the register. `None`: nothing, or nothing that is judged.
    pub(super) action: Option<Action>,
    /// The number of the key, if `action` is something.
    pub(super) key: usize,
    pub(super) level: Level,
    /// Where on its session it is. Of an acknowledged eventual write: where its operation is. `None`: its
    /// outcome is unknown.
    pub(super) place: Option<Place>,
    /// Its number among the steps that are in a past only if somebody saw them: unknown writes, and
    /// eventual ones.
    pub(super) loose: Option<usize>,
    /// The steps just before it. What comes before those does too.
    pub(super) after: Vec<usize>,
}

impl Step<'_> {
    /// The state it leaves, if it writes.
    pub(super) fn leaves(&self) -> Option<State> {
        self.action.and_then(Action::leaves)
    }

    /// The line by which what it did was known.
    pub(super) fn line(&self) -> usize {
        self.source.return_line.unwrap_or(self.source.invoke_line)
    }

    /// Whether it certainly happened.
    pub(super) fn is_certain(&self) -> bool {
        !self.source.outcome.is_unknown()
    }
}

/// What a step found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// It did not look, or may not have happened.
    Nothing,
    /// The initial state.
    Initial,
    /// What this step wrote.
    Step(usize),
    /// An absent key that some delete may have left.
    Open,
}

/// Writes of a key that are on one chain, in its order: the place of each, and the step.
#[derive(Clone, Debug, Default)]
pub(super) struct Line(Vec<(u32, usize)>);

impl Line {
    /// Those up to a place of the chain.
    pub(super) fn upto(&self, place: u32) -> impl DoubleEndedIterator<Item = usize> + '_ {
        let count = match self.0.last() {
            // Most have seen all of a chain that ended.
            Some(&(last, _)) if last <= place => self.0.len(),
            _ => self.0.partition_point(|&(at, _)| at <= place),
        };
        self.0[..count].iter().map(|&(_, step)| step)
    }
}

/// The writes of a key.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes {
    /// The certain ones by chain, in its order.
    pub(super) by_chain: BTreeMap<usize, Line>,
    /// As `by_chain`, but of the log only.
    pub(super) log_by_chain: BTreeMap<usize, Line>,
    /// The loose ones by process, in its order.
    pub(super) loose: BTreeMap<u64, Vec<usize>>,
    /// Those that may have left it absent, in the order of their lines.
    pub(super) deletes: Vec<usize>,
}

/// All sessions.
#[derive(Clone, Debug)]
pub(super) struct Program<'a> {
    pub(super) operations: &'a [Operation],
    /// The keys, by number.
    pub(super) keys: Vec<&'a str>,
    pub(super) steps: Vec<Step<'a>>,
    pub(super) sources: Vec<Source>,
    /// An unknown conditional write that was seen, though what it asked for was never there.
    pub(super) thin_swap: Option<usize>,
    /// By key.
    pub(super) writes: Vec<Writes>,
    /// The likely order of the writes, for guesses only: by version if all that were acknowledged show one,
    /// else by line.
    pub(super) ranks: Vec<usize>,
    pub(super) chains: usize,
    /// How many steps are loose.
    pub(super) loose: usize,
    /// Of a step that looks into the log: the last local writes of its own session to its key.
    pub(super) own_writes: Vec<Vec<usize>>,
    /// Writes of one session to one key, of which the second is eventual: it is above the first, though it
    /// does not carry it.
    pub(super) own_order: Vec<(usize, usize)>,
}

impl<'a> Program<'a> {
    /// Takes the operations of a history, in the order of their invocations.
    pub(super) fn new(operations: &'a [Operation]) -> Result<Self, Doubt> {
        let order = SessionOrder::new(operations);
        let mut program = Self {
            operations,
            keys: Vec::new(),
            steps: Vec::with_capacity(operations.len()),
            sources: Vec::new(),
            thin_swap: None,
            writes: Vec::new(),
            ranks: Vec::new(),
            chains: order.chains,
            loose: 0,
            own_writes: Vec::new(),
            own_order: Vec::new(),
        };
        program.take_steps(&order)?;
        program.find_sources()?;
        program.collect_writes();
        program.find_own(&order);
        program.rank();
        Ok(program)
    }

    fn rank(&mut self) {
        let steps = &self.steps;
        let line = |at: usize| steps[at].source.invoke_line;
        self.ranks = (0..steps.len()).map(line).collect();
        let version = |at: usize| steps[at].source.extras.version.as_ref();
        let mut writes: Vec<usize> =
            (0..steps.len()).filter(|&at| steps[at].leaves().is_some()).collect();
        if writes.iter().any(|&at| steps[at].is_certain() && version(at).is_none()) {
            return;
        }
        writes.sort_by_key(|&at| version(at));
        for (rank, &at) in writes.iter().enumerate() {
            self.ranks[at] = 2 * rank;
        }
        // An unknown write is likely to come after what was acknowledged before it began.
        writes.sort_by_key(|&at| line(at));
        let mut highest = 0;
        for at in writes {
            if steps[at].is_certain() {
                highest = highest.max(self.ranks[at]);
            } else {
                self.ranks[at] = highest + 1;
            }
        }
    }

    fn take_steps(&mut self, order: &SessionOrder) -> Result<(), Doubt> {
        let mut keys: BTreeMap<&str, usize> = BTreeMap::new();
        let mut eventual = Vec::new();
        for (at, source) in self.operations.iter().enumerate() {
            let level = Level::of(source, Level::Causal);
            let level = level.map_err(|level| Doubt::Level {
                line: source.invoke_line,
                level: level.to_owned(),
            })?;
            let does = action(source).ok_or_else(|| Doubt::NotARegister {
                line: source.invoke_line,
                text: Cited::across(source).text,
            })?;
            let key = *keys.entry(source.micro_ops[0].key()).or_insert_with_key(|key| {
                self.keys.push(*key);
                self.keys.len() - 1
            });
            let reads = matches!(does, Action::Read(_));
            let judged = match source.outcome {
                Outcome::Ok => !(reads && level == Level::Eventual),
                Outcome::Fail | Outcome::Mismatch => false,
                Outcome::Info | Outcome::Pending => !reads,
            };
            let mut step = Step {
                source,
                action: judged.then_some(does),
                key,
                level,
                place: order.places[at],
                loose: None,
                after: order.after[at].clone(),
            };
            if judged && level == Level::Eventual && step.is_certain() {
                step.action = None;
                let write = Step { action: Some(does), after: Vec::new(), ..step.clone() };
                eventual.push((at, write));
            } else if judged && level == Level::Eventual {
                step.after.clear();
            }
            self.steps.push(step);
        }
        for (at, write) in eventual {
            let number = self.steps.len();
            self.steps[at].after.push(number);
            self.steps.push(write);
        }
        for step in &mut self.steps {
            let eventual = step.level == Level::Eventual;
            if step.leaves().is_some() && (eventual || !step.is_certain()) {
                step.loose = Some(self.loose);
                self.loose += 1;
            }
        }
        Ok(())
    }

    /// Finds out who saw whom, and so which unknown writes happened.
    fn find_sources(&mut self) -> Result<(), Doubt> {
        let mut writers: HashMap<(usize, i64), usize> = HashMap::new();
        let mut deletes: BTreeMap<(usize, &Version), Option<usize>> = BTreeMap::new();
        let mut deleted = vec![false; self.keys.len()];
        for (at, step) in self.steps.iter().enumerate() {
            match step.leaves() {
                Some(Some(value)) => {
                    if let Some(other) = writers.insert((step.key, value), at) {
                        let mut lines = [other, at].map(|at| self.steps[at].source.invoke_line);
                        lines.sort_unstable();
                        let key = self.keys[step.key].to_owned();
                        return Err(Doubt::WrittenTwice { key, lines: lines.into() });
                    }
                }
                Some(None) => {
                    deleted[step.key] = true;
                    let version = step.source.extras.version.as_ref();
                    if let Some(version) = version.filter(|_| step.is_certain()) {
                        let one = |other: &mut Option<usize>| *other = None;
                        deletes.entry((step.key, version)).and_modify(one).or_insert(Some(at));
                    }
                }
                None => {}
            }
        }
        self.sources = vec![Source::Nothing; self.steps.len()];
        let looks = |step: &Step<'_>| step.action.and_then(Action::finds);
        let certain = |&at: &usize| self.steps[at].is_certain();
        let mut happened: Vec<usize> = (0..self.steps.len()).filter(certain).collect();
        while let Some(at) = happened.pop() {
            let step = &self.steps[at];
            let Some(found) = looks(step) else { continue };
            let version = step.source.extras.version.as_ref();
            let shown = version.filter(|_| matches!(step.action, Some(Action::Read(_))));
            let source = match found {
                Some(value) => writers.get(&(step.key, value)).copied(),
                None => shown.and_then(|version| *deletes.get(&(step.key, version))?),
            };
            self.sources[at] = match (source, found) {
                (Some(source), _) => {
                    if !self.steps[source].is_certain() && self.sources[source] == Source::Nothing {
                        happened.push(source);
                    }
                    Source::Step(source)
                }
                (None, None) if deleted[step.key] => Source::Open,
                (None, None) => Source::Initial,
                (None, Some(_)) => {
                    // If it is certain, it is evident from the values.
                    self.thin_swap = self.thin_swap.max((!step.is_certain()).then_some(at));
                    Source::Nothing
                }
            };
        }
        Ok(())
    }

    fn collect_writes(&mut self) {
        self.writes = vec![Writes::default(); self.keys.len()];
        let mut writes: Vec<usize> =
            (0..self.steps.len()).filter(|&at| self.steps[at].leaves().is_some()).collect();
        writes.sort_by_key(|&at| self.steps[at].source.invoke_line);
        for at in writes {
            let step = &self.steps[at];
            let of_key = &mut self.writes[step.key];
            if let Some(place) = step.place {
                of_key.by_chain.entry(place.chain).or_default().0.push((place.at, at));
                if step.level.is_log() {
                    of_key.log_by_chain.entry(place.chain).or_default().0.push((place.at, at));
                }
            }
            if step.loose.is_some() {
                of_key.loose.entry(step.source.process).or_default().push(at);
            }
            if step.leaves() == Some(None) {
                of_key.deletes.push(at);
            }
        }
    }

    fn find_own(&mut self, order: &SessionOrder) {
        let mut own_writes = vec![Vec::new(); self.steps.len()];
        let mut own_order = Vec::new();
        let eventual: HashMap<usize, usize> = (self.operations.len()..self.steps.len())
            .map(|write| (self.steps[write].source.invoke_line, write))
            .collect();
        order.walk(|at, own| {
            let step = &self.steps[at];
            // Of an acknowledged eventual write, the write itself.
            let at = eventual.get(&step.source.invoke_line).copied().unwrap_or(at);
            let step = &self.steps[at];
            let looks = step.action.and_then(Action::finds).is_some();
            if looks && step.level.is_log() {
                let by_chain = &self.writes[step.key].by_chain;
                let local = |at: &usize| !self.steps[*at].level.is_log();
                for (&chain, writes) in by_chain {
                    own_writes[at].extend(writes.upto(own.of(chain)).rfind(local));
                }
            }
            if step.leaves().is_some() && step.level == Level::Eventual {
                for (&chain, writes) in &self.writes[step.key].by_chain {
                    let last = writes.upto(own.of(chain)).next_back();
                    own_order.extend(last.map(|last| (last, at)));
                }
            }
        });
        (self.own_writes, self.own_order) = (own_writes, own_order);
    }

    /// The line of the first operation that found a key absent which several deletes may have left so.
    pub(super) fn line_open(&self) -> Option<usize> {
        let open = |at: &usize| self.sources[*at] == Source::Open;
        let lines = (0..self.steps.len()).filter(open).map(|at| self.steps[at].source.invoke_line);
        lines.min()
    }
}
