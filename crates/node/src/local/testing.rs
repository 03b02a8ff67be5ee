//! Local writes of a node that has only a store and a clock.

use std::sync::Arc;

use bytes::Bytes;
use latitude_clock::{HybridClock, MAX_CLOCK_OFFSET_DEFAULT, ManualClock};
use latitude_consensus::{Committer, FlushInline};
use latitude_directory::RangeRecord;
use latitude_range::{Delta, Op, Origin, OriginState, ValueType};
use latitude_storage::{Batch, Column, Engine, key};
use latitude_types::{
    ClientId, Epoch, Generation, Key, KeySpan, KeyspaceId, Level, NodeId, OperationId,
    OperationKind, Past, RangeId, ReplicaId, Stamp, Timestamp,
};
use prometheus_client::metrics::histogram::Histogram;

use super::Local;
use crate::clock_keeper::Clock;
use crate::config::Limits;

/// The node.
pub(super) const HERE: NodeId = NodeId(1);
/// Its clock: whatever the tests position was long ago.
const NOW: Timestamp = Timestamp::from_ms(1_000_000);

/// The local writes that a store has.
pub(super) fn local(engine: &Arc<dyn Engine>) -> Local {
    let physical = Arc::new(ManualClock::new(NOW.unix_ms() * 1_000));
    let hybrid = HybridClock::start(physical, NOW, MAX_CLOCK_OFFSET_DEFAULT);
    // Nobody syncs: what a test stores is stored by itself.
    let (committer, _) = Committer::new(FlushInline(Arc::clone(engine)));
    let clock = Clock::new(hybrid, Arc::clone(engine), committer.clone());
    let folded_after = Histogram::new([]);
    let limits = Limits { unfolded_bytes_max: 1 << 20, ..Limits::default() };
    let opened = Local::open(HERE, clock, Arc::clone(engine), committer, &limits, folded_after);
    opened.expect("it can be read").0
}

/// A range with replicas on these nodes.
pub(super) fn record(range: RangeId, nodes: &[NodeId]) -> RangeRecord {
    let replica = |node: &NodeId| ReplicaId { node: *node, generation: Generation(1) };
    RangeRecord {
        id: range,
        epoch: Epoch(1),
        keyspace: KeyspaceId::FIRST_USER,
        span: KeySpan::all(),
        voters: nodes.iter().map(replica).collect(),
        learners: Vec::new(),
        value_type: ValueType::Register,
        value_len_max: 100,
        log_only: false,
    }
}

/// Origins, folded so far.
pub(super) fn origins(folded: &[(NodeId, u64)]) -> Arc<[Origin]> {
    let origin = |(node, folded): &(NodeId, u64)| Origin {
        node: *node,
        state: OriginState::Active,
        admitted: Stamp::ZERO,
        folded: Timestamp(*folded),
        last: None,
    };
    folded.iter().map(origin).collect()
}

/// The row of a local write.
pub(super) fn row(origin: NodeId, range: RangeId, position: u64) -> Batch {
    let delta = Delta {
        origin,
        position: Timestamp(position),
        range,
        admitted: Stamp::ZERO,
        keyspace: KeyspaceId::FIRST_USER,
        key: Key::new(b"k").expect("it is short"),
        op: Op::Put { value: Bytes::from_static(b"v") },
        id: OperationId {
            birth: Timestamp(position - 1),
            client: ClientId([origin.0 as u8; 16]),
            sequence: position,
            kind: OperationKind::Local,
        },
        level: Level::Causal,
        named: Vec::new(),
        extensions: Vec::new(),
        past: Past::default(),
    };
    let mut batch = Batch::new();
    batch.put(Column::Stream, key::stream::delta(origin, delta.position), delta.encode());
    batch
}

/// The positions of an origin's rows.
pub(super) fn rows(engine: &Arc<dyn Engine>, origin: NodeId) -> Vec<u64> {
    let rows = engine.scan(Column::Stream, key::stream::span(origin, ..).into());
    let position = |row: latitude_storage::Result<(Bytes, Bytes)>| {
        let (row_key, _) = row.expect("it can be read");
        key::stream::decode(&row_key).expect("it is the key of a delta").1.0
    };
    rows.map(position).collect()
}
