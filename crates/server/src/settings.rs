//! From flags, file and defaults to what a node is told.
//!
//! ```text
//!   flag (or its environment variable)  >  file  >  default
//!                                └──── settle ────▶ StartOptions, or where the mistake stands
//! ```
//!
//! The times of Raft follow from one number a person knows, the largest round trip between nodes:
//!
//! ```text
//!   heartbeat_interval   = max(150 ms, 2 × round_trip_max)    a heartbeat's interval is also its deadline
//!   election_timeout_min = 4 × heartbeat_interval             three lost heartbeats are no dead leader
//!   election_timeout_max = 7/4 × election_timeout_min         room for two candidates to miss each other
//! ```
//!
//! With a smaller heartbeat no heartbeat would be answered in time: an idle leader would hold no lease.
//! So 2 × and 4 × are not advice: less is refused.

use std::ops::Range;
use std::path::PathBuf;

use clap::Args;
use toml::Spanned;

use crate::address::{Address, PlaceName, by_region};
use crate::config::{ConfigError, ConfigFile, Entry, Limits, Log, Node, Raft, Sections};
use crate::start::{ReadMode, StartOptions};
use crate::telemetry::{LogFilter, LogFormat};
use crate::units::{ByteCount, Millis};

/// The flags of `latitude start`. Absent: the file's value, or the default.
#[derive(Args, Clone, Default, Debug)]
pub struct StartFlags {
    /// Read settings from this TOML file; flags override it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print the settings that result from flags, file and defaults, as such a file, and stop
    #[arg(long)]
    pub print_config: bool,

    /// The region this node is in [default: local]
    #[arg(long, value_name = "REGION", help_heading = "Node")]
    pub region: Option<PlaceName>,

    /// The zone in the region: nodes of one zone may fail together [default: a]
    #[arg(long, value_name = "ZONE", help_heading = "Node")]
    pub zone: Option<PlaceName>,

    /// The directory of the store, created if it is not there [default: ./latitude-data]
    #[arg(long, value_name = "DIR", help_heading = "Node")]
    pub store: Option<PathBuf>,

    /// The address to listen on, for gRPC and for HTTP /metrics [default: 127.0.0.1:7400]
    ///
    /// Port 0 takes a free port. Nothing asks for passwords or encrypts yet: listen beyond this machine
    /// only in a network you trust.
    #[arg(long, value_name = "ADDR", help_heading = "Node")]
    pub listen: Option<Address>,

    /// The address by which others reach this node [default: the one it listens on]
    #[arg(long, value_name = "ADDR", help_heading = "Node")]
    pub advertise: Option<Address>,

    /// The address by which nodes and clients of REGION reach this node instead; repeatable
    #[arg(long, value_name = "REGION=ADDR", value_parser = by_region::<Address>, help_heading = "Node")]
    pub advertise_from: Vec<(PlaceName, Address)>,

    /// Nodes of the cluster to join, by comma or repeated; this node may be among them
    ///
    /// With it the node waits for `latitude init`, once for the whole cluster. Without it the node is a
    /// cluster of its own.
    #[arg(long, value_name = "ADDR", value_delimiter = ',', help_heading = "Node")]
    pub join: Vec<Address>,

    /// Memory for blocks read from disk [default: 256MiB]
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub cache_size: Option<ByteCount>,

    /// Refuse writes while the store's disk has less free than this; 0: never [default: 512MiB]
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub free_space_floor: Option<ByteCount>,

    /// Refuse requests beyond so many at once [default: 4096]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_requests_in_flight: Option<u32>,

    /// Refuse causal and eventual writes to a range that has so much that is not in its log yet; they are slowed
    /// from half of it on [default: 64MiB]
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub unfolded_bytes: Option<ByteCount>,

    /// Shorten a range's log once it holds so much; a replica that lacks more than half of that after an
    /// absence is sent a snapshot [default: 64MiB]
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub snapshot_log_bytes: Option<ByteCount>,

    /// Send snapshots no faster than this, all ranges together [default: 32MiB]
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub snapshot_bytes_per_second: Option<ByteCount>,

    /// How far the clocks of nodes may differ; a node that differs more stops serving [default: 500ms]
    #[arg(long, value_name = "MS", help_heading = "Limits")]
    pub max_clock_offset: Option<Millis>,

    /// The largest round trip between nodes to plan for [default: 300ms with --join, else 10ms]
    ///
    /// Heartbeats and elections follow from it. A smaller one finds a dead leader sooner; one that is
    /// too small finds living leaders dead.
    #[arg(long, value_name = "MS", help_heading = "Raft")]
    pub round_trip_max: Option<Millis>,

    /// How often a leader is heard from [default: 2 round trips, at least 150ms]
    #[arg(long, value_name = "MS", help_heading = "Raft")]
    pub heartbeat_interval: Option<Millis>,

    /// How long to wait for a leader before an election, at least [default: 4 heartbeats]
    #[arg(long, value_name = "MS", help_heading = "Raft")]
    pub election_timeout_min: Option<Millis>,

    /// The same, at most: each wait is drawn between the two [default: 7 heartbeats]
    #[arg(long, value_name = "MS", help_heading = "Raft")]
    pub election_timeout_max: Option<Millis>,

    /// How a leader proves that a strict read is up to date [default: read-index]
    ///
    /// read-index asks a quorum. lease needs no message, and believes the nodes' clocks to run at the same
    /// speed to within a tenth: leave it where machines are paused or moved while they run. Leases begin once
    /// every node has been started with them. Such a node is silent for about --election-timeout-max after
    /// its start: it neither votes nor takes over, and a cluster that starts as a whole serves nothing for as long.
    #[arg(long, value_name = "MODE", help_heading = "Raft")]
    pub read_mode: Option<ReadMode>,

    /// How log lines look [default: text]
    #[arg(long, value_name = "FORMAT", help_heading = "Log")]
    pub log_format: Option<LogFormat>,

    /// Which log lines to write [default: info]
    ///
    /// off, error, warn, info, debug or trace; or levels by part, like info,latitude_node=debug. A level
    /// alone is for Latitude's own lines, libraries speak from warn on.
    #[arg(long, value_name = "LEVEL", env = "LATITUDE_LOG", help_heading = "Log")]
    pub log_level: Option<LogFilter>,

    /// For tests: move this node's physical clock by so many milliseconds
    #[arg(long, value_name = "MS", hide = true, allow_hyphen_values = true)]
    pub clock_skew_ms: Option<i64>,
}

/// Where a setting's value comes from.
enum Source {
    Flag,
    File(Range<usize>),
    Default,
}

/// A value and where it comes from.
struct Setting<T> {
    /// The name in the file; the flag's is the same with dashes.
    name: &'static str,
    value: T,
    source: Source,
}

impl<T> Setting<T> {
    fn new(name: &'static str, flag: Option<T>, entry: Entry<T>) -> Setting<Option<T>> {
        let (value, source) = match (flag, entry) {
            (Some(value), _) => (Some(value), Source::Flag),
            (None, Some(entry)) => {
                let span = entry.span();
                (Some(entry.into_inner()), Source::File(span))
            }
            (None, None) => (None, Source::Default),
        };
        Setting { name, value, source }
    }
}

impl<T> Setting<Option<T>> {
    fn or(self, default: T) -> Setting<T> {
        Setting { name: self.name, value: self.value.unwrap_or(default), source: self.source }
    }
}

impl<T> Setting<T> {
    /// An error about this setting that names where it stands.
    fn error(&self, file: Option<&ConfigFile>, message: String) -> ConfigError {
        let flag = match self.name {
            "format" | "level" => format!("--log-{}", self.name),
            name => format!("--{}", name.replace('_', "-")),
        };
        match (&self.source, file) {
            (Source::File(span), Some(file)) => {
                file.error_at(span.clone(), format!("{} {message}", self.name))
            }
            _ => ConfigError::in_flag(format!("{flag} {message}")),
        }
    }

    fn is_set(&self) -> bool {
        !matches!(self.source, Source::Default)
    }
}

/// What a node is told: flags over the file over defaults, refused if it makes no sense together.
pub fn settle(
    flags: StartFlags,
    mut file: Option<ConfigFile>,
) -> Result<StartOptions, ConfigError> {
    let Sections { node, limits, mut raft, log } =
        file.as_mut().map(|file| std::mem::take(&mut file.sections)).unwrap_or_default();
    let file = file.as_ref();

    let join = Setting::new("join", (!flags.join.is_empty()).then_some(flags.join), node.join);
    let mut join = join.or(Vec::new());
    let mut seen = std::collections::BTreeSet::new();
    join.value.retain(|address| seen.insert(address.clone()));
    for address in &join.value {
        if !address.can_be_dialled() {
            let message =
                format!("names {address}, which cannot be dialled: name a host and a port");
            return Err(join.error(file, message));
        }
    }

    let advertise_from = Setting::new(
        "advertise_from",
        (!flags.advertise_from.is_empty()).then(|| flags.advertise_from.into_iter().collect()),
        node.advertise_from,
    )
    .or(Default::default());
    for (region, address) in &advertise_from.value {
        if !address.can_be_dialled() {
            let message = format!(
                "tells {region} to dial {address}, which cannot be dialled: name a host and a port"
            );
            return Err(advertise_from.error(file, message));
        }
    }

    let listen = Setting::new("listen", flags.listen, node.listen).or(Address::default());
    let advertise = Setting::new("advertise", flags.advertise, node.advertise);
    match &advertise.value {
        Some(address) if !address.can_be_dialled() => {
            let message = format!("is {address}, which cannot be dialled: name a host and a port");
            return Err(advertise.error(file, message));
        }
        None if listen.value.is_wildcard() => {
            let message = format!(
                "is {}, which nobody can dial: say with advertise how others reach this node",
                listen.value
            );
            return Err(listen.error(file, message));
        }
        _ => {}
    }

    let cache_size =
        Setting::new("cache_size", flags.cache_size, limits.cache_size).or(ByteCount::mib(256));
    within(&cache_size, file, ByteCount::mib(8), ByteCount(1 << 40))?;
    let free_space_floor =
        Setting::new("free_space_floor", flags.free_space_floor, limits.free_space_floor)
            .or(ByteCount::mib(512));
    let max_requests_in_flight = Setting::new(
        "max_requests_in_flight",
        flags.max_requests_in_flight,
        limits.max_requests_in_flight,
    )
    .or(4096);
    within(&max_requests_in_flight, file, 1, 1_000_000)?;
    let unfolded_bytes =
        Setting::new("unfolded_bytes", flags.unfolded_bytes, limits.unfolded_bytes)
            .or(ByteCount::mib(64));
    within(&unfolded_bytes, file, ByteCount::mib(1), ByteCount(1 << 40))?;
    let snapshot_log_bytes =
        Setting::new("snapshot_log_bytes", flags.snapshot_log_bytes, limits.snapshot_log_bytes)
            .or(ByteCount::mib(64));
    within(&snapshot_log_bytes, file, ByteCount::mib(1), ByteCount(1 << 40))?;
    let snapshot_bytes_per_second = Setting::new(
        "snapshot_bytes_per_second",
        flags.snapshot_bytes_per_second,
        limits.snapshot_bytes_per_second,
    )
    .or(ByteCount::mib(32));
    within(&snapshot_bytes_per_second, file, ByteCount(64 << 10), ByteCount(1 << 40))?;
    let max_clock_offset =
        Setting::new("max_clock_offset", flags.max_clock_offset, limits.max_clock_offset)
            .or(Millis::new(500));
    within(&max_clock_offset, file, Millis::new(1), Millis::new(60_000))?;

    let read_mode = Setting::new("read_mode", flags.read_mode, raft.read_mode.take());
    let times = settle_times(
        [
            flags.round_trip_max,
            flags.heartbeat_interval,
            flags.election_timeout_min,
            flags.election_timeout_max,
        ],
        raft,
        !join.value.is_empty(),
        file,
    )?;

    Ok(StartOptions {
        region: Setting::new("region", flags.region, node.region).or(place_name("local")).value,
        zone: Setting::new("zone", flags.zone, node.zone).or(place_name("a")).value,
        store: Setting::new("store", flags.store, node.store).or("latitude-data".into()).value,
        listen: listen.value,
        advertise: advertise.value,
        advertise_from: advertise_from.value,
        join: join.value,
        cache_size: cache_size.value,
        free_space_floor: free_space_floor.value,
        max_requests_in_flight: max_requests_in_flight.value,
        unfolded_bytes: unfolded_bytes.value,
        snapshot_log_bytes: snapshot_log_bytes.value,
        snapshot_bytes_per_second: snapshot_bytes_per_second.value,
        max_clock_offset: max_clock_offset.value,
        round_trip_max: times.round_trip_max,
        heartbeat_interval: times.heartbeat_interval,
        election_timeout_min: times.election_timeout_min,
        election_timeout_max: times.election_timeout_max,
        read_mode: read_mode.or(ReadMode::ReadIndex).value,
        log_format: Setting::new("format", flags.log_format, log.format).or(LogFormat::Text).value,
        log_level: Setting::new("level", flags.log_level, log.level).or(LogFilter::default()).value,
        clock_skew_ms: flags.clock_skew_ms.unwrap_or(0),
    })
}

struct Times {
    round_trip_max: Millis,
    heartbeat_interval: Millis,
    election_timeout_min: Millis,
    election_timeout_max: Millis,
}

/// The times of Raft: see the module's picture. Flags in the order of the fields.
fn settle_times(
    flags: [Option<Millis>; 4],
    raft: Raft,
    joins: bool,
    file: Option<&ConfigFile>,
) -> Result<Times, ConfigError> {
    // A node that joins others may be far from them; one alone talks to nobody.
    let round_trip_default = Millis::new(if joins { 300 } else { 10 });
    let round_trip =
        Setting::new("round_trip_max", flags[0], raft.round_trip_max).or(round_trip_default);
    within(&round_trip, file, Millis::new(1), Millis::new(10_000))?;
    let heartbeat_least = round_trip.value.times(2);
    let heartbeat = Setting::new("heartbeat_interval", flags[1], raft.heartbeat_interval)
        .or(heartbeat_least.max(Millis::new(150)));
    if heartbeat.value < heartbeat_least {
        let filled_in = if round_trip.is_set() { "" } else { " unless set" };
        let message = format!(
            "is {}, less than twice round_trip_max ({}{filled_in}), so heartbeats would not be answered in time: make it at least {heartbeat_least}, or plan for a smaller round trip",
            heartbeat.value, round_trip.value
        );
        return Err(heartbeat.error(file, message));
    }

    let election_least = heartbeat.value.times(4);
    let election_min = Setting::new("election_timeout_min", flags[2], raft.election_timeout_min)
        .or(election_least);
    if election_min.value < election_least {
        let message = format!(
            "is {}, less than four times heartbeat_interval ({}): make it at least {election_least}",
            election_min.value, heartbeat.value
        );
        return Err(election_min.error(file, message));
    }

    let election_max = Setting::new("election_timeout_max", flags[3], raft.election_timeout_max)
        .or(Millis::new(election_min.value.ms() * 7 / 4));
    if election_max.value <= election_min.value {
        let message = format!(
            "is {}, not above election_timeout_min ({}): make it larger, so that candidates seldom stand at the same time",
            election_max.value, election_min.value
        );
        return Err(election_max.error(file, message));
    }
    Ok(Times {
        round_trip_max: round_trip.value,
        heartbeat_interval: heartbeat.value,
        election_timeout_min: election_min.value,
        election_timeout_max: election_max.value,
    })
}

fn within<T: PartialOrd + std::fmt::Display>(
    setting: &Setting<T>,
    file: Option<&ConfigFile>,
    least: T,
    most: T,
) -> Result<(), ConfigError> {
    if setting.value < least || setting.value > most {
        let message = format!("is {}: it must be from {least} to {most}", setting.value);
        return Err(setting.error(file, message));
    }
    Ok(())
}

fn place_name(name: &str) -> PlaceName {
    name.parse().expect("the defaults are names")
}

/// The options as a configuration file that gives the same options.
pub fn to_toml(options: &StartOptions) -> String {
    fn entry<T>(value: T) -> Entry<T> {
        Some(Spanned::new(0..0, value))
    }
    let sections = Sections {
        node: Node {
            region: entry(options.region.clone()),
            zone: entry(options.zone.clone()),
            store: entry(options.store.clone()),
            listen: entry(options.listen.clone()),
            advertise: options.advertise.clone().and_then(entry),
            // Left out if empty: an empty table would look like something to be filled in.
            join: Some(options.join.clone()).filter(|join| !join.is_empty()).and_then(entry),
            advertise_from: Some(options.advertise_from.clone())
                .filter(|advertise_from| !advertise_from.is_empty())
                .and_then(entry),
        },
        limits: Limits {
            cache_size: entry(options.cache_size),
            free_space_floor: entry(options.free_space_floor),
            max_requests_in_flight: entry(options.max_requests_in_flight),
            unfolded_bytes: entry(options.unfolded_bytes),
            snapshot_log_bytes: entry(options.snapshot_log_bytes),
            snapshot_bytes_per_second: entry(options.snapshot_bytes_per_second),
            max_clock_offset: entry(options.max_clock_offset),
        },
        raft: Raft {
            round_trip_max: entry(options.round_trip_max),
            heartbeat_interval: entry(options.heartbeat_interval),
            election_timeout_min: entry(options.election_timeout_min),
            election_timeout_max: entry(options.election_timeout_max),
            read_mode: entry(options.read_mode),
        },
        log: Log { format: entry(options.log_format), level: entry(options.log_level.clone()) },
    };
    toml::to_string(&sections).expect("every setting has a TOML form")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn file(text: &str) -> ConfigFile {
        ConfigFile::parse(Path::new("node.toml"), text.to_string()).unwrap()
    }

    fn settled(flags: StartFlags, text: &str) -> Result<StartOptions, String> {
        settle(flags, Some(file(text))).map_err(|error| error.to_string())
    }

    fn refused(text: &str) -> String {
        settled(StartFlags::default(), text).unwrap_err()
    }

    #[test]
    fn without_anything_a_node_is_a_cluster_of_its_own_on_loopback() {
        let options = settle(StartFlags::default(), None).unwrap();
        assert_eq!(options.listen.as_str(), "127.0.0.1:7400");
        assert_eq!((options.region.as_str(), options.zone.as_str()), ("local", "a"));
        assert_eq!(options.store, PathBuf::from("latitude-data"));
        assert!(options.join.is_empty() && options.advertise.is_none());
        assert_eq!(options.heartbeat_interval, Millis::new(150));
        assert_eq!(options.election_timeout_min, Millis::new(600));
        assert_eq!(options.election_timeout_max, Millis::new(1050));
    }

    #[test]
    fn a_node_that_joins_others_plans_for_an_ocean_between_them() {
        let join = vec!["10.0.0.1:7400".parse().unwrap()];
        let options = settle(StartFlags { join, ..Default::default() }, None).unwrap();
        assert_eq!(options.round_trip_max, Millis::new(300));
        assert_eq!(options.heartbeat_interval, Millis::new(600));
        assert_eq!(options.election_timeout_min, Millis::new(2400));
    }

    #[test]
    fn a_flag_overrides_the_file_and_the_file_the_default() {
        let text = "[node]\nregion = \"eu\"\nzone = \"b\"\njoin = [\"a:1\", \"b:1\"]\n";
        let flags = StartFlags {
            region: Some("us".parse().unwrap()),
            join: vec!["c:1".parse().unwrap()],
            ..Default::default()
        };
        let options = settled(flags, text).unwrap();
        assert_eq!(options.region.as_str(), "us");
        assert_eq!(options.zone.as_str(), "b");
        assert_eq!(options.store, PathBuf::from("latitude-data"));
        assert_eq!(options.join, ["c:1".parse().unwrap()]);
    }

    #[test]
    fn times_that_do_not_fit_each_other_are_refused_with_the_line() {
        let error = refused("[raft]\nround_trip_max = 200\nheartbeat_interval = \"300ms\"\n");
        assert!(error.starts_with("node.toml, line 3: heartbeat_interval is 300ms"), "{error}");
        assert!(error.contains("at least 400ms"), "{error}");

        let error = refused("[raft]\nheartbeat_interval = 200\n\nelection_timeout_min = 700\n");
        assert!(error.starts_with("node.toml, line 4: election_timeout_min is 700ms"), "{error}");
        assert!(error.contains("at least 800ms"), "{error}");

        let error =
            refused("[raft]\nelection_timeout_min = \"1s\"\nelection_timeout_max = \"1s\"\n");
        assert!(error.starts_with("node.toml, line 3: election_timeout_max is 1s"), "{error}");
    }

    #[test]
    fn a_flag_that_does_not_fit_the_file_is_named_as_the_flag() {
        let flags = StartFlags { heartbeat_interval: Some(Millis::new(100)), ..Default::default() };
        let error = settled(flags, "[raft]\nround_trip_max = 80\n").unwrap_err();
        assert!(error.starts_with("--heartbeat-interval is 100ms"), "{error}");
    }

    #[test]
    fn the_file_is_named_when_a_flag_makes_its_value_too_small() {
        let flags = StartFlags { round_trip_max: Some(Millis::new(100)), ..Default::default() };
        let error = settled(flags, "[raft]\nheartbeat_interval = 150\n").unwrap_err();
        assert!(error.starts_with("node.toml, line 2: heartbeat_interval is 150ms"), "{error}");
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_line_and_the_range() {
        for (text, line, range) in [
            ("[limits]\ncache_size = \"1KiB\"\n", 2, "from 8MiB to 1TiB"),
            ("[limits]\n\nmax_requests_in_flight = 0\n", 3, "from 1 to 1000000"),
            ("[limits]\nmax_clock_offset = \"2m\"\n", 2, "from 1ms to 1m"),
            ("[limits]\nsnapshot_log_bytes = 1000\n", 2, "from 1MiB to 1TiB"),
            ("[raft]\nround_trip_max = 0\n", 2, "from 1ms to 10s"),
        ] {
            let error = refused(text);
            assert!(error.starts_with(&format!("node.toml, line {line}: ")), "{error}");
            assert!(error.contains(range), "{error}");
        }
    }

    #[test]
    fn addresses_nobody_can_dial_are_refused_with_the_line() {
        for (text, line) in [
            ("[node]\nlisten = \"0.0.0.0:7400\"\n", 2),
            ("[node]\n\nadvertise = \"0.0.0.0:7400\"\n", 3),
            ("[node]\njoin = [\"a:1\", \"b:0\"]\n", 2),
            ("[node]\nadvertise_from = { us = \"a:0\" }\n", 2),
        ] {
            let error = refused(text);
            assert!(error.starts_with(&format!("node.toml, line {line}: ")), "{error}");
            assert!(error.contains("dial"), "{error}");
        }
    }

    #[test]
    fn a_free_port_may_be_listened_on_without_being_advertised() {
        let options = settled(StartFlags::default(), "[node]\nlisten = \"127.0.0.1:0\"\n").unwrap();
        assert_eq!(options.advertise, None);
    }

    #[test]
    fn a_printed_configuration_gives_the_same_options() {
        let text = r#"
            [node]
            region = "eu"
            listen = "0.0.0.0:7400"
            advertise = "10.0.0.1:7400"
            advertise_from = { us = "203.0.113.1:7400", ap = "[2001:db8::1]:7400" }
            join = ["10.0.0.1:7400", "10.1.0.1:7400"]
            [limits]
            free_space_floor = 0
            [log]
            level = "info,latitude_node=debug"
        "#;
        for text in ["", text] {
            let options = settled(StartFlags::default(), text).unwrap();
            let printed = to_toml(&options);
            assert_eq!(settled(StartFlags::default(), &printed), Ok(options), "{printed}");
        }
    }
}
