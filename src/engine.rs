//! The front door: open a data directory, make tenants, close it.

mod mark;
mod open;
mod runner;
mod waves;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cutover_formats::limits;
use cutover_formats::meta::{Retention, Status, TenantRecord};
use cutover_formats::{Layout, StoreId, TenantId};

use crate::catalog::StoreSpec;
use crate::clock::{self, Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Observer;
use crate::files::{Files, SystemFiles};
use crate::gc;
use crate::handover;
use crate::heartbeats::{Heartbeats, LeaseTimes};
use crate::mend::Keeper;
use crate::migration::driver;
use crate::migration::replicate::Replicator;
use crate::plan::Plan;
#[cfg(feature = "proxy")]
use crate::service::HttpService;
use crate::service::signature::SigningKey;
use crate::service::{InProcess, Registry, Service, Target};
use crate::shared::{Durability, Flips, Shared, Thread};
use crate::store::Driver;
use crate::sync::{Mutex, RwLock};
use crate::tenant::access::AccessControl;
use crate::tenant::control::{self, Control};
use crate::tenant::seats::{Caller, RunnerId};
use crate::tenant::{Inner, Tenant};
use crate::threads::Threads;

pub use self::runner::Runner;

/// How long dropping an engine waits for its threads.
const DROP_DEADLINE: Duration = Duration::from_secs(30);

/// An open data directory. Cheap to clone; it closes when the last clone is dropped.
///
/// What the engine makes itself is for its owner only: files of mode 0600 in directories of mode 0700, and so are the directories of
/// stores, and after each opening the files in them. RocksDB and sled go on making files as the *process's umask* says: they are out of reach
/// behind their directory, and a program that wants their modes right as well sets its umask to 077 first, as the binary `cutover`
/// does. A data directory that was there before keeps the mode that it has.
#[derive(Clone)]
pub struct Engine(Arc<Open>);

struct Open {
    core: Arc<Core>,
    threads: Threads,
}

/// What the background threads see of an engine.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    /// In the order of their names, so that two runs of the same calls do the same in the same order.
    tenants: RwLock<BTreeMap<String, Arc<Inner>>>,
    /// Held while tenants are made or removed: the tenants that could not be made and may have left files.
    making: Mutex<HalfMade>,
    mark: Arc<mark::EngineMark>,
    replicator: Mutex<Replicator>,
    keeper: Mutex<Keeper>,
    runners: Mutex<BTreeMap<String, Arc<RunnerId>>>,
    /// What waves have ruled about migrations and could not do at once.
    owed: Mutex<Vec<waves::Owed>>,
}

/// By name: what a try to make the tenant may have left.
type HalfMade = BTreeMap<String, (TenantId, StoreId)>;

/// How to open an engine.
#[must_use]
pub struct Builder {
    path: PathBuf,
    durability: Durability,
    drivers: Vec<Arc<dyn Driver>>,
    layouts: Vec<Arc<dyn Layout>>,
    clock: Arc<dyn Clock>,
    files: Arc<dyn Files>,
    observer: Option<Arc<dyn Observer>>,
    heartbeats: LeaseTimes,
    services: Registry,
    flips: Flips,
    background: bool,
}

impl Builder {
    /// What an acknowledgement promises; [`Durability::Synced`] unless said otherwise.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Adds a driver, or replaces the one of the same name.
    pub fn driver(mut self, driver: Arc<dyn Driver>) -> Self {
        self.drivers.push(driver);
        self
    }

    /// Adds a layout.
    pub fn layout(mut self, layout: Arc<dyn Layout>) -> Self {
        self.layouts.push(layout);
        self
    }

    /// Another clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Other files than those of the file system for what the engine keeps beside the stores.
    pub fn files(mut self, files: Arc<dyn Files>) -> Self {
        self.files = files;
        self
    }

    /// Somebody to tell what happens.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// How often workers are to be heard of.
    pub fn heartbeats(mut self, heartbeats: Heartbeats) -> Self {
        self.heartbeats.engine = heartbeats;
        self
    }

    /// The same for those who hold a step of this queue.
    pub fn heartbeats_of(mut self, queue: impl Into<String>, heartbeats: Heartbeats) -> Self {
        self.heartbeats.queues.insert(queue.into(), heartbeats);
        self
    }

    /// Registers a service in this process, which workers call by this name through [`Gate::call`](crate::Gate::call), or replaces the one
    /// of the same name. Its credentials are its own: nobody gets at it through the engine.
    pub fn service(mut self, name: impl Into<String>, service: Arc<dyn Service>) -> Self {
        self.services.named.insert(name.into(), Target::InProcess(InProcess::new(service)));
        self
    }

    /// The same for a service over HTTP.
    #[cfg(feature = "proxy")]
    pub fn http_service(mut self, name: impl Into<String>, service: HttpService) -> Self {
        self.services.named.insert(name.into(), Target::Http(Arc::new(service)));
        self
    }

    /// The key that signs calls to services, for those that check it elsewhere. Without one the engine makes a key for as long as it is
    /// open, which nobody else knows: then no service can check a signature.
    pub fn signing_key(mut self, key: SigningKey) -> Self {
        self.services.key = Some(key);
        self
    }

    /// How many requests of a tenant may wait at a time while it changes hands, and for how long each: 4,096 and 30 seconds, unless told
    /// otherwise. One more is refused ([`AtLimit`](ErrorKind::AtLimit)), and so is one that waited in vain ([`TimedOut`](ErrorKind::TimedOut)).
    pub fn handover_queue(mut self, requests: usize, wait: Duration) -> Self {
        (self.flips.queue, self.flips.wait) = (requests, wait);
        self
    }

    /// Whether a request of a runner on standby brings the tenant to it, with a hand-over that nobody asked for otherwise. It is an error unless
    /// this is switched on.
    pub fn flip_on_foreign_request(mut self, on: bool) -> Self {
        self.flips.on_foreign_request = on;
        self
    }

    /// Whether the engine has threads of its own that collect, copy, drive, flip and mend (it has, unless told otherwise). Without them call
    /// [`Engine::step`].
    pub fn background(mut self, on: bool) -> Self {
        self.background = on;
        self
    }

    /// Opens the directory, making it if it is missing or empty. Whatever a crash has interrupted is finished or repeated: before
    /// the first call is served where a promise depends on it, in the background otherwise.
    ///
    /// # Errors
    /// [`Locked`](ErrorKind::Locked) if another engine has it open, [`Foreign`](ErrorKind::Foreign) if it is not ours or of a newer version,
    /// [`Corrupt`](ErrorKind::Corrupt) if it is damaged beyond its second copies.
    pub fn open(self) -> Result<Engine> {
        open::open(self)
    }
}

/// What a new tenant is like.
#[derive(Debug, Clone)]
pub struct TenantOptions {
    store: StoreSpec,
    retention: Retention,
    scopes: Vec<(String, Retention)>,
}

impl TenantOptions {
    /// A tenant in this store. What has ended is kept for an hour.
    pub fn new(store: StoreSpec) -> Self {
        const HOUR: u64 = 3_600_000;
        let retention = Retention { instance_ms: HOUR, key_ms: HOUR, request_ms: HOUR };
        Self { store, retention, scopes: Vec::new() }
    }

    /// How long what has ended is kept.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// The same for instances with a key in this scope.
    #[must_use]
    pub fn scope_retention(mut self, scope: impl Into<String>, retention: Retention) -> Self {
        self.scopes.push((scope.into(), retention));
        self
    }
}

impl Engine {
    /// Opens the data directory at `path` when [`Builder::open`] is called.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder {
            path: path.as_ref().to_path_buf(),
            durability: Durability::default(),
            drivers: open::default_drivers(),
            layouts: vec![Arc::new(cutover_formats::V1)],
            clock: Arc::new(SystemClock::default()),
            files: Arc::new(SystemFiles),
            observer: None,
            heartbeats: LeaseTimes::default(),
            services: Registry::default(),
            flips: Flips::default(),
            background: true,
        }
    }

    /// Makes a tenant. It is durable when this returns.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if there is one of this name; [`InvalidInput`](ErrorKind::InvalidInput) for a bad name or
    /// an unknown driver. If a disk fails it may be there when the engine is opened again, empty; another try is welcome before that.
    pub fn create_tenant(&self, name: &str, options: TenantOptions) -> Result<Tenant> {
        limits::check_name("the name of the tenant", name)?;
        for (scope, _) in &options.scopes {
            limits::check_name("the scope of a retention", scope)?;
        }
        let core = &self.0.core;
        let mut half_made = core.making.lock();
        core.shared.check()?;
        if core.tenants.read().contains_key(name) {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("there is a tenant {name:?} already")));
        }
        core.remove_half_made(&mut half_made, name)?;
        core.shared.catalog.check(&options.store)?;
        let id = core.shared.catalog.next_tenant()?;
        let space = core.shared.catalog.place(&options.store, id, |_| None)?;
        let now_ms = core.shared.now_ms();
        let record = TenantRecord {
            id,
            name: name.to_owned(),
            deleting: false,
            status: Status::stable(1, space.id),
            entered_ms: now_ms,
            migration: None,
            ended: Vec::new(),
            retire: Vec::new(),
            retention: options.retention,
            scopes: options.scopes,
            journal: control::created(now_ms),
        };
        let control = match Control::create(&core.shared.dir.meta(), record) {
            Ok(control) => control,
            // The files of another one.
            Err(err) if err.kind() == ErrorKind::Corrupt => return Err(err),
            Err(err) => {
                // Whether it is there is not known. It is not to be there beside the tenant that the next try makes.
                half_made.insert(name.to_owned(), (id, space.id));
                drop(space);
                // If this fails too, the next try does it, or it is made when the engine opens again.
                drop(core.remove_half_made(&mut half_made, name));
                return Err(err);
            }
        };
        let access = AccessControl::none(&core.shared.dir.meta(), id);
        let tenant = Arc::new(Inner::new(Arc::clone(&core.shared), control, access, vec![space]));
        core.tenants.write().insert(name.to_owned(), Arc::clone(&tenant));
        Ok(Tenant(tenant, Caller::default()))
    }

    /// The tenant of this name.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is none.
    pub fn tenant(&self, name: &str) -> Result<Tenant> {
        limits::check_name("the name of the tenant", name)?;
        self.0.core.shared.check()?;
        Ok(Tenant(self.0.core.inner(name)?, Caller::default()))
    }

    /// The names of all tenants, sorted.
    #[must_use]
    pub fn tenants(&self) -> Vec<String> {
        self.0.core.tenants.read().keys().cloned().collect()
    }

    /// Removes a tenant with everything it has, in whatever phase it is. When this returns it is gone for good; a crash before that
    /// leaves it whole, or gone after the next opening.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is none of this name; [`TimedOut`](ErrorKind::TimedOut) if its operations do not end. After
    /// every other error than the first the tenant is as it was, or it is not served any more and goes at the next opening.
    pub fn delete_tenant(&self, name: &str) -> Result<()> {
        let core = &self.0.core;
        let _making = core.making.lock();
        let tenant = self.tenant(name)?.0;
        let mut control = tenant.control.lock();
        // An earlier try may have come so far without knowing it.
        control.settle()?;
        if !control.record().deleting {
            control.persist(core.shared.now_ms(), "operator", "deleted", |record| record.deleting = true)?;
        }
        tenant.mark_deleted();
        core.tenants.write().remove(name);
        if let Err(holders) = core.shared.pins.begin_wait(tenant.id).wait(DROP_DEADLINE) {
            let message = format!("the tenant {name:?} has operations that do not end: {holders:?}");
            return Err(Error::new(ErrorKind::TimedOut, message));
        }
        open::erase(&core.shared, &tenant, &control)
    }

    /// Does what the background threads would do, once for every tenant: drive, copy, collect; and once for every store: open it again if it
    /// has failed, sync it if it is time. Says whether anything may be left to do
    /// right now.
    ///
    /// # Errors
    /// If the engine is closed.
    pub fn step(&self) -> Result<bool> {
        self.0.core.shared.check()?;
        let soon = |next: Option<Duration>| next.is_some_and(|next| next.is_zero());
        let core = &self.0.core;
        let (kept, driven, copied, collected) = (core.keep(), core.drive(), core.copy(), core.collect());
        let flipped = core.flip(handover::driver::step);
        core.pay_owed();
        Ok(soon(kept) || soon(driven) || soon(flipped) || soon(copied) || soon(collected))
    }

    /// Where a store of the catalog is, if it has not been removed.
    #[must_use]
    pub fn store_path(&self, id: StoreId) -> Option<PathBuf> {
        let catalog = &self.0.core.shared.catalog;
        catalog.record(id).filter(|record| !record.retired).map(|record| catalog.directory(&record))
    }

    /// Every tenant, the stores that it is in or still leaves, and every store that there is now, for [`MigrationOptions::planned`](crate::MigrationOptions::planned).
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.0.core.shared.catalog.plan()
    }

    /// The driver of a store, also of one that has been removed.
    #[must_use]
    pub fn store_driver(&self, id: StoreId) -> Option<String> {
        self.0.core.shared.catalog.record(id).map(|record| record.driver)
    }

    /// Takes no more calls, waits for those that are under way and for the threads until the deadline, and lets go of the directory.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut) if something does not end: the directory stays locked until it does and every handle is dropped.
    /// [`Panicked`](ErrorKind::Panicked) if a thread of the engine had panicked.
    pub fn close(&self, deadline: Duration) -> Result<()> {
        self.0.close(deadline)
    }
}

impl Open {
    fn close(&self, deadline: Duration) -> Result<()> {
        let shared = &self.core.shared;
        let verdict = shared.check();
        shared.close();
        self.threads.join(deadline)?;
        let until = clock::deadline(deadline);
        let under_way = |what: String| Error::new(ErrorKind::TimedOut, format!("{what} is still under way"));
        // Who makes or removes a tenant holds this, and asks under it whether calls are taken.
        let _making = self
            .core
            .making
            .try_lock_until(until)
            .ok_or_else(|| under_way("the making or removing of a tenant".to_owned()))?;
        // They stay listed until all of them have ended: a second call waits for the same operations.
        for tenant in &self.core.all() {
            tenant.wake_callers();
            // A move holds no pin. One that began before goes through; none begins after this.
            let moved = tenant.control.try_lock_until(until);
            drop(moved.ok_or_else(|| under_way(format!("a move of the tenant {:?}", tenant.name)))?);
            let flipped = tenant.access.try_lock_until(until);
            drop(flipped.ok_or_else(|| under_way(format!("a flip of the tenant {:?}", tenant.name)))?);
            if let Err(holders) = shared.pins.begin_wait(tenant.id).wait(deadline) {
                let message =
                    format!("the tenant {:?} has operations that do not end: {holders:?}", tenant.name);
                return Err(Error::new(ErrorKind::TimedOut, message));
            }
            tenant.spaces.write().clear();
        }
        self.core.tenants.write().clear();
        let owed = self.core.owed.try_lock_until(until);
        owed.ok_or_else(|| under_way("the start of a migration".to_owned()))?.clear();
        self.core.keeper.lock().close();
        let synced = shared.catalog.close();
        if verdict.is_ok() && synced.is_ok() {
            self.core.mark.close(shared.now_ms())?;
        }
        shared.dir.unlock();
        verdict
            .or_else(|err| if err.kind() == ErrorKind::Unavailable { Ok(()) } else { Err(err) })
            .and(synced)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.core.shared.is_closed() {
            // Nobody is left to be told.
            drop(self.close(DROP_DEADLINE));
        }
    }
}

impl Core {
    fn all(&self) -> Vec<Arc<Inner>> {
        self.tenants.read().values().cloned().collect()
    }

    /// Removes what an earlier try to make this tenant may have left.
    fn remove_half_made(&self, half_made: &mut HalfMade, name: &str) -> Result<()> {
        let Some((id, store)) = half_made.get(name).copied() else { return Ok(()) };
        Control::remove_half_made(&self.shared.dir.meta(), id)?;
        self.shared.catalog.release(store, id, true)?;
        half_made.remove(name);
        Ok(())
    }

    fn drive(&self) -> Option<Duration> {
        self.all().iter().filter_map(|tenant| driver::step(tenant)).min()
    }

    fn flip(&self, flip: impl Fn(&Inner) -> Option<Duration>) -> Option<Duration> {
        self.all().iter().filter_map(|tenant| flip(tenant)).min()
    }

    fn copy(&self) -> Option<Duration> {
        let mut replicator = self.replicator.lock();
        self.all().iter().filter_map(|tenant| replicator.step(tenant)).min()
    }

    fn collect(&self) -> Option<Duration> {
        let due = self.all().iter().map(|tenant| gc::step(tenant).unwrap_or(u64::MAX)).min()?;
        Some(Duration::from_millis(due.saturating_sub(self.shared.clock.peek_ms())))
    }

    fn keep(&self) -> Option<Duration> {
        self.keeper.lock().step(&self.shared, &self.all())
    }
}

fn start_threads(open: &Open) -> Result<()> {
    let shared = &open.core.shared;
    let core = Arc::clone(&open.core);
    open.threads
        .start(shared, Thread::Driver, move || [core.pay_owed(), core.drive()].into_iter().flatten().min())?;
    // A thread of its own: requests wait for it, and it never waits for a store.
    let core = Arc::clone(&open.core);
    open.threads.start(shared, Thread::Flipper, move || core.flip(handover::driver::run))?;
    let core = Arc::clone(&open.core);
    open.threads.start(shared, Thread::Replicator, move || core.copy())?;
    let core = Arc::clone(&open.core);
    open.threads.start(shared, Thread::Keeper, move || core.keep())?;
    let core = Arc::clone(&open.core);
    open.threads.start(shared, Thread::Collector, move || {
        core.shared.clock.keep_ahead();
        core.collect().map(|next| next.max(Duration::from_millis(1)))
    })
}

#[cfg(test)]
mod tests;
