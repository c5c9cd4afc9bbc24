//! A session on an open engine: who works on it, and what it prints.
//!
//! [`Session::begin`] prints what is there at the beginning; [`Session::thread`] gives the threads, which do one operation with each
//! [`step`](Thread::step). Nothing here starts a thread or sleeps, so a test can drive it from one thread, in the same order each
//! time; [`crate::load`] runs it with threads.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cutover::{
    Completion, Defined, Durability, Ended, Ending, Engine, Error, ErrorKind, Filter, Gate, InstanceId,
    Launched, Result, Retention, Settled, StoreSpec, Task, Tenant, TenantOptions,
};

use crate::ack::{self, Ack, Answer, EndAnswer, FORMAT, How, Line, Opened, Report, Saw};
use crate::content;
use crate::plan::{Op, Planner};
use crate::who::Who;

/// What a session is like.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Seed of everything that is chosen.
    pub seed: u64,
    /// Number of the session, another one each time a directory is loaded.
    pub session: u64,
    /// Name of the tenant. It is made if it is not there.
    pub tenant: String,
    /// The durability level that the engine was opened with.
    pub durability: Durability,
    /// How many threads there will be.
    pub threads: u32,
    /// Keys that all threads share.
    pub keys: u32,
    /// The store of a new tenant.
    pub from: StoreSpec,
    /// Name of its driver, for the first line.
    pub from_driver: String,
    /// Name of the driver to move to, for the first line.
    pub to_driver: String,
    /// Retention of a new tenant.
    pub retention: Retention,
}

impl Setup {
    /// A session of this seed and number on the memory driver, with one thread.
    #[must_use]
    pub fn new(seed: u64, session: u64) -> Self {
        Self {
            seed,
            session,
            tenant: "load".into(),
            durability: Durability::Synced,
            threads: 1,
            keys: 4,
            from: StoreSpec::driver("memory"),
            from_driver: "memory".into(),
            to_driver: "memory".into(),
            retention: Retention { instance_ms: 200, key_ms: 200, request_ms: 120_000 },
        }
    }
}

/// Where the lines go. Calls come one at a time; what it returns an error for was not printed.
pub type Print = Box<dyn FnMut(&Line) -> io::Result<()> + Send>;

/// The lines of a session.
pub struct Acks {
    print: Mutex<Print>,
    printed: AtomicU64,
    /// Nobody reads any more.
    broken: AtomicBool,
    /// The newest status that a line is about.
    epoch: AtomicU64,
}

impl Acks {
    /// Lines that go there.
    pub fn new(print: Print) -> Arc<Self> {
        let (printed, broken, epoch) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
        Arc::new(Self { print: Mutex::new(print), printed, broken, epoch })
    }

    /// Lines that stay in memory, and where they are.
    #[must_use]
    pub fn in_memory() -> (Arc<Self>, Arc<Mutex<Vec<Line>>>) {
        let lines: Arc<Mutex<Vec<Line>>> = Arc::default();
        let to = Arc::clone(&lines);
        let print = move |line: &Line| {
            to.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
            Ok(())
        };
        (Self::new(Box::new(print)), lines)
    }

    /// Whether a line could not be printed: nobody will know of anything that is done from now on.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// How many lines have been printed.
    fn printed(&self) -> u64 {
        self.printed.load(Ordering::Acquire)
    }

    fn say(&self, before: u64, ack: Ack) {
        let mut print = self.print.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_broken() {
            return;
        }
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        match print(&Line { ack, before, at_ms }) {
            Ok(()) => drop(self.printed.fetch_add(1, Ordering::Release)),
            Err(_) => self.broken.store(true, Ordering::Release),
        }
    }
}

/// A session.
#[derive(Clone)]
pub struct Session {
    setup: Setup,
    engine: Engine,
    tenant: Tenant,
    acks: Arc<Acks>,
    /// What was found alive, by the thread that it now belongs to.
    found: Vec<Ack>,
}

impl Session {
    /// Makes the tenant if it is not there, and prints what is: the first line, what lives, and where the tenant is.
    ///
    /// # Errors
    /// If the engine has one.
    pub fn begin(engine: &Engine, setup: Setup, acks: Arc<Acks>) -> Result<Self> {
        let tenant = match engine.tenant(&setup.tenant) {
            Err(err) if err.kind() == ErrorKind::NotFound => engine.create_tenant(
                &setup.tenant,
                TenantOptions::new(setup.from.clone()).retention(setup.retention),
            )?,
            tenant => tenant?,
        };
        let earlier = sign(&tenant, &setup)?;
        acks.say(0, Ack::Opened(opened(&setup, earlier.len() as u64)));
        let mut session = Self { setup, engine: engine.clone(), tenant, acks, found: Vec::new() };
        session.look();
        for (who, threads) in earlier {
            session.count_definitions(who, threads)?;
        }
        session.find()?;
        Ok(session)
    }

    /// The tenant.
    #[must_use]
    pub const fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Prints where the tenant is, if no line is about that yet. Threads do it with each step.
    pub fn look(&self) {
        let status = self.tenant.status();
        if self.acks.epoch.load(Ordering::Acquire) >= status.epoch {
            return;
        }
        let before = self.acks.printed();
        if self.acks.epoch.fetch_max(status.epoch, Ordering::AcqRel) >= status.epoch {
            return;
        }
        let driver = |id| self.engine.store_driver(id).unwrap_or_default();
        let home = status.store(status.home()).map(driver).unwrap_or_default();
        let other = status.store(status.home().other()).map(driver);
        self.acks.say(before, Ack::Phase { epoch: status.epoch, phase: status.phase, home, other });
    }

    /// Prints which definitions of an earlier session are there.
    fn count_definitions(&self, who: Who, threads: u32) -> Result<()> {
        for thread in 0..threads {
            let who = Who { thread, ..who };
            let mut count = 0;
            while self.tenant.definition(&content::definition_name(&who.at(count)), 1)?.is_some() {
                count += 1;
            }
            let by = format!("{:x}.{:x}.{thread}", who.seed, who.session);
            self.acks.say(self.acks.printed(), Ack::Defined { by, count });
        }
        Ok(())
    }

    /// Takes over what earlier sessions have left alive. In which order that was launched nobody knows, and some of it may only just have
    /// been made, by opening; so none of these lines comes after another one.
    fn find(&mut self) -> Result<()> {
        let live = Filter { live: Some(true), ..Filter::default() };
        let before = self.acks.printed();
        let mut after = None;
        loop {
            let page = self.tenant.list(&live, after, 1_000)?;
            for instance in page.instances {
                let thread = self.found.len() as u32 % self.setup.threads.max(1);
                let key = instance.key.map(|(_, key)| String::from_utf8_lossy(&key).into_owned());
                let found = Ack::Found { thread, instance: instance.id, key };
                self.acks.say(before, found.clone());
                self.found.push(found);
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// A thread of this number, which begins.
    ///
    /// # Errors
    /// If the engine has one.
    pub fn thread(&self, number: u32) -> Result<Thread> {
        let Setup { seed, session, keys, .. } = self.setup;
        let mut planner = Planner::new(seed, session, number, keys);
        for found in &self.found {
            if matches!(found, Ack::Found { thread, .. } if *thread == number) {
                planner.absorb(found);
            }
        }
        let gate = self.tenant.register(format!("thread {number}"))?;
        Ok(Thread { session: self.clone(), gate, planner })
    }
}

/// Adds this session to those that the directory has had, and returns these.
fn sign(tenant: &Tenant, setup: &Setup) -> Result<Vec<(Who, u32)>> {
    let mut earlier = Vec::new();
    for number in 0.. {
        let name = content::session_name(number);
        match tenant.definition(&name, 1)? {
            // One whose body is not a session's the check finds.
            Some(found) => earlier.extend(content::session_of(&found.body)),
            None => {
                let who = Who { seed: setup.seed, session: setup.session, thread: 0, n: 0 };
                tenant.define(&name, 1, "text/plain", &content::session_body(&who, setup.threads))?;
                break;
            }
        }
    }
    Ok(earlier)
}

fn opened(setup: &Setup, sessions: u64) -> Opened {
    let Retention { instance_ms, key_ms, request_ms } = setup.retention;
    Opened {
        format: FORMAT,
        session: setup.session,
        seed: setup.seed,
        durability: setup.durability,
        tenant: setup.tenant.clone(),
        from: setup.from_driver.clone(),
        to: setup.to_driver.clone(),
        sessions,
        threads: setup.threads,
        keys: setup.keys,
        instance_ms,
        key_ms,
        request_ms,
    }
}

/// A thread of a session. It may be moved to a thread of its own.
pub struct Thread {
    session: Session,
    gate: Gate,
    planner: Planner,
}

impl Thread {
    /// Does the next operation and prints what came of it.
    ///
    /// # Errors
    /// The error of the engine, which the line says too. The thread may go on; a test that has killed its engine does not.
    pub fn step(&mut self) -> Result<()> {
        self.session.look();
        let (op, by) = (self.planner.next(), self.planner.who());
        let before = self.session.acks.printed();
        let (ack, done) = match self.perform(&op, by) {
            Ok(ack) => (ack, Ok(())),
            Err((task, err)) => (failed(by, task, &err), Err(err)),
        };
        self.planner.absorb(&ack);
        self.session.acks.say(before, ack);
        self.session.look();
        done
    }

    fn perform(&self, op: &Op, by: Who) -> Result<Ack, (Option<ack::Task>, Error)> {
        match op {
            Op::Work => self.work(by),
            Op::Launch { number, definition } => {
                self.launch(by, *number, *definition).map_err(|err| (None, err))
            }
            Op::Define { number } => self.define(by, *number).map_err(|err| (None, err)),
            Op::End { instance, how } => self.end(by, *instance, *how).map_err(|err| (None, err)),
            Op::ById { instance } => self.by_id(by, *instance).map_err(|err| (None, err)),
            Op::ByKey { key } => self.by_key(by, key).map_err(|err| (None, err)),
        }
    }

    fn launch(&self, by: Who, number: u64, definition: u64) -> Result<Ack> {
        let asked = content::asked(by.at(number), definition, self.session.setup.keys);
        let (answer, instance, ending) = match self.session.tenant.launch(&asked.launch())? {
            Launched::Started(id) => (Answer::Started, id, None),
            Launched::Existing(id) => (Answer::Existing, id, None),
            Launched::Conflict { instance } => (Answer::Conflict, instance, None),
            Launched::Rejected { instance, ending } => (Answer::Rejected, instance, Some(ending)),
        };
        Ok(Ack::Launch { thread: by.thread, n: by.n, number, key: asked.key, answer, instance, ending })
    }

    fn define(&self, by: Who, number: u64) -> Result<Ack> {
        let who = by.at(number);
        let tenant = &self.session.tenant;
        let before = tenant.status();
        let (name, body) = (content::definition_name(&who), content::body(&who));
        let created = tenant.define(&name, 1, "text/plain", &body)? == Defined::Created;
        let stores = if tenant.status().epoch == before.epoch {
            [Some(before.initial), before.target].into_iter().flatten().map(|store| store.0).collect()
        } else {
            Vec::new()
        };
        Ok(Ack::Define { thread: by.thread, n: by.n, number, created, stores })
    }

    fn work(&self, by: Who) -> Result<Ack, (Option<ack::Task>, Error)> {
        let (thread, n) = (by.thread, by.n);
        let claimed = self.gate.claim(content::QUEUE, Duration::ZERO).map_err(|err| (None, err))?;
        let Some(task) = claimed else { return Ok(Ack::Idle { thread, n }) };
        let Some((who, step)) = content::step_of(&task.input).filter(|(_, step)| *step == task.step) else {
            let what = format!("the step {:?} of instance {} has another input", task.step, task.instance);
            return Ok(Ack::Wrong { thread, n, what });
        };
        let report = content::report(&who, step, task.attempt);
        let settled = match report {
            Report::Completed => self.complete(&task, content::completion(&who, step, &by)),
            Report::Retry | Report::Failed => self.gate.fail(&task, &content::failure(report, &by)),
        };
        let in_hand = ack::Task { instance: task.instance, step: task.step.clone() };
        let (done, ended) = match settled.map_err(|err| (Some(in_hand), err))? {
            Settled::Done { ended } => (true, ended),
            Settled::Refused(_) => (false, None),
        };
        let (instance, attempt) = (task.instance, task.attempt);
        Ok(Ack::Step { thread, n, instance, step: task.step, attempt, report, done, ended })
    }

    fn complete(&self, task: &Task, completion: Completion) -> Result<Settled> {
        self.gate.complete(task, completion)
    }

    fn end(&self, by: Who, instance: InstanceId, how: How) -> Result<Ack> {
        let (tenant, why) = (&self.session.tenant, content::ended_by(&by));
        let ended = match how {
            How::End => tenant.end(instance, Ending::Completed, why.as_bytes(), ""),
            How::Cancel => tenant.cancel(instance, &why),
            How::Terminate => tenant.terminate(instance, &why),
        };
        let (answer, ending) = match ended {
            Ok(Ended::Now) => (EndAnswer::Now, None),
            Ok(Ended::Asked) => (EndAnswer::Asked, None),
            Ok(Ended::Before(ending)) => (EndAnswer::Before, Some(ending)),
            Err(err) if err.kind() == ErrorKind::NotFound => (EndAnswer::Gone, None),
            Err(err) => return Err(err),
        };
        Ok(Ack::End { thread: by.thread, n: by.n, instance, how, answer, ending })
    }

    fn by_id(&self, by: Who, instance: InstanceId) -> Result<Ack> {
        let (saw, ending) = saw(self.session.tenant.instance(instance)?.map(|found| found.ending()));
        Ok(Ack::Query { thread: by.thread, n: by.n, instance: Some(instance), key: None, saw, ending })
    }

    fn by_key(&self, by: Who, key: &str) -> Result<Ack> {
        let found = self.session.tenant.instance_by_key(content::SCOPE, key.as_bytes())?;
        let (saw, ending) = saw(found.as_ref().map(cutover::Instance::ending));
        let instance = found.map(|found| found.id);
        Ok(Ack::Query { thread: by.thread, n: by.n, instance, key: Some(key.to_owned()), saw, ending })
    }
}

fn saw(found: Option<Option<Ending>>) -> (Saw, Option<Ending>) {
    match found {
        None => (Saw::Nothing, None),
        Some(None) => (Saw::Live, None),
        Some(ending) => (Saw::Ended, ending),
    }
}

fn failed(by: Who, task: Option<ack::Task>, err: &Error) -> Ack {
    let refused = matches!(
        err.kind(),
        ErrorKind::InvalidInput | ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::StatusChanged
    );
    Ack::Failed { thread: by.thread, n: by.n, task, refused, error: format!("{:?}: {err}", err.kind()) }
}
