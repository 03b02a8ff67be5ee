//! Sequential consistency by versions: exact, in O(n log n), for real histories.
//!
//! The versions fix the order of the writes ([`WriteOrder`]). What is left is where the rest stands:
//! each step gets a *place*, the number of the last write before it.
//!
//! ```text
//!   writes      1: x := 1      2: y := 1      3: x := 2      4: y := 2
//!   session          r x 1 ─────────▶ r y 1 ──────▶ r x 1 !
//!   place              1                2       1 ≤ place < 3, and not below 2: place 2
//!                                                 after a w y 2 at place 4: none is left
//! ```
//!
//! A step's place is at least the places of the steps before it in its session, and of those before it
//! through a token. Beyond that:
//! - a write stands at its own version, and strictly above all that come before it;
//! - a read of version v stands at v or above, and below the next write of the key;
//! - a read of an absent key without a version stands where the key is absent: before its first write, or
//!   between a delete and the next write;
//! - a mismatch with the version it found is a read of that; without, it stands where the key holds
//!   another value than it asked for.
//!
//! **The greedy walk is complete.** Take the steps in the order of their invocations, which agrees with all
//! sessions and tokens, and give each the least place that its rule allows. By induction every step then
//! stands at or below its place in *any* legal order with these versions: its predecessors do, and each
//! rule's set of places depends on nothing but the versions and that lower bound. So if a step finds no
//! place here, it has none in any order. Conversely, if all find one, this is an order: by place, the
//! write of the place first, then the others in the order of their invocations. (A write has all its
//! predecessors strictly below it, so nothing of its own session comes before it at its place wrongly.)
//!
//! **Unknown writes.** One whose version was found is in the order, and must stand above what its
//! process had completed. Nothing comes after it in its session, so after the walk each such version is
//! matched with an unknown write that fits. One that nobody found ("loose") has no known place: it may
//! explain an absent key (a delete), a mismatch, or what a cas found. And of one that only mismatches
//! found, the value may be open. The walk is therefore done twice.
//! Without any benefit of the doubt: if all find a place, that is an order, for a loose write need not have
//! happened. (One exception is exact: a cas that found what only an unknown blind write leaves has such a
//! write just before it, where no other step sees it; those are matched too.) Else with the benefit of every doubt, loose writes being wherever they help: if then a step finds no
//! place, no order has one. In between it is unclear, and the search must tell.

use std::collections::BTreeSet;

use super::program::{Program, Step};
use super::write_order::WriteOrder;
use crate::Violation;
use crate::linearizable::register::{Action, State, show};

/// How the walk ended.
#[derive(Debug)]
pub(super) enum Found {
    /// A legal order.
    Order,
    /// No order agrees with the versions.
    Violation(Violation),
    /// It depends on writes of unknown outcome whose versions nobody found.
    Unclear,
}

/// Whether every reply carries the version that this method needs: those of certain writes, and of
/// reads that found a value.
pub(super) fn is_possible(program: &Program<'_>) -> bool {
    let silent = |step: &Step<'_>| {
        step.certain
            && (step.leaves().is_some() || matches!(step.finds(), Some(Some(_))))
            && step.source.extras.version.is_none()
    };
    !program.steps.iter().any(silent)
}

/// Judges a program for which it [`is_possible`].
pub(super) fn judge(program: &Program<'_>) -> Found {
    let order = match WriteOrder::new(program) {
        Ok(order) => order,
        Err(violation) => return Found::Violation(violation),
    };
    let walk = |doubt| {
        Walk { program, order: &order, doubt, stands: Vec::new(), hidden: Vec::new() }.run()
    };
    match walk(Doubt::None) {
        Ok(()) => Found::Order,
        Err(violation) if order.is_certain() => Found::Violation(violation),
        Err(_) => match walk(Doubt::Benefit) {
            Ok(()) => Found::Unclear,
            Err(violation) => Found::Violation(violation),
        },
    }
}

/// Whether loose writes are wherever they help, and open values what helps, or not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    Benefit,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, Default)]
struct Stand {
    place: usize,
    /// The step of its past, or itself, that needs it to be as high.
    by: Option<usize>,
}

struct Walk<'w, 'a> {
    program: &'w Program<'a>,
    order: &'w WriteOrder<'a>,
    doubt: Doubt,
    /// Of the steps so far. Unknown writes stand where their past does.
    stands: Vec<Stand>,
    /// Certain cas that found what only an unknown write can have left just before them.
    hidden: Vec<usize>,
}

/// A place in the order that some unknown write must take.
struct Slot {
    /// The place itself; or of the cas just before which it is.
    place: usize,
    candidates: Vec<usize>,
}

impl Walk<'_, '_> {
    fn run(mut self) -> Result<(), Violation> {
        for (at, step) in self.program.steps.iter().enumerate() {
            let past = step.after.iter().map(|&before| self.stands[before]);
            let past = past.max_by_key(|stand| stand.place).unwrap_or_default();
            let place = match step.action {
                Some(action) if step.certain => self.place(at, step, action, past)?,
                _ => past.place,
            };
            let by = if place > past.place { Some(at) } else { past.by };
            self.stands.push(Stand { place, by });
        }
        self.match_unknown()
    }

    /// The least place of a certain step.
    fn place(
        &mut self,
        at: usize,
        step: &Step<'_>,
        action: Action,
        past: Stand,
    ) -> Result<usize, Violation> {
        let order = self.order;
        let version = step.source.extras.version.as_ref().map(|version| order.place(version));
        match (action, version) {
            (Action::Write(_), Some(write)) => self.write(at, write, past),
            (Action::Swap(from, _), Some(write)) => {
                let write = self.write(at, write, past)?;
                let found = self.holds(step.key, write - 1, |found| found == from);
                if !found && !self.may_be_left(step.key, |left| left == from) {
                    if self.blind_writers(step.key, from).next().is_none() {
                        return Err(self.found_another(at, from, write));
                    }
                    self.hidden.push(at);
                }
                Ok(write)
            }
            (Action::Read(_) | Action::Mismatch(_), Some(found)) => {
                match order.next(step.key, found) {
                    Some(next) if next <= past.place => {
                        Err(self.overwritten(at, found, next, past))
                    }
                    _ => Ok(found.max(past.place)),
                }
            }
            (Action::Read(state), None) => self.least(at, past, state, |found| found == state),
            (Action::Mismatch(from), None) => self.least(at, past, from, |found| found != from),
            (Action::Write(_) | Action::Swap(..), None) => {
                unreachable!("a write without a version is not judged by versions")
            }
        }
    }

    fn write(&self, at: usize, write: usize, past: Stand) -> Result<usize, Violation> {
        if write > past.place { Ok(write) } else { Err(self.behind(at, write, past)) }
    }

    /// The least place at which the key holds a wanted state.
    fn least(
        &self,
        at: usize,
        past: Stand,
        state: State,
        wanted: impl Fn(State) -> bool + Copy,
    ) -> Result<usize, Violation> {
        let key = self.program.steps[at].key;
        if self.may_be_left(key, wanted) {
            return Ok(past.place);
        }
        let wanted = |found: Option<State>| found.map_or(self.doubt == Doubt::Benefit, wanted);
        let place = self.order.first_with(key, past.place, wanted);
        place.ok_or_else(|| self.never_again(at, state, past))
    }

    /// Whether a key holds a wanted state just after a place.
    fn holds(&self, key: usize, place: usize, wanted: impl Fn(State) -> bool) -> bool {
        self.order.state(key, place).map_or(self.doubt == Doubt::Benefit, wanted)
    }

    fn may_be_left(&self, key: usize, wanted: impl Fn(State) -> bool) -> bool {
        self.doubt == Doubt::Benefit && self.order.may_be_left(self.program, key, wanted)
    }

    /// The unknown writes of a key that leave a state, whatever was there.
    fn blind_writers(&self, key: usize, state: State) -> impl Iterator<Item = usize> {
        let steps = &self.program.steps;
        let writes = move |&at: &usize| steps[at].action == Some(Action::Write(state));
        self.program.unknown_writes(key).filter(writes)
    }

    /// Gives every version that no reply owns, and every cas that found a hidden write, an unknown
    /// write, each its own (augmenting paths).
    fn match_unknown(&self) -> Result<(), Violation> {
        let mut slots = Vec::new();
        for (index, write) in self.order.writes.iter().enumerate() {
            if write.owner.is_none() {
                let place = index + 1;
                let fits = |&candidate: &usize| self.fits(candidate, place);
                let candidates = write.candidates.iter().copied().filter(fits).collect();
                slots.push((Slot { place, candidates }, None));
            }
        }
        for &cas in &self.hidden {
            let step = &self.program.steps[cas];
            let place = self.stands[cas].place;
            let fits = |&candidate: &usize| self.stands[candidate].place < place;
            let from = step.finds().expect("it is a cas");
            let candidates = self.blind_writers(step.key, from).filter(fits).collect();
            slots.push((Slot { place, candidates }, Some((cas, from))));
        }
        let (slots, cas): (Vec<_>, Vec<_>) = slots.into_iter().unzip();
        let mut taken: Vec<Option<usize>> = vec![None; self.program.steps.len()];
        for (at, slot) in slots.iter().enumerate() {
            let mut tried = BTreeSet::new();
            if !augment(&slots, at, &mut taken, &mut tried) {
                return Err(match cas[at] {
                    Some((cas, from)) => self.found_another(cas, from, slot.place),
                    None => self.no_writer(slot.place),
                });
            }
        }
        Ok(())
    }

    /// Whether an unknown write may stand at a place.
    fn fits(&self, candidate: usize, place: usize) -> bool {
        let step = &self.program.steps[candidate];
        let finds = match step.finds() {
            Some(from) => {
                self.holds(step.key, place - 1, |found| found == from)
                    || self.may_be_left(step.key, |left| left == from)
            }
            None => true,
        };
        finds && self.stands[candidate].place < place
    }
}

/// Finds an unknown write for a slot, moving others to other writes if need be.
fn augment(
    slots: &[Slot],
    at: usize,
    taken: &mut [Option<usize>],
    tried: &mut BTreeSet<usize>,
) -> bool {
    for &candidate in &slots[at].candidates {
        if !tried.insert(candidate) {
            continue;
        }
        if taken[candidate].is_none_or(|other| augment(slots, other, taken, tried)) {
            taken[candidate] = Some(at);
            return true;
        }
    }
    false
}

/// What is said of steps without a place.
impl Walk<'_, '_> {
    fn line(&self, at: usize) -> usize {
        self.program.steps[at].line()
    }

    fn key(&self, at: usize) -> &str {
        self.program.keys[self.program.steps[at].key]
    }

    /// `version 4.1`, or that there is none.
    fn version(&self, place: usize) -> String {
        match place.checked_sub(1) {
            Some(index) => format!("version {}", self.order.versions[index]),
            None => "the beginning".to_owned(),
        }
    }

    /// `its session stood at version 7.1 by line 4 (process 0)`.
    fn stood(&self, at: usize, past: Stand) -> String {
        let mut text = format!("its session stood at {}", self.version(past.place));
        if let Some(by) = past.by {
            text += &format!(" since line {}", self.line(by));
            let process = self.program.steps[by].source.process;
            if process != self.program.steps[at].source.process {
                text += &format!(" (by the token of process {process})");
            }
        }
        text
    }

    fn violation(
        &self,
        at: usize,
        rule: &'static str,
        others: &[Option<usize>],
        why: String,
    ) -> Violation {
        let steps: Vec<_> = others.iter().flatten().copied().chain([at]).collect();
        let operations = self.program.cite(&steps);
        Violation { key: self.key(at).to_owned(), rule, operations, why }
    }

    fn witness(&self, place: usize) -> Option<usize> {
        self.order.write(place).map(|write| write.witness)
    }

    fn overwritten(&self, at: usize, found: usize, next: usize, past: Stand) -> Violation {
        let why = format!(
            "line {} found {} of {}, but {}, and {} at {} had replaced it (line {})",
            self.line(at),
            self.version(found),
            self.key(at),
            self.stood(at, past),
            said(self.order.writes[next - 1].state),
            self.version(next),
            self.line(self.order.writes[next - 1].witness),
        );
        let others = [self.witness(found), self.witness(next), past.by];
        self.violation(at, "a session went back", &others, why)
    }

    fn behind(&self, at: usize, write: usize, past: Stand) -> Violation {
        let why = format!(
            "line {} acknowledged the write as {}, but {}, which is not below it",
            self.line(at),
            self.version(write),
            self.stood(at, past),
        );
        self.violation(at, "a write took effect before its session's past", &[past.by], why)
    }

    fn found_another(&self, at: usize, from: State, write: usize) -> Violation {
        let key = self.program.steps[at].key;
        let last = self.order.last(key, write - 1);
        let why = format!(
            "line {} says that {} replaced {}, but {} was there, since {}",
            self.line(at),
            self.version(write),
            show(from),
            said(self.order.state(key, last)),
            self.version(last),
        );
        self.violation(
            at,
            "a conditional write that should have failed",
            &[self.witness(last)],
            why,
        )
    }

    /// A read of an absent key, or a mismatch, where the key never again is so.
    fn never_again(&self, at: usize, state: State, past: Stand) -> Violation {
        let step = &self.program.steps[at];
        let last = self.order.last(step.key, past.place);
        let held = said(self.order.state(step.key, last));
        let (rule, said) = match step.action {
            Some(Action::Mismatch(_)) => {
                let said = format!("found another value than {} in {}", show(state), self.key(at));
                ("a mismatch though the value was there", said)
            }
            _ => ("a session went back", format!("found {} absent", self.key(at))),
        };
        let why = format!(
            "line {} {said}, but {}; there {held} stood, since {}, and what was found does not come \
             later",
            self.line(at),
            self.stood(at, past),
            self.version(last),
        );
        self.violation(at, rule, &[self.witness(last), past.by], why)
    }

    fn no_writer(&self, place: usize) -> Violation {
        let write = &self.order.writes[place - 1];
        let mut others: Vec<_> = write.candidates.iter().copied().map(Some).collect();
        others.truncate(CANDIDATES_SHOWN_MAX);
        let pasts = others.iter().flatten().map(|&candidate| self.stands[candidate].by);
        let pasts: Vec<_> = pasts.collect();
        others.extend(pasts);
        let lines: Vec<_> = write
            .candidates
            .iter()
            .map(|&candidate| {
                let step = &self.program.steps[candidate];
                let past = self.stands[candidate];
                if past.place >= place {
                    format!("line {}: {}", step.source.invoke_line, self.stood(candidate, past))
                } else if self.fits(candidate, place) {
                    format!("line {} wrote another version", step.source.invoke_line)
                } else {
                    let held = self.order.state(step.key, place - 1);
                    format!("line {}: {} stood there", step.source.invoke_line, said(held))
                }
            })
            .collect();
        let why = format!(
            "line {} found {} at {}; no write was acknowledged as that, and none of unknown outcome could \
             have been it ({})",
            self.line(write.witness),
            said(write.state),
            self.version(place),
            lines.join("; "),
        );
        self.violation(write.witness, "a version nobody could have written", &others, why)
    }
}

/// A state, for people.
fn said(state: Option<State>) -> String {
    state.map_or_else(|| "some value".to_owned(), show)
}

/// Unknown writes that an explanation cites at most.
const CANDIDATES_SHOWN_MAX: usize = 3;
