//! One key in one store, one operation after the other: launches with their policies and request ids, ends, queries.
//!
//! Written from what the calls promise and not from the engine. It knows nothing of phases and has one place for the key's last
//! holder, so whatever two stores answer has to look as if there was one.

use std::collections::BTreeMap;

use cutover::{ConflictPolicy, Ending, InstanceId, Launched, ReusePolicy};

use crate::checker::{Call, Spec};

/// The engine's clock, in milliseconds, when an operation was called and when it had returned: it read the clock in between.
pub(crate) type Clock = (u64, u64);

/// What was asked for, and answered. `None` is an answer that nobody has seen: it happened, or not.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    pub(crate) clock: Clock,
    pub(crate) what: What,
}

impl Op {
    pub(crate) fn is_unknown(&self) -> bool {
        match &self.what {
            What::Launch { answer, .. } => answer.is_none(),
            What::End { answer, .. } => answer.is_none(),
            What::ByKey { answer } => answer.is_none(),
            What::ById { answer, .. } => answer.is_none(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Launch {
        conflict: ConflictPolicy,
        reuse: ReusePolicy,
        request: Option<u64>,
        /// No later operation has this request id.
        last_of_request: bool,
        answer: Option<Launched>,
    },
    End {
        id: InstanceId,
        ending: Ending,
        answer: Option<EndAnswer>,
    },
    /// Who holds the key, and how he has ended.
    ByKey {
        answer: Option<Option<(InstanceId, Option<Ending>)>>,
    },
    /// How this one has ended, if it is there.
    ById {
        id: InstanceId,
        answer: Option<Option<Option<Ending>>>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndAnswer {
    Now,
    Before(Ending),
    NotFound,
}

/// From when on something may be gone, and from when on it must be.
type Until = (u64, u64);

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct State {
    last: Option<Holder>,
    requests: BTreeMap<u64, (Answer, Until)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Holder {
    id: Id,
    ended: Option<(Ending, Until)>,
}

/// An instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Id {
    Known(InstanceId),
    /// That of a launch whose caller was not answered. Whoever first names an instance in its place says which it is. The
    /// number tells it from others in the same state; which launch it was does not matter, so that fewer states differ.
    Open {
        number: usize,
        request: Option<u64>,
    },
}

/// An answer that can be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Started(Id),
    Existing(Id),
    Conflict(Id),
    Rejected(Id, Ending),
}

impl Answer {
    fn id(&mut self) -> &mut Id {
        match self {
            Self::Started(id) | Self::Existing(id) | Self::Conflict(id) | Self::Rejected(id, _) => id,
        }
    }
}

impl State {
    /// An instance that nobody has named. It takes the place of the key's last holder.
    fn open(&mut self, request: Option<u64>) -> Id {
        let known: Vec<Id> = self.requests.values_mut().map(|(answer, _)| *answer.id()).collect();
        let numbers = (0..).map(|number| Id::Open { number, request });
        numbers.into_iter().find(|id| !known.contains(id)).expect("numbers do not end")
    }

    /// The same with an instance that was open until now.
    fn bound(&self, open: Id, id: InstanceId) -> Self {
        let mut next = self.clone();
        let bind = |other: &mut Id| {
            if *other == open {
                *other = Id::Known(id);
            }
        };
        next.last.iter_mut().for_each(|holder| bind(&mut holder.id));
        for (answer, _) in next.requests.values_mut() {
            bind(answer.id());
        }
        next
    }
}

/// The specification of one key.
pub(crate) struct Key {
    /// How long what has ended stays, in milliseconds.
    retention: u64,
    /// Instances of which a caller was told that they are his, with the request id that he gave.
    claimed: BTreeMap<InstanceId, Option<u64>>,
}

impl Key {
    /// For one history of a key with this retention.
    pub(crate) fn of(retention: u64, calls: &[Call<Op>]) -> Self {
        let claims = calls.iter().filter_map(|call| match &call.op.what {
            What::Launch { request, answer: Some(Launched::Started(id)), .. } => Some((*id, *request)),
            _ => None,
        });
        Self { retention, claimed: claims.collect() }
    }

    fn until(&self, (from, to): Clock) -> Until {
        (from.saturating_add(self.retention), to.saturating_add(self.retention))
    }

    /// The state in which `id` is the instance that was seen, if it can be.
    fn met(&self, state: &State, id: Id, seen: InstanceId) -> Option<State> {
        match id {
            Id::Known(id) => (id == seen).then(|| state.clone()),
            Id::Open { request, .. } => {
                let may_be = match self.claimed.get(&seen) {
                    None => true,
                    Some(claimed) => claimed.is_some() && *claimed == request,
                };
                may_be.then(|| state.bound(id, seen))
            }
        }
    }

    /// The state in which a caller could have been told this answer as what he has seen.
    fn told(&self, state: &State, answer: Answer, seen: Option<Launched>) -> Option<State> {
        let Some(seen) = seen else { return Some(state.clone()) };
        match (answer, seen) {
            (Answer::Started(id), Launched::Started(seen))
            | (Answer::Existing(id), Launched::Existing(seen))
            | (Answer::Conflict(id), Launched::Conflict { instance: seen }) => self.met(state, id, seen),
            (Answer::Rejected(id, how), Launched::Rejected { instance, ending }) if how == ending => {
                self.met(state, id, instance)
            }
            _ => None,
        }
    }

    /// Whom a launch of this moment may find: nobody, or this holder.
    fn views(&self, state: &State, clock: Clock) -> Vec<Option<Holder>> {
        let Some(holder) = &state.last else { return vec![None] };
        match holder.ended {
            None => vec![Some(holder.clone())],
            Some((_, until)) => both(until, clock, Some(holder.clone()), None),
        }
    }

    /// A launch that was not made before, and finds this holder.
    fn launch(&self, state: &State, clock: Clock, view: Option<&Holder>, op: &What) -> Option<State> {
        let What::Launch { conflict, reuse, request, answer, .. } = op else { return None };
        let starts = match view {
            None => true,
            Some(Holder { ended: None, .. }) => *conflict == ConflictPolicy::TerminateExisting,
            Some(Holder { ended: Some((ending, _)), .. }) => match reuse {
                ReusePolicy::AllowDuplicate => true,
                ReusePolicy::AllowDuplicateFailedOnly => *ending != Ending::Completed,
                ReusePolicy::RejectDuplicate => false,
            },
        };
        let mut next = state.clone();
        let answered = match view {
            _ if starts => {
                let id = match answer {
                    Some(Launched::Started(id)) => Id::Known(*id),
                    _ => next.open(*request),
                };
                next.last = Some(Holder { id, ended: None });
                Answer::Started(id)
            }
            Some(Holder { id, ended: None }) if *conflict == ConflictPolicy::UseExisting => {
                Answer::Existing(*id)
            }
            Some(Holder { id, ended: None }) => Answer::Conflict(*id),
            Some(Holder { id, ended: Some((ending, _)) }) => Answer::Rejected(*id, *ending),
            None => return None,
        };
        if let Some(request) = request {
            next.requests.insert(*request, (answered, self.until(clock)));
        }
        self.told(&next, answered, *answer)
    }

    /// The states in which this instance is the key's last holder, and the one in which it is not, if these can be.
    fn held_by(&self, state: &State, id: InstanceId) -> (Option<State>, Option<State>) {
        let holder = state.last.as_ref().map(|holder| holder.id);
        let is_it = holder.and_then(|holder| self.met(state, holder, id));
        (is_it, (holder != Some(Id::Known(id))).then(|| state.clone()))
    }

    /// The states in which a look at this instance may find nothing, or how it has ended.
    fn found(&self, state: &State, clock: Clock, id: InstanceId, seen: Option<Option<Ending>>) -> Vec<State> {
        let (is_it, is_not) = self.held_by(state, id);
        let is_it = is_it.filter(|state| match state.last.as_ref().and_then(|holder| holder.ended) {
            None => seen == Some(None),
            // It goes when somebody comes to collect it, some time after it may.
            Some((ending, (may, _))) => match seen {
                Some(seen) => seen == Some(ending),
                None => may <= clock.1,
            },
        });
        // Another one has taken its place, so it has ended; how, and whether it was collected, is not kept here.
        let is_not = is_not.filter(|_| seen != Some(None));
        is_it.into_iter().chain(is_not).collect()
    }

    fn end(&self, state: &State, clock: Clock, id: InstanceId, how: Ending) -> Option<State> {
        let mut next = self.held_by(state, id).0?;
        let holder = next.last.as_mut().filter(|holder| holder.ended.is_none())?;
        holder.ended = Some((how, self.until(clock)));
        Some(next)
    }
}

/// `before` if the time may not have come yet, `after` if it may have.
fn both<T>((may, must): Until, (from, to): Clock, before: T, after: T) -> Vec<T> {
    let there = (from < must).then_some(before);
    there.into_iter().chain((may <= to).then_some(after)).collect()
}

impl Spec for Key {
    type State = State;
    type Op = Op;

    fn initial(&self) -> State {
        State::default()
    }

    fn after(&self, state: &State, Op { clock, what }: &Op) -> Vec<State> {
        match what {
            What::Launch { request, answer, .. } => {
                let mut out = Vec::new();
                let known = request.and_then(|request| state.requests.get(&request));
                let paths = match known {
                    Some((repeated, until)) => both(*until, *clock, Some(*repeated), None),
                    None => vec![None],
                };
                for path in paths {
                    match path {
                        Some(repeated) => out.extend(self.told(state, repeated, *answer)),
                        None => {
                            let views = self.views(state, *clock);
                            let launched =
                                |view: Option<Holder>| self.launch(state, *clock, view.as_ref(), what);
                            out.extend(views.into_iter().filter_map(launched));
                        }
                    }
                }
                out
            }
            What::End { id, ending, answer } => match answer {
                Some(EndAnswer::Now) => self.end(state, *clock, *id, *ending).into_iter().collect(),
                Some(EndAnswer::Before(how)) => self.found(state, *clock, *id, Some(Some(*how))),
                Some(EndAnswer::NotFound) => self.found(state, *clock, *id, None),
                None => self.end(state, *clock, *id, *ending).into_iter().collect(),
            },
            What::ByKey { answer } => {
                let Some(seen) = answer else { return vec![state.clone()] };
                let met = |view: Option<Holder>| match (view, seen) {
                    (None, None) => Some(state.clone()),
                    (Some(holder), Some((id, ended))) => {
                        let same = holder.ended.map(|(ending, _)| ending) == *ended;
                        same.then(|| self.met(state, holder.id, *id)).flatten()
                    }
                    _ => None,
                };
                self.views(state, *clock).into_iter().filter_map(met).collect()
            }
            What::ById { id, answer } => match answer {
                Some(seen) => self.found(state, *clock, *id, *seen),
                None => vec![state.clone()],
            },
        }
    }

    fn may_be_missing(&self, op: &Op) -> bool {
        op.is_unknown()
    }

    fn returned(&self, state: &mut State, Op { what, .. }: &Op) {
        if let What::Launch { request: Some(request), last_of_request: true, .. } = what {
            state.requests.remove(request);
        }
    }
}
