//! How busy the machine is, whoever is to blame: what tells a quiet round from a disturbed one.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::from_ticks;

/// CPU time all cores have spent since the machine started, on anything but waiting.
pub(crate) fn busy() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    Ok(from_ticks(busy_ticks(&stat).context("/proc/stat is unreadable")?))
}

/// user + nice + system + irq + softirq + steal of the first line; idle and iowait are the fourth and fifth
/// number, and guests are counted as users already.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let numbers: Vec<u64> =
        line.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = numbers[..] else {
        return None;
    };
    Some(user + nice + system + irq + softirq + steal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_not_work() {
        assert_eq!(busy_ticks("cpu  1 2 4 800 900 8 16 32 0 0\ncpu0 1 1\n"), Some(63));
        assert_eq!(busy_ticks("intr 1 2"), None);
    }
}
