//! Counters and sets beside the registers: every acknowledged add counts exactly once, at whatever level and
//! however often it was sent, with and without bounds, unless a reset or a delete ends it; an element is there exactly if it was added and not removed by somebody who had seen it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use latitude_client::{Keyspace, Level, Session, wire};
use rand::RngExt;
use rand::seq::IteratorRandom;

use super::operations::expected;
use super::{NO_PANIC, TIMEOUT, Workload};
use crate::cluster::{ClientHost, Cluster};
use crate::violation::Check;

const COUNTERS: &str = "sim-counters";
const SETS: &str = "sim-sets";
/// Keys of either keyspace.
const KEYS: u32 = 2;
/// Elements that are added again and again, also while somebody removes them: what becomes of them is judged entry by
/// entry (`invariants/values.rs`). All others are added once.
const SHARED: std::ops::Range<i64> = -3..0;
/// One of them.
const THE_ONE: i64 = -1;

/// What is known of the counters and sets.
#[derive(Default, Debug)]
pub(super) struct Typed {
    next: AtomicI64,
    counters: Mutex<BTreeMap<String, Sum>>,
    elements: Mutex<BTreeMap<(String, i64), Element>>,
    /// Sets that somebody deletes now, or has tried to delete; nobody knows whether that comes still.
    deleting: Mutex<BTreeMap<String, u32>>,
}

/// What a counter is made of.
#[derive(Default, Debug)]
struct Sum {
    acknowledged: i64,
    /// Adds of which nobody knows whether they happened; all are positive.
    unknown: i64,
    /// Somebody has reset or deleted it, or tried to: what it comes to is judged entry by entry
    /// (`invariants/values.rs`).
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Element {
    /// It was sent.
    MayBe,
    Added,
    /// Somebody who may have seen it has asked for its removal.
    MayBeRemoved,
    /// Removed by somebody who had seen it.
    Removed,
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

impl Typed {
    /// One operation on a counter or a set.
    pub(super) async fn operate(
        &self,
        host: &mut ClientHost,
        session: &Session,
        level: Level,
        one_element: bool,
    ) -> Result<()> {
        let key = format!("t{}", host.random.random_range(0..KEYS));
        let of = |name: &str| {
            host.client
                .keyspace(name)
                .with_timeout(TIMEOUT)
                .with_level(level)
                .with_session(session.clone())
        };
        let (counters, sets) = (of(COUNTERS), of(SETS));
        if one_element && host.random.random_ratio(4, 5) {
            return match host.random.random_range(0..6) {
                0..3 => self.add_element(host, &sets, "t0", THE_ONE).await,
                3 => self.remove_element(host, &sets, "t0", level).await,
                _ => self.remove_unread(host, "t0", level).await,
            };
        }
        match host.random.random_range(0..16) {
            0..5 => self.add(host, &counters, &key).await,
            5 => self.end_or_bound(host, &counters, &key, level).await,
            6..12 => {
                let element = match host.random.random() {
                    true => host.random.random_range(SHARED),
                    false => self.next.fetch_add(1, Ordering::Relaxed),
                };
                self.add_element(host, &sets, &key, element).await
            }
            12..14 => self.remove_element(host, &sets, &key, level).await,
            _ => self.delete_set(host, &sets, &key).await,
        }
    }

    async fn add(&self, host: &mut ClientHost, counters: &Keyspace, key: &str) -> Result<()> {
        let amount = host.random.random_range(1..=9);
        host.say(&format!("adds {amount} to {key}"));
        let went = counters.add(key, amount).await;
        host.say(&format!("adding {amount} to {key}: {:?}", went.as_ref().map(drop)));
        let mut sums = self.counters.lock().expect(NO_PANIC);
        let sum = sums.entry(key.into()).or_default();
        match went {
            Ok(_) => sum.acknowledged += amount,
            Err(error) => {
                expected(&error)?;
                if error.may_have_applied() {
                    sum.unknown += amount;
                }
            }
        }
        Ok(())
    }

    /// What counters have through the log alone. The first one is never ended, so that its sum stays exact.
    async fn end_or_bound(
        &self,
        host: &mut ClientHost,
        counters: &Keyspace,
        key: &str,
        level: Level,
    ) -> Result<()> {
        let log = if level.writes_through_log() { level } else { Level::Strict };
        let counters = counters.clone().with_level(log);
        if key != "t0" && host.random.random() {
            self.counters.lock().expect(NO_PANIC).entry(key.into()).or_default().ended = true;
            let went = match host.random.random() {
                true => counters.reset(key).await,
                false => counters.delete(key).await,
            };
            host.say(&format!("ends {key}: {:?}", went.as_ref().map(drop)));
            return went.map_or_else(|error| expected(&error), |_| Ok(()));
        }
        let (amount, most) = (host.random.random_range(1..=9), host.random.random_range(0..100));
        let went = counters.add_within(key, amount, None, Some(most)).await;
        host.say(&format!("adds {amount} to {key}, up to {most}: {:?}", went.as_ref().map(drop)));
        let mut sums = self.counters.lock().expect(NO_PANIC);
        let sum = sums.entry(key.into()).or_default();
        match went {
            Ok(answer) => sum.acknowledged += if answer.value.is_applied() { amount } else { 0 },
            Err(error) => {
                expected(&error)?;
                sum.unknown += if error.may_have_applied() { amount } else { 0 };
            }
        }
        Ok(())
    }

    async fn add_element(
        &self,
        host: &mut ClientHost,
        sets: &Keyspace,
        key: &str,
        element: i64,
    ) -> Result<()> {
        self.note(key, element, Element::MayBe);
        host.say(&format!("adds {element} to {key}"));
        match sets.set_add(key, element.to_string()).await {
            Ok(_) => {
                // It may have been seen, and removed, before its adder heard of it.
                let mut elements = self.elements.lock().expect(NO_PANIC);
                if let Some(known) = elements.get_mut(&(key.into(), element))
                    && *known == Element::MayBe
                {
                    *known = Element::Added;
                }
            }
            Err(error) => {
                expected(&error)?;
                if !error.may_have_applied() {
                    self.elements.lock().expect(NO_PANIC).remove(&(key.into(), element));
                }
            }
        }
        Ok(())
    }

    /// Removes an element that was seen in the same session, at the same level.
    async fn remove_element(
        &self,
        host: &mut ClientHost,
        sets: &Keyspace,
        key: &str,
        level: Level,
    ) -> Result<()> {
        let members = match sets.members(key).await {
            Ok(answer) => answer.value,
            Err(error) => return expected(&error),
        };
        for member in &members {
            self.must_be_possible(key, decode(member)?)?;
        }
        // What several have added is ended by as many names as its remover has seen, elsewhere others than here.
        let shared = host.random.random_ratio(2, 3);
        let is_wanted = |member: &&bytes::Bytes| {
            !shared || decode(member).is_ok_and(|element| SHARED.contains(&element))
        };
        let wanted = members.iter().filter(is_wanted).choose(&mut host.random);
        let Some(member) = wanted else { return Ok(()) };
        let element = decode(member)?;
        host.say(&format!("removes {element} from {key}"));
        self.note(key, element, Element::MayBeRemoved);
        match sets.set_remove(key, member).await {
            // An eventual read is in no session: what it saw need not be seen by the remove.
            Ok(_) if level != Level::Eventual => {
                self.note(key, element, Element::Removed);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => expected(&error),
        }
    }

    /// Removes an element without a look at the set and in no session: whatever node takes it ends what it sees itself.
    async fn remove_unread(&self, host: &mut ClientHost, key: &str, level: Level) -> Result<()> {
        host.say(&format!("removes {THE_ONE} from {key}, unread"));
        let sets = host.client.keyspace(SETS).with_timeout(TIMEOUT).with_level(level);
        let went = sets.set_remove(key, THE_ONE.to_string()).await;
        went.map_or_else(|error| expected(&error), |_| Ok(()))
    }

    /// Deletes a set: whatever of it its deleter has seen, or meets where it is deleted, goes.
    async fn delete_set(&self, host: &mut ClientHost, sets: &Keyspace, key: &str) -> Result<()> {
        *self.deleting.lock().expect(NO_PANIC).entry(key.into()).or_default() += 1;
        self.may_all_go(key);
        host.say(&format!("deletes {key}"));
        let went = sets.delete(key).await;
        // What was added meanwhile it may have met.
        self.may_all_go(key);
        let over = || {
            if let Some(count) = self.deleting.lock().expect(NO_PANIC).get_mut(key) {
                *count -= 1;
            }
        };
        match went {
            Ok(_) => {
                over();
                Ok(())
            }
            Err(error) => {
                if !error.may_have_applied() {
                    over();
                }
                expected(&error)
            }
        }
    }

    fn may_all_go(&self, key: &str) {
        let mut elements = self.elements.lock().expect(NO_PANIC);
        let of_key = elements.iter_mut().filter(|((of, _), _)| of == key);
        for (_, known) in of_key.filter(|(_, known)| **known != Element::Removed) {
            *known = Element::MayBeRemoved;
        }
    }

    fn note(&self, key: &str, element: i64, now: Element) {
        if SHARED.contains(&element) {
            return;
        }
        let deleting = self.deleting.lock().expect(NO_PANIC).get(key).copied().unwrap_or_default();
        let now = match now {
            Element::MayBe if deleting > 0 => Element::MayBeRemoved,
            now => now,
        };
        let mut elements = self.elements.lock().expect(NO_PANIC);
        let known = elements.entry((key.into(), element)).or_insert(now);
        if *known != Element::Removed {
            *known = now;
        }
    }

    /// Nobody sees what nobody added.
    fn must_be_possible(&self, key: &str, element: i64) -> Result<()> {
        if SHARED.contains(&element)
            || self.elements.lock().expect(NO_PANIC).contains_key(&(key.into(), element))
        {
            return Ok(());
        }
        bail!(Check::Set.found(format!("{element} is in {key}, and nobody added it")))
    }

    /// Whether everything is as it must be, once everything is folded.
    pub(super) async fn judge(&self, host: &ClientHost) -> Result<()> {
        let keys = (0..KEYS).map(|at| format!("t{at}"));
        let of = |name: &str, level| host.client.keyspace(name).with_level(level);
        for key in keys {
            let mut strict = None;
            for level in [Level::Strict, Level::Causal, Level::Eventual] {
                let failed = |error: latitude_client::Error| {
                    Check::Served.found(format!("{key} cannot be read {level}: {error}"))
                };
                let found = of(COUNTERS, level).counter(&key).await.map_err(failed)?.value;
                let same = *strict.get_or_insert(found);
                let (least, most) = {
                    let sums = self.counters.lock().expect(NO_PANIC);
                    match sums.get(&key) {
                        Some(Sum { ended: true, .. }) => (same, same),
                        Some(sum) => (sum.acknowledged, sum.acknowledged + sum.unknown),
                        None => (0, 0),
                    }
                };
                if found < least || found > most {
                    bail!(Check::Counter.found(format!(
                        "{key} is {found} {level}, and should be {least} to {most}"
                    )));
                }
                let members = of(SETS, level).members(&key).await.map_err(failed)?.value;
                let members: Vec<_> = members.iter().map(|m| decode(m)).collect::<Result<_>>()?;
                members.iter().try_for_each(|member| self.must_be_possible(&key, *member))?;
                for ((of_key, element), known) in &*self.elements.lock().expect(NO_PANIC) {
                    let is_there = members.contains(element);
                    let wrong = match known {
                        Element::Added => !is_there,
                        Element::Removed => is_there,
                        Element::MayBe | Element::MayBeRemoved => false,
                    };
                    if *of_key == key && wrong {
                        bail!(Check::Set.found(format!(
                            "{element} of {key} is {known:?}; there {level}: {is_there}"
                        )));
                    }
                }
            }
        }
        Ok(())
    }
}

fn decode(element: &[u8]) -> Result<i64> {
    let text = String::from_utf8_lossy(element);
    text.parse().map_err(|_| Check::Set.found(format!("nobody added {text:?}")).into())
}
