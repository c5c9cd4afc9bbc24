//! What the engine says after it was opened again.

use std::collections::{BTreeMap, BTreeSet};

use cutover::{Engine, ErrorKind, Filter, Instance, InstanceId, Launched as Answered, Result, Tenant};

use super::rows::may_have;
use super::{DOUBLE, Judge};
use crate::ack::Answer;
use crate::content;
use crate::ledger::{Known, Said, Span};
use crate::plan::Op;
use crate::who::Who;

/// Why the engine ends an instance itself.
const REPLACED: &str = "replaced by a later launch of its key";
const CANCELLED: &str = "cancelled";

pub(super) fn check(judge: &mut Judge<'_>, engine: &Engine) -> Result<()> {
    let name = judge.ledger.opened.as_ref().map_or("load", |opened| opened.tenant.as_str());
    let tenant = match engine.tenant(name) {
        // A kill before it was made.
        Err(err) if err.kind() == ErrorKind::NotFound && judge.ledger.opened.is_none() => return Ok(()),
        tenant => tenant?,
    };
    let (epoch, _) = judge.ledger.status.unwrap_or((0, cutover::Phase::Stable));
    if tenant.status().epoch < epoch {
        judge.say(format!("epoch {epoch} was acknowledged, and the engine is at {}", tenant.status().epoch));
    }
    let seen = list(judge, &tenant)?;
    judge.verdict.found = seen.len() as u64;
    let mut instances = Instances { tenant: &tenant, launched: BTreeMap::new(), gone: BTreeSet::new() };
    for listed in seen.values() {
        instances.found(judge, listed)?;
    }
    let ids = judge.ledger.instances.keys().copied();
    let absent: Vec<InstanceId> =
        ids.filter(|id| !seen.contains_key(id) || instances.gone.contains(id)).collect();
    missing(judge, &tenant, &absent)?;
    definitions(judge, &tenant)?;
    requests(judge, &tenant)
}

/// Every instance, by id; no two live ones have one key.
fn list(judge: &mut Judge<'_>, tenant: &Tenant) -> Result<BTreeMap<InstanceId, Instance>> {
    let (mut seen, mut after) = (BTreeMap::new(), None);
    let mut holders: BTreeMap<(String, Vec<u8>), InstanceId> = BTreeMap::new();
    loop {
        let page = tenant.list(&Filter::default(), after, 1_000)?;
        for instance in page.instances {
            if let (None, Some(key)) = (instance.ending(), &instance.key)
                && let Some(other) = holders.insert(key.clone(), instance.id)
            {
                let key = String::from_utf8_lossy(&key.1).into_owned();
                judge.say(format!(
                    "the key {key} is held by instance {other} and by instance {}",
                    instance.id
                ));
            }
            if seen.insert(instance.id, instance.clone()).is_some() {
                judge.say(format!("instance {} is listed twice", instance.id));
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(seen);
        }
    }
}

struct Instances<'t> {
    tenant: &'t Tenant,
    /// Which instance each launch of this session has come to.
    launched: BTreeMap<Who, InstanceId>,
    /// Collected since they were listed.
    gone: BTreeSet<InstanceId>,
}

impl Instances<'_> {
    /// An instance that is there.
    fn found(&mut self, judge: &mut Judge<'_>, listed: &Instance) -> Result<()> {
        let id = listed.id;
        let input = self.tenant.input(id)?;
        let Some(found) = self.tenant.instance(id)? else {
            if listed.ending().is_none() {
                judge.say(format!("instance {id} is listed as alive, and not found by its id"));
            }
            self.gone.insert(id);
            return Ok(());
        };
        // Asked before the instance was, so it was there.
        let input = input.unwrap_or_default();
        let who = content::author(&input).filter(|who| input == content::input(who));
        let Some(who) = who else {
            judge.say(format!("the input of instance {id} is not as it was given"));
            return Ok(());
        };
        self.attribute(judge, &found, &who);
        let ledger = judge.ledger;
        let known = ledger.instances.get(&id);
        match (found.ending(), known) {
            (None, known) => self.alive(judge, &found, known)?,
            (Some(_), Some(known)) => ended(judge, &found, known),
            (Some(_), None) => {}
        }
        if let Some(known) = known {
            self.steps(judge, &found, known, &who)?;
        }
        Ok(())
    }

    /// It was launched by somebody who may have launched it.
    fn attribute(&mut self, judge: &mut Judge<'_>, found: &Instance, who: &Who) {
        let (id, ledger) = (found.id, judge.ledger);
        let key = found.key.as_ref().map(|(_, key)| String::from_utf8_lossy(key).into_owned());
        if let Some(other) = self.launched.insert(*who, id) {
            judge.say(format!("{who} was launched twice: as instance {other} and as instance {id}"));
        }
        if ledger.session() == Some(who.session) {
            match ledger.launches.get(who).map(|launch| (launch.answer, &launch.asked)) {
                Some((answer, asked)) => {
                    let other = answer.filter(|said| said.answer != Answer::Started || said.instance != id);
                    if let Some(said) = other {
                        judge.say(format!("{who} was answered {said}, and launched instance {id}"));
                    }
                    if asked.key != key || asked.definition != found.definition {
                        let (of, so) = (&asked.definition, &found.definition);
                        judge.say(format!(
                            "instance {id} has the key {key:?} and is of {so}; {who} gave {:?} and {of}",
                            asked.key
                        ));
                    }
                }
                None => judge.say(format!("instance {id} is there, and {who} never launched it")),
            }
        } else if found.ending().is_none() && !judge.lossy && ledger.begun {
            match ledger.instances.get(&id) {
                Some(known) if known.key != key => {
                    judge.say(format!(
                        "instance {id} was found with the key {:?}, and has {key:?}",
                        known.key
                    ));
                }
                Some(_) => {}
                None => judge.say(format!("instance {id} of {who} lives again")),
            }
        }
    }

    fn alive(&self, judge: &mut Judge<'_>, found: &Instance, known: Option<&Known>) -> Result<()> {
        let id = found.id;
        if let Some((scope, key)) = &found.key {
            let held = self.tenant.instance_by_key(scope, key)?.map(|holder| holder.id);
            if held != Some(id) {
                let key = String::from_utf8_lossy(key);
                judge.say(format!("instance {id} lives, and its key {key} is held by {held:?}"));
            }
        }
        let Some(known) = known.filter(|_| !judge.lossy) else { return Ok(()) };
        if let Some(end) = known.ended {
            judge.say(format!("instance {id} lives, and {} has ended it as {:?}", end.by, end.ending));
        } else if let Some((launch, other)) = judge.ledger.successor(id, known) {
            let who = launch.asked.who;
            judge.say(format!("instance {id} lives, and {who} has replaced it by instance {other}"));
        }
        Ok(())
    }

    /// What was reported on its steps is there, and nothing that was not (I9).
    fn steps(&self, judge: &mut Judge<'_>, found: &Instance, known: &Known, who: &Who) -> Result<()> {
        let id = found.id;
        for step in ["a", "b", "c"] {
            let result = match self.tenant.step_result(id, step) {
                Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
                result => result?,
            };
            let acknowledged = known.done.get(step).map(|(by, _)| *by);
            match (result, acknowledged) {
                (Some(result), Some(by)) if result != content::result(who, step, &by).into_bytes() => {
                    judge.say(format!("step {step} of instance {id} has another result than {by} gave"));
                }
                (Some(result), None) => {
                    let by = std::str::from_utf8(&result).ok().and_then(content::ender);
                    let ours = by.filter(|by| judge.ledger.session() == Some(by.session));
                    if by.is_none()
                        || ours.is_some_and(|by| !may_have(judge.ledger, &by, |op| *op == Op::Work))
                    {
                        judge.say(format!("step {step} of instance {id} has a result that nobody gave"));
                    }
                }
                // Those of an ended one go before it does.
                (None, Some(by)) if found.ending().is_none() && !judge.lossy => {
                    judge.say(format!("the result that {by} gave for step {step} of instance {id} is lost"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// It has ended by something that was acknowledged, or may have happened.
fn ended(judge: &mut Judge<'_>, found: &Instance, known: &Known) {
    let (id, Some(ending)) = (found.id, found.ending()) else { return };
    let text = String::from_utf8_lossy(&found.output).into_owned();
    let by = content::ender(if found.reason.is_empty() { &text } else { &found.reason });
    let by = by.filter(|_| found.reason != REPLACED && !found.reason.starts_with(DOUBLE));
    if let Some(end) = known.ended {
        let same_author = by == Some(end.by) || found.reason == CANCELLED;
        if (end.ending != ending || !same_author) && !judge.lossy {
            let (was, so) = (end.ending, end.by);
            judge.say(format!(
                "instance {id} was ended as {was:?} by {so}, and has ended as {ending:?} by {by:?}"
            ));
        }
        if !judge.lossy || same_author {
            return;
        }
    }
    let explained = match by {
        Some(by) if judge.ledger.session() == Some(by.session) => {
            may_have(judge.ledger, &by, |op| match op {
                Op::Work => true,
                Op::End { instance, .. } => *instance == id,
                _ => false,
            })
        }
        Some(_) => false,
        None if found.reason == REPLACED => judge.ledger.may_be_replaced(id, known),
        None if found.reason == CANCELLED => {
            !known.asked.is_empty() || judge.ledger.may_end(id, known).is_some()
        }
        None => judge.lossy && found.reason.starts_with(DOUBLE),
    };
    if !explained {
        judge.say(format!("instance {id} has ended as {ending:?} ({}), and nobody ended it", found.reason));
    }
}

/// Instances that were acknowledged and are not there. Those that nothing else may have ended may have been ended by workers that were not
/// answered, but no more of them than there were such workers.
fn missing(judge: &mut Judge<'_>, tenant: &Tenant, ids: &[InstanceId]) -> Result<()> {
    let ledger = judge.ledger;
    let mut excused = Vec::new();
    for id in ids {
        let Some(known) = ledger.instances.get(id) else { continue };
        if known.launched.is_none() || judge.lossy {
            // Seen by a worker only: its launch may not have been answered. Or judged with the tails.
            continue;
        }
        let over = |before: u64| judge.may_be_collected(&Span { before, line: u64::MAX });
        if ledger.may_end_otherwise(*id, known).is_some_and(over) {
            continue;
        }
        let by =
            known.by.map_or_else(|| "found at the beginning".to_owned(), |by| format!("launched by {by}"));
        let what = if tenant.instance(*id)?.is_some() { "is not listed" } else { "is lost" };
        let sentence = format!("instance {id}, {by}, {what}");
        if ledger.may_end(*id, known).is_some_and(over) {
            excused.push(sentence);
        } else {
            judge.say(sentence);
        }
    }
    if excused.len() > ledger.idle_hands().count() {
        excused.into_iter().for_each(|sentence| judge.say(sentence));
    }
    Ok(())
}

fn definitions(judge: &mut Judge<'_>, tenant: &Tenant) -> Result<()> {
    let ledger = judge.ledger;
    for name in ledger.definitions.keys().chain(&ledger.inherited) {
        let good = |body: &[u8]| match content::definer(name) {
            Some(who) => body == content::body(&who),
            None => content::session_of(body).is_some(),
        };
        match tenant.definition(name, 1)? {
            None if judge.lossy => {}
            None => judge.say(format!("the definition {name} is lost")),
            Some(found) if !good(&found.body) => judge.say(format!("the definition {name} has other bytes")),
            Some(_) => {}
        }
    }
    Ok(())
}

/// A request is answered as it was.
fn requests(judge: &mut Judge<'_>, tenant: &Tenant) -> Result<()> {
    if judge.lossy {
        return Ok(());
    }
    let ledger = judge.ledger;
    for (who, launch) in &ledger.launches {
        let Some(said) = launch.answer.filter(|_| launch.asked.request) else { continue };
        if judge.may_be_forgotten(&launch.span) {
            continue;
        }
        judge.verdict.repeated += 1;
        let again = match tenant.launch(&launch.asked.launch()) {
            Ok(Answered::Started(instance)) => Said { answer: Answer::Started, instance, ending: None },
            Ok(Answered::Existing(instance)) => Said { answer: Answer::Existing, instance, ending: None },
            Ok(Answered::Conflict { instance }) => Said { answer: Answer::Conflict, instance, ending: None },
            Ok(Answered::Rejected { instance, ending }) => {
                Said { answer: Answer::Rejected, instance, ending: Some(ending) }
            }
            Err(err) => {
                judge.say(format!("the request {who} was answered {said}, and is refused now: {err}"));
                continue;
            }
        };
        if again != said {
            judge.say(format!("the request {who} was answered {said}, and is answered {again} now"));
        }
    }
    Ok(())
}
