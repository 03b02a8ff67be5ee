//! What the process says of itself while it runs: log lines on stderr, as text for people or as JSON
//! for machines.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use anyhow::anyhow;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; in color on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Which log lines are written: a level, and levels for single parts (`info,latitude_node=debug`).
///
/// A level alone is for Latitude's own lines. The libraries below it speak from `warn` on, openraft from
/// `error` on: a node holds thousands of Raft groups, and each would tell of every message that a dead
/// peer did not get.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogFilter(String);

impl LogFilter {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    fn env_filter(&self) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
        match self.0.as_str() {
            level @ ("info" | "debug" | "trace") => {
                EnvFilter::try_new(format!("warn,openraft=error,latitude={level}"))
            }
            directives => EnvFilter::try_new(directives),
        }
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_string())
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text was not a log filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a log level: use off, error, warn, info, debug or trace, or levels by part, like info,latitude_node=debug"
)]
pub struct ParseLogFilterError(String);

impl FromStr for LogFilter {
    type Err = ParseLogFilterError;

    fn from_str(text: &str) -> Result<Self, ParseLogFilterError> {
        // The library would take a misspelt level for the name of a part, and log that part's every
        // word.
        let spelt = text.split(',').all(|directive| {
            let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
            Self::LEVELS.contains(&level)
        });
        let filter = Self(text.to_string());
        if spelt && filter.env_filter().is_ok() {
            Ok(filter)
        } else {
            Err(ParseLogFilterError(filter.0))
        }
    }
}

impl TryFrom<String> for LogFilter {
    type Error = ParseLogFilterError;

    fn try_from(text: String) -> Result<Self, ParseLogFilterError> {
        text.parse()
    }
}

impl From<LogFilter> for String {
    fn from(filter: LogFilter) -> Self {
        filter.0
    }
}

/// Sends everything the process logs to stderr from here on. Fails if somebody did so before.
pub fn init(format: LogFormat, filter: &LogFilter) -> anyhow::Result<()> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter.env_filter()?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|error| anyhow!("the log cannot be set up: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_levels_by_part_are_filters() {
        for text in ["off", "info", "trace", "info,latitude_node=debug", "warn,openraft::core=info"]
        {
            assert_eq!(text.parse(), Ok(LogFilter(text.into())), "{text}");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for text in ["", "inof", "INFO ", "info,", "latitude_node=loud", "latitude_node"] {
            assert_eq!(text.parse::<LogFilter>(), Err(ParseLogFilterError(text.into())), "{text}");
        }
    }

    #[test]
    fn a_level_alone_leaves_the_libraries_at_warn() {
        let printed = LogFilter("debug".into()).env_filter().unwrap().to_string();
        assert!(printed.contains("latitude=debug") && printed.contains("warn"), "{printed}");
    }
}
