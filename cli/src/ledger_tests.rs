//! The ledger is shown to pass a good run and to fail each kind of bad one.

use super::*;
use cutover_formats::StoreId;

fn id(number: u64) -> InstanceId {
    InstanceId::new(StoreId(1), 1_790_000_000_000, number)
}

fn launch(number: u64, key: &str, conflict: Option<InstanceId>) -> Try {
    Try {
        launch: number,
        scope: Scope::Kept,
        key: key.to_owned(),
        workflow: 0,
        long: false,
        cutovers: 0,
        repeat: conflict.is_some(),
        conflict,
    }
}

/// An engine that answers as it is told to.
#[derive(Default)]
struct Fake {
    rows: HashMap<InstanceId, Seen>,
    keys: HashMap<String, InstanceId>,
    collected: Vec<InstanceId>,
}

impl Fake {
    fn with(mut self, number: u64, key: &str) -> Self {
        let seen = Seen {
            instance: id(number),
            definition: "w".to_owned(),
            key: Some(("kept".to_owned(), key.as_bytes().to_vec())),
            completed: true,
        };
        self.rows.insert(id(number), seen);
        self.keys.insert(key.to_owned(), id(number));
        self
    }
}

impl Lookup for Fake {
    fn by_id(&mut self, id: InstanceId) -> Result<Option<Seen>, String> {
        Ok(self.rows.get(&id).cloned())
    }

    fn by_key(&mut self, _: Scope, key: &str) -> Result<Option<Seen>, String> {
        Ok(self.keys.get(key).and_then(|id| self.rows.get(id)).cloned())
    }

    fn collected_meanwhile(&mut self, _: InstanceId) -> Vec<InstanceId> {
        std::mem::take(&mut self.collected)
    }
}

/// A ledger in the middle of a run, written by calls that read like one.
#[derive(Default)]
struct Story(Ledger);

impl Story {
    fn tries(mut self, what: Try) -> Self {
        self.0.note(&Entry::Try { what, at: 0 });
        self
    }

    fn acks(mut self, launch: u64, answer: Answer, at: u64) -> Self {
        self.0.note(&Entry::Ack { launch, answer, at, took: 1, again: false });
        self
    }

    /// Launch and instance have the same number.
    fn starts(self, number: u64, key: &str, at: u64) -> Self {
        self.tries(launch(number, key, None)).acks(number, Answer::Started(id(number)), at)
    }

    fn does(mut self, number: u64, task: u32) -> Self {
        self.0.note(&Entry::Step { instance: id(number), task });
        self
    }

    /// With its only step, the first time.
    fn ends(mut self, number: u64, began: u64) -> Self {
        let (instance, at) = (id(number), began + 1);
        if self.0.fates.get(&instance).is_none_or(|fate| fate.ends == 0) {
            self = self.does(number, 0);
        }
        self.0.note(&Entry::Ended { instance, completed: true, began: Some(began), at });
        self
    }

    fn collects(mut self, number: u64) -> Self {
        self.0.note(&Entry::Collecting { instance: id(number), at: 0 });
        self
    }

    fn killed(mut self) -> Self {
        self.0.killed();
        self
    }

    fn audit(self, mut fake: Fake) -> Verdict {
        self.audit_of(1, &mut fake)
    }

    fn audit_of(self, tasks: u64, fake: &mut Fake) -> Verdict {
        self.0.audit(&[Known { name: "w", tasks }], fake)
    }
}

fn assert_bad(verdict: &Verdict, word: &str) {
    assert!(!verdict.is_good());
    assert!(verdict.problems.iter().any(|text| text.contains(word)), "{:?}", verdict.problems);
}

#[test]
fn a_good_run_is_good() {
    let verdict = Story::default()
        .starts(1, "a", 10)
        .tries(launch(2, "a", Some(id(1))))
        .acks(2, Answer::Conflict(id(1)), 20)
        .ends(1, 30)
        .starts(3, "a", 40)
        .ends(3, 50)
        .starts(4, "b", 60)
        .ends(4, 70)
        .collects(4)
        .audit(Fake::default().with(1, "a").with(3, "a"));
    assert!(verdict.is_good(), "{verdict:?}");
    assert_eq!(verdict.launches.attempted, 4);
    assert_eq!((verdict.launches.started, verdict.launches.conflicts), (3, 1));
    assert_eq!((verdict.launches.expected_conflicts, verdict.launches.repeats_tried), (1, 1));
    assert_eq!((verdict.instances.completed, verdict.instances.collected), (3, 1));
}

#[test]
fn a_step_that_took_effect_twice_is_found() {
    let verdict = Story::default()
        .starts(1, "a", 10)
        .does(1, 70)
        .does(1, 70)
        .ends(1, 20)
        .audit_of(2, &mut Fake::default().with(1, "a"));
    assert_bad(&verdict, "task 70 of instance");
    assert_eq!((verdict.steps.completed, verdict.steps.repeated, verdict.steps.skipped), (3, 1, 0));
}

#[test]
fn a_step_that_was_skipped_is_found_unless_a_kill_may_have_kept_it_from_being_told() {
    let story = || Story::default().starts(1, "a", 10).does(1, 2).ends(1, 20);
    let verdict = story().audit_of(3, &mut Fake::default().with(1, "a"));
    assert_bad(&verdict, "without 1 of its steps");
    assert_eq!((verdict.steps.repeated, verdict.steps.skipped), (0, 1));
    assert!(story().killed().audit_of(3, &mut Fake::default().with(1, "a")).is_good());
}

#[test]
fn a_worker_that_was_not_refused_after_its_lease_is_found() {
    let mut story = Story::default().starts(1, "a", 10).ends(1, 20);
    story.0.note(&Entry::Stalled { passed: Vec::new() });
    story.0.note(&Entry::Stalled { passed: vec!["its result".to_owned()] });
    let verdict = story.audit(Fake::default().with(1, "a"));
    assert_bad(&verdict, "its result");
    assert_eq!((verdict.steps.stalled, verdict.problem_count), (2, 1));
}

#[test]
fn an_end_told_before_its_launch_is_the_same_instance() {
    // A quick instance can end before the thread that launched it has been told.
    let verdict = Story::default()
        .tries(launch(1, "a", None))
        .ends(1, 5)
        .acks(1, Answer::Started(id(1)), 9)
        .starts(2, "a", 10)
        .ends(2, 20)
        .audit(Fake::default().with(1, "a").with(2, "a"));
    assert!(verdict.is_good(), "{verdict:?}");
}

#[test]
fn an_instance_that_is_not_found_is_lost() {
    let verdict = Story::default().starts(1, "a", 10).ends(1, 20).audit(Fake::default());
    assert_eq!(verdict.instances.lost, 1);
    assert_bad(&verdict, "not found by id");
}

#[test]
fn a_key_that_leads_nowhere_or_elsewhere_is_lost() {
    let mut fake = Fake::default().with(1, "a");
    fake.keys.clear();
    let verdict = Story::default().starts(1, "a", 10).ends(1, 20).audit(fake);
    assert_eq!(verdict.instances.lost, 1);
    assert_bad(&verdict, "not found by key");

    let mut fake = Fake::default().with(1, "a").with(2, "a");
    fake.keys.insert("a".to_owned(), id(1));
    let verdict = Story::default().starts(1, "a", 10).ends(1, 20).starts(2, "a", 30).ends(2, 40).audit(fake);
    assert_eq!(verdict.instances.lost, 1);
    assert_bad(&verdict, "leads to");
}

#[test]
fn contents_of_another_are_a_loss() {
    let mut fake = Fake::default().with(1, "a");
    fake.rows.get_mut(&id(1)).unwrap().key = Some(("kept".to_owned(), b"b".to_vec()));
    let verdict = Story::default().starts(1, "a", 10).ends(1, 20).audit(fake);
    assert_eq!(verdict.instances.lost, 1);
    assert_bad(&verdict, "another id or key");

    let mut fake = Fake::default().with(1, "a");
    fake.rows.get_mut(&id(1)).unwrap().definition = "other".to_owned();
    let verdict = Story::default().starts(1, "a", 10).ends(1, 20).audit(fake);
    assert_eq!(verdict.instances.lost, 1);
    assert_bad(&verdict, "the definition other");
}

#[test]
fn collected_while_looking_is_not_lost() {
    let fake = Fake { collected: vec![id(1)], ..Fake::default() };
    let verdict = Story::default().starts(1, "a", 10).ends(1, 20).audit(fake);
    assert!(verdict.is_good(), "{verdict:?}");
    assert_eq!(verdict.instances.collected, 1);
}

#[test]
fn collected_while_live_is_lost() {
    let verdict = Story::default().starts(1, "a", 10).collects(1).ends(1, 20).audit(Fake::default());
    assert_eq!(verdict.instances.lost, 1);
    assert_bad(&verdict, "collected before it ended");
}

#[test]
fn a_second_live_instance_is_a_duplicate() {
    let verdict = Story::default()
        .starts(1, "a", 10)
        .tries(launch(2, "a", Some(id(1))))
        .acks(2, Answer::Started(id(2)), 20)
        .ends(1, 30)
        .ends(2, 40)
        .audit(Fake::default().with(1, "a").with(2, "a"));
    assert_eq!(verdict.instances.duplicates, 1);
    assert_ne!(verdict.launches.conflicts, verdict.launches.expected_conflicts);
    assert_bad(&verdict, "live at the same time");
}

#[test]
fn a_conflict_nobody_expected_is_bad() {
    let verdict = Story::default()
        .tries(launch(1, "a", None))
        .acks(1, Answer::Conflict(id(9)), 10)
        .audit(Fake::default());
    assert_eq!((verdict.launches.conflicts, verdict.launches.expected_conflicts), (1, 0));
    assert_bad(&verdict, "held by nobody");
}

#[test]
fn a_conflict_with_the_wrong_holder_is_a_duplicate() {
    let verdict = Story::default()
        .starts(1, "a", 10)
        .tries(launch(2, "a", Some(id(1))))
        .acks(2, Answer::Conflict(id(9)), 20)
        .ends(1, 30)
        .audit(Fake::default().with(1, "a"));
    assert_eq!(verdict.instances.duplicates, 1);
    assert_bad(&verdict, "the answer was");
}

#[test]
fn ends_are_counted() {
    let twice = Story::default().starts(1, "a", 10).ends(1, 20).ends(1, 30);
    let verdict = twice.audit(Fake::default().with(1, "a"));
    assert_eq!(verdict.instances.duplicates, 1);
    assert_bad(&verdict, "ended twice");

    let mut fake = Fake::default().with(1, "a");
    fake.rows.get_mut(&id(1)).unwrap().completed = false;
    let verdict = Story::default().starts(1, "a", 10).audit(fake);
    assert_eq!(verdict.instances.failed, 1);
    assert_bad(&verdict, "never completed");

    // Completed in the store, but nobody was told: somebody else did it.
    let verdict = Story::default().starts(1, "a", 10).audit(Fake::default().with(1, "a"));
    assert_bad(&verdict, "never completed");
}

#[test]
fn an_error_counts() {
    let answer = Answer::Failed("the disk is full".to_owned());
    let verdict = Story::default().tries(launch(1, "a", None)).acks(1, answer, 10).audit(Fake::default());
    assert_eq!(verdict.launches.failed, 1);
    assert_bad(&verdict, "the disk is full");
}

#[test]
fn an_instance_out_of_nowhere_is_bad() {
    let verdict = Story::default().collects(5).audit(Fake::default());
    assert_bad(&verdict, "no launch was answered with it");
}

#[test]
fn after_a_kill_an_end_need_not_have_been_told() {
    let verdict = Story::default()
        .starts(1, "a", 10)
        .starts(2, "b", 10)
        .killed()
        .collects(2)
        .audit(Fake::default().with(1, "a"));
    assert!(verdict.is_good(), "{verdict:?}");
    assert_eq!((verdict.instances.completed, verdict.instances.collected), (2, 1));
}

#[test]
fn after_a_kill_a_launch_without_an_answer_goes_to_the_next_process() {
    let mut story = Story::default().starts(1, "a", 10).tries(launch(2, "b", None)).killed();
    let resume = story.0.resume();
    assert_eq!(resume.open, [launch(2, "b", None)]);
    assert_eq!(resume.live, [(launch(1, "a", None), id(1).to_string())]);
    assert_eq!(resume.next_launch, 3);
    let answer = Answer::Started(id(2));
    story.0.note(&Entry::Ack { launch: 2, answer, at: 30, took: 1, again: true });
    let verdict = story.ends(1, 40).ends(2, 40).audit(Fake::default().with(1, "a").with(2, "b"));
    assert!(verdict.is_good(), "{verdict:?}");
    assert_eq!((verdict.launches.attempted, verdict.launches.relaunched), (2, 1));
}

#[test]
fn a_launch_nobody_settled_is_bad() {
    let verdict = Story::default().tries(launch(1, "a", None)).audit(Fake::default());
    assert_bad(&verdict, "never answered");
}

#[test]
fn overlaps_look_beyond_the_neighbour() {
    let key = |name: &str| (Scope::Kept, name.to_owned());
    let span = |name: &str, from, to, number| (key(name), from, to, id(number));
    assert_eq!(overlaps(vec![span("a", 0, 10, 1), span("a", 10, 20, 2), span("b", 5, 15, 3)]), []);
    assert_eq!(
        overlaps(vec![span("a", 0, 100, 1), span("a", 10, 20, 2), span("a", 30, 40, 3)]),
        [(id(1), id(2)), (id(1), id(3))]
    );
    assert_eq!(overlaps(vec![span("a", 0, 100, 1), span("a", 50, 40, 2)]), [], "an empty span");
}

#[test]
fn instances_are_counted_by_store_once() {
    let mut story = Story::default().starts(1, "a", 1).starts(2, "b", 2).ends(1, 5);
    // A collector that was interrupted says it again, and one that a kill cut off says it first.
    for instance in [id(1), id(1), id(2)] {
        story.0.note(&Entry::Collecting { instance, at: 9 });
    }
    assert_eq!(story.0.tallies(), [Tally { started: 2, ended: 2, collected: 2 }]);
    let elsewhere = InstanceId::new(StoreId(7), 1, 1);
    let story = story.tries(launch(3, "c", None)).acks(3, Answer::Started(elsewhere), 10);
    assert_eq!(story.0.tallies().last(), Some(&Tally { started: 1, ended: 0, collected: 0 }));
    assert_eq!((story.0.tallies().len(), story.0.launches().started), (2, 3));
}

#[test]
fn an_instance_that_is_moved_is_counted_where_it_is() {
    let mut story = Story::default().starts(1, "a", 1).starts(2, "b", 2).starts(3, "c", 3).ends(2, 5);
    let home = id(1).store();
    let to = StoreId(home.0 + 1);
    // The third is told to have moved before it is told to have ended; the fourth before its launch is answered.
    for instance in [id(1), id(2), id(3), id(4)] {
        story.0.note(&Entry::Moved { instance, to: to.0, pause: 1 });
    }
    let story = story.starts(4, "d", 7).ends(3, 8);
    let [left, here] = story.0.tallies()[..] else { panic!("{:?}", story.0.tallies()) };
    assert_eq!(left, Tally::default());
    assert_eq!(here, Tally { started: 4, ended: 2, collected: 0 });
}
