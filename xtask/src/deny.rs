//! `cargo xtask deny`: what the dependencies are, may be used under, and come from.

use std::path::PathBuf;

use crate::cargo::cargo;
use crate::tools;

/// Holds the dependencies against `deny.toml`. Advisories are held against a copy of the database that is on this machine, if there
/// is one: it is not fetched from here.
///
/// # Errors
/// Says what failed; cargo-deny has said more.
pub(crate) fn run() -> Result<(), String> {
    tools::provide("deny")?;
    check(&["bans", "licenses", "sources"])?;
    match advisories() {
        Some(_) => check(&["--disable-fetch", "advisories"]),
        None => {
            println!(
                "advisories: SKIPPED, because no copy of the RustSec database is here (`cargo deny fetch`)"
            );
            Ok(())
        }
    }
}

fn check(what: &[&str]) -> Result<(), String> {
    let mut command = cargo();
    // What is not built for a target of ours is looked at as well; that the list of exceptions is longer than needed is no failure.
    command.args(["deny", "--all-features", "check", "--hide-inclusion-graph"]).args(what);
    tools::run("cargo deny", &mut command)
}

/// A copy of the advisory database, where cargo-deny keeps it.
fn advisories() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let copies = std::fs::read_dir(home.join("advisory-dbs")).ok()?;
    copies.flatten().map(|copy| copy.path()).find(|copy| copy.join("crates").is_dir())
}
