//! Programs of others that `cargo xtask` calls: found, or installed.

use std::process::{Command, Stdio};

use crate::cargo::cargo;

/// Installs a subcommand of cargo (`cargo-deny` for `deny`) if it is not there.
///
/// # Errors
/// Says what to type if it cannot be installed.
pub(crate) fn provide(subcommand: &str) -> Result<(), String> {
    if is_there(subcommand) {
        return Ok(());
    }
    let name = format!("cargo-{subcommand}");
    println!("{name} is not installed: `cargo install --locked {name}`, which may take minutes");
    let mut install = cargo();
    install.args(["install", "--locked", &name]);
    match install.status() {
        Ok(status) if status.success() && is_there(subcommand) => Ok(()),
        _ => Err(format!("{name} could not be installed. Type: cargo install --locked {name}")),
    }
}

fn is_there(subcommand: &str) -> bool {
    let mut ask = cargo();
    ask.args([subcommand, "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ask.status().is_ok_and(|status| status.success())
}

/// Runs a command to its end.
///
/// # Errors
/// Says what failed.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what} failed: {status}")),
        Err(err) => Err(format!("{what} does not start: {err}")),
    }
}
