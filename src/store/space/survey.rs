//! Reading past what cannot be read.
//!
//! A scan ends at the first thing that is damaged. A survey goes on behind it: a value that does not decode is one row, a key that does
//! not is one row too, and where the store itself cannot read on, the next place where it can is looked for.

use std::ops::ControlFlow;

use cutover_formats::{Family, NoteId, Prefix, Record, RowId, TenantId};

use super::{Changes, Space};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Write, prefix_end};

/// Most tries to find the end of what a store cannot read: enough for the bits of a key in which its neighbours differ.
const TRIES: usize = 512;

/// A row that cannot be read, or some that follow each other of which not even the keys can be.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) family: Family,
    /// The key of the row, or the first that cannot be read, as it stands in the store.
    pub(crate) key: Vec<u8>,
    /// The first that can be read again; empty for one row.
    pub(crate) to: Vec<u8>,
    /// What is wrong with it, in words.
    pub(crate) reason: String,
}

/// One page of rows, and what was passed over.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) rows: Vec<(RowId<'static>, Result<Record>)>,
    pub(crate) damaged: Vec<Damage>,
    /// Bytes of its values.
    pub(crate) bytes: u64,
    /// Nothing comes after it.
    pub(crate) done: bool,
}

impl Space {
    /// Up to `rows` rows and about `bytes` bytes of `prefix`, from behind `after` on, those that do not decode among them.
    ///
    /// # Errors
    /// If the store fails in another way than by being damaged.
    pub(crate) fn survey(
        &self,
        tenant: TenantId,
        prefix: Prefix<'_>,
        after: Option<&RowId<'_>>,
        rows: usize,
        bytes: u64,
    ) -> Result<Survey> {
        let family = prefix.family();
        let (mut from, to) = self.bounds_after(tenant, prefix, after);
        let mut survey = Survey { rows: Vec::new(), damaged: Vec::new(), bytes: 0, done: true };
        loop {
            let mut last = None;
            let scanned = self.store.scan(family, &from, &to, &mut |key, value| {
                if survey.rows.len() >= rows || survey.bytes >= bytes {
                    survey.done = false;
                    return ControlFlow::Break(());
                }
                last = Some(key.to_vec());
                survey.bytes += value.len() as u64;
                self.see(&mut survey, family, key, value);
                ControlFlow::Continue(())
            });
            let Err(error) = scanned else { return Ok(survey) };
            if error.kind() != ErrorKind::Corrupt {
                return Err(self.failed(family, error));
            }
            let key = last.map_or(from, |mut last| {
                // The first key behind it.
                last.push(0);
                last
            });
            // It may be only the way there from the row before that cannot be gone.
            if self.reads_from(family, &key, &to)? {
                from = key;
                continue;
            }
            let next = self.readable_after(family, &key, &to)?;
            let reason = self.failed(family, error).to_string();
            survey.damaged.push(Damage {
                family,
                key,
                to: next.clone().unwrap_or_else(|| to.clone()),
                reason,
            });
            match next {
                Some(next) => from = next,
                None => return Ok(survey),
            }
        }
    }

    /// A row whose value does not decode, as something to be set aside.
    pub(crate) fn damage_of(&self, tenant: TenantId, id: &RowId<'_>, error: &Error) -> Damage {
        let reason = error.to_string();
        Damage { family: id.family(), key: self.key_of(tenant, id), to: Vec::new(), reason }
    }

    /// The key of a row, as it stands in this store.
    pub(crate) fn key_of(&self, tenant: TenantId, id: &RowId<'_>) -> Vec<u8> {
        let mut key = Vec::with_capacity(64);
        self.layout.key(tenant, id, &mut key);
        key
    }

    /// What a key of this store means; `None` if it is not one.
    pub(crate) fn row_of(&self, family: Family, key: &[u8]) -> Option<RowId<'static>> {
        self.layout.read_key(family, key).ok().map(|(_, id)| id)
    }

    /// The note that sets a row of this store aside.
    pub(crate) fn quarantine_of(&self, tenant: TenantId, id: &RowId<'_>) -> RowId<'static> {
        RowId::Note(NoteId::Quarantine { family: id.family(), key: self.key_of(tenant, id).into() })
    }

    /// Whether the store can show every key from `from` up to `to`.
    pub(crate) fn shows(&self, family: Family, from: &[u8], to: &[u8]) -> Result<bool> {
        match self.store.scan(family, from, to, &mut |_, _| ControlFlow::Continue(())) {
            Ok(()) => Ok(true),
            Err(err) if err.kind() == ErrorKind::Corrupt => Ok(false),
            Err(err) => Err(self.failed(family, err)),
        }
    }

    /// Whether there is a row with exactly this key, readable or not.
    pub(crate) fn has_key(&self, family: Family, key: &[u8]) -> Result<bool> {
        self.store.get(family, key).map(|found| found.is_some()).map_err(|err| self.failed(family, err))
    }

    /// Removes the row that a note sets aside, and the note, together with `changes`.
    pub(crate) fn remove_damaged(
        &self,
        tenant: TenantId,
        note: &RowId<'static>,
        changes: &Changes,
    ) -> Result<()> {
        let RowId::Note(NoteId::Quarantine { family, key }) = note else { return Ok(()) };
        let mut batch = self.encode(tenant, changes)?;
        batch.delete(*family, key);
        batch.append(&self.encode(tenant, &Changes::removal(note.clone()))?);
        self.commit(&batch, Write::Synced)
    }

    /// Removes the rows from one key up to another, as they stand in this store.
    pub(crate) fn remove_range(&self, family: Family, from: &[u8], to: &[u8]) -> Result<()> {
        // A store that cannot read what it is to remove has not failed to write.
        let mut unreadable = None;
        self.write(|store| match store.remove_range(family, from, to) {
            Err(err) if err.kind() == ErrorKind::Corrupt => {
                unreadable = Some(err);
                Ok(())
            }
            removed => removed,
        })?;
        unreadable.map_or(Ok(()), |err| Err(self.failed(family, err)))
    }

    fn see(&self, survey: &mut Survey, family: Family, key: &[u8], value: &[u8]) {
        match self.layout.read_key(family, key) {
            Ok((_, id)) => {
                let record = self.layout.read_value(&id, value).map_err(|err| self.unreadable(&id, err));
                survey.rows.push((id, record));
            }
            Err(err) => {
                let reason = self.corrupt(family, err).to_string();
                survey.damaged.push(Damage { family, key: key.to_vec(), to: Vec::new(), reason });
            }
        }
    }

    /// The first place behind `bad`, where the store cannot read, from which it can; `None` if it cannot up to `to`.
    ///
    /// First a place far enough is looked for, by keys that come ever further behind, and then the first one before it.
    fn readable_after(&self, family: Family, bad: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>> {
        let beyond = |key: &[u8]| key.is_empty() || (!to.is_empty() && key >= to);
        let mut low = bad.to_vec();
        let mut high = None;
        for len in (1..=bad.len()).rev() {
            let probe = prefix_end(bad.get(..len).unwrap_or_default());
            if beyond(&probe) {
                break;
            }
            if self.reads_from(family, &probe, to)? {
                high = Some(probe);
                break;
            }
            low = probe;
        }
        let Some(mut high) = high else { return Ok(None) };
        for _ in 0..TRIES {
            let Some(middle) = between(&low, &high, bad.len() + 8) else { break };
            if self.reads_from(family, &middle, to)? {
                high = middle;
            } else {
                low = middle;
            }
        }
        Ok(Some(high))
    }

    fn reads_from(&self, family: Family, from: &[u8], to: &[u8]) -> Result<bool> {
        match self.store.scan(family, from, to, &mut |_, _| ControlFlow::Break(())) {
            Ok(()) => Ok(true),
            Err(err) if err.kind() == ErrorKind::Corrupt => Ok(false),
            Err(err) => Err(self.failed(family, err)),
        }
    }
}

/// A key of at most so many bytes between two others, near the middle.
fn between(low: &[u8], high: &[u8], most: usize) -> Option<Vec<u8>> {
    let len = (low.len().max(high.len()) + 1).min(most);
    let byte = |of: &[u8], at: usize| u16::from(of.get(at).copied().unwrap_or(0));
    let mut sum = vec![0_u16; len + 1];
    let mut carry = 0;
    for at in (0..len).rev() {
        let digits = byte(low, at) + byte(high, at) + carry;
        carry = digits >> 8;
        if let Some(place) = sum.get_mut(at + 1) {
            *place = digits & 0xFF;
        }
    }
    let mut rest = carry;
    let middle: Vec<u8> = sum
        .into_iter()
        .skip(1)
        .map(|digit| {
            let number = (rest << 8) | digit;
            rest = number & 1;
            (number >> 1) as u8
        })
        .collect();
    (low < middle.as_slice() && middle.as_slice() < high).then_some(middle)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use cutover_formats::record::DefinitionRecord;
    use cutover_formats::{StoreId, V1};

    use super::*;
    use crate::store::memory::MemoryDriver;
    use crate::store::{Batch, Driver as _, Store, Visit};

    #[test]
    fn a_key_between_two_others_is_between_them() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..10_000 {
            let mut key = || (0..random.usize(0..4)).map(|_| random.u8(..)).collect::<Vec<u8>>();
            let (mut low, mut high) = (key(), key());
            if low > high {
                std::mem::swap(&mut low, &mut high);
            }
            match between(&low, &high, 12) {
                Some(middle) => assert!(low < middle && middle < high),
                // Only zeros, or nothing, lie between them.
                None => assert!(
                    low == high || high[low.len()..].iter().all(|byte| *byte == 0),
                    "{low:?} {high:?}"
                ),
            }
        }
        assert_eq!(between(&[0xFF, 0xFE], &[0xFF, 0xFF], 12), Some(vec![0xFF, 0xFE, 0x80]));
    }

    /// A store of which some keys cannot be read, as a block of a table.
    struct Holed {
        inner: Arc<dyn Store>,
        holes: Vec<(Vec<u8>, Vec<u8>)>,
    }

    impl Store for Holed {
        fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
            self.inner.get(family, key)
        }

        fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
            let mut bad = false;
            self.inner.scan(family, from, to, &mut |key, value| {
                bad = self.holes.iter().any(|(from, to)| &**from <= key && key < &**to);
                if bad { ControlFlow::Break(()) } else { visit(key, value) }
            })?;
            if bad { Err(Error::new(ErrorKind::Corrupt, "a hole")) } else { Ok(()) }
        }

        fn commit(&self, batch: &Batch, write: Write) -> Result<()> {
            self.inner.commit(batch, write)
        }

        fn remove_range(&self, family: Family, from: &[u8], to: &[u8]) -> Result<()> {
            self.inner.remove_range(family, from, to)
        }
    }

    #[test]
    fn a_survey_goes_on_behind_what_a_store_cannot_read() {
        let tenant = TenantId(1);
        let row = |number: u32| RowId::Definition { name: format!("name-{number:04}").into(), version: 1 };
        let mut random = fastrand::Rng::with_seed(11);
        for round in 0..200 {
            let inner = MemoryDriver::new().open(Path::new("a")).unwrap();
            let space = Space::new(StoreId(1), "memory".into(), 1, inner.clone(), Arc::new(V1));
            let mut changes = Changes::default();
            for number in 0..300 {
                let record = DefinitionRecord {
                    body: vec![7; 10],
                    content_type: String::new(),
                    digest: [0; 32],
                    created_ms: 1,
                };
                changes.put(row(number), Record::Definition(record));
            }
            space.apply(tenant, &changes, Write::Synced).unwrap();
            let mut holes: Vec<(u32, u32)> = Vec::new();
            let mut at = 0;
            for _ in 0..random.u32(0..4) {
                // So far apart that the end of one is not taken for the end of the next.
                let from = at + random.u32(1..80);
                let to = from + random.u32(1..20);
                if to < 300 {
                    holes.push((from, to));
                }
                at = to;
            }
            let key = |number: u32| space.key_of(tenant, &row(number));
            let keys = holes.iter().map(|(from, to)| (key(*from), key(*to))).collect();
            let space = Space::new(
                StoreId(1),
                "memory".into(),
                1,
                Arc::new(Holed { inner, holes: keys }),
                Arc::new(V1),
            );
            let (mut seen, mut damaged, mut after) = (Vec::new(), Vec::new(), None);
            loop {
                let survey = space
                    .survey(tenant, Prefix::All(Family::Definitions), after.as_ref(), 50, u64::MAX)
                    .unwrap();
                seen.extend(survey.rows.iter().map(|(id, _)| id.clone()));
                damaged.extend(survey.damaged);
                after = seen.last().cloned();
                if survey.done {
                    break;
                }
            }
            for number in 0..300 {
                let row = row(number);
                let in_hole = holes.iter().any(|(from, to)| (*from..*to).contains(&number));
                let key = space.key_of(tenant, &row);
                let set_aside = damaged
                    .iter()
                    .any(|damage| damage.key <= key && (key < damage.to || damage.to.is_empty()));
                assert!(seen.contains(&row) || set_aside, "round {round}: {number} has vanished; {holes:?}");
                assert!(!(in_hole && seen.contains(&row)));
                if holes.len() < 2 {
                    assert_eq!(seen.contains(&row), !in_hole, "round {round}: {number}; {holes:?}");
                }
            }
        }
    }
}
