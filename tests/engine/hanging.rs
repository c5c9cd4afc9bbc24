//! A store that hangs delays those who need it, and nobody else; and it is said who hangs in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover::{
    Engine, ErrorKind, Event, HandoverOptions, Hold, Launch, MigrationOptions, Observer, Phase, Result,
    StoreSpec, Tenant, TenantOptions,
};
use parking_lot::Mutex;

use crate::common::{DROP, KEEP, LONG, keyed, memory, reach, settle, started, work};
use crate::disks::Machine;

/// Launchers that hang: with the stripes of their locks shared between tenants, one launch in ten of others would meet one.
const HANGING: usize = 64;

fn tenant(engine: &Engine, name: &str, store: StoreSpec) -> Tenant {
    let tenant = engine.create_tenant(name, TenantOptions::new(store).retention(KEEP)).unwrap();
    tenant.define("work", 1, "t", b"").unwrap();
    tenant
}

/// Runs `act` while the store hangs with so many launches in it.
fn while_hanging(machine: &Machine, store: &str, tenant: &Tenant, launchers: usize, act: impl FnOnce()) {
    machine.hang(store, true);
    std::thread::scope(|scope| {
        let launch = |n: usize| tenant.launch(&keyed(&format!("hanging {n}")).request_id(format!("{n}")));
        let hanging: Vec<_> = (0..launchers).map(|n| scope.spawn(move || launch(n))).collect();
        // The store is let go in a panic too, or the scope would wait for ever.
        let _let_go = LetGo(machine, store);
        let until = Instant::now() + LONG;
        while tenant.migration().progress().slow.len() < launchers {
            assert!(Instant::now() < until, "{:?}", tenant.migration().progress());
            std::thread::sleep(Duration::from_millis(5));
        }
        act();
        assert!(hanging.iter().all(|launch| !launch.is_finished()), "they hung all the time");
        drop(_let_go);
        for launch in hanging {
            started(launch.join().unwrap().unwrap());
        }
    });
}

struct LetGo<'m>(&'m Machine, &'m str);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.0.hang(self.1, false);
    }
}

#[test]
fn a_tenant_in_another_store_launches_moves_and_is_made_meanwhile() {
    let machine = Machine::new();
    let engine = machine.open();
    let hung = tenant(&engine, "hung", memory("a"));
    let other = tenant(&engine, "other", memory("b"));
    while_hanging(&machine, "a", &hung, HANGING, || {
        for n in 0..500 {
            started(other.launch(&keyed(&format!("{n}")).request_id(format!("{n}"))).unwrap());
        }
        other.migration().start(memory("c"), MigrationOptions::default().hold_complete(true)).unwrap();
        reach(&other, Phase::PostMigration);
        started(other.launch(&keyed("after the switch")).unwrap());
        let made = tenant(&engine, "made meanwhile", memory("d"));
        started(made.launch(&work()).unwrap());
        // Long enough that all of them have hung for more than a moment.
        std::thread::sleep(Duration::from_millis(200));
        let names: Vec<String> = hung.migration().progress().slow;
        assert_eq!(names.len(), HANGING, "they still hang: {names:?}");
        assert!(names.iter().all(|name| name.contains("launch")), "{names:?}");
    });
}

/// A driver that hangs in opening a store holds up whoever asked for that store.
#[test]
fn opening_a_store_that_hangs_holds_up_nobody_else() {
    let machine = Machine::new();
    let engine = machine.open();
    let other = tenant(&engine, "other", memory("b"));
    let moving = tenant(&engine, "moving", memory("c"));
    machine.hang("a", true);
    std::thread::scope(|scope| {
        let _let_go = LetGo(&machine, "a");
        let start = scope.spawn(|| moving.migration().start(memory("a"), MigrationOptions::default()));
        std::thread::sleep(Duration::from_millis(50));
        started(other.launch(&keyed("k")).unwrap());
        started(moving.launch(&keyed("k")).unwrap());
        assert!(engine.store_path(other.status().initial).is_some());
        started(tenant(&engine, "made meanwhile", memory("d")).launch(&work()).unwrap());
        other.migration().start(memory("e"), MigrationOptions::default().hold_complete(true)).unwrap();
        reach(&other, Phase::PostMigration);
        let began = Instant::now();
        let said = moving.migration().progress();
        assert!(began.elapsed() < LONG / 4, "the progress of one who starts a move can be asked for");
        assert_eq!(said.status.phase, Phase::Stable);
        assert!(!start.is_finished());
        drop(_let_go);
        start.join().unwrap().unwrap();
    });
    reach(&moving, Phase::PostMigration);
}

/// The wait of the close says which threads hold it up, in the progress at once and as its error after a while.
#[test]
fn the_wait_of_a_close_names_who_holds_it_up() {
    let machine = Machine::new();
    let engine = machine.open();
    let tenant = tenant(&engine, "acme", memory("a"));
    let dwell = MigrationOptions::default()
        .dwell(Phase::PreMigration, Duration::from_millis(1_500))
        .hold_complete(true);
    tenant.migration().start(memory("b"), dwell).unwrap();
    let define = |name: &str| -> Result<()> { tenant.define(name, 1, "t", b"").map(drop) };
    machine.hang("a", true);
    std::thread::scope(|scope| {
        let _let_go = LetGo(&machine, "a");
        let hanging = std::thread::Builder::new()
            .name("the slow one".into())
            .spawn_scoped(scope, || define("hangs"))
            .unwrap();
        let until = Instant::now() + LONG;
        loop {
            let began = Instant::now();
            let said = tenant.migration().progress();
            assert!(began.elapsed() < LONG / 4, "progress itself hung");
            if said.waiting_for.contains("thread the slow one (define, for") && !said.slow.is_empty() {
                break;
            }
            assert!(Instant::now() < until, "{said:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!hanging.is_finished());
        drop(_let_go);
        hanging.join().unwrap().unwrap();
    });
    reach(&tenant, Phase::PostMigration);
    tenant.migration().release(Hold::Complete).unwrap();
    settle(&tenant);
}

/// After some seconds a wait is told as what stands in the way; it goes on.
#[test]
fn a_wait_that_takes_long_is_told_as_an_error() {
    let machine = Machine::new();
    let engine = machine.open();
    let tenant = tenant(&engine, "acme", memory("a"));
    machine.hang("a", true);
    std::thread::scope(|scope| {
        let _let_go = LetGo(&machine, "a");
        let define = || tenant.define("hangs", 1, "t", b"").map(drop);
        let hanging =
            std::thread::Builder::new().name("the slow one".into()).spawn_scoped(scope, define).unwrap();
        let until = Instant::now() + LONG;
        while tenant.migration().progress().slow.is_empty() {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(5));
        }
        tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
        let began = Instant::now();
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(tenant.migration().progress().error, None, "it has not taken long yet");
        let error = loop {
            if let Some(error) = tenant.migration().progress().error {
                break error;
            }
            assert!(Instant::now() < until, "{:?}", tenant.migration().progress());
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(began.elapsed() > Duration::from_secs(4));
        let named = "the phase waits for \"the slow one\" in \"define\" for ";
        assert!(error.starts_with(named) && error.ends_with(" ms"), "{error}");
        drop(_let_go);
        hanging.join().unwrap().unwrap();
    });
    settle(&tenant);
    assert_eq!(tenant.migration().progress().error, None, "it is over");
}

/// A tenant whose migration hangs in its store "b", and the thread that drives migrations with it.
fn while_the_driver_hangs(machine: &Machine, engine: &Engine, act: impl FnOnce(&Tenant)) {
    let hung = engine.create_tenant("acme", TenantOptions::new(memory("a")).retention(DROP)).unwrap();
    hung.define("work", 1, "t", b"").unwrap();
    let held = MigrationOptions::default().hold_switch(true).hold_complete(true);
    hung.migration().start(memory("b"), held).unwrap();
    let until = Instant::now() + LONG;
    while hung.migration().progress().waiting_for != "being released" {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(1));
    }
    machine.hang("b", true);
    let _let_go = LetGo(machine, "b");
    hung.migration().release(Hold::Switch).unwrap();
    loop {
        let said = hung.migration().progress();
        if said.slow.iter().any(|slow| slow.contains("cutover-drive (sync a store before a move")) {
            break;
        }
        assert!(Instant::now() < until, "{said:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    act(&hung);
    drop(_let_go);
    reach(&hung, Phase::PostMigration);
}

/// The driver itself hangs, in the sync before the switch: the progress says so and does not hang with it.
#[test]
fn a_move_that_hangs_in_a_store_is_named() {
    let machine = Machine::new();
    let engine = machine.open();
    let other = tenant(&engine, "other", memory("c"));
    while_the_driver_hangs(&machine, &engine, |hung| {
        started(hung.launch(&Launch::new("work", 1).key("s", "k")).unwrap());
        started(other.launch(&work()).unwrap());
        assert!(!hung.migration().wait_settled(Duration::from_millis(20)).unwrap());
    });
}

/// Requests wait for flips, so these wait for no store, also where nobody but the engine's threads makes them.
#[test]
fn a_tenant_changes_hands_in_the_background_while_the_driver_hangs_in_a_store() {
    let machine = Machine::new();
    let engine = machine.open();
    let other = tenant(&engine, "other", memory("c"));
    let old = engine.runner("old").unwrap().attach("other").unwrap();
    let new = engine.runner("new").unwrap().attach_standby("other").unwrap();
    while_the_driver_hangs(&machine, &engine, |_| {
        other.handover().prepare("new", &HandoverOptions::default().flip_in(Duration::ZERO)).unwrap();
        assert!(new.wait_to_act(LONG / 4).unwrap());
        assert!(!old.acts());
    });
}

/// The failures of migrations that were told.
#[derive(Default)]
struct Failures(Mutex<Vec<String>>);

impl Observer for Failures {
    fn on_event(&self, event: &Event) {
        if let Event::Failed { error, .. } = event {
            self.0.lock().push(error.clone());
        }
    }
}

/// A store that hangs under the driver or the replicator, and fails after the engine was told to close: that is no failure of the
/// migration, which goes on when the engine is opened again.
#[test]
fn what_fails_under_an_engine_that_closes_is_not_told_as_a_failure() {
    for (thread, does) in [("cutover-copy", "copy"), ("cutover-drive", "sync a store before a move")] {
        let machine = Machine::new();
        let failures = Arc::new(Failures::default());
        let engine = machine.builder().observer(failures.clone()).open().unwrap();
        let moving = tenant(&engine, "acme", memory("a"));
        let options = MigrationOptions::default().hold_switch(true).hold_complete(true);
        moving.migration().start(memory("b"), options.rate(1)).unwrap();
        let until = Instant::now() + LONG;
        let wait = |there: &dyn Fn() -> bool| {
            while !there() {
                assert!(Instant::now() < until, "{:?}", moving.migration().progress());
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        if thread == "cutover-drive" {
            moving.migration().throttle(0).unwrap();
            wait(&|| moving.migration().progress().waiting_for == "being released");
        }
        machine.hang("b", true);
        let _let_go = LetGo(&machine, "b");
        moving.migration().throttle(0).unwrap();
        moving.migration().release(Hold::Switch).unwrap();
        wait(&|| moving.migration().progress().slow.iter().any(|slow| slow.contains(does)));
        let err = engine.close(Duration::from_millis(20)).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::TimedOut, "{err}");
        machine.die("b");
        drop(_let_go);
        // It may well say that a store could not be closed in order.
        drop(engine.close(LONG));
        assert_eq!(*failures.0.lock(), [""; 0], "{thread}");
    }
}
