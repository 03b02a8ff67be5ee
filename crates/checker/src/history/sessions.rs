//! The rules that make lines a history, one line at a time: for the reader and the recorder alike.

use std::collections::BTreeMap;

use super::{Body, Event, HistoryError, MicroOp, Phase, Value};

/// What every process is doing.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    index_last: Option<u64>,
    processes: BTreeMap<u64, State>,
}

#[derive(Debug)]
enum State {
    Idle,
    Open { line: usize, micro_ops: Vec<MicroOp> },
    Retired { line: usize },
}

impl Sessions {
    /// Takes the event of the next line, or says why it cannot be the next.
    pub(crate) fn step(&mut self, line: usize, event: &Event) -> Result<(), HistoryError> {
        let index = event.index;
        if let Some(previous) = self.index_last
            && index <= previous
        {
            return Err(HistoryError::OutOfOrder { line, index, previous });
        }
        if let Body::Client { process, phase, micro_ops, .. } = &event.body {
            if micro_ops.is_empty() {
                return Err(HistoryError::Empty { line });
            }
            let state = self.processes.entry(*process).or_insert(State::Idle);
            *state = state.after(line, *process, *phase, micro_ops)?;
        }
        self.index_last = Some(index);
        Ok(())
    }

    /// What a process has open.
    pub(crate) fn open(&self, process: u64) -> Option<&[MicroOp]> {
        match self.processes.get(&process)? {
            State::Open { micro_ops, .. } => Some(micro_ops),
            State::Idle | State::Retired { .. } => None,
        }
    }
}

impl State {
    fn after(
        &self,
        line: usize,
        process: u64,
        phase: Phase,
        micro_ops: &[MicroOp],
    ) -> Result<Self, HistoryError> {
        match (self, phase) {
            (Self::Retired { line: retired }, _) => {
                Err(HistoryError::Retired { line, process, retired: *retired })
            }
            (Self::Open { line: open, .. }, Phase::Invoke) => {
                Err(HistoryError::StillOpen { line, process, open: *open })
            }
            (Self::Idle, Phase::Invoke) => {
                let sees = |op: &MicroOp| matches!(op, MicroOp::Read { value, .. } if *value != Value::Absent);
                if micro_ops.iter().any(sees) {
                    return Err(HistoryError::ResultInInvoke { line });
                }
                Ok(Self::Open { line, micro_ops: micro_ops.to_vec() })
            }
            (Self::Idle, Phase::Ok | Phase::Fail | Phase::Info) => {
                Err(HistoryError::NothingOpen { line, process })
            }
            (Self::Open { line: open, micro_ops: invoked }, _) => {
                let same = micro_ops.len() == invoked.len()
                    && micro_ops.iter().zip(invoked).all(|(done, asked)| done.completes(asked));
                if !same {
                    return Err(HistoryError::OtherOperation { line, open: *open });
                }
                Ok(if phase == Phase::Info { Self::Retired { line } } else { Self::Idle })
            }
        }
    }
}
