//! Writes: every one becomes an operation that fits its keyspace's type.

use bytes::Bytes;
use latitude_directory::KeyspaceRecord;
use latitude_range::{Expected, Op, ValueType};
use latitude_rpc::FromWire;
use latitude_rpc::pb::v1;
use latitude_rpc::pb::v1::command::Operation as Wire;
use latitude_types::{Error, Key, OperationKind, Reason, WriteTime};

use super::Operation;
use crate::typed;

/// The longest set element or map field: as long as a key may be.
const NAME_LEN_MAX: usize = 4096;

/// A command's write, with everything checked that its keyspace says of it.
pub(super) fn parse_write(wire: &Wire, keyspace: &KeyspaceRecord) -> Result<Operation, Error> {
    let none = Bytes::new();
    let (key, op, context) = match wire {
        Wire::Put(put) => (&put.key, Op::Put { value: put.value.clone() }, &put.context),
        Wire::Delete(delete) => (&delete.key, Op::Delete, &delete.context),
        Wire::CompareAndSet(cas) => (&cas.key, compare_and_set(cas)?, &none),
        Wire::CounterAdd(add) => (&add.key, counter_add(add)?, &none),
        Wire::CounterReset(reset) => (&reset.key, Op::Reset, &none),
        Wire::SetAdd(add) => (&add.key, Op::SetAdd { element: add.element.clone() }, &none),
        Wire::SetRemove(remove) => {
            (&remove.key, Op::SetRemove { element: remove.element.clone() }, &none)
        }
        Wire::MapPut(put) => {
            let (field, value) = (put.field.clone(), put.value.clone());
            (&put.key, Op::MapPut { field, value }, &none)
        }
        Wire::MapRemove(remove) => {
            (&remove.key, Op::MapRemove { field: remove.field.clone() }, &none)
        }
        Wire::FlagEnable(enable) => (&enable.key, Op::Enable, &none),
        Wire::FlagDisable(disable) => (&disable.key, Op::Disable, &none),
        Wire::Get(_) | Wire::Scan(_) => {
            return Err(Error::new(Reason::Internal, "a read was parsed as a write"));
        }
    };
    let key = Key::from_wire(key)?;
    // Everything there is may go through the log; whether it may go another way depends on the level.
    op.check(keyspace.value_type, OperationKind::Log)?;
    if !context.is_empty() && keyspace.value_type != ValueType::Siblings {
        let message = format!("a {} has no context: leave it empty", keyspace.value_type);
        return Err(Error::new(Reason::TypeMismatch, message));
    }
    check_sizes(&op, keyspace)?;
    let context = typed::context_from_wire(context)?;
    Ok(Operation::Write { key, op, context })
}

fn compare_and_set(cas: &v1::CompareAndSet) -> Result<Op, Error> {
    use v1::compare_and_set::Expected as WireExpected;
    let expected = match &cas.expected {
        Some(WireExpected::Absent(true)) => Expected::Absent,
        Some(WireExpected::Absent(false)) | None => {
            let message =
                "the compare-and-set says nothing of what it expects: set absent, value or version";
            return Err(Error::new(Reason::Malformed, message));
        }
        Some(WireExpected::Value(value)) => Expected::Value(value.clone()),
        Some(WireExpected::Version(version)) => Expected::Version(WriteTime::from_wire(version)?),
    };
    Ok(Op::CompareAndSet { expected, new_value: cas.new_value.clone() })
}

fn counter_add(add: &v1::CounterAdd) -> Result<Op, Error> {
    let v1::CounterAdd { amount, least, most, .. } = *add;
    if least.zip(most).is_some_and(|(least, most)| least > most) {
        let message = "no sum lies within the bounds: `least` is above `most`";
        return Err(Error::new(Reason::ArgumentInvalid, message));
    }
    Ok(match (least, most) {
        (None, None) => Op::Add { amount },
        (least, most) => Op::AddWithin { amount, least, most },
    })
}

fn check_sizes(op: &Op, keyspace: &KeyspaceRecord) -> Result<(), Error> {
    let fits = |what: &str, bytes: &Bytes| {
        let most = keyspace.value_len_max as usize;
        if bytes.len() <= most {
            return Ok(());
        }
        let message = format!(
            "the {what} has {} bytes; the keyspace {:?} takes up to {most}",
            bytes.len(),
            keyspace.name
        );
        Err(Error::new(Reason::ValueTooLarge, message))
    };
    let is_name = |what: &str, name: &Bytes| {
        if (1..=NAME_LEN_MAX).contains(&name.len()) {
            return fits(what, name);
        }
        let message = format!("the {what} has {} bytes; give it 1 to {NAME_LEN_MAX}", name.len());
        Err(Error::new(Reason::ArgumentInvalid, message))
    };
    match op {
        Op::Put { value } => fits("value", value),
        Op::CompareAndSet { expected, new_value } => {
            // No key holds a longer one.
            if let Expected::Value(value) = expected {
                fits("expected value", value)?;
            }
            new_value.as_ref().map_or(Ok(()), |value| fits("value", value))
        }
        Op::SetAdd { element } | Op::SetRemove { element } => is_name("element", element),
        Op::MapPut { field, value } => {
            is_name("field", field)?;
            fits("value", value)
        }
        Op::MapRemove { field } => is_name("field", field),
        Op::Delete
        | Op::Add { .. }
        | Op::AddWithin { .. }
        | Op::Reset
        | Op::Enable
        | Op::Disable => Ok(()),
    }
}
