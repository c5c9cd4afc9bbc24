//! The ready steps of a tenant, in order, from both stores.
//!
//! The rows in the family `ready` are the truth; this is the part of them that is in memory, so that a claim does not seek over the
//! remains of deleted rows. Per queue and store there is a *lane*: a bounded set of entries and a mark. Every row up to the mark
//! is in the set, or held under a lease, or settled; rows behind the mark are only in the store. A lane that runs empty
//! is filled from its mark on. So memory is bounded, however many steps wait: by the entries of a lane and by the number of lanes.
//!
//! A step is offered after its commit. A fill reads the store while holding the lock of the queue, so an offer comes either
//! before the fill begins, whose scan then sees the row, or after the mark has moved. An entry is only a hint: whoever
//! takes one looks at the step itself, under the instance's lock, before acting.
//!
//! A step that waits for a decision has a row in the same family, under [`UNDECIDED`] in the place of its queue. It is in no lane: no
//! worker claims from there. Which row a step has is said in one place ([`ready_row`]), and whoever writes a step moves its row with it
//! ([`put_step`]).

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::time::Duration;

use cutover_formats::keys::UNDECIDED;
use cutover_formats::record::{StepRecord, StepState};
use cutover_formats::{InstanceId, Prefix, Record, RowId, StoreId, TenantId};

use crate::error::Result;
use crate::store::space::{Changes, Space};
use crate::sync::{Condvar, Mutex};

/// Most entries of a lane in memory.
const LANE: usize = 4096;
/// Most lanes in memory; with more queues than that, they are read from the store again when somebody claims from them.
const LANES: usize = 64;
/// Rows that one fill reads.
const FILL: usize = 512;

/// The row of the ready family that belongs to a step as it is, if there is one.
pub(crate) fn ready_row(instance: InstanceId, step: &str, record: &StepRecord) -> Option<RowId<'static>> {
    let (queue, at_ms) = match record.state {
        StepState::Ready { at_ms } => (record.queue.as_str(), at_ms),
        StepState::NeedsDecision { since_ms } => (UNDECIDED, since_ms),
        StepState::Waiting { .. } | StepState::Completed | StepState::Failed => return None,
    };
    let (queue, step) = (queue.to_owned().into(), step.to_owned().into());
    Some(RowId::Ready { queue, at_ms, instance, step })
}

/// Writes a step, and in the place of the row that it had `before` the one that belongs to it now. Returns what is to be offered when that is
/// committed.
pub(super) fn put_step(
    changes: &mut Changes,
    store: StoreId,
    instance: InstanceId,
    step: &str,
    before: Option<RowId<'static>>,
    record: StepRecord,
) -> Option<Entry> {
    // Of two changes of one row the later one wins, if it stays the same.
    before.into_iter().for_each(|row| changes.delete(row));
    ready_row(instance, step, &record).into_iter().for_each(|row| changes.mark(row));
    let entry = Entry::of(store, instance, step, &record);
    changes.put(RowId::Step { instance, step: step.to_owned().into() }, Record::Step(record));
    entry
}

/// A step that may be ready.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) at_ms: u64,
    pub(crate) instance: InstanceId,
    pub(crate) step: String,
    pub(crate) queue: String,
    pub(crate) store: StoreId,
}

impl Entry {
    /// A step that waits for a worker.
    pub(super) fn of(store: StoreId, instance: InstanceId, step: &str, record: &StepRecord) -> Option<Self> {
        let StepState::Ready { at_ms } = record.state else { return None };
        Some(Self { at_ms, instance, step: step.to_owned(), queue: record.queue.clone(), store })
    }

    fn place(&self) -> Place {
        (self.at_ms, self.instance, self.step.clone())
    }
}

type Place = (u64, InstanceId, String);

/// Up to where a lane knows every row.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mark {
    /// Nothing was read yet.
    Start,
    /// Up to and with this row.
    At(Place),
    /// All of them.
    End,
}

struct Lane {
    entries: BTreeSet<Entry>,
    mark: Mark,
}

#[derive(Default)]
struct Lanes {
    by_queue: HashMap<(String, StoreId), Lane>,
    /// How many offers there have been, so that a sleeper misses none.
    offers: u64,
}

/// All queues of a tenant.
#[derive(Default)]
pub(crate) struct ReadyQueue {
    lanes: Mutex<Lanes>,
    offered: Condvar,
}

/// The next entry of a queue, or how long there is none for sure.
pub(crate) enum Next {
    Entry(Entry),
    /// The first one becomes ready at this time, in milliseconds since 1970.
    NotBefore(u64),
    Empty,
}

impl ReadyQueue {
    /// A step has become ready, or will at its time: its row is committed.
    pub(crate) fn offer(&self, entry: Entry) {
        let mut lanes = self.lanes.lock();
        lanes.offers += 1;
        // Nobody has claimed from a queue without a lane, so nothing of it needs to be in memory.
        if let Some(lane) = lanes.by_queue.get_mut(&(entry.queue.clone(), entry.store)) {
            lane.offer(entry);
        }
        drop(lanes);
        // Workers of all queues sleep here; one that is not meant goes back to sleep.
        self.offered.notify_all();
    }

    /// How many offers there have been. Read before [`take`](Self::take), for [`sleep`](Self::sleep).
    pub(crate) fn offers(&self) -> u64 {
        self.lanes.lock().offers
    }

    /// Takes the first entry that is ready at `now_ms`, of the lanes of these stores. A step that is held under a lease is in no lane.
    pub(crate) fn take(
        &self,
        tenant: TenantId,
        queue: &str,
        stores: &[&Space],
        is_held: &dyn Fn(InstanceId, &str) -> bool,
        now_ms: u64,
    ) -> Result<Next> {
        let lanes = &mut self.lanes.lock().by_queue;
        let mut first: Option<Entry> = None;
        if lanes.len() >= LANES
            && stores.iter().any(|space| !lanes.contains_key(&(queue.to_owned(), space.id)))
        {
            lanes.clear();
        }
        for space in stores {
            let lane = lanes.entry((queue.to_owned(), space.id)).or_insert_with(Lane::new);
            lane.fill_if_empty(tenant, queue, space, is_held)?;
            if let Some(entry) = lane.entries.first()
                && first.as_ref().is_none_or(|other| entry < other)
            {
                first = Some(entry.clone());
            }
        }
        let Some(entry) = first else { return Ok(Next::Empty) };
        if entry.at_ms > now_ms {
            return Ok(Next::NotBefore(entry.at_ms));
        }
        if let Some(lane) = lanes.get_mut(&(queue.to_owned(), entry.store)) {
            lane.entries.remove(&entry);
        }
        Ok(Next::Entry(entry))
    }

    /// Sleeps until there were more offers than `seen` or the limit has passed.
    pub(crate) fn sleep(&self, seen: u64, limit: Duration) {
        let mut lanes = self.lanes.lock();
        if lanes.offers == seen {
            self.offered.wait_for(&mut lanes, limit);
        }
    }

    pub(crate) fn wake_all(&self) {
        self.lanes.lock().offers += 1;
        self.offered.notify_all();
    }

    /// What is ready is read again, of whichever store.
    pub(crate) fn forget_all(&self) {
        self.lanes.lock().by_queue.clear();
    }

    /// The store is no longer one of the tenant's.
    pub(crate) fn forget(&self, store: StoreId) {
        self.lanes.lock().by_queue.retain(|(_, of), _| *of != store);
    }
}

impl Lane {
    fn new() -> Self {
        Self { entries: BTreeSet::new(), mark: Mark::Start }
    }

    fn offer(&mut self, entry: Entry) {
        let known = match &self.mark {
            Mark::Start => false,
            Mark::At(place) => entry.place() <= *place,
            Mark::End => true,
        };
        if !known {
            return;
        }
        self.entries.insert(entry);
        if self.entries.len() > LANE {
            self.entries.pop_last();
            self.mark = self.entries.last().map_or(Mark::Start, |last| Mark::At(last.place()));
        }
    }

    fn fill_if_empty(
        &mut self,
        tenant: TenantId,
        queue: &str,
        space: &Space,
        is_held: &dyn Fn(InstanceId, &str) -> bool,
    ) -> Result<()> {
        while self.entries.is_empty() && self.mark != Mark::End {
            let after = match &self.mark {
                Mark::At((at_ms, instance, step)) => Some(RowId::Ready {
                    queue: queue.into(),
                    at_ms: *at_ms,
                    instance: *instance,
                    step: step.as_str().into(),
                }),
                _ => None,
            };
            let mut read = 0;
            let mut last = None;
            let entries = &mut self.entries;
            space.scan(tenant, Prefix::Queue(queue), after.as_ref(), |id, _| {
                if read == FILL {
                    return Ok(ControlFlow::Break(()));
                }
                read += 1;
                if let RowId::Ready { queue, at_ms, instance, step } = id {
                    last = Some((at_ms, instance, step.to_string()));
                    if !is_held(instance, &step) {
                        let (queue, step) = (queue.into_owned(), step.into_owned());
                        entries.insert(Entry { at_ms, instance, step, queue, store: space.id });
                    }
                }
                Ok(ControlFlow::Continue(()))
            })?;
            self.mark = match last {
                Some(place) if read == FILL => Mark::At(place),
                _ => Mark::End,
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use cutover_formats::V1;

    use super::*;
    use crate::store::Driver as _;
    use crate::store::memory::MemoryDriver;

    const TENANT: TenantId = TenantId(1);
    const STORE: StoreId = StoreId(1);

    fn empty() -> Space {
        let store = MemoryDriver::new().open(Path::new("a")).unwrap();
        Space::new(STORE, "memory".into(), 1, store, Arc::new(V1))
    }

    fn entry(queue: u32, n: u64) -> Entry {
        let instance = InstanceId::new(STORE, n, n);
        Entry { at_ms: n, instance, step: "s".into(), queue: format!("{queue}"), store: STORE }
    }

    fn in_memory(queue: &ReadyQueue) -> (usize, usize) {
        let lanes = queue.lanes.lock();
        (lanes.by_queue.len(), lanes.by_queue.values().map(|lane| lane.entries.len()).sum())
    }

    /// However many steps wait in however many queues, and whether or not anybody claims.
    #[test]
    fn memory_is_bounded_while_nobody_takes_anything() {
        let (space, queue) = (empty(), ReadyQueue::default());
        for n in 0..1_000 {
            queue.offer(entry(n, 1));
        }
        assert_eq!(in_memory(&queue), (0, 0), "nobody has ever claimed");
        for n in 0..1_000 {
            queue.take(TENANT, &format!("{n}"), &[&space], &|_, _| false, 0).unwrap();
            assert!(in_memory(&queue).0 <= LANES);
        }
        let (lanes, _) = in_memory(&queue);
        for n in 0..2 * LANE as u64 {
            (0..1_000).for_each(|of| queue.offer(entry(of, n)));
        }
        assert_eq!(in_memory(&queue), (lanes, lanes * LANE));
        // The first one is the one that is given.
        let next = queue.take(TENANT, "999", &[&space], &|_, _| false, 5).unwrap();
        assert!(matches!(next, Next::Entry(first) if first == entry(999, 0)));
    }
}
