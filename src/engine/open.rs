//! Opening: read the metadata, open the stores, finish what a crash interrupted, start the threads.

use std::collections::BTreeMap;
use std::sync::Arc;

use cutover_formats::codec::RecordType;
use cutover_formats::meta::EngineRecord;
use cutover_formats::{Phase, Role, StoreId};

use super::mark::EngineMark;
use super::{Builder, Core, Engine, Open, start_threads};
use crate::catalog::{Catalog, Released};
use crate::clock::{EngineClock, Start};
use crate::error::{Error, ErrorKind, Result};
use crate::handover;
use crate::meta::dir::{DataDir, Dir};
use crate::meta::slot::Slots;
use crate::migration::driver;
use crate::migration::phase::Move;
use crate::migration::transition;
use crate::service::Services;
#[cfg(feature = "proxy")]
use crate::service::proxy::Host;
use crate::shared::{Settings, Shared};
use crate::store::Driver;
use crate::store::memory::MemoryDriver;
use crate::sync::{Mutex, RwLock, thread};
use crate::tenant::Inner;
use crate::tenant::access::{self, AccessControl, Unmendeds};
use crate::tenant::control::{self, Control};
use crate::threads::Threads;

/// The drivers of this build.
pub(super) fn default_drivers() -> Vec<Arc<dyn Driver>> {
    vec![
        Arc::new(MemoryDriver::default()),
        #[cfg(feature = "rocksdb")]
        Arc::new(crate::store::rocksdb::RocksDbDriver::default()),
        #[cfg(feature = "sled")]
        Arc::new(crate::store::sled::SledDriver::default()),
    ]
}

pub(super) fn open(builder: Builder) -> Result<Engine> {
    let services = Services::new(builder.services)?;
    let dir = DataDir::open(Dir::new(Arc::clone(&builder.files), &builder.path))?;
    let meta = dir.meta();
    let (mut mark, last) = Slots::<EngineRecord>::open(&meta, "engine", RecordType::Engine)?;
    let last = last.unwrap_or(EngineRecord { incarnation: 0, clock_ms: 0, clean: true });
    let drivers: BTreeMap<_, _> =
        builder.drivers.into_iter().map(|driver| (driver.name().to_owned(), driver)).collect();
    let layouts = builder.layouts.into_iter().map(|layout| (layout.name().to_owned(), layout)).collect();
    let catalog = Catalog::open(dir.path(), &meta, builder.files, drivers, layouts)?;
    let unmended: Vec<_> =
        control::tenants(&meta)?.into_iter().map(|id| Control::read(&meta, id)).collect::<Result<_>>()?;
    let mut access = access::read_all(&meta)?;
    // What is not ours, newer or damaged beyond its copies was refused by now; the first write comes after that.
    dir.mend()?;
    mark.mend()?;
    catalog.mend()?;
    let controls = unmended.into_iter().flatten().map(Control::mend).collect::<Result<Vec<_>>>()?;
    let start = Start::after(&*builder.clock, last.clock_ms);
    // The incarnation is durable before any token is given: all leases from before are void. So is the mark before any time.
    let incarnation = last.incarnation + 1;
    let mark = Arc::new(EngineMark::open(mark, incarnation, start.mark_ms())?);
    let clock = EngineClock::open(builder.clock, start, mark.clone());
    let settings = Settings {
        durability: builder.durability,
        observer: builder.observer,
        heartbeats: builder.heartbeats,
        services,
        flips: builder.flips,
    };
    let shared = Arc::new(Shared::new(dir, clock, catalog, settings, incarnation));
    let (deleted, kept): (Vec<_>, Vec<_>) =
        controls.into_iter().partition(|(control, _)| control.record().deleting);
    let mut tenants = Vec::new();
    let mut mended = Vec::new();
    for (control, said) in kept {
        let access = access_of(&shared, &control, &mut access)?;
        tenants.push(open_tenant(&shared, control, access)?);
        mended.push(said);
    }
    // Only now is it known who else uses the stores of those that are to go.
    for (control, _) in deleted {
        let access = access_of(&shared, &control, &mut access)?;
        finish_delete(&shared, control, access)?;
    }
    shared.catalog.remove_orphans()?;
    for (tenant, said) in tenants.iter().zip(mended) {
        recover(tenant, last.clean, said)?;
    }
    let core = Arc::new(Core {
        shared,
        tenants: RwLock::new(tenants.into_iter().map(|tenant| (tenant.name.clone(), tenant)).collect()),
        making: Mutex::default(),
        mark,
        replicator: Mutex::default(),
        keeper: Mutex::default(),
        runners: Mutex::default(),
        owed: Mutex::default(),
    });
    let open = Open { core, threads: Threads::new() };
    #[cfg(feature = "proxy")]
    start_ports(&open)?;
    if builder.background {
        start_threads(&open)?;
    }
    Ok(Engine(Arc::new(open)))
}

/// Starts the thread that serves the ports of steps, where there are services. It does nothing on its own, so it is there without
/// background threads too.
#[cfg(feature = "proxy")]
fn start_ports(open: &Open) -> Result<()> {
    let shared = &open.core.shared;
    match shared.services.host.as_ref().and_then(Host::runner) {
        Some(runner) => open.threads.run(shared, "cutover-ports", move || runner.run()),
        None => Ok(()),
    }
}

/// Who may act for a tenant, as it was found, its files made good.
fn access_of(shared: &Shared, control: &Control, found: &mut Unmendeds) -> Result<AccessControl> {
    let id = control.record().id;
    match found.remove(&id) {
        Some(unmended) => AccessControl::mend(unmended),
        None => Ok(AccessControl::none(&shared.dir.meta(), id)),
    }
}

/// Finishes a delete that was cut short. Its stores need not open, and some may be gone already.
fn finish_delete(shared: &Arc<Shared>, control: Control, access: AccessControl) -> Result<()> {
    let id = control.record().id;
    for store in stores_of(&control) {
        shared.catalog.note_user(store, id);
    }
    let tenant = Inner::new(Arc::clone(shared), control, access, Vec::new());
    let control = tenant.control.lock();
    erase(shared, &tenant, &control)
}

/// Opens the stores of a tenant.
fn open_tenant(shared: &Arc<Shared>, mut control: Control, access: AccessControl) -> Result<Arc<Inner>> {
    let record = control.record().clone();
    let id = record.id;
    for left in &record.retire {
        shared.catalog.note_user(*left, id);
    }
    let mut spaces = Vec::new();
    let mut broken_target = None;
    for role in [Role::Initial, Role::Target] {
        let Some(store) = record.status.store(role) else { continue };
        match shared.catalog.use_store(store, id) {
            Ok(space) => spaces.push(space),
            // Nothing was launched in a target before the switch: it is dropped, and keeps nobody from opening.
            // (A driver or layout that this engine was not given says nothing about the store.)
            Err(err)
                if role == Role::Target
                    && record.status.phase == Phase::PreMigration
                    && err.kind() != ErrorKind::InvalidInput =>
            {
                shared.catalog.note_user(store, id);
                broken_target = Some(err);
            }
            // What a migration abandons may be broken for good.
            Err(err) => return Err(err.context(format!("opening the tenant {:?}", record.name))),
        }
    }
    control.drive.waited =
        broken_target.is_none() && record.status.phase == Phase::Stable && record.retire.is_empty();
    let tenant = Arc::new(Inner::new(Arc::clone(shared), control, access, spaces));
    if let Some(err) = broken_target {
        let mut control = tenant.control.lock();
        let why = format!("the target does not open and is dropped: {err}");
        transition::make(&tenant, &mut control, Move::Cancel, "recovery", &why)?;
    }
    Ok(tenant)
}

/// Finishes intents and resolves keys that are live twice, before the first call is served.
/// What of the metadata was lost or only just saved, as `said`, goes into the journal too.
fn recover(tenant: &Inner, clean: bool, mut said: Vec<String>) -> Result<()> {
    let op = tenant.enter("recover")?;
    // First: what is in both stores is there twice and lives in one.
    let moves = tenant.settle_moves(&op)?;
    let redone = tenant.redo_replaces(&op)?;
    let doubles = if clean { Vec::new() } else { tenant.resolve_doubles(&op)? };
    drop(op);
    handover::driver::recover(tenant)?;
    if moves > 0 {
        said.push(format!("{moves} moves of instances finished or taken back"));
    }
    if redone > 0 || !doubles.is_empty() {
        said.push(format!("{redone} replacements finished; ended as live twice: {doubles:?}"));
    }
    if !said.is_empty() {
        tenant.control.lock().persist(tenant.shared.now_ms(), "recovery", &said.join("; "), |_| {})?;
    }
    Ok(())
}

/// Removes a tenant that is marked as deleted: its rows, its stores where nobody else uses them, its files last.
pub(super) fn erase(shared: &Shared, tenant: &Inner, control: &Control) -> Result<()> {
    for id in stores_of(control) {
        tenant.forget_space(id);
        while driver::leave_store(tenant, id)? == Released::Busy {
            // Pins are gone; what is still held is on its way out of a call.
            thread::yield_now();
        }
    }
    tenant.access.lock().remove()?;
    control.remove()?;
    if shared.is_closed() {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "the engine was closed while a tenant was being deleted",
        ));
    }
    Ok(())
}

/// Every store that a tenant has rows in.
fn stores_of(control: &Control) -> Vec<StoreId> {
    let record = control.record();
    let status = record.status;
    [Some(status.initial), status.target].into_iter().flatten().chain(record.retire.iter().copied()).collect()
}
