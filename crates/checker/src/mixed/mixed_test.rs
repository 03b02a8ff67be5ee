//! Against a log that takes local writes in when it likes, and against the definitions, by trying every order.

use super::*;
use crate::history::Extras;
use crate::numbers::Numbers;
use crate::{linearizable, sequential};

type Cell = (Option<i64>, Option<Version>);

/// A log, local writes on their way to it, and clients.
struct World {
    random: Numbers,
    line: usize,
    time: u64,
    /// What each key held after each entry, with the entry's place; all keys in one order.
    log: Vec<(Version, String, Option<i64>, Version)>,
    unfolded: Vec<(usize, String, Option<i64>, Version)>,
    /// Where each session stands.
    stands: BTreeMap<u64, usize>,
    operations: Vec<Operation>,
    folded: Vec<Folded>,
    /// The versions do not tell the order of the writes.
    by_values: bool,
}

const KEYS: [&str; 2] = ["x", "y"];

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: Numbers(seed),
            line: 0,
            time: 0,
            log: vec![],
            unfolded: vec![],
            stands: BTreeMap::new(),
            operations: vec![],
            folded: vec![],
            by_values: false,
        }
    }

    /// Lets the answer to some log write be without its version. Whether there is one.
    fn hide_a_version(&mut self) -> bool {
        let is_log = |op: &Operation| op.extras.level.as_deref() != Some("causal");
        let writes =
            |op: &&mut Operation| is_log(op) && !matches!(op.micro_ops[0], MicroOp::Read { .. });
        let hidden = self.operations.iter_mut().find(writes);
        self.by_values = hidden.is_some();
        hidden.map(|operation| operation.extras.version = None).is_some()
    }

    fn cell(&self, key: &str, place: usize) -> Cell {
        let found = self.log[..place].iter().rev().find(|(_, of, ..)| of == key);
        found.map_or((None, None), |(.., value, version)| (*value, Some(version.clone())))
    }

    /// Folds one that waits, if any does: it has an effect if nothing later is there.
    fn fold(&mut self, at: usize) {
        let (_, key, value, version) = self.unfolded.remove(at);
        self.time += 1;
        let place = Version(vec![self.time, 0]);
        if self.cell(&key, self.log.len()).1.is_none_or(|there| there < version) {
            self.log.push((place.clone(), key.clone(), value, version.clone()));
            self.folded.push(Folded { key, value, version, place });
        }
    }

    fn step(&mut self) {
        if !self.unfolded.is_empty() && self.random.percent(33) {
            let at = self.random.below(self.unfolded.len());
            return self.fold(at);
        }
        let process = self.random.below(2) as u64;
        let key = KEYS[self.random.below(2)].to_string();
        let level = ["strict", "sequential", "causal"][self.random.below(3)];
        self.line += 1;
        let invoke_line = self.line;
        self.time += 1;
        let reads = self.random.percent(50);
        let value = self.random.percent(75).then_some(self.time as i64);
        let write = match value {
            Some(value) => MicroOp::Write { key: key.clone(), value },
            None => MicroOp::Delete { key: key.clone() },
        };
        let (micro_op, version) = match (level, reads) {
            ("causal", true) => return,
            ("causal", false) => {
                let version = Version(vec![self.time]);
                let of = process as usize;
                self.unfolded.push((of, key, value, version.clone()));
                (write, Some(version))
            }
            (level, reads) => {
                // What the session wrote locally is folded ahead of it.
                while let Some(at) = self
                    .unfolded
                    .iter()
                    .position(|(of, of_key, ..)| *of == process as usize && *of_key == key)
                {
                    self.fold(at);
                }
                let stands = self.stands.entry(process).or_default();
                if reads {
                    let own: Vec<_> = self.folded.iter().map(|f| f.place.clone()).collect();
                    let last_own = self.log.iter().rposition(|(place, ..)| own.contains(place));
                    let least = if level == "strict" { self.log.len() } else { *stands };
                    let least = least.max(last_own.map_or(0, |at| at + 1));
                    let place = least + self.random.below(self.log.len() + 1 - least);
                    *stands = place.max(*stands);
                    let (seen, version) = self.cell(&key, place);
                    let version = version.filter(|_| seen.is_some());
                    let value = seen.map_or(Value::Absent, Value::Integer);
                    (MicroOp::Read { key, value }, version)
                } else {
                    self.time += 1;
                    let place = Version(vec![self.time, 1]);
                    self.log.push((place.clone(), key, value, place.clone()));
                    *stands = self.log.len();
                    (write, Some(place))
                }
            }
        };
        self.line += 1;
        self.operations.push(Operation {
            process,
            invoke_line,
            return_line: Some(self.line),
            micro_ops: vec![micro_op],
            outcome: Outcome::Ok,
            extras: Extras { level: Some(level.into()), version, ..Extras::default() },
        });
    }

    fn history(seed: u64, steps: usize) -> Self {
        let mut world = Self::new(seed);
        (0..steps).for_each(|_| world.step());
        world
    }

    /// Lets some read have seen something else of its key.
    fn change_a_read(&mut self) -> bool {
        let reads: Vec<_> = (0..self.operations.len())
            .filter(|at| matches!(self.operations[*at].micro_ops[0], MicroOp::Read { .. }))
            .collect();
        if reads.is_empty() {
            return false;
        }
        let at = reads[self.random.below(reads.len())];
        let key = self.operations[at].micro_ops[0].key().to_owned();
        let place = self.random.below(self.log.len() + 1);
        let (seen, version) = self.cell(&key, place);
        let value = seen.map_or(Value::Absent, Value::Integer);
        let read = MicroOp::Read { key, value };
        let is_other = read != self.operations[at].micro_ops[0];
        self.operations[at].micro_ops[0] = read;
        self.operations[at].extras.version = version.filter(|_| seen.is_some());
        is_other
    }

    fn is_linearizable(&self) -> bool {
        let operations = strict(&self.operations, &self.folded);
        let budget = linearizable::Budget::default();
        let report = linearizable::check_operations(&operations, budget);
        report.verdict == linearizable::Verdict::Linearizable
    }

    fn is_sequential(&self) -> bool {
        let budget = sequential::Budget::default();
        let report = sequential::check_mixed(&self.operations, &self.folded, budget);
        report.verdict == sequential::Verdict::Sequential
    }

    fn fold_of(&self, operation: &Operation) -> Option<&Folded> {
        let version = operation.extras.version.as_ref();
        self.folded.iter().find(|folded| Some(&folded.version) == version)
    }

    /// The definitions. `strict`: one order in which whatever returned before another was sent is before it; a
    /// local write anywhere after it was sent, or nowhere. Else: one order in which the places of the writes
    /// rise, if they tell, and every session is in its order.
    fn some_order_exists(&self, strict: bool) -> bool {
        let judged = |op: &&Operation| match op.extras.level.as_deref() {
            Some("causal") => self.fold_of(op).is_some(),
            Some("strict") => true,
            _ => !strict || !matches!(op.micro_ops[0], MicroOp::Read { .. }),
        };
        let left: Vec<_> = self.operations.iter().filter(judged).collect();
        self.extend(&left, &BTreeMap::new(), None, strict)
    }

    fn extend(
        &self,
        left: &[&Operation],
        cells: &BTreeMap<String, Cell>,
        last: Option<&Version>,
        strict: bool,
    ) -> bool {
        let is_local = |op: &Operation| op.extras.level.as_deref() == Some("causal");
        if left.iter().all(|op| strict && is_local(op)) {
            return true;
        }
        let is_before = |a: &Operation, b: &Operation| {
            let earlier = a.return_line < Some(b.invoke_line);
            let same_session = a.process == b.process && earlier;
            let same_key = a.micro_ops[0].key() == b.micro_ops[0].key();
            match (strict, is_local(a)) {
                (true, local) => !local && earlier,
                // Of two local ones that both had an effect the first was there first: the other is larger.
                (false, true) => same_session && same_key,
                (false, false) => same_session,
            }
        };
        (0..left.len()).any(|at| {
            let mut rest = left.to_vec();
            let next = rest.remove(at);
            if rest.iter().any(|other| is_before(other, next)) {
                return false;
            }
            let place = match self.fold_of(next) {
                Some(folded) if is_local(next) => Some(&folded.place),
                _ => next.extras.version.as_ref(),
            };
            let key = next.micro_ops[0].key();
            let now = cells.get(key).cloned().unwrap_or_default();
            let value = match &next.micro_ops[0] {
                MicroOp::Read { value, .. } => {
                    let holds = now.0.map_or(Value::Absent, Value::Integer);
                    return *value == holds && self.extend(&rest, cells, last, strict);
                }
                MicroOp::Write { value, .. } => Some(*value),
                _ => None,
            };
            if !strict && !self.by_values && place <= last {
                return false;
            }
            let mut cells = cells.clone();
            cells.insert(key.to_owned(), (value, place.cloned()));
            self.extend(&rest, &cells, place, strict)
        })
    }
}

#[test]
fn what_a_log_answers_fits_whenever_it_took_local_writes_in() {
    for seed in 0..400 {
        let world = World::history(seed, 60);
        assert!(world.is_linearizable(), "seed {seed}: {:#?}", world.operations);
        assert!(world.is_sequential(), "seed {seed}: {:#?}", world.operations);
    }
}

#[test]
fn both_projections_are_judged_as_their_definitions_say() {
    let mut counts = [[0; 2]; 2];
    for seed in 0..6_000 {
        let mut world = World::history(seed, 10);
        if !world.change_a_read() {
            continue;
        }
        for (strict, judged) in [(true, world.is_linearizable()), (false, world.is_sequential())] {
            let expected = world.some_order_exists(strict);
            assert_eq!(
                judged, expected,
                "seed {seed}, strict: {strict}: {:#?} {:#?}",
                world.operations, world.folded
            );
            counts[usize::from(strict)][usize::from(expected)] += 1;
        }
    }
    assert!(counts.iter().flatten().all(|count| *count > 200), "{counts:?}");
}

/// Then an order is searched for, in which a local write stands where its session's other keys do not matter.
#[test]
fn where_versions_do_not_tell_the_values_are_judged_as_the_definition_says() {
    let mut counts = [0; 2];
    for seed in 0..6_000 {
        let mut world = World::history(seed, 10);
        if !world.hide_a_version() || (seed % 2 == 0 && !world.change_a_read()) {
            continue;
        }
        let (judged, expected) = (world.is_sequential(), world.some_order_exists(false));
        assert_eq!(judged, expected, "seed {seed}: {:#?} {:#?}", world.operations, world.folded);
        counts[usize::from(expected)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 200), "{counts:?}");
}

/// Without deletes, which no answer tells apart: what is judged by what was shown is judged as by the definition, which
/// knows every fold.
#[test]
fn what_was_shown_is_enough_to_judge_the_strict_projection() {
    let mut counts = [0; 2];
    for seed in 0..20_000 {
        let mut world = World::history(seed, 10);
        if seed % 2 == 0 {
            world.change_a_read();
        }
        let deletes = |op: &Operation| matches!(op.micro_ops[0], MicroOp::Delete { .. });
        if world.operations.iter().any(deletes) {
            continue;
        }
        // As a store's do, the versions of log writes and of local ones compare: the world's begin with the time.
        let operations = strict(&world.operations, &shown(&world.operations));
        let report = linearizable::check_operations(&operations, linearizable::Budget::default());
        let judged = report.verdict == linearizable::Verdict::Linearizable;
        let expected = world.some_order_exists(true);
        assert_eq!(judged, expected, "seed {seed}: {:#?} {:#?}", world.operations, world.folded);
        counts[usize::from(expected)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 200), "{counts:?}");
}

/// Of a local write whose outcome its client was not told its value says which it is; of a delete nothing does.
#[test]
fn writes_that_nobody_heard_of_are_found_in_the_log() {
    for seed in 0..2_000 {
        let mut world = World::history(seed, 30);
        for operation in &mut world.operations {
            if operation.extras.level.as_deref() == Some("causal") && operation.process == 0 {
                operation.outcome = Outcome::Info;
                operation.return_line = None;
                operation.extras.version = None;
            }
        }
        assert!(world.is_linearizable(), "seed {seed}");
        assert!(world.is_sequential(), "seed {seed}");
    }
}

#[test]
fn a_value_that_no_fold_brought_is_rejected() {
    let mut world = World::history(0, 60);
    let shows = |world: &World, folded: &Folded| {
        world.operations.iter().any(|op| {
            let read = MicroOp::Read {
                key: folded.key.clone(),
                value: folded.value.map_or(Value::Absent, Value::Integer),
            };
            let is_strict = op.extras.level.as_deref() == Some("strict");
            is_strict && op.micro_ops[0] == read && folded.value.is_some()
        })
    };
    let at = (1..).find_map(|seed| {
        world = World::history(seed, 60);
        world.folded.iter().position(|folded| shows(&world, folded))
    });
    world.folded.remove(at.unwrap());
    assert!(!world.is_linearizable() && !world.is_sequential());
}
