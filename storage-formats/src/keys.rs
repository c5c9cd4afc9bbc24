//! Row keys whose bytes sort like what they say.
//!
//! Every key starts with the tenant. Numbers are big endian. A text or byte string in the middle of a key is
//! escaped (`00` becomes `00 FF`, the end is `00 01`), so that a string sorts before its own extensions and
//! no string is a prefix of another; one at the end of a key stands as it is.

use std::borrow::Cow;

use crate::error::{FormatError, Result};
use crate::family::Family;
use crate::id::{InstanceId, TenantId};

/// Which row, within a tenant. Within one family, rows sort as this type does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowId<'a> {
    /// A definition.
    Definition {
        /// Its name.
        name: Cow<'a, str>,
        /// Its version.
        version: u32,
    },
    /// A key.
    Key {
        /// Its scope.
        scope: Cow<'a, str>,
        /// The key within it.
        key: Cow<'a, [u8]>,
    },
    /// A request.
    Request {
        /// Its id.
        id: Cow<'a, [u8]>,
    },
    /// The head of an instance.
    Instance {
        /// Its id.
        id: InstanceId,
    },
    /// The input of an instance.
    Input {
        /// Its id.
        id: InstanceId,
    },
    /// The output of an instance.
    Output {
        /// Its id.
        id: InstanceId,
    },
    /// A step.
    Step {
        /// Its instance.
        instance: InstanceId,
        /// Its name within it.
        step: Cow<'a, str>,
    },
    /// A step that a worker may take, or that somebody has to decide about.
    Ready {
        /// The queue it waits in; [`UNDECIDED`] for a decision.
        queue: Cow<'a, str>,
        /// From when on, in milliseconds since 1970; since when, for a decision.
        at_ms: u64,
        /// Its instance.
        instance: InstanceId,
        /// Its name within it.
        step: Cow<'a, str>,
    },
    /// Something with a deadline.
    Expiry {
        /// The deadline, in milliseconds since 1970.
        at_ms: u64,
        /// What to look at then.
        what: Expiring<'a>,
    },
    /// A note of the engine.
    Note(NoteId<'a>),
}

/// What an expiry row points at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expiring<'a> {
    /// An ended instance after its retention.
    Instance(InstanceId),
    /// An ended key that leaves its scope.
    Key {
        /// Its scope.
        scope: Cow<'a, str>,
        /// The key within it.
        key: Cow<'a, [u8]>,
    },
    /// A request after its retention.
    Request {
        /// Its id.
        id: Cow<'a, [u8]>,
    },
}

/// Which note.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NoteId<'a> {
    /// A definition that is perhaps missing in the other store.
    Gap {
        /// Its name.
        name: Cow<'a, str>,
        /// Its version.
        version: u32,
    },
    /// A `TerminateExisting` over two stores.
    Replace {
        /// The instance to end.
        old: InstanceId,
    },
    /// How far a copy has come.
    CopyPosition {
        /// The migration that copies.
        migration: u64,
    },
    /// A row of this store that cannot be read, or the first of some.
    Quarantine {
        /// Its family.
        family: Family,
        /// Its key, in the bytes of this store's layout.
        key: Cow<'a, [u8]>,
    },
    /// How often the store was closed in order. Of no tenant: it stands under [`NO_TENANT`].
    Closed,
    /// An instance that is on its way to the other store.
    Move {
        /// It.
        instance: InstanceId,
    },
}

/// Stands in keys in the place of a queue where a step waits for a decision. No queue of workers has this name:
/// [`check_name`](crate::limits::check_name) refuses it.
pub const UNDECIDED: &str = "";

/// Stands in keys where no tenant is meant. The catalog never gives this number.
pub const NO_TENANT: TenantId = TenantId(u32::MAX);

impl RowId<'_> {
    /// The same without borrowing.
    #[must_use]
    pub fn into_owned(self) -> RowId<'static> {
        match self {
            Self::Definition { name, version } => RowId::Definition { name: own(name), version },
            Self::Key { scope, key } => RowId::Key { scope: own(scope), key: own(key) },
            Self::Request { id } => RowId::Request { id: own(id) },
            Self::Instance { id } => RowId::Instance { id },
            Self::Input { id } => RowId::Input { id },
            Self::Output { id } => RowId::Output { id },
            Self::Step { instance, step } => RowId::Step { instance, step: own(step) },
            Self::Ready { queue, at_ms, instance, step } => {
                RowId::Ready { queue: own(queue), at_ms, instance, step: own(step) }
            }
            Self::Expiry { at_ms, what } => RowId::Expiry { at_ms, what: what.into_owned() },
            Self::Note(note) => RowId::Note(note.into_owned()),
        }
    }

    /// The family that holds the row.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::Definition { .. } => Family::Definitions,
            Self::Key { .. } => Family::Keys,
            Self::Request { .. } => Family::Requests,
            Self::Instance { .. } | Self::Input { .. } | Self::Output { .. } => Family::Instances,
            Self::Step { .. } => Family::Steps,
            Self::Ready { .. } => Family::Ready,
            Self::Expiry { .. } => Family::Expiry,
            Self::Note(_) => Family::Notes,
        }
    }
}

impl Expiring<'_> {
    /// The same without borrowing.
    #[must_use]
    pub fn into_owned(self) -> Expiring<'static> {
        match self {
            Self::Instance(id) => Expiring::Instance(id),
            Self::Key { scope, key } => Expiring::Key { scope: own(scope), key: own(key) },
            Self::Request { id } => Expiring::Request { id: own(id) },
        }
    }
}

impl NoteId<'_> {
    fn into_owned(self) -> NoteId<'static> {
        match self {
            Self::Gap { name, version } => NoteId::Gap { name: own(name), version },
            Self::Replace { old } => NoteId::Replace { old },
            Self::CopyPosition { migration } => NoteId::CopyPosition { migration },
            Self::Quarantine { family, key } => NoteId::Quarantine { family, key: own(key) },
            Self::Closed => NoteId::Closed,
            Self::Move { instance } => NoteId::Move { instance },
        }
    }
}

fn own<T: ToOwned + ?Sized>(value: Cow<'_, T>) -> Cow<'static, T> {
    Cow::Owned(value.into_owned())
}

/// What part of a family to read, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix<'a> {
    /// All of a tenant's rows in a family.
    All(Family),
    /// The heads of all instances.
    Heads,
    /// The steps of one instance.
    StepsOf(InstanceId),
    /// The ready steps of one queue.
    Queue(&'a str),
    /// All versions of one definition.
    Versions(&'a str),
    /// All keys of one scope.
    Scope(&'a str),
    /// The gaps to repair.
    Gaps,
    /// The intents to redo.
    Replaces,
    /// The positions of copies.
    CopyPositions,
    /// The rows that cannot be read.
    Quarantined,
    /// The instances that are on their way to the other store.
    Moves,
}

impl Prefix<'_> {
    /// The family that it is part of.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::All(family) => *family,
            Self::Heads => Family::Instances,
            Self::StepsOf(_) => Family::Steps,
            Self::Queue(_) => Family::Ready,
            Self::Versions(_) => Family::Definitions,
            Self::Scope(_) => Family::Keys,
            Self::Gaps | Self::Replaces | Self::CopyPositions | Self::Quarantined | Self::Moves => {
                Family::Notes
            }
        }
    }

    /// Whether the row is one of those described.
    #[must_use]
    pub fn holds(&self, row: &RowId<'_>) -> bool {
        match (self, row) {
            (Self::All(family), row) => *family == row.family(),
            (Self::Heads, RowId::Instance { .. })
            | (Self::Gaps, RowId::Note(NoteId::Gap { .. }))
            | (Self::Replaces, RowId::Note(NoteId::Replace { .. }))
            | (Self::CopyPositions, RowId::Note(NoteId::CopyPosition { .. }))
            | (Self::Quarantined, RowId::Note(NoteId::Quarantine { .. }))
            | (Self::Moves, RowId::Note(NoteId::Move { .. })) => true,
            (Self::StepsOf(id), RowId::Step { instance, .. }) => id == instance,
            (Self::Queue(name), RowId::Ready { queue, .. }) => name == queue,
            (Self::Versions(wanted), RowId::Definition { name, .. }) => wanted == name,
            (Self::Scope(wanted), RowId::Key { scope, .. }) => wanted == scope,
            _ => false,
        }
    }
}

const HEAD: u8 = 0;
const INPUT: u8 = 1;
const OUTPUT: u8 = 2;
const GAP: u8 = 1;
const REPLACE: u8 = 2;
const COPY_POSITION: u8 = 3;
const QUARANTINE: u8 = 4;
const CLOSED: u8 = 5;
const MOVE: u8 = 6;
const EXPIRING_INSTANCE: u8 = 1;
const EXPIRING_KEY: u8 = 2;
const EXPIRING_REQUEST: u8 = 3;

/// Appends the key of a row.
pub fn encode(tenant: TenantId, id: &RowId<'_>, out: &mut Vec<u8>) {
    put_u32(out, tenant.0);
    match id {
        RowId::Definition { name, version } => {
            put_escaped(out, name.as_bytes());
            put_u32(out, *version);
        }
        RowId::Key { scope, key } => {
            put_escaped(out, scope.as_bytes());
            out.extend_from_slice(key);
        }
        RowId::Request { id } => out.extend_from_slice(id),
        RowId::Instance { id } => put_part(out, HEAD, *id),
        RowId::Input { id } => put_part(out, INPUT, *id),
        RowId::Output { id } => put_part(out, OUTPUT, *id),
        RowId::Step { instance, step } => {
            put_id(out, *instance);
            out.extend_from_slice(step.as_bytes());
        }
        RowId::Ready { queue, at_ms, instance, step } => {
            put_escaped(out, queue.as_bytes());
            put_u64(out, *at_ms);
            put_id(out, *instance);
            out.extend_from_slice(step.as_bytes());
        }
        RowId::Expiry { at_ms, what } => {
            put_u64(out, *at_ms);
            match what {
                Expiring::Instance(id) => put_part(out, EXPIRING_INSTANCE, *id),
                Expiring::Key { scope, key } => {
                    out.push(EXPIRING_KEY);
                    put_escaped(out, scope.as_bytes());
                    out.extend_from_slice(key);
                }
                Expiring::Request { id } => {
                    out.push(EXPIRING_REQUEST);
                    out.extend_from_slice(id);
                }
            }
        }
        RowId::Note(note) => match note {
            NoteId::Gap { name, version } => {
                out.push(GAP);
                put_escaped(out, name.as_bytes());
                put_u32(out, *version);
            }
            NoteId::Replace { old } => put_part(out, REPLACE, *old),
            NoteId::CopyPosition { migration } => {
                out.push(COPY_POSITION);
                put_u64(out, *migration);
            }
            NoteId::Quarantine { family, key } => {
                out.extend_from_slice(&[QUARANTINE, *family as u8]);
                out.extend_from_slice(key);
            }
            NoteId::Closed => out.push(CLOSED),
            NoteId::Move { instance } => put_part(out, MOVE, *instance),
        },
    }
}

/// Appends what the keys of all rows in `prefix` start with, and no other key of the family does.
pub fn encode_prefix(tenant: TenantId, prefix: &Prefix<'_>, out: &mut Vec<u8>) {
    put_u32(out, tenant.0);
    match prefix {
        Prefix::All(_) => {}
        Prefix::Heads => out.push(HEAD),
        Prefix::StepsOf(id) => put_id(out, *id),
        Prefix::Queue(name) | Prefix::Versions(name) | Prefix::Scope(name) => {
            put_escaped(out, name.as_bytes());
        }
        Prefix::Gaps => out.push(GAP),
        Prefix::Replaces => out.push(REPLACE),
        Prefix::CopyPositions => out.push(COPY_POSITION),
        Prefix::Quarantined => out.push(QUARANTINE),
        Prefix::Moves => out.push(MOVE),
    }
}

/// Reads a key of `family`.
///
/// # Errors
/// If the bytes are not a key that [`encode`] gives.
pub fn decode(family: Family, key: &[u8]) -> Result<(TenantId, RowId<'static>)> {
    let mut reader = Reader { rest: key };
    let tenant = TenantId(reader.u32()?);
    let id = match family {
        Family::Definitions => RowId::Definition { name: reader.text()?.into(), version: reader.u32()? },
        Family::Keys => RowId::Key { scope: reader.text()?.into(), key: reader.tail().into() },
        Family::Requests => RowId::Request { id: reader.tail().into() },
        Family::Instances => match reader.u8()? {
            HEAD => RowId::Instance { id: reader.id()? },
            INPUT => RowId::Input { id: reader.id()? },
            OUTPUT => RowId::Output { id: reader.id()? },
            _ => return Err(MALFORMED),
        },
        Family::Steps => RowId::Step { instance: reader.id()?, step: reader.text_tail()?.into() },
        Family::Ready => RowId::Ready {
            queue: reader.text()?.into(),
            at_ms: reader.u64()?,
            instance: reader.id()?,
            step: reader.text_tail()?.into(),
        },
        Family::Expiry => RowId::Expiry { at_ms: reader.u64()?, what: reader.expiring()? },
        Family::Notes => RowId::Note(reader.note()?),
    };
    if reader.rest.is_empty() {
        Ok((tenant, id))
    } else {
        Err(FormatError::TrailingBytes { what: "a row key" })
    }
}

const MALFORMED: FormatError = FormatError::Malformed { what: "a row key" };

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_id(out: &mut Vec<u8>, id: InstanceId) {
    out.extend_from_slice(&id.0.to_be_bytes());
}

fn put_part(out: &mut Vec<u8>, part: u8, id: InstanceId) {
    out.push(part);
    put_id(out, id);
}

fn put_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xFF);
        }
    }
    out.extend_from_slice(&[0, 1]);
}

struct Reader<'k> {
    rest: &'k [u8],
}

impl<'k> Reader<'k> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or(FormatError::Truncated { what: "a row key" })?;
        self.rest = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn id(&mut self) -> Result<InstanceId> {
        self.array().map(|bytes| InstanceId(u128::from_be_bytes(bytes)))
    }

    fn text(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        loop {
            match self.u8()? {
                0 => match self.u8()? {
                    0xFF => bytes.push(0),
                    1 => return String::from_utf8(bytes).map_err(|_| MALFORMED),
                    _ => return Err(MALFORMED),
                },
                byte => bytes.push(byte),
            }
        }
    }

    fn tail(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest).to_vec()
    }

    fn text_tail(&mut self) -> Result<String> {
        String::from_utf8(self.tail()).map_err(|_| MALFORMED)
    }

    fn expiring(&mut self) -> Result<Expiring<'static>> {
        Ok(match self.u8()? {
            EXPIRING_INSTANCE => Expiring::Instance(self.id()?),
            EXPIRING_KEY => Expiring::Key { scope: self.text()?.into(), key: self.tail().into() },
            EXPIRING_REQUEST => Expiring::Request { id: self.tail().into() },
            _ => return Err(MALFORMED),
        })
    }

    fn note(&mut self) -> Result<NoteId<'static>> {
        Ok(match self.u8()? {
            GAP => NoteId::Gap { name: self.text()?.into(), version: self.u32()? },
            REPLACE => NoteId::Replace { old: self.id()? },
            COPY_POSITION => NoteId::CopyPosition { migration: self.u64()? },
            QUARANTINE => {
                let family = Family::from_u8(self.u8()?).ok_or(MALFORMED)?;
                NoteId::Quarantine { family, key: self.tail().into() }
            }
            CLOSED => NoteId::Closed,
            MOVE => NoteId::Move { instance: self.id()? },
            _ => return Err(MALFORMED),
        })
    }
}
