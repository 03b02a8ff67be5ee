//! INV-3 (`consistency.md`): the stamps of applied entries strictly rise in a range.

use latitude_range::RangeMeta;

use crate::violation::{Check, Violation};

/// What is wrong with a range's next state.
///
/// Entries without a stamp (blank, membership) leave the last stamp as it is, so equal is allowed.
pub(crate) fn violation(before: Option<&RangeMeta>, after: &RangeMeta) -> Option<Violation> {
    let before = before?.last_stamp;
    (after.last_stamp < before).then(|| {
        Check::Stamps.found(format!("{} applies {} after {before}", after.id, after.last_stamp))
    })
}

#[cfg(test)]
mod tests {
    use latitude_types::{KeySpan, KeyspaceId, NodeId, RangeId, Stamp, Timestamp};

    use super::*;

    #[test]
    fn a_stamp_below_the_last_one_is_a_violation() {
        let range = |ms| {
            let mut meta = RangeMeta::new(RangeId(4), KeyspaceId(16), KeySpan::all(), 1024, false);
            meta.last_stamp = Stamp { time: Timestamp::from_ms(ms), node: NodeId(1) };
            meta
        };
        assert_eq!(violation(None, &range(5)), None);
        assert_eq!(violation(Some(&range(5)), &range(6)), None);
        assert_eq!(violation(Some(&range(5)), &range(5)), None);
        assert_eq!(violation(Some(&range(6)), &range(5)).unwrap().check, Check::Stamps);
    }
}
