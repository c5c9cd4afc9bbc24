//! `cutover run` as a person starts it: the real program on the sample workflows, good runs of every way and all bad input.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A place with workflows and room for data, a report and a plot.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("workflows")).unwrap();
        place
    }

    fn with_samples() -> Self {
        let place = Self::new();
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples")).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, place.path("workflows").join(from.file_name().unwrap())).unwrap();
        }
        place
    }

    fn with_workflow(text: &str) -> Self {
        let place = Self::new();
        fs::write(place.path("workflows/broken.json"), text).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command.arg("run").arg("--workflows").arg(self.path("workflows"));
        command.arg("--data").arg(self.path("data")).args(more);
        command
    }

    fn run(&self, more: &[&str]) -> Output {
        self.command(more).output().unwrap()
    }
}

/// Every file below a directory with its bytes, and every directory.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path.clone());
                found.insert(path, None);
            } else {
                let bytes = fs::read(&path).unwrap();
                found.insert(path, Some(bytes));
            }
        }
    }
    found
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A short run. One instance in ten lives until five seconds after the cutover, so that there are keys to repeat.
const SHORT: [&str; 10] = [
    "--instances",
    "150",
    "--migrate-at",
    "300ms",
    "--durability",
    "buffered",
    "--long-lived",
    "0.1",
    "--definitions",
    "50",
];

/// Runs a short way and returns its report, which holds what every good run promises.
fn good_run(more: &[&str]) -> Value {
    let place = Place::with_samples();
    let (report, plot) = (place.path("report.json"), place.path("plot.svg"));
    let outputs = ["--report", report.to_str().unwrap(), "--plot", plot.to_str().unwrap()];
    let output = place.run(&[&SHORT[..], &outputs, more].concat());
    let summary = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{more:?}: {}{summary}", stderr(&output));
    let report: Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    check_promises(&report);
    check_plot(&fs::read_to_string(plot).unwrap(), &report);
    check_lines(&stderr(&output), &report);
    assert!(summary.starts_with(&format!("{} launches: ", report["launches"]["attempted"])), "{summary}");
    report
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn phases(report: &Value) -> Vec<&str> {
    report["phases"].as_array().unwrap().iter().map(|visit| visit["phase"].as_str().unwrap()).collect()
}

fn check_promises(report: &Value) {
    assert_eq!(report["schema"], "cutover.run/1");
    assert_eq!((&report["workflows"], &report["tasks"]), (&Value::from(4), &Value::from(43)));
    assert_eq!(report["durability"], "buffered");
    assert!(number(&report["environment"]["cpus"]) > 0);
    assert!(number(&report["environment"]["fsync_p50_us"]) > 0);
    assert!(report["environment"]["kernel"].is_string() && report["environment"]["versions"].is_object());
    let launches = &report["launches"];
    let count = |name: &str| number(&launches[name]);
    assert!(count("started") >= 150);
    assert_eq!(count("attempted"), count("started") + count("conflicts"), "{launches}");
    assert_eq!(count("conflicts"), count("expected_conflicts"));
    assert!(count("conflicts") > 0, "no duplicate was tried");
    let instances = &report["instances"];
    assert_eq!(number(&instances["completed"]), count("started"));
    for (group, names) in [
        ("instances", &["failed", "duplicates", "lost"][..]),
        ("launches", &["failed"]),
        ("definitions", &["mismatched"]),
    ] {
        names.iter().for_each(|name| assert_eq!(report[group][*name], 0, "{group}.{name}"));
    }
    assert!(number(&instances["collected"]) <= count("started"));
    assert!(number(&report["steps"]["completed"]) >= 6 * count("started"), "the shortest has 6 tasks");
    assert!(number(&report["steps"]["refused_stale"]) <= number(&report["steps"]["completed"]));
    assert!(number(&report["definitions"]["created"]) >= 54, "four workflows and fifty preloaded");
    check_times(report);
}

fn check_times(report: &Value) {
    let visits = report["phases"].as_array().unwrap();
    let answered: u64 = visits.iter().map(|visit| number(&visit["launches"])).sum();
    let counts = &report["launches"];
    // A launch that is called again after a kill is answered before the clock of the phases runs.
    assert_eq!(answered + number(&counts["relaunched"]), number(&counts["attempted"]));
    for visit in visits {
        let at = |name: &str| number(&visit["latency_us"][name]);
        assert!(at("p50") <= at("p99") && at("p99") <= at("p999") && at("p999") <= at("max"), "{visit}");
    }
    let starts: Vec<u64> = visits.iter().map(|visit| number(&visit["at_us"])).collect();
    assert!(starts.is_sorted() && starts[1] >= 300_000, "{starts:?}");
    assert!(
        number(&report["elapsed_us"]) >= starts[starts.len() - 1] + 2_000_000,
        "the load ended too early"
    );
    for cutover in report["cutovers"].as_array().unwrap() {
        assert!(number(&cutover["close_wait_us"]) <= number(&cutover["total_us"]), "{cutover}");
        assert!(number(&cutover["designate_wait_us"]) < 10_000_000, "{cutover}");
        assert!(number(&cutover["longest_gap_us"]) > 0, "{cutover}");
    }
    let gap = &report["stable_gap_us"];
    assert!(
        number(&gap["p50"]) <= number(&gap["p99"]) && number(&gap["p99"]) <= number(&gap["max"]),
        "{gap}"
    );
}

/// The plot is whole, and names what it shows.
fn check_plot(plot: &str, report: &Value) {
    assert!(plot.starts_with("<svg") && plot.trim_end().ends_with("</svg>"));
    for text in ["launches per second", "latency, ms", "buffered", "nothing failed"] {
        assert!(plot.contains(text), "{text} is missing in the plot");
    }
    let named = phases(report).into_iter().filter(|phase| {
        plot.lines().any(|line| line.trim() == *phase) || plot.contains(&format!(">{phase}<"))
    });
    assert_eq!(named.count(), phases(report).len(), "a phase is not named in the plot");
}

/// Not on a terminal there is a line for each phase, and nothing else.
fn check_lines(stderr: &str, report: &Value) {
    let words: Vec<&str> = stderr.lines().map(|line| line.split_whitespace().nth(2).unwrap_or("")).collect();
    let mut expected = phases(report);
    expected.push("all");
    assert_eq!(words, expected, "{stderr}");
    assert!(!stderr.contains('\x1b'));
}

#[test]
fn forward() {
    let report = good_run(&[]);
    assert_eq!(phases(&report), ["stable", "pre_migration", "migration", "post_migration", "stable"]);
    assert_eq!(report["stores"], serde_json::json!({"initial": "rocksdb", "target": "sled"}));
    let cutovers = report["cutovers"].as_array().unwrap();
    assert_eq!(cutovers.len(), 1);
    assert_eq!((&cutovers[0]["direction"], &cutovers[0]["completed"]), (&"forward".into(), &true.into()));
    let definitions = &report["definitions"];
    assert!(number(&definitions["copied"]) >= 54, "{definitions}");
    assert_eq!(definitions["target"], definitions["created"]);
    assert!(number(&report["instances"]["collected"]) > 0, "a store that was left held nothing");
}

#[test]
fn forward_from_sled_to_another_sled_quietly() {
    let place = Place::with_samples();
    let output = place.run(&[&SHORT[..], &["--from", "sled", "--to", "sled", "--quiet"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!((output.stdout.len(), output.stderr.len()), (0, 0), "{}", stderr(&output));
}

#[test]
fn back_from_post_migration() {
    let report = good_run(&["--reverse-at", "post-migration"]);
    let way = ["stable", "pre_migration", "migration", "post_migration", "pre_rollback", "rolling_back"];
    assert_eq!(phases(&report), [&way[..], &["post_rollback", "stable"]].concat());
    let directions: Vec<_> = report["cutovers"].as_array().unwrap().iter().map(|c| &c["direction"]).collect();
    assert_eq!(directions, ["forward", "reverse"]);
    assert_eq!(report["definitions"]["initial"], report["definitions"]["created"]);
}

#[test]
fn back_from_migration() {
    let report = good_run(&["--reverse-at", "migration"]);
    let way = ["stable", "pre_migration", "migration", "rolling_back", "post_rollback", "stable"];
    assert_eq!(phases(&report), way);
    assert_eq!(report["cutovers"][0]["completed"], false, "it was taken back before the designation");
    assert_eq!(report["cutovers"][1]["completed"], true);
}

#[test]
fn cancelled() {
    let report = good_run(&["--cancel-at", "900ms"]);
    assert_eq!(phases(&report), ["stable", "pre_migration", "stable"]);
    assert!(number(&report["phases"][2]["at_us"]) >= 900_000);
    assert_eq!(report["cutovers"].as_array().unwrap().len(), 0);
    assert_eq!(report["definitions"]["initial"], report["definitions"]["created"]);
}

#[test]
fn killed_twice() {
    let report = good_run(&["--crash", "2"]);
    assert_eq!(report["kills"], 2);
    assert_eq!(phases(&report).last(), Some(&"stable"));
    assert_eq!(report["cutovers"].as_array().unwrap().len(), 1);
}

/// Three runners one after the other, and what lives long is moved instead of waited for.
#[test]
fn handed_over_and_moved() {
    let report =
        good_run(&["--handover-at", "400ms,1500ms", "--handover-at", "1s", "--move-stragglers", "0s"]);
    let (handover, stragglers) = (&report["handover"], &report["stragglers"]);
    assert_eq!((number(&handover["made"]), number(&handover["refused"])), (3, 0), "{handover}");
    assert!(number(&handover["paused_us"]) > 0 && handover["paused_us"] == handover["pause_us"]["max"]);
    assert!(number(&stragglers["moved"]) > 0 && number(&stragglers["pause_us_max"]) > 0, "{stragglers}");
    assert_eq!((&report["steps"]["repeated"], &report["steps"]["skipped"]), (&0.into(), &0.into()));
    assert_eq!(phases(&report).last(), Some(&"stable"));
}

#[test]
fn handed_over_and_moved_there_and_back_and_killed() {
    let report = good_run(&[
        "--reverse-at",
        "post-migration",
        "--handover-at",
        "400ms,900ms,1400ms,2s",
        "--move-stragglers",
        "0s",
        "--crash",
        "3",
    ]);
    assert_eq!(report["kills"], 3);
    // What a killed process did not live to tell is not counted.
    assert!(number(&report["handover"]["made"]) <= 4, "{}", report["handover"]);
    assert_eq!(report["handover"]["refused"], 0);
    assert!(number(&report["stragglers"]["moved"]) > 0);
}

#[test]
fn a_second_run_in_the_same_directory_has_a_tenant_of_its_own() {
    let place = Place::with_samples();
    let path = place.path("report.json");
    for tenant in ["run", "run-2"] {
        let report = ["--report", path.to_str().unwrap(), "--cancel-at", "600ms", "--quiet"];
        let output = place.run(&[&SHORT[..], &report].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let report: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(report["plan"]["tenant"], tenant);
    }
}

/// Exit code 2, one sentence that names the culprit, and nothing has changed anywhere.
fn refused(place: &Place, more: &[&str], culprits: &[&str]) {
    let before = contents(place.dir.path());
    let output = place.run(more);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("cutover: "), "{said}");
    culprits.iter().for_each(|culprit| assert!(said.contains(culprit), "{culprit} is not named: {said}"));
    assert!(output.stdout.is_empty());
    assert!(contents(place.dir.path()) == before, "something was changed after: {said}");
}

/// A workflow of tasks that are given with their parents.
fn workflow(tasks: &[(&str, &[&str])]) -> String {
    let tasks: Vec<Value> = tasks
        .iter()
        .map(|(id, parents)| serde_json::json!({"name": id, "id": id, "parents": parents, "children": []}))
        .collect();
    let body = serde_json::json!({"specification": {"tasks": tasks, "files": []}});
    serde_json::json!({"name": "w", "schemaVersion": "1.5", "workflow": body}).to_string()
}

#[test]
fn a_truncated_workflow_is_refused() {
    let whole = workflow(&[("a", &[]), ("b", &["a"])]);
    refused(&Place::with_workflow(&whole[..whole.len() / 2]), &[], &["broken.json", "truncated"]);
    refused(&Place::with_workflow("{ not json"), &[], &["broken.json", "is not JSON"]);
}

#[test]
fn a_cycle_is_refused() {
    let text = workflow(&[("a", &["c"]), ("b", &["a"]), ("c", &["b"])]);
    refused(&Place::with_workflow(&text), &[], &["broken.json", "cycle", "`a`", "`b`", "`c`"]);
}

#[test]
fn a_missing_parent_is_refused() {
    let text = workflow(&[("a", &[]), ("b", &["ghost"])]);
    refused(&Place::with_workflow(&text), &[], &["broken.json", "`b`", "parent `ghost`"]);
}

#[test]
fn a_repeated_id_is_refused() {
    let text = workflow(&[("a", &[]), ("twin", &[]), ("twin", &["a"])]);
    refused(&Place::with_workflow(&text), &[], &["broken.json", "`twin` is used twice"]);
}

#[test]
fn names_that_are_empty_or_too_long_are_refused() {
    refused(&Place::with_workflow(&workflow(&[("", &[])])), &[], &["broken.json", "is empty"]);
    let long = "x".repeat(5_000);
    refused(
        &Place::with_workflow(&workflow(&[(&long, &[])])),
        &[],
        &["broken.json", "5000 bytes", "the limit is"],
    );
}

#[test]
fn one_bad_file_among_good_ones_is_refused_unless_it_is_to_be_skipped() {
    let place = Place::with_samples();
    fs::write(place.path("workflows/zz.json"), "[]").unwrap();
    refused(&place, &[], &["zz.json"]);
    let path = place.path("report.json");
    let more = ["--skip-bad", "--cancel-at", "600ms", "--quiet", "--report", path.to_str().unwrap()];
    let output = place.run(&[&SHORT[..], &more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(report["workflows"], 4);
    assert!(report["skipped"][0].as_str().unwrap().contains("zz.json"), "{}", report["skipped"]);
}

#[test]
fn a_directory_without_workflows_is_refused() {
    refused(&Place::new(), &[], &["workflows", "no *.json file"]);
    let place = Place::new();
    fs::remove_dir(place.path("workflows")).unwrap();
    refused(&place, &[], &["workflows", "No such file"]);
}

#[test]
fn unknown_drivers_are_refused() {
    refused(&Place::with_samples(), &["--from", "leveldb"], &["`leveldb`", "rocksdb and sled"]);
    refused(&Place::with_samples(), &["--to", "../sled"], &["`../sled`"]);
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_the_run() {
    let place = Place::with_samples();
    let path = place.path("nowhere/report.json");
    refused(&place, &["--report", path.to_str().unwrap()], &["nowhere/report.json"]);
}

#[test]
fn a_directory_that_is_not_ours_is_refused() {
    let place = Place::with_samples();
    fs::create_dir(place.path("data")).unwrap();
    fs::write(place.path("data/letters.txt"), "dear aunt").unwrap();
    refused(&place, &[], &[place.path("data").to_str().unwrap()]);
}

#[test]
fn a_directory_in_use_is_refused() {
    let place = Place::with_samples();
    let mut first = place.command(&SHORT);
    first.stderr(Stdio::piped()).stdout(Stdio::null());
    let mut child = first.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let started = lines.next().unwrap().unwrap();
    assert!(started.ends_with("stable"), "{started}");
    let second = place.run(&SHORT);
    let said = stderr(&second);
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    let first = child.wait().unwrap();
    assert_eq!(second.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(place.path("data").to_str().unwrap()), "{said}");
    assert_eq!(first.code(), Some(0), "the first was disturbed: {rest:?}");
}
