//! Rows beside a user's key, in the column `Base`.

use latitude_types::{ClientId, Key, KeySpan, KeyspaceId, OperationId, OperationKind, Timestamp};

use super::{Span, done, escape, take};

const VALUE: u8 = 1;
const ID: u8 = 2;

const KIND_LOG: u8 = 1;
const KIND_LOCAL: u8 = 2;

/// What a row of `Base` beside a user's key is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The keyspace of the key.
    pub keyspace: KeyspaceId,
    /// The user's key.
    pub key: Key,
    /// Which of the rows beside that key.
    pub kind: RowKind,
}

/// The rows there are beside a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RowKind {
    /// Its value.
    Value,
    /// What became of the operation of that id.
    Id(OperationId),
}

/// The value of a key.
pub fn value_key(keyspace: KeyspaceId, key: &Key) -> Vec<u8> {
    let mut out = escape::prefix(keyspace, key.as_bytes(), 1);
    out.push(VALUE);
    out
}

/// What became of the operation `id` on a key.
pub fn id_key(keyspace: KeyspaceId, key: &Key, id: &OperationId) -> Vec<u8> {
    let mut out = escape::prefix(keyspace, key.as_bytes(), 1 + 8 + 16 + 8 + 1);
    out.push(ID);
    out.extend_from_slice(&id.birth.0.to_be_bytes());
    out.extend_from_slice(&id.client.0);
    out.extend_from_slice(&id.sequence.to_be_bytes());
    out.push(match id.kind {
        OperationKind::Log => KIND_LOG,
        OperationKind::Local => KIND_LOCAL,
    });
    out
}

/// The ids remembered beside a key, oldest birth first.
pub fn id_span(keyspace: KeyspaceId, key: &Key) -> Span {
    let mut start = escape::prefix(keyspace, key.as_bytes(), 1);
    let mut end = start.clone();
    start.push(ID);
    end.push(ID + 1);
    Span { start, end }
}

/// Those of them born at or after `birth`.
pub fn id_span_from(keyspace: KeyspaceId, key: &Key, birth: Timestamp) -> Span {
    let mut span = id_span(keyspace, key);
    span.start.extend_from_slice(&birth.0.to_be_bytes());
    span
}

/// Every row, of whatever kind, of every key in `keys`: values, ids, and kinds yet to come.
pub fn value_span(keyspace: KeyspaceId, keys: &KeySpan) -> Span {
    escape::span(keyspace, keys)
}

/// Which row a key of `Base` names. `None` for the rows of keyspace 0 (see [`super::local`]) and for
/// bytes that name none.
pub fn decode(mut row: &[u8]) -> Option<Row> {
    let (keyspace, key) = escape::take_prefix(&mut row)?;
    if keyspace == KeyspaceId::LOCAL {
        return None;
    }
    let kind = match take::<1>(&mut row)? {
        [VALUE] => RowKind::Value,
        [ID] => RowKind::Id(OperationId {
            birth: Timestamp(u64::from_be_bytes(take(&mut row)?)),
            client: ClientId(take(&mut row)?),
            sequence: u64::from_be_bytes(take(&mut row)?),
            kind: match take::<1>(&mut row)? {
                [KIND_LOG] => OperationKind::Log,
                [KIND_LOCAL] => OperationKind::Local,
                _ => return None,
            },
        }),
        _ => return None,
    };
    done(row, Row { keyspace, key, kind })
}

/// The user's key, if the row is the value of one.
pub fn key_of_value(row: &[u8]) -> Option<(KeyspaceId, Key)> {
    let row = decode(row)?;
    (row.kind == RowKind::Value).then_some((row.keyspace, row.key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> OperationId {
        OperationId {
            birth: Timestamp::from_ms(5),
            client: ClientId([7; 16]),
            sequence: 3,
            kind: OperationKind::Local,
        }
    }

    #[test]
    fn rows_decode_to_what_made_them() {
        let (keyspace, key) = (KeyspaceId::DEFAULT, Key::new(b"a\0b").unwrap());
        let value = value_key(keyspace, &key);
        assert_eq!(key_of_value(&value), Some((keyspace, key.clone())));
        let row = id_key(keyspace, &key, &id());
        assert_eq!(key_of_value(&row), None);
        assert_eq!(decode(&row), Some(Row { keyspace, key, kind: RowKind::Id(id()) }));
        assert_eq!(decode(&row[..row.len() - 1]), None, "a row cut short is no row");
    }

    #[test]
    fn a_value_comes_before_its_ids_and_both_before_the_next_key() {
        let keyspace = KeyspaceId::DEFAULT;
        let (a, b) = (Key::new(b"a").unwrap(), Key::new(b"a\0").unwrap());
        let id = id_key(keyspace, &a, &id());
        assert!(value_key(keyspace, &a) < id && id < value_key(keyspace, &b));
        assert!(id_span(keyspace, &a).contains(&id));
        assert!(!id_span(keyspace, &a).contains(&value_key(keyspace, &a)));
    }

    #[test]
    fn the_ids_from_a_birth_on_are_those_and_no_others() {
        let (keyspace, key) = (KeyspaceId::DEFAULT, Key::new(b"a").unwrap());
        let row = id_key(keyspace, &key, &id());
        let from = |birth| id_span_from(keyspace, &key, birth);
        assert!(from(Timestamp::ZERO).contains(&row) && from(id().birth).contains(&row));
        assert!(!from(id().birth.next()).contains(&row));
        assert!(!from(Timestamp::ZERO).contains(&value_key(keyspace, &key)));
    }

    #[test]
    fn the_rows_of_a_range_are_no_rows_of_a_key() {
        assert_eq!(decode(&super::super::local::meta(latitude_types::RangeId(0x61_00_01))), None);
    }
}
