//! `inspect`: raw rows of stores, in hex and decoded. Those that do not decode are shown with what is wrong with them.

use std::io::{self, Write};
use std::ops::ControlFlow;

use cutover::offline::{Directory, Row, Rows};
use cutover_formats::meta::{StoreRecord, TenantRecord};
use cutover_formats::{Family, StoreId, TenantId};

use super::decode::{self, Field};
use super::{bytes, print, users};
use crate::args::InspectArgs;
use crate::failure::{Failure, Result};

/// Prints raw rows.
pub(crate) fn inspect(args: &InspectArgs) -> Result<()> {
    let directory = Directory::open(&args.data)?;
    let wanted = Wanted::of(args, &directory)?;
    let mut broken: Vec<String> = Vec::new();
    print(|out| {
        let mut listing = Listing { out, directory: &directory, wanted: &wanted, shown: 0, undecoded: 0 };
        for store in &wanted.stores {
            match listing.store(store)? {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break,
                // The other stores may be whole.
                Err(err) => broken.push(err.text),
            }
        }
        listing.end()
    })?;
    if broken.is_empty() { Ok(()) } else { Err(Failure::new(broken.join("; "))) }
}

/// What the flags ask for.
struct Wanted<'d> {
    stores: Vec<&'d StoreRecord>,
    tenant: Option<TenantId>,
    families: Vec<Family>,
    find: Option<String>,
    limit: u64,
}

impl<'d> Wanted<'d> {
    fn of(args: &InspectArgs, directory: &'d Directory) -> Result<Self> {
        let families = match &args.family {
            Some(name) => vec![family(name)?],
            None => Family::ALL.to_vec(),
        };
        let tenant = args.tenant.as_ref().map(|name| tenant(directory, name)).transpose()?;
        let there = directory.stores().iter().filter(|store| !store.retired);
        let stores: Vec<&StoreRecord> = match (args.store, tenant) {
            (Some(number), _) => vec![store(directory, number)?],
            (None, None) => there.collect(),
            (None, Some(tenant)) => {
                let has = |id: StoreId| users(directory, id).iter().any(|(user, _)| user.id == tenant.id);
                there.filter(|store| has(store.id)).collect()
            }
        };
        let find = args.find.as_ref().map(|text| text.to_lowercase());
        Ok(Self { stores, tenant: tenant.map(|tenant| tenant.id), families, find, limit: args.limit })
    }

    /// Whether the text is in the key, or in the record outside of payloads.
    fn finds(&self, key: &str, fields: &[Field]) -> bool {
        let Some(text) = &self.find else { return true };
        let has = |place: &str| place.to_lowercase().contains(text);
        has(key) || fields.iter().any(|field| !field.payload && has(&field.text))
    }
}

fn family(name: &str) -> Result<Family> {
    Family::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Family::ALL.iter().map(|family| family.name()).collect();
        Failure::bad_input(format!("there is no family {name:?}; the families are {}", names.join(", ")))
    })
}

fn tenant<'d>(directory: &'d Directory, name: &str) -> Result<&'d TenantRecord> {
    /// More would be a page and not a sentence.
    const NAMED: usize = 20;
    directory.tenants().iter().find(|tenant| tenant.name == name).ok_or_else(|| {
        let names: Vec<String> =
            directory.tenants().iter().map(|tenant| format!("{:?}", tenant.name)).collect();
        let more =
            if names.len() > NAMED { format!(" and {} more", names.len() - NAMED) } else { String::new() };
        let known = match names.get(..NAMED.min(names.len())) {
            None | Some([]) => "there are none".to_owned(),
            Some(names) => format!("the tenants are {}{more}", names.join(", ")),
        };
        Failure::bad_input(format!("there is no tenant {name:?}; {known}"))
    })
}

fn store(directory: &Directory, number: u32) -> Result<&StoreRecord> {
    let found = directory.stores().iter().find(|store| store.id.0 == number);
    let what = match found {
        Some(store) if !store.retired => return Ok(store),
        Some(_) => format!("store {number} is retired: its rows are gone"),
        None => format!("there is no store {number}"),
    };
    let there = directory.stores().iter().filter(|store| !store.retired);
    let names: Vec<String> = there.map(|store| format!("{} ({})", store.id.0, store.driver)).collect();
    let known = if names.is_empty() {
        "there are none".to_owned()
    } else {
        format!("the stores are {}", names.join(", "))
    };
    Err(Failure::bad_input(format!("{what}; {known}")))
}

struct Listing<'l> {
    out: &'l mut dyn Write,
    directory: &'l Directory,
    wanted: &'l Wanted<'l>,
    shown: u64,
    undecoded: u64,
}

impl Listing<'_> {
    /// Lists a store. The outer error is about the output, the inner one about the store.
    fn store(&mut self, record: &StoreRecord) -> io::Result<Result<ControlFlow<()>>> {
        writeln!(self.out, "{} ({}) at {}", record.id, record.driver, record.path)?;
        let scratch = match tempfile::Builder::new().prefix("cutover-inspect-").tempdir() {
            Ok(scratch) => scratch,
            Err(err) => return Ok(Err(Failure::new(format!("cannot make a temporary directory: {err}")))),
        };
        let rows = match self.directory.read_store(record.id, scratch.path()) {
            Ok(rows) => rows,
            Err(err) => return Ok(Err(err.into())),
        };
        if rows.are_of_a_copy() {
            let size = self.directory.store_bytes(record).ok().flatten().unwrap_or(0);
            writeln!(
                self.out,
                "  {} has no mode that only reads: this is a copy ({}) in {}, removed at the end",
                record.driver,
                bytes(size),
                scratch.path().display()
            )?;
        }
        for family in &self.wanted.families {
            match self.family(&rows, *family)? {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(Ok(ControlFlow::Break(()))),
                Err(err) => {
                    return Ok(Err(err.context(&format!("{}, family {}", record.id, family.name()))));
                }
            }
        }
        Ok(Ok(ControlFlow::Continue(())))
    }

    fn family(&mut self, rows: &Rows, family: Family) -> io::Result<Result<ControlFlow<()>>> {
        let mut flow = Ok(ControlFlow::Continue(()));
        let scanned = rows.scan(family, self.wanted.tenant, &mut |row| {
            flow = self.row(family, row);
            if matches!(flow, Ok(ControlFlow::Continue(()))) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        let flow = flow?;
        Ok(scanned.map(|()| flow).map_err(Failure::from))
    }

    fn row(&mut self, family: Family, row: &Row<'_>) -> io::Result<ControlFlow<()>> {
        let (tenant, key) = match &row.id {
            Ok((tenant, id)) => (self.tenant_name(*tenant), decode::key(id)),
            // So that it can be found.
            Err(err) => (
                String::new(),
                format!("does not decode: {err}; as text {:?}", String::from_utf8_lossy(row.key)),
            ),
        };
        let fields = match &row.record {
            Some(Ok(record)) => decode::fields(record),
            Some(Err(_)) | None => Vec::new(),
        };
        if !self.wanted.finds(&key, &fields) {
            return Ok(ControlFlow::Continue(()));
        }
        if self.shown >= self.wanted.limit {
            let limit = self.wanted.limit;
            writeln!(self.out, "there are more rows than --limit {limit}")?;
            return Ok(ControlFlow::Break(()));
        }
        self.shown += 1;
        writeln!(self.out, "\n  {}{tenant}: {key}", family.name())?;
        writeln!(self.out, "    key     {}", decode::cut_hex(row.key))?;
        writeln!(self.out, "    record  {}", decode::cut_hex(row.value))?;
        match &row.record {
            Some(Err(err)) => writeln!(self.out, "    does not decode: {err}")?,
            Some(Ok(_)) => {}
            None => writeln!(self.out, "    does not decode: the key does not say what it is")?,
        }
        self.undecoded += u64::from(!matches!(row.record, Some(Ok(_))));
        let width = fields.iter().map(|field| field.name.len()).max().unwrap_or(0);
        for Field { name, text, .. } in fields {
            writeln!(self.out, "      {name:<width$}  {text}")?;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn tenant_name(&self, id: TenantId) -> String {
        match self.directory.tenants().iter().find(|tenant| tenant.id == id) {
            Some(tenant) => format!(", {id} {:?}", tenant.name),
            None => format!(", {id}, which the directory does not know"),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        let undecoded = match self.undecoded {
            0 => String::new(),
            some => format!(", {some} of them not decoded"),
        };
        writeln!(self.out, "\n{} rows{undecoded}", self.shown)
    }
}
