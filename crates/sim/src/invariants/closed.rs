//! INV-4 (`consistency.md`), from outside: what was closed stays closed.
//!
//! The receipt of a read says: everything stamped below this time in this range is among the entries up to this
//! index. So no later entry of the range is stamped below it, whoever leads by then.

use std::collections::BTreeMap;

use latitude_types::{RangeId, Stamp, Timestamp};

use crate::violation::{Check, Violation};

/// What receipts said, and what was applied.
#[derive(Default)]
pub(crate) struct Closed {
    ranges: BTreeMap<RangeId, Range>,
    told: u64,
}

#[derive(Default)]
struct Range {
    /// By index.
    applied: BTreeMap<u64, Stamp>,
    /// By index: the largest time for which a receipt named it.
    told: BTreeMap<u64, Timestamp>,
}

impl Closed {
    /// An entry was applied for the first time.
    pub(crate) fn applied(
        &mut self,
        range: RangeId,
        index: u64,
        stamp: Stamp,
    ) -> Option<Violation> {
        let about = self.ranges.entry(range).or_default();
        about.applied.insert(index, stamp);
        let told = about.told.range(..index).map(|(index, time)| (*time, *index)).max()?;
        (stamp.time < told.0).then(|| violation(range, index, stamp, told))
    }

    /// A receipt said that everything below `time` is among the entries up to `index`.
    pub(crate) fn told(
        &mut self,
        range: RangeId,
        index: u64,
        time: Timestamp,
    ) -> Option<Violation> {
        self.told += 1;
        let about = self.ranges.entry(range).or_default();
        let known = about.told.entry(index).or_default();
        *known = time.max(*known);
        // Stamps rise, so the next entry has the least.
        let (next, stamp) = about.applied.range(index + 1..).next()?;
        (stamp.time < time).then(|| violation(range, *next, *stamp, (time, index)))
    }

    /// How many receipts were looked at.
    pub(crate) fn receipts(&self) -> u64 {
        self.told
    }
}

fn violation(range: RangeId, index: u64, stamp: Stamp, told: (Timestamp, u64)) -> Violation {
    let (time, upto) = told;
    Check::Closed.found(format!(
        "{range} has entry {index} stamped {stamp}, and a receipt said that everything below {time} was among \
         the entries up to {upto}"
    ))
}

#[cfg(test)]
mod tests {
    use latitude_types::NodeId;

    use super::*;

    const RANGE: RangeId = RangeId(4);

    fn stamp(ms: u64) -> Stamp {
        Stamp { time: Timestamp::from_ms(ms), node: NodeId(1) }
    }

    #[test]
    fn an_entry_below_what_was_closed_is_found_whichever_comes_first() {
        let mut closed = Closed::default();
        assert_eq!(closed.applied(RANGE, 1, stamp(10)), None);
        assert_eq!(closed.told(RANGE, 1, Timestamp::from_ms(30)), None);
        assert_eq!(closed.applied(RANGE, 2, stamp(20)).unwrap().check, Check::Closed);

        let mut closed = Closed::default();
        assert_eq!(closed.applied(RANGE, 1, stamp(10)), None);
        assert_eq!(closed.applied(RANGE, 2, stamp(20)), None);
        assert_eq!(closed.told(RANGE, 2, Timestamp::from_ms(30)), None);
        assert_eq!(closed.told(RANGE, 1, Timestamp::from_ms(20)), None);
        assert_eq!(closed.told(RANGE, 1, Timestamp::from_ms(21)).unwrap().check, Check::Closed);
        assert_eq!(closed.receipts(), 3);
    }
}
