//! Running a scenario under many schedules.

use std::sync::Arc;
use std::time::Instant;

use shuttle::scheduler::{
    PctScheduler, RandomScheduler, ReplayScheduler, Scheduler, UncontrolledNondeterminismCheckScheduler,
};
use shuttle::{Config, FailurePersistence, Runner};

use crate::pairs::Pairs;
use crate::world::World;

/// Schedules of one scenario, unless told otherwise.
const QUICK: usize = 400;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn config() -> Config {
    let mut config = Config::new();
    // The engine was written for the stacks of real threads.
    config.stack_size = 1 << 20;
    config.failure_persistence = FailurePersistence::File(Some(env!("CARGO_TARGET_TMPDIR").into()));
    // Orderings weaker than SeqCst are the part of loom.
    config.silence_warnings = true;
    config
}

/// Runs the scenario: in every schedule a new engine, the scenario, and what has to hold at its end. Checks that each legal pair of phases was
/// met by some operation.
pub(crate) fn run(name: &str, scenario: impl Fn(&mut World) + Send + Sync + 'static) {
    if let Some(pairs) = run_whatever_they_meet(name, scenario) {
        pairs.check();
    }
}

/// The same, if the schedules are cut short. None was run if one was repeated.
pub(crate) fn run_whatever_they_meet(
    name: &str,
    scenario: impl Fn(&mut World) + Send + Sync + 'static,
) -> Option<Arc<Pairs>> {
    let pairs = Arc::new(Pairs::default());
    let scenario = {
        let pairs = Arc::clone(&pairs);
        Arc::new(move || {
            let mut world = World::new(Arc::clone(&pairs));
            scenario(&mut world);
            world.finish();
        })
    };
    if let Ok(file) = std::env::var("CUTOVER_REPLAY") {
        with(ReplayScheduler::new_from_file(file).unwrap(), &scenario);
        return None;
    }
    let schedules = number("CUTOVER_SCHEDULES").map_or(QUICK, |number| number as usize);
    let seed = number("CUTOVER_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{name}: seed {seed}");
    let begun = Instant::now();
    let (half, quarter) = (schedules.div_ceil(2), schedules.div_ceil(4));
    let mut run = with(RandomScheduler::new_from_seed(seed, half), &scenario);
    // Few changes of who goes first find what needs a long run undisturbed, many what needs several at the right places.
    run += with(PctScheduler::new_from_seed(seed, 3, quarter), &scenario);
    run += with(PctScheduler::new_from_seed(seed, 12, quarter), &scenario);
    eprintln!("{name}: seed {seed}, {run} schedules in {:.1?}; {pairs}", begun.elapsed());
    // Fewer cannot meet all of them.
    (schedules >= QUICK).then_some(pairs)
}

/// What a schedule does depends on nothing but the schedule, so that one that fails can be repeated: each is run twice, and compared step by
/// step.
pub(crate) fn repeat(scenario: impl Fn(&mut World) + Send + Sync + 'static) {
    let schedules = RandomScheduler::new_from_seed(fastrand::u64(..), 20);
    let twice = move || {
        let mut world = World::new(Arc::default());
        scenario(&mut world);
        world.finish();
    };
    with(UncontrolledNondeterminismCheckScheduler::new(schedules), &Arc::new(twice));
}

fn with(scheduler: impl Scheduler + 'static, scenario: &Arc<impl Fn() + Send + Sync + 'static>) -> usize {
    let scenario = Arc::clone(scenario);
    Runner::new(scheduler, config()).run(move || scenario())
}
