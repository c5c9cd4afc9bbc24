//! Power cuts, as far as a file system can tell: what was written after the disk's last flush is lost, or torn sector
//! by sector. A disk that lies about its flushes is not modelled.
//!
//! A cut kills the disk first and then the program, so that nothing is acknowledged after it that was not flushed before
//! it. The image that is rebuilt from the disk's log is mounted, which replays the file system's journal, and checked.

mod disk;
mod image;
mod log;
pub(crate) mod space;

use std::fs;
use std::path::Path;
use std::time::Instant;

use self::disk::{Disk, Mounted};
use super::acks::{self, Place, Verdict};
use super::crew::Site;
use super::options::Way;
use super::plan::{Cut, CutChain};
use super::program::{Done, Stop};

/// One chain of cuts on one disk.
///
/// # Errors
/// The cut, and what ended the chain in it.
pub(crate) fn chain(site: &Site, room: &Path, seed: u64, way: Way) -> Result<(), (usize, Stop)> {
    let chain = match way {
        Way::Prove => CutChain::proof(seed),
        Way::Fresh | Way::Chained => CutChain::of(seed, way == Way::Chained),
    };
    disk::format(&room.join("base.img")).map_err(|trouble| (0, Stop::Trouble(trouble)))?;
    let mut place = Place { phase: String::new(), home: chain.setup.from };
    for (at, cut) in chain.cuts.iter().enumerate() {
        if !site.another() {
            break;
        }
        let begun = Instant::now();
        let said = one(site, room, &chain, cut, way, &mut place).map_err(|stop| (at + 1, stop))?;
        println!(
            "seed {seed}, cut {}: {}: {said}, {:.1} s",
            at + 1,
            chain.setup,
            begun.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

fn one(site: &Site, room: &Path, chain: &CutChain, cut: &Cut, way: Way, place: &mut Place) -> Done<String> {
    let lines = room.join("acks.jsonl");
    let mut disk = Disk::start(room)?;
    let mut load = site.program.load(&disk.data(), chain.setup, cut.load_seed, &room.join("load.err"))?;
    if way == Way::Prove {
        load.open()?;
    }
    load.work(cut.moment.after)?;
    load.reach(cut.moment.aim)?;
    if cut.write_back {
        disk.write_back()?;
    }
    load.work(cut.moment.last)?;
    disk.cut()?;
    let said = load.kill()?;
    let heard = acks::hear(&said).map_err(Stop::Broken)?;
    let taken = disk.rebuild(cut.tail, cut.tear)?;
    // A load that was cut off before it had opened has promised nothing new: what the one before it promised still holds.
    if heard.opened || !lines.exists() {
        let said = if way == Way::Prove && heard.opened { acks::claim_synced(&said)? } else { said };
        fs::write(&lines, said).map_err(|err| format!("{}: {err}", lines.display()))?;
    }
    if let Some(now) = heard.place {
        *place = now;
    }
    site.count(heard.opened, place, chain.setup.durability);
    let verdict = look(site, room, &lines)?;
    site.with(|tally| {
        tally.acks += heard.lines;
        tally.sectors += taken.sectors;
        tally.lost += verdict.lost;
    });
    let where_cut = if heard.opened { &place.phase } else { "opening" };
    let summary = format!(
        "in {where_cut}, {} acknowledged, {} requests, {} of them unflushed, {} sectors lost, {} acknowledgements lost",
        heard.lines, taken.requests, taken.unflushed, taken.sectors, verdict.lost
    );
    match (verdict.ok, way) {
        (true, _) => Ok(summary),
        (false, Way::Prove) => {
            site.with(|tally| *tally.found_out.entry(chain.setup.from).or_default() += 1);
            Ok(format!("{summary}: found out: {}", verdict.broken.first().map_or("", String::as_str)))
        }
        (false, _) => Err(Stop::Broken(verdict.broken.join("; "))),
    }
}

/// Checks what the cut has left, on a copy: the next load of the chain has to recover by itself.
fn look(site: &Site, room: &Path, lines: &Path) -> Done<Verdict> {
    let copy = room.join("check.img");
    disk::copy(&room.join("base.img"), &copy)?;
    let mounted = Mounted::new(&copy, room.join("look"))?;
    let promised = fs::metadata(lines).map_err(|err| format!("{}: {err}", lines.display()))?.len() > 0;
    if !promised && !mounted.data().exists() {
        // Cut off before there was anything.
        return Ok(Verdict { ok: true, lost: 0, broken: Vec::new() });
    }
    let verdict = site.program.check(&mounted.data(), lines, "power-cut");
    drop(mounted);
    fs::remove_file(&copy).map_err(|err| format!("{}: {err}", copy.display()))?;
    verdict
}
