//! A batch: a value that says what is to change, and can be applied to any store.

use std::fmt;
use std::ops::Range;

use cutover_formats::{Family, Hidden};

/// Changes to be applied together. Keys and values stand in one buffer, so that building a batch
/// allocates twice and not twice per row.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    changes: Vec<Entry>,
}

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    family: Family,
    key: Range<usize>,
    value: Option<Range<usize>>,
}

/// One change of a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Change<'b> {
    /// Write the value.
    Put(Family, &'b [u8], &'b [u8]),
    /// Remove the key, whether it is there or not.
    Delete(Family, &'b [u8]),
}

impl Batch {
    /// An empty batch. Committed with a promise of durability, it makes durable what was committed before.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row whose key and value `write` appends.
    ///
    /// # Errors
    /// What `write` returns; the batch is as it was before, then.
    pub fn put_with<E>(
        &mut self,
        family: Family,
        key: impl FnOnce(&mut Vec<u8>),
        value: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        key(&mut self.bytes);
        let middle = self.bytes.len();
        if let Err(err) = value(&mut self.bytes) {
            self.bytes.truncate(start);
            return Err(err);
        }
        let end = self.bytes.len();
        self.changes.push(Entry { family, key: start..middle, value: Some(middle..end) });
        Ok(())
    }

    /// Adds the removal of the key that `key` appends.
    pub fn delete_with(&mut self, family: Family, key: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        key(&mut self.bytes);
        self.changes.push(Entry { family, key: start..self.bytes.len(), value: None });
    }

    /// Adds a row.
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.changes.push(Entry { family, key: start..middle, value: Some(middle..self.bytes.len()) });
    }

    /// Adds the removal of a key.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.delete_with(family, |out| out.extend_from_slice(key));
    }

    /// Adds all of `later` behind what is here.
    pub fn append(&mut self, later: &Self) {
        for change in later.changes() {
            match change {
                Change::Put(family, key, value) => self.put(family, key, value),
                Change::Delete(family, key) => self.delete(family, key),
            }
        }
    }

    /// The changes, in order.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.changes.iter().map(|entry| {
            let key = self.slice(&entry.key);
            match &entry.value {
                Some(value) => Change::Put(entry.family, key, self.slice(value)),
                None => Change::Delete(entry.family, key),
            }
        })
    }

    /// How many changes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    fn slice(&self, range: &Range<usize>) -> &[u8] {
        // The ranges are made above, inside the buffer, which only grows behind them.
        self.bytes.get(range.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.changes()).finish()
    }
}

impl fmt::Debug for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(family, key, value) => {
                f.debug_tuple("Put").field(family).field(key).field(&Hidden(value)).finish()
            }
            Self::Delete(family, key) => f.debug_tuple("Delete").field(family).field(key).finish(),
        }
    }
}
