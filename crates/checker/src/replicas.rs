//! A store of registers that keeps its promises, for tests: some replicas, a log, and clients at all levels.
//!
//! ```text
//!   replica 0   log up to 4, own local writes, those of replica 1 up to 2     a local write is taken over
//!   replica 1   log up to 7, own local writes, those of replica 0 up to 5     once its past is there
//!   base        the log, and the local writes folded into it                  the largest time wins
//! ```
//!
//! With `weak_percent` it breaks them: an operation forgets its session, or a write its past.

use std::collections::BTreeMap;
use std::io;

use crate::history::{Extras, MicroOp, Operation, Value, Version};
use crate::numbers::Numbers;
use crate::{Level, Recorder};

/// What a simulated run is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) clients: usize,
    pub(crate) operations: usize,
    pub(crate) keys: usize,
    pub(crate) replicas: usize,
    /// The micro-operations to draw from.
    pub(crate) mix: &'static [&'static str],
    /// The levels to draw from.
    pub(crate) levels: &'static [Level],
    /// How many in a hundred operations end unknown, and as many fail.
    pub(crate) trouble_percent: usize,
    /// How many in a hundred operations come with another client's token.
    pub(crate) token_percent: usize,
    /// How many in a hundred operations break a promise.
    pub(crate) weak_percent: usize,
    /// How many in a hundred replies show the version.
    pub(crate) version_percent: usize,
    /// Whether every replica reads every key once all is over, in sessions of their own.
    pub(crate) final_reads: bool,
}

pub(crate) const CAUSAL: &[Level] = &[Level::Causal];
pub(crate) const MIXED: &[Level] =
    &[Level::Strict, Level::Sequential, Level::Causal, Level::Causal, Level::Eventual];

/// A time and who gave it.
type Stamp = [u64; 2];

/// A write, as replicas hand it on.
#[derive(Clone, Debug)]
struct Write {
    key: usize,
    value: Option<i64>,
    stamp: Stamp,
    /// How many writes of each origin its session had seen; the last origin is the log.
    past: Vec<usize>,
}

type Cells = BTreeMap<usize, (usize, usize, Stamp)>;

/// What a session has seen.
#[derive(Clone, Debug)]
struct Session {
    seen: Vec<usize>,
    time: u64,
    /// How much of each stream must be folded for its own local writes to be.
    own: Vec<usize>,
}

impl Session {
    fn join(&mut self, other: &Self) {
        let join = |mine: &mut [usize], more: &[usize]| {
            mine.iter_mut().zip(more).for_each(|(mine, more)| *mine = *more.max(mine));
        };
        join(&mut self.seen, &other.seen);
        join(&mut self.own, &other.own);
        self.time = self.time.max(other.time);
    }
}

struct Client {
    process: u64,
    session: Session,
    replica: usize,
    open: Option<(MicroOp, Level)>,
}

struct Store {
    /// The writes of each origin; the last is the log.
    streams: Vec<Vec<Write>>,
    /// How much of each stream each replica has, and what it holds.
    replicas: Vec<(Vec<usize>, Cells)>,
    base: Cells,
    /// How much of each stream is folded; some of the rest may be.
    folded: Vec<usize>,
}

impl Store {
    fn new(shape: Shape) -> Self {
        let origins = shape.replicas + 1;
        Self {
            streams: vec![Vec::new(); origins],
            replicas: vec![(vec![0; origins], Cells::new()); shape.replicas],
            base: Cells::new(),
            folded: vec![0; origins],
        }
    }

    fn put(cells: &mut Cells, write: &Write, origin: usize, at: usize) {
        let held = cells.get(&write.key).map_or([0, 0], |&(.., stamp)| stamp);
        if write.stamp > held {
            cells.insert(write.key, (origin, at, write.stamp));
        }
    }

    fn write(&self, cells: &Cells, key: usize) -> Option<(usize, usize, &Write)> {
        let &(origin, at, _) = cells.get(&key)?;
        Some((origin, at, &self.streams[origin][at]))
    }

    /// Gives a replica the next write of an origin, if the causes are there.
    fn deliver(&mut self, replica: usize, origin: usize, blind: bool) -> bool {
        let (have, cells) = &mut self.replicas[replica];
        let at = have[origin];
        let Some(write) = self.streams[origin].get(at) else { return false };
        if !blind && write.past.iter().zip(have.iter()).any(|(need, have)| need > have) {
            return false;
        }
        Self::put(cells, write, origin, at);
        have[origin] += 1;
        true
    }

    /// Delivers until a replica has what is asked for.
    fn catch_up(&mut self, replica: usize, seen: &[usize]) {
        while (0..seen.len()).any(|origin| {
            self.replicas[replica].0[origin] < seen[origin] && {
                let moved = (0..seen.len()).any(|origin| self.deliver(replica, origin, false));
                assert!(moved, "the causes of what somebody saw exist");
                true
            }
        }) {}
    }

    fn take(&mut self, origin: usize, write: Write) -> usize {
        self.streams[origin].push(write);
        self.streams[origin].len() - 1
    }

    fn fold(&mut self, origin: usize, at: usize) {
        Self::put(&mut self.base, &self.streams[origin][at], origin, at);
    }

    fn fold_all(&mut self, own: &[usize]) {
        for (origin, &upto) in own.iter().enumerate() {
            for at in self.folded[origin]..upto {
                self.fold(origin, at);
            }
            self.folded[origin] = self.folded[origin].max(upto);
        }
    }
}

/// Runs clients against it.
pub(crate) fn simulate(seed: u64, shape: Shape) -> Vec<Operation> {
    let mut numbers = Numbers(seed);
    let recorder = Recorder::new(io::sink());
    let mut store = Store::new(shape);
    let origins = shape.replicas + 1;
    let fresh = || Session { seen: vec![0; origins], own: vec![0; origins], time: 0 };
    let mut clients: Vec<Client> = (0..shape.clients)
        .map(|at| Client {
            process: recorder.process(),
            session: fresh(),
            replica: at % shape.replicas,
            open: None,
        })
        .collect();
    let mut late: Vec<(MicroOp, Level, Session, usize)> = Vec::new();
    let (mut invoked, mut time, mut value) = (0, 0, 0);
    while invoked < shape.operations || clients.iter().any(|client| client.open.is_some()) {
        time += 1;
        let (replica, origin) = (numbers.below(shape.replicas), numbers.below(origins));
        let blind = numbers.percent(shape.weak_percent / 2);
        store.deliver(replica, origin, blind);
        if numbers.percent(20) && origin < shape.replicas && !store.streams[origin].is_empty() {
            let at = numbers.below(store.streams[origin].len());
            store.fold(origin, at);
        }
        if !late.is_empty() && numbers.percent(15) {
            let (op, level, mut session, replica) = late.swap_remove(numbers.below(late.len()));
            perform(&mut store, &op, level, &mut session, replica);
        }
        let chosen = numbers.below(shape.clients);
        let other = &clients[numbers.below(shape.clients)];
        let (token, handed) = (other.process, other.session.clone());
        let client = &mut clients[chosen];
        let process = client.process;
        let Some((op, level)) = client.open.take() else {
            if invoked < shape.operations {
                invoked += 1;
                let level = shape.levels[numbers.below(shape.levels.len())];
                let mut extras = Extras { level: Some(level.to_string()), ..Extras::default() };
                if token != process && numbers.percent(shape.token_percent) {
                    extras.token_from = Some(token);
                    client.session.join(&handed);
                }
                if numbers.percent(10) {
                    client.replica = numbers.below(shape.replicas);
                }
                value += 1;
                let op = draw(&mut numbers, shape, &store, value);
                recorder.invoke(process, time, vec![op.clone()], extras).unwrap();
                client.open = Some((op, level));
            }
            continue;
        };
        if numbers.percent(shape.weak_percent) {
            client.session = fresh();
            client.replica = numbers.below(shape.replicas);
        }
        if numbers.percent(shape.trouble_percent) {
            if numbers.percent(50) {
                recorder.fail(process, time, Extras::default()).unwrap();
                continue;
            }
            let (session, replica) = (client.session.clone(), client.replica);
            match op {
                MicroOp::Read { .. } => {}
                op if numbers.percent(50) => {
                    drop(perform(&mut store, &op, level, &mut session.clone(), replica));
                }
                op => late.push((op, level, session, replica)),
            }
            client.process = recorder.info(process, time, Extras::default()).unwrap();
            client.session = fresh();
            continue;
        }
        let (answer, stamp) = perform(&mut store, &op, level, &mut client.session, client.replica);
        let shown = stamp.filter(|_| numbers.percent(shape.version_percent));
        let version = shown.map(|stamp| Version(stamp.to_vec()));
        let extras = Extras { version, ..Extras::default() };
        match answer {
            Some(answer) => recorder.ok(process, time, vec![answer], extras).unwrap(),
            None => recorder.mismatch(process, time, extras).unwrap(),
        };
    }
    if shape.final_reads {
        let everything: Vec<usize> = store.streams.iter().map(Vec::len).collect();
        for replica in 0..shape.replicas {
            store.catch_up(replica, &everything);
            let process = recorder.process();
            for key in 0..shape.keys {
                let op = MicroOp::Read { key: name(key), value: Value::Absent };
                let extras = Extras {
                    level: Some(Level::Eventual.to_string()),
                    node: Some(format!("n{replica}")),
                    is_final: true,
                    ..Extras::default()
                };
                recorder.invoke(process, time, vec![op.clone()], extras).unwrap();
                let mut session = fresh();
                let (answer, _) = perform(&mut store, &op, Level::Eventual, &mut session, replica);
                let answer = answer.expect("a read is answered");
                recorder.ok(process, time, vec![answer], Extras::default()).unwrap();
            }
        }
    }
    recorder.history().operations()
}

fn name(key: usize) -> String {
    format!("k{key}")
}

/// What an operation is answered, `None` for a mismatch, and the stamp of what it found or wrote.
fn perform(
    store: &mut Store,
    op: &MicroOp,
    level: Level,
    session: &mut Session,
    replica: usize,
) -> (Option<MicroOp>, Option<Stamp>) {
    let key: usize = op.key()[1..].parse().expect("keys have numbers");
    let conditional = matches!(op, MicroOp::CompareAndSet { .. } | MicroOp::PutIfAbsent { .. });
    let log = level.is_log() || conditional;
    let log_origin = store.streams.len() - 1;
    if log {
        store.fold_all(&session.own);
    } else if level == Level::Causal {
        let seen = session.seen.clone();
        store.catch_up(replica, &seen);
    }
    let cells = if log { &store.base } else { &store.replicas[replica].1 };
    let held = store.write(cells, key);
    let held_value = held.and_then(|(.., write)| write.value);
    let held_stamp = held.map(|(.., write)| write.stamp);
    let looks = conditional || matches!(op, MicroOp::Read { .. });
    if looks
        && (log || level == Level::Causal)
        && let Some((origin, at, write)) = held
    {
        let (past, stamp) = (write.past.clone(), write.stamp);
        let seen = &mut session.seen;
        seen.iter_mut().zip(&past).for_each(|(mine, more)| *mine = *more.max(mine));
        seen[origin] = seen[origin].max(at + 1);
        session.time = session.time.max(stamp[0]);
    }
    let value = match op {
        MicroOp::Read { key, .. } => {
            let value = held_value.map_or(Value::Absent, Value::Integer);
            return (Some(MicroOp::Read { key: key.clone(), value }), held_stamp);
        }
        MicroOp::Write { value, .. } => Some(*value),
        MicroOp::Delete { .. } => None,
        MicroOp::CompareAndSet { from, to, .. } if *from == held_value => Some(*to),
        MicroOp::PutIfAbsent { value, .. } if held_value.is_none() => Some(*value),
        _ => return (None, held_stamp),
    };
    let origin = if log { log_origin } else { replica };
    // A stamp is above the session's past; of the log, above all of base too.
    let above = if log { held_stamp.map_or(0, |stamp| stamp[0]) } else { 0 };
    let last = store.streams[origin].last().map_or(0, |write| write.stamp[0]);
    let stamp = [session.time.max(above).max(last) + 1, origin as u64 + 1];
    let past = match level {
        Level::Eventual if !log => vec![0; session.seen.len()],
        _ => session.seen.clone(),
    };
    let at = store.take(origin, Write { key, value, stamp, past });
    if log {
        store.fold(origin, at);
    } else {
        session.own[origin] = at + 1;
        let everything = store.streams[origin].len();
        // Its own node has it at once, whatever else it lacks.
        while store.replicas[replica].0[origin] < everything {
            store.deliver(replica, origin, true);
        }
    }
    session.time = stamp[0];
    session.seen[origin] = session.seen[origin].max(at + 1);
    (Some(op.clone()), Some(stamp))
}

fn draw(numbers: &mut Numbers, shape: Shape, store: &Store, value: i64) -> MicroOp {
    let at = numbers.below(shape.keys);
    let key = name(at);
    match shape.mix[numbers.below(shape.mix.len())] {
        "r" => MicroOp::Read { key, value: Value::Absent },
        "w" => MicroOp::Write { key, value },
        "pia" => MicroOp::PutIfAbsent { key, value },
        "d" => MicroOp::Delete { key },
        _ => {
            let from = store.write(&store.base, at).and_then(|(.., write)| write.value);
            MicroOp::CompareAndSet { key, from, to: value }
        }
    }
}
