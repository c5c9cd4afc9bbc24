//! Any operations on an engine, held against a sequential model of it; see `tests/sequential/play`.

#![no_main]

#[path = "../../tests/sequential/play/mod.rs"]
mod play;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    play::play_bytes(data);
});
