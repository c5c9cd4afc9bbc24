//! Lies in the lines and damage in the stores: each is found, by a sentence that names it.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use cutover::formats::record::Ending;
use cutover::formats::{Family, Layout as _, Record, RowId, V1};
use cutover::store::{Batch, Driver, Write};
use cutover::{Durability, InstanceId, MigrationOptions, Phase, StoreId, TenantId};
use cutover_oracle::ack::{Ack, Answer, EndAnswer, Line, Report};
use cutover_oracle::check::check_rows;
use cutover_oracle::plan::{Op, Planner};
use cutover_oracle::raw::Rows;
use cutover_oracle::who::Who;
use cutover_oracle::{After, Options, Raw, Script};

use crate::common::{Home, LONG, store, work};

/// A directory whose tenant is between two stores, killed, and the lines of its session.
fn session(durability: Durability) -> (Home, Vec<Line>) {
    let home = Home::new(durability);
    let engine = home.builder().open().unwrap();
    let mut script = Script::begin(&engine, home.setup(5, 1)).unwrap();
    work(&mut script, &engine, 200);
    script.tenant().migration().start(store("b"), MigrationOptions::default().hold_complete(true)).unwrap();
    while script.tenant().status().phase != Phase::PostMigration {
        work(&mut script, &engine, 10);
    }
    work(&mut script, &engine, 150);
    let lines = script.lines();
    drop(script);
    home.crash(engine, After::Kill);
    (home, lines)
}

/// The sentences about a lie.
fn found(home: &Home, lines: &[Line], after: After) -> String {
    let (verdict, engine) = home.check(lines, after);
    drop(engine.close(LONG));
    assert!(!verdict.ok, "nothing is found: {verdict:#?}");
    verdict.broken.join("\n")
}

/// A lie about the lines of a good session.
fn lie(about: impl FnOnce(&mut Vec<Line>) -> String) {
    let (home, mut lines) = session(Durability::Synced);
    let (verdict, engine) = home.check(&lines, After::Kill);
    assert!(verdict.ok, "{verdict:#?}");
    engine.close(LONG).unwrap();
    drop(engine);
    let named = about(&mut lines);
    let sentences = found(&home, &lines, After::Kill);
    assert!(sentences.contains(&named), "{named:?} is not in\n{sentences}");
}

/// Damage to the rows of a good session.
fn damage(to: impl FnOnce(&Home, &[Line]) -> String) {
    let (home, lines) = session(Durability::Synced);
    let named = to(&home, &lines);
    let sentences = found(&home, &lines, After::Kill);
    assert!(sentences.contains(&named), "{named:?} is not in\n{sentences}");
}

fn line(lines: &[Line], ack: Ack) -> Line {
    Line { ack, before: lines.len() as u64, at_ms: lines.last().unwrap().at_ms }
}

/// Launches that started something: the number of the line, and the instance.
fn started(lines: &[Line]) -> Vec<(usize, InstanceId)> {
    let all = lines.iter().enumerate().filter_map(|(at, line)| match line.ack {
        Ack::Launch { n, number, answer: Answer::Started, instance, .. } if n == number => {
            Some((at, instance))
        }
        _ => None,
    });
    all.collect()
}

/// The rows of a family in both stores, changed: `None` takes the row away.
fn rewrite(
    home: &Home,
    family: Family,
    mut change: impl FnMut(&RowId<'_>, Record) -> Option<Option<Record>>,
) {
    let mut changed = 0;
    for path in ["a", "b"].map(|path| home.data().join(path)) {
        let store = home.driver.open(&path).unwrap();
        let mut batch = Batch::new();
        store
            .scan(family, b"", b"", &mut |key, value| {
                let (_, row) = V1.read_key(family, key).unwrap();
                let record = V1.read_value(&row, value).unwrap();
                match change(&row, record) {
                    Some(Some(record)) => {
                        let mut bytes = Vec::new();
                        V1.value(&record, &mut bytes).unwrap();
                        batch.put(family, key, &bytes);
                        changed += 1;
                    }
                    Some(None) => {
                        batch.delete(family, key);
                        changed += 1;
                    }
                    None => {}
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        store.commit(&batch, Write::Synced).unwrap();
    }
    assert!(changed > 0, "nothing was there to be changed");
}

/// The tenant that all rows are of.
fn tenant(home: &Home) -> TenantId {
    let store = home.driver.open(&home.data().join("a")).unwrap();
    let mut found = None;
    let mut visit = |key: &[u8], _: &[u8]| {
        found = Some(V1.read_key(Family::Definitions, key).unwrap().0);
        ControlFlow::Break(())
    };
    store.scan(Family::Definitions, b"", b"", &mut visit).unwrap();
    found.unwrap()
}

/// Instances that live in the stores, the latest last.
fn live(home: &Home) -> Vec<(InstanceId, Option<String>)> {
    let mut found = Vec::new();
    for path in ["a", "b"].map(|path| home.data().join(path)) {
        let store = home.driver.open(&path).unwrap();
        let mut visit = |key: &[u8], value: &[u8]| {
            let (_, row) = V1.read_key(Family::Instances, key).unwrap();
            if let (RowId::Instance { id }, Record::Instance(head)) =
                (&row, V1.read_value(&row, value).unwrap())
                && head.ended.is_none()
            {
                found.push((*id, head.key.map(|(_, key)| String::from_utf8(key).unwrap())));
            }
            ControlFlow::Continue(())
        };
        store.scan(Family::Instances, b"", b"", &mut visit).unwrap();
    }
    found
}

#[test]
fn an_instance_that_never_was_is_named() {
    // As an answer to the next operation of a thread, so that the plan does not give it away.
    lie(|lines| {
        let Ack::Opened(opened) = lines[0].ack.clone() else { panic!("{:?}", lines[0]) };
        let (seed, session, keys) = (opened.seed, opened.session, opened.keys);
        let mut planner = Planner::new(seed, session, 0, keys);
        for line in lines.iter() {
            if planner.expects(&line.ack) {
                planner.absorb(&line.ack);
            }
        }
        while !matches!(planner.next(), Op::Launch { number, .. } if number == planner.who().n) {
            let (thread, n) = (planner.who().thread, planner.who().n);
            let idle = Ack::Failed { thread, n, task: None, refused: false, error: "x".into() };
            planner.absorb(&idle);
            let line = line(lines, idle);
            lines.push(line);
        }
        let (who, Op::Launch { number, definition }) = (planner.who(), planner.next()) else { panic!() };
        let key = cutover_oracle::content::asked(who, definition, keys).key;
        let instance = InstanceId::new(StoreId(2), 1_000, 77);
        let (thread, n, answer) = (who.thread, who.n, Answer::Started);
        let line = line(lines, Ack::Launch { thread, n, number, key, answer, instance, ending: None });
        lines.push(line);
        format!("the request {who} was answered as started: instance {instance}, and")
    });
}

#[test]
fn a_line_that_the_thread_did_not_print_is_named() {
    lie(|lines| {
        let (at, _) = started(lines)[20];
        let mut copy = lines[at].clone();
        let never = InstanceId::new(StoreId(2), 1_000, 77);
        if let Ack::Launch { instance, .. } = &mut copy.ack {
            *instance = never;
        }
        lines.push(copy);
        format!("about instance {never}, is not what that thread did")
    });
}

#[test]
fn an_epoch_that_never_came_is_named() {
    lie(|lines| {
        let last = lines.iter().rev().find_map(|line| match &line.ack {
            Ack::Phase { epoch, home, other, .. } => Some((*epoch, home.clone(), other.clone())),
            _ => None,
        });
        let (epoch, home, other) = last.unwrap();
        let ack = Ack::Phase { epoch: epoch + 1, phase: Phase::Stable, home, other };
        let line = line(lines, ack);
        lines.push(line);
        format!("epoch {} (stable) was acknowledged", epoch + 1)
    });
    lie(|lines| {
        let last = lines.iter_mut().rev().find(|line| matches!(line.ack, Ack::Phase { .. }));
        let Ack::Phase { epoch, phase, .. } = &mut last.unwrap().ack else { panic!() };
        *phase = Phase::RollingBack;
        format!("epoch {epoch} was acknowledged as rolling_back")
    });
}

#[test]
fn a_changed_instance_id_is_named() {
    lie(|lines| {
        let (at, was) = *started(lines).last().unwrap();
        let Ack::Launch { instance, .. } = &mut lines[at].ack else { panic!() };
        *instance = InstanceId(was.0 ^ 1);
        format!("instance {was}")
    });
}

#[test]
fn a_changed_answer_is_named() {
    // The holder of a key that was never it.
    lie(|lines| {
        let other = started(lines)[0].1;
        let told = lines.iter_mut().find_map(|line| match &mut line.ack {
            Ack::Launch { answer: Answer::Conflict | Answer::Existing, instance, .. } => Some(instance),
            _ => None,
        });
        *told.unwrap() = other;
        format!("was told that instance {other} holds the key")
    });
    // A step that came too late was not done.
    lie(|lines| {
        let step = lines.iter_mut().rev().find_map(|line| match &mut line.ack {
            Ack::Step { done, ended: None, instance, report: Report::Completed, .. } if *done => {
                Some((done, *instance))
            }
            _ => None,
        });
        let (done, instance) = step.unwrap();
        *done = false;
        format!("instance {instance}")
    });
}

#[test]
fn a_definition_with_other_bytes_is_named() {
    damage(|home, lines| {
        let by = lines.iter().find_map(|line| match line.ack {
            Ack::Define { thread, number, .. } => Some((thread, number)),
            _ => None,
        });
        let (thread, number) = by.unwrap();
        let named = format!("d.5.1.{thread}.{number}");
        rewrite(home, Family::Definitions, |row, record| match (row, record) {
            (RowId::Definition { name, .. }, Record::Definition(mut record)) if *name == named => {
                *record.body.last_mut().unwrap() ^= 1;
                Some(Some(Record::Definition(record)))
            }
            _ => None,
        });
        format!("the definition {named} has other bytes")
    });
}

#[test]
fn a_definition_in_one_store_only_is_named() {
    damage(|home, _| {
        let mut taken = None;
        rewrite(home, Family::Definitions, |row, _| match row {
            // The other store is looked at later.
            RowId::Definition { name, .. } if taken.is_none() && name.starts_with("d.") => {
                taken = Some(name.to_string());
                Some(None)
            }
            _ => None,
        });
        format!("the definition {} is not in store 1, in phase post_migration", taken.unwrap())
    });
}

#[test]
fn rows_that_are_missing_are_named() {
    damage(|home, _| {
        let (id, _) = live(home).pop().unwrap();
        rewrite(home, Family::Instances, |row, _| (*row == RowId::Instance { id }).then_some(None));
        format!("instance {id}, launched by")
    });
    damage(|home, _| {
        let (id, _) = live(home).pop().unwrap();
        rewrite(home, Family::Instances, |row, _| (*row == RowId::Input { id }).then_some(None));
        format!("the input of instance {id} is not as it was given")
    });
    damage(|home, _| {
        let (id, key) = live(home).into_iter().find(|(_, key)| key.is_some()).unwrap();
        let lost = key.unwrap();
        rewrite(home, Family::Keys, |row, _| match row {
            RowId::Key { key, .. } => (**key == *lost.as_bytes()).then_some(None),
            _ => None,
        });
        format!("instance {id} lives")
    });
    damage(|home, lines| {
        let (at, _) = started(lines)[5];
        let Ack::Launch { thread, .. } = lines[at].ack else { panic!() };
        let mut lost = None;
        rewrite(home, Family::Requests, |row, _| match row {
            RowId::Request { id }
                if lost.is_none() && id.starts_with(format!("5.1.{thread}.").as_bytes()) =>
            {
                lost = Some(String::from_utf8(id.to_vec()).unwrap());
                Some(None)
            }
            _ => None,
        });
        format!("the request {} was answered", lost.unwrap())
    });
    damage(|home, _| {
        let mut lost = None;
        rewrite(home, Family::Ready, |row, _| match row {
            RowId::Ready { instance, step, .. } if lost.is_none() => {
                lost = Some(format!("step {step} of instance {instance}"));
                Some(None)
            }
            _ => None,
        });
        format!("{} in store", lost.unwrap())
    });
}

#[test]
fn a_key_that_is_live_twice_is_named() {
    damage(|home, _| {
        let (id, key) = live(home).into_iter().find(|(_, key)| key.is_some()).unwrap();
        let key = key.unwrap();
        let here = id.store();
        let there = if here.0 == 1 { "b" } else { "a" };
        // Before a store is open here: this opens one too.
        let tenant = tenant(home);
        let store = home.driver.open(&home.data().join(there)).unwrap();
        let other = InstanceId(id.0 ^ 1);
        let row = RowId::Key { scope: "load".into(), key: key.as_bytes().into() };
        let held =
            cutover::formats::record::KeyRecord { instance: other, epoch: 9, ended: None, revision: 1 };
        let (mut bytes, mut name) = (Vec::new(), Vec::new());
        V1.key(tenant, &row, &mut name);
        V1.value(&Record::Key(held), &mut bytes).unwrap();
        let mut batch = Batch::new();
        batch.put(Family::Keys, &name, &bytes);
        store.commit(&batch, Write::Synced).unwrap();
        format!("the key {key} is live twice")
    });
}

#[test]
fn an_end_that_is_undone_is_named() {
    damage(|home, lines| {
        let mut ended = lines.iter().filter_map(|line| match line.ack {
            Ack::End { instance, answer: EndAnswer::Now, .. } => Some(instance),
            _ => None,
        });
        let mut undone = None;
        let ended: Vec<InstanceId> = ended.by_ref().collect();
        rewrite(home, Family::Instances, |row, record| match (row, record) {
            (RowId::Instance { id }, Record::Instance(mut head))
                if undone.is_none() && ended.contains(id) =>
            {
                undone = Some(*id);
                (head.ended, head.open_steps) = (None, 0);
                Some(Some(Record::Instance(head)))
            }
            _ => None,
        });
        format!("instance {} lives, and ", undone.unwrap())
    });
    // Another end than the one that was acknowledged.
    damage(|home, _| {
        let mut changed = None;
        rewrite(home, Family::Instances, |row, record| match (row, record) {
            (RowId::Instance { id }, Record::Instance(mut head)) if changed.is_none() => {
                let end = head.ended.as_mut().filter(|end| end.ending == Ending::Completed)?;
                (end.ending, changed) = (Ending::Failed, Some(*id));
                Some(Some(Record::Instance(head)))
            }
            _ => None,
        });
        format!("instance {}", changed.unwrap())
    });
}

#[test]
fn a_result_that_nobody_gave_is_named() {
    damage(|home, _| {
        let mut changed = None;
        rewrite(home, Family::Steps, |row, record| match (row, record) {
            (RowId::Step { instance, step }, Record::Step(mut record))
                if changed.is_none() && !record.result.is_empty() =>
            {
                changed = Some(format!("step {step} of instance {instance}"));
                record.result =
                    String::from_utf8(record.result).unwrap().replace("by 5.1.", "by 5.1.1").into();
                Some(Some(Record::Step(record)))
            }
            _ => None,
        });
        changed.unwrap()
    });
}

#[test]
fn a_hole_in_what_power_loss_left_is_named() {
    let (home, lines) = session(Durability::Buffered);
    // The first instance that lives: later ones in the same store are there.
    let (id, key) = live(&home).into_iter().min_by_key(|(id, _)| (id.store() != StoreId(2), *id)).unwrap();
    let request = lines.iter().find_map(|line| match line.ack {
        Ack::Launch { thread, number, instance, answer: Answer::Started, .. } if instance == id => {
            Some((thread, number))
        }
        _ => None,
    });
    let (thread, number) = request.unwrap();
    lose(&home, id, key.as_deref());
    rewrite_if_any(&home, Family::Requests, |row| match row {
        RowId::Request { id } => **id == *format!("5.1.{thread}.{number}").as_bytes(),
        _ => false,
    });
    let sentences = found(&home, &lines, After::PowerCut);
    assert!(sentences.contains(&format!("store 2 has a hole: the launch of instance {id}")), "{sentences}");
}

/// In which order earlier sessions launched what a new one finds is not known.
#[test]
fn of_what_was_found_anything_may_be_lost() {
    let (home, _) = session(Durability::Buffered);
    let engine = home.builder().open().unwrap();
    let script = Script::begin(&engine, home.setup(6, 2)).unwrap();
    let lines = script.lines();
    drop(script);
    home.crash(engine, After::Kill);
    let (id, key) = live(&home).into_iter().min_by_key(|(id, _)| (id.store() != StoreId(2), *id)).unwrap();
    assert!(lines.iter().any(|line| matches!(line.ack, Ack::Found { instance, .. } if instance == id)));
    lose(&home, id, key.as_deref());
    let (verdict, engine) = home.check(&lines, After::PowerCut);
    engine.close(LONG).unwrap();
    assert!(verdict.ok && verdict.lost == 1, "{verdict:#?}");
}

/// Takes everything of an instance away but its request.
fn lose(home: &Home, id: InstanceId, key: Option<&str>) {
    rewrite(home, Family::Instances, |row, _| match row {
        RowId::Instance { id: of } | RowId::Input { id: of } => (*of == id).then_some(None),
        _ => None,
    });
    for family in [Family::Keys, Family::Steps, Family::Ready] {
        rewrite_if_any(home, family, |row| match row {
            RowId::Key { key: of, .. } => key.is_some_and(|key| key.as_bytes() == &**of),
            RowId::Step { instance, .. } | RowId::Ready { instance, .. } => *instance == id,
            _ => false,
        });
    }
}

fn rewrite_if_any(home: &Home, family: Family, gone: impl Fn(&RowId<'_>) -> bool) {
    for path in ["a", "b"].map(|path| home.data().join(path)) {
        let store = home.driver.open(&path).unwrap();
        let mut batch = Batch::new();
        let mut visit = |key: &[u8], _: &[u8]| {
            if gone(&V1.read_key(family, key).unwrap().1) {
                batch.delete(family, key);
            }
            ControlFlow::Continue(())
        };
        store.scan(family, b"", b"", &mut visit).unwrap();
        store.commit(&batch, Write::Synced).unwrap();
    }
}

#[test]
fn more_than_the_last_moments_is_named() {
    let (home, mut lines) = session(Durability::Buffered);
    for path in ["a", "b"] {
        home.driver.power_cut(&home.data().join(path));
    }
    // As if all of it had been acknowledged long before the cut.
    let last = lines.last_mut().unwrap();
    last.at_ms += 60_000;
    let sentences = found(&home, &lines, After::PowerCut);
    assert!(sentences.contains("before the last line, more than 3000"), "{sentences}");
}

#[test]
fn what_is_checked_twice_is_found_the_same() {
    let (home, lines) = session(Durability::Synced);
    let (first, engine) = home.check(&lines, After::Kill);
    assert!(first.ok && first.lost == 0, "{first:#?}");
    engine.close(LONG).unwrap();
    drop(engine);
    let (second, _engine) = home.check(&lines, After::Kill);
    assert_eq!(
        (second.ok, second.found, second.repeated),
        (true, first.found, first.repeated),
        "{second:#?}"
    );
}

#[test]
fn an_answer_that_was_carried_over_is_no_proof_of_the_tail_that_it_came_from() {
    let (home, lines) = session(Durability::Buffered);
    let drivers: [Arc<dyn Driver>; 1] = [home.driver.clone()];
    let whole = || Raw::read(&home.data(), "load", &drivers, Path::new("unused")).unwrap();
    let hole = |raw: &Raw| {
        let verdict = check_rows(&lines, raw, &Options::after(After::PowerCut));
        assert!(verdict.lost > 0);
        verdict.broken.iter().any(|what| what.contains("store 1 has a hole"))
    };
    // The latest launch in the first store, and its request.
    let latest = lines.iter().rev().find_map(|line| match line.ack {
        Ack::Launch { answer: Answer::Started, thread, n, instance, .. }
            if instance.store() == StoreId(1) =>
        {
            let id = Who { seed: 5, session: 1, thread, n }.to_string();
            whole().request(&id).map(|record| (id.clone(), record.clone()))
        }
        _ => None,
    });
    let (id, record) = latest.unwrap();
    // Of the store that it was launched in nothing is left.
    let mut raw = whole();
    raw.stores.insert(StoreId(1), Rows::default());
    raw.stores.get_mut(&StoreId(2)).unwrap().requests.insert(id.clone(), record.clone());
    assert!(!hole(&raw));
    raw.stores.get_mut(&StoreId(1)).unwrap().requests.insert(id, record);
    assert!(hole(&raw));
}
