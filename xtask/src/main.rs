//! The project's own commands, in plain Rust:
//!
//! ```text
//! cargo xtask demo [ARGUMENTS]   builds what is needed and runs the demonstration
//! cargo xtask test [--quick]     everything that has to pass; --quick leaves out the torture and what has a build of its own
//! cargo xtask torture ...        kills and power cuts under load; see `torture/mod.rs`
//! cargo xtask fuzz [--seconds N] [--fast] [TARGET]   runs the fuzz targets, or one, for 20 or N seconds each
//! cargo xtask deny               holds the dependencies against deny.toml
//! cargo xtask mutants [ARGUMENTS]    changes the code and says which changes no test notices; takes hours
//! cargo xtask coverage [ARGUMENTS]   lines and branches that the tests reach, without stores
//! ```
//!
//! `demo`, `test` and `torture` first look for what RocksDB's build needs and a fresh machine may lack; see `needs.rs`.

mod cargo;
mod deny;
mod eyes;
mod fuzz;
mod needs;
mod steps;
mod tools;
mod torture;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask demo [ARGUMENTS OF THE DEMO]
       cargo xtask test [--quick]
       cargo xtask fuzz [--seconds N] [--fast] [TARGET]
       cargo xtask deny
       cargo xtask mutants [ARGUMENTS OF CARGO-MUTANTS]
       cargo xtask coverage [ARGUMENTS OF CARGO-LLVM-COV]";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next();
    let rest: Vec<String> = args.collect();
    let done = match (command.as_deref(), rest.as_slice()) {
        (Some("demo"), arguments) => demo(arguments),
        (Some("test"), []) => test(false),
        (Some("test"), [flag]) if flag == "--quick" => test(true),
        (Some("torture"), arguments) => torture::run(arguments),
        (Some("fuzz"), arguments) => match fuzz::arguments(arguments) {
            Some(wanted) => fuzz::run(&wanted).map(|()| ExitCode::SUCCESS),
            None => Err(USAGE.to_owned()),
        },
        (Some("deny"), []) => deny::run().map(|()| ExitCode::SUCCESS),
        (Some("mutants"), arguments) => eyes::mutants(arguments).map(|()| ExitCode::SUCCESS),
        (Some("coverage"), arguments) => eyes::coverage(arguments).map(|()| ExitCode::SUCCESS),
        _ => Err(format!("{USAGE}\n{}", torture::USAGE)),
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
