//! Holds a directory against the lines of the session that worked on it last.
//!
//! [`rows`] judges the rows of the stores as the crash left them, [`answers`] what the engine says after it was opened, [`tails`] what
//! power loss took where it may take something. All are exact where they can be and silent where they cannot: what has ended may
//! have been collected, and an operation without an answer may have happened or not.

mod answers;
mod rows;
mod tails;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cutover::{Durability, Engine, Result};
use serde::Serialize;

use crate::ack::Line;
use crate::ledger::{Ledger, Span};
use crate::raw::Raw;

/// After a close that was not in order the engine's clock may be so far ahead of the wall clock, and no further however many there were.
const JUMP: Duration = Duration::from_millis(2_000);
/// Why recovery ends one of two instances that power loss has left with one key.
const DOUBLE: &str = "its key was live in both stores";
/// Sentences that a verdict lists.
const MOST: usize = 100;

/// What happened to the process that printed the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It was killed, or closed in order: at both levels nothing that was acknowledged may be missing.
    Kill,
    /// The machine lost power: what was acknowledged as buffered may have lost the last moments, without holes.
    PowerCut,
}

/// How to check.
#[derive(Debug, Clone)]
pub struct Options {
    /// What happened.
    pub after: After,
    /// Whether operations were under way when it happened. A test that knows that there were none says so.
    pub cut: bool,
    /// How much further the engine's clock has come than the wall clock, if somebody has moved it.
    pub later: Duration,
}

impl Options {
    /// Operations were under way, and nobody has moved the clock.
    #[must_use]
    pub const fn after(after: After) -> Self {
        Self { after, cut: true, later: Duration::ZERO }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Every promise was kept.
    pub ok: bool,
    /// The phase that the directory was found in; none if there is no tenant.
    pub phase: Option<String>,
    /// The epoch that it was found with.
    pub epoch: u64,
    /// Acknowledgements that were lost, where some may be.
    pub lost: u64,
    /// The oldest of them was acknowledged so long before the last line, in milliseconds.
    pub lost_ms: u64,
    /// Lines read.
    pub lines: u64,
    /// Launches that were acknowledged.
    pub launches: u64,
    /// Definitions that were acknowledged.
    pub definitions: u64,
    /// Steps that were acknowledged as done.
    pub steps: u64,
    /// Operations that may have happened or not.
    pub unknown: u64,
    /// Instances found, ended ones among them.
    pub found: u64,
    /// Requests that were repeated and had to be answered the same.
    pub repeated: u64,
    /// Promises that were broken, each in a sentence.
    pub broken: Vec<String>,
}

impl Verdict {
    /// One promise was broken, and nothing else could be looked at.
    #[must_use]
    pub fn broken(what: impl Into<String>) -> Self {
        Self { broken: vec![what.into()], ..Self::default() }
    }
}

/// Holds an engine that was opened again, and the rows that were read before that, against the lines.
///
/// # Errors
/// If the tenant cannot be asked at all.
pub fn check(lines: &[Line], raw: &Raw, engine: &Engine, options: &Options) -> Result<Verdict> {
    let ledger = Ledger::read(lines, options.cut);
    let mut judge = Judge::of_rows(&ledger, raw, options);
    answers::check(&mut judge, engine)?;
    Ok(judge.verdict())
}

/// Holds the rows of a directory against the lines without opening an engine.
#[must_use]
pub fn check_rows(lines: &[Line], raw: &Raw, options: &Options) -> Verdict {
    let ledger = Ledger::read(lines, options.cut);
    Judge::of_rows(&ledger, raw, options).verdict()
}

/// What all parts of the check have in hand.
struct Judge<'c> {
    ledger: &'c Ledger,
    raw: &'c Raw,
    /// The last moments may be missing.
    lossy: bool,
    now_ms: u64,
    later: Duration,
    verdict: Verdict,
    broken: Vec<String>,
}

impl<'c> Judge<'c> {
    fn new(ledger: &'c Ledger, raw: &'c Raw, options: &Options) -> Self {
        let buffered = ledger.opened.as_ref().is_none_or(|opened| opened.durability == Durability::Buffered);
        let status = raw.tenant.as_ref().map(|tenant| tenant.status);
        let verdict = Verdict {
            phase: status.map(|status| status.phase.name().to_owned()),
            epoch: status.map_or(0, |status| status.epoch),
            lines: ledger.times.len() as u64,
            launches: ledger.launches.values().filter(|launch| launch.answer.is_some()).count() as u64,
            definitions: ledger.definitions.len() as u64,
            steps: ledger.instances.values().map(|known| known.done.len() as u64).sum(),
            unknown: ledger.unknown.len() as u64,
            ..Verdict::default()
        };
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let lossy = options.after == After::PowerCut && buffered;
        Self { ledger, raw, lossy, now_ms, later: options.later, verdict, broken: Vec::new() }
    }

    /// Has looked at the lines and the rows.
    fn of_rows(ledger: &'c Ledger, raw: &'c Raw, options: &Options) -> Self {
        let mut judge = Self::new(ledger, raw, options);
        judge.broken.extend(ledger.broken.iter().cloned());
        rows::check(&mut judge);
        if judge.lossy {
            tails::check(&mut judge);
        }
        judge
    }

    fn say(&mut self, what: impl Into<String>) {
        self.broken.push(what.into());
    }

    /// Whether a retention that began after this operation did is over by now, or may be.
    fn may_be_over(&self, span: &Span, retention_ms: u64) -> bool {
        let passed = self.now_ms.saturating_sub(self.ledger.began_ms(span));
        let bound = u128::from(passed) + (JUMP + self.later).as_millis();
        bound >= u128::from(retention_ms)
    }

    /// The same for an ended instance and its key.
    fn may_be_collected(&self, span: &Span) -> bool {
        let kept = self.ledger.opened.as_ref().map_or(0, |opened| opened.instance_ms.min(opened.key_ms));
        self.may_be_over(span, kept)
    }

    /// The same for a request.
    fn may_be_forgotten(&self, span: &Span) -> bool {
        let kept = self.ledger.opened.as_ref().map_or(0, |opened| opened.request_ms);
        self.may_be_over(span, kept)
    }

    fn verdict(mut self) -> Verdict {
        let more = self.broken.len().saturating_sub(MOST);
        self.broken.truncate(MOST);
        if more > 0 {
            self.broken.push(format!("and {more} more"));
        }
        Verdict { ok: self.broken.is_empty(), broken: self.broken, ..self.verdict }
    }
}
