//! Migrations: moving a tenant from one store to another while it is used.
//!
//! [`phase`] says which moves are legal and what the status is after each, [`decide`] what it is time for; both are pure. [`transition`]
//! makes a move: persist, publish, wait, act. [`driver`] and [`replicate`] are what two background threads do for each tenant. Here is
//! what an operator, or the program that links the engine, can ask for.

pub(crate) mod decide;
pub(crate) mod driver;
mod options;
pub mod phase;
pub(crate) mod replicate;
pub(crate) mod run;
pub(crate) mod transition;
pub(crate) mod wave;

use std::time::Duration;

use cutover_formats::limits;
use cutover_formats::meta::{EndedMigration, JournalLine, MigrationRecord, RunId};
use cutover_formats::{Phase, Role, Status};

use self::decide::Next;
pub use self::options::{Hold, MigrationOptions};
use self::phase::Move;
pub use self::run::Ran;
use self::run::Verdict;
use crate::catalog::StoreSpec;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::shared::Thread;
use crate::sync::{Instant, MutexGuard, thread};
use crate::tenant::Tenant;
use crate::tenant::control::{Control, CopyProgress};
use crate::tenant::quarantine::{Quarantined, Retried};
use crate::tenant::stragglers::{MoveProgress, Pass};

/// Where a migration is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The status that it is in.
    pub status: Status,
    /// The store it works towards.
    pub goal: Role,
    /// Number of the migration, unique for the tenant; `None` when stable.
    pub id: Option<u64>,
    /// What was copied and compared.
    pub copy: CopyProgress,
    /// What was moved of what lives in the store that is being left.
    pub moves: MoveProgress,
    /// What it waits for, in words; empty if for nothing.
    pub waiting_for: String,
    /// Operations of the tenant that have been running for more than a tenth of a second: thread, what it does, for how long. With a store
    /// that hangs this says who hangs in it, and the rest of this value may be a moment old.
    pub slow: Vec<String>,
    /// What stands in its way, if something does.
    pub error: Option<String>,
    /// Rows that cannot be read and were set aside; see [`Migration::quarantine`].
    pub quarantined: u64,
    /// The moves that are legal now.
    pub legal: Vec<Move>,
    /// How the last migration ended.
    pub last: Option<EndedMigration>,
}

/// The migration of a tenant: begin one, steer it, look at it.
#[derive(Clone)]
pub struct Migration {
    tenant: Tenant,
}

impl Tenant {
    /// Its migration.
    #[must_use]
    pub fn migration(&self) -> Migration {
        Migration { tenant: self.clone() }
    }
}

impl Migration {
    /// Begins a migration to `target` and returns its number. It goes through by itself, except where it is held. The intent is durable and
    /// the target open when this returns.
    ///
    /// # Errors
    /// [`IllegalMove`](ErrorKind::IllegalMove) if the tenant is not stable; [`InvalidInput`](ErrorKind::InvalidInput) for an unknown
    /// driver, a store that it is in already, or one whose earlier rows are still being removed; [`Drift`](ErrorKind::Drift) if the plan
    /// does not fit any more; [`Io`](ErrorKind::Io) if the disk is nearly full.
    pub fn start(&self, target: StoreSpec, options: MigrationOptions) -> Result<u64> {
        let mut control = self.steer()?;
        self.begin(&mut control, &target, options, None)
    }

    /// Begins a migration to `target` as an attempt at a run, unless that has been done: the same id again when it succeeded changes nothing
    /// and says so; while it is under way, or after a crash in it, it goes on, as the attempt named now; an attempt that was cancelled or
    /// rolled back is over, and another one begins anew. Of the migrations that have ended the latest 32 are remembered. What it says is
    /// durable.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if another run is under way, or this one to another store or, after a [reverse](Self::reverse), back:
    /// then it is to be asked for again when it is back, or reversed once more; [`InvalidInput`](ErrorKind::InvalidInput)
    /// for an id or attempt that is empty or longer than [`limits::MAX_NAME`]; or as [`start`](Self::start).
    pub fn run(&self, run: &RunId, target: StoreSpec, options: MigrationOptions) -> Result<Ran> {
        limits::check_name("the id of the run", &run.id)?;
        limits::check_name("the name of the attempt", &run.attempt)?;
        let mut control = self.steer()?;
        self.run_locked(&mut control, run, &target, options)
    }

    fn run_locked(
        &self,
        control: &mut Control,
        run: &RunId,
        target: &StoreSpec,
        options: MigrationOptions,
    ) -> Result<Ran> {
        let tenant = &*self.tenant.0;
        // An earlier try may have come so far without knowing it.
        transition::settle(tenant, control)?;
        control.check_exists()?;
        let record = control.record();
        match run::judge(run, record.migration.as_ref(), &record.ended) {
            Verdict::Begin => self.begin(control, target, options, Some(run.clone())).map(Ran::Began),
            Verdict::Skip(ended) => Ok(Ran::Skipped(ended)),
            Verdict::Conflict(other) => {
                Err(Error::new(ErrorKind::Conflict, format!("the tenant {:?} is in {other}", tenant.name)))
            }
            Verdict::GoOn { number, anew } => {
                let catalog = &tenant.shared.catalog;
                let there = record
                    .status
                    .target
                    .and_then(|id| catalog.record(id))
                    .map(|store| catalog.directory(&store));
                if there.is_some_and(|path| path != catalog.directory_for(target)) {
                    let message =
                        format!("the run {:?} is under way to another store, as migration {number}", run.id);
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
                if anew {
                    let why = format!("run {:?} goes on as attempt {:?}", run.id, run.attempt);
                    transition::persist(tenant, control, "operator", &why, |record| {
                        if let Some(migration) = &mut record.migration {
                            migration.run = Some(run.clone());
                        }
                    })?;
                }
                Ok(Ran::GoesOn(number))
            }
        }
    }

    fn begin(
        &self,
        control: &mut Control,
        target: &StoreSpec,
        options: MigrationOptions,
        run: Option<RunId>,
    ) -> Result<u64> {
        let tenant = &*self.tenant.0;
        transition::check_legal(control, Move::Start)?;
        if let Some(plan) = options.plan() {
            plan.check(&tenant.shared.catalog.plan())?;
        }
        transition::start(tenant, control, target, |id, now_ms| options.record(id, now_ms, run))
    }

    /// Switches launches to the target now, hold and dwell or not.
    ///
    /// # Errors
    /// [`IllegalMove`](ErrorKind::IllegalMove) if it is not legal or not everything is copied and compared yet.
    pub fn switch(&self) -> Result<()> {
        self.make(Move::Switch)
    }

    /// Gives up the store that has drained, hold and dwell or not. After it the only way back is a new migration.
    ///
    /// # Errors
    /// [`IllegalMove`](ErrorKind::IllegalMove) if it is not legal or the store has not drained; the error says what is in it.
    pub fn complete(&self) -> Result<()> {
        self.make(Move::Complete)
    }

    /// Gives up the store that is being left with whatever is still in it, which is lost: for when it is broken for good. Returns, in words,
    /// what that is, as far as it can be read.
    ///
    /// # Errors
    /// [`IllegalMove`](ErrorKind::IllegalMove) if completing is not legal.
    pub fn complete_abandoning(&self) -> Result<Vec<String>> {
        let tenant = &*self.tenant.0;
        let mut control = self.steer()?;
        transition::check_legal(&control, Move::Complete)?;
        if !control.drive.waited {
            return Err(in_the_way(
                &control,
                Move::Complete,
                "operations under the earlier status are still running",
            ));
        }
        let lost =
            driver::left_in(tenant, &control).unwrap_or_else(|err| vec![format!("it cannot be read: {err}")]);
        let why =
            format!("abandoned: {}", if lost.is_empty() { "nothing".to_owned() } else { lost.join("; ") });
        transition::persist(tenant, &mut control, "operator", &why, |record| {
            if let Some(migration) = &mut record.migration {
                migration.abandon = true;
            }
        })?;
        transition::make(tenant, &mut control, Move::Complete, "operator", &why)?;
        Ok(lost)
    }

    /// Calls the migration off before launches were switched; the target's rows are removed.
    ///
    /// # Errors
    /// [`IllegalMove`](ErrorKind::IllegalMove) in every other phase.
    pub fn cancel(&self) -> Result<()> {
        let tenant = &*self.tenant.0;
        let mut control = self.steer()?;
        transition::make(tenant, &mut control, Move::Cancel, "operator", "cancelled")
    }

    /// Works towards the other store from now on: back, or, on the way back, forward again. Launches are taken throughout. Durable when it
    /// returns; what is running goes on where it is.
    ///
    /// # Errors
    /// [`IllegalMove`](ErrorKind::IllegalMove) if it is not legal.
    pub fn reverse(&self) -> Result<()> {
        let tenant = &*self.tenant.0;
        let mut control = self.steer()?;
        transition::check_legal(&control, Move::Reverse)?;
        let phase = control.record().status.phase;
        let goal = phase::left_behind(phase).unwrap_or(Role::Initial);
        match phase {
            // Everything is in both stores, or nothing has left yet: at once.
            Phase::Migration | Phase::PreRollback => {
                transition::make(tenant, &mut control, Move::Reverse, "operator", "reversed")
            }
            // What was defined since is compared first; the driver moves then.
            _ => {
                control.drive.verified = false;
                transition::persist(tenant, &mut control, "operator", "reverse asked for", |record| {
                    if let Some(migration) = &mut record.migration {
                        (migration.goal, migration.abandon) = (goal, false);
                    }
                })
            }
        }
    }

    /// Keeps the migration from going on at this point, durably.
    ///
    /// # Errors
    /// [`IllegalMove`](ErrorKind::IllegalMove) if there is no migration.
    pub fn hold(&self, hold: Hold) -> Result<()> {
        self.set_hold(hold, true)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// [`IllegalMove`](ErrorKind::IllegalMove) if there is no migration.
    pub fn release(&self, hold: Hold) -> Result<()> {
        self.set_hold(hold, false)
    }

    /// Copies and compares at most so many bytes a second from now on; 0 for no limit. Durable.
    ///
    /// # Errors
    /// [`IllegalMove`](ErrorKind::IllegalMove) if there is no migration.
    pub fn throttle(&self, bytes_a_second: u64) -> Result<()> {
        self.change(&format!("rate {bytes_a_second} bytes/s"), |migration| migration.rate = bytes_a_second)
    }

    /// Moves what is in the store that is being left, and was launched longer than `older_than` ago, to the store where launches go, instead of
    /// waiting for it to end there: running instances with their steps, ended ones, and keys that have ended and are in scope. A step that a worker
    /// holds is taken from it, which is not one of its attempts: the worker is refused as [`Moved`](crate::Refusal::Moved), and the
    /// step is ready again. What gets old enough later goes then; with [`Duration::MAX`] nothing goes any more.
    ///
    /// The wish is durable when this returns; the engine follows it at its own pace ([`MigrationOptions::move_rate`],
    /// [`Progress::moves`]), also after a restart, and after a reverse in the other direction.
    ///
    /// # Errors
    /// [`IllegalMove`](ErrorKind::IllegalMove) unless the phase is `PostMigration` or `PostRollback`: only there a store drains.
    pub fn move_stragglers(&self, older_than: Duration) -> Result<()> {
        let tenant = &*self.tenant.0;
        let mut control = self.steer()?;
        control.check_exists()?;
        let phase = control.record().status.phase;
        if !matches!(phase, Phase::PostMigration | Phase::PostRollback) {
            let legal = phase::legal_in_words(phase);
            let message =
                format!("cannot move stragglers in phase {phase}: no store drains; legal now: {legal}");
            return Err(Error::new(ErrorKind::IllegalMove, message));
        }
        let older_ms = clock::millis(older_than);
        let why = format!("move what was launched longer than {older_ms} ms ago");
        transition::persist(tenant, &mut control, "operator", &why, |record| {
            if let Some(migration) = &mut record.migration {
                migration.move_older_ms = Some(older_ms);
            }
        })?;
        control.drive.pass = Pass::default();
        Ok(())
    }

    /// Rows that cannot be read, in either store: damaged beyond what the other store has of them. They were set aside with a reason and
    /// kept nobody else from being copied, collected or worked on. A definition among them holds the switch and the end of
    /// the migration back; anything among them that is in the store that is being left holds back that it is given up. Also for a tenant that
    /// does not migrate.
    ///
    /// # Errors
    /// If a store cannot be read at all.
    pub fn quarantine(&self) -> Result<Vec<Quarantined>> {
        self.tenant.check_access()?;
        self.tenant.0.quarantine()
    }

    /// Looks once more at everything that was set aside. What can be read again is taken back, and so is a definition that the other store
    /// has; both stores are compared again then. Durable when it returns.
    ///
    /// # Errors
    /// If a store fails in another way than by being damaged.
    pub fn retry(&self) -> Result<Retried> {
        let tenant = &*self.tenant.0;
        let mut control = self.steer()?;
        control.check_exists()?;
        let retried = tenant.retry_quarantined()?;
        if retried.readable > 0 {
            control.drive.verified = false;
            control.drive.pass = Pass::default();
            let why = format!("{} rows that had been set aside can be read again", retried.readable);
            transition::persist(tenant, &mut control, "operator", &why, |_| {})?;
        }
        Ok(retried)
    }

    /// Gives up what an entry of [`quarantine`](Self::quarantine) stands for: it is removed from its store, for the reason given, which the
    /// journal tells from then on. A definition may be defined anew afterwards. An instance goes with its steps and its key;
    /// the key of a live instance is not lost but written again. Rows of which not even the keys can be read are left behind by the migration
    /// under way. Durable when it returns.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) without a reason, [`NotFound`](ErrorKind::NotFound) if the entry is not there any more,
    /// [`IllegalMove`](ErrorKind::IllegalMove) if only a migration could leave it behind and there is none.
    pub fn drop_quarantined(&self, entry: &Quarantined, reason: &str) -> Result<()> {
        if reason.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "what is dropped is dropped for a reason: say which",
            ));
        }
        let tenant = &*self.tenant.0;
        let mut control = self.steer()?;
        control.check_exists()?;
        tenant.find_quarantined(entry)?;
        // The journal first: nothing goes without a trace.
        let why = format!("dropped: {}; because: {reason}", entry.what);
        transition::persist(tenant, &mut control, "operator", &why, |_| {})?;
        tenant.drop_quarantined(entry)?;
        control.drive.verified = false;
        control.drive.pass = Pass::default();
        tenant.shared.wake(Thread::Replicator);
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let tenant = &*self.tenant.0;
        let slow = driver::slow(tenant);
        // To say what it waits for is to look into a store. One that hangs is not looked into.
        let control = match slow.is_empty() {
            true => tenant.control.try_lock_for(driver::SHORT),
            false => None,
        };
        let (status, shown) = match &control {
            Some(control) => {
                let waiting_for = driver::waiting_for(tenant, control);
                let shown = control.shown(waiting_for, tenant.count_quarantined().unwrap_or(0));
                tenant.shown.lock().quarantined = shown.quarantined;
                (control.record().status, shown)
            }
            None => {
                let mut shown = tenant.shown.lock().clone();
                shown.waiting_for =
                    if slow.is_empty() { "a call that steers it".to_owned() } else { slow.join("; ") };
                (tenant.register.read().1, shown)
            }
        };
        Progress {
            status,
            goal: shown.goal,
            id: shown.id,
            copy: shown.copy,
            moves: shown.moves,
            waiting_for: shown.waiting_for,
            slow,
            error: shown.error,
            quarantined: shown.quarantined,
            legal: phase::legal(status.phase),
            last: shown.last,
        }
    }

    /// Waits until the tenant is in `phase`. Says whether it is; `false` if the time was over first.
    ///
    /// # Errors
    /// If the engine is closed meanwhile.
    pub fn wait_for(&self, phase: Phase, timeout: Duration) -> Result<bool> {
        let deadline = clock::deadline(timeout);
        loop {
            if self.tenant.status().phase == phase {
                return Ok(true);
            }
            self.tenant.0.shared.check()?;
            if Instant::now() >= deadline {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until nothing is left to do: the tenant is stable and what it left behind is removed. Says whether it is.
    ///
    /// # Errors
    /// If the engine is closed meanwhile.
    pub fn wait_settled(&self, timeout: Duration) -> Result<bool> {
        let deadline = clock::deadline(timeout);
        loop {
            {
                let control = self.tenant.0.control.try_lock_for(driver::SHORT.min(timeout));
                if control.is_some_and(|control| {
                    let record = control.record();
                    record.status.phase == Phase::Stable && record.retire.is_empty() && control.drive.waited
                }) {
                    return Ok(true);
                }
            }
            self.tenant.0.shared.check()?;
            if Instant::now() >= deadline {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The journal, oldest line first.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn journal(&self) -> Result<Vec<JournalLine>> {
        self.tenant.0.control.lock().lines()
    }

    /// The control, for whoever may steer: a runner that does not act for the tenant may not.
    fn steer(&self) -> Result<MutexGuard<'_, Control>> {
        self.tenant.check_access()?;
        self.tenant.0.steer()
    }

    fn make(&self, wanted: Move) -> Result<()> {
        let tenant = &*self.tenant.0;
        let mut control = self.steer()?;
        transition::check_legal(&control, wanted)?;
        let mut facts = driver::facts(tenant, &control)?;
        (facts.dwelt, facts.hold_switch, facts.hold_complete, facts.paused) = (true, false, false, false);
        match decide::decide(&facts) {
            Next::Move(made) if made == wanted => {
                transition::make(tenant, &mut control, made, "operator", "asked for")
            }
            Next::Drain => {
                let left = driver::left_in(tenant, &control)?.join("; ");
                Err(in_the_way(&control, wanted, &format!("the store that is left still holds {left}")))
            }
            Next::Copy => Err(in_the_way(&control, wanted, "definitions are still being copied")),
            Next::Verify => Err(in_the_way(&control, wanted, "the stores are still being compared")),
            Next::Wait => Err(in_the_way(&control, wanted, &driver::waiting_for(tenant, &control))),
            Next::Quarantine => Err(in_the_way(&control, wanted, &driver::unreadable(tenant))),
            _ => Err(in_the_way(&control, wanted, "it works towards the other store")),
        }
    }

    fn set_hold(&self, hold: Hold, on: bool) -> Result<()> {
        let why = format!("{} {hold:?}", if on { "hold" } else { "release" });
        self.change(&why, |migration| match hold {
            Hold::Switch => migration.hold_switch = on,
            Hold::Complete => migration.hold_complete = on,
            Hold::All => migration.paused = on,
        })
    }

    fn change(&self, why: &str, change: impl FnOnce(&mut MigrationRecord)) -> Result<()> {
        let tenant = &*self.tenant.0;
        let mut control = self.steer()?;
        control.check_exists()?;
        if control.record().migration.is_none() {
            let legal = phase::legal_in_words(control.record().status.phase);
            return Err(Error::new(
                ErrorKind::IllegalMove,
                format!("the tenant is stable: there is no migration to steer; legal now: {legal}"),
            ));
        }
        transition::persist(tenant, &mut control, "operator", why, |record| {
            if let Some(migration) = &mut record.migration {
                change(migration);
            }
        })?;
        tenant.shared.wake(Thread::Replicator);
        Ok(())
    }
}

fn in_the_way(control: &Control, wanted: Move, what: &str) -> Error {
    let phase = control.record().status.phase;
    let legal = phase::legal_in_words(phase);
    Error::new(
        ErrorKind::IllegalMove,
        format!("cannot {wanted} yet, in phase {phase}: {what}; legal now: {legal}"),
    )
}
