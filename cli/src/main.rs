//! The command line of `cutover`: runs workflows, moves them to another store meanwhile, and shows what came of it.

mod args;
mod books;
mod crash;
mod demo;
mod drive;
mod entry;
mod environment;
mod failure;
mod ledger;
mod live;
mod load;
mod measure;
mod offline;
mod oracle;
mod part;
mod plan;
mod plot;
mod report;
mod run;
mod verify;
mod workflow;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Status(args) => offline::status(&args).map(|()| 0),
        Command::Inspect(args) => offline::inspect(&args).map(|()| 0),
        Command::Load(args) => oracle::load(&args).map(|()| 0),
        Command::Check(args) => oracle::check(&args),
        Command::RunPart => part::child().map(|()| 0),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("cutover: {failure}");
            ExitCode::from(failure.code)
        }
    }
}
