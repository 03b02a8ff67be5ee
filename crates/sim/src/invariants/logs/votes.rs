//! A replica's vote never goes back: else it could help two to be elected that exclude each other.
//!
//! Source: Ongaro and Ousterhout, "In search of an understandable consensus algorithm" (2014), figure 3,
//! `votedFor`.

use latitude_consensus::inspect::Vote;
use latitude_types::RangeId;

use crate::violation::{Check, Violation};

/// A replica votes, after it had voted so.
pub(super) fn votes(range: RangeId, before: Option<Vote>, vote: Vote) -> Option<Violation> {
    let before = before.filter(|before| vote < *before)?;
    Some(Check::Vote.found(format!("{range} votes {vote:?} after {before:?}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Logs;
    use super::super::tests::vote;
    use super::*;

    #[test]
    fn a_vote_does_not_go_back() {
        let host: Arc<str> = "node-1".into();
        let mut logs = Logs::default();
        assert_eq!(vote(&mut logs, &host, 2, 1, false), None);
        assert_eq!(vote(&mut logs, &host, 2, 1, true), None);
        assert_eq!(
            vote(&mut logs, &host, 2, 2, false),
            None,
            "the greater replica of the same term"
        );
        assert_eq!(vote(&mut logs, &host, 2, 1, true), Some(Check::Vote));
    }
}
