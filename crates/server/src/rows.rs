//! Rows as lines of a file: what `export` writes and `import` reads.
//!
//! ```text
//!   tsv     key<TAB>value       \\ \t \n \r, and \xNN for control characters and bytes that are no UTF-8
//!   jsonl   {"key":"…","value":"…"}     `key_base64`, `value_base64` for what is no UTF-8
//! ```
//!
//! Invariants: a row is one line, and reads back as the same bytes, whatever they are; equal rows are
//! equal lines, so equal contents are equal files. A line that is no row says what is wrong with it.

mod jsonl;
mod lines;
mod tsv;

use std::path::Path;

use bytes::Bytes;
use latitude_types::KEY_LEN_MAX;

pub use lines::{Ending, Lines, Piece};

/// The largest value a keyspace can be made for, in bytes.
pub const VALUE_LEN_MAX: usize = 8 << 20;

/// A line longer than this holds no row: the longest way to write a byte takes six characters (`\u0000`
/// in JSON).
pub const LINE_LEN_MAX: usize = 6 * (KEY_LEN_MAX + VALUE_LEN_MAX) + 4096;

/// How a row is written on a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum RowFormat {
    /// `key<TAB>value`, with escapes.
    Tsv,
    /// One JSON object to a line.
    Jsonl,
}

impl RowFormat {
    /// The format a file's extension stands for.
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "tsv" => Some(Self::Tsv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }

    /// Appends a row as a line, line end included.
    pub fn write(self, key: &[u8], value: &[u8], to: &mut Vec<u8>) {
        match self {
            Self::Tsv => tsv::write(key, value, to),
            Self::Jsonl => jsonl::write(key, value, to),
        }
    }

    /// The row on a line, which is given without its line end.
    pub fn read(self, line: &[u8]) -> Result<(Bytes, Bytes), Damage> {
        match self {
            Self::Tsv => tsv::read(line),
            Self::Jsonl => jsonl::read(line),
        }
    }
}

/// Why a line is no row.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Damage {
    /// It is longer than a row can be.
    #[error("the line is longer than {LINE_LEN_MAX} bytes, which no row is")]
    TooLong,
    /// The file ends before the line does.
    #[error(
        "the file ends in the middle of the line: if nothing is missing, end it with a line end"
    )]
    CutOff,
    /// It is not text.
    #[error("byte {at} of the line is no UTF-8: {}", match .format { RowFormat::Tsv => "write it as \\xNN", RowFormat::Jsonl => "use key_base64 or value_base64" })]
    NotUtf8 {
        /// Where, counted from 1.
        at: usize,
        /// The format the line should have.
        format: RowFormat,
    },
    /// There is no tab between key and value.
    #[error("there is no tab: write KEY<TAB>VALUE")]
    NoTab,
    /// There is more than one tab.
    #[error("there is more than one tab: write \\t for a tab in a key or a value")]
    TwoTabs,
    /// There is a carriage return, as at the end of lines of some systems.
    #[error(
        "there is a carriage return: end lines with a line feed alone, or write \\r if it is meant"
    )]
    CarriageReturn,
    /// A backslash begins nothing that is known.
    #[error("{found:?} is no escape: there are \\\\, \\t, \\n, \\r and \\xNN")]
    Escape {
        /// The backslash and what follows.
        found: String,
    },
    /// It is not a JSON object with the right fields.
    #[error("not a row in JSON: {0}")]
    Json(String),
    /// There is neither `key` nor `key_base64`, or both; or the same of the value.
    #[error("write one of {name:?} and \"{name}_base64\"")]
    Field {
        /// `key` or `value`.
        name: &'static str,
    },
    /// A field that should be base64 is not.
    #[error("\"{name}_base64\" is not base64: {why}")]
    Base64 {
        /// `key` or `value`.
        name: &'static str,
        /// What the decoder says.
        why: String,
    },
}

impl Damage {
    /// Stable and for machines, like the reasons of errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TooLong => "LINE_TOO_LONG",
            Self::CutOff => "LINE_CUT_OFF",
            Self::NotUtf8 { .. } => "LINE_NOT_UTF8",
            Self::NoTab | Self::TwoTabs => "LINE_TABS",
            Self::CarriageReturn => "LINE_CARRIAGE_RETURN",
            Self::Escape { .. } => "LINE_ESCAPE",
            Self::Json(_) => "LINE_JSON",
            Self::Field { .. } => "LINE_FIELDS",
            Self::Base64 { .. } => "LINE_BASE64",
        }
    }
}

/// A line as text.
fn text(line: &[u8], format: RowFormat) -> Result<&str, Damage> {
    std::str::from_utf8(line)
        .map_err(|error| Damage::NotUtf8 { at: error.valid_up_to() + 1, format })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMATS: [RowFormat; 2] = [RowFormat::Tsv, RowFormat::Jsonl];

    fn line(format: RowFormat, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        format.write(key, value, &mut line);
        assert_eq!(line.pop(), Some(b'\n'), "a line has an end");
        line
    }

    #[test]
    fn a_file_says_its_format_by_its_extension() {
        for (path, format) in [
            ("a/b.tsv", Some(RowFormat::Tsv)),
            ("b.jsonl", Some(RowFormat::Jsonl)),
            ("b.ndjson", Some(RowFormat::Jsonl)),
            ("b.csv", None),
            ("tsv", None),
            ("-", None),
        ] {
            assert_eq!(RowFormat::of_path(Path::new(path)), format, "{path}");
        }
    }

    #[test]
    fn the_longest_row_fits_a_line() {
        let row = line(RowFormat::Jsonl, &[0; KEY_LEN_MAX], &vec![0; VALUE_LEN_MAX]);
        assert!(row.len() <= LINE_LEN_MAX, "{}", row.len());
    }

    /// Bytes in which everything that is written in its own way is frequent.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let odd = prop::sample::select(b"\\\t\n\r\0x4\"{}\x7f\x80\xc3\xa9\xff".to_vec());
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            prop::collection::vec(odd, 0..32),
            any::<String>().prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn a_row_reads_back_whatever_it_holds(key in bytes(), value in bytes()) {
            for format in FORMATS {
                let line = line(format, &key, &value);
                prop_assert!(!line.contains(&b'\n'));
                let row = format.read(&line);
                prop_assert_eq!(row, Ok((key.clone().into(), value.clone().into())));
            }
        }

        #[test]
        fn no_line_whatever_it_holds_is_more_than_refused(line in bytes()) {
            for format in FORMATS {
                if let Ok((key, value)) = format.read(&line) {
                    // What is taken for a row is one.
                    let mut again = Vec::new();
                    format.write(&key, &value, &mut again);
                    again.pop();
                    prop_assert_eq!(format.read(&again), Ok((key, value)));
                }
            }
        }

        #[test]
        fn a_line_cut_off_is_no_row_in_json(key in bytes(), value in bytes(), keep in 0.0..1.0f64) {
            let mut line = line(RowFormat::Jsonl, &key, &value);
            line.truncate((line.len() as f64 * keep) as usize);
            prop_assert!(RowFormat::Jsonl.read(&line).is_err());
        }
    }
}
