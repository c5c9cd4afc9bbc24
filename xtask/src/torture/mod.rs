//! `cargo xtask torture`: loads are killed, or their power is cut, at random times, over and over, and `cutover check`
//! holds what is left against what was acknowledged.
//!
//! ```text
//! cargo xtask torture [--kills N] [--minutes M]         SIGKILL, also while opening and recovering
//! cargo xtask torture --power-cuts N [--chain]          power cuts; --chain: most of them during or after a recovery
//! cargo xtask torture --power-cuts N --prove            shows that cuts, N at most, find out a writer that does not sync
//! ```
//!
//! Everything but time is drawn from seeds, which are printed. What was found is kept below `torture/kept` in the
//! target directory: the data before the check, the acknowledgements and what both programs said.

mod acks;
mod crew;
mod kills;
mod options;
mod plan;
mod power;
mod program;
mod report;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use self::crew::Site;
use self::options::{Options, Way, What};
use self::plan::{Driver, Setup};
use self::program::Program;
use self::report::Tally;
use crate::{cargo, needs};

pub(crate) use self::options::USAGE;
pub(crate) use self::power::space::missing as missing_for_power_cuts;

/// Does what the arguments ask for.
///
/// # Errors
/// If it cannot be done. What was found is no error: it is printed, and the exit code says so.
pub(crate) fn run(args: &[String]) -> Result<ExitCode, String> {
    let options = options::parse(args)?;
    if let What::Cuts { .. } = options.what {
        if let Some(why) = missing_for_power_cuts() {
            return Err(why);
        }
        if !power::space::inside() {
            return power::space::again_inside(args);
        }
    }
    let program = match &options.program {
        Some(program) => program.clone(),
        None => {
            needs::provide()?;
            cargo::build_program("cutover")?
        }
    };
    torture(&options, Program(program))
}

fn torture(options: &Options, program: Program) -> Result<ExitCode, String> {
    let home = cargo::target_directory()?.join("torture");
    let (rooms, _lock) = rooms(&home)?;
    let seed = options.seed.unwrap_or_else(some_seed);
    println!("torture: from seed {seed}");
    let begun = Instant::now();
    let (noun, most, time) = match options.what {
        What::Kills { most, time } => ("kills", most, time),
        What::Cuts { most, .. } => ("cuts", Some(most), None),
    };
    let site = Site::new(program, rooms, home.join("kept"), seed, most, time);
    let done = site.work(options.workers, |room, seed| match options.what {
        What::Kills { .. } => kills::chain(&site, room, seed),
        What::Cuts { way, .. } => {
            power::chain(&site, room, seed, way)?;
            if way == Way::Prove && site.with(|tally| all_found_out(tally)) {
                site.finish();
            }
            Ok(())
        }
    });
    let text = site.with(|tally| tally.text(noun, begun.elapsed(), seed));
    println!("{text}");
    done?;
    let passed = site.with(|tally| match options.what {
        What::Cuts { way: Way::Prove, .. } => proved(tally),
        _ => tally.findings.is_empty(),
    });
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A directory for the work, and the lock that keeps others out of it. What a run that was killed has left there goes.
fn rooms(home: &Path) -> Result<(PathBuf, File), String> {
    for number in 0..64 {
        let rooms = home.join(format!("run-{number}"));
        let failed = |err: std::io::Error| format!("{}: {err}", rooms.display());
        fs::create_dir_all(&rooms).map_err(failed)?;
        let lock = File::create(rooms.join("lock")).map_err(failed)?;
        if lock.try_lock().is_ok() {
            return Ok((rooms, lock));
        }
    }
    Err(format!("too many runs at work in {}", home.display()))
}

/// Whether nothing else was found, after a word on each store.
fn proved(tally: &Tally) -> bool {
    for home in Driver::ALL {
        println!("{}: found out in {} cuts", home.name(), found_out(tally, home));
    }
    tally.findings.is_empty() && all_found_out(tally)
}

/// Whether loads that do not sync were found out on both stores. A cut may come when nothing happens to be unsynced.
fn all_found_out(tally: &Tally) -> bool {
    Driver::ALL.into_iter().all(|home| found_out(tally, home) > 0)
}

fn found_out(tally: &Tally, home: Driver) -> u64 {
    tally.found_out.get(&home).copied().unwrap_or(0)
}

/// Another one every time, from which the setups have their turn from the first one on.
fn some_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_secs() * Setup::COUNT
}
