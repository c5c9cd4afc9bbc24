//! Limits on everything whose length a stranger decides, and the checks that enforce them.
//!
//! They bound what one record can make a reader allocate and keep every key under the 64 KiB that
//! RocksDB and sled handle well.

use crate::error::{FormatError, Result};

/// Longest name of a tenant, definition, step, queue, worker, runner or scope, in bytes of UTF-8.
pub const MAX_NAME: usize = 255;
/// Longest key of a launch, in bytes. A key may be any bytes but not empty.
pub const MAX_KEY: usize = 1024;
/// Longest request id, in bytes. May be any bytes but not empty.
pub const MAX_REQUEST_ID: usize = 255;
/// Largest body of a definition, in bytes.
pub const MAX_DEFINITION: usize = 16 << 20;
/// Largest input or output of an instance and input, saved state or result of a step, in bytes.
pub const MAX_PAYLOAD: usize = 4 << 20;
/// Longest reason that an end or a failure may carry; longer ones are cut, in bytes of UTF-8.
pub const MAX_REASON: usize = 1024;
/// Most settled assignments that a step keeps in its history: the newest ones.
pub const MAX_HISTORY: usize = 64;
/// Most runners that a tenant knows of at a time; the oldest that were terminated are forgotten first.
pub const MAX_SEATS: usize = 64;
/// Most steps that one call may create.
pub const MAX_STEPS_PER_CALL: usize = 4096;
/// Most bytes that the inputs of all steps of one call may have together. One commit holds them, and RocksDB's end at 4 GiB.
pub const MAX_CALL: usize = 64 << 20;
/// Longest path of a store, in bytes of UTF-8.
pub const MAX_PATH: usize = 4096;
/// Largest body of any record, in bytes: a definition and room for what stands around it.
pub const MAX_RECORD: usize = MAX_DEFINITION + (64 << 10);

/// What is being named, for the sentence that refuses it.
pub type Name = &'static str;

/// Accepts a name of 1 to [`MAX_NAME`] bytes. Names never become paths, so any characters will do.
pub fn check_name(what: Name, name: &str) -> Result<()> {
    check_len(what, name.len(), MAX_NAME)
}

/// Accepts a key of 1 to [`MAX_KEY`] bytes.
pub fn check_key(key: &[u8]) -> Result<()> {
    check_len("the key", key.len(), MAX_KEY)
}

/// Accepts a request id of 1 to [`MAX_REQUEST_ID`] bytes.
pub fn check_request_id(id: &[u8]) -> Result<()> {
    check_len("the request id", id.len(), MAX_REQUEST_ID)
}

/// Accepts 0 to `max` bytes.
pub fn check_size(what: Name, len: usize, max: usize) -> Result<()> {
    if len > max {
        return Err(FormatError::TooLong { what, len: len as u64, max: max as u64 });
    }
    Ok(())
}

fn check_len(what: Name, len: usize, max: usize) -> Result<()> {
    if len == 0 {
        return Err(FormatError::Empty { what });
    }
    check_size(what, len, max)
}
