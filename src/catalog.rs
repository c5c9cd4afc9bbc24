//! The catalog: which stores there are, who uses them, and opening and removing them.
//!
//! Invariant I6: whether anyone uses a store is decided under the same lock as its removal, and counts tenants whose
//! retirement is not finished and handles that an operation still holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cutover_formats::codec::RecordType;
use cutover_formats::limits;
use cutover_formats::meta::{CatalogRecord, StoreRecord};
use cutover_formats::{Layout, StoreId, TenantId};

use crate::error::{Error, ErrorKind, Result};
use crate::meta::slot::Slots;
use crate::store::Driver;
use crate::store::space::Space;
use crate::sync::Mutex;

/// Which store a tenant is to live in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSpec {
    driver: String,
    path: Option<PathBuf>,
    layout: String,
    dedicated: bool,
}

impl StoreSpec {
    /// The shared store of this driver, in the data directory under `stores/`.
    pub fn driver(name: impl Into<String>) -> Self {
        Self { driver: name.into(), path: None, layout: "v1".into(), dedicated: false }
    }

    /// At this directory instead: another disk, say. A relative path starts at the data directory.
    #[must_use]
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// In this layout, which must have been given to the engine's builder. `v1` is always there.
    #[must_use]
    pub fn layout(mut self, name: impl Into<String>) -> Self {
        self.layout = name.into();
        self
    }

    /// In a store that no other tenant shares.
    #[must_use]
    pub fn dedicated(mut self) -> Self {
        self.dedicated = true;
        self
    }
}

/// What removing a store came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Released {
    /// The tenant does not use it any more; others do, or it is gone.
    Done,
    /// Somebody still holds a handle; ask again.
    Busy,
    /// Others use it, so the tenant's rows have to be removed first.
    Shared,
}

/// The catalog of an engine.
pub(crate) struct Catalog {
    dir: PathBuf,
    drivers: BTreeMap<String, Arc<dyn Driver>>,
    layouts: BTreeMap<String, Arc<dyn Layout>>,
    state: Mutex<State>,
}

struct State {
    record: CatalogRecord,
    slots: Slots<CatalogRecord>,
    open: BTreeMap<StoreId, Arc<Space>>,
    users: HashMap<StoreId, BTreeSet<TenantId>>,
}

impl Catalog {
    pub(crate) fn open(
        dir: &Path,
        meta: &Path,
        drivers: BTreeMap<String, Arc<dyn Driver>>,
        layouts: BTreeMap<String, Arc<dyn Layout>>,
    ) -> Result<Self> {
        let (slots, record) = Slots::open(meta, "catalog", RecordType::Catalog)?;
        let record = record.unwrap_or_default();
        let state = State { record, slots, open: BTreeMap::new(), users: HashMap::new() };
        Ok(Self { dir: dir.to_path_buf(), drivers, layouts, state: Mutex::new(state) })
    }

    /// A number for a new tenant, never given before.
    pub(crate) fn next_tenant(&self) -> Result<TenantId> {
        let mut state = self.state.lock();
        let id = TenantId(state.record.next_tenant);
        state.change(|record| record.next_tenant += 1)?;
        Ok(id)
    }

    /// The open store of this number, opening it if need be; from now on the tenant counts among its users.
    pub(crate) fn use_store(&self, id: StoreId, tenant: TenantId) -> Result<Arc<Space>> {
        let mut state = self.state.lock();
        let record = state.record.stores.iter().find(|store| store.id == id && !store.retired).cloned();
        let record = record.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("the catalog has no {id}, which {tenant} is said to use"))
        })?;
        let space = self.opened(&mut state, &record)?;
        state.users.entry(id).or_default().insert(tenant);
        Ok(space)
    }

    /// Counts the tenant among the users of a store that it has rows in, without opening it.
    pub(crate) fn note_user(&self, id: StoreId, tenant: TenantId) {
        self.state.lock().users.entry(id).or_default().insert(tenant);
    }

    /// Finds or creates the store that `spec` asks for, and opens it. `refuse` says why a store that exists cannot be taken.
    pub(crate) fn place(
        &self,
        spec: &StoreSpec,
        tenant: TenantId,
        refuse: impl Fn(StoreId) -> Option<Error>,
    ) -> Result<Arc<Space>> {
        self.check(spec)?;
        let driver = self.driver(&spec.driver)?;
        let mut state = self.state.lock();
        let path = self.path_of(spec, &state.record);
        limits::check_size("the path of a store", path.len(), 4096)?;
        let there = state.record.stores.iter().find(|store| !store.retired && store.path == path).cloned();
        if let Some(record) = there {
            if let Some(err) = refuse(record.id) {
                return Err(err);
            }
            fits(&record, spec)?;
            let space = self.opened(&mut state, &record)?;
            state.users.entry(record.id).or_default().insert(tenant);
            return Ok(space);
        }
        let at = self.dir.join(&path);
        if driver.exists(&at) || std::fs::read_dir(&at).is_ok_and(|mut inside| inside.next().is_some()) {
            return Err(Error::new(
                ErrorKind::Foreign,
                format!("{} is not empty and not a store of this engine", at.display()),
            ));
        }
        let record = StoreRecord {
            id: StoreId(state.record.stores.len() as u32 + 1),
            driver: spec.driver.clone(),
            path,
            layout: spec.layout.clone(),
            dedicated: spec.dedicated,
            retired: false,
        };
        // The record first: a crash after it leaves a store that nobody uses, which opening removes.
        state.change(|catalog| catalog.stores.push(record.clone()))?;
        let space = self.opened(&mut state, &record).inspect_err(|_| {
            // The path is free for another try. If this fails too, opening the engine does it.
            drop(self.remove(&mut state, record.id));
        })?;
        state.users.entry(record.id).or_default().insert(tenant);
        Ok(space)
    }

    /// Says that `spec` names a driver and a layout that exist.
    pub(crate) fn check(&self, spec: &StoreSpec) -> Result<()> {
        self.driver(&spec.driver)?;
        self.layout(&spec.layout).map(drop)
    }

    /// The tenant does not use the store any more; `rows_removed` says whether it has rows there. If nobody else uses it either, it is
    /// closed, marked as retired and removed, rows and all.
    pub(crate) fn release(&self, id: StoreId, tenant: TenantId, rows_removed: bool) -> Result<Released> {
        let mut state = self.state.lock();
        if state.record.stores.iter().any(|store| store.id == id && store.retired) {
            return Ok(Released::Done);
        }
        let others = state.users.get(&id).is_some_and(|users| users.iter().any(|user| *user != tenant));
        if others && !rows_removed {
            return Ok(Released::Shared);
        }
        if others {
            if let Some(users) = state.users.get_mut(&id) {
                users.remove(&tenant);
            }
            return Ok(Released::Done);
        }
        // One handle is the catalog's own.
        if state.open.get(&id).is_some_and(|space| Arc::strong_count(space) > 1) {
            return Ok(Released::Busy);
        }
        self.remove(&mut state, id)?;
        Ok(Released::Done)
    }

    /// After all tenants have said what they use: removes stores that a crash has left without users, half removed ones too. Those of
    /// a driver that this engine was not given wait for one that was.
    pub(crate) fn remove_orphans(&self) -> Result<()> {
        let mut state = self.state.lock();
        let orphans: Vec<StoreId> = state
            .record
            .stores
            .iter()
            .filter(|store| !store.retired && state.users.get(&store.id).is_none_or(BTreeSet::is_empty))
            .filter(|store| self.drivers.contains_key(&store.driver))
            .map(|store| store.id)
            .collect();
        orphans.into_iter().try_for_each(|id| self.remove(&mut state, id))
    }

    /// The record of a store, retired ones included.
    pub(crate) fn record(&self, id: StoreId) -> Option<StoreRecord> {
        self.state.lock().record.stores.iter().find(|store| store.id == id).cloned()
    }

    /// Where a store is or was.
    pub(crate) fn directory(&self, record: &StoreRecord) -> PathBuf {
        self.dir.join(&record.path)
    }

    /// Where `spec` would be placed.
    pub(crate) fn directory_for(&self, spec: &StoreSpec) -> PathBuf {
        let path = self.path_of(spec, &self.state.lock().record);
        self.dir.join(path)
    }

    /// Lets go of all stores. Those that an operation still holds stay open until it ends.
    pub(crate) fn close(&self) -> Result<()> {
        let open = std::mem::take(&mut self.state.lock().open);
        open.into_values().try_for_each(|space| space.sync())
    }

    pub(crate) fn driver(&self, name: &str) -> Result<Arc<dyn Driver>> {
        self.drivers.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.drivers.keys().map(String::as_str).collect();
            Error::new(
                ErrorKind::InvalidInput,
                format!("there is no driver {name:?}; this build has {}", known.join(", ")),
            )
        })
    }

    fn layout(&self, name: &str) -> Result<Arc<dyn Layout>> {
        self.layouts.get(name).cloned().ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, format!("there is no layout {name:?} in this engine"))
        })
    }

    fn opened(&self, state: &mut State, record: &StoreRecord) -> Result<Arc<Space>> {
        if let Some(space) = state.open.get(&record.id) {
            return Ok(Arc::clone(space));
        }
        let store = self
            .driver(&record.driver)?
            .open(&self.dir.join(&record.path))
            .map_err(|err| err.context(format!("opening {} ({})", record.id, record.driver)))?;
        let space = Space::new(record.id, record.driver.clone(), store, self.layout(&record.layout)?);
        let space = Arc::new(space);
        state.open.insert(record.id, Arc::clone(&space));
        Ok(space)
    }

    /// The files first, the record after them: a removal that a crash or an error cuts short is begun again, by whoever still has the
    /// store to retire or by [`remove_orphans`](Self::remove_orphans). Once the record says that it is retired, what lies at its path is
    /// somebody else's.
    fn remove(&self, state: &mut State, id: StoreId) -> Result<()> {
        state.open.remove(&id);
        if let Some(store) = state.record.stores.iter().find(|store| store.id == id && !store.retired) {
            self.driver(&store.driver)?.destroy(&self.dir.join(&store.path))?;
        }
        state.change(|catalog| {
            if let Some(store) = catalog.stores.iter_mut().find(|store| store.id == id) {
                store.retired = true;
            }
        })?;
        state.users.remove(&id);
        Ok(())
    }

    fn path_of(&self, spec: &StoreSpec, record: &CatalogRecord) -> String {
        match &spec.path {
            Some(path) => path.to_string_lossy().into_owned(),
            None if spec.dedicated => format!("stores/{}-{}", spec.driver, record.stores.len() + 1),
            None => format!("stores/{}", spec.driver),
        }
    }
}

impl State {
    /// Makes a change of the record durable, and only then keeps it.
    fn change(&mut self, change: impl FnOnce(&mut CatalogRecord)) -> Result<()> {
        let mut record = self.record.clone();
        change(&mut record);
        match self.slots.write(&record)? {
            None => {
                self.record = record;
                Ok(())
            }
            Some(found) => {
                self.record = found;
                Err(Error::new(
                    ErrorKind::Unavailable,
                    "the catalog was read again after a failed write; try again",
                ))
            }
        }
    }
}

/// Whether the store at the place that `spec` names is one that it may share.
fn fits(record: &StoreRecord, spec: &StoreSpec) -> Result<()> {
    let problem = if record.driver != spec.driver {
        format!("is a {} store", record.driver)
    } else if record.layout != spec.layout {
        format!("has the layout {:?}", record.layout)
    } else if record.dedicated || spec.dedicated {
        "is dedicated to another tenant".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidInput, format!("{}, at {}, {problem}", record.id, record.path)))
}
