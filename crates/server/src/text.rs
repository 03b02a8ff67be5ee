//! Keys, values, versions and ids as they are written on a command line and printed on a terminal.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use latitude_types::{ClientId, Error, Key, NodeId, RangeId, Reason, Timestamp, WriteTime, Writer};

/// Bytes given as text or as hexadecimal digits.
pub fn bytes(text: &str, hex: bool) -> Result<Bytes, Error> {
    if hex { from_hex(text) } else { Ok(Bytes::copy_from_slice(text.as_bytes())) }
}

/// A key given as text or as hexadecimal digits.
pub fn key(text: &str, hex: bool) -> Result<Bytes, Error> {
    let bytes = bytes(text, hex)?;
    Key::new(&bytes)?;
    Ok(bytes)
}

fn from_hex(text: &str) -> Result<Bytes, Error> {
    let wrong = || {
        Error::new(
            Reason::ArgumentInvalid,
            format!(
                "{text:?} is not a key in hexadecimal: write two digits 0-9, a-f for each byte"
            ),
        )
    };
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong()))
        .collect()
}

/// Bytes as hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

/// Bytes on one line: UTF-8 as it is, but for backslash (`\\`), tab (`\t`), line ends (`\n`, `\r`),
/// other control characters and bytes that are no UTF-8 (`\x` and two digits for each byte).
pub fn one_line(bytes: &[u8]) -> String {
    let mut line = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => line.push_str("\\\\"),
                '\t' => line.push_str("\\t"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                control if control.is_control() => {
                    let mut utf8 = [0; 4];
                    escape(control.encode_utf8(&mut utf8).as_bytes(), &mut line);
                }
                character => line.push(character),
            }
        }
        escape(chunk.invalid(), &mut line);
    }
    line
}

fn escape(bytes: &[u8], line: &mut String) {
    for byte in bytes {
        write!(line, "\\x{byte:02x}").expect("a string takes everything");
    }
}

/// Bytes in base64, for what JSON cannot hold.
pub fn to_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// The context of siblings as it is printed: base64.
pub fn parse_context(text: &str) -> Result<Bytes, String> {
    BASE64
        .decode(text)
        .map(Bytes::from)
        .map_err(|error| format!("{text:?} is no context ({error}): give it as `get` printed it"))
}

/// A time of the Unix epoch, in UTC, as RFC 3339 writes it: `2024-01-01T00:00:00.070Z`.
///
/// Source of the calendar: Howard Hinnant, *chrono-Compatible Low-Level Date Algorithms* (civil_from_days).
/// Years begin in March there, so that the leap day is the last of its year.
pub fn date(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01; an era is 400 years of 146 097 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Of March: five months of 153 days repeat.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// A version as it is printed: `TIME@nNODE#PLACE` of a log write, `TIME@CLIENT#SEQUENCE` of a local one.
pub fn parse_version(text: &str) -> Result<WriteTime, String> {
    let parse = || {
        let (time, rest) = text.split_once('@')?;
        let (writer, sequence) = rest.split_once('#')?;
        let (ms, counter) = time.split_once('.')?;
        let (ms, counter) = (ms.parse().ok()?, counter.parse().ok()?);
        let least = Timestamp::from_ms(ms);
        let time = Timestamp(least.0.checked_add(counter)?);
        // Refuses milliseconds or a counter that do not fit their bits.
        if time.ms() != ms || u64::from(time.counter()) != counter {
            return None;
        }
        let writer = match writer.strip_prefix('n') {
            Some(node) => Writer::Node(NodeId(node.parse().ok()?)),
            None => Writer::Client(writer.parse::<ClientId>().ok()?),
        };
        Some(WriteTime { time, writer, sequence: sequence.parse().ok()? })
    };
    parse().ok_or_else(|| {
        format!("{text:?} is not a version: give it as `put` printed it, like 91234567.0@n1#0")
    })
}

/// A range as it is printed (`r7`), or its number.
pub fn parse_range(text: &str) -> Result<RangeId, String> {
    let number = text.strip_prefix('r').unwrap_or(text).parse();
    number.map(RangeId).map_err(|_| format!("{text:?} is not a range: write its number, like r7"))
}

/// A node as it is printed (`n2`), or its number.
pub fn parse_node(text: &str) -> Result<NodeId, String> {
    let number = text.strip_prefix('n').unwrap_or(text).parse();
    number.map(NodeId).map_err(|_| format!("{text:?} is not a node: write its number, like n2"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_text_or_hexadecimal() {
        assert_eq!(key("ab", false), Ok(Bytes::from_static(b"ab")));
        assert_eq!(key("00fF", true), Ok(Bytes::from_static(&[0, 255])));
        for (text, reason) in [
            ("0", Reason::ArgumentInvalid),
            ("zz", Reason::ArgumentInvalid),
            ("é", Reason::ArgumentInvalid),
            ("", Reason::KeyEmpty),
        ] {
            assert_eq!(key(text, true).map_err(|error| error.reason), Err(reason), "{text}");
        }
    }

    #[test]
    fn a_context_reads_back_as_it_is_printed() {
        let context = Bytes::from_static(b"\x01\xff\x00");
        assert_eq!(parse_context(&to_base64(&context)), Ok(context));
        assert!(parse_context("AQ=").is_err());
    }

    #[test]
    fn a_row_stays_on_its_line_whatever_it_holds() {
        assert_eq!(one_line("größe".as_bytes()), "größe");
        assert_eq!(one_line(b"a\tb\nc\\d\re"), "a\\tb\\nc\\\\d\\re");
        assert_eq!(one_line(b"\x00\xff\x1b[2J"), "\\x00\\xff\\x1b[2J");
    }

    #[test]
    fn ranges_and_nodes_are_read_with_or_without_their_letter() {
        assert_eq!(parse_range("r7"), Ok(RangeId(7)));
        assert_eq!(parse_range("7"), Ok(RangeId(7)));
        assert_eq!(parse_node("n2"), Ok(NodeId(2)));
        assert!(parse_node("r2").is_err() && parse_range("").is_err());
    }

    #[test]
    fn a_time_is_printed_as_a_date() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (Timestamp::EPOCH_UNIX_MS, "2024-01-01T00:00:00.000Z"),
            (1_709_210_096_789, "2024-02-29T12:34:56.789Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(date(unix_ms), text);
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "1.0@n1", "1@n1#0", "1.0@x#0", "1.4194304@n1#0", "1.-1@n1#0"] {
            assert!(parse_version(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_version_parses_back(time: u64, sequence: u64, node: u32, client: [u8; 16], log: bool) {
            let writer = if log { Writer::Node(NodeId(node)) } else { Writer::Client(ClientId(client)) };
            let version = WriteTime { time: Timestamp(time), writer, sequence };
            prop_assert_eq!(parse_version(&version.to_string()), Ok(version));
        }

        #[test]
        fn printed_hexadecimal_reads_back(bytes: Vec<u8>) {
            prop_assert_eq!(from_hex(&to_hex(&bytes)), Ok(Bytes::from(bytes)));
        }

        #[test]
        fn a_line_has_no_line_end_and_tells_different_bytes_apart(a: Vec<u8>, b: Vec<u8>) {
            prop_assert!(!one_line(&a).contains(['\n', '\r', '\t']));
            prop_assert_eq!(a == b, one_line(&a) == one_line(&b));
        }
    }
}
