//! Carries out the faults of a plan, and knows which of them still last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail};
use latitude_client::{NodeId, RangeId};
use rand::RngExt;

use super::fault::{Action, Party};
use crate::cluster::{ClientHost, Cluster, Pending};
use crate::violation::Check;

/// More space than any run needs.
const PLENTY: u64 = 1 << 40;
/// How often the administrator looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Makes faults.
pub(crate) struct Nemesis {
    clients: Vec<Arc<str>>,
    admin: Arc<Admin>,
    _running: Pending<()>,
    /// How many faults have a node down.
    down: BTreeMap<u32, u32>,
    /// Nodes whose disks are so bad that they may stop by themselves.
    may_stop: BTreeSet<u32>,
}

/// A person at a terminal, who moves leaders.
#[derive(Default)]
struct Admin {
    transfers: Mutex<VecDeque<u32>>,
    stop: AtomicBool,
}

impl Nemesis {
    pub(crate) fn new(cluster: &mut Cluster, clients: Vec<Arc<str>>) -> Self {
        let admin = Arc::new(Admin::default());
        let there = Arc::clone(&admin);
        let running = cluster
            .start_client(Duration::from_secs(2), |host| async move { there.run(host).await });
        let (down, may_stop) = (BTreeMap::new(), BTreeSet::new());
        Self { clients, admin, _running: running, down, may_stop }
    }

    /// Lets time pass until then. A node that stops by itself without a reason is a violation.
    pub(crate) fn run_until(&mut self, cluster: &mut Cluster, until: Duration) -> Result<()> {
        while cluster.now() < until {
            cluster.step()?;
            self.look(cluster)?;
        }
        Ok(())
    }

    /// Judges the nodes that have stopped by themselves.
    pub(crate) fn look(&mut self, cluster: &mut Cluster) -> Result<()> {
        for (node, why) in cluster.failures() {
            if why.contains("ALARM") {
                bail!(Check::Alarm.found(format!("node {node} stopped: {why}")));
            }
            if !self.may_stop.contains(&node) {
                bail!(Check::Stopped.found(format!("node {node} stopped by itself: {why}")));
            }
        }
        Ok(())
    }

    pub(crate) fn act(&mut self, cluster: &mut Cluster, action: Action) {
        match action {
            Action::Down(node, how) => {
                *self.down.entry(node).or_default() += 1;
                cluster.crash(node, how);
            }
            Action::Up(node) => {
                if let Some(times) = self.down.get_mut(&node) {
                    *times = times.saturating_sub(1);
                }
                self.revive(cluster, node);
            }
            Action::FailSync(node) => {
                self.may_stop.insert(node);
                cluster.fail_next_sync(node);
            }
            Action::LeaveFree(node, bytes) => {
                self.may_stop.insert(node);
                cluster.leave_free(node, bytes);
            }
            Action::DiskRight(node) => {
                cluster.spare_next_sync(node);
                cluster.leave_free(node, PLENTY);
                self.revive(cluster, node);
            }
            Action::Revive(node) => self.revive(cluster, node),
            Action::SlowDisk(node, more) => cluster.slow_disk(node, more),
            Action::Cut(from, to) => {
                let (from, to) = (self.host(cluster, from), self.host(cluster, to));
                cluster.cut_hosts(&from, &to);
            }
            Action::Mend(from, to) => {
                let (from, to) = (self.host(cluster, from), self.host(cluster, to));
                cluster.mend_hosts(&from, &to);
            }
            Action::Hold(a, b) => cluster.hold(a, b),
            Action::Release(a, b) => cluster.release(a, b),
            Action::Pause(node) => cluster.pause(node),
            Action::Resume(node) => cluster.resume(node),
            Action::Latency(a, b, latency) => cluster.set_latency(a, b, (latency / 4, latency)),
            Action::LatencyRight(a, b) => cluster.mend_latency(a, b),
            Action::Delay(from, to, more) => cluster.delay(from, to, more),
            Action::Hasten(from, to, less) => cluster.hasten(from, to, less),
            Action::Reset(host, peer) => {
                let (host, peer) = (self.host(cluster, host), self.host(cluster, peer));
                cluster.reset_hosts(&host, &peer);
            }
            Action::Skew(node, ahead_ms) => cluster.skew(node, ahead_ms),
            Action::Drift(node, ppm) => cluster.drift(node, ppm),
            Action::ClockRight(node) => cluster.set_clock_right(node),
            Action::Transfer(to) => self.admin.transfers.lock().expect(NO_PANIC).push_back(to),
            Action::CrashAt(step, times) => cluster.crash_at(step, times),
        }
    }

    /// Starts a node that is down, unless a fault still wants it so.
    fn revive(&mut self, cluster: &mut Cluster, node: u32) {
        if self.down.get(&node).is_none_or(|times| *times == 0) {
            cluster.restart(node);
        }
    }

    /// Ends every fault, but for those nodes, which stay as they are.
    pub(crate) fn spare(&mut self, cluster: &mut Cluster, but: &BTreeSet<u32>) {
        self.admin.transfers.lock().expect(NO_PANIC).clear();
        cluster.heal();
        cluster.hasten_all();
        cluster.release_all();
        cluster.crash_at(latitude_consensus::Step::ALL[0], 0);
        let nodes = cluster.nodes();
        for node in &nodes {
            nodes
                .iter()
                .filter(|other| *other != node)
                .for_each(|o| cluster.mend_latency(*node, *o));
            cluster.spare_next_sync(*node);
            cluster.leave_free(*node, PLENTY);
            cluster.slow_disk(*node, Duration::ZERO);
            cluster.set_clock_right(*node);
            if !but.contains(node) {
                self.down.remove(node);
                self.may_stop.remove(node);
                cluster.restart(*node);
            }
        }
    }

    /// Ends every fault.
    pub(crate) fn end(&mut self, cluster: &mut Cluster) {
        self.admin.stop.store(true, Ordering::Relaxed);
        self.spare(cluster, &BTreeSet::new());
    }

    fn host(&self, cluster: &Cluster, party: Party) -> Arc<str> {
        match party {
            Party::Node(node) => cluster.host(node),
            Party::Client(at) => Arc::clone(&self.clients[at as usize % self.clients.len()]),
        }
    }
}

/// How long it is waited until a node has taken leave; it goes on without.
const LEAVES_WITHIN: Duration = Duration::from_secs(1);
const NO_PANIC: &str = "nothing panics while it holds this";

impl Admin {
    /// Moves the leader of a random range to each node that is asked for, and has one node take leave of the range, or
    /// come back. Whether it works is the cluster's affair.
    async fn run(&self, mut host: ClientHost) {
        while !self.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK_EVERY).await;
            let next = self.transfers.lock().expect(NO_PANIC).pop_front();
            let Some(to) = next else { continue };
            let draw = host.random.random_range(0..64);
            let leaves = [Some(true), Some(false), None][host.random.random_range(0..3)];
            let admin = host.client.admin();
            if let Ok(ranges) = admin.ranges("").await
                && !ranges.is_empty()
            {
                let range = ranges[draw % ranges.len()].range_id;
                let moved = admin.transfer_leader(RangeId(range), NodeId(to)).await;
                host.say(&format!("r{range} to node {to}: {:?}", moved.map(drop)));
                // The others go on taking local writes.
                let (range, node) = (RangeId(range), NodeId(2));
                let set = match leaves {
                    Some(true) => admin.seal(range, node, LEAVES_WITHIN).await,
                    Some(false) => admin.admit(range, node, LEAVES_WITHIN).await,
                    None => continue,
                };
                let state = set.map(|origin| origin.state().as_str_name());
                host.say(&format!("{node} in {range}: {state:?}"));
            }
        }
    }
}
