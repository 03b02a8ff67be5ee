//! How long the id of a write is remembered, so that a repetition has no second effect.
//!
//! ```text
//!   birth ──────────── taken at t: birth ≤ t ≤ birth + 10 min ────────────┤ refused for its age
//!                                     row kept ───────────────────────────┤ may be dropped
//! ```
//!
//! The two ends meet: stamps rise, so once the last applied stamp has reached birth + 10 min every
//! later copy of the id has a larger stamp and is refused in apply. A local write's copies come as
//! deltas, which are never refused for their age once an origin has taken them; so there every origin
//! that may still bring one must have been folded that far.

use latitude_types::{Error, OPERATION_ID_LIFETIME, Reason, Result, Timestamp};

/// One origin of a range, as the range's replicated state knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Where it stands.
    pub status: OriginStatus,
    /// F: every delta of the origin in this range positioned up to here is in base.
    pub folded: Timestamp,
}

/// Where an origin stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OriginStatus {
    /// Takes local writes.
    Active,
    /// Took leave: all it ever took is folded.
    Sealed,
    /// Gone without leave: what it took and nobody has may still come back.
    Lost,
    /// Given up: whatever it still brings is refused.
    Forgotten,
}

impl OriginStatus {
    /// Whether a delta of this origin that is not in base yet may still be folded.
    fn may_bring_more(self) -> bool {
        matches!(self, Self::Active | Self::Lost)
    }
}

/// Whether a write born at `birth` may be taken at `at`: a local write's position, a log write's
/// stamp. Checked again in apply, with the stamp; never for a folded delta.
///
/// # Errors
///
/// [`Reason::IdExpired`] after ten minutes; [`Reason::IdFromFuture`] if `birth` is above `at`, which a
/// node that merged the birth first never stamps.
pub fn check_id_age(birth: Timestamp, at: Timestamp) -> Result<()> {
    if birth > at {
        let message = format!("the write was born at {birth}, after the time it is taken at, {at}");
        return Err(Error::new(Reason::IdFromFuture, message));
    }
    if at > expiry(birth) {
        let message = format!(
            "the write is older than {} minutes and can no longer be told from a repetition: \
             find out whether it happened, then send it as a new one",
            OPERATION_ID_LIFETIME.as_secs() / 60
        );
        return Err(Error::new(Reason::IdExpired, message));
    }
    Ok(())
}

/// Whether the row of a log write's id may go, `last_stamp` being the last the range has applied.
pub fn log_id_may_be_dropped(birth: Timestamp, last_stamp: Timestamp) -> bool {
    last_stamp >= expiry(birth)
}

/// Whether the row of a local write's id, or the record of a deleted key, may go: when every origin that
/// may still bring a copy is folded beyond the id's life, and the last stamp is beyond it too.
///
/// The stamp matters where there is no such origin, as in a log-only keyspace: "every origin" alone
/// would hold at once.
pub fn local_id_may_be_dropped(
    birth: Timestamp,
    last_stamp: Timestamp,
    origins: impl IntoIterator<Item = Origin>,
) -> bool {
    log_id_may_be_dropped(birth, last_stamp)
        && origins
            .into_iter()
            .filter(|origin| origin.status.may_bring_more())
            .all(|origin| origin.folded >= expiry(birth))
}

fn expiry(birth: Timestamp) -> Timestamp {
    birth.plus_ms(OPERATION_ID_LIFETIME.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use latitude_types::{ClientId, OperationId, OperationKind};
    use proptest::prelude::*;

    use super::*;

    fn time_in(ms: std::ops::Range<u64>) -> impl Strategy<Value = Timestamp> {
        (ms, 0u64..3).prop_map(|(ms, counter)| Timestamp(Timestamp::from_ms(ms).0 + counter))
    }

    fn births() -> impl Strategy<Value = Timestamp> {
        time_in(0..5)
    }

    /// About ten minutes after the births, on both sides of the edge.
    fn edges() -> impl Strategy<Value = Timestamp> {
        time_in(599_999..600_010)
    }

    fn origins() -> impl Strategy<Value = Vec<Origin>> {
        use OriginStatus::*;
        let status = prop::sample::select(vec![Active, Sealed, Lost, Forgotten]);
        let origin = (status, edges()).prop_map(|(status, folded)| Origin { status, folded });
        prop::collection::vec(origin, 0..4)
    }

    proptest! {
        #[test]
        fn a_dropped_log_id_is_refused_at_every_later_stamp(
            birth in births(), last_stamp in edges(), later in 1u64..10
        ) {
            prop_assume!(log_id_may_be_dropped(birth, last_stamp));
            prop_assert!(check_id_age(birth, Timestamp(last_stamp.0 + later)).is_err());
        }

        #[test]
        fn a_dropped_local_id_comes_in_no_later_delta(
            birth in births(), last_stamp in edges(), origins in origins(), later in 1u64..10
        ) {
            prop_assume!(local_id_may_be_dropped(birth, last_stamp, origins.iter().copied()));
            for origin in origins.iter().filter(|origin| origin.status.may_bring_more()) {
                // What is not folded yet is positioned above F, where the origin refuses the id.
                prop_assert!(check_id_age(birth, Timestamp(origin.folded.0 + later)).is_err());
            }
        }

        #[test]
        fn an_id_that_may_be_dropped_stays_so(
            birth in births(), last_stamp in edges(), origins in origins(), later in 1u64..10
        ) {
            prop_assume!(local_id_may_be_dropped(birth, last_stamp, origins.iter().copied()));
            let moved = origins.into_iter().map(|o| Origin { folded: Timestamp(o.folded.0 + later), ..o });
            prop_assert!(local_id_may_be_dropped(birth, Timestamp(last_stamp.0 + later), moved));
        }

        #[test]
        fn an_id_lives_as_long_as_it_says(birth in births()) {
            let id = OperationId { birth, client: ClientId([1; 16]), sequence: 1, kind: OperationKind::Log };
            prop_assert!(check_id_age(birth, id.expires_at()).is_ok());
            prop_assert!(check_id_age(birth, id.expires_at().next()).is_err());
        }
    }
}
