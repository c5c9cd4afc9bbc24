//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cutover_formats::Phase;

/// Runs workflows on an embedded engine and meanwhile moves them from one store to another.
#[derive(Debug, Parser)]
#[command(name = "cutover", version, about, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run workflows, move them to another store while they run, and hold the result against a ledger
    ///
    /// Exit codes: 0 nothing failed, nothing lost, nothing twice, nothing different; 1 something did;
    /// 2 wrong usage or bad input; 5 too little was measured to say so.
    Run(Box<RunArgs>),
    /// Show the main job in about twenty seconds: RocksDB to sled, on workflows that come with the program
    Demo(DemoArgs),
    /// Say where the tenants of a directory that is not in use are, without changing it
    Status(StatusArgs),
    /// Print raw rows of a directory that is not in use: key and record, decoded and in hex
    Inspect(InspectArgs),
    /// Work on a directory until killed, and print a line of JSON for everything acknowledged
    ///
    /// Launches, defines, completes, ends and collects, and with --migrate moves the tenant to and fro between two
    /// stores. Made to be killed, or to lose power, at any moment; `check` is the judge. It makes the directory, or
    /// goes on with what an earlier `load` left there. It ends when nobody reads its lines any more.
    Load(LoadUntilKilledArgs),
    /// Open a directory after a `load` was killed and hold it against the lines that it printed
    ///
    /// Prints what it found, and as its last line one JSON object with at least "ok", "phase", "lost" and "broken".
    /// Exit codes: 0 every promise was kept; 1 one was broken; 2 wrong usage or bad input.
    Check(CheckArgs),
    /// The process that `run --crash` kills. Reads what to do from stdin.
    #[command(hide = true)]
    RunPart,
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Directory of workflows; every *.json in it is read as WfFormat 1.5
    #[arg(long, value_name = "DIR")]
    pub workflows: PathBuf,
    /// Data directory: new, empty, or one of an earlier run
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Skip bad workflow files and count them, instead of stopping at the first
    #[arg(long)]
    pub skip_bad: bool,
    /// Write the report there
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
    /// Draw launches per second, p99 and phases over time there
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Print nothing but errors
    #[arg(long)]
    pub quiet: bool,
    /// Seed of everything that is chosen at random
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// The move.
    #[command(flatten)]
    pub r#move: MoveArgs,
}

/// Flags of `run` about the load.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct LoadArgs {
    /// Launch at least this many instances; the load goes on until 2 s after the move in any case
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub instances: u64,
    /// Threads that launch
    #[arg(long, value_name = "L", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub launchers: u16,
    /// Launches per second at fixed times, however long one takes; without it a closed loop: a launcher starts its
    /// next launch when the last is answered, at an even pace that the workers can follow
    #[arg(long, value_name = "R/s", value_parser = rate)]
    pub rate: Option<f64>,
    /// Threads that work on steps
    #[arg(long, value_name = "W", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: u16,
    /// Hold each step's lease for its recorded runtime times this
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = factor)]
    pub time_scale: f64,
    /// Fraction of instances that live until 5 s after the next cutover
    #[arg(long, value_name = "F", default_value_t = 0.05, value_parser = fraction)]
    pub long_lived: f64,
    /// Fraction of steps whose worker freezes past its lease and then tries to go on
    #[arg(long, value_name = "F", default_value_t = 0.0, value_parser = fraction)]
    pub stall_rate: f64,
    /// Hand the tenant to another runner with workers of its own this long after the start of the load, while launches
    /// and steps go on; may be repeated
    #[arg(long, value_name = "DUR", value_parser = duration, value_delimiter = ',')]
    pub handover_at: Vec<Duration>,
    /// Fraction of launches that repeat the key of a live instance
    #[arg(long, value_name = "F", default_value_t = 0.05, value_parser = fraction)]
    pub duplicate_rate: f64,
    /// Definitions of 2 KB that are there before the load starts, besides the workflows
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    pub definitions: u64,
    /// New definitions per second during the load; 0 for none
    #[arg(long, value_name = "R/s", default_value_t = 20.0, value_parser = factor)]
    pub define_rate: f64,
}

/// Flags of `run` about the move.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Move")]
pub(crate) struct MoveArgs {
    /// Driver of the store to start in
    #[arg(long, value_name = "DRIVER", default_value = "rocksdb")]
    pub from: String,
    /// Driver of the store to move to; the same driver as --from means another path
    #[arg(long, value_name = "DRIVER", default_value = "sled")]
    pub to: String,
    /// What an acknowledged commit survives: power loss, or a kill of the process
    #[arg(long, value_enum, default_value_t = Level::Synced)]
    pub durability: Level,
    /// Start the migration this long after the load
    #[arg(long, value_name = "DUR", default_value = "2s", value_parser = duration)]
    pub migrate_at: Duration,
    /// Stay in a phase at least this long, as in `migration=3s`; `all=3s` means every phase of the way. May be repeated
    #[arg(long, value_name = "PHASE=DUR", value_parser = dwell, value_delimiter = ',')]
    pub dwell: Vec<(Dwell, Duration)>,
    /// Go back from this phase
    #[arg(long, value_enum, value_name = "PHASE", conflicts_with = "cancel_at")]
    pub reverse_at: Option<ReverseAt>,
    /// Call the migration off this long after its start, before launches are switched over
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub cancel_at: Option<Duration>,
    /// Move what was launched longer ago than this out of the store that is left, instead of waiting for it to end there;
    /// long-lived instances then live as long as the load
    #[arg(long, value_name = "DUR", value_parser = duration, conflicts_with = "cancel_at")]
    pub move_stragglers: Option<Duration>,
    /// Kill the engine's process this many times at random moments and go on
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub crash: u32,
}

/// The two durability levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Survives power loss.
    Synced,
    /// Survives a kill of the process.
    Buffered,
}

/// Where a move may be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReverseAt {
    /// While the initial store drains.
    #[value(alias = "post_migration")]
    PostMigration,
    /// Right after the initial store was closed for launches.
    Migration,
}

/// Which phases a `--dwell` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dwell {
    /// Every phase of the way.
    All,
    /// One phase.
    One(Phase),
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Draw launches per second, p99 and phases over time there
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Write the report there
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print the journal of every tenant too
    #[arg(long)]
    pub journal: bool,
    /// Print what was set aside because it cannot be read too; opens the stores (a sled store is copied for that)
    #[arg(long)]
    pub quarantine: bool,
}

/// Flags of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Only this store, by its number in `status`
    #[arg(long, value_name = "N")]
    pub store: Option<u32>,
    /// Only the rows of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Only this family: definitions, keys, requests, instances, steps, ready, expiry, notes
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<String>,
    /// Only rows whose instance, name, key or step contains this text
    #[arg(long, value_name = "TEXT")]
    pub find: Option<String>,
    /// At most this many rows
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: u64,
}

/// Flags of `load`.
#[derive(Debug, Args)]
pub(crate) struct LoadUntilKilledArgs {
    /// The data directory: new, empty, or one that an earlier `load` worked on
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Seed of what the threads do
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// What an acknowledged commit survives: power loss, or a kill of the process
    #[arg(long, value_enum, default_value_t = Level::Synced)]
    pub durability: Level,
    /// Driver of the store to start in
    #[arg(long, value_name = "DRIVER", default_value = "rocksdb", value_parser = crate::plan::DRIVERS)]
    pub from: String,
    /// Driver of the store to move to; the same driver as --from means another path
    #[arg(long, value_name = "DRIVER", default_value = "sled", value_parser = crate::plan::DRIVERS)]
    pub to: String,
    /// Move the tenant to and fro, over and over, with short dwells in every phase
    #[arg(long)]
    pub migrate: bool,
    /// Cancel moves, reverse them from two phases, and reverse them twice, by turns
    #[arg(long, requires = "migrate")]
    pub reverse: bool,
    /// Threads that work
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Keys that all threads share
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub keys: u32,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The data directory. It may hold more than the lines are about, from earlier loads
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// What the last `load` on it printed; an empty file means that it was killed before it said anything
    #[arg(long, value_name = "FILE")]
    pub acks: PathBuf,
    /// What ended it. After a power cut at --durability buffered the last moments may be lost, without holes, and that
    /// is the default there; everything else is exact: --after kill, and synced in any case
    #[arg(long, value_enum)]
    pub after: Option<Ended>,
}

/// What ended a `load`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ended {
    /// The process was killed, or ended by itself.
    Kill,
    /// The machine lost power.
    PowerCut,
}

/// Reads `2s`, `500ms`, `1.5m`, `1h`; a number alone means seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match text.get(digits.len()..).unwrap_or_default() {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("`{unit}` is no unit of time; use us, ms, s, m or h")),
    };
    let number: f64 = digits.parse().map_err(|_| "expected a time such as 2s or 500ms".to_owned())?;
    let seconds = number * scale;
    // A day bounds every sum of times in the program.
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err("a time must be between 0 and 24 hours".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn dwell(text: &str) -> Result<(Dwell, Duration), String> {
    let (phase, time) = text.split_once('=').ok_or("expected PHASE=DUR, such as migration=3s")?;
    let which = match (phase, Phase::from_name(phase)) {
        ("all", _) => Dwell::All,
        (_, Some(phase)) => Dwell::One(phase),
        _ => {
            let names: Vec<&str> = Phase::ALL.iter().map(|phase| phase.name()).collect();
            return Err(format!("`{phase}` is no phase; the phases are {}", names.join(", ")));
        }
    };
    Ok((which, duration(time)?))
}

fn fraction(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err("must be from 0 to 1".to_owned()) }
}

fn factor(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (0.0..=1e6).contains(&number) { Ok(number) } else { Err("must be from 0 to 1000000".to_owned()) }
}

fn rate(text: &str) -> Result<f64, String> {
    let number = factor(text)?;
    if number > 0.0 { Ok(number) } else { Err("must be more than 0".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn run(more: &[&str]) -> Result<RunArgs, clap::Error> {
        let words = ["cutover", "run", "--workflows", "w", "--data", "d"];
        match Cli::try_parse_from(words.iter().chain(more))?.command {
            Command::Run(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_manual() {
        let args = run(&[]).unwrap();
        let (load, moving) = (args.load, args.r#move);
        assert_eq!((load.instances, load.launchers, load.workers, load.definitions), (2000, 4, 4, 0));
        assert_eq!((load.rate, load.time_scale, load.define_rate), (None, 0.0, 20.0));
        assert_eq!((load.long_lived, load.duplicate_rate), (0.05, 0.05));
        assert_eq!((moving.from.as_str(), moving.to.as_str()), ("rocksdb", "sled"));
        assert_eq!((moving.durability, moving.migrate_at), (Level::Synced, Duration::from_secs(2)));
        assert_eq!((moving.reverse_at, moving.cancel_at, moving.crash), (None, None, 0));
    }

    #[test]
    fn times_have_units() {
        for (text, ms) in
            [("2s", 2000), ("500ms", 500), ("1.5s", 1500), ("1m", 60_000), ("3", 3000), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "2d", "-1s", "nan", "inf", "1e9s", "2 s x"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dwells_name_a_phase_either_way() {
        let args = run(&["--dwell", "pre-migration=3s", "--dwell", "post_migration=1s,all=2s"]).unwrap();
        let expected =
            [(Dwell::One(Phase::PreMigration), 3), (Dwell::One(Phase::PostMigration), 1), (Dwell::All, 2)];
        assert_eq!(args.r#move.dwell, expected.map(|(which, s)| (which, Duration::from_secs(s))));
        assert!(run(&["--dwell", "lunch=3s"]).is_err_and(|err| err.to_string().contains("pre_migration")));
        assert!(run(&["--dwell", "migration"]).is_err());
    }

    #[test]
    fn nonsense_is_refused_with_code_2() {
        for words in [
            &["--instances", "0"][..],
            &["--long-lived", "1.5"],
            &["--rate", "0"],
            &["--time-scale", "-1"],
            &["--reverse-at", "stable"],
            &["--reverse-at", "migration", "--cancel-at", "3s"],
            &["--durability", "none"],
        ] {
            assert_eq!(run(words).expect_err("must be refused").exit_code(), 2, "{words:?}");
        }
    }

    /// Each flag with a limit: the last value that is accepted and the first that is not, from below and from above.
    #[test]
    fn exactly_the_limit_is_accepted_and_one_more_is_refused() {
        for (flag, accepted, refused) in [
            ("--instances", ["1", "100000000"], ["0", "100000001"]),
            ("--launchers", ["1", "1024"], ["0", "1025"]),
            ("--workers", ["1", "1024"], ["0", "1025"]),
            ("--definitions", ["0", "100000000"], ["-1", "100000001"]),
            ("--crash", ["0", "10000"], ["-1", "10001"]),
            ("--seed", ["0", "18446744073709551615"], ["-1", "18446744073709551616"]),
            ("--long-lived", ["0", "1"], ["-0.001", "1.001"]),
            ("--duplicate-rate", ["0", "1"], ["-0.001", "nan"]),
            ("--time-scale", ["0", "1000000"], ["-0.001", "1000000.5"]),
            ("--define-rate", ["0", "1000000"], ["inf", "1000000.5"]),
            ("--rate", ["0.001", "1000000"], ["0", "1000000.5"]),
            ("--migrate-at", ["0s", "24h"], ["-1s", "24.001h"]),
            ("--handover-at", ["0s", "24h,1s"], ["-1s", "1s,25h"]),
            ("--move-stragglers", ["0s", "24h"], ["-1s", "25h"]),
            ("--cancel-at", ["0s", "86400s"], ["1e300s", "86401s"]),
            ("--dwell", ["all=0s", "all=24h"], ["all=", "all=25h"]),
        ] {
            for value in accepted {
                run(&[&format!("{flag}={value}")]).unwrap_or_else(|err| panic!("{flag}={value}: {err}"));
            }
            for value in refused {
                let err = run(&[&format!("{flag}={value}")]).expect_err(flag);
                let said = err.to_string();
                assert!(err.exit_code() == 2 && said.contains(flag), "{flag}={value}: {said}");
            }
        }
    }
}
