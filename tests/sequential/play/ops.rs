//! What is done to an engine, as plain values, and how any bytes are read as a run of them.

use std::time::Duration;

use cutover::{
    Again, Completion, ConflictPolicy, Decision, Ending, Hold, Launch, NewStep, Retry, ReusePolicy,
};

/// Most operations of one run: many short ones find more than few long ones.
const MOST: usize = 120;

/// What an engine is opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Setup {
    /// `Buffered` instead of `Synced`.
    pub buffered: bool,
    /// Which of the retentions in `world.rs` the tenants have.
    pub retention: u8,
    /// What is in a store that is being left is moved as soon as that can be asked for.
    pub moving: bool,
}

/// A launch in small numbers: few names, so that meetings are common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launching {
    /// The definition.
    pub definition: u8,
    /// The key, if it has one; even and odd ones are in different scopes.
    pub key: Option<u8>,
    /// The request id, if it has one.
    pub request: Option<u8>,
    /// What to do if the key is live.
    pub conflict: ConflictPolicy,
    /// What to do if it has ended.
    pub reuse: ReusePolicy,
    /// Which steps it begins with.
    pub shape: u8,
    /// Its steps are ready after so many milliseconds.
    pub delay: u64,
    /// The byte that its input repeats.
    pub input: u8,
}

/// A step to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepShape {
    /// Its name.
    pub name: &'static str,
    /// Its queue.
    pub queue: &'static str,
    /// How many steps it waits for.
    pub parents: u32,
    /// How often it may be tried.
    pub attempts: u32,
    /// Its input.
    pub input: &'static [u8],
}

const fn step(name: &'static str, queue: &'static str, parents: u32, attempts: u32) -> StepShape {
    StepShape { name, queue, parents, attempts, input: name.as_bytes() }
}

/// The first and the longest pause before a step is tried again, and the time within which it is, in milliseconds.
pub const PAUSES: (u64, u64) = (100, 150);
/// See [`PAUSES`].
pub const WITHIN: u64 = 1_000;

/// The queues.
pub const QUEUES: [(&str, u64); 2] = [("q0", 10_000), ("q1", 300)];

/// The first steps of a launch of this shape. No two shapes are the same.
pub fn first_steps(shape: u8) -> Vec<StepShape> {
    match shape % 6 {
        0 => vec![],
        1 => vec![step("a", "q0", 0, 2)],
        2 => vec![step("a", "q0", 0, 3), step("b", "q0", 0, 1)],
        3 => vec![step("a", "q0", 0, 2), step("b", "q1", 0, 2), step("join", "q1", 2, 1)],
        4 => vec![step("b", "q1", 0, 1)],
        _ => vec![step("join", "q0", 1, 2)],
    }
}

/// What a completed step offers.
pub fn next_steps(kind: u8) -> Vec<StepShape> {
    match kind % 6 {
        0 | 1 => vec![],
        2 => vec![step("join", "q1", 2, 1)],
        3 => vec![step("next", "q0", 0, 2)],
        4 => vec![step("a", "q0", 0, 2), step("last", "q1", 1, 1)],
        _ => vec![step("join", "q0", 3, 2), step("b", "q1", 0, 1)],
    }
}

/// The last part of a tenant's dwelling in a phase, in milliseconds.
pub const DWELL: u64 = 700;

/// How an engine goes away before it is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// In order.
    Closed,
    /// Killed.
    Killed,
    /// By a power cut; a kill where only kills are survived.
    PowerCut,
}

/// Which call of a store fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A durable commit that is not made.
    CommitNot,
    /// A durable commit that is seen and is lost with the process.
    CommitSeen,
    /// A durable commit that is made in spite of the error.
    CommitMade,
    /// Any commit at all that is not made.
    AnyCommit,
    /// A read.
    Read,
    /// The removal of a range.
    Remove,
    /// The opening of a store.
    Open,
}

/// One thing that is done. Which tenant, instance or task a number means is found out when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Launch.
    Launch(u8, Launching),
    /// Define: tenant, which, with which body.
    Define(u8, u8, u8),
    /// Read a definition: tenant, which.
    Definition(u8, u8),
    /// Query by id: tenant, which instance.
    Query(u8, u8),
    /// Query by key: tenant, which.
    QueryKey(u8, u8),
    /// List everything, so many a page: tenant, filter, limit.
    List(u8, u8, u8),
    /// Claim: tenant, queue.
    Claim(u8, u8),
    /// Complete a task: which, what comes next.
    Complete(u8, u8),
    /// Fail a task: which, when to try again.
    Fail(u8, Again),
    /// Save the state of a task: which, what.
    Save(u8, u8),
    /// Decide about a step that waits for it, if there is one: tenant, which, whether it is tried again.
    Decide(u8, u8, bool),
    /// List all steps that wait for a decision, so many a page: tenant, limit.
    Undecided(u8, u8),
    /// Renew the lease of a task: which.
    Beat(u8),
    /// End an instance: tenant, which, how.
    End(u8, u8, Ending),
    /// Cancel one: tenant, which.
    Cancel(u8, u8),
    /// Terminate one: tenant, which.
    Terminate(u8, u8),
    /// Read the input of one and the result of its step `a`: tenant, which.
    Payloads(u8, u8),
    /// Start a migration: tenant, to which store, holds and dwells in bits.
    Start(u8, u8, u8),
    /// Another move: tenant, which.
    Move(u8, u8),
    /// Move what is older than so many milliseconds: tenant, how old.
    MoveStragglers(u8, u64),
    /// Hold or let go: tenant, where.
    Hold(u8, Hold, bool),
    /// Let the engine do so many steps.
    Step(u8),
    /// Let the engine step until nothing is left to do.
    Drain,
    /// Time passes, in milliseconds.
    Advance(u64),
    /// The engine goes and is opened again, and somebody has set the wall clock forward by so many milliseconds.
    Reopen(Gone, u64),
    /// The call after so many others of its kind fails.
    Fail1(Fault, u8),
    /// Delete a tenant, or make it again: tenant.
    Remake(u8),
}

struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn below(&mut self, end: u8) -> u8 {
        self.next() % end
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        let at = usize::from(self.next()) % choices.len();
        choices[at]
    }
}

/// Reads any bytes as a run.
pub fn decode(bytes: &[u8]) -> (Setup, Vec<Op>) {
    let mut bytes = Bytes(bytes);
    let first = bytes.next();
    let setup = Setup { buffered: first & 1 == 1, retention: (first >> 1) % 4, moving: first & 8 == 8 };
    let mut ops = Vec::new();
    while !bytes.0.is_empty() && ops.len() < MOST {
        ops.push(op(&mut bytes));
    }
    (setup, ops)
}

fn op(bytes: &mut Bytes<'_>) -> Op {
    let (kind, who) = (bytes.below(64), bytes.next());
    // One byte says which tenant, mostly the first, and which of its instances or names.
    let (tenant, which) = (u8::from(who % 8 == 7), who / 8);
    match kind {
        0..=10 => Op::Launch(tenant, launching(bytes, which)),
        11..=12 => Op::Decide(tenant, which, bytes.below(3) > 0),
        13 if which % 4 == 0 => Op::Undecided(tenant, which / 4),
        13 => Op::Save(bytes.below(3), which),
        14..=16 => Op::Define(tenant, which % 4, u8::from(bytes.below(8) == 0)),
        17 => Op::Definition(tenant, which % 4),
        18..=19 => Op::Query(tenant, which),
        20 => Op::QueryKey(tenant, which % 4),
        21 => Op::List(tenant, which, bytes.next()),
        22..=26 => Op::Claim(tenant, which % 2),
        27..=30 => Op::Complete(bytes.next(), which),
        // Mostly a task that is still held: late reports are the business of completions.
        31..=33 => Op::Fail(bytes.below(3), again(which)),
        34..=36 => {
            let ending = [Ending::Completed, Ending::Completed, Ending::Failed, Ending::Terminated];
            Op::End(tenant, which, bytes.of(&ending))
        }
        37 => Op::Cancel(tenant, which),
        38 => Op::Terminate(tenant, which),
        39 => Op::Payloads(tenant, which),
        40..=41 => Op::Start(tenant, which % 4, bytes.next()),
        42..=45 if which % 5 == 4 => Op::MoveStragglers(tenant, bytes.of(&[0, 0, 250, 1000])),
        42..=45 => Op::Move(tenant, which % 5),
        46 => Op::Hold(tenant, bytes.of(&[Hold::Switch, Hold::Complete, Hold::All]), which.is_multiple_of(2)),
        47 => Op::Beat(who),
        48..=52 => Op::Step(1 + which % 6),
        53 => Op::Drain,
        54..=57 => Op::Advance([1, 249, 250, 500, 1000, 5000][usize::from(which % 6)]),
        58..=60 => {
            let how = bytes.of(&[Gone::Closed, Gone::Killed, Gone::Killed, Gone::PowerCut]);
            Op::Reopen(how, [0, 0, 250, 100_000][usize::from(which % 4)])
        }
        61..=62 => {
            let faults = [
                Fault::CommitNot,
                Fault::CommitSeen,
                Fault::CommitMade,
                Fault::AnyCommit,
                Fault::Read,
                Fault::Remove,
                Fault::Open,
            ];
            Op::Fail1(bytes.of(&faults), which % 16)
        }
        _ => Op::Remake(tenant),
    }
}

/// Whether a worker that fails asks for another attempt.
pub fn again(which: u8) -> Again {
    let after = |ms| Again::After(Duration::from_millis(ms));
    // In time to the tick if it was ready just now, and a tick too late in any case.
    let [in_time, late] = [after(WITHIN), after(WITHIN + 1)];
    [Again::Never, after(0), Again::AsPlanned, in_time, after(250), Again::AsPlanned, late, late]
        [usize::from(which % 8)]
}

fn launching(bytes: &mut Bytes<'_>, which: u8) -> Launching {
    use ConflictPolicy::{Fail, TerminateExisting, UseExisting};
    use ReusePolicy::{AllowDuplicate, AllowDuplicateFailedOnly, RejectDuplicate};
    let (names, policies, rest) = (bytes.next(), bytes.next(), bytes.next());
    Launching {
        definition: [0, 0, 0, 0, 0, 0, 1, 2][usize::from(which % 8)],
        key: [Some(0), Some(1), Some(2), None][usize::from(names % 4)],
        request: [None, None, None, Some(0), Some(1), Some(2)][usize::from(names / 4 % 6)],
        conflict: [Fail, UseExisting, TerminateExisting, Fail][usize::from(policies % 4)],
        reuse: [AllowDuplicate, AllowDuplicate, AllowDuplicateFailedOnly, RejectDuplicate]
            [usize::from(policies / 4 % 4)],
        shape: policies / 16 % 6,
        delay: [0, 0, 0, 250][usize::from(rest % 4)],
        input: rest / 4 % 3,
    }
}

/// The name of a definition.
pub fn definition_name(which: u8) -> String {
    format!("d{which}")
}

/// Two bodies of a definition, which are in conflict.
pub fn body(which: u8, variant: u8) -> Vec<u8> {
    vec![b'0' + which, variant]
}

/// Scope and key.
pub fn key(which: u8) -> (String, Vec<u8>) {
    (format!("s{}", which % 2), vec![b'k', which])
}

/// The input that goes with a launch.
pub fn input(launching: &Launching) -> Vec<u8> {
    vec![launching.input; usize::from(launching.input) * 40]
}

impl StepShape {
    fn build(&self) -> NewStep {
        let [first, most, within] = [PAUSES.0, PAUSES.1, WITHIN].map(Duration::from_millis);
        let retry = Retry { first, most, attempts: self.attempts, within };
        NewStep::new(self.name).queue(self.queue).parents(self.parents).retry(retry).input(self.input)
    }
}

impl Launching {
    /// The same for the engine.
    pub fn build(&self) -> Launch {
        let mut launch = Launch::new(definition_name(self.definition), 1)
            .input(input(self))
            .start_in(Duration::from_millis(self.delay))
            .on_conflict(self.conflict)
            .reuse(self.reuse);
        if let Some(which) = self.key {
            let (scope, key) = key(which);
            launch = launch.key(scope, key);
        }
        if let Some(request) = self.request {
            launch = launch.request_id([b'r', request]);
        }
        first_steps(self.shape).iter().fold(launch, |launch, step| launch.step(step.build()))
    }
}

/// What becomes of a step that waits for it.
pub fn decision(again: bool) -> Decision {
    if again { Decision::Retry } else { Decision::Abort { reason: HOPELESS.to_owned() } }
}

/// Why a step is given up.
pub const HOPELESS: &str = "hopeless";
/// What a completed step gives back.
pub const RESULT: &[u8] = b"result";
/// What its instance gives back if it was the last one.
pub const OUTPUT: &[u8] = b"output";

/// The completion that offers what [`next_steps`] says.
pub fn completion(kind: u8) -> Completion {
    Completion {
        result: RESULT.to_vec(),
        next: next_steps(kind).iter().map(StepShape::build).collect(),
        output: OUTPUT.to_vec(),
    }
}
