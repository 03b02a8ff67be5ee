//! What can be done to a cluster. Everything that lasts is counted, so that faults can overlap.

use std::sync::Arc;
use std::time::Duration;

use latitude_clock::PhysicalClock;
use latitude_consensus::Step;
use latitude_node::ReadMode;
use latitude_range::ValueRow;
use latitude_storage::{Column, View, key};
use latitude_types::{Generation, Key, KeyspaceId, RangeId};
use rand::RngExt;
use serde_json::json;

use super::{Cluster, Crash, NO_PANIC};
use crate::links::Host;
use crate::trace::Kind;

/// Of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowPart {
    /// The byte that says which version's layout it has.
    Version,
    /// What clients are told.
    Value,
}

impl Cluster {
    /// Nodes that have stopped by themselves, and why; each is told once and is down from then on.
    pub fn failures(&mut self) -> Vec<(u32, String)> {
        let mut failures = Vec::new();
        for (node, site) in &self.nodes {
            failures.extend(site.failure.lock().expect(NO_PANIC).take().map(|why| (*node, why)));
        }
        for (node, why) in &failures {
            tracing::info!(node, why, "stopped by itself");
            self.fault("stopped", json!({ "node": node, "why": why }));
            self.crash(*node, Crash::Killed);
        }
        failures
    }

    /// Whether a node runs.
    pub fn is_up(&self, node: u32) -> bool {
        self.site(node).up
    }

    /// Takes a node down, if it is up.
    pub fn crash(&mut self, node: u32, how: Crash) {
        if !self.is_up(node) {
            return;
        }
        let host = Arc::clone(&self.site(node).host);
        self.fault("crash", json!({ "node": node, "how": format!("{how:?}") }));
        let others: Vec<Host> = self
            .hosts
            .iter()
            .map(|(other, _)| Arc::clone(other))
            .filter(|other| *other != host)
            .collect();
        if how == Crash::PowerLost {
            // Its connections do not close: what the dying sockets say is swallowed.
            others.iter().for_each(|other| self.sim.partition_oneway(&*host, &**other));
        }
        self.sim.crash(&*host);
        if how == Crash::PowerLost {
            for other in &others {
                if self.links.is_held(&host, other) {
                    self.sim.hold(&*host, &**other);
                } else if !self.links.is_cut(&host, other) {
                    self.sim.repair_oneway(&*host, &**other);
                }
            }
        }
        let random = &mut self.random;
        let site = self.nodes.get_mut(&node).expect("the node exists");
        site.up = false;
        site.disk.crash(|unsynced| random.random_range(0..=unsynced));
    }

    /// The next nodes to reach that step of a snapshot lose their power there, so many of them.
    pub fn crash_at(&mut self, step: Step, times: u32) {
        self.fault("crash_at", json!({ "step": step.name(), "times": times }));
        *self.armed.lock().expect(NO_PANIC) = Some((step, times));
    }

    /// Starts a node that is down.
    pub fn restart(&mut self, node: u32) {
        if self.is_up(node) {
            return;
        }
        let host = Arc::clone(&self.site(node).host);
        self.fault("restart", json!({ "node": node }));
        self.sim.bounce(&*host);
        self.nodes.get_mut(&node).expect("the node exists").up = true;
    }

    /// From its next start on a node reads like this.
    pub fn set_read_mode(&mut self, node: u32, read_mode: ReadMode) {
        *self.site(node).read_mode.lock().expect(NO_PANIC) = read_mode;
    }

    /// Cuts the way from one node to another; the way back stays.
    pub fn cut(&mut self, from: u32, to: u32) {
        let (from, to) = (self.host(from), self.host(to));
        self.cut_hosts(&from, &to);
    }

    /// Cuts the way from one host to another once more.
    pub fn cut_hosts(&mut self, from: &Arc<str>, to: &Arc<str>) {
        self.fault("cut", json!({ "from": &**from, "to": &**to }));
        if self.links.cut(from, to) && !self.links.is_held(from, to) {
            self.sim.partition_oneway(&**from, &**to);
        }
    }

    /// Takes back one cut of that way.
    pub fn mend_hosts(&mut self, from: &Arc<str>, to: &Arc<str>) {
        self.fault("mend", json!({ "from": &**from, "to": &**to }));
        if self.links.mend(from, to) && !self.links.is_held(from, to) {
            self.sim.repair_oneway(&**from, &**to);
        }
    }

    /// Cuts both ways between two nodes.
    pub fn partition(&mut self, a: u32, b: u32) {
        self.cut(a, b);
        self.cut(b, a);
    }

    /// Cuts a node from all others; clients still reach it.
    pub fn isolate(&mut self, node: u32) {
        for other in self.nodes() {
            if other != node {
                self.partition(node, other);
            }
        }
    }

    /// Heals every cut.
    pub fn heal(&mut self) {
        let ways = self.links.mend_all();
        if ways.is_empty() {
            return;
        }
        self.fault("heal", json!({}));
        for (from, to) in ways {
            if !self.links.is_held(&from, &to) {
                self.sim.repair_oneway(&*from, &*to);
            }
        }
    }

    /// Holds back everything between two nodes until [`Cluster::release`]: late, but not lost.
    pub fn hold(&mut self, a: u32, b: u32) {
        let (a, b) = (self.host(a), self.host(b));
        self.fault("hold", json!({ "a": &*a, "b": &*b }));
        self.hold_hosts(&a, &b);
    }

    pub(super) fn hold_hosts(&mut self, a: &Host, b: &Host) {
        if self.links.hold(a, b) {
            self.sim.hold(&**a, &**b);
        }
    }

    /// Delivers what was held back, all at once, unless another fault still holds it.
    pub fn release(&mut self, a: u32, b: u32) {
        let (a, b) = (self.host(a), self.host(b));
        self.fault("release", json!({ "a": &*a, "b": &*b }));
        self.release_hosts(&a, &b);
    }

    fn release_hosts(&mut self, a: &Host, b: &Host) {
        if self.links.release(a, b) {
            self.let_go(a, b);
        }
    }

    fn let_go(&mut self, a: &Host, b: &Host) {
        self.sim.release(&**a, &**b);
        for (from, to) in [(a, b), (b, a)] {
            if self.links.is_cut(from, to) {
                self.sim.partition_oneway(&**from, &**to);
            }
        }
    }

    /// Delivers everything that is held back anywhere.
    pub fn release_all(&mut self) {
        for site in self.nodes.values_mut() {
            site.paused = 0;
            site.ports_clock.resume();
        }
        for (a, b) in self.links.release_all() {
            self.let_go(&a, &b);
        }
    }

    /// Pauses a node, as a stopped process or a virtual machine that is moved: nothing gets in or out, and its
    /// clocks stand. What it does meanwhile by itself it does, as seen from outside, in the moment before.
    ///
    /// HAZARD: its timers run on, so at the end it has noticed a silence that a stopped process has not.
    pub fn pause(&mut self, node: u32) {
        let host = self.host(node);
        self.fault("pause", json!({ "node": node }));
        for (other, _) in self.hosts.clone() {
            if other != host {
                self.hold_hosts(&host, &other);
            }
        }
        let site = self.nodes.get_mut(&node).expect("the node exists");
        site.paused += 1;
        if site.paused == 1 {
            site.ports_clock.stop();
        }
    }

    /// Ends a pause: the clocks leap to the present, then what waited gets in and out.
    pub fn resume(&mut self, node: u32) {
        let host = self.host(node);
        self.fault("resume", json!({ "node": node }));
        let site = self.nodes.get_mut(&node).expect("the node exists");
        if site.paused == 0 {
            return;
        }
        site.paused -= 1;
        if site.paused == 0 {
            site.ports_clock.resume();
        }
        for (other, _) in self.hosts.clone() {
            if other != host {
                self.release_hosts(&host, &other);
            }
        }
    }

    /// Breaks the end at `host` of all its connections to `peer`.
    pub fn reset_hosts(&mut self, host: &Arc<str>, peer: &Arc<str>) {
        let connections = self.links.reset(host, peer);
        self.fault("reset", json!({ "at": &**host, "to": &**peer, "connections": connections }));
    }

    /// Sets how long a message between two nodes is on its way.
    pub fn set_latency(&mut self, a: u32, b: u32, (min, max): (Duration, Duration)) {
        let (a, b) = (self.host(a), self.host(b));
        self.fault("latency", json!({ "a": &*a, "b": &*b, "ms": max.as_millis() as u64 }));
        self.sim.set_link_latency(&*a, &*b, min);
        self.sim.set_link_max_message_latency(&*a, &*b, max);
    }

    /// Makes everything that one node sends another arrive that much later still; what the other sends back
    /// does not.
    pub fn delay(&mut self, from: u32, to: u32, more: Duration) {
        let (from, to) = (self.host(from), self.host(to));
        self.fault("delay", json!({ "from": &*from, "to": &*to, "ms": more.as_millis() as u64 }));
        self.links.delay(&from, &to, more);
    }

    /// Takes back that much of the delay.
    pub fn hasten(&mut self, from: u32, to: u32, less: Duration) {
        let (from, to) = (self.host(from), self.host(to));
        self.fault("hasten", json!({ "from": &*from, "to": &*to, "ms": less.as_millis() as u64 }));
        self.links.hasten(&from, &to, less);
    }

    /// Ends every delay.
    pub fn hasten_all(&mut self) {
        if self.links.hasten_all() {
            self.fault("hasten_all", json!({}));
        }
    }

    /// Puts two nodes where the layout has them.
    pub fn mend_latency(&mut self, a: u32, b: u32) {
        let (a, b) = (self.host(a), self.host(b));
        self.fault("mend_latency", json!({ "a": &*a, "b": &*b }));
        self.reset_latency(&a, &b);
    }

    pub(super) fn reset_latency(&mut self, a: &Host, b: &Host) {
        let region = |host: &Host| {
            self.hosts.iter().find(|(other, _)| other == host).map(|(_, region)| region)
        };
        let is_near = region(a) == region(b);
        let (min, max) = if is_near { self.layout.near } else { self.layout.far };
        self.sim.set_link_latency(&**a, &**b, min);
        self.sim.set_link_max_message_latency(&**a, &**b, max);
    }

    /// Leaves this many bytes free on a node's disk.
    pub fn leave_free(&mut self, node: u32, bytes: u64) {
        self.fault("leave_free", json!({ "node": node, "bytes": bytes }));
        self.site(node).disk.set_free_space(bytes);
    }

    /// Turns a bit of a log entry on a node's disk; `false`: there is no such entry.
    pub fn damage_log(&mut self, node: u32, range: RangeId, index: u64) -> bool {
        self.fault("damage_log", json!({ "node": node, "range": range.0, "index": index }));
        let entry = key::log::entry(range, Generation(1), index);
        self.site(node).disk.flip_bit(Column::Log, &entry, 9)
    }

    /// Turns a bit of a register's value, or of what comes before it, where a node's disk has it; `false`: it has no
    /// such register.
    pub fn damage_row(
        &mut self,
        node: u32,
        keyspace: KeyspaceId,
        key: &Key,
        part: RowPart,
    ) -> bool {
        self.fault("damage_row", json!({ "node": node, "key": key.to_string() }));
        let row_key = key::base::value_key(keyspace, key);
        let site = self.site(node);
        let engine = site.engine.lock().expect(NO_PANIC).upgrade();
        let row = engine.and_then(|engine| engine.get(Column::Base, &row_key).ok().flatten());
        let value = row.as_ref().and_then(|row| ValueRow::decode(row).ok()?.value().cloned());
        let (Some(row), Some(value)) = (row, value) else { return false };
        let byte = match part {
            RowPart::Version => Some(0),
            RowPart::Value => row.windows(value.len().max(1)).position(|window| window == value),
        };
        byte.is_some_and(|byte| site.disk.flip_bit(Column::Base, &row_key, byte))
    }

    /// Makes the next sync of a node's disk fail.
    pub fn fail_next_sync(&mut self, node: u32) {
        self.fault("fail_next_sync", json!({ "node": node }));
        self.site(node).disk.fail_next_sync();
    }

    /// Spares it, if it has not failed yet.
    pub fn spare_next_sync(&mut self, node: u32) {
        self.site(node).disk.spare_next_sync();
    }

    /// Makes each sync of a node's disk take up to this much longer.
    pub fn slow_disk(&mut self, node: u32, more: Duration) {
        self.fault("slow_disk", json!({ "node": node, "ms": more.as_millis() as u64 }));
        self.site(node).pace.set(more);
    }

    /// Steps a node's wall clock to this far ahead of simulated time; below zero: behind.
    pub fn skew(&mut self, node: u32, ahead_ms: i64) {
        self.fault("skew", json!({ "node": node, "ahead_ms": ahead_ms }));
        self.site(node).clock.set_offset_us(ahead_ms * 1000);
    }

    /// Makes both clocks of a node run faster by so many parts per million; below zero: slower.
    pub fn drift(&mut self, node: u32, ppm: i64) {
        self.fault("drift", json!({ "node": node, "ppm": ppm }));
        self.site(node).clock.set_rate_ppm(ppm);
    }

    /// Sets a node's wall clock right, and its rate.
    pub fn set_clock_right(&mut self, node: u32) {
        self.fault("clock_right", json!({ "node": node }));
        let site = self.site(node);
        site.clock.set_rate_ppm(0);
        site.clock.set_offset_us(0);
        let ahead = site.clock.wall_us() as i64 - site.ports_clock.wall_us() as i64;
        site.clock.set_offset_us(-ahead);
    }

    fn fault(&self, what: &str, about: serde_json::Value) {
        tracing::info!(at = ?self.now(), what, %about, "fault");
        self.trace.say(Kind::Fault, &what.into(), &"cluster".into(), &about.to_string());
    }
}
