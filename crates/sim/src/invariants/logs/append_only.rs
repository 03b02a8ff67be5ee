//! Leader append-only: whoever leads neither overwrites nor deletes entries of its log, but for what is purged.
//!
//! Source: Ongaro and Ousterhout, "In search of an understandable consensus algorithm" (2014), figure 3.

use latitude_consensus::LeaderToken;
use latitude_consensus::inspect::EntryId;
use latitude_types::RangeId;

use crate::violation::{Check, Violation};

/// An entry that is not purged goes, or gives way to another, in the log of a replica that leads so, if it does.
pub(super) fn changes(
    range: RangeId,
    entry: EntryId,
    leads: Option<LeaderToken>,
) -> Option<Violation> {
    let leader = leads?;
    Some(
        Check::AppendOnly.found(format!("{range} loses {entry:?} while its replica is {leader:?}")),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::super::super::applied::AppliedEntries;
    use super::super::tests::{append, cut, id, log_of, vote};
    use super::*;

    #[test]
    fn whoever_leads_cuts_and_overwrites_nothing_and_whoever_follows_may() {
        let host: Arc<str> = "node-1".into();
        let (applied, none) = (AppliedEntries::default(), BTreeSet::new());
        let mut logs = log_of(&host, &[id(1, 1), id(1, 2), id(1, 3)]);
        assert_eq!(vote(&mut logs, &host, 2, 1, false), None);
        assert!(logs.writes(&host, &cut(3), &applied, &none).is_empty(), "only a candidate");
        assert_eq!(vote(&mut logs, &host, 2, 1, true), None);
        let found = logs.writes(&host, &cut(2), &applied, &none);
        assert_eq!(found.first().map(|found| found.check), Some(Check::AppendOnly));
        assert_eq!(append(&mut logs, &host, id(2, 1), 7), Some(Check::AppendOnly));
        assert_eq!(vote(&mut logs, &host, 3, 2, true), None);
        assert_eq!(append(&mut logs, &host, id(3, 1), 8), None, "another leads");
    }
}
