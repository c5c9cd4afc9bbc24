//! Bringing definitions from one store to another: what the replicator, the comparison and the repair of gaps have in common.
//!
//! Everything here holds a pin for one batch at a time, and the definition lock for what it writes. A copy takes the record that
//! exists; it never makes a new one.

use cutover_formats::keys::NoteId;
use cutover_formats::record::{DefinitionRecord, NoteRecord};
use cutover_formats::{Family, Prefix, Record, RowId, StoreId};

use super::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Write;
use crate::store::space::{Changes, Space};

/// Most rows and bytes of one batch.
const ROWS: usize = 128;
const BYTES: u64 = 1 << 20;

/// Where a scan over definitions has come to.
pub(crate) type Position = Option<RowId<'static>>;

/// What one batch did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Batched {
    /// Where the next batch begins.
    pub(crate) position: Position,
    /// Rows looked at.
    pub(crate) rows: u64,
    /// Bytes read.
    pub(crate) bytes: u64,
    /// Rows written.
    pub(crate) copied: u64,
    /// Nothing comes after it.
    pub(crate) done: bool,
}

impl Inner {
    /// Copies the next batch of definitions that `to` lacks, and notes the position in `to` in the same commit. Not yet durable: a
    /// crash goes on from the last position that survived.
    pub(crate) fn copy_definitions(
        &self,
        from: StoreId,
        to: StoreId,
        migration: u64,
        total: (u64, u64),
        position: Position,
    ) -> Result<Batched> {
        let _op = self.enter("copy definitions")?;
        let (from, to) = (self.space(Some(from))?, self.space(Some(to))?);
        let page = from.page(self.id, Prefix::All(Family::Definitions), position.as_ref(), ROWS, BYTES)?;
        let mut batched =
            Batched { position, rows: page.rows.len() as u64, bytes: page.bytes, copied: 0, done: page.done };
        let _locks =
            self.shared.locks.definitions.lock_all(page.rows.iter().filter_map(|(id, _)| self.lock_of(id)));
        let mut changes = Changes::default();
        for (id, record) in page.rows {
            batched.position = Some(id.clone());
            if to.definition(self.id, &id)?.is_none() {
                changes.put(id, record);
                batched.copied += 1;
            }
        }
        if let Some(RowId::Definition { name, version }) = &batched.position {
            let (name, version) = (name.clone().into_owned(), *version);
            let (copied, bytes) = (total.0 + batched.copied, total.1 + batched.bytes);
            let note = NoteRecord::CopyPosition { name, version, copied, bytes };
            changes.put(RowId::Note(NoteId::CopyPosition { migration }), Record::Note(note));
            to.apply(self.id, &changes, Write::Relaxed)?;
        }
        Ok(batched)
    }

    /// Where an earlier process got to in copying for this migration: position, definitions, bytes.
    pub(crate) fn copy_position(&self, to: StoreId, migration: u64) -> Result<(Position, u64, u64)> {
        let _op = self.enter("read the copy position")?;
        let to = self.space(Some(to))?;
        Ok(match to.note(self.id, &RowId::Note(NoteId::CopyPosition { migration }))? {
            Some(NoteRecord::CopyPosition { name, version, copied, bytes }) => {
                (Some(RowId::Definition { name: name.into(), version }), copied, bytes)
            }
            _ => (None, 0, 0),
        })
    }

    /// How many definitions a store has, and their bytes; counted in one scan per call, from `position` on.
    pub(crate) fn count_definitions(&self, store: StoreId, position: Position) -> Result<Batched> {
        let _op = self.enter("count definitions")?;
        let space = self.space(Some(store))?;
        let page = space.page(
            self.id,
            Prefix::All(Family::Definitions),
            position.as_ref(),
            16 * ROWS,
            16 * BYTES,
        )?;
        let rows = page.rows.len() as u64;
        let position = page.rows.into_iter().next_back().map(|(id, _)| id);
        Ok(Batched { position, rows, bytes: page.bytes, copied: 0, done: page.done })
    }

    /// Compares the next batch of definitions of two stores, and copies what one of them lacks. What differs is an error: it was
    /// changed behind our back.
    pub(crate) fn compare_definitions(&self, a: StoreId, b: StoreId, position: Position) -> Result<Batched> {
        let _op = self.enter("compare definitions")?;
        let (a, b) = (self.space(Some(a))?, self.space(Some(b))?);
        let all = Prefix::All(Family::Definitions);
        let of_a = a.page(self.id, all, position.as_ref(), ROWS, BYTES)?;
        let of_b = b.page(self.id, all, position.as_ref(), ROWS, BYTES)?;
        // Behind the end of a page that is not the last one, what the store has is not known yet.
        let ends = [&of_a, &of_b].into_iter().filter(|page| !page.done);
        let end = ends.filter_map(|page| page.rows.last().map(|(id, _)| id.clone())).min();
        let mut batched =
            Batched { bytes: of_a.bytes + of_b.bytes, done: end.is_none(), ..Batched::default() };
        let known = |id: &RowId<'_>| end.as_ref().is_none_or(|end| id <= end);
        let (mut left, mut right) = (of_a.rows.into_iter().peekable(), of_b.rows.into_iter().peekable());
        loop {
            let first = [left.peek(), right.peek()].into_iter().flatten().map(|(id, _)| id).min().cloned();
            let Some(id) = first.filter(&known) else { break };
            batched.rows += 1;
            let in_a = left.next_if(|(other, _)| *other == id).map(|(_, record)| record);
            let in_b = right.next_if(|(other, _)| *other == id).map(|(_, record)| record);
            if in_a.is_none() || in_a != in_b {
                batched.copied += u64::from(self.settle_difference(&a, &b, &id)?);
            }
        }
        batched.position = end;
        Ok(batched)
    }

    /// Looks again under the definition lock, at both stores, and copies what one of them lacks. Says whether it did.
    fn settle_difference(&self, a: &Space, b: &Space, id: &RowId<'static>) -> Result<bool> {
        let RowId::Definition { name, version } = id else { return Ok(false) };
        let _lock = self.shared.locks.definitions.lock((self.id, &**name, version));
        let put = |space: &Space, record: DefinitionRecord| {
            let mut changes = Changes::default();
            changes.put(id.clone(), Record::Definition(record));
            // As durable as a define: one that comes after it finds it in both stores and acknowledges that.
            space.apply(self.id, &changes, self.shared.write()).map(|()| true)
        };
        match (a.definition(self.id, id)?, b.definition(self.id, id)?) {
            (Some(record), None) => put(b, record),
            (None, Some(record)) => put(a, record),
            (Some(one), Some(other)) if one != other => {
                let message = format!(
                    "the definition {name:?} version {version} differs between {} ({}) and {} ({})",
                    a.id, a.driver, b.id, b.driver
                );
                Err(Error::new(ErrorKind::Corrupt, message))
            }
            _ => Ok(false),
        }
    }

    /// Whether either store has a gap noted.
    pub(crate) fn has_gaps(&self) -> Result<bool> {
        let op = self.enter("look for gaps")?;
        for space in std::iter::once(&op.home).chain(&op.other) {
            if space.first(self.id, Prefix::Gaps)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Mends the gaps that are noted, and takes the notes away once that is durable. Says how many there were.
    pub(crate) fn repair_gaps(&self) -> Result<u64> {
        let op = self.enter("repair gaps")?;
        let Some(other) = &op.other else { return Ok(0) };
        let mut repaired = 0;
        for (noted_in, lacking) in [(&op.home, other), (other, &op.home)] {
            let page = noted_in.page(self.id, Prefix::Gaps, None, ROWS, BYTES)?;
            for (note, _) in page.rows {
                let RowId::Note(NoteId::Gap { name, version }) = &note else { continue };
                let id = RowId::Definition { name: name.clone(), version: *version };
                self.settle_difference(noted_in, lacking, &id)?;
                lacking.sync()?;
                let mut changes = Changes::default();
                changes.delete(note);
                noted_in.apply(self.id, &changes, self.shared.write())?;
                repaired += 1;
            }
        }
        Ok(repaired)
    }

    fn lock_of<'r>(&self, id: &'r RowId<'_>) -> Option<(cutover_formats::TenantId, &'r str, u32)> {
        match id {
            RowId::Definition { name, version } => Some((self.id, &**name, *version)),
            _ => None,
        }
    }
}
