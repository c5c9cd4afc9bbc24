//! What all tenants of an engine share.

use std::sync::Arc;
use std::time::Duration;

use cutover_formats::record::Token;

use crate::catalog::Catalog;
use crate::clock::EngineClock;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::heartbeats::LeaseTimes;
use crate::meta::dir::DataDir;
use crate::service::Services;
use crate::status::Pins;
use crate::store::Write;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex};

/// What an acknowledgement promises, for every call of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// What is acknowledged survives power loss.
    #[default]
    Synced,
    /// What is acknowledged survives a kill of the process. Power loss may take the last moments: each store keeps a prefix of
    /// its commits, without holes. What was written is synced in the background once a second, one store after the other, so
    /// power loss takes at most what came in the last second and while these syncs ran. (An engine without threads of its own syncs in
    /// [`Engine::step`](crate::Engine::step).) A disk that fails may take as much as power loss.
    Buffered,
}

impl Durability {
    pub(crate) const fn write(self) -> Write {
        match self {
            Self::Synced => Write::Synced,
            Self::Buffered => Write::Buffered,
        }
    }
}

/// What becomes of requests that come while a tenant changes hands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flips {
    /// Most requests of a tenant that wait at a time.
    pub(crate) queue: usize,
    /// How long one waits.
    pub(crate) wait: Duration,
    /// Whether a request of a runner on standby brings the tenant to it.
    pub(crate) on_foreign_request: bool,
}

impl Default for Flips {
    fn default() -> Self {
        Self { queue: 4096, wait: Duration::from_secs(30), on_foreign_request: false }
    }
}

/// What the engine was told when it was opened.
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) heartbeats: LeaseTimes,
    pub(crate) services: Services,
    pub(crate) flips: Flips,
}

/// What every tenant uses.
pub(crate) struct Shared {
    pub(crate) dir: DataDir,
    pub(crate) clock: EngineClock,
    pub(crate) durability: Durability,
    pub(crate) pins: Pins,
    pub(crate) catalog: Catalog,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) heartbeats: LeaseTimes,
    /// What workers call, outside of the engine.
    pub(crate) services: Services,
    pub(crate) flips: Flips,
    /// In the order of [`Thread`].
    wake: [Wake; 5],
    incarnation: u64,
    tokens: AtomicU64,
    closed: AtomicBool,
    panicked: Mutex<Option<String>>,
}

/// Which background thread to wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thread {
    Collector,
    Replicator,
    Driver,
    Flipper,
    Keeper,
}

impl Shared {
    pub(crate) fn new(
        dir: DataDir,
        clock: EngineClock,
        catalog: Catalog,
        settings: Settings,
        incarnation: u64,
    ) -> Self {
        let Settings { durability, observer, heartbeats, services, flips } = settings;
        Self {
            dir,
            clock,
            durability,
            pins: Pins::new(),
            catalog,
            observer,
            heartbeats,
            services,
            flips,
            wake: Default::default(),
            incarnation,
            tokens: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            panicked: Mutex::new(None),
        }
    }

    /// Whether calls are still taken: the engine is open and none of its threads has panicked.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.panicked.lock().as_ref() {
            Some(what) => Err(Error::new(ErrorKind::Panicked, what.clone())),
            None => Err(Error::new(ErrorKind::Unavailable, "the engine is closed")),
        }
    }

    /// Takes no more calls. Says whether it did until now.
    pub(crate) fn close(&self) -> bool {
        let was_open = !self.closed.swap(true, Ordering::AcqRel);
        self.wake.iter().for_each(Wake::wake);
        self.services.close();
        was_open
    }

    /// A thread of the engine has panicked: what it was in the middle of is unknown, so nothing more is taken.
    pub(crate) fn panicked(&self, what: String) {
        self.panicked.lock().get_or_insert(what);
        self.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn write(&self) -> Write {
        self.durability.write()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// A fencing token above all that were given before, also before a restart.
    pub(crate) fn next_token(&self) -> Token {
        Token { incarnation: self.incarnation, counter: self.tokens.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    pub(crate) fn emit(&self, event: impl FnOnce() -> Event) {
        if let Some(observer) = &self.observer {
            observer.on_event(&event());
        }
    }

    /// Lets a thread sleep until it is woken or the limit has passed.
    pub(crate) fn sleep(&self, thread: Thread, limit: Duration) {
        if let Some(wake) = self.wake.get(thread as usize) {
            wake.sleep(limit);
        }
    }

    pub(crate) fn wake(&self, thread: Thread) {
        if let Some(wake) = self.wake.get(thread as usize) {
            wake.wake();
        }
    }
}

/// Lets a thread sleep until there is something to do.
#[derive(Default)]
struct Wake {
    pending: Mutex<bool>,
    changed: Condvar,
}

impl Wake {
    fn wake(&self) {
        *self.pending.lock() = true;
        self.changed.notify_all();
    }

    /// Sleeps until woken, also by a call before this one, or until `limit` has passed.
    fn sleep(&self, limit: Duration) {
        let mut pending = self.pending.lock();
        if !*pending {
            self.changed.wait_for(&mut pending, limit);
        }
        *pending = false;
    }
}
