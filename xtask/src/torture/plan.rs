//! What happens in a chain of cycles: drawn from its seed alone, so that the seed brings back everything but time.
//!
//! A chain works on one data directory, or one disk, with one setup. Its seed also says whose turn it is among the
//! setups, so chains that follow each other take all of them by turns.

use std::fmt;
use std::time::Duration;

/// A store, as `cutover load` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Driver {
    RocksDb,
    Sled,
}

impl Driver {
    pub(crate) const ALL: [Self; 2] = [Self::RocksDb, Self::Sled];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RocksDb => "rocksdb",
            Self::Sled => "sled",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|driver| driver.name() == name)
    }

    fn other(self) -> Self {
        match self {
            Self::RocksDb => Self::Sled,
            Self::Sled => Self::RocksDb,
        }
    }
}

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Durability {
    Synced,
    Buffered,
}

impl Durability {
    pub(crate) const ALL: [Self; 2] = [Self::Synced, Self::Buffered];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Buffered => "buffered",
        }
    }
}

/// How a load is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setup {
    pub from: Driver,
    pub to: Driver,
    pub durability: Durability,
    pub moves: Moves,
}

/// Whether the tenant moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moves {
    Stays,
    ToAndFro,
    /// With moves cancelled and reversed on the way.
    ToAndBack,
}

impl Setup {
    /// The setups there are.
    pub(crate) const COUNT: u64 = 20;

    /// The setup whose turn it is. Four that follow each other have both stores as home at both levels.
    pub(crate) fn of_turn(turn: u64) -> Self {
        let from = if turn.is_multiple_of(2) { Driver::RocksDb } else { Driver::Sled };
        let durability = if (turn / 2).is_multiple_of(2) { Durability::Synced } else { Durability::Buffered };
        let (to, moves) = match turn / 4 % 5 {
            0 => (from.other(), Moves::ToAndBack),
            1 => (from, Moves::ToAndBack),
            2 => (from.other(), Moves::ToAndFro),
            3 => (from, Moves::ToAndFro),
            _ => (from.other(), Moves::Stays),
        };
        Self { from, to, durability, moves }
    }

    /// What `cutover load` is told.
    pub(crate) fn arguments(self) -> Vec<&'static str> {
        let mut args = vec!["--from", self.from.name(), "--durability", self.durability.name()];
        if self.moves != Moves::Stays {
            args.extend(["--to", self.to.name(), "--migrate"]);
        }
        if self.moves == Moves::ToAndBack {
            args.push("--reverse");
        }
        args
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to, durability) = (self.from.name(), self.to.name(), self.durability.name());
        match self.moves {
            Moves::Stays => write!(f, "{from}, {durability}"),
            Moves::ToAndFro => write!(f, "{from} to {to}, {durability}"),
            Moves::ToAndBack => write!(f, "{from} to {to} with reverses, {durability}"),
        }
    }
}

/// The phases in the order of a migration there and back, as `cutover load` names them.
pub(crate) const PHASES: [&str; 7] = [
    "stable",
    "pre_migration",
    "migration",
    "post_migration",
    "pre_rollback",
    "rolling_back",
    "post_rollback",
];

/// When a load is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moment {
    /// From its start.
    pub after: Duration,
    /// Then, from when the tenant next comes into this phase, if it soon does. A random time hits short phases too rarely,
    /// and the time right after a move most rarely of all.
    pub aim: Option<&'static str>,
    /// And then still.
    pub last: Duration,
}

impl Moment {
    const LAST_MICROS: u64 = 25_000;

    /// Within so many microseconds from the start, whatever is going on then.
    fn within(rng: &mut fastrand::Rng, micros: u64) -> Self {
        Self { after: Duration::from_micros(rng.u64(0..micros)), aim: None, last: Duration::ZERO }
    }

    /// Some time of the first three seconds, and half of those in which the tenant moves soon after a move.
    fn at_work(rng: &mut fastrand::Rng, moves: Moves) -> Self {
        let phases = match moves {
            Moves::Stays => 0..0,
            Moves::ToAndFro => 0..4,
            Moves::ToAndBack => 0..PHASES.len(),
        };
        let aim = if phases.is_empty() || rng.bool() { None } else { PHASES.get(rng.usize(phases)).copied() };
        let longest = if aim.is_some() { 1_500_000 } else { 3_000_000 };
        let after = Duration::from_micros(rng.u64(60_000..longest));
        Self { after, aim, last: Duration::from_micros(rng.u64(0..Self::LAST_MICROS)) }
    }
}

/// A chain of kills.
pub(crate) struct KillChain {
    pub setup: Setup,
    pub kills: Vec<Kill>,
}

/// One cycle of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kill {
    pub load_seed: u64,
    pub moment: Moment,
    /// How long openings last that are killed as well, one after the other, before the check that counts.
    pub openings: Vec<Duration>,
}

impl KillChain {
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let setup = Setup::of_turn(seed);
        let length = rng.usize(3..=6);
        let kills = (0..length).map(|_| Kill::draw(&mut rng, setup)).collect();
        Self { setup, kills }
    }
}

impl Kill {
    fn draw(rng: &mut fastrand::Rng, setup: Setup) -> Self {
        // A third of the kills hit the opening or what comes right after it.
        let early = rng.u8(0..3) == 0;
        let openings = rng.u8(0..4).saturating_sub(1);
        Self {
            load_seed: rng.u64(..),
            moment: if early { Moment::within(rng, 60_000) } else { Moment::at_work(rng, setup.moves) },
            openings: (0..openings).map(|_| Duration::from_micros(rng.u64(0..60_000))).collect(),
        }
    }
}

/// A chain of power cuts.
pub(crate) struct CutChain {
    pub setup: Setup,
    pub cuts: Vec<Cut>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    pub load_seed: u64,
    pub moment: Moment,
    /// Whether the kernel is asked, right before the last of it, to write back all that it has: it may do so at any
    /// time, in any order, and a cut in the middle of it leaves the most that can be torn.
    pub write_back: bool,
    /// What becomes of what was written after the last flush.
    pub tail: Tail,
    /// The seed by which sectors are torn.
    pub tear: u64,
}

/// What becomes of what was written after the last flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// A random half of its sectors reached the disk.
    Torn,
    /// Nothing of it did.
    Lost,
}

impl CutChain {
    /// Cuts in a chain whose loads start on what the last cut has left, but for the first.
    const CHAINED: usize = 5;

    pub(crate) fn of(seed: u64, chained: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let setup = Setup::of_turn(seed);
        let length = if chained { Self::CHAINED } else { 1 };
        let cuts = (0..length).map(|at| Cut::draw(&mut rng, setup, at > 0)).collect();
        Self { setup, cuts }
    }

    /// A load that does not sync and has worked for a while when the power is cut, with nothing of the rest written back.
    pub(crate) fn proof(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let moment = Moment { after: Duration::from_secs(1), ..Moment::within(&mut rng, 1) };
        let load_seed = rng.u64(..);
        let cut = Cut { load_seed, moment, write_back: false, tail: Tail::Lost, tear: 0 };
        Self { setup: Setup { durability: Durability::Buffered, ..Setup::of_turn(seed) }, cuts: vec![cut] }
    }
}

impl Cut {
    fn draw(rng: &mut fastrand::Rng, setup: Setup, recovers: bool) -> Self {
        // Where there is something to recover, half of the cuts hit the recovery.
        let early = recovers && rng.bool();
        Self {
            load_seed: rng.u64(..),
            moment: if early { Moment::within(rng, 200_000) } else { Moment::at_work(rng, setup.moves) },
            write_back: rng.bool(),
            tail: if rng.bool() { Tail::Torn } else { Tail::Lost },
            tear: rng.u64(..),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_setups_have_their_turn() {
        let all: BTreeSet<Vec<&str>> =
            (0..Setup::COUNT).map(|turn| Setup::of_turn(1_000 * Setup::COUNT + turn).arguments()).collect();
        assert_eq!(all.len() as u64, Setup::COUNT);
        // Any four in a row have both stores as home at both levels.
        for first in 0..Setup::COUNT {
            let four: BTreeSet<_> = (first..first + 4)
                .map(|turn| (Setup::of_turn(turn).from, Setup::of_turn(turn).durability))
                .collect();
            assert_eq!(four.len(), 4, "{first}");
        }
    }

    #[test]
    fn what_the_load_is_told() {
        assert_eq!(
            Setup::of_turn(1).arguments().join(" "),
            "--from sled --durability synced --to rocksdb --migrate --reverse"
        );
        assert_eq!(Setup::of_turn(18).arguments().join(" "), "--from rocksdb --durability buffered");
        assert_eq!(Setup::of_turn(5).to_string(), "sled to sled with reverses, synced");
    }

    #[test]
    fn a_seed_brings_back_the_same_chain() {
        for seed in 0..50 {
            assert_eq!(KillChain::of(seed).kills, KillChain::of(seed).kills);
            assert_eq!(CutChain::of(seed, true).cuts, CutChain::of(seed, true).cuts);
        }
        assert_ne!(KillChain::of(0).kills, KillChain::of(Setup::COUNT).kills);
    }

    #[test]
    fn kills_hit_openings_and_all_the_time_after_and_all_moves() {
        let kills: Vec<Kill> = (0..1_000).flat_map(|seed| KillChain::of(seed).kills).collect();
        let share = |of: fn(&Kill) -> bool| kills.iter().filter(|kill| of(kill)).count() * 100 / kills.len();
        assert!((28..40).contains(&share(|kill| kill.moment.after < Duration::from_millis(60))));
        assert!((10..20).contains(&share(|kill| kill.moment.after > Duration::from_secs(2))));
        assert!((20..35).contains(&share(|kill| kill.moment.aim.is_some())));
        assert!((40..60).contains(&share(|kill| !kill.openings.is_empty())));
        for phase in PHASES {
            assert!(kills.iter().any(|kill| kill.moment.aim == Some(phase)), "{phase}");
        }
    }

    #[test]
    fn only_phases_that_come_are_waited_for() {
        for seed in 0..2_000 {
            let KillChain { setup, kills } = KillChain::of(seed);
            let mut aims = kills.iter().filter_map(|kill| kill.moment.aim);
            assert!(match setup.moves {
                Moves::Stays => aims.next().is_none(),
                Moves::ToAndFro => aims.all(|phase| !phase.contains("roll")),
                Moves::ToAndBack => true,
            });
        }
    }

    #[test]
    fn recovery_is_cut_where_there_is_one() {
        let cuts = |chained| (0..200).flat_map(move |seed| CutChain::of(seed, chained).cuts);
        let early = |cut: &Cut| cut.moment.aim.is_none() && cut.moment.last == Duration::ZERO;
        assert!(!cuts(false).any(|cut| early(&cut)));
        let chained: Vec<Cut> = cuts(true).collect();
        let share = |of: fn(&Cut) -> bool| chained.iter().filter(|cut| of(cut)).count() * 100 / chained.len();
        let hit = chained.iter().filter(|cut| early(cut)).count() * 100 / chained.len();
        assert!((30..50).contains(&hit), "{hit}");
        assert!((40..60).contains(&share(|cut| cut.tail == Tail::Torn)));
        assert!((40..60).contains(&share(|cut| cut.write_back)));
    }
}
