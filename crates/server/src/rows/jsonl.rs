//! `{"key":"…","value":"…"}`. Other fields are passed over, so that what `scan --output json` prints is
//! read too.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;

use super::{Damage, RowFormat};

pub(super) fn write(key: &[u8], value: &[u8], to: &mut Vec<u8>) {
    to.push(b'{');
    write_field("key", key, to);
    to.push(b',');
    write_field("value", value, to);
    to.extend_from_slice(b"}\n");
}

fn write_field(name: &str, bytes: &[u8], to: &mut Vec<u8>) {
    to.push(b'"');
    to.extend_from_slice(name.as_bytes());
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            to.extend_from_slice(b"\":");
            serde_json::to_writer(to, text).expect("memory takes everything");
        }
        Err(_) => {
            to.extend_from_slice(b"_base64\":\"");
            to.extend_from_slice(BASE64.encode(bytes).as_bytes());
            to.push(b'"');
        }
    }
}

#[derive(Deserialize)]
struct Fields {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
}

pub(super) fn read(line: &[u8]) -> Result<(Bytes, Bytes), Damage> {
    let line = super::text(line, RowFormat::Jsonl)?;
    let fields: Fields =
        serde_json::from_str(line).map_err(|error| Damage::Json(error.to_string()))?;
    let key = field("key", fields.key, fields.key_base64)?;
    let value = field("value", fields.value, fields.value_base64)?;
    Ok((key, value))
}

fn field(
    name: &'static str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Bytes, Damage> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(base64)) => match BASE64.decode(base64) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(Damage::Base64 { name, why: error.to_string() }),
        },
        _ => Err(Damage::Field { name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_other_bytes_become_base64() {
        let mut line = Vec::new();
        write("größe\"".as_bytes(), b"\x00\xff", &mut line);
        assert_eq!(line, "{\"key\":\"größe\\\"\",\"value_base64\":\"AP8=\"}\n".as_bytes());
    }

    #[test]
    fn what_scan_prints_is_read_too() {
        let line = br#"{"key":"a","found":true,"value":"1","version":"70.0@n1#3"}"#;
        assert_eq!(read(line), Ok((Bytes::from_static(b"a"), Bytes::from_static(b"1"))));
    }

    #[test]
    fn a_damaged_line_says_what_is_wrong() {
        for (line, name) in [
            (&b""[..], "LINE_JSON"),
            (b"[1]", "LINE_JSON"),
            (br#"{"key":"a","value":"b"} more"#, "LINE_JSON"),
            (br#"{"key":"a","key":"b","value":"c"}"#, "LINE_JSON"),
            (br#"{"key":"\ud800","value":"c"}"#, "LINE_JSON"),
            (br#"{"key":"a","value":7}"#, "LINE_JSON"),
            (b"{\"key\":\"\xff\",\"value\":\"b\"}", "LINE_NOT_UTF8"),
            (br#"{"key":"a"}"#, "LINE_FIELDS"),
            (br#"{"key":"a","value":null}"#, "LINE_FIELDS"),
            (br#"{"key":"a","key_base64":"YQ==","value":"b"}"#, "LINE_FIELDS"),
            (br#"{"key_base64":"YQ","value":"b"}"#, "LINE_BASE64"),
        ] {
            let damage = read(line).expect_err("the line is damaged");
            assert_eq!(damage.name(), name, "{}: {damage}", line.escape_ascii());
        }
    }
}
