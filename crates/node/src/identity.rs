//! Who the node is, as its store has it.

use latitude_directory::{NodeRecord, RangeRecord};
use latitude_storage::{Batch, Column, Engine, key};
use latitude_types::{ClusterIdentity, NodeId, StoreId};
use serde::{Deserialize, Serialize};

const VERSION: u8 = 2;

/// What the store says of its node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The store: copied to another directory, it would be the same node twice.
    pub(crate) store: StoreId,
    /// How often a node has been started on it.
    pub(crate) starts: u32,
    /// Its place in a cluster, once it has one.
    pub(crate) membership: Option<Membership>,
    /// The cluster it is founding, until every founder has heard of it.
    pub(crate) plan: Option<Plan>,
    /// Why its replicas neither vote nor serve: its store lost what it had acknowledged.
    pub(crate) quarantine: Option<String>,
}

/// A node's place in a cluster; never changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// The cluster.
    pub(crate) cluster: ClusterIdentity,
    /// The node's number in it.
    pub(crate) node: NodeId,
    /// The meta range, as it was when the node came in.
    pub(crate) meta: RangeRecord,
    /// The nodes that hold it, to ask for the directory.
    pub(crate) founders: Vec<NodeRecord>,
}

/// A cluster about to be founded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The cluster.
    pub(crate) cluster: ClusterIdentity,
    /// Its first nodes.
    pub(crate) founders: Vec<NodeRecord>,
    /// Its meta range.
    pub(crate) meta: RangeRecord,
}

/// The store's rows about the node cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error(transparent)]
    Storage(#[from] latitude_storage::Error),
    #[error("the store's record of its node cannot be read: {0}")]
    Damaged(String),
    #[error(
        "the store says it is {recorded}, but its directory is of store {opened}: it was copied or mixed up; \
         use the original, or an empty directory"
    )]
    OtherStore { recorded: StoreId, opened: StoreId },
}

impl Identity {
    /// The identity in the store, or that of a new store.
    pub(crate) fn load(engine: &dyn Engine, store: StoreId) -> Result<Self, IdentityError> {
        let Some(row) = engine.get(Column::Node, &key::node::ident())? else {
            return Ok(Self { store, starts: 0, membership: None, plan: None, quarantine: None });
        };
        let damaged = |message: String| IdentityError::Damaged(message);
        let identity: Self = match &row[..] {
            [VERSION, rest @ ..] => {
                postcard::from_bytes(rest).map_err(|error| damaged(error.to_string()))?
            }
            [version, ..] => {
                return Err(damaged(format!("version {version}; this Latitude knows {VERSION}")));
            }
            [] => return Err(damaged("it is empty".into())),
        };
        if identity.store != store {
            return Err(IdentityError::OtherStore { recorded: identity.store, opened: store });
        }
        Ok(identity)
    }

    pub(crate) fn stage(&self, batch: &mut Batch) {
        let row = postcard::to_extend(self, vec![VERSION]).expect("our records serialize");
        batch.put(Column::Node, key::node::ident(), row);
    }
}
