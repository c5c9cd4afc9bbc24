//! A store with its layout: rows in and out instead of bytes.

mod closes;
mod survey;

use std::ops::ControlFlow;
use std::sync::Arc;

use cutover_formats::record::{
    DefinitionRecord, InstanceRecord, KeyRecord, Marker, NoteRecord, PayloadRecord, QuarantineRecord,
    RequestRecord, StepRecord,
};
use cutover_formats::{Family, FormatError, Layout, Prefix, Record, RowId, StoreId, TenantId};

pub(crate) use self::survey::Damage;
use super::closed::{Closed, Failure};
use super::{Batch, Change, Store, Write, prefix_end};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Changes of rows, to be applied together to any store: what a [`Batch`] is before a layout has made bytes of it.
#[derive(Debug, Default)]
pub(crate) struct Changes(Vec<(RowId<'static>, Option<Record>)>);

impl Changes {
    pub(crate) fn put(&mut self, id: RowId<'static>, record: Record) {
        self.0.push((id, Some(record)));
    }

    pub(crate) fn mark(&mut self, id: RowId<'static>) {
        self.put(id, Record::Marker(Marker {}));
    }

    pub(crate) fn delete(&mut self, id: RowId<'static>) {
        self.0.push((id, None));
    }

    /// The removal of one row.
    pub(crate) fn removal(id: RowId<'static>) -> Self {
        Self(vec![(id, None)])
    }

    /// Adds all of `later` behind what is here; of two changes of one row the later one wins.
    pub(crate) fn append(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rows that change.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &RowId<'static>> {
        self.0.iter().map(|(id, _)| id)
    }

    /// Takes out the changes of rows of which `which` says so.
    pub(crate) fn split_off(&mut self, which: impl Fn(&RowId<'_>) -> bool) -> Self {
        let (taken, kept) = std::mem::take(&mut self.0).into_iter().partition(|(id, _)| which(id));
        self.0 = kept;
        Self(taken)
    }
}

/// One page of a scan.
pub(crate) struct Page {
    pub(crate) rows: Vec<(RowId<'static>, Record)>,
    /// Bytes of its values.
    pub(crate) bytes: u64,
    /// Nothing comes after it.
    pub(crate) done: bool,
}

/// An open store, its number and its layout.
///
/// One value is one opening. After a failed write it takes no more of them, whatever the driver does, and is never mended: the
/// store is closed and opened again as another value.
pub(crate) struct Space {
    pub(crate) id: StoreId,
    pub(crate) driver: String,
    /// Number of this opening, unique in an engine.
    pub(crate) opening: u64,
    store: Arc<dyn Store>,
    layout: Arc<dyn Layout>,
    /// Set by the first write that failed.
    failure: OnceLock<Failure>,
    /// Nothing is behind it: it stands in while the store is being opened again.
    closed: bool,
    /// Something was written that no sync has made durable yet.
    unsynced: AtomicBool,
    /// A read failed: perhaps nothing works any more.
    suspect: AtomicBool,
}

macro_rules! getters {
    ($($name:ident: $variant:ident($record:ty)),* $(,)?) => {$(
        pub(crate) fn $name(&self, tenant: TenantId, id: &RowId<'_>) -> Result<Option<$record>> {
            match self.read(tenant, id)? {
                Some(Record::$variant(record)) => Ok(Some(record)),
                Some(_) => Err(self.corrupt(id.family(), FormatError::Malformed { what: "a row" })),
                None => Ok(None),
            }
        }
    )*};
}

impl Space {
    pub(crate) fn new(
        id: StoreId,
        driver: String,
        opening: u64,
        store: Arc<dyn Store>,
        layout: Arc<dyn Layout>,
    ) -> Self {
        Self {
            id,
            driver,
            opening,
            store,
            layout,
            failure: OnceLock::new(),
            closed: false,
            unsynced: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
        }
    }

    /// What stands in for this store, which has failed, while it is being opened again.
    pub(crate) fn closed(&self) -> Self {
        let failure =
            self.failure.get().cloned().unwrap_or_else(|| {
                Failure::of(&Error::new(ErrorKind::Unavailable, "it is being opened again"))
            });
        Self {
            id: self.id,
            driver: self.driver.clone(),
            opening: self.opening,
            store: Arc::new(Closed(failure.clone())),
            layout: Arc::clone(&self.layout),
            failure: failure.into(),
            closed: true,
            unsynced: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
        }
    }

    /// Whether only something that stands in for the store is here.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Why it takes no writes, if it does not.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.get()
    }

    /// After a read that failed: finds out with a sync whether the store still works. Some libraries refuse everything after an error
    /// that they met while reading, and whoever only reads would never find out that the store has to be opened again.
    pub(crate) fn sync_if_suspect(&self) {
        if self.suspect.swap(false, Ordering::AcqRel) {
            // A failure is remembered.
            drop(self.sync());
        }
    }

    /// What a read that failed comes to. After a failed write it is that failure that is told, whatever the read says: of a batch
    /// that failed half-way, sled shows the half that it has applied, and that looks damaged until the store was opened again.
    fn unread(&self, err: Error) -> Error {
        if let Some(failure) = self.failure.get() {
            return failure.refusal("calls").context(format!("{} ({})", self.id, self.driver));
        }
        if err.kind() == ErrorKind::Io {
            self.suspect.store(true, Ordering::Release);
        }
        err
    }

    /// Syncs what was written since the last time; nothing if nothing was.
    pub(crate) fn sync_if_written(&self) -> Result<()> {
        // Taken back before the sync: a commit that is not covered by it sets it again, after it was applied.
        if self.unsynced.swap(false, Ordering::AcqRel) { self.sync() } else { Ok(()) }
    }

    getters! {
        definition: Definition(DefinitionRecord),
        key: Key(KeyRecord),
        request: Request(RequestRecord),
        instance: Instance(InstanceRecord),
        payload: Payload(PayloadRecord),
        step: Step(StepRecord),
        note: Note(NoteRecord),
        quarantined: Quarantine(QuarantineRecord),
    }

    /// Applies `changes` together.
    pub(crate) fn apply(&self, tenant: TenantId, changes: &Changes, write: Write) -> Result<()> {
        self.commit(&self.encode(tenant, changes)?, write)
    }

    /// The same changes as bytes of this store's layout.
    pub(crate) fn encode(&self, tenant: TenantId, changes: &Changes) -> Result<Batch> {
        let mut batch = Batch::new();
        for (id, record) in &changes.0 {
            let key = |out: &mut Vec<u8>| self.layout.key(tenant, id, out);
            match record {
                Some(record) => batch.put_with(id.family(), key, |out| self.layout.value(record, out))?,
                None => batch.delete_with(id.family(), key),
            }
        }
        Ok(batch)
    }

    pub(crate) fn commit(&self, batch: &Batch, write: Write) -> Result<()> {
        self.write(|store| store.commit(batch, write))?;
        // Most find it set already: then its cache line stays shared.
        if !self.unsynced.load(Ordering::Relaxed) {
            self.unsynced.store(true, Ordering::Release);
        }
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.write(|store| store.sync()).map_err(|err| err.context("syncing"))
    }

    /// Refuses a write after one has failed; else makes it, and remembers if it fails.
    fn write(&self, write: impl FnOnce(&dyn Store) -> Result<()>) -> Result<()> {
        let named = |err: Error| err.context(format!("{} ({})", self.id, self.driver));
        if let Some(failure) = self.failure.get() {
            return Err(named(failure.refusal("writes")));
        }
        write(&*self.store).map_err(|err| {
            if err.kind() == ErrorKind::InvalidInput {
                return named(err);
            }
            let err = named(err);
            // The first one stays.
            drop(self.failure.set(Failure::of(&err)));
            match err.kind() {
                // From here this kind says that nothing was done, and this is not known.
                ErrorKind::NoSpace => Error::with_source(ErrorKind::Io, "a write failed", err),
                _ => err,
            }
        })
    }

    /// Up to `rows` rows and about `bytes` bytes of `prefix`, from behind `after` on.
    pub(crate) fn page(
        &self,
        tenant: TenantId,
        prefix: Prefix<'_>,
        after: Option<&RowId<'_>>,
        rows: usize,
        bytes: u64,
    ) -> Result<Page> {
        let mut page = Page { rows: Vec::new(), bytes: 0, done: true };
        self.scan(tenant, prefix, after, |id, value| {
            if page.rows.len() >= rows || page.bytes >= bytes {
                page.done = false;
                return Ok(ControlFlow::Break(()));
            }
            page.bytes += value.len() as u64;
            let record = self.layout.read_value(&id, value).map_err(|err| self.unreadable(&id, err))?;
            page.rows.push((id, record));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(page)
    }

    /// The row ids of `prefix` from behind `after` on, with the bytes of each value, until `visit` breaks.
    pub(crate) fn scan(
        &self,
        tenant: TenantId,
        prefix: Prefix<'_>,
        after: Option<&RowId<'_>>,
        mut visit: impl FnMut(RowId<'static>, &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let family = prefix.family();
        let (from, to) = self.bounds_after(tenant, prefix, after);
        let mut failure = None;
        let scanned = self.store.scan(family, &from, &to, &mut |key, value| {
            let seen = match self.layout.read_key(family, key) {
                Ok((_, id)) => visit(id, value),
                Err(err) => Err(self.corrupt(family, err)),
            };
            seen.unwrap_or_else(|err| {
                failure = Some(err);
                ControlFlow::Break(())
            })
        });
        scanned.map_err(|err| self.failed(family, self.unread(err)))?;
        failure.map_or(Ok(()), Err)
    }

    /// The first row id of `prefix`, if it has any.
    pub(crate) fn first(&self, tenant: TenantId, prefix: Prefix<'_>) -> Result<Option<RowId<'static>>> {
        let mut first = None;
        self.scan(tenant, prefix, None, |id, _| {
            first = Some(id);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(first)
    }

    /// Removes all rows of a tenant, durably.
    pub(crate) fn remove_tenant(&self, tenant: TenantId) -> Result<()> {
        for family in Family::ALL {
            let (from, to) = self.bounds(tenant, Prefix::All(family));
            self.write(|store| store.remove_range(family, &from, &to))?;
        }
        self.sync()
    }

    /// Applies rows that [`raw_rows`] made, in this store's layout.
    pub(crate) fn apply_raw(&self, batch: &mut Batch, rows: &[(u8, Vec<u8>, Vec<u8>)]) -> Result<()> {
        for (family, key, value) in rows {
            let family = Family::from_u8(*family)
                .ok_or_else(|| self.corrupt(Family::Notes, FormatError::Malformed { what: "an intent" }))?;
            batch.put(family, key, value);
        }
        Ok(())
    }

    /// Whether there is such a row; an error if it does not decode.
    pub(crate) fn decodes(&self, tenant: TenantId, id: &RowId<'_>) -> Result<bool> {
        self.read(tenant, id).map(|found| found.is_some())
    }

    fn read(&self, tenant: TenantId, id: &RowId<'_>) -> Result<Option<Record>> {
        let mut key = Vec::with_capacity(64);
        self.layout.key(tenant, id, &mut key);
        match self.store.get(id.family(), &key).map_err(|err| self.failed_at(id, self.unread(err)))? {
            Some(value) => {
                self.layout.read_value(id, &value).map(Some).map_err(|err| self.unreadable(id, err))
            }
            None => Ok(None),
        }
    }

    fn bounds(&self, tenant: TenantId, prefix: Prefix<'_>) -> (Vec<u8>, Vec<u8>) {
        let mut from = Vec::with_capacity(64);
        self.layout.prefix(tenant, &prefix, &mut from);
        let to = prefix_end(&from);
        (from, to)
    }

    fn bounds_after(
        &self,
        tenant: TenantId,
        prefix: Prefix<'_>,
        after: Option<&RowId<'_>>,
    ) -> (Vec<u8>, Vec<u8>) {
        let (mut from, to) = self.bounds(tenant, prefix);
        if let Some(after) = after {
            from.clear();
            self.layout.key(tenant, after, &mut from);
            // The first key behind this one.
            from.push(0);
        }
        (from, to)
    }

    /// What the store reported, with the place where it did.
    fn failed(&self, family: Family, err: Error) -> Error {
        err.context(format!("{} ({}), family {}", self.id, self.driver, family.name()))
    }

    fn failed_at(&self, id: &RowId<'_>, err: Error) -> Error {
        err.context(format!("{} ({}), family {}, row {id:?}", self.id, self.driver, id.family().name()))
    }

    fn unreadable(&self, id: &RowId<'_>, err: FormatError) -> Error {
        let message = format!("{} ({}), family {}, row {id:?}", self.id, self.driver, id.family().name());
        Error::with_source(ErrorKind::Corrupt, message, err)
    }

    fn corrupt(&self, family: Family, err: FormatError) -> Error {
        let message = format!("{} ({}), family {}", self.id, self.driver, family.name());
        Error::with_source(ErrorKind::Corrupt, message, err)
    }
}

/// The rows that a batch puts, as bytes that an intent can keep.
pub(crate) fn raw_rows(batch: &Batch) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
    batch
        .changes()
        .filter_map(|change| match change {
            Change::Put(family, key, value) => Some((family as u8, key.to_vec(), value.to_vec())),
            Change::Delete(..) => None,
        })
        .collect()
}
