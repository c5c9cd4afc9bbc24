//! The torture on a small program of its own: one that keeps its promises is left alone, one that breaks them is found.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::path::Path;
use std::process::{Command, Output};

/// Runs it on the writer in `torture/writer.sh`, which breaks its promises as told.
fn torture(lies: &str, args: &[&str]) -> Output {
    let target = tempfile::tempdir().unwrap();
    let writer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture/writer.sh");
    let mut torture = Command::new(env!("CARGO_BIN_EXE_xtask"));
    torture.arg("torture").args(args).arg("--program").arg(writer);
    torture.env("LIES", lies).env("CARGO_TARGET_DIR", target.path()).env_remove("CUTOVER_TORTURE_INSIDE");
    torture.output().unwrap()
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
