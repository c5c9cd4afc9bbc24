//! What the fixtures say, field by field.

use cutover_formats::access::{
    Access, AccessLine, AccessRecord, HandoverPhase, HandoverRecord, InWave, Seat,
};
use cutover_formats::keys::UNDECIDED;
use cutover_formats::meta::{
    CatalogRecord, EndedMigration, EngineRecord, JournalLine, MigrationRecord, Outcome, Retention, RunId,
    StoreRecord, TenantRecord,
};
use cutover_formats::record::{
    Answer, Assignment, ClosedRecord, DefinitionRecord, Ending, InstanceEnd, InstanceRecord, KeyEnd,
    KeyRecord, Marker, NoteRecord, PayloadRecord, QuarantineRecord, RequestRecord, RetryRecord, StepRecord,
    StepState, Token,
};
use cutover_formats::{
    Expiring, Family, InstanceId, NoteId, Phase, Record, Role, RowId, Status, StoreId, StoreStatus, Strategy,
    TenantId,
};

pub(crate) const ID: InstanceId = InstanceId::new(StoreId(3), 1_790_000_000_123, 0xA_BCDE_F012_3456);
const OLD: InstanceId = InstanceId::new(StoreId(2), 1_780_000_000_001, 1);
const KEY: &[u8] = &[0, 1, 0xFF];

pub(crate) fn keys() -> Vec<(&'static str, RowId<'static>)> {
    let name = || "a\0b".into();
    let expiry = |what| RowId::Expiry { at_ms: 1_790_000_000_789, what };
    vec![
        ("key-definition", RowId::Definition { name: name(), version: 2 }),
        ("key-key", RowId::Key { scope: "scope".into(), key: KEY.into() }),
        ("key-request", RowId::Request { id: b"req-1".into() }),
        ("key-instance", RowId::Instance { id: ID }),
        ("key-input", RowId::Input { id: ID }),
        ("key-output", RowId::Output { id: ID }),
        ("key-step", RowId::Step { instance: ID, step: "merge".into() }),
        (
            "key-ready",
            RowId::Ready {
                queue: "q\0".into(),
                at_ms: 1_790_000_000_456,
                instance: ID,
                step: "merge".into(),
            },
        ),
        (
            "key-ready-undecided",
            RowId::Ready {
                queue: UNDECIDED.into(),
                at_ms: 1_790_000_000_456,
                instance: ID,
                step: "merge".into(),
            },
        ),
        ("key-expiry-instance", expiry(Expiring::Instance(ID))),
        ("key-expiry-key", expiry(Expiring::Key { scope: "scope".into(), key: KEY.into() })),
        ("key-expiry-request", expiry(Expiring::Request { id: b"req-1".into() })),
        ("key-note-gap", RowId::Note(NoteId::Gap { name: name(), version: 2 })),
        ("key-note-replace", RowId::Note(NoteId::Replace { old: OLD })),
        ("key-note-copy-position", RowId::Note(NoteId::CopyPosition { migration: 41 })),
        ("key-note-quarantine", quarantine_row()),
        ("key-note-closed", RowId::Note(NoteId::Closed)),
        ("key-note-move", RowId::Note(NoteId::Move { instance: ID })),
    ]
}

/// Name, the row it would stand in, the record.
pub(crate) fn records() -> Vec<(&'static str, RowId<'static>, Record)> {
    let definition = DefinitionRecord {
        body: b"{}\n".to_vec(),
        content_type: "application/json".to_owned(),
        digest: digest(),
        created_ms: 1_790_000_000_001,
    };
    let payload = PayloadRecord { bytes: b"in\0".to_vec() };
    let definition_row = RowId::Definition { name: "a".into(), version: 1 };
    let ready_row = RowId::Ready { queue: "q".into(), at_ms: 1, instance: ID, step: "s".into() };
    let mut all = vec![
        ("record-definition", definition_row, Record::Definition(definition)),
        ("record-payload", RowId::Input { id: ID }, Record::Payload(payload)),
        ("record-marker", ready_row, Record::Marker(Marker {})),
    ];
    let key_row = || RowId::Key { scope: "s".into(), key: b"k".into() };
    all.extend(key_records().map(|(name, record)| (name, key_row(), Record::Key(record))));
    let request_row = || RowId::Request { id: b"r".into() };
    all.extend(requests().map(|(name, record)| (name, request_row(), Record::Request(record))));
    let instance_row = || RowId::Instance { id: ID };
    all.extend(instances().map(|(name, record)| (name, instance_row(), Record::Instance(record))));
    let step_row = || RowId::Step { instance: ID, step: "s".into() };
    all.extend(steps().map(|(name, record)| (name, step_row(), Record::Step(record))));
    let note_row = || RowId::Note(NoteId::CopyPosition { migration: 41 });
    all.extend(notes().map(|(name, record)| (name, note_row(), Record::Note(record))));
    let quarantine = QuarantineRecord {
        to: vec![0, 0, 0, 7, 0x62],
        reason: "torn".to_owned(),
        at_ms: 1_790_000_000_900,
        dropped: true,
    };
    let closed = Record::Closed(ClosedRecord { count: 4 });
    all.push(("record-closed", RowId::Note(NoteId::Closed), closed));
    all.push(("record-quarantine", quarantine_row(), Record::Quarantine(quarantine)));
    all
}

fn quarantine_row() -> RowId<'static> {
    RowId::Note(NoteId::Quarantine { family: Family::Steps, key: vec![0, 0, 0, 7, 0x61].into() })
}

fn digest() -> [u8; 32] {
    std::array::from_fn(|at| at as u8)
}

fn key_records() -> [(&'static str, KeyRecord); 2] {
    let live = KeyRecord { instance: ID, epoch: 5, ended: None, revision: 1 };
    let end = KeyEnd { ending: Ending::Failed, out_of_scope_ms: 1_790_000_100_000 };
    [
        ("record-key-live", live.clone()),
        ("record-key-ended", KeyRecord { ended: Some(end), revision: 2, ..live }),
    ]
}

fn requests() -> [(&'static str, RequestRecord); 4] {
    let answered = |answer| RequestRecord { digest: digest(), answer, until_ms: 1_790_000_200_000 };
    [
        ("record-request-started", answered(Answer::Started(ID))),
        ("record-request-existing", answered(Answer::Existing(ID))),
        ("record-request-conflict", answered(Answer::Conflict(ID))),
        ("record-request-rejected", answered(Answer::Rejected(ID, Ending::Completed))),
    ]
}

fn instances() -> [(&'static str, InstanceRecord); 2] {
    let live = InstanceRecord {
        definition: "a\0b".to_owned(),
        version: 2,
        key: Some(("scope".to_owned(), KEY.to_vec())),
        epoch: 5,
        ended: None,
        cancel_requested: false,
        open_steps: 3,
        launched_ms: 1_790_000_000_123,
        start_ms: 1_790_000_000_456,
        revision: 1,
    };
    let end = InstanceEnd {
        ending: Ending::Terminated,
        at_ms: 1_790_000_000_500,
        collect_ms: 1_790_000_100_500,
        reason: "replaced".to_owned(),
    };
    let ended = InstanceRecord {
        definition: "etl".to_owned(),
        version: 1,
        key: None,
        epoch: 6,
        ended: Some(end),
        cancel_requested: true,
        open_steps: 0,
        launched_ms: 1_790_000_000_123,
        start_ms: 1_790_000_000_123,
        revision: 4,
    };
    [("record-instance-live", live), ("record-instance-ended", ended)]
}

fn steps() -> [(&'static str, StepRecord); 5] {
    let first = |failure: &str| Assignment {
        worker: "w1".to_owned(),
        token: Token { incarnation: 4, counter: 17 },
        from_ms: 1_790_000_000_300,
        until_ms: 1_790_000_000_400,
        failure: Some(failure.to_owned()),
    };
    let second = Assignment {
        worker: "w2".to_owned(),
        token: Token { incarnation: 5, counter: 1 },
        from_ms: 1_790_000_000_700,
        until_ms: 1_790_000_000_800,
        failure: None,
    };
    let retry = RetryRecord { first_ms: 1000, most_ms: 60_000, attempts: 3, within_ms: 3_600_000 };
    let step = |state, history: Vec<Assignment>, result: &[u8], revision| StepRecord {
        state,
        queue: "q".to_owned(),
        input: b"{\"n\":1}".to_vec(),
        saved: Vec::new(),
        result: result.to_vec(),
        retry,
        attempts: history.len() as u32,
        counted_from: 0,
        counted_ms: 1_790_000_000_250,
        history,
        revision,
    };
    let waiting = step(StepState::Waiting { parents: 2 }, vec![], b"", 1);
    let ready = step(StepState::Ready { at_ms: 1_790_000_000_600 }, vec![first("exit 1")], b"", 3);
    // It was decided once already to try it again.
    let since = StepState::NeedsDecision { since_ms: 1_790_000_000_900 };
    let undecided = step(since, vec![first("exit 1"), first("exit 2")], b"", 6);
    [
        ("record-step-waiting", StepRecord { counted_ms: 0, ..waiting }),
        ("record-step-ready", StepRecord { saved: b"1 of 2".to_vec(), ..ready }),
        ("record-step-undecided", StepRecord { counted_from: 1, counted_ms: 1_790_000_000_650, ..undecided }),
        ("record-step-completed", step(StepState::Completed, vec![first("exit 1"), second], b"ok", 5)),
        ("record-step-failed", step(StepState::Failed, vec![first("")], b"", 2)),
    ]
}

fn notes() -> [(&'static str, NoteRecord); 4] {
    let replace = NoteRecord::Replace {
        old: OLD,
        old_store: StoreId(2),
        at_ms: 1_790_000_000_500,
        reason: "replaced".to_owned(),
        rows: vec![(2, b"k\0".to_vec(), b"v".to_vec()), (7, b"k2".to_vec(), vec![])],
    };
    let position =
        NoteRecord::CopyPosition { name: "a\0b".to_owned(), version: 2, copied: 100, bytes: 204_800 };
    [
        ("record-note-gap", NoteRecord::Gap),
        ("record-note-replace", replace),
        ("record-note-copy-position", position),
        ("record-note-move", NoteRecord::Move { to: StoreId(4), at_ms: 1_790_000_000_950 }),
    ]
}

const RETENTION: Retention = Retention { instance_ms: 86_400_000, key_ms: 3_600_000, request_ms: 60_000 };

pub(crate) fn stable_tenant() -> TenantRecord {
    TenantRecord {
        id: TenantId(7),
        name: "acme".to_owned(),
        deleting: false,
        status: Status::stable(1, StoreId(3)),
        entered_ms: 1_790_000_000_000,
        migration: None,
        ended: Vec::new(),
        retire: vec![],
        retention: RETENTION,
        scopes: vec![],
        journal: JournalLine {
            epoch: 1,
            seq: 1,
            at_ms: 1_790_000_000_000,
            who: "operator".to_owned(),
            from: Phase::Stable,
            to: Phase::Stable,
            why: "created".to_owned(),
        },
    }
}

pub(crate) fn migrating_tenant() -> TenantRecord {
    TenantRecord {
        id: TenantId(7),
        name: "ac\0me".to_owned(),
        deleting: false,
        status: Status {
            epoch: 9,
            phase: Phase::RollingBack,
            strategy: Strategy::Drain,
            primary: Role::Target,
            initial: StoreId(3),
            target: Some(StoreId(4)),
            initial_status: StoreStatus::Open,
            target_status: StoreStatus::Closed,
        },
        entered_ms: 1_790_000_000_900,
        migration: Some(MigrationRecord {
            id: 6,
            goal: Role::Initial,
            hold_switch: false,
            hold_complete: true,
            paused: false,
            rate: 1_048_576,
            dwell_ms: [0, 3000, 0, 3000, 0, 0, 3000],
            abandon: false,
            started_ms: 1_790_000_000_600,
            move_older_ms: Some(5000),
            move_rate: 1000,
            run: Some(RunId { id: "upgrade".to_owned(), attempt: "2".to_owned() }),
        }),
        ended: vec![EndedMigration {
            id: 2,
            run: None,
            outcome: Outcome::Cancelled,
            at_ms: 1_790_000_000_200,
        }],
        retire: vec![StoreId(1), StoreId(2)],
        retention: RETENTION,
        scopes: vec![("orders".to_owned(), Retention { instance_ms: 1000, key_ms: 2000, request_ms: 3000 })],
        journal: JournalLine {
            epoch: 9,
            seq: 14,
            at_ms: 1_790_000_000_900,
            who: "driver".to_owned(),
            from: Phase::PreRollback,
            to: Phase::RollingBack,
            why: "reverse".to_owned(),
        },
    }
}

pub(crate) fn journal_line() -> JournalLine {
    JournalLine { why: "\"quoted\"\nand a\0 and ü".to_owned(), ..migrating_tenant().journal }
}

pub(crate) fn catalog() -> CatalogRecord {
    let retired = StoreRecord {
        id: StoreId(1),
        driver: "rocksdb".to_owned(),
        path: "stores/1-rocksdb".to_owned(),
        layout: "v1".to_owned(),
        dedicated: false,
        retired: true,
    };
    let used = StoreRecord {
        id: StoreId(2),
        driver: "sled".to_owned(),
        path: "/mnt/b/2-sled".to_owned(),
        layout: "v1".to_owned(),
        dedicated: true,
        retired: false,
    };
    CatalogRecord { stores: vec![retired, used], next_tenant: 8 }
}

pub(crate) fn access() -> AccessRecord {
    let seat =
        |runner: &str, access, epoch, since_ms| Seat { runner: runner.to_owned(), access, epoch, since_ms };
    AccessRecord {
        tenant: TenantId(7),
        epoch: 5,
        seats: vec![
            seat("gone", Access::Terminated, 3, 1_790_000_000_300),
            seat("o\0ld", Access::Deactivated, 5, 1_790_000_000_900),
            seat("new", Access::Primary, 5, 1_790_000_000_900),
        ],
        handover: Some(HandoverRecord {
            id: 4,
            from: Some("o\0ld".to_owned()),
            to: "new".to_owned(),
            phase: HandoverPhase::Flip,
            flip_at_ms: Some(1_790_000_000_800),
            patience_ms: 5000,
            earlier: vec![
                seat("o\0ld", Access::Primary, 1, 1_790_000_000_100),
                seat("new", Access::Standby, 2, 1_790_000_000_200),
            ],
            started_ms: 1_790_000_000_700,
            wave: Some(InWave::Serves),
        }),
        journal: AccessLine {
            seq: 9,
            epoch: 5,
            at_ms: 1_790_000_000_900,
            who: "driver".to_owned(),
            handover: 4,
            step: 4,
            runner: "new".to_owned(),
            why: "durable".to_owned(),
        },
    }
}

pub(crate) const fn engine() -> EngineRecord {
    EngineRecord { incarnation: 33, clock_ms: 1_790_000_000_999, clean: true }
}
