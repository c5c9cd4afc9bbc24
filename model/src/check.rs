//! Running a model, and telling what came of it.

use std::fmt::{Debug, Display, Write as _};
use std::hash::Hash;
use std::time::{Duration, Instant};

use stateright::{Checker as _, Expectation, HasDiscoveries, Model};

/// What an exhaustive run has found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Unique states.
    pub states: usize,
    /// Transitions.
    pub transitions: usize,
    /// The longest way that was walked: with one thread, the number of steps after which nothing new is found.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// What was broken, with the way there.
    pub broken: Vec<String>,
    /// What was never reached and should be.
    pub missed: Vec<&'static str>,
}

impl Report {
    /// Whether everything held and everything was reached.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.broken.is_empty() && self.missed.is_empty()
    }
}

/// Walks through every state.
#[must_use]
pub fn exhaust<M>(model: M, threads: usize) -> Report
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Display + PartialEq + Hash + Send + Sync + 'static,
    M::Action: Clone + Debug + Display + PartialEq + Send + Sync + 'static,
{
    let begun = Instant::now();
    let checker =
        model.clone().checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    let mut report = Report {
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        took: begun.elapsed(),
        broken: Vec::new(),
        missed: Vec::new(),
    };
    for property in model.properties() {
        match (property.expectation, found.contains_key(property.name)) {
            (Expectation::Always, true) => {
                let way = shortest(&model, property.name).unwrap_or_default();
                report.broken.push(format!("{}\n{way}", property.name));
            }
            (Expectation::Sometimes, false) => report.missed.push(property.name),
            _ => {}
        }
    }
    report
}

/// The shortest way to a state that breaks a property, in readable steps; `None` if there is none.
#[must_use]
pub fn shortest<M>(model: &M, property: &'static str) -> Option<String>
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Display + PartialEq + Hash + Send + Sync + 'static,
    M::Action: Clone + Debug + Display + PartialEq + Send + Sync + 'static,
{
    let mut best: Option<Vec<M::Action>> = None;
    loop {
        let mut checker = model
            .clone()
            .checker()
            .threads(1)
            .finish_when(HasDiscoveries::AllOf([property].into_iter().collect()));
        if let Some(way) = &best {
            // The checker goes on to the end of a block of states after the first one that it finds, and keeps the last.
            checker = checker.target_max_depth(way.len() + 1);
        }
        let found = checker.spawn_bfs().join().discoveries().remove(property);
        match found {
            Some(path) => best = Some(path.into_actions()),
            None => break,
        }
    }
    best.map(|way| tell(model, &way))
}

/// Steps, one a line, and the state that they lead to.
fn tell<M>(model: &M, way: &[M::Action]) -> String
where
    M: Model,
    M::State: Display,
    M::Action: Clone + Display,
{
    let mut text = String::new();
    let mut state = model.init_states().pop();
    for (n, action) in way.iter().enumerate() {
        state = state.and_then(|state| model.next_state(&state, action.clone()));
        let after = state.as_ref().map(ToString::to_string).unwrap_or_default();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:>3}. {:<40} {after}", n + 1, action.to_string());
    }
    text
}
