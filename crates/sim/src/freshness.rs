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

/// What is known of the writes, by key.
#[derive(Default, Debug)]
pub(crate) struct Freshness(Mutex<BTreeMap<u32, Writes>>);

#[derive(Default, Debug)]
struct Writes {
    /// Those that were acknowledged: when, with which version, and whether they deleted the key.
    acknowledged: Vec<(Duration, WriteTime, bool)>,
    /// Deletes that have begun and were neither acknowledged nor refused: an absent key may be their doing.
    deletes_open: u32,
}

impl Freshness {
    /// A write of a value was acknowledged.
    pub(crate) fn written(&self, key: u32, at: Duration, version: &WriteTime) {
        self.of(key, |writes| writes.acknowledged.push((at, *version, false)));
    }

    /// A delete is about to be sent.
    pub(crate) fn deletes(&self, key: u32) {
        self.of(key, |writes| writes.deletes_open += 1);
    }

    /// A delete was acknowledged.
    pub(crate) fn deleted(&self, key: u32, at: Duration, version: &WriteTime) {
        self.of(key, |writes| {
            writes.deletes_open -= 1;
            writes.acknowledged.push((at, *version, true));
        });
    }

    /// A delete certainly did nothing.
    pub(crate) fn not_deleted(&self, key: u32) {
        self.of(key, |writes| writes.deletes_open -= 1);
    }

    fn of(&self, key: u32, change: impl FnOnce(&mut Writes)) {
        change(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
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
        let Some(Writes { acknowledged, deletes_open }) = keys.get(&key) else { return Ok(()) };
        // Within one tick nobody knows what came first.
        let earlier = acknowledged.iter().filter(|(at, ..)| *at < since);
        let Some((at, written, _)) = earlier.max_by_key(|(_, written, _)| *written) else {
            return Ok(());
        };
        let fits = match version {
            Some(seen) => seen >= written,
            None => {
                let removes = |(_, by, deletes): &(_, _, bool)| *deletes && by >= written;
                *deletes_open > 0 || acknowledged.iter().any(removes)
            }
        };
        if fits {
            Ok(())
        } else {
            Err(Check::Staleness.found(format!(
                "a read of key {key}, sent at {sent:?} and to be no staler than {bound:?}, saw {version:?}, though \
                 {written:?} was acknowledged at {at:?}"
            )))
        }
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

    #[test]
    fn a_key_may_be_absent_once_a_delete_can_have_removed_the_last_value() {
        let ms = Duration::from_millis;
        let version = |ms| {
            let stamp = Stamp { time: Timestamp::from_ms(ms), node: NodeId(1) };
            WriteTime::of_log_write(stamp, 0)
        };
        let freshness = Freshness::default();
        freshness.written(1, ms(100), &version(90));
        let absent = |sent| freshness.seen(1, ms(sent), ms(0), None).is_ok();
        assert!(!absent(150));
        freshness.deletes(1);
        assert!(absent(150), "it may have happened");
        freshness.not_deleted(1);
        assert!(!absent(150));
        freshness.deletes(1);
        freshness.deleted(1, ms(200), &version(190));
        assert!(absent(250));
        assert!(freshness.seen(1, ms(250), ms(0), Some(&version(90))).is_err(), "it is gone");
        freshness.written(1, ms(300), &version(290));
        assert!(absent(300) && !absent(350), "it is there again");
    }
}
