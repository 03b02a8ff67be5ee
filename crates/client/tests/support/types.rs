//! Values of other types than register, as far as a client can tell: no merging, one writer.

use std::collections::BTreeMap;

use bytes::Bytes;
use latitude_rpc::pb::v1;
use latitude_rpc::pb::v1::command::Operation;
use latitude_rpc::pb::v1::typed_value::Value;

/// What keys hold.
#[derive(Default)]
pub(super) struct Types(BTreeMap<Bytes, Value>);

impl Types {
    /// Of a key that has been written as something else than a register.
    pub(super) fn get(&self, key: &Bytes, version: &v1::Version) -> Option<v1::GetResult> {
        let typed = v1::TypedValue { value: Some(self.0.get(key)?.clone()) };
        Some(v1::GetResult { value: None, version: Some(version.clone()), typed: Some(typed) })
    }

    /// Does a write of these types.
    pub(super) fn write(
        &mut self,
        operation: Operation,
        version: v1::Version,
    ) -> v1::reply::Result {
        let written = v1::reply::Result::Write(v1::WriteResult { version: Some(version.clone()) });
        match operation {
            Operation::CounterAdd(add) => return self.add(&add, version),
            Operation::CounterReset(reset) => {
                self.0.insert(reset.key, Value::Counter(0));
            }
            Operation::SetAdd(add) => {
                let elements = self.elements(add.key);
                elements.retain(|element| *element != add.element);
                elements.push(add.element);
                elements.sort();
            }
            Operation::SetRemove(remove) => {
                self.elements(remove.key).retain(|element| *element != remove.element);
            }
            Operation::MapPut(put) => {
                let fields = self.fields(put.key);
                fields.retain(|field| field.field != put.field);
                fields.push(v1::Field { field: put.field, value: put.value });
            }
            Operation::MapRemove(remove) => {
                self.fields(remove.key).retain(|field| field.field != remove.field);
            }
            Operation::FlagEnable(enable) => {
                self.0.insert(enable.key, Value::Flag(true));
            }
            Operation::FlagDisable(disable) => {
                self.0.insert(disable.key, Value::Flag(false));
            }
            Operation::Put(put) => {
                let siblings = self.siblings(put.key);
                siblings.siblings.drain(..read_of(&put.context));
                let version = Some(version);
                siblings.siblings.push(v1::Sibling { value: put.value, version });
                siblings.context = vec![siblings.siblings.len() as u8].into();
            }
            Operation::Delete(delete) => {
                let siblings = self.siblings(delete.key);
                siblings.siblings.drain(..read_of(&delete.context));
                siblings.context = vec![siblings.siblings.len() as u8].into();
            }
            other => panic!("{other:?} is no write of these types"),
        }
        written
    }

    fn add(&mut self, add: &v1::CounterAdd, version: v1::Version) -> v1::reply::Result {
        let sum = match self.0.get(&add.key) {
            Some(Value::Counter(sum)) => *sum,
            _ => 0,
        };
        let after = sum + add.amount;
        let applied = add.least.is_none_or(|least| after >= least)
            && add.most.is_none_or(|most| after <= most);
        if applied {
            self.0.insert(add.key.clone(), Value::Counter(after));
        }
        v1::reply::Result::CounterAdd(v1::CounterAddResult {
            applied,
            version: applied.then_some(version),
            sum: Some(if applied { after } else { sum }),
        })
    }

    fn elements(&mut self, key: Bytes) -> &mut Vec<Bytes> {
        match self.0.entry(key).or_insert_with(|| Value::Set(v1::Elements::default())) {
            Value::Set(set) => &mut set.elements,
            other => panic!("{other:?} is no set"),
        }
    }

    fn fields(&mut self, key: Bytes) -> &mut Vec<v1::Field> {
        match self.0.entry(key).or_insert_with(|| Value::Map(v1::Fields::default())) {
            Value::Map(map) => &mut map.fields,
            other => panic!("{other:?} is no map"),
        }
    }

    fn siblings(&mut self, key: Bytes) -> &mut v1::Siblings {
        match self.0.entry(key).or_insert_with(|| Value::Siblings(v1::Siblings::default())) {
            Value::Siblings(siblings) => siblings,
            other => panic!("{other:?} are no siblings"),
        }
    }
}

/// A context is how many siblings were read, the oldest first.
fn read_of(context: &Bytes) -> usize {
    context.first().copied().unwrap_or(0).into()
}
