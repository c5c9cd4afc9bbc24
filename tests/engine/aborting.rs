//! A process that aborts itself, in every phase, between RocksDB and sled in both directions, held and not: what the next one finds.
//!
//! The process is [`crate::child`]. Its lines are the ledger: what it acknowledged has to be there, what it was about
//! to do may have happened or not, and nothing else may.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover::clock::{Clock, SystemClock};
use cutover::formats::keys::NoteId;
use cutover::formats::{Family, Record, RowId};
use cutover::offline::Directory;
use cutover::{
    ConflictPolicy, Durability, Ended, Ending, Engine, Filter, Hold, InstanceId, Launched, Phase, Settled,
    StoreId, Tenant,
};
use tempfile::TempDir;

use crate::child::{self, LOADERS, SCOPE, Told, Way, When, asked, body, completion, definition, queue};
use crate::common::{LONG, keyed, many, settle, started};

/// Retention and dwells are over by then.
const MUCH_LATER: Duration = Duration::from_secs(7_200);
const DRIVERS: [&str; 2] = ["rocksdb", "sled"];
/// The thread number of what is launched here, after the abort.
const HERE: usize = LOADERS;

/// An instance as it has to be found.
#[derive(Debug)]
struct Known {
    thread: usize,
    number: u64,
    key: Option<String>,
    ending: Option<Ending>,
    output: &'static [u8],
    /// The step that is ready, while it lives.
    step: Option<&'static str>,
    done: Vec<&'static str>,
}

/// What the acknowledgements say.
#[derive(Debug, Default)]
struct Ledger {
    phase: (u64, String),
    instances: BTreeMap<InstanceId, Known>,
    /// Who holds or held a key last.
    keys: HashMap<String, InstanceId>,
    answers: BTreeMap<(usize, u64), Launched>,
    definitions: BTreeSet<(usize, u64)>,
    /// What each thread was about to do.
    tried: BTreeMap<usize, Vec<String>>,
}

fn id(word: &str) -> InstanceId {
    word.parse().unwrap()
}

fn number(word: &str) -> u64 {
    word.parse().unwrap()
}

fn static_step(word: &str) -> &'static str {
    if word == "one" { "one" } else { "two" }
}

impl Ledger {
    fn read(lines: &str) -> Self {
        let mut ledger = Self::default();
        for line in lines.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                // Of two threads that see the same, or one late.
                ["phase", epoch, phase] if number(epoch) >= ledger.phase.0 => {
                    ledger.phase = (number(epoch), (*phase).to_owned());
                }
                ["try", thread, what @ ..] => {
                    let what = what.iter().map(|word| (*word).to_owned()).collect();
                    let before = ledger.tried.insert(number(thread) as usize, what);
                    assert_eq!(before, None, "two calls at once: {line}");
                }
                ["ack", thread, what @ ..] => {
                    let thread = number(thread) as usize;
                    let tried = ledger.tried.remove(&thread).unwrap();
                    assert!(what.len() >= tried.len() && what[..tried.len()] == tried[..], "{line}");
                    ledger.acknowledge(thread, what);
                }
                _ => {}
            }
        }
        ledger
    }

    fn acknowledge(&mut self, thread: usize, what: &[&str]) {
        match what {
            ["launch", n, "started", who] => self.launched(thread, number(n), Launched::Started(id(who))),
            ["launch", n, "existing", who] => self.launched(thread, number(n), Launched::Existing(id(who))),
            ["launch", n, "conflict", who] => {
                self.launched(thread, number(n), Launched::Conflict { instance: id(who) });
            }
            ["end", who] => self.ended(id(who), Ending::Completed, b"ended"),
            ["define", n] => drop(self.definitions.insert((thread, number(n)))),
            ["step", who, step] => self.stepped(id(who), static_step(step)),
            _ => panic!("{what:?}"),
        }
    }

    /// Who lives and holds the key.
    fn holder(&self, key: Option<&String>) -> Option<InstanceId> {
        key.and_then(|key| self.keys.get(key)).copied().filter(|id| self.instances[id].ending.is_none())
    }

    /// A launch was answered; the answer has to be the one that the key and the policy ask for.
    fn launched(&mut self, thread: usize, number: u64, answer: Launched) {
        let asked = asked(thread, number);
        let holder = self.holder(asked.key.as_ref());
        match (answer, holder, asked.policy) {
            (Launched::Started(_), None, _) => {}
            (Launched::Started(_), Some(old), ConflictPolicy::TerminateExisting) => {
                self.ended(old, Ending::Terminated, b"");
            }
            (Launched::Existing(id), Some(old), ConflictPolicy::UseExisting)
            | (Launched::Conflict { instance: id }, Some(old), ConflictPolicy::Fail) => assert_eq!(id, old),
            wrong => panic!("launch {thread}-{number}: {wrong:?}"),
        }
        self.answers.insert((thread, number), answer);
        let Launched::Started(id) = answer else { return };
        if let Some(key) = &asked.key {
            self.keys.insert(key.clone(), id);
        }
        let step = asked.steps.then_some("one");
        let known =
            Known { thread, number, key: asked.key, ending: None, output: b"", step, done: Vec::new() };
        assert!(self.instances.insert(id, known).is_none(), "{id} was started twice");
    }

    fn ended(&mut self, id: InstanceId, ending: Ending, output: &'static [u8]) {
        let known = self.instances.get_mut(&id).unwrap();
        assert_eq!(known.ending, None, "{id} ended twice");
        (known.ending, known.output, known.step) = (Some(ending), output, None);
    }

    fn stepped(&mut self, id: InstanceId, step: &'static str) {
        let known = self.instances.get_mut(&id).unwrap();
        assert_eq!(known.step, Some(step), "{id}");
        known.done.push(step);
        known.step = (step == "one").then_some("two");
        if known.step.is_none() {
            self.ended(id, Ending::Completed, b"worked");
        }
    }

    fn live(&self) -> BTreeSet<InstanceId> {
        let live = self.instances.iter().filter(|(_, known)| known.ending.is_none());
        live.map(|(id, _)| *id).collect()
    }
}

/// Launches `number` of a thread again; the same request, so it gets the answer that it got, if it did.
fn ask(tenant: &Tenant, thread: usize, number: u64) -> Launched {
    tenant.launch(&asked(thread, number).launch).unwrap()
}

/// What the threads were about to do has happened whole or not at all. Where it can be asked for again, it is.
fn resolve(ledger: &mut Ledger, tenant: &Tenant) {
    for (thread, what) in std::mem::take(&mut ledger.tried) {
        let what: Vec<&str> = what.iter().map(String::as_str).collect();
        match what.as_slice() {
            ["launch", n] => {
                let asked = asked(thread, number(n));
                let old = ledger.holder(asked.key.as_ref());
                let by_key = |key: String| tenant.instance_by_key(SCOPE, key.as_bytes()).unwrap();
                let found = asked.key.and_then(by_key);
                let answer = ask(tenant, thread, number(n));
                if let (Some(old), Some(found)) = (old, found) {
                    assert_eq!(found.ending(), None, "replaced by nobody: {found:?}");
                    assert!(found.id == old || Launched::Started(found.id) == answer, "{found:?} {answer:?}");
                }
                ledger.launched(thread, number(n), answer);
            }
            ["end", who] => {
                let ended = tenant.end(id(who), Ending::Completed, b"ended", "").unwrap();
                assert!(matches!(ended, Ended::Now | Ended::Before(Ending::Completed)), "{ended:?}");
                ledger.ended(id(who), Ending::Completed, b"ended");
            }
            ["define", n] => {
                let (name, body) = (definition(thread, number(n)), body(thread, number(n)));
                tenant.define(&name, 1, "text/plain", &body).unwrap();
                ledger.definitions.insert((thread, number(n)));
            }
            ["step", who, step] => {
                if tenant.step_result(id(who), step).unwrap().is_some() {
                    ledger.stepped(id(who), static_step(step));
                }
            }
            _ => panic!("{what:?}"),
        }
    }
}

fn list(tenant: &Tenant, live: Option<bool>) -> BTreeSet<InstanceId> {
    let filter = Filter { live, ..Filter::default() };
    let (mut found, mut after) = (BTreeSet::new(), None);
    loop {
        let page = tenant.list(&filter, after, 1_000).unwrap();
        for instance in page.instances {
            assert!(found.insert(instance.id), "{} is listed twice", instance.id);
        }
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

fn check_definitions(ledger: &Ledger, tenant: &Tenant) {
    for (thread, number) in &ledger.definitions {
        let name = definition(*thread, *number);
        let found = tenant.definition(&name, 1).unwrap().unwrap_or_else(|| panic!("{name} is lost"));
        assert!(found.body == body(*thread, *number), "{name} has other bytes");
    }
}

/// Live instances hold their keys, and no two of them one.
fn check_keys(ledger: &Ledger, tenant: &Tenant) {
    for (key, id) in &ledger.keys {
        if ledger.instances[id].ending.is_none() {
            let again = tenant.launch(&keyed(key)).unwrap();
            assert_eq!(again, Launched::Conflict { instance: *id }, "{key}");
        }
    }
}

/// Everything that was acknowledged is there, and nothing else.
fn check(ledger: &Ledger, tenant: &Tenant) {
    for (id, known) in &ledger.instances {
        let found = tenant.instance(*id).unwrap().unwrap_or_else(|| panic!("{id} is lost: {known:?}"));
        assert_eq!((found.ending(), found.output.as_slice()), (known.ending, known.output), "{known:?}");
        assert_eq!(found.key, known.key.clone().map(|key| (SCOPE.to_owned(), key.into_bytes())));
        let input = asked(known.thread, known.number).input;
        assert!(tenant.input(*id).unwrap() == Some(input), "the input of {id}");
        for step in &known.done {
            assert_eq!(tenant.step_result(*id, step).unwrap().as_deref(), Some(step.as_bytes()), "{id}");
        }
    }
    assert_eq!(list(tenant, Some(true)), ledger.live());
    assert_eq!(list(tenant, None), ledger.instances.keys().copied().collect());
    for (key, id) in &ledger.keys {
        let found = tenant.instance_by_key(SCOPE, key.as_bytes()).unwrap();
        assert_eq!(found.map(|found| found.id), Some(*id), "{key}");
    }
    check_keys(ledger, tenant);
    for ((thread, number), answer) in &ledger.answers {
        assert_eq!(ask(tenant, *thread, *number), *answer, "request {thread}-{number}");
    }
    check_definitions(ledger, tenant);
}

/// What the stores themselves hold, before anybody has mended anything. From the switch on each definition that was acknowledged is in
/// both, or a gap is noted.
fn look_into_stores(told: &Told, ledger: &Ledger, scratch: &TempDir) {
    let directory = Directory::open(&told.data).unwrap();
    let status = directory.tenants()[0].status;
    let stores = [Some(status.initial), status.target];
    let mut live: BTreeMap<Vec<u8>, (StoreId, InstanceId)> = BTreeMap::new();
    for store in stores.into_iter().flatten() {
        let copy = scratch.path().join(store.0.to_string());
        std::fs::create_dir(&copy).unwrap();
        let rows = directory.read_store(store, &copy).unwrap();
        let (mut defined, mut gaps) = (BTreeSet::new(), 0);
        for family in Family::ALL {
            rows.scan(family, None, &mut |row| {
                match (row.id.as_ref().unwrap(), row.record.as_ref().map(|record| record.as_ref().unwrap())) {
                    ((_, RowId::Definition { name, .. }), _) => drop(defined.insert(name.to_string())),
                    ((_, RowId::Note(NoteId::Gap { .. })), _) => gaps += 1,
                    ((_, RowId::Key { key, .. }), Some(Record::Key(held))) if held.ended.is_none() => {
                        let before = live.insert(key.to_vec(), (store, held.instance));
                        assert_eq!(before, None, "{key:?} is live in {store} as well");
                    }
                    _ => {}
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        }
        if status.phase != Phase::PreMigration {
            assert_eq!(gaps, 0, "no store has failed");
            for (thread, number) in &ledger.definitions {
                let name = definition(*thread, *number);
                assert!(defined.contains(&name), "{name} is not in {store}, phase {}", status.phase);
            }
        }
    }
}

/// The time of the system, and so much more.
struct Later(SystemClock, Duration);

impl Clock for Later {
    fn wall_ms(&self) -> u64 {
        self.0.wall_ms() + self.1.as_millis() as u64
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

fn open(told: &Told, later: Duration) -> (Engine, Tenant) {
    let clock = Arc::new(Later(SystemClock::default(), later));
    let engine = told.open().clock(clock).open().unwrap();
    let tenant = engine.tenant("acme").unwrap();
    (engine, tenant)
}

/// It is where it was, and stays there.
fn stays(told: &Told, ledger: &Ledger, tenant: &Tenant) {
    for wait in [0, 20] {
        std::thread::sleep(Duration::from_millis(wait));
        let status = tenant.status();
        assert_eq!(
            (status.epoch, status.phase.to_string()),
            ledger.phase,
            "{:?}",
            tenant.migration().progress()
        );
        assert_eq!(status.phase, told.way.phase());
    }
}

/// Works every step that is ready, which are those of the ledger and no others, and ends what lives in the store that is left.
fn wind_up(ledger: &mut Ledger, tenant: &Tenant, survivor: StoreId) {
    let worker = tenant.register(many("afterwards")).unwrap();
    for thread in 0..=HERE {
        while let Some(task) = worker.claim(&queue(thread), Duration::ZERO).unwrap() {
            let settled = worker.complete(&task, completion(thread, &task.step)).unwrap();
            assert!(matches!(settled, Settled::Done { .. }), "{task:?}: {settled:?}");
            ledger.stepped(task.instance, static_step(&task.step));
        }
    }
    for id in ledger.live() {
        assert_eq!(ledger.instances[&id].step, None, "{id} has a step that nobody is given");
        if id.store() != survivor {
            assert_eq!(tenant.end(id, Ending::Completed, b"ended", "").unwrap(), Ended::Now);
            ledger.ended(id, Ending::Completed, b"ended");
        }
    }
}

/// Holds hold, also when nothing else is in the way; released, the migration goes to its end.
fn finish(told: &Told, ledger: &Ledger, tenant: &Tenant) {
    if told.when == When::Held {
        let expected = if told.way.hold() == Hold::All { "being resumed" } else { "being released" };
        let until = Instant::now() + LONG;
        while tenant.migration().progress().waiting_for != expected {
            let progress = tenant.migration().progress();
            assert!(Instant::now() < until, "{progress:?}");
            assert_eq!(progress.status.phase, told.way.phase(), "the hold is forgotten");
            std::thread::sleep(Duration::from_millis(2));
        }
        stays(told, ledger, tenant);
        tenant.migration().release(told.way.hold()).unwrap();
    }
    settle(tenant);
}

fn scenario(told: &Told, home: &TempDir) {
    let output = told.command(home.path()).stderr(std::process::Stdio::inherit()).output().unwrap();
    const SIGABRT: i32 = 6;
    assert_eq!(output.status.signal(), Some(SIGABRT), "{}", output.status);
    let mut ledger = Ledger::read(std::str::from_utf8(&output.stdout).unwrap());
    let (answers, definitions, tried) = (ledger.answers.len(), ledger.definitions.len(), &ledger.tried);
    eprintln!("{answers} launches and {definitions} definitions acknowledged, in doubt {tried:?}");
    look_into_stores(told, &ledger, home);

    let (engine, tenant) = open(told, Duration::ZERO);
    stays(told, &ledger, &tenant);
    let status = tenant.status();
    let (initial, target) = (StoreId(1), StoreId(2));
    let survivor = if told.way.is_forward() { target } else { initial };
    let stable = if told.way == Way::Completed { target } else { initial };
    assert_eq!(status.initial, if status.target.is_some() { initial } else { stable });
    resolve(&mut ledger, &tenant);
    check(&ledger, &tenant);
    for number in 0..5 {
        let answer = ask(&tenant, HERE, number);
        ledger.launched(HERE, number, answer);
    }
    check(&ledger, &tenant);
    stays(told, &ledger, &tenant);
    wind_up(&mut ledger, &tenant, survivor);
    check(&ledger, &tenant);
    engine.close(LONG).unwrap();
    drop(tenant);

    let (engine, tenant) = open(told, MUCH_LATER);
    finish(told, &ledger, &tenant);
    let status = tenant.status();
    assert_eq!((status.phase, status.initial, status.target), (Phase::Stable, survivor, None));
    assert!(status.epoch >= ledger.phase.0);
    check_definitions(&ledger, &tenant);
    check_keys(&ledger, &tenant);
    assert_eq!(list(&tenant, Some(true)), ledger.live());
    let free = ledger.keys.iter().find(|(_, id)| ledger.instances[id].ending.is_some());
    if let Some((key, _)) = free {
        started(tenant.launch(&keyed(key)).unwrap());
    }
    engine.close(LONG).unwrap();
    let there = |driver: &str| told.data.join("stores").join(driver).exists();
    let expected = (survivor == initial, survivor == target);
    assert_eq!((there(&told.from), there(&told.to)), expected, "the store that was left is removed");
}

/// All moments at which a process may abort on its way, in both directions.
fn all(way: Way) {
    for when in When::ALL {
        let stable = way.phase() == Phase::Stable;
        if (stable && when == When::Held) || (way == Way::Stable && when != When::Later) {
            continue;
        }
        for (from, to) in [(0, 1), (1, 0)] {
            let seed = fastrand::u64(..);
            let durability = if seed.is_multiple_of(4) { Durability::Synced } else { Durability::Buffered };
            let home = tempfile::tempdir().unwrap();
            let (from, to) = (DRIVERS[from].to_owned(), DRIVERS[to].to_owned());
            let data = home.path().join("data");
            let told = Told { way, when, durability, from, to, seed, data };
            eprintln!("{told:?}");
            scenario(&told, &home);
        }
    }
}

/// A test for each way, so that they run beside each other.
macro_rules! ways {
    ($($name:ident: $way:ident,)*) => {
        $(
            #[test]
            fn $name() {
                all(Way::$way);
            }
        )*

        #[test]
        fn every_way_has_its_test() {
            assert_eq!([$(Way::$way),*], child::Way::ALL);
        }
    };
}

ways! {
    stable: Stable,
    pre_migration: PreMigration,
    cancelled: Cancelled,
    migration: Migration,
    post_migration: PostMigration,
    completed: Completed,
    pre_rollback: PreRollback,
    rolling_back: RollingBack,
    reversed_at_once: ReversedAtOnce,
    post_rollback: PostRollback,
    rolled_back: RolledBack,
}
