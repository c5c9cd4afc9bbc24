//! A model
pub mod check;
mod engine;
pub mod control;
pub mod definition;
pub mod launch;
pub mod moves;
pub mod status;
pub mod tenant;
