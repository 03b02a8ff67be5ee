//! Bounds of staleness, kept or not: a read that asked for an answer no staler than `b` sees every write that was
//! acknowledged more than `b` before it was sent. A strict read is one with a bound of zero.
//!
//! The contract (`consistency.md`, 1.3): a read may carry `max_staleness`, and a replica that cannot prove it does
//! not answer from its own state. Simulated time is true time here, whatever the clocks of the nodes say.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use latitude_types::WriteTime;

use crate::violation::{Check, Violation};

/// The writes that were acknowledged, by key: when, and with which version.
#[derive(Default, Debug)]
pub(crate) struct Freshness(Mutex<BTreeMap<u32, Vec<(Duration, WriteTime)>>>);

impl Freshness {
    /// A write was acknowledged.
    pub(crate) fn written(&self, key: u32, at: Duration, version: &WriteTime) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.entry(key).or_default().push((at, *version));
    }

    /// A read that was sent then, with that bound, saw this version.
    ///
    /// # Errors
    /// It is older than it may be.
    pub(crate) fn seen(
        &self,
        key: u32,
        sent: Duration,
        bound: Duration,
        version: Option<&WriteTime>,
    ) -> Result<(), Violation> {
        let Some(since) = sent.checked_sub(bound) else { return Ok(()) };
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Within one tick nobody knows what came first.
        let earlier = keys.get(&key).into_iter().flatten().filter(|(at, _)| *at < since);
        let missed = earlier.filter(|(_, written)| version.is_none_or(|seen| seen < written)).max();
        missed.map_or(Ok(()), |(at, written)| {
            Err(Check::Staleness.found(format!(
                "a read of key {key}, sent at {sent:?} and to be no staler than {bound:?}, saw {version:?}, though \
                 {written:?} was acknowledged at {at:?}"
            )))
        })
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::{NodeId, Stamp, Timestamp};

    use super::*;

    #[test]
    fn a_read_that_misses_what_was_acknowledged_before_its_bound_is_a_violation() {
        let ms = Duration::from_millis;
        let version = |ms| {
            let stamp = Stamp { time: Timestamp::from_ms(ms), node: NodeId(1) };
            WriteTime::of_log_write(stamp, 0)
        };
        let freshness = Freshness::default();
        freshness.written(1, ms(100), &version(90));
        freshness.written(1, ms(200), &version(190));
        let seen = |sent, bound, version: Option<WriteTime>| {
            freshness.seen(1, ms(sent), ms(bound), version.as_ref()).is_ok()
        };
        assert!(seen(300, 0, Some(version(190))));
        assert!(!seen(300, 0, Some(version(90))));
        assert!(seen(300, 100, Some(version(90))), "acknowledged just then");
        assert!(!seen(300, 99, Some(version(90))));
        assert!(!seen(300, 150, None));
        assert!(seen(300, 200, None));
        assert!(seen(300, 1_000, None));
        assert!(freshness.seen(2, ms(300), ms(0), None).is_ok(), "another key");
    }
}
