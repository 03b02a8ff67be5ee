//! Timing of Raft, derived from round trips; and who ticks and beats a range, decided here and nowhere
//! else.
//!
//! ```text
//!   round trip ──×2──▶ heartbeat interval ──×4──▶ shortest election timeout ──×1.75──▶ longest (= lease)
//! ```
//!
//! openraft uses the heartbeat interval also as the deadline of each heartbeat: with an interval below
//! the round trip no heartbeat is ever acknowledged, the leader holds no quorum, and it refuses writes
//! whenever it is idle. Hence the factor two. The longest election timeout is the leader's lease and a
//! constant of the cluster.
//!
//! For now openraft's own ticker drives each range. A node-level driver (quiet ranges, coalesced
//! heartbeats) changes [`Settings::raft_config`] and nothing else.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy, StepDownPolicy};

/// How Raft is timed, on every node of a cluster alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Time between heartbeats of an idle leader; also how long one may take.
    pub heartbeat_interval: Duration,
    /// A follower campaigns no sooner than this after it last heard from the leader ...
    pub election_timeout_min: Duration,
    /// ... and a follower that heard from the leader votes for nobody else for this long.
    pub election_timeout_max: Duration,
}

/// Settings contradict each other or what the network can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSettings(String);

impl Settings {
    /// Settings for a cluster whose slowest pair of nodes has this round trip.
    pub fn for_round_trip(round_trip_max: Duration) -> Self {
        // Below 150 ms the disk and the scheduler of a busy machine matter more than the network.
        let heartbeat_interval = (2 * round_trip_max).max(Duration::from_millis(150));
        let election_timeout_min = 4 * heartbeat_interval;
        Self {
            heartbeat_interval,
            election_timeout_min,
            election_timeout_max: election_timeout_min * 7 / 4,
        }
    }

    /// The same settings, if a cluster can live with them over this round trip.
    pub fn validated(self, round_trip_max: Duration) -> Result<Self, InvalidSettings> {
        let Self { heartbeat_interval, election_timeout_min, election_timeout_max } = self;
        if heartbeat_interval < 2 * round_trip_max || heartbeat_interval.is_zero() {
            return Err(InvalidSettings(format!(
                "the heartbeat interval of {heartbeat_interval:?} is shorter than two round trips of \
                 {round_trip_max:?}: no heartbeat would be acknowledged in time"
            )));
        }
        if election_timeout_min < 4 * heartbeat_interval {
            return Err(InvalidSettings(format!(
                "the shortest election timeout of {election_timeout_min:?} is less than four heartbeat intervals of \
                 {heartbeat_interval:?}: a few late heartbeats would depose a healthy leader"
            )));
        }
        if election_timeout_max < election_timeout_min * 5 / 4 {
            return Err(InvalidSettings(format!(
                "the longest election timeout of {election_timeout_max:?} is not well above the shortest of \
                 {election_timeout_min:?}: candidates would split votes again and again"
            )));
        }
        Ok(self)
    }

    /// How long a replication request may take before the stream is begun anew. Not the heartbeat
    /// interval: megabytes take longer than a heartbeat.
    pub(crate) fn append_timeout(&self) -> Duration {
        (2 * self.election_timeout_max).max(Duration::from_secs(2))
    }

    /// How long a vote or a leader transfer may take.
    pub(crate) fn vote_timeout(&self) -> Duration {
        self.election_timeout_min
    }

    /// What openraft is told; `may_campaign`: from the start, not only once it is allowed to.
    pub(crate) fn raft_config(&self, may_campaign: bool) -> Arc<Config> {
        let ms = |duration: Duration| duration.as_millis() as u64;
        Arc::new(Config {
            cluster_name: "latitude".to_string(),
            heartbeat_interval: ms(self.heartbeat_interval),
            // A leader that replicates is heard anyway.
            heartbeat_min_interval: Some(ms(self.heartbeat_interval) * 4 / 5),
            election_timeout_min: ms(self.election_timeout_min),
            election_timeout_max: ms(self.election_timeout_max),
            enable_pre_vote: Some(true),
            enable_elect: may_campaign,
            // A leader that restarted would forget a transfer it had begun, and lead on: the marked votes of
            // that transfer pass by all leases (pitfall 9, execution 3).
            enable_leader_restore: Some(false),
            // Without it two halves of a partial partition can wait for each other for ever
            // (openraft issue 2080).
            quorum_loss_probe_interval: Some(2 * ms(self.election_timeout_max)),
            removed_leader_step_down: StepDownPolicy::Never,
            // Both count entries; what matters is bytes. See `trim`.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            max_payload_entries: 512,
            // Histograms and rings that are allocated per range and not used (many groups).
            log_stage_capacity: Some(1),
            ..Config::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_settings_are_valid_for_the_round_trip_they_come_from() {
        for ms in [0, 1, 10, 75, 76, 220, 1_000] {
            let round_trip = Duration::from_millis(ms);
            let settings = Settings::for_round_trip(round_trip);
            assert_eq!(settings.validated(round_trip), Ok(settings), "{ms} ms");
            settings.raft_config(true).as_ref().clone().validate().expect("openraft accepts them");
        }
    }

    #[test]
    fn settings_that_would_depose_healthy_leaders_are_refused() {
        let good = Settings::for_round_trip(Duration::from_millis(220));
        let round_trip = Duration::from_millis(220);
        let hasty = Settings { heartbeat_interval: Duration::from_millis(400), ..good };
        assert!(hasty.validated(round_trip).unwrap_err().to_string().contains("heartbeat"));
        let nervous = Settings { election_timeout_min: Duration::from_millis(500), ..good };
        assert!(nervous.validated(round_trip).unwrap_err().to_string().contains("four heartbeat"));
        let equal = Settings { election_timeout_max: good.election_timeout_min, ..good };
        assert!(equal.validated(round_trip).unwrap_err().to_string().contains("split votes"));
    }
}
