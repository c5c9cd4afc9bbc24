//! Where entries end up: the ledger, the measures, and what is noted beside them.

use parking_lot::Mutex;

use crate::entry::{Entry, Sink};
use crate::ledger::Ledger;
use crate::measure::Measure;

/// Obstacles that are kept.
const KEPT_OBSTACLES: usize = 20;

/// The ledger and the measures of a run.
#[derive(Default)]
pub(crate) struct Books {
    /// What was acknowledged.
    pub ledger: Mutex<Ledger>,
    /// What was measured.
    pub measure: Mutex<Measure>,
    notes: Mutex<Notes>,
}

/// What is noted beside them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    /// Definitions in both stores when the engine last compared them.
    pub verified: u64,
    /// What stood in the move's way for a time.
    pub obstacles: Vec<String>,
}

impl Books {
    /// What is noted.
    pub(crate) fn notes(&self) -> Notes {
        self.notes.lock().clone()
    }
}

impl Sink for Books {
    fn put(&self, entry: Entry) {
        match &entry {
            Entry::Verified { definitions } => self.notes.lock().verified = *definitions,
            Entry::Obstacle(text) => {
                let mut notes = self.notes.lock();
                if notes.obstacles.len() < KEPT_OBSTACLES {
                    notes.obstacles.push(text.clone());
                }
            }
            _ => {}
        }
        self.ledger.lock().note(&entry);
        self.measure.lock().note(&entry);
    }
}
