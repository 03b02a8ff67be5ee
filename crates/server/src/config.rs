//! The configuration file of a node: TOML, every name that of a flag, in four sections.
//!
//! ```toml
//! [node]
//! region = "eu"
//! zone = "a"
//! listen = "10.0.0.1:7400"
//! join = ["10.0.0.1:7400", "10.1.0.1:7400", "10.2.0.1:7400"]
//!
//! [limits]
//! cache_size = "1GiB"
//!
//! [raft]
//! round_trip_max = "250ms"
//!
//! [log]
//! format = "json"
//! ```
//!
//! A file that cannot be used is refused with its name, the line and what is allowed. Values keep their
//! place in the file ([`Spanned`]), so that a value that is wrong only beside another is named with its
//! line too.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::address::{Address, PlaceName};
use crate::start::ReadMode;
use crate::telemetry::{LogFilter, LogFormat};
use crate::units::{ByteCount, Millis};

/// A value that may be in the file, with its place there.
pub type Entry<T> = Option<Spanned<T>>;

/// What a file may say. Everything may be left out.
#[derive(Default, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sections {
    /// What the node is and how it is reached.
    pub node: Node,
    /// How much it takes.
    pub limits: Limits,
    /// How it keeps time with the others.
    pub raft: Raft,
    /// What it says of itself.
    pub log: Log,
}

/// What the node is and how it is reached.
#[derive(Default, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each field is the flag of its name, documented there")]
pub struct Node {
    pub region: Entry<PlaceName>,
    pub zone: Entry<PlaceName>,
    pub store: Entry<PathBuf>,
    pub listen: Entry<Address>,
    pub advertise: Entry<Address>,
    pub join: Entry<Vec<Address>>,
    /// A table, `advertise_from = { us = "203.0.113.1:7400" }`.
    pub advertise_from: Entry<BTreeMap<PlaceName, Address>>,
}

/// How much the node takes.
#[derive(Default, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each field is the flag of its name, documented there")]
pub struct Limits {
    pub cache_size: Entry<ByteCount>,
    pub free_space_floor: Entry<ByteCount>,
    pub max_requests_in_flight: Entry<u32>,
    pub unfolded_bytes: Entry<ByteCount>,
    pub snapshot_log_bytes: Entry<ByteCount>,
    pub snapshot_bytes_per_second: Entry<ByteCount>,
    pub max_clock_offset: Entry<Millis>,
}

/// How the node keeps time with the others.
#[derive(Default, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each field is the flag of its name, documented there")]
pub struct Raft {
    pub round_trip_max: Entry<Millis>,
    pub heartbeat_interval: Entry<Millis>,
    pub election_timeout_min: Entry<Millis>,
    pub election_timeout_max: Entry<Millis>,
    pub read_mode: Entry<ReadMode>,
}

/// What the node says of itself.
#[derive(Default, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The flag `--log-format`.
    pub format: Entry<LogFormat>,
    /// The flag `--log-level`.
    pub level: Entry<LogFilter>,
}

/// A configuration file, read and parsed.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
    /// What it says.
    pub sections: Sections,
}

impl ConfigFile {
    /// Reads and parses the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            place: Some(path.display().to_string()),
            excerpt: None,
            message: format!("the file cannot be read: {error}"),
        })?;
        Self::parse(path, text)
    }

    /// Parses the text of the file; the path is for errors only.
    pub fn parse(path: &Path, text: String) -> Result<Self, ConfigError> {
        match toml::from_str(&text) {
            Ok(sections) => Ok(Self { path: path.to_path_buf(), text, sections }),
            Err(error) => {
                Err(ConfigError::in_file(path, &text, error.span(), error.message().to_string()))
            }
        }
    }

    /// An error about what stands at `span`.
    pub fn error_at(&self, span: Range<usize>, message: String) -> ConfigError {
        ConfigError::in_file(&self.path, &self.text, Some(span), message)
    }
}

/// Why a node cannot be started as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// `file, line n`; `None` for a flag, which the message names.
    place: Option<String>,
    /// The line as it stands in the file.
    excerpt: Option<String>,
    /// What is wrong, and what is allowed.
    message: String,
}

impl ConfigError {
    /// An error about a flag, which the message names.
    pub fn in_flag(message: String) -> Self {
        Self { place: None, excerpt: None, message }
    }

    fn in_file(path: &Path, text: &str, span: Option<Range<usize>>, message: String) -> Self {
        let Some(span) = span else {
            return Self { place: Some(path.display().to_string()), excerpt: None, message };
        };
        let before = text.get(..span.start).unwrap_or(text);
        let number = before.matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default().trim();
        Self {
            place: Some(format!("{}, line {number}", path.display())),
            excerpt: Some(format!("{number} | {line}")),
            message,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n  {excerpt}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        ConfigFile::parse(Path::new("node.toml"), text.to_string()).unwrap_err().to_string()
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = r#"
            [node]
            region = "eu"
            zone = "b"
            store = "/var/lib/latitude"
            listen = "0.0.0.0:7400"
            advertise = "10.0.0.1:7400"
            advertise_from = { us = "203.0.113.1:7400" }
            join = ["10.0.0.1:7400", "10.1.0.1:7400"]
            [limits]
            cache_size = "1GiB"
            free_space_floor = 0
            max_requests_in_flight = 100
            max_clock_offset = 250
            [raft]
            round_trip_max = "200ms"
            heartbeat_interval = "400ms"
            election_timeout_min = "2s"
            election_timeout_max = "3s"
            read_mode = "lease"
            [log]
            format = "json"
            level = "debug"
        "#;
        let file = ConfigFile::parse(Path::new("node.toml"), text.to_string()).unwrap();
        let sections = file.sections;
        assert_eq!(sections.node.join.unwrap().get_ref().len(), 2);
        assert_eq!(*sections.limits.cache_size.unwrap().get_ref(), ByteCount::mib(1024));
        assert_eq!(*sections.limits.max_clock_offset.unwrap().get_ref(), Millis::new(250));
        assert_eq!(*sections.raft.election_timeout_max.unwrap().get_ref(), Millis::new(3000));
        assert_eq!(*sections.raft.read_mode.unwrap().get_ref(), ReadMode::Lease);
        assert_eq!(*sections.log.format.unwrap().get_ref(), LogFormat::Json);
    }

    #[test]
    fn an_unknown_name_is_refused_with_its_line_and_the_names_there_are() {
        let error = error("[node]\nregion = \"eu\"\nlisen = \"127.0.0.1:7400\"\n");
        assert!(error.starts_with("node.toml, line 3: unknown field `lisen`"), "{error}");
        assert!(error.contains("`listen`"), "{error}");
        assert!(error.ends_with("3 | lisen = \"127.0.0.1:7400\""), "{error}");
    }

    #[test]
    fn an_unknown_section_is_refused_with_the_sections_there_are() {
        let error = error("[node]\n\n[limit]\ncache_size = 1\n");
        assert!(error.starts_with("node.toml, line 3: unknown field `limit`"), "{error}");
        assert!(error.contains("`limits`"), "{error}");
    }

    #[test]
    fn a_wrong_type_is_refused_with_its_line_and_what_is_expected() {
        for (text, line, expected) in [
            ("[node]\nregion = 7\n", 2, "expected a string"),
            ("[limits]\n\ncache_size = true\n", 3, "expected a size such as \"256MiB\""),
            ("[limits]\nmax_requests_in_flight = \"many\"\n", 2, "expected u32"),
            ("[raft]\nround_trip_max = []\n", 2, "expected a duration such as \"500ms\""),
            ("[node]\njoin = \"a:1\"\n", 2, "expected a sequence"),
        ] {
            let error = error(text);
            assert!(error.starts_with(&format!("node.toml, line {line}: ")), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_value_that_does_not_parse_is_refused_with_its_line_and_what_is_allowed() {
        for (text, line, allowed) in [
            ("[node]\n\nlisten = \"7400\"\n", 3, "write HOST:PORT"),
            ("[node]\nzone = \"a b\"\n", 2, "use 1 to 64 letters"),
            ("[limits]\ncache_size = \"256MB\"\n", 2, "KiB, MiB, GiB or TiB"),
            ("[limits]\ncache_size = -1\n", 2, "is not a size"),
            ("[raft]\nheartbeat_interval = \"fast\"\n", 2, "write a number with ms, s, m or h"),
            ("[log]\nlevel = \"loud\"\n", 2, "use off, error, warn"),
            ("[log]\nformat = \"xml\"\n", 2, "expected `text` or `json`"),
            ("[raft]\nread_mode = \"quorum\"\n", 2, "expected `read-index` or `lease`"),
        ] {
            let error = error(text);
            assert!(error.starts_with(&format!("node.toml, line {line}: ")), "{error}");
            assert!(error.contains(allowed), "{error}");
        }
    }

    #[test]
    fn broken_toml_is_refused_with_its_line() {
        let error = error("[node]\nregion = \"eu\nzone = \"a\"\n");
        assert!(error.starts_with("node.toml, line 2: "), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = ConfigFile::read(Path::new("no/such.toml")).unwrap_err().to_string();
        assert!(error.starts_with("no/such.toml: the file cannot be read"), "{error}");
    }
}
