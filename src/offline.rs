//! Looking at a data directory that no engine has open, without changing a byte of it.
//!
//! [`Directory`] reads the metadata and nothing else, so it is quick and works beside stores that are broken. [`Directory::read_store`]
//! gives the rows of one store, those that do not decode among them.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cutover_formats::codec::RecordType;
use cutover_formats::meta::{CatalogRecord, EngineRecord, JournalLine, StoreRecord, TenantRecord};
use cutover_formats::{
    Family, FormatError, Layout, NoteId, Phase, Prefix, Record, Role, RowId, StoreId, TenantId, V1,
};

use crate::error::{Error, ErrorKind, Result};
use crate::files::SystemFiles;
use crate::meta::dir::{self, DataDir, Dir};
use crate::meta::slot::Slots;
use crate::migration::phase::{self, Move};
use crate::store::{Driver, Store, prefix_end};
use crate::tenant::control;
use crate::tenant::quarantine::Quarantined;

/// A data directory that is being looked at. No engine opens it meanwhile; others may look too.
pub struct Directory {
    dir: DataDir,
    engine: Option<EngineRecord>,
    stores: Vec<StoreRecord>,
    tenants: Vec<TenantRecord>,
    damaged: Vec<String>,
}

impl Directory {
    /// Reads the metadata of the directory at `path`.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no directory, [`Locked`](ErrorKind::Locked) if an engine has it open,
    /// [`Foreign`](ErrorKind::Foreign) if it is not ours or of a newer version, [`Corrupt`](ErrorKind::Corrupt) if the records of the
    /// directory as a whole are damaged beyond their second copies.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let dir = DataDir::look(Dir::new(Arc::new(SystemFiles), path.as_ref()))?;
        let meta = dir.meta();
        let engine = Slots::look(&meta, "engine", RecordType::Engine)?;
        let catalog: Option<CatalogRecord> = Slots::look(&meta, "catalog", RecordType::Catalog)?;
        let (mut tenants, mut damaged) = (Vec::new(), Vec::new());
        for id in control::tenants(&meta)? {
            match control::look(&meta, id) {
                Ok(record) => tenants.extend(record),
                Err(err) if err.kind() == ErrorKind::Corrupt => damaged.push(format!("{id}: {err}")),
                Err(err) => return Err(err),
            }
        }
        Ok(Self { dir, engine, stores: catalog.unwrap_or_default().stores, tenants, damaged })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The format version of the directory as a whole.
    #[must_use]
    pub fn version(&self) -> u64 {
        dir::VERSION
    }

    /// What the engine notes each time it opens; none if the first time was cut short.
    #[must_use]
    pub fn engine(&self) -> Option<EngineRecord> {
        self.engine
    }

    /// Every store that ever was, retired ones included.
    #[must_use]
    pub fn stores(&self) -> &[StoreRecord] {
        &self.stores
    }

    /// Every tenant whose record can be read, in the order of their numbers; those being deleted included.
    #[must_use]
    pub fn tenants(&self) -> &[TenantRecord] {
        &self.tenants
    }

    /// A sentence for each tenant whose record is damaged beyond its second copy.
    #[must_use]
    pub fn damaged(&self) -> &[String] {
        &self.damaged
    }

    /// The journal of a tenant, oldest line first. Lines that cannot be read are left out.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn journal(&self, tenant: TenantId) -> Result<Vec<JournalLine>> {
        control::look_at_journal(&self.dir.meta(), tenant)
    }

    /// Where a store is or was.
    #[must_use]
    pub fn store_path(&self, store: &StoreRecord) -> PathBuf {
        self.path().join(&store.path)
    }

    /// What the files of a store take on disk, in bytes; none if it is not there.
    ///
    /// # Errors
    /// If its directory cannot be read.
    pub fn store_bytes(&self, store: &StoreRecord) -> Result<Option<u64>> {
        let path = self.store_path(store);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = size(&path);
        bytes.map(Some).map_err(|err| Error::io(format!("reading {}", path.display()), err))
    }

    /// The rows of a store. One whose driver cannot open it without changing it is copied into `scratch` first, an empty directory
    /// that the caller removes when the rows are dropped.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such store, or not any more; else if it cannot be read.
    pub fn read_store(&self, id: StoreId, scratch: &Path) -> Result<Rows> {
        let record = self.stores.iter().find(|store| store.id == id);
        let record = record.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no {id}")))?;
        let path = self.store_path(record);
        let driver = driver(&record.driver)?;
        let layout: Arc<dyn Layout> = Arc::new(V1);
        if layout.name() != record.layout {
            let message = format!("{id} has the layout {:?}, which this program cannot read", record.layout);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if !driver.exists(&path) {
            let message = format!("{id} is not there: no {} store in {}", record.driver, path.display());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let opening = |err: Error| err.context(format!("opening {id} ({})", record.driver));
        let (store, copied) = match driver.open_read_only(&path).map_err(opening)? {
            Some(store) => (store, false),
            None => {
                let copying = format!("copying {id} from {} to {}", path.display(), scratch.display());
                copy(&path, scratch).map_err(|err| Error::io(copying, err))?;
                (driver.open(scratch).map_err(opening)?, true)
            }
        };
        Ok(Rows { id, driver: record.driver.clone(), store, layout, copied })
    }
}

/// The rows of a store.
pub struct Rows {
    id: StoreId,
    driver: String,
    store: Arc<dyn Store>,
    layout: Arc<dyn Layout>,
    copied: bool,
}

/// A row as it stands in a store, and what it means.
pub struct Row<'r> {
    /// Its key.
    pub key: &'r [u8],
    /// Its value.
    pub value: &'r [u8],
    /// What the key means.
    pub id: Result<(TenantId, RowId<'static>), FormatError>,
    /// What the value means; none if the key does not say what to expect.
    pub record: Option<Result<Record, FormatError>>,
}

impl Rows {
    /// Whether a copy is read because the driver cannot open a store without changing it.
    #[must_use]
    pub fn are_of_a_copy(&self) -> bool {
        self.copied
    }

    /// Shows `visit` the rows of a family, or of one tenant in it, in the order of their keys until it breaks. A row that does not
    /// decode is shown like any other.
    ///
    /// # Errors
    /// If the store cannot be read on from a row.
    pub fn scan(
        &self,
        family: Family,
        tenant: Option<TenantId>,
        visit: &mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut from = Vec::new();
        if let Some(tenant) = tenant {
            self.layout.prefix(tenant, &Prefix::All(family), &mut from);
        }
        let to = prefix_end(&from);
        self.store.scan(family, &from, &to, &mut |key, value| {
            let id = self.layout.read_key(family, key);
            let record = id.as_ref().ok().map(|(_, id)| self.layout.read_value(id, value));
            visit(&Row { key, value, id, record })
        })
    }
}

impl Rows {
    /// The rows of a tenant that were set aside because they cannot be read, as [`Migration::quarantine`](crate::Migration::quarantine) lists
    /// them.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn quarantine(&self, tenant: TenantId) -> Result<Vec<Quarantined>> {
        let mut found = Vec::new();
        self.scan(Family::Notes, Some(tenant), &mut |row| {
            if let Ok((_, RowId::Note(NoteId::Quarantine { family, key }))) = &row.id {
                let record = match &row.record {
                    Some(Ok(Record::Quarantine(record))) => Some(record.clone()),
                    _ => None,
                };
                let meaning = self.layout.read_key(*family, key).ok().map(|(_, id)| id);
                found.push(Quarantined::of(self.id, &self.driver, *family, key, meaning.as_ref(), record));
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }
}

/// The moves that an operator may make once an engine has opened the directory; none for a tenant that is being deleted.
#[must_use]
pub fn legal_moves(record: &TenantRecord) -> Vec<Move> {
    if record.deleting { Vec::new() } else { phase::legal(record.status.phase) }
}

/// What stands between a tenant and the end of what is under way, in words, as far as its record says; empty if nothing is under way. `now_ms` is in
/// milliseconds since 1970.
#[must_use]
pub fn in_the_way(record: &TenantRecord, now_ms: u64) -> Vec<String> {
    if record.deleting {
        return vec![
            "it is being deleted: what is left of it goes when an engine opens the directory".into(),
        ];
    }
    let mut found: Vec<String> =
        record.retire.iter().map(|store| format!("its rows are still to be removed from {store}")).collect();
    let Some(migration) = &record.migration else { return found };
    let status = &record.status;
    if migration.paused {
        found.push(
            "the migration is paused: nothing is copied, compared or moved until it is released".into(),
        );
    }
    let at = Phase::ALL.iter().position(|phase| *phase == status.phase);
    let dwell = at.and_then(|at| migration.dwell_ms.get(at)).copied().unwrap_or(0);
    let left = record.entered_ms.saturating_add(dwell).saturating_sub(now_ms);
    if left > 0 {
        found.push(format!("the phase is to last {left} ms more"));
    }
    match (status.phase, migration.goal) {
        (Phase::Stable, _) => {}
        (Phase::PreMigration, _) => {
            found.push("definitions are to be copied and both stores compared".into());
            if migration.hold_switch {
                found.push("it is held before the switch, until it is switched or released".into());
            }
        }
        (Phase::Migration | Phase::PreRollback | Phase::RollingBack, _) => {
            found.push("the engine's next move, which it makes by itself once it is open".into());
        }
        (Phase::PostMigration, Role::Initial) | (Phase::PostRollback, Role::Target) => {
            found.push("a reverse was asked for: both stores are to be compared, then it turns back".into());
        }
        (Phase::PostMigration | Phase::PostRollback, _) => {
            let left = phase::left_behind(status.phase).and_then(|role| status.store(role));
            if let Some(store) = left.filter(|_| !migration.abandon) {
                found.push(format!("{store} has to drain: every instance, key and request in it has to go"));
            }
            if migration.hold_complete {
                found.push("it is held before it completes, until it is completed or released".into());
            }
        }
    }
    found
}

/// The driver of this name, of those whose stores are still there when the process is not.
fn driver(name: &str) -> Result<Arc<dyn Driver>> {
    let drivers: Vec<Arc<dyn Driver>> = vec![
        #[cfg(feature = "rocksdb")]
        Arc::new(crate::store::rocksdb::RocksDbDriver::default()),
        #[cfg(feature = "sled")]
        Arc::new(crate::store::sled::SledDriver::default()),
    ];
    drivers.iter().find(|driver| driver.name() == name).cloned().ok_or_else(|| {
        let known: Vec<&str> = drivers.iter().map(|driver| driver.name()).collect();
        let message =
            format!("stores of the driver {name:?} cannot be read here, only those of {}", known.join(", "));
        Error::new(ErrorKind::InvalidInput, message)
    })
}

fn size(path: &Path) -> std::io::Result<u64> {
    let about = fs::symlink_metadata(path)?;
    if !about.is_dir() {
        return Ok(about.len());
    }
    fs::read_dir(path)?.try_fold(0, |sum, entry| Ok(sum + size(&entry?.path())?))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}
