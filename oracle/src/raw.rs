//! What the stores of a tenant hold while no engine has them open, before recovery has mended anything.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use cutover::formats::keys::NoteId;
use cutover::formats::meta::{EngineRecord, TenantRecord};
use cutover::formats::record::{
    DefinitionRecord, InstanceRecord, KeyRecord, NoteRecord, RequestRecord, StepRecord,
};
use cutover::formats::{Family, FormatError, Layout as _, Record, RowId, V1};
use cutover::offline::Directory;
use cutover::store::Driver;
use cutover::{ErrorKind, InstanceId, Result, StoreId, TenantId};

/// A tenant as it lies on disk.
#[derive(Debug, Default)]
pub struct Raw {
    /// What the engine noted about itself.
    pub engine: Option<EngineRecord>,
    /// The tenant's record; none if there is no such tenant.
    pub tenant: Option<TenantRecord>,
    /// The rows in its stores.
    pub stores: BTreeMap<StoreId, Rows>,
    /// What cannot be read, in sentences.
    pub unreadable: Vec<String>,
}

/// The rows of a tenant in one store.
#[derive(Debug, Default)]
pub struct Rows {
    /// Name of the store's driver.
    pub driver: String,
    /// Definitions, by name; all have version 1.
    pub definitions: BTreeMap<String, DefinitionRecord>,
    /// Keys.
    pub keys: BTreeMap<String, KeyRecord>,
    /// Requests, by their ids.
    pub requests: BTreeMap<String, RequestRecord>,
    /// Heads of instances.
    pub instances: BTreeMap<InstanceId, InstanceRecord>,
    /// Inputs.
    pub inputs: BTreeMap<InstanceId, Vec<u8>>,
    /// Steps.
    pub steps: BTreeMap<(InstanceId, String), StepRecord>,
    /// Ready steps.
    pub ready: BTreeSet<(InstanceId, String)>,
    /// Definitions that are perhaps missing in the other store.
    pub gaps: BTreeSet<String>,
    /// Instances that are to be replaced.
    pub replaces: BTreeSet<InstanceId>,
    /// Rows that do not decode, in sentences.
    unreadable: Vec<String>,
}

impl Raw {
    /// Reads the rows of a tenant. A store of one of these drivers is opened by it; others are read as they are, or copied into `scratch`,
    /// an empty directory that the caller removes.
    ///
    /// # Errors
    /// If the directory cannot be read as a whole.
    pub fn read(data: &Path, tenant: &str, drivers: &[Arc<dyn Driver>], scratch: &Path) -> Result<Self> {
        let directory = Directory::open(data)?;
        let mut raw = Self { engine: directory.engine(), ..Self::default() };
        raw.unreadable.extend(directory.damaged().iter().cloned());
        let Some(record) = directory.tenants().iter().find(|record| record.name == tenant) else {
            return Ok(raw);
        };
        let status = record.status;
        for id in [Some(status.initial), status.target].into_iter().flatten() {
            let copy = scratch.join(id.0.to_string());
            match read_store(&directory, id, record.id, drivers, &copy) {
                Ok(mut rows) => {
                    raw.unreadable.append(&mut rows.unreadable);
                    raw.stores.insert(id, rows);
                }
                Err(err) => raw.unreadable.push(format!("{id} cannot be read: {err}")),
            }
        }
        raw.tenant = Some(record.clone());
        Ok(raw)
    }

    /// Every store that has this.
    pub(crate) fn stores_with<'r>(
        &'r self,
        has: impl Fn(&Rows) -> bool + 'r,
    ) -> impl Iterator<Item = StoreId> + 'r {
        self.stores.iter().filter(move |(_, rows)| has(rows)).map(|(id, _)| *id)
    }

    /// What a request was answered, in whichever store.
    #[must_use]
    pub fn request(&self, id: &str) -> Option<&RequestRecord> {
        self.stores.values().find_map(|rows| rows.requests.get(id))
    }
}

fn read_store(
    directory: &Directory,
    id: StoreId,
    tenant: TenantId,
    drivers: &[Arc<dyn Driver>],
    copy: &Path,
) -> Result<Rows> {
    let record = directory.stores().iter().find(|store| store.id == id);
    let record =
        record.ok_or_else(|| cutover::Error::new(ErrorKind::NotFound, "it is not in the catalog"))?;
    let mut rows = Rows { driver: record.driver.clone(), ..Rows::default() };
    if let Some(driver) = drivers.iter().find(|driver| driver.name() == record.driver) {
        let store = driver.open(&directory.store_path(record))?;
        for family in Family::ALL {
            store.scan(family, b"", b"", &mut |key, value| {
                let row = V1.read_key(family, key);
                let record = row.as_ref().ok().map(|(_, row)| V1.read_value(row, value));
                rows.add(id, tenant, family, row, record);
                ControlFlow::Continue(())
            })?;
        }
        return Ok(rows);
    }
    let all = directory.read_store(id, copy)?;
    for family in Family::ALL {
        all.scan(family, Some(tenant), &mut |row| {
            rows.add(id, tenant, family, row.id.clone(), row.record.clone());
            ControlFlow::Continue(())
        })?;
    }
    Ok(rows)
}

type Decoded<T> = std::result::Result<T, FormatError>;

impl Rows {
    fn add(
        &mut self,
        store: StoreId,
        tenant: TenantId,
        family: Family,
        row: Decoded<(TenantId, RowId<'static>)>,
        record: Option<Decoded<Record>>,
    ) {
        let row = match row {
            Ok((of, _)) if of != tenant => return,
            Ok((_, row)) => row,
            Err(err) => {
                self.unreadable.push(format!("a key in {family:?} of {store} cannot be read: {err}"));
                return;
            }
        };
        match record {
            Some(Ok(record)) => self.insert(row, record),
            Some(Err(err)) => {
                self.unreadable.push(format!("the row {row:?} of {store} cannot be read: {err}"))
            }
            None => {}
        }
    }

    fn insert(&mut self, row: RowId<'static>, record: Record) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match (row, record) {
            (RowId::Definition { name, .. }, Record::Definition(record)) => {
                self.definitions.insert(name.into_owned(), record);
            }
            (RowId::Key { key, .. }, Record::Key(record)) => drop(self.keys.insert(text(&key), record)),
            (RowId::Request { id }, Record::Request(record)) => drop(self.requests.insert(text(&id), record)),
            (RowId::Instance { id }, Record::Instance(record)) => drop(self.instances.insert(id, record)),
            (RowId::Input { id }, Record::Payload(payload)) => drop(self.inputs.insert(id, payload.bytes)),
            (RowId::Step { instance, step }, Record::Step(record)) => {
                self.steps.insert((instance, step.into_owned()), record);
            }
            (RowId::Ready { instance, step, .. }, _) => {
                self.ready.insert((instance, step.into_owned()));
            }
            (RowId::Note(NoteId::Gap { name, .. }), _) => {
                self.gaps.insert(name.into_owned());
            }
            (RowId::Note(NoteId::Replace { old }), Record::Note(NoteRecord::Replace { .. })) => {
                self.replaces.insert(old);
            }
            _ => {}
        }
    }
}
