//! A model
pub mod check;
pub mod control;
pub mod definition;
mod engine;
pub mod launch;
pub mod moves;
pub mod status;
pub mod tenant;
