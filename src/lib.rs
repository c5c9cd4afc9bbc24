//! An embedded engine that hosts two stores and moves a tenant from one to the other while it is used.

pub mod error;
pub mod status;
pub mod store;

pub use error::{Error, ErrorKind, Result};
