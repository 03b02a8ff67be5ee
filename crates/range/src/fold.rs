//! What the leader of a range folds next.
//!
//! ```text
//!   stream of o:  ──────F──────────●────●──────●────W──▶
//!                 folded │ proposed │  next segment │
//!                        └─ cursor ─┘ (from, to] ───┘
//! ```
//!
//! Apply skips a segment that begins above F, and of one that begins below it the part that is folded: so no
//! delta is folded twice or left out, whoever proposes what (INV-8, pitfall 3). The cursor only keeps a leader
//! from proposing the same again while an entry is under way.

use std::collections::BTreeMap;

use latitude_probe::Plant;
use latitude_types::{KeySpan, NodeId, Positions, Timestamp};

use crate::entry::{Carried, Segment};
use crate::meta::{Origin, OriginState};
use crate::overlay::Overlay;

/// How far one leadership has proposed to fold each origin.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FoldCursor {
    proposed: BTreeMap<NodeId, Timestamp>,
    /// Which origin is the first next time, so that none waits behind another for ever.
    turn: usize,
}

impl FoldCursor {
    /// Nothing is under way any more that would be applied.
    pub fn reset(&mut self) {
        self.proposed.clear();
    }

    /// The first of these origins that is neither folded nor proposed as far as needed; of one that has stopped
    /// for good, as far as it went.
    pub fn behind(&self, origins: &[Origin], need: &Positions) -> Option<NodeId> {
        let is_behind = |origin: &&Origin| {
            let proposed = self.proposed.get(&origin.node).copied().unwrap_or_default();
            let needed = need.of(origin.node);
            proposed.max(origin.folded) < origin.capped(needed)
        };
        origins.iter().find(is_behind).map(|origin| origin.node)
    }

    /// The next segments, beginning with another origin each time, and moves the cursor past them.
    ///
    /// - `marks`: W of an origin in this range.
    /// - `need`: fold at least up to here, with a segment without deltas if there are none.
    /// - `bytes_max`: of deltas, about: nothing more is taken once there are as many.
    pub fn next(
        &mut self,
        origins: &[Origin],
        span: &KeySpan,
        overlay: &Overlay,
        marks: impl Fn(NodeId) -> Option<Timestamp>,
        need: &Positions,
        bytes_max: usize,
    ) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut bytes = 0;
        let first = self.turn % origins.len().max(1);
        self.turn = self.turn.wrapping_add(1);
        for origin in origins[first..].iter().chain(&origins[..first]) {
            if bytes >= bytes_max {
                break;
            }
            if !matches!(origin.state, OriginState::Active | OriginState::Sealing) {
                continue;
            }
            let proposed = self.proposed.get(&origin.node).copied().unwrap_or_default();
            let from = proposed.max(origin.folded);
            let Some(mark) = marks(origin.node).filter(|mark| *mark > from) else { continue };
            let (mut deltas, mut to) = (Vec::new(), mark);
            let mut held = overlay.of_origin(origin.node, from, mark).peekable();
            while let Some(delta) = held.next() {
                let carried = delta.encode();
                bytes += carried.len();
                deltas.push(Carried::Whole(carried));
                if bytes >= bytes_max && held.peek().is_some() {
                    to = delta.position;
                    break;
                }
            }
            if deltas.is_empty() && need.of(origin.node) <= from {
                continue;
            }
            if !Plant::FoldTwice.is_on() {
                self.proposed.insert(origin.node, to);
            }
            segments.push(Segment { origin: origin.node, from, to, span: span.clone(), deltas });
        }
        segments
    }
}

/// Whether a base has folded all that is needed of these origins; of one that has stopped for good, what there
/// is.
pub fn has_folded(origins: &[Origin], need: &Positions) -> bool {
    origins.iter().all(|origin| origin.folded >= origin.capped(need.of(origin.node)))
}

/// Of which of these origins that have stopped for good positions say more than there can be, and how far there is.
pub fn capped<'a>(
    origins: &'a [Origin],
    positions: &'a Positions,
) -> impl Iterator<Item = (NodeId, Timestamp)> + 'a {
    origins.iter().filter_map(|origin| {
        let last = origin.last.filter(|last| positions.of(origin.node) > *last)?;
        Some((origin.node, last))
    })
}
