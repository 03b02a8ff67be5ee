//! What each command does: arguments in, answers to the output, an exit code out.

mod admin;
mod bench;
mod data;

use std::future::Future;

use clap::CommandFactory;
use latitude_client::Client;

use crate::args::{Cli, Command, ConnectArgs, InitArgs};
use crate::config::ConfigFile;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::settings::{self, StartFlags};
use crate::{render, start};

/// Does what the command says.
pub fn run(command: Command, output: &mut Output<'_>) -> Result<Exit, Failure> {
    match command {
        Command::Start(flags) => run_start(*flags, output),
        Command::Init(args) => wait_for(init(args, output)),
        Command::Get(args) => wait_for(data::get(args, output)),
        Command::Put(args) => wait_for(data::put(args, output)),
        Command::Delete(args) => wait_for(data::delete(args, output)),
        Command::Cas(args) => wait_for(data::cas(args, output)),
        Command::Scan(args) => wait_for(data::scan(args, output)),
        Command::Admin(args) => wait_for(admin::run(args, output)),
        Command::Bench(args) => wait_for(bench::run(*args, output)),
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
    runtime.block_on(command)
}

fn client(connect: &ConnectArgs) -> Client {
    let builder = Client::builder().seeds(seeds(&connect.to)).timeout(connect.timeout);
    match &connect.region {
        Some(region) => builder.region(region.as_str()).build(),
        None => builder.build(),
    }
}

fn seeds(addresses: &[crate::address::Address]) -> impl Iterator<Item = &str> {
    addresses.iter().map(crate::address::Address::as_str)
}
