//! The command that measures.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, value_parser};
use latitude_bench::{Distribution, Workload};
use latitude_types::Level;

use super::{OutputArgs, ReceiptArg, level};
use crate::address::Address;
use crate::units::duration;

pub(super) const EXAMPLES: &str = "\
Without --to it brings up a cluster of its own on this machine, which shows what the nodes spend; it is \
gone afterwards. Clients ask, wait for the answer and ask again; each figure is the median of the rounds.

  OPS/S         operations answered in a second; MIN-MAX over the rounds
  SERVER        CPU time of all nodes for an operation, in microseconds; CLIENT: of this process
  SYNCS/1000 W  syncs of each node's store for 1,000 writes
  OPS/ENTRY     operations that share an entry of a range's log
  OTHERS        cores that were busy with something else: below 0.2 the round was quiet
  FOLLOWERS %   reads that a replica served that does not lead, by their receipts
  WAITS %       reads that waited until their replica knew enough for their session

Examples:
  latitude bench
  latitude bench --workload put,get --clients 1,16,64 --rounds 5
  latitude bench --workload get,b --level strict,sequential --session no,yes --connections 3
  latitude bench --workload a --keys 1000000 --ranges 12 --output json
  latitude bench --to 10.0.0.1:7400 --workload b --keyspace load
  latitude bench --idle-ranges 64,500
  latitude bench --wide-area";

/// The arguments of `latitude bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Nodes of a running cluster to put under load, instead of one of its own
    #[arg(long, value_name = "ADDR", value_delimiter = ',', conflicts_with = "idle_ranges")]
    pub to: Vec<Address>,
    /// What clients ask: put, get, a (half of each), b (95 % gets), mixed (60 % get, 25 % put, 10 %
    /// compare-and-set, 5 % delete)
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "put,get", value_parser = workload())]
    pub workload: Vec<Workload>,
    /// How many clients ask at once
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_value = "1,16,64", value_parser = value_parser!(u32).range(1..=10_000))]
    pub clients: Vec<u32>,
    /// How many connections the clients share; those to a cluster of its own are of its regions in turn
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// How long a round counts
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// How long a round runs before it counts
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub warm_up: Duration,
    /// How often to repeat everything
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 1000, value_parser = value_parser!(u32).range(..=8 << 20))]
    pub value_size: u32,
    /// How many keys there are; all are written first
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = value_parser!(u64).range(1..=100_000_000))]
    pub keys: u64,
    /// How keys are chosen [default: zipfian for a and b, else uniform]
    #[arg(long, value_name = "NAME", value_parser = distribution())]
    pub distribution: Option<Distribution>,
    /// The keyspace; made if there is none of this name
    #[arg(long, short, value_name = "NAME", default_value = "bench")]
    pub keyspace: String,
    /// Into how many ranges to cut the keyspace when it is made
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub ranges: u32,
    /// The consistency asked for
    #[arg(long, short, value_name = "LEVEL", value_delimiter = ',', default_value = "strict", value_parser = level())]
    pub level: Vec<Level>,
    /// Whether each client is a session
    #[arg(long, value_name = "YES|NO", value_delimiter = ',', default_value = "no", value_parser = yes_or_no())]
    pub session: Vec<bool>,
    /// How much answers tell of how they were served
    #[arg(long, value_name = "DETAIL", value_delimiter = ',', default_value = "short")]
    pub receipt: Vec<ReceiptArg>,
    /// Makes the choice of keys repeatable
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub seed: u64,
    /// Instead of load: what nodes cost that hold so many ranges nobody asks for
    #[arg(long, value_name = "COUNT", value_delimiter = ',', value_parser = value_parser!(u32).range(..=3_844))]
    pub idle_ranges: Vec<u32>,
    /// How long nodes with idle ranges are watched
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub idle_window: Duration,
    /// Instead of load: what COUNT causal and eventual operations one after another cost each of three regions, side by
    /// side and 80, 150 and 220 ms apart; how soon writes are folded, and how long sessions' tokens are
    #[arg(long, value_name = "COUNT", num_args = 0..=1, default_missing_value = "1000", value_parser = value_parser!(u32).range(1..=1_000_000), conflicts_with_all = ["to", "idle_ranges"])]
    pub wide_area: Option<u32>,
    /// How many nodes its own cluster has
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = value_parser!(u32).range(1..=9), conflicts_with = "to")]
    pub nodes: u32,
    /// Below which directory its own cluster stores; on the disk that is to be measured [default: the
    /// system's for temporary files]
    #[arg(long, value_name = "DIR", conflicts_with = "to")]
    pub dir: Option<PathBuf>,
    /// The programs whose clusters to compare, round by round [default: this one]
    #[arg(long, value_name = "FILE", value_delimiter = ',', conflicts_with = "to")]
    pub binary: Vec<PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

fn workload() -> impl TypedValueParser<Value = Workload> {
    PossibleValuesParser::new(Workload::ALL.map(Workload::name)).map(|name| {
        let found = Workload::ALL.into_iter().find(|workload| workload.name() == name);
        found.expect("a possible value is the name of a workload")
    })
}

fn yes_or_no() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["no", "yes"]).map(|word| word == "yes")
}

fn distribution() -> impl TypedValueParser<Value = Distribution> {
    PossibleValuesParser::new(Distribution::ALL.map(Distribution::name)).map(|name| {
        let found = Distribution::ALL.into_iter().find(|distribution| distribution.name() == name);
        found.expect("a possible value is the name of a distribution")
    })
}
