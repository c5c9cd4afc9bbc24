//! What was asked for.

use std::path::PathBuf;
use std::time::Duration;

pub(crate) const USAGE: &str =
    "usage: cargo xtask torture [--kills N] [--minutes M] [--seed S] [--workers W] [--program FILE]
       cargo xtask torture --power-cuts N [--chain | --prove] [--seed S] [--workers W] [--program FILE]";

/// Kills when nothing else is asked for.
const KILLS: u64 = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub what: What,
    /// The first chain's seed; the next one's is one more.
    pub seed: Option<u64>,
    /// Chains side by side.
    pub workers: u64,
    /// The program to torture, instead of building it.
    pub program: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Kills of the process, until one of the two is reached.
    Kills { most: Option<u64>, time: Option<Duration> },
    /// Power cuts.
    Cuts { most: u64, way: Way },
}

/// What the power is cut under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Each load starts on an empty disk.
    Fresh,
    /// Four of five loads start on what the last cut has left, so that recovery is cut too.
    Chained,
    /// Loads that do not sync are held to the promise of those that do. It passes if they are found out.
    Prove,
}

/// Reads the arguments.
///
/// # Errors
/// A sentence, and the usage.
pub(crate) fn parse(args: &[String]) -> Result<Options, String> {
    let (mut kills, mut minutes, mut cuts, mut way) = (None, None, None, None);
    let mut options =
        Options { what: What::Cuts { most: 0, way: Way::Fresh }, seed: None, workers: 2, program: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--chain" if way.is_none() => way = Some(Way::Chained),
            "--prove" if way.is_none() => way = Some(Way::Prove),
            "--kills" => kills = Some(number(arg, args.next())?),
            "--minutes" => minutes = Some(number(arg, args.next())?),
            "--power-cuts" => cuts = Some(number(arg, args.next())?),
            "--seed" => options.seed = Some(number(arg, args.next())?),
            "--workers" => options.workers = number(arg, args.next())?.max(1),
            "--program" => options.program = Some(args.next().ok_or(USAGE)?.into()),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let time = minutes.map(|minutes: u64| Duration::from_secs(minutes.saturating_mul(60)));
    options.what = match (cuts, way) {
        (Some(most), way) if kills.is_none() && time.is_none() => {
            What::Cuts { most, way: way.unwrap_or(Way::Fresh) }
        }
        (None, None) if kills.is_none() && time.is_none() => What::Kills { most: Some(KILLS), time },
        (None, None) => What::Kills { most: kills, time },
        _ => return Err(USAGE.to_owned()),
    };
    Ok(options)
}

fn number(name: &str, value: Option<&String>) -> Result<u64, String> {
    let value = value.ok_or_else(|| format!("{name} wants a number\n{USAGE}"))?;
    value.parse().map_err(|_| format!("{name} wants a number, not {value:?}\n{USAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(line: &str) -> Result<What, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).map(|options| options.what)
    }

    #[test]
    fn kills_by_number_by_time_or_both() {
        let minute = Some(Duration::from_secs(60));
        assert_eq!(what(""), Ok(What::Kills { most: Some(KILLS), time: None }));
        assert_eq!(what("--kills 7"), Ok(What::Kills { most: Some(7), time: None }));
        assert_eq!(what("--minutes 1"), Ok(What::Kills { most: None, time: minute }));
        assert_eq!(what("--minutes 1 --kills 7"), Ok(What::Kills { most: Some(7), time: minute }));
    }

    #[test]
    fn cuts_and_their_ways() {
        assert_eq!(what("--power-cuts 3"), Ok(What::Cuts { most: 3, way: Way::Fresh }));
        assert_eq!(what("--chain --power-cuts 3"), Ok(What::Cuts { most: 3, way: Way::Chained }));
        assert_eq!(what("--power-cuts 3 --prove"), Ok(What::Cuts { most: 3, way: Way::Prove }));
    }

    #[test]
    fn nonsense_is_refused_with_the_usage() {
        for line in [
            "--chain",
            "--power-cuts 1 --kills 1",
            "--power-cuts 1 --chain --prove",
            "--kills x",
            "--seed",
            "x",
        ] {
            let said = what(line).unwrap_err();
            assert!(said.ends_with(USAGE), "{line}: {said}");
        }
    }
}
