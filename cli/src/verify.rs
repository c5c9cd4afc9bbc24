//! The end of a run: the engine is opened again from disk and held against the ledger.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover::{Ending, Instance, Tenant};
use cutover_formats::InstanceId;
use parking_lot::Mutex;

use crate::entry::{Clock, Entry, Scope, Sink};
use crate::failure::Result;
use crate::ledger::{Known, Ledger, Lookup, Seen, Verdict};
use crate::load::board::Board;
use crate::load::{body, definition_name};
use crate::part::{self, CLOSE_WITHIN};
use crate::plan::Plan;
use crate::workflow::Workflow;

/// Problems with definitions that are told in words.
const TOLD: usize = 5;
/// How long GC may take in all to come to what has left its scope.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The ledger's verdict.
    pub verdict: Verdict,
    /// Definitions looked at.
    pub definitions: u64,
    /// Those that are missing or have other bytes.
    pub mismatched: u64,
}

/// Opens the directory again and looks everything up.
pub(crate) fn verify(plan: &Plan, workflows: &[Workflow], ledger: Ledger) -> Result<Found> {
    let collector = Arc::new(Collector::default());
    let sink: Arc<dyn Sink> = Arc::clone(&collector) as Arc<dyn Sink>;
    let engine = part::open(plan, Clock::start(), &Arc::new(Board::new(Default::default())), &sink)?;
    let tenant = engine.tenant(&plan.tenant)?;
    let arrived = ledger.definitions();
    let known: Vec<Known<'_>> = workflows
        .iter()
        .map(|workflow| Known { name: &workflow.name, tasks: workflow.tasks.len() as u64 })
        .collect();
    let verdict =
        ledger.audit(&known, &mut Reopened { tenant: tenant.clone(), collector, patience: PATIENCE });
    let mut found = Found { verdict, definitions: 0, mismatched: 0 };
    for workflow in workflows {
        found.compare(&tenant, &workflow.name, &workflow.body);
    }
    for (kind, count) in [("preloaded", plan.definitions), ("arriving", arrived)] {
        for number in 0..count {
            found.compare(&tenant, &definition_name(kind, number), &body(plan.seed, kind, number));
        }
    }
    drop(tenant);
    engine.close(CLOSE_WITHIN)?;
    Ok(found)
}

impl Found {
    fn compare(&mut self, tenant: &Tenant, name: &str, body: &[u8]) {
        self.definitions += 1;
        let what = match tenant.definition(name, 1) {
            Ok(Some(found)) if found.body == body => return,
            Ok(Some(_)) => "has other bytes than were stored".to_owned(),
            Ok(None) => "is missing".to_owned(),
            Err(err) => format!("cannot be read: {err}"),
        };
        self.mismatched += 1;
        if self.mismatched <= TOLD as u64 {
            self.verdict.problems.push(format!("the definition `{name}` {what}"));
        }
    }
}

/// Notes what GC removes while we look.
#[derive(Default)]
struct Collector(Mutex<Vec<InstanceId>>);

impl Sink for Collector {
    fn put(&self, entry: Entry) {
        if let Entry::Collecting { instance, .. } = entry {
            self.0.lock().push(instance);
        }
    }
}

struct Reopened {
    tenant: Tenant,
    collector: Arc<Collector>,
    patience: Duration,
}

impl Lookup for Reopened {
    fn by_id(&mut self, id: InstanceId) -> Result<Option<Seen>, String> {
        self.tenant.instance(id).map(|found| found.map(seen)).map_err(|err| format!("looking up {id}: {err}"))
    }

    fn by_key(&mut self, scope: Scope, key: &str) -> Result<Option<Seen>, String> {
        let found = self.tenant.instance_by_key(scope.name(), key.as_bytes());
        found.map(|found| found.map(seen)).map_err(|err| format!("looking up the key {key}: {err}"))
    }

    fn collected_meanwhile(&mut self, wanted: InstanceId) -> Vec<InstanceId> {
        let begun = Instant::now();
        while !self.collector.0.lock().contains(&wanted) && begun.elapsed() < self.patience {
            std::thread::sleep(Duration::from_millis(5));
        }
        // What is really lost is not waited for again and again.
        self.patience = self.patience.saturating_sub(begun.elapsed());
        std::mem::take(&mut *self.collector.0.lock())
    }
}

fn seen(found: Instance) -> Seen {
    let completed = found.ending() == Some(Ending::Completed);
    Seen { instance: found.id, definition: found.definition, key: found.key, completed }
}
