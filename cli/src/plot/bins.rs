//! Launches in bins of time.

use crate::measure::{Quantiles, Sample};

/// A second, in microseconds.
const SECOND: u64 = 1_000_000;
/// More bins than this are narrower than a pixel or two.
const MOST: u64 = 600;

/// What is drawn of launches. Times are seconds since the start of the load, latencies milliseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Bins {
    /// The width of a bin.
    pub width: f64,
    /// Start of each bin and the launches per second in it.
    pub rates: Vec<(f64, f64)>,
    /// Middle of each bin that has launches, and the longest of them.
    pub longest: Vec<(f64, f64)>,
    /// Middle of bins and the p99 of the second around: runs without an empty bin between.
    pub p99: Vec<Vec<(f64, f64)>>,
}

/// Of samples in the order of their times, from `began` to `last`.
pub(super) fn of(samples: &[Sample], began: u64, last: u64) -> Bins {
    let span = last.saturating_sub(began).max(1);
    let widths = [100_000, 250_000, 500_000, SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND];
    let width = widths.into_iter().find(|width| span / width < MOST).unwrap_or(span / MOST);
    let mut bins = Bins { width: width as f64 / 1e6, ..Bins::default() };
    let mut run = Vec::new();
    for from in (began..began + span).step_by(usize::try_from(width).unwrap_or(1)) {
        // The last bin may be short; its rate is that of the time it has.
        let to = (from + width).min(began + span);
        let seconds = (to - from) as f64 / 1e6;
        let inside = between(samples, from, if to == began + span { to + 1 } else { to });
        let at = |time: u64| time.saturating_sub(began) as f64 / 1e6;
        let middle = at(from + (to - from) / 2);
        if to - from >= width / 4 {
            bins.rates.push((at(from), inside.len() as f64 / seconds));
        }
        match inside.iter().map(|sample| sample.took).max() {
            Some(longest) => {
                bins.longest.push((middle, ms(u64::from(longest))));
                run.push((middle, ms(p99_around(samples, from + width / 2))));
            }
            None => bins.p99.push(std::mem::take(&mut run)),
        }
    }
    bins.p99.push(run);
    bins.p99.retain(|run| !run.is_empty());
    bins
}

fn between(samples: &[Sample], from: u64, to: u64) -> &[Sample] {
    let first = samples.partition_point(|sample| sample.at < from);
    let last = samples.partition_point(|sample| sample.at < to);
    samples.get(first..last).unwrap_or_default()
}

fn p99_around(samples: &[Sample], middle: u64) -> u64 {
    let inside = between(samples, middle.saturating_sub(SECOND / 2), middle + SECOND / 2);
    Quantiles::of(inside.iter().map(|sample| u64::from(sample.took)).collect()).p99
}

/// A logarithmic axis has no zero.
fn ms(us: u64) -> f64 {
    us.max(1) as f64 / 1e3
}

impl Bins {
    /// The least and the greatest latency that is drawn.
    pub(super) fn range(&self) -> (f64, f64) {
        let p99 = self.p99.iter().flatten();
        let all = || self.longest.iter().chain(p99.clone()).map(|(_, ms)| *ms);
        let least = all().fold(f64::INFINITY, f64::min);
        if least.is_finite() { (least, all().fold(least, f64::max)) } else { (0.1, 10.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(from: u64, to: u64, step: u64, took: u32) -> Vec<Sample> {
        (from..to).step_by(step as usize).map(|at| Sample { at, took }).collect()
    }

    #[test]
    fn a_steady_load_is_a_flat_line() {
        let bins = of(&samples(SECOND, 3 * SECOND, 10_000, 1_500), SECOND, 3 * SECOND);
        assert_eq!((bins.width, bins.rates.len()), (0.1, 20));
        assert!(bins.rates.iter().all(|(_, rate)| (*rate - 100.0).abs() < 1e-6), "{:?}", bins.rates);
        assert!(bins.longest.iter().all(|(_, ms)| *ms == 1.5));
        assert_eq!((bins.p99.len(), bins.p99[0].len()), (1, 20));
        assert_eq!(bins.range(), (1.5, 1.5));
    }

    #[test]
    fn a_stall_is_seen() {
        let mut all = samples(0, SECOND, 10_000, 1_000);
        all.push(Sample { at: 1_550_000, took: 550_000 });
        all.extend(samples(1_560_000, 2 * SECOND, 10_000, 1_000));
        let bins = of(&all, 0, 2 * SECOND);
        let empty: Vec<f64> = bins.rates.iter().filter(|(_, rate)| *rate == 0.0).map(|(at, _)| *at).collect();
        assert_eq!(empty, [1.0, 1.1, 1.2, 1.3, 1.4]);
        assert_eq!(bins.p99.len(), 2, "the line is broken where nothing was answered");
        assert_eq!(bins.range().1, 550.0);
        let worst = bins.longest.iter().find(|(_, ms)| *ms == 550.0).unwrap();
        assert!((worst.0 - 1.55).abs() < 1e-9);
    }

    #[test]
    fn p99_is_not_the_longest_of_many() {
        let mut all = samples(0, SECOND, 1_000, 1_000);
        all[500].took = 90_000;
        let bins = of(&all, 0, SECOND);
        assert!(bins.p99[0].iter().all(|(_, ms)| *ms == 1.0));
        assert_eq!(bins.range(), (1.0, 90.0));
    }

    #[test]
    fn long_runs_have_wider_bins_and_none_has_no_latency() {
        assert_eq!(of(&[], 0, 120 * SECOND).width, 0.25);
        assert_eq!(of(&[], 0, 3_000 * SECOND).width, 10.0);
        let nothing = of(&[], 5, 5);
        assert_eq!((nothing.p99.len(), nothing.range()), (0, (0.1, 10.0)));
    }
}
