//! Which phases an operation met: the one at its beginning and the one at its end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use cutover::migration::phase;
use cutover::{Move, Phase, Status, Tenant};

/// Counted over all schedules of a scenario.
#[derive(Default)]
pub(crate) struct Pairs {
    /// Phases as numbers: those without a move in between, or with one.
    seen: Mutex<BTreeMap<(u8, u8), u64>>,
    /// With more than one.
    far: Mutex<u64>,
}

impl Pairs {
    /// Runs an operation between two looks at the status.
    pub(crate) fn around<T>(&self, tenant: &Tenant, operation: impl FnOnce() -> T) -> T {
        let before = tenant.status();
        let out = operation();
        self.count(before, tenant.status());
        out
    }

    fn count(&self, before: Status, after: Status) {
        assert!(after.epoch >= before.epoch, "the epoch went back from {before:?} to {after:?}");
        match after.epoch - before.epoch {
            0 => assert_eq!(before, after, "two statuses of one epoch"),
            // No transition is tried in vain here, so each of them has the next number.
            1 => assert!(legal(before.phase, after.phase), "from {before:?} to {after:?} in one move"),
            _ => {
                *self.far.lock().unwrap() += 1;
                return;
            }
        }
        *self.seen.lock().unwrap().entry((before.phase as u8, after.phase as u8)).or_default() += 1;
    }

    /// Every phase that lasted and every legal move was met.
    pub(crate) fn check(&self) {
        let seen = self.seen.lock().unwrap();
        let legal = all().into_iter().filter(|(from, to)| from == to || legal(*from, *to));
        let missing: Vec<_> =
            legal.filter(|(from, to)| !seen.contains_key(&(*from as u8, *to as u8))).collect();
        assert!(missing.is_empty(), "no operation met {missing:?}");
        assert_eq!(seen.len(), 7 + 12, "seven phases and twelve moves");
    }
}

fn all() -> Vec<(Phase, Phase)> {
    Phase::ALL.into_iter().flat_map(|from| Phase::ALL.map(|to| (from, to))).collect()
}

fn legal(from: Phase, to: Phase) -> bool {
    Move::ALL.into_iter().any(|tried| phase::next(from, tried) == Ok(to))
}

impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.seen.lock().unwrap();
        let shown: Vec<String> = all()
            .into_iter()
            .filter_map(|(from, to)| {
                let count = seen.get(&(from as u8, to as u8))?;
                Some(if from == to { format!("{from} {count}") } else { format!("{from}>{to} {count}") })
            })
            .collect();
        let far = self.far.lock().unwrap();
        write!(f, "phases met: {}; over several moves {far}", shown.join(", "))
    }
}
