//! What `cutover` writes to disk: keys that sort, records, their codec, and the versions of both.
//!
//! This crate knows no store and does no I/O, so it builds and fuzzes in seconds. `FORMAT.md` beside
//! it has the byte tables and the rules for changing them. The path down is
//! [`layout`] → [`record`], [`keys`] → [`codec`] → [`family`], [`id`], [`limits`], [`FormatError`]; beside it [`access`] and [`journal`] →
//! [`meta`], and [`marker`].
//!
//! Two promises hold for every function that reads bytes: it never panics, and it never allocates by a
//! length that it has not checked.

pub mod access;
pub mod codec;
mod error;
pub mod family;
mod hidden;
pub mod id;
pub mod journal;
pub mod keys;
pub mod layout;
pub mod limits;
pub mod marker;
pub mod meta;
pub mod record;

pub use access::Access;
pub use error::{FormatError, Result};
pub use family::Family;
pub use hidden::Hidden;
pub use id::{InstanceId, StoreId, TenantId};
pub use keys::{Expiring, NoteId, Prefix, RowId};
pub use layout::{Layout, V1};
pub use limits::Name;
pub use meta::{Phase, Role, Status, StoreStatus, Strategy};
pub use record::Record;
