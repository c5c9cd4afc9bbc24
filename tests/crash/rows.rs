//! What the stores hold, row by row, and whether it hangs together.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::PathBuf;

use cutover::formats::keys::{NO_TENANT, NoteId, UNDECIDED};
use cutover::formats::record::StepState;
use cutover::formats::{Expiring, Family, Layout as _, Record, RowId, V1};
use cutover::store::Driver as _;
use cutover::{Engine, Phase, TenantId};

use crate::books::Book;
use crate::machine::Machine;
use crate::script::definition;

pub(crate) type Rows = BTreeMap<RowId<'static>, Record>;

/// The rows of each store and tenant.
pub(crate) fn read(machine: &Machine) -> BTreeMap<(PathBuf, TenantId), Rows> {
    let disks = machine.disks.copy();
    let mut all: BTreeMap<(PathBuf, TenantId), Rows> = BTreeMap::new();
    for path in disks.paths() {
        let store = disks.open(&path).unwrap();
        for family in Family::ALL {
            let mut visit = |key: &[u8], value: &[u8]| {
                let (tenant, id) = V1.read_key(family, key).unwrap();
                let record = V1.read_value(&id, value).unwrap();
                all.entry((path.clone(), tenant)).or_default().insert(id, record);
                ControlFlow::Continue(())
            };
            store.scan(family, b"", b"", &mut visit).unwrap();
        }
    }
    all
}

/// An engine is open on the machine. Every row points at what it should, no key is live twice, and from the switch on each definition
/// is in both stores or in the list of gaps, unless power loss has taken the ends of what they were told.
pub(crate) fn check(machine: &Machine, engine: &Engine, books: &BTreeMap<&'static str, Book>, exact: bool) {
    let all = read(machine);
    let mut tenants = BTreeSet::new();
    for name in engine.tenants() {
        let tenant = engine.tenant(&name).unwrap();
        let status = tenant.status();
        let stores: Vec<PathBuf> = [Some(status.initial), status.target]
            .into_iter()
            .flatten()
            .map(|id| engine.store_path(id).unwrap_or_else(|| panic!("{name} is in {id}, which is gone")))
            .collect();
        tenants.insert(tenant.id());
        let none = Rows::new();
        let rows: Vec<&Rows> =
            stores.iter().map(|path| all.get(&(path.clone(), tenant.id())).unwrap_or(&none)).collect();
        rows.iter().for_each(|rows| hang_together(rows));
        once(&rows);
        if exact && !matches!(status.phase, Phase::Stable | Phase::PreMigration) {
            let numbers = books.get(name.as_str()).map(|book| book.definitions.clone()).unwrap_or_default();
            defined_in_both(rows[0], rows[1], &numbers, status.phase);
        }
    }
    // What a store says of itself belongs to nobody.
    for (path, tenant) in all.keys().filter(|(_, tenant)| *tenant != NO_TENANT) {
        assert!(tenants.contains(tenant), "{} has rows of {tenant}, which is gone", path.display());
    }
}

fn hang_together(rows: &Rows) {
    for (id, record) in rows {
        match (id, record) {
            (RowId::Key { scope, key }, Record::Key(held)) => {
                let head = rows.get(&RowId::Instance { id: held.instance });
                if held.ended.is_none() {
                    let Some(Record::Instance(head)) = head else { panic!("{id:?} is held by nobody") };
                    assert!(head.ended.is_none(), "{id:?} is held by one that has ended");
                    let of = head.key.as_ref().unwrap();
                    assert_eq!((of.0.as_str(), of.1.as_slice()), (&**scope, &**key));
                }
            }
            (RowId::Instance { id: instance }, Record::Instance(head)) => match &head.ended {
                None => {
                    if let Some((scope, key)) = head.key.clone() {
                        let key = rows.get(&RowId::Key { scope: scope.into(), key: key.into() });
                        let Some(Record::Key(held)) = key else { panic!("the key of {instance} is missing") };
                        assert!(held.instance == *instance && held.ended.is_none(), "{instance}: {held:?}");
                    }
                }
                Some(end) => {
                    let what = Expiring::Instance(*instance);
                    assert!(rows.contains_key(&RowId::Expiry { at_ms: end.collect_ms, what }), "{instance}");
                }
            },
            (RowId::Request { id }, Record::Request(request)) => {
                let what = Expiring::Request { id: id.clone() };
                assert!(rows.contains_key(&RowId::Expiry { at_ms: request.until_ms, what }), "{id:?}");
            }
            (RowId::Step { instance, step }, Record::Step(record)) => {
                let Some(Record::Instance(head)) = rows.get(&RowId::Instance { id: *instance }) else {
                    panic!("{id:?} has no instance");
                };
                let row = match record.state {
                    StepState::Ready { at_ms } => Some((record.queue.as_str(), at_ms)),
                    StepState::NeedsDecision { since_ms } => Some((UNDECIDED, since_ms)),
                    _ => None,
                };
                if let (Some((queue, at_ms)), None) = (row, &head.ended) {
                    let queue = queue.to_owned().into();
                    let ready = RowId::Ready { queue, at_ms, instance: *instance, step: step.clone() };
                    assert!(
                        rows.contains_key(&ready),
                        "{id:?} is ready or undecided, and nobody will find it"
                    );
                }
            }
            (RowId::Ready { instance, step, .. }, _) => {
                let row = RowId::Step { instance: *instance, step: step.clone() };
                assert!(rows.contains_key(&row), "{id:?} points at nothing");
            }
            (RowId::Note(NoteId::Replace { .. } | NoteId::Move { .. }), _) => {
                panic!("{id:?} was not finished at opening")
            }
            _ => {}
        }
    }
}

/// No key is live twice, and no instance is in two stores.
fn once(stores: &[&Rows]) {
    let mut seen = BTreeSet::new();
    for (id, record) in stores.iter().flat_map(|rows| rows.iter()) {
        let live = matches!(record, Record::Key(held) if held.ended.is_none());
        if live || matches!(id, RowId::Instance { .. }) {
            assert!(seen.insert(id.clone()), "{id:?} is there twice");
        }
    }
}

fn defined_in_both(initial: &Rows, target: &Rows, numbers: &BTreeSet<u32>, phase: Phase) {
    for number in numbers {
        let name = definition(*number);
        let row = RowId::Definition { name: name.clone().into(), version: 1 };
        let gap = RowId::Note(NoteId::Gap { name: name.clone().into(), version: 1 });
        match (initial.get(&row), target.get(&row)) {
            (Some(one), Some(other)) => assert_eq!(one, other, "{name} differs"),
            (Some(_), None) => assert!(initial.contains_key(&gap), "{name} is not in the target, {phase}"),
            (None, Some(_)) => assert!(target.contains_key(&gap), "{name} is not in the initial, {phase}"),
            (None, None) => panic!("{name} is in neither store"),
        }
    }
}
