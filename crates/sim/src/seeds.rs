//! Seeds from one seed.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The seed of one user of randomness, named by what it is: adding another changes none.
pub(crate) fn derive(seed: u64, name: &str) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), seed)
}
