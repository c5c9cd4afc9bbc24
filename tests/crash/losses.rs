//! What power loss may take at `Buffered`: of each store the end of what it was told, and nothing out of the middle.

use std::collections::{BTreeMap, BTreeSet};

use cutover::formats::record::StepState;
use cutover::formats::{Record, RowId};
use cutover::{Ending, Launched, StoreId, TenantId};

use crate::books::{Done, Trace};
use crate::rows::{self, Rows};
use crate::script::{definition, step};
use crate::world::{Made, World};

/// Which prefixes of the stores' tails to try: all of them, or at most so many, spread over all.
pub(crate) fn choices(tails: &[usize], most: usize) -> Vec<Vec<usize>> {
    let all: usize = tails.iter().map(|tail| tail + 1).product();
    let stride = all.div_ceil(most).max(1);
    // The last one loses nothing in any store, the first one everything.
    let numbers = (0..all).filter(|number| number % stride == 0 || number + 1 == all);
    let choice = |mut number: usize| {
        tails
            .iter()
            .map(|tail| {
                let left = number % (tail + 1);
                number /= tail + 1;
                left
            })
            .collect()
    };
    numbers.map(choice).collect()
}

/// An engine was opened after a power cut. Finds out what is lost, and that it is an end in each store. The books know then, and what was lost is
/// to be done again.
pub(crate) fn adopt(world: &mut World<'_>) -> Made {
    let stores = Stores::read(world);
    let mut ends: BTreeMap<StoreId, &Trace> = BTreeMap::new();
    let (mut lost, mut gone) = (Vec::new(), BTreeSet::new());
    for trace in &world.trace {
        let found = stores.find(world, trace);
        for (store, there) in trace.stores.iter().zip(&found) {
            match there {
                Some(false) => drop(ends.entry(*store).or_insert(trace)),
                Some(true) if !trace.again => {
                    let before = ends.get(store);
                    assert!(
                        before.is_none(),
                        "{store} has {trace:?} and has lost {before:?}, which came before"
                    );
                }
                _ => {}
            }
        }
        // A definition that one store has lost is to be made again as well: nobody has promised that the other store stays.
        let with_its_run = trace.what.run().is_some_and(|number| gone.contains(&(trace.tenant, number)));
        if found.contains(&Some(false)) || with_its_run {
            if let Done::Answered(number) = trace.what {
                gone.insert((trace.tenant, number));
            }
            lost.push(trace.clone());
        }
    }
    for trace in &lost {
        lose(world, trace);
    }
    let is_lost = |trace: &Trace| lost.iter().any(|lost| (lost.at, lost.what) == (trace.at, trace.what));
    world.trace.retain(|trace| !is_lost(trace));
    reconciled(world, &stores);
    world.left.extend(lost.iter().map(|trace| trace.at));
    world.left.sort_unstable();
    world.left.dedup();
    world.lossy = false;
    Ok(())
}

fn lose(world: &mut World<'_>, trace: &Trace) {
    let Some(book) = world.books.get_mut(trace.tenant) else { return };
    match trace.what {
        Done::Defined(number) => drop(book.definitions.remove(&number)),
        Done::Answered(number) => book.lose(number),
        Done::Ended(number, _) => {
            if let Some(known) = book.runs.get_mut(&number) {
                known.ended = None;
            }
        }
        Done::Stepped(number, _) => {
            if let Some(known) = book.runs.get_mut(&number) {
                known.done -= 1;
                known.ended = None;
            }
        }
        Done::Replaced(_) => {}
    }
}

/// Runs whose end was lost live, and runs that opening has ended, because a later one of their key lives in the other store, do not. What is in
/// doubt is not any more: it is read.
fn reconciled(world: &mut World<'_>, stores: &Stores) {
    for (name, book) in &mut world.books {
        let numbers: Vec<u32> = book.runs.keys().copied().collect();
        let mut revived = Vec::new();
        for number in numbers {
            let known = book.runs[&number].clone();
            let row = RowId::Instance { id: known.id };
            let Some(Record::Instance(head)) = stores.anywhere(name, &row) else { continue };
            let found = head.ended.as_ref().map(|end| (end.ending, end.at_ms));
            let entry = book.runs.get_mut(&number).unwrap();
            match (found.map(|(ending, _)| ending), known.ended.map(|(ending, _)| ending)) {
                (now, before) if now == before => continue,
                (Some(Ending::Completed), None) if head.open_steps == 0 => entry.done = known.run.steps,
                (Some(Ending::Completed), None) => {}
                (Some(Ending::Terminated), _) => {}
                (None, Some(Ending::Terminated)) => revived.push(number),
                _ => panic!("{known:?} is found as {head:?}"),
            }
            entry.ended = found;
        }
        for number in revived {
            let key = book.runs[&number].run.key.unwrap();
            let holder = book.holder(Some(key)).map(|holder| holder.run.number);
            assert!(holder.is_none_or(|holder| holder == number), "{key} is live in {number} and {holder:?}");
            book.keys.insert(key, number);
        }
    }
}

/// The rows of the stores that are in use, by number.
struct Stores(BTreeMap<(StoreId, TenantId), Rows>, BTreeMap<String, TenantId>);

impl Stores {
    fn read(world: &World<'_>) -> Self {
        let mut by_path = rows::read(&world.machine);
        let (mut all, mut tenants) = (BTreeMap::new(), BTreeMap::new());
        for name in world.engine().tenants() {
            let tenant = world.engine().tenant(&name).unwrap();
            let status = tenant.status();
            for store in [Some(status.initial), status.target].into_iter().flatten() {
                let path = world.engine().store_path(store).unwrap();
                let rows = by_path.remove(&(path, tenant.id())).unwrap_or_default();
                all.insert((store, tenant.id()), rows);
            }
            tenants.insert(name, tenant.id());
        }
        Self(all, tenants)
    }

    fn rows(&self, tenant: &str, store: StoreId) -> Option<&Rows> {
        self.0.get(&(store, *self.1.get(tenant)?))
    }

    fn row(&self, tenant: &str, store: StoreId, row: &RowId<'static>) -> Option<&Record> {
        self.rows(tenant, store)?.get(row)
    }

    /// The same in whichever store: an instance is in one, and not always where it was born.
    fn anywhere(&self, tenant: &str, row: &RowId<'static>) -> Option<&Record> {
        let id = self.1.get(tenant)?;
        self.0.iter().filter(|((_, of), _)| of == id).find_map(|(_, rows)| rows.get(row))
    }

    /// Whether each store has it; none where that cannot be said.
    fn find(&self, world: &World<'_>, trace: &Trace) -> Vec<Option<bool>> {
        let each = |store: &StoreId| {
            self.rows(trace.tenant, *store)?;
            self.find_in(world, trace, *store)
        };
        trace.stores.iter().map(each).collect()
    }

    fn find_in(&self, world: &World<'_>, trace: &Trace, store: StoreId) -> Option<bool> {
        let book = world.books.get(trace.tenant)?;
        match trace.what {
            Done::Defined(number) => {
                let row = RowId::Definition { name: definition(number).into(), version: 1 };
                Some(self.row(trace.tenant, store, &row).is_some())
            }
            // In one batch with the run, and kept for longer. It may have been carried to the other store.
            Done::Answered(number) => {
                let row = RowId::Request { id: format!("request {number}").into_bytes().into() };
                Some(self.anywhere(trace.tenant, &row).is_some())
            }
            Done::Replaced(by) => {
                let started = book.answers.get(&by).map(|(_, answer)| *answer);
                let Some(Launched::Started(_)) = started else { return None };
                // Ended by this or by what opening does: only that it lives says something, and that is looked at later.
                None
            }
            Done::Ended(number, ending) => {
                let id = book.runs.get(&number)?.id;
                match self.row(trace.tenant, store, &RowId::Instance { id }) {
                    Some(Record::Instance(head)) => match &head.ended {
                        None => Some(false),
                        Some(end) if end.ending == ending && ending != Ending::Terminated => Some(true),
                        Some(end) if end.ending != ending => Some(false),
                        Some(_) => None,
                    },
                    // Collected, or the run is lost as well.
                    _ => None,
                }
            }
            Done::Stepped(number, at) => {
                let known = book.runs.get(&number)?;
                match self.row(trace.tenant, store, &RowId::Instance { id: known.id }) {
                    // Its steps are collected before it is.
                    Some(Record::Instance(head)) if head.ended.is_some() && known.is_over(world.now_ms()) => {
                        return None;
                    }
                    Some(_) => {}
                    // Collected, or the run is lost as well.
                    None => return None,
                }
                let row = RowId::Step { instance: known.id, step: step(at).into() };
                match self.row(trace.tenant, store, &row) {
                    Some(Record::Step(record)) => Some(record.state == StepState::Completed),
                    _ => Some(false),
                }
            }
        }
    }
}
