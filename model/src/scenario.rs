//! The bounds that are walked through, each with the exact number of its states.
//!
//! The number is asserted, so that a change of the protocol, or of the model, that adds or takes away a single case is seen. Whoever
//! changes them on purpose runs the scenario and writes the new number here.

use crate::check::{Report, exhaust};
use crate::definition::{self, Definitions};
use crate::launch::{self, Launches};
use crate::tenant::{self, Tenants};

/// A model and its size.
#[derive(Debug, Clone, Copy)]
pub enum Of {
    /// [`crate::launch`].
    Launches(launch::Bounds),
    /// [`crate::definition`].
    Definitions(definition::Bounds),
    /// [`crate::tenant`].
    Tenants(tenant::Bounds),
}

/// Bounds with a name.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// What it is asked for by.
    pub name: &'static str,
    /// What is walked through.
    pub of: Of,
    /// How many states that is.
    pub states: usize,
    /// Whether it is small enough to be run with the tests.
    pub quick: bool,
}

impl Scenario {
    /// Walks through every state.
    #[must_use]
    pub fn run(&self, threads: usize) -> Report {
        match self.of {
            Of::Launches(bounds) => exhaust(Launches::new(bounds), threads),
            Of::Definitions(bounds) => exhaust(Definitions::new(bounds), threads),
            Of::Tenants(bounds) => exhaust(Tenants::new(bounds), threads),
        }
    }

    /// What is wrong with what a run has found, if something is.
    ///
    /// # Errors
    /// Says what was broken, with the way there, what was not reached, or that the number of states is another one.
    pub fn judge(&self, report: &Report) -> Result<(), String> {
        if let Some(broken) = report.broken.first() {
            return Err(format!("{}: broken: {broken}", self.name));
        }
        if !report.missed.is_empty() {
            return Err(format!("{}: never reached: {}", self.name, report.missed.join("; ")));
        }
        if report.states != self.states {
            return Err(format!(
                "{}: {} states, and {} were expected",
                self.name, report.states, self.states
            ));
        }
        Ok(())
    }
}

const LAUNCHES: launch::Bounds = launch::Bounds {
    clients: 2,
    keys: 1,
    epochs: 6,
    crashes: 1,
    failures: 0,
    faults: 0,
    replaces: true,
    collects: true,
    symmetric: true,
};

const DEFINITIONS: definition::Bounds =
    definition::Bounds { clients: 2, definitions: 1, epochs: 6, crashes: 1, failures: 1, symmetric: true };

const fn launches(name: &'static str, quick: bool, bounds: launch::Bounds, states: usize) -> Scenario {
    Scenario { name, of: Of::Launches(bounds), states, quick }
}

const fn definitions(name: &'static str, quick: bool, bounds: definition::Bounds, states: usize) -> Scenario {
    Scenario { name, of: Of::Definitions(bounds), states, quick }
}

const fn tenants(name: &'static str, quick: bool, bounds: tenant::Bounds, states: usize) -> Scenario {
    Scenario { name, of: Of::Tenants(bounds), states, quick }
}

/// Every scenario.
pub const ALL: [Scenario; 13] = [
    // One client, everything else: all moves there and back, a crash at every step, a failed write of the record.
    launches("launch-alone", true, launch::Bounds { clients: 1, failures: 1, ..LAUNCHES }, 648_776),
    // Two at one key, a commit that fails, as far as a tenant has two stores on its way there.
    launches(
        "launch-faults",
        true,
        launch::Bounds { faults: 1, epochs: 4, replaces: false, collects: false, ..LAUNCHES },
        92_633,
    ),
    // Two at one key, all moves.
    launches("launch-pair", true, launch::Bounds { crashes: 0, ..LAUNCHES }, 467_353),
    // Three at two keys, up to the switch, with a crash.
    launches(
        "launch-crowd",
        true,
        launch::Bounds { clients: 3, keys: 2, epochs: 3, replaces: false, collects: false, ..LAUNCHES },
        744_389,
    ),
    definitions("definition-alone", true, definition::Bounds { clients: 1, ..DEFINITIONS }, 540_963),
    definitions("definition-pair", true, definition::Bounds { epochs: 4, ..DEFINITIONS }, 571_231),
    tenants("tenant-pair", true, tenant::Bounds { stores: 3, crashes: 1, symmetric: true }, 118_938),
    // Three at two keys, all moves, with a crash.
    launches(
        "launch-crowd-moves",
        false,
        launch::Bounds { clients: 3, keys: 2, replaces: false, collects: false, ..LAUNCHES },
        34_050_697,
    ),
    // The same with replacements and collection, up to the switch.
    launches(
        "launch-crowd-all",
        false,
        launch::Bounds { clients: 3, keys: 2, epochs: 3, ..LAUNCHES },
        7_107_692,
    ),
    // Two at one key, a commit that fails on any way there and back.
    launches("launch-faults-long", false, launch::Bounds { faults: 1, ..LAUNCHES }, 2_863_177),
    // Three that define, all moves.
    definitions("definition-crowd", false, definition::Bounds { clients: 3, ..DEFINITIONS }, 5_962_335),
    // One that defines two, with the copy and the comparison in between.
    definitions(
        "definition-two",
        false,
        definition::Bounds { clients: 1, definitions: 2, epochs: 5, failures: 0, ..DEFINITIONS },
        2_655_035,
    ),
    tenants("tenant-pair-long", false, tenant::Bounds { stores: 5, crashes: 2, symmetric: true }, 4_537_684),
];
