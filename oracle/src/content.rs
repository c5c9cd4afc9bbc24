//! What operations ask for: a pure function of their names, so that it can be computed again.
//!
//! Whatever is stored begins with the name of the operation that stored it, and what follows is computed from that name. So anything
//! found in a store says where it comes from, and each of its bytes can be checked, also what an earlier session wrote.

use std::time::Duration;

use cutover::{Again, Completion, ConflictPolicy, Failure, Launch, NewStep, ReusePolicy};

use crate::ack::{How, Report};
use crate::who::Who;

/// The scope of all keys.
pub const SCOPE: &str = "load";
/// The queue of all steps.
pub const QUEUE: &str = "work";
/// Keys that each thread has for itself.
const OWN_KEYS: u64 = 12;
/// The largest input, now and then.
const LARGE: usize = 20_000;

/// What a launch asks for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The operation that launches it first.
    pub who: Who,
    /// The definition.
    pub definition: String,
    /// The key.
    pub key: Option<String>,
    /// On a live key.
    pub conflict: ConflictPolicy,
    /// On an ended key.
    pub reuse: ReusePolicy,
    /// Whether it has a request id, which is its name.
    pub request: bool,
    /// The input.
    pub input: Vec<u8>,
    /// Its first steps.
    first: &'static [&'static str],
    start_in: Duration,
}

/// Whether the launch of this name has a request id.
#[must_use]
pub fn has_request(who: &Who) -> bool {
    who.rng("request").u8(..10) < 7
}

/// What the launch of this name asks for, of a definition that its thread has made.
#[must_use]
pub fn asked(who: Who, definition: u64, keys: u32) -> Asked {
    let mut rng = who.rng("launch");
    let key = match rng.u8(..10) {
        0..4 => Some(hot_key(rng.u32(..keys.max(1)))),
        4..8 => Some(own_key(who.thread, rng.u64(..OWN_KEYS))),
        _ => None,
    };
    let conflict = match rng.u8(..4) {
        0 => ConflictPolicy::Fail,
        1 => ConflictPolicy::UseExisting,
        _ => ConflictPolicy::TerminateExisting,
    };
    let reuse = match rng.u8(..20) {
        0 => ReusePolicy::RejectDuplicate,
        1 => ReusePolicy::AllowDuplicateFailedOnly,
        _ => ReusePolicy::AllowDuplicate,
    };
    let start_in = Duration::from_millis(if rng.u8(..20) == 0 { rng.u64(1..30) } else { 0 });
    let definition = definition_name(&who.at(definition));
    let first = shape(&who).first;
    Asked {
        who,
        definition,
        key,
        conflict,
        reuse,
        request: has_request(&who),
        input: input(&who),
        first,
        start_in,
    }
}

impl Asked {
    /// The launch.
    #[must_use]
    pub fn launch(&self) -> Launch {
        let mut launch = Launch::new(&self.definition, 1)
            .input(self.input.clone())
            .on_conflict(self.conflict)
            .reuse(self.reuse)
            .start_in(self.start_in);
        if let Some(key) = &self.key {
            launch = launch.key(SCOPE, key);
        }
        if self.request {
            launch = launch.request_id(self.who.to_string());
        }
        self.first.iter().fold(launch, |launch, step| launch.step(new_step(&self.who, step)))
    }

    /// Whether it has steps, and so ends by itself.
    #[must_use]
    pub fn has_steps(&self) -> bool {
        !self.first.is_empty()
    }
}

/// A key of all threads.
#[must_use]
pub fn hot_key(number: u32) -> String {
    format!("hot.{number}")
}

/// A key of one thread.
#[must_use]
pub fn own_key(thread: u32, number: u64) -> String {
    format!("own.{thread}.{number}")
}

/// Any key that the thread uses.
#[must_use]
pub fn any_key(rng: &mut fastrand::Rng, thread: u32, keys: u32) -> String {
    if rng.bool() { hot_key(rng.u32(..keys.max(1))) } else { own_key(thread, rng.u64(..OWN_KEYS)) }
}

/// The input of the instance that this operation launches: its name, and what follows from it.
#[must_use]
pub fn input(who: &Who) -> Vec<u8> {
    let mut rng = who.rng("input");
    let more = match rng.u8(..40) {
        0 => rng.usize(..LARGE),
        1..4 => rng.usize(..4_000),
        _ => rng.usize(..120),
    };
    filled(who, more, &mut rng)
}

/// Name of a definition: that of its thread, and its number there instead of an operation.
#[must_use]
pub fn definition_name(who: &Who) -> String {
    format!("d.{who}")
}

/// Its body.
#[must_use]
pub fn body(who: &Who) -> Vec<u8> {
    let mut rng = who.rng("body");
    let more = if rng.u8(..16) == 0 { rng.usize(..12_000) } else { rng.usize(..200) };
    filled(who, more, &mut rng)
}

/// The thread and number of a definition of this name.
#[must_use]
pub fn definer(name: &str) -> Option<Who> {
    name.strip_prefix("d.")?.parse().ok()
}

/// Name of the definition by which later sessions know of this one: the `number`-th of a directory.
#[must_use]
pub fn session_name(number: u64) -> String {
    format!("session.{number}")
}

/// Its body: any name of the session, and how many threads it has.
#[must_use]
pub fn session_body(who: &Who, threads: u32) -> Vec<u8> {
    format!("{who} {threads}").into_bytes()
}

/// The session and its threads, from such a body.
#[must_use]
pub fn session_of(body: &[u8]) -> Option<(Who, u32)> {
    let (who, threads) = std::str::from_utf8(body).ok()?.split_once(' ')?;
    Some((who.parse().ok()?, threads.parse().ok()?))
}

fn filled(who: &Who, more: usize, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = format!("{who}\n").into_bytes();
    bytes.extend(std::iter::repeat_with(|| rng.u8(..)).take(more));
    bytes
}

/// The operation that an input or body says it is of.
#[must_use]
pub fn author(bytes: &[u8]) -> Option<Who> {
    let name = bytes.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// Which steps an instance has, and in which order.
struct Shape {
    first: &'static [&'static str],
    /// A step, what comes after it, and how many it comes after.
    next: &'static [(&'static str, &'static str, u32)],
}

fn shape(who: &Who) -> Shape {
    match who.rng("shape").u8(..10) {
        0..4 => Shape { first: &[], next: &[] },
        4..6 => Shape { first: &["a"], next: &[] },
        6..8 => Shape { first: &["a"], next: &[("a", "b", 1), ("b", "c", 1)] },
        _ => Shape { first: &["a", "b"], next: &[("a", "c", 2), ("b", "c", 2)] },
    }
}

fn new_step(who: &Who, step: &str) -> NewStep {
    NewStep::new(step).queue(QUEUE).input(format!("{who} {step}"))
}

/// The launch and the step that a step's input says it is of.
#[must_use]
pub fn step_of(input: &[u8]) -> Option<(Who, &str)> {
    let (who, step) = std::str::from_utf8(input).ok()?.split_once(' ')?;
    Some((who.parse().ok()?, step))
}

/// What a worker reports about a step of the instance that `who` launched.
#[must_use]
pub fn report(who: &Who, step: &str, attempt: u32) -> Report {
    let fate = who.rng(&format!("fate {step}")).u8(..20);
    let (retries, good) = match fate {
        0 => (0, false),
        1 => (1, false),
        2 | 3 => (1, true),
        4 => (2, true),
        _ => (0, true),
    };
    match (attempt <= retries, good) {
        (true, _) => Report::Retry,
        (false, true) => Report::Completed,
        (false, false) => Report::Failed,
    }
}

/// The result of a step.
#[must_use]
pub fn result(who: &Who, step: &str, by: &Who) -> String {
    format!("{who} {step} by {by}")
}

/// What an instance gives back, and why it ended.
#[must_use]
pub fn ended_by(by: &Who) -> String {
    format!("by {by}")
}

/// Who ended an instance with this output or for this reason.
#[must_use]
pub fn ender(text: &str) -> Option<Who> {
    text.rsplit_once("by ")?.1.parse().ok()
}

/// What `by` hands in as it completes a step.
#[must_use]
pub fn completion(who: &Who, step: &str, by: &Who) -> Completion {
    let shape = shape(who);
    let next = shape.next.iter().filter(|(after, ..)| *after == step);
    Completion {
        result: result(who, step, by).into_bytes(),
        next: next.map(|(_, name, parents)| new_step(who, name).parents(*parents)).collect(),
        output: ended_by(by).into_bytes(),
    }
}

/// What `by` hands in as it fails a step.
#[must_use]
pub fn failure(report: Report, by: &Who) -> Failure {
    let again = match report {
        Report::Retry => Again::After(Duration::from_millis(by.rng("retry").u64(..10))),
        _ => Again::Never,
    };
    Failure { reason: ended_by(by), again }
}

/// How an operation ends an instance.
#[must_use]
pub fn how(by: &Who) -> How {
    match by.rng("how").u8(..10) {
        0..2 => How::Cancel,
        2..4 => How::Terminate,
        _ => How::End,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Who = Who { seed: 9, session: 8, thread: 1, n: 0 };

    #[test]
    fn what_is_stored_says_where_it_comes_from() {
        for n in 0..200 {
            let who = WHO.at(n);
            assert_eq!(author(&input(&who)), Some(who));
            assert_eq!(author(&body(&who)), Some(who));
            assert_eq!(definer(&definition_name(&who)), Some(who));
            assert_eq!(ender(&ended_by(&who)), Some(who));
            assert_eq!(ender(&format!("step \"a\" failed: {}", ended_by(&who))), Some(who));
            assert_eq!(step_of(format!("{who} a").as_bytes()), Some((who, "a")));
        }
        assert_eq!(
            (author(b""), author(b"x\n"), definer("d.x"), ender("by"), step_of(b"a")),
            (None, None, None, None, None)
        );
    }

    #[test]
    fn every_kind_of_launch_is_asked_for_and_always_the_same() {
        let all: Vec<Asked> = (0..2_000).map(|n| asked(WHO.at(n), 0, 4)).collect();
        let count = |what: fn(&Asked) -> bool| all.iter().filter(|asked| what(asked)).count();
        for (what, least) in [
            (count(|asked| asked.key.is_none()), 200),
            (count(|asked| asked.key.as_ref().is_some_and(|key| key.starts_with("hot"))), 400),
            (count(|asked| asked.conflict == ConflictPolicy::Fail), 200),
            (count(|asked| asked.conflict == ConflictPolicy::UseExisting), 200),
            (count(|asked| asked.conflict == ConflictPolicy::TerminateExisting), 200),
            (count(|asked| asked.reuse != ReusePolicy::AllowDuplicate), 50),
            (count(|asked| asked.request), 1_000),
            (count(|asked| !asked.request), 200),
            (count(Asked::has_steps), 400),
            (count(|asked| !asked.has_steps()), 400),
            (count(|asked| asked.input.len() > 8_000), 5),
        ] {
            assert!(what >= least, "{what} < {least}");
        }
        let again = asked(WHO.at(7), 0, 4);
        assert_eq!(format!("{:?}", again.launch()), format!("{:?}", all[7].launch()));
    }

    #[test]
    fn steps_come_to_an_end_within_their_attempts() {
        for (n, step) in (0..500).flat_map(|n| ["a", "b", "c"].map(|step| (n, step))) {
            let last = (1..=3)
                .map(|attempt| report(&WHO.at(n), step, attempt))
                .find(|report| *report != Report::Retry);
            assert!(last.is_some());
        }
    }
}
