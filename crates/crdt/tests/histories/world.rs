//! Three nodes, their streams and one log, for one key.

use std::collections::BTreeSet;

use bytes::Bytes;
use latitude_crdt::{Fate, Op, State, Transient, ValueType, Write};
use latitude_types::{ClientId, NodeId, OperationId, OperationKind, Stamp, Timestamp};

use crate::oracle;
use crate::rules::{Base, Rules};

pub(crate) const NODES: usize = 3;

/// What happens next. Numbers choose among what there is at that moment.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A client writes at a node; its operation was made `age` seconds ago.
    Local { at: u8, what: u8, name: u8, age: u8 },
    /// A client that lost the reply to one of the last writes sends it to another node.
    Retry { which: u8, at: u8 },
    /// A node gets from another what that holds of one origin's stream, or of all.
    Sync { from: u8, to: u8, streams: u8 },
    /// A node applies the log up to this far from its end.
    Apply { at: u8, behind: u8 },
    /// A node that leads folds a share of what it holds of an origin.
    Fold { leader: u8, origin: u8, share: u8 },
    /// A node that leads gets what all others hold, and folds it.
    FoldAll { leader: u8 },
    /// A log write, by a client that has seen what a node shows, or nothing.
    Log { leader: u8, what: u8, name: u8, seen: u8 },
    /// A node is judged.
    Judge { at: u8, order: u64 },
}

/// What is wrong with a history.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// A law is broken.
    Rules(String),
    /// An add is gone that no remover knew.
    LostAdd,
}

/// A local write as one origin took it.
#[derive(Clone, Debug)]
pub(crate) struct Delta {
    pub(crate) position: Timestamp,
    pub(crate) id: OperationId,
    pub(crate) op: Op,
    pub(crate) named: Vec<OperationId>,
}

impl Delta {
    pub(crate) fn write(&self) -> Write<'_> {
        Write::local(&self.id, &self.op, &self.named)
    }
}

/// An entry of the log: a fold or a log write.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Fold { stamp: Stamp, origin: usize, to: Timestamp, deltas: Vec<Delta> },
    Write { stamp: Stamp, id: OperationId, op: Op, named: Vec<OperationId> },
}

impl Entry {
    fn deltas(&self) -> &[Delta] {
        match self {
            Self::Fold { deltas, .. } => deltas,
            Self::Write { .. } => &[],
        }
    }

    fn written(&self) -> Option<(&OperationId, &[OperationId])> {
        match self {
            Self::Write { id, named, .. } => Some((id, named)),
            Self::Fold { .. } => None,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) base: Base,
    pub(crate) applied: usize,
    /// It holds every delta of each origin up to here.
    pub(crate) held: [Timestamp; NODES],
}

pub(crate) struct World {
    rules: Rules,
    pub(crate) value_type: ValueType,
    now_ms: u64,
    sequence: u64,
    pub(crate) nodes: [Node; NODES],
    pub(crate) streams: [Vec<Delta>; NODES],
    pub(crate) log: Vec<Entry>,
    /// Local operations as their clients made them, for retries.
    made: Vec<(OperationId, Op, Option<Vec<OperationId>>)>,
    pub(crate) removers: Vec<Remover>,
}

/// Every taking of an operation that removes, with the ids its node knew of, live or not.
pub(crate) struct Remover {
    pub(crate) op: Op,
    pub(crate) known: BTreeSet<OperationId>,
}

impl World {
    /// Plays a history and judges it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn play(
        rules: Rules,
        value_type: ValueType,
        steps: &[(u8, Step)],
    ) -> Result<(), Wrong> {
        let mut world = World {
            rules,
            value_type,
            now_ms: 1_000_000,
            sequence: 0,
            nodes: Default::default(),
            streams: Default::default(),
            log: Vec::new(),
            made: Vec::new(),
            removers: Vec::new(),
        };
        for (wait, step) in steps {
            // Squared: mostly moments, now and then most of the ten minutes that ids live.
            world.now_ms += 1 + u64::from(*wait).pow(2) * 60;
            world.step(step)?;
        }
        // Faults end: everybody gets everything.
        for at in 0..NODES {
            (0..NODES).for_each(|from| world.sync(from, at, from));
            world.apply(at, world.log.len());
            world.judge(at, world.now_ms ^ at as u64)?;
        }
        oracle::judge_the_end(&world)
    }

    fn step(&mut self, step: &Step) -> Result<(), Wrong> {
        match *step {
            Step::Local { at, what, name, age } => self.local(at.into(), what, name, age),
            Step::Retry { which, at } => self.retry(which.into(), at.into()),
            Step::Sync { from, to, streams } => self.sync(from.into(), to.into(), streams.into()),
            Step::Apply { at, behind } => {
                self.apply(at.into(), self.log.len().saturating_sub(behind.into()));
            }
            Step::Fold { leader, origin, share } => self.fold(leader.into(), origin.into(), share),
            Step::FoldAll { leader } => {
                for origin in 0..NODES {
                    self.sync(origin, leader.into(), origin);
                    self.fold(leader.into(), origin, u8::MAX);
                }
            }
            Step::Log { leader, what, name, seen } => {
                self.log_write(leader.into(), what, name, seen)
            }
            Step::Judge { at, order } => return self.judge(at.into(), order),
        }
        Ok(())
    }

    fn tick(&mut self) -> Timestamp {
        self.now_ms += 1;
        Timestamp::from_ms(self.now_ms)
    }

    /// `streams` is one origin's, or, beyond the number of nodes, everyone's.
    fn sync(&mut self, from: usize, to: usize, streams: usize) {
        // The origin's own frontier is now: it gives no position below it any more.
        self.nodes[from].held[from] = self.tick();
        for origin in (0..NODES).filter(|origin| streams == *origin || streams >= NODES) {
            let held = self.nodes[from].held[origin];
            self.nodes[to].held[origin] = self.nodes[to].held[origin].max(held);
        }
    }

    fn local(&mut self, at: usize, what: u8, name: u8, age: u8) {
        let id = self.id(OperationKind::Local, age);
        let op = self.op(OperationKind::Local, what, name);
        // The context of siblings is the client's, and the same in every copy.
        let context = match (&op, self.value_type) {
            (Op::Put { .. }, ValueType::Siblings) if what.is_multiple_of(3) => Some(Vec::new()),
            (Op::Put { .. }, ValueType::Siblings) => {
                let view = self.view(at, 0);
                Some(view.elements().iter().map(|element| element.id).collect())
            }
            _ => None,
        };
        self.made.push((id, op.clone(), context.clone()));
        self.take(at, id, op, context);
    }

    fn retry(&mut self, which: usize, at: usize) {
        let Some(nth) = self.made.len().checked_sub(1 + which % 4) else { return };
        let (id, op, context) = self.made[nth].clone();
        if Timestamp::from_ms(self.now_ms + 1) > id.expires_at() {
            return;
        }
        // A node that knows the id answers with what became of it, and takes nothing.
        let node = &self.nodes[at];
        let in_overlay = |(origin, stream): (usize, &Vec<Delta>)| {
            stream.iter().any(|delta| delta.id == id && delta.position <= node.held[origin])
        };
        let known = node.base.ids.get(&id) == Some(&Fate::TookEffect);
        if known || self.streams.iter().enumerate().any(in_overlay) {
            return;
        }
        self.take(at, id, op, context);
    }

    fn named_by(&self, at: usize, id: &OperationId, op: &Op) -> Vec<OperationId> {
        let view = self.view(at, 0);
        let named = view.named_by(id, op);
        let adding = name_if_adding(op).filter(|_| self.rules == Rules::NameAllSeen);
        let replaced =
            view.elements().iter().filter(|element| adding.as_ref() == Some(&element.name));
        named.into_iter().chain(replaced.map(|element| element.id)).collect()
    }

    fn take(&mut self, at: usize, id: OperationId, op: Op, context: Option<Vec<OperationId>>) {
        let named = context.unwrap_or_else(|| self.named_by(at, &id, &op));
        self.removers.push(Remover { op: op.clone(), known: self.known_at(at).collect() });
        let position = self.tick();
        self.streams[at].push(Delta { position, id, op, named });
        self.nodes[at].held[at] = position;
    }

    fn apply(&mut self, at: usize, until: usize) {
        let node = &mut self.nodes[at];
        for entry in self.log.iter().take(until).skip(node.applied) {
            node.base.apply(self.rules, self.value_type, entry);
        }
        node.applied = node.applied.max(until);
    }

    /// A leader has applied its log before it proposes, here.
    fn lead(&mut self, leader: usize) -> Stamp {
        self.apply(leader, self.log.len());
        Stamp { time: self.tick(), node: NodeId(leader as u32 + 1) }
    }

    fn fold(&mut self, leader: usize, origin: usize, share: u8) {
        let stamp = self.lead(leader);
        let node = &self.nodes[leader];
        let from = node.base.folded[origin];
        let held: Vec<_> = self.streams[origin]
            .iter()
            .filter(|delta| delta.position > from && delta.position <= node.held[origin])
            .collect();
        let deltas: Vec<Delta> = held
            .iter()
            .take(held.len() * (usize::from(share) + 64) / 256)
            .map(|d| (*d).clone())
            .collect();
        let to = match deltas.last() {
            _ if deltas.len() == held.len() => node.held[origin],
            Some(last) => last.position,
            None => from,
        };
        self.log.push(Entry::Fold { stamp, origin, to, deltas });
        self.apply(leader, self.log.len());
    }

    fn log_write(&mut self, leader: usize, what: u8, name: u8, seen: u8) {
        let id = self.id(OperationKind::Log, 0);
        let op = self.op(OperationKind::Log, what, name);
        let stamp = self.lead(leader);
        let mut known: BTreeSet<_> = self.known_at(leader).collect();
        let named = match usize::from(seen) {
            seen if seen < NODES => {
                known.extend(self.known_at(seen));
                self.view(seen, 0).named_by(&id, &op)
            }
            _ => Vec::new(),
        };
        self.removers.push(Remover { op: op.clone(), known });
        self.log.push(Entry::Write { stamp, id, op, named });
        self.apply(leader, self.log.len());
    }

    fn id(&mut self, kind: OperationKind, age: u8) -> OperationId {
        self.sequence += 1;
        OperationId {
            birth: Timestamp::from_ms(self.now_ms - u64::from(age) * 1_000),
            client: ClientId([self.sequence as u8 % 3; 16]),
            sequence: self.sequence,
            kind,
        }
    }

    fn op(&self, kind: OperationKind, what: u8, name: u8) -> Op {
        let value = || Bytes::from(self.sequence.to_string());
        let name = Bytes::from(vec![b'a' + name]);
        let log = kind == OperationKind::Log;
        match (self.value_type, what % 8) {
            (ValueType::Counter, 0) if log => Op::Delete,
            (ValueType::Counter, 1) if log => Op::Reset,
            (ValueType::Counter, _) => Op::Add { amount: i64::from(what) - 100 },
            (ValueType::Register | ValueType::Siblings, 0..5) => Op::Put { value: value() },
            (ValueType::Set, 0..4) => Op::SetAdd { element: name },
            (ValueType::Set, 4..7) => Op::SetRemove { element: name },
            (ValueType::Map, 0..4) => Op::MapPut { field: name, value: value() },
            (ValueType::Map, 4..7) => Op::MapRemove { field: name },
            (ValueType::Flag, 0..4) => Op::Enable,
            (ValueType::Flag, _) => Op::Disable,
            (ValueType::Register | ValueType::Siblings | ValueType::Set | ValueType::Map, _) => {
                Op::Delete
            }
        }
    }

    /// The deltas a node's readers see beside its base, in some order.
    pub(crate) fn overlay(&self, at: usize, order: u64) -> Vec<&Delta> {
        let Node { base, held, .. } = &self.nodes[at];
        let mut deltas: Vec<&Delta> = (0..NODES)
            .flat_map(|origin| {
                let visible = move |delta: &&Delta| {
                    delta.position > base.folded[origin] && delta.position <= held[origin]
                };
                self.streams[origin].iter().filter(visible)
            })
            .collect();
        let mut random = order;
        for last in (1..deltas.len()).rev() {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            deltas.swap(last, (random >> 33) as usize % (last + 1));
        }
        deltas
    }

    /// What a node's readers see.
    pub(crate) fn view(&self, at: usize, order: u64) -> State {
        let base = &self.nodes[at].base;
        let mut state = base.state.clone();
        let mut ids = Transient::new(&base.ids);
        for delta in self.overlay(at, order) {
            self.rules.merge(self.value_type, &mut state, &delta.write(), &mut ids);
        }
        state
    }

    /// Judges what a node shows.
    fn judge(&self, at: usize, order: u64) -> Result<(), Wrong> {
        let view = self.view(at, order);
        for order in [order.wrapping_add(1), order.wrapping_add(2)] {
            let mut base = self.nodes[at].base.clone();
            for delta in self.overlay(at, order) {
                base.fold(self.rules, self.value_type, delta);
            }
            if base.state != view {
                let folded = base.state;
                return Err(Wrong::Rules(format!("n{at} shows {view:?}, folded {folded:?}")));
            }
        }
        let ended: BTreeSet<_> = self.met_at(at).flat_map(|(_, named)| named).collect();
        match view.elements().iter().find(|element| ended.contains(&element.id)) {
            Some(back) => Err(Wrong::Rules(format!("n{at} shows {back:?}, which was ended"))),
            None => Ok(()),
        }
    }

    /// Everything a node has met: in the log it has applied, or in its overlay.
    fn met_at(&self, at: usize) -> impl Iterator<Item = (&OperationId, &[OperationId])> {
        let applied = &self.log[..self.nodes[at].applied];
        let deltas = applied.iter().flat_map(Entry::deltas).chain(self.overlay(at, 0));
        deltas
            .map(|delta| (&delta.id, delta.named.as_slice()))
            .chain(applied.iter().filter_map(Entry::written))
    }

    fn known_at(&self, at: usize) -> impl Iterator<Item = OperationId> {
        self.met_at(at).map(|(id, _)| *id)
    }
}

/// The name of what an adding operation on a set, a map or a flag adds.
pub(crate) fn name_if_adding(op: &Op) -> Option<Bytes> {
    match op {
        Op::SetAdd { element } => Some(element.clone()),
        Op::MapPut { field, .. } => Some(field.clone()),
        Op::Enable => Some(Bytes::new()),
        _ => None,
    }
}
