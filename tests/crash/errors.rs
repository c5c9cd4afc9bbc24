//! The sweep of all I/O errors: each durable step fails once, with and without having happened, and each read; the engine goes on.
//!
//! What a call that failed says has to be true. One that is `Indeterminate` may have happened; one that ended in another error has not. A
//! launch fails only if a store fails that it needs. A write of metadata that failed is made good without opening again, and nothing
//! is published meanwhile that power loss would take back. In the end the process is killed, and what is found when it is opened again is
//! checked as after any crash.

use std::collections::BTreeSet;
use std::time::Instant;

use cutover::fault::{Act, Effect, Fault, Step};
use cutover::{ConflictPolicy, Durability, ErrorKind, Phase};

use crate::machine::Crash;
use crate::script::{Action, Run, SCOPE, Script};
use crate::scripts;
use crate::sweep::{at, finish, prepared, steps};
use crate::world::World;

/// Tries of a call after which a disk that fails once has to have done it.
const TRIES: usize = 4;

/// What a failure may leave of a step.
fn effects(act: Act) -> &'static [Effect] {
    match act {
        Act::Commit(_) => &[Effect::Nothing, Effect::Visible, Effect::Whole],
        act if act.can_tear() => &[Effect::Nothing, Effect::Half, Effect::Holes, Effect::Whole],
        _ => &[Effect::Nothing, Effect::Whole],
    }
}

/// What is made to fail.
#[derive(Debug, Clone)]
enum What {
    Step(Step, Effect),
    Read(u64),
}

/// What a call is about: calls that have nothing in common do not depend on each other.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Everything,
    Moves,
    Run(u32),
    Key(&'static str),
    Definition(u32),
}

fn about(script: &Script, at: usize) -> (&'static str, BTreeSet<About>) {
    let (tenant, action) = script.call(at);
    let of_run = |run: &Run| {
        let its = [About::Run(run.number), About::Definition(1)];
        its.into_iter().chain(run.key.map(About::Key)).collect()
    };
    let set = match action {
        Action::Create(_) | Action::CreateDedicated(_) | Action::Delete => [About::Everything].into(),
        Action::Define(number) | Action::DefineWithGap(number) => [About::Definition(number)].into(),
        Action::Launch(run) => of_run(&run),
        _ => match action.number() {
            Some(number) => (0..script.len())
                .find_map(|at| match script.call(at) {
                    (of, Action::Launch(run)) if of == tenant && run.number == number => Some(of_run(&run)),
                    _ => None,
                })
                .unwrap(),
            None => [About::Moves].into(),
        },
    };
    (tenant, set)
}

fn depends(script: &Script, at: usize, on: usize) -> bool {
    let ((tenant, one), (other_tenant, other)) = (about(script, at), about(script, on));
    tenant == other_tenant
        && (other.contains(&About::Everything)
            || one.contains(&About::Everything)
            || one.intersection(&other).next().is_some())
}

/// Runs into the failure and goes on with whatever does not depend on what failed. The engine is open when it returns, if it opened.
fn go_on_failing(world: &mut World<'_>, what: &What) {
    let mut looked = false;
    while world.at < world.script.len() {
        let at = world.at;
        world.at += 1;
        if world.left.iter().any(|left| depends(world.script, at, *left)) {
            world.left.push(at);
            continue;
        }
        if let (_, Action::Restart) = world.script.call(at) {
            // After the failure that is what is done in the end, with everything that is left.
            if world.machine.met().is_some() || world.make(at).is_err() {
                world.at = at;
                return;
            }
        } else {
            try_call(world, what, at);
        }
        if !looked && world.machine.met().is_some() {
            looked = true;
            published_is_durable(world);
        }
    }
}

/// What is published survives power loss now.
fn published_is_durable(world: &mut World<'_>) {
    world.observe();
    let mut after = world.after(&Crash::PowerCut(vec![usize::MAX; 8]));
    after.lossy = false;
    // The numbers of the one that goes on are not touched.
    let seed = fastrand::get_seed();
    after.open().unwrap();
    fastrand::seed(seed);
    for (name, book) in &after.books {
        let Ok(tenant) = after.tenant(name) else { continue };
        let (status, seen) = (tenant.status(), book.seen.unwrap());
        assert!(status.epoch >= seen.0, "{name}: {seen:?} was published, and {status:?} is durable");
    }
}

fn try_call(world: &mut World<'_>, what: &What, at: usize) {
    let (name, action) = world.script.call(at);
    let must = must_succeed(world, what, name, action);
    let mut tries = 0;
    loop {
        tries += 1;
        let Err(err) = world.make(at) else { return };
        assert!(
            !must && !is_read_of_target(world, what, name, action),
            "{name} {action:?} failed, and needs nothing that does: {err:?}"
        );
        let indeterminate = err.kind() == ErrorKind::Indeterminate;
        if indeterminate {
            in_doubt(world, name, action);
        } else if tries < TRIES && !is_of_store(what) && err.kind() != ErrorKind::TimedOut {
            // It has not happened, or the engine finds that it has; and the disk is well again.
            world.engine().step().unwrap();
            continue;
        }
        assert!(
            is_of_store(what) || (matches!(what, What::Read(_)) && indeterminate),
            "{name} {action:?} does not get over it: {err:?}"
        );
        world.left.push(at);
        if indeterminate || action == Action::Delete {
            world.doubts.push(at);
        }
        return;
    }
}

/// Whether a store takes no more writes after this.
fn is_of_store(what: &What) -> bool {
    matches!(what, What::Step(step, _) if step.act.is_of_store() && !matches!(step.act, Act::Open | Act::Destroy))
}

/// Whether this is a launch that does not need what fails.
fn must_succeed(world: &World<'_>, what: &What, name: &str, action: Action) -> bool {
    let Action::Launch(run) = action else { return false };
    let Ok(tenant) = world.tenant(name) else { return false };
    let status = tenant.status();
    let home = status.store(status.home()).and_then(|id| world.engine().store_path(id));
    match what {
        What::Step(step, _) if !is_of_store(what) => !step.act.is_of_store(),
        What::Step(step, _) => {
            let replaces = run.policy == ConflictPolicy::TerminateExisting;
            home.is_some_and(|home| home != step.path) && (!replaces || status.phase == Phase::PreMigration)
        }
        What::Read(_) => false,
    }
}

/// Whether this is a launch, nothing was ever launched in the target, and that could not be read.
fn is_read_of_target(world: &World<'_>, what: &What, name: &str, action: Action) -> bool {
    let (What::Read(_), Action::Launch(_)) = (what, action) else { return false };
    let Ok(tenant) = world.tenant(name) else { return false };
    let status = tenant.status();
    let target = status.target.and_then(|id| world.engine().store_path(id));
    status.phase == Phase::PreMigration && target.is_some() && world.machine.met() == target
}

/// Nobody is told anything about a request that is in doubt, nor about the key that it may have taken.
fn in_doubt(world: &World<'_>, name: &str, action: Action) {
    let Action::Launch(run) = action else { return };
    let tenant = world.tenant(name).unwrap();
    assert_eq!(tenant.launch(&run.request()).unwrap_err().kind(), ErrorKind::Indeterminate, "{run:?}");
    let book = &world.books[name];
    let Some(key) = run.key else { return };
    if book.holder(Some(key)).is_some() && run.policy == ConflictPolicy::Fail {
        return;
    }
    let found = tenant.instance_by_key(SCOPE, key.as_bytes());
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Indeterminate, "{key}");
    let other = Run { number: 999, key: Some(key), steps: 0, policy: ConflictPolicy::Fail };
    assert_eq!(tenant.launch(&other.request()).unwrap_err().kind(), ErrorKind::Indeterminate, "{key}");
}

fn failing(base: &World<'_>, what: &What) {
    let mut world = base.copy();
    match what {
        What::Step(step, effect) => world.machine.arm(step.number, false, Fault::Fail(*effect)),
        What::Read(number) => world.machine.arm(*number, true, Fault::Fail(Effect::Nothing)),
    }
    if world.open().is_err() {
        // Nothing is open: the next one opens.
        assert!(world.machine.met().is_some());
        finish(world.after(&Crash::Kill));
        return;
    }
    go_on_failing(&mut world, what);
    assert!(world.machine.met().is_some(), "it was never made");
    world.observe();
    let cut = world.machine.durability == Durability::Synced;
    for crash in [Crash::Kill, Crash::PowerCut(Vec::new())].into_iter().take(1 + usize::from(cut)) {
        at(|| format!("{crash:?}"), || finish(world.after(&crash)));
    }
}

fn sweep(script: &Script, durability: Durability) {
    let begun = Instant::now();
    let base = prepared(script, durability);
    let (writes, reads) = (steps(base.copy()), count_reads(&base));
    let mut runs = 0;
    for step in &writes {
        for effect in effects(step.act) {
            let what = What::Step(step.clone(), *effect);
            at(|| format!("{durability:?} {}, {what:?}", script.name), || failing(&base, &what));
            runs += 1;
        }
    }
    for number in 1..=reads {
        let what = What::Read(number);
        at(|| format!("{durability:?} {}, {what:?}", script.name), || failing(&base, &what));
        runs += 1;
    }
    let took = begun.elapsed().as_secs_f64();
    println!(
        "{durability:?} {}: {} durable steps and {reads} reads fail: {runs} runs, {took:.1} s",
        script.name,
        writes.len(),
    );
}

fn count_reads(base: &World<'_>) -> u64 {
    let mut world = base.copy();
    world.open().unwrap();
    world.go_on(world.script.len()).unwrap();
    world.faults().reads()
}

#[test]
fn forward_at_buffered() {
    sweep(&scripts::forward(), Durability::Buffered);
}

#[test]
fn reverse_at_buffered() {
    sweep(&scripts::reverse(), Durability::Buffered);
}

macro_rules! sweeps {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { sweep(&scripts::$name(), Durability::Synced); })*
    };
}

sweeps! {
    first_opening, forward, cancel, reverse_at_once, reverse, reverse_twice, shared, delete, create, take_over, repair, moved, moved_back,
}
