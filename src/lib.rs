#![doc = include_str!("../README.md")]

mod catalog;
pub mod clock;
mod engine;
mod error;
mod event;
pub mod fault;
pub mod files;
mod gc;
pub mod handover;
mod heartbeats;
mod locks;
mod mend;
mod meta;
pub mod migration;
pub mod offline;
mod plan;
pub mod service;
mod shared;
pub mod status;
pub mod store;
mod sync;
mod tenant;
mod threads;

pub use catalog::StoreSpec;
pub use cutover_formats as formats;
pub use cutover_formats::access::{AccessLine, HandoverPhase, HandoverRecord, InWave, Seat};
pub use cutover_formats::meta::{EndedMigration, JournalLine, Outcome, Retention, RunId};
pub use cutover_formats::record::{Ending, Token};
pub use cutover_formats::{Access, InstanceId, Phase, Role, Status, StoreId, StoreStatus, TenantId};
pub use engine::{Builder, Engine, Runner, TenantOptions};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, Observer};
pub use handover::attach::Attached;
pub use handover::backoff::Backoff;
pub use handover::flip::FlipStep;
pub use handover::wave::{Verdict, Wave, WaveReport};
pub use handover::{Handover, HandoverOptions, HandoverProgress, HandoverReport};
pub use heartbeats::Heartbeats;
pub use migration::phase::Move;
pub use migration::{Hold, Migration, MigrationOptions, Progress, Ran};
pub use plan::Plan;
pub use shared::Durability;
#[cfg(feature = "proxy")]
pub use tenant::Proxied;
pub use tenant::control::CopyProgress;
pub use tenant::quarantine::{Quarantined, Retried};
pub use tenant::retry::Retry;
pub use tenant::sessions::{Heartbeat, Refusal};
pub use tenant::stragglers::MoveProgress;
pub use tenant::types::{
    Again, Beat, Completion, ConflictPolicy, Defined, Definition, Ended, Failure, Filter, Instance,
    InstancePage, InstanceState, Launch, Launched, NewStep, ReusePolicy, Saved, Settled, Task, WorkerOptions,
};
pub use tenant::undecided::{Decided, Decision, Undecided, UndecidedPage, UndecidedPlace};
pub use tenant::{Called, Gate, Tenant};
