//! What a node needs of the world.

use std::sync::Arc;

use latitude_clock::PhysicalClock;
use latitude_consensus::{Failpoints, Flush};
use latitude_rpc::net::Net;
use latitude_storage::Engine;

/// The world, as a node sees it.
pub struct Ports {
    /// The physical clock. Timers are tokio's, which a simulation pauses and moves.
    pub clock: Arc<dyn PhysicalClock>,
    /// The network.
    pub net: Arc<dyn Net>,
    /// The store.
    pub engine: Arc<dyn Engine>,
    /// How the store's blocking sync is run.
    pub flush: Box<dyn Flush>,
    /// Told of each step of a snapshot: tests stop the node there.
    pub failpoints: Arc<dyn Failpoints>,
    /// Everything random follows from it.
    pub seed: u64,
}
