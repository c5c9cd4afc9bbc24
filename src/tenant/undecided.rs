//! Steps that wait for a decision: they were tried as often, or for as long, as they may be, and somebody says what comes next.
//!
//! Such a step has its row in the ready family as one that waits for a worker has, under a queue that no worker can claim from. So it is
//! found without a look at anything else, its row comes and goes with its state in one commit, and whatever ends the instance takes
//! it along. It holds up nothing else: the other steps of its instance are given out, and the instance can be cancelled or ended.

use std::sync::Arc;

use cutover_formats::keys::UNDECIDED;
use cutover_formats::limits;
use cutover_formats::record::{Assignment, Ending, InstanceRecord, StepRecord, StepState};
use cutover_formats::{InstanceId, Prefix, RowId};

use super::end::why_failed;
use super::queue::{Entry, put_step, ready_row};
use super::sessions::Lost;
use super::{Inner, Operation, Tenant};
use crate::error::{Error, ErrorKind, Result};
use crate::store::space::{Changes, Space};

/// Most steps of one page: each is read, with all that it holds.
const MOST: usize = 256;

/// What is to become of a step that waits for a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is ready at once, and its budgets of attempts and of time are as they were at first. The next worker gets what was saved.
    Retry,
    /// It fails, and its instance with it.
    Abort {
        /// Why; cut to [`limits::MAX_REASON`] bytes.
        reason: String,
    },
}

/// What became of a [`Decision`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// It is committed, and the step is tried again.
    Retried,
    /// It is committed, and the instance has ended with it in this way.
    Aborted(Ending),
    /// The step does not wait for a decision, or not any more; nothing changed.
    NotAsked,
    /// The instance had ended before, in this way; nothing changed.
    Ended(Ending),
}

/// A step that waits for a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecided {
    /// Its instance.
    pub instance: InstanceId,
    /// Its name within it.
    pub step: String,
    /// The queue that it goes back to.
    pub queue: String,
    /// Since when it waits, in milliseconds since 1970.
    pub since_ms: u64,
    /// How often it was tried since it was launched or decided about last.
    pub attempts: u32,
    /// Why it failed the last time: as its worker said, or that nothing was heard of it any more.
    pub reason: String,
}

/// A page of the steps that wait for a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndecidedPage {
    /// The steps: who waits longest comes first.
    pub steps: Vec<Undecided>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<UndecidedPlace>,
}

/// A place in the list of the steps that wait for a decision.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UndecidedPlace {
    since_ms: u64,
    instance: InstanceId,
    step: String,
}

impl UndecidedPlace {
    fn of(row: RowId<'static>) -> Option<Self> {
        match row {
            RowId::Ready { at_ms: since_ms, instance, step, .. } => {
                Some(Self { since_ms, instance, step: step.into_owned() })
            }
            _ => None,
        }
    }

    fn row(&self) -> RowId<'_> {
        let (at_ms, instance, step) = (self.since_ms, self.instance, self.step.as_str().into());
        RowId::Ready { queue: UNDECIDED.into(), at_ms, instance, step }
    }
}

impl Tenant {
    /// Decides about a step that waits for it. Durable when it returns [`Decided::Retried`] or [`Decided::Aborted`]; a repeat is answered with
    /// what is there then, and changes nothing.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such instance or step;
    /// [`Indeterminate`](ErrorKind::Indeterminate) if the store failed during the commit.
    pub fn decide(&self, instance: InstanceId, step: &str, decision: &Decision) -> Result<Decided> {
        limits::check_name("the name of the step", step)?;
        self.0.with_locked(&self.1, instance, "decide about a step", Decided::Ended, |op, space, record| {
            let row = RowId::Step { instance, step: step.into() };
            let found = space.step(self.0.id, &row)?.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("instance {instance} has no step {step:?}"))
            })?;
            match (found.state, decision) {
                (StepState::NeedsDecision { .. }, Decision::Retry) => {
                    self.0.try_again_at_once(space, instance, step, found)
                }
                (StepState::NeedsDecision { .. }, Decision::Abort { reason }) => {
                    self.0.give_up(op, space, (instance, record), (step, found), reason)
                }
                _ => Ok(Decided::NotAsked),
            }
        })
    }

    /// Up to `limit` steps that wait for a decision, of either store, from behind `after` on. A page may have fewer, or none, and still not be the
    /// last: `next` says. May show one whose report is just being made durable, or failed to be.
    ///
    /// # Errors
    /// If a store cannot be read.
    pub fn undecided(&self, after: Option<&UndecidedPlace>, limit: usize) -> Result<UndecidedPage> {
        let tenant = &*self.0;
        // A page without room would not say where the next one starts.
        let limit = limit.clamp(1, MOST);
        let op = tenant.admit(&self.1, "list what needs a decision")?;
        let after = after.map(UndecidedPlace::row);
        let mut places: Vec<(UndecidedPlace, &Arc<Space>)> = Vec::new();
        // What lies behind the end of any page that is not the last of its store is not known yet.
        let mut known_to: Option<UndecidedPlace> = None;
        for space in op.by_id() {
            let page = space.survey(tenant.id, Prefix::Queue(UNDECIDED), after.as_ref(), limit, u64::MAX)?;
            page.damaged.iter().try_for_each(|damage| tenant.set_aside(space, damage))?;
            let found = page.rows.into_iter().filter_map(|(row, _)| UndecidedPlace::of(row));
            places.extend(found.map(|place| (place, space)));
            if !page.done {
                let last = places.last().map(|(place, _)| place.clone());
                known_to = [known_to, last].into_iter().flatten().min();
            }
        }
        places.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut page = UndecidedPage { steps: Vec::new(), next: known_to.clone() };
        let known = |place: &UndecidedPlace| known_to.as_ref().is_none_or(|last| place <= last);
        let mut last = None;
        for (place, space) in places.into_iter().filter(|(place, _)| known(place)) {
            if page.steps.len() == limit {
                page.next = last;
                break;
            }
            page.steps.extend(tenant.undecided_at(space, &place)?);
            last = Some(place);
        }
        Ok(page)
    }
}

impl Inner {
    /// A step that is ready has used up a budget, and no report said so: its leases ran out, or it waited for a worker for too long.
    pub(super) fn ask_what_to_do(
        &self,
        space: &Space,
        entry: &Entry,
        mut record: StepRecord,
        lost: Option<Lost>,
        now_ms: u64,
    ) -> Result<()> {
        let before = ready_row(entry.instance, &entry.step, &record);
        record.state = StepState::NeedsDecision { since_ms: now_ms };
        record.revision += 1;
        if let Some(Lost { times, worker, token, from_ms }) = lost {
            // Of those that were counted in memory the last one is noted.
            record.attempts = record.attempts.saturating_add(times.saturating_sub(1));
            let failure = Some(Assignment::UNHEARD.to_owned());
            record.note(Assignment { worker, token, from_ms, until_ms: now_ms, failure });
        }
        let mut changes = Changes::default();
        put_step(&mut changes, space.id, entry.instance, &entry.step, before, record);
        self.commit(space, &changes)
    }

    fn try_again_at_once(
        &self,
        space: &Space,
        instance: InstanceId,
        step: &str,
        mut record: StepRecord,
    ) -> Result<Decided> {
        let now_ms = self.shared.now_ms();
        let before = ready_row(instance, step, &record);
        record.state = StepState::Ready { at_ms: now_ms };
        record.counted_from = record.attempts;
        record.counted_ms = now_ms;
        record.revision += 1;
        let mut changes = Changes::default();
        let entry = put_step(&mut changes, space.id, instance, step, before, record);
        self.commit(space, &changes)?;
        self.sessions.forget_lost(instance, step);
        self.announce(entry.into_iter().collect(), None);
        Ok(Decided::Retried)
    }

    fn give_up(
        &self,
        op: &Operation<'_>,
        space: &Space,
        (instance, head): (InstanceId, InstanceRecord),
        (step, mut record): (&str, StepRecord),
        reason: &str,
    ) -> Result<Decided> {
        let before = ready_row(instance, step, &record);
        record.state = StepState::Failed;
        record.revision += 1;
        let mut changes = Changes::default();
        put_step(&mut changes, space.id, instance, step, before, record);
        let why = why_failed(step, reason);
        self.end_failed(op, space, instance, head, &why, changes).map(Decided::Aborted)
    }

    /// The step of this row, if it still waits for a decision.
    fn undecided_at(&self, space: &Space, place: &UndecidedPlace) -> Result<Option<Undecided>> {
        let UndecidedPlace { since_ms, instance, step } = place.clone();
        let row = RowId::Step { instance, step: step.clone().into() };
        let record = match space.step(self.id, &row) {
            Ok(record) => record,
            // It keeps nobody from the others.
            Err(err) => return self.set_row_aside(space, &row, err).map(|()| None),
        };
        let waits = |record: &StepRecord| record.state == StepState::NeedsDecision { since_ms };
        Ok(record.filter(waits).map(|record| Undecided {
            instance,
            step,
            since_ms,
            attempts: record.attempts_counted(),
            reason: last_failure(&record).unwrap_or_default().to_owned(),
            queue: record.queue,
        }))
    }
}

/// Why the last attempt failed.
fn last_failure(record: &StepRecord) -> Option<&str> {
    record.history.iter().rev().find(|one| one.is_attempt())?.failure.as_deref()
}
