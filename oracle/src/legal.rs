//! Whether the answers are those of one store, as far as the lines say what came before what.

use std::collections::BTreeMap;

use cutover::{ConflictPolicy, Ending, InstanceId, ReusePolicy};

use crate::ack::{Ack, Answer, EndAnswer, Line, Saw};
use crate::ledger::{Known, Launched, Ledger, Said, Span};

/// The instance that a line is about.
pub(crate) fn instance_of(ack: &Ack) -> Option<InstanceId> {
    match ack {
        Ack::Launch { instance, .. } | Ack::Step { instance, .. } | Ack::End { instance, .. } => {
            Some(*instance)
        }
        Ack::Query { instance, .. } => *instance,
        _ => None,
    }
}

/// What the lines contradict, in sentences.
pub(crate) fn check(lines: &[Line], ledger: &Ledger) -> Vec<String> {
    let mut judge = Judge { ledger, lives: lives(ledger), by_key: BTreeMap::new(), broken: Vec::new() };
    for (id, life) in &judge.lives {
        if let Some(key) = &life.known.key {
            judge.by_key.entry(key.as_str()).or_default().push(*id);
        }
    }
    for launch in ledger.launches.values() {
        judge.launch(launch);
    }
    for (number, line) in lines.iter().enumerate() {
        let span = Span { before: line.before.min(number as u64), line: number as u64 };
        judge.line(&line.ack, span);
    }
    judge.broken
}

/// An instance, from when to when it surely lives.
struct Life<'l> {
    known: &'l Known,
    launched: Span,
    /// Lines that had been printed when what may have ended it began; `u64::MAX` if nothing may have.
    until: u64,
    /// A launch of its key that began after its own was over: it had ended by then.
    ended_by: Option<Span>,
}

impl Life<'_> {
    /// It lived from before the operation began until after it was answered.
    fn covers(&self, span: &Span) -> bool {
        self.launched.precedes(span) && span.line < self.until
    }

    /// It may have been alive at some time while the operation was under way.
    fn may_meet(&self, span: &Span) -> bool {
        let over = self.known.ended.is_some_and(|end| end.span.precedes(span))
            || self.ended_by.is_some_and(|later| later.precedes(span));
        !over && !span.precedes(&self.launched)
    }
}

fn lives(ledger: &Ledger) -> BTreeMap<InstanceId, Life<'_>> {
    let mut lives = BTreeMap::new();
    for (id, known) in &ledger.instances {
        let Some(launched) = known.launched else { continue };
        let until = ledger.may_end(*id, known).unwrap_or(u64::MAX);
        let later = known.key.iter().flat_map(|key| ledger.starts(key));
        let later = later.filter(|(launch, other)| other != id && launched.precedes(&launch.span));
        let ended_by = later.map(|(launch, _)| launch.span).min_by_key(|span| span.line);
        lives.insert(*id, Life { known, launched, until, ended_by });
    }
    lives
}

struct Judge<'l> {
    ledger: &'l Ledger,
    lives: BTreeMap<InstanceId, Life<'l>>,
    by_key: BTreeMap<&'l str, Vec<InstanceId>>,
    broken: Vec<String>,
}

impl<'l> Judge<'l> {
    fn say(&mut self, span: &Span, what: String) {
        self.broken.push(format!("line {}: {what}", span.line));
    }

    /// An instance that surely held the key while the operation was under way, other than `not`.
    fn holder(&self, key: &str, span: &Span, not: Option<InstanceId>) -> Option<InstanceId> {
        let mut all = self.by_key.get(key).into_iter().flatten().copied();
        all.find(|id| Some(*id) != not && self.lives.get(id).is_some_and(|life| life.covers(span)))
    }

    fn launch(&mut self, launch: &'l Launched) {
        let (Some(said), Some(key)) = (launch.answer, &launch.asked.key) else {
            let wrong = launch.answer.filter(|said| said.answer != Answer::Started);
            if let Some(said) = wrong {
                self.say(&launch.span, format!("{} has no key, and was answered {said}", launch.asked.who));
            }
            return;
        };
        let who = launch.asked.who;
        if !suits(&said, launch.asked.conflict, launch.asked.reuse) {
            let (conflict, reuse) = (launch.asked.conflict, launch.asked.reuse);
            self.say(
                &launch.span,
                format!("{who} asked for {conflict:?} and {reuse:?} and was answered {said}"),
            );
        }
        match said.answer {
            Answer::Started => {
                if let Some(holder) = self.holder(key, &launch.span, Some(said.instance)) {
                    let what = format!(
                        "{who} was started as instance {} although instance {holder} held the key {key}",
                        said.instance
                    );
                    self.say(&launch.span, what);
                }
            }
            Answer::Existing | Answer::Conflict => {
                self.holds(&format!("{who} was told"), said.instance, key, &launch.span);
            }
            Answer::Rejected => {
                self.had_ended(said.instance, said.ending, &launch.span);
                if let Some(holder) = self.holder(key, &launch.span, None) {
                    self.say(
                        &launch.span,
                        format!("{who} was rejected although instance {holder} held the key {key}"),
                    );
                }
            }
        }
    }

    /// Somebody was told that this instance holds the key.
    fn holds(&mut self, who: &str, id: InstanceId, key: &str, span: &Span) {
        let told = format!("{who} that instance {id} holds the key {key}");
        match self.lives.get(&id) {
            Some(life) if life.known.key.as_deref() != Some(key) => {
                let other = &life.known.key;
                self.say(span, format!("{told}, whose key is {other:?}"));
            }
            Some(life) if !life.may_meet(span) => self.say(span, format!("{told}, which was not alive then")),
            Some(_) => {}
            None => {
                let unknown = self.ledger.launches.values().any(|launch| {
                    launch.answer.is_none()
                        && launch.asked.key.as_deref() == Some(key)
                        && !span.precedes(&launch.span)
                });
                if !unknown {
                    self.say(span, format!("{told}, which nobody launched"));
                }
            }
        }
        if let Some(holder) = self.holder(key, span, Some(id)) {
            self.say(span, format!("{told}, while instance {holder} did"));
        }
    }

    /// Somebody was told that this instance had ended.
    fn had_ended(&mut self, id: InstanceId, ending: Option<Ending>, span: &Span) {
        let Some(life) = self.lives.get(&id) else { return };
        if life.covers(span) {
            self.say(span, format!("instance {id} was said to have ended while it lived"));
        } else if let (Some(end), Some(ending)) = (life.known.ended, ending)
            && end.ending != ending
        {
            self.say(
                span,
                format!("instance {id} was said to have ended as {ending:?}, and did as {:?}", end.ending),
            );
        }
    }

    fn line(&mut self, ack: &Ack, span: Span) {
        match ack {
            Ack::Query { instance: Some(id), key: Some(key), saw: Saw::Live, .. } => {
                self.holds("it was said", *id, key, &span);
            }
            Ack::Query { instance, key: Some(key), saw, ending, .. } => {
                if let Some(holder) = self.holder(key, &span, None) {
                    self.say(
                        &span,
                        format!(
                            "instance {holder} held the key {key} when it was said that none did ({saw:?})"
                        ),
                    );
                }
                if let Some(id) = instance {
                    self.had_ended(*id, *ending, &span);
                }
            }
            Ack::Query { instance: Some(id), key: None, saw: Saw::Live, .. } => self.lived(*id, &span),
            Ack::Query { instance: Some(id), key: None, ending, .. } => self.had_ended(*id, *ending, &span),
            Ack::End { instance, answer: EndAnswer::Before | EndAnswer::Gone, ending, .. } => {
                self.had_ended(*instance, *ending, &span);
            }
            Ack::End { instance, answer: EndAnswer::Asked, .. } => self.lived(*instance, &span),
            Ack::End { instance, answer: EndAnswer::Now, .. } | Ack::Step { instance, done: true, .. } => {
                self.changed(*instance, &span);
            }
            _ => {}
        }
    }

    fn lived(&mut self, id: InstanceId, span: &Span) {
        if self.lives.get(&id).is_some_and(|life| !life.may_meet(span)) {
            self.say(span, format!("instance {id} was said to live when it had ended"));
        }
    }

    /// An operation on a live instance was committed.
    fn changed(&mut self, id: InstanceId, span: &Span) {
        let Some(life) = self.lives.get(&id) else { return };
        let ended = life.known.ended.is_some_and(|end| end.span.line != span.line && end.span.precedes(span));
        if ended || life.ended_by.is_some_and(|later| later.precedes(span)) {
            self.say(span, format!("instance {id} was changed when it had ended"));
        }
    }
}

/// Whether the policies allow the answer.
fn suits(said: &Said, conflict: ConflictPolicy, reuse: ReusePolicy) -> bool {
    match said.answer {
        Answer::Started => true,
        Answer::Existing => conflict == ConflictPolicy::UseExisting,
        Answer::Conflict => conflict == ConflictPolicy::Fail,
        Answer::Rejected => match reuse {
            ReusePolicy::AllowDuplicate => false,
            ReusePolicy::AllowDuplicateFailedOnly => said.ending == Some(Ending::Completed),
            ReusePolicy::RejectDuplicate => said.ending.is_some(),
        },
    }
}
