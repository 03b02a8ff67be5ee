//! Measuring: `bench`.

use std::env;
use std::time::Duration;

use latitude_bench::{Idle, Load, Manner, Options, Own, Style, Target, WideArea};

use crate::args::BenchArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Output};

pub(super) async fn run(args: BenchArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let style = match output.format() {
        Format::Text => Style::Table,
        Format::Json => Style::JsonLines,
    };
    let options = options(args)?;
    // Nobody need hear of progress for the measurement to be good.
    let mut say = |what: &str| drop(output.note(what));
    let report = latitude_bench::run(&options, &mut say).await?;
    output.line(&report.render(style))?;
    Ok(Exit::Success)
}

fn options(args: BenchArgs) -> Result<Options, Failure> {
    let target = if args.to.is_empty() {
        let binaries = if args.binary.is_empty() {
            let own = env::current_exe()
                .map_err(|error| anyhow::anyhow!("this program is not found: {error}"))?;
            vec![own]
        } else {
            args.binary
        };
        Target::Own(Own { binaries, dir: args.dir, nodes: args.nodes as usize })
    } else {
        Target::Running(args.to.iter().map(ToString::to_string).collect())
    };
    if !args.idle_ranges.is_empty() {
        let idle = Idle { ranges: args.idle_ranges, window: args.idle_window };
        return Ok(Options { target, load: None, idle: Some(idle), wide_area: None });
    }
    if let Some(operations) = args.wide_area {
        let wide_area = Some(WideArea { operations });
        return Ok(Options { target, load: None, idle: None, wide_area });
    }
    let mut manners = Vec::new();
    for level in &args.level {
        for in_session in &args.session {
            for receipt in &args.receipt {
                let (level, in_session, receipt) = (*level, *in_session, receipt.detail());
                manners.push(Manner { level, in_session, receipt });
            }
        }
    }
    let load = Load {
        workloads: args.workload,
        clients: args.clients,
        connections: args.connections,
        window: Duration::from_secs(args.seconds),
        warm_up: args.warm_up,
        rounds: args.rounds,
        value_size: args.value_size as usize,
        keys: args.keys,
        distribution: args.distribution,
        keyspace: args.keyspace,
        ranges: args.ranges,
        manners,
        seed: args.seed,
    };
    Ok(Options { target, load: Some(load), idle: None, wide_area: None })
}
