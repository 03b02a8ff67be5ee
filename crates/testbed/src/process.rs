//! A process under test: started, stopped, resumed and killed by its own pid, never by a name.
//!
//! A process is killed when its [`Process`] is dropped, so a test that fails or panics leaves none
//! behind. A test that is itself killed with SIGKILL does: Linux can tie a child's life to its
//! parent's, but asking for it needs code between fork and exec, which is unsafe and not worth it
//! here.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::process::{Child, Command};

/// How long to wait between two looks at a process that is to stop.
const STOP_POLL: Duration = Duration::from_millis(1);

/// Most of a log's end that is looked at for its last lines.
const TAIL_BYTES_MAX: usize = 64 * 1024;

/// What to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binary {
    /// The program's path.
    pub path: PathBuf,
    /// Its arguments, without its own name.
    pub args: Vec<OsString>,
    /// Environment variables set on top of this process's own.
    pub env: Vec<(OsString, OsString)>,
}

impl Binary {
    /// A program without arguments.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), args: Vec::new(), env: Vec::new() }
    }

    /// The same with more arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The same with an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

/// A process started here. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts a process; what it writes to stdout and stderr is appended to the file `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program not started.
    pub fn spawn(binary: &Binary, log: &Path) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open the log {}", log.display()))?;
        let child = binary
            .command()
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.path.display()))?;
        let pid = child.id().expect("a child just started has not been waited for");
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid is above zero");
        Ok(Self { child, pid, log: log.to_owned() })
    }

    /// The process id, which stays the process's own until it has been waited for.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended. None: it runs, or is paused.
    ///
    /// # Errors
    /// When the operating system cannot say.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Kills it (SIGKILL), paused or not, and waits until it is gone. A process that has ended stays
    /// so.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub async fn kill9(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.wait().await
    }

    /// Stops all of its threads (SIGSTOP), and returns once they have.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        loop {
            if let Some(status) = self.exit_status()? {
                bail!("the process {} has ended ({status})", self.pid());
            }
            match waitid(WaitId::Pid(self.pid), stopped) {
                Ok(Some(_)) => return Ok(()),
                // Not yet; or it has just ended, which the next look tells.
                Ok(None) | Err(Errno::CHILD) => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(STOP_POLL).await;
        }
    }

    /// Lets it go on after a pause (SIGCONT).
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to end (SIGTERM). A paused process hears of it when it resumes. Wait for the end with
    /// [`wait`](Self::wait).
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the operating system cannot say.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// Signals the process, unless it has been waited for: then its pid may be another's.
    fn signal(&self, signal: Signal) -> Result<()> {
        if self.child.id().is_some() {
            kill_process(self.pid, signal)
                .with_context(|| format!("cannot send {signal:?} to {}", self.pid()))?;
        }
        Ok(())
    }
}

/// The last `lines` lines of a log; empty when there is none.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let end = &bytes[bytes.len().saturating_sub(TAIL_BYTES_MAX)..];
    let text = String::from_utf8_lossy(end);
    let mut last = VecDeque::with_capacity(lines);
    for line in text.lines() {
        if last.len() == lines {
            last.pop_front();
        }
        last.push_back(line);
    }
    Vec::from(last).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_the_last_lines_of_a_log_and_empty_without_one() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(tail(&log, 2), "");
        fs::write(&log, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&log, 2), "two\nthree");
        assert_eq!(tail(&log, 9), "one\ntwo\nthree");
    }
}
