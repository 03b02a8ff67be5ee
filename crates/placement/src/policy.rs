//! What a keyspace asks of the places of its replicas.

use std::fmt;
use std::str::FromStr;

use latitude_types::{Error, Reason};

/// Replicas of a range unless the policy says otherwise.
pub const REPLICAS_DEFAULT: usize = 3;

/// Where the replicas of a keyspace's ranges must be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// [`REPLICAS_DEFAULT`] replicas, spread over regions, then over zones. One in a cluster of fewer
    /// nodes; never two, which would need both to be up.
    #[default]
    Spread,
    /// So many replicas in each region; written `eu=1,us=1,ap=1`. No region twice, no count zero.
    PerRegion(Vec<(String, u32)>),
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spread => f.write_str("spread"),
            Self::PerRegion(regions) => {
                let regions: Vec<_> =
                    regions.iter().map(|(region, count)| format!("{region}={count}")).collect();
                f.write_str(&regions.join(","))
            }
        }
    }
}

/// A policy was neither `spread` nor a list of regions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{policy:?} is not a placement: {problem}; write for example eu=1,us=1,ap=1, or spread")]
pub struct ParsePolicyError {
    policy: String,
    problem: String,
}

impl FromStr for Policy {
    type Err = ParsePolicyError;

    fn from_str(s: &str) -> Result<Self, ParsePolicyError> {
        if s == "spread" {
            return Ok(Self::Spread);
        }
        let wrong = |problem: String| ParsePolicyError { policy: s.to_string(), problem };
        let mut regions: Vec<(String, u32)> = Vec::new();
        for part in s.split(',') {
            let (region, count) = part
                .split_once('=')
                .filter(|(region, _)| !region.is_empty())
                .ok_or_else(|| wrong(format!("{part:?} is not region=replicas")))?;
            let count = count
                .parse()
                .ok()
                .filter(|count| *count > 0)
                .ok_or_else(|| wrong(format!("{count:?} is not a number of replicas")))?;
            if regions.iter().any(|(earlier, _)| earlier == region) {
                return Err(wrong(format!("region {region} is named twice")));
            }
            regions.push((region.to_string(), count));
        }
        Ok(Self::PerRegion(regions))
    }
}

/// The nodes there are cannot meet what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unsatisfiable {
    /// What is lacking, and where.
    pub message: String,
}

impl From<Unsatisfiable> for Error {
    fn from(unsatisfiable: Unsatisfiable) -> Self {
        Self::new(Reason::PlacementUnsatisfiable, unsatisfiable.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_policy_parses_back() {
        for policy in ["spread", "eu=1,us=1,ap=1", "eu=3"] {
            assert_eq!(policy.parse::<Policy>().unwrap().to_string(), policy);
        }
    }

    #[test]
    fn a_wrong_policy_says_what_is_wrong() {
        for (policy, problem) in [
            ("", "\"\" is not region=replicas"),
            ("eu", "\"eu\" is not region=replicas"),
            ("=1", "\"=1\" is not region=replicas"),
            ("eu=1,", "\"\" is not region=replicas"),
            ("eu=0", "\"0\" is not a number of replicas"),
            ("eu=-1", "\"-1\" is not a number of replicas"),
            ("eu=1,us=1,eu=2", "region eu is named twice"),
        ] {
            assert_eq!(policy.parse::<Policy>().unwrap_err().problem, problem);
        }
    }
}
