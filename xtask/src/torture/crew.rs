//! Chains side by side, until enough was done.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::acks::Place;
use super::plan::{Durability, Setup};
use super::program::{Program, Stop};
use super::report::{Finding, Tally};

/// After so many findings there is enough to look at, and each takes room.
const ENOUGH: usize = 10;

/// What all chains share.
pub(crate) struct Site {
    pub program: Program,
    /// Where each worker has a directory of its own.
    rooms: PathBuf,
    /// Where what was found is kept.
    kept: PathBuf,
    pub tally: Mutex<Tally>,
    left: AtomicU64,
    end: Option<Instant>,
    next_seed: AtomicU64,
    over: AtomicBool,
}

impl Site {
    pub(crate) fn new(
        program: Program,
        rooms: PathBuf,
        kept: PathBuf,
        seed: u64,
        most: Option<u64>,
        time: Option<Duration>,
    ) -> Self {
        Self {
            program,
            rooms,
            kept,
            tally: Mutex::default(),
            left: AtomicU64::new(most.unwrap_or(u64::MAX)),
            end: time.and_then(|time| Instant::now().checked_add(time)),
            next_seed: AtomicU64::new(seed),
            over: false.into(),
        }
    }

    /// Whether there is one more cycle to do. It then has to be done.
    pub(crate) fn another(&self) -> bool {
        if self.over.load(Ordering::Relaxed) || self.end.is_some_and(|end| Instant::now() >= end) {
            return false;
        }
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// It was enough: what is under way is the last.
    pub(crate) fn finish(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Counts a kill or a cut.
    pub(crate) fn count(&self, opened: bool, place: &Place, durability: Durability) {
        self.with(|tally| tally.count(opened, place, durability));
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Tally) -> T) -> T {
        change(&mut self.tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Runs chains until there is nothing more to do: `chain` is given a directory of its own, empty, and a seed.
    ///
    /// # Errors
    /// The first trouble. What was found is in the tally.
    pub(crate) fn work<F>(&self, workers: u64, chain: F) -> Result<(), String>
    where
        F: Fn(&Path, u64) -> Result<(), (usize, Stop)> + Sync,
    {
        let run = |worker: u64| {
            let room = self.rooms.join(format!("worker-{worker}"));
            while !self.over.load(Ordering::Relaxed) && self.left.load(Ordering::Relaxed) > 0 {
                if self.end.is_some_and(|end| Instant::now() >= end) {
                    break;
                }
                let seed = self.next_seed.fetch_add(1, Ordering::Relaxed);
                empty(&room)?;
                match chain(&room, seed) {
                    Ok(()) => {}
                    Err((cycle, Stop::Broken(what))) => self.keep(&room, seed, cycle, what)?,
                    Err((_, Stop::Trouble(trouble))) => return Err(trouble),
                }
            }
            remove(&room)
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..workers)
                .map(|worker| {
                    scope.spawn(move || run(worker).inspect_err(|_| self.over.store(true, Ordering::Relaxed)))
                })
                .collect();
            workers.into_iter().try_for_each(|worker| {
                worker.join().map_err(|_| "a worker of the torture has panicked".to_owned())?
            })
        })
    }

    /// Puts what was found aside for looking at it.
    fn keep(&self, room: &Path, seed: u64, cycle: usize, what: String) -> Result<(), String> {
        let kept = self.kept.join(format!("seed-{seed}-cycle-{cycle}"));
        remove(&kept)?;
        let say = format!("{what}\n{}, seed {seed}, cycle {cycle}\n", Setup::of_turn(seed));
        fs::create_dir_all(&self.kept)
            .and_then(|()| fs::rename(room, &kept))
            .and_then(|()| fs::write(kept.join("FOUND"), say))
            .map_err(|err| format!("{} cannot be kept: {err}", room.display()))?;
        println!("FAILED: seed {seed}, cycle {cycle}: {what}; kept in {}", kept.display());
        let findings = self.with(|tally| {
            tally.findings.push(Finding { seed, cycle, what, kept });
            tally.findings.len()
        });
        if findings >= ENOUGH {
            println!("{ENOUGH} failures are enough to look at");
            self.finish();
        }
        Ok(())
    }
}

/// Makes it an empty directory.
pub(crate) fn empty(directory: &Path) -> Result<(), String> {
    remove(directory)?;
    fs::create_dir_all(directory).map_err(|err| format!("{}: {err}", directory.display()))
}

/// Removes it with all that is in it.
pub(crate) fn remove(directory: &Path) -> Result<(), String> {
    match fs::remove_dir_all(directory) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {err}", directory.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str, most: u64) -> Site {
        let home = std::env::temp_dir().join(format!("cutover-crew-{name}-{}", std::process::id()));
        Site::new(Program("true".into()), home.join("rooms"), home.join("kept"), 7, Some(most), None)
    }

    #[test]
    fn as_many_cycles_as_asked_for_and_each_seed_once() {
        let site = site("many", 25);
        let seen = Mutex::new(Vec::new());
        site.work(3, |room, seed| {
            assert!(room.is_dir());
            seen.lock().unwrap().push(seed);
            while seed % 3 > 0 && site.another() {
                site.with(|tally| tally.acks += 1);
                if seed % 2 == 0 {
                    break;
                }
            }
            Ok(())
        })
        .unwrap();
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]) && seen[0] == 7, "{seen:?}");
        assert_eq!(site.with(|tally| tally.acks), 25);
        fs::remove_dir_all(site.rooms.parent().unwrap()).unwrap();
    }

    #[test]
    fn what_is_broken_is_kept_and_trouble_ends_all() {
        let site = site("kept", 1_000);
        let said = site.work(1, |room, seed| {
            assert!(site.another());
            if seed == 9 {
                return Err((1, Stop::Trouble("no room".to_owned())));
            }
            fs::write(room.join("proof"), "p").unwrap();
            Err((2, Stop::Broken("I1".to_owned())))
        });
        assert_eq!(said, Err("no room".to_owned()));
        let found = site.with(|tally| std::mem::take(&mut tally.findings));
        assert_eq!(found.iter().map(|one| (one.seed, one.cycle)).collect::<Vec<_>>(), [(7, 2), (8, 2)]);
        assert!(found.iter().all(|one| one.kept.join("proof").is_file()));
        assert!(fs::read_to_string(found[0].kept.join("FOUND")).unwrap().starts_with("I1\n"));
        fs::remove_dir_all(site.rooms.parent().unwrap()).unwrap();
    }

    #[test]
    fn enough_findings_end_it() {
        let site = site("enough", 1_000);
        site.work(1, |_, _| {
            assert!(site.another());
            Err((1, Stop::Broken("I1".to_owned())))
        })
        .unwrap();
        assert_eq!(site.with(|tally| tally.findings.len()), ENOUGH);
        fs::remove_dir_all(site.rooms.parent().unwrap()).unwrap();
    }
}
