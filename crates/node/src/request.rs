//! A client's command, parsed once: nothing behind this speaks protobuf.

#[cfg(test)]
mod tests;
mod write;

use std::collections::VecDeque;
use std::time::Duration;

use latitude_consistency::{self as levels, Plan, Token};
use latitude_directory::KeyspaceRecord;
use latitude_range::{Op, ValueType};
use latitude_rpc::FromWire;
use latitude_rpc::pb::v1;
use latitude_types::{
    ClusterIdentity, Epoch, Error, Key, KeySpan, Level, OperationId, OperationKind, RangeId, Reason,
};
use tokio::time::Instant;

use self::write::parse_write;

/// The most rows a scan answers, and how many if it names no limit.
const SCAN_ROWS: (usize, usize) = (10_000, 1_000);
/// The most bytes a scan answers, and how many if it names no limit.
const SCAN_BYTES: (usize, usize) = (8 << 20, 1 << 20);
/// The longest deadline a client may ask for.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
const REQUEST_ID_LEN_MAX: usize = 64;

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Get {
        key: Key,
    },
    Scan(Scan),
    /// An operation that fits the type of the keyspace.
    Write {
        key: Key,
        op: Op,
        /// The siblings that the client has read; for any other type there are none.
        context: Vec<OperationId>,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Scan {
    pub(crate) span: KeySpan,
    pub(crate) limit: usize,
    pub(crate) bytes_max: usize,
    pub(crate) reverse: bool,
    pub(crate) keys_only: bool,
}

/// A write's id, with what the client says of its earlier ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteId {
    pub(crate) id: OperationId,
    pub(crate) answered_below: u64,
}

/// A command, parsed and planned.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) plan: Plan,
    pub(crate) level_asked: Level,
    /// `None`: the client gave none, or it is a read.
    pub(crate) id: Option<WriteId>,
    pub(crate) deadline: Instant,
    pub(crate) receipt: v1::ReceiptDetail,
    /// The range and epoch the client routed by.
    pub(crate) routed_by: Option<(RangeId, Epoch)>,
    pub(crate) no_forward: bool,
    /// The session it continues; `None`: a new one.
    pub(crate) session: Option<Token>,
    /// A read must prove that it is no staler.
    pub(crate) staleness_max: Option<Duration>,
    /// A write is acknowledged once so many replicas have it on disk; 0: as many as its level demands.
    pub(crate) ack_replicas: usize,
    /// Weaker ways to serve it, if its own cannot be had.
    accept: VecDeque<Plan>,
    /// Why it is served at another level than asked for.
    pub(crate) fallback: Option<Reason>,
}

impl Operation {
    pub(crate) fn is_write(&self) -> bool {
        matches!(self, Self::Write { .. })
    }

    /// Its key, what it does, and the ids its client names, if it is a write.
    pub(crate) fn as_write(&self) -> Option<(&Key, &Op, &[OperationId])> {
        match self {
            Self::Get { .. } | Self::Scan(_) => None,
            Self::Write { key, op, context } => Some((key, op, context)),
        }
    }

    /// Its name, for metrics and logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Get { .. } => "get",
            Self::Scan(_) => "scan",
            Self::Write { op, .. } => op.name(),
        }
    }

    fn level_class(&self, value_type: ValueType) -> levels::Operation {
        match self {
            Self::Get { .. } | Self::Scan(_) => levels::Operation::Read,
            // It fits the type, so what speaks against a local write is that it is judged in the log.
            Self::Write { op, .. } if op.check(value_type, OperationKind::Local).is_err() => {
                levels::Operation::ConditionalWrite
            }
            Self::Write { .. } => levels::Operation::Write,
        }
    }
}

impl Request {
    /// Parses and plans a command for a keyspace.
    pub(crate) fn parse(
        command: v1::Command,
        keyspace: &KeyspaceRecord,
        cluster: ClusterIdentity,
        now: Instant,
        default_timeout: Duration,
    ) -> Result<Self, Error> {
        let operation = parse_operation(&command, keyspace)?;
        let class = operation.level_class(keyspace.value_type);
        let level = Option::<Level>::from_wire(command.level)?;
        let keyspace_levels =
            levels::KeyspaceLevels::new(keyspace.default_level, keyspace.log_only);
        let planned = levels::plan(class, level, keyspace_levels);
        // A write that names no level need not be at the keyspace's default.
        let own_level = planned.as_ref().map(|plan| plan.level).ok().or(level);
        let mut accept = accepted(
            &command.accept,
            operation.is_write() && command.id.is_some(),
            own_level.unwrap_or(keyspace.default_level),
            |level| levels::plan(class, Some(level), keyspace_levels),
        )?;
        let mut fallback = None;
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) => {
                fallback = Some(error.reason);
                accept.pop_front().ok_or(error)?
            }
        };
        let session = match &command.token[..] {
            [] => None,
            token => Some(Token::decode_for(token, cluster)?),
        };
        if command.request_id.len() > REQUEST_ID_LEN_MAX {
            let message = format!("the request id has more than {REQUEST_ID_LEN_MAX} bytes");
            return Err(Error::new(Reason::ArgumentInvalid, message));
        }
        let id = match &command.id {
            Some(id) if operation.is_write() => Some(WriteId {
                id: OperationId::from_wire((id, kind_at(&plan)))?,
                answered_below: id.answered_below,
            }),
            _ => None,
        };
        let timeout = match command.timeout_ms {
            0 => default_timeout,
            ms => Duration::from_millis(u64::from(ms)).min(TIMEOUT_MAX),
        };
        let receipt = match command.receipt() {
            v1::ReceiptDetail::Unspecified => v1::ReceiptDetail::Short,
            detail => detail,
        };
        Ok(Self {
            operation,
            plan,
            level_asked: level.unwrap_or(plan.level),
            id,
            deadline: now + timeout,
            receipt,
            routed_by: (command.range_id != 0)
                .then_some((RangeId(command.range_id), Epoch(command.range_epoch))),
            no_forward: command.no_forward,
            session,
            staleness_max: command.max_staleness_ms.map(|ms| Duration::from_millis(ms.into())),
            ack_replicas: command.ack_replicas as usize,
            accept,
            fallback,
        })
    }

    /// The kind of the write's id.
    pub(crate) fn id_kind(&self) -> OperationKind {
        kind_at(&self.plan)
    }

    /// The same request at the next level that the client takes instead, because of `why`.
    pub(crate) fn fall_back(mut self, why: Reason) -> Option<Self> {
        self.plan = self.accept.pop_front()?;
        self.fallback = Some(why);
        if let Some(WriteId { id, .. }) = &mut self.id {
            id.kind = kind_at(&self.plan);
        }
        Some(self)
    }

    /// Whether there is another level to fall back to.
    pub(crate) fn may_fall_back(&self) -> bool {
        !self.accept.is_empty()
    }

    /// The place among keys that decides which range serves it.
    pub(crate) fn routing_key(&self) -> RoutingKey<'_> {
        match &self.operation {
            Operation::Get { key } | Operation::Write { key, .. } => RoutingKey::At(key.as_bytes()),
            Operation::Scan(scan) if scan.reverse => match scan.span.end() {
                Some(end) => RoutingKey::Below(end),
                None => RoutingKey::Last,
            },
            Operation::Scan(scan) => RoutingKey::At(scan.span.start()),
        }
    }
}

/// The kind of the ids of writes that are served this way.
fn kind_at(plan: &Plan) -> OperationKind {
    if plan.level.writes_through_log() { OperationKind::Log } else { OperationKind::Local }
}

/// The ways to serve a request at the weaker levels its client takes, as far as they are served.
fn accepted(
    wire: &[i32],
    is_named: bool,
    level: Level,
    plan: impl Fn(Level) -> Result<Plan, Error>,
) -> Result<VecDeque<Plan>, Error> {
    let most = Level::ALL.len();
    if wire.len() > most {
        let message = format!("`accept` lists {} levels: there are {most}", wire.len());
        return Err(Error::new(Reason::ArgumentInvalid, message));
    }
    let mut plans = VecDeque::new();
    for accept in wire {
        let accept = Option::<Level>::from_wire(*accept)?
            .filter(|accept| *accept > level)
            .ok_or_else(|| {
                let message =
                    format!("`accept` lists weaker levels than the one asked for, {level}");
                Error::new(Reason::ArgumentInvalid, message)
            })?;
        if is_named {
            // Through the log it would be the same write, at the same leader. At a local level it would be another
            // one, which needs another id: were this reply lost, the client's retry could not be told from it.
            continue;
        }
        plans.extend(plan(accept).ok());
    }
    Ok(plans)
}

/// Where among the ranges a request begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RoutingKey<'a> {
    /// In the range that holds it.
    At(&'a [u8]),
    /// In the range that holds the greatest key below it.
    Below(&'a [u8]),
    /// In the last range.
    Last,
}

fn parse_operation(command: &v1::Command, keyspace: &KeyspaceRecord) -> Result<Operation, Error> {
    use v1::command::Operation as Wire;
    match &command.operation {
        None => Err(Error::new(
            Reason::Malformed,
            "the command names no operation: set get, put, delete, ...",
        )),
        Some(Wire::Get(get)) => Ok(Operation::Get { key: Key::from_wire(&get.key)? }),
        Some(Wire::Scan(scan)) => {
            let limited = |asked: u32, (most, default): (usize, usize)| match asked as usize {
                0 => default,
                asked => asked.min(most),
            };
            Ok(Operation::Scan(Scan {
                span: KeySpan::from_wire((&scan.start, scan.end.as_ref()))?,
                limit: limited(scan.limit, SCAN_ROWS),
                bytes_max: limited(scan.max_bytes, SCAN_BYTES),
                reverse: scan.reverse,
                keys_only: scan.keys_only,
            }))
        }
        Some(write) => parse_write(write, keyspace),
    }
}
