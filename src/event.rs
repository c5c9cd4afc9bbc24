//! What the engine tells whoever watches it.

use std::time::Duration;

use cutover_formats::{Access, InstanceId, Phase, StoreId};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A tenant's status changed: it is durable and published.
    Phase {
        /// Name of the tenant.
        tenant: String,
        /// The phase before.
        from: Phase,
        /// The phase after.
        to: Phase,
        /// The epoch after.
        epoch: u64,
    },
    /// Every operation that had begun under an earlier status has ended.
    Waited {
        /// Name of the tenant.
        tenant: String,
        /// The phase whose status everybody has seen.
        phase: Phase,
        /// Its epoch.
        epoch: u64,
        /// How long it took from publishing on.
        took: Duration,
    },
    /// Every definition is in both stores, byte for byte.
    Verified {
        /// Name of the tenant.
        tenant: String,
        /// Definitions compared.
        compared: u64,
        /// Those of them that had to be copied.
        copied: u64,
    },
    /// Something stands in a migration's way; it is tried again.
    Failed {
        /// Name of the tenant.
        tenant: String,
        /// What, in words.
        error: String,
    },
    /// What a wave had left to the background, to begin a migration or to call one off, cannot come to be and is not tried any more.
    WaveGaveUp {
        /// Name of the tenant.
        tenant: String,
        /// Why, in words.
        error: String,
    },
    /// A store does not take writes, or cannot be opened again yet. The engine goes on trying.
    StoreFailed {
        /// The store.
        store: StoreId,
        /// Why, in words.
        error: String,
    },
    /// A store that had failed was opened again and takes writes.
    StoreMended {
        /// The store.
        store: StoreId,
        /// How long it took since the failure was seen.
        took: Duration,
    },
    /// An ended instance is about to be collected: its retention is over. Told before its rows are removed, so that after a crash it
    /// may be told again.
    Collecting {
        /// Name of the tenant.
        tenant: String,
        /// The instance.
        instance: InstanceId,
    },
    /// A runner's access to a tenant changed: it is durable.
    Access {
        /// Name of the tenant.
        tenant: String,
        /// Name of the runner.
        runner: String,
        /// What it may do now.
        access: Access,
        /// The epoch of the change.
        epoch: u64,
    },
    /// A tenant changed hands: the new runner is let in.
    HandedOver {
        /// Name of the tenant.
        tenant: String,
        /// The runner that left, if there was one.
        from: Option<String>,
        /// The runner that came; none if a flip was rolled back to a time without a primary.
        to: Option<String>,
        /// How long requests of the tenant could have had to wait.
        paused: Duration,
        /// Requests that did.
        queued: u64,
    },
    /// A tenant was to change hands and did not: the old runner goes on.
    HandoverFailed {
        /// Name of the tenant.
        tenant: String,
        /// Why, in words.
        error: String,
    },
    /// An instance sets out for the store where launches go: the leases on its steps are revoked. If a store fails it may stay all the
    /// same.
    Moving {
        /// Name of the tenant.
        tenant: String,
        /// The instance.
        instance: InstanceId,
    },
    /// A running or ended instance was moved to the store where launches go, durably.
    Moved {
        /// Name of the tenant.
        tenant: String,
        /// The instance.
        instance: InstanceId,
        /// The store that it was in.
        from: StoreId,
        /// The store that it is in now.
        to: StoreId,
        /// For how long it was locked: as long as a call on it may have waited.
        pause: Duration,
    },
    /// Something in a store cannot be read and was set aside, durably. Others go on.
    SetAside {
        /// Name of the tenant.
        tenant: String,
        /// The store that it is in.
        store: StoreId,
        /// What it is, in words.
        what: String,
    },
}

/// Whoever watches. Called on the thread where it happens: be quick, and do not call the engine.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn on_event(&self, event: &Event);
}
