//! The same on RocksDB and sled: a process that aborts at a durable step, for sampled steps.
//!
//! The script takes the same steps on every store, and its instances get the same ids; so the run in memory that dies at that step knows what
//! the process had acknowledged when it aborted there, without a word from it.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use cutover::Durability;
use cutover::fault::{Effect, Fault};
use cutover::store::Driver;
use cutover::store::rocksdb::RocksDbDriver;
use cutover::store::sled::SledDriver;

use crate::machine::{LONG, Machine, Real};
use crate::scripts;
use crate::sweep::{at, crashed, finish, moments, prepared, steps};
use crate::world::World;

const VARIABLE: &str = "CUTOVER_CRASH_CHILD";
const SIGABRT: i32 = 6;

/// What the process is told.
#[derive(Debug, Clone)]
struct Told {
    script: usize,
    /// From sled to RocksDB, and not the other way round.
    from_sled: bool,
    durability: Durability,
    step: u64,
    effect: Effect,
    data: PathBuf,
}

const EFFECTS: [Effect; 4] = [Effect::Nothing, Effect::Half, Effect::Holes, Effect::Whole];

impl Told {
    fn write(&self) -> String {
        let effect = EFFECTS.iter().position(|effect| *effect == self.effect).unwrap();
        let (from, synced) = (u8::from(self.from_sled), u8::from(self.durability == Durability::Synced));
        format!("{} {from} {synced} {} {effect} {}", self.script, self.step, self.data.display())
    }

    fn read(told: &str) -> Self {
        let told: Vec<&str> = told.splitn(6, ' ').collect();
        let number = |at: usize| told[at].parse::<u64>().unwrap();
        Self {
            script: number(0) as usize,
            from_sled: number(1) == 1,
            durability: if number(2) == 1 { Durability::Synced } else { Durability::Buffered },
            step: number(3),
            effect: EFFECTS[number(4) as usize],
            data: PathBuf::from(told[5]),
        }
    }

    fn real(&self) -> Real {
        let mut drivers: [Arc<dyn Driver>; 2] =
            [Arc::new(RocksDbDriver::default()), Arc::new(SledDriver::default())];
        if self.from_sled {
            drivers.reverse();
        }
        Real { data: self.data.clone(), drivers }
    }
}

#[test]
#[ignore = "the part of the other tests that runs in a process of its own"]
fn child() {
    let Ok(told) = std::env::var(VARIABLE) else { return };
    let told = Told::read(&told);
    let script = scripts::ALL[told.script]();
    let mut before = World::new(&script, Machine::new(told.durability).on(told.real()));
    if !script.before.is_empty() {
        before.open().unwrap();
        before.go_on(script.before.len()).unwrap();
        before.engine().close(LONG).unwrap();
        before.engine = None;
    }
    let mut world = before.copy();
    world.machine.arm(told.step, false, Fault::Crash(told.effect));
    world.faults().at_crash(|| std::process::abort());
    let ran = world.open().and_then(|()| world.go_on(script.len()));
    panic!("it came to its end: {ran:?}");
}

fn abort(told: &Told) {
    let script = scripts::ALL[told.script]();
    let dead = crashed(&prepared(&script, told.durability), told.step, told.effect);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "aborting::child", "--ignored", "--nocapture", "--test-threads=1"]);
    // A core file, where the machine makes them, goes with the directory.
    child.env(VARIABLE, told.write()).current_dir(told.data.parent().unwrap());
    let output = child.stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(SIGABRT), "{}: {said}", output.status);
    finish(dead.on(dead.machine.on(told.real())));
}

/// So many steps, each of any script; `CUTOVER_ABORTS` says how many, `CUTOVER_SEED` which.
fn sample(from_sled: bool) {
    let variable = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seed = variable("CUTOVER_SEED").unwrap_or_else(|| fastrand::u64(..));
    let aborts = variable("CUTOVER_ABORTS").unwrap_or(10);
    println!("CUTOVER_SEED={seed}");
    let begun = Instant::now();
    // Apart from the numbers that the engine draws.
    let mut rng = fastrand::Rng::with_seed(seed ^ u64::from(from_sled));
    for _ in 0..aborts {
        let number = rng.usize(..scripts::ALL.len());
        let durability = if rng.bool() { Durability::Synced } else { Durability::Buffered };
        let script = scripts::ALL[number]();
        let step = rng.choice(steps(prepared(&script, durability))).unwrap();
        let effect = rng.choice(moments(step.act)).copied().unwrap();
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        let told = Told { script: number, from_sled, durability, step: step.number, effect, data };
        at(|| format!("{}, {step:?}: {told:?}", script.name), || abort(&told));
    }
    println!("{aborts} aborts, from sled {from_sled}: {:.1} s", begun.elapsed().as_secs_f64());
}

#[test]
fn from_rocksdb_to_sled() {
    sample(false);
}

#[test]
fn from_sled_to_rocksdb() {
    sample(true);
}
