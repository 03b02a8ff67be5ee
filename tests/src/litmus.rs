//! Litmus programs against a cluster: many runs at once, each on fresh keys, its sessions in all regions.
//!
//! ```text
//!   run 17   session 0 (us)   w x 1 ─▶ r y        x and y lie in ranges that different nodes lead;
//!            session 1 (ap)   w y 1 ─▶ r x        each session sees through its own region's replica
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use latitude_checker::sequential::litmus::{ALL, Litmus, Outcomes, Step};
use latitude_checker::sequential::{Report, Verdict};
use latitude_client::{Client, Keyspace, Level, Session};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::bed::{Bed, PATIENCE, eventually, regions};

/// Runs under way at once.
const AT_ONCE: usize = 20;
/// First letters of keys, over all ranges.
const LETTERS: &[u8] = b"059BGLQVaeimrw";

/// Runs under way.
pub struct Runs {
    running: JoinSet<Result<()>>,
    done: Arc<AtomicUsize>,
}

impl Runs {
    /// Starts `count` runs of every program, some of them at once.
    pub fn start(bed: &Bed, keyspace: &str, count: usize) -> Self {
        let clients: Vec<Client> = regions().into_iter().map(|region| bed.client(region)).collect();
        let (mut running, done) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for lane in 0..AT_ONCE {
            let (clients, keyspace, done) =
                (clients.clone(), keyspace.to_owned(), Arc::clone(&done));
            running.spawn(async move {
                for run in (lane..count * ALL.len()).step_by(AT_ONCE) {
                    one(&clients, &keyspace, run).await?;
                    done.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            });
        }
        Self { running, done }
    }

    /// Waits until so many runs are done.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn until_done(&self, count: usize) -> Result<()> {
        eventually("the runs go on", async || {
            let done = self.done.load(Ordering::SeqCst);
            ensure!(done >= count, "{done} of {count} are done");
            Ok(())
        })
        .await
    }

    /// Waits for all of them.
    ///
    /// # Errors
    /// When an outcome is forbidden, or an operation failed.
    pub async fn finish(mut self) -> Result<()> {
        while let Some(ended) = self.running.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// One run; its number decides the program, the keys and who is where.
async fn one(clients: &[Client], keyspace: &str, run: usize) -> Result<()> {
    let litmus = &ALL[run % ALL.len()];
    let mut sessions = JoinSet::new();
    for (at, steps) in litmus.sessions.iter().enumerate() {
        let client = &clients[(run / ALL.len() + at) % clients.len()];
        let keyspace = client
            .keyspace(keyspace)
            .with_level(Level::Sequential)
            .with_session(Session::new())
            .with_timeout(PATIENCE);
        sessions.spawn(async move {
            // Not all in step: some sessions begin later than others.
            sleep(Duration::from_millis((run * 7 + at * 3) as u64 % 10)).await;
            Ok::<_, anyhow::Error>((at, session(&keyspace, steps, run).await?))
        });
    }
    let mut outcomes: Outcomes = vec![Vec::new(); litmus.sessions.len()];
    while let Some(ended) = sessions.join_next().await {
        let (at, seen) = ended?.with_context(|| format!("run {run}, {}", litmus.name))?;
        outcomes[at] = seen;
    }
    judge(litmus, &outcomes).with_context(|| format!("run {run}"))
}

/// What a session's reads saw.
async fn session(keyspace: &Keyspace, steps: &[Step], run: usize) -> Result<Vec<Option<i64>>> {
    let mut seen = Vec::new();
    for step in steps {
        match *step {
            Step::Write(name, value) => {
                keyspace.put(key(name, run), value.to_string()).await?;
            }
            Step::Read(name) => {
                let found = keyspace.get(key(name, run)).await?.value;
                let parsed = found.map(|found| {
                    std::str::from_utf8(&found.bytes)?.parse::<i64>().context("no number")
                });
                seen.push(parsed.transpose()?);
            }
        }
    }
    Ok(seen)
}

/// The key of a run that a program calls `name`: in another range than the run's other keys.
fn key(name: &str, run: usize) -> String {
    let place = name.bytes().map(usize::from).sum::<usize>() * LETTERS.len() / 3 + run;
    format!("{}-{run}-{name}", LETTERS[place % LETTERS.len()] as char)
}

fn judge(litmus: &Litmus, outcomes: &Outcomes) -> Result<()> {
    let report: Option<Report> = litmus.judge(outcomes);
    let report = report.context("the outcome does not fit the program")?;
    ensure!(
        report.verdict == Verdict::Sequential,
        "{} {outcomes:?}: {}\n{report}",
        litmus.name,
        litmus.shows
    );
    Ok(())
}
