//! A keyspace: where operations start.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use latitude_rpc::FromWire;
use latitude_rpc::pb::v1;
use latitude_types::{Error, Level, Reason, Result, WriteTime};
use tokio::time::Instant;

use crate::answer::{Answer, CasOutcome, Outcome, Value, unfitting};
use crate::client::Client;
use crate::operation::{Expected, Operation};
use crate::receipt::{Receipt, ReceiptDetail};
use crate::routes::Target;
use crate::run::Call;
use crate::scan::{self, Page, Scan};
use crate::session::Session;
use crate::typed::wrong_type;

/// The longest timeout: a day. Longer ones are cut to it.
const TIMEOUT_MAX: Duration = Duration::from_secs(86_400);

/// A named set of keys, and how to ask for them. Cheap to clone; each `with_` gives another handle and
/// leaves this one as it is.
///
/// Every operation is retried by itself until it is answered or the timeout passes. Dropping the future
/// of a write abandons it: it may have happened or may yet, once.
#[derive(Debug, Clone)]
pub struct Keyspace {
    client: Client,
    name: Arc<str>,
    options: Options,
}

/// How operations are asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// `None`: the keyspace's default.
    pub(crate) level: Option<Level>,
    pub(crate) receipt: ReceiptDetail,
    pub(crate) timeout: Duration,
    pub(crate) request_id: Option<Arc<str>>,
    pub(crate) session: Option<Session>,
    pub(crate) staleness_max: Option<Duration>,
    /// Weaker levels to take instead, in order.
    pub(crate) accept: Arc<[Level]>,
    /// A write is acknowledged once so many replicas have it on disk; 0: as many as its level demands.
    pub(crate) ack_replicas: u32,
}

impl Options {
    /// # Errors
    /// [`Reason::ArgumentInvalid`] if a level to be taken instead is not weaker than the one asked for.
    /// If none is asked for, only the server can tell.
    fn check(&self) -> Result<()> {
        let Some(level) = self.level else { return Ok(()) };
        match self.accept.iter().find(|accepted| **accepted <= level) {
            Some(accepted) => {
                let message = format!(
                    "the level {accepted} is not weaker than {level} and cannot be taken instead of it: \
                     accept only weaker levels"
                );
                Err(Error::new(Reason::ArgumentInvalid, message))
            }
            None => Ok(()),
        }
    }
}

impl Keyspace {
    pub(crate) fn new(client: Client, name: String) -> Self {
        let timeout = client.inner.timeout;
        let options = Options {
            level: None,
            receipt: ReceiptDetail::default(),
            timeout,
            request_id: None,
            session: None,
            staleness_max: None,
            accept: Arc::new([]),
            ack_replicas: 0,
        };
        Self { client, name: name.into(), options }
    }

    /// The keyspace's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Asks at this level instead of the keyspace's default.
    #[must_use]
    pub fn with_level(mut self, level: Level) -> Self {
        self.options.level = Some(level);
        self
    }

    /// Asks for receipts of this detail; short ones unless set.
    #[must_use]
    pub fn with_receipt(mut self, detail: ReceiptDetail) -> Self {
        self.options.receipt = detail;
        self
    }

    /// Allows each operation this long, all attempts included; a day at most.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// Marks operations in the servers' logs; at most 64 bytes.
    #[must_use]
    pub fn with_request_id(mut self, id: impl Into<String>) -> Self {
        self.options.request_id = Some(id.into().into());
        self
    }

    /// Makes operations part of a session: each takes into account what the session has seen and done
    /// before. Without one, each operation is a session of its own.
    #[must_use]
    pub fn with_session(mut self, session: Session) -> Self {
        self.options.session = Some(session);
        self
    }

    /// Demands of reads that they prove to be no staler than this, in whole milliseconds. A replica that
    /// cannot does not answer and the next one is asked; if none can, the read fails with
    /// [`Reason::StalenessUnproved`]. Writes are as they are.
    #[must_use]
    pub fn with_max_staleness(mut self, staleness: Duration) -> Self {
        self.options.staleness_max = Some(staleness);
        self
    }

    /// Has writes acknowledged only once so many replicas, with or without a vote, have them on disk; never fewer than
    /// the level demands: one at causal and eventual, a quorum at strict and sequential. If they are not that many by
    /// the deadline the write fails with [`latitude_types::Outcome::Unknown`]: it has happened, and is on fewer.
    #[must_use]
    pub fn with_ack_replicas(mut self, replicas: u32) -> Self {
        self.options.ack_replicas = replicas;
        self
    }

    /// Takes these weaker levels instead, in this order, if the one asked for cannot be served; the
    /// receipt says which was given. A write that gives way does so with another id, and not once it may have
    /// happened at its own level; one with a condition is judged in the log alone and never gives way. An operation that lists a level not weaker than its own fails with
    /// [`Reason::ArgumentInvalid`].
    #[must_use]
    pub fn with_accept(mut self, levels: impl IntoIterator<Item = Level>) -> Self {
        self.options.accept = levels.into_iter().collect();
        self
    }

    /// Checks what can be checked before anything is asked.
    pub(crate) fn check(&self) -> Result<()> {
        self.options.check()?;
        self.options.session.as_ref().map_or(Ok(()), Session::check)
    }

    /// Reads a key of a keyspace of registers; `None` if it does not exist. For the other types there are
    /// [`Keyspace::counter`], [`Keyspace::members`], [`Keyspace::fields`], [`Keyspace::flag`] and
    /// [`Keyspace::siblings`], for all of them [`Keyspace::get_any`].
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Answer<Option<Value>>> {
        self.operate(&Operation::get(key)).await?.try_map(|outcome| match outcome {
            Outcome::Got(value) => Ok(value),
            Outcome::GotTyped(held) => Err(wrong_type("register", &held.value)),
            _ => Err(unfitting("get", false)),
        })
    }

    /// Writes a key, whatever it held; gives the version written.
    pub async fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
    ) -> Result<Answer<WriteTime>> {
        self.operate(&Operation::put(key, value)).await?.try_map(written)
    }

    /// Removes a key, whether or not it exists; gives the version of the removal.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Answer<WriteTime>> {
        self.operate(&Operation::delete(key)).await?.try_map(written)
    }

    /// Writes a key if it holds what is expected; a new value of `None` removes it. A condition that does
    /// not hold is no error but a [`CasOutcome::Mismatch`].
    pub async fn compare_and_set(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected,
        new_value: Option<Bytes>,
    ) -> Result<Answer<CasOutcome>> {
        let operation = Operation::compare_and_set(key, expected, new_value);
        self.operate(&operation).await?.try_map(|outcome| match outcome {
            Outcome::Compared(compared) => Ok(compared),
            _ => Err(unfitting("compare_and_set", true)),
        })
    }

    /// Writes a key if it does not exist.
    pub async fn put_if_absent(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
    ) -> Result<Answer<CasOutcome>> {
        self.compare_and_set(key, Expected::Absent, Some(value.into())).await
    }

    /// Reads a span of keys in order, across ranges, until the scan's limit or its end. The parts of
    /// different ranges are read one after another, not at one moment; the answer's receipt is the last
    /// part's.
    pub async fn scan(&self, scan: Scan) -> Result<Answer<Page>> {
        scan::run(&self.client.inner, self, scan).await
    }

    /// Runs independent operations at the same time and gives their results in the order given: no
    /// atomicity between them, and one may fail while others succeed. Each is retried by itself.
    pub async fn batch(&self, operations: Vec<Operation>) -> Vec<Result<Answer<Outcome>>> {
        let running = operations.iter().map(|operation| self.operate(operation));
        futures::future::join_all(running).await
    }

    /// When an operation that starts now must end.
    pub(crate) fn deadline(&self, started: Instant) -> Instant {
        // `Duration::MAX` is a way to say "for ever".
        started + self.options.timeout.min(TIMEOUT_MAX)
    }

    pub(crate) async fn operate(&self, operation: &Operation) -> Result<Answer<Outcome>> {
        let started = Instant::now();
        let wire = operation.to_wire();
        let call = Call {
            name: operation.name(),
            keyspace: self,
            target: Target::At(operation.key()?.clone()),
            write: operation.is_write(),
            conditional: operation.is_conditional(),
            operation: &|_| wire.clone(),
        };
        let deadline = self.deadline(started);
        let served = self.client.inner.run(&call, started, deadline).await?;
        Ok(Answer {
            value: Outcome::from_wire(operation, served.reply.result)?,
            receipt: receipt(served.reply.receipt),
            token: served.reply.token,
            attempts: served.attempts,
            latency: started.elapsed(),
        })
    }
}

pub(crate) fn written(outcome: Outcome) -> Result<WriteTime> {
    match outcome {
        Outcome::Written(version) => Ok(version),
        _ => Err(unfitting("write", true)),
    }
}

/// The receipt, if it can be read. One that cannot must not turn a success into a failure.
pub(crate) fn receipt(wire: Option<v1::Receipt>) -> Option<Receipt> {
    wire.and_then(|wire| Receipt::from_wire(wire).ok())
}
