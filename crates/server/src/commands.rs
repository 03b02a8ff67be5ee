//! What each command does: arguments in, answers to the output, an exit code out.

mod admin;
mod bench;
mod context;
mod data;
mod export;
mod import;
mod session;
mod typed;

use std::future::Future;
use std::path::Path;

use clap::CommandFactory;
use latitude_client::{Client, Error, Reason};

pub use context::Context;

use crate::args::{Ask, Cli, Command, InitArgs};
use crate::config::ConfigFile;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::settings::{self, StartFlags};
use crate::{render, shell, start};

/// Does what the command says.
pub fn run(command: Command, output: &mut Output<'_>) -> Result<Exit, Failure> {
    match command {
        Command::Start(flags) => run_start(*flags, output),
        Command::Init(args) => wait_for(init(args, output)),
        Command::Ask(command) => wait_for(ask(command, &Context::default(), output)),
        Command::Shell(args) => shell::run(args, output),
        Command::Bench(args) => wait_for(bench::run(*args, output)),
        Command::Session(args) => session::run(&args, output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "latitude", &mut script);
            output.raw(&script)?;
            Ok(Exit::Success)
        }
        Command::Version => {
            output.line(concat!("latitude ", env!("CARGO_PKG_VERSION")))?;
            Ok(Exit::Success)
        }
        Command::ExitCodes => {
            output.line(Exit::MEANING)?;
            Ok(Exit::Success)
        }
    }
}

fn run_start(flags: StartFlags, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let print = flags.print_config;
    let file = flags.config.as_deref().map(ConfigFile::read).transpose()?;
    let options = settings::settle(flags, file)?;
    if print {
        output.raw(settings::to_toml(&options).as_bytes())?;
    } else {
        start::run(options)?;
    }
    Ok(Exit::Success)
}

/// Runs a command that asks a running cluster.
pub async fn ask(
    command: Ask,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    match command {
        Ask::Get(args) => data::get(args, context, output).await,
        Ask::Put(args) => data::put(args, context, output).await,
        Ask::Delete(args) => data::delete(args, context, output).await,
        Ask::Cas(args) => data::cas(args, context, output).await,
        Ask::Scan(args) => data::scan(args, context, output).await,
        Ask::Add(args) => typed::add(args, context, output).await,
        Ask::Reset(args) => typed::reset(args, context, output).await,
        Ask::Set(args) => typed::set(args, context, output).await,
        Ask::Map(args) => typed::map(args, context, output).await,
        Ask::Flag(args) => typed::flag(args, context, output).await,
        Ask::Import(args) => import::run(*args, context, output).await,
        Ask::Export(args) => export::run(*args, context, output).await,
        Ask::Admin(args) => admin::run(args, context, output).await,
    }
}

async fn init(args: InitArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let client = Client::builder().seeds(seeds(&args.to)).build();
    let reply = client.admin().init(Some(args.wait)).await?;
    match output.format() {
        Format::Text => output.line(&render::cluster_made(&reply))?,
        Format::Json => output.json(&render::cluster_made_json(&reply))?,
    }
    Ok(Exit::Success)
}

/// Runs a command that talks to a cluster, on this thread.
fn wait_for(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| anyhow::anyhow!("the runtime cannot be started: {error}"))?;
    let done = runtime.block_on(command);
    // A thread that waits for stdin would hold the process until somebody typed a line.
    runtime.shutdown_background();
    done
}

/// A file whose name does not say how its rows are written.
fn format_unknown(file: &Path) -> Failure {
    let file = file.display();
    Failure::Usage(format!(
        "how are the rows of {file} written? say --format tsv or --format jsonl"
    ))
}

/// Why rows are not copied: a row of a file is a key and the bytes of a register.
fn not_registers(keyspace: &str, value_type: &str) -> Failure {
    let message = format!(
        "the keyspace {keyspace:?} is of type {value_type}: only rows of registers are exported and imported yet"
    );
    Error::new(Reason::TypeMismatch, message).into()
}

fn seeds(addresses: &[crate::address::Address]) -> impl Iterator<Item = &str> {
    addresses.iter().map(crate::address::Address::as_str)
}
