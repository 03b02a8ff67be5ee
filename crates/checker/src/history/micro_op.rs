//! What an operation does to one key.

use std::fmt;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

/// One step of an operation, on one key. In a line: `["r","k7",null]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MicroOp {
    /// `["r",k,v]`: reads any type. `v` is null when invoked.
    Read {
        /// Of what.
        key: String,
        /// What was seen.
        value: Value,
    },
    /// `["w",k,v]`: writes a register.
    Write {
        /// Of what.
        key: String,
        /// Never written to this key before.
        value: i64,
    },
    /// `["cas",k,[from,to]]`: writes `to` if the register holds `from`.
    CompareAndSet {
        /// Of what.
        key: String,
        /// `None`: if the key is absent.
        from: Option<i64>,
        /// The new value.
        to: i64,
    },
    /// `["append",k,v]`: to a list.
    Append {
        /// Of what.
        key: String,
        /// The new last element.
        value: i64,
    },
    /// `["add",k,n]`: to a counter, or an element to a set.
    Add {
        /// Of what.
        key: String,
        /// How much, or which element.
        amount: i64,
    },
    /// `["badd",k,[n,lo,hi]]`: to a counter, if it stays within bounds.
    BoundedAdd {
        /// Of what.
        key: String,
        /// How much.
        amount: i64,
        /// The least the counter may become.
        low: i64,
        /// The most the counter may become.
        high: i64,
    },
    /// `["pia",k,v]`: writes a register if the key is absent.
    PutIfAbsent {
        /// Of what.
        key: String,
        /// The first value.
        value: i64,
    },
    /// `["mput",k,[field,v]]`: writes a field of a map.
    MapPut {
        /// Of what.
        key: String,
        /// Which field.
        field: String,
        /// Its value.
        value: i64,
    },
    /// `["mrm",k,field]`: removes a field of a map.
    MapRemove {
        /// Of what.
        key: String,
        /// Which field.
        field: String,
    },
    /// `["en",k,null]`: sets a flag.
    Enable {
        /// Of what.
        key: String,
    },
    /// `["dis",k,null]`: clears a flag.
    Disable {
        /// Of what.
        key: String,
    },
    /// `["rm",k,e]`: removes an element of a set.
    Remove {
        /// Of what.
        key: String,
        /// Which element.
        element: i64,
    },
    /// `["d",k,null]`: makes the key absent.
    Delete {
        /// Of what.
        key: String,
    },
}

/// What a read saw.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// Nothing, or not known yet.
    Absent,
    /// A register, counter or flag.
    Integer(i64),
    /// A list in its order, or a set in any.
    List(Vec<i64>),
}

impl MicroOp {
    /// The key.
    pub fn key(&self) -> &str {
        match self {
            Self::Read { key, .. }
            | Self::Write { key, .. }
            | Self::CompareAndSet { key, .. }
            | Self::Append { key, .. }
            | Self::Add { key, .. }
            | Self::BoundedAdd { key, .. }
            | Self::PutIfAbsent { key, .. }
            | Self::MapPut { key, .. }
            | Self::MapRemove { key, .. }
            | Self::Enable { key }
            | Self::Disable { key }
            | Self::Remove { key, .. }
            | Self::Delete { key } => key,
        }
    }

    /// Whether `self` can be the completion of `invoked`: the same but for what a read saw.
    pub fn completes(&self, invoked: &Self) -> bool {
        match (self, invoked) {
            (Self::Read { key, .. }, Self::Read { key: asked, .. }) => key == asked,
            _ => self == invoked,
        }
    }

    fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Read { key, value } => json!(["r", key, value]),
            Self::Write { key, value } => json!(["w", key, value]),
            Self::CompareAndSet { key, from, to } => json!(["cas", key, [from, &Some(*to)]]),
            Self::Append { key, value } => json!(["append", key, value]),
            Self::Add { key, amount } => json!(["add", key, amount]),
            Self::BoundedAdd { key, amount, low, high } => {
                json!(["badd", key, [amount, low, high]])
            }
            Self::PutIfAbsent { key, value } => json!(["pia", key, value]),
            Self::MapPut { key, field, value } => {
                json!(["mput", key, [json!(field), json!(value)]])
            }
            Self::MapRemove { key, field } => json!(["mrm", key, field]),
            Self::Enable { key } => json!(["en", key, null]),
            Self::Disable { key } => json!(["dis", key, null]),
            Self::Remove { key, element } => json!(["rm", key, element]),
            Self::Delete { key } => json!(["d", key, null]),
        }
    }

    fn from_json(json: serde_json::Value) -> Result<Self, serde_json::Error> {
        fn argument<T: DeserializeOwned>(json: serde_json::Value) -> Result<T, serde_json::Error> {
            serde_json::from_value(json)
        }
        let (name, key, rest): (String, String, serde_json::Value) = argument(json)?;
        Ok(match name.as_str() {
            "r" => Self::Read { key, value: argument(rest)? },
            "w" => Self::Write { key, value: argument(rest)? },
            "cas" => {
                let (from, to) = argument(rest)?;
                Self::CompareAndSet { key, from, to }
            }
            "append" => Self::Append { key, value: argument(rest)? },
            "add" => Self::Add { key, amount: argument(rest)? },
            "badd" => {
                let (amount, low, high) = argument(rest)?;
                Self::BoundedAdd { key, amount, low, high }
            }
            "pia" => Self::PutIfAbsent { key, value: argument(rest)? },
            "mput" => {
                let (field, value) = argument(rest)?;
                Self::MapPut { key, field, value }
            }
            "mrm" => Self::MapRemove { key, field: argument(rest)? },
            "en" => argument(rest).map(|()| Self::Enable { key })?,
            "dis" => argument(rest).map(|()| Self::Disable { key })?,
            "rm" => Self::Remove { key, element: argument(rest)? },
            "d" => argument(rest).map(|()| Self::Delete { key })?,
            other => {
                let message = format!("`{other}` is no micro-operation");
                return Err(serde_json::Error::custom(message));
            }
        })
    }
}

impl Serialize for MicroOp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MicroOp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = serde_json::Value::deserialize(deserializer)?;
        let shown = json.to_string();
        Self::from_json(json).map_err(|error| D::Error::custom(format!("{shown}: {error}")))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("null"),
            Self::Integer(integer) => write!(f, "{integer}"),
            Self::List(list) => write!(f, "{list:?}"),
        }
    }
}

/// For people, and without the key: `read 5`, `cas 1 -> 2`.
impl fmt::Display for MicroOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { value, .. } => write!(f, "read {value}"),
            Self::Write { value, .. } => write!(f, "write {value}"),
            Self::CompareAndSet { from: Some(from), to, .. } => write!(f, "cas {from} -> {to}"),
            Self::CompareAndSet { from: None, to, .. } => write!(f, "cas null -> {to}"),
            Self::Append { value, .. } => write!(f, "append {value}"),
            Self::Add { amount, .. } => write!(f, "add {amount}"),
            Self::BoundedAdd { amount, low, high, .. } => {
                write!(f, "add {amount} within {low}..={high}")
            }
            Self::PutIfAbsent { value, .. } => write!(f, "put-if-absent {value}"),
            Self::MapPut { field, value, .. } => write!(f, "put {field}={value}"),
            Self::MapRemove { field, .. } => write!(f, "remove field {field}"),
            Self::Enable { .. } => f.write_str("enable"),
            Self::Disable { .. } => f.write_str("disable"),
            Self::Remove { element, .. } => write!(f, "remove {element}"),
            Self::Delete { .. } => f.write_str("delete"),
        }
    }
}
