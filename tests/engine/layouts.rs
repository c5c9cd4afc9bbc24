//! A layout that the engine has never seen: keys and values that a person can read. It is held against the contract, and a
//! tenant moves into it and back, and stays.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover::formats::layout::check;
use cutover::formats::{
    Expiring, Family, FormatError, InstanceId, Layout, NoteId, Prefix, Record, RowId, TenantId,
};
use cutover::store::Driver as _;
use cutover::store::memory::MemoryDriver;
use cutover::{
    Builder, Completion, ConflictPolicy, Ending, Engine, ErrorKind, Hold, InstanceState, Launched,
    MigrationOptions, Phase, Settled, StoreSpec, Tenant, TenantOptions,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::common::{DROP, KEEP, LONG, keyed, many, memory, reach, settle, started, tenant, with_step};
use crate::rows::{Rows, Source};

/// Keys are lower-case hex digits, `.` behind a text in the middle; values are JSON.
struct Readable;

type Read<T> = Result<T, FormatError>;

const KEY: FormatError = FormatError::Malformed { what: "a readable key" };

impl Layout for Readable {
    fn name(&self) -> &'static str {
        "readable"
    }

    fn key(&self, tenant: TenantId, id: &RowId<'_>, out: &mut Vec<u8>) {
        number(out, tenant.0.into(), 8);
        match id {
            RowId::Definition { name, version } => versioned(out, name, *version),
            RowId::Key { scope, key } => pair(out, scope, key),
            RowId::Request { id } => text(out, id),
            RowId::Instance { id } => part(out, b'a', *id),
            RowId::Input { id } => part(out, b'b', *id),
            RowId::Output { id } => part(out, b'c', *id),
            RowId::Step { instance, step } => {
                number(out, instance.0, 32);
                text(out, step.as_bytes());
            }
            RowId::Ready { queue, at_ms, instance, step } => {
                ended(out, queue);
                number(out, (*at_ms).into(), 16);
                number(out, instance.0, 32);
                text(out, step.as_bytes());
            }
            RowId::Expiry { at_ms, what } => {
                number(out, (*at_ms).into(), 16);
                match what {
                    Expiring::Instance(id) => part(out, b'a', *id),
                    Expiring::Key { scope, key } => {
                        out.push(b'b');
                        pair(out, scope, key);
                    }
                    Expiring::Request { id } => {
                        out.push(b'c');
                        text(out, id);
                    }
                }
            }
            RowId::Note(NoteId::Gap { name, version }) => {
                out.push(b'a');
                versioned(out, name, *version);
            }
            RowId::Note(NoteId::Replace { old }) => part(out, b'b', *old),
            RowId::Note(NoteId::CopyPosition { migration }) => {
                out.push(b'c');
                number(out, (*migration).into(), 16);
            }
            RowId::Note(NoteId::Closed) => out.push(b'e'),
            RowId::Note(NoteId::Move { instance }) => part(out, b'f', *instance),
            RowId::Note(NoteId::Quarantine { family, key }) => {
                out.push(b'd');
                number(out, (*family as u8).into(), 2);
                text(out, key);
            }
        }
    }

    fn prefix(&self, tenant: TenantId, prefix: &Prefix<'_>, out: &mut Vec<u8>) {
        number(out, tenant.0.into(), 8);
        match prefix {
            Prefix::All(_) => {}
            Prefix::Heads | Prefix::Gaps => out.push(b'a'),
            Prefix::Replaces => out.push(b'b'),
            Prefix::CopyPositions => out.push(b'c'),
            Prefix::Quarantined => out.push(b'd'),
            Prefix::Moves => out.push(b'f'),
            Prefix::StepsOf(id) => number(out, id.0, 32),
            Prefix::Queue(name) | Prefix::Versions(name) | Prefix::Scope(name) => ended(out, name),
        }
    }

    fn value(&self, record: &Record, out: &mut Vec<u8>) -> Read<()> {
        fn json<T: Serialize>(record: &T, out: &mut Vec<u8>) -> Read<()> {
            serde_json::to_writer(out, record).map_err(|_| FormatError::Malformed { what: "a record" })
        }
        match record {
            Record::Definition(record) => json(record, out),
            Record::Key(record) => json(record, out),
            Record::Request(record) => json(record, out),
            Record::Instance(record) => json(record, out),
            Record::Payload(record) => json(record, out),
            Record::Step(record) => json(record, out),
            Record::Marker(record) => json(record, out),
            Record::Note(record) => json(record, out),
            Record::Quarantine(record) => json(record, out),
            Record::Closed(record) => json(record, out),
        }
    }

    fn read_key(&self, family: Family, key: &[u8]) -> Read<(TenantId, RowId<'static>)> {
        let mut key = Digits(key);
        let tenant = TenantId(key.number(8)? as u32);
        let id = match family {
            Family::Definitions => RowId::Definition { name: key.ended()?.into(), version: key.version()? },
            Family::Keys => RowId::Key { scope: key.ended()?.into(), key: key.tail()?.into() },
            Family::Requests => RowId::Request { id: key.tail()?.into() },
            Family::Instances => match key.kind()? {
                b'a' => RowId::Instance { id: key.id()? },
                b'b' => RowId::Input { id: key.id()? },
                b'c' => RowId::Output { id: key.id()? },
                _ => return Err(KEY),
            },
            Family::Steps => RowId::Step { instance: key.id()?, step: key.text_tail()?.into() },
            Family::Ready => RowId::Ready {
                queue: key.ended()?.into(),
                at_ms: key.number(16)? as u64,
                instance: key.id()?,
                step: key.text_tail()?.into(),
            },
            Family::Expiry => {
                let at_ms = key.number(16)? as u64;
                let what = match key.kind()? {
                    b'a' => Expiring::Instance(key.id()?),
                    b'b' => Expiring::Key { scope: key.ended()?.into(), key: key.tail()?.into() },
                    b'c' => Expiring::Request { id: key.tail()?.into() },
                    _ => return Err(KEY),
                };
                RowId::Expiry { at_ms, what }
            }
            Family::Notes => RowId::Note(match key.kind()? {
                b'a' => NoteId::Gap { name: key.ended()?.into(), version: key.version()? },
                b'b' => NoteId::Replace { old: key.id()? },
                b'c' => NoteId::CopyPosition { migration: key.number(16)? as u64 },
                b'd' => {
                    let family = Family::from_u8(key.number(2)? as u8).ok_or(KEY)?;
                    NoteId::Quarantine { family, key: key.tail()?.into() }
                }
                b'e' => NoteId::Closed,
                b'f' => NoteId::Move { instance: key.id()? },
                _ => return Err(KEY),
            }),
        };
        if key.0.is_empty() { Ok((tenant, id)) } else { Err(KEY) }
    }

    fn read_value(&self, id: &RowId<'_>, value: &[u8]) -> Read<Record> {
        fn json<T: DeserializeOwned>(value: &[u8]) -> Read<T> {
            serde_json::from_slice(value).map_err(|_| FormatError::Malformed { what: "a readable value" })
        }
        Ok(match id.family() {
            Family::Definitions => Record::Definition(json(value)?),
            Family::Keys => Record::Key(json(value)?),
            Family::Requests => Record::Request(json(value)?),
            Family::Instances if matches!(id, RowId::Instance { .. }) => Record::Instance(json(value)?),
            Family::Instances => Record::Payload(json(value)?),
            Family::Steps => Record::Step(json(value)?),
            Family::Ready | Family::Expiry => Record::Marker(json(value)?),
            Family::Notes if matches!(id, RowId::Note(NoteId::Closed)) => Record::Closed(json(value)?),
            Family::Notes if matches!(id, RowId::Note(NoteId::Quarantine { .. })) => {
                Record::Quarantine(json(value)?)
            }
            Family::Notes => Record::Note(json(value)?),
        })
    }
}

fn number(out: &mut Vec<u8>, value: u128, digits: usize) {
    out.extend_from_slice(format!("{value:0digits$x}").as_bytes());
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    bytes.iter().for_each(|byte| number(out, (*byte).into(), 2));
}

/// A text in the middle of a key: `.` sorts before every digit.
fn ended(out: &mut Vec<u8>, name: &str) {
    text(out, name.as_bytes());
    out.push(b'.');
}

fn versioned(out: &mut Vec<u8>, name: &str, version: u32) {
    ended(out, name);
    number(out, version.into(), 8);
}

fn pair(out: &mut Vec<u8>, scope: &str, key: &[u8]) {
    ended(out, scope);
    text(out, key);
}

fn part(out: &mut Vec<u8>, kind: u8, id: InstanceId) {
    out.push(kind);
    number(out, id.0, 32);
}

struct Digits<'k>(&'k [u8]);

impl Digits<'_> {
    fn number(&mut self, digits: usize) -> Read<u128> {
        let (head, rest) = self.0.split_at_checked(digits).ok_or(KEY)?;
        self.0 = rest;
        head.iter().try_fold(0, |number, digit| match digit {
            b'0'..=b'9' => Ok(number << 4 | u128::from(digit - b'0')),
            b'a'..=b'f' => Ok(number << 4 | u128::from(digit - b'a' + 10)),
            _ => Err(KEY),
        })
    }

    fn version(&mut self) -> Read<u32> {
        Ok(self.number(8)? as u32)
    }

    fn id(&mut self) -> Read<InstanceId> {
        self.number(32).map(InstanceId)
    }

    fn kind(&mut self) -> Read<u8> {
        let (kind, rest) = self.0.split_first().ok_or(KEY)?;
        self.0 = rest;
        Ok(*kind)
    }

    fn tail(&mut self) -> Read<Vec<u8>> {
        let mut bytes = Vec::new();
        while !self.0.is_empty() {
            bytes.push(self.number(2)? as u8);
        }
        Ok(bytes)
    }

    fn text_tail(&mut self) -> Read<String> {
        String::from_utf8(self.tail()?).map_err(|_| KEY)
    }

    fn ended(&mut self) -> Read<String> {
        let end = self.0.iter().position(|byte| *byte == b'.').ok_or(KEY)?;
        let (name, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Digits(name).text_tail()
    }
}

struct Random(fastrand::Rng);

impl Source for Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0.u64(..end)
    }

    fn number(&mut self) -> u64 {
        self.0.u64(..)
    }
}

#[test]
fn it_keeps_the_contract() {
    for seed in 0..300 {
        let rows = Rows(Random(fastrand::Rng::with_seed(seed))).rows(40);
        check(&Readable, &rows).unwrap_or_else(|say| panic!("seed {seed}: {say}"));
    }
    let mut rng = fastrand::Rng::with_seed(7);
    let mut read = 0;
    for _ in 0..50_000 {
        let family = Family::ALL[rng.usize(..8)];
        let len = rng.usize(8..44);
        let key: Vec<u8> = (0..len).map(|_| rng.choice(*b"0026ab.c").unwrap()).collect();
        if let Ok((tenant, id)) = Readable.read_key(family, &key) {
            let mut again = Vec::new();
            Readable.key(tenant, &id, &mut again);
            assert_eq!(again, key);
            read += 1;
        }
    }
    assert!(read > 100, "only {read} were rows");
}

/// An engine on memory stores that outlive it.
struct Place {
    dir: tempfile::TempDir,
    memory: Arc<MemoryDriver>,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), memory: Arc::default() }
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    fn builder(&self) -> Builder {
        Engine::builder(self.data()).driver(self.memory.clone())
    }

    fn open(&self) -> Engine {
        self.builder().layout(Arc::new(Readable)).open().unwrap()
    }

    /// What is in the store at this path: family, key, value. The engine is closed.
    fn dump(&self, path: &str) -> Vec<(Family, Vec<u8>, Vec<u8>)> {
        let store = self.memory.open(&self.data().join(Path::new(path))).unwrap();
        let mut rows = Vec::new();
        for family in Family::ALL {
            let mut visit = |key: &[u8], value: &[u8]| {
                rows.push((family, key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            };
            store.scan(family, b"", b"", &mut visit).unwrap();
        }
        rows
    }
}

fn readable(path: &str) -> StoreSpec {
    memory(path).layout("readable")
}

/// Takes the next step and completes it.
fn work_off(tenant: &Tenant) -> InstanceId {
    let worker = tenant.register(many("w")).unwrap();
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    let completion = Completion { output: b"out".to_vec(), ..Completion::default() };
    let settled = worker.complete(&task, completion).unwrap();
    assert_eq!(settled, Settled::Done { ended: Some(Ending::Completed) });
    task.instance
}

fn define(tenant: &Tenant) {
    for version in 0..300 {
        tenant.define("many\0", version, "t", format!("body {version}").as_bytes()).unwrap();
    }
}

fn is_defined(tenant: &Tenant) {
    for version in 0..300 {
        let found = tenant.definition("many\0", version).unwrap().unwrap();
        assert_eq!(found.body, format!("body {version}").as_bytes());
    }
}

#[test]
fn a_tenant_moves_into_it_and_stays() {
    let place = Place::new();
    let engine = place.open();
    let tenant = tenant(&engine, memory("a"), DROP);
    define(&tenant);
    let old = started(tenant.launch(&with_step("old").input("in")).unwrap());
    let replaced = started(tenant.launch(&keyed("replaced")).unwrap());
    tenant.migration().start(readable("b"), MigrationOptions::default()).unwrap();
    reach(&tenant, Phase::PostMigration);
    assert_eq!(tenant.launch(&keyed("old")).unwrap(), Launched::Conflict { instance: old });
    assert_eq!(tenant.input(old).unwrap().unwrap(), b"in");
    // Ends one where it was born and starts one in the other layout, under one intent.
    let terminate = keyed("replaced").on_conflict(ConflictPolicy::TerminateExisting);
    let new = started(tenant.launch(&terminate).unwrap());
    assert_eq!((replaced.store().0, new.store().0), (1, 2));
    assert_eq!(work_off(&tenant), old);
    settle(&tenant);
    is_defined(&tenant);
    let stayed = started(tenant.launch(&with_step("stays")).unwrap());
    engine.close(LONG).unwrap();

    let rows = place.dump("b");
    assert!(rows.len() > 300 + 4, "{} rows", rows.len());
    for (family, key, value) in &rows {
        let shown = String::from_utf8_lossy(key);
        assert!(key.iter().all(|byte| b"0123456789abcdef.".contains(byte)), "{family:?} {shown}");
        assert!(value.starts_with(b"{") || value.starts_with(b"\""), "{family:?} {shown}");
    }
    assert!(!place.memory.exists(&place.data().join("a")), "the store that was left is gone");

    let engine = place.open();
    let tenant = engine.tenant("acme").unwrap();
    is_defined(&tenant);
    assert_eq!(tenant.launch(&keyed("stays")).unwrap(), Launched::Conflict { instance: stayed });
    assert_eq!(work_off(&tenant), stayed);
    assert_eq!(tenant.instance(new).unwrap().unwrap().state, InstanceState::Running);
}

#[test]
fn a_tenant_moves_into_it_and_is_taken_back() {
    let place = Place::new();
    let engine = place.open();
    let tenant = tenant(&engine, memory("a"), DROP);
    define(&tenant);
    tenant.migration().start(readable("b"), MigrationOptions::default().hold_complete(true)).unwrap();
    reach(&tenant, Phase::PostMigration);
    let there = started(tenant.launch(&with_step("there")).unwrap());
    // Known only to the target, until it is compared on the way back.
    tenant.define("late", 1, "t", b"late").unwrap();
    tenant.migration().reverse().unwrap();
    reach(&tenant, Phase::PostRollback);
    let back = started(tenant.launch(&with_step("back")).unwrap());
    assert_eq!((there.store().0, back.store().0), (2, 1));
    assert_eq!(tenant.launch(&keyed("there")).unwrap(), Launched::Conflict { instance: there });
    work_off(&tenant);
    work_off(&tenant);
    tenant.migration().release(Hold::Complete).unwrap();
    settle(&tenant);
    is_defined(&tenant);
    assert_eq!(tenant.definition("late", 1).unwrap().unwrap().body, b"late");
    assert!(engine.store_path(there.store()).is_none(), "the store that was tried is gone");
}

#[test]
fn a_tenant_moves_out_of_it() {
    let place = Place::new();
    let engine = place.open();
    let tenant = tenant(&engine, readable("a"), KEEP);
    define(&tenant);
    let id = started(tenant.launch(&with_step("k")).unwrap());
    assert_eq!(work_off(&tenant), id);
    assert_eq!(tenant.instance(id).unwrap().unwrap().output, b"out");
    tenant.migration().start(memory("b"), MigrationOptions::default().hold_complete(true)).unwrap();
    reach(&tenant, Phase::PostMigration);
    assert_eq!(tenant.instance_by_key("scope", b"k").unwrap().unwrap().id, id);
    let until = Instant::now() + LONG;
    // Refused until everybody who acted on the phase before has ended.
    while let Err(err) = tenant.migration().complete_abandoning() {
        assert!(Instant::now() < until, "{err}");
        std::thread::yield_now();
    }
    settle(&tenant);
    is_defined(&tenant);
}

#[test]
fn its_rows_go_with_the_tenant_and_leave_the_neighbours() {
    let place = Place::new();
    let engine = place.open();
    for name in ["stays", "goes"] {
        let tenant = engine.create_tenant(name, TenantOptions::new(readable("a"))).unwrap();
        define(&tenant);
    }
    engine.delete_tenant("goes").unwrap();
    is_defined(&engine.tenant("stays").unwrap());
    engine.close(LONG).unwrap();
    // And the store's own row, that it was closed.
    assert_eq!(place.dump("a").len(), 300 + 1);
}

#[test]
fn without_it_the_directory_is_refused_and_keeps_everything() {
    let place = Place::new();
    let engine = place.open();
    tenant(&engine, readable("a"), KEEP);
    // The name of a layout belongs to its store: nobody reads the one in the other.
    let other = engine.create_tenant("other", TenantOptions::new(memory("a"))).err().unwrap();
    assert_eq!(other.kind(), ErrorKind::InvalidInput);
    assert!(other.to_string().contains("has the layout \"readable\""), "{other}");
    engine.close(LONG).unwrap();

    let before = place.dump("a");
    let refused = place.builder().open().err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.to_string().contains("no layout \"readable\""), "{refused}");
    assert_eq!(place.dump("a"), before);
    let engine = place.open();
    let tenant = engine.tenant("acme").unwrap();
    assert!(tenant.definition("work", 1).unwrap().is_some());

    let spec = memory("c").layout("unheard of");
    let err = engine.create_tenant("third", TenantOptions::new(spec)).err().unwrap();
    assert!(err.to_string().contains("no layout \"unheard of\""), "{err}");
}
