//! What is known of operation ids beside a key: the port through which merging asks and records.

use std::collections::BTreeMap;
use std::convert::Infallible;

use latitude_types::OperationId;
use serde::{Deserialize, Serialize};

/// What has become of an operation id beside a key. Either way, nothing that comes later under it adds
/// anything.
///
/// The order of the variants is a format: a new one goes to the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Fate {
    /// The operation took effect.
    TookEffect,
    /// It was ended before it was met.
    Spent,
}

/// The ids known beside one key. The base keeps them as rows, written in the same batch as the value; a
/// read that merges deltas keeps what it adds in memory ([`Transient`]).
///
/// Only ids of local writes need to be found here. Log writes are recognised before they are merged, by
/// the answers the range keeps for each client.
pub trait Ids {
    /// Why asking or recording may fail.
    type Error;

    /// What is known of `id`, with everything recorded so far.
    fn fate(&self, id: &OperationId) -> Result<Option<Fate>, Self::Error>;

    /// Records what became of an id of which nothing was known.
    fn record(&mut self, id: &OperationId, fate: Fate) -> Result<(), Self::Error>;
}

/// All in memory, of everything there is.
impl Ids for BTreeMap<OperationId, Fate> {
    type Error = Infallible;

    fn fate(&self, id: &OperationId) -> Result<Option<Fate>, Infallible> {
        Ok(self.get(id).copied())
    }

    fn record(&mut self, id: &OperationId, fate: Fate) -> Result<(), Infallible> {
        self.insert(*id, fate);
        Ok(())
    }
}

/// What a read's deltas add to the ids of the base, which stays as it is.
#[derive(Clone, Debug)]
pub struct Transient<'a, B> {
    base: &'a B,
    added: BTreeMap<OperationId, Fate>,
}

impl<'a, B: Ids> Transient<'a, B> {
    /// On top of the ids of the base.
    pub fn new(base: &'a B) -> Self {
        Self { base, added: BTreeMap::new() }
    }
}

impl<B: Ids> Ids for Transient<'_, B> {
    type Error = B::Error;

    fn fate(&self, id: &OperationId) -> Result<Option<Fate>, B::Error> {
        match self.added.get(id) {
            Some(fate) => Ok(Some(*fate)),
            None => self.base.fate(id),
        }
    }

    fn record(&mut self, id: &OperationId, fate: Fate) -> Result<(), B::Error> {
        self.added.insert(*id, fate);
        Ok(())
    }
}
