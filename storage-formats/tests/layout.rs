//! Many random rows held against the contract of a layout, and layouts that break it in one place each.

#![expect(clippy::expect_used, reason = "a test")]

#[expect(unreachable_pub, reason = "shared with other tests and with the fuzz targets")]
mod common;

use std::collections::HashSet;

use common::{Rows, Source};
use cutover_formats::access::AccessLine;
use cutover_formats::layout::check;
use cutover_formats::record::{Marker, PayloadRecord};
use cutover_formats::{
    Expiring, Family, FormatError, InstanceId, Layout, NoteId, Prefix, Record, RowId, TenantId, V1, codec,
    journal,
};

struct Random(fastrand::Rng);

impl Source for Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0.u64(..end)
    }

    fn number(&mut self) -> u64 {
        self.0.u64(..)
    }
}

const ROUNDS: u64 = if cfg!(miri) { 2 } else { 2_000 };
const ROWS: u64 = if cfg!(miri) { 8 } else { 40 };

#[test]
fn random_rows_hold_the_contract() {
    let mut families = HashSet::new();
    for seed in 0..ROUNDS {
        let rows = Rows(Random(fastrand::Rng::with_seed(seed))).rows(ROWS);
        families.extend(rows.iter().map(|(id, _)| id.family()));
        check(&V1, &rows).unwrap_or_else(|say| panic!("seed {seed}: {say}"));
    }
    assert!(cfg!(miri) || families.len() == Family::ALL.len(), "only {families:?}");
}

#[test]
fn random_slots_come_back() {
    use codec::RecordType;
    for seed in 0..ROUNDS {
        let mut rows = Rows(Random(fastrand::Rng::with_seed(seed)));
        let (tenant, catalog, engine) = (rows.tenant(), rows.catalog(), rows.engine());
        let access = rows.access();
        let sealed = codec::seal_slot(RecordType::Tenant, seed, &tenant).unwrap();
        assert_eq!(codec::open_slot(RecordType::Tenant, &sealed), Ok((seed, tenant)));
        let sealed = codec::seal_slot(RecordType::Catalog, seed, &catalog).unwrap();
        assert_eq!(codec::open_slot(RecordType::Catalog, &sealed), Ok((seed, catalog)));
        let sealed = codec::seal_slot(RecordType::Engine, seed, &engine).unwrap();
        assert_eq!(codec::open_slot(RecordType::Engine, &sealed), Ok((seed, engine)));
        let sealed = codec::seal_slot(RecordType::Access, seed, &access).unwrap();
        let line = journal::seal(&access.journal, Some(&sealed)).unwrap();
        let read = journal::open_as::<AccessLine>(line.as_bytes()).unwrap();
        assert_eq!((&read.line, read.record.as_ref(), read.damaged), (&access.journal, Some(&sealed), false));
        assert_eq!(codec::open_slot(RecordType::Access, &sealed), Ok((seed, access)));
    }
}

/// Any bytes as a key: an error or a row, and what is a row is written in the same bytes again. So no two keys are the
/// same row.
#[test]
fn any_bytes_are_one_row_or_none() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut read = 0;
    for _ in 0..ROUNDS * 20 {
        let family = Family::ALL[rng.usize(..8)];
        let len = rng.usize(..40);
        // Bytes that the escapes and kinds are made of, most of the time.
        let bytes: Vec<u8> =
            (0..len).map(|_| rng.choice([0, 0, 0, 1, 1, 2, 3, 4, 0xFF, 0xFF, 0x61]).unwrap()).collect();
        if let Ok((tenant, id)) = V1.read_key(family, &bytes) {
            let mut again = Vec::new();
            V1.key(tenant, &id, &mut again);
            assert_eq!(again, bytes, "{family:?} {id:?}");
            read += 1;
        }
    }
    assert!(read > ROUNDS / 10, "only {read} were rows");
}

/// A layout that is `V1` but for one fault.
struct Faulty(Fault);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    ForgetsTheScope,
    LittleEndianVersions,
    NoTenant,
    LosesEmptyPayloads,
    QueuesByHalfTheirName,
    ScopesOfEverybody,
    AllOfEverybody,
}

impl Layout for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn key(&self, tenant: TenantId, id: &RowId<'_>, out: &mut Vec<u8>) {
        let tenant = if self.0 == Fault::NoTenant { TenantId(7) } else { tenant };
        match id {
            RowId::Key { key, .. } if self.0 == Fault::ForgetsTheScope => {
                V1.key(tenant, &RowId::Key { scope: "".into(), key: key.clone() }, out);
            }
            RowId::Definition { name, version } if self.0 == Fault::LittleEndianVersions => {
                V1.key(tenant, &RowId::Definition { name: name.clone(), version: version.swap_bytes() }, out);
            }
            _ => V1.key(tenant, id, out),
        }
    }

    fn prefix(&self, tenant: TenantId, prefix: &Prefix<'_>, out: &mut Vec<u8>) {
        V1.prefix(tenant, prefix, out);
        match (self.0, prefix) {
            // Without the end of the name, `q` is a prefix of `queue`.
            (Fault::QueuesByHalfTheirName, Prefix::Queue(_)) => out.truncate(out.len() - 2),
            (Fault::ScopesOfEverybody, Prefix::Scope(_)) => out.truncate(4),
            (Fault::AllOfEverybody, Prefix::All(_)) => out.clear(),
            _ => {}
        }
    }

    fn value(&self, record: &Record, out: &mut Vec<u8>) -> Result<(), FormatError> {
        V1.value(record, out)
    }

    fn read_key(&self, family: Family, key: &[u8]) -> Result<(TenantId, RowId<'static>), FormatError> {
        let (tenant, id) = V1.read_key(family, key)?;
        match id {
            RowId::Definition { name, version } if self.0 == Fault::LittleEndianVersions => {
                Ok((tenant, RowId::Definition { name, version: version.swap_bytes() }))
            }
            _ => Ok((tenant, id)),
        }
    }

    fn read_value(&self, id: &RowId<'_>, value: &[u8]) -> Result<Record, FormatError> {
        match V1.read_value(id, value)? {
            Record::Payload(payload) if self.0 == Fault::LosesEmptyPayloads && payload.bytes.is_empty() => {
                Err(FormatError::Empty { what: "a payload" })
            }
            record => Ok(record),
        }
    }
}

#[test]
fn a_layout_that_breaks_the_contract_is_told_where() {
    let record = |id: &RowId<'_>| match id {
        RowId::Input { .. } => Record::Payload(PayloadRecord { bytes: vec![] }),
        _ => Record::Marker(Marker {}),
    };
    let ready = |queue: &'static str| RowId::Ready {
        queue: queue.into(),
        at_ms: 1,
        instance: InstanceId(1),
        step: "s".into(),
    };
    let define = |version| RowId::Definition { name: "a".into(), version };
    let key = |scope: &'static str| RowId::Key { scope: scope.into(), key: b"k".into() };
    let cases: [(Fault, Vec<RowId<'_>>, &str); 7] = [
        (Fault::ForgetsTheScope, vec![key("s")], "the key of Key"),
        (Fault::LittleEndianVersions, vec![define(1), define(256)], "do not sort like their keys"),
        (Fault::NoTenant, vec![define(1)], "of tenant 7 sorts behind"),
        (Fault::LosesEmptyPayloads, vec![RowId::Input { id: InstanceId(1) }], "the record of Input"),
        (Fault::QueuesByHalfTheirName, vec![ready("q"), ready("queue")], "Queue(\"q\")"),
        (Fault::ScopesOfEverybody, vec![key("s"), key("t")], "Scope(\"s\")"),
        (Fault::AllOfEverybody, vec![key("s")], "of tenant 7 holds"),
    ];
    for (fault, ids, says) in cases {
        let rows: Vec<_> = ids
            .iter()
            .map(|id| {
                (id.clone(), if fault == Fault::LosesEmptyPayloads { record(id) } else { any_record(id) })
            })
            .collect();
        assert_eq!(check(&V1, &rows), Ok(()));
        let said = check(&Faulty(fault), &rows).unwrap_err();
        assert!(said.contains(says), "{said}");
    }
}

/// A record that may stand in this row.
fn any_record(id: &RowId<'_>) -> Record {
    let mut rows = Rows(Random(fastrand::Rng::with_seed(1)));
    loop {
        let (other, record) = rows.row();
        if other.family() == id.family() && std::mem::discriminant(&other) == std::mem::discriminant(id) {
            return record;
        }
    }
}

#[test]
fn a_prefix_holds_exactly_its_rows() {
    let id = InstanceId(5);
    let step = RowId::Step { instance: id, step: "s".into() };
    assert!(Prefix::StepsOf(id).holds(&step) && !Prefix::StepsOf(InstanceId(6)).holds(&step));
    assert!(Prefix::Heads.holds(&RowId::Instance { id }) && !Prefix::Heads.holds(&RowId::Input { id }));
    assert!(Prefix::All(Family::Steps).holds(&step) && !Prefix::All(Family::Ready).holds(&step));
    let notes = [
        NoteId::Gap { name: "".into(), version: 0 },
        NoteId::Replace { old: id },
        NoteId::CopyPosition { migration: 1 },
        NoteId::Move { instance: id },
    ];
    let prefixes = [Prefix::Gaps, Prefix::Replaces, Prefix::CopyPositions, Prefix::Moves];
    for (at, prefix) in prefixes.into_iter().enumerate() {
        for (other, note) in notes.iter().enumerate() {
            assert_eq!(prefix.holds(&RowId::Note(note.clone())), at == other);
        }
    }
    let expiry = RowId::Expiry { at_ms: 1, what: Expiring::Instance(id) };
    assert!(!Prefix::Heads.holds(&expiry));
}
