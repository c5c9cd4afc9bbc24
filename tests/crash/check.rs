//! Holds an engine that was opened again against the books.

use std::collections::BTreeSet;

use cutover::{ConflictPolicy, Filter, InstanceId, Launched, Tenant};

use crate::books::{Book, Known};
use crate::rows;
use crate::script::{Action, Run, SCOPE, body, definition, step};
use crate::world::{World, output};

/// Everything that was acknowledged is there, what is in doubt has happened whole or not at all, and nothing else is there.
pub(crate) fn check(world: &World<'_>) {
    if world.machine.real.is_none() {
        rows::check(&world.machine, world.engine(), &world.books, world.exact);
    }
    let all: Vec<(&str, Action)> = world.doubts.iter().map(|at| world.script.call(*at)).collect();
    let names = world.engine().tenants();
    for (name, book) in &world.books {
        let doubts: Vec<Action> =
            all.iter().filter(|(of, _)| of == name).map(|(_, action)| *action).collect();
        if !names.iter().any(|other| other == name) {
            assert_eq!(doubts, [Action::Delete], "{name} is gone");
            continue;
        }
        let tenant = world.tenant(name).unwrap();
        let now_ms = world.now_ms();
        View { book, tenant: &tenant, doubts: &doubts, now_ms, orderly: world.orderly }.check();
    }
    for name in names {
        let made = |(of, action): &(&str, Action)| {
            *of == name && matches!(action, Action::Create(_) | Action::CreateDedicated(_))
        };
        assert!(world.books.contains_key(name.as_str()) || all.iter().any(made), "{name} was never made");
    }
}

/// A tenant as it should be.
struct View<'w> {
    book: &'w Book,
    tenant: &'w Tenant,
    doubts: &'w [Action],
    now_ms: u64,
    /// No time has passed since what is in doubt.
    orderly: bool,
}

impl View<'_> {
    fn check(&self) {
        let status = self.tenant.status();
        let now = (status.epoch, status.phase);
        assert!(
            self.book.seen.is_none_or(|seen| seen == now || seen.0 < now.0),
            "{now:?} was published before {:?}",
            self.book.seen
        );
        self.definitions();
        self.book.runs.values().for_each(|known| self.run(known));
        self.keys();
        self.lists();
        self.requests();
        self.journal();
    }

    /// Each change of the status is told, once and in order.
    fn journal(&self) {
        let lines = self.tenant.migration().journal().unwrap();
        let told: Vec<u64> = lines.iter().map(|line| line.seq).collect();
        let expected: Vec<u64> = (1..=lines.len() as u64).collect();
        assert_eq!(told, expected, "{lines:?}");
    }

    fn definitions(&self) {
        for number in &self.book.definitions {
            let found = self.tenant.definition(&definition(*number), 1).unwrap();
            let found = found.unwrap_or_else(|| panic!("definition {number} is lost"));
            assert!(found.body == body(*number), "definition {number} has other bytes");
        }
        for doubt in self.doubts {
            let (Action::Define(number) | Action::DefineWithGap(number)) = doubt else { continue };
            let found = self.tenant.definition(&definition(*number), 1).unwrap();
            assert!(found.is_none_or(|found| found.body == body(*number)), "definition {number}");
        }
    }

    fn run(&self, known: &Known) {
        let Known { run, id, ended, done, .. } = known;
        let may_have_ended = self.book.may_have_ended(known, self.doubts);
        let Some(found) = self.tenant.instance(*id).unwrap() else {
            assert!(self.may_be_over(known), "{known:?} is lost");
            return;
        };
        let expected = ended.map(|(ending, _)| ending);
        assert!(
            found.ending() == expected
                || (expected.is_none()
                    && found.ending().is_some_and(|ending| may_have_ended.contains(&ending))),
            "{known:?} is found as {found:?}"
        );
        let key = run.key.map(|key| (SCOPE.to_owned(), key.as_bytes().to_vec()));
        assert_eq!((found.id, &found.key), (*id, &key));
        assert!(self.tenant.input(*id).unwrap() == Some(run.input()), "the input of {run:?}");
        if found.ending() == Some(cutover::Ending::Completed) {
            assert_eq!(found.output, output(run.number).into_bytes());
        }
        // Those of an instance that is being collected go before it.
        let collecting = known.is_over(self.now_ms);
        for number in (1..=*done).filter(|_| !collecting) {
            let result = self.tenant.step_result(*id, &step(number)).unwrap();
            assert_eq!(result, Some(step(number).into_bytes()), "{known:?}");
        }
        if !self.doubts.contains(&Action::Work(run.number)) {
            assert_eq!(self.tenant.step_result(*id, &step(done + 1)).unwrap(), None, "{known:?}");
        }
    }

    /// Whether it may have been collected.
    fn may_be_over(&self, known: &Known) -> bool {
        let in_doubt = !self.orderly && !self.book.may_have_ended(known, self.doubts).is_empty();
        known.is_over(self.now_ms) || in_doubt
    }

    /// The launches in doubt of which one may have taken this key: several, if one that was lost is made again before another.
    fn takers(&self, key: Option<&'static str>) -> impl Iterator<Item = Run> {
        self.doubts.iter().filter_map(move |doubt| match doubt {
            Action::Launch(run) if key.is_some() && run.key == key => Some(*run),
            _ => None,
        })
    }

    fn keys(&self) {
        for (key, number) in &self.book.keys {
            let known = &self.book.runs[number];
            let found = self.tenant.instance_by_key(SCOPE, key.as_bytes()).unwrap();
            let takers: Vec<Run> = self
                .takers(Some(key))
                .filter(|run| run.policy == ConflictPolicy::TerminateExisting || known.ended.is_some())
                .collect();
            if let Some(found) = &found
                && !takers.is_empty()
                && found.id != known.id
            {
                assert_eq!(found.ending(), None, "{found:?} took {key} and has ended");
                let input = self.tenant.input(found.id).unwrap();
                assert!(takers.iter().any(|run| input == Some(run.input())), "{found:?}, {:?}", self.doubts);
                let before = self.tenant.instance(known.id).unwrap();
                assert!(before.is_none_or(|before| before.ending().is_some()), "{key} is held twice");
                continue;
            }
            match found {
                None => assert!(self.may_be_over(known), "nobody has {key}, not {known:?}"),
                Some(found) => {
                    assert_eq!(found.id, known.id, "{key}");
                    let launches = |doubt: &&Action| matches!(doubt, Action::Launch(_));
                    let others: Vec<Action> =
                        self.doubts.iter().filter(|doubt| !launches(doubt)).copied().collect();
                    let ends = self.book.may_have_ended(known, &others);
                    if !takers.is_empty() && known.ended.is_none() {
                        let ended_otherwise = found.ending().is_none_or(|ending| ends.contains(&ending));
                        assert!(ended_otherwise, "{key} was taken and given to nobody: {found:?}");
                    }
                }
            }
        }
    }

    fn list(&self, live: Option<bool>) -> BTreeSet<InstanceId> {
        let filter = Filter { live, ..Filter::default() };
        let page = self.tenant.list(&filter, None, 1_000).unwrap();
        assert!(page.next.is_none());
        page.instances.iter().map(|instance| instance.id).collect()
    }

    fn lists(&self) {
        let known: BTreeSet<InstanceId> = self.book.runs.values().map(|known| known.id).collect();
        let (all, live) = (self.list(None), self.list(Some(true)));
        for id in all.difference(&known) {
            let input = self.tenant.input(*id).unwrap().unwrap();
            let doubted =
                self.doubts.iter().any(|doubt| matches!(doubt, Action::Launch(run) if run.input() == input));
            assert!(doubted, "{id} was never launched, or not to be found again");
        }
        for known in self.book.runs.values() {
            let sure = self.book.may_have_ended(known, self.doubts).is_empty();
            if sure && known.ended.is_none() {
                assert!(live.contains(&known.id), "{known:?} is not listed");
            }
            assert!(known.ended.is_none() || !live.contains(&known.id), "{known:?} is listed as live");
        }
    }

    /// Each launch that was answered is answered the same again.
    fn requests(&self) {
        for (run, answer) in self.book.answers.values() {
            let again = self.tenant.launch(&run.request()).unwrap();
            assert_eq!(again, *answer, "{run:?}");
            if let Launched::Conflict { instance } = answer {
                assert_ne!(self.book.runs.values().find(|known| known.id == *instance).map(|_| ()), None);
            }
        }
    }
}
