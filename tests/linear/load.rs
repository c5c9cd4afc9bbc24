//! A client that calls at random and notes what it was told.

use std::time::Duration;

use cutover::clock::{Clock, ManualClock};
use cutover::{ConflictPolicy, Ended, Ending, ErrorKind, InstanceId, Launch, Launched, ReusePolicy, Tenant};

use crate::checker::Call;
use crate::history::{KeyId, Moments};
use crate::spec::{EndAnswer, Op, What};

/// Half of the keys are free as soon as their instance has ended, half only after this time.
pub(crate) const LONG_RETENTION: Duration = Duration::from_secs(3600);

pub(crate) const KEYS: usize = 4;

/// What a client calls how often, in a hundred calls; the rest are launches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    /// How many of the keys it uses.
    pub(crate) keys: usize,
    pub(crate) ends: u32,
    pub(crate) queries: u32,
    /// Of a hundred launches, those that replace who holds the key.
    pub(crate) replacing: u32,
    /// Of a hundred launches, those that carry a request id.
    pub(crate) requests: u32,
    /// How many moments share a request id.
    pub(crate) request_spread: u64,
}

pub(crate) fn scope_of(key: KeyId) -> &'static str {
    if key.is_multiple_of(2) { "drop" } else { "keep" }
}

/// In milliseconds.
pub(crate) fn retention_of(key: KeyId) -> u64 {
    if key.is_multiple_of(2) { 0 } else { LONG_RETENTION.as_millis() as u64 }
}

/// A client and what it remembers.
pub(crate) struct Client<'c> {
    rng: fastrand::Rng,
    clock: &'c ManualClock,
    moments: &'c Moments,
    /// The last instances that it has heard of, per key.
    heard: [Vec<InstanceId>; KEYS],
    mix: Mix,
}

impl<'c> Client<'c> {
    pub(crate) fn new(seed: u64, clock: &'c ManualClock, moments: &'c Moments, mix: Mix) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { rng, clock, moments, heard: Default::default(), mix }
    }

    /// Makes one call. If it was not answered, when it had returned is left open.
    pub(crate) fn call(&mut self, tenant: &Tenant) -> (KeyId, Call<Op>) {
        let key = self.rng.usize(..self.mix.keys);
        let target = self.rng.choice(&self.heard[key]).copied();
        let Mix { ends, queries, .. } = self.mix;
        let choice = self.rng.u32(..100);
        self.noted(key, |client, called| match (choice, target) {
            (at, Some(id)) if at < ends => client.end(tenant, id),
            (at, Some(id)) if at < ends + queries / 3 => by_id(tenant, id),
            (at, _) if (ends..ends + queries).contains(&at) => by_key(tenant, key),
            _ => client.launch(tenant, key, called),
        })
    }

    /// Asks who holds this key.
    pub(crate) fn ask(&mut self, tenant: &Tenant, key: KeyId) -> (KeyId, Call<Op>) {
        self.noted(key, |_, _| by_key(tenant, key))
    }

    fn noted(&mut self, key: KeyId, act: impl FnOnce(&mut Self, u64) -> What) -> (KeyId, Call<Op>) {
        let (called, from) = (self.moments.next(), self.now());
        let what = act(self, called);
        let (to, returned) = (self.now(), self.moments.next());
        self.listen(key, &what);
        let op = Op { clock: (from, to), what };
        let returned = if op.is_unknown() { u64::MAX } else { returned };
        (key, Call { called, returned, op })
    }

    fn now(&self) -> u64 {
        // What the engine's clock follows.
        self.clock.monotonic().as_millis() as u64
    }

    fn launch(&mut self, tenant: &Tenant, key: KeyId, called: u64) -> What {
        // The same id is used a few times, by several clients, for the same contents.
        let request = (self.rng.u32(..100) < self.mix.requests).then_some(called / self.mix.request_spread);
        let mut policies = request.map_or_else(|| self.rng.fork(), fastrand::Rng::with_seed);
        let conflict = match policies.u32(..100) {
            at if at < self.mix.replacing => ConflictPolicy::TerminateExisting,
            at if at % 4 == 0 => ConflictPolicy::UseExisting,
            _ => ConflictPolicy::Fail,
        };
        let reuse = match policies.u32(..4) {
            0 => ReusePolicy::AllowDuplicateFailedOnly,
            1 => ReusePolicy::RejectDuplicate,
            _ => ReusePolicy::AllowDuplicate,
        };
        let mut launch = Launch::new("work", 1).key(scope_of(key), key.to_string());
        launch = launch.on_conflict(conflict).reuse(reuse);
        if let Some(request) = request {
            launch = launch.request_id(format!("{key}/{request}"));
        }
        let answer = known("launch", tenant.launch(&launch));
        What::Launch { conflict, reuse, request, last_of_request: false, answer }
    }

    fn end(&mut self, tenant: &Tenant, id: InstanceId) -> What {
        let ending = *self
            .rng
            .choice(&[Ending::Completed, Ending::Failed, Ending::Terminated, Ending::Cancelled])
            .unwrap();
        let ended = match ending {
            Ending::Terminated => tenant.terminate(id, ""),
            Ending::Cancelled => tenant.cancel(id, ""),
            _ => tenant.end(id, ending, b"", ""),
        };
        let answer = match ended {
            Ok(Ended::Now) => Some(EndAnswer::Now),
            Ok(Ended::Before(how)) => Some(EndAnswer::Before(how)),
            Ok(Ended::Asked) => panic!("it has no steps that anybody could hold"),
            Err(err) if err.kind() == ErrorKind::NotFound => Some(EndAnswer::NotFound),
            Err(err) => known("end", Err(err)),
        };
        What::End { id, ending, answer }
    }

    fn listen(&mut self, key: KeyId, what: &What) {
        let heard = match what {
            What::Launch { answer: Some(answer), .. } => match answer {
                Launched::Started(id) | Launched::Existing(id) => Some(*id),
                Launched::Conflict { instance } | Launched::Rejected { instance, .. } => Some(*instance),
            },
            What::ByKey { answer: Some(Some((id, _))) } => Some(*id),
            _ => None,
        };
        let list = &mut self.heard[key];
        if let Some(id) = heard.filter(|id| list.last() != Some(id)) {
            list.push(id);
            if list.len() > 2 {
                list.remove(0);
            }
        }
    }
}

fn by_key(tenant: &Tenant, key: KeyId) -> What {
    let found = tenant.instance_by_key(scope_of(key), key.to_string().as_bytes());
    let answer = known("query by key", found);
    What::ByKey { answer: answer.map(|found| found.map(|instance| (instance.id, instance.ending()))) }
}

fn by_id(tenant: &Tenant, id: InstanceId) -> What {
    let answer = known("query by id", tenant.instance(id));
    What::ById { id, answer: answer.map(|found| found.map(|instance| instance.ending())) }
}

/// An answer; `None` if the engine or its store was gone under the call, and nobody knows what became of it.
fn known<T>(what: &str, answer: cutover::Result<T>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(err)
            if matches!(err.kind(), ErrorKind::Indeterminate | ErrorKind::Unavailable | ErrorKind::Io) =>
        {
            None
        }
        Err(err) => panic!("{what}: {err:?}"),
    }
}
