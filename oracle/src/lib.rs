#![doc = include_str!("../README.md")]

pub mod ack;
pub mod content;
pub mod plan;
pub mod session;
pub mod who;

pub use ack::{Ack, Line};
pub use session::{Acks, Session, Setup, Thread};
