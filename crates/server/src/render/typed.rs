//! Values of other types than register.
//!
//! ```text
//!           alone                     in a row of several
//!   counter 42                        key<TAB>42
//!   flag    on │ off                  key<TAB>on
//!   set     an element to a line      key<TAB>milk<TAB>bread
//!   map     field<TAB>value to a line key<TAB>city=Lima<TAB>name=Ada
//!   siblings a value to a line        key<TAB>one<TAB>other
//! ```

use bytes::Bytes;
use latitude_client::{AddOutcome, Added, Held, TypedValue};
use serde_json::{Map, Value as Json, json};

use super::data::{KeyForm, put_bytes};
use crate::text::{one_line, to_base64};

/// The lines of a value that is printed alone; of a register, its bytes on one line.
pub fn value_lines(value: &TypedValue) -> Vec<String> {
    match value {
        TypedValue::Register(value) => value.iter().map(|value| one_line(value)).collect(),
        TypedValue::Counter(sum) => vec![sum.to_string()],
        TypedValue::Flag(on) => vec![if *on { "on" } else { "off" }.to_string()],
        TypedValue::Set(elements) => elements.iter().map(|element| one_line(element)).collect(),
        TypedValue::Map(fields) => {
            let line = |(field, value): &(Bytes, Bytes)| {
                format!("{}\t{}", one_line(field), one_line(value))
            };
            fields.iter().map(line).collect()
        }
        TypedValue::Siblings(siblings) => {
            siblings.values.iter().map(|sibling| one_line(&sibling.value)).collect()
        }
    }
}

/// A key and its value on one line.
pub fn value_row(form: KeyForm, key: &[u8], value: &TypedValue) -> String {
    let parts = value_lines(value).into_iter().map(|line| match value {
        // What separates the fields separates a field from its value in the lines of a map alone.
        TypedValue::Map(_) => line.replacen('\t', "=", 1),
        _ => line,
    });
    std::iter::once(form.line(key)).chain(parts).collect::<Vec<_>>().join("\t")
}

/// A key and its value, with its type.
pub fn value_json(form: KeyForm, key: &[u8], held: &Held) -> Json {
    let mut object = Map::new();
    form.put_into(&mut object, key);
    object.insert("found".to_string(), json!(held.version.is_some()));
    object.insert("type".to_string(), json!(held.value.type_name()));
    let value = match &held.value {
        TypedValue::Register(value) => json!(value.as_ref().map(element)),
        TypedValue::Counter(sum) => json!(sum),
        TypedValue::Flag(on) => json!(on),
        TypedValue::Set(elements) => elements.iter().map(element).collect(),
        TypedValue::Map(fields) => fields.iter().map(field).collect(),
        TypedValue::Siblings(siblings) => {
            object.insert("context".to_string(), json!(to_base64(&siblings.context)));
            let sibling = |sibling: &latitude_client::Sibling| {
                let mut object = Map::new();
                put_bytes(&mut object, "value", &sibling.value);
                object.insert("version".to_string(), json!(sibling.version.to_string()));
                Json::Object(object)
            };
            siblings.values.iter().map(sibling).collect()
        }
    };
    object.insert("value".to_string(), value);
    if let Some(version) = held.version {
        object.insert("version".to_string(), json!(version.to_string()));
    }
    Json::Object(object)
}

/// Bytes in a list: text, or an object with `base64` for what is no UTF-8.
fn element(bytes: &Bytes) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": to_base64(bytes) }),
    }
}

fn field((field, value): &(Bytes, Bytes)) -> Json {
    let mut object = Map::new();
    put_bytes(&mut object, "field", field);
    put_bytes(&mut object, "value", value);
    Json::Object(object)
}

/// How an add went.
pub fn add_json(form: KeyForm, key: &[u8], outcome: &AddOutcome) -> Json {
    let mut object = Map::new();
    form.put_into(&mut object, key);
    object.insert("applied".to_string(), json!(outcome.is_applied()));
    match outcome {
        AddOutcome::Applied(Added { version, sum }) => {
            object.insert("sum".to_string(), json!(sum));
            object.insert("version".to_string(), json!(version.to_string()));
        }
        AddOutcome::OutOfBounds { found } => {
            object.insert("sum".to_string(), json!(found));
        }
    }
    Json::Object(object)
}

#[cfg(test)]
mod tests {
    use latitude_client::{Sibling, Siblings};
    use latitude_types::{NodeId, Stamp, Timestamp, WriteTime};

    use super::*;

    fn version() -> WriteTime {
        WriteTime::of_log_write(Stamp { time: Timestamp::from_ms(70), node: NodeId(1) }, 3)
    }

    fn bytes(text: &'static [u8]) -> Bytes {
        Bytes::from_static(text)
    }

    /// Every type: a value, its lines, its row and its JSON.
    fn values() -> Vec<(TypedValue, &'static [&'static str], &'static str, &'static str)> {
        let siblings = Siblings {
            values: vec![Sibling { value: bytes(b"a"), version: version() }],
            context: bytes(b"\x01"),
        };
        let fields = vec![(bytes(b"a=\t"), bytes(b"1")), (bytes(b"b"), bytes(b"\xff"))];
        vec![
            (TypedValue::Counter(-3), &["-3"], "k\t-3", "-3"),
            (TypedValue::Flag(true), &["on"], "k\ton", "true"),
            (
                TypedValue::Set(vec![bytes(b"a\tb"), bytes(b"\xff")]),
                &["a\\tb", "\\xff"],
                "k\ta\\tb\t\\xff",
                r#"["a\tb",{"base64":"/w=="}]"#,
            ),
            (
                TypedValue::Map(fields),
                &["a=\\t\t1", "b\t\\xff"],
                "k\ta=\\t=1\tb=\\xff",
                r#"[{"field":"a=\t","value":"1"},{"field":"b","value_base64":"/w=="}]"#,
            ),
            (
                TypedValue::Siblings(siblings),
                &["a"],
                "k\ta",
                r#"[{"value":"a","version":"70.0@n1#3"}]"#,
            ),
        ]
    }

    #[test]
    fn a_value_is_printed_by_its_type() {
        for (value, lines, row, json) in values() {
            assert_eq!(value_lines(&value), lines);
            assert_eq!(value_row(KeyForm::Text, b"k", &value), row);
            let held = Held { value, version: Some(version()) };
            assert_eq!(value_json(KeyForm::Text, b"k", &held)["value"].to_string(), json);
        }
    }

    #[test]
    fn siblings_come_with_the_context_of_the_next_write() {
        let (siblings, ..) = values().pop().unwrap();
        let held = Held { value: siblings, version: Some(version()) };
        let json = value_json(KeyForm::Text, b"k", &held);
        assert_eq!((&json["context"], &json["type"]), (&json!("AQ=="), &json!("siblings")));
    }

    #[test]
    fn what_does_not_exist_says_so_and_has_the_value_of_nothing() {
        let held = Held { value: TypedValue::Counter(0), version: None };
        assert_eq!(
            value_json(KeyForm::Text, b"k", &held).to_string(),
            r#"{"key":"k","found":false,"type":"counter","value":0}"#
        );
    }

    #[test]
    fn an_add_names_the_sum_written_or_found() {
        let added = AddOutcome::Applied(Added { version: version(), sum: Some(4) });
        assert_eq!(
            add_json(KeyForm::Text, b"k", &added).to_string(),
            r#"{"key":"k","applied":true,"sum":4,"version":"70.0@n1#3"}"#
        );
        let refused = AddOutcome::OutOfBounds { found: 9 };
        assert_eq!(
            add_json(KeyForm::Text, b"k", &refused).to_string(),
            r#"{"key":"k","applied":false,"sum":9}"#
        );
    }
}
