//! What a person sees while a run works.

use std::sync::Arc;

use crate::books::Books;
use crate::failure::Result;
use crate::plan::Plan;

/// What a person sees.
pub struct Live;

impl Live {
    /// x
    pub fn start(_plan: &Plan, _books: &Arc<Books>, _quiet: bool) -> Result<Self> {
        Ok(Self)
    }
    /// x
    pub fn stop(self) -> Result<()> {
        Ok(())
    }
}
