//! The operations of a client: each is taken down when it is sent and when it is answered, and whatever can be judged
//! at once is.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use latitude_checker::history::{Extras, MicroOp, Value, Version};
use latitude_checker::mixed::Folded;
use latitude_client::{
    CasOutcome, Error, Expected, Keyspace, Level, Proof, Reason, Scan, WriteTime,
};
use latitude_range::Content;
use latitude_types::{Key, Stamp, Writer};
use rand::seq::IndexedRandom;

use super::{Client, NO_PANIC, Shared, Went};
use crate::cluster::ClientHost;
use crate::violation::Check;

/// The most keys that a scan is for.
const SCANNED_MAX: u32 = 4;

impl Shared {
    /// Reads a key; the outer `None`: it could not be read.
    pub(super) async fn read(
        &self,
        host: &ClientHost,
        keyspace: &Keyspace,
        client: &mut Client,
        at: u32,
        level: Level,
        is_final: bool,
    ) -> Result<Option<Option<i64>>> {
        let key = self.workload.key(at);
        let read = |value| vec![MicroOp::Read { key: key.clone(), value }];
        let extras = Extras { is_final, ..client.extras(level) };
        let bound = self.bound(level);
        let keyspace = match bound {
            Some(bound) if level == Level::Sequential => {
                &keyspace.clone().with_max_staleness(bound)
            }
            _ => keyspace,
        };
        host.say(&format!("{} reads {key} {level}, no staler than {bound:?}", client.process));
        self.recorder.invoke(client.process, nanos(host), read(Value::Absent), extras)?;
        let sent = host.now();
        match keyspace.get(&key).await {
            Ok(answer) => {
                if let Some(bound) = bound {
                    let seen = answer.value.as_ref().map(|value| &value.version);
                    self.freshness.seen(at, sent, bound, seen)?;
                }
                if let Some(value) = answer.value.as_ref().filter(|_| level == Level::Strict) {
                    // Strict reads never go back, whatever the log takes in late.
                    self.freshness.written(at, host.now(), &value.version);
                }
                if let Some(receipt) = &answer.receipt {
                    if receipt.proof == Some(Proof::Lease) {
                        self.by_lease.fetch_add(1, Ordering::Relaxed);
                    }
                    if let (Some((_, index)), Some(time)) = (receipt.log, receipt.as_of)
                        && is_log(level)
                    {
                        host.told(receipt.range, index, time);
                    }
                }
                let version = answer.value.as_ref().and_then(|value| version(&value.version));
                let value = answer.value.map(|value| decode(&value.bytes)).transpose()?;
                host.say(&format!("{} has read {key} = {value:?}", client.process));
                let seen = value.map_or(Value::Absent, Value::Integer);
                let extras = Extras { version, is_final, ..Extras::default() };
                self.recorder.ok(client.process, nanos(host), read(seen), extras)?;
                Ok(Some(value))
            }
            Err(error) => {
                host.say(&format!("{} could not read: {error}", client.process));
                expected(&error)?;
                self.recorder.fail(client.process, nanos(host), Extras::default())?;
                Ok(None)
            }
        }
    }

    /// Reads some keys from that one on.
    ///
    /// A scan is no snapshot of more than one range, so in the history it is a read of each key, by somebody
    /// who has taken over the client's token.
    pub(super) async fn scan(
        &self,
        host: &ClientHost,
        keyspace: &Keyspace,
        client: &mut Client,
        from: u32,
        level: Level,
    ) -> Result<()> {
        let until = (from + SCANNED_MAX).min(self.workload.keys);
        let (start, end) = (self.workload.key(from), self.workload.key(until));
        host.say(&format!("{} scans {start}..{end} {level}", client.process));
        let mut readers = Vec::new();
        for at in from..until {
            let (process, key) = (self.recorder.process(), self.workload.key(at));
            let token_from = client.token_from.or(Some(client.process));
            let level = Some(level.to_string());
            let extras = Extras { level, token_from, ..Extras::default() };
            let read = vec![MicroOp::Read { key: key.clone(), value: Value::Absent }];
            self.recorder.invoke(process, nanos(host), read, extras)?;
            readers.push((at, process, key));
        }
        let sent = host.now();
        let page = match keyspace.scan(Scan::span(&start, &end)).await {
            Ok(answer) => answer.value,
            Err(error) => {
                host.say(&format!("{} could not scan: {error}", client.process));
                expected(&error)?;
                for (_, process, _) in readers {
                    self.recorder.fail(process, nanos(host), Extras::default())?;
                }
                return Ok(());
            }
        };
        let rows: BTreeMap<_, _> = page.rows.iter().map(|row| (&row.key[..], row)).collect();
        if page.next.is_some()
            || rows.len() < page.rows.len()
            || !page.rows.is_sorted_by_key(|row| &row.key)
        {
            let what = format!("a scan of {start}..{end} gave {:?}", page);
            return Err(Check::Answers.found(what).into());
        }
        for (at, process, key) in readers {
            let row = rows.get(key.as_bytes());
            if level == Level::Strict {
                self.freshness.seen(at, sent, Duration::ZERO, row.map(|row| &row.version))?;
            }
            let value = row.map(|row| decode(&row.value)).transpose()?;
            host.say(&format!("{process} has scanned {key} = {value:?}"));
            let version = row.and_then(|row| version(&row.version));
            let value = value.map_or(Value::Absent, Value::Integer);
            let extras = Extras { version, ..Extras::default() };
            self.recorder.ok(process, nanos(host), vec![MicroOp::Read { key, value }], extras)?;
        }
        Ok(())
    }

    /// How stale the answer of a read may be: not at all if it is strict, else often anything.
    fn bound(&self, level: Level) -> Option<Duration> {
        match level {
            Level::Strict => return Some(Duration::ZERO),
            Level::Sequential => {}
            Level::Causal | Level::Eventual => return None,
        }
        let mut random = self.random.lock().expect(NO_PANIC);
        let bounds = [None, None, Some(0), Some(30), Some(300), Some(2_000)];
        bounds.choose(&mut *random).copied().flatten().map(Duration::from_millis)
    }

    pub(super) async fn write(
        &self,
        host: &ClientHost,
        keyspace: &Keyspace,
        client: &mut Client,
        at: u32,
        level: Level,
    ) -> Result<Went> {
        let key = self.workload.key(at);
        let value = self.next_value.fetch_add(1, Ordering::Relaxed);
        let write = vec![MicroOp::Write { key: key.clone(), value }];
        let extras = client.extras(level);
        self.note_sent(at, value);
        host.say(&format!("{} writes {key} = {value} {level}", client.process));
        self.recorder.invoke(client.process, nanos(host), write.clone(), extras)?;
        match keyspace.put(&key, self.workload.encode(value)).await {
            Ok(answer) => {
                host.acknowledged(&answer.value);
                // The log takes a local write in when it does.
                if is_log(level) {
                    self.freshness.written(at, host.now(), &answer.value);
                }
                self.wrote(host, client, at, "has written", write, &answer.value)
            }
            Err(error) => self.failed(host, client, &error),
        }
    }

    pub(super) async fn delete(
        &self,
        host: &ClientHost,
        keyspace: &Keyspace,
        client: &mut Client,
        at: u32,
        level: Level,
    ) -> Result<Went> {
        let key = self.workload.key(at);
        let delete = vec![MicroOp::Delete { key: key.clone() }];
        let extras = client.extras(level);
        host.say(&format!("{} deletes {key} {level}", client.process));
        self.recorder.invoke(client.process, nanos(host), delete.clone(), extras)?;
        self.freshness.deletes(at);
        match keyspace.delete(&key).await {
            Ok(answer) => {
                host.acknowledged(&answer.value);
                // The log takes a local one in when it does: it may have from now on, for good.
                if is_log(level) {
                    self.freshness.deleted(at, host.now(), &answer.value);
                }
                self.wrote(host, client, at, "has deleted", delete, &answer.value)
            }
            Err(error) => {
                let went = self.failed(host, client, &error)?;
                if matches!(went, Went::Failed) {
                    self.freshness.not_deleted(at);
                }
                Ok(went)
            }
        }
    }

    pub(super) async fn compare(
        &self,
        host: &ClientHost,
        keyspace: &Keyspace,
        client: &mut Client,
        at: u32,
        from: Option<i64>,
        level: Level,
    ) -> Result<Went> {
        let key = self.workload.key(at);
        let to = self.next_value.fetch_add(1, Ordering::Relaxed);
        let compare = vec![MicroOp::CompareAndSet { key: key.clone(), from, to }];
        let extras = client.extras(level);
        self.note_sent(at, to);
        host.say(&format!("{} sets {key} from {from:?} to {to} {level}", client.process));
        self.recorder.invoke(client.process, nanos(host), compare.clone(), extras)?;
        let encode = |value| self.workload.encode(value);
        let condition = from.map_or(Expected::Absent, |from| Expected::Value(encode(from).into()));
        let answer = keyspace.compare_and_set(&key, condition, Some(encode(to).into())).await;
        match answer.map(|answer| answer.value) {
            Ok(CasOutcome::Applied { version: written }) => {
                host.acknowledged(&written);
                self.freshness.written(at, host.now(), &written);
                self.wrote(host, client, at, "has set", compare, &written)
            }
            Ok(CasOutcome::Mismatch { found }) => {
                let version = found.as_ref().and_then(version);
                let extras = Extras { version, ..Extras::default() };
                host.say(&format!("{} found another value in {key}", client.process));
                self.recorder.mismatch(client.process, nanos(host), extras)?;
                Ok(Went::Ok)
            }
            Err(error) => self.failed(host, client, &error),
        }
    }

    /// Notes a write that was acknowledged, with this version.
    fn wrote(
        &self,
        host: &ClientHost,
        client: &Client,
        at: u32,
        what: &str,
        write: Vec<MicroOp>,
        written: &WriteTime,
    ) -> Result<Went> {
        let extras = Extras { version: version(written), ..Extras::default() };
        let key = self.workload.key(at);
        host.wrote(client.seen, written);
        host.say(&format!("{} {what} {key} at {:?}", client.process, extras.version));
        self.note_written(at, client);
        self.recorder.ok(client.process, nanos(host), write, extras)?;
        Ok(Went::Ok)
    }

    /// Notes a failure. After an unknown outcome the client goes on under a new process, with the session as
    /// the last answer left it.
    fn failed(&self, host: &ClientHost, client: &mut Client, error: &Error) -> Result<Went> {
        host.say(&format!("{} failed: {error}", client.process));
        expected(error)?;
        if error.may_have_applied() {
            let process = self.recorder.info(client.process, nanos(host), Extras::default())?;
            client.token_from = Some(std::mem::replace(&mut client.process, process));
            return Ok(Went::Unknown);
        }
        self.recorder.fail(client.process, nanos(host), Extras::default())?;
        Ok(Went::Failed)
    }
}

/// A version as histories have it: comparable over all keys, as far as it is of the log.
fn version(version: &WriteTime) -> Option<Version> {
    let WriteTime { time, writer, sequence } = *version;
    Some(Version(match writer {
        // At equal times the log is above; in one entry, what it writes is above what it folds.
        Writer::Node(node) => vec![time.0, 1, u64::from(node.0), 1, sequence],
        Writer::Client(client) => {
            let client = u128::from_be_bytes(client.0);
            vec![time.0, 0, (client >> 64) as u64, client as u64, sequence]
        }
    }))
}

/// Where the log took local writes in, as histories have it.
pub(super) fn folded(winners: Vec<(WriteTime, Key, Content, Stamp)>) -> Vec<Folded> {
    let of = |(at, (written, key, content, stamp)): (usize, (WriteTime, Key, Content, Stamp))| {
        let value = match content {
            Content::Plain(bytes) => Some(decode(&bytes).ok()?),
            Content::Deleted => None,
            Content::Live(_) | Content::Counter(_) => return None,
        };
        let place = vec![stamp.time.0, 1, u64::from(stamp.node.0), 0, at as u64];
        let key = String::from_utf8_lossy(key.as_bytes()).into_owned();
        Some(Folded { key, value, version: version(&written)?, place: Version(place) })
    };
    winners.into_iter().enumerate().filter_map(of).collect()
}

fn is_log(level: Level) -> bool {
    matches!(level, Level::Strict | Level::Sequential)
}

/// Faults explain many errors, but not these.
pub(super) fn expected(error: &Error) -> Result<()> {
    tracing::debug!(%error, "an operation failed");
    match error.reason {
        Reason::Internal | Reason::Malformed | Reason::ArgumentInvalid => {
            Err(Check::Answers.found(format!("no fault explains this: {error}")).into())
        }
        _ => Ok(()),
    }
}

pub(super) fn nanos(host: &ClientHost) -> u64 {
    host.now().as_nanos() as u64
}

fn decode(bytes: &[u8]) -> Result<i64> {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end()
        .parse()
        .map_err(|_| Check::Answers.found(format!("nobody wrote {text:?}")).into())
}
