//! Audits of one replica: the checksum of its base at one index of the log.
//!
//! ```text
//!   apply: ..., entry 7 [Audit] │ written ─▶ snapshot taken ─▶ [ waits ] ─▶ read in slices ─▶ kept for whoever asks
//!                               │                              one place                      the last few
//!          entry 8, ...         ▼ goes on at once
//! ```
//!
//! The snapshot is taken within apply, before the next entry: so all replicas stand at exactly the same index,
//! however far each has got when it is asked. The rows are read later, outside of it, by [`Audits::run`].
//!
//! A snapshot pins what it shows, so one audit waits at most while another one is read; a newer one takes its
//! place. A replica that starts again, or catches up with a long log, meets old audits, and most are passed over.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::FutureExt;
use futures::future::BoxFuture;
use latitude_range::{AUDIT_FORMAT, Audit, Audited, Auditor, Reader, image_spans};
use latitude_storage::{Column, Engine};
use latitude_types::RangeId;
use tokio::sync::Notify;

use crate::snapshot::Pace;

/// What is read at once, of rows and of bytes, before others get their turn.
const SLICE: (usize, usize) = (1024, 256 << 10);
/// How many outcomes are kept.
const KEPT: usize = 8;

/// What came of an audit at one replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AuditOutcome {
    /// The checksum is being made, or is about to be.
    UnderWay,
    /// What the base came to.
    Done(Audited),
    /// The base cannot be read: it is damaged.
    Unreadable(String),
    /// It was not made, and why.
    NotMade(String),
}

/// The audits of one replica. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Audits(Arc<Inner>);

struct Inner {
    pace: Arc<Pace>,
    state: Mutex<State>,
    waiting: Notify,
}

#[derive(Default)]
struct State {
    /// By index.
    outcomes: BTreeMap<u64, AuditOutcome>,
    /// The audit that is read next.
    next: Option<(u64, BoxFuture<'static, AuditOutcome>)>,
}

impl Audits {
    /// `pace`: how fast rows are read.
    pub(crate) fn new(pace: Arc<Pace>) -> Self {
        Self(Arc::new(Inner { pace, state: Mutex::default(), waiting: Notify::new() }))
    }

    /// Begins an audit of the base as it is in `engine` now, right after the entry at `index`.
    pub(crate) fn begin(&self, engine: &Arc<dyn Engine>, range: RangeId, index: u64, audit: Audit) {
        let Audit { format } = audit;
        let mut state = self.state();
        if format != AUDIT_FORMAT {
            let why =
                format!("it makes checksums of format {AUDIT_FORMAT}, and was asked for {format}");
            state.settle(index, AuditOutcome::NotMade(why));
            return;
        }
        let mut made = make(Arc::clone(engine), range, Arc::clone(&self.0.pace)).boxed();
        // The first poll takes the snapshot, no more.
        if let Some(outcome) = (&mut made).now_or_never() {
            state.settle(index, outcome);
            return;
        }
        state.settle(index, AuditOutcome::UnderWay);
        if let Some((older, _)) = state.next.replace((index, made)) {
            let why = format!("the audit at {index} took its place");
            state.settle(older, AuditOutcome::NotMade(why));
        }
        drop(state);
        self.0.waiting.notify_one();
    }

    /// What came of the audit at `index`; `None` if this replica has not met it since it was started.
    pub(crate) fn outcome(&self, index: u64) -> Option<AuditOutcome> {
        self.state().outcomes.get(&index).cloned()
    }

    /// Makes checksums, one after the other, for as long as this is polled.
    pub(crate) async fn run(self) {
        loop {
            let next = self.state().next.take();
            match next {
                Some((index, made)) => {
                    let outcome = made.await;
                    self.state().settle(index, outcome);
                }
                None => self.0.waiting.notified().await,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nothing panics while it holds this")
    }
}

impl State {
    fn settle(&mut self, index: u64, outcome: AuditOutcome) {
        self.outcomes.insert(index, outcome);
        while self.outcomes.len() > KEPT {
            self.outcomes.pop_first();
        }
    }
}

/// Reads a range's base as it is when this is first polled.
async fn make(engine: Arc<dyn Engine>, range: RangeId, pace: Arc<Pace>) -> AuditOutcome {
    let view = engine.snapshot();
    futures::pending!();
    let read = async {
        let meta = Reader::new(range, &*view).map_err(io::Error::other)?.meta().clone();
        let mut auditor = Auditor::new(range);
        let spans = image_spans(&meta);
        let rows = spans.into_iter().flat_map(|span| view.scan(Column::Base, span.scan()));
        let mut slice = (0, 0);
        for row in rows {
            let (key, value) = row.map_err(io::Error::other)?;
            auditor.add(&key, &value).map_err(io::Error::other)?;
            slice = (slice.0 + 1, slice.1 + key.len() + value.len());
            if slice.0 >= SLICE.0 || slice.1 >= SLICE.1 {
                pace.pass(slice.1).await;
                tokio::task::yield_now().await;
                slice = (0, 0);
            }
        }
        Ok::<_, io::Error>(auditor.finish())
    };
    match read.await {
        Ok(audited) => AuditOutcome::Done(audited),
        Err(error) => AuditOutcome::Unreadable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use latitude_range::{Range, RangeMeta, Staged};
    use latitude_storage::memory::{MemoryDisk, MemoryEngine};
    use latitude_storage::{Batch, key};
    use latitude_types::{ClientId, KeySpan, KeyspaceId};

    use super::*;

    const RANGE: RangeId = RangeId(4);
    const AUDIT: Audit = Audit { format: AUDIT_FORMAT };

    fn store() -> Arc<dyn Engine> {
        let engine = MemoryEngine::open(&MemoryDisk::new()).expect("a store in memory opens");
        let meta = RangeMeta::new(RANGE, KeyspaceId(16), KeySpan::all(), 1024, false);
        let mut staged = Staged::new(&engine);
        Range::create(&meta, &mut staged);
        engine.write(staged.into_batch()).expect("the disk has space");
        Arc::new(engine)
    }

    fn put(engine: &Arc<dyn Engine>, row_key: Vec<u8>, row: &[u8]) {
        let mut batch = Batch::new();
        batch.put(Column::Base, row_key, row.to_vec());
        engine.write(batch).expect("the disk has space");
    }

    fn answers(client: u16) -> Vec<u8> {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&client.to_be_bytes());
        key::local::id_window(RANGE, ClientId(id))
    }

    /// Lets everything that can be done be done.
    async fn settled(audits: &Audits) {
        let run = audits.clone().run();
        assert!(tokio::time::timeout(std::time::Duration::from_secs(60), run).await.is_err());
    }

    fn done(audits: &Audits, index: u64) -> Audited {
        match audits.outcome(index) {
            Some(AuditOutcome::Done(audited)) => audited,
            other => panic!("{index}: {other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_read_is_what_was_there_when_the_audit_began() {
        let (engine, audits) = (store(), Audits::new(Arc::new(Pace::new(1 << 20))));
        audits.begin(&engine, RANGE, 7, AUDIT);
        put(&engine, answers(1), b"later");
        assert_eq!(audits.outcome(7), Some(AuditOutcome::UnderWay));
        settled(&audits).await;
        assert_eq!(done(&audits, 7).rows, 1);
        audits.begin(&engine, RANGE, 9, AUDIT);
        settled(&audits).await;
        assert_eq!(done(&audits, 9).rows, 2);
        assert_ne!(done(&audits, 9).checksum, done(&audits, 7).checksum);
        assert_eq!(audits.outcome(8), None);
    }

    #[tokio::test(start_paused = true)]
    async fn others_get_their_turn_while_many_rows_are_read() {
        let (engine, audits) = (store(), Audits::new(Arc::new(Pace::new(1 << 20))));
        let rows = 5 * SLICE.0 as u16;
        (0..rows).for_each(|client| put(&engine, answers(client), &[1; 64]));
        audits.begin(&engine, RANGE, 7, AUDIT);
        let mut run = audits.clone().run().boxed();
        for _ in 0..5 {
            assert_eq!((&mut run).now_or_never(), None);
            assert_eq!(audits.outcome(7), Some(AuditOutcome::UnderWay));
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
        }
        drop(tokio::time::timeout(std::time::Duration::from_secs(60), run).await);
        assert_eq!(done(&audits, 7).rows, u64::from(rows) + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_waits_at_most_and_few_outcomes_are_kept() {
        let (engine, audits) = (store(), Audits::new(Arc::new(Pace::new(1 << 20))));
        (1..=3).for_each(|index| audits.begin(&engine, RANGE, index, AUDIT));
        settled(&audits).await;
        let overtaken = AuditOutcome::NotMade("the audit at 2 took its place".into());
        assert_eq!(audits.outcome(1), Some(overtaken));
        done(&audits, 3);
        for index in 4..=20 {
            audits.begin(&engine, RANGE, index, AUDIT);
            settled(&audits).await;
        }
        assert_eq!(audits.outcome(3), None);
        assert_eq!(audits.state().outcomes.len(), KEPT);
        done(&audits, 20);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_or_compared_is_said() {
        let (engine, audits) = (store(), Audits::new(Arc::new(Pace::new(1 << 20))));
        audits.begin(&engine, RANGE, 1, Audit { format: AUDIT_FORMAT + 1 });
        assert!(matches!(audits.outcome(1), Some(AuditOutcome::NotMade(_))));
        put(&engine, key::local::meta(RANGE), b"garbage");
        audits.begin(&engine, RANGE, 2, AUDIT);
        settled(&audits).await;
        assert!(matches!(audits.outcome(2), Some(AuditOutcome::Unreadable(_))));
    }
}
