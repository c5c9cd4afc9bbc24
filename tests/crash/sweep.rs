//! The sweep of all crash points.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use cutover::Durability;
use cutover::fault::{Act, Effect, Fault, Step};

use crate::check::check;
use crate::losses;
use crate::machine::{Crash, LONG, Machine};
use crate::script::Script;
use crate::scripts;
use crate::world::World;

/// How thorough a sweep is, asked for by the variable `CUTOVER_SWEEP`.
#[derive(Debug, Clone, Copy)]
struct Depth {
    /// Of the second crashes inside the recovery one of so many is made; 1 for all.
    recovery: u64,
    /// And of those in what the script does after it.
    after: u64,
    /// So many ways in which power loss takes the ends of what the stores were told, at `Buffered`.
    tails: usize,
}

impl Depth {
    fn asked_for() -> Self {
        match std::env::var("CUTOVER_SWEEP").as_deref() {
            Ok("full") => Self { recovery: 1, after: 1, tails: usize::MAX },
            Ok("recovery") => Self { recovery: 1, after: 50, tails: 16 },
            Ok(number) => panic!("CUTOVER_SWEEP is recovery or full, not {number:?}"),
            Err(_) => Self { recovery: 99, after: 499, tails: 3 },
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    /// Steps, and what a crash in each may leave of it.
    points: u64,
    /// The same, and what the disks may lose.
    runs: u64,
    /// A second crash inside the recovery, and after it.
    pairs: [u64; 2],
    /// Those of them that were not left out.
    made: [u64; 2],
}

/// What a crash in a step may leave of it.
pub(crate) fn moments(act: Act) -> &'static [Effect] {
    if act.can_tear() {
        &[Effect::Nothing, Effect::Half, Effect::Holes, Effect::Whole]
    } else {
        &[Effect::Nothing, Effect::Whole]
    }
}

/// The machine on which the script has come to where the sweep begins.
pub(crate) fn prepared<'s>(script: &'s Script, durability: Durability) -> World<'s> {
    let mut world = World::new(script, Machine::new(durability));
    if !script.before.is_empty() {
        world.open().unwrap();
        world.go_on(script.before.len()).unwrap();
        world.engine().close(LONG).unwrap();
    }
    let mut world = world.copy();
    // What was closed in order is synced: what is acknowledged from here on may be lost, nothing before.
    world.trace.clear();
    world
}

/// The durable steps from here to the end, opening included.
pub(crate) fn steps(mut world: World<'_>) -> Vec<Step> {
    world.faults().record();
    world.recover().unwrap();
    world.go_on(world.script.len()).unwrap();
    world.faults().trace()
}

/// Opens it, checks, goes on to the end, and checks again.
pub(crate) fn finish(mut world: World<'_>) {
    world.recover().unwrap();
    check(&world);
    world.go_on(world.script.len()).unwrap();
    check(&world);
    let names = world.engine().tenants();
    let stable = names.iter().all(|name| world.tenant(name).unwrap().status().target.is_none());
    assert!(stable, "the script ends where nothing is under way");
}

/// Runs into a crash in this step, and returns what is there as the process dies.
pub(crate) fn crashed<'s>(world: &World<'s>, number: u64, effect: Effect) -> World<'s> {
    let mut world = world.copy();
    world.machine.arm(number, false, Fault::Crash(effect));
    let ran = world.recover().and_then(|()| world.go_on(world.script.len()));
    assert!(world.faults().is_dead(), "step {number} was never made: {ran:?}");
    world.observe();
    world
}

/// Names the place if a check fails.
pub(crate) fn at<T>(place: impl Fn() -> String, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        eprintln!("at {}", place());
        resume_unwind(panic)
    })
}

/// What may be left after a crash: what is promised and no more, everything, and what lies between. Those that leave the same are left out.
fn crashes(dead: &World<'_>, depth: Depth) -> Vec<Crash> {
    let (tails, machine) = (dead.machine.tails(), &dead.machine);
    let nothing_left = tails.iter().all(|tail| *tail == 0);
    let mut crashes = vec![Crash::Kill];
    if !nothing_left {
        crashes.push(Crash::Abort);
    }
    if machine.durability == Durability::Synced {
        if !machine.files.is_synced() {
            crashes.push(Crash::PowerCut(Vec::new()));
        }
    } else if !nothing_left || !machine.files.is_synced() {
        // Each store loses a tail of its own.
        crashes.extend(losses::choices(&tails, depth.tails).into_iter().map(Crash::PowerCut));
    }
    crashes
}

fn sweep(script: &Script, durability: Durability) {
    let begun = Instant::now();
    let depth = Depth::asked_for();
    let base = prepared(script, durability);
    finish(base.copy());
    let there = steps(base.copy());
    assert_eq!(there, steps(base.copy()), "two runs take the same steps");
    let mut counts = Counts::default();
    for step in &there {
        for effect in moments(step.act) {
            counts.points += 1;
            let place = || format!("{durability:?} {}, {effect:?} of {step:?}", script.name);
            let dead = at(place, || crashed(&base, step.number, *effect));
            for crash in crashes(&dead, depth) {
                at(
                    || format!("{}, {crash:?}", place()),
                    || {
                        let left = dead.after(&crash);
                        finish(left.copy());
                        counts.runs += 1;
                        second(&left, depth, &mut counts);
                    },
                );
            }
        }
    }
    let Counts { points, runs, pairs, made } = counts;
    let took = begun.elapsed().as_secs_f64();
    println!(
        "{durability:?} {}: {} durable steps, {points} crash points, {runs} different crashes; second crashes made: {} of {} in the recovery, \
         {} of {} after it; {took:.1} s",
        script.name,
        there.len(),
        made[0],
        pairs[0],
        made[1],
        pairs[1],
    );
}

/// A second crash, at each step of what follows on the first one, up to the end of the script.
fn second(left: &World<'_>, depth: Depth, counts: &mut Counts) {
    let recovery = recovery(left.copy());
    for (at_step, step) in steps(left.copy()).iter().enumerate() {
        let (part, stride) = if at_step < recovery { (0, depth.recovery) } else { (1, depth.after) };
        for effect in moments(step.act) {
            counts.pairs[part] += 1;
            if !counts.pairs[part].is_multiple_of(stride) {
                continue;
            }
            let place = || format!("and {effect:?} of {step:?}");
            at(place, || {
                let dead = crashed(left, step.number, *effect);
                // By turns those that are possible there.
                let crashes = crashes(&dead, Depth { tails: 2, ..depth });
                let crash = &crashes[(counts.pairs[part] / stride) as usize % crashes.len()];
                at(|| format!("{crash:?}"), || finish(dead.after(crash)));
                counts.made[part] += 1;
            });
        }
    }
}

/// How many durable steps the opening takes.
fn recovery(mut world: World<'_>) -> usize {
    world.faults().record();
    world.recover().unwrap();
    world.faults().trace().len()
}

macro_rules! sweeps {
    ($($name:ident),* $(,)?) => {
        mod synced {
            $(#[test] fn $name() { super::sweep(&super::scripts::$name(), cutover::Durability::Synced); })*
        }

        mod buffered {
            $(#[test] fn $name() { super::sweep(&super::scripts::$name(), cutover::Durability::Buffered); })*
        }

        #[test]
        fn every_script_is_swept() {
            assert_eq!([$(stringify!($name)),*].len(), scripts::ALL.len());
        }
    };
}

sweeps! {
    first_opening, forward, cancel, reverse_at_once, reverse, reverse_twice, shared, delete, create, take_over, repair, moved, moved_back,
}
