//! What a client asks next.

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::keys::Distribution;

/// A mix of operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// Writes only.
    Put,
    /// Reads only (YCSB's C).
    Get,
    /// Half reads, half writes (YCSB's A).
    A,
    /// 95 % reads, 5 % writes (YCSB's B).
    B,
    /// 60 % reads, 25 % writes, 10 % compare-and-sets, 5 % deletes.
    Mixed,
}

/// What to do with the key chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Get,
    Put,
    /// Reads the key, then writes it on the condition that it still is what was read.
    CompareAndSet,
    Delete,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Put, Self::Get, Self::A, Self::B, Self::Mixed];

    /// Its name, as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::A => "a",
            Self::B => "b",
            Self::Mixed => "mixed",
        }
    }

    /// The distribution of keys it is defined with.
    pub(crate) fn distribution(self) -> Distribution {
        match self {
            Self::A | Self::B => Distribution::Zipfian,
            Self::Put | Self::Get | Self::Mixed => Distribution::Uniform,
        }
    }

    /// The next operation.
    pub(crate) fn step(self, rng: &mut SmallRng) -> Step {
        let percent: u32 = rng.random_range(0..100);
        let bounds: &[(u32, Step)] = match self {
            Self::Put => &[(100, Step::Put)],
            Self::Get => &[(100, Step::Get)],
            Self::A => &[(50, Step::Get), (100, Step::Put)],
            Self::B => &[(95, Step::Get), (100, Step::Put)],
            Self::Mixed => {
                &[(60, Step::Get), (85, Step::Put), (95, Step::CompareAndSet), (100, Step::Delete)]
            }
        };
        let (_, step) =
            bounds.iter().find(|(below, _)| percent < *below).expect("the last bound is 100");
        *step
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn workloads_mix_their_operations_as_they_say() {
        const DRAWS: usize = 100_000;
        for (workload, reads, writes) in [
            (Workload::Put, 0.0, 1.0),
            (Workload::Get, 1.0, 0.0),
            (Workload::A, 0.5, 0.5),
            (Workload::B, 0.95, 0.05),
            (Workload::Mixed, 0.6, 0.25),
        ] {
            let mut rng = SmallRng::seed_from_u64(1);
            let steps: Vec<Step> = (0..DRAWS).map(|_| workload.step(&mut rng)).collect();
            let share =
                |wanted| steps.iter().filter(|step| **step == wanted).count() as f64 / DRAWS as f64;
            assert!((share(Step::Get) - reads).abs() < 0.01, "{workload:?}");
            assert!((share(Step::Put) - writes).abs() < 0.01, "{workload:?}");
        }
    }
}
