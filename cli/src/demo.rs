//! `demo`: the main job on workflows that come with the program, told to somebody who has never seen it.

use std::path::Path;

use crate::args::{Cli, Command, DemoArgs};
use crate::failure::{BAD_INPUT, Failure, Result};
use crate::plan::{DRIVERS, Plan};
use crate::report::{Report, time};
use crate::run::{self, Output};
use crate::workflow::{self, Collection};

/// The workflows that come with the program.
const SAMPLES: [(&str, &str); 4] = [
    ("flood-map", include_str!("../../samples/flood-map.json")),
    ("nightly-backup", include_str!("../../samples/nightly-backup.json")),
    ("sales-report", include_str!("../../samples/sales-report.json")),
    ("video-transcode", include_str!("../../samples/video-transcode.json")),
];
/// Stay in each phase so long, to be seen.
const DWELL: &str = "all=2s";
/// Launches per second: enough for every phase to be measured, and so few that a small machine gets through the work.
const RATE: &str = "150";
/// Stored definitions, so that there is something to copy.
const DEFINITIONS: &str = "2000";

/// Shows the main job. Returns the exit code of the run.
pub(crate) fn demo(args: &DemoArgs) -> Result<u8> {
    check_drivers()?;
    let home = tempfile::Builder::new().prefix("cutover-demo-").tempdir();
    let home = home.map_err(|err| Failure::new(format!("cannot make a temporary directory: {err}")))?;
    let samples = home.path().join("workflows");
    let collection = write_samples(&samples)?;
    let plan = plan(&samples, &home.path().join("data"))?;
    println!("{}", opening(&plan, &collection));
    let output = Output { report: args.report.clone(), plot: args.plot.clone(), quiet: false };
    let report = run::execute(plan, collection, &output);
    // Also after a failure nothing is left behind.
    let removed = home.close();
    let report = report?;
    removed.map_err(|err| Failure::new(format!("cannot remove the temporary directory: {err}")))?;
    println!("{}", account(&report, args.plot.as_deref()));
    Ok(report.exit)
}

/// The demo needs both stores.
fn check_drivers() -> Result<()> {
    let built = [("rocksdb", cfg!(feature = "rocksdb")), ("sled", cfg!(feature = "sled"))];
    let missing: Vec<&str> = built.into_iter().filter(|(_, built)| !built).map(|(name, _)| name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure {
        code: BAD_INPUT,
        text: format!(
            "the demo moves from RocksDB to sled, and this program was built without {}; build it with --features {}",
            missing.join(" and "),
            DRIVERS.join(",")
        ),
    })
}

fn write_samples(dir: &Path) -> Result<Collection> {
    let cannot = |err| Failure::new(format!("cannot write the sample workflows to {}: {err}", dir.display()));
    std::fs::create_dir(dir).map_err(cannot)?;
    for (name, text) in SAMPLES {
        std::fs::write(dir.join(format!("{name}.json")), text).map_err(cannot)?;
    }
    workflow::read_dir(dir, false)
}

/// The same command line that a person would type, so that its defaults are those of the manual.
fn plan(workflows: &Path, data: &Path) -> Result<Plan> {
    use clap::Parser;
    let words =
        ["cutover", "run", "--workflows", "w", "--data", "d", "--dwell", DWELL, "--instances", "1000"];
    let load = ["--rate", RATE, "--launchers", "8", "--workers", "16", "--definitions", DEFINITIONS];
    let cli = Cli::try_parse_from(words.iter().chain(&load));
    let Ok(Cli { command: Command::Run(mut args) }) = cli else {
        return Err(Failure::new("the command line of the demo is not one of this program: a bug of ours"));
    };
    (args.workflows, args.data) = (workflows.to_path_buf(), data.to_path_buf());
    Plan::new(&args)
}

/// What is going to happen.
fn opening(plan: &Plan, collection: &Collection) -> String {
    let tasks: usize = collection.workflows.iter().map(|workflow| workflow.tasks.len()).sum();
    format!(
        "A workflow runner with {} launchers and {} workers runs {} sample workflows ({tasks} tasks) on {}.\n\
         While it runs, everything it keeps moves to {}. Nothing is stopped; launches go on all the time.\n\
         A ledger of its own notes every answer. At the end the engine is closed, opened again from disk\n\
         and held against that ledger. This takes about 20 seconds.\n",
        plan.launchers,
        plan.workers,
        collection.workflows.len(),
        spoken(&plan.from),
        spoken(&plan.to),
    )
}

/// A driver as its makers write it.
fn spoken(driver: &str) -> &str {
    if driver == "rocksdb" { "RocksDB" } else { driver }
}

/// What happened, for a person.
fn account(report: &Report, plot: Option<&Path>) -> String {
    let (from, to) = (spoken(&report.stores.initial), spoken(&report.stores.target));
    let (launches, instances) = (&report.launches, &report.instances);
    let mut lines = vec![String::new(), "What happened".to_owned()];
    lines.extend(moved(report, from, to));
    lines.extend(report.phases.iter().map(|phase| {
        let latency = &phase.latency_us;
        format!(
            "    in {:<16}{:>5} launches   p50 {:>8}   p99 {:>8}",
            phase.phase,
            phase.launches,
            time(latency.p50),
            time(latency.p99)
        )
    }));
    lines.extend(gaps(report));
    lines.push(format!(
        "  {} launches failed, {} instances were lost, {} ran twice; {} of {} completed.",
        launches.failed, instances.lost, instances.duplicates, instances.completed, launches.started
    ));
    lines.push(format!(
        "  {} of {} launches that repeat a live key on purpose were refused, as they must be.",
        launches.conflicts, launches.expected_conflicts
    ));
    lines.push(format!(
        "  Checked against the ledger after opening again from disk: each instance by id and\n  \
         by key, and {} definitions byte for byte, of which {} differ.",
        report.definitions.created, report.definitions.mismatched
    ));
    lines.extend(report.problems.iter().map(|problem| format!("  Problem: {problem}")));
    lines.extend(report.too_little.iter().map(|why| format!("  This machine was too slow to tell: {why}")));
    lines.extend(plot.map(|path| format!("  The plot is in {}.", path.display())));
    lines.push("To try it on your own workflows, and to see it go back half-way:".to_owned());
    lines.push(
        "  cutover run --workflows DIR --data DIR --reverse-at post-migration --plot move.svg".to_owned(),
    );
    lines.join("\n")
}

fn moved(report: &Report, from: &str, to: &str) -> Vec<String> {
    let (copied, live) = (report.definitions.copied, report.instances.live_at_cutover);
    let mut lines = vec![
        format!("  The tenant moved from {from} to {to}: {copied} definitions were copied, and the {live}"),
        "  instances that were running at the switch went on and ended where they were.".to_owned(),
    ];
    // The last phase starts when nothing is left in the store that was closed.
    if let (Some(cutover), Some(end)) = (report.cutovers.first(), report.phases.last()) {
        let took = time(end.at_us.saturating_sub(cutover.at_us));
        lines.push(format!("  {from} was empty {took} after it took its last launch."));
    }
    lines
}

fn gaps(report: &Report) -> Option<String> {
    let cutover = report.cutovers.first()?;
    let (before, around) = (time(report.stable_gap_us.max), time(cutover.longest_gap_us));
    Some(format!(
        "  Longest time without an answered launch: {before} before the move, {around} at the cutover."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_are_workflows_and_the_directory_holds_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let collection = write_samples(&dir.path().join("w")).unwrap();
        let seen: Vec<_> = collection
            .workflows
            .iter()
            .map(|workflow| (workflow.name.as_str(), workflow.tasks.len(), workflow.roots))
            .collect();
        let expected = [
            ("flood-map", 9, 1),
            ("nightly-backup", 6, 1),
            ("sales-report", 18, 4),
            ("video-transcode", 10, 1),
        ];
        assert_eq!(seen, expected);
        assert!(
            collection.workflows.iter().flat_map(|workflow| &workflow.tasks).all(|task| task.runtime > 0.0)
        );
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples");
        assert_eq!(std::fs::read_dir(shipped).unwrap().count(), SAMPLES.len());
    }

    #[test]
    fn the_plan_is_a_whole_way_there_in_the_time_that_is_promised() {
        let plan = plan(Path::new("/w"), Path::new("/d")).unwrap();
        assert_eq!((plan.from.as_str(), plan.to.as_str(), plan.synced), ("rocksdb", "sled", true));
        assert_eq!(plan.cutovers(), 1);
        let fixed: u64 = plan.dwell_us.iter().flatten().sum::<u64>() + plan.migrate_at_us;
        assert!(fixed < 10_000_000, "{fixed}");
    }
}
