//! Any rows held against the contract of a layout, and any slots and journal lines: each comes back as it was.
//!
//! To fuzz a layout of your own, put it in the place of `V1`.

#![no_main]

#[path = "../../storage-formats/tests/common/mod.rs"]
mod common;

use std::alloc::System;

use cap::Cap;
use common::{Rows, Source};
use cutover_formats::access::AccessLine;
use cutover_formats::codec::{self, RecordType};
use cutover_formats::{V1, journal, layout};
use libfuzzer_sys::arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;

/// The first allocation beyond it fails, and with it the target.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, 64 << 20);

/// Most rows at a time: each is compared with all, and many short runs find more than few long ones.
const ROWS: u64 = 12;

struct Bytes<'a>(Unstructured<'a>);

impl Source for Bytes<'_> {
    fn below(&mut self, end: u64) -> u64 {
        self.0.int_in_range(0..=end - 1).unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or(0)
    }
}

fuzz_target!(|data: &[u8]| {
    let mut source = Rows(Bytes(Unstructured::new(data)));
    let rows = source.rows(ROWS);
    if let Err(say) = layout::check(&V1, &rows) {
        panic!("{say}");
    }
    let counter = source.0.number();
    let (tenant, catalog, engine) = (source.tenant(), source.catalog(), source.engine());
    let access = source.access();
    let text = journal::encode(&tenant.journal).expect("a line can be written");
    assert_eq!(journal::decode(text.as_bytes()).as_ref(), Ok(&tenant.journal));
    let sealed = codec::seal_slot(RecordType::Tenant, counter, &tenant).expect("a slot can be written");
    assert_eq!(codec::open_slot(RecordType::Tenant, &sealed), Ok((counter, tenant)));
    let sealed = codec::seal_slot(RecordType::Catalog, counter, &catalog).expect("a slot can be written");
    assert_eq!(codec::open_slot(RecordType::Catalog, &sealed), Ok((counter, catalog)));
    let sealed = codec::seal_slot(RecordType::Engine, counter, &engine).expect("a slot can be written");
    assert_eq!(codec::open_slot(RecordType::Engine, &sealed), Ok((counter, engine)));
    let sealed = codec::seal_slot(RecordType::Access, counter, &access).expect("a slot can be written");
    let line = journal::seal(&access.journal, Some(&sealed)).expect("a line can be written");
    let read = journal::open_as::<AccessLine>(line.as_bytes()).expect("what was written can be read");
    assert_eq!((&read.line, read.record.as_ref(), read.damaged), (&access.journal, Some(&sealed), false));
    assert_eq!(codec::open_slot(RecordType::Access, &sealed), Ok((counter, access)));
});
