//! No payload in an error, an event, the journal or a `Debug`: a marker stands in every payload, and is looked for in every text.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cutover::formats::Family;
use cutover::store::memory::MemoryDriver;
use cutover::store::{Batch, Driver, Store, Visit, Write};
use cutover::{
    Again, Completion, ConflictPolicy, Engine, Error, ErrorKind, Event, Failure, Launch, MigrationOptions,
    NewStep, Observer, Result, Tenant, TenantOptions,
};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::common::{KEEP, LONG, many, memory, started};

/// In every payload, and in nothing else.
const MARKER: &[u8] = b"hunter2-payload";
/// How a list of numbers shows the marker.
const AS_NUMBERS: &str = "104, 117, 110, 116, 101, 114";

/// A disk on which everything can go wrong.
#[derive(Clone, Default)]
struct Disk {
    memory: MemoryDriver,
    going_wrong: Arc<Mutex<Wrong>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Wrong {
    #[default]
    Nothing,
    Reads,
    Writes,
    /// Values come back with a byte changed.
    Values,
}

struct Opened(Arc<dyn Store>, Arc<Mutex<Wrong>>);

impl Opened {
    fn check(&self, wrong: Wrong) -> Result<()> {
        if *self.1.lock() == wrong {
            return Err(Error::new(ErrorKind::Io, "the disk is gone"));
        }
        Ok(())
    }

    fn change(&self, value: &[u8]) -> Vec<u8> {
        let mut value = value.to_vec();
        if *self.1.lock() == Wrong::Values
            && let Some(last) = value.last_mut()
        {
            *last ^= 1;
        }
        value
    }
}

impl Driver for Disk {
    fn name(&self) -> &str {
        "memory"
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(Opened(self.memory.open(path)?, self.going_wrong.clone())))
    }

    fn destroy(&self, path: &Path) -> Result<()> {
        self.memory.destroy(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.memory.exists(path)
    }
}

impl Store for Opened {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.check(Wrong::Reads)?;
        Ok(self.0.get(family, key)?.map(|value| self.change(&value)))
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        self.check(Wrong::Reads)?;
        self.0.scan(family, from, to, &mut |key, value| visit(key, &self.change(value)))
    }

    fn commit(&self, batch: &Batch, write: Write) -> Result<()> {
        self.check(Wrong::Writes)?;
        self.0.commit(batch, write)
    }

    fn remove_range(&self, family: Family, from: &[u8], to: &[u8]) -> Result<()> {
        self.0.remove_range(family, from, to)
    }
}

/// Every text that comes out, and how many there were.
#[derive(Clone, Default)]
struct Texts(Arc<Mutex<usize>>);

impl Texts {
    fn look(&self, text: &str) {
        *self.0.lock() += 1;
        let marker = std::str::from_utf8(MARKER).unwrap();
        assert!(!text.contains(marker) && !text.contains(AS_NUMBERS), "a payload is in {text}");
    }

    /// Both forms of an error, down to its last cause. Says whether it was one.
    fn look_at<T>(&self, answer: Result<T>) -> bool {
        let Err(err) = answer else { return false };
        self.look(&format!("{err} {err:?}"));
        let mut next = std::error::Error::source(&err);
        while let Some(cause) = next {
            self.look(&format!("{cause} {cause:?}"));
            next = cause.source();
        }
        true
    }
}

impl Observer for Texts {
    fn on_event(&self, event: &Event) {
        self.look(&format!("{event:?}"));
    }
}

struct Site {
    _dir: TempDir,
    disk: Disk,
    engine: Engine,
    tenant: Tenant,
    texts: Texts,
}

fn payload() -> Vec<u8> {
    MARKER.repeat(3)
}

fn launch(key: &str) -> Launch {
    let steps = NewStep::new("first").input(payload());
    Launch::new("work", 1).key("scope", key).request_id(key).input(payload()).step(steps)
}

fn done() -> Completion {
    let next = vec![NewStep::new("second").input(payload())];
    Completion { result: payload(), next, output: payload() }
}

fn site() -> Site {
    let (dir, disk, texts) = (tempfile::tempdir().unwrap(), Disk::default(), Texts::default());
    let builder = Engine::builder(dir.path().join("data")).driver(Arc::new(disk.clone()));
    let engine = builder.observer(Arc::new(texts.clone())).background(false).open().unwrap();
    let options = TenantOptions::new(memory("a")).retention(KEEP);
    let tenant = engine.create_tenant("acme", options).unwrap();
    tenant.define("work", 1, "text/plain", &payload()).unwrap();
    Site { _dir: dir, disk, engine, tenant, texts }
}

/// Calls everything that can fail with a payload at hand, and says how many did.
fn call_everything(site: &Site, task: &cutover::Task, id: cutover::InstanceId) -> usize {
    let Site { engine, tenant, texts, .. } = site;
    let worker = tenant.register(many("w")).unwrap();
    let failed = [
        texts.look_at(tenant.launch(&launch("new"))),
        texts.look_at(tenant.launch(&launch("old").on_conflict(ConflictPolicy::TerminateExisting))),
        texts.look_at(tenant.launch(&launch("old").input(MARKER))),
        texts.look_at(tenant.define("work", 1, "text/plain", MARKER)),
        texts.look_at(tenant.define("more", 1, "text/plain", MARKER)),
        texts.look_at(tenant.definition("work", 1)),
        texts.look_at(tenant.instance(id)),
        texts.look_at(tenant.input(id)),
        texts.look_at(tenant.step_result(id, "first")),
        texts.look_at(tenant.instance_by_key("scope", b"old")),
        texts.look_at(tenant.list(&cutover::Filter::default(), None, 10)),
        texts.look_at(worker.claim("default", Duration::ZERO)),
        texts.look_at(worker.save(task, MARKER)),
        texts.look_at(worker.complete(task, done())),
        texts.look_at(worker.fail(task, &Failure::default())),
        texts.look_at(tenant.end(id, cutover::Ending::Completed, &payload(), "")),
        texts.look_at(tenant.migration().start(memory("b"), MigrationOptions::default())),
        texts.look_at(tenant.migration().complete()),
        texts.look_at(tenant.migration().complete_abandoning()),
    ];
    for _ in 0..20 {
        texts.look_at(engine.step());
    }
    texts.look(&format!("{:?}", tenant.migration().progress()));
    for line in tenant.migration().journal().unwrap() {
        texts.look(&format!("{line:?}"));
    }
    failed.into_iter().filter(|failed| *failed).count()
}

#[test]
fn no_error_event_or_journal_line_has_a_payload() {
    for wrong in [Wrong::Nothing, Wrong::Reads, Wrong::Writes, Wrong::Values] {
        for moving in [false, true] {
            let site = site();
            let id = started(site.tenant.launch(&launch("old")).unwrap());
            let worker = site.tenant.register(many("w")).unwrap();
            let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
            if moving {
                site.tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
                while site.tenant.status().phase != cutover::Phase::PostMigration {
                    site.engine.step().unwrap();
                }
            }
            *site.disk.going_wrong.lock() = wrong;
            let failed = call_everything(&site, &task, id);
            let expected = if wrong == Wrong::Nothing { 3 } else { 5 };
            assert!(failed >= expected, "{wrong:?}: only {failed} calls failed");
            site.texts.look_at(site.engine.close(LONG));
            let looked = *site.texts.0.lock();
            assert!(looked > 10, "{looked} texts");
        }
    }
}

#[test]
fn what_holds_a_payload_shows_its_length_only() {
    let site = site();
    let texts = &site.texts;
    texts.look(&format!("{:?} {:?}", launch("old"), done()));
    let id = started(site.tenant.launch(&launch("old")).unwrap());
    let worker = site.tenant.register(many("w")).unwrap();
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    worker.save(&task, &payload()).unwrap();
    worker.fail(&task, &Failure { again: Again::After(Duration::ZERO), ..Failure::default() }).unwrap();
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    let shown = format!("{task:?}");
    texts.look(&shown);
    assert!(shown.contains("input: <45 bytes>") && shown.contains("saved: <45 bytes>"), "{shown}");
    texts.look(&format!("{:?}", site.tenant.definition("work", 1).unwrap()));
    site.tenant.end(id, cutover::Ending::Completed, &payload(), "").unwrap();
    let shown = format!("{:?}", site.tenant.instance(id).unwrap());
    texts.look(&shown);
    assert!(shown.contains("output: <45 bytes>"), "{shown}");
    texts.look(&format!("{:?}", site.tenant.list(&cutover::Filter::default(), None, 10).unwrap()));
    texts.look(&format!("{:?}", site.disk.memory));
    let mut batch = Batch::new();
    batch.put(Family::Steps, b"k", MARKER);
    texts.look(&format!("{batch:?}"));
}

/// The records as well: whoever brings a layout of his own logs them.
#[test]
fn records_show_no_payload() {
    use cutover::formats::record::{
        DefinitionRecord, NoteRecord, PayloadRecord, RetryRecord, StepRecord, StepState,
    };
    let texts = Texts::default();
    let definition =
        DefinitionRecord { body: payload(), content_type: String::new(), digest: [0; 32], created_ms: 0 };
    let step = StepRecord {
        state: StepState::Completed,
        queue: String::new(),
        input: payload(),
        saved: payload(),
        result: payload(),
        retry: RetryRecord { first_ms: 1, most_ms: 1, attempts: 1, within_ms: 1 },
        attempts: 0,
        counted_from: 0,
        counted_ms: 0,
        history: Vec::new(),
        revision: 1,
    };
    let rows = vec![(1, b"key".to_vec(), payload())];
    let old = cutover::InstanceId(1);
    let old_store = cutover::StoreId(1);
    let note = NoteRecord::Replace { old, old_store, at_ms: 1, reason: String::new(), rows };
    texts.look(&format!("{definition:?} {step:?} {note:?} {:?}", PayloadRecord { bytes: payload() }));
}
