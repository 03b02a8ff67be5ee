//! What a process has used so far, as Linux tells in `/proc/PID`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// What a process has used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time, its own and the kernel's for it.
    pub(crate) cpu: Duration,
    /// Memory it occupies now, in bytes.
    pub(crate) resident: u64,
}

impl Usage {
    /// Of the process `pid`.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        let ticks = cpu_ticks(&stat).with_context(|| format!("/proc/{pid}/stat is unreadable"))?;
        let resident = resident(&status).with_context(|| format!("process {pid} has ended"))?;
        Ok(Self { cpu: from_ticks(ticks), resident })
    }

    /// Of this process.
    pub(crate) fn own() -> Result<Self> {
        Self::of(std::process::id())
    }
}

/// A duration Linux counts in ticks of its clock.
pub(crate) fn from_ticks(ticks: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_secs_f64(ticks as f64 / per_second as f64)
}

/// User's and system's time of `/proc/PID/stat`, the 14th and 15th field. The second is the name, which may
/// hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_name_with_parentheses() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 3 4 20 0 9 0 100 1 2";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn resident_memory_is_told_in_bytes() {
        assert_eq!(resident("VmPeak:\t  99 kB\nVmRSS:\t    12 kB\n"), Some(12 << 10));
        assert_eq!(resident("Name:\tzombie\n"), None);
    }

    #[test]
    fn this_process_occupies_memory() {
        assert!(Usage::own().unwrap().resident > 0);
    }
}
