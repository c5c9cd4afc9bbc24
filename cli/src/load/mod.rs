//! The load: launchers, workers and a definer at work on one tenant.

pub(crate) mod board;
mod definer;
pub(crate) mod fleet;
mod launcher;
mod runners;
mod worker;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cutover::{Engine, InstanceId, NewStep, Retry, Task, Tenant};
use parking_lot::Mutex;

use self::board::Board;
use self::fleet::Fleet;
use self::runners::Runners;
use crate::entry::{Clock, Entry, Scope, Sink};
use crate::failure::{Failure, Result};
use crate::ledger::Resume;
use crate::plan::{Plan, Way};
use crate::workflow::Workflow;

pub(crate) use self::definer::{body, definition_name, preload};

/// The queue of all steps.
const QUEUE: &str = "tasks";
/// Errors of workers and the definer after which a run is given up.
const ENOUGH_ERRORS: u32 = 50;
/// A run in which no step was completed for so long, though there are some, is given up.
const STUCK: Duration = Duration::from_secs(120);

/// A step. It is tried for as long as workers freeze over it, or over others that they hold beside it: nobody is there who decides.
fn step(name: &str) -> NewStep {
    NewStep::new(name).queue(QUEUE).retry(Retry { attempts: u32::MAX, ..Retry::default() })
}

/// What all threads of the load share.
pub(crate) struct Site {
    /// What to do.
    pub plan: Plan,
    /// What to run.
    pub workflows: Vec<Workflow>,
    /// Where.
    pub tenant: Tenant,
    /// Who is told.
    pub sink: Arc<dyn Sink>,
    /// What time it is.
    pub clock: Clock,
    /// When the load started.
    pub began: u64,
    /// Where the tenant is.
    pub board: Arc<Board>,
    fleet: Fleet,
    names: HashMap<String, usize>,
    next_launch: AtomicU64,
    started: AtomicU64,
    steps: AtomicU64,
    /// Steps of which a worker froze.
    stalled: Mutex<HashSet<(InstanceId, String)>>,
    idle_launchers: AtomicU32,
    no_launches: AtomicBool,
    no_work: AtomicBool,
    errors: AtomicU32,
    failure: Mutex<Option<Failure>>,
}

impl Site {
    /// Puts it together. Nothing runs yet.
    pub(crate) fn new(
        plan: Plan,
        workflows: Vec<Workflow>,
        tenant: Tenant,
        sink: Arc<dyn Sink>,
        clock: Clock,
        board: Arc<Board>,
    ) -> Self {
        let names = workflows.iter().enumerate().map(|(at, workflow)| (workflow.name.clone(), at)).collect();
        Self {
            plan,
            workflows,
            tenant,
            sink,
            began: clock.now(),
            clock,
            board,
            fleet: Fleet::default(),
            names,
            next_launch: AtomicU64::new(0),
            started: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            stalled: Mutex::default(),
            idle_launchers: AtomicU32::new(0),
            no_launches: AtomicBool::new(false),
            no_work: AtomicBool::new(false),
            errors: AtomicU32::new(0),
            failure: Mutex::new(None),
        }
    }

    /// Instances started so far.
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// The run cannot go on.
    pub(crate) fn fail(&self, failure: Failure) {
        self.failure.lock().get_or_insert(failure);
    }

    /// An error that no launcher saw: it counts, and many of them end the run.
    fn trouble(&self, doing: &str, err: &cutover::Error) {
        self.sink.put(Entry::Problem(format!("{doing}: {err}")));
        if self.errors.fetch_add(1, Ordering::Relaxed) >= ENOUGH_ERRORS {
            self.fail(Failure::new(format!("{doing} failed {ENOUGH_ERRORS} times, at last: {err}")));
        }
        thread::sleep(Duration::from_millis(50));
    }

    /// Why the run cannot go on, if it cannot.
    pub(crate) fn check(&self) -> Result<()> {
        self.failure.lock().clone().map_or(Ok(()), Err)
    }

    /// Whether nobody froze over this step before: once is enough, and a run ends however many do.
    fn stalls_first(&self, task: &Task) -> bool {
        self.stalled.lock().insert((task.instance, task.step.clone()))
    }

    fn given_up(&self) -> bool {
        self.failure.lock().is_some()
    }

    /// Launches that may be in a store which is going to be left are swept soon after they end, so that it can drain; those
    /// after the last cutover of the way stay to be looked up at the end.
    fn scope(&self) -> Scope {
        let kept = self.board.with(|state| match self.plan.way {
            Way::Cancelled(_) => state.settled.is_some(),
            _ => state.cutovers.len() >= self.plan.cutovers(),
        });
        if kept { Scope::Kept } else { Scope::Swept }
    }
}

/// The threads of the load.
pub(crate) struct Crew {
    site: Arc<Site>,
    launchers: Vec<JoinHandle<()>>,
    runners: Runners,
}

impl Crew {
    /// Takes over what a killed process has left, then starts all threads.
    pub(crate) fn start(site: &Arc<Site>, engine: &Engine, resume: &Resume) -> Result<Self> {
        site.next_launch.store(resume.next_launch, Ordering::Relaxed);
        site.started.store(resume.started, Ordering::Relaxed);
        launcher::take_over(site, resume)?;
        let runners = Runners::start(site, engine)?;
        let mut crew = Self { site: Arc::clone(site), launchers: Vec::new(), runners };
        if site.plan.define_rate > 0.0 {
            let (site, first) = (Arc::clone(site), resume.next_definition);
            crew.launchers.push(spawn("definer".to_owned(), move || definer::run(&site, first))?);
        }
        site.sink.put(Entry::Up { at: site.clock.now() });
        for number in 0..site.plan.launchers {
            let site = Arc::clone(site);
            crew.launchers.push(spawn(format!("launcher-{number}"), move || launcher::run(&site, number))?);
        }
        Ok(crew)
    }

    /// Hands the tenant to the next runner if it is time to, and says whether all hand-overs of the plan were made.
    pub(crate) fn hand_over_when_due(&mut self) -> Result<bool> {
        self.runners.hand_over_when_due()
    }

    /// Ends launching and defining; returns when the last call has been answered.
    pub(crate) fn stop_launching(&mut self) -> Result<()> {
        self.site.no_launches.store(true, Ordering::Relaxed);
        self.launchers.drain(..).try_for_each(join)?;
        self.site.sink.put(Entry::Down { at: self.site.clock.now() });
        self.site.board.close();
        self.site.check()
    }

    /// Works until every instance has ended, then ends the workers.
    pub(crate) fn drain(mut self) -> Result<()> {
        let (mut steps, mut since) = (0, self.site.clock.now());
        while self.site.fleet.len() > 0 {
            self.site.check()?;
            thread::sleep(Duration::from_millis(5));
            let (seen, now) = (self.site.steps.load(Ordering::Relaxed), self.site.clock.now());
            if seen != steps {
                (steps, since) = (seen, now);
            }
            if now - since > crate::plan::micros(STUCK) {
                let (left, some) = (self.site.fleet.len(), self.site.fleet.some().join(", "));
                self.site.fail(Failure::new(format!(
                    "{left} instances did not end, and no step was completed for {} s; some of their keys: {some}",
                    STUCK.as_secs()
                )));
            }
        }
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.site.no_launches.store(true, Ordering::Relaxed);
        self.site.no_work.store(true, Ordering::Relaxed);
        self.launchers.drain(..).try_for_each(join)?;
        self.runners.end()?;
        self.site.check()
    }
}

impl Drop for Crew {
    /// Also when the run is given up, no thread goes on behind its back.
    fn drop(&mut self) {
        if let Err(failure) = self.end() {
            self.site.fail(failure);
        }
    }
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name(name.clone()).spawn(work);
    thread.map_err(|err| Failure::new(format!("cannot start the thread {name}: {err}")))
}

fn join(thread: JoinHandle<()>) -> Result<()> {
    let name = thread.thread().name().unwrap_or("a thread").to_owned();
    thread.join().map_err(|_| Failure::new(format!("the thread {name} of the load panicked: a bug of ours")))
}
