//! How long requests took, and how old answers were.

use std::time::Duration;

/// Latencies of requests of one sort, or ages of their answers.
#[derive(Clone, Default, Debug)]
pub(crate) struct Latencies {
    /// In the order they were added.
    values: Vec<Duration>,
}

impl Latencies {
    /// Adds a request's.
    pub(crate) fn add(&mut self, latency: Duration) {
        self.values.push(latency);
    }

    /// Adds others of the same sort.
    pub(crate) fn extend(&mut self, others: &Self) {
        self.values.extend_from_slice(&others.values);
    }

    /// How many requests.
    pub(crate) fn count(&self) -> usize {
        self.values.len()
    }

    /// The smallest latency that `percent` of a hundred requests did not exceed (the nearest rank, so
    /// always one that was measured). `None` without requests. Panics above 100.
    pub(crate) fn percentile(&self, percent: usize) -> Option<Duration> {
        assert!(percent <= 100, "there is no percentile {percent}");
        let mut sorted = self.values.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }
}

/// A latency for a person: `81 ms`, `0.7 ms` below ten, `2.31 s` from a second on.
pub(crate) fn text(latency: Duration) -> String {
    let ms = latency.as_secs_f64() * 1000.0;
    // Decided on what is printed: 9.96 ms is 10 ms and not 10.0 ms.
    if ms < 9.95 {
        format!("{ms:.1} ms")
    } else if ms < 999.5 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.2} s", ms / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::default();
        values.into_iter().for_each(|ms| latencies.add(Duration::from_millis(ms)));
        latencies
    }

    fn ms(latencies: &Latencies, percent: usize) -> Option<u128> {
        latencies.percentile(percent).map(|latency| latency.as_millis())
    }

    #[test]
    fn a_percentile_is_the_nearest_rank_in_any_order() {
        let hundred = of((1..=100).rev());
        assert_eq!(
            [0, 1, 50, 99, 100].map(|percent| ms(&hundred, percent).unwrap()),
            [1, 1, 50, 99, 100]
        );
        let five = of([50, 15, 40, 20, 35]);
        assert_eq!([5, 30, 40, 50, 99].map(|p| ms(&five, p).unwrap()), [15, 20, 20, 35, 50]);
    }

    #[test]
    fn one_request_is_every_percentile_and_none_has_none() {
        assert_eq!((ms(&of([7]), 50), ms(&of([7]), 99)), (Some(7), Some(7)));
        assert_eq!(ms(&of([]), 50), None);
    }

    #[test]
    fn latencies_of_parts_are_those_of_the_whole() {
        let mut whole = of([1, 2]);
        whole.extend(&of([3]));
        assert_eq!((whole.count(), ms(&whole, 100)), (3, Some(3)));
    }

    #[test]
    fn a_latency_is_written_as_precisely_as_it_is_read() {
        let texts = [80, 700, 9_940, 9_960, 80_600, 999_400, 999_600, 2_314_000]
            .map(|us| text(Duration::from_micros(us)));
        let expected =
            ["0.1 ms", "0.7 ms", "9.9 ms", "10 ms", "81 ms", "999 ms", "1.00 s", "2.31 s"];
        assert_eq!(texts, expected);
    }
}
