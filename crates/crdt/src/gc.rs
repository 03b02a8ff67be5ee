//! When what is kept only against latecomers may go.

use latitude_types::{OPERATION_ID_LIFETIME, Stamp, Timestamp};

/// How far a range is done with the past: what no copy can come of any more is below it.
///
/// A local write is taken at a position at most ten minutes after its birth, and a log write in an entry
/// stamped at most ten minutes after it. So once every origin is folded up to `birth + 10 min` and the
/// last stamp is there too, no copy of it can be applied: not as a delta, because all up to there are in
/// the base; not as a log write, because every later stamp is refused.
///
/// The stamp counts for itself: a range without origins (one that takes no local writes) would else forget
/// at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Horizon {
    least: Timestamp,
}

impl Horizon {
    /// Of a range with this last stamp, whose origins are folded up to these times. `folded` must have
    /// every origin from which a delta can still come: the active, those about to be sealed, and the lost
    /// that are not forgotten. Not the sealed: everything of them is folded.
    pub fn new(last_stamp: Stamp, folded: impl IntoIterator<Item = Timestamp>) -> Self {
        Self { least: folded.into_iter().fold(last_stamp.time, Timestamp::min) }
    }

    /// Whether the row of an id born then may go.
    pub fn id_may_go(&self, birth: Timestamp) -> bool {
        self.is_past(birth)
    }

    /// Whether the record of a deleted key, last changed by an entry of this stamp, may go.
    ///
    /// A delta not folded by then has a position more than ten minutes after the stamp, hence a birth after
    /// the stamp, hence after the deletion: a register's write would win over the record, and what adds
    /// an element or counts is new.
    pub fn deleted_may_go(&self, stamp: Stamp) -> bool {
        self.is_past(stamp.time)
    }

    fn is_past(&self, time: Timestamp) -> bool {
        self.least >= time.plus_ms(OPERATION_ID_LIFETIME.as_millis() as u64)
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::NodeId;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    fn stamp(ms: u64) -> Stamp {
        Stamp { time: at(ms), node: NodeId(1) }
    }

    #[test]
    fn what_is_kept_goes_once_every_origin_and_the_last_stamp_are_ten_minutes_past_it() {
        let exactly = Horizon::new(stamp(600_005), [at(600_005), at(700_000)]);
        assert!(exactly.id_may_go(at(5)) && exactly.deleted_may_go(stamp(5)));
        assert!(!exactly.id_may_go(at(6)) && !exactly.deleted_may_go(stamp(6)));
    }

    #[test]
    fn one_idle_origin_keeps_everything() {
        let idle = Horizon::new(stamp(9_000_000), [at(9_000_000), at(10)]);
        assert!(!idle.id_may_go(at(5)) && !idle.deleted_may_go(stamp(5)));
    }

    /// Pitfall B4: "for every origin" says nothing where there is none.
    #[test]
    fn a_range_without_origins_keeps_ids_for_ten_minutes_of_its_own_stamps() {
        assert!(!Horizon::new(stamp(10), []).id_may_go(at(5)));
        assert!(!Horizon::new(stamp(600_004), []).id_may_go(at(5)));
        assert!(Horizon::new(stamp(600_005), []).id_may_go(at(5)));
    }
}
