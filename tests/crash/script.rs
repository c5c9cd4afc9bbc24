//! What a script can say.

use cutover::{ConflictPolicy, Launch, NewStep, Phase, Retry, Role};

pub(crate) const SCOPE: &str = "scope";

/// One call. Runs and definitions go by numbers, and what they are follows from these.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Action {
    /// Make the tenant, in the store at this path.
    Create(&'static str),
    /// The same, in a store of its own.
    CreateDedicated(&'static str),
    /// Remove it.
    Delete,
    Define(u32),
    /// Define while the store where launches do not go fails: its gap is noted.
    DefineWithGap(u32),
    Launch(Run),
    End(u32),
    Terminate(u32),
    /// Claim the next step of this run and complete it.
    Work(u32),
    /// Claim it and let it fail, to be tried again at once.
    Fumble(u32),
    /// Begin to migrate to the store at this path.
    Start(&'static str),
    CallOff,
    /// Work towards this store from now on.
    Reverse(Role),
    /// Move what is in the store that is being left.
    MoveStragglers,
    /// One step of the engine.
    Step,
    /// Steps of the engine until it is in this phase.
    Reach(Phase),
    /// Steps of the engine until nothing is left to do.
    Settle,
    /// So many milliseconds go by.
    Pass(u64),
    /// Close the engine in order and open it again.
    Restart,
}

/// A launch, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Run {
    pub(crate) number: u32,
    pub(crate) key: Option<&'static str>,
    /// Steps, one after the other.
    pub(crate) steps: u32,
    pub(crate) policy: ConflictPolicy,
}

impl Run {
    pub(crate) fn input(&self) -> Vec<u8> {
        format!("input of {}", self.number).into_bytes()
    }

    pub(crate) fn request(&self) -> Launch {
        let mut launch = Launch::new(definition(1), 1)
            .request_id(format!("request {}", self.number))
            .input(self.input())
            .on_conflict(self.policy);
        if let Some(key) = self.key {
            launch = launch.key(SCOPE, key);
        }
        if self.steps > 0 {
            launch = launch.step(self.step(1));
        }
        launch
    }

    pub(crate) fn step(&self, number: u32) -> NewStep {
        NewStep::new(step(number)).queue(self.queue()).retry(Retry { attempts: 100, ..Retry::default() })
    }

    pub(crate) fn queue(&self) -> String {
        format!("queue {}", self.number)
    }
}

pub(crate) fn step(number: u32) -> String {
    format!("step {number}")
}

pub(crate) fn definition(number: u32) -> String {
    format!("definition {number}")
}

pub(crate) fn body(number: u32) -> Vec<u8> {
    format!("body of {number}; ").repeat(number as usize).into_bytes()
}

/// A run that fails on a conflict.
pub(crate) fn run(number: u32, key: &'static str) -> Action {
    Action::Launch(Run { number, key: Some(key), steps: 0, policy: ConflictPolicy::Fail })
}

/// A run without a key.
pub(crate) fn free(number: u32) -> Action {
    Action::Launch(Run { number, key: None, steps: 0, policy: ConflictPolicy::Fail })
}

/// A run with steps.
pub(crate) fn steps(number: u32, key: &'static str, steps: u32) -> Action {
    Action::Launch(Run { number, key: Some(key), steps, policy: ConflictPolicy::Fail })
}

/// A run that takes the place of the one that has the key.
pub(crate) fn replace(number: u32, key: &'static str) -> Action {
    let policy = ConflictPolicy::TerminateExisting;
    Action::Launch(Run { number, key: Some(key), steps: 1, policy })
}

impl Action {
    /// The run that it is about.
    pub(crate) fn number(self) -> Option<u32> {
        match self {
            Self::Launch(run) => Some(run.number),
            Self::End(number) | Self::Terminate(number) | Self::Work(number) | Self::Fumble(number) => {
                Some(number)
            }
            _ => None,
        }
    }
}

/// Calls, each on a tenant.
pub(crate) struct Script {
    pub(crate) name: &'static str,
    /// Done before anything is swept, and closed in order.
    pub(crate) before: Vec<(&'static str, Action)>,
    pub(crate) calls: Vec<(&'static str, Action)>,
}

impl Script {
    pub(crate) fn call(&self, at: usize) -> (&'static str, Action) {
        self.before.iter().chain(&self.calls).nth(at).copied().unwrap()
    }

    pub(crate) fn len(&self) -> usize {
        self.before.len() + self.calls.len()
    }
}

/// Calls on one tenant.
pub(crate) fn on<const N: usize>(
    tenant: &'static str,
    calls: [Action; N],
) -> impl Iterator<Item = (&'static str, Action)> {
    calls.into_iter().map(move |call| (tenant, call))
}
