//! Scripted loads on the memory store: killed, cut, lied about.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected is to panic"
)]

mod common;
mod crashes;
mod lies;
mod threads;
