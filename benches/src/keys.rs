//! Which key is asked for next.

use rand::RngExt;
use rand::rngs::SmallRng;

/// The skew of YCSB's zipfian distribution.
const ZIPFIAN_CONSTANT: f64 = 0.99;
const KEY_LEN: usize = 16;
/// In the order of their bytes.
const SYMBOLS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// How often each key is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Distribution {
    /// All keys alike.
    Uniform,
    /// The k-th most popular key in proportion to k^-0.99; popular keys lie anywhere among the others.
    Zipfian,
}

impl Distribution {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Uniform, Self::Zipfian];

    /// Its name, as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipfian => "zipfian",
        }
    }
}

/// The keys of a run: 16 letters and digits each, spread evenly over all such keys, and so over ranges cut
/// evenly.
#[derive(Debug)]
pub(crate) struct Keys(Vec<[u8; KEY_LEN]>);

impl Keys {
    /// The same keys for the same count, so that a second run finds what a first one wrote.
    pub(crate) fn new(count: u64) -> Self {
        let key = |index: u64| {
            let mut key = [0; KEY_LEN];
            let mut bits = mix(index);
            for (at, symbol) in key.iter_mut().enumerate() {
                if at == KEY_LEN / 2 {
                    bits = mix(bits ^ index);
                }
                *symbol = SYMBOLS[(bits % 62) as usize];
                bits /= 62;
            }
            key
        };
        Self((0..count).map(key).collect())
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub(crate) fn get(&self, index: u64) -> &[u8] {
        &self.0[index as usize]
    }
}

/// Draws indexes below a count.
///
/// Zipfian ranks after Gray, Sundaresan, Englert, Baclawski, Weinberger: *Quickly Generating
/// Billion-Record Synthetic Databases* (SIGMOD 1994), as YCSB does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Chooser {
    Uniform { count: u64 },
    Zipfian { count: u64, zeta: f64, alpha: f64, eta: f64 },
}

impl Chooser {
    /// Takes time in proportion to `count`, which must not be 0.
    pub(crate) fn new(distribution: Distribution, count: u64) -> Self {
        assert!(count > 0, "there must be a key to choose");
        match distribution {
            Distribution::Uniform => Self::Uniform { count },
            Distribution::Zipfian => {
                let zeta = |n: u64| (1..=n).map(|rank| (rank as f64).powf(-ZIPFIAN_CONSTANT)).sum();
                let (all, two): (f64, f64) = (zeta(count), zeta(2));
                let eta =
                    (1.0 - (2.0 / count as f64).powf(1.0 - ZIPFIAN_CONSTANT)) / (1.0 - two / all);
                Self::Zipfian { count, zeta: all, alpha: 1.0 / (1.0 - ZIPFIAN_CONSTANT), eta }
            }
        }
    }

    pub(crate) fn next(&self, rng: &mut SmallRng) -> u64 {
        match *self {
            Self::Uniform { count } => rng.random_range(0..count),
            // The most popular keys must not be neighbours.
            Self::Zipfian { count, .. } => mix(self.rank(rng)) % count,
        }
    }

    /// 0 for the most popular.
    fn rank(&self, rng: &mut SmallRng) -> u64 {
        match *self {
            Self::Uniform { count } => rng.random_range(0..count),
            Self::Zipfian { count, zeta, alpha, eta } => {
                let uniform: f64 = rng.random();
                let scaled = uniform * zeta;
                if scaled < 1.0 {
                    return 0;
                }
                if scaled < 1.0 + 0.5f64.powf(ZIPFIAN_CONSTANT) {
                    return 1.min(count - 1);
                }
                let rank = count as f64 * (eta * uniform - eta + 1.0).powf(alpha);
                (rank as u64).min(count - 1)
            }
        }
    }
}

/// SplitMix64's finish: spreads neighbouring numbers (Steele, Lea, Flood: *Fast Splittable Pseudorandom
/// Number Generators*, OOPSLA 2014).
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn keys_are_distinct_and_begin_with_every_symbol() {
        let keys = Keys::new(10_000);
        let distinct: BTreeSet<&[u8]> = (0..keys.len()).map(|index| keys.get(index)).collect();
        assert_eq!(distinct.len(), 10_000);
        let first: BTreeSet<u8> = distinct.iter().map(|key| key[0]).collect();
        assert_eq!(first.len(), SYMBOLS.len());
    }

    #[test]
    fn a_uniform_chooser_chooses_every_key_and_no_other() {
        let (chooser, mut rng) =
            (Chooser::new(Distribution::Uniform, 10), SmallRng::seed_from_u64(1));
        let seen: BTreeSet<u64> = (0..1000).map(|_| chooser.next(&mut rng)).collect();
        assert_eq!(seen, (0..10).collect());
    }

    #[test]
    fn zipfian_ranks_come_as_often_as_their_law_says() {
        const COUNT: u64 = 1000;
        const DRAWS: u64 = 1_000_000;
        let (chooser, mut rng) =
            (Chooser::new(Distribution::Zipfian, COUNT), SmallRng::seed_from_u64(1));
        let mut counts = [0_u64; COUNT as usize];
        for _ in 0..DRAWS {
            counts[chooser.rank(&mut rng) as usize] += 1;
        }
        let zeta: f64 = (1..=COUNT).map(|rank| (rank as f64).powf(-0.99)).sum();
        // The first two ranks are exact, the others an approximation that is best in the sum.
        for rank in [0, 1] {
            let expected = (rank as f64 + 1.0).powf(-0.99) / zeta;
            let got = counts[rank] as f64 / DRAWS as f64;
            assert!((got / expected - 1.0).abs() < 0.02, "{rank}: {got} instead of {expected}");
        }
        let head: u64 = counts[..100].iter().sum();
        let expected: f64 = (1..=100).map(|rank| f64::from(rank).powf(-0.99)).sum::<f64>() / zeta;
        let got = head as f64 / DRAWS as f64;
        assert!((got / expected - 1.0).abs() < 0.05, "{got} instead of {expected}");
    }

    #[test]
    fn few_keys_are_enough_for_either_distribution() {
        for distribution in Distribution::ALL {
            for count in 1..4 {
                let (chooser, mut rng) =
                    (Chooser::new(distribution, count), SmallRng::seed_from_u64(1));
                assert!((0..1000).all(|_| chooser.next(&mut rng) < count), "{distribution:?}");
            }
        }
    }
}
