//! Runs the scripts under `tests/scripts`: log entries in; replies, values and what is remembered out.
//!
//! ```text
//! range span=a..m floor=5        a range that has applied nothing; id=, keyspace=, epoch=, type= have defaults
//!       neighbours="b 15/c"      keys of other ranges in the same store, of this keyspace or of another
//! entry 10 "put a=1" "delete b"  applies one entry of two operations, stamped 10 ms by node 1 (10@2: node 2)
//!       epoch= keyspace= range=  what it was proposed under, if not what the range is
//! local 2 10 "put a=1"           a local write that node 2 took, positioned 10 ms
//! fold 20 2 from=5 to=15         an entry that folds what node 2 took in (5, 15]
//! admit 10 2                     an entry that admits node 2 as an origin
//! admit 40 2 again               the same of one that was sealed; at=10: under an earlier admission, so too late
//! seal 20 2                      an entry that has node 2 stop; at=10 as above
//! sealed 30 2 25                 an entry that says that node 2 took nothing above 25; at=10 as above
//! sweep 30m a..c work=2 from=1m stable="2=10"
//!                                an entry that sweeps; what it dropped and shortened
//! audit 10                       an entry that audits; what the base comes to right after it
//! rows                           values and ids as the base has them, and what the range knows of dropped ones
//! origins                        who takes local writes, and how far each is folded
//! get a                          the key's row
//! scan span=b..d reverse limit=2 bytes=9 keys
//! ids                            what is remembered of log writes, by client
//! meta                           what the log decided about the range
//! reopen                         opens the range from its store: must be what it is in memory
//! replay batch=2 reopen          applies all entries so far on a new replica: must come to the same base
//! ```
//!
//! An operation is `[id] put key=value` or `[id] delete key`, `add key=5` of a counter, `insert key=x` or
//! `remove key=x` of a set; then in any order `named=c1/7,c2/1` (ids of local writes), `if absent`, `if value=1`,
//! `if version=10@1#0` (which make it conditional), `need=2:40` (own writes at node 2 up to 40), `birth=` (default: the stamp's time) and `below=` (the
//! sequence below which the client was answered; default 0). An id is `c1/7`: client and sequence. Without
//! one the operation has an id that nobody retries, and whose client is not shown.
//!
//! A time is `7` (ms), `7s`, `7m`, and `7m.1` is the next instant after `7m`. A version is stamp and
//! place in the entry: `10@1#0`.
//!
//! At the end of every script its entries are applied again in batches of every size, each on a new
//! replica: base and replies must be the same (INV-9).
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p latitude-range --test scripts` writes the outputs anew.

#[allow(dead_code, reason = "each test binary uses its part of it")]
mod replica;

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};
use latitude_range::{
    AUDIT_FORMAT, Admission, Applied, Audit, Audited, Body, Carried, Content, Delta, Done, Entry,
    Expected, Op, Operation, Origin, OriginState, RangeMeta, Reply, ScanRequest, Segment, Sweep,
    Value, ValueRow, ValueType, Write,
};
use latitude_storage::key::base::{Row, RowKind, decode};
use latitude_types::{
    ClientId, Epoch, Key, KeySpan, KeyspaceId, Level, NodeId, OperationId, OperationKind, Past,
    Positions, RangeId, Stamp, Timestamp, WriteTime, Writer,
};

use crate::replica::Replica;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[test]
fn every_script_gives_what_it_says() {
    let scripts = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts"));
    assert!(!scripts.is_empty());
    for script in scripts {
        println!("{}", script.display());
        goldenscript::run(&mut Runner::default(), &script).unwrap();
    }
}

/// Every script below `directory`, in order.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the directory can be read");
    let mut paths: Vec<_> =
        entries.map(|entry| entry.expect("the directory can be read").path()).collect();
    paths.sort();
    paths
        .into_iter()
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// The client of operations without an id.
const NOBODY: ClientId = ClientId([0xff; 16]);

#[derive(Default)]
struct Runner {
    range: Option<Script>,
}

/// A range and what was done to it.
struct Script {
    /// As it was made.
    meta: RangeMeta,
    neighbours: Vec<(KeyspaceId, Key)>,
    replica: Replica,
    log: Vec<Entry>,
    applied: Vec<Applied>,
    /// How many operations had no id.
    nobodys: u64,
    /// What nodes took, in any order.
    locals: Vec<Delta>,
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String> {
        let mut args = command.consume_args();
        let output = match command.name.as_str() {
            "range" => {
                self.range = Some(Script::create(&mut args)?);
                String::new()
            }
            name => {
                let script = self.range.as_mut().ok_or("there is no range yet")?;
                match name {
                    "entry" => script.entry(&mut args)?,
                    "admit" => script.admit(&mut args)?,
                    "seal" => script.seal(&mut args)?,
                    "sealed" => script.sealed(&mut args)?,
                    "local" => script.local(&mut args)?,
                    "fold" => script.fold(&mut args)?,
                    "sweep" => script.sweep(&mut args)?,
                    "audit" => script.audit(&mut args)?,
                    "rows" => script.rows()?,
                    "origins" => script.origins(),
                    "get" => script.get(args.next_pos().ok_or("which key?")?)?,
                    "scan" => script.scan(&mut args)?,
                    "ids" => script.ids()?,
                    "meta" => script.meta()?,
                    "reopen" => script.reopen()?,
                    "replay" => {
                        let batch = args.take_key("batch").ok_or("batch=?")?.parse()?;
                        let reopen = args.next_pos().map(|flag| flag == "reopen");
                        script.replay(batch, reopen.unwrap_or(false))?
                    }
                    name => return Err(format!("unknown command {name}").into()),
                }
            }
        };
        args.reject_next()?;
        Ok(output)
    }

    fn end_script(&mut self) -> Result<()> {
        let Some(script) = &self.range else { return Ok(()) };
        for batch in 1..=script.log.len() {
            script.replay(batch, false)?;
            script.replay(batch, true)?;
        }
        Ok(())
    }
}

impl Script {
    fn create(args: &mut ArgumentConsumer<'_>) -> Result<Self> {
        let id = RangeId(args.take_key("id").map_or(Ok(4), str::parse)?);
        let keyspace = KeyspaceId(args.take_key("keyspace").map_or(Ok(16), str::parse)?);
        let span = args.take_key("span").map_or(Ok(KeySpan::all()), parse_span)?;
        let mut meta = RangeMeta::new(id, keyspace, span, 1024, false);
        meta.epoch = Epoch(args.take_key("epoch").map_or(Ok(1), str::parse)?);
        if let Some(name) = args.take_key("type") {
            let of_name = |value_type: &ValueType| value_type.to_string() == name;
            meta.value_type = ValueType::ALL.into_iter().find(of_name).ok_or("which type?")?;
        }
        meta.floor = args.take_key("floor").map_or(Ok(Stamp::ZERO), parse_stamp)?;
        let neighbours = args.take_key("neighbours").unwrap_or_default().split_whitespace();
        let neighbours = neighbours
            .map(|word| match word.split_once('/') {
                Some((keyspace, key)) => {
                    Ok((KeyspaceId(keyspace.parse()?), Key::new(key.as_bytes())?))
                }
                None => Ok((meta.keyspace, Key::new(word.as_bytes())?)),
            })
            .collect::<Result<Vec<_>>>()?;
        let replica = Replica::create(&meta, &neighbours)?;
        let (log, applied, locals) = Default::default();
        Ok(Self { meta, neighbours, replica, log, applied, nobodys: 0, locals })
    }

    fn entry(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let meta = self.replica.range().meta();
        let range = args.take_key("range").map_or(Ok(meta.id), |id| id.parse().map(RangeId))?;
        let epoch = args.take_key("epoch").map_or(Ok(meta.epoch), |e| e.parse().map(Epoch))?;
        let keyspace =
            args.take_key("keyspace").map_or(Ok(meta.keyspace), |k| k.parse().map(KeyspaceId))?;
        let stamp = parse_stamp(args.next_pos().ok_or("an entry needs a stamp")?)?;
        let mut operations = Vec::new();
        while let Some(text) = args.next_pos() {
            operations.push(self.parse_operation(text, stamp)?);
        }
        let body = Body::Write(Write { segments: Vec::new(), operations });
        let entry = Entry { stamp, range, epoch, keyspace, body };
        self.apply(entry)
    }

    fn apply(&mut self, entry: Entry) -> Result<String> {
        let applied = self.replica.apply(std::slice::from_ref(&entry))?.remove(0);
        let mut out = String::new();
        if let Body::Write(Write { operations, .. }) = &entry.body {
            for (operation, reply) in operations.iter().zip(&applied.replies) {
                writeln!(out, "{} → {}", show_operation(operation), show_reply(reply))?;
            }
        }
        self.log.push(entry);
        self.applied.push(applied);
        Ok(out)
    }

    /// An entry of the range as it is.
    fn entry_of(&self, stamp: &str, body: Body) -> Result<Entry> {
        let RangeMeta { id: range, epoch, keyspace, .. } = *self.replica.range().meta();
        Ok(Entry { stamp: parse_stamp(stamp)?, range, epoch, keyspace, body })
    }

    fn admit(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let stamp = args.next_pos().ok_or("an entry needs a stamp")?;
        let node = NodeId(args.next_pos().ok_or("which node?")?.parse()?);
        let body = match args.next_pos() {
            Some("again") => Body::AdmitAgain(self.admission(node, args)?),
            Some(word) => return Err(format!("what is {word}?").into()),
            None => Body::Admit(node),
        };
        self.apply(self.entry_of(stamp, body)?)
    }

    fn seal(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let stamp = args.next_pos().ok_or("an entry needs a stamp")?;
        let node = NodeId(args.next_pos().ok_or("which node?")?.parse()?);
        let body = Body::Seal(self.admission(node, args)?);
        self.apply(self.entry_of(stamp, body)?)?;
        Ok(self.origins())
    }

    fn sealed(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let stamp = args.next_pos().ok_or("an entry needs a stamp")?;
        let node = NodeId(args.next_pos().ok_or("which node?")?.parse()?);
        let last = parse_time(args.next_pos().ok_or("at which position?")?)?;
        let body = Body::Sealed(self.admission(node, args)?, last);
        self.apply(self.entry_of(stamp, body)?)?;
        Ok(self.origins())
    }

    /// The admission that an entry names: the one that holds, if not another one is.
    fn admission(&self, node: NodeId, args: &mut ArgumentConsumer<'_>) -> Result<Admission> {
        let mut origins = self.replica.range().meta().origins.iter();
        let holds = origins.find(|origin| origin.node == node).map(|origin| origin.admitted);
        let named = args.take_key("at").map(parse_stamp).transpose()?;
        Ok(Admission { node, stamp: named.or(holds).unwrap_or(Stamp::ZERO) })
    }

    fn local(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let origin = NodeId(args.next_pos().ok_or("which node?")?.parse()?);
        let position = parse_time(args.next_pos().ok_or("at which position?")?)?;
        let stamp = Stamp { time: position, node: origin };
        let taken = self.parse_operation(args.next_pos().ok_or("what?")?, stamp)?;
        let mut past = Past::default();
        // Its session has seen something that another node took a millisecond before.
        past.seen.raise(NodeId(9), Timestamp::from_ms(position.ms().saturating_sub(1)));
        self.locals.push(Delta {
            origin,
            position,
            range: self.meta.id,
            admitted: Stamp::ZERO,
            keyspace: self.meta.keyspace,
            key: taken.key,
            op: taken.op,
            id: OperationId { kind: OperationKind::Local, ..taken.id },
            level: Level::Causal,
            named: taken.named,
            extensions: Vec::new(),
            past,
        });
        Ok(String::new())
    }

    fn fold(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let stamp = args.next_pos().ok_or("an entry needs a stamp")?;
        let origin = NodeId(args.next_pos().ok_or("which node?")?.parse()?);
        let from = parse_time(args.take_key("from").ok_or("from=?")?)?;
        let to = parse_time(args.take_key("to").ok_or("to=?")?)?;
        let span = args.take_key("span").map_or(Ok(KeySpan::all()), parse_span)?;
        let is_in = |delta: &&Delta| {
            delta.origin == origin && delta.position > from && delta.position <= to
        };
        let mut deltas: Vec<_> = self.locals.iter().filter(is_in).collect();
        deltas.sort_by_key(|delta| delta.position);
        let deltas = deltas.into_iter().map(|delta| Carried::Whole(delta.encode())).collect();
        let segments = vec![Segment { origin, from, to, span, deltas }];
        let body = Body::Write(Write { segments, operations: Vec::new() });
        self.apply(self.entry_of(stamp, body)?)?;
        Ok(self.origins())
    }

    fn sweep(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let stamp = args.next_pos().ok_or("an entry needs a stamp")?;
        let mut stable = Positions::default();
        for word in args.take_key("stable").unwrap_or_default().split_whitespace() {
            let (node, position) = word.split_once('=').ok_or("stable is like 2=10")?;
            stable.raise(NodeId(node.parse()?), parse_time(position)?);
        }
        let sweep = Sweep {
            span: args.next_pos().map_or(Ok(KeySpan::all()), parse_span)?,
            ids_from: args.take_key("from").map(parse_time).transpose()?,
            work_max: args.take_key("work").map_or(Ok(1_000), str::parse)?,
            stable,
        };
        let before = self.rows()?;
        let looked = self.replica.reader()?.look(parse_stamp(stamp)?.time, &sweep)?;
        self.apply(self.entry_of(stamp, Body::Sweep(sweep))?)?;
        let after = self.rows()?;
        let mut out = String::new();
        for line in before.lines().filter(|line| !after.contains(*line)) {
            writeln!(out, "- {line}")?;
        }
        for line in after.lines().filter(|line| !before.contains(*line)) {
            writeln!(out, "+ {line}")?;
        }
        if out.is_empty() {
            writeln!(out, "nothing goes")?;
        }
        if let Some((key, birth)) = looked.next() {
            let birth = birth.map(|birth| format!(", ids from {}", show_time(birth)));
            writeln!(out, "there is more: {key}{}", birth.unwrap_or_default())?;
        }
        if let Some(due) = looked.kept().due {
            writeln!(out, "more may go at {}", show_time(due))?;
        }
        Ok(out)
    }

    fn audit(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let stamp = args.next_pos().ok_or("an entry needs a stamp")?;
        self.apply(self.entry_of(stamp, Body::Audit(Audit { format: AUDIT_FORMAT }))?)?;
        let Audited { checksum, rows, keys } = self.replica.audited()?;
        Ok(format!("{checksum:016x} of {rows} rows, {keys} keys"))
    }

    fn rows(&self) -> Result<String> {
        let mut out = String::new();
        for (row_key, row) in self.replica.base()? {
            let Some(Row { key, kind, .. }) = decode(&row_key) else { continue };
            match kind {
                RowKind::Id(OperationId { birth, client, sequence, .. }) => {
                    let id = format!("{}/{sequence}", show_client(client));
                    writeln!(out, "{key} id {id} born {}", show_time(birth))?;
                }
                RowKind::Value => {
                    let row = ValueRow::decode(&row)?;
                    let what = if row.exists() { "value" } else { "deleted" };
                    let stamp = show_stamp(row.stamp);
                    writeln!(out, "{key} {what} {stamp} follows {}", show_past(&row.past))?;
                }
            }
        }
        let RangeMeta { gc_stamp, gc_past, .. } = self.replica.range().meta();
        if *gc_stamp > Stamp::ZERO {
            writeln!(
                out,
                "dropped up to {} follows {}",
                show_stamp(*gc_stamp),
                show_past(gc_past)
            )?;
        }
        if out.is_empty() {
            out.push_str("nothing");
        }
        Ok(out)
    }

    fn origins(&self) -> String {
        let origins = self.replica.range().meta().origins.iter();
        let origins = origins.map(|Origin { node, state, folded, last, .. }| {
            let stands = match state {
                OriginState::Active => "".into(),
                _ => format!(" {state:?}").to_lowercase(),
            };
            let last = last.map(|last| format!(" at {}", show_time(last))).unwrap_or_default();
            format!("{node}≤{}{stands}{last}", show_time(*folded))
        });
        origins.collect::<Vec<_>>().join(" ")
    }

    fn parse_operation(&mut self, text: &str, stamp: Stamp) -> Result<Operation> {
        let mut words = text.split_whitespace().peekable();
        let mut id = OperationId {
            birth: stamp.time,
            client: NOBODY,
            sequence: 0,
            kind: OperationKind::Log,
        };
        let mut answered_below = 0;
        if let Some((client, sequence)) = words.peek().and_then(|word| word.split_once('/')) {
            let client = client.strip_prefix('c').ok_or("an id is like c1/7")?.parse()?;
            id = OperationId { client: ClientId([client; 16]), sequence: sequence.parse()?, ..id };
            words.next();
        } else {
            self.nobodys += 1;
            id.sequence = self.nobodys;
            answered_below = self.nobodys;
        }
        let verb = words.next().ok_or("an operation needs a verb")?;
        let target = words.next().ok_or("an operation needs a key")?;
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let mut typed = None;
        let (key, value) = match (verb, target.split_once('=')) {
            ("put", Some((key, value))) => (key, Some(bytes(value))),
            ("delete", None) => (target, None),
            ("add", Some((key, amount))) => {
                typed = Some(Op::Add { amount: amount.parse()? });
                (key, None)
            }
            ("insert", Some((key, element))) => {
                typed = Some(Op::SetAdd { element: bytes(element) });
                (key, None)
            }
            ("remove", Some((key, element))) => {
                typed = Some(Op::SetRemove { element: bytes(element) });
                (key, None)
            }
            _ => return Err(format!("{text}: what is that to do?").into()),
        };
        let (mut expected, mut named) = (None, Vec::new());
        let mut need = Positions::default();
        while let Some(word) = words.next() {
            match (word, word.split_once('=')) {
                ("if", _) => expected = Some(parse_expected(words.next().ok_or("if what?")?)?),
                (_, Some(("birth", time))) => id.birth = parse_time(time)?,
                (_, Some(("need", positions))) => {
                    for position in positions.split(',') {
                        let (node, at) = position.split_once(':').ok_or("need is like 2:40")?;
                        need.raise(NodeId(node.parse()?), parse_time(at)?);
                    }
                }
                (_, Some(("named", ids))) => {
                    named = ids.split(',').map(|id| self.local_id(id)).collect::<Result<_>>()?;
                }
                (_, Some(("below", sequence))) => answered_below = sequence.parse()?,
                _ => return Err(format!("{text}: what is {word}?").into()),
            }
        }
        let op = match (expected, value) {
            _ if typed.is_some() => typed.unwrap_or(Op::Delete),
            (Some(expected), new_value) => Op::CompareAndSet { expected, new_value },
            (None, Some(value)) => Op::Put { value },
            (None, None) => Op::Delete,
        };
        Ok(Operation {
            id,
            answered_below,
            level: Level::Strict,
            key: Key::new(key.as_bytes())?,
            op,
            named,
            need,
            past: Past::default(),
            extensions: Vec::new(),
        })
    }

    /// The id of a local write that some node took.
    fn local_id(&self, text: &str) -> Result<OperationId> {
        let is_it =
            |id: &OperationId| format!("{}/{}", show_client(id.client), id.sequence) == text;
        let found = self.locals.iter().map(|delta| delta.id).find(is_it);
        Ok(found.ok_or_else(|| format!("no node took {text}"))?)
    }

    fn get(&self, key: &str) -> Result<String> {
        let row = self.replica.reader()?.get(&Key::new(key.as_bytes())?)?;
        Ok(match row {
            None => format!("{key} was never written"),
            Some(row) => match row.content {
                Content::Plain(value) => {
                    format!("{key}={} {}", value.escape_ascii(), show_version(row.version))
                }
                Content::Deleted => format!("{key} deleted {}", show_version(row.version)),
                content => format!("{key}: {content:?} {}", show_version(row.version)),
            },
        })
    }

    fn scan(&self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let mut request = ScanRequest {
            span: args.take_key("span").map_or(Ok(KeySpan::all()), parse_span)?,
            limit: args.take_key("limit").map_or(Ok(usize::MAX), str::parse)?,
            bytes_max: args.take_key("bytes").map_or(Ok(usize::MAX), str::parse)?,
            reverse: false,
            keys_only: false,
        };
        while let Some(flag) = args.next_pos() {
            match flag {
                "reverse" => request.reverse = true,
                "keys" => request.keys_only = true,
                flag => return Err(format!("a scan cannot be {flag}").into()),
            }
        }
        let page = self.replica.reader()?.scan(&request)?;
        let rows = page.rows.iter().map(|row| {
            let key = row.key.escape_ascii();
            if request.keys_only {
                assert_eq!(row.value, None);
                return key.to_string();
            }
            match &row.value {
                Some(Value::Register(Some(value))) => format!("{key}={}", value.escape_ascii()),
                other => format!("{key}: {other:?}"),
            }
        });
        let mut out = rows.collect::<Vec<_>>().join(" ");
        if out.is_empty() {
            out.push_str("nothing");
        }
        if page.more {
            out.push_str(" ...");
        }
        Ok(out)
    }

    fn ids(&self) -> Result<String> {
        let mut out = String::new();
        for (client, answered_below, sequences) in self.replica.range().ids().kept() {
            if client != NOBODY {
                write!(out, "{} answered below {answered_below}; known:", show_client(client))?;
                for sequence in sequences {
                    write!(out, " {sequence}")?;
                }
                out.push('\n');
            }
        }
        if out.is_empty() {
            out.push_str("nothing is remembered");
        }
        Ok(out)
    }

    fn meta(&self) -> Result<String> {
        let meta = self.replica.range().meta();
        let (id, epoch, keyspace, span) = (meta.id, meta.epoch, meta.keyspace, &meta.span);
        let (last, floor) = (show_stamp(meta.last_stamp), show_stamp(meta.floor));
        Ok(format!("{id} {epoch} {keyspace} {span} last={last} floor={floor}"))
    }

    fn reopen(&self) -> Result<String> {
        let same = self.replica.reopened()? == *self.replica.range();
        if same { Ok("the same".into()) } else { Err("the store gives another range".into()) }
    }

    fn replay(&self, batch_len: usize, reopen: bool) -> Result<String> {
        let (other, applied) =
            Replica::replay(&self.meta, &self.neighbours, &self.log, batch_len, reopen)?;
        if other.base()? != self.replica.base()? || other.range() != self.replica.range() {
            return Err(format!("batches of {batch_len}: another base").into());
        }
        if applied != self.applied {
            return Err(format!("batches of {batch_len}: other replies").into());
        }
        let batches = self.log.len().div_ceil(batch_len);
        let (entries, rows) = (self.log.len(), other.base()?.len());
        Ok(format!("{entries} entries in {batches} batches: the same {rows} rows and replies"))
    }
}

fn parse_span(text: &str) -> Result<KeySpan> {
    let (start, end) = text.split_once("..").ok_or("a span is like a..m")?;
    let end = (!end.is_empty()).then_some(end.as_bytes());
    Ok(KeySpan::new(start.as_bytes(), end).ok_or("the span is empty")?)
}

fn parse_time(text: &str) -> Result<Timestamp> {
    let (ms, counter) = text.split_once('.').unwrap_or((text, "0"));
    let (number, unit) = match (ms.strip_suffix('m'), ms.strip_suffix('s')) {
        (Some(minutes), _) => (minutes, 60_000),
        (None, Some(seconds)) => (seconds, 1_000),
        (None, None) => (ms, 1),
    };
    let ms = number.parse::<u64>()? * unit;
    Ok(Timestamp(Timestamp::from_ms(ms).0 + counter.parse::<u64>()?))
}

fn parse_stamp(text: &str) -> Result<Stamp> {
    let (time, node) = text.split_once('@').unwrap_or((text, "1"));
    Ok(Stamp { time: parse_time(time)?, node: NodeId(node.parse()?) })
}

fn parse_expected(text: &str) -> Result<Expected> {
    Ok(match text.split_once('=') {
        None if text == "absent" => Expected::Absent,
        Some(("value", value)) => Expected::Value(Bytes::copy_from_slice(value.as_bytes())),
        Some(("version", version)) => {
            let (stamp, ordinal) = version.split_once('#').ok_or("a version is like 10@1#0")?;
            Expected::Version(WriteTime::of_log_write(parse_stamp(stamp)?, ordinal.parse()?))
        }
        _ => return Err(format!("expected {text}?").into()),
    })
}

fn show_time(time: Timestamp) -> String {
    let ms = match time.ms() {
        ms if ms > 0 && ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms > 0 && ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => ms.to_string(),
    };
    if time.counter() == 0 { ms } else { format!("{ms}.{}", time.counter()) }
}

fn show_stamp(stamp: Stamp) -> String {
    format!("{}@{}", show_time(stamp.time), stamp.node.0)
}

fn show_version(version: WriteTime) -> String {
    let Writer::Node(node) = version.writer else { return version.to_string() };
    format!("{}#{}", show_stamp(Stamp { time: version.time, node }), version.sequence)
}

fn show_past(past: &Past) -> String {
    let seen = past.seen.by_node.iter();
    let seen = seen.map(|(node, at)| format!("{node}≤{}", show_time(*at)));
    let shown = seen.collect::<Vec<_>>().join(" ");
    if shown.is_empty() { "nothing".into() } else { shown }
}

fn show_client(client: ClientId) -> String {
    format!("c{}", client.0[0])
}

fn show_operation(operation: &Operation) -> String {
    let key = &operation.key;
    let what = match &operation.op {
        Op::Put { value } | Op::CompareAndSet { new_value: Some(value), .. } => {
            format!("put {key}={}", value.escape_ascii())
        }
        Op::Delete | Op::CompareAndSet { new_value: None, .. } => format!("delete {key}"),
        other => format!("{} {key}", other.name()),
    };
    match &operation.id {
        id if id.client == NOBODY => what,
        id => format!("{}/{} {what}", show_client(id.client), id.sequence),
    }
}

fn show_reply(reply: &Reply) -> String {
    let result = match &reply.result {
        Ok(Done::Written { version }) => format!("written {}", show_version(*version)),
        Ok(Done::Mismatch { found: Some(version) }) => {
            format!("mismatch: found {}", show_version(*version))
        }
        Ok(Done::Mismatch { found: None }) => "mismatch: found nothing".into(),
        Ok(Done::OutOfBounds { found }) => format!("out of bounds: found {found}"),
        Ok(Done::Added { version, sum }) => {
            format!("added {}: sum {sum}", show_version(*version))
        }
        Err(refusal) => format!("refused: {refusal:?}"),
    };
    if reply.duplicate { format!("{result}, a duplicate") } else { result }
}
