//! How fast a node sends snapshots: evenly, however many ranges have one to send.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Lets so many bytes pass in a second.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    /// When what has passed will have been paid for. `None` before the first.
    paid_at: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_at: Mutex::new(None) }
    }

    /// Resolves when these bytes may be sent. Whoever asked before goes before.
    pub(crate) async fn pass(&self, bytes: usize) {
        let mut paid_at = self.paid_at.lock().await;
        let begin = paid_at.unwrap_or_else(Instant::now).max(Instant::now());
        tokio::time::sleep_until(begin).await;
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        *paid_at = Some(begin + cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_bytes_pass_in_a_second_and_idle_time_is_not_saved_up() {
        let pace = Pace::new(1_000);
        let begun = Instant::now();
        for _ in 0..5 {
            pace.pass(500).await;
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(2), "the last of them is not yet paid for");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        for _ in 0..3 {
            pace.pass(1_000).await;
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
    }
}
