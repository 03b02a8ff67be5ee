//! Values of other types than register: counters, sets, maps, flags, siblings.
//!
//! A keyspace has one type for all its keys, which is said when it is created; it decides how writes merge
//! that did not see each other. What an operation of another type gets is [`Reason::TypeMismatch`].

use bytes::Bytes;
use latitude_rpc::FromWire;
use latitude_rpc::pb::v1;
use latitude_types::{Error, Reason, Result, WriteTime};

use crate::answer::{Answer, Outcome, unfitting};
use crate::keyspace::{Keyspace, written};
use crate::operation::Operation;

/// What a key holds, whatever its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The value.
    pub value: TypedValue,
    /// Its version; `None`: the key does not exist. An empty set or map, no siblings, and a flag that is off
    /// do not.
    pub version: Option<WriteTime>,
}

/// A value of any type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypedValue {
    /// A register's bytes; `None`: the key does not exist.
    Register(Option<Bytes>),
    /// A counter's sum; 0 also if the key does not exist, an end of the range if the sum lies beyond it.
    Counter(i64),
    /// A set's elements, in order.
    Set(Vec<Bytes>),
    /// A map's fields with their values, in order.
    Map(Vec<(Bytes, Bytes)>),
    /// Whether a flag is on.
    Flag(bool),
    /// All values written unseen of each other.
    Siblings(Siblings),
}

/// All values of a key that were written unseen of each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Siblings {
    /// The values.
    pub values: Vec<Sibling>,
    /// Names them in the next write, which takes their place: opaque, for this key only. Empty if there are
    /// none.
    pub context: Bytes,
}

/// One of several values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// The value.
    pub value: Bytes,
    /// Its own version.
    pub version: WriteTime,
}

/// A counter was added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// The version it has now.
    pub version: WriteTime,
    /// The sum right after it; `None` at levels that do not write through the log.
    pub sum: Option<i64>,
}

/// How an add within bounds went. Both are successes: the bounds were judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddOutcome {
    /// The sum is within the bounds.
    Applied(Added),
    /// It would have left them, and nothing was added.
    OutOfBounds {
        /// The sum found.
        found: i64,
    },
}

impl AddOutcome {
    /// Whether it was added.
    pub fn is_applied(&self) -> bool {
        matches!(self, Self::Applied(_))
    }
}

impl TypedValue {
    /// The name of the value's type, as keyspaces are created with.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Register(_) => "register",
            Self::Counter(_) => "counter",
            Self::Set(_) => "set",
            Self::Map(_) => "map",
            Self::Flag(_) => "flag",
            Self::Siblings(_) => "siblings",
        }
    }

    /// About how many bytes it has.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Register(value) => value.as_ref().map_or(0, Bytes::len),
            Self::Counter(_) => size_of::<i64>(),
            Self::Flag(_) => 1,
            Self::Set(elements) => elements.iter().map(Bytes::len).sum(),
            Self::Map(fields) => {
                fields.iter().map(|(field, value)| field.len() + value.len()).sum()
            }
            Self::Siblings(siblings) => siblings.values.iter().map(|one| one.value.len()).sum(),
        }
    }
}

/// A value of this version's types; one of a later version's is an error.
impl FromWire<v1::TypedValue> for TypedValue {
    fn from_wire(wire: v1::TypedValue) -> Result<Self> {
        use v1::typed_value::Value as Wire;
        let value = wire.value.ok_or_else(|| {
            Error::new(Reason::Malformed, "the value is of a type that this client does not know")
        })?;
        Ok(match value {
            Wire::Counter(sum) => Self::Counter(sum),
            Wire::Set(set) => Self::Set(set.elements),
            Wire::Map(map) => {
                Self::Map(map.fields.into_iter().map(|field| (field.field, field.value)).collect())
            }
            Wire::Flag(on) => Self::Flag(on),
            Wire::Siblings(siblings) => Self::Siblings(Siblings {
                values: siblings
                    .siblings
                    .into_iter()
                    .map(|sibling| {
                        let version = sibling.version.as_ref();
                        let version = version.ok_or_else(|| unfitting("get", false))?;
                        let version = WriteTime::from_wire(version)?;
                        Ok(Sibling { value: sibling.value, version })
                    })
                    .collect::<Result<_>>()?,
                context: siblings.context,
            }),
        })
    }
}

impl FromWire<v1::GetResult> for Held {
    fn from_wire(wire: v1::GetResult) -> Result<Self> {
        let value = match wire.typed {
            Some(typed) => TypedValue::from_wire(typed)?,
            None => TypedValue::Register(wire.value),
        };
        let version = wire.version.as_ref().map(WriteTime::from_wire).transpose()?;
        Ok(Self { value, version })
    }
}

impl FromWire<v1::CounterAddResult> for AddOutcome {
    fn from_wire(wire: v1::CounterAddResult) -> Result<Self> {
        match (wire.applied, wire.version, wire.sum) {
            (true, Some(version), sum) => {
                Ok(Self::Applied(Added { version: WriteTime::from_wire(&version)?, sum }))
            }
            (false, _, Some(found)) => Ok(Self::OutOfBounds { found }),
            _ => Err(unfitting("add", true)),
        }
    }
}

/// A key of a keyspace of another type was read.
pub(crate) fn wrong_type(wanted: &str, value: &TypedValue) -> Error {
    let message = format!(
        "the keyspace's type is {}, not {wanted}: read it as what it is, or with `get_any`",
        value.type_name()
    );
    Error::new(Reason::TypeMismatch, message)
}

/// Of any type.
impl Keyspace {
    /// Reads a key, whatever the keyspace's type.
    ///
    /// ```no_run
    /// # async fn example(things: latitude_client::Keyspace) -> latitude_client::Result<()> {
    /// use latitude_client::TypedValue;
    ///
    /// match things.get_any("k").await?.value.value {
    ///     TypedValue::Counter(sum) => assert!(sum >= 0),
    ///     TypedValue::Set(elements) => assert!(elements.contains(&"milk".into())),
    ///     other => panic!("it is a {}", other.type_name()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_any(&self, key: impl AsRef<[u8]>) -> Result<Answer<Held>> {
        self.operate(&Operation::get(key)).await?.try_map(|outcome| match outcome {
            Outcome::Got(None) => Ok(Held { value: TypedValue::Register(None), version: None }),
            Outcome::Got(Some(value)) => {
                let version = Some(value.version);
                Ok(Held { value: TypedValue::Register(Some(value.bytes)), version })
            }
            Outcome::GotTyped(held) => Ok(held),
            _ => Err(unfitting("get", false)),
        })
    }

    /// Reads a key of one type.
    async fn get_of<T>(
        &self,
        key: impl AsRef<[u8]>,
        wanted: &'static str,
        take: impl FnOnce(TypedValue) -> std::result::Result<T, TypedValue>,
    ) -> Result<Answer<T>> {
        self.get_any(key)
            .await?
            .try_map(|held| take(held.value).map_err(|other| wrong_type(wanted, &other)))
    }
}

/// Counters: every add counts, exactly once.
impl Keyspace {
    /// Reads a counter's sum; 0 if the key does not exist.
    pub async fn counter(&self, key: impl AsRef<[u8]>) -> Result<Answer<i64>> {
        self.get_of(key, "counter", |value| match value {
            TypedValue::Counter(sum) => Ok(sum),
            other => Err(other),
        })
        .await
    }

    /// Adds to a counter; `amount` may be negative.
    ///
    /// ```no_run
    /// # async fn example(client: latitude_client::Client) -> latitude_client::Result<()> {
    /// let likes = client.keyspace("likes");
    /// likes.add("photo", 1).await?;
    /// assert!(likes.counter("photo").await?.value >= 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn add(&self, key: impl AsRef<[u8]>, amount: i64) -> Result<Answer<Added>> {
        self.operate(&Operation::add(key, amount)).await?.try_map(|outcome| match outcome {
            Outcome::Added(AddOutcome::Applied(added)) => Ok(added),
            _ => Err(unfitting("add", true)),
        })
    }

    /// Adds to a counter if the sum is within the bounds afterwards, judged at the add's place in the log. Bounds
    /// that would be left are no error but [`AddOutcome::OutOfBounds`]. Adds of others at levels that do not write
    /// through the log may carry the sum beyond the bounds all the same, unless the keyspace is log-only.
    ///
    /// ```no_run
    /// # async fn example(stock: latitude_client::Keyspace) -> latitude_client::Result<()> {
    /// // Take one out, if there is one.
    /// let taken = stock.add_within("bicycle", -1, Some(0), None).await?.value;
    /// assert!(taken.is_applied(), "sold out");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn add_within(
        &self,
        key: impl AsRef<[u8]>,
        amount: i64,
        least: Option<i64>,
        most: Option<i64>,
    ) -> Result<Answer<AddOutcome>> {
        let operation = Operation::add_within(key, amount, least, most);
        self.operate(&operation).await?.try_map(|outcome| match outcome {
            Outcome::Added(outcome) => Ok(outcome),
            _ => Err(unfitting("add_within", true)),
        })
    }

    /// Sets a counter to zero, at its place in the log; what others add without having seen it counts after it.
    ///
    /// ```no_run
    /// # async fn example(visits: latitude_client::Keyspace) -> latitude_client::Result<()> {
    /// let version = visits.reset("today").await?.value;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reset(&self, key: impl AsRef<[u8]>) -> Result<Answer<WriteTime>> {
        self.operate(&Operation::reset(key)).await?.try_map(written)
    }
}

/// Sets: an add wins over a remove that had not seen it. Several elements at once: [`Keyspace::batch`].
impl Keyspace {
    /// Reads a set's elements, in order; none if the key does not exist.
    pub async fn members(&self, key: impl AsRef<[u8]>) -> Result<Answer<Vec<Bytes>>> {
        self.get_of(key, "set", |value| match value {
            TypedValue::Set(elements) => Ok(elements),
            other => Err(other),
        })
        .await
    }

    /// Adds an element of 1 to 4096 bytes, whether or not it is in the set.
    ///
    /// ```no_run
    /// # async fn example(carts: latitude_client::Keyspace) -> latitude_client::Result<()> {
    /// carts.set_add("alice", "milk").await?;
    /// carts.set_remove("alice", "bread").await?;
    /// assert_eq!(carts.members("alice").await?.value, ["milk"]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_add(
        &self,
        key: impl AsRef<[u8]>,
        element: impl AsRef<[u8]>,
    ) -> Result<Answer<WriteTime>> {
        self.operate(&Operation::set_add(key, element)).await?.try_map(written)
    }

    /// Removes an element, whether or not it is in the set.
    pub async fn set_remove(
        &self,
        key: impl AsRef<[u8]>,
        element: impl AsRef<[u8]>,
    ) -> Result<Answer<WriteTime>> {
        self.operate(&Operation::set_remove(key, element)).await?.try_map(written)
    }
}

/// Maps: each field is a register of its own. Several fields at once: [`Keyspace::batch`].
impl Keyspace {
    /// Reads a map's fields with their values, in order; none if the key does not exist.
    pub async fn fields(&self, key: impl AsRef<[u8]>) -> Result<Answer<Vec<(Bytes, Bytes)>>> {
        self.get_of(key, "map", |value| match value {
            TypedValue::Map(fields) => Ok(fields),
            other => Err(other),
        })
        .await
    }

    /// Writes a field of 1 to 4096 bytes, whatever it held.
    ///
    /// ```no_run
    /// # async fn example(profiles: latitude_client::Keyspace) -> latitude_client::Result<()> {
    /// profiles.map_put("alice", "city", "Lima").await?;
    /// profiles.map_remove("alice", "phone").await?;
    /// for (field, value) in profiles.fields("alice").await?.value {
    ///     assert!(!field.is_empty(), "{value:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn map_put(
        &self,
        key: impl AsRef<[u8]>,
        field: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
    ) -> Result<Answer<WriteTime>> {
        self.operate(&Operation::map_put(key, field, value)).await?.try_map(written)
    }

    /// Removes a field, whether or not it exists.
    pub async fn map_remove(
        &self,
        key: impl AsRef<[u8]>,
        field: impl AsRef<[u8]>,
    ) -> Result<Answer<WriteTime>> {
        self.operate(&Operation::map_remove(key, field)).await?.try_map(written)
    }
}

/// Flags: an enable wins over a disable that had not seen it.
impl Keyspace {
    /// Whether a flag is on.
    pub async fn flag(&self, key: impl AsRef<[u8]>) -> Result<Answer<bool>> {
        self.get_of(key, "flag", |value| match value {
            TypedValue::Flag(on) => Ok(on),
            other => Err(other),
        })
        .await
    }

    /// Turns a flag on.
    ///
    /// ```no_run
    /// # async fn example(flags: latitude_client::Keyspace) -> latitude_client::Result<()> {
    /// flags.enable("dark-mode").await?;
    /// assert!(flags.flag("dark-mode").await?.value);
    /// flags.disable("dark-mode").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn enable(&self, key: impl AsRef<[u8]>) -> Result<Answer<WriteTime>> {
        self.operate(&Operation::enable(key)).await?.try_map(written)
    }

    /// Turns a flag off. An enable that this had not seen stays, and so does the flag.
    pub async fn disable(&self, key: impl AsRef<[u8]>) -> Result<Answer<WriteTime>> {
        self.operate(&Operation::disable(key)).await?.try_map(written)
    }
}

/// Siblings: a write takes the place of what its writer has read; values written unseen of each other are all
/// kept. [`Keyspace::put`] reads nothing, so it writes one more.
impl Keyspace {
    /// Reads all values of a key, with the context for the next write; none if the key does not exist.
    pub async fn siblings(&self, key: impl AsRef<[u8]>) -> Result<Answer<Siblings>> {
        self.get_of(key, "siblings", |value| match value {
            TypedValue::Siblings(siblings) => Ok(siblings),
            other => Err(other),
        })
        .await
    }

    /// Writes a value in the place of the siblings that were read.
    ///
    /// ```no_run
    /// # async fn example(notes: latitude_client::Keyspace) -> latitude_client::Result<()> {
    /// let read = notes.siblings("todo").await?.value;
    /// let merged: Vec<u8> = read.values.iter().flat_map(|one| one.value.to_vec()).collect();
    /// notes.put_sibling("todo", merged, read.context).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_sibling(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        context: Bytes,
    ) -> Result<Answer<WriteTime>> {
        self.operate(&Operation::put_sibling(key, value, context)).await?.try_map(written)
    }

    /// Removes the siblings that were read.
    pub async fn delete_siblings(
        &self,
        key: impl AsRef<[u8]>,
        context: Bytes,
    ) -> Result<Answer<WriteTime>> {
        self.operate(&Operation::delete_siblings(key, context)).await?.try_map(written)
    }
}
