//! Where the tenant is, as the observer reports it, for everybody in the load who acts by it.

use cutover_formats::Phase;
use parking_lot::Mutex;

/// Where the tenant is and where it has been.
#[derive(Debug)]
pub(crate) struct Board {
    state: Mutex<State>,
}

/// The same at one moment. Goes to a process that replaces a killed one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct State {
    /// The phase.
    pub phase: Phase,
    /// Since when.
    pub since: u64,
    /// When cutovers were over, there and back.
    pub cutovers: Vec<u64>,
    /// A migration was started.
    pub begun: bool,
    /// When the tenant was stable again after it.
    pub settled: Option<u64>,
    /// No more launches: everything may end.
    pub closing: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            phase: Phase::Stable,
            since: 0,
            cutovers: Vec::new(),
            begun: false,
            settled: None,
            closing: false,
        }
    }
}

impl State {
    /// The tenant has entered a phase.
    pub(crate) fn enter(&mut self, phase: Phase, at: u64) {
        if phase == self.phase {
            return;
        }
        (self.phase, self.since) = (phase, at);
        match phase {
            Phase::PostMigration | Phase::PostRollback => self.cutovers.push(at),
            Phase::Stable => self.settled = Some(at),
            _ => {}
        }
        self.begun |= phase != Phase::Stable;
    }
}

impl Board {
    /// Starts where the run is.
    pub(crate) fn new(state: State) -> Self {
        Self { state: Mutex::new(state) }
    }

    /// As of now.
    pub(crate) fn now(&self) -> State {
        self.state.lock().clone()
    }

    /// Looks at it without a copy.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }

    /// The tenant has entered a phase.
    pub(crate) fn enter(&self, phase: Phase, at: u64) {
        self.state.lock().enter(phase, at);
    }

    /// Everything may end from now on.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_there_and_back_has_two_cutovers() {
        let mut state = State::default();
        for (at, phase) in [
            Phase::Stable,
            Phase::PreMigration,
            Phase::Migration,
            Phase::PostMigration,
            Phase::PostMigration,
            Phase::PreRollback,
            Phase::RollingBack,
            Phase::PostRollback,
        ]
        .into_iter()
        .enumerate()
        {
            state.enter(phase, at as u64);
            assert_eq!(state.settled, None);
        }
        assert_eq!((state.cutovers.as_slice(), state.begun), (&[3, 7][..], true));
        state.enter(Phase::Stable, 8);
        assert_eq!((state.settled, state.since), (Some(8), 8));
    }
}
