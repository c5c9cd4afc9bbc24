//! What a thread does next: a pure function of its name and of what it has had acknowledged.
//!
//! The load asks its planner what to do, does it, and tells the planner what came of it, in the words of the line that it
//! prints. The check has the lines, so it asks the same planner and gets the same answers; what a planner says after the last
//! line of its thread is the one operation that may have happened or not.

use std::collections::VecDeque;

use cutover::InstanceId;

use crate::ack::{Ack, Answer, EndAnswer, How};
use crate::content;
use crate::who::Who;

/// Instances of one thread that may live; from here on it ends the oldest one first.
const MOST_LIVE: usize = 14;
/// Launches that are remembered, to be repeated.
const REMEMBERED: usize = 32;

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Launch what this operation of the thread launches.
    Launch {
        /// The operation: this one, or an earlier one to be repeated.
        number: u64,
        /// The thread's definition of this number.
        definition: u64,
    },
    /// Define the thread's definition of this number.
    Define {
        /// The number, from 0 on without gaps: the next one, or an earlier one to be repeated.
        number: u64,
    },
    /// Take a step and report on it.
    Work,
    /// End an instance.
    End {
        /// The instance.
        instance: InstanceId,
        /// How.
        how: How,
    },
    /// Ask for an instance by its id.
    ById {
        /// The id.
        instance: InstanceId,
    },
    /// Ask who holds a key.
    ByKey {
        /// The key.
        key: String,
    },
}

/// What one thread does.
#[derive(Debug, Clone)]
pub struct Planner {
    /// The next operation.
    who: Who,
    keys: u32,
    /// Instances that may live, the oldest first.
    live: VecDeque<InstanceId>,
    /// Launches with a request id: the operation, and the definition.
    launched: VecDeque<(u64, u64)>,
    /// Those of them that failed, so that nobody knows whether they happened.
    unsettled: Vec<u64>,
    /// Definitions that it has made.
    defined: u64,
}

impl Planner {
    /// A thread that begins.
    #[must_use]
    pub fn new(seed: u64, session: u64, thread: u32, keys: u32) -> Self {
        let who = Who { seed, session, thread, n: 0 };
        let (live, launched) = (VecDeque::new(), VecDeque::new());
        Self { who, keys, live, launched, unsettled: Vec::new(), defined: 0 }
    }

    /// The name of the next operation.
    #[must_use]
    pub const fn who(&self) -> Who {
        self.who
    }

    /// The next operation.
    #[must_use]
    pub fn next(&self) -> Op {
        let mut rng = self.who.rng("op");
        let n = self.who.n;
        if self.defined == 0 {
            return Op::Define { number: 0 };
        }
        // A new one more often than its share.
        let definition = rng.u64(..self.defined).max(rng.u64(..self.defined));
        if self.live.len() >= MOST_LIVE {
            return self.end(0);
        }
        let repeat = match pick(&mut rng, &self.launched) {
            Some((number, definition)) => Op::Launch { number, definition },
            None => Op::Work,
        };
        match rng.u8(..100) {
            0..40 => Op::Launch { number: n, definition },
            40..44 => repeat,
            44..50 => Op::Define { number: self.defined },
            50..52 => Op::Define { number: definition },
            52..78 => Op::Work,
            78..90 => self.end(rng.usize(..MOST_LIVE)),
            90..95 => match pick(&mut rng, &self.live) {
                Some(instance) => Op::ById { instance },
                None => Op::Work,
            },
            _ => Op::ByKey { key: content::any_key(&mut rng, self.who.thread, self.keys) },
        }
    }

    fn end(&self, at: usize) -> Op {
        match self.live.get(at) {
            Some(instance) => Op::End { instance: *instance, how: content::how(&self.who) },
            None => Op::Work,
        }
    }

    /// Whether the line is about the next operation.
    #[must_use]
    pub fn expects(&self, ack: &Ack) -> bool {
        let is_next = ack.operation() == Some((self.who.thread, self.who.n));
        is_next
            && match (self.next(), ack) {
                (_, Ack::Failed { .. } | Ack::Wrong { .. })
                | (Op::Work, Ack::Step { .. } | Ack::Idle { .. })
                | (Op::ByKey { .. }, Ack::Query { key: Some(_), .. }) => true,
                (Op::Launch { number, .. }, Ack::Launch { number: of, .. })
                | (Op::Define { number }, Ack::Define { number: of, .. }) => number == *of,
                (Op::End { instance, how }, Ack::End { instance: of, how: so, .. }) => {
                    (instance, how) == (*of, *so)
                }
                (Op::ById { instance }, Ack::Query { instance: of, key: None, .. }) => Some(instance) == *of,
                _ => false,
            }
    }

    /// The thread has this line. It is about the next operation, or about what was there at the beginning.
    pub fn absorb(&mut self, ack: &Ack) {
        let op = self.next();
        match ack {
            Ack::Found { instance, .. } => {
                self.live.push_back(*instance);
                return;
            }
            Ack::Launch { number, answer, instance, .. } => {
                let first = *number == self.who.n;
                let is_news = first || self.unsettled.contains(number);
                if is_news && *answer == Answer::Started {
                    self.live.push_back(*instance);
                }
                self.unsettled.retain(|other| other != number);
                if first {
                    self.remember_launch(&op);
                }
            }
            Ack::Define { number, .. } => self.defined = self.defined.max(*number + 1),
            Ack::End { instance, answer, .. } => {
                self.live.retain(|other| other != instance);
                if *answer == EndAnswer::Asked {
                    self.live.push_back(*instance);
                }
            }
            Ack::Failed { refused, .. } => match op {
                // Others first; it may have ended or not.
                Op::End { instance, .. } => {
                    self.live.retain(|other| *other != instance);
                    self.live.push_back(instance);
                }
                Op::Launch { number, .. }
                    if number == self.who.n && !refused && self.remember_launch(&op) =>
                {
                    self.unsettled.push(number);
                }
                _ => {}
            },
            _ => {}
        }
        self.who.n += 1;
    }

    /// So that it may be repeated, if it can be.
    fn remember_launch(&mut self, op: &Op) -> bool {
        let Op::Launch { number, definition } = *op else { return false };
        let repeatable = content::has_request(&self.who);
        if repeatable {
            remember(&mut self.launched, (number, definition));
        }
        repeatable
    }
}

fn pick<T: Clone>(rng: &mut fastrand::Rng, from: &VecDeque<T>) -> Option<T> {
    if from.is_empty() { None } else { from.get(rng.usize(..from.len())).cloned() }
}

fn remember<T>(list: &mut VecDeque<T>, item: T) {
    list.push_back(item);
    if list.len() > REMEMBERED {
        list.pop_front();
    }
}
