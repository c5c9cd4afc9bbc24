//! The part of the model that queries see.

use std::collections::BTreeSet;

use cutover::{Instance, InstanceId, InstanceState, Result};

use super::ops;
use super::world::{At, Doubt, End, Left, One, World, of_the_world};

impl World {
    pub fn query(mut self, id: InstanceId, got: &Result<Option<Instance>>, at: &At) -> Left {
        let Some(place) = self.place(id, |_| false) else {
            return match got {
                Ok(None) => Ok(vec![self]),
                Err(err) if of_the_world(err) && (at.excused() || self.ghosts) => Ok(vec![self]),
                _ => Err(format!("an id that was never given shows {got:?}")),
            };
        };
        self.shown(place, got, at)
    }

    pub fn query_key(mut self, key: u8, got: &Result<Option<Instance>>, at: &At) -> Left {
        let doubtful = self.doubtful.contains(&Doubt::Key(key));
        let holder = self.keys.get(&key).copied();
        let free = |end: &End| end.free_ms <= at.now_ms;
        let holder = holder.filter(|place| !self.instances[*place].ended.as_ref().is_some_and(free));
        match (holder, got) {
            (_, Err(err)) if of_the_world(err) && (at.excused() || doubtful) => Ok(vec![self]),
            (None, Ok(None)) => Ok(vec![self]),
            (Some(place), Ok(Some(instance))) if !self.is(place, instance.id) => {
                Err(format!("the key is held by {instance:?}, and should be by number {place}"))
            }
            (Some(place), got) => self.shown(place, got, at),
            (None, got) => Err(format!("nobody holds the key, and {got:?} does")),
        }
    }

    /// Whether what is shown of an instance is right.
    fn shown(self, place: usize, got: &Result<Option<Instance>>, at: &At) -> Left {
        let one = &self.instances[place];
        match got {
            Err(err) if of_the_world(err) && (at.excused() || one.doubtful) => Ok(vec![self]),
            Ok(None) if one.expired(at.now_ms) => Ok(vec![self]),
            Ok(Some(instance)) if !one.gone => match one.differs(instance, at.now_ms, true) {
                Some(what) => Err(format!("{what} is wrong in {instance:?}, which should be {one:?}")),
                None => Ok(vec![self]),
            },
            _ => Err(format!("shown is {got:?}, and it should be {one:?}")),
        }
    }

    /// Holds a whole list against what should be in it. While something is in doubt it may show it or not.
    pub fn list(mut self, got: &[Instance], wanted: &dyn Fn(&One) -> bool, at: &At) -> Left {
        let in_doubt = self.in_doubt();
        let mut seen = BTreeSet::new();
        for instance in got {
            let fits = |one: &One| one.differs(instance, at.now_ms, false).is_none();
            match self.place(instance.id, fits) {
                Some(place) if self.instances[place].doubtful => {
                    seen.insert(place);
                }
                Some(place) => {
                    let one = &self.instances[place];
                    if one.gone || !wanted(one) {
                        return Err(format!("the list has {instance:?}, which should not be in it: {one:?}"));
                    }
                    if let Some(what) = one.differs(instance, at.now_ms, false) {
                        return Err(format!("{what} is wrong in the list's {instance:?}: {one:?}"));
                    }
                    seen.insert(place);
                }
                None if in_doubt => {}
                None => return Err(format!("the list has {instance:?}, which was never launched")),
            }
        }
        let sorted = got.windows(2).all(|pair| pair[0].id < pair[1].id);
        let missing = self.instances.iter().enumerate().find(|(place, one)| {
            !seen.contains(place) && wanted(one) && !one.expired(at.now_ms) && !one.doubtful
        });
        match missing {
            _ if !sorted => Err("the list is not in the order of its ids".to_owned()),
            Some((_, one)) => Err(format!("the list lacks {one:?}")),
            None => Ok(vec![self]),
        }
    }
}

impl One {
    fn state(&self, now_ms: u64) -> InstanceState {
        match &self.ended {
            Some(end) => InstanceState::Ended(end.ending),
            None if now_ms < self.start_ms => InstanceState::Scheduled,
            None => InstanceState::Running,
        }
    }

    /// What is wrong with how it is shown; its output is only looked at if it is shown as a `whole`.
    fn differs(&self, got: &Instance, now_ms: u64, whole: bool) -> Option<&'static str> {
        let end = self.ended.as_ref();
        // Its output goes when it is collected, in the same commit as its head.
        let output = end.filter(|_| whole).map(|end| end.output.clone()).unwrap_or_default();
        let checks = [
            ("the definition", got.definition == ops::definition_name(self.launching.definition)),
            ("the version", got.version == 1),
            ("the key", got.key == self.launching.key.map(ops::key)),
            ("the state", got.state == self.state(now_ms)),
            ("whether it is to stop", got.cancel_requested == self.cancel_requested),
            ("the number of open steps", got.open_steps == self.open_steps),
            ("the time of the launch", got.launched_ms == self.launched_ms),
            ("the time of the end", got.ended_ms == end.map(|end| end.at_ms)),
            ("the reason", got.reason == end.map(|end| end.reason.clone()).unwrap_or_default()),
            ("the output", got.output == output),
        ];
        checks.into_iter().find(|(_, right)| !right).map(|(what, _)| what)
    }
}
