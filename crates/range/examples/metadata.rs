//! What the metadata of local writes costs: bytes of base for each key, and of memory for each unfolded delta.
//!
//! ```text
//!   adds from three origins, 1,000 a second of made-up time ─▶ folds ─▶ Range::apply ─▶ base (in memory)
//!                                  SweepCursor, told the same time ─▶ sweeps ──┘
//! ```
//!
//! The code is that of a node, the times are made up: twenty minutes pass in less than one. It fails if what is left
//! of a counter is more than an integer, a stamp and what is not yet stable.
//!
//!     cargo run --release -p latitude-range --example metadata [counter] [set] [overlay]

#![expect(clippy::print_stdout, reason = "a program prints")]

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use latitude_range::{
    Body, Carried, Delta, Entry, Op, Overlay, Range, RangeMeta, Reader, Segment, Staged, Sweep,
    SweepCursor, Sweeping, ValueType, Write,
};
use latitude_storage::key::base::{RowKind, decode};
use latitude_storage::memory::{MemoryDisk, MemoryEngine};
use latitude_storage::{Column, Engine, Scan, View, key};
use latitude_types::{
    ClientId, Epoch, Key, KeySpan, KeyspaceId, Level, NodeId, OperationId, OperationKind, Past,
    Positions, RangeId, Stamp, Timestamp,
};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

const RANGE: RangeId = RangeId(4);
const KEYSPACE: KeyspaceId = KeyspaceId(16);
const ORIGINS: u32 = 3;
const CLIENTS: u64 = 64;
const ADDS: u64 = 1_000_000;
const ELEMENTS: u64 = 10_000;
const UNFOLDED: u64 = 200_000;
/// When it begins: any time far from zero, so that encoded times are as long as real ones.
const BEGIN_MS: u64 = 90_000_000_000;
/// Local writes folded in one entry, of each origin.
const FOLDED_AT_ONCE: u64 = 100;

fn main() -> Result<()> {
    let parts: Vec<String> = std::env::args().skip(1).collect();
    for (name, part) in
        [("counter", counter as fn() -> Result<()>), ("set", set), ("overlay", overlay)]
    {
        if parts.is_empty() || parts.iter().any(|wanted| wanted == name) {
            part()?;
        }
    }
    Ok(())
}

fn counter() -> Result<()> {
    println!("A counter, {ADDS} adds of 1 from {ORIGINS} origins, 1,000 a second:");
    let mut site = Site::new(ValueType::Counter)?;
    let mut most = Rows::default();
    site.write(
        ADDS,
        |_| ("likes".into(), Op::Add { amount: 1 }),
        |rows| {
            if rows.ids > most.ids {
                most = rows;
            }
        },
    )?;
    most.print("most while writing");
    site.rows()?.print("after the last add");
    site.pass_time(12 * 60_000)?;
    let rows = site.rows()?;
    rows.print("ten minutes and a pass later");
    site.stable = true;
    site.pass_time(12 * 60_000)?;
    let stable = site.rows()?;
    stable.print("and once all of it is stable");
    if rows.ids > 0 || rows.value_bytes > 128 || stable.value_bytes > 96 {
        return Err("a counter keeps a history".into());
    }
    println!(
        "  sum {:?}, {} sweeps of {} entries",
        site.value("likes")?,
        site.sweeps,
        site.entries
    );
    Ok(())
}

fn set() -> Result<()> {
    println!("A set, {ELEMENTS} elements of 8 bytes from {ORIGINS} origins:");
    let mut site = Site::new(ValueType::Set)?;
    let add = |n: u64| Op::SetAdd { element: Bytes::from(format!("{n:08}")) };
    site.write(ELEMENTS, |n| ("cart".into(), add(n)), drop)?;
    site.rows()?.print("after the last add");
    site.pass_time(12 * 60_000)?;
    let rows = site.rows()?;
    rows.print("ten minutes and a pass later");
    println!("  {} bytes an element", rows.value_bytes as u64 / ELEMENTS);
    Ok(())
}

fn overlay() -> Result<()> {
    println!("An overlay, {UNFOLDED} unfolded adds on 1,000 keys:");
    let mut overlay = Overlay::default();
    let before = resident()?;
    for n in 0..UNFOLDED {
        let op = Op::Add { amount: 1 };
        overlay.insert(Arc::new(delta(n, BEGIN_MS + n, &format!("key{:05}", n % 1_000), op)));
    }
    let taken = resident()?.saturating_sub(before);
    println!("  {} bytes of memory a delta", taken / UNFOLDED);
    println!("  {} bytes as the quota counts them", overlay.bytes() as u64 / UNFOLDED);
    Ok(())
}

/// One replica that leads, and its clock.
struct Site {
    engine: MemoryEngine,
    range: Range,
    now_ms: u64,
    cursor: SweepCursor,
    /// Whether everything that was folded is stable by now.
    stable: bool,
    entries: u64,
    sweeps: u64,
}

/// What the base holds.
#[derive(Clone, Copy, Default)]
struct Rows {
    values: usize,
    value_bytes: usize,
    ids: usize,
    id_bytes: usize,
}

impl Rows {
    fn print(self, when: &str) {
        let Self { values, value_bytes, ids, id_bytes } = self;
        println!(
            "  {when}: {values} value row of {value_bytes} bytes; {ids} ids of {id_bytes} bytes"
        );
    }
}

impl Site {
    fn new(value_type: ValueType) -> Result<Self> {
        let engine = MemoryEngine::open(&MemoryDisk::new())?;
        let mut meta = RangeMeta::new(RANGE, KEYSPACE, KeySpan::all(), 1024, false);
        meta.value_type = value_type;
        let mut staged = Staged::new(&engine);
        Range::create(&meta, &mut staged);
        let batch = staged.into_batch();
        engine.write(batch)?;
        let range = Range::open(RANGE, &engine)?;
        let cursor = SweepCursor::default();
        let mut site =
            Self { engine, range, now_ms: BEGIN_MS, cursor, stable: false, entries: 0, sweeps: 0 };
        for origin in 1..=ORIGINS {
            site.apply(Body::Admit(NodeId(origin)))?;
        }
        Ok(site)
    }

    fn apply(&mut self, body: Body) -> Result<()> {
        self.now_ms += 1;
        let stamp = Stamp { time: Timestamp::from_ms(self.now_ms), node: NodeId(1) };
        let entry = Entry { stamp, range: RANGE, epoch: Epoch(1), keyspace: KEYSPACE, body };
        let mut staged = Staged::new(&self.engine);
        self.range.apply(&Entry::decode(&entry.encode())?, &mut staged)?;
        let batch = staged.into_batch();
        self.engine.write(batch)?;
        self.entries += 1;
        Ok(())
    }

    /// Local writes of all origins in turn, one each millisecond, folded as they come.
    fn write(
        &mut self,
        count: u64,
        op: impl Fn(u64) -> (String, Op),
        mut seen: impl FnMut(Rows),
    ) -> Result<()> {
        let at_once = FOLDED_AT_ONCE * u64::from(ORIGINS);
        for first in (0..count).step_by(at_once as usize) {
            let base_ms = self.now_ms;
            let mut deltas: Vec<Vec<Carried>> = vec![Vec::new(); ORIGINS as usize];
            for n in first..count.min(first + at_once) {
                let (name, op) = op(n);
                let delta = delta(n, base_ms + 1 + n - first, &name, op);
                deltas[delta.origin.0 as usize - 1].push(Carried::Whole(delta.encode()));
            }
            self.now_ms += at_once;
            self.fold(deltas)?;
            self.sweep()?;
            if first % (at_once * 100) == 0 {
                seen(self.rows()?);
            }
        }
        Ok(())
    }

    fn fold(&mut self, deltas: Vec<Vec<Carried>>) -> Result<()> {
        let to = Timestamp::from_ms(self.now_ms);
        let origins = self.range.meta().origins.clone();
        let segments = origins.iter().zip(deltas).map(|(origin, deltas)| Segment {
            origin: origin.node,
            from: origin.folded,
            to,
            span: KeySpan::all(),
            deltas,
        });
        self.apply(Body::Write(Write { segments: segments.collect(), operations: vec![] }))
    }

    /// Nothing is written for so long.
    fn pass_time(&mut self, ms: u64) -> Result<()> {
        for _ in 0..ms / 1_000 {
            self.now_ms += 1_000;
            self.sweep()?;
        }
        Ok(())
    }

    /// What the leader does now: nothing, or a whole pass.
    fn sweep(&mut self) -> Result<()> {
        loop {
            let now = Timestamp::from_ms(self.now_ms);
            let meta = self.range.meta();
            let stable = if self.stable { stable(meta) } else { Positions::default() };
            match self.cursor.next(now, meta.last_stamp, &meta.origins, &stable) {
                Sweeping::Rest => return Ok(()),
                Sweeping::Lift(_) => self.fold(vec![Vec::new(); ORIGINS as usize])?,
                Sweeping::Look(sweep) => self.look(now, sweep)?,
            }
        }
    }

    fn look(&mut self, now: Timestamp, sweep: Sweep) -> Result<()> {
        let looked = Reader::new(RANGE, &self.engine)?.look(now, &sweep)?;
        if looked.changes() > 0 {
            self.sweeps += 1;
            self.apply(Body::Sweep(sweep))?;
        }
        self.cursor.looked(&looked);
        Ok(())
    }

    fn rows(&self) -> Result<Rows> {
        let mut rows = Rows::default();
        let span = key::base::value_span(KEYSPACE, &KeySpan::all());
        for row in self.engine.scan(Column::Base, Scan::from(span)) {
            let (row_key, row) = row?;
            let bytes = row_key.len() + row.len();
            match decode(&row_key).ok_or("a key that is none")?.kind {
                RowKind::Value => {
                    (rows.values, rows.value_bytes) = (rows.values + 1, rows.value_bytes + bytes);
                }
                RowKind::Id(_) => (rows.ids, rows.id_bytes) = (rows.ids + 1, rows.id_bytes + bytes),
            }
        }
        Ok(rows)
    }

    fn value(&self, name: &str) -> Result<Option<latitude_range::Value>> {
        let row = Reader::new(RANGE, &self.engine)?.get(&Key::new(name.as_bytes())?)?;
        Ok(row.map(|row| row.read(self.range.meta().value_type)))
    }
}

fn stable(meta: &RangeMeta) -> Positions {
    let mut stable = Positions::default();
    meta.origins.iter().for_each(|origin| stable.raise(origin.node, origin.folded));
    stable
}

/// The nth local write, as a session makes it that has read what others wrote: what it saw of each origin, and the
/// entry that made its own one.
fn delta(n: u64, at_ms: u64, name: &str, op: Op) -> Delta {
    let admitted = Stamp { time: Timestamp::from_ms(BEGIN_MS + 1), node: NodeId(1) };
    let mut past = Past::default();
    for origin in 1..=ORIGINS {
        past.seen.raise(NodeId(origin), Timestamp::from_ms(at_ms - 2 - u64::from(origin)));
    }
    past.add_log(RANGE, Epoch(1), admitted);
    let mut client = [0x5a; 16];
    client[..8].copy_from_slice(&(n % CLIENTS).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    Delta {
        origin: NodeId(1 + (n % u64::from(ORIGINS)) as u32),
        position: Timestamp::from_ms(at_ms),
        range: RANGE,
        admitted,
        keyspace: KEYSPACE,
        key: Key::new(name.as_bytes()).expect("names are keys"),
        op,
        id: OperationId {
            birth: Timestamp::from_ms(at_ms - 1),
            client: ClientId(client),
            sequence: 1 + n / CLIENTS,
            kind: OperationKind::Local,
        },
        level: Level::Causal,
        named: vec![],
        extensions: vec![],
        past,
    }
}

/// Memory of this process, in bytes, as the system counts it.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
    Ok(kib.parse::<u64>()? * 1024)
}
