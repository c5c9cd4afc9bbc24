//! Taking states that differ only in names for one takes nothing away: walked without symmetry and then renamed, the same states are
//! found.

use std::collections::HashSet;
use std::hash::Hash;

use cutover_model::definition::{self, Definitions};
use cutover_model::launch::{self, Launches};
use cutover_model::tenant::{self, Tenants};
use stateright::Model;

/// Every state that can be reached, renamed by `rename`.
fn reached<M: Model>(model: &M, rename: impl Fn(M::State) -> M::State) -> HashSet<M::State>
where
    M::State: Copy + Eq + Hash,
{
    let mut seen: HashSet<M::State> = model.init_states().into_iter().collect();
    let mut open: Vec<M::State> = seen.iter().copied().collect();
    let mut actions = Vec::new();
    while let Some(state) = open.pop() {
        model.actions(&state, &mut actions);
        for action in actions.drain(..) {
            let Some(next) = model.next_state(&state, action) else { continue };
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    seen.into_iter().map(rename).collect()
}

#[test]
fn of_clients_and_keys() {
    let bounds = launch::Bounds {
        clients: 3,
        keys: 2,
        epochs: 1,
        crashes: 1,
        failures: 0,
        faults: 0,
        replaces: false,
        collects: false,
        symmetric: true,
    };
    let one = reached(&Launches::new(bounds), |state| state);
    let bounds = launch::Bounds { symmetric: false, ..bounds };
    let other = reached(&Launches::new(bounds), |state| state.canonical(3, true));
    assert!(one == other, "{} and {}", one.len(), other.len());
    assert!(one.len() > 1_000, "{}", one.len());
}

#[test]
fn of_clients_that_define() {
    let bounds = definition::Bounds {
        clients: 3,
        definitions: 1,
        epochs: 2,
        crashes: 0,
        failures: 0,
        symmetric: true,
    };
    let one = reached(&Definitions::new(bounds), |state| state);
    let bounds = definition::Bounds { symmetric: false, ..bounds };
    let other = reached(&Definitions::new(bounds), |state| state.canonical(3));
    assert!(one == other, "{} and {}", one.len(), other.len());
    assert!(one.len() > 1_000, "{}", one.len());
}

#[test]
fn of_tenants() {
    let bounds = tenant::Bounds { stores: 2, crashes: 1, symmetric: true };
    let one = reached(&Tenants::new(bounds), |state| state);
    let bounds = tenant::Bounds { symmetric: false, ..bounds };
    let other = reached(&Tenants::new(bounds), |state| state.canonical());
    assert!(one == other, "{} and {}", one.len(), other.len());
    assert!(one.len() > 1_000, "{}", one.len());
}
