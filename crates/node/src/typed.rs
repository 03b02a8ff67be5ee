//! Typed values on the wire: the types of keyspaces, what a key holds, the context of siblings.
//!
//! A context is the ids of the siblings that a client read. It is opaque to clients, who send it back as they
//! got it; what they may do with it is bounded here.

use bytes::Bytes;
use latitude_range::{Sibling, Value, ValueType};
use latitude_rpc::ToWire;
use latitude_rpc::pb::v1;
use latitude_types::{Error, OperationId, Reason, WriteTime};

const CONTEXT_VERSION: u8 = 1;
/// More siblings than this no write takes the place of: each may cost a row of its own.
const CONTEXT_IDS_MAX: usize = 1000;
/// What an id takes at most: birth and sequence of up to ten bytes each, client, kind.
const CONTEXT_LEN_MAX: usize = 1 + 3 + CONTEXT_IDS_MAX * (10 + 16 + 10 + 1);

pub(crate) fn value_type_from_wire(wire: i32) -> Result<ValueType, Error> {
    Ok(match v1::ValueType::try_from(wire) {
        Ok(v1::ValueType::Unspecified | v1::ValueType::Register) => ValueType::Register,
        Ok(v1::ValueType::Siblings) => ValueType::Siblings,
        Ok(v1::ValueType::Counter) => ValueType::Counter,
        Ok(v1::ValueType::Set) => ValueType::Set,
        Ok(v1::ValueType::Map) => ValueType::Map,
        Ok(v1::ValueType::Flag) => ValueType::Flag,
        Err(_) => {
            let message = format!(
                "{wire} is no type of values: 1 register, 2 siblings, 3 counter, 4 set, 5 map, 6 flag"
            );
            return Err(Error::new(Reason::ArgumentInvalid, message));
        }
    })
}

pub(crate) fn value_type_to_wire(value_type: ValueType) -> i32 {
    (match value_type {
        ValueType::Register => v1::ValueType::Register,
        ValueType::Siblings => v1::ValueType::Siblings,
        ValueType::Counter => v1::ValueType::Counter,
        ValueType::Set => v1::ValueType::Set,
        ValueType::Map => v1::ValueType::Map,
        ValueType::Flag => v1::ValueType::Flag,
    }) as i32
}

/// What a get answers; `version`: the row's, if there is one.
pub(crate) fn get_result(value: Value, version: Option<WriteTime>) -> v1::GetResult {
    let exists = exists(&value);
    let (value, typed) = to_wire(value);
    let version = version.filter(|_| exists).as_ref().map(ToWire::to_wire);
    v1::GetResult { value, version, typed }
}

/// A row of a scan; without a value if only keys were wanted.
pub(crate) fn row(key: Bytes, value: Option<Value>, version: WriteTime) -> v1::Row {
    let (value, typed) = value.map_or((None, None), to_wire);
    let version = Some(version.to_wire());
    v1::Row { key, value: value.unwrap_or_default(), version, typed }
}

fn exists(value: &Value) -> bool {
    match value {
        Value::Register(value) => value.is_some(),
        Value::Siblings(siblings) => !siblings.is_empty(),
        Value::Counter(sum) => sum.is_some(),
        Value::Set(elements) => !elements.is_empty(),
        Value::Map(fields) => !fields.is_empty(),
        Value::Flag(on) => *on,
    }
}

/// A register's bytes, or a value of any other type.
fn to_wire(value: Value) -> (Option<Bytes>, Option<v1::TypedValue>) {
    use v1::typed_value::Value as Wire;
    let typed = match value {
        Value::Register(value) => return (value, None),
        Value::Counter(sum) => Wire::Counter(sum.unwrap_or_default()),
        Value::Set(elements) => Wire::Set(v1::Elements { elements }),
        Value::Map(fields) => {
            let field = |(field, value)| v1::Field { field, value };
            Wire::Map(v1::Fields { fields: fields.into_iter().map(field).collect() })
        }
        Value::Flag(on) => Wire::Flag(on),
        Value::Siblings(siblings) => Wire::Siblings(v1::Siblings {
            context: context_to_wire(&siblings),
            siblings: siblings
                .into_iter()
                .map(|sibling| v1::Sibling {
                    value: sibling.value,
                    version: Some(sibling.time.to_wire()),
                })
                .collect(),
        }),
    };
    (None, Some(v1::TypedValue { value: Some(typed) }))
}

/// Of more siblings than a write may name, the first: the next read names the rest.
fn context_to_wire(siblings: &[Sibling]) -> Bytes {
    let ids: Vec<_> = siblings.iter().map(|sibling| sibling.id).take(CONTEXT_IDS_MAX).collect();
    if ids.is_empty() {
        return Bytes::new();
    }
    postcard::to_extend(&ids, vec![CONTEXT_VERSION]).expect("our structures serialize").into()
}

/// The ids that a context names; none if it is empty.
pub(crate) fn context_from_wire(wire: &Bytes) -> Result<Vec<OperationId>, Error> {
    let damaged = || {
        let message = "the context is none that a read gave: send the one of the siblings as it is";
        Error::new(Reason::ArgumentInvalid, message)
    };
    let ids: Vec<OperationId> = match &wire[..] {
        [] => return Ok(Vec::new()),
        _ if wire.len() > CONTEXT_LEN_MAX => return Err(damaged()),
        [CONTEXT_VERSION, ids @ ..] => match postcard::take_from_bytes(ids) {
            Ok((ids, [])) => ids,
            _ => return Err(damaged()),
        },
        _ => return Err(damaged()),
    };
    if ids.len() > CONTEXT_IDS_MAX {
        return Err(damaged());
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use latitude_types::{ClientId, OperationKind, Timestamp};

    use super::*;

    fn siblings(count: u64) -> Vec<Sibling> {
        let sibling = |sequence| {
            let birth = Timestamp(u64::MAX);
            let client = ClientId([7; 16]);
            let id = OperationId { birth, client, sequence, kind: OperationKind::Local };
            Sibling { id, time: WriteTime::of_local_write(&id), value: Bytes::new() }
        };
        (0..count).map(|count| sibling(u64::MAX - count)).collect()
    }

    #[test]
    fn every_type_survives_the_wire_and_others_are_refused() {
        for value_type in ValueType::ALL {
            assert_eq!(value_type_from_wire(value_type_to_wire(value_type)), Ok(value_type));
        }
        assert_eq!(value_type_from_wire(0), Ok(ValueType::Register));
        let refused = value_type_from_wire(7).map_err(|error| error.reason);
        assert_eq!(refused, Err(Reason::ArgumentInvalid));
    }

    #[test]
    fn a_context_names_what_was_read_as_far_as_a_write_may() {
        for (read, named) in [(0, 0), (1, 1), (1000, 1000), (1001, 1000)] {
            let siblings = siblings(read);
            let ids: Vec<_> = siblings[..named].iter().map(|sibling| sibling.id).collect();
            assert_eq!(context_from_wire(&context_to_wire(&siblings)), Ok(ids));
        }
    }

    #[test]
    fn what_is_no_context_is_refused() {
        let ids: Vec<_> = siblings(1001).iter().map(|sibling| sibling.id).collect();
        let too_many = postcard::to_extend(&ids, vec![CONTEXT_VERSION]).unwrap();
        let whole = context_to_wire(&siblings(2));
        let longer = [&whole[..], &[0]].concat();
        for wire in [&b"\x02"[..], b"\x01", &too_many, &whole[..whole.len() - 1], &longer] {
            let refused = context_from_wire(&Bytes::copy_from_slice(wire));
            assert_eq!(refused.map_err(|error| error.reason), Err(Reason::ArgumentInvalid));
        }
    }

    #[test]
    fn what_does_not_exist_has_no_version_and_its_types_nothing() {
        let version = siblings(1)[0].time;
        for value in [
            Value::Register(None),
            Value::Counter(None),
            Value::Set(vec![]),
            Value::Map(vec![]),
            Value::Flag(false),
            Value::Siblings(vec![]),
        ] {
            let is_register = matches!(value, Value::Register(_));
            let result = get_result(value, Some(version));
            assert_eq!((result.version, result.value), (None, None));
            assert_eq!(result.typed.is_none(), is_register);
        }
    }
}
