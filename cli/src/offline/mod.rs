//! `status` and `inspect`: looking at a data directory that no engine has open. Nothing in it is changed.

mod decode;
mod inspect;
mod status;

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use cutover::offline::Directory;
use cutover_formats::StoreId;
use cutover_formats::meta::{StoreRecord, TenantRecord};

pub(crate) use self::inspect::inspect;
pub(crate) use self::status::status;
use crate::failure::{Failure, Result};

/// Writes to stdout. Whoever stops reading, like `head`, has seen enough.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|err| Failure::new(format!("cannot write to stdout: {err}"))),
    }
}

/// The tenants that have rows in a store, with whether each still uses it.
fn users(directory: &Directory, store: StoreId) -> Vec<(&TenantRecord, bool)> {
    let uses = |tenant: &TenantRecord| {
        let status = &tenant.status;
        let now = status.initial == store || status.target == Some(store);
        (now || tenant.retire.contains(&store)).then_some(now)
    };
    directory.tenants().iter().filter_map(|tenant| uses(tenant).map(|now| (tenant, now))).collect()
}

fn driver_of(directory: &Directory, id: StoreId) -> &str {
    let store = directory.stores().iter().find(|store| store.id == id);
    store.map_or("not in the catalog", |store: &StoreRecord| &store.driver)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// `2026-11-21 15:07:30.250 UTC`.
fn utc(ms: u64) -> String {
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = date(days);
    let (hours, minutes, millis) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day % 60_000);
    let (seconds, millis) = (millis / 1000, millis % 1000);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}.{millis:03} UTC")
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar. Counted in eras of 400 years that begin in
/// March, so that a leap day is the last of its year (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// `12.3 MiB`.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut number, mut shown) = (count as f64, None);
    for unit in UNITS {
        if number < 1024.0 {
            break;
        }
        number /= 1024.0;
        shown = Some(unit);
    }
    shown.map_or_else(|| format!("{count} B"), |unit| format!("{number:.1} {unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_as_people_write_them() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000 UTC");
        assert_eq!(utc(951_782_399_999), "2000-02-28 23:59:59.999 UTC");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00.000 UTC");
        assert_eq!(utc(1_795_273_650_250), "2026-11-21 15:07:30.250 UTC");
        assert_eq!(date(47_540), (2100, 2, 28));
        assert_eq!(date(47_541), (2100, 3, 1), "2100 is no leap year");
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536), bytes(3 << 20)],
            ["0 B", "1023 B", "1.5 KiB", "3.0 MiB"]
        );
    }
}
