//! What a person sees while a run works.

use std::sync::Arc;

use crate::books::Books;
use crate::failure::Result;
use crate::plan::Plan;

/// What a person sees.
pub(crate) struct Live;

impl Live {
    /// x
    pub(crate) fn start(_plan: &Plan, _books: &Arc<Books>, _quiet: bool) -> Result<Self> {
        Ok(Self)
    }
    /// x
    pub(crate) fn stop(self) -> Result<()> {
        Ok(())
    }
}
