//! The part of [`crate::aborting`] that runs in a process of its own and aborts itself: this test binary again, told by a variable what
//! to do. It loads a tenant from two threads, drives it into a phase, and aborts.
//!
//! On its standard output it says `try T ...` before and `ack T ...` after each call of thread T, and `phase E NAME` for each
//! status that it sees, each a line of its own and flushed. What a call asks for follows from its number, so the parent can ask again.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cutover::{
    Completion, ConflictPolicy, Durability, Ending, Engine, Event, Gate, Hold, InstanceId, Launch, Launched,
    MigrationOptions, NewStep, Observer, Phase, Settled, StoreSpec, Tenant, TenantOptions,
};

use crate::common::{KEEP, reach};

const VARIABLE: &str = "CUTOVER_ENGINE_CHILD";
/// Longer than any test; a later clock ends it.
const FOR_EVER: Duration = Duration::from_secs(3_600);
/// Threads that load the tenant.
pub(crate) const LOADERS: usize = 2;
const KEYS: u64 = 20;
/// Live instances per thread from which on it launches no more.
const MOST_LIVE: usize = 40;

pub(crate) const SCOPE: &str = "scope";

/// Where the tenant is when the process aborts, and how it gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Stable,
    PreMigration,
    /// Stable again, the target being removed.
    Cancelled,
    Migration,
    PostMigration,
    /// Stable, the initial store being removed.
    Completed,
    PreRollback,
    RollingBack,
    /// In `RollingBack` by a reverse while the close was still pending.
    ReversedAtOnce,
    PostRollback,
    /// Stable again, the target being removed.
    RolledBack,
}

impl Way {
    pub(crate) const ALL: [Self; 11] = [
        Self::Stable,
        Self::PreMigration,
        Self::Cancelled,
        Self::Migration,
        Self::PostMigration,
        Self::Completed,
        Self::PreRollback,
        Self::RollingBack,
        Self::ReversedAtOnce,
        Self::PostRollback,
        Self::RolledBack,
    ];

    pub(crate) fn phase(self) -> Phase {
        match self {
            Self::Stable | Self::Cancelled | Self::Completed | Self::RolledBack => Phase::Stable,
            Self::PreMigration => Phase::PreMigration,
            Self::Migration => Phase::Migration,
            Self::PostMigration => Phase::PostMigration,
            Self::PreRollback => Phase::PreRollback,
            Self::RollingBack | Self::ReversedAtOnce => Phase::RollingBack,
            Self::PostRollback => Phase::PostRollback,
        }
    }

    /// Whether the tenant ends in the target.
    pub(crate) fn is_forward(self) -> bool {
        matches!(self, Self::PreMigration | Self::Migration | Self::PostMigration | Self::Completed)
    }

    /// Where a hold of its own keeps it in this phase; elsewhere only one of everything does.
    pub(crate) fn hold(self) -> Hold {
        match self.phase() {
            Phase::PreMigration => Hold::Switch,
            Phase::PostMigration | Phase::PostRollback => Hold::Complete,
            _ => Hold::All,
        }
    }

    /// The phase from which on the tenant is loaded. A store that has to drain before the end must be empty.
    fn loaded_from(self) -> Phase {
        match self {
            Self::Completed => Phase::PostMigration,
            Self::RolledBack => Phase::PostRollback,
            _ => Phase::Stable,
        }
    }
}

/// When it aborts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// A few milliseconds after it has come there.
    Later,
    /// The same, and the migration is held there.
    Held,
    /// On the thread that makes the move, as the status has been published.
    Published,
    /// On the thread that drives, as everybody has seen the status.
    Waited,
}

impl When {
    pub(crate) const ALL: [Self; 4] = [Self::Later, Self::Held, Self::Published, Self::Waited];
}

/// What the child is told.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) way: Way,
    pub(crate) when: When,
    pub(crate) durability: Durability,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) seed: u64,
    pub(crate) data: PathBuf,
}

impl Told {
    /// A command that runs the child.
    pub(crate) fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child::child", "--ignored", "--nocapture", "--test-threads=1"]);
        let at = |found: Option<usize>| found.unwrap();
        let way = at(Way::ALL.iter().position(|way| *way == self.way));
        let when = at(When::ALL.iter().position(|when| *when == self.when));
        let synced = u8::from(self.durability == Durability::Synced);
        let (from, to, seed, data) = (&self.from, &self.to, self.seed, self.data.display());
        command.env(VARIABLE, format!("{way} {when} {synced} {from} {to} {seed} {data}"));
        // A core file, where the machine makes them, goes with the directory.
        command.current_dir(directory);
        command
    }

    fn read(told: &str) -> Self {
        let told: Vec<&str> = told.splitn(7, ' ').collect();
        let number = |at: usize| told[at].parse::<u64>().unwrap();
        Self {
            way: Way::ALL[number(0) as usize],
            when: When::ALL[number(1) as usize],
            durability: if number(2) == 1 { Durability::Synced } else { Durability::Buffered },
            from: told[3].to_owned(),
            to: told[4].to_owned(),
            seed: number(5),
            data: PathBuf::from(told[6]),
        }
    }

    pub(crate) fn open(&self) -> cutover::Builder {
        Engine::builder(&self.data).durability(self.durability)
    }

    /// How the migration goes: through to the phase, and no further.
    fn options(&self, rng: &mut fastrand::Rng) -> (MigrationOptions, bool) {
        let (phase, hold) = (self.way.phase(), self.way.hold());
        let mut options = MigrationOptions::default();
        match self.way {
            // The cancel, or the reverse, comes in this phase.
            Way::Cancelled => return (options.dwell(Phase::PreMigration, FOR_EVER), false),
            Way::ReversedAtOnce => options = options.dwell(Phase::Migration, FOR_EVER),
            // Long enough to load it; then it goes through by itself.
            Way::Completed => return (options.dwell(Phase::PostMigration, Duration::from_millis(20)), false),
            Way::RolledBack => return (options.hold_complete(true), false),
            _ => {}
        }
        let held_from_the_start = self.when == When::Held && hold != Hold::All && rng.bool();
        if held_from_the_start {
            options = options.hold_switch(hold == Hold::Switch).hold_complete(hold == Hold::Complete);
        } else {
            options = options.dwell(phase, FOR_EVER);
        }
        (options, self.when == When::Held && !held_from_the_start)
    }
}

/// What launch `number` of a thread asks for.
pub(crate) struct Asked {
    pub(crate) launch: Launch,
    pub(crate) key: Option<String>,
    pub(crate) input: Vec<u8>,
    pub(crate) policy: ConflictPolicy,
    /// Two steps, one after the other; without them it ends by being ended.
    pub(crate) steps: bool,
}

pub(crate) fn asked(thread: usize, number: u64) -> Asked {
    let mut rng = fastrand::Rng::with_seed(number << 8 | thread as u64);
    let request = format!("{thread}-{number}");
    // The keys of a thread are its own, so that it knows what each of its launches has to be answered.
    let key = (rng.u8(..10) > 0).then(|| format!("{thread}/{}", rng.u64(..KEYS)));
    let policy = match rng.u8(..4) {
        0 => ConflictPolicy::Fail,
        1 => ConflictPolicy::UseExisting,
        _ => ConflictPolicy::TerminateExisting,
    };
    let input = request.as_bytes().repeat(rng.usize(..60));
    let steps = rng.bool();
    let mut launch = Launch::new("work", 1).request_id(&request).input(input.clone()).on_conflict(policy);
    if let Some(key) = &key {
        launch = launch.key(SCOPE, key);
    }
    if steps {
        launch = launch.step(NewStep::new("one").queue(queue(thread)));
    }
    Asked { launch, key, input, policy, steps }
}

pub(crate) fn queue(thread: usize) -> String {
    format!("queue {thread}")
}

/// The body of definition `number` of a thread; its name is `D`, the thread, and the number.
pub(crate) fn body(thread: usize, number: u64) -> Vec<u8> {
    let len = if number.is_multiple_of(16) { 9_000 } else { 40 };
    format!("{thread}:{number};").into_bytes().into_iter().cycle().take(len).collect()
}

pub(crate) fn definition(thread: usize, number: u64) -> String {
    format!("D{thread}-{number}")
}

/// What a step comes to: its own name is its result, and `two` comes after `one`.
pub(crate) fn completion(thread: usize, step: &str) -> Completion {
    let next = if step == "one" { vec![NewStep::new("two").queue(queue(thread))] } else { Vec::new() };
    Completion { result: step.into(), next, output: b"worked".to_vec() }
}

/// A line, at once.
fn say(what: impl Display) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{what}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Says each phase, and aborts in the middle of a move if that is the moment.
struct Watcher(Told);

impl Watcher {
    fn abort(&self, when: When, phase: Phase) {
        if self.0.when == when && self.0.way.phase() == phase {
            // Others go on meanwhile: some of them commit in the store that was just closed.
            let lag = Duration::from_micros(fastrand::u64(..400));
            let begun = Instant::now();
            while begun.elapsed() < lag {
                std::hint::spin_loop();
            }
            std::process::abort();
        }
    }
}

impl Observer for Watcher {
    fn on_event(&self, event: &Event) {
        match event {
            Event::Phase { to, epoch, .. } => {
                say(format_args!("phase {epoch} {to}"));
                self.abort(When::Published, *to);
            }
            Event::Waited { phase, .. } => self.abort(When::Waited, *phase),
            _ => {}
        }
    }
}

/// One of the threads that load the tenant.
struct Loader {
    thread: usize,
    tenant: Tenant,
    worker: Gate,
    rng: fastrand::Rng,
    /// What lives: its key, and whether it has steps.
    live: BTreeMap<InstanceId, (Option<String>, bool)>,
    launches: u64,
    definitions: u64,
    epoch: u64,
}

impl Loader {
    fn new(tenant: &Tenant, thread: usize, seed: u64) -> Self {
        Self {
            thread,
            tenant: tenant.clone(),
            worker: tenant.register(format!("worker {thread}")).unwrap(),
            rng: fastrand::Rng::with_seed(seed + thread as u64),
            live: BTreeMap::new(),
            launches: 0,
            definitions: 0,
            epoch: 0,
        }
    }

    fn run(&mut self) {
        loop {
            let status = self.tenant.status();
            if status.epoch != self.epoch {
                self.epoch = status.epoch;
                say(format_args!("phase {} {}", status.epoch, status.phase));
            }
            match self.rng.u8(..100) {
                0..50 if self.live.len() < MOST_LIVE => self.launch(),
                50..60 => self.define(),
                60..80 => self.work(),
                _ => self.end(),
            }
            // Two cores have other tests to run.
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn call<T>(&self, what: impl Display, call: impl FnOnce() -> T, answer: impl FnOnce(&T) -> String) -> T {
        let thread = self.thread;
        say(format_args!("try {thread} {what}"));
        let value = call();
        say(format_args!("ack {thread} {what}{}", answer(&value)));
        value
    }

    fn launch(&mut self) {
        let (number, thread) = (self.launches, self.thread);
        self.launches += 1;
        let asked = asked(thread, number);
        let launch = || self.tenant.launch(&asked.launch).unwrap();
        let answer = self.call(format_args!("launch {number}"), launch, |answer| match answer {
            Launched::Started(id) => format!(" started {id}"),
            Launched::Existing(id) => format!(" existing {id}"),
            Launched::Conflict { instance } => format!(" conflict {instance}"),
            Launched::Rejected { .. } => panic!("{answer:?}"),
        });
        if let Launched::Started(id) = answer {
            self.live.retain(|_, (key, _)| key.is_none() || *key != asked.key);
            self.live.insert(id, (asked.key, asked.steps));
        }
    }

    fn define(&mut self) {
        let (number, thread) = (self.definitions, self.thread);
        self.definitions += 1;
        let (name, body) = (definition(thread, number), body(thread, number));
        let define = || self.tenant.define(&name, 1, "text/plain", &body).unwrap();
        self.call(format_args!("define {number}"), define, |_| String::new());
    }

    fn work(&mut self) {
        let claimed = self.worker.claim(&queue(self.thread), Duration::ZERO).unwrap();
        let Some(task) = claimed else { return };
        let completion = completion(self.thread, &task.step);
        let complete = || self.worker.complete(&task, completion).unwrap();
        let what = format!("step {} {}", task.instance, task.step);
        let settled = self.call(what, complete, |_| String::new());
        let Settled::Done { ended } = settled else { panic!("{task:?}: {settled:?}") };
        if ended.is_some() {
            self.live.remove(&task.instance);
        }
    }

    fn end(&mut self) {
        let ends: Vec<InstanceId> =
            self.live.iter().filter(|(_, (_, steps))| !steps).map(|(id, _)| *id).collect();
        let Some(id) = self.rng.choice(ends) else { return };
        let end = || self.tenant.end(id, Ending::Completed, b"ended", "").unwrap();
        self.call(format_args!("end {id}"), end, |_| String::new());
        self.live.remove(&id);
    }
}

#[test]
#[ignore = "the part of other tests that runs in a process of its own"]
fn child() {
    let Ok(told) = std::env::var(VARIABLE) else { return };
    // The harness has begun a line.
    say("");
    let told = Told::read(&told);
    let engine = told.open().observer(Arc::new(Watcher(told.clone()))).open().unwrap();
    let options = TenantOptions::new(StoreSpec::driver(&told.from)).retention(KEEP);
    let tenant = engine.create_tenant("acme", options).unwrap();
    tenant.define("work", 1, "text/plain", b"do it").unwrap();
    let load = Arc::new(AtomicBool::new(told.way.loaded_from() == Phase::Stable));
    for thread in 0..LOADERS {
        let mut loader = Loader::new(&tenant, thread, told.seed);
        let load = Arc::clone(&load);
        std::thread::spawn(move || {
            while !load.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_micros(100));
            }
            // Whatever goes wrong here ends the process in another way than the one that is waited for.
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| loader.run()));
            std::process::exit(if ran.is_err() { 3 } else { 4 });
        });
    }
    let mut rng = fastrand::Rng::with_seed(!told.seed);
    std::thread::sleep(Duration::from_millis(rng.u64(10..40)));
    drive(&told, &tenant, &load, &mut rng);
    let status = tenant.status();
    say(format_args!("phase {} {}", status.epoch, status.phase));
    assert_eq!(status.phase, told.way.phase());
    std::thread::sleep(Duration::from_micros(rng.u64(..10_000)));
    std::process::abort();
}

/// Into the phase, and held there if told so.
fn drive(told: &Told, tenant: &Tenant, load: &AtomicBool, rng: &mut fastrand::Rng) {
    if told.way == Way::Stable {
        return;
    }
    let migration = tenant.migration();
    let (options, hold) = told.options(rng);
    migration.start(StoreSpec::driver(&told.to), options).unwrap();
    match told.way {
        Way::Stable | Way::PreMigration | Way::Migration | Way::PostMigration => {}
        Way::Cancelled => {
            std::thread::sleep(Duration::from_micros(rng.u64(..5_000)));
            // It dwells before the switch, so this is in time.
            migration.cancel().unwrap();
        }
        Way::Completed => {
            reach(tenant, Phase::PostMigration);
            load.store(true, Ordering::Release);
        }
        Way::ReversedAtOnce => {
            reach(tenant, Phase::Migration);
            migration.reverse().unwrap();
        }
        Way::PreRollback | Way::RollingBack | Way::PostRollback | Way::RolledBack => {
            reach(tenant, Phase::PostMigration);
            migration.reverse().unwrap();
        }
    }
    if told.way == Way::RolledBack {
        reach(tenant, Phase::PostRollback);
        load.store(true, Ordering::Release);
        std::thread::sleep(Duration::from_millis(20));
        migration.release(Hold::Complete).unwrap();
    }
    reach(tenant, told.way.phase());
    if hold {
        migration.hold(told.way.hold()).unwrap();
    }
}
