//! The engine's own metadata: small files beside the stores, so that either store can be removed.
//!
//! ```text
//! CUTOVER            what this directory is, and its format version
//! LOCK               held by the engine that has it open
//! meta/marker        the first file again, with a checksum
//! meta/engine.{a,b}  incarnation and clock
//! meta/catalog.{a,b} every store that ever was
//! meta/store-N.{a,b}   how often store N was closed in order
//! meta/tenant-N.{a,b}  name and status of tenant N
//! meta/tenant-N.jsonl  its journal
//! meta/access-N.{a,b}  who may act for tenant N, once a runner was named
//! meta/access-N.jsonl  the journal of that
//! stores/            the stores, unless they were given another place
//! ```

pub(crate) mod dir;
pub(crate) mod journal;
pub(crate) mod slot;
