//! About how large a log is, and where to cut it, in a bounded amount of memory.
//!
//! ```text
//!   entries   ├──┬─┬────┬──┬───┬─┬──┬──────┬──┤
//!   marks          ▲         ▲        ▲              one each time `step` bytes have come together
//! ```

use std::collections::VecDeque;

/// The sizes of a log's entries, added up.
#[derive(Debug)]
pub(crate) struct Sizes {
    /// Bytes between two marks.
    step: u64,
    /// An index and the bytes of everything up to and including it, since the log was opened.
    marks: VecDeque<(u64, u64)>,
    total: u64,
    /// Of `total`, what is no longer there.
    purged: u64,
}

impl Sizes {
    pub(crate) fn new(step: u64) -> Self {
        Self { step: step.max(1), marks: VecDeque::new(), total: 0, purged: 0 }
    }

    /// Bytes that are there.
    pub(crate) fn held(&self) -> u64 {
        self.total - self.purged
    }

    pub(crate) fn push(&mut self, index: u64, bytes: u64) {
        self.total += bytes;
        let last = self.marks.back().map_or(self.purged, |(_, total)| *total);
        if self.total - last >= self.step {
            self.marks.push_back((index, self.total));
        }
    }

    /// Everything from `from` on is gone.
    pub(crate) fn truncate(&mut self, from: u64) {
        while self.marks.back().is_some_and(|(index, _)| *index >= from) {
            self.marks.pop_back();
        }
        // What lies between the last mark and the cut is forgotten too: less than a step.
        self.total = self.marks.back().map_or(self.purged, |(_, total)| *total);
    }

    /// Everything up to and including `upto` is gone.
    pub(crate) fn purge(&mut self, upto: u64) {
        while let Some((index, total)) = self.marks.front().copied()
            && index <= upto
        {
            self.marks.pop_front();
            self.purged = total;
        }
    }

    /// The greatest mark up to and including `upto` that leaves `keep` bytes behind it.
    pub(crate) fn purgeable(&self, upto: u64, keep: u64) -> Option<u64> {
        let fits = |(index, total): &&(u64, u64)| {
            *index <= upto && self.total.saturating_sub(*total) >= keep
        };
        self.marks.iter().rev().find(fits).map(|(index, _)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hundred() -> Sizes {
        let mut sizes = Sizes::new(100);
        (1..=100).for_each(|index| sizes.push(index, 30));
        sizes
    }

    #[test]
    fn a_cut_leaves_what_is_to_be_kept_and_takes_nothing_that_is_not_applied() {
        let sizes = hundred();
        assert_eq!(sizes.held(), 3_000);
        // A mark at every fourth entry.
        assert_eq!(sizes.purgeable(100, 1_500), Some(48));
        assert_eq!(sizes.purgeable(30, 1_500), Some(28));
        assert_eq!(sizes.purgeable(3, 1_500), None);
        assert_eq!(sizes.purgeable(100, 3_000), None);
        assert_eq!(sizes.purgeable(100, 0), Some(100));
    }

    #[test]
    fn what_is_purged_or_truncated_is_no_longer_held() {
        let mut sizes = hundred();
        sizes.purge(48);
        assert_eq!((sizes.held(), sizes.purgeable(100, 1_500)), (1_560, None));
        assert_eq!(sizes.purgeable(100, 1_400), Some(52));
        sizes.truncate(90);
        assert_eq!(sizes.held(), 88 * 30 - 48 * 30, "up to the last mark before the cut");
        sizes.push(90, 30);
        assert_eq!(sizes.held(), 1_230);
        sizes.purge(1_000);
        assert_eq!(
            sizes.held(),
            30,
            "the bytes since the last mark are known as long as they grow"
        );
        (91..=94).for_each(|index| sizes.push(index, 30));
        sizes.truncate(0);
        assert_eq!(sizes.held(), 0);
    }
}
