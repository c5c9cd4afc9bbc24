//! The rows of the stores as the crash left them, before anything is mended.

use std::collections::{BTreeMap, BTreeSet};

use cutover::formats::record::{InstanceRecord, StepState};
use cutover::{InstanceId, Phase, StoreId};

use super::Judge;
use crate::ack::Answer;
use crate::content;
use crate::ledger::{Ledger, Said};
use crate::plan::Op;
use crate::raw::Rows;
use crate::who::Who;

pub(super) fn check(judge: &mut Judge<'_>) {
    for unreadable in judge.raw.unreadable.clone() {
        judge.say(unreadable);
    }
    status(judge);
    one_holder(judge);
    for (store, rows) in &judge.raw.stores {
        for (id, head) in &rows.instances {
            instance(judge, *store, rows, *id, head);
        }
        whole(judge, *store, rows);
        definitions(judge, *store, rows);
        requests(judge, rows);
        steps(judge, *store, rows);
    }
    in_both(judge);
}

/// Neither epoch nor phase is behind what was acknowledged (I7).
fn status(judge: &mut Judge<'_>) {
    let Some((epoch, phase)) = judge.ledger.status else { return };
    let Some(tenant) = &judge.raw.tenant else {
        judge.say("the tenant is not there");
        return;
    };
    let status = tenant.status;
    if status.epoch < epoch {
        judge.say(format!(
            "epoch {epoch} ({phase}) was acknowledged, and {} ({}) is found",
            status.epoch, status.phase
        ));
    } else if status.epoch == epoch && status.phase != phase {
        judge.say(format!("epoch {epoch} was acknowledged as {phase}, and is found as {}", status.phase));
    }
}

/// No key is live twice (I1). Recovery mends it where power loss may cause it.
fn one_holder(judge: &mut Judge<'_>) {
    if judge.lossy {
        return;
    }
    let mut holders: BTreeMap<&str, (StoreId, InstanceId)> = BTreeMap::new();
    for (store, rows) in &judge.raw.stores {
        for (key, record) in rows.keys.iter().filter(|(_, record)| record.ended.is_none()) {
            if let Some((other, holder)) = holders.insert(key, (*store, record.instance)) {
                let what = format!(
                    "the key {key} is live twice: instance {holder} in {other}, {} in {store}",
                    record.instance
                );
                judge.say(what);
            }
        }
    }
}

/// A head, its key and its input were written at once; so were its steps.
fn instance(judge: &mut Judge<'_>, store: StoreId, rows: &Rows, id: InstanceId, head: &InstanceRecord) {
    let key = head.key.as_ref().map(|(_, key)| String::from_utf8_lossy(key).into_owned());
    let held = key.as_ref().and_then(|key| rows.keys.get(key));
    if head.ended.is_none()
        && key.is_some()
        && held.is_none_or(|held| held.instance != id || held.ended.is_some())
    {
        judge.say(format!("instance {id} lives in {store} without its key {key:?}"));
    }
    match rows.inputs.get(&id) {
        None => judge.say(format!("instance {id} is in {store} without its input")),
        Some(input) => match content::author(input) {
            Some(who) if *input == content::input(&who) => {}
            Some(who) => judge.say(format!("the input of instance {id} in {store} is not the one of {who}")),
            None => judge.say(format!("the input of instance {id} in {store} is nobody's")),
        },
    }
    if head.ended.is_some() {
        return;
    }
    let mut open = 0;
    for ((_, step), record) in rows.steps.range((id, String::new())..).take_while(|((of, _), _)| *of == id) {
        let is_ready = rows.ready.contains(&(id, step.clone()));
        // One that waits for a decision has its row where it is looked for.
        let should_be = matches!(record.state, StepState::Ready { .. } | StepState::NeedsDecision { .. });
        open += u32::from(should_be || matches!(record.state, StepState::Waiting { .. }));
        if is_ready != should_be {
            let what =
                if is_ready { "can be taken and is not ready" } else { "is ready and cannot be taken" };
            judge.say(format!("step {step} of instance {id} in {store} {what}"));
        }
    }
    if open != head.open_steps {
        judge.say(format!(
            "instance {id} in {store} says it has {} open steps, and has {open}",
            head.open_steps
        ));
    }
}

/// Nothing is left of an instance whose head is not there: that goes last, and comes last only where an intent says so.
fn whole(judge: &mut Judge<'_>, store: StoreId, rows: &Rows) {
    for (key, held) in rows.keys.iter().filter(|(_, held)| held.ended.is_none()) {
        let id = held.instance;
        if rows.instances.get(&id).is_none_or(|head| head.ended.is_some()) {
            judge
                .say(format!("the key {key} is held in {store} by instance {id}, which does not live there"));
        }
    }
    if !rows.replaces.is_empty() {
        return;
    }
    let steps = rows.steps.keys().map(|(id, _)| id).chain(rows.ready.iter().map(|(id, _)| id));
    let ids: BTreeSet<InstanceId> = rows.inputs.keys().chain(steps).copied().collect();
    for id in ids.into_iter().filter(|id| !rows.instances.contains_key(id)) {
        judge.say(format!("instance {id} is not in {store}, and rows of it are"));
    }
}

/// Every definition is one that somebody made, byte for byte.
fn definitions(judge: &mut Judge<'_>, store: StoreId, rows: &Rows) {
    let ledger = judge.ledger;
    for (name, record) in &rows.definitions {
        match content::definer(name) {
            Some(who) => {
                if record.body != content::body(&who) {
                    judge.say(format!("the definition {name} in {store} has other bytes"));
                }
                let is_ours = ledger.session() == Some(who.session);
                let known = ledger.definitions.contains_key(name) || ledger.unknown_define(&who).is_some();
                if is_ours && !known {
                    judge.say(format!("the definition {name} in {store} was never asked for"));
                }
            }
            None if content::session_of(&record.body).is_some() => {}
            None => judge.say(format!("the definition {name} in {store} is nobody's")),
        }
        for (other, rows) in &judge.raw.stores {
            if *other > store && rows.definitions.get(name).is_some_and(|there| there != record) {
                judge.say(format!("the definition {name} differs between {store} and {other}"));
            }
        }
    }
}

/// Whether this operation may have happened, and is of this kind.
pub(super) fn may_have(ledger: &Ledger, who: &Who, kind: impl Fn(&Op) -> bool) -> bool {
    ledger.unknown(who).is_some_and(|unknown| kind(&unknown.op))
}

/// Every answer on record is the one that was given.
fn requests(judge: &mut Judge<'_>, rows: &Rows) {
    let ledger = judge.ledger;
    for (id, record) in &rows.requests {
        let Ok(who) = id.parse::<Who>() else {
            judge.say(format!("the request {id} is nobody's"));
            continue;
        };
        if ledger.session() != Some(who.session) {
            continue;
        }
        let said = Said::from(record.answer);
        match ledger.launches.get(&who).map(|launch| launch.answer) {
            Some(Some(answer)) if answer != said => {
                judge.say(format!("the request {id} was answered {answer}, and on record it is {said}"));
            }
            Some(_) => {}
            None => judge.say(format!("the request {id} was never made")),
        }
    }
    if judge.lossy {
        return;
    }
    // A launch and its request were committed at once.
    for (who, launch) in &ledger.launches {
        let Some(Said { answer: Answer::Started, instance, .. }) = launch.answer else { continue };
        let there = rows.instances.contains_key(&instance);
        let forgotten = judge.may_be_forgotten(&launch.span);
        if launch.asked.request && there && !forgotten && judge.raw.request(&who.to_string()).is_none() {
            judge.say(format!("instance {instance} is there and its request {who} is not"));
        }
    }
}

/// Every report on a step is one that a worker made and that was not refused (I9).
fn steps(judge: &mut Judge<'_>, store: StoreId, rows: &Rows) {
    let ledger = judge.ledger;
    for ((id, step), record) in &rows.steps {
        let known = ledger.instances.get(id);
        let mut seen = Vec::new();
        // What was revoked by a move is nobody's report.
        for settled in record.history.iter().filter(|one| one.is_attempt()) {
            let by = match &settled.failure {
                Some(reason) => content::ender(reason),
                None => std::str::from_utf8(&record.result).ok().and_then(content::ender),
            };
            let Some(by) = by else {
                judge.say(format!("a report on step {step} of instance {id} in {store} is nobody's"));
                continue;
            };
            seen.push(by);
            if ledger.session() != Some(by.session) {
                continue;
            }
            let acknowledged = known.is_some_and(|known| match &settled.failure {
                Some(_) => known.retried.iter().any(|(of, who, _)| (of, *who) == (step, by)),
                None => known.done.get(step).is_some_and(|(who, _)| *who == by),
            });
            if !acknowledged && !may_have(ledger, &by, |op| *op == Op::Work) {
                judge.say(format!(
                    "step {step} of instance {id} in {store} was settled by {by}, to whom that was refused"
                ));
            }
        }
        let ended = rows.instances.get(id).is_none_or(|head| head.ended.is_some());
        if judge.lossy || ended {
            continue;
        }
        let Some(known) = known else { continue };
        let done = known.done.get(step).map(|(who, _)| *who);
        let retried = known.retried.iter().filter(|(of, ..)| of == step).map(|(_, who, _)| *who);
        for by in retried.chain(done).filter(|by| !seen.contains(by)) {
            judge.say(format!("the report of {by} on step {step} of instance {id} is lost"));
        }
    }
}

/// From the switch on each definition that was acknowledged is in both stores, or a gap is noted (I4).
fn in_both(judge: &mut Judge<'_>) {
    let Some(tenant) = &judge.raw.tenant else { return };
    if matches!(tenant.status.phase, Phase::Stable | Phase::PreMigration) || judge.raw.stores.len() < 2 {
        return;
    }
    // What was acknowledged before the migration began was synced with the switch.
    let migration = tenant.migration.as_ref().map_or(u64::MAX, |migration| migration.id);
    let began =
        judge.ledger.epochs.iter().filter(|(epoch, _)| *epoch >= migration).map(|(_, line)| *line).min();
    let ledger = judge.ledger;
    let known = ledger.definitions.iter().map(|(name, defined)| (name, defined.span.line));
    for (name, line) in known.chain(ledger.inherited.iter().map(|name| (name, 1))) {
        if judge.lossy && began.is_none_or(|began| line >= began) {
            continue;
        }
        let noted = judge.raw.stores.values().any(|rows| rows.gaps.contains(name));
        let lacking = judge.raw.stores_with(|rows| !rows.definitions.contains_key(name)).next();
        if let Some(store) = lacking.filter(|_| !noted) {
            judge.say(format!("the definition {name} is not in {store}, in phase {}", tenant.status.phase));
        }
    }
}
