//! Leader completeness: whoever begins to lead has every entry that was applied anywhere under an earlier leadership.
//!
//! Source: Ongaro and Ousterhout, "In search of an understandable consensus algorithm" (2014), figure 3.

use latitude_consensus::LeaderToken;
use latitude_types::RangeId;

use super::super::applied::AppliedEntries;
use super::Log;
use crate::violation::{Check, Violation};

/// The replica with this log begins to lead.
pub(super) fn begins_to_lead(
    range: RangeId,
    leader: LeaderToken,
    log: &Log,
    applied: &AppliedEntries,
) -> Option<Violation> {
    let lacks = applied.of(range).find(|(index, id)| {
        let has = log.entries.get(index).map(|row| row.entry.id);
        let purged = log.purged.is_some_and(|purged| purged.index >= *index);
        id.leader < leader && !purged && has != Some(*id)
    });
    lacks.map(|(_, id)| {
        let what = format!("{range} is led by {leader:?}, which lacks {id:?}, applied before");
        Check::Leader.found(what)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use latitude_consensus::inspect::{EntryId, Vote};

    use super::super::tests::{GENERATION, RANGE, id, leader, log_of};
    use super::*;

    #[test]
    fn whoever_leads_has_what_was_applied_before() {
        let host: Arc<str> = "node-1".into();
        let applied = AppliedEntries::with(RANGE, &[id(1, 1), id(1, 2)]);
        let lead = |entries: &[EntryId], term| {
            let mut logs = log_of(&host, entries);
            let vote = Vote { leader: leader(term, 1), committed: true };
            let found = logs.votes(&host, RANGE, GENERATION, vote, &applied);
            assert_eq!(logs.elections(), 1);
            found.map(|found| found.check)
        };
        assert_eq!(lead(&[id(1, 1), id(1, 2)], 2), None);
        assert_eq!(lead(&[id(1, 1)], 2), Some(Check::Leader));
        assert_eq!(lead(&[id(1, 1)], 0), None, "an old leadership learns late that it was one");
    }
}
