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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use latitude_types::Key;

    use super::*;

    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_ms(minutes * 60_000)
    }

    fn stamp(minutes: u64) -> Stamp {
        Stamp { time: at(minutes), node: NodeId(1) }
    }

    fn origin(node: u32, state: OriginState, folded: u64) -> Origin {
        Origin { node: NodeId(node), state, admitted: Stamp::ZERO, folded: at(folded), last: None }
    }

    fn kept(due: Option<u64>) -> Kept {
        Kept { due: due.map(at), seen: BTreeMap::new() }
    }

    /// A cursor that began to lead at 0 and ended a pass at 2 min.
    fn after_a_pass(kept: Kept) -> SweepCursor {
        let mut cursor = SweepCursor::default();
        assert_eq!(cursor.next(at(0), stamp(1), &[], &Positions::default()), Sweeping::Rest);
        assert_eq!(cursor.next(at(1), stamp(1), &[], &Positions::default()), Sweeping::Rest);
        let look = cursor.next(at(2), stamp(1), &[], &Positions::default());
        assert!(matches!(&look, Sweeping::Look(sweep) if sweep.span == KeySpan::all()));
        assert_eq!(
            cursor.next(at(2), stamp(1), &[], &Positions::default()),
            look,
            "not looked yet"
        );
        cursor.looked(&Looked::for_tests(kept, None));
        assert!(!cursor.is_in_pass());
        cursor
    }

    fn next(cursor: &mut SweepCursor, now: u64, last: u64, origins: &[Origin]) -> Sweeping {
        cursor.next(at(now), stamp(last), origins, &Positions::default())
    }

    #[test]
    fn a_range_in_which_nothing_waits_and_nothing_is_written_is_left_alone() {
        let mut cursor = after_a_pass(kept(None));
        let origins = [origin(1, OriginState::Active, 1), origin(2, OriginState::Active, 0)];
        for now in [3, 5, 12, 30, 1_000, 100_000] {
            assert_eq!(next(&mut cursor, now, 1, &origins), Sweeping::Rest);
        }
    }

    #[test]
    fn what_was_written_since_is_swept_ten_minutes_after_the_last_pass_began() {
        let mut cursor = after_a_pass(kept(None));
        let origins = [origin(1, OriginState::Active, 3)];
        assert_eq!(next(&mut cursor, 11, 3, &origins), Sweeping::Rest);
        assert!(matches!(next(&mut cursor, 12, 3, &origins), Sweeping::Look(_)));
    }

    #[test]
    fn a_pass_begins_once_what_waits_may_go() {
        let mut cursor = after_a_pass(kept(Some(11)));
        let origins = [origin(1, OriginState::Active, 11), origin(2, OriginState::Sealed, 1)];
        assert_eq!(next(&mut cursor, 10, 1, &origins), Sweeping::Rest);
        assert!(matches!(next(&mut cursor, 11, 1, &origins), Sweeping::Look(_)));
    }

    #[test]
    fn a_pass_begins_once_what_is_named_is_stable() {
        let seen = BTreeMap::from([(NodeId(2), at(1))]);
        let mut cursor = after_a_pass(Kept { due: None, seen });
        let mut stable = Positions::default();
        stable.raise(NodeId(2), Timestamp(at(1).0 - 1));
        assert_eq!(cursor.next(at(9), stamp(1), &[], &stable), Sweeping::Rest);
        stable.raise(NodeId(2), at(1));
        let next = cursor.next(at(9), stamp(1), &[], &stable);
        assert!(matches!(next, Sweeping::Look(sweep) if sweep.stable == stable));
    }

    /// Pitfall 16c: an origin that writes nothing would keep everything.
    #[test]
    fn p16_idle_origins_are_lifted_where_only_they_are_waited_for_and_not_all_the_time() {
        let mut cursor = after_a_pass(kept(Some(11)));
        let mut origins = vec![
            origin(1, OriginState::Active, 20),
            origin(2, OriginState::Active, 5),
            origin(3, OriginState::Lost, 5),
        ];
        assert_eq!(next(&mut cursor, 10, 1, &origins), Sweeping::Rest, "time is waited for");
        let mut need = Positions::default();
        need.raise(NodeId(2), at(11));
        assert_eq!(next(&mut cursor, 11, 1, &origins), Sweeping::Lift(need));
        assert_eq!(next(&mut cursor, 12, 1, &origins), Sweeping::Rest, "it is under way");
        assert!(
            matches!(next(&mut cursor, 13, 1, &origins), Sweeping::Lift(_)),
            "it was not reached"
        );
        origins[1].folded = at(13);
        // Nothing more of a lost one can be folded: only forgetting it helps.
        assert_eq!(next(&mut cursor, 20, 1, &origins), Sweeping::Rest);
        origins.pop();
        assert!(matches!(next(&mut cursor, 21, 1, &origins), Sweeping::Look(_)));
    }

    #[test]
    fn a_pass_goes_on_where_it_stopped_and_remembers_what_it_left() {
        let mut cursor = after_a_pass(kept(Some(3)));
        assert!(matches!(next(&mut cursor, 5, 1, &[]), Sweeping::Look(_)));
        let key = Key::new(b"k").unwrap();
        cursor.looked(&Looked::for_tests(kept(Some(20)), Some((key.clone(), Some(at(4))))));
        let Sweeping::Look(sweep) = next(&mut cursor, 5, 1, &[]) else { panic!("it is under way") };
        assert_eq!((sweep.span.start(), sweep.ids_from), (&b"k"[..], Some(at(4))));
        cursor.looked(&Looked::for_tests(kept(Some(30)), None));
        assert_eq!(next(&mut cursor, 14, 1, &[]), Sweeping::Rest);
        assert!(matches!(next(&mut cursor, 20, 1, &[]), Sweeping::Look(_)));
    }

    #[test]
    fn a_pass_that_came_to_nothing_is_begun_anew() {
        let mut cursor = after_a_pass(kept(Some(3)));
        assert!(matches!(next(&mut cursor, 5, 1, &[]), Sweeping::Look(_)));
        cursor.failed();
        assert_eq!(next(&mut cursor, 6, 1, &[]), Sweeping::Rest);
        let Sweeping::Look(sweep) = next(&mut cursor, 7, 1, &[]) else { panic!("it is time") };
        assert_eq!(sweep.span, KeySpan::all());
    }
}
