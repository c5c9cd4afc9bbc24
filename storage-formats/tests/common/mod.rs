//! Any row, from any source of choices: fastrand in the tests, the fuzzer's bytes in `fuzz/`.

use cutover_formats::access::{
    Access, AccessLine, AccessRecord, HandoverPhase, HandoverRecord, InWave, Seat,
};
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

/// Where choices come from.
pub trait Source {
    /// A number below `end`, which is not 0. Once the source has run dry: 0.
    fn below(&mut self, end: u64) -> u64;
    /// Any number.
    fn number(&mut self) -> u64;
}

/// What the choices make.
pub struct Rows<S>(pub S);

impl<S: Source> Rows<S> {
    /// Some rows: few names, so that neighbours and repetitions are common.
    pub fn rows(&mut self, most: u64) -> Vec<(RowId<'static>, Record)> {
        (0..self.0.below(most + 1)).map(|_| self.row()).collect()
    }

    /// A row of any kind.
    pub fn row(&mut self) -> (RowId<'static>, Record) {
        match self.0.below(12) {
            0 => {
                let row = RowId::Definition { name: self.name().into(), version: self.small() as u32 };
                (row, Record::Definition(self.definition()))
            }
            1 => {
                let row = RowId::Key { scope: self.name().into(), key: self.bytes().into() };
                (row, Record::Key(self.key()))
            }
            2 => (RowId::Request { id: self.bytes().into() }, Record::Request(self.request())),
            3 => (RowId::Instance { id: self.id() }, Record::Instance(self.instance())),
            4 => (RowId::Input { id: self.id() }, self.payload()),
            5 => (RowId::Output { id: self.id() }, self.payload()),
            6 => {
                let row = RowId::Step { instance: self.id(), step: self.name().into() };
                (row, Record::Step(self.step()))
            }
            7 => {
                let (queue, step) = (self.name().into(), self.name().into());
                let row = RowId::Ready { queue, at_ms: self.small(), instance: self.id(), step };
                (row, Record::Marker(Marker {}))
            }
            8 => {
                let row = RowId::Expiry { at_ms: self.small(), what: self.expiring() };
                (row, Record::Marker(Marker {}))
            }
            9 => (RowId::Note(NoteId::Closed), Record::Closed(ClosedRecord { count: self.0.number() })),
            10 => (RowId::Note(self.note_id()), Record::Note(self.note())),
            _ => {
                let at = self.0.below(Family::ALL.len() as u64) as usize;
                let family = Family::ALL.get(at).copied().unwrap_or(Family::Notes);
                let row = RowId::Note(NoteId::Quarantine { family, key: self.bytes().into() });
                (row, Record::Quarantine(self.quarantine()))
            }
        }
    }

    /// Anything that stands in a slot of a tenant.
    pub fn tenant(&mut self) -> TenantRecord {
        TenantRecord {
            id: TenantId(self.small() as u32),
            name: self.name(),
            deleting: self.coin(),
            status: self.status(),
            entered_ms: self.small(),
            migration: self.coin().then(|| self.migration()),
            ended: self.list(|rows| EndedMigration {
                id: rows.small(),
                run: rows.run(),
                outcome: rows.one_of([Outcome::Completed, Outcome::Cancelled, Outcome::RolledBack]),
                at_ms: rows.small(),
            }),
            retire: self.list(|rows| StoreId(rows.small() as u32)),
            retention: self.retention(),
            scopes: self.list(|rows| (rows.name(), rows.retention())),
            journal: JournalLine {
                epoch: self.small(),
                seq: self.small(),
                at_ms: self.small(),
                who: self.name(),
                from: self.one_of(Phase::ALL),
                to: self.one_of(Phase::ALL),
                why: self.name(),
            },
        }
    }

    /// Any catalog.
    pub fn catalog(&mut self) -> CatalogRecord {
        let stores = self.list(|rows| StoreRecord {
            id: StoreId(rows.small() as u32),
            driver: rows.name(),
            path: rows.name(),
            layout: rows.name(),
            dedicated: rows.coin(),
            retired: rows.coin(),
        });
        CatalogRecord { stores, next_tenant: self.small() as u32 }
    }

    /// Any engine record.
    pub fn engine(&mut self) -> EngineRecord {
        EngineRecord { incarnation: self.small(), clock_ms: self.small(), clean: self.coin() }
    }

    /// Anything that stands in a slot of who may act for a tenant.
    pub fn access(&mut self) -> AccessRecord {
        AccessRecord {
            tenant: TenantId(self.small() as u32),
            epoch: self.small(),
            seats: self.list(Self::seat),
            handover: self.coin().then(|| self.handover()),
            journal: AccessLine {
                seq: self.small(),
                epoch: self.small(),
                at_ms: self.small(),
                who: self.name(),
                handover: self.small(),
                step: self.small() as u8,
                runner: self.name(),
                why: self.name(),
            },
        }
    }

    fn seat(&mut self) -> Seat {
        let all = [Access::Primary, Access::Standby, Access::Deactivated, Access::Terminated];
        Seat { runner: self.name(), access: self.one_of(all), epoch: self.small(), since_ms: self.small() }
    }

    fn handover(&mut self) -> HandoverRecord {
        let all = [HandoverPhase::Prepare, HandoverPhase::Flip, HandoverPhase::Cleanup, HandoverPhase::Back];
        HandoverRecord {
            id: self.small(),
            from: self.coin().then(|| self.name()),
            to: self.name(),
            phase: self.one_of(all),
            flip_at_ms: self.coin().then(|| self.small()),
            patience_ms: self.small(),
            earlier: self.list(Self::seat),
            started_ms: self.small(),
            wave: self.coin().then(|| self.one_of([InWave::Silent, InWave::Serves])),
        }
    }

    fn status(&mut self) -> Status {
        let statuses = [StoreStatus::Open, StoreStatus::Closed];
        Status {
            epoch: self.small(),
            phase: self.one_of(Phase::ALL),
            strategy: Strategy::Drain,
            primary: self.one_of([Role::Initial, Role::Target]),
            initial: StoreId(self.small() as u32),
            target: self.coin().then(|| StoreId(self.small() as u32)),
            initial_status: self.one_of(statuses),
            target_status: self.one_of(statuses),
        }
    }

    fn migration(&mut self) -> MigrationRecord {
        MigrationRecord {
            id: self.small(),
            goal: self.one_of([Role::Initial, Role::Target]),
            hold_switch: self.coin(),
            hold_complete: self.coin(),
            paused: self.coin(),
            rate: self.small(),
            dwell_ms: std::array::from_fn(|_| self.small()),
            abandon: self.coin(),
            started_ms: self.small(),
            move_older_ms: self.coin().then(|| self.small()),
            move_rate: self.small() as u32,
            run: self.run(),
        }
    }

    fn run(&mut self) -> Option<RunId> {
        self.coin().then(|| RunId { id: self.name(), attempt: self.name() })
    }

    fn retention(&mut self) -> Retention {
        Retention { instance_ms: self.small(), key_ms: self.small(), request_ms: self.small() }
    }

    fn definition(&mut self) -> DefinitionRecord {
        DefinitionRecord {
            body: self.bytes(),
            content_type: self.name(),
            digest: self.digest(),
            created_ms: self.small(),
        }
    }

    fn key(&mut self) -> KeyRecord {
        let ended = self.coin().then(|| KeyEnd { ending: self.ending(), out_of_scope_ms: self.small() });
        KeyRecord { instance: self.id(), epoch: self.small(), ended, revision: self.small() }
    }

    fn request(&mut self) -> RequestRecord {
        let answer = match self.0.below(4) {
            0 => Answer::Started(self.id()),
            1 => Answer::Existing(self.id()),
            2 => Answer::Conflict(self.id()),
            _ => Answer::Rejected(self.id(), self.ending()),
        };
        RequestRecord { digest: self.digest(), answer, until_ms: self.small() }
    }

    fn instance(&mut self) -> InstanceRecord {
        let ended = self.coin().then(|| InstanceEnd {
            ending: self.ending(),
            at_ms: self.small(),
            collect_ms: self.small(),
            reason: self.name(),
        });
        InstanceRecord {
            definition: self.name(),
            version: self.small() as u32,
            key: self.coin().then(|| (self.name(), self.bytes())),
            epoch: self.small(),
            ended,
            cancel_requested: self.coin(),
            open_steps: self.small() as u32,
            launched_ms: self.small(),
            start_ms: self.small(),
            revision: self.small(),
        }
    }

    fn payload(&mut self) -> Record {
        Record::Payload(PayloadRecord { bytes: self.bytes() })
    }

    fn step(&mut self) -> StepRecord {
        let state = match self.0.below(5) {
            0 => StepState::Waiting { parents: self.small() as u32 },
            1 => StepState::Ready { at_ms: self.small() },
            2 => StepState::Completed,
            3 => StepState::Failed,
            _ => StepState::NeedsDecision { since_ms: self.small() },
        };
        let history = self.list(|rows| Assignment {
            worker: rows.name(),
            token: Token { incarnation: rows.small(), counter: rows.small() },
            from_ms: rows.small(),
            until_ms: rows.small(),
            failure: rows.coin().then(|| rows.name()),
        });
        StepRecord {
            state,
            queue: self.name(),
            input: self.bytes(),
            saved: self.bytes(),
            result: self.bytes(),
            retry: RetryRecord {
                first_ms: self.small(),
                most_ms: self.small(),
                attempts: self.small() as u32,
                within_ms: self.small(),
            },
            attempts: self.small() as u32,
            counted_from: self.small() as u32,
            counted_ms: self.small(),
            history,
            revision: self.small(),
        }
    }

    fn note(&mut self) -> NoteRecord {
        match self.0.below(4) {
            0 => NoteRecord::Gap,
            1 => NoteRecord::Replace {
                old: self.id(),
                old_store: StoreId(self.small() as u32),
                at_ms: self.small(),
                reason: self.name(),
                rows: self.list(|rows| (rows.small() as u8, rows.bytes(), rows.bytes())),
            },
            2 => NoteRecord::CopyPosition {
                name: self.name(),
                version: self.small() as u32,
                copied: self.small(),
                bytes: self.small(),
            },
            _ => NoteRecord::Move { to: StoreId(self.small() as u32), at_ms: self.small() },
        }
    }

    fn expiring(&mut self) -> Expiring<'static> {
        match self.0.below(3) {
            0 => Expiring::Instance(self.id()),
            1 => Expiring::Key { scope: self.name().into(), key: self.bytes().into() },
            _ => Expiring::Request { id: self.bytes().into() },
        }
    }

    fn quarantine(&mut self) -> QuarantineRecord {
        QuarantineRecord {
            to: self.bytes(),
            reason: self.name(),
            at_ms: self.0.number(),
            dropped: self.coin(),
        }
    }

    fn note_id(&mut self) -> NoteId<'static> {
        match self.0.below(4) {
            0 => NoteId::Gap { name: self.name().into(), version: self.small() as u32 },
            1 => NoteId::Replace { old: self.id() },
            2 => NoteId::CopyPosition { migration: self.small() },
            _ => NoteId::Move { instance: self.id() },
        }
    }

    /// Few and awkward: empty, extensions of each other, the bytes of the escapes.
    fn name(&mut self) -> String {
        const PIECES: [&str; 8] = ["\0", "\u{1}", "\u{ff}", "a", "b", "\u{10ffff}", "\0\u{1}", "queue"];
        (0..self.0.below(4)).map(|_| self.one_of(PIECES)).collect()
    }

    fn bytes(&mut self) -> Vec<u8> {
        const PIECES: [&[u8]; 6] = [&[0], &[1], &[0xFF], &[0, 1], &[0, 0xFF], b"key"];
        let pieces: Vec<&[u8]> = (0..self.0.below(4)).map(|_| self.one_of(PIECES)).collect();
        pieces.concat()
    }

    fn digest(&mut self) -> [u8; 32] {
        std::array::from_fn(|_| self.0.below(256) as u8)
    }

    /// Often one that was there before, sometimes anything.
    fn id(&mut self) -> InstanceId {
        let (store, millis, random) = (self.small(), self.small(), self.small());
        InstanceId::new(StoreId(store as u32), millis, random)
    }

    /// A number that is small, at an edge, or anything.
    fn small(&mut self) -> u64 {
        const EDGES: [u64; 5] = [u8::MAX as u64, u8::MAX as u64 + 1, u32::MAX as u64, u64::MAX - 1, u64::MAX];
        match self.0.below(4) {
            0 | 1 => self.0.below(4),
            2 => self.one_of(EDGES),
            _ => self.0.number(),
        }
    }

    fn ending(&mut self) -> Ending {
        self.one_of([Ending::Completed, Ending::Failed, Ending::Cancelled, Ending::Terminated])
    }

    fn coin(&mut self) -> bool {
        self.0.below(2) == 1
    }

    fn one_of<T, const N: usize>(&mut self, choices: [T; N]) -> T {
        let at = self.0.below(N as u64) as usize;
        choices.into_iter().nth(at).expect("`below` stays below")
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.0.below(4)).map(|_| one(self)).collect()
    }
}
