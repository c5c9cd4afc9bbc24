//! The engine's own decisions, for the models.

/// Which moves are legal, and what the status is after each.
pub(crate) mod phase {
    pub(crate) use cutover::migration::phase::*;
}

/// What a migration does next. This is the engine's file and not a copy, so what holds in the models holds for these lines.
#[path = "../../src/migration/decide.rs"]
pub(crate) mod decide;
