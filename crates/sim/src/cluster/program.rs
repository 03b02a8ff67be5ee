//! What runs on a node's host: the node, from each start to the next crash, on ports of the simulation.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use anyhow::Result;
use latitude_clock::{PhysicalClock, SkewedClock};
use latitude_consensus::{Failpoints, Step};
use latitude_node::{Node, NodeConfig, Ports, ReadMode};
use latitude_storage::Engine;
use latitude_storage::memory::{MemoryDisk, MemoryEngine};
use latitude_types::RangeId;

use super::NO_PANIC;
use crate::clock::NodeClock;
use crate::disk::{Pace, SimEngine, SlowFlush};
use crate::invariants::Invariants;
use crate::net::SimNet;
use crate::seeds::derive;
use crate::trace::Trace;

/// What runs on a node's host, from each start to the next crash.
pub(super) struct Program {
    pub(super) config: NodeConfig,
    pub(super) host: Arc<str>,
    pub(super) disk: MemoryDisk,
    pub(super) clock: Arc<SkewedClock<NodeClock>>,
    pub(super) pace: Pace,
    pub(super) net: SimNet,
    pub(super) trace: Trace,
    pub(super) invariants: Invariants,
    pub(super) seed: u64,
    pub(super) starts: AtomicU64,
    pub(super) failure: Failure,
    pub(super) engine: OpenEngine,
    pub(super) node: RunningNode,
    pub(super) crash_point: Arc<CrashPoint>,
    pub(super) read_mode: NextReadMode,
}

impl Program {
    /// Runs until the node stops by itself, and notes why.
    pub(super) async fn run(&self) {
        let why = match self.start().await {
            Ok(node) => {
                let node = Arc::new(node);
                *self.node.lock().expect(NO_PANIC) = Arc::downgrade(&node);
                node.failed().await
            }
            Err(error) => format!("it did not start: {error:#}"),
        };
        *self.failure.lock().expect(NO_PANIC) = Some(why);
    }

    async fn start(&self) -> Result<Node> {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let seed = derive(self.seed, &format!("start {start}"));
        let memory = MemoryEngine::open(&self.disk)?;
        let (host, trace) = (Arc::clone(&self.host), self.trace.clone());
        let engine = Arc::new(SimEngine::new(memory, host, trace, self.invariants.clone()));
        *self.engine.lock().expect(NO_PANIC) = Arc::downgrade(&engine);
        let engine: Arc<dyn Engine> = engine;
        let ports = Ports {
            clock: Arc::clone(&self.clock) as Arc<dyn PhysicalClock>,
            net: Arc::new(self.net.clone()),
            flush: Box::new(SlowFlush::new(
                Arc::clone(&engine),
                derive(seed, "flush"),
                self.pace.clone(),
            )),
            engine,
            failpoints: Arc::clone(&self.crash_point) as Arc<dyn Failpoints>,
            seed,
        };
        let read_mode = *self.read_mode.lock().expect(NO_PANIC);
        Ok(Node::start(NodeConfig { read_mode, ..self.config.clone() }, ports).await?)
    }
}

/// Where a node loses its power on the way of a snapshot.
pub(super) struct CrashPoint {
    disk: MemoryDisk,
    armed: Armed,
    /// This node has.
    reached: AtomicBool,
}

impl CrashPoint {
    pub(super) fn new(disk: MemoryDisk, armed: Armed) -> Self {
        Self { disk, armed, reached: AtomicBool::new(false) }
    }

    /// Whether the node has reached it since this was last asked.
    pub(super) fn take_reached(&self) -> bool {
        self.reached.swap(false, Ordering::Relaxed)
    }
}

impl Failpoints for CrashPoint {
    fn reached(&self, _: RangeId, step: Step) -> std::io::Result<()> {
        match &mut *self.armed.lock().expect(NO_PANIC) {
            Some((at, left)) if *at == step && *left > 0 => *left -= 1,
            _ => return Ok(()),
        }
        // The rest of it goes with the host, at the end of this tick.
        self.disk.crash(|unsynced| unsynced / 2);
        self.reached.store(true, Ordering::Relaxed);
        Err(std::io::Error::other(format!("the power is lost at {step}")))
    }
}

/// The step of a snapshot at which whoever reaches it first loses its power, and how many are still to.
pub(super) type Armed = Arc<Mutex<Option<(Step, u32)>>>;
/// How a node reads from its next start on.
pub(super) type NextReadMode = Arc<Mutex<ReadMode>>;
/// Why a node stopped by itself, if it did.
pub(super) type Failure = Arc<Mutex<Option<String>>>;
/// The engine of a running node.
pub(super) type OpenEngine = Arc<Mutex<Weak<SimEngine>>>;
/// A node while it runs.
pub(super) type RunningNode = Arc<Mutex<Weak<Node>>>;
