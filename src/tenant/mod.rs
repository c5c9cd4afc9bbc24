//! A tenant: everything that a workflow runner calls.
//!
//! Every operation has the same beginning: [`Inner::enter`] pins, reads the status, and looks up the store where launches go
//! and, while there are two, the other one. After it come the locks, in the order of [`crate::locks`].

pub(crate) mod access;
pub(crate) mod control;
mod definitions;
mod doubts;
mod end;
mod gate;
mod launch;
mod mended;
mod outside;
#[cfg(feature = "proxy")]
mod ports;
pub(crate) mod quarantine;
mod query;
mod queue;
mod relocate;
pub(crate) mod repair;
mod requests;
pub(crate) mod retry;
pub(crate) mod seats;
pub(crate) mod sessions;
mod show;
mod steps;
pub(crate) mod stragglers;
pub(crate) mod types;
pub(crate) mod undecided;
mod waiters;
mod warm;

use std::sync::Arc;

use cutover_formats::record::InstanceRecord;
use cutover_formats::{InstanceId, NoteId, Phase, RowId, Status, StoreId, TenantId};

use self::access::AccessControl;
use self::control::{Control, Shown};
use self::definitions::Known;
use self::doubts::Doubts;
pub use self::gate::Gate;
pub use self::outside::Called;
#[cfg(feature = "proxy")]
pub use self::ports::Proxied;
use self::queue::ReadyQueue;
pub(crate) use self::queue::ready_row;
use self::seats::{Caller, Seats};
use self::sessions::Sessions;
use self::waiters::Waiters;
use crate::error::{Error, ErrorKind, Result};
use crate::locks::Locks;
use crate::shared::Shared;
use crate::status::{Pin, Register, Seq};
use crate::store::space::Space;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, RwLock};

/// A tenant of an open engine. Cheap to clone; all clones are the same tenant.
///
/// One from [`Engine::tenant`](crate::Engine::tenant) is the door of clients: it is served whichever runner acts for the tenant, and waits a little while the
/// tenant changes hands. One from [`Runner::tenant`](crate::Runner::tenant) is that runner's, and is served while it is the primary.
#[derive(Clone)]
pub struct Tenant(pub(crate) Arc<Inner>, pub(crate) Caller);

/// What a tenant is in memory.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: TenantId,
    pub(crate) name: String,
    pub(crate) register: Register,
    /// The open stores: at least those that the register names. One is added before a status that names it is
    /// published, and taken out after the wait for the first status that does not.
    pub(crate) spaces: RwLock<Vec<Arc<Space>>>,
    /// The durable record and everything about a migration. Also the lock under which transitions are made.
    pub(crate) control: Mutex<Control>,
    /// What the driver's last step has left to show, for when it hangs in the next one.
    pub(crate) shown: Mutex<Shown>,
    pub(crate) retention: RwLock<control::Retentions>,
    /// No expiry row has a deadline before this, in milliseconds since 1970.
    pub(crate) next_expiry: AtomicU64,
    /// How often one of its stores was opened again. What was found out about them before that may not be so any more.
    pub(crate) mends: AtomicU64,
    /// The tenant's own: one whose store hangs holds up nobody else.
    pub(crate) locks: Locks,
    /// Who may act, durably; the lock under which that is changed. Taken after the control where both are.
    pub(crate) access: Mutex<AccessControl>,
    /// What of that every operation looks at.
    pub(crate) seats: Seats,
    known: Known,
    doubts: Doubts,
    queue: ReadyQueue,
    pub(crate) sessions: Sessions,
    waiters: Waiters,
}

/// An operation in progress. While it exists, no transition that it might have to know of comes to its end.
pub(crate) struct Operation<'t> {
    pub(crate) status: Status,
    pub(crate) seq: Seq,
    /// Where launches go.
    pub(crate) home: Arc<Space>,
    /// The other store, while there are two.
    pub(crate) other: Option<Arc<Space>>,
    _pin: Pin<'t>,
}

impl Operation<'_> {
    /// The stores in the order in which an instance is looked for: first where launches do not go, then home. (An instance that
    /// moves goes from the first to the second, so it is always found.)
    pub(crate) fn by_id(&self) -> impl Iterator<Item = &Arc<Space>> {
        self.used_other().chain(std::iter::once(&self.home))
    }

    /// The same stores, home first.
    pub(crate) fn home_first(&self) -> impl Iterator<Item = &Arc<Space>> {
        std::iter::once(&self.home).chain(self.used_other())
    }

    /// The same stores, and a target before the switch: for what is about its rows, and not about instances.
    pub(crate) fn both(&self) -> impl Iterator<Item = &Arc<Space>> {
        std::iter::once(&self.home).chain(&self.other)
    }

    /// The other store, unless nothing was ever launched there: a target before the switch has only copies of definitions that are at
    /// home. If it fails, nobody but the migration needs to know. An operation that answers from what it did not find here checks, before it
    /// answers, that the status is still the same.
    fn used_other(&self) -> impl Iterator<Item = &Arc<Space>> {
        self.other.iter().filter(|_| self.status.phase != Phase::PreMigration)
    }

    /// The store that an instance is in, and its head. An instance is in one store only, so one that is found in the other store is found
    /// also while this one cannot be read.
    pub(crate) fn locate(
        &self,
        tenant: TenantId,
        id: InstanceId,
    ) -> Result<Option<(&Arc<Space>, InstanceRecord)>> {
        let mut failure = None;
        for space in self.by_id() {
            match space.instance(tenant, &RowId::Instance { id }) {
                Ok(Some(record)) => return Ok(Some((space, record))),
                Ok(None) => {}
                Err(err) => failure = Some(err),
            }
        }
        failure.map_or(Ok(None), Err)
    }
}

impl Inner {
    pub(crate) fn new(
        shared: Arc<Shared>,
        control: Control,
        access: AccessControl,
        spaces: Vec<Arc<Space>>,
    ) -> Self {
        let record = control.record();
        Self {
            id: record.id,
            name: record.name.clone(),
            register: Register::new(record.status),
            spaces: RwLock::new(spaces),
            retention: RwLock::new(control::Retentions::of_record(record)),
            shown: Mutex::new(control.shown(String::new(), 0)),
            control: Mutex::new(control),
            next_expiry: AtomicU64::new(0),
            mends: AtomicU64::new(0),
            locks: Locks::default(),
            seats: Seats::of_record(access.record()),
            access: Mutex::new(access),
            known: Known::default(),
            doubts: Doubts::default(),
            queue: ReadyQueue::default(),
            sessions: Sessions::default(),
            waiters: Waiters::default(),
            shared,
        }
    }

    /// Begins an operation of the engine's own: pin, then read the status. `what` names it to whoever waits for it.
    pub(crate) fn enter(&self, what: &'static str) -> Result<Operation<'_>> {
        self.enter_with(what, None, None)
    }

    /// Begins an operation for a client or a runner, if it is let in; waits for the end of a flip. Nothing is held before this.
    pub(crate) fn admit(&self, caller: &Caller, what: &'static str) -> Result<Operation<'_>> {
        self.enter_with(what, Some(caller), None)
    }

    /// The same for anybody, with `instead` in the place of the store of its number.
    fn enter_with(
        &self,
        what: &'static str,
        caller: Option<&Caller>,
        instead: Option<&Arc<Space>>,
    ) -> Result<Operation<'_>> {
        self.shared.check()?;
        let pin = self.pin_for(caller, what)?;
        let (seq, status) = self.register.read();
        let space = |id: Option<StoreId>| match instead {
            Some(space) if Some(space.id) == id => Ok(Arc::clone(space)),
            _ => self.space(id),
        };
        let home = space(status.store(status.home()))?;
        let other = match status.store(status.home().other()) {
            Some(id) => Some(space(Some(id))?),
            None => None,
        };
        Ok(Operation { status, seq, home, other, _pin: pin })
    }

    /// The control, to change the status or how a migration goes. Asked for under its lock whether calls are still taken: once closing has
    /// had the lock, nothing of this engine is written any more.
    pub(crate) fn steer(&self) -> Result<MutexGuard<'_, Control>> {
        let control = self.control.lock();
        self.shared.check()?;
        Ok(control)
    }

    /// The open store of this number.
    pub(crate) fn space(&self, id: Option<StoreId>) -> Result<Arc<Space>> {
        let spaces = self.spaces.read();
        let found = spaces.iter().find(|space| Some(space.id) == id);
        found.cloned().ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, format!("a store of the tenant {:?} is not open", self.name))
        })
    }

    /// From now on nothing is served any more; what is under way has its pin.
    pub(crate) fn mark_deleted(&self) {
        self.seats.mark_deleted();
        self.queue.wake_all();
    }

    /// Somebody may be waiting in a call that will never be answered.
    pub(crate) fn wake_callers(&self) {
        self.seats.wake_all();
        self.queue.wake_all();
        self.waiters.wake_all();
    }

    /// Takes a store out of use, after the wait for the first status that does not name it.
    pub(crate) fn forget_space(&self, id: StoreId) {
        self.spaces.write().retain(|space| space.id != id);
        self.queue.forget(id);
    }

    /// An expiry row with this deadline was committed.
    pub(crate) fn expires_at(&self, at_ms: u64) {
        self.next_expiry.fetch_min(at_ms, Ordering::AcqRel);
    }
}

/// A row in words, without payloads.
pub(crate) fn describe(row: &RowId<'_>) -> String {
    match row {
        RowId::Instance { id } | RowId::Input { id } | RowId::Output { id } => format!("instance {id}"),
        RowId::Key { scope, key } => format!("key {:?} in scope {scope:?}", String::from_utf8_lossy(key)),
        RowId::Request { id } => format!("request {:?}", String::from_utf8_lossy(id)),
        RowId::Step { instance, step } => format!("step {step:?} of instance {instance}"),
        RowId::Ready { instance, step, .. } => format!("ready step {step:?} of instance {instance}"),
        RowId::Expiry { at_ms, .. } => format!("a deadline at {at_ms} ms"),
        RowId::Note(NoteId::Quarantine { family, .. }) => {
            format!("a row of the family {} that cannot be read", family.name())
        }
        RowId::Note(_) => "an intent to finish".to_owned(),
        RowId::Definition { name, version } => format!("definition {name:?} version {version}"),
    }
}

impl Tenant {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its number in the catalog.
    #[must_use]
    pub fn id(&self) -> TenantId {
        self.0.id
    }

    /// Its status now, as one consistent value. It may be another one when you look at it.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.register.read().1
    }
}
