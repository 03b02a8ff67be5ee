//! Scans: rows in key order, put together over ranges.

use bytes::Bytes;
use latitude_rpc::FromWire;
use latitude_rpc::pb::v1;
use latitude_types::{Error, KeySpan, Level, Reason, Result, WriteTime};
use tokio::time::Instant;

use crate::answer::{Answer, unfitting};
use crate::client::Inner;
use crate::keyspace::{Keyspace, receipt};
use crate::receipt::{Receipt, ReceiptDetail};
use crate::routes::{Route, Target};
use crate::run::Call;
use crate::session::Session;
use crate::typed::TypedValue;

/// How many rows a page has unless the scan says otherwise.
const LIMIT_DEFAULT: usize = 1000;
/// The most rows a server gives at once.
const PART_ROWS_MAX: usize = 10_000;

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    start: Bytes,
    end: Option<Bytes>,
    limit: usize,
    page_bytes: usize,
    reverse: bool,
    keys_only: bool,
}

impl Scan {
    /// All keys.
    pub fn all() -> Self {
        Self::of(&KeySpan::all())
    }

    /// The keys that begin with `prefix`.
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        Self::of(&KeySpan::prefix(prefix.as_ref()))
    }

    /// The keys from `start` (included) to `end` (excluded). A span whose end is not above its start is
    /// refused when it is scanned.
    pub fn span(start: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> Self {
        let end = Some(Bytes::copy_from_slice(end.as_ref()));
        Self { start: Bytes::copy_from_slice(start.as_ref()), end, ..Self::all() }
    }

    fn of(span: &KeySpan) -> Self {
        Self {
            start: Bytes::copy_from_slice(span.start()),
            end: span.end().map(Bytes::copy_from_slice),
            limit: LIMIT_DEFAULT,
            page_bytes: usize::MAX,
            reverse: false,
            keys_only: false,
        }
    }

    /// At most this many rows in a page; 1000 unless set. At least one.
    #[must_use]
    pub fn limit(self, rows: usize) -> Self {
        Self { limit: rows.max(1), ..self }
    }

    /// A page also ends when its keys and values have this many bytes; no bound unless set. The row or
    /// the server's answer that reaches the bound is still in the page: at most 8 MiB and a row more.
    #[must_use]
    pub fn page_bytes(self, bytes: usize) -> Self {
        Self { page_bytes: bytes.max(1), ..self }
    }

    /// From the last key down.
    #[must_use]
    pub fn reverse(self) -> Self {
        Self { reverse: true, ..self }
    }

    /// Without the values: rows hold empty ones.
    #[must_use]
    pub fn keys_only(self) -> Self {
        Self { keys_only: true, ..self }
    }

    /// The range that holds the next rows.
    fn target(&self) -> Target {
        if self.reverse {
            Target::Below { start: self.start.clone(), end: self.end.clone() }
        } else {
            Target::At(self.start.clone())
        }
    }

    /// The part of the scan that a range holds.
    fn part(&self, route: &Route, rows: usize) -> v1::Scan {
        let end = match (&self.end, &route.end) {
            (Some(a), Some(b)) => Some(a.min(b).clone()),
            (a, b) => a.clone().or_else(|| b.clone()),
        };
        v1::Scan {
            start: self.start.clone().max(route.start.clone()),
            end,
            limit: rows.min(PART_ROWS_MAX) as u32,
            reverse: self.reverse,
            keys_only: self.keys_only,
            max_bytes: 0,
        }
    }

    /// What is left after `part`, of which the server has answered all but what begins at `resume`;
    /// `None` if nothing is.
    fn after(&self, part: &v1::Scan, resume: Option<Bytes>) -> Option<Self> {
        let mut rest = self.clone();
        if self.reverse {
            let reached = resume.unwrap_or_else(|| part.start.clone());
            // The first key there is has nothing below it.
            (reached > self.start).then_some(())?;
            rest.end = Some(reached);
        } else {
            let reached = resume.or_else(|| part.end.clone())?;
            self.end.as_ref().is_none_or(|end| reached < *end).then_some(())?;
            rest.start = reached;
        }
        Some(rest)
    }
}

/// Rows of a scan, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// At most as many as the scan's limit and its bound of bytes allow.
    pub rows: Vec<Row>,
    /// Goes on after the last row; `None`: the scan is complete. The next page may turn out empty.
    pub next: Option<Scan>,
}

/// A key and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: Bytes,
    /// A register's value; empty if only keys were asked for.
    pub value: Bytes,
    /// The value in a keyspace of any other type; `None` if only keys were asked for.
    pub typed: Option<TypedValue>,
    /// The value's version.
    pub version: WriteTime,
}

impl FromWire<v1::Row> for Row {
    fn from_wire(wire: v1::Row) -> Result<Self> {
        let version = wire.version.as_ref().ok_or_else(|| unfitting("scan", false))?;
        let version = WriteTime::from_wire(version)?;
        let typed = wire.typed.map(TypedValue::from_wire).transpose()?;
        Ok(Self { key: wire.key, value: wire.value, typed, version })
    }
}

impl Row {
    /// About how many bytes the value has.
    fn size(&self) -> usize {
        self.value.len() + self.typed.as_ref().map_or(0, TypedValue::size)
    }
}

/// Scans range after range until a limit, the end, or the deadline, which holds for all of it.
pub(crate) async fn run(client: &Inner, keyspace: &Keyspace, scan: Scan) -> Result<Answer<Page>> {
    let started = Instant::now();
    let deadline = keyspace.deadline(started);
    // Its parts are reads one after another, so they are in one session, the scan's own if it has no other. At causal level
    // a part may have causes that this region lacks in the next range: then they are not closed, and say so.
    let may_be_local = |level: &Level| matches!(level, Level::Causal | Level::Eventual);
    let options = keyspace.options();
    let own_session = options.session.is_none() && !options.accept.iter().any(may_be_local);
    let mut of_parts = match own_session {
        true => keyspace.clone().with_session(Session::new()),
        false => keyspace.clone(),
    };
    let is_asked_for = !own_session || keyspace.options().receipt != ReceiptDetail::None;
    if KeySpan::new(&scan.start, scan.end.as_deref()).is_none() {
        let message = format!(
            "the end \"{}\" is not above the start \"{}\": swap them",
            scan.end.unwrap_or_default().escape_ascii(),
            scan.start.escape_ascii()
        );
        return Err(Error::new(Reason::ScanSpanEmpty, message));
    }
    let (limit, page_bytes) = (scan.limit, scan.page_bytes);
    let mut rows: Vec<Row> = Vec::new();
    let mut bytes = 0usize;
    let mut attempts = 0;
    let mut so_far: Option<Receipt> = None;
    let mut rest = scan;
    loop {
        let wanted = limit - rows.len();
        let call = Call {
            name: "scan",
            keyspace: &of_parts,
            target: rest.target(),
            write: false,
            conditional: false,
            operation: &|route| v1::command::Operation::Scan(rest.part(route, wanted)),
        };
        let served = client.run(&call, started, deadline).await?;
        attempts += served.attempts;
        let level = keyspace.options().level.or(served.route.default_level);
        if own_session && level.is_some_and(|level| may_be_local(&level)) {
            of_parts = keyspace.clone();
        }
        let Some(v1::reply::Result::Scan(result)) = served.reply.result else {
            return Err(unfitting("scan", false));
        };
        if result.rows.len() > wanted {
            return Err(unfitting("scan", false));
        }
        so_far = match (so_far, receipt(served.reply.receipt)) {
            (Some(so_far), Some(part)) => Some(so_far.with_part(part)),
            (_, part) => part,
        };
        let had = rows.len();
        for row in result.rows {
            let row = Row::from_wire(row)?;
            bytes = bytes.saturating_add(row.key.len() + row.size());
            rows.push(row);
        }
        let next = rest.after(&rest.part(&served.route, wanted), result.resume);
        let page_ends = rows.len() == limit || bytes >= page_bytes || next.is_none();
        if page_ends {
            return Ok(Answer {
                value: Page { rows, next },
                receipt: so_far.filter(|_| is_asked_for),
                token: if is_asked_for { served.reply.token } else { Bytes::new() },
                attempts,
                latency: started.elapsed(),
            });
        }
        let next = next.expect("the page has not ended");
        if next == rest && rows.len() == had {
            // It would go on for ever.
            return Err(unfitting("scan", false));
        }
        rest = next;
    }
}
