//! A load that runs until it is killed: threads that work, and one that moves the tenant to and fro.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cutover::{Engine, Error, ErrorKind, MigrationOptions, Phase, Result, StoreSpec, Tenant};

use crate::session::{Acks, Session, Setup, Thread};

/// Pause of a thread whose operation has failed: a disk that is full, say, is not so only for a moment.
const AFTER_FAILURE: Duration = Duration::from_millis(20);
/// How often the mover looks.
const LOOK: Duration = Duration::from_millis(1);

/// What to run.
#[derive(Debug, Clone)]
pub struct Load {
    /// The session.
    pub setup: Setup,
    /// Where the tenant moves to and fro, if it does.
    pub moves: Option<Moves>,
    /// Mean pause of a thread between operations.
    pub pause: Duration,
}

/// Two stores that a tenant moves between.
#[derive(Debug, Clone)]
pub struct Moves {
    /// The stores, the one of the setup first.
    pub stores: [StoreSpec; 2],
    /// How the paths of their directories end.
    pub paths: [String; 2],
    /// Whether moves are by turns cancelled, reversed from two phases, and reversed twice.
    pub reverse: bool,
}

/// Runs it until nobody reads the lines any more, or until it is told to stop.
///
/// # Errors
/// If the session cannot begin, or the engine has a bug.
pub fn run(engine: &Engine, load: &Load, acks: &Arc<Acks>, stop: &Arc<AtomicBool>) -> Result<()> {
    let session = Session::begin(engine, load.setup.clone(), Arc::clone(acks))?;
    let threads = (0..load.setup.threads).map(|number| session.thread(number)).collect::<Result<Vec<_>>>()?;
    let failed = AtomicBool::new(false);
    let is_over = || stop.load(Ordering::Acquire) || acks.is_broken() || failed.load(Ordering::Acquire);
    thread::scope(|scope| {
        let mut running = Vec::new();
        let (failed, is_over) = (&failed, &is_over);
        for mut thread in threads {
            running.push(scope.spawn(move || {
                let done = work(&mut thread, load.pause, is_over);
                if done.is_err() {
                    failed.store(true, Ordering::Release);
                }
                done
            }));
        }
        if let Some(moves) = &load.moves {
            let (engine, session) = (engine.clone(), session.clone());
            let rng = fastrand::Rng::with_seed(load.setup.seed ^ load.setup.session);
            let mut mover = Mover { engine, session, moves, rng, is_over };
            running.push(scope.spawn(move || {
                mover.run();
                Ok(())
            }));
        }
        let panicked = || Err(Error::new(ErrorKind::Panicked, "a thread of the load panicked"));
        running.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| panicked()))
    })
}

fn work(thread: &mut Thread, pause: Duration, is_over: &dyn Fn() -> bool) -> Result<()> {
    let mut rng = fastrand::Rng::new();
    while !is_over() {
        match thread.step() {
            Err(err) if err.kind() == ErrorKind::Panicked => return Err(err),
            Err(_) => thread::sleep(AFTER_FAILURE),
            Ok(()) => thread::sleep(pause.mul_f64(2.0 * rng.f64())),
        }
    }
    Ok(())
}

/// How one move goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Through,
    Cancelled,
    /// Reversed right after the switch, while the close may still be pending.
    FromMigration,
    FromPostMigration,
    /// There, back, and there again.
    Twice,
}

impl Turn {
    const ALL: [Self; 5] =
        [Self::Through, Self::Cancelled, Self::FromMigration, Self::FromPostMigration, Self::Twice];
}

struct Mover<'l> {
    engine: Engine,
    session: Session,
    moves: &'l Moves,
    rng: fastrand::Rng,
    is_over: &'l (dyn Fn() -> bool + Sync),
}

impl Mover<'_> {
    fn tenant(&self) -> &Tenant {
        self.session.tenant()
    }

    fn run(&mut self) {
        let mut at = self.rng.usize(..Turn::ALL.len());
        // What an earlier process has begun, it may take back too.
        if self.moves.reverse && self.rng.bool() {
            self.rest(60);
            self.reverse_once();
        }
        while !(self.is_over)() {
            let turn = match self.moves.reverse {
                true => Turn::ALL.get(at % Turn::ALL.len()).copied().unwrap_or(Turn::Through),
                false => Turn::Through,
            };
            at += 1;
            self.until(|tenant| tenant.migration().wait_settled(Duration::ZERO).unwrap_or(true));
            self.rest(120);
            if self.start(turn).is_ok() {
                self.turn(turn);
            }
        }
    }

    /// Begins a move to the store that the tenant is not in.
    fn start(&mut self, turn: Turn) -> Result<()> {
        let path = self.engine.store_path(self.tenant().status().initial).unwrap_or_default();
        let [first, second] = &self.moves.stores;
        let there = self.moves.paths.get(1).is_some_and(|second| path.ends_with(second));
        let target = if there { first } else { second };
        let mut options = MigrationOptions::default();
        for phase in Phase::ALL {
            // Where something is to be done in a phase, it has to last.
            let least = match (turn, phase) {
                (Turn::Cancelled, Phase::PreMigration) | (Turn::FromMigration, Phase::Migration) => 100,
                (Turn::Twice, Phase::PostRollback) => 40,
                _ => 0,
            };
            options = options.dwell(phase, Duration::from_millis(least + self.rng.u64(..80)));
        }
        let started = self.tenant().migration().start(target.clone(), options);
        self.session.look();
        if started.is_err() {
            thread::sleep(AFTER_FAILURE);
        }
        started.map(drop)
    }

    fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::Through => {}
            Turn::Cancelled => {
                self.rest(100);
                drop(self.tenant().migration().cancel());
            }
            Turn::FromMigration => {
                self.reach(Phase::Migration);
                self.reverse_once();
            }
            Turn::FromPostMigration => {
                self.reach(Phase::PostMigration);
                self.rest(60);
                self.reverse_once();
            }
            Turn::Twice => {
                self.reach(Phase::PostMigration);
                self.reverse_once();
                self.until(|tenant| {
                    matches!(tenant.status().phase, Phase::PreRollback | Phase::PostRollback | Phase::Stable)
                });
                self.rest(60);
                self.reverse_once();
            }
        }
        self.session.look();
    }

    /// In the phases between two others it is not legal: then it goes on as it was.
    fn reverse_once(&mut self) {
        drop(self.tenant().migration().reverse());
        self.session.look();
    }

    fn reach(&self, phase: Phase) {
        self.until(|tenant| matches!(tenant.status().phase, now if now == phase || now == Phase::Stable));
    }

    /// Looks until it is so, or all is over.
    fn until(&self, is_so: impl Fn(&Tenant) -> bool) {
        while !(self.is_over)() {
            self.session.look();
            if is_so(self.tenant()) {
                return;
            }
            thread::sleep(LOOK);
        }
    }

    /// Up to so many milliseconds.
    fn rest(&mut self, most_ms: u64) {
        let until = Instant::now() + Duration::from_micros(self.rng.u64(..=most_ms * 1_000));
        self.until(|_| Instant::now() >= until);
    }
}
