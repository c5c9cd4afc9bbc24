//! `cargo xtask fuzz [--seconds N] [--fast] [TARGET]`: builds the fuzz targets and runs each for a while.
//!
//! Each begins with the seeds that are in the repository. What it finds out on the way is kept in the target directory, so that the next run goes
//! on from there; an input that fails is left in `fuzz/artifacts`.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cargo::{cargo, target_directory};
use crate::tools;

/// How long each target runs unless told otherwise.
const SECONDS: u32 = 20;
/// Lines of a target's output that are shown if it fails.
const SHOWN: usize = 80;
/// Longest input that is tried, in bytes.
const LONGEST: &str = "-max_len=4096";

/// What to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    seconds: u32,
    /// All of them if it names none.
    target: Option<String>,
    /// Without the address sanitizer: four times as fast or more. There is no `unsafe` here for it to watch, only in what we depend on.
    fast: bool,
}

/// Reads the arguments; `None` if they mean nothing.
pub(crate) fn arguments(arguments: &[String]) -> Option<Wanted> {
    let mut wanted = Wanted { seconds: SECONDS, target: None, fast: false };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--fast" => wanted.fast = true,
            "--seconds" => wanted.seconds = rest.next()?.parse().ok().filter(|seconds| *seconds > 0)?,
            name if !name.starts_with('-') && wanted.target.is_none() => wanted.target = Some(name.into()),
            _ => return None,
        }
    }
    Some(wanted)
}

/// Builds the targets and runs those that are wanted, one after the other.
///
/// # Errors
/// Says which target found something, and where the input is.
pub(crate) fn run(wanted: &Wanted) -> Result<(), String> {
    tools::provide("fuzz")?;
    let target = target_directory()?;
    let listed =
        fuzz(&target, "list", false).output().map_err(|err| format!("cargo fuzz does not start: {err}"))?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut names: Vec<&str> = listed.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
    if let Some(name) = &wanted.target {
        if !names.contains(&name.as_str()) {
            return Err(format!("there is no fuzz target {name:?}, only {}", names.join(", ")));
        }
        names = vec![name];
    }
    let mut build = fuzz(&target, "build", wanted.fast);
    if let [name] = names.as_slice() {
        build.arg(name);
    }
    tools::run("building the fuzz targets", &mut build)?;
    for name in names {
        one(&target, name, wanted)?;
    }
    Ok(())
}

/// `cargo fuzz` with the features that it needs switched on in a stable toolchain.
fn fuzz(target: &Path, subcommand: &str, fast: bool) -> Command {
    let mut command = cargo();
    command.args(["fuzz", subcommand]).env("RUSTC_BOOTSTRAP", "1").env_remove("RUSTFLAGS");
    if fast {
        command.args(["--sanitizer", "none"]);
    }
    // Other flags are other builds.
    command.env("CARGO_TARGET_DIR", target.join(if fast { "fuzz-fast" } else { "fuzz" }));
    command
}

fn one(target: &Path, name: &str, wanted: &Wanted) -> Result<(), String> {
    let found: PathBuf = target.join("fuzz-corpus").join(name);
    fs::create_dir_all(&found).map_err(|err| format!("{}: {err}", found.display()))?;
    let seeds = Path::new("fuzz/seeds").join(name);
    let mut command = fuzz(target, "run", wanted.fast);
    // New inputs go to the first directory.
    command.arg(name).arg(&found);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    command.args([
        "--",
        &format!("-max_total_time={}", wanted.seconds),
        "-print_final_stats=1",
        "-timeout=60",
        LONGEST,
    ]);
    let mut running = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|err| format!("cargo fuzz does not start: {err}"))?;
    let mut last = VecDeque::new();
    for line in running.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).lines()) {
        last.push_back(line.unwrap_or_default());
        if last.len() > SHOWN {
            last.pop_front();
        }
    }
    let ended = running.wait().map_err(|err| format!("cargo fuzz: {err}"))?;
    let number = |name| last.iter().find_map(|line| stat(line, name)).unwrap_or(0);
    if !ended.success() {
        last.iter().for_each(|line| eprintln!("{line}"));
        return Err(format!("the fuzz target {name} has found something: see fuzz/artifacts/{name}"));
    }
    println!(
        "{name:<16} {:>10} executions, {:>7} a second, {} inputs kept",
        number("number_of_executed_units"),
        number("average_exec_per_sec"),
        fs::read_dir(&found).map_or(0, Iterator::count)
    );
    Ok(())
}

/// The number of a line of libFuzzer's final statistics.
fn stat(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Option<Wanted> {
        arguments(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_read_or_refused() {
        assert_eq!(read(&[]), Some(Wanted { seconds: SECONDS, target: None, fast: false }));
        assert_eq!(
            read(&["engine", "--seconds", "300", "--fast"]),
            Some(Wanted { seconds: 300, target: Some("engine".into()), fast: true })
        );
        for wrong in [&["--seconds"][..], &["--seconds", "0"], &["--seconds", "x"], &["--quick"], &["a", "b"]]
        {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn statistics_are_found() {
        let line = "stat::number_of_executed_units: 1234";
        assert_eq!(stat(line, "number_of_executed_units"), Some(1234));
        assert_eq!(stat(line, "average_exec_per_sec"), None);
        assert_eq!(stat("#1234 DONE", "number_of_executed_units"), None);
    }
}
