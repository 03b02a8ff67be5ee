//! Answers about data.
//!
//! ```text
//!   text   one value as it is │ key<TAB>value, a row to a line │ a version
//!   JSON   one object to a line; bytes that are no UTF-8 go into `key_base64`, `value_base64`
//! ```

use bytes::Bytes;
use latitude_client::{Answer, CasOutcome, Receipt, Value};
use latitude_types::WriteTime;
use serde_json::{Map, Value as Json, json};

use crate::text::{date, one_line, to_base64, to_hex};

/// How keys are printed: as they were given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyForm {
    /// As text.
    Text,
    /// As hexadecimal digits.
    Hex,
}

impl KeyForm {
    /// The key on a line.
    pub fn line(self, key: &[u8]) -> String {
        match self {
            Self::Text => one_line(key),
            Self::Hex => to_hex(key),
        }
    }

    pub(super) fn put_into(self, object: &mut Map<String, Json>, key: &[u8]) {
        match self {
            Self::Text => put_bytes(object, "key", key),
            Self::Hex => {
                object.insert("key_hex".to_string(), json!(to_hex(key)));
            }
        }
    }
}

/// A row of several: `key<TAB>value`, or the key alone.
pub fn row_line(form: KeyForm, key: &[u8], value: Option<&[u8]>) -> String {
    match value {
        Some(value) => format!("{}\t{}", form.line(key), one_line(value)),
        None => form.line(key),
    }
}

/// A key and the value found there, if any. `with_value: false` says nothing of the value's bytes.
pub fn row_json(form: KeyForm, key: &[u8], value: Option<&Value>, with_value: bool) -> Json {
    let mut object = Map::new();
    form.put_into(&mut object, key);
    object.insert("found".to_string(), json!(value.is_some()));
    if let Some(Value { bytes, version }) = value {
        if with_value {
            put_bytes(&mut object, "value", bytes);
        }
        object.insert("version".to_string(), json!(version.to_string()));
    }
    Json::Object(object)
}

/// A key and the version a put or a delete gave it.
pub fn write_json(form: KeyForm, key: &Bytes, version: WriteTime) -> Json {
    let mut object = Map::new();
    form.put_into(&mut object, key);
    object.insert("version".to_string(), json!(version.to_string()));
    Json::Object(object)
}

/// How a conditional write went: the version written, or the one found instead.
pub fn cas_json(form: KeyForm, key: &Bytes, outcome: &CasOutcome) -> Json {
    let mut object = Map::new();
    form.put_into(&mut object, key);
    object.insert("applied".to_string(), json!(outcome.is_applied()));
    match outcome {
        CasOutcome::Applied { version } => {
            object.insert("version".to_string(), json!(version.to_string()));
        }
        CasOutcome::Mismatch { found } => {
            object.insert("found".to_string(), json!(found.map(|version| version.to_string())));
        }
    }
    Json::Object(object)
}

/// How an answer came about: a field, what it says, and the same for machines.
fn receipt_fields<T>(answer: &Answer<T>) -> Vec<(&'static str, String, Json)> {
    let mut fields = Vec::new();
    let mut say = |name, text: String, json| fields.push((name, text, json));
    let ms = |duration: std::time::Duration| {
        let ms = duration.as_micros() as f64 / 1000.0;
        (format!("{ms:.3} ms"), json!(duration.as_micros() as u64))
    };
    if let Some(receipt) = &answer.receipt {
        let Receipt { node, region, range, epoch, keyspace, .. } = receipt;
        let name = |level: Option<latitude_types::Level>| level.map(latitude_types::Level::name);
        let (given, asked) = (name(receipt.level_given), name(receipt.level_asked));
        say("level_asked", asked.unwrap_or("not said").to_string(), json!(asked));
        say("level_given", given.unwrap_or("not said").to_string(), json!(given));
        if let Some(why) = &receipt.fallback {
            say("fallback", why.clone(), json!(why));
        }
        say("node", node.to_string(), json!(node.0));
        say("region", region.clone(), json!(region));
        if let Some(role) = receipt.role {
            say("role", role.to_string(), json!(role.to_string()));
        }
        say("range", range.to_string(), json!(range.0));
        say("epoch", epoch.to_string(), json!(epoch.0));
        say("keyspace", keyspace.to_string(), json!(keyspace.0));
        if let Some(version) = receipt.version {
            say("version", version.to_string(), json!(version.to_string()));
        }
        if let Some((term, index)) = receipt.log {
            let text = format!("term {term}, index {index}");
            say("log", text, json!({ "term": term, "index": index }));
        }
        if let Some(closed) = receipt.closed {
            say("closed", closed.to_string(), json!(closed.to_string()));
        }
        if let Some(as_of) = receipt.as_of {
            say("as_of", as_of.to_string(), json!(as_of.to_string()));
            let date = date(as_of.unix_ms());
            say("as_of_utc", date.clone(), json!(date));
        }
        if let Some(proof) = receipt.proof {
            say("proof", proof.to_string(), json!(proof.to_string()));
        }
        if let Some(duplicate) = receipt.duplicate {
            say("duplicate", duplicate.to_string(), json!(duplicate.to_string()));
            say("retry_safe", yes_or_no(receipt.retry_safe), json!(receipt.retry_safe));
        }
        if !receipt.durable_on.is_empty() {
            let nodes: Vec<String> = receipt.durable_on.iter().map(ToString::to_string).collect();
            say("durable_on", nodes.join(", "), json!(receipt.durable_on));
        }
        if receipt.superseded {
            let text = "yes: a write whose time is larger is there already";
            say("superseded", text.to_string(), json!(true));
        }
        for of in &receipt.unfolded {
            let text = format!("{} of {}, the last at {}", of.count, of.node, of.highest);
            let json =
                json!({ "node": of.node, "count": of.count, "highest": of.highest.to_string() });
            say("unfolded", text, json);
        }
        for (node, last) in &receipt.capped {
            let text = format!("{node} took nothing here above {last}");
            say("capped", text, json!({ "node": node, "last": last.to_string() }));
        }
        // A full receipt has a proof; in a short one the rest would only be what was not said.
        if receipt.proof.is_some() {
            let staleness = receipt.staleness.map(|staleness| staleness.as_millis() as u64);
            let text = staleness.map_or("not proved".to_string(), |ms| format!("at most {ms} ms"));
            say("staleness_ms", text, json!(staleness));
            say("covers_session", yes_or_no(receipt.covers_session), json!(receipt.covers_session));
            let text = match receipt.not_closed {
                true => "yes: parts of different ranges may not know each other's past",
                false => "no",
            };
            say("not_closed", text.to_string(), json!(receipt.not_closed));
            let (text, us) = ms(receipt.server_time);
            say("server_us", text, us);
        }
    }
    if !answer.token.is_empty() {
        let token = to_base64(&answer.token);
        say("token", token.clone(), json!(token));
    }
    say("attempts", answer.attempts.to_string(), json!(answer.attempts));
    let (text, us) = ms(answer.latency);
    say("latency_us", text, us);
    fields
}

/// How an answer came about: as an aligned block, and as JSON.
pub fn receipt<T>(answer: &Answer<T>) -> (String, Json) {
    let mut block = String::new();
    let mut object = Map::new();
    for (name, text, json) in receipt_fields(answer) {
        // The unit of the JSON field is in its name, that of the text beside the number.
        let label = name.trim_end_matches("_us").trim_end_matches("_ms").replace('_', " ");
        block += &format!("{label:<15} {text}\n");
        object.insert(name.to_string(), json);
    }
    block.truncate(block.trim_end().len());
    (block, Json::Object(object))
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_string()
}

pub(super) fn put_bytes(object: &mut Map<String, Json>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_string(), json!(text)),
        Err(_) => object.insert(format!("{name}_base64"), json!(to_base64(bytes))),
    };
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use latitude_client::{Duplicate, Proof, Role};
    use latitude_types::{Epoch, KeyspaceId, Level, NodeId, RangeId, Stamp, Timestamp};

    use super::*;

    fn version() -> WriteTime {
        WriteTime::of_log_write(Stamp { time: Timestamp::from_ms(70), node: NodeId(1) }, 3)
    }

    fn value(bytes: &'static [u8]) -> Value {
        Value { bytes: Bytes::from_static(bytes), version: version() }
    }

    fn answer() -> Answer<()> {
        let receipt = Receipt {
            level_asked: Some(Level::Strict),
            level_given: Some(Level::Strict),
            fallback: None,
            node: NodeId(2),
            region: "eu".to_string(),
            role: Some(Role::Leader),
            range: RangeId(7),
            epoch: Epoch(2),
            keyspace: KeyspaceId(16),
            version: Some(version()),
            log: Some((3, 77)),
            as_of: Some(Timestamp::from_ms(70)),
            closed: None,
            proof: Some(Proof::Committed),
            duplicate: Some(Duplicate::No),
            durable_on: vec![NodeId(1), NodeId(2)],
            retry_safe: true,
            staleness: Some(Duration::ZERO),
            covers_session: true,
            not_closed: false,
            superseded: false,
            unfolded: vec![],
            capped: vec![],
            server_time: Duration::from_micros(1_250),
        };
        let latency = Duration::from_micros(90_500);
        let token = Bytes::from_static(b"a token");
        Answer { value: (), receipt: Some(receipt), token, attempts: 1, latency }
    }

    #[test]
    fn text_that_is_utf8_stays_text_in_json_and_other_bytes_become_base64() {
        assert_eq!(
            row_json(KeyForm::Text, b"a", Some(&value("größe".as_bytes())), true).to_string(),
            r#"{"key":"a","found":true,"value":"größe","version":"70.0@n1#3"}"#
        );
        assert_eq!(
            row_json(KeyForm::Text, b"\xff", Some(&value(b"\x00\xff")), true).to_string(),
            r#"{"key_base64":"/w==","found":true,"value_base64":"AP8=","version":"70.0@n1#3"}"#
        );
    }

    #[test]
    fn an_absent_key_is_a_row_that_says_so() {
        assert_eq!(
            row_json(KeyForm::Hex, b"\x01", None, true).to_string(),
            r#"{"key_hex":"01","found":false}"#
        );
    }

    #[test]
    fn a_row_without_its_value_does_not_claim_an_empty_one() {
        let row = row_json(KeyForm::Text, b"a", Some(&value(b"")), false).to_string();
        assert_eq!(row, r#"{"key":"a","found":true,"version":"70.0@n1#3"}"#);
        assert_eq!(row_line(KeyForm::Text, b"a", None), "a");
        assert_eq!(row_line(KeyForm::Text, b"a", Some(b"")), "a\t");
    }

    #[test]
    fn a_row_is_one_line_whatever_it_holds() {
        assert_eq!(row_line(KeyForm::Text, b"a\tb", Some(b"1\n2")), "a\\tb\t1\\n2");
        assert_eq!(row_line(KeyForm::Hex, b"a\tb", Some(b"1")), "610962\t1");
    }

    #[test]
    fn a_condition_that_held_names_the_version_written_and_else_the_one_found() {
        let key = Bytes::from_static(b"k");
        let applied = CasOutcome::Applied { version: version() };
        assert_eq!(
            cas_json(KeyForm::Text, &key, &applied).to_string(),
            r#"{"key":"k","applied":true,"version":"70.0@n1#3"}"#
        );
        assert_eq!(
            cas_json(KeyForm::Text, &key, &CasOutcome::Mismatch { found: None }).to_string(),
            r#"{"key":"k","applied":false,"found":null}"#
        );
    }

    #[test]
    fn a_receipt_is_an_aligned_block_for_people() {
        let (block, _) = receipt(&answer());
        assert_eq!(
            block,
            "\
level asked     strict
level given     strict
node            n2
region          eu
role            leader
range           r7
epoch           e2
keyspace        k16
version         70.0@n1#3
log             term 3, index 77
as of           70.0
as of utc       2024-01-01T00:00:00.070Z
proof           committed
duplicate       no
retry safe      yes
durable on      n1, n2
staleness       at most 0 ms
covers session  yes
not closed      no
server          1.250 ms
token           YSB0b2tlbg==
attempts        1
latency         90.500 ms"
        );
    }

    #[test]
    fn a_receipt_keeps_numbers_as_numbers_for_machines() {
        let (_, json) = receipt(&answer());
        assert_eq!(json["node"], 2);
        assert_eq!(json["durable_on"], json!([1, 2]));
        assert_eq!(json["latency_us"], 90_500);
        assert_eq!(json["log"], json!({ "term": 3, "index": 77 }));
    }

    #[test]
    fn without_a_receipt_there_is_still_what_the_client_saw() {
        let answer = Answer { receipt: None, token: Bytes::new(), ..answer() };
        let (block, _) = receipt(&answer);
        assert_eq!(block, "attempts        1\nlatency         90.500 ms");
    }
}
