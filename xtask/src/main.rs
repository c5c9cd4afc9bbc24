//! The project's own commands, in plain Rust without dependencies:
//!
//! ```text
//! cargo xtask demo [ARGUMENTS]   builds what is needed and runs the demonstration
//! cargo xtask test [--quick]     everything that has to pass; --quick leaves out the model, the schedules, Miri and the fuzz targets
//! ```
//!
//! Both first look for what RocksDB's build needs and a fresh machine may lack; see `needs.rs`.

mod cargo;
mod needs;
mod steps;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask demo [ARGUMENTS OF THE DEMO]
       cargo xtask test [--quick]";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next();
    let rest: Vec<String> = args.collect();
    let done = match (command.as_deref(), rest.as_slice()) {
        (Some("demo"), arguments) => demo(arguments),
        (Some("test"), []) => test(false),
        (Some("test"), [flag]) if flag == "--quick" => test(true),
        _ => Err(USAGE.to_owned()),
    };
    done.unwrap_or_else(|say| {
        eprintln!("{say}");
        ExitCode::FAILURE
    })
}

fn demo(arguments: &[String]) -> Result<ExitCode, String> {
    needs::provide()?;
    // All programs of the workspace, as everywhere: with other features RocksDB would be compiled again.
    let program = cargo::build_program("cutover")?;
    let status = std::process::Command::new(&program).arg("demo").args(arguments).status();
    let status = status.map_err(|err| format!("{} does not start: {err}", program.display()))?;
    // A program that was killed has no code of its own.
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn test(quick: bool) -> Result<ExitCode, String> {
    needs::provide()?;
    steps::run(quick)?;
    Ok(ExitCode::SUCCESS)
}
