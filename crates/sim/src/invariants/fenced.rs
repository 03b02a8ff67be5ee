//! A node whose clock is far ahead is refused, not obeyed (`consistency.md`, clocks): no applied stamp is
//! further ahead of true time than good nodes let each other be.

use std::time::Duration;

use latitude_clock::{MAX_CLOCK_OFFSET_DEFAULT, PhysicalClock};
use latitude_range::RangeMeta;

use crate::clock::SimClock;
use crate::violation::{Check, Violation};

/// A logical clock is taken up to 2ε ahead of the physical one of whoever takes it, and that one is right
/// within ε in every run.
const AHEAD_MAX: Duration = MAX_CLOCK_OFFSET_DEFAULT.saturating_mul(3);

pub(crate) fn violation(clock: &SimClock, after: &RangeMeta) -> Option<Violation> {
    let now_ms = clock.wall_us() / 1000;
    let ahead_ms = after.last_stamp.time.unix_ms().saturating_sub(now_ms);
    (u128::from(ahead_ms) > AHEAD_MAX.as_millis()).then(|| {
        let stamp = after.last_stamp;
        let id = after.id;
        Check::Clocks.found(format!("{id} applies {stamp}, {ahead_ms} ms ahead of true time"))
    })
}

#[cfg(test)]
mod tests {
    use latitude_types::{KeySpan, KeyspaceId, NodeId, RangeId, Stamp, Timestamp};

    use super::*;

    #[test]
    fn a_stamp_ten_seconds_ahead_of_true_time_is_a_violation() {
        let clock = SimClock::default();
        let now_ms = clock.wall_us() / 1000;
        let ahead = |ms| {
            let mut meta = RangeMeta::new(RangeId(4), KeyspaceId(16), KeySpan::all(), 1024, false);
            meta.last_stamp = Stamp { time: Timestamp::from_unix_ms(now_ms + ms), node: NodeId(1) };
            violation(&clock, &meta)
        };
        assert_eq!(ahead(0), None);
        assert_eq!(ahead(1_500), None);
        assert!(ahead(10_000).unwrap().message.contains("10000 ms ahead"));
    }
}
