//! What callers hand in and get back.

use std::collections::HashSet;
use std::time::Duration;

use cutover_formats::limits::{self, MAX_CALL, MAX_PAYLOAD, MAX_STEPS_PER_CALL};
use cutover_formats::record::{Answer, Ending, Token};
use cutover_formats::{FormatError, InstanceId};

use super::retry::Retry;
use super::sessions::Refusal;
use crate::error::{Error, ErrorKind, Result};

/// What a launch does when its key is held by a live instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ConflictPolicy {
    /// Answer [`Launched::Conflict`].
    #[default]
    Fail,
    /// Answer [`Launched::Existing`].
    UseExisting,
    /// Terminate the instance that holds it and start a new one. Both happen or neither does, also where the two are in
    /// different stores.
    TerminateExisting,
}

/// What a launch does when its key has ended and is still in scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ReusePolicy {
    /// Start a new instance.
    #[default]
    AllowDuplicate,
    /// Start a new one unless the last one completed; else answer [`Launched::Rejected`].
    AllowDuplicateFailedOnly,
    /// Answer [`Launched::Rejected`].
    RejectDuplicate,
}

/// A request to start an instance.
#[derive(Clone)]
pub struct Launch {
    pub(crate) definition: String,
    pub(crate) version: u32,
    pub(crate) key: Option<(String, Vec<u8>)>,
    pub(crate) request_id: Option<Vec<u8>>,
    pub(crate) input: Vec<u8>,
    pub(crate) start_in: Duration,
    pub(crate) steps: Vec<NewStep>,
    pub(crate) conflict: ConflictPolicy,
    pub(crate) reuse: ReusePolicy,
    pub(crate) abort_on_change: bool,
}

impl Launch {
    /// An instance of this definition, without a key, a request id, an input or steps.
    pub fn new(definition: impl Into<String>, version: u32) -> Self {
        Self {
            definition: definition.into(),
            version,
            key: None,
            request_id: None,
            input: Vec::new(),
            start_in: Duration::ZERO,
            steps: Vec::new(),
            conflict: ConflictPolicy::default(),
            reuse: ReusePolicy::default(),
            abort_on_change: false,
        }
    }

    /// Makes it unique: at most one live instance has this key in this scope, in whichever store.
    #[must_use]
    pub fn key(mut self, scope: impl Into<String>, key: impl AsRef<[u8]>) -> Self {
        self.key = Some((scope.into(), key.as_ref().to_vec()));
        self
    }

    /// Makes it repeatable: the same id with the same contents gets the same answer for as long as the tenant's retention of
    /// requests says, whatever happened to stores, phases and processes in between.
    #[must_use]
    pub fn request_id(mut self, id: impl AsRef<[u8]>) -> Self {
        self.request_id = Some(id.as_ref().to_vec());
        self
    }

    /// What the instance is given; up to [`MAX_PAYLOAD`] bytes.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Its first steps become ready only after this time.
    #[must_use]
    pub fn start_in(mut self, delay: Duration) -> Self {
        self.start_in = delay;
        self
    }

    /// Adds a first step. An instance that was launched with steps completes with its last open one.
    #[must_use]
    pub fn step(mut self, step: NewStep) -> Self {
        self.steps.push(step);
        self
    }

    /// What to do if a live instance holds the key.
    #[must_use]
    pub fn on_conflict(mut self, policy: ConflictPolicy) -> Self {
        self.conflict = policy;
        self
    }

    /// What to do if the key has ended and is still in scope.
    #[must_use]
    pub fn reuse(mut self, policy: ReusePolicy) -> Self {
        self.reuse = policy;
        self
    }

    /// If the tenant's status changes just before the commit, fail with
    /// [`ErrorKind::StatusChanged`](crate::ErrorKind::StatusChanged) instead of starting again unseen.
    #[must_use]
    pub fn abort_on_change(mut self) -> Self {
        self.abort_on_change = true;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        limits::check_name("the name of the definition", &self.definition)?;
        if let Some((scope, key)) = &self.key {
            limits::check_name("the scope of the key", scope)?;
            limits::check_key(key)?;
        }
        if let Some(id) = &self.request_id {
            limits::check_request_id(id)?;
        }
        limits::check_size("the input of the instance", self.input.len(), MAX_PAYLOAD)?;
        check_steps(&self.steps)
    }
}

/// A step to be created.
#[derive(Clone)]
pub struct NewStep {
    pub(crate) name: String,
    pub(crate) queue: String,
    pub(crate) input: Vec<u8>,
    pub(crate) parents: u32,
    pub(crate) retry: Retry,
}

impl NewStep {
    /// A step of this name, unique in its instance, in the queue `default`, with an empty input, tried again as [`Retry::default`] says.
    pub fn new(name: impl Into<String>) -> Self {
        let (queue, retry) = ("default".into(), Retry::default());
        Self { name: name.into(), queue, input: Vec::new(), parents: 0, retry }
    }

    /// Waits in this queue.
    #[must_use]
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.queue = name.into();
        self
    }

    /// What its worker is given; up to [`MAX_PAYLOAD`] bytes.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// How many steps it comes after. Each of them offers it when it completes; the last one makes it ready. With 0 (the default)
    /// or 1 the first offer does.
    #[must_use]
    pub fn parents(mut self, count: u32) -> Self {
        self.parents = count;
        self
    }

    /// How it is tried again when it fails, and for how long, before somebody has to decide about it.
    #[must_use]
    pub fn retry(mut self, policy: Retry) -> Self {
        self.retry = policy;
        self
    }
}

pub(crate) fn check_steps(steps: &[NewStep]) -> Result<()> {
    if steps.len() > MAX_STEPS_PER_CALL {
        let (len, max) = (steps.len() as u64, MAX_STEPS_PER_CALL as u64);
        return Err(FormatError::TooLong { what: "the list of steps", len, max }.into());
    }
    let mut names = HashSet::new();
    for step in steps {
        limits::check_name("the name of a step", &step.name)?;
        if !names.insert(&step.name) {
            let message = format!("the step {:?} is named twice", step.name);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        limits::check_name("the name of a queue", &step.queue)?;
        limits::check_size("the input of a step", step.input.len(), MAX_PAYLOAD)
            .map_err(|err| Error::from(err).context(format!("the step {:?}", step.name)))?;
    }
    let together = steps.iter().map(|step| step.input.len()).sum();
    Ok(limits::check_size("the list of the steps' inputs", together, MAX_CALL)?)
}

/// The answer to a [`Launch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launched {
    /// A new instance.
    Started(InstanceId),
    /// The live instance that holds the key, as [`ConflictPolicy::UseExisting`] asks for.
    Existing(InstanceId),
    /// A live instance holds the key.
    Conflict {
        /// It.
        instance: InstanceId,
    },
    /// The key has ended and may not be used again yet.
    Rejected {
        /// The instance that held it.
        instance: InstanceId,
        /// How that ended.
        ending: Ending,
    },
}

impl From<Answer> for Launched {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Started(id) => Self::Started(id),
            Answer::Existing(id) => Self::Existing(id),
            Answer::Conflict(instance) => Self::Conflict { instance },
            Answer::Rejected(instance, ending) => Self::Rejected { instance, ending },
        }
    }
}

/// What became of a `define`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defined {
    /// It is new.
    Created,
    /// It was there with the same bytes.
    Unchanged,
}

/// A definition.
#[derive(Clone, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Content type of the body, as its definer gave it.
    pub content_type: String,
    /// The bytes.
    pub body: Vec<u8>,
    /// SHA-256 of the body.
    pub digest: [u8; 32],
    /// When it was created, in milliseconds since 1970.
    pub created_ms: u64,
}

/// Where an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InstanceState {
    /// It lives and its first steps are not due yet.
    Scheduled,
    /// It lives.
    Running,
    /// It has ended.
    Ended(Ending),
}

/// An instance as a query shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Name of its definition.
    pub definition: String,
    /// Version of its definition.
    pub version: u32,
    /// Scope and key, if it has one.
    pub key: Option<(String, Vec<u8>)>,
    /// Where it is.
    pub state: InstanceState,
    /// Cancellation was asked for.
    pub cancel_requested: bool,
    /// Steps created and not yet ended.
    pub open_steps: u32,
    /// When it was launched, in milliseconds since 1970.
    pub launched_ms: u64,
    /// When it ended, in milliseconds since 1970.
    pub ended_ms: Option<u64>,
    /// Why it ended, if it did not complete.
    pub reason: String,
    /// What it gave back; empty in lists and while it lives.
    pub output: Vec<u8>,
}

impl Instance {
    /// How it ended, if it did.
    #[must_use]
    pub const fn ending(&self) -> Option<Ending> {
        match self.state {
            InstanceState::Ended(ending) => Some(ending),
            _ => None,
        }
    }
}

/// What became of ending, cancelling or terminating an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It has ended now.
    Now,
    /// It had ended before, in this way; nothing changed.
    Before(Ending),
    /// Its workers have been told to stop; it ends when the last of them does.
    Asked,
}

/// What a worker registers with.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    pub(crate) name: String,
    pub(crate) limit: usize,
    pub(crate) keeps_status: bool,
}

impl WorkerOptions {
    /// A worker of this name, with one step at a time.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), limit: 1, keeps_status: false }
    }

    /// Most steps that it holds at a time; at least one. With the first of their leases that runs out it loses all of them, and that is an attempt of
    /// each.
    #[must_use]
    pub fn limit(mut self, steps: usize) -> Self {
        self.limit = steps.max(1);
        self
    }

    /// It hands the tenant's status on to where it cannot be looked up, a child process perhaps: that of its registration, or a later one, and each
    /// that comes. No phase goes on before a heartbeat said that the new status was [seen](crate::Gate::seen) there, or its lease has run out.
    #[must_use]
    pub fn keeps_status(mut self) -> Self {
        self.keeps_status = true;
        self
    }
}

impl<N: Into<String>> From<N> for WorkerOptions {
    fn from(name: N) -> Self {
        Self::new(name)
    }
}

/// A step that a worker holds under a lease.
#[derive(Clone, PartialEq, Eq)]
pub struct Task {
    /// Its instance.
    pub instance: InstanceId,
    /// Its name within it.
    pub step: String,
    /// The queue that it came from.
    pub queue: String,
    /// What its worker is given.
    pub input: Vec<u8>,
    /// What the worker who had it last has [saved](crate::Gate::save), whoever that was; empty if nothing was.
    pub saved: Vec<u8>,
    /// The fencing token of this assignment.
    pub token: Token,
    /// Which attempt this is, from 1 on. Leases that ran out before the process was started are not known any more.
    pub attempt: u32,
    /// Name of the instance's definition.
    pub definition: String,
    /// Version of the instance's definition.
    pub version: u32,
    /// Scope and key of the instance, if it has one.
    pub key: Option<(String, Vec<u8>)>,
}

impl Task {
    pub(crate) fn held(&self) -> (InstanceId, &str, Token) {
        (self.instance, &self.step, self.token)
    }
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The lease is renewed.
    Renewed,
    /// The lease is renewed, and the instance was asked to stop.
    CancelRequested,
    /// Nothing is renewed: stop.
    Refused(Refusal),
}

/// The result of a step.
#[derive(Clone, Default)]
pub struct Completion {
    /// What the step gave back; up to [`MAX_PAYLOAD`] bytes.
    pub result: Vec<u8>,
    /// Steps that come after it, each offered once by each of its parents.
    pub next: Vec<NewStep>,
    /// What the instance gives back if this was its last step.
    pub output: Vec<u8>,
}

/// Why a step failed, and whether to try again.
#[derive(Debug, Clone, Default)]
pub struct Failure {
    /// Why; cut to [`limits::MAX_REASON`] bytes.
    pub reason: String,
    /// Whether to try again.
    pub again: Again,
}

/// Whether a step that failed is tried again. An instance that was asked to stop ends with it in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Again {
    /// After a pause as the step's [`Retry`] says. With a budget used up it waits for a [decision](crate::Tenant::decide).
    #[default]
    AsPlanned,
    /// After this time, because the worker knows better; within the same budgets.
    After(Duration),
    /// Never: the step fails for good, and its instance with it.
    Never,
}

/// What became of a worker's report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It is committed.
    Done {
        /// How the instance ended with it, if it did.
        ended: Option<Ending>,
    },
    /// It changed nothing.
    Refused(Refusal),
}

impl From<Refusal> for Settled {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What became of saving the state of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// It is committed.
    Done,
    /// It changed nothing.
    Refused(Refusal),
}

impl From<Refusal> for Saved {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Which instances to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those of this definition, any version.
    pub definition: Option<String>,
    /// Only live (`Some(true)`) or only ended (`Some(false)`) ones.
    pub live: Option<bool>,
    /// Only those with a key in this scope.
    pub scope: Option<String>,
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct InstancePage {
    /// The instances, in the order of their ids.
    pub instances: Vec<Instance>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<InstanceId>,
}
