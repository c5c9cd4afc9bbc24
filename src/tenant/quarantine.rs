//! What cannot be read: rows that are damaged beyond what the other store has of them.
//!
//! Such a row is *set aside*: a note in the store that it is in says so, durably, with the reason. Copying, comparing, collecting and handing
//! out steps pass it over and go on with the others. It does not vanish: it is listed, a definition that is set aside holds the switch back, and
//! anything that is set aside in a store holds back that the store is given up. An entry goes when its row can be read again, or
//! when somebody drops it with a reason that goes into the journal.

use cutover_formats::record::{KeyRecord, QuarantineRecord};
use cutover_formats::{Expiring, Family, InstanceId, NoteId, Prefix, Record, RowId, StoreId};

use super::queue::Entry;
use super::{Inner, Operation};
use crate::error::{Error, ErrorKind, Result, short_reason};
use crate::event::Event;
use crate::store::space::{Changes, Damage, Space};

/// Rows that one step of a scan over a whole family reads.
const ROWS: usize = 1024;

/// A row, or some that follow each other, that cannot be read and were set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quarantined {
    /// The store that it is in.
    pub store: StoreId,
    /// Driver of that store.
    pub driver: String,
    /// Its family.
    pub family: Family,
    /// Its key, as it stands in the store.
    pub key: Vec<u8>,
    /// The first key that can be read again, if not even the keys in between can be.
    pub to: Option<Vec<u8>>,
    /// What it is, in words.
    pub what: String,
    /// What was wrong with it.
    pub reason: String,
    /// When it was found, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What trying again came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retried {
    /// Entries that can be read again, or were written again from the other store.
    pub readable: u64,
    /// Entries that cannot.
    pub left: u64,
}

/// A note that sets something aside.
struct Noted {
    note: RowId<'static>,
    family: Family,
    key: Vec<u8>,
    record: QuarantineRecord,
}

impl Inner {
    /// Notes, durably, that something in this store cannot be read.
    pub(crate) fn set_aside(&self, space: &Space, damage: &Damage) -> Result<()> {
        let key = damage.key.as_slice();
        let note = RowId::Note(NoteId::Quarantine { family: damage.family, key: key.to_vec().into() });
        match space.quarantined(self.id, &note) {
            Ok(Some(there)) if there.to == damage.to || (there.dropped && damage.to < there.to) => {
                return Ok(());
            }
            Err(err) if err.kind() != ErrorKind::Corrupt => return Err(err),
            _ => {}
        }
        let mut changes = Changes::default();
        let record = QuarantineRecord {
            to: damage.to.clone(),
            reason: short_reason(&damage.reason),
            at_ms: self.shared.now_ms(),
            dropped: false,
        };
        let row = space.row_of(damage.family, key);
        let entry =
            Quarantined::of(space.id, &space.driver, damage.family, key, row.as_ref(), Some(record.clone()));
        changes.put(note, Record::Quarantine(record));
        space.apply(self.id, &changes, self.shared.write())?;
        let (tenant, store) = (self.name.clone(), space.id);
        self.shared.emit(|| Event::SetAside { tenant, store, what: entry.what });
        Ok(())
    }

    /// Sets a row aside if `error` says that it cannot be read; else the error stays one.
    pub(crate) fn set_row_aside(&self, space: &Space, row: &RowId<'_>, error: Error) -> Result<()> {
        if error.kind() != ErrorKind::Corrupt {
            return Err(error);
        }
        self.set_aside(space, &space.damage_of(self.id, row, &error))
    }

    /// Everything that is set aside, in both stores while there are two.
    pub(crate) fn quarantine(&self) -> Result<Vec<Quarantined>> {
        let op = self.enter("list what cannot be read")?;
        let mut found = Vec::new();
        for space in op.both() {
            found.extend(self.held(space)?.into_iter().map(|noted| listed(space, noted)));
        }
        Ok(found)
    }

    /// How much is set aside.
    pub(crate) fn count_quarantined(&self) -> Result<u64> {
        let op = self.enter("count what cannot be read")?;
        op.both().try_fold(0, |count, space| Ok(count + self.held(space)?.len() as u64))
    }

    /// Whether a definition is set aside, in either store.
    pub(crate) fn has_unreadable_definitions(&self) -> Result<bool> {
        let op = self.enter("look for definitions that cannot be read")?;
        for space in op.both() {
            if self.held(space)?.iter().any(|noted| noted.family == Family::Definitions) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Something that is set aside in this store, in words.
    pub(crate) fn first_quarantined(&self, space: &Space) -> Result<Option<String>> {
        Ok(self.held(space)?.into_iter().next().map(|noted| listed(space, noted).what))
    }

    /// What was given up when an earlier migration left it behind is still there: it is to be seen to again.
    pub(crate) fn forget_dropped(&self) -> Result<()> {
        let op = self.enter("forget what was dropped")?;
        for space in op.both() {
            let mut changes = Changes::default();
            for Noted { note, record, .. } in self.noted(space)? {
                if record.dropped {
                    changes.put(note, Record::Quarantine(QuarantineRecord { dropped: false, ..record }));
                }
            }
            if !changes.is_empty() {
                space.apply(self.id, &changes, self.shared.write())?;
            }
        }
        Ok(())
    }

    /// Looks at everything that is set aside once more. What can be read again, or is in the other store, is taken back.
    pub(crate) fn retry_quarantined(&self) -> Result<Retried> {
        let op = self.enter("retry what cannot be read")?;
        let mut retried = Retried::default();
        for space in op.both() {
            for noted in self.noted(space)? {
                if self.try_again(&op, space, &noted)? {
                    space.apply(self.id, &Changes::removal(noted.note), self.shared.write())?;
                    retried.readable += 1;
                } else {
                    retried.left += 1;
                }
            }
        }
        Ok(retried)
    }

    /// Says why an entry cannot be dropped, if it cannot.
    pub(crate) fn find_quarantined(&self, entry: &Quarantined) -> Result<()> {
        let op = self.enter("look for what cannot be read")?;
        let (_, noted) = self.space_with(&op, entry)?;
        if noted.record.to.is_empty() || op.other.is_some() {
            return Ok(());
        }
        let message = format!("only a migration can leave this behind, so start one first: {}", entry.what);
        Err(Error::new(ErrorKind::IllegalMove, message))
    }

    /// Removes what an entry stands for, and the entry. What hangs on it goes with it.
    pub(crate) fn drop_quarantined(&self, entry: &Quarantined) -> Result<()> {
        let op = self.enter("drop what cannot be read")?;
        let (space, noted) = self.space_with(&op, entry)?;
        if !noted.record.to.is_empty() {
            return self.drop_range(space, noted);
        }
        let row = space.row_of(noted.family, &noted.key);
        let locks = &self.locks;
        let mut changes = Changes::default();
        match &row {
            Some(RowId::Definition { name, version }) => {
                let _lock = locks.definitions.lock((self.id, &**name, *version));
                self.known.forget();
                self.remove_damaged(space, row.as_ref(), &noted.note, &changes)
            }
            Some(RowId::Instance { id }) => {
                let holders = self.keys_of(space, *id)?;
                let _keys = locks.keys.lock_all(holders.iter().filter_map(|row| lock_of(self.id, row)));
                let _instance = locks.instances.lock((self.id, *id));
                for holder in holders {
                    if space.key(self.id, &holder)?.is_some_and(|record| record.instance == *id) {
                        changes.delete(holder);
                    }
                }
                self.remove_instance(space, *id, &mut changes)?;
                self.remove_damaged(space, row.as_ref(), &noted.note, &changes)?;
                self.sessions.end_instance(*id);
                self.waiters.ended();
                Ok(())
            }
            Some(RowId::Key { scope, key }) => {
                let _key = locks.keys.lock((self.id, (&**scope, &**key)));
                if let Some(record) = self.holder_of(space, scope, key)? {
                    // A live instance has it, so it is not free: nothing is lost.
                    let row = RowId::Key { scope: scope.clone(), key: key.clone() };
                    changes.put(row, Record::Key(record));
                    changes.delete(noted.note);
                    return space.apply(self.id, &changes, self.shared.write());
                }
                self.remove_damaged(space, row.as_ref(), &noted.note, &changes)
            }
            Some(RowId::Step { instance, step }) => {
                let _instance = locks.instances.lock((self.id, *instance));
                self.ready_rows(space, *instance, Some(&**step), &mut changes)?;
                self.remove_damaged(space, row.as_ref(), &noted.note, &changes)?;
                self.index_again(space, &RowId::Instance { id: *instance })
            }
            Some(RowId::Request { id }) => {
                let _request = locks.requests.lock((self.id, &**id));
                self.remove_damaged(space, row.as_ref(), &noted.note, &changes)
            }
            _ => self.remove_damaged(space, row.as_ref(), &noted.note, &changes),
        }
    }

    /// Not every store that cannot read the keys of a range can remove its rows: then they are left behind.
    fn drop_range(&self, space: &Space, noted: Noted) -> Result<()> {
        let Noted { note, family, key, mut record } = noted;
        // Names that are not known any more may be among them.
        self.known.forget();
        let removed = readable(space.remove_range(family, &key, &record.to))?.is_some();
        let mut changes = Changes::default();
        if removed && space.shows(family, &key, &record.to)? {
            changes.delete(note);
        } else {
            record.dropped = true;
            changes.put(note, Record::Quarantine(record));
        }
        space.apply(self.id, &changes, crate::store::Write::Synced)
    }

    /// What is set aside and was not given up.
    fn held(&self, space: &Space) -> Result<Vec<Noted>> {
        let mut noted = self.noted(space)?;
        noted.retain(|noted| !noted.record.dropped);
        Ok(noted)
    }

    fn noted(&self, space: &Space) -> Result<Vec<Noted>> {
        let mut found = Vec::new();
        let mut after: Option<RowId<'static>> = None;
        loop {
            let survey = space.survey(self.id, Prefix::Quarantined, after.as_ref(), ROWS, u64::MAX)?;
            for (note, record) in survey.rows {
                after = Some(note.clone());
                let RowId::Note(NoteId::Quarantine { family, key }) = &note else { continue };
                let record = match record {
                    Ok(Record::Quarantine(record)) => record,
                    // The note is damaged too; its key says what it is about.
                    _ => QuarantineRecord {
                        to: Vec::new(),
                        reason: "its note cannot be read either".to_owned(),
                        at_ms: 0,
                        dropped: false,
                    },
                };
                found.push(Noted { family: *family, key: key.to_vec(), record, note });
            }
            if survey.done {
                return Ok(found);
            }
        }
    }

    fn space_with<'o>(&self, op: &'o Operation<'_>, entry: &Quarantined) -> Result<(&'o Space, Noted)> {
        let there = |noted: &Noted| noted.family == entry.family && noted.key == entry.key;
        if let Some(space) = op.both().find(|space| space.id == entry.store)
            && let Some(noted) = self.held(space)?.into_iter().find(there)
        {
            return Ok((space, noted));
        }
        let message = format!("nothing of this key is set aside in {}: {}", entry.store, entry.what);
        Err(Error::new(ErrorKind::NotFound, message))
    }

    /// Whether what was set aside can be read now, or was written again from the other store.
    fn try_again(&self, op: &Operation<'_>, space: &Space, noted: &Noted) -> Result<bool> {
        if !noted.record.to.is_empty() {
            return space.shows(noted.family, &noted.key, &noted.record.to);
        }
        let Some(row) = space.row_of(noted.family, &noted.key) else {
            return Ok(!space.has_key(noted.family, &noted.key)?);
        };
        if let RowId::Definition { name, version } = &row {
            let _lock = self.locks.definitions.lock((self.id, &**name, *version));
            return match readable(space.definition(self.id, &row))? {
                Some(_) => Ok(true),
                None => self.repair_from(op, space, &row),
            };
        }
        if readable(space.decodes(self.id, &row))?.is_none() {
            return Ok(false);
        }
        self.index_again(space, &row).map(|()| true)
    }

    /// Under the definition lock: writes a definition again that cannot be read, if the other store has it.
    fn repair_from(&self, op: &Operation<'_>, space: &Space, row: &RowId<'static>) -> Result<bool> {
        for other in op.both().filter(|other| other.id != space.id) {
            if let Some(Some(record)) = readable(other.definition(self.id, row))? {
                self.rewrite_definition(space, row, record)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The collector and the queue are told again of a row that they had passed over.
    fn index_again(&self, space: &Space, row: &RowId<'static>) -> Result<()> {
        let mut changes = Changes::default();
        let mut deadline = None;
        let mut index = |at_ms: u64, what: Expiring<'static>| {
            changes.mark(RowId::Expiry { at_ms, what });
            deadline = Some(at_ms);
        };
        match row {
            RowId::Instance { id } | RowId::Step { instance: id, .. } => {
                let head = readable(space.instance(self.id, &RowId::Instance { id: *id }))?.flatten();
                if let Some(end) = head.and_then(|head| head.ended) {
                    index(end.collect_ms, Expiring::Instance(*id));
                }
            }
            RowId::Key { scope, key } => {
                if let Some(end) = space.key(self.id, row)?.and_then(|record| record.ended) {
                    index(end.out_of_scope_ms, Expiring::Key { scope: scope.clone(), key: key.clone() });
                }
            }
            RowId::Request { id } => {
                if let Some(request) = space.request(self.id, row)? {
                    index(request.until_ms, Expiring::Request { id: id.clone() });
                }
            }
            _ => return Ok(()),
        }
        if !changes.is_empty() {
            space.apply(self.id, &changes, self.shared.write())?;
        }
        self.announce(self.ready_again(space, row)?, deadline);
        Ok(())
    }

    /// The steps that this row makes ready.
    fn ready_again(&self, space: &Space, row: &RowId<'_>) -> Result<Vec<Entry>> {
        let (RowId::Instance { id } | RowId::Step { instance: id, .. }) = row else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        let survey = space.survey(self.id, Prefix::StepsOf(*id), None, usize::MAX, u64::MAX)?;
        let now = self.shared.clock.monotonic();
        for (row, record) in survey.rows {
            if let (RowId::Step { instance, step }, Ok(Record::Step(record))) = (row, record)
                && !self.sessions.is_held(instance, &step, now)
            {
                entries.extend(Entry::of(space.id, instance, &step, &record));
            }
        }
        Ok(entries)
    }

    /// The keys that name an instance.
    fn keys_of(&self, space: &Space, instance: InstanceId) -> Result<Vec<RowId<'static>>> {
        let mut found = Vec::new();
        self.each(space, Prefix::All(Family::Keys), |row, record| {
            if let Ok(Record::Key(record)) = record
                && record.instance == instance
            {
                found.push(row);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The record of a key that a live instance holds, as its head says it. What cannot be read might hold it too.
    fn holder_of(&self, space: &Space, scope: &str, key: &[u8]) -> Result<Option<KeyRecord>> {
        let mut holder = None;
        let looked = self.each(space, Prefix::Heads, |row, record| {
            let (RowId::Instance { id }, Record::Instance(head)) = (row, record?) else { return Ok(()) };
            let same = head.key.as_ref().is_some_and(|(of, name)| of == scope && name == key);
            if same && head.ended.is_none() {
                holder = Some(KeyRecord { instance: id, epoch: head.epoch, ended: None, revision: 1 });
            }
            Ok(())
        });
        let looked = looked.and_then(|damaged| match damaged.into_iter().next() {
            Some(damage) if holder.is_none() => Err(Error::new(ErrorKind::Corrupt, damage.reason)),
            _ => Ok(()),
        });
        looked.map_err(|err| {
            err.context("an instance that cannot be read may hold the key: drop that first")
        })?;
        Ok(holder)
    }

    /// Adds the removal of everything that an instance has but its key.
    fn remove_instance(&self, space: &Space, id: InstanceId, changes: &mut Changes) -> Result<()> {
        self.each(space, Prefix::StepsOf(id), |row, _| {
            changes.delete(row.clone());
            changes.delete(space.quarantine_of(self.id, &row));
            Ok(())
        })?;
        for row in [RowId::Input { id }, RowId::Output { id }] {
            changes.delete(row);
        }
        self.ready_rows(space, id, None, changes)
    }

    /// Adds the removal of the rows of the ready family of an instance, or of one step of it, whose state cannot say which they are.
    pub(super) fn ready_rows(
        &self,
        space: &Space,
        id: InstanceId,
        wanted: Option<&str>,
        changes: &mut Changes,
    ) -> Result<()> {
        let changed = self.each(space, Prefix::All(Family::Ready), |row, _| {
            if let RowId::Ready { instance, step, .. } = &row
                && *instance == id
                && wanted.is_none_or(|wanted| *step == wanted)
            {
                changes.delete(row);
            }
            Ok(())
        });
        changed.map(drop)
    }

    /// Shows `visit` every row; returns what could not be shown.
    fn each(
        &self,
        space: &Space,
        prefix: Prefix<'_>,
        mut visit: impl FnMut(RowId<'static>, Result<Record>) -> Result<()>,
    ) -> Result<Vec<Damage>> {
        let mut after: Option<RowId<'static>> = None;
        let mut damaged = Vec::new();
        loop {
            let survey = space.survey(self.id, prefix, after.as_ref(), ROWS, u64::MAX)?;
            damaged.extend(survey.damaged);
            for (row, record) in survey.rows {
                after = Some(row.clone());
                visit(row, record)?;
            }
            if survey.done {
                return Ok(damaged);
            }
        }
    }

    /// Removes the row that a note sets aside, and the note, together with `changes`. The caller holds the locks of all of it; if it fails, all of
    /// it is in doubt.
    fn remove_damaged(
        &self,
        space: &Space,
        row: Option<&RowId<'static>>,
        note: &RowId<'static>,
        changes: &Changes,
    ) -> Result<()> {
        space
            .remove_damaged(self.id, note, changes)
            .map_err(|err| self.in_doubt(space, changes.rows().chain(row), err))
    }
}

/// `None` for a row that cannot be read.
pub(super) fn readable<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(err) if err.kind() == ErrorKind::Corrupt => Ok(None),
        Err(err) => Err(err),
    }
}

fn lock_of<'r>(
    tenant: cutover_formats::TenantId,
    row: &'r RowId<'_>,
) -> Option<(cutover_formats::TenantId, (&'r str, &'r [u8]))> {
    match row {
        RowId::Key { scope, key } => Some((tenant, (&**scope, &**key))),
        _ => None,
    }
}

fn listed(space: &Space, noted: Noted) -> Quarantined {
    let Noted { family, key, record, .. } = noted;
    let row = space.row_of(family, &key);
    Quarantined::of(space.id, &space.driver, family, &key, row.as_ref(), Some(record))
}

impl Quarantined {
    /// An entry from its note; `None` for the record of a note that cannot be read itself.
    pub(crate) fn of(
        store: StoreId,
        driver: &str,
        family: Family,
        key: &[u8],
        row: Option<&RowId<'_>>,
        record: Option<QuarantineRecord>,
    ) -> Self {
        let record = record.unwrap_or_else(|| QuarantineRecord {
            to: Vec::new(),
            reason: "its note cannot be read either".to_owned(),
            at_ms: 0,
            dropped: false,
        });
        let QuarantineRecord { to, reason, at_ms, .. } = record;
        let to = (!to.is_empty()).then_some(to);
        let row = row.map_or_else(|| format!("the key {}", hex(key)), super::describe);
        let what = match &to {
            None => format!("{row}, in {store} ({driver}), family {}", family.name()),
            Some(to) => {
                let (from, to, family) = (hex(key), hex(to), family.name());
                format!("everything from key {from} up to {to}, in {store} ({driver}), family {family}")
            }
        };
        Self { store, driver: driver.to_owned(), family, key: key.to_vec(), to, what, reason, at_ms }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
