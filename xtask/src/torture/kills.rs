//! Kills of the process.
//!
//! What a killed process has handed to the kernel is there for the next one. So this finds what was acknowledged before
//! it was handed over, and states in which the engine cannot be opened again; what was not synced only a power cut finds.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::acks::{self, Place};
use super::crew::Site;
use super::plan::{Kill, KillChain, Setup};
use super::program::{Done, Stop};

/// One chain of cycles on one data directory.
///
/// # Errors
/// The cycle, and what ended the chain in it.
pub(crate) fn chain(site: &Site, room: &Path, seed: u64) -> Result<(), (usize, Stop)> {
    let chain = KillChain::of(seed);
    let begun = Instant::now();
    let mut place = Place { phase: String::new(), home: chain.setup.from };
    let mut done = 0;
    for kill in &chain.kills {
        if !site.another() {
            break;
        }
        done += 1;
        cycle(site, room, chain.setup, kill, &mut place).map_err(|stop| (done, stop))?;
    }
    println!(
        "seed {}: {}: {done} kills, all kept, {:.1} s",
        seed,
        chain.setup,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

fn cycle(site: &Site, room: &Path, setup: Setup, kill: &Kill, place: &mut Place) -> Done<()> {
    let (data, lines) = (room.join("data"), room.join("acks.jsonl"));
    let mut load = site.program.load(&data, setup, kill.load_seed, &room.join("load.err"))?;
    load.work(kill.moment.after)?;
    load.reach(kill.moment.aim)?;
    load.work(kill.moment.last)?;
    let said = load.kill()?;
    let heard = acks::hear(&said).map_err(Stop::Broken)?;
    // A load that was killed before it had opened has promised nothing new: what the one before it promised still holds.
    if heard.opened || !lines.exists() {
        fs::write(&lines, &said).map_err(|err| format!("{}: {err}", lines.display()))?;
    }
    if let Some(now) = heard.place {
        *place = now;
    }
    site.count(heard.opened, place, setup.durability);
    if !data.exists() {
        return if heard.opened { Err(Stop::Broken("no data".to_owned())) } else { Ok(()) };
    }
    for after in &kill.openings {
        site.program.kill_check(&data, &lines, *after)?;
        site.with(|tally| tally.openings += 1);
    }
    copy(&data, &room.join("before"))?;
    let verdict = site.program.check(&data, &lines, "kill")?;
    site.with(|tally| tally.acks += heard.lines);
    if !verdict.ok {
        return Err(Stop::Broken(verdict.broken.join("; ")));
    }
    if verdict.lost > 0 {
        return Err(Stop::Broken(format!("{} acknowledgements lost by a kill", verdict.lost)));
    }
    Ok(())
}

/// Keeps the state before the check for looking at it: the check's opening recovers.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    super::crew::remove(to)?;
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    match copied {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cp: {status}")),
        Err(err) => Err(format!("cp does not start: {err}")),
    }
}
