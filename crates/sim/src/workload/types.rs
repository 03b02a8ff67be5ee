//! Counters and sets beside the registers: every acknowledged add counts exactly once, at whatever level and
//! however often it was sent, with and without bounds; an element is there exactly if it was added and not removed by
//! somebody who had seen it.
//!
//! What clients see of them is a history of its own, which `latitude_checker` judges; what each entry of the log leaves
//! of them is judged by definition in `invariants/values.rs`, also where a counter is reset or deleted.

use std::io::{Sink, sink};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use latitude_checker::history::{Extras, MicroOp, Operation, Value};
use latitude_checker::{History, Level as Judged, Recorder, counter, promise, set};
use latitude_client::{
    AddOutcome, Answer, Error, Held, Keyspace, Level, Session, TypedValue, wire,
};
use rand::RngExt;
use rand::seq::IteratorRandom;

use super::operations::{expected, nanos};
use super::{TIMEOUT, Workload};
use crate::cluster::{ClientHost, Cluster};
use crate::violation::Check;

const COUNTERS: &str = "sim-counters";
const SETS: &str = "sim-sets";
/// Keys of either keyspace.
const KEYS: u32 = 2;
/// The counter that is reset and deleted: its judge knows only of sums.
const ENDED: &str = "t1";
/// Elements that are added again and again, also while somebody removes them. All others are added once.
const SHARED: std::ops::Range<i64> = -3..0;
/// One of them.
const THE_ONE: i64 = -1;

/// The counters and sets, and their history.
pub(super) struct Typed {
    next: AtomicI64,
    recorder: Recorder<Sink>,
}

/// A session on counters and sets, and the process it is in their history.
pub(super) struct Asker {
    pub(super) session: Session,
    process: u64,
    /// The process whose session it goes on with.
    token_from: Option<u64>,
}

/// A client whose turn it is, and the level it asks at.
struct Turn<'a> {
    host: &'a mut ClientHost,
    asker: &'a mut Asker,
    level: Level,
}

impl Turn<'_> {
    fn keyspace(&self, name: &str) -> Keyspace {
        let keyspace = self.host.client.keyspace(name).with_timeout(TIMEOUT);
        keyspace.with_level(self.level).with_session(self.asker.session.clone())
    }
}

/// An operation under way.
type Answering<'a, T> = LocalBoxFuture<'a, Result<Answer<T>, Error>>;

impl Default for Typed {
    fn default() -> Self {
        Self { next: AtomicI64::new(0), recorder: Recorder::new(sink()) }
    }
}

impl Workload {
    /// Creates the keyspaces of counters and sets.
    pub(super) fn prepare_typed(
        cluster: &mut Cluster,
        like: &wire::CreateKeyspaceRequest,
    ) -> Result<()> {
        create(cluster, like, COUNTERS, wire::ValueType::Counter)?;
        create(cluster, like, SETS, wire::ValueType::Set)
    }
}

/// Creates a keyspace of this type, of one range.
pub(super) fn create(
    cluster: &mut Cluster,
    like: &wire::CreateKeyspaceRequest,
    name: &str,
    of: wire::ValueType,
) -> Result<()> {
    let request = wire::CreateKeyspaceRequest {
        name: name.into(),
        r#type: of as i32,
        split_at: vec![],
        ..like.clone()
    };
    cluster
        .run_client(Duration::from_secs(30), |host| async move {
            host.client.admin().create_keyspace(request).await
        })?
        .map_err(|error| anyhow!("the keyspace was not created: {error}"))?;
    Ok(())
}

/// The keys, each with its keyspace.
pub(super) fn keys() -> impl Iterator<Item = (&'static str, String)> {
    let of = |keyspace| (0..KEYS).map(move |at| (keyspace, format!("t{at}")));
    of(COUNTERS).chain(of(SETS))
}

impl Typed {
    /// A session that has seen nothing yet.
    pub(super) fn asker(&self) -> Asker {
        Asker { session: Session::new(), process: self.recorder.process(), token_from: None }
    }

    /// One operation on a counter or a set.
    pub(super) async fn operate(
        &self,
        host: &mut ClientHost,
        asker: &mut Asker,
        level: Level,
        one_element: bool,
    ) -> Result<()> {
        let turn = &mut Turn { host, asker, level };
        let key = format!("t{}", turn.host.random.random_range(0..KEYS));
        if one_element && turn.host.random.random_ratio(4, 5) {
            return match turn.host.random.random_range(0..6) {
                0..3 => self.add_element(turn, "t0", THE_ONE).await,
                3 => self.remove_element(turn, "t0").await,
                _ => self.remove_unread(turn, "t0").await,
            };
        }
        match turn.host.random.random_range(0..16) {
            0..4 => self.add(turn, &key).await,
            4 => self.read_counter(turn, &key).await,
            5 => self.end_or_bound(turn, &key).await,
            6..12 => {
                let element = match turn.host.random.random() {
                    true => turn.host.random.random_range(SHARED),
                    false => self.next.fetch_add(1, Ordering::Relaxed),
                };
                self.add_element(turn, &key, element).await
            }
            12..14 => self.remove_element(turn, &key).await,
            _ => {
                let sets = turn.keyspace(SETS);
                let delete = vec![MicroOp::Delete { key: of_set(&key) }];
                let deleting = sets.delete(&key).boxed_local();
                self.ask(turn, delete.clone(), deleting, |_| Ok(Some(delete))).await?;
                Ok(())
            }
        }
    }

    async fn add(&self, turn: &mut Turn<'_>, key: &str) -> Result<()> {
        let amount = turn.host.random.random_range(1..=9);
        let add = MicroOp::Add { key: of_counter(key), amount };
        let counters = turn.keyspace(COUNTERS);
        let adding = async {
            let answer = counters.add(key, amount).await?;
            Ok(answer.map(AddOutcome::Applied))
        };
        self.add_with(turn, key, add, adding.boxed_local()).await
    }

    /// What counters have through the log alone. The first one is never ended, so that its sum stays exact.
    async fn end_or_bound(&self, turn: &mut Turn<'_>, key: &str) -> Result<()> {
        if !turn.level.writes_through_log() {
            turn.level = Level::Strict;
        }
        let counters = turn.keyspace(COUNTERS);
        if key == ENDED && turn.host.random.random() {
            let went = match turn.host.random.random() {
                true => counters.reset(key).await,
                false => counters.delete(key).await,
            };
            turn.host.say(&format!("ends {key}: {:?}", went.as_ref().map(drop)));
            return went.map_or_else(|error| expected(&error), |_| Ok(()));
        }
        let random = &mut turn.host.random;
        let (amount, high) = (random.random_range(1..=9), random.random_range(0..100));
        let add = MicroOp::BoundedAdd { key: of_counter(key), amount, low: i64::MIN, high };
        let adding = counters.add_within(key, amount, None, Some(high)).boxed_local();
        self.add_with(turn, key, add, adding).await
    }

    /// An addition, and through the log the sum it left.
    async fn add_with(
        &self,
        turn: &mut Turn<'_>,
        key: &str,
        add: MicroOp,
        adding: Answering<'_, AddOutcome>,
    ) -> Result<()> {
        if key == ENDED {
            turn.host.say(&format!("adds to {key}"));
            let went = adding.await;
            turn.host.say(&format!("adding to {key}: {:?}", went.as_ref().map(drop)));
            return went.map_or_else(|error| expected(&error), |_| Ok(()));
        }
        let by_log = turn.level.writes_through_log();
        let read = |value| MicroOp::Read { key: of_counter(key), value };
        let with = |sum| [vec![add.clone()], vec![read(sum)]].concat();
        let asked = if by_log { with(Value::Absent) } else { vec![add.clone()] };
        self.ask(turn, asked.clone(), adding, |outcome| match outcome {
            AddOutcome::Applied(added) if by_log => match added.sum {
                Some(sum) => Ok(Some(with(Value::Integer(sum)))),
                None => bail!(Check::Answers.found("an add through the log answers no sum")),
            },
            AddOutcome::Applied(_) => Ok(Some(asked)),
            AddOutcome::OutOfBounds { .. } => Ok(None),
        })
        .await?;
        Ok(())
    }

    async fn read_counter(&self, turn: &mut Turn<'_>, key: &str) -> Result<()> {
        let read = |value| vec![MicroOp::Read { key: of_counter(key), value }];
        let counters = turn.keyspace(COUNTERS);
        let reading = counters.counter(key).boxed_local();
        if key == ENDED {
            return reading.await.map_or_else(|error| expected(&error), |_| Ok(()));
        }
        let seen = |sum: &i64| Ok(Some(read(Value::Integer(*sum))));
        self.ask(turn, read(Value::Absent), reading, seen).await?;
        Ok(())
    }

    async fn add_element(&self, turn: &mut Turn<'_>, key: &str, element: i64) -> Result<()> {
        let sets = turn.keyspace(SETS);
        let add = vec![MicroOp::Add { key: of_set(key), amount: element }];
        let adding = sets.set_add(key, element.to_string()).boxed_local();
        self.ask(turn, add.clone(), adding, |_| Ok(Some(add))).await?;
        Ok(())
    }

    /// Removes an element that was seen in the same session, at the same level.
    async fn remove_element(&self, turn: &mut Turn<'_>, key: &str) -> Result<()> {
        let sets = turn.keyspace(SETS);
        let read = |value| vec![MicroOp::Read { key: of_set(key), value }];
        let reading = sets.members(key).boxed_local();
        let seen = |members: &Vec<Bytes>| Ok(Some(read(Value::List(elements(members)?))));
        let seen = self.ask(turn, read(Value::Absent), reading, seen).await?;
        let Some(members) = seen else { return Ok(()) };
        // What several have added is ended by as many names as its remover has seen, elsewhere others than here.
        let shared = turn.host.random.random_ratio(2, 3);
        let wanted = elements(&members)?.into_iter();
        let wanted = wanted.filter(|element| !shared || SHARED.contains(element));
        let Some(element) = wanted.choose(&mut turn.host.random) else { return Ok(()) };
        self.remove(turn, &sets, key, element).await
    }

    /// Removes an element without a look at the set and in no session: whatever node takes it ends what it sees itself.
    async fn remove_unread(&self, turn: &mut Turn<'_>, key: &str) -> Result<()> {
        let Turn { host, level, .. } = turn;
        let sets = host.client.keyspace(SETS).with_timeout(TIMEOUT).with_level(*level);
        let nobody = &mut Turn { host, asker: &mut self.asker(), level: *level };
        self.remove(nobody, &sets, key, THE_ONE).await
    }

    async fn remove(
        &self,
        turn: &mut Turn<'_>,
        sets: &Keyspace,
        key: &str,
        element: i64,
    ) -> Result<()> {
        let remove = vec![MicroOp::Remove { key: of_set(key), element }];
        let removing = sets.set_remove(key, element.to_string()).boxed_local();
        self.ask(turn, remove.clone(), removing, |_| Ok(Some(remove))).await?;
        Ok(())
    }

    /// Takes down an operation when it is sent and when it is answered. `done`: what it is then; `None`: it certainly
    /// found a sum out of its bounds. Returns what was answered.
    async fn ask<T>(
        &self,
        turn: &mut Turn<'_>,
        asked: Vec<MicroOp>,
        answering: Answering<'_, T>,
        done: impl FnOnce(&T) -> Result<Option<Vec<MicroOp>>>,
    ) -> Result<Option<T>> {
        let Turn { host, asker, level } = turn;
        let shown = |operations: &[MicroOp]| {
            let of = operations.iter().map(|op| format!("{} {op}", op.key()));
            of.collect::<Vec<_>>().join(", ")
        };
        let token_from = asker.token_from.take();
        let extras = Extras { level: Some(level.to_string()), token_from, ..Extras::default() };
        host.say(&format!("typed {} asks {} {level}", asker.process, shown(&asked)));
        self.recorder.invoke(asker.process, nanos(host), asked, extras)?;
        match answering.await {
            Ok(answer) => {
                let done = done(&answer.value)?;
                let is = done.as_deref().map_or_else(|| "out of bounds".into(), shown);
                host.say(&format!("typed {}: {is}", asker.process));
                match done {
                    Some(done) => {
                        self.recorder.ok(asker.process, nanos(host), done, Extras::default())?
                    }
                    None => {
                        self.recorder.mismatch(asker.process, nanos(host), Extras::default())?
                    }
                };
                Ok(Some(answer.value))
            }
            Err(error) => {
                host.say(&format!("typed {} failed: {error}", asker.process));
                expected(&error)?;
                if error.may_have_applied() {
                    let next = self.recorder.info(asker.process, nanos(host), Extras::default())?;
                    asker.token_from = Some(std::mem::replace(&mut asker.process, next));
                } else {
                    self.recorder.fail(asker.process, nanos(host), Extras::default())?;
                }
                Ok(None)
            }
        }
    }

    /// Takes down what a key holds once everything is folded.
    pub(super) fn ends_as(&self, host: &ClientHost, key: &str, held: &Held) -> Result<()> {
        let (key, value) = match &held.value {
            TypedValue::Counter(_) if key == ENDED => return Ok(()),
            TypedValue::Counter(sum) => (of_counter(key), Value::Integer(*sum)),
            TypedValue::Set(members) => (of_set(key), Value::List(elements(members)?)),
            _ => bail!(Check::Answers.found(format!("{key} holds {held:?}"))),
        };
        let read = |value| vec![MicroOp::Read { key: key.clone(), value }];
        let (process, is_final) =
            (self.recorder.process(), Extras { is_final: true, ..Extras::default() });
        self.recorder.invoke(process, nanos(host), read(Value::Absent), is_final.clone())?;
        self.recorder.ok(process, nanos(host), read(value), is_final)?;
        Ok(())
    }

    pub(super) fn history(&self) -> History {
        self.recorder.history()
    }
}

/// What the judges say of a history of counters and sets.
///
/// # Errors
/// What no correct database could have answered.
pub(super) fn judge(history: &History) -> Result<()> {
    let operations = history.operations();
    let kept = |report: promise::Report, check: Check| match report.verdict {
        promise::Verdict::Kept => Ok(()),
        verdict => Err(check.found(verdict.to_string())),
    };
    let of = |keyspace| of_keyspace(&operations, keyspace);
    kept(counter::check_operations(&of(COUNTERS), Judged::Strict), Check::Counter)?;
    kept(set::check_operations(&of(SETS), Judged::Strict), Check::Set)?;
    Ok(())
}

/// The operations of a keyspace. Those of others order sessions all the same: they stand as reads of a key that nobody
/// writes.
fn of_keyspace(operations: &[Operation], keyspace: &str) -> Vec<Operation> {
    let is_of = |operation: &Operation| operation.micro_ops[0].key().starts_with(keyspace);
    let beside = vec![MicroOp::Read { key: "beside".into(), value: Value::Absent }];
    let of = |operation: &Operation| match is_of(operation) {
        true => operation.clone(),
        false => Operation { micro_ops: beside.clone(), ..operation.clone() },
    };
    operations.iter().map(of).collect()
}

/// A key of a counter in the history.
fn of_counter(key: &str) -> String {
    format!("{COUNTERS} {key}")
}

/// A key of a set in the history.
fn of_set(key: &str) -> String {
    format!("{SETS} {key}")
}

fn elements(members: &[Bytes]) -> Result<Vec<i64>> {
    let decode = |element: &Bytes| {
        let text = String::from_utf8_lossy(element);
        text.parse().map_err(|_| Check::Set.found(format!("nobody added {text:?}")).into())
    };
    members.iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::violation::Violation;

    /// What the judges say of operations, each of a process, at this level and answered at once.
    fn judged(operations: Vec<(u64, Level, MicroOp)>) -> Option<Check> {
        let recorder = Recorder::new(sink());
        for (process, level, operation) in operations {
            let is_final = process == FINAL;
            let asked = match operation.clone() {
                MicroOp::Read { key, .. } => MicroOp::Read { key, value: Value::Absent },
                operation => operation,
            };
            let extras = Extras { level: Some(level.to_string()), is_final, ..Extras::default() };
            recorder.invoke(process, 0, vec![asked], extras).expect("it is a history");
            recorder.ok(process, 0, vec![operation], Extras::default()).expect("it is one");
        }
        judge(&recorder.history()).err().map(|error| Violation::of(&error).check)
    }

    /// The process of final reads.
    const FINAL: u64 = 9;

    fn sum(value: i64) -> MicroOp {
        MicroOp::Read { key: of_counter("t0"), value: Value::Integer(value) }
    }

    fn members(list: &[i64]) -> MicroOp {
        MicroOp::Read { key: of_set("t1"), value: Value::List(list.to_vec()) }
    }

    #[test]
    fn counters_and_sets_of_one_history_are_judged_each_by_its_own_judge() {
        let begun = [
            (0, Level::Causal, MicroOp::Add { key: of_counter("t0"), amount: 5 }),
            (0, Level::Causal, MicroOp::Add { key: of_set("t1"), amount: 7 }),
            (0, Level::Strict, MicroOp::Add { key: of_counter("t0"), amount: 2 }),
        ];
        let after = |more: &[(u64, Level, MicroOp)]| judged([&begun, more].concat());
        assert_eq!(after(&[(0, Level::Causal, sum(7)), (0, Level::Causal, members(&[7]))]), None);
        assert_eq!(after(&[(0, Level::Causal, sum(2))]), Some(Check::Counter), "its own is gone");
        assert_eq!(after(&[(1, Level::Strict, sum(2))]), None, "the other may not be folded");
        assert_eq!(after(&[(FINAL, Level::Strict, sum(2))]), Some(Check::Counter));
        assert_eq!(after(&[(FINAL, Level::Strict, sum(12))]), Some(Check::Counter), "twice");
        assert_eq!(after(&[(FINAL, Level::Strict, members(&[]))]), Some(Check::Set));
        assert_eq!(after(&[(1, Level::Eventual, members(&[7, 8]))]), Some(Check::Set), "a phantom");
    }
}
