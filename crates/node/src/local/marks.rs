//! What a node holds true of local writes at a moment, for whoever watches over it.

use latitude_types::{NodeId, RangeId, Timestamp};

use super::Local;

/// How far a node takes local writes to be durable, held and shown: the numbers that INV-5 to INV-7 are about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LocalMarks {
    /// D: the node's own are durable up to here.
    pub durable: Timestamp,
    /// W: those of an origin are held in a range up to here; by range and origin, ascending.
    pub held: Vec<(RangeId, NodeId, Timestamp)>,
    /// V: those of an origin are shown to causal reads up to here; by origin, ascending.
    pub shown: Vec<(NodeId, Timestamp)>,
}

impl Local {
    /// All of them, of one moment.
    pub(crate) fn marks(&self) -> LocalMarks {
        let state = self.state();
        let of = |range: &RangeId| {
            let range = *range;
            state.marks.of_range(range).map(move |(origin, mark)| (range, origin, mark))
        };
        let held = state.overlays.keys().flat_map(of).collect();
        let origins = state.marks.origins().into_iter();
        let shown = origins.map(|origin| (origin, state.visible.of(origin))).collect();
        LocalMarks { durable: state.frontier.durable(), held, shown }
    }
}
