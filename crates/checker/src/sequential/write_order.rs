//! The one order of all writes, as the versions in the replies give it away.
//!
//! ```text
//!   place     0        1          2          3          n
//!   version   (none)   4.1        4.2        7.1        ...      sorted, over all keys
//!   write     (none)   x := 1     y := 1     x := 2
//!                  └────── reads at place 1: after x := 1, before y := 1
//! ```
//!
//! A version is known by the reply to its write, or by the replies to those that found it. One that
//! only the latter know belongs to a write of unknown outcome: which one is found out later.

use std::collections::BTreeMap;

use super::program::{Program, Step};
use crate::Violation;
use crate::history::Version;
use crate::linearizable::register::{State, show};

/// A write at a place in the order.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) key: usize,
    /// What it left. `None`: only mismatches found it, and it may be one of several unknown writes.
    pub(super) state: Option<State>,
    /// The step that wrote, if its reply says so.
    pub(super) owner: Option<usize>,
    /// The first step whose reply shows the version.
    pub(super) witness: usize,
    /// If no reply owns it: the unknown writes that may have made it.
    pub(super) candidates: Vec<usize>,
}

/// The order of the writes whose versions are known.
#[derive(Debug)]
pub(super) struct WriteOrder<'a> {
    /// The write at place `i + 1`. Place 0 is before all writes.
    pub(super) writes: Vec<Write>,
    pub(super) versions: Vec<&'a Version>,
    /// Per key, the places of its writes, rising.
    of_key: Vec<Vec<usize>>,
    /// Unknown writes that need not have made any of the versions: they may be anywhere, or nowhere.
    pub(super) loose: Vec<usize>,
}

/// What replies say of a version.
struct Known {
    key: usize,
    state: Option<State>,
    owner: Option<usize>,
    witness: usize,
    /// Steps that found another state than this there, by a mismatch.
    avoided: Vec<usize>,
}

impl<'a> WriteOrder<'a> {
    /// Collects the versions, and checks that all replies say the same of each.
    pub(super) fn new(program: &Program<'a>) -> Result<Self, Violation> {
        let mut known: BTreeMap<&Version, Known> = BTreeMap::new();
        let versioned = |writes: bool| {
            let of = move |(_, step): &(usize, &Step<'a>)| {
                step.certain && step.action.is_some() && step.leaves().is_some() == writes
            };
            let steps = program.steps.iter().enumerate().filter(of);
            steps.filter_map(|(at, step)| Some((at, step.source.extras.version.as_ref()?)))
        };
        for (at, version) in versioned(true) {
            let step = &program.steps[at];
            if let Some(other) = known.get(version) {
                return Err(twice(program, version, other.witness, at));
            }
            let (key, state) = (step.key, step.leaves());
            let owner = Some(at);
            known.insert(version, Known { key, state, owner, witness: at, avoided: Vec::new() });
        }
        for (at, version) in versioned(false) {
            let step = &program.steps[at];
            let write = known.entry(version).or_insert_with(|| Known {
                key: step.key,
                state: None,
                owner: None,
                witness: at,
                avoided: Vec::new(),
            });
            let found = step.finds();
            if write.key != step.key
                || (write.state.is_some() && found.is_some_and(|found| Some(found) != write.state))
            {
                return Err(differs(program, version, write, at));
            }
            write.state = write.state.or(found);
            write.avoided.extend(step.avoids().map(|_| at));
        }
        let mut order = Self {
            writes: Vec::with_capacity(known.len()),
            versions: Vec::with_capacity(known.len()),
            of_key: vec![Vec::new(); program.keys.len()],
            loose: Vec::new(),
        };
        for (version, known) in known {
            let write = known.into_write(program, version)?;
            order.versions.push(version);
            order.writes.push(write);
            let place = order.writes.len();
            order.of_key[order.writes[place - 1].key].push(place);
        }
        let mut spoken_for = vec![false; program.steps.len()];
        for write in &order.writes {
            if let [only] = write.candidates[..] {
                spoken_for[only] = true;
            }
        }
        let loose = |&at: &usize| !program.steps[at].certain && !spoken_for[at];
        order.loose = (0..program.steps.len()).filter(loose).collect();
        Ok(order)
    }

    /// Whether it leaves nothing open: no loose write, and no open value.
    pub(super) fn is_certain(&self) -> bool {
        self.loose.is_empty() && self.writes.iter().all(|write| write.state.is_some())
    }

    /// The write at a place; `None` before all writes.
    pub(super) fn write(&self, place: usize) -> Option<&Write> {
        self.writes.get(place.checked_sub(1)?)
    }

    /// The place of a version that some reply carries.
    pub(super) fn place(&self, version: &Version) -> usize {
        self.versions.binary_search(&version).expect("every version was collected") + 1
    }

    /// The place of the last write of a key at or before `place`; 0 if there is none.
    pub(super) fn last(&self, key: usize, place: usize) -> usize {
        let places = &self.of_key[key];
        match places.partition_point(|&of_key| of_key <= place) {
            0 => 0,
            count => places[count - 1],
        }
    }

    /// The place of the first write of a key after `place`.
    pub(super) fn next(&self, key: usize, place: usize) -> Option<usize> {
        let places = &self.of_key[key];
        places.get(places.partition_point(|&of_key| of_key <= place)).copied()
    }

    /// What a key holds just after `place`; `None`: it holds something, but nobody knows what.
    pub(super) fn state(&self, key: usize, place: usize) -> Option<State> {
        self.write(self.last(key, place)).map_or(Some(None), |write| write.state)
    }

    /// The first place from `place` on at which a key holds a state that is wanted.
    pub(super) fn first_with(
        &self,
        key: usize,
        place: usize,
        wanted: impl Fn(Option<State>) -> bool,
    ) -> Option<usize> {
        let mut at = place;
        while !wanted(self.state(key, at)) {
            at = self.next(key, at)?;
        }
        Some(at)
    }

    /// Whether an unknown write may have left a wanted state in a key unseen.
    pub(super) fn may_be_left(
        &self,
        program: &Program<'_>,
        key: usize,
        wanted: impl Fn(State) -> bool,
    ) -> bool {
        let steps = self.loose.iter().map(|&at| &program.steps[at]);
        steps.filter(|step| step.key == key).filter_map(Step::leaves).any(wanted)
    }
}

impl Known {
    fn into_write(self, program: &Program<'_>, version: &Version) -> Result<Write, Violation> {
        let Self { key, state, owner, witness, avoided } = self;
        let allowed = |left: State| {
            avoided.iter().all(|&at| program.steps[at].avoids() != Some(left))
                && state.is_none_or(|state| state == left)
        };
        if let Some(owned) = state
            && !allowed(owned)
        {
            let found = |&at: &usize| program.steps[at].avoids() == Some(owned);
            let at = avoided.iter().copied().find(found).expect("one of them does not allow it");
            let known = Self { key, state, owner, witness, avoided: Vec::new() };
            return Err(differs(program, version, &known, at));
        }
        let mut candidates = Vec::new();
        if owner.is_none() {
            let leaves = |&at: &usize| program.steps[at].leaves().is_some_and(allowed);
            candidates = program.unknown_writes(key).filter(leaves).collect();
            if candidates.is_empty() {
                return Err(nobody_wrote(program, version, key, state, witness));
            }
        }
        // If all of them left the same, so did this one.
        let left = |at: usize| program.steps[at].leaves();
        let first = candidates.first().and_then(|&first| left(first));
        let state = state.or(first.filter(|_| candidates.iter().all(|&at| left(at) == first)));
        Ok(Write { key, state, owner, witness, candidates })
    }
}

fn twice(program: &Program<'_>, version: &Version, one: usize, other: usize) -> Violation {
    Violation {
        key: program.keys[program.steps[other].key].to_owned(),
        rule: "two writes of one version",
        operations: program.cite(&[one, other]),
        why: format!(
            "lines {} and {} both acknowledged a write as version {version}, which is one place in the \
             order",
            program.steps[one].line(),
            program.steps[other].line()
        ),
    }
}

/// A reply says something else of a version than an earlier one.
fn differs(program: &Program<'_>, version: &Version, known: &Known, at: usize) -> Violation {
    let step = &program.steps[at];
    let said = |state: Option<State>| state.map_or("some value".to_owned(), show);
    let found = match (step.finds(), step.avoids()) {
        (Some(state), _) => show(state),
        (None, avoided) => format!("another value than {}", said(avoided)),
    };
    Violation {
        key: program.keys[step.key].to_owned(),
        rule: "one version, two values",
        operations: program.cite(&[known.witness, at]),
        why: format!(
            "line {} calls {} = {} version {version}; line {} calls {} = {found} the same",
            program.steps[known.witness].line(),
            program.keys[known.key],
            said(known.state),
            step.line(),
            program.keys[step.key],
        ),
    }
}

/// A version that no reply owns, of a value that no unknown write could have left.
fn nobody_wrote(
    program: &Program<'_>,
    version: &Version,
    key: usize,
    state: Option<State>,
    witness: usize,
) -> Violation {
    let line = program.steps[witness].line();
    let writes = |step: &Step<'_>| {
        step.certain && step.key == key && step.leaves() == state && state.is_some()
    };
    let written: Vec<usize> =
        (0..program.steps.len()).filter(|&at| writes(&program.steps[at])).collect();
    let mut cited = vec![witness];
    let why = match written.first() {
        Some(&write) => {
            cited.push(write);
            let other = program.steps[write].source.extras.version.as_ref();
            let other = other.map_or("another".to_owned(), ToString::to_string);
            format!(
                "line {line} found it as version {version}, but line {} acknowledged it as version \
                 {other}, and no write of unknown outcome could have left it again",
                program.steps[write].line()
            )
        }
        None => format!(
            "line {line} found version {version}, but no write was acknowledged with it, and none of \
             unknown outcome could have left what was found"
        ),
    };
    Violation {
        key: program.keys[key].to_owned(),
        rule: "a version nobody wrote",
        operations: program.cite(&cited),
        why,
    }
}
