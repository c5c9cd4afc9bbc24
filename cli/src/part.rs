//! The part of a run that has the engine: everything from opening it to closing it. It runs in this process, or in one that
//! is killed and started again.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use cutover::{Durability, Engine, Event, Observer, Retention, StoreSpec, Tenant, TenantOptions};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::drive;
use crate::entry::{Clock, Entry, Scope, Sink};
use crate::failure::{FAILED, Failure, Result};
use crate::ledger::Resume;
use crate::load::board::{Board, State};
use crate::load::{self, Crew, Site};
use crate::plan::Plan;
use crate::workflow::Workflow;

/// How long closing the engine may take.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(60);
/// How long what has ended is kept where a store has to drain.
const SWEPT_MS: u64 = 1_000;
/// How long answers are kept there. A process that replaces a killed one asks again within moments.
const ANSWERS_MS: u64 = 1_000;
/// The same where the process is killed: opening again may take seconds.
const ANSWERS_KILLED_MS: u64 = 10_000;
/// How long what has ended is kept to be looked up at the end.
const KEPT_MS: u64 = 24 * 3600 * 1000;
/// What a workflow's definition says it is.
pub(crate) const CONTENT_TYPE: &str = "application/json";

/// Where a run is when a process takes it up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// When the run started, in microseconds since 1970.
    pub origin: u64,
    /// When its load started; none if it has not.
    pub began: Option<u64>,
    /// Where the tenant is.
    pub board: State,
    /// What is open.
    pub resume: Resume,
    /// The load may end.
    pub may_finish: bool,
}

/// Reports to the sink what the engine does.
pub(crate) struct Reporter {
    tenant: String,
    clock: Clock,
    board: Arc<Board>,
    sink: Arc<dyn Sink>,
}

impl Observer for Reporter {
    fn on_event(&self, event: &Event) {
        let at = self.clock.now();
        match event {
            Event::Phase { tenant, to, .. } if *tenant == self.tenant => {
                self.board.enter(*to, at);
                self.sink.put(Entry::Phase { phase: *to, at });
            }
            Event::Waited { tenant, phase, took, .. } if *tenant == self.tenant => {
                self.sink.put(Entry::Waited { phase: *phase, took: crate::plan::micros(*took) });
            }
            Event::Collecting { tenant, instance } if *tenant == self.tenant => {
                self.sink.put(Entry::Collecting { instance: *instance, at });
            }
            Event::Moved { tenant, instance, to, pause, .. } if *tenant == self.tenant => {
                self.sink.put(Entry::Moved {
                    instance: *instance,
                    to: to.0,
                    pause: crate::plan::micros(*pause),
                });
            }
            Event::Verified { tenant, compared, .. } if *tenant == self.tenant => {
                self.sink.put(Entry::Verified { definitions: *compared });
            }
            Event::Failed { tenant, error } if *tenant == self.tenant => {
                self.sink.put(Entry::Obstacle(error.clone()));
            }
            _ => {}
        }
    }
}

/// Opens the engine as the plan says.
pub(crate) fn open(plan: &Plan, clock: Clock, board: &Arc<Board>, sink: &Arc<dyn Sink>) -> Result<Engine> {
    let reporter =
        Reporter { tenant: plan.tenant.clone(), clock, board: Arc::clone(board), sink: Arc::clone(sink) };
    let durability = if plan.synced { Durability::Synced } else { Durability::Buffered };
    let builder = Engine::builder(&plan.data).durability(durability).observer(Arc::new(reporter));
    Ok(builder.heartbeats(plan.heartbeats()).open()?)
}

/// A name that no tenant of the directory has.
pub(crate) fn free_name(engine: &Engine) -> String {
    let taken = engine.tenants();
    let names = (1_u32..).map(|number| if number == 1 { "run".to_owned() } else { format!("run-{number}") });
    names.into_iter().find(|name| !taken.contains(name)).unwrap_or_default()
}

/// Opens, works and closes.
pub(crate) fn run(
    plan: &Plan,
    workflows: Vec<Workflow>,
    standing: &Standing,
    sink: &Arc<dyn Sink>,
) -> Result<()> {
    let clock = Clock::join(standing.origin);
    let board = Arc::new(Board::new(standing.board.clone()));
    let engine = open(plan, clock, &board, sink)?;
    let tenant = match standing.began {
        None => set_up(&engine, plan, &workflows)?,
        Some(_) => engine.tenant(&plan.tenant)?,
    };
    let mut site = Site::new(plan.clone(), workflows, tenant, Arc::clone(sink), clock, Arc::clone(&board));
    match standing.began {
        None => sink.put(Entry::Began { at: site.began }),
        Some(at) => site.began = at,
    }
    // A transition that was made durable and not reported before a kill shows here.
    let (phase, at) = (site.tenant.status().phase, clock.now());
    board.enter(phase, at);
    sink.put(Entry::Phase { phase, at });
    let site = Arc::new(site);
    let mut crew = Crew::start(&site, &engine, &standing.resume)?;
    drive::run(&site, &mut crew, standing.may_finish)?;
    crew.stop_launching()?;
    crew.drain()?;
    drop(site);
    Ok(engine.close(CLOSE_WITHIN)?)
}

fn set_up(engine: &Engine, plan: &Plan, workflows: &[Workflow]) -> Result<Tenant> {
    let answers = if plan.crash > 0 { ANSWERS_KILLED_MS } else { ANSWERS_MS };
    let swept = Retention { instance_ms: SWEPT_MS, key_ms: SWEPT_MS, request_ms: answers };
    let kept = Retention { instance_ms: KEPT_MS, key_ms: KEPT_MS, request_ms: answers };
    let options = TenantOptions::new(StoreSpec::driver(&plan.from))
        .retention(swept)
        .scope_retention(Scope::Kept.name(), kept);
    let tenant = match engine.tenants().contains(&plan.tenant) {
        // Killed while it was set up.
        true => engine.tenant(&plan.tenant)?,
        false => engine.create_tenant(&plan.tenant, options)?,
    };
    for workflow in workflows {
        tenant.define(&workflow.name, 1, CONTENT_TYPE, &workflow.body)?;
    }
    load::preload(&tenant, plan.seed, plan.definitions).map_err(|err| err.context("storing definitions"))?;
    Ok(tenant)
}

/// What a child process is given on stdin.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// What to do.
    pub plan: Plan,
    /// Where the run is.
    pub standing: Standing,
}

/// The ledger of a process that may be killed is in its parent: entries go to stdout, a line each.
#[derive(Debug, Default)]
struct Pipe(Mutex<()>);

impl Sink for Pipe {
    fn put(&self, entry: Entry) {
        let Ok(mut line) = serde_json::to_vec(&entry) else { return };
        line.push(b'\n');
        let one_at_a_time = self.0.lock();
        let mut out = std::io::stdout().lock();
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            // The parent is gone, and with it the ledger: nothing that is done from here on counts.
            std::process::exit(i32::from(FAILED));
        }
        drop(one_at_a_time);
    }
}

/// Reads its order from stdin and runs the part; entries go to stdout, a line each.
pub(crate) fn child() -> Result<()> {
    let order: Order = serde_json::from_reader(std::io::stdin().lock())
        .map_err(|err| Failure::new(format!("the order of the parent process cannot be read: {err}")))?;
    let workflows = crate::workflow::read_dir(&order.plan.workflows, order.plan.skip_bad)?.workflows;
    let sink: Arc<dyn Sink> = Arc::new(Pipe::default());
    run(&order.plan, workflows, &order.standing, &sink)
}
