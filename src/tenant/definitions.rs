//! Definitions: created once, in both stores while there are two.
//!
//! Invariant I4: from the switch on, every acknowledged definition is in both stores or has a gap noted, durably, in the store
//! that has it; none is ever changed. So a define looks in *both* stores under the definition lock, writes where launches go
//! first, and acknowledges when both have it or the gap is durable. A copy always takes the record that exists.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cutover_formats::limits::{self, MAX_DEFINITION};
use cutover_formats::record::{DefinitionRecord, NoteRecord};
use cutover_formats::{NoteId, Phase, Record, RowId};
use sha2::{Digest as _, Sha256};

use super::quarantine::readable;
use super::types::{Defined, Definition};
use super::{Inner, Operation, Tenant};
use crate::error::{Error, ErrorKind, Result};
use crate::shared::Thread;
use crate::store::space::{Changes, Space};
use crate::sync::RwLock;

/// Most definitions that are remembered as existing.
const KNOWN: usize = 65_536;

/// Definitions that are known to exist. They never go away while the tenant exists, so this is never wrong, only incomplete.
#[derive(Default)]
pub(crate) struct Known(RwLock<Names>);

#[derive(Default)]
struct Names {
    versions: HashMap<String, HashSet<u32>>,
    /// Versions of all names.
    count: usize,
}

impl Known {
    /// A store may have lost what was not durable, or something that was defined may be gone.
    pub(super) fn forget(&self) {
        *self.0.write() = Names::default();
    }

    fn has(&self, name: &str, version: u32) -> bool {
        self.0.read().versions.get(name).is_some_and(|versions| versions.contains(&version))
    }

    fn add(&self, name: &str, version: u32) {
        let mut known = self.0.write();
        if known.count >= KNOWN {
            *known = Names::default();
        }
        if known.versions.entry(name.to_owned()).or_default().insert(version) {
            known.count += 1;
        }
    }
}

pub(crate) fn row(name: &str, version: u32) -> RowId<'static> {
    RowId::Definition { name: name.to_owned().into(), version }
}

impl Tenant {
    /// Creates a definition. The same bytes again are accepted and change nothing, not even the content type.
    ///
    /// Durable, in both stores while there are two, when it returns.
    ///
    /// # Errors
    /// [`Indeterminate`](ErrorKind::Indeterminate) if a store failed during the commit;
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if it exists with other bytes; [`InvalidInput`](ErrorKind::InvalidInput) if the
    /// name is empty or longer than [`limits::MAX_NAME`], or the body larger than [`MAX_DEFINITION`].
    pub fn define(&self, name: &str, version: u32, content_type: &str, body: &[u8]) -> Result<Defined> {
        limits::check_name("the name of the definition", name)?;
        limits::check_size("the content type", content_type.len(), limits::MAX_NAME)?;
        limits::check_size("the body of the definition", body.len(), MAX_DEFINITION)?;
        let tenant = &*self.0;
        let op = tenant.admit(&self.1, "define")?;
        let _lock = tenant.locks.definitions.lock((tenant.id, name, version));
        let id = row(name, version);
        let digest: [u8; 32] = Sha256::digest(body).into();
        tenant.doubts.check(&id)?;
        let defined = match tenant.find_definition(&op, &id)? {
            Some(record) if record.digest == digest => Defined::Unchanged,
            Some(_) => {
                let message = format!("the definition {name:?} version {version} exists with other bytes");
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
            None => {
                let content_type = content_type.to_owned();
                let created_ms = tenant.shared.now_ms();
                let record = DefinitionRecord { body: body.to_vec(), content_type, digest, created_ms };
                let mut changes = Changes::default();
                changes.put(id.clone(), Record::Definition(record));
                tenant.commit(&op.home, &changes)?;
                Defined::Created
            }
        };
        tenant.bring_to_both(&op, &id)?;
        tenant.known.add(name, version);
        Ok(defined)
    }

    /// The definition, if it exists.
    ///
    /// # Errors
    /// If the store cannot be read; [`InvalidInput`](ErrorKind::InvalidInput) for a name that no definition can have.
    pub fn definition(&self, name: &str, version: u32) -> Result<Option<Definition>> {
        limits::check_name("the name of the definition", name)?;
        let tenant = &*self.0;
        let op = tenant.admit(&self.1, "read a definition")?;
        let id = row(name, version);
        let mut record = match tenant.known.has(name, version) {
            // One that is damaged here may be whole in the other store.
            true => readable(op.home.definition(tenant.id, &id))?.flatten(),
            false => None,
        };
        if record.is_none() {
            // Not seen yet: it may be visible and not durable, so whoever defines it is waited for. Or missing at home: the other store
            // may have it, and then home gets it.
            let _lock = tenant.locks.definitions.lock((tenant.id, name, version));
            tenant.doubts.check(&id)?;
            record = tenant.find_definition(&op, &id)?;
            if record.is_some() {
                tenant.bring_to_both(&op, &id)?;
                tenant.known.add(name, version);
            }
        }
        Ok(record.map(|record| Definition {
            name: name.to_owned(),
            version,
            content_type: record.content_type,
            body: record.body,
            digest: record.digest,
            created_ms: record.created_ms,
        }))
    }
}

impl Inner {
    /// Whether the definition exists, in either store.
    pub(crate) fn is_defined(&self, op: &Operation<'_>, name: &str, version: u32) -> Result<bool> {
        if self.known.has(name, version) {
            return Ok(true);
        }
        // What a define has written and not made durable yet is waited for.
        let _lock = self.locks.definitions.lock((self.id, name, version));
        let id = row(name, version);
        self.doubts.check(&id)?;
        let found = self.find_definition(op, &id)?.is_some();
        if found {
            if readable(op.home.definition(self.id, &id))?.flatten().is_none() {
                // Power loss may have taken it at home, or damage, and not in the other store, which may be given up.
                self.bring_to_both(op, &id)?;
            }
            self.known.add(name, version);
        }
        Ok(found)
    }

    fn find_definition(&self, op: &Operation<'_>, id: &RowId<'_>) -> Result<Option<DefinitionRecord>> {
        let mut damaged = None;
        for space in op.both() {
            match space.definition(self.id, id) {
                Ok(Some(record)) => return Ok(Some(record)),
                Ok(None) => {}
                // A target that fails before the switch concerns nobody: all that it has is at home, but for what power loss took there.
                Err(_) if op.status.phase == Phase::PreMigration && space.id != op.home.id => {}
                Err(err) if err.kind() == ErrorKind::Corrupt => drop(damaged.get_or_insert(err)),
                Err(err) => return Err(err),
            }
        }
        damaged.map_or(Ok(None), Err)
    }

    /// Under the definition lock: writes a definition in place of one that cannot be read, and takes back that it was set aside.
    pub(crate) fn rewrite_definition(
        &self,
        space: &Space,
        id: &RowId<'static>,
        record: DefinitionRecord,
    ) -> Result<()> {
        let mut changes = Changes::default();
        changes.put(id.clone(), Record::Definition(record));
        changes.delete(space.quarantine_of(self.id, id));
        space.apply(self.id, &changes, self.shared.write())
    }

    fn put_definition(&self, space: &Space, id: &RowId<'static>, record: DefinitionRecord) -> Result<()> {
        let mut changes = Changes::default();
        changes.put(id.clone(), Record::Definition(record));
        space.apply(self.id, &changes, self.shared.write())
    }

    /// Under the definition lock: whichever store lacks the definition gets the record of the other. If that fails where launches do
    /// not go, the gap is noted, durably, where they do, and the replicator mends it.
    fn bring_to_both(&self, op: &Operation<'_>, id: &RowId<'static>) -> Result<()> {
        let Some(other) = &op.other else { return Ok(()) };
        let home = &op.home;
        match (readable(home.definition(self.id, id))?, self.read_other(other, id)) {
            (None, Ok(Some(record))) => self.rewrite_definition(home, id, record),
            // In neither: whoever found it before has said so.
            (None, Ok(None)) => home.definition(self.id, id).map(drop),
            (None, Err(err)) => Err(err),
            (Some(there), there_too) => self.bring_to_other(op, id, there, there_too),
        }
    }

    fn bring_to_other(
        &self,
        op: &Operation<'_>,
        id: &RowId<'static>,
        at_home: Option<DefinitionRecord>,
        read: Result<Option<DefinitionRecord>>,
    ) -> Result<()> {
        let Some(other) = &op.other else { return Ok(()) };
        let home = &op.home;
        match (at_home, read) {
            (None, Ok(Some(record))) => self.put_definition(home, id, record),
            (Some(record), Err(err)) if err.kind() == ErrorKind::Corrupt => {
                match self.rewrite_definition(other, id, record) {
                    Ok(()) => Ok(()),
                    Err(_) => self.note_gap(home, id),
                }
            }
            (Some(record), Ok(None)) => match self.put_definition(other, id, record) {
                Ok(()) => Ok(()),
                Err(_) => self.note_gap(home, id),
            },
            (Some(_), Err(_)) => self.note_gap(home, id),
            (_, read) => read.map(drop),
        }
    }

    fn read_other(&self, other: &Arc<Space>, id: &RowId<'_>) -> Result<Option<DefinitionRecord>> {
        other.definition(self.id, id)
    }

    fn note_gap(&self, home: &Space, id: &RowId<'_>) -> Result<()> {
        let RowId::Definition { name, version } = id else { return Ok(()) };
        let mut changes = Changes::default();
        let gap = NoteId::Gap { name: name.clone().into_owned().into(), version: *version };
        changes.put(RowId::Note(gap), Record::Note(NoteRecord::Gap));
        home.apply(self.id, &changes, self.shared.write())?;
        self.shared.wake(Thread::Replicator);
        Ok(())
    }
}
