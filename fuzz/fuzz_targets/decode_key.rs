//! Any bytes as a row key of any family, and as the text of an instance id: an error, or a value that is written in the
//! same bytes again. So no two keys are the same row.

#![no_main]

use std::alloc::System;

use cap::Cap;
use cutover_formats::{Family, InstanceId, Layout as _, V1};
use libfuzzer_sys::fuzz_target;

/// The first allocation beyond it fails, and with it the target.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, 64 << 20);

fuzz_target!(|data: &[u8]| {
    // One input is tried in every family: they have much in common, and the corpus serves all.
    for family in Family::ALL {
        if let Ok((tenant, id)) = V1.read_key(family, data) {
            let mut again = Vec::new();
            V1.key(tenant, &id, &mut again);
            assert_eq!(again, data, "{family:?} {id:?}");
        }
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(id) = text.parse::<InstanceId>()
    {
        // Reading is generous about case and about letters that look like digits; writing is not.
        let written = id.to_string();
        assert_eq!(written.parse(), Ok(id));
        let plain = text.to_ascii_uppercase().replace('O', "0").replace(['I', 'L'], "1");
        assert_eq!(written, plain);
    }
});
