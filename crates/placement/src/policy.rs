//! What a keyspace asks of the places of its replicas.

use std::fmt;
use std::str::FromStr;

use latitude_types::{Error, Reason};

/// Replicas of a range unless the policy says otherwise.
pub const REPLICAS_DEFAULT: usize = 3;

/// So many replicas of each range in each region; written `eu=1,us=1,ap=1`. No region twice, no count zero.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PerRegion(Vec<(String, u32)>);

impl PerRegion {
    /// In the order in which they are given.
    ///
    /// # Errors
    /// A region named twice, or with no replica.
    pub fn new(regions: Vec<(String, u32)>) -> Result<Self, Unsatisfiable> {
        for (at, (region, count)) in regions.iter().enumerate() {
            if *count == 0 {
                return Err(Unsatisfiable { message: format!("region {region} is to hold none") });
            }
            if regions[..at].iter().any(|(earlier, _)| earlier == region) {
                return Err(Unsatisfiable { message: format!("region {region} is named twice") });
            }
        }
        Ok(Self(regions))
    }

    /// Each region with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.0.iter().map(|(region, count)| (region.as_str(), *count))
    }
}

impl fmt::Display for PerRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let regions: Vec<_> = self.iter().map(|(region, n)| format!("{region}={n}")).collect();
        f.write_str(&regions.join(","))
    }
}

/// Where the voters of a keyspace's ranges must be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// [`REPLICAS_DEFAULT`] replicas, spread over regions, then over zones. One in a cluster of fewer
    /// nodes; never two, which would need both to be up.
    #[default]
    Spread,
    /// So many in each region.
    PerRegion(PerRegion),
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spread => f.write_str("spread"),
            Self::PerRegion(regions) => regions.fmt(f),
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
        match s {
            "spread" => Ok(Self::Spread),
            _ => Ok(Self::PerRegion(s.parse()?)),
        }
    }
}

impl FromStr for PerRegion {
    type Err = ParsePolicyError;

    fn from_str(s: &str) -> Result<Self, ParsePolicyError> {
        let wrong = |problem: String| ParsePolicyError { policy: s.to_string(), problem };
        let mut regions = Vec::new();
        for part in s.split(',') {
            let (region, count) = part
                .split_once('=')
                .filter(|(region, _)| !region.is_empty())
                .ok_or_else(|| wrong(format!("{part:?} is not region=replicas")))?;
            let count = count
                .parse()
                .map_err(|_| wrong(format!("{count:?} is not a number of replicas")))?;
            regions.push((region.to_string(), count));
        }
        Self::new(regions).map_err(|error| wrong(error.message))
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
            ("eu=0", "region eu is to hold none"),
            ("eu=-1", "\"-1\" is not a number of replicas"),
            ("eu=1,us=1,eu=2", "region eu is named twice"),
        ] {
            assert_eq!(policy.parse::<Policy>().unwrap_err().problem, problem);
        }
    }
}
