//! Writes a history while it happens.
//!
//! Both lines of every operation are written under one lock, so that the order of the lines is an
//! order in which the events could have happened: an operation that returned before another began has
//! both its lines before the other's. Call [`Recorder::invoke`] before the request leaves and the
//! completion after the answer arrived, never the other way round, or a correct database looks wrong.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard};

use crate::history::{
    Body, CAS_MISMATCH, Event, Extras, History, HistoryError, MicroOp, Phase, Sessions, TRANSACTION,
};

/// Takes the events of all clients of one run. It refuses what would be no history: such a call is a
/// mistake of the harness.
#[derive(Debug)]
pub struct Recorder<W> {
    inner: Mutex<Inner<W>>,
}

#[derive(Debug)]
struct Inner<W> {
    output: W,
    events: Vec<Event>,
    sessions: Sessions,
    /// Above every number used or handed out.
    process_next: u64,
}

/// Why an event was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The harness broke the rules of a history; nothing was recorded.
    #[error(transparent)]
    Misuse(#[from] HistoryError),
    /// The line could not be written. The event is in memory all the same.
    #[error("the history could not be written: {0}")]
    Write(#[from] io::Error),
}

impl<W: Write> Recorder<W> {
    /// Starts an empty history, written to `output` line by line as it happens.
    pub fn new(output: W) -> Self {
        let inner =
            Inner { output, events: Vec::new(), sessions: Sessions::default(), process_next: 0 };
        Self { inner: Mutex::new(inner) }
    }

    /// A process number nobody used.
    pub fn process(&self) -> u64 {
        self.lock().process()
    }

    /// An operation is about to be sent. Returns the index of its line.
    pub fn invoke(
        &self,
        process: u64,
        time_nanos: u64,
        micro_ops: Vec<MicroOp>,
        extras: Extras,
    ) -> Result<u64, RecordError> {
        let mut inner = self.lock();
        inner.process_next = inner.process_next.max(process.saturating_add(1));
        let phase = Phase::Invoke;
        inner.record(time_nanos, TRANSACTION, Body::Client { process, phase, micro_ops, extras })
    }

    /// The open operation of the process certainly took effect. `micro_ops` are those invoked, with
    /// what the reads saw. Returns the index of its line.
    pub fn ok(
        &self,
        process: u64,
        time_nanos: u64,
        micro_ops: Vec<MicroOp>,
        extras: Extras,
    ) -> Result<u64, RecordError> {
        let phase = Phase::Ok;
        let body = Body::Client { process, phase, micro_ops, extras };
        self.lock().record(time_nanos, TRANSACTION, body)
    }

    /// The open operation of the process certainly had no effect and never will. A time-out is no
    /// failure but [`Recorder::info`].
    pub fn fail(&self, process: u64, time_nanos: u64, extras: Extras) -> Result<u64, RecordError> {
        self.lock().complete(process, time_nanos, TRANSACTION, Phase::Fail, extras)
    }

    /// The open conditional write of the process certainly found another value than it asked for, or its bounded
    /// addition a sum that would have left the bounds.
    pub fn mismatch(
        &self,
        process: u64,
        time_nanos: u64,
        extras: Extras,
    ) -> Result<u64, RecordError> {
        self.lock().complete(process, time_nanos, CAS_MISMATCH, Phase::Fail, extras)
    }

    /// Nobody knows what became of the open operation of the process. The process is no more: its
    /// client goes on as the process returned.
    pub fn info(&self, process: u64, time_nanos: u64, extras: Extras) -> Result<u64, RecordError> {
        let mut inner = self.lock();
        inner.complete(process, time_nanos, TRANSACTION, Phase::Info, extras)?;
        Ok(inner.process())
    }

    /// A fault was made or healed.
    pub fn nemesis(
        &self,
        time_nanos: u64,
        f: &str,
        value: serde_json::Value,
    ) -> Result<u64, RecordError> {
        self.lock().record(time_nanos, f, Body::Nemesis { value })
    }

    /// What happened so far.
    pub fn history(&self) -> History {
        valid(self.lock().events.clone())
    }

    /// Ends the recording: flushes, and returns what happened and where it was written.
    pub fn finish(self) -> io::Result<(History, W)> {
        let mut inner = self.inner.into_inner().expect(UNPOISONED);
        inner.output.flush()?;
        Ok((valid(inner.events), inner.output))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<W>> {
        self.inner.lock().expect(UNPOISONED)
    }
}

const UNPOISONED: &str =
    "only a panicking writer can poison the recorder, and then the run is lost";

fn valid(events: Vec<Event>) -> History {
    History::new(events).expect("every event was checked when it was recorded")
}

impl<W: Write> Inner<W> {
    fn process(&mut self) -> u64 {
        self.process_next += 1;
        self.process_next - 1
    }

    fn complete(
        &mut self,
        process: u64,
        time_nanos: u64,
        f: &str,
        phase: Phase,
        extras: Extras,
    ) -> Result<u64, RecordError> {
        let line = self.events.len() + 1;
        let open = self.sessions.open(process);
        let micro_ops = open.ok_or(HistoryError::NothingOpen { line, process })?.to_vec();
        self.record(time_nanos, f, Body::Client { process, phase, micro_ops, extras })
    }

    fn record(&mut self, time_nanos: u64, f: &str, body: Body) -> Result<u64, RecordError> {
        let index = self.events.len() as u64;
        let event = Event { index, time_nanos, f: f.to_owned(), body };
        self.sessions.step(self.events.len() + 1, &event)?;
        let written = event.write_line(&mut self.output);
        self.events.push(event);
        written?;
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Outcome, Value};

    fn read(value: Value) -> Vec<MicroOp> {
        vec![MicroOp::Read { key: "k".to_owned(), value }]
    }

    fn write(value: i64) -> Vec<MicroOp> {
        vec![MicroOp::Write { key: "k".to_owned(), value }]
    }

    #[test]
    fn what_is_written_reads_back_as_what_is_in_memory() {
        let recorder = Recorder::new(Vec::new());
        let (a, b) = (recorder.process(), recorder.process());
        let none = Extras::default;
        assert_eq!(recorder.invoke(a, 10, write(1), none()).unwrap(), 0);
        assert_eq!(recorder.invoke(b, 11, read(Value::Absent), none()).unwrap(), 1);
        recorder.nemesis(12, "partition", serde_json::json!({"cut": ["n1"]})).unwrap();
        recorder.fail(a, 13, none()).unwrap();
        let extras = Extras { node: Some("n1".to_owned()), is_final: true, ..none() };
        recorder.ok(b, 14, read(Value::Integer(1)), extras).unwrap();

        let (history, written) = recorder.finish().unwrap();
        assert_eq!(History::read(written.as_slice()).unwrap(), history);
        let outcomes: Vec<_> = history.operations().iter().map(|op| op.outcome).collect();
        assert_eq!(outcomes, [Outcome::Fail, Outcome::Ok]);
    }

    #[test]
    fn a_client_goes_on_under_a_fresh_process_after_an_unknown_outcome() {
        let recorder = Recorder::new(io::sink());
        recorder.invoke(7, 0, write(1), Extras::default()).unwrap();
        let next = recorder.info(7, 1, Extras::default()).unwrap();
        assert_eq!(next, 8);
        let refused = recorder.invoke(7, 2, write(2), Extras::default()).unwrap_err();
        assert!(matches!(refused, RecordError::Misuse(HistoryError::Retired { line: 3, .. })));
        recorder.invoke(next, 3, write(2), Extras::default()).unwrap();
        assert_eq!(recorder.history().events().len(), 3);
    }

    #[test]
    fn a_completion_of_nothing_is_refused_and_leaves_no_line() {
        let recorder = Recorder::new(Vec::new());
        assert!(recorder.fail(0, 0, Extras::default()).is_err());
        assert!(recorder.mismatch(0, 0, Extras::default()).is_err());
        let (history, written) = recorder.finish().unwrap();
        assert_eq!((history.events().len(), written.len()), (0, 0));
    }

    #[test]
    fn an_event_that_cannot_be_written_is_still_in_memory() {
        let mut room = [0u8; 8];
        let recorder = Recorder::new(room.as_mut_slice());
        let error = recorder.invoke(0, 0, write(1), Extras::default()).unwrap_err();
        assert!(matches!(error, RecordError::Write(_)));
        assert_eq!(recorder.history().events().len(), 1);
    }
}
