//! Maps, flags and siblings: nobody reads what nobody wrote, and in the end all levels read the same. What each entry
//! leaves of them is judged by definition in `invariants/values.rs`.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use bytes::Bytes;
use latitude_client::{Error, Held, Keyspace, Level, Session, TypedValue, wire};
use rand::RngExt;

use super::operations::expected;
use super::types::create;
use super::{NO_PANIC, TIMEOUT};
use crate::cluster::{ClientHost, Cluster};
use crate::violation::Check;

const MAPS: &str = "sim-maps";
const FLAGS: &str = "sim-flags";
const SIBLINGS: &str = "sim-siblings";
const KEY: &str = "o";
/// Fields of the map.
const FIELDS: u32 = 3;

/// What was written to a map and to siblings.
#[derive(Default, Debug)]
pub(super) struct Others {
    next: AtomicU64,
    written: Mutex<BTreeSet<Bytes>>,
}

pub(super) fn prepare(cluster: &mut Cluster, like: &wire::CreateKeyspaceRequest) -> Result<()> {
    create(cluster, like, MAPS, wire::ValueType::Map)?;
    create(cluster, like, FLAGS, wire::ValueType::Flag)?;
    create(cluster, like, SIBLINGS, wire::ValueType::Siblings)
}

/// The keys, each with its keyspace.
pub(super) fn keys() -> impl Iterator<Item = (&'static str, String)> {
    [MAPS, FLAGS, SIBLINGS].into_iter().map(|keyspace| (keyspace, KEY.into()))
}

impl Others {
    /// One operation on a map, a flag or siblings.
    pub(super) async fn operate(
        &self,
        host: &mut ClientHost,
        session: &Session,
        level: Level,
    ) -> Result<()> {
        let of = |name: &str| {
            let keyspace = host.client.keyspace(name).with_timeout(TIMEOUT);
            keyspace.with_level(level).with_session(session.clone())
        };
        let (maps, flags, siblings) = (of(MAPS), of(FLAGS), of(SIBLINGS));
        let field = format!("f{}", host.random.random_range(0..FIELDS));
        let what = host.random.random_range(0..10);
        host.say(&format!("does {what} to a map, a flag or siblings"));
        let went = match what {
            0..3 => maps.map_put(KEY, field, self.value()).await.map(drop),
            3 => maps.map_remove(KEY, field).await.map(drop),
            4 if host.random.random_ratio(1, 4) => maps.delete(KEY).await.map(drop),
            4 => return self.look(&maps, &siblings).await,
            5 => flags.enable(KEY).await.map(drop),
            6 => flags.disable(KEY).await.map(drop),
            _ => self.write_sibling(host, &siblings).await,
        };
        host.say(&format!("doing {what}: {went:?}"));
        went.or_else(|error| expected(&error))
    }

    /// A value that nobody else writes.
    fn value(&self) -> Bytes {
        let value = Bytes::from(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        self.written.lock().expect(NO_PANIC).insert(value.clone());
        value
    }

    /// Writes in the place of what was read, or beside it, or removes that.
    async fn write_sibling(&self, host: &mut ClientHost, siblings: &Keyspace) -> Result<(), Error> {
        if host.random.random_ratio(1, 3) {
            return siblings.put(KEY, self.value()).await.map(drop);
        }
        let read = siblings.siblings(KEY).await?.value;
        match host.random.random_ratio(1, 4) {
            true => siblings.delete_siblings(KEY, read.context).await.map(drop),
            false => siblings.put_sibling(KEY, self.value(), read.context).await.map(drop),
        }
    }

    async fn look(&self, maps: &Keyspace, siblings: &Keyspace) -> Result<()> {
        let fields = match maps.fields(KEY).await {
            Ok(answer) => answer.value,
            Err(error) => return expected(&error),
        };
        let values = match siblings.siblings(KEY).await {
            Ok(answer) => answer.value.values,
            Err(error) => return expected(&error),
        };
        let fields = fields.into_iter().map(|(_, value)| value);
        self.must_be_written(fields.chain(values.into_iter().map(|one| one.value)))
    }

    fn must_be_written(&self, mut values: impl Iterator<Item = Bytes>) -> Result<()> {
        let written = self.written.lock().expect(NO_PANIC);
        match values.find(|value| !written.contains(value)) {
            Some(value) => bail!(Check::Set.found(format!("nobody wrote {value:?}"))),
            None => Ok(()),
        }
    }

    /// What a key holds once everything is folded, somebody wrote.
    pub(super) fn ends_as(&self, held: Held) -> Result<()> {
        match held.value {
            TypedValue::Map(fields) => {
                self.must_be_written(fields.into_iter().map(|(_, value)| value))
            }
            TypedValue::Siblings(siblings) => {
                self.must_be_written(siblings.values.into_iter().map(|one| one.value))
            }
            TypedValue::Flag(_) => Ok(()),
            value => bail!(Check::Answers.found(format!("{KEY} holds {value:?}"))),
        }
    }
}
