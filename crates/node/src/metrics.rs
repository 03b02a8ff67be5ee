//! What a node counts, for Prometheus. One registry per node: several nodes can live in one process.

use std::sync::Mutex;
use std::time::Duration;

use latitude_rpc::pb::v1;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::shared::{NO_PANIC, Shared};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    result: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AuditLabels {
    verdict: &'static str,
}

/// What a node counts.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<OperationLabels, Histogram>,
    entry_operations: Histogram,
    sequential_waits: Counter,
    local_write_folded: Histogram,
    audits: Family<AuditLabels, Counter>,
    syncs: Gauge,
    sync_completions: Gauge,
    replicas: Gauge,
    leaders: Gauge,
    free_bytes: Gauge,
    in_flight: Gauge,
    live_nodes: Gauge,
    log_bytes: Gauge,
    log_purges: Gauge,
    snapshots_sent: Gauge,
    snapshots_received: Gauge,
    snapshots_installed: Gauge,
    snapshots_broken: Gauge,
    snapshot_bytes_sent: Gauge,
    snapshot_bytes_received: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("latitude")),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.0001, 2.0, 18))
            }),
            entry_operations: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            sequential_waits: Counter::default(),
            // Up to 15 s, each bucket an eighth wider: a wide-area round trip more or less must show.
            local_write_folded: Histogram::new(exponential_buckets(0.005, 1.125, 69)),
            audits: Family::default(),
            syncs: Gauge::default(),
            sync_completions: Gauge::default(),
            replicas: Gauge::default(),
            leaders: Gauge::default(),
            free_bytes: Gauge::default(),
            in_flight: Gauge::default(),
            live_nodes: Gauge::default(),
            log_bytes: Gauge::default(),
            log_purges: Gauge::default(),
            snapshots_sent: Gauge::default(),
            snapshots_received: Gauge::default(),
            snapshots_installed: Gauge::default(),
            snapshots_broken: Gauge::default(),
            snapshot_bytes_sent: Gauge::default(),
            snapshot_bytes_received: Gauge::default(),
        };
        {
            let mut registry = metrics.registry.lock().expect(NO_PANIC);
            let requests = metrics.requests.clone();
            registry.register(
                "requests",
                "Requests answered, by operation and by reason of failure",
                requests,
            );
            let seconds = metrics.request_seconds.clone();
            registry.register("request_seconds", "Time a request took on this node", seconds);
            let operations = metrics.entry_operations.clone();
            registry.register("entry_operations", "Operations in one log entry", operations);
            registry.register(
                "sequential_waits",
                "Sequential reads that waited until the replica knew enough",
                metrics.sequential_waits.clone(),
            );
            registry.register(
                "local_write_folded_seconds",
                "Time from a local write taken by this node to its fold being applied here",
                metrics.local_write_folded.clone(),
            );
            registry.register(
                "audits",
                "Audits of ranges run from here, by what they found",
                metrics.audits.clone(),
            );
            for (name, help, gauge) in [
                ("store_syncs", "Syncs of the store since the start", &metrics.syncs),
                (
                    "store_sync_completions",
                    "Writes those syncs made durable",
                    &metrics.sync_completions,
                ),
                ("replicas", "Replicas on this node", &metrics.replicas),
                ("leaders", "Replicas on this node that lead their range", &metrics.leaders),
                ("store_free_bytes", "Bytes free where the store lives", &metrics.free_bytes),
                ("requests_in_flight", "Requests in hand", &metrics.in_flight),
                ("live_nodes", "Nodes this one hears from, itself among them", &metrics.live_nodes),
                ("log_bytes", "Bytes in the logs of this node's replicas", &metrics.log_bytes),
                ("log_purges", "Logs shortened since the start", &metrics.log_purges),
                (
                    "snapshots_sent",
                    "Snapshots taken whole by others since the start",
                    &metrics.snapshots_sent,
                ),
                (
                    "snapshots_received",
                    "Snapshots received whole since the start",
                    &metrics.snapshots_received,
                ),
                (
                    "snapshots_installed",
                    "Snapshots installed since the start",
                    &metrics.snapshots_installed,
                ),
                (
                    "snapshots_broken",
                    "Transfers of snapshots, to or from here, that broke since the start",
                    &metrics.snapshots_broken,
                ),
                (
                    "snapshot_bytes_sent",
                    "Bytes of snapshots sent since the start",
                    &metrics.snapshot_bytes_sent,
                ),
                (
                    "snapshot_bytes_received",
                    "Bytes of snapshots received since the start",
                    &metrics.snapshot_bytes_received,
                ),
            ] {
                registry.register(name, help, gauge.clone());
            }
        }
        metrics
    }

    pub(crate) fn observe_entry(&self, operations: usize) {
        self.entry_operations.observe(operations as f64);
    }

    pub(crate) fn observe_sequential_wait(&self) {
        self.sequential_waits.inc();
    }

    /// Where the time is counted from a local write taken here to its fold being applied here, in seconds.
    pub(crate) fn local_write_folded(&self) -> Histogram {
        self.local_write_folded.clone()
    }

    pub(crate) fn observe_audit(&self, verdict: &'static str) {
        self.audits.get_or_create(&AuditLabels { verdict }).inc();
    }

    pub(crate) fn observe_reply(&self, reply: &v1::Reply, took: Duration) {
        use v1::reply::Result as Answer;
        let (operation, result) = match &reply.result {
            Some(Answer::Get(_)) => ("get", "ok".to_string()),
            Some(Answer::Write(_)) => ("write", "ok".to_string()),
            Some(Answer::CompareAndSet(_)) => ("compare_and_set", "ok".to_string()),
            Some(Answer::CounterAdd(_)) => ("counter_add", "ok".to_string()),
            Some(Answer::Scan(_)) => ("scan", "ok".to_string()),
            Some(Answer::Error(error)) => ("any", error.reason.clone()),
            None => ("any", "INTERNAL".to_string()),
        };
        self.requests.get_or_create(&RequestLabels { operation, result }).inc();
        self.request_seconds
            .get_or_create(&OperationLabels { operation })
            .observe(took.as_secs_f64());
    }

    /// Everything, in Prometheus's text format.
    pub(crate) fn render(&self, shared: &Shared) -> String {
        let stats = shared.committer.stats();
        self.syncs.set(stats.syncs() as i64);
        self.sync_completions.set(stats.completions() as i64);
        let ranges = shared.all_ranges();
        self.replicas.set(ranges.len() as i64);
        let leaders =
            ranges.iter().filter(|handle| handle.group.leadership().token.is_some()).count();
        self.leaders.set(leaders as i64);
        self.free_bytes.set(shared.engine.free_space().unwrap_or(0) as i64);
        let free_permits = shared.admission.available_permits();
        self.in_flight
            .set(shared.config.limits.requests_in_flight_max.saturating_sub(free_permits) as i64);
        let log_bytes: u64 = ranges.iter().map(|handle| handle.group.log_bytes()).sum();
        let snapshots = shared.snapshots.stats();
        for (gauge, value) in [
            (&self.log_bytes, log_bytes),
            (&self.log_purges, snapshots.purges()),
            (&self.snapshots_sent, snapshots.sent()),
            (&self.snapshots_received, snapshots.received()),
            (&self.snapshots_installed, snapshots.installed()),
            (&self.snapshots_broken, snapshots.broken()),
            (&self.snapshot_bytes_sent, snapshots.bytes_sent()),
            (&self.snapshot_bytes_received, snapshots.bytes_received()),
        ] {
            gauge.set(value as i64);
        }
        if shared.joined.borrow().is_some() {
            let directory = shared.catalog.current();
            let live =
                directory.nodes().filter(|node| crate::liveness::is_live(shared, node.id)).count();
            self.live_nodes.set(live as i64);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().expect(NO_PANIC))
            .expect("writing to a string cannot fail");
        text
    }
}
