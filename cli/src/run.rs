//! `run`: from the command line to the report.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cutover::Engine;

use crate::args::RunArgs;
use crate::books::Books;
use crate::crash;
use crate::entry::{Clock, Sink};
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::ledger::Resume;
use crate::live::Live;
use crate::load::board::State;
use crate::measure::{Measure, Measured};
use crate::part::{self, CLOSE_WITHIN, Standing};
use crate::plan::{Plan, Way};
use crate::plot;
use crate::report::{self, Definitions, Report, Stores};
use crate::verify::{self, Found};
use crate::workflow::{self, Collection};

/// Where results go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Output {
    /// The report.
    pub report: Option<PathBuf>,
    /// The plot.
    pub plot: Option<PathBuf>,
    /// Nothing is said while it runs.
    pub quiet: bool,
}

/// Runs and says what came of it. Returns the exit code.
pub(crate) fn run(args: &RunArgs) -> Result<u8> {
    let plan = Plan::new(args)?;
    let collection = workflow::read_dir(&args.workflows, args.skip_bad)?;
    let output = Output { report: args.report.clone(), plot: args.plot.clone(), quiet: args.quiet };
    let report = execute(plan, collection, &output)?;
    if !output.quiet {
        println!("{}", report.summary());
    } else if report.exit != 0 {
        eprintln!("{}", report.summary());
    }
    Ok(report.exit)
}

/// Runs a plan to the end and writes what was asked for.
pub(crate) fn execute(mut plan: Plan, collection: Collection, output: &Output) -> Result<Report> {
    for path in [&output.report, &output.plot].into_iter().flatten() {
        check_writable(path)?;
    }
    let environment = prepare(&mut plan)?;
    let books = Arc::new(Books::default());
    let live = Live::start(&plan, &books, output.quiet)?;
    let clock = Clock::start();
    let worked = work(&plan, &collection, clock, &books);
    live.stop()?;
    let kills = worked?;
    let ended = clock.now();
    let ledger = std::mem::take(&mut *books.ledger.lock());
    let mut measure = std::mem::take(&mut *books.measure.lock());
    let measured = measure.report();
    let found = verify::verify(&plan, &collection.workflows, ledger)?;
    let elapsed_us = ended.saturating_sub(measure.began());
    let outcome = Outcome { measured, found, elapsed_us, kills, environment };
    let report = outcome.report(plan, &collection, &books);
    write(&report, &measure, output)?;
    Ok(report)
}

/// Looks that the directory can be used, finds a name for the tenant, and measures the disk while it is quiet.
fn prepare(plan: &mut Plan) -> Result<Environment> {
    let engine = Engine::builder(&plan.data).open()?;
    plan.tenant = part::free_name(&engine);
    engine.close(CLOSE_WITHIN)?;
    Environment::measure(&plan.data)
}

/// Runs the part that has the engine, here or in a process to be killed. Says how often that was done.
fn work(plan: &Plan, collection: &Collection, clock: Clock, books: &Arc<Books>) -> Result<u32> {
    if plan.crash > 0 {
        return crash::run(plan, clock, books);
    }
    let standing = Standing {
        origin: clock.origin,
        began: None,
        board: State::default(),
        resume: Resume::default(),
        may_finish: true,
    };
    let sink: Arc<dyn Sink> = Arc::clone(books) as Arc<dyn Sink>;
    part::run(plan, collection.workflows.clone(), &standing, &sink).map(|()| 0)
}

struct Outcome {
    measured: Measured,
    found: Found,
    elapsed_us: u64,
    kills: u32,
    environment: Environment,
}

impl Outcome {
    fn report(self, plan: Plan, collection: &Collection, books: &Books) -> Report {
        let (measured, verdict) = (self.measured, self.found.verdict);
        let notes = books.notes();
        // The store that is left is gone; what was in it is what the last comparison found in both.
        let survivor = self.found.definitions - self.found.mismatched;
        let (initial, target) = match plan.way {
            Way::Forward => (notes.verified, survivor),
            Way::Back(_) | Way::Cancelled(_) => (survivor, notes.verified),
        };
        let definitions = Definitions {
            created: self.found.definitions,
            copied: measured.copied,
            initial,
            target,
            mismatched: self.found.mismatched,
        };
        let too_little = report::too_little(&plan, &measured, &verdict.launches, &verdict.steps);
        let exit = report::exit_code(verdict.is_good(), &definitions, &too_little);
        Report {
            schema: "cutover.run/1",
            environment: self.environment,
            stores: Stores { initial: plan.from.clone(), target: plan.to.clone() },
            durability: if plan.synced { "synced" } else { "buffered" },
            workflows: collection.workflows.len(),
            tasks: collection.workflows.iter().map(|workflow| workflow.tasks.len()).sum(),
            skipped: collection.skipped.clone(),
            launches: verdict.launches,
            instances: verdict.instances,
            steps: verdict.steps,
            definitions,
            phases: measured.phases,
            cutovers: measured.cutovers,
            stable_gap_us: measured.stable_gap_us,
            handover: measured.handover,
            stragglers: measured.stragglers,
            elapsed_us: self.elapsed_us,
            kills: self.kills,
            plan,
            problems: verdict.problems,
            obstacles: notes.obstacles,
            too_little,
            exit,
        }
    }
}

/// A path that cannot be written is found out before a run of minutes and not after it.
fn check_writable(path: &Path) -> Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() || !dir.is_dir() {
        return Err(Failure::bad_input(format!("{} cannot be written: no such directory", path.display())));
    }
    Ok(())
}

fn write(report: &Report, measure: &Measure, output: &Output) -> Result<()> {
    let cannot = |path: &Path, err: &dyn std::fmt::Display| {
        Failure::new(format!("cannot write {}: {err}", path.display()))
    };
    if let Some(path) = &output.report {
        let mut text = serde_json::to_string_pretty(report).map_err(|err| cannot(path, &err))?;
        text.push('\n');
        std::fs::write(path, text).map_err(|err| cannot(path, &err))?;
    }
    if let Some(path) = &output.plot {
        plot::draw(path, report, measure).map_err(|text| cannot(path, &text))?;
    }
    Ok(())
}
