//! The torture on a small program of its own: one that keeps its promises is left alone, one that breaks them is found.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// Runs it on the writer in `torture/writer.sh`, which breaks its promises as told.
fn torture(lies: &str, args: &[&str]) -> Output {
    let target = tempfile::tempdir().unwrap();
    command(lies, target.path(), args).output().unwrap()
}

fn command(lies: &str, target: &Path, args: &[&str]) -> Command {
    let writer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture/writer.sh");
    let mut torture = Command::new(env!("CARGO_BIN_EXE_xtask"));
    torture.arg("torture").args(args).arg("--program").arg(writer);
    torture.env("LIES", lies).env("CARGO_TARGET_DIR", target).env_remove("CUTOVER_TORTURE_INSIDE");
    torture
}

fn assert_kept(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.ends_with("failures: 0\n"), "{said}{errors}");
}

fn assert_found(output: &Output, what: &str) {
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let found = said.lines().any(|line| line.starts_with("FAILED: seed ") && line.contains(what));
    assert!(!output.status.success() && found, "{said}{errors}");
}

/// Whether the power can be cut here; if not, the torture says why.
fn power_can_be_cut() -> bool {
    let output = torture("", &["--power-cuts", "0"]);
    if !output.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

#[test]
fn kills_leave_an_honest_program_alone() {
    let output = torture("", &["--kills", "10"]);
    assert_kept(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("\n10 kills in "));
}

#[test]
fn kills_find_what_is_acknowledged_before_it_is_written() {
    assert_found(&torture("kill", &["--kills", "6"]), "lines lost");
}

#[test]
fn kills_find_a_load_that_ends_by_itself() {
    assert_found(&torture("end", &["--kills", "4"]), "the load ended by itself");
}

#[test]
fn power_cuts_leave_an_honest_program_alone() {
    if power_can_be_cut() {
        let output = torture("", &["--power-cuts", "4", "--chain", "--seed", "0"]);
        assert_kept(&output);
        assert!(String::from_utf8_lossy(&output.stdout).contains("\n4 cuts in "));
    }
}

#[test]
fn power_cuts_find_a_program_that_does_not_sync() {
    if power_can_be_cut() {
        // The first two setups are synced.
        assert_found(&torture("power", &["--power-cuts", "2", "--seed", "0"]), "lines lost");
    }
}

#[test]
fn a_writer_at_buffered_is_found_out_when_held_to_synced() {
    if power_can_be_cut() {
        let output = torture("", &["--power-cuts", "2", "--prove", "--seed", "0"]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("rocksdb: found out in 1 cuts\nsled: found out in 1 cuts\n"), "{said}");
    }
}

#[test]
fn nothing_is_left_of_power_cuts_that_are_killed() {
    if !power_can_be_cut() {
        return;
    }
    let target = tempfile::tempdir().unwrap();
    let left = || left_of(target.path());
    let mut torture = command("", target.path(), &["--power-cuts", "1000"]);
    let mut torture = torture.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until(|| left().iter().any(|what| what.starts_with("loop")));
    torture.kill().unwrap();
    torture.wait().unwrap();
    wait_until(|| left().is_empty());
}

/// Programs that name this directory or were started by one that does, and loop devices on files in it.
fn left_of(directory: &Path) -> Vec<String> {
    let entries = |of: &str| fs::read_dir(of).unwrap().flatten().map(|entry| entry.path());
    // What ends while we look is not there.
    let read = |path: PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let programs =
        entries("/proc").map(|process| read(process.join("cmdline")) + &read(process.join("environ")));
    let loops = entries("/sys/block").map(|disk| format!("loop {}", read(disk.join("loop/backing_file"))));
    let name = directory.file_name().unwrap().to_str().unwrap().to_owned();
    programs.chain(loops).filter(|what| what.contains(&name)).collect()
}

fn wait_until(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited for a minute");
        thread::sleep(Duration::from_millis(10));
    }
}
