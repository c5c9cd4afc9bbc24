//! What a layout is: how rows become keys and values. Bring your own by implementing [`Layout`]; the
//! engine stores its name in the catalog and can move a tenant from one layout to another.

use crate::codec::{self, RecordType};
use crate::error::Result;
use crate::family::Family;
use crate::id::TenantId;
use crate::keys::{self, NoteId, Prefix, RowId};
use crate::record::Record;

/// How rows become keys and values.
///
/// # Contract
///
/// - [`key`](Self::key) and [`value`](Self::value) come back whole through [`read_key`](Self::read_key) and
///   [`read_value`](Self::read_value).
/// - Within one tenant and family, keys sort as [`RowId`] does. Keys of different tenants never interleave.
/// - The keys of exactly those rows that [`Prefix`] describes start with what [`prefix`](Self::prefix) gives.
/// - The readers take any bytes: they never panic and never allocate by a length that they have not
///   checked.
///
/// [`check`] holds a layout against this; fuzz it with your own rows.
pub trait Layout: Send + Sync + 'static {
    /// Its name in the catalog. A changed layout is another layout and needs another name.
    fn name(&self) -> &str;

    /// Appends the key of a row.
    fn key(&self, tenant: TenantId, id: &RowId<'_>, out: &mut Vec<u8>);

    /// Appends what the keys of the rows in `prefix` start with.
    fn prefix(&self, tenant: TenantId, prefix: &Prefix<'_>, out: &mut Vec<u8>);

    /// Appends the value of a row.
    ///
    /// # Errors
    /// If the record is larger than [`crate::limits::MAX_RECORD`].
    fn value(&self, record: &Record, out: &mut Vec<u8>) -> Result<()>;

    /// Reads a key.
    ///
    /// # Errors
    /// If it is not one of this layout.
    fn read_key(&self, family: Family, key: &[u8]) -> Result<(TenantId, RowId<'static>)>;

    /// Reads the value of the row `id`.
    ///
    /// # Errors
    /// If it is not one of this layout, or not as it was written.
    fn read_value(&self, id: &RowId<'_>, value: &[u8]) -> Result<Record>;
}

/// The engine's own layout: sorting keys as in [`keys`], values in the frames of [`codec`].
#[derive(Debug, Clone, Copy, Default)]
pub struct V1;

impl Layout for V1 {
    fn name(&self) -> &'static str {
        "v1"
    }

    fn key(&self, tenant: TenantId, id: &RowId<'_>, out: &mut Vec<u8>) {
        keys::encode(tenant, id, out);
    }

    fn prefix(&self, tenant: TenantId, prefix: &Prefix<'_>, out: &mut Vec<u8>) {
        keys::encode_prefix(tenant, prefix, out);
    }

    fn value(&self, record: &Record, out: &mut Vec<u8>) -> Result<()> {
        match record {
            Record::Definition(record) => codec::encode(RecordType::Definition, record, out),
            Record::Key(record) => codec::encode(RecordType::Key, record, out),
            Record::Request(record) => codec::encode(RecordType::Request, record, out),
            Record::Instance(record) => codec::encode(RecordType::Instance, record, out),
            Record::Payload(record) => codec::encode(RecordType::Payload, record, out),
            Record::Step(record) => codec::encode(RecordType::Step, record, out),
            Record::Marker(record) => codec::encode(RecordType::Marker, record, out),
            Record::Note(record) => codec::encode(RecordType::Note, record, out),
            Record::Quarantine(record) => codec::encode(RecordType::Quarantine, record, out),
            Record::Closed(record) => codec::encode(RecordType::Closed, record, out),
        }
    }

    fn read_key(&self, family: Family, key: &[u8]) -> Result<(TenantId, RowId<'static>)> {
        keys::decode(family, key)
    }

    fn read_value(&self, id: &RowId<'_>, value: &[u8]) -> Result<Record> {
        Ok(match id {
            RowId::Definition { .. } => Record::Definition(codec::decode(RecordType::Definition, value)?),
            RowId::Key { .. } => Record::Key(codec::decode(RecordType::Key, value)?),
            RowId::Request { .. } => Record::Request(codec::decode(RecordType::Request, value)?),
            RowId::Instance { .. } => Record::Instance(codec::decode(RecordType::Instance, value)?),
            RowId::Input { .. } | RowId::Output { .. } => {
                Record::Payload(codec::decode(RecordType::Payload, value)?)
            }
            RowId::Step { .. } => Record::Step(codec::decode(RecordType::Step, value)?),
            RowId::Ready { .. } | RowId::Expiry { .. } => {
                Record::Marker(codec::decode(RecordType::Marker, value)?)
            }
            RowId::Note(NoteId::Quarantine { .. }) => {
                Record::Quarantine(codec::decode(RecordType::Quarantine, value)?)
            }
            RowId::Note(NoteId::Closed) => Record::Closed(codec::decode(RecordType::Closed, value)?),
            RowId::Note(_) => Record::Note(codec::decode(RecordType::Note, value)?),
        })
    }
}

/// Holds a layout against its contract for these rows: each comes back whole, keys sort as rows do, two tenants do not
/// mix, and each prefix that has one of the rows starts the keys of exactly those that it describes.
///
/// # Errors
/// A sentence that names the first row that breaks it.
pub fn check(layout: &dyn Layout, rows: &[(RowId<'_>, Record)]) -> Result<(), String> {
    let encode = |tenant: TenantId, id: &RowId<'_>| {
        let mut key = Vec::new();
        layout.key(tenant, id, &mut key);
        key
    };
    for (id, record) in rows {
        let mut value = Vec::new();
        layout.value(record, &mut value).map_err(|err| format!("the record of {id:?}: {err}"))?;
        let key = encode(TenantId(7), id);
        if layout.read_key(id.family(), &key) != Ok((TenantId(7), id.clone().into_owned())) {
            return Err(format!("the key of {id:?} does not come back whole"));
        }
        if layout.read_value(id, &value).as_ref() != Ok(record) {
            return Err(format!("the record of {id:?} does not come back whole"));
        }
        for (other, _) in rows.iter().filter(|(other, _)| other.family() == id.family()) {
            if id.cmp(other) != key.cmp(&encode(TenantId(7), other)) {
                return Err(format!("{id:?} and {other:?} do not sort like their keys"));
            }
            if key >= encode(TenantId(8), other) {
                return Err(format!("{id:?} of tenant 7 sorts behind {other:?} of tenant 8"));
            }
            for prefix in prefixes_of(id) {
                let mut start = Vec::new();
                layout.prefix(TenantId(7), &prefix, &mut start);
                if prefix.holds(other) != encode(TenantId(7), other).starts_with(&start) {
                    return Err(format!("the prefix {prefix:?} is wrong about {other:?}"));
                }
                // Or removing a tenant's rows would remove another's.
                if encode(TenantId(8), other).starts_with(&start) {
                    return Err(format!("the prefix {prefix:?} of tenant 7 holds {other:?} of tenant 8"));
                }
            }
        }
    }
    Ok(())
}

/// Every prefix that has this row, and those that others of its family could be mistaken for.
fn prefixes_of<'a>(id: &'a RowId<'_>) -> Vec<Prefix<'a>> {
    let mut prefixes = vec![Prefix::All(id.family())];
    match id {
        RowId::Definition { name, .. } => prefixes.push(Prefix::Versions(name)),
        RowId::Key { scope, .. } => prefixes.push(Prefix::Scope(scope)),
        RowId::Instance { .. } | RowId::Input { .. } | RowId::Output { .. } => prefixes.push(Prefix::Heads),
        RowId::Step { instance, .. } => prefixes.push(Prefix::StepsOf(*instance)),
        RowId::Ready { queue, .. } => prefixes.push(Prefix::Queue(queue)),
        RowId::Note(_) => {
            prefixes.extend([
                Prefix::Gaps,
                Prefix::Replaces,
                Prefix::CopyPositions,
                Prefix::Quarantined,
                Prefix::Moves,
            ]);
        }
        RowId::Request { .. } | RowId::Expiry { .. } => {}
    }
    prefixes
}
