//! `key<TAB>value`.

use bytes::Bytes;

use super::{Damage, RowFormat};
use crate::text::one_line;

pub(super) fn write(key: &[u8], value: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(one_line(key).as_bytes());
    to.push(b'\t');
    to.extend_from_slice(one_line(value).as_bytes());
    to.push(b'\n');
}

pub(super) fn read(line: &[u8]) -> Result<(Bytes, Bytes), Damage> {
    let line = super::text(line, RowFormat::Tsv)?;
    let (key, value) = line.split_once('\t').ok_or(Damage::NoTab)?;
    if value.contains('\t') {
        return Err(Damage::TwoTabs);
    }
    if line.contains('\r') {
        return Err(Damage::CarriageReturn);
    }
    Ok((unescaped(key)?, unescaped(value)?))
}

/// What [`one_line`] wrote.
fn unescaped(text: &str) -> Result<Bytes, Damage> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, length) = escape(escaped).ok_or_else(|| {
            let shown = if escaped.starts_with('x') { 3 } else { 1 };
            Damage::Escape {
                found: format!("\\{}", escaped.chars().take(shown).collect::<String>()),
            }
        })?;
        bytes.push(byte);
        rest = &escaped[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes.into())
}

/// The byte that what follows a backslash stands for, and how long that is.
fn escape(after: &str) -> Option<(u8, usize)> {
    match after.as_bytes() {
        [b'\\', ..] => Some((b'\\', 1)),
        [b't', ..] => Some((b'\t', 1)),
        [b'n', ..] => Some((b'\n', 1)),
        [b'r', ..] => Some((b'\r', 1)),
        [b'x', high, low, ..] => {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            Some(((digit(high)? * 16 + digit(low)?) as u8, 3))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_written_as_scan_prints_it() {
        let mut line = Vec::new();
        write("größe\t".as_bytes(), b"\x00\xff\\n", &mut line);
        assert_eq!(line, "größe\\t\t\\x00\\xff\\\\n\n".as_bytes());
    }

    #[test]
    fn a_row_written_by_hand_reads_as_what_it_says() {
        for (line, key, value) in [
            ("a\tb", &b"a"[..], &b"b"[..]),
            ("a\t", b"a", b""),
            ("\tb", b"", b"b"),
            ("\\x61\t\\xFF\\xfF", b"a", b"\xff\xff"),
            ("\\\\\t\\t\\n\\r", b"\\", b"\t\n\r"),
        ] {
            let row = (Bytes::from_static(key), Bytes::from_static(value));
            assert_eq!(read(line.as_bytes()), Ok(row), "{line:?}");
        }
    }

    #[test]
    fn a_damaged_line_says_what_is_wrong() {
        let escape = |found: &str| Damage::Escape { found: found.to_string() };
        for (line, damage) in [
            (&b""[..], Damage::NoTab),
            (b"key", Damage::NoTab),
            (b"a\tb\tc", Damage::TwoTabs),
            (b"a\tb\r", Damage::CarriageReturn),
            (b"a\t\xff", Damage::NotUtf8 { at: 3, format: RowFormat::Tsv }),
            (b"a\t\\", escape("\\")),
            (b"a\t\\q", escape("\\q")),
            (b"a\t\\x4", escape("\\x4")),
            (b"a\t\\x4g1", escape("\\x4g")),
            ("a\t\\x4é".as_bytes(), escape("\\x4é")),
        ] {
            assert_eq!(read(line), Err(damage), "{}", line.escape_ascii());
        }
    }
}
