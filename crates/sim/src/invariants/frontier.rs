//! INV-5 (`consistency.md`): what others may see of a node's local writes, what a message says and what is
//! acknowledged is the durable frontier, never the clock.
//!
//! Seen from the disk and the wire: when a node says that its stream is told up to some position, every delta it
//! has taken up to there is synced, and it takes none at or below afterwards. What a client was told is
//! taken is on a disk.
//!
//! Source: `pitfalls.md` 1, an idle watermark that overtakes a delta that is being synced.

use std::collections::BTreeMap;

use latitude_range::Delta;
use latitude_types::{NodeId, Timestamp, WriteTime, Writer};

use super::deltas::Deltas;
use crate::violation::{Check, Violation};

/// How far each node has said that its own local writes are durable.
#[derive(Default)]
pub(crate) struct Frontiers {
    said: BTreeMap<NodeId, Timestamp>,
}

impl Frontiers {
    /// A node says that every delta of its own up to there is durable, and that it takes none below.
    pub(crate) fn says(
        &mut self,
        origin: NodeId,
        up_to: Timestamp,
        deltas: &Deltas,
    ) -> Option<Violation> {
        let said = self.said.entry(origin).or_default();
        *said = up_to.max(*said);
        let unsynced = deltas.first_unsynced(origin).filter(|delta| delta.position <= up_to)?;
        Some(Check::Frontier.found(format!(
            "{origin} says that its local writes are durable up to {up_to}, and the one at {} is not synced",
            unsynced.position
        )))
    }

    /// A node takes a delta of its own.
    pub(crate) fn takes(&self, delta: &Delta) -> Option<Violation> {
        let said = self.said.get(&delta.origin).copied().unwrap_or_default();
        (delta.position <= said).then(|| {
            Check::Frontier.found(format!(
                "{} takes a local write at {}, and has said that there is none more up to {said}",
                delta.origin, delta.position
            ))
        })
    }

    /// A client was told that it wrote this.
    pub(crate) fn acknowledged(version: &WriteTime, deltas: &Deltas) -> Option<Violation> {
        let Writer::Client(client) = version.writer else { return None };
        let id = (version.time, client.0, version.sequence);
        (!deltas.knows(&id)).then(|| {
            Check::Frontier.found(format!(
                "a local write was acknowledged at {version:?}, and was never durable"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::deltas::tests::{delta, row, store};
    use super::*;

    #[test]
    fn nothing_is_said_of_what_is_not_synced_and_nothing_is_taken_below_what_was_said() {
        let host: Arc<str> = "node-1".into();
        let mut deltas = Deltas::default();
        let mut frontiers = Frontiers::default();
        store(&mut deltas, &host, &delta(1, 10));
        deltas.writes(&host, &row(&delta(1, 20)));
        let mut says = |up_to, deltas: &Deltas| {
            frontiers.says(NodeId(1), Timestamp(up_to), deltas).map(|found| found.check)
        };
        assert_eq!(says(19, &deltas), None);
        assert_eq!(says(20, &deltas), Some(Check::Frontier));
        deltas.synced(&host);
        assert_eq!(says(25, &deltas), None);
        assert!(frontiers.takes(&delta(1, 25)).is_some());
        assert!(frontiers.takes(&delta(1, 26)).is_none());
        assert!(frontiers.takes(&delta(2, 5)).is_none(), "another's stream");
    }

    #[test]
    fn what_is_acknowledged_is_on_a_disk() {
        let host: Arc<str> = "node-1".into();
        let mut deltas = Deltas::default();
        let one = delta(1, 10);
        deltas.writes(&host, &row(&one));
        assert!(Frontiers::acknowledged(&one.time(), &deltas).is_some());
        deltas.synced(&host);
        assert!(Frontiers::acknowledged(&one.time(), &deltas).is_none());
    }
}
