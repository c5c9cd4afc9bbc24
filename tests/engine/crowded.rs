//! Many threads on a tenant whose instances are moved.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cutover::{
    Completion, ConflictPolicy, Ended, Ending, ErrorKind, Filter, InstanceId, Launched, MigrationOptions,
    NewStep, Phase, Refusal, ReusePolicy, Settled, Task, Tenant,
};
use parking_lot::Mutex;

use crate::common::{DROP, Home, KEEP, LONG, keyed, many, memory, reach, settle, started, tenant, with_step};
use crate::moving::{done, holder, live, options, refused, until};

/// Which steps took effect, and how often.
type Effects = Mutex<HashMap<(InstanceId, String), u32>>;

/// Works until told to stop: each step offers the next one, the last one ends its instance.
fn toil(tenant: &Tenant, effects: &Effects, stop: &AtomicBool) {
    let worker = tenant.register(many("w")).unwrap();
    let mut count = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        let Some(task) = worker.claim("default", Duration::from_millis(1)).unwrap() else { continue };
        count += 1;
        if count.is_multiple_of(16) {
            // Long enough for its instance to be moved meanwhile.
            std::thread::sleep(Duration::from_micros(500));
        }
        let number: u32 = task.step.parse().unwrap();
        let next = (number < CHAIN).then(|| NewStep::new(format!("{}", number + 1)));
        let completion = Completion { next: next.into_iter().collect(), ..done() };
        if let Settled::Done { .. } = worker.complete(&task, completion).unwrap() {
            *effects.lock().entry((task.instance, task.step)).or_default() += 1;
        }
    }
}

const CHAIN: u32 = 40;
const RUNNING: usize = 1_000;

/// Everybody who asks finds every instance, by id and by key, all the time.
fn ask(tenant: &Tenant, ids: &[InstanceId], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for (n, id) in ids.iter().enumerate() {
            assert!(tenant.instance(*id).unwrap().is_some(), "{id} is not there");
            assert_eq!(holder(tenant, &format!("{n}")), Some(*id));
            assert!(tenant.input(*id).unwrap().unwrap() == n.to_le_bytes());
            let again = tenant.launch(&keyed(&format!("{n}")).reuse(ReusePolicy::RejectDuplicate)).unwrap();
            assert!(!matches!(again, Launched::Started(_)), "{n} is launched a second time");
        }
        let listed = tenant.list(&Filter::default(), None, 100_000).unwrap();
        assert_eq!(listed.instances.len(), ids.len(), "each once");
    }
}

#[test]
fn a_thousand_moves_under_load_forward_and_back_lose_nothing_and_do_no_step_twice() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let launch = |n: usize| {
        let first = NewStep::new("1");
        let held = NewStep::new("held").queue("held");
        let launch = keyed(&format!("{n}")).input(n.to_le_bytes().to_vec()).step(first);
        started(tenant.launch(&if n < 50 { launch.step(held) } else { launch }).unwrap())
    };
    let ids: Vec<InstanceId> = (0..RUNNING).map(launch).collect();
    let zombie = tenant.register(many("zombie")).unwrap();
    let tasks: Vec<Task> = (0..50).map(|_| zombie.claim("held", Duration::ZERO).unwrap().unwrap()).collect();
    let (effects, stop) = (Effects::default(), AtomicBool::new(false));
    let moves = || tenant.migration().progress().moves;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| toil(&tenant, &effects, &stop));
        }
        scope.spawn(|| ask(&tenant, &ids, &stop));
        let _stop = Stop(&stop);
        tenant.migration().start(memory("b"), options()).unwrap();
        reach(&tenant, Phase::PostMigration);
        tenant.migration().move_stragglers(Duration::ZERO).unwrap();
        until(|| moves().moved >= 100);
        // In the middle of them, and back again in the middle of those.
        tenant.migration().reverse().unwrap();
        reach(&tenant, Phase::PostRollback);
        until(|| tenant.migration().progress().waiting_for == "being released");
        tenant.migration().reverse().unwrap();
        reach(&tenant, Phase::PostMigration);
        until(|| tenant.migration().progress().waiting_for == "being released");
        // A hundred there and back, and then all of them.
        assert!(moves().moved >= RUNNING as u64 + 200, "{:?}", moves());
        for task in &tasks {
            let late = zombie.complete(task, done()).unwrap();
            assert_eq!(late, refused(Refusal::Moved), "{task:?}");
        }
        drop(zombie);
        let worker = tenant.register(many("w")).unwrap();
        for _ in 0..50 {
            let task = worker.claim("held", LONG).unwrap().unwrap();
            worker.complete(&task, done()).unwrap();
            *effects.lock().entry((task.instance, task.step)).or_default() += 1;
        }
        until(|| live(&tenant).is_empty());
    });
    let effects = effects.into_inner();
    assert!(effects.values().all(|count| *count == 1), "no step took effect twice");
    assert_eq!(effects.len(), RUNNING * CHAIN as usize + 50, "none was skipped");
    println!("{:?}", moves());
}

/// Lets the others end also when this thread panics.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const KEYS: u32 = 500;

/// Launches, replaces, ends, cancels and terminates on few keys, and looks; nothing lives twice, whatever moves meanwhile.
fn meddle(tenant: &Tenant, seed: u64, stop: &AtomicBool) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let worker = tenant.register(many("w")).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let key = rng.u32(..KEYS).to_string();
        let policy = match rng.u8(..4) {
            0 => ConflictPolicy::TerminateExisting,
            _ => ConflictPolicy::UseExisting,
        };
        let id = match tenant.launch(&with_step(&key).on_conflict(policy)).unwrap() {
            Launched::Started(id) | Launched::Existing(id) => id,
            other => panic!("{other:?}"),
        };
        // It may be collected before anybody looks.
        let gone = |err: cutover::Error| assert_eq!(err.kind(), ErrorKind::NotFound, "{err}");
        match rng.u8(..10) {
            0 => drop(tenant.end(id, Ending::Completed, b"", "").map_err(gone)),
            1 => drop(tenant.cancel(id, "").map_err(gone)),
            2 => drop(tenant.terminate(id, "").map_err(gone)),
            3..=5 => drop(tenant.instance_by_key("scope", key.as_bytes()).unwrap()),
            6..=8 => drop(tenant.instance(id).unwrap()),
            _ => {
                if let Some(task) = worker.claim("default", Duration::ZERO).unwrap() {
                    worker.heartbeat(&task).unwrap();
                    worker.complete(&task, done()).unwrap();
                }
            }
        }
        if rng.u8(..) == 0 {
            let filter = Filter { live: Some(true), ..Filter::default() };
            let listed = tenant.list(&filter, None, 10_000).unwrap().instances;
            assert!(listed.len() <= KEYS as usize + 4, "about as many as there are keys: {}", listed.len());
        }
    }
}

#[test]
fn whatever_is_done_to_instances_while_they_move_leaves_each_key_one_at_most() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("s0"), DROP);
    let stop = AtomicBool::new(false);
    let mut moved = 0;
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (tenant, stop) = (&tenant, &stop);
            scope.spawn(move || meddle(tenant, seed, stop));
        }
        let _stop = Stop(&stop);
        let migration = tenant.migration();
        for round in 1..40 {
            migration.start(memory(&format!("s{round}")), MigrationOptions::default().move_rate(0)).unwrap();
            reach(&tenant, Phase::PostMigration);
            // It may be over already.
            drop(migration.move_stragglers(Duration::ZERO));
            if round % 3 == 0 {
                drop(migration.reverse());
            }
            settle(&tenant);
            moved += migration.progress().moves.moved;
        }
    });
    println!("{moved} moved");
    assert!(moved > 1_000, "{moved} moved");
    let left = live(&tenant);
    let keys: HashMap<String, InstanceId> =
        (0..KEYS).filter_map(|key| Some((key.to_string(), holder(&tenant, &key.to_string())?))).collect();
    for id in &left {
        let (_, key) = tenant.instance(*id).unwrap().unwrap().key.unwrap();
        let key = String::from_utf8(key).unwrap();
        assert_eq!(keys.get(&key), Some(id), "{key} is held by another one");
        assert_eq!(tenant.terminate(*id, "").unwrap(), Ended::Now);
    }
    assert!(live(&tenant).is_empty());
}
