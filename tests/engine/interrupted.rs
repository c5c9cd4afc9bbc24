//! Crashes, power loss and I/O errors in the middle of moving instances.

use std::time::Duration;

use cutover::fault::{Act, Effect, Fault};
use cutover::store::Write;
use cutover::{
    Durability, Ending, Engine, ErrorKind, InstanceId, Launch, Launched, NewStep, Settled, Task, Tenant,
};

use crate::common::{DROP, KEEP, keyed, many, memory, started, tenant, with_step, work};
use crate::moving::{check_large, claim, complete, done, drained, holder, large, leave, live, move_all};
use crate::swept::{Machine, step_until};

/// What was there before a move, looked at after whatever has become of it.
struct Before {
    running: InstanceId,
    ended: InstanceId,
    keyless: InstanceId,
    held: Task,
}

fn launch_some(tenant: &Tenant) -> Before {
    let running = with_step("running").input(b"input".to_vec()).step(NewStep::new("other").queue("other"));
    let running = started(tenant.launch(&running).unwrap());
    let worker = tenant.register(many("before")).unwrap();
    let held = worker.claim("other", Duration::ZERO).unwrap().unwrap();
    std::mem::forget(worker);
    let ended = started(tenant.launch(&keyed("ended")).unwrap());
    tenant.end(ended, Ending::Completed, b"out", "").unwrap();
    let keyless = started(tenant.launch(&work().step(NewStep::new("only"))).unwrap());
    Before { running, ended, keyless, held }
}

impl Before {
    /// Exactly one of each is there, and each goes on.
    fn check(&self, engine: &Engine, tenant: &Tenant) {
        let mut both = vec![self.running, self.keyless];
        both.sort_unstable();
        assert_eq!(live(tenant), both);
        assert_eq!(
            (holder(tenant, "running"), holder(tenant, "ended")),
            (Some(self.running), Some(self.ended))
        );
        assert_eq!(tenant.launch(&keyed("running")).unwrap(), Launched::Conflict { instance: self.running });
        assert_eq!(tenant.instance(self.ended).unwrap().unwrap().output, b"out");
        assert_eq!(tenant.input(self.running).unwrap().unwrap(), b"input");
        step_until(engine, || tenant.migration().progress().waiting_for == "being released");
        assert_eq!(live(tenant), both);
        let worker = tenant.register(many("after")).unwrap();
        assert!(matches!(worker.complete(&self.held, done()).unwrap(), Settled::Refused(_)));
        let other = worker.claim("other", Duration::ZERO).unwrap().unwrap();
        assert!(other.token > self.held.token && other.attempt == 1);
        worker.complete(&other, done()).unwrap();
        for _ in 0..2 {
            let task = claim(&worker);
            assert_eq!(
                worker.complete(&task, done()).unwrap(),
                Settled::Done { ended: Some(Ending::Completed) }
            );
        }
        assert!(worker.claim("default", Duration::ZERO).unwrap().is_none(), "no step is done twice");
        complete(engine, tenant);
        for id in [self.running, self.keyless, self.ended] {
            assert_eq!(tenant.instance(id).unwrap().unwrap().ending(), Some(Ending::Completed));
        }
        assert_eq!(holder(tenant, "running"), Some(self.running));
    }
}

/// The machine just before the moves, at this durability.
fn about_to_move(durability: Durability) -> (Machine, Engine, Tenant, Before) {
    let machine = Machine::new(durability);
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let before = launch_some(&tenant);
    leave(&engine, &tenant);
    tenant.migration().move_stragglers(Duration::ZERO).unwrap();
    (machine, engine, tenant, before)
}

/// The steps that change something until the store has drained.
fn steps_of_the_moves(durability: Durability) -> std::ops::RangeInclusive<u64> {
    let (machine, engine, tenant, _) = about_to_move(durability);
    let first = machine.faults.steps() + 1;
    drained(&engine, &tenant);
    assert_eq!(tenant.migration().progress().moves.moved, 3);
    first..=machine.faults.steps()
}

#[test]
fn a_crash_at_any_step_of_the_moves_leaves_each_instance_alive_once() {
    for durability in [Durability::Synced, Durability::Buffered] {
        let steps = steps_of_the_moves(durability);
        assert!(steps.clone().count() >= 9, "{steps:?}");
        for (step, effect) in steps.flat_map(|step| [(step, Effect::Nothing), (step, Effect::Whole)]) {
            for cut in [&[][..], &["a"], &["b"], &["a", "b"]] {
                let (machine, engine, tenant, before) = about_to_move(durability);
                machine.faults.at(step, Fault::Crash(effect));
                for _ in 0..50 {
                    drop(engine.step());
                }
                assert!(machine.faults.is_dead(), "{step}");
                drop(tenant);
                let machine = machine.next(cut);
                drop(engine);
                let engine = machine.open();
                let tenant = engine.tenant("acme").unwrap();
                eprintln!("{durability:?}, {effect:?} of {step}, {cut:?} cut");
                before.check(&engine, &tenant);
            }
        }
    }
}

/// What opening does about a move is done again if it does not come to its end.
#[test]
fn a_crash_while_a_move_is_settled_at_opening_loses_nothing() {
    for (step, effect) in steps_of_the_moves(Durability::Synced)
        .flat_map(|step| [(step, Effect::Nothing), (step, Effect::Whole)])
    {
        let (machine, engine, tenant, before) = about_to_move(Durability::Synced);
        machine.faults.at(step, Fault::Crash(effect));
        for _ in 0..50 {
            drop(engine.step());
        }
        drop(tenant);
        let first = machine.next(&[]);
        drop(engine);
        let twin = first.next(&[]);
        let opened = twin.open();
        let steps = twin.faults.steps();
        drop(opened);
        for second in 1..=steps {
            let again = first.next(&[]);
            again.faults.at(second, Fault::Crash(effect));
            drop(again.builder().open());
            assert!(again.faults.is_dead(), "{second} after {step}");
            let last = again.next(&["a", "b"]);
            let engine = last.open();
            let tenant = engine.tenant("acme").unwrap();
            eprintln!("{effect:?} of {step}, then of {second}");
            before.check(&engine, &tenant);
        }
    }
}

/// Nothing is answered of what nobody knows until the store is open again, and then it goes on by itself.
#[test]
fn an_error_at_any_step_of_the_moves_is_settled_when_the_store_is_open_again() {
    let steps = steps_of_the_moves(Durability::Synced);
    for (step, effect) in
        steps.flat_map(|step| [Effect::Nothing, Effect::Visible, Effect::Whole].map(|effect| (step, effect)))
    {
        let (machine, engine, tenant, before) = about_to_move(Durability::Synced);
        machine.faults.at(step, Fault::Fail(effect));
        for _ in 0..50 {
            engine.step().unwrap();
            for id in [before.running, before.keyless] {
                match tenant.instance(id) {
                    Ok(found) => assert_eq!(found.unwrap().ending(), None, "{effect:?} of {step}"),
                    Err(err) => assert!(
                        matches!(err.kind(), ErrorKind::Indeterminate | ErrorKind::Unavailable),
                        "{effect:?} of {step}: {err}"
                    ),
                }
            }
            machine.clock.advance(Duration::from_millis(100));
        }
        eprintln!("{effect:?} of {step}");
        before.check(&engine, &tenant);
    }
}

#[test]
fn a_crash_or_an_error_in_the_middle_of_a_large_move_leaves_it_whole() {
    let prepare = || {
        let machine = Machine::new(Durability::Synced);
        let engine = machine.open();
        let tenant = tenant(&engine, memory("a"), KEEP);
        let (id, input) = large(&tenant);
        leave(&engine, &tenant);
        tenant.migration().move_stragglers(Duration::ZERO).unwrap();
        (machine, engine, tenant, id, input)
    };
    let (machine, engine, tenant, ..) = prepare();
    let first = machine.faults.steps() + 1;
    machine.faults.record();
    drained(&engine, &tenant);
    let relaxed = machine.faults.trace().into_iter().filter(|step| step.act == Act::Commit(Write::Relaxed));
    assert!(relaxed.count() >= 2, "it has no room in one batch");
    for step in first..=machine.faults.steps() {
        for fault in [Fault::Crash(Effect::Whole), Fault::Fail(Effect::Visible)] {
            let (machine, engine, tenant, id, input) = prepare();
            machine.faults.at(step, fault);
            for _ in 0..50 {
                drop(engine.step());
                machine.clock.advance(Duration::from_millis(100));
            }
            eprintln!("{fault:?} at {step}");
            let (engine, tenant) = match machine.faults.is_dead() {
                true => {
                    drop(tenant);
                    let machine = machine.next(&[]);
                    drop(engine);
                    let engine = machine.open();
                    let tenant = engine.tenant("acme").unwrap();
                    (engine, tenant)
                }
                false => (engine, tenant),
            };
            drained(&engine, &tenant);
            complete(&engine, &tenant);
            check_large(&tenant, id, &input);
        }
    }
}

#[test]
fn a_refused_write_leaves_the_instance_where_it_is_with_its_step_to_be_taken() {
    let (machine, engine, tenant, before) = about_to_move(Durability::Synced);
    machine.fail(Act::Commit(Write::Synced), "b", Effect::Nothing);
    // b takes no writes from now on, until the engine has opened it again.
    let launch = Launch::new("work", 1);
    assert_eq!(tenant.launch(&launch).unwrap_err().kind(), ErrorKind::Indeterminate);
    machine.faults.script(|step| match step.act {
        Act::Open => Fault::Fail(Effect::Nothing),
        _ => Fault::None,
    });
    for _ in 0..10 {
        engine.step().unwrap();
    }
    assert_eq!(tenant.instance(before.running).unwrap().unwrap().ending(), None);
    let worker = tenant.register(many("w")).unwrap();
    let task = worker.claim("other", Duration::ZERO);
    assert!(task.unwrap().is_none_or(|task| task.instance == before.running));
    drop(worker);
    machine.faults.clear();
    for _ in 0..50 {
        engine.step().unwrap();
        machine.clock.advance(Duration::from_millis(200));
    }
    before.check(&engine, &tenant);
}

/// What was moved and has ended since leaves no trace that power loss could bring back.
#[test]
fn an_instance_that_was_moved_and_collected_does_not_come_back_after_power_loss() {
    let machine = Machine::new(Durability::Buffered);
    let engine = machine.open();
    let before = tenant(&engine, memory("a"), DROP);
    let id = started(before.launch(&with_step("k")).unwrap());
    leave(&engine, &before);
    move_all(&engine, &before);
    before.terminate(id, "").unwrap();
    step_until(&engine, || before.instance(id).unwrap().is_none());
    // It survives in its store, and with it all that came before.
    let later = started(before.launch(&work()).unwrap());
    drop(before);
    let machine = machine.next(&["a"]);
    drop(engine);
    let engine = machine.open();
    let after = engine.tenant("acme").unwrap();
    assert!(after.instance(id).unwrap().is_none());
    assert_eq!(live(&after), [later]);
    started(after.launch(&with_step("k")).unwrap());
}
