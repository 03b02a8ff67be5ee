//! Writes that happen together.

use bytes::Bytes;

use crate::Column;

/// Writes that happen together or not at all, in this order: a later one hides an earlier one.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Batch {
    writes: Vec<Write>,
    bytes: usize,
}

/// One write of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// `key` now has `value`, whatever it had before.
    Put {
        /// The column written to.
        column: Column,
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// `key` is gone, if it was there.
    Delete {
        /// The column written to.
        column: Column,
        /// The key.
        key: Bytes,
    },
    /// Every key from `start` (included) to `end` (excluded) is gone.
    DeleteRange {
        /// The column written to.
        column: Column,
        /// The lower bound, included.
        start: Bytes,
        /// The upper bound, excluded; above `start`.
        end: Bytes,
    },
}

impl Batch {
    /// A batch that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key's value.
    pub fn put(&mut self, column: Column, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.push(Write::Put { column, key: key.into(), value: value.into() });
    }

    /// Removes a key, if it is there.
    pub fn delete(&mut self, column: Column, key: impl Into<Bytes>) {
        self.push(Write::Delete { column, key: key.into() });
    }

    /// Removes every key from `start` (included) to `end` (excluded). Nothing, if that is empty.
    ///
    /// Meant for many keys at once: in RocksDB it leaves a mark that reads must step over until it is
    /// compacted away, so a few keys are better deleted one by one.
    pub fn delete_range(&mut self, column: Column, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        let (start, end) = (start.into(), end.into());
        if start < end {
            self.push(Write::DeleteRange { column, start, end });
        }
    }

    /// Adds another batch's writes after these.
    pub fn append(&mut self, mut other: Self) {
        self.writes.append(&mut other.writes);
        self.bytes += other.bytes;
    }

    /// How many writes it holds.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether it does nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The bytes of its keys and values together.
    pub fn byte_size(&self) -> usize {
        self.bytes
    }

    /// The writes, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Write> {
        self.writes.iter()
    }

    /// The value the batch last gives that key, to change it where it is stored.
    pub(crate) fn value_mut(&mut self, column: Column, key: &[u8]) -> Option<&mut Bytes> {
        self.writes.iter_mut().rev().find_map(|write| match write {
            Write::Put { column: c, key: k, value } if *c == column && k == key => Some(value),
            _ => None,
        })
    }

    fn push(&mut self, write: Write) {
        self.bytes += match &write {
            Write::Put { key, value, .. } => key.len() + value.len(),
            Write::Delete { key, .. } => key.len(),
            Write::DeleteRange { start, end, .. } => start.len() + end.len(),
        };
        self.writes.push(write);
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a Write;
    type IntoIter = std::slice::Iter<'a, Write>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Batch {
    type Item = Write;
    type IntoIter = std::vec::IntoIter<Write>;

    fn into_iter(self) -> Self::IntoIter {
        self.writes.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_appended_batch_comes_after_and_sizes_add_up() {
        let mut batch = Batch::new();
        batch.put(Column::Base, b"key".to_vec(), b"value".to_vec());
        let mut other = Batch::new();
        other.delete(Column::Log, b"ab".to_vec());
        batch.append(other.clone());
        assert_eq!((batch.len(), batch.byte_size()), (2, 10));
        assert_eq!(batch.iter().last(), other.iter().next());
    }

    #[test]
    fn deleting_an_empty_range_is_no_write() {
        let mut batch = Batch::new();
        batch.delete_range(Column::Base, b"b".to_vec(), b"b".to_vec());
        batch.delete_range(Column::Base, b"b".to_vec(), b"a".to_vec());
        assert!(batch.is_empty());
    }
}
