//! What the sweeps of crash points and of I/O errors (`tests/crash/`) have found, each by itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cutover::clock::{Clock as _, ManualClock};
use cutover::fault::{Act, Effect, Fault, Faults};
use cutover::files::MemoryFiles;
use cutover::store::Write;
use cutover::store::memory::MemoryDriver;
use cutover::{
    Builder, ConflictPolicy, Durability, Ending, Engine, ErrorKind, Launched, MigrationOptions, Phase, Ran,
    Retention, RunId, StoreSpec, Tenant, TenantOptions,
};

use crate::common::{DROP, KEEP, LONG, keyed, many, memory, started, tenant, work};

/// A machine without threads, all in memory.
pub(crate) struct Machine {
    disks: MemoryDriver,
    files: MemoryFiles,
    pub(crate) faults: Faults,
    pub(crate) clock: Arc<ManualClock>,
    durability: Durability,
}

impl Machine {
    pub(crate) fn new(durability: Durability) -> Self {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let (disks, files, faults) = (MemoryDriver::new(), MemoryFiles::new(), Faults::new());
        Self { disks, files, faults, clock, durability }
    }

    pub(crate) fn open(&self) -> Engine {
        self.builder().open().unwrap()
    }

    pub(crate) fn builder(&self) -> Builder {
        Engine::builder("/data")
            .durability(self.durability)
            .driver(self.faults.driver(Arc::new(self.disks.clone())))
            .files(self.faults.files(Arc::new(self.files.clone())))
            .clock(self.clock.clone())
            .background(false)
    }

    /// The process is killed and opened again; power loss takes from the stores that are named what they were not told to keep.
    pub(crate) fn reopen(&self, engine: Engine, cut: &[&str]) -> (Engine, Tenant) {
        self.disks.paths().iter().for_each(|path| self.disks.kill(path));
        for store in cut {
            self.disks.power_cut(&Path::new("/data").join(store));
        }
        drop(engine.close(LONG));
        drop(engine);
        self.faults.clear();
        let engine = self.open();
        let tenant = engine.tenant("acme").unwrap();
        (engine, tenant)
    }

    /// What the next process finds after a crash of this one; power loss takes from the stores that are named what they were not told to keep.
    pub(crate) fn next(&self, cut: &[&str]) -> Self {
        let (disks, files, faults) = (self.disks.copy(), self.files.copy(), Faults::new());
        disks.paths().iter().for_each(|path| disks.kill(path));
        for store in cut {
            disks.power_cut(&Path::new("/data").join(store));
        }
        let clock = Arc::new(ManualClock::at(self.clock.wall_ms()));
        Self { disks, files, faults, clock, durability: self.durability }
    }

    /// The next step of this kind, at a path that ends so, fails after it has had this effect.
    pub(crate) fn fail(&self, act: Act, path: &'static str, effect: Effect) {
        let mut armed = true;
        self.faults.script(move |step| {
            if armed && step.act == act && step.path.ends_with(path) {
                armed = false;
                return Fault::Fail(effect);
            }
            Fault::None
        });
    }
}

pub(crate) fn step_until(engine: &Engine, so: impl Fn() -> bool) {
    for _ in 0..300 {
        if so() {
            return;
        }
        engine.step().unwrap();
    }
    panic!("it does not get there");
}

pub(crate) fn go_to(engine: &Engine, tenant: &Tenant, phase: Phase) {
    step_until(engine, || tenant.status().phase == phase);
}

/// The copies were seen in the other store, not durable, and the originals removed.
#[test]
fn a_request_that_could_not_be_carried_over_durably_stays_where_it_was() {
    let machine = Machine::new(Durability::Synced);
    let engine = machine.open();
    let requests = Retention { request_ms: 3_600_000, ..DROP };
    let before = tenant(&engine, memory("a"), requests);
    let launch = keyed("k").request_id("r");
    let id = started(before.launch(&launch).unwrap());
    before.end(id, Ending::Completed, b"", "").unwrap();
    machine.clock.advance(Duration::from_millis(1));
    before.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    go_to(&engine, &before, Phase::PostMigration);
    machine.fail(Act::Commit(Write::Synced), "b", Effect::Visible);
    for _ in 0..20 {
        engine.step().unwrap();
    }
    // Makes durable whatever was removed.
    drop(before.migration().complete());
    let (_engine, after) = machine.reopen(engine, &[]);
    assert_eq!(after.launch(&launch).unwrap(), Launched::Started(id), "launched a second time");
}

/// Each store loses a tail of its own: what says that the new one is to be started has to outlive the end of the old one.
#[test]
fn a_replacement_over_two_stores_is_not_torn_by_power_loss_at_buffered() {
    let machine = Machine::new(Durability::Buffered);
    let engine = machine.open();
    let before = tenant(&engine, memory("a"), KEEP);
    let old = started(before.launch(&keyed("k")).unwrap());
    before.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    go_to(&engine, &before, Phase::PostMigration);
    let replacing = keyed("k").on_conflict(ConflictPolicy::TerminateExisting);
    let new = started(before.launch(&replacing).unwrap());
    let (_engine, after) = machine.reopen(engine, &["b"]);
    assert_eq!(after.instance(old).unwrap().unwrap().ending(), Some(Ending::Terminated));
    let holder = after.instance_by_key("scope", b"k").unwrap().unwrap();
    assert_eq!((holder.id, holder.ending()), (new, None));
}

/// It was found in the target, where it is lost when the migration is called off.
#[test]
fn a_definition_that_is_launched_after_power_loss_is_where_the_launch_is() {
    let machine = Machine::new(Durability::Buffered);
    let engine = machine.open();
    let before = tenant(&engine, memory("a"), KEEP);
    before.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    // What came before it is to stay.
    before.migration().hold(cutover::Hold::Switch).unwrap();
    for _ in 0..10 {
        engine.step().unwrap();
    }
    engine.close(LONG).unwrap();
    drop((engine, before));
    let engine = machine.open();
    let before = engine.tenant("acme").unwrap();
    before.define("late", 1, "text/plain", b"x").unwrap();
    let (engine, after) = machine.reopen(engine, &["a"]);
    started(after.launch(&cutover::Launch::new("late", 1)).unwrap());
    after.migration().cancel().unwrap();
    step_until(&engine, || after.migration().wait_settled(Duration::ZERO).unwrap());
    assert!(after.definition("late", 1).unwrap().is_some());
}

/// The first try had written its files although it failed: there were two tenants of one name.
#[test]
fn a_tenant_whose_making_failed_can_be_made_again_and_is_there_once() {
    for (name, path) in [("tenant-0.a", "c"), ("tenant-0.b", "c"), ("catalog.a", "c"), ("catalog.b", "c")] {
        let machine = Machine::new(Durability::Synced);
        let engine = machine.open();
        machine.fail(Act::Rename, name, Effect::Whole);
        let options = || TenantOptions::new(StoreSpec::driver("memory").path(path).dedicated());
        let failed = engine.create_tenant("acme", options()).err().unwrap();
        assert_eq!(failed.kind(), ErrorKind::Io, "{name}: {failed}");
        let made = (0..3).find_map(|_| engine.create_tenant("acme", options()).ok()).unwrap();
        made.define("work", 1, "t", b"").unwrap();
        let id = started(made.launch(&work()).unwrap());
        let (engine, after) = machine.reopen(engine, &[]);
        assert_eq!(engine.tenants(), ["acme"]);
        assert_eq!(after.id(), made.id(), "{name}");
        assert!(after.instance(id).unwrap().is_some());
    }
}

/// A target from which nothing can be read concerns the migration and nobody else.
#[test]
fn a_target_that_cannot_be_read_before_the_switch_fails_no_call_on_instances() {
    let machine = Machine::new(Durability::Synced);
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    machine.faults.script(|step| match step.act {
        Act::ReadStore if step.path.ends_with("b") => Fault::Fail(Effect::Nothing),
        _ => Fault::None,
    });
    engine.step().unwrap();
    assert_eq!(tenant.status().phase, Phase::PreMigration);
    let launch = keyed("k").request_id("r").step(cutover::NewStep::new("s"));
    let id = started(tenant.launch(&launch).unwrap());
    assert_eq!(tenant.launch(&launch).unwrap(), Launched::Started(id));
    assert!(tenant.instance(id).unwrap().is_some());
    let worker = tenant.register(many("w")).unwrap();
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    worker.complete(&task, cutover::Completion::default()).unwrap();
    tenant.define("new", 1, "t", b"").unwrap();
    assert!(tenant.definition("new", 1).unwrap().is_some());
    tenant.migration().cancel().unwrap();
}

/// The store of the target was made and the record that says so was not: the same run finds it there and takes it, also after a crash.
#[test]
fn a_target_that_was_made_and_never_recorded_is_adopted() {
    let run = RunId { id: "up".into(), attempt: "1".into() };
    for crashed in [false, true] {
        let machine = Machine::new(Durability::Synced);
        let engine = machine.open();
        let site = tenant(&engine, memory("a"), KEEP);
        machine.fail(Act::Append, "tenant-0.jsonl", Effect::Nothing);
        let ask = |site: &Tenant| site.migration().run(&run, memory("b"), MigrationOptions::default());
        ask(&site).unwrap_err();
        assert_eq!(site.status().phase, Phase::Stable);
        let orphan = cutover::StoreId(2);
        assert_eq!(engine.store_path(orphan), Some(Path::new("/data/b").to_path_buf()), "it was made");
        let (engine, site) = if crashed { machine.reopen(engine, &[]) } else { (engine, site) };
        assert!(matches!(ask(&site).unwrap(), Ran::Began(_)));
        let target = site.status().target.unwrap();
        assert_eq!(target == orphan, !crashed, "opening removes what nobody uses, and its number with it");
        step_until(&engine, || site.status().phase == Phase::Stable && site.status().initial == target);
    }
}
