//! What power loss took of what was acknowledged as buffered: of each store at most the last moments, and without holes.

use std::collections::BTreeMap;

use cutover::StoreId;
use cutover::formats::record::{RequestRecord, StepState};

use super::{DOUBLE, Judge};
use crate::ack::Answer;
use crate::content;
use crate::ledger::{Known, Said, Span};
use crate::raw::Rows;

/// Each store is synced at least once a second, which takes a while; what is older than this may not be lost, in milliseconds.
const BOUND_MS: u64 = 3_000;

/// What was committed to one store, as far as it can be told.
#[derive(Default)]
struct Tail {
    /// Lines before the latest operation that is there, and what it is.
    kept: Option<(u64, String)>,
    /// What is lost for certain, by its line.
    lost: BTreeMap<u64, String>,
}

impl Tail {
    fn keep(&mut self, span: &Span, what: impl FnOnce() -> String) {
        if self.kept.as_ref().is_none_or(|(before, _)| *before < span.before) {
            self.kept = Some((span.before, what()));
        }
    }

    fn lose(&mut self, span: &Span, what: String) {
        self.lost.insert(span.line, what);
    }
}

pub(super) fn check(judge: &mut Judge<'_>) {
    let mut tails: BTreeMap<StoreId, Tail> =
        judge.raw.stores.keys().map(|id| (*id, Tail::default())).collect();
    for (id, known) in &judge.ledger.instances {
        match (judge.raw.stores.get(&id.store()), tails.get_mut(&id.store())) {
            (Some(rows), Some(tail)) => {
                launches(judge, tail, rows, *id, known);
                changes(tail, rows, *id, known);
            }
            _ => left(judge, *id, known),
        }
    }
    definitions(judge, &mut tails);
    unanswered(judge, &mut tails);
    let last_ms = judge.ledger.times.last().copied().unwrap_or(0);
    for (store, tail) in tails {
        let Some((first, what)) = tail.lost.first_key_value() else { continue };
        if let Some((before, kept)) = tail.kept.filter(|(before, _)| first < before) {
            let hole = format!("{store} has a hole: {what} (line {first}) is lost, and {kept} is there");
            judge.say(format!("{hole}, which began after {before} lines"));
        }
        let at_ms = judge.ledger.times.get(*first as usize).copied().unwrap_or(last_ms);
        let age = last_ms.saturating_sub(at_ms);
        judge.verdict.lost += tail.lost.len() as u64;
        judge.verdict.lost_ms = judge.verdict.lost_ms.max(age);
        if age > BOUND_MS {
            judge.say(format!("{what} is lost from {store}, acknowledged {age} ms before the last line, more than {BOUND_MS}"));
        }
    }
}

/// It was launched in a store that the tenant has left since: that had drained.
fn left(judge: &mut Judge<'_>, id: cutover::InstanceId, known: &Known) {
    // An opening since then may have gone on, and found it drained by the loss.
    let epoch = judge.ledger.status.map_or(0, |(epoch, _)| epoch);
    if judge.verdict.epoch <= epoch && known.launched.is_some() && judge.ledger.may_end(id, known).is_none() {
        judge.say(format!("instance {id} is lost with {}, which was left", id.store()));
    }
}

fn launches(judge: &mut Judge<'_>, tail: &mut Tail, rows: &Rows, id: cutover::InstanceId, known: &Known) {
    let Some(span) = known.launched else { return };
    let request =
        known.by.and_then(|by| judge.ledger.launches.get(&by)).filter(|launch| launch.asked.request);
    let id_of_request = request.map(|launch| launch.asked.who.to_string());
    let started = |record: &RequestRecord| Said::from(record.answer).answer == Answer::Started;
    let answered =
        |rows: &Rows| id_of_request.as_ref().and_then(|id| rows.requests.get(id)).is_some_and(started);
    let kept = judge.raw.stores.values().any(answered);
    let what = || format!("the launch of instance {id}");
    if kept || rows.instances.contains_key(&id) {
        // Answers are carried over to the other store, where they are durable at once: only what is here says what is here.
        if answered(rows) || rows.instances.contains_key(&id) {
            tail.keep(&span, what);
        }
        if request.is_some() && !kept && !judge.may_be_forgotten(&span) {
            judge.say(format!("instance {id} is there and its request is not"));
        }
    } else if (request.is_some() && !judge.may_be_forgotten(&span))
        || judge.ledger.may_end(id, known).is_none()
    {
        tail.lose(&span, what());
    }
}

/// What was done to an instance that is there.
fn changes(tail: &mut Tail, rows: &Rows, id: cutover::InstanceId, known: &Known) {
    let Some(head) = rows.instances.get(&id) else { return };
    let lives = head.ended.is_none();
    // An earlier opening may have ended it itself.
    let by_recovery = head.ended.as_ref().is_some_and(|end| end.reason.starts_with(DOUBLE));
    if let Some(end) = known.ended.filter(|_| !by_recovery) {
        let what = || format!("the end of instance {id}");
        if lives { tail.lose(&end.span, what()) } else { tail.keep(&end.span, what) }
    }
    for (step, (_, span)) in &known.done {
        let what = || format!("the result of step {step} of instance {id}");
        let done = rows.steps.get(&(id, step.clone())).is_some_and(|step| step.state == StepState::Completed);
        match (done, lives) {
            (true, _) => tail.keep(span, what),
            (false, true) => tail.lose(span, what()),
            // Collected, perhaps.
            (false, false) => {}
        }
    }
    for (step, by, span) in &known.retried {
        let what = || format!("a failure of step {step} of instance {id}");
        let by = Some(*by);
        let noted = rows.steps.get(&(id, step.clone())).is_some_and(|step| {
            step.history.iter().any(|settled| settled.failure.as_deref().and_then(content::ender) == by)
        });
        match (noted, lives) {
            (true, _) => tail.keep(span, what),
            (false, true) => tail.lose(span, what()),
            (false, false) => {}
        }
    }
}

fn definitions(judge: &mut Judge<'_>, tails: &mut BTreeMap<StoreId, Tail>) {
    for (name, defined) in &judge.ledger.definitions {
        let what = || format!("the definition {name}");
        if judge.raw.stores.values().any(|rows| rows.gaps.contains(name)) {
            continue;
        }
        let mut nowhere = true;
        for (store, tail) in tails.iter_mut() {
            let Some(rows) = judge.raw.stores.get(store) else { continue };
            let there = rows.definitions.contains_key(name);
            nowhere &= !there;
            // A copy, or a repair, may have come at any time later: only where it was acknowledged does it say something.
            if !defined.stores.contains(&store.0) {
                continue;
            }
            if there { tail.keep(&defined.span, what) } else { tail.lose(&defined.span, what()) }
        }
        let acknowledged_here = defined.stores.iter().any(|store| tails.contains_key(&StoreId(*store)));
        if nowhere
            && !acknowledged_here
            && let Some(tail) = tails.values_mut().next()
        {
            tail.lose(&defined.span, what());
        }
    }
}

/// Operations that were never answered and have happened: whatever was acknowledged before them must be there.
fn unanswered(judge: &Judge<'_>, tails: &mut BTreeMap<StoreId, Tail>) {
    for (store, rows) in &judge.raw.stores {
        let Some(tail) = tails.get_mut(store) else { continue };
        for (id, input) in
            rows.inputs.iter().filter(|(id, _)| rows.instances.contains_key(id) && id.store() == *store)
        {
            if let Some(unknown) = content::author(input).and_then(|who| judge.ledger.unknown(&who)) {
                tail.keep(&unknown.span, || format!("the launch of instance {id}"));
            }
        }
        for ((id, step), record) in &rows.steps {
            let by = std::str::from_utf8(&record.result).ok().and_then(content::ender);
            if let Some(unknown) = by.and_then(|by| judge.ledger.unknown(&by)) {
                tail.keep(&unknown.span, || format!("the result of step {step} of instance {id}"));
            }
        }
    }
}
