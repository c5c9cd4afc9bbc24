//! `cargo xtask mutants` and `cargo xtask coverage`: whether the tests see what is wrong, and what they never look at.
//!
//! Both work on the build without stores: other flags would compile RocksDB again, and its C++ carries no counters.

use std::process::Command;

use crate::cargo::{cargo, target_directory};
use crate::tools;

/// Changes the code in one place after the other, in place, and says which changes no test notices: first in the engine, then in the formats.
/// What is mutated and how it is tested is in `.cargo/mutants.toml` and `.cargo/mutants-formats.toml`; arguments go to cargo-mutants.
///
/// # Errors
/// If a change goes unnoticed, or something else fails; cargo-mutants has said what.
pub(crate) fn mutants(arguments: &[String]) -> Result<(), String> {
    tools::provide("mutants")?;
    let target = target_directory()?;
    let run = |package: &str, config: &str, more: &[&str]| {
        let mut command = own(cargo(), &target, "mutants");
        command.args(["mutants", "--in-place", "-p", package, "--config", config]);
        command.arg("--output").arg(target.join("mutants").join(package));
        command.args(more).args(arguments);
        tools::run(&format!("cargo mutants of {package}"), &mut command)
    };
    // Both, whatever the first one found.
    let engine = run("cutover", ".cargo/mutants.toml", &[]);
    // What is tested before the first change are the tests of the changed package only, and these are those of both.
    let without_baseline = ["--baseline", "skip", "--timeout", "120"];
    engine.and(run("cutover-formats", ".cargo/mutants-formats.toml", &without_baseline))
}

/// Runs the tests of the library and its formats with counters, and prints the lines and branches that they reach.
///
/// # Errors
/// If a test fails, or something else does; cargo-llvm-cov has said what.
pub(crate) fn coverage(arguments: &[String]) -> Result<(), String> {
    tools::provide("llvm-cov")?;
    let target = target_directory()?;
    // Branches are counted by a feature that has to be switched on in a stable toolchain.
    let mut command = own(cargo(), &target, "coverage");
    command.env("RUSTC_BOOTSTRAP", "1").args(["llvm-cov", "--branch", "--no-default-features"]);
    command.args(["-p", "cutover", "-p", "cutover-formats", "-p", "cutover-wfformat", "--lib", "--tests"]);
    command.args(arguments);
    tools::run("cargo llvm-cov", &mut command)
}

fn own(mut command: Command, target: &std::path::Path, name: &str) -> Command {
    command.env("CARGO_TARGET_DIR", target.join(name));
    command
}
