//! What came of it: counts by phase, home and level, and what was found.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::acks::Place;
use super::plan::{Driver, Durability, PHASES};

/// The row of what came before the load had opened.
const OPENING: &str = "opening";

/// Counts of all chains.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    cells: BTreeMap<(String, Driver, Durability), u64>,
    /// Kills of the opening of a check.
    pub openings: u64,
    /// Acknowledgements held against what was found.
    pub acks: u64,
    /// Of these, lost where some may be.
    pub lost: u64,
    /// Sectors that the cuts have taken.
    pub sectors: u64,
    /// By the first home of the load: how often one that does not sync, held to the promise of those that do, was found
    /// out.
    pub found_out: BTreeMap<Driver, u64>,
    /// What was broken.
    pub findings: Vec<Finding>,
}

/// A promise that was broken.
#[derive(Debug)]
pub(crate) struct Finding {
    pub seed: u64,
    /// Which cycle of the chain, from 1.
    pub cycle: usize,
    pub what: String,
    /// Where all that may explain it is kept.
    pub kept: PathBuf,
}

impl Tally {
    /// Counts a kill or a cut: in which phase it came, or before the load had opened.
    pub(crate) fn count(&mut self, opened: bool, place: &Place, durability: Durability) {
        let phase = if opened { &place.phase } else { OPENING };
        *self.cells.entry((phase.to_owned(), place.home, durability)).or_default() += 1;
    }

    /// Kills or cuts.
    pub(crate) fn cycles(&self) -> u64 {
        self.cells.values().sum()
    }

    /// The whole report.
    pub(crate) fn text(&self, noun: &str, took: Duration, seed: u64) -> String {
        let mut out = String::new();
        let columns: Vec<(Driver, Durability)> =
            Driver::ALL.into_iter().flat_map(|home| Durability::ALL.map(|level| (home, level))).collect();
        let _ = write!(out, "\n{:<16}", format!("{noun} in"));
        for (home, level) in &columns {
            let _ = write!(out, "{:>18}", format!("{} {}", home.name(), level.name()));
        }
        let _ = writeln!(out, "{:>8}", "all");
        for phase in self.rows() {
            let counts = columns
                .iter()
                .map(|(home, level)| self.cells.get(&(phase.clone(), *home, *level)).copied().unwrap_or(0));
            let counts: Vec<u64> = counts.collect();
            let _ = write!(out, "{phase:<16}");
            for count in &counts {
                let _ = write!(out, "{count:>18}");
            }
            let _ = writeln!(out, "{:>8}", counts.iter().sum::<u64>());
        }
        let (cycles, seconds, acks) = (self.cycles(), took.as_secs(), self.acks);
        let _ =
            write!(out, "\n{cycles} {noun} in {seconds} s from seed {seed}; {acks} acknowledgements checked");
        for (count, what) in [
            (self.openings, "openings of a check killed as well"),
            (self.sectors, "sectors written after the last flush were lost"),
            (self.lost, "acknowledgements lost where some may be"),
        ] {
            if count > 0 {
                let _ = write!(out, "; {count} {what}");
            }
        }
        let _ = write!(out, "; failures: {}", self.findings.len());
        for finding in &self.findings {
            let Finding { seed, cycle, what, kept } = finding;
            let _ =
                write!(out, "\nFAILED: seed {seed}, cycle {cycle}: {what}\n        kept: {}", kept.display());
        }
        out
    }

    /// The phases that a migration has, whether they were hit or not, and whatever else was said.
    fn rows(&self) -> Vec<String> {
        let mut rows: Vec<String> = [OPENING].iter().chain(&PHASES).map(|row| (*row).to_owned()).collect();
        for (phase, _, _) in self.cells.keys() {
            if !rows.contains(phase) {
                rows.push(phase.clone());
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(phase: &str, home: Driver) -> Place {
        Place { phase: phase.to_owned(), home }
    }

    #[test]
    fn rows_columns_and_sums() {
        let mut tally = Tally { acks: 70, openings: 4, ..Tally::default() };
        for _ in 0..3 {
            tally.count(true, &place("migration", Driver::Sled), Durability::Buffered);
        }
        tally.count(true, &place("migration", Driver::RocksDb), Durability::Synced);
        tally.count(false, &place("stable", Driver::Sled), Durability::Synced);
        tally.count(true, &place("elsewhere", Driver::Sled), Durability::Synced);
        let text = tally.text("kills", Duration::from_secs(9), 40);
        let row = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().skip(1).map(|cell| cell.parse().unwrap()).collect::<Vec<u64>>()
        };
        assert_eq!(row("migration "), [1, 0, 0, 3, 4]);
        assert_eq!(row("opening "), [0, 0, 1, 0, 1]);
        assert_eq!(row("stable "), [0; 5]);
        assert_eq!(row("elsewhere "), [0, 0, 1, 0, 1]);
        assert_eq!(tally.cycles(), 6);
        let last = text.lines().last().unwrap();
        assert_eq!(
            last,
            "6 kills in 9 s from seed 40; 70 acknowledgements checked; 4 openings of a check killed as well; \
             failures: 0"
        );
    }

    #[test]
    fn a_failure_says_its_seed_and_where_it_is_kept() {
        let mut tally = Tally::default();
        let what = "I1: two".to_owned();
        tally.findings.push(Finding { seed: 12, cycle: 3, what, kept: "there".into() });
        let text = tally.text("cuts", Duration::ZERO, 10);
        assert!(
            text.contains("failures: 1\nFAILED: seed 12, cycle 3: I1: two\n        kept: there"),
            "{text}"
        );
    }
}
