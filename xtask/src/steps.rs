//! Everything that has to pass, step by step. The first failure ends it.
//!
//! RocksDB's C++ is compiled once: every step that links it names the whole workspace and the same profile, never a single
//! package, so that cargo unifies the same features each time. The steps without stores have target directories of
//! their own, because their flags differ.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cargo::{cargo, nightly_cargo, target_directory};
use crate::{needs, torture};

/// Runs the steps.
///
/// # Errors
/// Says which step failed, and how to run it alone.
pub(crate) fn run(quick: bool) -> Result<(), String> {
    let target = target_directory()?;
    let mut steps = Steps { done: Vec::new() };
    steps.run("format", with(cargo(), &["fmt", "--all", "--check"]))?;
    steps
        .run("clippy", with(cargo(), &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    let nextest = cargo().args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if nextest.is_ok_and(|status| status.success()) {
        steps.run("tests", with(cargo(), &["nextest", "run", "--workspace", "--no-fail-fast"]))?;
    } else {
        let args = ["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"];
        steps.run("tests (nextest is not installed)", with(cargo(), &args))?;
    }
    steps.run("doc tests", with(cargo(), &["test", "--doc", "--workspace"]))?;
    steps.run("dependencies", with(cargo(), &["xtask", "deny"]))?;
    if !quick {
        without_stores(&mut steps, &target)?;
        model(&mut steps, &target)?;
        schedules(&mut steps, &target)?;
        miri(&mut steps, &target)?;
        fuzz_targets(&mut steps, &target)?;
        kills_and_power_cuts(&mut steps)?;
    }
    steps.summary();
    Ok(())
}

/// The library as the model, Miri, the fuzzers and users with a store of their own build it; and with ports, which no other step
/// builds.
fn without_stores(steps: &mut Steps, target: &Path) -> Result<(), String> {
    let args = ["clippy", "-p", "cutover", "--no-default-features", "--all-targets", "--", "-D", "warnings"];
    steps.run("clippy without stores", own_target(with(cargo(), &args), target, "bare"))?;
    let ported = |command: &str, rest: &[&str]| {
        let features = [command, "-p", "cutover", "--no-default-features", "--features", "proxy"];
        own_target(with(with(cargo(), &features), rest), target, "bare")
    };
    steps.run("clippy with ports", ported("clippy", &["--all-targets", "--", "-D", "warnings"]))?;
    steps.run("ports (lib)", ported("test", &["--lib", "service::"]))?;
    steps.run("ports", ported("test", &["--test", "engine", "proxied::"]))
}

/// Tests of the library without stores, with the primitives that this flag puts in the place of the real ones.
fn instead_of_threads(cfg: &str, target: &Path, args: &[&str]) -> Command {
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    flags.push_str(&format!(" --cfg {cfg}"));
    let mut command = with(cargo(), &["test", "-p", "cutover", "--no-default-features"]);
    command.env("RUSTFLAGS", &flags).env_remove("CARGO_ENCODED_RUSTFLAGS");
    own_target(with(command, args), target, cfg)
}

/// The whole engine under a scheduler, run by shuttle. More schedules, and how to repeat one: see `tests/shuttle/main.rs`.
fn schedules(steps: &mut Steps, target: &Path) -> Result<(), String> {
    let args = ["--test", "shuttle", "--", "--nocapture"];
    steps.run("schedules of the engine (shuttle)", instead_of_threads("shuttle", target, &args))
}

/// The model of the status register and the pins, run by loom.
fn model(steps: &mut Steps, target: &Path) -> Result<(), String> {
    let loom = |args: &[&str]| instead_of_threads("loom", target, &[&["--lib"], args].concat());
    steps.run("model of the status (loom)", loom(&["status::model"]))?;
    // A filter that matches nothing passes too.
    let listed = loom(&["--quiet", "status::model", "--", "--list"]).stderr(Stdio::null()).output();
    match listed.map(|output| String::from_utf8_lossy(&output.stdout).contains("status::model::")) {
        Ok(true) => Ok(()),
        _ => Err("the model of the status has no tests: was it moved?".to_owned()),
    }
}

/// The status under Miri, where a nightly toolchain has it.
fn miri(steps: &mut Steps, target: &Path) -> Result<(), String> {
    let mut add = Command::new("rustup");
    add.args(["component", "add", "miri", "rust-src", "--toolchain", "nightly"]);
    match add.stdout(Stdio::null()).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            steps
                .skip("Miri", said.lines().last().unwrap_or("rustup cannot add it to the nightly toolchain"));
            return Ok(());
        }
        Err(err) => {
            steps.skip("Miri", &format!("rustup does not start: {err}"));
            return Ok(());
        }
    }
    let status = ["miri", "test", "-p", "cutover", "--no-default-features", "--lib", "status::"];
    steps.run("Miri on the status", own_target(with(nightly_cargo(), &status), target, "miri"))
}

/// The fuzz targets are a workspace of their own, which the steps above do not see. Each runs for a short while; see `fuzz/README.md`
/// for longer runs.
fn fuzz_targets(steps: &mut Steps, target: &Path) -> Result<(), String> {
    let args = ["check", "--manifest-path", "fuzz/Cargo.toml", "--bins", "--examples"];
    steps.run("fuzz targets build", own_target(with(cargo(), &args), target, "fuzz"))?;
    steps.run("fuzz targets, 20 s each", with(cargo(), &["xtask", "fuzz", "--seconds", "20"]))
}

/// The torture in small. The last step shows that the cuts would find a writer that does not sync.
fn kills_and_power_cuts(steps: &mut Steps) -> Result<(), String> {
    let torture =
        |args: &str| with(with(cargo(), &["xtask", "torture"]), &args.split(' ').collect::<Vec<_>>());
    steps.run("kills under load", torture("--kills 100"))?;
    needs::provide_power_cuts();
    if let Some(why) = torture::missing_for_power_cuts() {
        steps.skip("power cuts", &why);
        return Ok(());
    }
    steps.run("power cuts under load", torture("--power-cuts 6 --chain"))?;
    steps.run("power cuts bite", torture("--power-cuts 20 --prove"))
}

fn with(mut command: Command, args: &[&str]) -> Command {
    command.args(args);
    command
}

fn own_target(mut command: Command, target: &Path, name: &str) -> Command {
    let directory: PathBuf = target.join(name);
    command.env("CARGO_TARGET_DIR", directory);
    command
}

struct Steps {
    done: Vec<(String, Result<Duration, String>)>,
}

impl Steps {
    fn run(&mut self, title: &str, mut command: Command) -> Result<(), String> {
        println!("\n== {title}: {}", shown(&command));
        let begun = Instant::now();
        let status = command.status().map_err(|err| format!("{title}: does not start: {err}"))?;
        let took = begun.elapsed();
        if !status.success() {
            self.summary();
            return Err(format!("\n== {title}: FAILED after {}. Alone: {}", seconds(took), shown(&command)));
        }
        println!("== {title}: passed in {}", seconds(took));
        self.done.push((title.to_owned(), Ok(took)));
        Ok(())
    }

    fn skip(&mut self, title: &str, why: &str) {
        println!("\n== {title}: skipped, because {why}");
        self.done.push((title.to_owned(), Err(why.to_owned())));
    }

    fn summary(&self) {
        println!();
        for (title, outcome) in &self.done {
            match outcome {
                Ok(took) => println!("{title:<40} passed in {}", seconds(*took)),
                Err(why) => println!("{title:<40} SKIPPED: {why}"),
            }
        }
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

/// The command as one would type it, with the variables that matter.
fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let name = name.to_str().filter(|name| matches!(*name, "RUSTFLAGS" | "CARGO_TARGET_DIR"))?;
        Some(format!("{name}='{}'", value?.to_string_lossy().trim()))
    });
    let program = command.get_program().to_string_lossy();
    let program = if program.ends_with("cargo") { "cargo".to_owned() } else { program.into_owned() };
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    variables.chain([program]).chain(args).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let command =
            own_target(with(Command::new("/a/b/cargo"), &["check", "--bins"]), Path::new("/t"), "fuzz");
        assert_eq!(shown(&command), "CARGO_TARGET_DIR='/t/fuzz' cargo check --bins");
    }

    #[test]
    fn the_first_failure_ends_it_and_says_which() {
        let mut steps = Steps { done: Vec::new() };
        steps.run("fine", Command::new("true")).unwrap();
        let said = steps.run("broken", Command::new("false")).unwrap_err();
        assert!(said.contains("broken: FAILED") && said.ends_with("Alone: false"), "{said}");
        assert_eq!(steps.done.len(), 1);
    }
}
