#![doc = include_str!("../README.md")]

pub mod ack;
pub mod check;
pub mod content;
pub mod ledger;
mod legal;
pub mod load;
pub mod plan;
pub mod raw;
pub mod script;
pub mod session;
pub mod who;

pub use ack::{Ack, Line};
pub use check::{After, Options, Verdict, check};
pub use raw::Raw;
pub use script::{Script, reopen};
pub use session::{Acks, Session, Setup, Thread};
