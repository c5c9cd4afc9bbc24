//! An exhaustive model of the protocol by which `cutover` moves a tenant between two stores: every interleaving of a few clients, a migration and
//! crashes, step by step as the engine makes them.
//!
//! One model with everything in it would be too large to walk through, so there are three, which share the record and the register
//! ([`control`]), the moves ([`moves`]) and the statuses ([`status`]):
//!
//! | model | walks through | properties |
//! |---|---|---|
//! | [`launch`] | launches, ends, replacements and collection of the same keys | I1, I3, I6, I7, I8 |
//! | [`definition`] | definitions in two stores, the copy, gaps and the comparison | I4, I7, I8 |
//! | [`tenant`] | two tenants that share stores, the catalog, removal | I6 |
//!
//! Each says in a table which function of the engine each of its actions stands for, and what it leaves out. What is a pure decision is not modelled
//! at all: which moves are legal and what follows from them is asked of `migration::phase`, and what it is time for of the very
//! file `migration/decide.rs`, compiled into this crate.
//!
//! # Time and crashes
//!
//! A commit is two steps, visible and durable, and a sync covers whatever the store has seen before. A crash is a power cut: it takes
//! what is not durable. Since a store may become durable at any moment by itself, every prefix of its commits is left by some crash, and
//! a kill, which leaves everything, is a crash after that. A crash can come between any two steps, and during opening. A record is written slot by slot; a crash after the first
//! may lose that slot.
//!
//! Operations are not limited in number: clients go on for ever, and what is bounded is the number of clients and keys, the changes of the status (by the highest
//! epoch), crashes and failed writes.
//!
//! # Symmetry
//!
//! Clients do the same, and so do keys and tenants: states that differ only in their names are one (`symmetric`). It is sound because nothing,
//! neither a step nor a property nor a lock, tells two of them apart; that it takes nothing away is tested by walking a small model both
//! ways. The ways that are printed come from models without it, so that a client keeps its number.
//!
//! # Running it
//!
//! The tests walk through the small bounds, in [`scenario::ALL`] with the exact number of states, and show for each rule of the protocol what breaks
//! without it (`tests/mutants.rs`; `--nocapture` prints the shortest way there). The large bounds: `cargo run -p cutover-model -- NAME`.

pub mod check;
pub mod control;
pub mod definition;
mod engine;
pub mod launch;
pub mod moves;
pub mod scenario;
pub mod status;
pub mod tenant;
