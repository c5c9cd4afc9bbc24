//! The catalog: which stores there are, who uses them, and opening and removing them.
//!
//! Invariant I6: whether anyone uses a store is decided under the same lock as its removal, and counts tenants whose
//! retirement is not finished and handles that an operation still holds.
//!
//! The lock is not held while a driver opens a store, which may take seconds or hang: the store is *taken* meanwhile, and nobody
//! else opens, closes or removes it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cutover_formats::codec::RecordType;
use cutover_formats::limits;
use cutover_formats::meta::{CatalogRecord, StoreRecord};
use cutover_formats::record::ClosedRecord;
use cutover_formats::{Layout, StoreId, TenantId};

use crate::error::{Error, ErrorKind, Result};
use crate::files::Files;
use crate::meta::dir::Dir;
use crate::meta::slot::Slots;
use crate::plan::Plan;
use crate::store::Driver;
use crate::store::space::Space;
use crate::sync::{Condvar, Mutex, MutexGuard};

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
    files: Arc<dyn Files>,
    meta: Dir,
    drivers: BTreeMap<String, Arc<dyn Driver>>,
    layouts: BTreeMap<String, Arc<dyn Layout>>,
    state: Mutex<State>,
    /// Signalled when a store is no longer taken.
    freed: Condvar,
}

struct State {
    record: CatalogRecord,
    slots: Slots<CatalogRecord>,
    /// In order, so that two runs of the same calls sync them in the same one.
    open: BTreeMap<StoreId, Arc<Space>>,
    users: HashMap<StoreId, BTreeSet<TenantId>>,
    /// Somebody opens or closes these, without the lock.
    taken: HashSet<StoreId>,
    /// How many openings there have been.
    openings: u64,
    closed: bool,
}

impl Catalog {
    pub(crate) fn open(
        dir: &Path,
        meta: &Dir,
        files: Arc<dyn Files>,
        drivers: BTreeMap<String, Arc<dyn Driver>>,
        layouts: BTreeMap<String, Arc<dyn Layout>>,
    ) -> Result<Self> {
        let (slots, record) = Slots::open(meta, "catalog", RecordType::Catalog)?;
        let record = record.unwrap_or_default();
        let state = State {
            record,
            slots,
            open: BTreeMap::new(),
            users: HashMap::new(),
            taken: HashSet::new(),
            openings: 0,
            closed: false,
        };
        let (state, freed) = (Mutex::new(state), Condvar::default());
        Ok(Self { dir: dir.to_path_buf(), files, meta: meta.clone(), drivers, layouts, state, freed })
    }

    /// Makes sure that both slots of the record hold what was read.
    pub(crate) fn mend(&self) -> Result<()> {
        self.state.lock().slots.mend()
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
        let there = state.record.stores.iter().find(|store| !store.retired && store.path == path).cloned();
        if let Some(record) = there {
            if let Some(err) = refuse(record.id) {
                return Err(err);
            }
            let is_used = state.users.get(&record.id).is_some_and(|users| !users.is_empty());
            fits(&record, spec, is_used)?;
            let space = self.opened(&mut state, &record)?;
            state.users.entry(record.id).or_default().insert(tenant);
            return Ok(space);
        }
        let at = self.dir.join(&path);
        if driver.exists(&at) || self.files.list(&at).is_ok_and(|inside| !inside.is_empty()) {
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

    /// Says that `spec` names a driver and a layout that exist, and a path that the record of a store can hold.
    pub(crate) fn check(&self, spec: &StoreSpec) -> Result<()> {
        limits::check_size("the name of the driver", spec.driver.len(), limits::MAX_NAME)?;
        limits::check_size("the name of the layout", spec.layout.len(), limits::MAX_NAME)?;
        if let Some(path) = &spec.path {
            let text = path.to_str().filter(|text| !text.contains('\0'));
            let bad = || {
                let message = format!("the path of a store {path:?} is not UTF-8, or has a zero byte");
                Error::new(ErrorKind::InvalidInput, message)
            };
            limits::check_size("the path of a store", path.as_os_str().len(), limits::MAX_PATH)?;
            text.ok_or_else(bad)?;
        }
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
        if state.taken.contains(&id) || state.open.get(&id).is_some_and(|space| Arc::strong_count(space) > 1)
        {
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

    /// Every tenant that uses a store, with those that it uses, and every store that is not retired.
    pub(crate) fn plan(&self) -> Plan {
        let state = self.state.lock();
        let stores = state.record.stores.iter().filter(|store| !store.retired);
        let mut tenants = BTreeMap::<TenantId, BTreeSet<StoreId>>::new();
        for store in stores.clone() {
            for tenant in state.users.get(&store.id).into_iter().flatten() {
                tenants.entry(*tenant).or_default().insert(store.id);
            }
        }
        Plan {
            tenants,
            stores: stores.map(|store| (store.id, format!("{} at {}", store.driver, store.path))).collect(),
        }
    }

    /// Where `spec` would be placed.
    pub(crate) fn directory_for(&self, spec: &StoreSpec) -> PathBuf {
        let path = self.path_of(spec, &self.state.lock().record);
        self.dir.join(path)
    }

    /// Lets go of all stores. Those that an operation still holds stay open until it ends. What each of them has is durable then, and so is, behind
    /// it, that it was closed.
    pub(crate) fn close(&self) -> Result<()> {
        let mut state = self.state.lock();
        state.closed = true;
        let open = std::mem::take(&mut state.open);
        drop(state);
        // One that fails keeps none of the others from being synced.
        let closed: Vec<Result<()>> = open.into_values().map(|space| self.note_close(&space)).collect();
        closed.into_iter().collect()
    }

    fn note_close(&self, space: &Space) -> Result<()> {
        let (mut slots, noted) = self.closes_of(space.id)?;
        let count = space.closes()?.max(noted.map_or(0, |record| record.count)) + 1;
        space.note_close(count)?;
        slots.write(&ClosedRecord { count }).map(drop)
    }

    /// Refuses a store that has lost what was durable when it was closed last.
    fn check_closes(&self, space: &Space) -> Result<()> {
        let (mut slots, noted) = self.closes_of(space.id)?;
        let (there, noted) = (space.closes()?, noted.map_or(0, |record| record.count));
        // One that ends with the process, and of which nothing is there, is a new one.
        let is_new = || Ok::<_, Error>(there == 0 && self.driver(&space.driver)?.is_volatile());
        if there >= noted || is_new()? {
            return slots.mend();
        }
        let [a, b] = slots.paths();
        let message = format!(
            "{} ({}) has lost what was durable when it was closed for the {noted}th time (it knows of {there}): its files are damaged, or \
             from an older copy; to take it as it is, remove {} and {}",
            space.id,
            space.driver,
            a.display(),
            b.display()
        );
        Err(Error::new(ErrorKind::Corrupt, message))
    }

    fn closes_of(&self, id: StoreId) -> Result<(Slots<ClosedRecord>, Option<ClosedRecord>)> {
        Slots::open(&self.meta, &format!("store-{}", id.0), RecordType::Store)
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

    fn opened(&self, state: &mut MutexGuard<'_, State>, record: &StoreRecord) -> Result<Arc<Space>> {
        while !state.open.contains_key(&record.id) {
            if state.record.stores.iter().any(|store| store.id == record.id && store.retired) {
                let message = format!("{} was removed meanwhile; try again", record.id);
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            if state.taken.insert(record.id) {
                return self.open_taken(state, record);
            }
            self.freed.wait(state);
        }
        let space = state.open.get(&record.id).cloned();
        space.ok_or_else(|| Error::new(ErrorKind::Unavailable, format!("{} is not open", record.id)))
    }

    /// Opens a store that the caller has taken, without the lock, and lets go of it.
    fn open_taken(&self, state: &mut MutexGuard<'_, State>, record: &StoreRecord) -> Result<Arc<Space>> {
        let opened = MutexGuard::unlocked(state, || {
            let layout = self.layout(&record.layout)?;
            let store = self.driver(&record.driver)?.open(&self.dir.join(&record.path))?;
            // What an earlier process wrote and did not sync is seen from here on, and answered from: so it must not get lost any more.
            store.sync().map(|()| (store, layout))
        });
        self.free(state, record.id);
        let opening = |err: Error| err.context(format!("opening {} ({})", record.id, record.driver));
        let (store, layout) = opened.map_err(opening)?;
        if state.closed {
            return Err(Error::new(ErrorKind::Unavailable, "the engine was closed meanwhile"));
        }
        state.openings += 1;
        let space = Arc::new(Space::new(record.id, record.driver.clone(), state.openings, store, layout));
        self.check_closes(&space)?;
        state.open.insert(record.id, Arc::clone(&space));
        Ok(space)
    }

    fn free(&self, state: &mut State, id: StoreId) {
        state.taken.remove(&id);
        self.freed.notify_all();
    }

    /// All stores as they stand: open, or what stands in for them.
    pub(crate) fn spaces(&self) -> Vec<Arc<Space>> {
        self.state.lock().open.values().cloned().collect()
    }

    /// The store as it stands.
    pub(crate) fn current(&self, id: StoreId) -> Option<Arc<Space>> {
        self.state.lock().open.get(&id).cloned()
    }

    /// The first step of opening a store again that has failed: takes it and, if its disk takes writes, puts something in its place that
    /// refuses everything. Returns the failed handle, for the caller to close when nobody else has it; `None` if it was closed before. Who
    /// called this goes on with [`reopen`](Self::reopen).
    ///
    /// # Errors
    /// If it is not worth a try yet, or the store was removed meanwhile. Then nothing was taken.
    pub(crate) fn take_failed(&self, id: StoreId) -> Result<Option<Arc<Space>>> {
        let mut state = self.state.lock();
        let record = state.record.stores.iter().find(|store| store.id == id && !store.retired).cloned();
        let there = record.filter(|_| state.open.contains_key(&id) && !state.closed);
        let gone = || Error::new(ErrorKind::NotFound, format!("{id} is not in use any more"));
        let record = there.ok_or_else(gone)?;
        if !state.taken.insert(id) {
            return Err(Error::new(ErrorKind::Locked, format!("{id} is being opened or removed")));
        }
        let may = MutexGuard::unlocked(&mut state, || {
            self.driver(&record.driver)?.may_reopen(&self.dir.join(&record.path))
        });
        if let Err(err) = may {
            self.free(&mut state, id);
            return Err(err);
        }
        let Some(failed) = state.open.get(&id).cloned().filter(|space| !space.is_closed()) else {
            return Ok(None);
        };
        state.open.insert(id, Arc::new(failed.closed()));
        Ok(Some(failed))
    }

    /// The last step: opens a store that was [taken](Self::take_failed) and whose handle is closed.
    ///
    /// # Errors
    /// If it does not open. Then what stands in for it stays, and it is taken no more.
    pub(crate) fn reopen(&self, id: StoreId) -> Result<Arc<Space>> {
        let mut state = self.state.lock();
        match state.record.stores.iter().find(|store| store.id == id).cloned() {
            Some(record) => self.open_taken(&mut state, &record),
            None => {
                self.free(&mut state, id);
                Err(Error::new(ErrorKind::NotFound, format!("there is no {id}")))
            }
        }
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
        // A name that is never used again: if it stays, it does no harm.
        if let Ok((slots, Some(_))) = self.closes_of(id) {
            drop(slots.remove());
        }
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
fn fits(record: &StoreRecord, spec: &StoreSpec, is_used: bool) -> Result<()> {
    let problem = if record.driver != spec.driver {
        format!("is a {} store", record.driver)
    } else if record.layout != spec.layout {
        format!("has the layout {:?}", record.layout)
    } else if record.dedicated != spec.dedicated || (record.dedicated && is_used) {
        // (A try that failed may have left one that nobody uses.)
        "is dedicated to another tenant".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidInput, format!("{}, at {}, {problem}", record.id, record.path)))
}
