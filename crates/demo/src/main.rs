//! The first command of a visitor: a cluster in three regions, real data in it, what requests cost, and
//! a node killed.
//!
//! ```text
//!   start ─▶ import ─▶ cost of writes and reads ─▶ a session handed over ─┐
//!     ┌───────────────────────────────────────────────────────────────────┘
//!     └─▶ a region cut off, and back ─▶ kill -9, reads go on, writes come back ─▶ restart ─▶ verify every write ─▶ exit 0
//!
//!     3 × `latitude start`, a RocksDB each, TCP between them through the testbed's wide-area proxy
//! ```
//!
//! It uses the cluster as a visitor would, through the client and the command line, and knows nothing
//! of the server's inside.

mod cost;
mod crash;
mod cut_off;
mod handover;
mod import;
mod latencies;
mod ledger;
mod live;
mod reads;
mod screen;
mod story;
mod verify;
mod world;
mod zones;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::screen::Screen;
use crate::world::World;

/// Where the cluster of `--keep` lives.
const KEPT: &str = ".demo";

/// Lines of a dead node's log that are shown.
const LOG_LINES: usize = 40;

/// What a shell reports of a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Three regions on this machine: import real data, see what requests cost, kill a node, lose nothing.
#[derive(Parser, Debug)]
#[command(name = "latitude-demo", version, max_term_width = 100)]
struct Args {
    /// The program `latitude`
    #[arg(long, value_name = "FILE")]
    latitude: PathBuf,
    /// Leave the cluster up at the end, until Ctrl-C, with its stores in ./.demo
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(run(&args)) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // When stderr is gone too, the exit code still tells.
    let _ = writeln!(io::stderr(), "\nThe demo failed: {error:#}");
    ExitCode::FAILURE
}

async fn run(args: &Args) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let mut screen = Screen::stdout();
    let latitude = fs::canonicalize(&args.latitude)
        .with_context(|| format!("there is no program {}", args.latitude.display()))?;
    let home = Home::make(args.keep)?;
    let shown = tokio::select! {
        biased;
        () = signals.told_to_stop() => None,
        shown = show(&latitude, home.path(), &mut screen) => Some(shown),
    };
    match shown {
        // What ran has been dropped, which killed the nodes.
        None => {
            home.remove()?;
            Ok(ExitCode::from(EXIT_INTERRUPTED))
        }
        Some(Ok(world)) => {
            if args.keep {
                story::invite(&world, &latitude, &mut screen)?;
                signals.told_to_stop().await;
            }
            world.stop().await?;
            home.remove()?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Err(error)) => {
            let path = home.keep();
            Err(error.context(format!("stores and logs are left in {}", path.display())))
        }
    }
}

/// Shows everything. Returns the cluster, still up.
async fn show(latitude: &Path, dir: &Path, screen: &mut Screen) -> Result<World> {
    let began = Instant::now();
    let zones = zones::all()?;
    screen.heading("Three nodes in three regions, on this machine")?;
    screen.progress("starting")?;
    let world = World::start(latitude, dir).await?;
    story::introduce(&world, began.elapsed(), screen).await?;
    if let Err(error) = story::tell(&world, &zones, screen).await {
        return Err(with_logs_of_dead_nodes(&world, error).await);
    }
    let took = began.elapsed().as_secs_f64();
    screen.heading(&format!("Everything verified, {took:.0} s in all"))?;
    Ok(world)
}

/// Adds the end of the log of every node that is not running.
async fn with_logs_of_dead_nodes(world: &World, error: anyhow::Error) -> anyhow::Error {
    let mut text = format!("{error:#}");
    for node in world.cluster.nodes() {
        if node.pid().await.is_none() {
            let tail = node.log_tail(LOG_LINES);
            text.push_str(&format!("\n\n{} is not running; its log ends:\n{tail}", node.name()));
        }
    }
    anyhow::Error::msg(text)
}

/// The directory of stores and logs.
enum Home {
    /// Removed when it is dropped.
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl Home {
    fn make(keep: bool) -> Result<Self> {
        if !keep {
            let dir = tempfile::Builder::new().prefix("latitude-demo-").tempdir();
            return Ok(Self::Temporary(dir.context("cannot make a temporary directory")?));
        }
        let path = std::env::current_dir()?.join(KEPT);
        ensure!(
            !path.exists(),
            "{} is there already, from an earlier demo: if none runs in it, remove it",
            path.display()
        );
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self::Kept(path))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(path) => path,
        }
    }

    /// Removes it.
    fn remove(self) -> Result<()> {
        match self {
            Self::Temporary(dir) => Ok(dir.close()?),
            Self::Kept(path) => Ok(fs::remove_dir_all(path)?),
        }
    }

    /// Leaves it, for a person to look at.
    fn keep(self) -> PathBuf {
        match self {
            Self::Temporary(dir) => dir.keep(),
            Self::Kept(path) => path,
        }
    }
}

/// The signals that end the demo.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn told_to_stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
