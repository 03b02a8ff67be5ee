//! What the leader of a range sweeps next.
//!
//! ```text
//!   pass ─▶ look, look, look … (some thousand rows each; an entry only where something goes) ─▶ pass is whole
//!     ▲                                                                                            │
//!     └── something may go: time has passed, origins are folded further, more is stable ◀── rest ──┘
//!                                     ▲
//!             idle origins lifted ────┘  only if nothing else holds it back
//! ```
//!
//! A range that nobody writes to is looked at until nothing of it waits, and then never again.

use latitude_types::{KeySpan, NodeId, OPERATION_ID_LIFETIME, Positions, Stamp, Timestamp};

use crate::meta::{Origin, OriginState};
use crate::sweep::{Kept, Looked, Sweep};

/// Time between the beginnings of two passes, at least; and between two lifts of the same origin.
const EVERY_MS: u64 = 120_000;
/// Rows of one look.
const WORK_MAX: u32 = 2048;

/// What there is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sweeping {
    /// Nothing, for now.
    Rest,
    /// Fold these origins up to here, with nothing if there is nothing: what waits does so for them alone.
    Lift(Positions),
    /// Look at this much of the base, propose it as an entry if it finds anything, and say so
    /// ([`SweepCursor::looked`]) once that is applied.
    Look(Sweep),
}

/// How far one leadership has swept its range.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SweepCursor {
    /// When the last pass began, or the leadership.
    began: Option<Timestamp>,
    lifted: Timestamp,
    under_way: Option<Pass>,
    /// The last pass that came to its end.
    whole: Option<Whole>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Pass {
    /// The last stamp when it began: whatever is stamped later it may have missed.
    saw: Stamp,
    kept: Kept,
    rest: KeySpan,
    ids_from: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Whole {
    saw: Stamp,
    kept: Kept,
}

impl SweepCursor {
    /// Whether a pass is under way: then it is to go on soon.
    pub fn is_in_pass(&self) -> bool {
        self.under_way.is_some()
    }

    /// What to do now.
    ///
    /// - `now`: a time of this leader's clock; what it stamps later is above it.
    /// - `last_stamp`, `origins`: of the base, as it is applied here.
    /// - `stable`: what every node shows of each origin's stream.
    pub fn next(
        &mut self,
        now: Timestamp,
        last_stamp: Stamp,
        origins: &[Origin],
        stable: &Positions,
    ) -> Sweeping {
        if self.under_way.is_none() {
            let began = *self.began.get_or_insert(now);
            if now < began.plus_ms(EVERY_MS) {
                return Sweeping::Rest;
            }
            if !self.is_worth_a_pass(now, last_stamp, origins, stable) {
                return self.lift(now, origins);
            }
            self.began = Some(now);
            self.under_way = Some(Pass {
                saw: last_stamp,
                kept: Kept::default(),
                rest: KeySpan::all(),
                ids_from: None,
            });
        }
        match &self.under_way {
            None => Sweeping::Rest,
            Some(pass) => Sweeping::Look(Sweep {
                span: pass.rest.clone(),
                ids_from: pass.ids_from,
                work_max: WORK_MAX,
                stable: stable.clone(),
            }),
        }
    }

    /// What [`Sweeping::Look`] asked for has been looked at, and is applied if it found anything.
    pub fn looked(&mut self, looked: &Looked) {
        let Some(pass) = &mut self.under_way else { return };
        pass.kept.join(looked.kept());
        let rest = looked.next().map(|(key, birth)| (KeySpan::new(key.as_bytes(), None), *birth));
        if let Some((Some(rest), birth)) = rest {
            (pass.rest, pass.ids_from) = (rest, birth);
        } else if let Some(Pass { saw, kept, .. }) = self.under_way.take() {
            self.whole = Some(Whole { saw, kept });
        }
    }

    /// A proposal came to nothing: the pass ends here, and another one is to follow.
    pub fn failed(&mut self) {
        self.under_way = None;
        self.whole = None;
    }

    /// Whether a pass may find something that may go.
    fn is_worth_a_pass(
        &self,
        now: Timestamp,
        last_stamp: Stamp,
        origins: &[Origin],
        stable: &Positions,
    ) -> bool {
        let Some(whole) = &self.whole else { return last_stamp > Stamp::ZERO };
        let folded = waited_for(origins).map(|origin| origin.folded).fold(now, Timestamp::min);
        let is_due = whole.kept.due.is_some_and(|due| due <= folded);
        let is_stable = |(node, position): (&NodeId, &Timestamp)| *position <= stable.of(*node);
        // What was written since may go ten minutes after that; hardly anything of it earlier.
        let age = self.began.unwrap_or_default().plus_ms(OPERATION_ID_LIFETIME.as_millis() as u64);
        let is_written = last_stamp > whole.saw && now >= age;
        is_due || is_written || whole.kept.seen.iter().any(is_stable)
    }

    /// What waits for origins that are not folded far enough, and for nothing else.
    fn lift(&mut self, now: Timestamp, origins: &[Origin]) -> Sweeping {
        let due = self.whole.as_ref().and_then(|whole| whole.kept.due);
        let Some(due) = due.filter(|due| *due <= now) else { return Sweeping::Rest };
        if now < self.lifted.plus_ms(EVERY_MS) {
            return Sweeping::Rest;
        }
        let mut need = Positions::default();
        for origin in waited_for(origins).filter(|origin| origin.folded < due) {
            // Nothing more of a lost one can be folded.
            if origin.state != OriginState::Lost {
                need.raise(origin.node, now);
            }
        }
        if need == Positions::default() {
            return Sweeping::Rest;
        }
        self.lifted = now;
        Sweeping::Lift(need)
    }
}

/// The origins of which something may still come.
fn waited_for(origins: &[Origin]) -> impl Iterator<Item = &Origin> {
    origins.iter().filter(|origin| origin.state != OriginState::Sealed)
}
