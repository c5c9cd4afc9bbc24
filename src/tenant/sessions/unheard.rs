//! How often the leases of a step have run out: attempts of which nothing is written.
//!
//! Of so many steps and no more: those whose leases ran out last. One that is forgotten may be tried as often once more.

use std::collections::BTreeMap;

use cutover_formats::InstanceId;
use cutover_formats::record::Token;

use super::{Lease, StepKey};

/// Most steps whose leases are counted.
pub(super) const MOST: usize = 65_536;

/// The leases of a step that have run out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    /// How many. At least one.
    pub(crate) times: u32,
    /// Whose the last one was.
    pub(crate) worker: String,
    pub(crate) token: Token,
    /// When that was given, in milliseconds since 1970.
    pub(crate) from_ms: u64,
}

#[derive(Default)]
pub(super) struct Unheard {
    /// With the number of the last one.
    by_step: BTreeMap<StepKey, (u64, Lost)>,
    by_number: BTreeMap<u64, StepKey>,
    /// How many were noted.
    noted: u64,
}

impl Unheard {
    /// A lease has run out.
    pub(super) fn note(&mut self, lease: Lease) {
        let Lease { worker, token, from_ms, lost, entry, .. } = lease;
        let key = (entry.instance, entry.step);
        self.forget(&key);
        self.noted += 1;
        self.by_number.insert(self.noted, key.clone());
        let lost = Lost { times: lost.saturating_add(1), worker, token, from_ms };
        self.by_step.insert(key, (self.noted, lost));
        if self.by_step.len() > MOST
            && let Some((_, oldest)) = self.by_number.pop_first()
        {
            self.by_step.remove(&oldest);
        }
    }

    pub(super) fn of(&self, key: &StepKey) -> Option<&Lost> {
        self.by_step.get(key).map(|(_, lost)| lost)
    }

    pub(super) fn forget(&mut self, key: &StepKey) {
        if let Some((number, _)) = self.by_step.remove(key) {
            self.by_number.remove(&number);
        }
    }

    pub(super) fn forget_instance(&mut self, instance: InstanceId) {
        let from = (instance, String::new());
        let its = self.by_step.range(from..).map(|(key, _)| key).take_while(|key| key.0 == instance);
        for key in its.cloned().collect::<Vec<_>>() {
            self.forget(&key);
        }
    }
}
