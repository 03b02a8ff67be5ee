//! Three nodes, their streams and one log, each replica twice: one that sweeps, one that forgets nothing.

use std::sync::Arc;

use bytes::Bytes;
use latitude_range::{
    Applied, Body, Carried, Delta, Entry, Expected, Kept, Op, Operation, Origin, OriginState,
    Overlay, RangeMeta, Reader, ScanRequest, Segment, Sweep, Value, ValueRow, ValueType, Write,
};
use latitude_storage::key::base::RowKind;
use latitude_types::{
    ClientId, Epoch, Key, KeySpan, KeyspaceId, Level, NodeId, OPERATION_ID_LIFETIME, OperationId,
    OperationKind, Past, Positions, RangeId, Stamp, Timestamp, WriteTime,
};

use crate::replica::Replica;

const NODES: usize = 3;
const RANGE: RangeId = RangeId(4);
const ELSEWHERE: RangeId = RangeId(9);
const KEYSPACE: KeyspaceId = KeyspaceId(16);
const KEYS: [&str; 2] = ["a", "b"];
const LIFETIME_MS: u64 = OPERATION_ID_LIFETIME.as_millis() as u64;

/// When rows go: as the code has it, or wrongly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    Right,
    /// The horizon is a minute ahead.
    MinuteEarly,
    /// The origin that is folded least is not waited for.
    WithoutIdle,
    /// Only origins are waited for.
    WithoutLastStamp,
    /// What was dropped leaves no stamp and no past behind.
    WithoutMarks,
}

/// What happens next. Numbers choose among what there is at that moment.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A client writes at a node; its operation was made just now, or is about to expire, as `age` says.
    Local { at: u8, what: u8, name: u8, age: u8 },
    /// A client that lost the reply to one of the last writes sends it to another node.
    Retry { which: u8, at: u8 },
    /// A node gets from another what that holds of one origin's stream, or of all.
    Sync { from: u8, to: u8, streams: u8 },
    /// A node applies the log up to this far from its end.
    Apply { at: u8, behind: u8 },
    /// A node that leads folds a share of what it holds of an origin.
    Fold { leader: u8, origin: u8, share: u8 },
    /// A node that leads gets all there is of one origin or of all, and folds it.
    Lift { leader: u8, origins: u8 },
    /// A log write, by a client that has seen what a node shows, or nothing.
    Log { leader: u8, what: u8, name: u8, seen: u8 },
    /// A log write is sent again.
    RetryLog { leader: u8, which: u8 },
    /// A node may take local writes from here on, or again.
    Admit { origin: u8 },
    /// A node is to stop taking local writes, has, and all it took is folded: so far of that.
    Seal { leader: u8, origin: u8, so_far: u8 },
    /// Minutes pass; a leader gets all there is, but of one origin, folds it, and sweeps everything.
    Settle { minutes: u8, leader: u8, without: u8 },
    /// Some keys, or all, are swept: one entry of that much work, or as many as it takes.
    Sweep { leader: u8, keys: u8, work: u8, stable: bool },
}

/// One node: how far it has applied the log, and what it holds of each stream.
struct Node {
    swept: Replica,
    plain: Replica,
    applied: usize,
    held: [Timestamp; NODES],
}

pub(crate) struct World {
    rule: Rule,
    value_type: ValueType,
    now_ms: u64,
    sequence: u64,
    meta: RangeMeta,
    nodes: Vec<Node>,
    streams: [Vec<Arc<Delta>>; NODES],
    log: Vec<Entry>,
    /// Local operations as their clients made them, for retries.
    made: Vec<(Key, OperationId, Op, Option<Vec<OperationId>>)>,
    logged: Vec<Operation>,
}

type Played = Result<(), String>;

impl World {
    /// Plays a history and judges it; an error says what is wrong with it.
    pub(crate) fn play(
        rule: Rule,
        value_type: ValueType,
        admitted: u8,
        steps: &[(u8, Step)],
    ) -> Played {
        let mut meta = RangeMeta::new(RANGE, KEYSPACE, KeySpan::all(), 1024, false);
        meta.value_type = value_type;
        let replica = || Replica::create(&meta, &[]).expect("a store in memory does not fail");
        let node = || Node {
            swept: replica(),
            plain: replica(),
            applied: 0,
            held: [Timestamp::ZERO; NODES],
        };
        let nodes = (0..NODES).map(|_| node()).collect();
        let mut world = Self {
            rule,
            value_type,
            now_ms: 1_000_000,
            sequence: 0,
            nodes,
            streams: Default::default(),
            log: Vec::new(),
            made: Vec::new(),
            logged: Vec::new(),
            meta,
        };
        for origin in (0..NODES).filter(|origin| admitted >> origin & 1 == 1) {
            world.admit(origin)?;
        }
        for (wait, step) in steps {
            // Cubed: mostly moments, now and then a good part of the ten minutes that ids live.
            world.now_ms += 1 + u64::from(*wait).pow(3);
            world.step(step)?;
            (0..NODES).try_for_each(|at| world.judge(at))?;
        }
        world.end()
    }

    fn step(&mut self, step: &Step) -> Played {
        match *step {
            Step::Local { at, what, name, age } => self.local(at.into(), what, name, age),
            Step::Retry { which, at } => self.retry(which.into(), at.into()),
            Step::Sync { from, to, streams } => {
                self.sync(from.into(), to.into(), streams.into());
                Ok(())
            }
            Step::Apply { at, behind } => {
                self.apply(at.into(), self.log.len().saturating_sub(behind.into()))
            }
            Step::Fold { leader, origin, share } => {
                self.fold(leader.into(), origin.into(), share.into())
            }
            Step::Lift { leader, origins } => self.lift(leader.into(), origins.into()),
            Step::Log { leader, what, name, seen } => {
                let operation = self.log_operation(leader.into(), what, name, seen.into())?;
                self.logged.push(operation.clone());
                self.propose(leader.into(), write(vec![], vec![operation]))
            }
            Step::RetryLog { leader, which } => {
                let nth = self.logged.len().checked_sub(1 + usize::from(which) % 4);
                let Some(operation) = nth.map(|nth| self.logged[nth].clone()) else {
                    return Ok(());
                };
                self.propose(leader.into(), write(vec![], vec![operation]))
            }
            Step::Admit { origin } => self.admit(origin.into()),
            Step::Seal { leader, origin, so_far } => {
                self.seal(leader.into(), origin.into(), so_far)
            }
            Step::Settle { minutes, leader, without } => {
                self.now_ms += u64::from(minutes) * 60_000;
                for origin in (0..NODES).filter(|origin| *origin != usize::from(without)) {
                    self.lift(leader.into(), origin)?;
                }
                self.sweep(leader.into(), KEYS.len(), 0, false)
            }
            Step::Sweep { leader, keys, work, stable } => {
                self.sweep(leader.into(), keys.into(), work, stable)
            }
        }
    }

    /// Faults end: everybody gets everything. Ten minutes later nothing is left but what is there.
    fn end(&mut self) -> Played {
        for after_ms in [1, LIFETIME_MS + 1] {
            self.now_ms += after_ms;
            self.lift(0, NODES)?;
            self.sweep(0, KEYS.len(), 0, true)?;
            for at in 0..NODES {
                (0..NODES).for_each(|from| self.sync(from, at, from));
                self.apply(at, self.log.len())?;
                self.judge(at)?;
            }
        }
        if self.rule != Rule::Right {
            return Ok(());
        }
        let base = self.nodes[0].swept.base().map_err(fault)?;
        for node in &self.nodes {
            if node.swept.base().map_err(fault)? != base {
                return Err("replicas that swept differ".into());
            }
        }
        // Only the keys that exist have rows, one each.
        let (found, _) = scan(&self.nodes[0].plain, None)?;
        let rows = base.iter().filter_map(|(key, _)| latitude_storage::key::base::decode(key));
        let rows: Vec<_> = rows.map(|row| (row.key, row.kind)).collect();
        let expected: Vec<_> =
            found.iter().map(|(key, ..)| (key.clone(), RowKind::Value)).collect();
        if rows != expected {
            return Err(format!("{rows:?} are left, and {expected:?} exist"));
        }
        for (batch_len, reopen) in
            [(1, true), (3, false), (3, true), (self.log.len().max(1), false)]
        {
            let (other, _) =
                Replica::replay(&self.meta, &[], &self.log, batch_len, reopen).map_err(fault)?;
            if other.base().map_err(fault)? != base || other.range() != self.nodes[0].swept.range()
            {
                return Err(format!("in batches of {batch_len} the base is another"));
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> Timestamp {
        self.now_ms += 1;
        Timestamp::from_ms(self.now_ms)
    }

    // ── Streams ─────────────────────────────────────────────────────────────────────────────────────

    /// `streams` is one origin's, or, beyond the number of nodes, everyone's.
    fn sync(&mut self, from: usize, to: usize, streams: usize) {
        // The origin's own frontier is now: it gives no position below it any more.
        self.nodes[from].held[from] = self.tick();
        for origin in (0..NODES).filter(|origin| streams == *origin || streams >= NODES) {
            let held = self.nodes[from].held[origin];
            self.nodes[to].held[origin] = self.nodes[to].held[origin].max(held);
        }
    }

    fn local(&mut self, at: usize, what: u8, name: u8, age: u8) -> Played {
        let age_s = match u64::from(age) {
            age @ 0..12 => age * age,
            age => LIFETIME_MS / 1_000 - (24 - age) * 10,
        };
        let id = self.id(OperationKind::Local, age_s);
        let (key, op) = self.op(OperationKind::Local, what, name);
        // The context of siblings is the client's, and the same in every copy.
        let context = match (&op, self.value_type) {
            (Op::Put { .. }, ValueType::Siblings) if what.is_multiple_of(3) => Some(Vec::new()),
            (Op::Put { .. }, ValueType::Siblings) => {
                let row = self.view(at, &key)?;
                Some(
                    row.map(|row| row.state().elements().iter().map(|e| e.id).collect())
                        .unwrap_or_default(),
                )
            }
            _ => None,
        };
        self.made.push((key.clone(), id, op.clone(), context.clone()));
        self.take(at, key, id, op, context)
    }

    fn retry(&mut self, which: usize, at: usize) -> Played {
        let Some(nth) = self.made.len().checked_sub(1 + which % 4) else { return Ok(()) };
        let (key, id, op, context) = self.made[nth].clone();
        self.take(at, key, id, op, context)
    }

    /// A node takes a local write, or knows it, or refuses it, as nodes do.
    fn take(
        &mut self,
        at: usize,
        key: Key,
        id: OperationId,
        op: Op,
        context: Option<Vec<OperationId>>,
    ) -> Played {
        let admitted =
            self.nodes[at].swept.range().meta().origins.iter().find(|o| o.node == node(at));
        let admitted = admitted.filter(|origin| origin.state == OriginState::Active);
        let Some(admitted) = admitted.map(|origin| origin.admitted) else { return Ok(()) };
        let overlay = self.overlay(at);
        if overlay.of_id(&id).is_some() {
            return Ok(());
        }
        let position = self.tick();
        if position > id.expires_at() {
            return Ok(());
        }
        let node_ = &self.nodes[at];
        let knows = |replica: &Replica| reader(replica)?.knows(&key, &id).map_err(fault);
        let known = same("what is known of an id", knows(&node_.swept)?, knows(&node_.plain)?)?;
        if known {
            return Ok(());
        }
        let named = |replica| -> Result<_, String> {
            let row = get(replica, &key, Some(&overlay))?;
            Ok(row.map(|row| row.state().named_by(&id, &op)).unwrap_or_default())
        };
        let named = match context {
            Some(context) => context,
            None => same("what a write names", named(&node_.swept)?, named(&node_.plain)?)?,
        };
        // Its session has read something elsewhere, and of some stream.
        let mut past = Past::default();
        past.seen.raise(node((at + 1) % NODES), Timestamp(position.0 - 7));
        past.add_log(ELSEWHERE, Epoch(1), stamp(Timestamp(position.0 - 5)));
        let delta = Delta {
            origin: node(at),
            position,
            range: RANGE,
            admitted,
            keyspace: KEYSPACE,
            key,
            op,
            id,
            level: Level::Causal,
            named,
            extensions: vec![],
            past,
        };
        self.streams[at].push(Arc::new(delta));
        self.nodes[at].held[at] = position;
        Ok(())
    }

    // ── The log ─────────────────────────────────────────────────────────────────────────────────────

    fn apply(&mut self, at: usize, until: usize) -> Played {
        for at_entry in self.nodes[at].applied..until {
            let entry = self.log[at_entry].clone();
            // The other twin's log has the same stamps.
            let silent = Entry { body: write(vec![], vec![]), ..entry.clone() };
            let node = &mut self.nodes[at];
            let is_sweep = matches!(entry.body, Body::Sweep(_));
            let without = if is_sweep { &silent } else { &entry };
            let plain = node.plain.apply(std::slice::from_ref(without)).map_err(fault)?;
            let wrong = is_sweep && !matches!(self.rule, Rule::Right | Rule::WithoutMarks);
            let with = if wrong { &silent } else { &entry };
            let swept = node.swept.apply(std::slice::from_ref(with)).map_err(fault)?;
            if wrong {
                drop_wrongly(self.rule, &mut node.swept)?;
            }
            node.applied = at_entry + 1;
            let told = |applied: &[Applied]| -> Vec<_> {
                let replies = applied.iter().flat_map(|applied| &applied.replies);
                replies.map(|reply| (reply.result.clone(), reply.duplicate)).collect()
            };
            same("the replies of an entry", told(&swept), told(&plain))?;
            let follows = |applied: Vec<Applied>| {
                applied.into_iter().flat_map(|applied| applied.replies).map(|reply| reply.follows)
            };
            for (swept, plain) in follows(swept).zip(follows(plain)) {
                let judged = matches!(self.rule, Rule::Right);
                if judged && !self.is_followed(&plain, &swept) {
                    return Err(format!(
                        "a reply follows {swept:?}, and {plain:?} is to be followed"
                    ));
                }
            }
        }
        Ok(())
    }

    fn propose(&mut self, leader: usize, body: Body) -> Played {
        let at = stamp(self.tick());
        self.log.push(Entry { stamp: at, range: RANGE, epoch: Epoch(1), keyspace: KEYSPACE, body });
        self.apply(leader, self.log.len())
    }

    fn admit(&mut self, origin: usize) -> Played {
        self.apply(origin, self.log.len())?;
        match self.origin(origin, origin) {
            Some(known) => self.propose(origin, Body::AdmitAgain(known.admission())),
            None => self.propose(origin, Body::Admit(node(origin))),
        }
    }

    /// Too early the log does not say that a node has stopped.
    fn seal(&mut self, leader: usize, origin: usize, so_far: u8) -> Played {
        self.apply(leader, self.log.len())?;
        let Some(of) = self.origin(leader, origin).map(|known| known.admission()) else {
            return Ok(());
        };
        self.propose(leader, Body::Seal(of))?;
        if so_far == 0 {
            return Ok(());
        }
        self.apply(origin, self.log.len())?;
        // It has applied that it is to stop: it takes nothing above this.
        let at = self.tick();
        self.nodes[origin].held[origin] = at;
        self.propose(leader, Body::Sealed(of, at))?;
        let is_early = |known: Origin| known.folded < at && known.state == OriginState::Sealed;
        if self.origin(leader, origin).filter(|known| known.last == Some(at)).is_some_and(is_early)
        {
            return Err(format!("{} is sealed at {at}, and not all is folded", of.node));
        }
        if so_far > 1 {
            self.lift(leader, origin)?;
            self.propose(leader, Body::Sealed(of, at))?;
        }
        Ok(())
    }

    /// What a node's base says of an origin.
    fn origin(&self, at: usize, origin: usize) -> Option<Origin> {
        let mut origins = self.nodes[at].swept.range().meta().origins.iter();
        origins.find(|known| known.node == node(origin)).cloned()
    }

    /// `share`: of 192, or more for all of it, up to the frontier.
    fn fold(&mut self, leader: usize, origin: usize, share: usize) -> Played {
        self.apply(leader, self.log.len())?;
        let Node { swept, held, .. } = &self.nodes[leader];
        let folded = swept.range().meta().origins.iter().find(|o| o.node == node(origin));
        let Some(from) = folded.map(|origin| origin.folded) else { return Ok(()) };
        let within = |delta: &&Arc<Delta>| delta.position > from && delta.position <= held[origin];
        let there: Vec<_> = self.streams[origin].iter().filter(within).collect();
        let deltas: Vec<_> = there.iter().take(there.len() * (share + 64) / 256).collect();
        let to = match deltas.last() {
            _ if deltas.len() == there.len() => held[origin],
            Some(last) => last.position,
            None => from,
        };
        if to <= from {
            return Ok(());
        }
        let deltas = deltas.iter().map(|delta| Carried::Whole(delta.encode())).collect();
        let segment = Segment { origin: node(origin), from, to, span: KeySpan::all(), deltas };
        self.propose(leader, write(vec![segment], vec![]))
    }

    fn lift(&mut self, leader: usize, origins: usize) -> Played {
        for origin in (0..NODES).filter(|origin| origins == *origin || origins >= NODES) {
            self.sync(origin, leader, origin);
            self.fold(leader, origin, 192)?;
        }
        Ok(())
    }

    fn log_operation(
        &mut self,
        leader: usize,
        what: u8,
        name: u8,
        seen: usize,
    ) -> Result<Operation, String> {
        self.apply(leader, self.log.len())?;
        let id = self.id(OperationKind::Log, 0);
        let (key, op) = self.op(OperationKind::Log, what, name);
        let named = match self.view(seen % NODES, &key)? {
            Some(row) if seen < NODES => row.state().named_by(&id, &op),
            _ => Vec::new(),
        };
        let mut past = Past::default();
        past.add_log(ELSEWHERE, Epoch(1), stamp(Timestamp(id.birth.0 - 3)));
        Ok(Operation {
            id,
            answered_below: 0,
            level: Level::Strict,
            key,
            op,
            named,
            need: Positions::default(),
            past,
            extensions: vec![],
        })
    }

    fn sweep(&mut self, leader: usize, keys: usize, work: u8, stable: bool) -> Played {
        self.apply(leader, self.log.len())?;
        let stable = if stable { self.stable() } else { Positions::default() };
        let key = KEYS.get(keys).copied().map(key);
        let span = key.as_ref().map_or_else(KeySpan::all, KeySpan::of_key);
        let mut sweep = Sweep { span, ids_from: None, work_max: work.max(1).into(), stable };
        let mut kept = Kept::default();
        loop {
            // As a leader does: looks, and proposes what it has looked at.
            let now = self.tick();
            let look = |replica: &Replica, now, sweep: &Sweep| {
                reader(replica)?.look(now, sweep).map_err(fault)
            };
            let looked = look(&self.nodes[leader].swept, now, &sweep)?;
            kept.join(looked.kept());
            self.propose(leader, Body::Sweep(sweep.clone()))?;
            if self.rule == Rule::Right {
                let after = look(&self.nodes[leader].swept, now, &sweep)?;
                let narrower = Sweep { work_max: looked.changes() as u32, ..sweep.clone() };
                let left = look(&self.nodes[leader].swept, now, &narrower)?.changes();
                if looked.next().is_none() && after.changes() > 0 || left > looked.changes() {
                    return Err(format!("a sweep leaves what it could drop: {after:?}"));
                }
            }
            // One entry, or the whole of it.
            match looked.next().filter(|_| work == 0) {
                Some((key, birth)) => {
                    sweep.span = KeySpan::new(key.as_bytes(), None).expect("no end");
                    sweep.ids_from = *birth;
                }
                None => return Ok(()),
            }
        }
    }

    /// What every node shows of each stream.
    fn stable(&self) -> Positions {
        let mut stable = Positions::default();
        for origin in 0..NODES {
            let shown = self.nodes.iter().map(|node| node.held[origin]).min();
            stable.raise(node(origin), shown.unwrap_or_default());
        }
        stable
    }

    fn id(&mut self, kind: OperationKind, age_s: u64) -> OperationId {
        self.sequence += 1;
        OperationId {
            birth: Timestamp::from_ms(self.now_ms - (age_s * 1_000).min(LIFETIME_MS)),
            client: ClientId([self.sequence as u8 % 3; 16]),
            sequence: self.sequence,
            kind,
        }
    }

    fn op(&self, kind: OperationKind, what: u8, name: u8) -> (Key, Op) {
        let value = || Bytes::from(self.sequence.to_string());
        let element = Bytes::from(vec![b'x' + name / 2]);
        let log = kind == OperationKind::Log;
        let op = match (self.value_type, what % 8) {
            (ValueType::Counter, 0) if log => Op::Delete,
            (ValueType::Counter, 1) if log => Op::Reset,
            (ValueType::Counter, 2) if log => {
                Op::AddWithin { amount: 1, least: Some(0), most: Some(100) }
            }
            (ValueType::Counter, _) => Op::Add { amount: i64::from(what) - 100 },
            (ValueType::Register, 5) if log => {
                Op::CompareAndSet { expected: Expected::Absent, new_value: Some(value()) }
            }
            (ValueType::Register | ValueType::Siblings, 0..=4) => Op::Put { value: value() },
            (ValueType::Set, 0..4) => Op::SetAdd { element },
            (ValueType::Set, 4..7) => Op::SetRemove { element },
            (ValueType::Map, 0..4) => Op::MapPut { field: element, value: value() },
            (ValueType::Map, 4..7) => Op::MapRemove { field: element },
            (ValueType::Flag, 0..4) => Op::Enable,
            (ValueType::Flag, _) => Op::Disable,
            (ValueType::Register | ValueType::Siblings | ValueType::Set | ValueType::Map, _) => {
                Op::Delete
            }
        };
        (key(KEYS[usize::from(name) % KEYS.len()]), op)
    }

    // ── Reading ─────────────────────────────────────────────────────────────────────────────────────

    fn overlay(&self, at: usize) -> Overlay {
        let Node { swept, held, .. } = &self.nodes[at];
        let mut overlay = Overlay::default();
        for origin in 0..NODES {
            let held = self.streams[origin].iter().filter(|delta| delta.position <= held[origin]);
            for delta in held {
                overlay.insert(Arc::clone(delta));
            }
        }
        overlay.prune(&swept.range().meta().origins);
        overlay
    }

    /// What a node's causal readers see of a key.
    fn view(&self, at: usize, key: &Key) -> Result<Option<ValueRow>, String> {
        get(&self.nodes[at].plain, key, Some(&self.overlay(at)))
    }

    /// Both twins of a node give every reader the same, and tell it to follow at least as much.
    fn judge(&self, at: usize) -> Played {
        let Node { swept, plain, .. } = &self.nodes[at];
        let overlay = self.overlay(at);
        for overlay in [None, Some(&overlay)] {
            let what = format!("what n{at} shows");
            let (swept_rows, _) = scan(swept, overlay)?;
            let (plain_rows, _) = scan(plain, overlay)?;
            same(&what, swept_rows, plain_rows)?;
            for key in KEYS.map(key) {
                let one = get(swept, &key, overlay)?;
                let other = get(plain, &key, overlay)?;
                let shown = |row: &Option<ValueRow>| {
                    let exists = row.as_ref().filter(|row| row.exists());
                    exists.map(|row| (row.version, row.read(self.value_type)))
                };
                same(&what, shown(&one), shown(&other))?;
                self.judge_what_follows(at, &one, &other)?;
            }
        }
        Ok(())
    }

    /// Pitfalls 16a and B14: who reads that a key is gone, or what was written after it was gone, follows the
    /// deletion and what that followed, whether or not there is a record of it.
    fn judge_what_follows(
        &self,
        at: usize,
        swept: &Option<ValueRow>,
        plain: &Option<ValueRow>,
    ) -> Played {
        let meta = self.nodes[at].swept.range().meta();
        let (mut stamp, mut past) = match self.rule {
            Rule::WithoutMarks => (Stamp::ZERO, Past::default()),
            // They drop behind the range's back, and are to be found out by what is read.
            Rule::MinuteEarly | Rule::WithoutIdle | Rule::WithoutLastStamp => return Ok(()),
            Rule::Right => (meta.gc_stamp, meta.gc_past.clone()),
        };
        if let Some(row) = swept {
            stamp = stamp.max(row.stamp);
            past.join(&row.past);
        }
        let Some(row) = plain else { return Ok(()) };
        if stamp < row.stamp {
            return Err(format!(
                "a reader at n{at} follows {stamp}, and {} is to be followed",
                row.stamp
            ));
        }
        if !self.is_followed(&row.past, &past) {
            return Err(format!(
                "a reader at n{at} follows {past:?}, and {:?} is to be followed",
                row.past
            ));
        }
        Ok(())
    }

    /// Whether who follows `past` follows what is to be followed, but for what all nodes show.
    fn is_followed(&self, wanted: &Past, past: &Past) -> bool {
        let stable = self.stable();
        let has = |(node, position): &(NodeId, Timestamp)| {
            past.seen.of(*node) >= *position || stable.of(*node) >= *position
        };
        wanted.seen.by_node.iter().all(has) && past.log_highest() >= wanted.log_highest()
    }
}

fn node(at: usize) -> NodeId {
    NodeId(at as u32 + 1)
}

fn stamp(time: Timestamp) -> Stamp {
    Stamp { time, node: NodeId(1) }
}

fn key(name: &str) -> Key {
    Key::new(name.as_bytes()).expect("the tests' keys are keys")
}

fn write(segments: Vec<Segment>, operations: Vec<Operation>) -> Body {
    Body::Write(Write { segments, operations })
}

fn fault(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, swept: T, plain: T) -> Result<T, String> {
    if swept == plain {
        return Ok(swept);
    }
    Err(format!("{what}: {swept:?} where rows were dropped, and {plain:?} where none were"))
}

fn reader(replica: &Replica) -> Result<Reader<'_>, String> {
    replica.reader().map_err(fault)
}

fn get(
    replica: &Replica,
    key: &Key,
    overlay: Option<&Overlay>,
) -> Result<Option<ValueRow>, String> {
    let shown = overlay.map(|o| o.shown(&KeySpan::of_key(key), |_| Timestamp::MAX));
    reader(replica)?.with_deltas(shown.unwrap_or_default()).get(key).map_err(fault)
}

type Rows = Vec<(Key, WriteTime, Value)>;

fn scan(replica: &Replica, overlay: Option<&Overlay>) -> Result<(Rows, Past), String> {
    let span = KeySpan::all();
    let shown = overlay.map(|o| o.shown(&span, |_| Timestamp::MAX)).unwrap_or_default();
    let request =
        ScanRequest { span, reverse: false, limit: 100, bytes_max: 10_000, keys_only: false };
    let page = reader(replica)?.with_deltas(shown).scan(&request).map_err(fault)?;
    let rows = page.rows.into_iter();
    let row = |row: latitude_range::ScanRow| {
        let key = Key::new(&row.key).expect("it is a key");
        (key, row.version, row.value.expect("values were asked for"))
    };
    Ok((rows.map(row).collect(), page.past))
}

/// What a replica with a wrong horizon would drop.
fn drop_wrongly(rule: Rule, replica: &mut Replica) -> Played {
    let meta = replica.range().meta().clone();
    let mut folded: Vec<_> = meta.origins.iter().map(|origin| origin.folded).collect();
    folded.sort();
    if rule == Rule::WithoutIdle && !folded.is_empty() {
        folded.remove(0);
    }
    if rule != Rule::WithoutLastStamp {
        folded.push(meta.last_stamp.time);
    }
    let mut least = folded.into_iter().min().unwrap_or(Timestamp::MAX);
    if rule == Rule::MinuteEarly {
        least = least.plus_ms(60_000);
    }
    let may_go = |time: Timestamp| least >= time.plus_ms(LIFETIME_MS);
    let lost = replica.lose(|kind, row| match kind {
        RowKind::Id(id) => may_go(id.birth),
        RowKind::Value => {
            ValueRow::decode(row).is_ok_and(|row| !row.exists() && may_go(row.stamp.time))
        }
    });
    lost.map_err(fault)
}
