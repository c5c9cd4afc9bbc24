//! What the lines of a session say: what is known, what was refused, and what may have happened or not. No engine is asked.
//!
//! Lines of different threads are not in the order in which things happened; but each says how many lines had been printed when its
//! operation began, so of two operations it is known whether one was over before the other began ([`Span::precedes`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cutover::formats::record::Answer as Recorded;
use cutover::{ConflictPolicy, Ending, InstanceId, Phase};

use crate::ack::{Ack, Answer, EndAnswer, How, Line, Opened, Report, Task};
use crate::content::{self, Asked};
use crate::legal;
use crate::plan::{Op, Planner};
use crate::who::Who;

/// When an operation was under way, counted in lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Lines that had been printed when it began.
    pub before: u64,
    /// Number of its own line, from 0 on; `u64::MAX` if it has none.
    pub line: u64,
}

impl Span {
    /// Whether this was over before the other began.
    #[must_use]
    pub const fn precedes(&self, other: &Self) -> bool {
        self.line < other.before
    }
}

/// An instance that a line is about.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The launch, by this session.
    pub by: Option<Who>,
    /// Its key.
    pub key: Option<String>,
    /// When it was launched, or found. None if only a worker has seen it.
    pub launched: Option<Span>,
    /// How it ended, if a line says so.
    pub ended: Option<End>,
    /// When it was asked to stop.
    pub asked: Vec<Span>,
    /// Steps that are done.
    pub done: BTreeMap<String, (Who, Span)>,
    /// Failures of steps that are to be tried again.
    pub retried: Vec<(String, Who, Span)>,
}

/// An end that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// How.
    pub ending: Ending,
    /// By which operation.
    pub by: Who,
    /// When.
    pub span: Span,
}

/// A launch of this session.
#[derive(Debug, Clone)]
pub struct Launched {
    /// What was asked for.
    pub asked: Asked,
    /// From its first try to its first answer.
    pub span: Span,
    /// The answer, if there is one.
    pub answer: Option<Said>,
}

/// An answer to a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Which.
    pub answer: Answer,
    /// The instance that it names.
    pub instance: InstanceId,
    /// How that had ended.
    pub ending: Option<Ending>,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = match self.answer {
            Answer::Started => "started",
            Answer::Existing => "existing",
            Answer::Conflict => "in conflict",
            Answer::Rejected => "rejected",
        };
        write!(f, "as {answer}: instance {}", self.instance)?;
        match self.ending {
            Some(ending) => write!(f, ", which had ended as {ending:?}"),
            None => Ok(()),
        }
    }
}

impl From<Recorded> for Said {
    fn from(recorded: Recorded) -> Self {
        let (answer, instance, ending) = match recorded {
            Recorded::Started(id) => (Answer::Started, id, None),
            Recorded::Existing(id) => (Answer::Existing, id, None),
            Recorded::Conflict(id) => (Answer::Conflict, id, None),
            Recorded::Rejected(id, ending) => (Answer::Rejected, id, Some(ending)),
        };
        Self { answer, instance, ending }
    }
}

/// A definition that was acknowledged.
#[derive(Debug, Clone)]
pub struct Defined {
    /// When.
    pub span: Span,
    /// The stores that have it.
    pub stores: Vec<u32>,
}

/// An operation that may have happened or not.
#[derive(Debug, Clone)]
pub struct Unknown {
    /// Its name.
    pub who: Who,
    /// What it was to do.
    pub op: Op,
    /// When. It has no end if it was never answered, or failed in doubt: what it did may show at any time later.
    pub span: Span,
    /// What a worker had in its hands, if that is known.
    pub task: Option<Task>,
}

/// What the lines of a session say.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The first line; none if there are no lines.
    pub opened: Option<Opened>,
    /// The newest status.
    pub status: Option<(u64, Phase)>,
    /// Statuses and the numbers of the lines that say so.
    pub epochs: Vec<(u64, u64)>,
    /// Instances.
    pub instances: BTreeMap<InstanceId, Known>,
    /// Launches.
    pub launches: BTreeMap<Who, Launched>,
    /// Those of a key.
    by_key: BTreeMap<String, Vec<Who>>,
    /// Definitions, by name.
    pub definitions: BTreeMap<String, Defined>,
    /// Definitions that were there at the beginning, by name.
    pub inherited: BTreeSet<String>,
    /// Whether what was there at the beginning is known in full: it is said before the first operation.
    pub begun: bool,
    /// What may have happened or not.
    pub unknown: Vec<Unknown>,
    /// When each line was printed.
    pub times: Vec<u64>,
    /// What cannot be, in sentences.
    pub broken: Vec<String>,
    planners: Vec<Planner>,
    /// Threads whose lines are not those of their plan, and are not looked at any more.
    astray: BTreeSet<u32>,
}

impl Ledger {
    /// Reads the lines of a session. `cut` says that it ended in the middle, so that the next operation of each thread may have
    /// happened.
    #[must_use]
    pub fn read(lines: &[Line], cut: bool) -> Self {
        let mut ledger = Self::default();
        let mut last = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            ledger.times.push(line.at_ms);
            let span = Span { before: line.before.min(number as u64), line: number as u64 };
            if let Some((thread, _)) = line.ack.operation() {
                last.resize(last.len().max(thread as usize + 1), 0);
                if let Some(last) = last.get_mut(thread as usize) {
                    *last = span.line + 1;
                }
            }
            ledger.fold(&line.ack, span);
        }
        if cut {
            for planner in &ledger.planners {
                let before = last.get(planner.who().thread as usize).copied().unwrap_or(0);
                let (who, op, span) = (planner.who(), planner.next(), Span { before, line: u64::MAX });
                ledger.unknown.push(Unknown { who, op, span, task: None });
            }
        }
        for at in 0..ledger.unknown.len() {
            ledger.note_unknown_launch(at);
        }
        let found = legal::check(lines, &ledger);
        ledger.broken.extend(found);
        ledger
    }

    fn fold(&mut self, ack: &Ack, span: Span) {
        match ack {
            Ack::Opened(opened) => self.open(opened, span),
            Ack::Phase { epoch, phase, .. } => {
                if self.status.is_some_and(|(known, before)| known == *epoch && before != *phase) {
                    self.broken.push(format!("line {}: epoch {epoch} is of two phases", span.line));
                }
                self.status = self.status.max(Some((*epoch, *phase)));
                self.epochs.push((*epoch, span.line));
            }
            Ack::Found { thread, instance, key } => {
                let known = self.instances.entry(*instance).or_default();
                (known.key, known.launched) = (key.clone(), Some(span));
                if let Some(planner) = self.planners.get_mut(*thread as usize) {
                    planner.absorb(ack);
                }
            }
            Ack::Defined { by, count } => {
                self.inherited.extend((0..*count).map(|number| format!("d.{by}.{number}")));
            }
            Ack::Unreadable { what } => self.broken.push(format!("line {} {what}", span.line)),
            _ => self.operation(ack, span),
        }
    }

    fn open(&mut self, opened: &Opened, span: Span) {
        if span.line > 0 {
            self.broken.push(format!("line {}: a second session begins", span.line));
            return;
        }
        let Opened { seed, session, keys, threads, sessions, .. } = *opened;
        self.inherited.extend((0..=sessions).map(content::session_name));
        self.planners = (0..threads).map(|thread| Planner::new(seed, session, thread, keys)).collect();
        self.opened = Some(opened.clone());
    }

    fn operation(&mut self, ack: &Ack, span: Span) {
        let Some((thread, n)) = ack.operation() else { return };
        self.begun = true;
        if self.astray.contains(&thread) {
            return;
        }
        let Some(planner) = self.planners.get_mut(thread as usize).filter(|planner| planner.expects(ack))
        else {
            self.astray.insert(thread);
            let named =
                legal::instance_of(ack).map_or_else(String::new, |id| format!(", about instance {id},"));
            let what = format!(
                "line {}: operation {n} of thread {thread}{named} is not what that thread did",
                span.line
            );
            self.broken.push(what);
            return;
        };
        let (by, op) = (planner.who(), planner.next());
        planner.absorb(ack);
        match ack {
            Ack::Launch { number, key, answer, instance, ending, .. } => {
                let said = Said { answer: *answer, instance: *instance, ending: *ending };
                self.launched(by, *number, &op, key.as_ref(), said, span);
            }
            Ack::Define { number, stores, .. } => {
                let who = by.at(*number);
                // One that was tried before, in doubt, may have been written then.
                let tried = self.unknown_define(&who).is_some();
                let stores = if tried { Vec::new() } else { stores.clone() };
                self.unknown.retain(|unknown| !defines(unknown, &who));
                let name = content::definition_name(&who);
                self.definitions.entry(name).or_insert(Defined { span, stores });
            }
            Ack::Step { .. } => self.reported(ack, by, span),
            Ack::End { instance, how, answer, .. } => self.ended(*instance, *how, *answer, by, span),
            Ack::Failed { refused: false, task, .. } => {
                let span = Span { line: u64::MAX, ..span };
                self.unknown.push(Unknown { who: by, op, span, task: task.clone() });
            }
            Ack::Failed { refused: true, error, .. } => {
                self.broken.push(format!("line {}: {by} was refused: {error}", span.line));
            }
            Ack::Wrong { what, .. } => self.broken.push(format!("line {}: {what}", span.line)),
            _ => {}
        }
    }

    fn launched(&mut self, by: Who, number: u64, op: &Op, key: Option<&String>, said: Said, span: Span) {
        let (who, Op::Launch { definition, .. }) = (by.at(number), op) else { return };
        let keys = self.opened.as_ref().map_or(0, |opened| opened.keys);
        let asked = content::asked(who, *definition, keys);
        if asked.key.as_ref() != key {
            self.broken.push(format!("line {}: {who} has the key {:?}", span.line, asked.key));
        }
        if let Some(before) = self.launches.get(&who) {
            if let Some(before) = before.answer.filter(|before| *before != said) {
                let what = format!("was answered {before} before, and now {said}");
                self.broken.push(format!("line {}: the request {who} {what}", span.line));
            }
            return;
        }
        // It may have been tried before, in doubt.
        let first = self.unknown.iter().find(|unknown| unknown.who == who).map(|unknown| unknown.span.before);
        self.unknown.retain(|unknown| unknown.who != who);
        let span = Span { before: first.unwrap_or(span.before), ..span };
        if said.answer == Answer::Started {
            let known = self.instances.entry(said.instance).or_default();
            if known.launched.is_some() {
                self.broken.push(format!("line {}: instance {} was started twice", span.line, said.instance));
            }
            (known.by, known.key, known.launched) = (Some(who), asked.key.clone(), Some(span));
        }
        self.add_launch(Launched { asked, span, answer: Some(said) });
    }

    fn reported(&mut self, ack: &Ack, by: Who, span: Span) {
        let Ack::Step { instance, step, report, done: true, ended, .. } = ack else { return };
        let known = self.instances.entry(*instance).or_default();
        match report {
            Report::Completed => {
                if let Some((before, _)) = known.done.insert(step.clone(), (by, span)) {
                    let what =
                        format!("step {step} of instance {instance} was completed by {before} and by {by}");
                    self.broken.push(format!("line {}: {what}", span.line));
                }
            }
            Report::Retry | Report::Failed => known.retried.push((step.clone(), by, span)),
        }
        if let Some(ending) = ended {
            self.end(*instance, End { ending: *ending, by, span });
        }
    }

    fn ended(&mut self, instance: InstanceId, how: How, answer: EndAnswer, by: Who, span: Span) {
        let ending = match how {
            How::End => Ending::Completed,
            How::Cancel => Ending::Cancelled,
            How::Terminate => Ending::Terminated,
        };
        match answer {
            EndAnswer::Now => self.end(instance, End { ending, by, span }),
            EndAnswer::Asked => self.instances.entry(instance).or_default().asked.push(span),
            EndAnswer::Before | EndAnswer::Gone => {}
        }
    }

    fn end(&mut self, instance: InstanceId, end: End) {
        let known = self.instances.entry(instance).or_default();
        if let Some(before) = known.ended.replace(end) {
            let what = format!("instance {instance} was ended by {} and by {}", before.by, end.by);
            self.broken.push(format!("line {}: {what}", end.span.line));
        }
    }

    /// What an unknown launch would have asked for.
    fn note_unknown_launch(&mut self, at: usize) {
        let Some(unknown) = self.unknown.get(at) else { return };
        let Op::Launch { number, definition } = unknown.op else { return };
        let keys = self.opened.as_ref().map_or(0, |opened| opened.keys);
        let (who, span) = (unknown.who.at(number), unknown.span);
        let asked = content::asked(who, definition, keys);
        if !self.launches.contains_key(&who) {
            self.add_launch(Launched { asked, span, answer: None });
        }
    }

    /// Number of the session.
    #[must_use]
    pub fn session(&self) -> Option<u64> {
        self.opened.as_ref().map(|opened| opened.session)
    }

    /// The operation of this name, if it may have happened or not.
    #[must_use]
    pub fn unknown(&self, who: &Who) -> Option<&Unknown> {
        self.unknown.iter().find(|unknown| unknown.who == *who)
    }

    fn add_launch(&mut self, launch: Launched) {
        let who = launch.asked.who;
        if let Some(key) = &launch.asked.key {
            self.by_key.entry(key.clone()).or_default().push(who);
        }
        self.launches.insert(who, launch);
    }

    /// What may have made this definition or not.
    #[must_use]
    pub fn unknown_define(&self, who: &Who) -> Option<&Unknown> {
        self.unknown.iter().find(|unknown| defines(unknown, who))
    }

    /// The launches of a key, answered or not.
    pub fn launches_of<'l>(&'l self, key: &str) -> impl Iterator<Item = &'l Launched> + use<'l> {
        self.by_key.get(key).into_iter().flatten().filter_map(|who| self.launches.get(who))
    }

    /// The launches of a key that started an instance.
    pub fn starts<'l>(&'l self, key: &str) -> impl Iterator<Item = (&'l Launched, InstanceId)> + use<'l> {
        self.launches_of(key).filter_map(|launch| {
            launch.answer.filter(|said| said.answer == Answer::Started).map(|said| (launch, said.instance))
        })
    }

    /// When an instance may have ended at the earliest, in lines; none if nothing may have ended it.
    #[must_use]
    pub fn may_end(&self, id: InstanceId, known: &Known) -> Option<u64> {
        let by_work = self.idle_hands().filter(|_| known.ended.is_none() && self.may_have_steps(known));
        self.may_end_otherwise(id, known).into_iter().chain(by_work.map(|unknown| unknown.span.before)).min()
    }

    /// The same, but for reports of workers of which nobody knows what they had in their hands.
    #[must_use]
    pub fn may_end_otherwise(&self, id: InstanceId, known: &Known) -> Option<u64> {
        if let Some(end) = &known.ended {
            return Some(end.span.before);
        }
        let asked = known.asked.iter().map(|span| span.before);
        let unknown =
            self.unknown.iter().filter(|unknown| may_end(unknown, id)).map(|unknown| unknown.span.before);
        asked.chain(unknown).chain(self.may_replace(id, known)).min()
    }

    /// Reports of workers that may have happened, of which nobody knows what they were about. Each has ended one instance at most.
    pub fn idle_hands(&self) -> impl Iterator<Item = &Unknown> {
        self.unknown.iter().filter(|unknown| unknown.op == Op::Work && unknown.task.is_none())
    }

    /// Without steps no worker ends it.
    fn may_have_steps(&self, known: &Known) -> bool {
        let launch = known.by.and_then(|by| self.launches.get(&by));
        launch.is_none_or(|launch| launch.asked.has_steps())
    }

    /// When it may have been replaced by a later launch of its key.
    fn may_replace<'l>(&'l self, id: InstanceId, known: &'l Known) -> impl Iterator<Item = u64> + 'l {
        let launches = known.key.iter().flat_map(|key| self.launches_of(key)).filter(move |launch| {
            launch.asked.conflict == ConflictPolicy::TerminateExisting
                && launch.answer.is_none_or(|said| said.answer == Answer::Started && said.instance != id)
        });
        let spans = launches.map(|launch| launch.span);
        spans.filter(|span| known.launched.is_none_or(|own| !span.precedes(&own))).map(|span| span.before)
    }

    /// Whether a later launch of its key may have replaced it.
    #[must_use]
    pub fn may_be_replaced(&self, id: InstanceId, known: &Known) -> bool {
        self.may_replace(id, known).next().is_some()
    }

    /// A launch of its key that began after this was acknowledged and started another instance: so it had ended by then.
    #[must_use]
    pub fn successor<'l>(&'l self, id: InstanceId, known: &'l Known) -> Option<(&'l Launched, InstanceId)> {
        let (key, own) = (known.key.as_deref()?, known.launched?);
        let mut later = self.starts(key).filter(|(launch, other)| *other != id && own.precedes(&launch.span));
        later.next()
    }

    /// The lower bound of when an operation began, by the wall clock.
    #[must_use]
    pub fn began_ms(&self, span: &Span) -> u64 {
        let before = span.before.checked_sub(1).and_then(|line| self.times.get(line as usize));
        before.or_else(|| self.times.first()).copied().unwrap_or(0)
    }
}

/// Whether an operation that may have happened was to make this definition.
fn defines(unknown: &Unknown, who: &Who) -> bool {
    unknown.op == Op::Define { number: who.n } && unknown.who.at(who.n) == *who
}

/// Whether an operation that may have happened was to end this instance, other than by a launch of its key.
fn may_end(unknown: &Unknown, id: InstanceId) -> bool {
    match &unknown.op {
        Op::End { instance, .. } => *instance == id,
        Op::Work => unknown.task.as_ref().is_some_and(|task| task.instance == id),
        _ => false,
    }
}
