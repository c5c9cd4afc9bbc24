//! A script on its way: the machine, the engine that is open on it, and the books.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use cutover::clock::Clock as _;
use cutover::fault::Faults;
use cutover::formats::RowId;
use cutover::migration::phase;
use cutover::{
    Again, Completion, Durability, Ended, Ending, Engine, Error, ErrorKind, Failure, Gate, InstanceId,
    Launched, MigrationOptions, Phase, Refusal, Result, Retention, Role, Settled, StoreId, StoreSpec, Task,
    Tenant, TenantOptions,
};

use crate::books::{Book, Done, KEPT_MS, Known, LONG_AGO, Trace};
use crate::losses;
use crate::machine::{Crash, LONG, Machine};
use crate::rows;
use crate::script::{Action, Run, Script, body, definition, step};

/// More steps of the engine than anything here needs.
const MOST_STEPS: usize = 300;
const HOUR_MS: u64 = 3_600_000;

pub(crate) struct World<'s> {
    pub(crate) script: &'s Script,
    pub(crate) machine: Machine,
    pub(crate) engine: Option<Engine>,
    pub(crate) books: BTreeMap<&'static str, Book>,
    pub(crate) trace: Vec<Trace>,
    /// The next call.
    pub(crate) at: usize,
    /// Calls before it that were made, and nobody knows whether they happened.
    pub(crate) doubts: Vec<usize>,
    /// Calls before it that are still to be made, those in doubt among them.
    pub(crate) left: Vec<usize>,
    /// Power loss may have taken what was acknowledged, and the books do not know yet.
    pub(crate) lossy: bool,
    /// It never has.
    pub(crate) exact: bool,
    /// The calls were made as the script has them, each once it was time for it.
    pub(crate) orderly: bool,
    /// Steps that the worker holds, by run.
    tasks: BTreeMap<u32, (Gate, Task)>,
    opened: u64,
}

/// What became of a call.
pub(crate) type Made = Result<()>;

impl<'s> World<'s> {
    pub(crate) fn new(script: &'s Script, machine: Machine) -> Self {
        let (books, trace) = (BTreeMap::new(), Vec::new());
        let (doubts, left) = (Vec::new(), Vec::new());
        Self {
            script,
            machine,
            engine: None,
            books,
            trace,
            at: 0,
            doubts,
            left,
            lossy: false,
            exact: true,
            orderly: true,
            tasks: BTreeMap::new(),
            opened: 0,
        }
    }

    /// What a crash leaves of it; nothing is running.
    pub(crate) fn after(&self, crash: &Crash) -> Self {
        let mut after = self.on(self.machine.after(crash));
        let loses = matches!(crash, Crash::PowerCut(_)) && self.machine.durability == Durability::Buffered;
        after.lossy |= loses;
        after.exact &= !loses;
        after.orderly &= !loses;
        after
    }

    /// The same, on a machine of its own; nothing is running.
    pub(crate) fn copy(&self) -> Self {
        self.on(self.machine.copy())
    }

    /// The same, on that machine; nothing is running.
    pub(crate) fn on(&self, machine: Machine) -> Self {
        Self {
            script: self.script,
            machine,
            engine: None,
            books: self.books.clone(),
            trace: self.trace.clone(),
            at: self.at,
            doubts: self.doubts.clone(),
            left: self.left.clone(),
            lossy: self.lossy,
            exact: self.exact,
            // A crash is no failure that anything goes on after.
            orderly: self.is_orderly() || (self.orderly && self.faults().is_dead()),
            tasks: BTreeMap::new(),
            opened: self.opened,
        }
    }

    /// Whether every call was made as the script has it, and nothing has failed yet.
    pub(crate) fn is_orderly(&self) -> bool {
        self.orderly && self.machine.met().is_none()
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.machine.faults
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.machine.clock.wall_ms()
    }

    pub(crate) fn open(&mut self) -> Made {
        // The same numbers in every run of a process, and others in the next process.
        self.opened += 1;
        self.tasks.clear();
        fastrand::seed(self.opened);
        self.engine = Some(self.machine.open()?);
        Ok(())
    }

    /// Opens it after a crash.
    pub(crate) fn recover(&mut self) -> Made {
        self.open()?;
        if self.lossy { losses::adopt(self) } else { Ok(()) }
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    pub(crate) fn tenant(&self, name: &str) -> Result<Tenant> {
        self.engine().tenant(name)
    }

    /// Makes the calls that are left, in order, and then the others up to `end`. What could not be made, or may not have been, because of
    /// a crash is noted.
    pub(crate) fn go_on(&mut self, end: usize) -> Made {
        while let Some(at) = self.left.first().copied() {
            self.make(at).inspect_err(|_| {
                self.doubts.retain(|other| *other != at);
                self.doubts.push(at);
            })?;
            self.left.retain(|other| *other != at);
            self.doubts.retain(|other| *other != at);
        }
        while self.at < end {
            let at = self.at;
            self.at += 1;
            self.make(at).inspect_err(|_| {
                self.doubts.push(at);
                self.left.push(at);
            })?;
        }
        Ok(())
    }

    /// Makes a call and enters it in the books if it is acknowledged.
    pub(crate) fn make(&mut self, at: usize) -> Made {
        let (name, action) = self.script.call(at);
        let made = self.call(at, name, action);
        self.observe();
        if made.is_ok() && self.faults().is_dead() {
            return Err(Error::new(ErrorKind::Unavailable, "it has died, unseen"));
        }
        made
    }

    /// Notes the statuses that are published.
    pub(crate) fn observe(&mut self) {
        let Some(engine) = &self.engine else { return };
        for (name, book) in &mut self.books {
            let Ok(tenant) = engine.tenant(name) else { continue };
            let status = tenant.status();
            let seen = (status.epoch, status.phase);
            assert!(book.seen.is_none_or(|before| before <= seen || before.0 < seen.0), "{book:?} {seen:?}");
            book.seen = Some(seen);
        }
    }

    fn call(&mut self, at: usize, name: &'static str, action: Action) -> Made {
        match action {
            Action::Create(path) => self.create(name, self.machine.store(path)),
            Action::CreateDedicated(path) => self.create(name, self.machine.store(path).dedicated()),
            Action::Delete => self.delete(name),
            Action::Step => self.engine().step().map(drop),
            Action::Pass(ms) => {
                self.machine.clock.advance(Duration::from_millis(ms));
                Ok(())
            }
            Action::Restart => self.restart(),
            Action::Start(_)
            | Action::CallOff
            | Action::Reverse(_)
            | Action::Reach(_)
            | Action::MoveStragglers
            | Action::Settle => {
                let tenant = self.tenant(name)?;
                self.steer(&tenant, action)
            }
            _ => {
                let tenant = self.tenant(name)?;
                self.work(at, name, &tenant, action)
            }
        }
    }

    /// A call that has happened already, perhaps, is not made again.
    fn create(&mut self, name: &'static str, store: StoreSpec) -> Made {
        if !self.engine().tenants().iter().any(|other| other == name) {
            let kept = Retention { instance_ms: KEPT_MS, key_ms: KEPT_MS, request_ms: HOUR_MS };
            self.engine().create_tenant(name, TenantOptions::new(store).retention(kept))?;
        }
        self.books.entry(name).or_default().exists = true;
        Ok(())
    }

    fn delete(&mut self, name: &'static str) -> Made {
        if self.engine().tenants().iter().any(|other| other == name) {
            self.engine().delete_tenant(name)?;
        }
        self.books.remove(name);
        self.trace.retain(|trace| trace.tenant != name);
        Ok(())
    }

    pub(crate) fn restart(&mut self) -> Made {
        let engine = self.engine.take();
        let closed = engine.as_ref().map_or(Ok(()), |engine| engine.close(LONG));
        if self.faults().is_dead() {
            // It is asked for its statuses once more.
            self.engine = engine;
            return closed;
        }
        drop(engine);
        // A store that takes no writes is not synced, and says so.
        if let Err(err) = closed {
            assert!(matches!(err.kind(), ErrorKind::Unavailable | ErrorKind::Io), "{err}");
        }
        self.open()
    }

    fn steer(&mut self, tenant: &Tenant, action: Action) -> Made {
        let (migration, phase) = (tenant.migration(), tenant.status().phase);
        match action {
            Action::Start(path) if phase == Phase::Stable => {
                let options = MigrationOptions::default().move_rate(0);
                migration.start(self.machine.store(path), options).map(drop)
            }
            Action::CallOff if phase == Phase::PreMigration => migration.cancel(),
            Action::MoveStragglers if matches!(phase, Phase::PostMigration | Phase::PostRollback) => {
                migration.move_stragglers(Duration::ZERO)
            }
            Action::Reverse(goal) if migration.progress().goal != goal => match migration.reverse() {
                // It was called off, because the target did not open.
                Err(err) if !self.is_orderly() && err.kind() == ErrorKind::IllegalMove => Ok(()),
                reversed => reversed,
            },
            Action::Reach(wanted) => self.step_until(|| {
                let now = tenant.status().phase;
                now == wanted || (!self.is_orderly() && is_past(wanted, now, migration.progress().goal))
            }),
            Action::Settle => {
                let settled = || migration.wait_settled(Duration::ZERO).is_ok_and(|settled| settled);
                if self.is_orderly() {
                    return self.step_until(settled);
                }
                for _ in 0..MOST_STEPS / 10 {
                    if self.faults().is_dead() || settled() {
                        return Ok(());
                    }
                    if !self.moves() {
                        self.wind_up(tenant)?;
                    }
                    // What was ended again, because its end was lost, is not over yet.
                    self.machine.clock.advance(Duration::from_millis(KEPT_MS / 4));
                    self.engine().step()?;
                }
                self.step_until(settled)
            }
            _ => Ok(()),
        }
    }

    /// Runs that live again in the store that is left, because their ends were lost, are ended.
    fn wind_up(&mut self, tenant: &Tenant) -> Made {
        let status = tenant.status();
        let left = phase::left_behind(status.phase).and_then(|role| status.store(role));
        let now_ms = self.now_ms();
        let calls = self.doubts.iter().map(|at| self.script.call(*at));
        let doubts: Vec<Action> =
            calls.filter(|(name, _)| *name == tenant.name()).map(|(_, call)| call).collect();
        let book = self.books.get_mut(tenant.name()).unwrap();
        let lives = |known: &&Known| known.ended.is_none() && Some(known.id.store()) == left;
        let live: Vec<Known> = book.runs.values().filter(lives).cloned().collect();
        for known in live {
            let found = tenant.instance(known.id)?;
            let lives = found.as_ref().is_some_and(|found| found.ending().is_none());
            if !lives && !book.may_have_ended(&known, &doubts).is_empty() {
                // A call that was in doubt has ended it.
                book.ended_by(known.run.number, found.and_then(|found| found.ending()), &doubts);
                continue;
            }
            let action = Action::Terminate(known.run.number);
            act_on(tenant, book, &mut self.tasks, &known, action, false, now_ms)?;
        }
        Ok(())
    }

    /// Steps until it is so. What stands in the way of that is in the progress, and not an error of the step.
    fn step_until(&self, so: impl Fn() -> bool) -> Made {
        for _ in 0..MOST_STEPS {
            if so() {
                return Ok(());
            }
            self.engine().step()?;
            if self.faults().is_dead() {
                return Ok(());
            }
            if !self.is_orderly() {
                // What has failed is tried again after a pause.
                self.machine.clock.advance(Duration::from_millis(KEPT_MS / 100));
            }
        }
        let progress: Vec<_> = self
            .engine()
            .tenants()
            .iter()
            .map(|name| self.engine().tenant(name).unwrap().migration().progress())
            .collect();
        Err(Error::new(ErrorKind::TimedOut, format!("it does not get there: {progress:?}")))
    }

    fn work(&mut self, at: usize, name: &'static str, tenant: &Tenant, action: Action) -> Made {
        let now_ms = self.now_ms();
        let again = self.left.contains(&at);
        let done: Vec<(Done, Vec<StoreId>)> = match action {
            Action::Define(number) | Action::DefineWithGap(number) => {
                let with_gap = matches!(action, Action::DefineWithGap(_)) && !again;
                let stores = self.define(tenant, number, with_gap)?;
                self.book(name).definitions.insert(number);
                vec![(Done::Defined(number), stores)]
            }
            Action::Launch(run) => {
                let status = tenant.status();
                let home = status.store(status.home()).unwrap();
                let answer = tenant.launch(&run.request())?;
                let book = self.book(name);
                let replaced = book
                    .launched(run, answer, again, now_ms)
                    .map(|old| (Done::Replaced(run.number), vec![book.runs[&old].id.store()]));
                if let (Launched::Started(id), false) = (answer, again) {
                    assert_eq!(id.store(), home, "{run:?} landed in a closed store");
                }
                let store = if let Launched::Started(id) = answer { id.store() } else { home };
                replaced.into_iter().chain([(Done::Answered(run.number), vec![store])]).collect()
            }
            _ => {
                let number = action.number().unwrap();
                // Lost in a power cut, or ended by what opening does about that.
                let Some(known) = self.book(name).live(number).cloned() else { return Ok(()) };
                let store = self.store_of(tenant, known.id);
                let book = self.books.get_mut(name).unwrap();
                let done = act_on(tenant, book, &mut self.tasks, &known, action, again, now_ms)?;
                done.into_iter().map(|done| (done, vec![store])).collect()
            }
        };
        let traces = done.into_iter().map(|(what, stores)| Trace { tenant: name, at, what, stores, again });
        self.trace.extend(traces);
        Ok(())
    }

    /// Whether what is in the store that is left is moved.
    fn moves(&self) -> bool {
        (0..self.script.len()).any(|at| self.script.call(at).1 == Action::MoveStragglers)
    }

    /// The store that an instance is in.
    fn store_of(&self, tenant: &Tenant, id: InstanceId) -> StoreId {
        if !self.moves() || self.machine.real.is_some() {
            return id.store();
        }
        let (all, status) = (rows::read(&self.machine), tenant.status());
        let there = |store: &StoreId| {
            let path = self.engine().store_path(*store)?;
            all.get(&(path, tenant.id()))?.get(&RowId::Instance { id })
        };
        let stores = [Some(status.initial), status.target].into_iter().flatten();
        stores.into_iter().find(|store| there(store).is_some()).unwrap_or(id.store())
    }

    fn book(&mut self, name: &str) -> &mut Book {
        self.books.get_mut(name).unwrap()
    }

    /// Defines, and says in which stores it is then.
    fn define(&self, tenant: &Tenant, number: u32, with_gap: bool) -> Result<Vec<StoreId>> {
        let status = tenant.status();
        let home = status.store(status.home());
        let other = status.store(status.home().other());
        if let Some(other) = other.filter(|_| with_gap) {
            self.machine.fail_next(self.engine().store_path(other));
        }
        let defined = tenant.define(&definition(number), 1, "text/plain", &body(number));
        self.machine.fail_next(None);
        defined?;
        Ok(home.into_iter().chain(other.filter(|_| !with_gap)).collect())
    }
}

/// Whether a migration that works towards `goal` does not come to a phase any more.
fn is_past(wanted: Phase, now: Phase, goal: Role) -> bool {
    let way: [Phase; 3] = match goal {
        Role::Target => [Phase::PreMigration, Phase::Migration, Phase::PostMigration],
        Role::Initial => [Phase::PreRollback, Phase::RollingBack, Phase::PostRollback],
    };
    let place = |phase| way.iter().position(|other| *other == phase);
    now == Phase::Stable || matches!((place(wanted), place(now)), (Some(wanted), Some(now)) if wanted < now)
}

/// A call on a run that lives.
fn act_on(
    tenant: &Tenant,
    book: &mut Book,
    tasks: &mut BTreeMap<u32, (Gate, Task)>,
    known: &Known,
    action: Action,
    again: bool,
    now_ms: u64,
) -> Result<Option<Done>> {
    let (id, number) = (known.id, known.run.number);
    if again && !book.may_have_ended(known, &[action]).is_empty() && tenant.instance(id)?.is_none() {
        // The call that was in doubt has ended it, and since then it was collected.
        book.ended_by(number, None, &[action]);
        return Ok(None);
    }
    let mut end = |ended, ending| {
        assert!(ended == Ended::Now || ended == Ended::Before(ending), "run {number}: {ended:?}");
        book.end(number, ending, if ended == Ended::Now { now_ms } else { LONG_AGO });
        Ok(Some(Done::Ended(number, ending)))
    };
    match action {
        Action::End(_) => {
            end(tenant.end(id, Ending::Completed, output(number).as_bytes(), "")?, Ending::Completed)
        }
        Action::Terminate(_) => end(tenant.terminate(id, "asked for")?, Ending::Terminated),
        Action::Work(_) => {
            let next = known.done + 1;
            if tenant.step_result(id, &step(next))?.is_none() {
                let (gate, task) = claim(tenant, tasks, known)?;
                let settled = gate.complete(task, completion(&known.run, next))?;
                if settled == Settled::Refused(Refusal::Moved) {
                    tasks.remove(&number);
                    return act_on(tenant, book, tasks, known, action, again, now_ms);
                }
                assert!(matches!(settled, Settled::Done { .. }), "{task:?}: {settled:?}");
                tasks.remove(&number);
            }
            book.stepped(number, now_ms);
            Ok(Some(Done::Stepped(number, next)))
        }
        Action::Fumble(_) => {
            let (gate, task) = claim(tenant, tasks, known)?;
            let failure = Failure { reason: "fumbled".into(), again: Again::After(Duration::ZERO) };
            let settled = gate.fail(task, &failure)?;
            if settled == Settled::Refused(Refusal::Moved) {
                tasks.remove(&number);
                return act_on(tenant, book, tasks, known, action, again, now_ms);
            }
            assert_eq!(settled, Settled::Done { ended: None }, "{task:?}");
            tasks.remove(&number);
            Ok(None)
        }
        other => panic!("{other:?} is not about a run"),
    }
}

pub(crate) fn output(number: u32) -> String {
    format!("output of {number}")
}

/// A worker that has a step and could not settle it still has it.
fn claim<'t>(
    tenant: &Tenant,
    tasks: &'t mut BTreeMap<u32, (Gate, Task)>,
    known: &Known,
) -> Result<&'t (Gate, Task)> {
    let number = known.run.number;
    match tasks.entry(number) {
        Entry::Occupied(held) => Ok(held.into_mut()),
        Entry::Vacant(free) => {
            let gate = tenant.register("worker")?;
            let task = gate.claim(&known.run.queue(), Duration::ZERO)?;
            let task = task.unwrap_or_else(|| panic!("nobody is given the next step of {known:?}"));
            assert_eq!((task.instance, task.step.clone()), (known.id, step(known.done + 1)));
            Ok(free.insert((gate, task)))
        }
    }
}

fn completion(run: &Run, number: u32) -> Completion {
    let next = (number < run.steps).then(|| run.step(number + 1));
    let output = output(run.number).into_bytes();
    Completion { result: step(number).into_bytes(), next: next.into_iter().collect(), output }
}
