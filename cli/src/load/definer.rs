//! Definitions: those that are there before the load, and those that keep arriving.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cutover::{Defined, Tenant};
use fastrand::Rng;

use super::Site;
use crate::entry::Entry;
use crate::failure::{Failure, Result};

/// Bytes of a definition that is no workflow.
const BODY: usize = 2048;
/// Threads that store definitions before the load: they share syncs.
const PRELOADERS: usize = 16;
/// What a definition that is no workflow says it is.
const CONTENT_TYPE: &str = "application/octet-stream";

/// The name of a definition that is no workflow.
pub(crate) fn definition_name(kind: &str, number: u64) -> String {
    format!("{kind}-{number:08}")
}

/// Its bytes, which can be made again to compare.
pub(crate) fn body(seed: u64, kind: &str, number: u64) -> Vec<u8> {
    let kind = kind.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut rng = Rng::with_seed(seed ^ kind.rotate_left(32) ^ number);
    let mut bytes = vec![0; BODY];
    rng.fill(&mut bytes);
    bytes
}

/// Stores the definitions that are there before the load. Repeating it changes nothing.
pub(crate) fn preload(tenant: &Tenant, seed: u64, count: u64) -> Result<()> {
    let next = AtomicU64::new(0);
    let work = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let name = definition_name("preloaded", number);
            tenant.define(&name, 1, CONTENT_TYPE, &body(seed, "preloaded", number))?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..PRELOADERS).map(|_| scope.spawn(work)).collect();
        let panicked = |_| Failure::new("a thread that stores definitions panicked: a bug of ours");
        threads.into_iter().try_for_each(|thread| thread.join().map_err(panicked)?)
    })
}

/// Stores new definitions at the plan's rate until told to stop.
pub(super) fn run(site: &Arc<Site>, first: u64) {
    let slot_us = 1e6 / site.plan.define_rate;
    let start = site.clock.now();
    let mut number = first;
    while !site.no_launches.load(Ordering::Relaxed) && !site.given_up() {
        let name = definition_name("arriving", number);
        match site.tenant.define(&name, 1, CONTENT_TYPE, &body(site.plan.seed, "arriving", number)) {
            // A process that was killed may have stored it without having told.
            Ok(Defined::Created | Defined::Unchanged) => site.sink.put(Entry::Defined { number }),
            Err(err) => {
                site.trouble("storing a definition", &err);
                continue;
            }
        }
        number += 1;
        // Short naps: a rate of one an hour must not keep the run from ending.
        let due = start + ((number - first) as f64 * slot_us) as u64;
        while site.clock.now() < due && !site.no_launches.load(Ordering::Relaxed) && !site.given_up() {
            site.clock.sleep_until(due.min(site.clock.now() + 20_000));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_can_be_made_again_and_differ() {
        assert_eq!(body(1, "arriving", 5), body(1, "arriving", 5));
        let others = [body(2, "arriving", 5), body(1, "preloaded", 5), body(1, "arriving", 6)];
        assert!(others.iter().all(|other| *other != body(1, "arriving", 5) && other.len() == BODY));
    }
}
