//! Where entries end up: the ledger, the measures, and what a person is told meanwhile.

use parking_lot::Mutex;

use crate::entry::{Entry, Sink};
use crate::ledger::Ledger;
use crate::measure::Measure;

/// The ledger and the measures of a run.
#[derive(Default)]
pub struct Books {
    /// What was acknowledged.
    pub ledger: Mutex<Ledger>,
    /// What was measured.
    pub measure: Mutex<Measure>,
    compared: Mutex<Option<Compared>>,
}

/// The last comparison of both stores' definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// Definitions in the initial store.
    pub initial: u64,
    /// Definitions in the target.
    pub target: u64,
    /// Missing in one, or different.
    pub different: u64,
}

impl Books {
    /// The last comparison, if there was one.
    pub fn compared(&self) -> Option<Compared> {
        *self.compared.lock()
    }
}

impl Sink for Books {
    fn put(&self, entry: Entry) {
        if let Entry::Compared { initial, target, different } = entry {
            *self.compared.lock() = Some(Compared { initial, target, different });
        }
        self.ledger.lock().note(&entry);
        self.measure.lock().note(&entry);
    }
}
