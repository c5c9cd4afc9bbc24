//! Many tenants as one: how many have to succeed, and what becomes of the others. The policy is pure; who runs it hands in what to do for
//! each.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::sync::thread;
use crate::tenant::access::Ruling;

/// How a wave over a set of tenants goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wave {
    /// The part of them that has to succeed, from 0 to 1.
    pub proceed_fraction: f64,
    /// If strictly more than this part of them fail, from 0 to 1, those that succeeded are rolled back to exactly their earlier state.
    pub abort_fraction: f64,
    /// How often those that failed are tried again before that is judged.
    pub retries: u32,
    /// How long to wait before that.
    pub between: Duration,
    /// Flip after this time without being asked again: durable when the wave is prepared, for the case that who runs it does not live to its end.
    pub deadline: Option<Duration>,
}

impl Default for Wave {
    /// All of them have to succeed, more than half failing rolls back, and there are two retries, 100 ms apart.
    fn default() -> Self {
        let between = Duration::from_millis(100);
        Self { proceed_fraction: 1.0, abort_fraction: 0.5, retries: 2, between, deadline: None }
    }
}

/// What a wave came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Enough have succeeded. Those left behind, if any, are repaired in the background.
    Proceeded,
    /// Not enough have, and not too many have failed: what succeeded stays, and those left behind are repaired in the background.
    FellShort,
    /// Too many have failed: everything is as it was before, but for what is stuck.
    Aborted,
}

/// What a wave came to, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaveReport {
    /// As a whole.
    pub verdict: Verdict,
    /// The tenants that succeeded and stay so.
    pub done: Vec<String>,
    /// Those that failed, and why. Unless the wave was aborted or they are stuck they are left to the background.
    pub failed: Vec<(String, String)>,
    /// Those that had succeeded and were rolled back.
    pub rolled_back: Vec<String>,
    /// Those for which what the verdict asks for could not be done, and why: what has succeeded to go on or to be rolled back, what has failed to be
    /// called off or left to the background. What may still come to be is tried again in the background, as long as the engine is open.
    pub stuck: Vec<(String, String)>,
}

impl Wave {
    /// Refuses fractions that are none.
    pub(crate) fn check(&self) -> Result<()> {
        let of_one = |fraction: f64| (0.0..=1.0).contains(&fraction);
        if of_one(self.proceed_fraction) && of_one(self.abort_fraction) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "a fraction of a wave is not between 0 and 1"))
    }

    /// What it comes to if so many of all have failed, retries included.
    #[must_use]
    pub fn judge(&self, all: usize, failed: usize) -> Verdict {
        /// 0.1 of 30 is 3, and not a little more.
        const SLACK: f64 = 1e-9;
        let (all, failed) = (all as f64, failed as f64);
        if failed > self.abort_fraction * all + SLACK {
            return Verdict::Aborted;
        }
        let enough = all - failed >= self.proceed_fraction * all - SLACK;
        if enough { Verdict::Proceeded } else { Verdict::FellShort }
    }
}

/// What a wave does for one tenant.
pub(crate) trait Member {
    fn name(&self) -> &str;

    /// Tries. What it has changed if it fails, the next try or the [ruling](Self::rule) finds.
    fn attempt(&self) -> Result<()>;

    /// What becomes of it, whether it has succeeded, has failed, or that is not known. If it cannot be done it is tried in the background, unless that is
    /// of no use.
    fn rule(&self, ruling: Ruling) -> Result<()>;
}

/// Runs a wave.
pub(crate) fn run<M: Member>(wave: &Wave, members: &[M]) -> Result<WaveReport> {
    wave.check()?;
    let (mut done, mut left): (Vec<&M>, Vec<(&M, String)>) = (Vec::new(), Vec::new());
    let mut next: Vec<&M> = members.iter().collect();
    for round in 0..=wave.retries {
        if round > 0 && !next.is_empty() {
            thread::sleep(wave.between);
        }
        left.clear();
        for member in std::mem::take(&mut next) {
            match member.attempt() {
                Ok(()) => done.push(member),
                Err(err) => left.push((member, err.to_string())),
            }
        }
        next.extend(left.iter().map(|(member, _)| *member));
    }
    let verdict = wave.judge(members.len(), left.len());
    let ruling = if verdict == Verdict::Aborted { Ruling::Goes } else { Ruling::Stays };
    let mut stuck = Vec::new();
    let mut rule = |member: &M| match member.rule(ruling) {
        Ok(()) => true,
        Err(err) => {
            stuck.push((member.name().to_owned(), err.to_string()));
            false
        }
    };
    let mut rolled_back = Vec::new();
    done.retain(|member| {
        let ruled = rule(member);
        if ruled && verdict == Verdict::Aborted {
            rolled_back.push(member.name().to_owned());
        }
        verdict != Verdict::Aborted
    });
    for (member, _) in &left {
        rule(member);
    }
    let done = done.into_iter().map(|member| member.name().to_owned()).collect();
    let failed = left.into_iter().map(|(member, why)| (member.name().to_owned(), why)).collect();
    Ok(WaveReport { verdict, done, failed, rolled_back, stuck })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(proceed_fraction: f64, abort_fraction: f64) -> [Verdict; 9] {
        let wave = Wave { proceed_fraction, abort_fraction, ..Wave::default() };
        std::array::from_fn(|failed| wave.judge(8, failed))
    }

    /// Eight tenants, of which 0 to 8 fail.
    #[test]
    fn of_eight_any_number_may_fail() {
        use Verdict::{Aborted as A, FellShort as S, Proceeded as P};
        let default = Wave::default();
        let expected = [P, S, S, S, S, A, A, A, A];
        assert_eq!(verdicts(default.proceed_fraction, default.abort_fraction), expected);
        assert_eq!(verdicts(1.0, 0.0), [P, A, A, A, A, A, A, A, A]);
        assert_eq!(verdicts(1.0, 1.0), [P, S, S, S, S, S, S, S, S]);
        assert_eq!(verdicts(0.0, 1.0), [P, P, P, P, P, P, P, P, P]);
        assert_eq!(verdicts(0.0, 0.0), [P, A, A, A, A, A, A, A, A], "to abort comes first");
        assert_eq!(
            verdicts(0.75, 0.25),
            [P, P, P, A, A, A, A, A, A],
            "exactly a quarter is not more than that"
        );
        assert_eq!(verdicts(0.75, 0.5), [P, P, P, S, S, A, A, A, A]);
        assert_eq!(verdicts(0.5, 0.875), [P, P, P, P, P, S, S, S, A]);
    }

    #[test]
    fn fractions_that_no_float_hits_are_met() {
        let wave = Wave { proceed_fraction: 0.9, abort_fraction: 0.1, ..Wave::default() };
        assert_eq!((wave.judge(30, 3), wave.judge(30, 4)), (Verdict::Proceeded, Verdict::Aborted));
        assert_eq!(wave.judge(0, 0), Verdict::Proceeded);
        for bad in [-0.1, 1.1, f64::NAN] {
            assert!(Wave { proceed_fraction: bad, ..wave }.check().is_err());
            assert!(Wave { abort_fraction: bad, ..wave }.check().is_err());
        }
    }
}
