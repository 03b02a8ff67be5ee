//! Where the ranges of a new keyspace begin.

use crate::Unsatisfiable;

/// The most ranges a keyspace can be created with: one per prefix of two letters or digits.
pub const SPLIT_RANGES_MAX: usize = SYMBOLS.len() * SYMBOLS.len();

/// Letters and digits in the order of their bytes.
const SYMBOLS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The keys at which `ranges` ranges are cut: `ranges − 1` of them, strictly ascending, each of two
/// bytes. One range has none.
///
/// They cut the prefixes `00` to `zz` of two letters or digits into equal parts, which suits keys that
/// begin with a hash or a random id in hexadecimal, base 32 or base 62 roughly, and other keys not at
/// all. Real keys show only later where to cut; until then this is better than one range.
///
/// # Errors
///
/// For no range, or more than [`SPLIT_RANGES_MAX`].
pub fn split_points(ranges: usize) -> Result<Vec<Vec<u8>>, Unsatisfiable> {
    if ranges == 0 || ranges > SPLIT_RANGES_MAX {
        return Err(Unsatisfiable {
            message: format!(
                "a keyspace begins with 1 to {SPLIT_RANGES_MAX} ranges, not with {ranges}"
            ),
        });
    }
    let point = |i| {
        // i < ranges, so the prefix is one of them; ranges ≤ prefixes, so no two i share one.
        let prefix = i * SPLIT_RANGES_MAX / ranges;
        vec![SYMBOLS[prefix / SYMBOLS.len()], SYMBOLS[prefix % SYMBOLS.len()]]
    };
    Ok((1..ranges).map(point).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_symbols_are_in_the_order_of_their_bytes() {
        assert!(SYMBOLS.is_sorted());
    }

    #[test]
    fn points_ascend_and_cut_parts_that_differ_by_one_prefix_at_most() {
        for ranges in (1..200).chain([1000, 3843, SPLIT_RANGES_MAX]) {
            let points = split_points(ranges).unwrap();
            assert_eq!(points.len(), ranges - 1);
            assert!(points.is_sorted_by(|a, b| a < b));
            let number = |point: &Vec<u8>| {
                point.iter().fold(0, |n, byte| {
                    n * SYMBOLS.len() + SYMBOLS.iter().position(|symbol| symbol == byte).unwrap()
                })
            };
            let mut edges = vec![0];
            edges.extend(points.iter().map(number));
            edges.push(SPLIT_RANGES_MAX);
            let sizes: Vec<_> = edges.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(most - least <= 1 && *least > 0);
        }
    }
}
