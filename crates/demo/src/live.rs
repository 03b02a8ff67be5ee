//! Keys that one client writes again and again while others read them, so that what a read finds tells
//! how old it is.
//!
//! ```text
//!   writer in one region    1 ─ 2 ─ 3 ─ 4 ─ 5 ─▶        one key in each range, one write after another
//!                                   │   ▲ acknowledged
//!   a read elsewhere finds 3 ───────┘   "at most 200 ms old": 4 was acknowledged less than that before
//! ```
//!
//! All times are of one process's monotonic clock, so what a receipt proves can be held against them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use latitude_client::Level;
use tokio::time::{Instant, sleep};

use crate::ledger::{Write, put};
use crate::world::{Range, World};

/// The writer's pause between an answer and its next write of the same key.
const PAUSE: Duration = Duration::from_millis(100);

/// The site of the writer.
const WRITER: usize = 0;

/// One key in each range, written again and again.
pub(crate) struct Live {
    keys: Vec<Key>,
    stop: AtomicBool,
}

struct Key {
    name: String,
    /// The newest number sent.
    sent: AtomicU64,
    /// When numbers were acknowledged, in order.
    acknowledged: Mutex<Vec<(Instant, u64)>>,
}

impl Live {
    /// A key in each of the ranges.
    pub(crate) fn new(ranges: &[Range]) -> Self {
        let key = |range: &Range| Key {
            name: format!("{}#live", range.zones[0].name),
            sent: AtomicU64::new(0),
            acknowledged: Mutex::default(),
        };
        Self { keys: ranges.iter().map(key).collect(), stop: AtomicBool::new(false) }
    }

    /// How many keys there are; they are counted from 0, in the order of the ranges.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// A key's name.
    pub(crate) fn name(&self, key: usize) -> &str {
        &self.keys[key].name
    }

    /// Writes every key once, then all of them side by side until told to stop. Gives the last write of
    /// each, which is what the keys hold from then on.
    ///
    /// # Errors
    /// When a write fails: nothing is broken here that could excuse it.
    pub(crate) async fn write(&self, world: &World) -> Result<Vec<Write>> {
        try_join_all(self.keys.iter().map(|key| self.write_key(world, key))).await
    }

    /// Lets the writes under way end, and has no more made.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    async fn write_key(&self, world: &World, key: &Key) -> Result<Write> {
        let keyspace = world.sites[WRITER].keyspace(Level::Strict);
        for number in 1.. {
            key.sent.store(number, Ordering::Relaxed);
            let (name, value) = (key.name.clone(), number.to_string());
            let (write, result) = put(&keyspace, Level::Strict, WRITER, name, value).await;
            result.with_context(|| format!("{} cannot be written", key.name))?;
            key.acknowledged.lock().expect("no reader panics").push((Instant::now(), number));
            if self.stop.load(Ordering::Relaxed) {
                return Ok(write);
            }
            sleep(PAUSE).await;
        }
        unreachable!("nobody writes 2^64 numbers")
    }

    /// Waits until every key has been written.
    pub(crate) async fn all_written(&self) {
        let none = |key: &Key| key.acknowledged.lock().expect("no reader panics").is_empty();
        while self.keys.iter().any(none) {
            sleep(PAUSE / 4).await;
        }
    }

    /// Judges what a read that began at `began` found, by the staleness its receipt proves. Gives the
    /// number found; 0 if there was none.
    ///
    /// # Errors
    /// When it found what nobody has written, or what is older than proved.
    pub(crate) fn judge(
        &self,
        key: usize,
        found: Option<&[u8]>,
        began: Instant,
        staleness: Option<Duration>,
    ) -> Result<u64> {
        let key = &self.keys[key];
        let number: u64 = match found {
            Some(bytes) => std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| text.parse().ok())
                .with_context(|| format!("{} holds what nobody wrote: {bytes:?}", key.name))?,
            None => 0,
        };
        let sent = key.sent.load(Ordering::Relaxed);
        ensure!(number <= sent, "{} holds {number}, and only {sent} has been written", key.name);
        let Some(staleness) = staleness else { return Ok(number) };
        let acknowledged = key.acknowledged.lock().expect("no reader panics");
        let before = acknowledged.iter().filter(|(at, _)| *at + staleness < began);
        let least = before.map(|(_, number)| *number).max().unwrap_or(0);
        ensure!(
            number >= least,
            "a read of {} found {number} and was proved to be at most {staleness:?} old, but {least} had \
             been acknowledged longer ago",
            key.name
        );
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A key of which 1 was acknowledged at 100 ms and 2 at 200 ms, and 3 is on its way.
    fn live(zero: Instant) -> Live {
        let acknowledged = Mutex::new(vec![(zero + 100 * MS, 1), (zero + 200 * MS, 2)]);
        let key = Key { name: "k".to_string(), sent: AtomicU64::new(3), acknowledged };
        Live { keys: vec![key], stop: AtomicBool::new(false) }
    }

    #[test]
    fn a_read_is_as_fresh_as_its_receipt_proves_or_found_out() {
        let zero = Instant::now();
        let live = live(zero);
        let judge = |found: Option<&str>, staleness: u32| {
            let found = found.map(str::as_bytes);
            live.judge(0, found, zero + 250 * MS, Some(staleness * MS)).ok()
        };
        assert_eq!([judge(Some("2"), 0), judge(Some("3"), 0)], [Some(2), Some(3)]);
        assert_eq!([judge(Some("1"), 49), judge(Some("1"), 50)], [None, Some(1)]);
        assert_eq!([judge(None, 149), judge(None, 150)], [None, Some(0)]);
    }

    #[test]
    fn a_read_finds_nothing_that_was_not_written_however_old_it_may_be() {
        let zero = Instant::now();
        let live = live(zero);
        for found in ["4", "-1", "x", ""] {
            assert!(live.judge(0, Some(found.as_bytes()), zero, None).is_err(), "{found}");
        }
        assert_eq!(live.judge(0, Some(b"1"), zero + 999 * MS, None).unwrap(), 1);
    }
}
