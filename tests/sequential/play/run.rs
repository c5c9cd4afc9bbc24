//! Does operations on an engine and shows their answers to the model.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cutover::clock::ManualClock;
use cutover::files::MemoryFiles;
use cutover::{
    Durability, Engine, ErrorKind, Event, Filter, Gate, Heartbeats, Instance, InstanceId, Observer, Phase,
    Retention, Status, StoreSpec, Task, Tenant, TenantOptions,
};

use super::Seen;
use super::disks::Disks;
use super::ops::{self, Gone, Op, Setup};
use super::work::{Report, WHY};
use super::world::{At, Left, One, World, of_the_world};

/// When the first engine is opened, in milliseconds since 1970.
const BEGIN: u64 = 1_790_000_000_000;
/// How far what the engine tells after it was opened may be ahead of the time that runs, in milliseconds.
pub(super) const AHEAD: u64 = 2_000;
/// More worlds than any run that is still worth following.
const WORLDS: usize = 64;

pub(super) struct Run {
    pub(super) files: MemoryFiles,
    pub(super) setup: Setup,
    pub(super) disks: Disks,
    pub(super) clock: Arc<ManualClock>,
    /// What the engine has told.
    pub(super) events: Arc<Events>,
    /// Gone only while it is being opened again.
    pub(super) engine: Option<Engine>,
    pub(super) seats: [Seat; 2],
    /// Every task that was ever given: reports may come late.
    tasks: Vec<Held>,
    pub(super) now_ms: u64,
    /// The engine's time that runs: what it tells stands still until this one has caught up.
    pub(super) running_ms: u64,
    pub(super) mono_ms: u64,
    /// How often the engine was asked for its time.
    probes: u64,
    /// Calls of a store that had failed before the present operation.
    fired: u64,
    pub(super) seen: Seen,
    trace: bool,
}

/// Keeps what the engine tells.
#[derive(Default)]
pub(super) struct Events(pub(super) Mutex<Vec<Event>>);

impl Observer for Events {
    fn on_event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// A task, its tenant, and the gate of its worker, who has nothing else; none any more after its engine or tenant has gone.
struct Held {
    seat: usize,
    task: Task,
    gate: Option<Gate>,
}

/// A tenant as the model sees it.
pub(super) struct Seat {
    pub(super) tenant: Option<Tenant>,
    pub(super) worlds: Vec<World>,
    pub(super) status: Option<Status>,
    /// Deleting it failed: it is whole or gone when the engine is opened again.
    pub(super) leaving: bool,
}

pub(super) fn name(seat: usize) -> &'static str {
    ["first", "second"][seat]
}

pub(super) fn store(which: u8) -> StoreSpec {
    StoreSpec::driver("memory").path(format!("s{}", which % 4))
}

/// Those of everything, and those of what has a key in the scope `s1`.
fn retentions(which: u8) -> [Retention; 2] {
    let of = |instance_ms, key_ms, request_ms| Retention { instance_ms, key_ms, request_ms };
    match which % 4 {
        0 => [of(0, 0, 0), of(500, 500, 500)],
        1 => [of(1000, 500, 2000), of(250, 1000, 500)],
        2 => [of(500, 2000, 250), of(0, 0, 5000)],
        _ => [of(5000, 5000, 5000), of(0, 250, 0)],
    }
}

impl Run {
    pub(super) fn new(setup: Setup) -> Self {
        // The ids of instances are random; a run is to be the same each time.
        fastrand::seed(1);
        let seat = || Seat { tenant: None, worlds: Vec::new(), status: None, leaving: false };
        let mut run = Self {
            files: MemoryFiles::new(),
            setup,
            disks: Disks::default(),
            clock: Arc::new(ManualClock::at(BEGIN)),
            events: Arc::default(),
            engine: None,
            seats: [seat(), seat()],
            tasks: Vec::new(),
            now_ms: BEGIN,
            running_ms: BEGIN,
            mono_ms: 0,
            probes: 0,
            fired: 0,
            seen: Seen::default(),
            trace: std::env::var_os("CUTOVER_TRACE").is_some(),
        };
        run.open();
        run.make(0);
        run.make(1);
        run
    }

    pub(super) fn try_open(&mut self) -> cutover::Result<Engine> {
        let durability = if self.setup.buffered { Durability::Buffered } else { Durability::Synced };
        let builder = Engine::builder("/data")
            .files(Arc::new(self.files.clone()))
            .durability(durability)
            .driver(Arc::new(self.disks.clone()))
            .clock(self.clock.clone())
            .observer(self.events.clone())
            .background(false);
        ops::QUEUES
            .into_iter()
            .fold(builder, |builder, (queue, length_ms)| {
                let lease = Duration::from_millis(length_ms);
                builder.heartbeats_of(queue, Heartbeats { every: lease, intervals: 1 })
            })
            .open()
    }

    pub(super) fn engine(&self) -> Engine {
        self.engine.clone().expect("it is open")
    }

    /// Makes the tenant of a seat, with its first definition.
    pub(super) fn make(&mut self, seat: usize) {
        let [all, scoped] = retentions(self.setup.retention);
        let options = TenantOptions::new(store(seat as u8)).retention(all).scope_retention("s1", scoped);
        let made = self.engine().create_tenant(name(seat), options);
        self.show(&"create_tenant", &made.as_ref().map(|_| ()));
        let struck = self.struck();
        match made {
            Ok(tenant) => {
                self.seats[seat].worlds = vec![World::new([all, scoped])];
                self.seats[seat].status = Some(tenant.status());
                self.seats[seat].tenant = Some(tenant);
                self.learn_time();
                self.define(seat, 0, 0);
            }
            // The store that it should be in may be one that the other tenant is just leaving.
            Err(err) if of_the_world(&err) && (struck || self.disks.is_broken(None)) => {}
            Err(err) => panic!("no tenant: {err:?}"),
        }
    }

    /// Asks the engine for its time, which nothing but what it writes shows: by a definition that the model does not know of. Where an engine
    /// that was killed goes on is its own business, as long as it is not before.
    pub(super) fn learn_time(&mut self) {
        let Some(tenant) = self.seats.iter().find_map(|seat| seat.tenant.clone()) else { return };
        self.probes += 1;
        let name = format!("probe {}", self.probes);
        let told =
            self.disks.spared(|| tenant.define(&name, 1, "t", b"").and_then(|_| tenant.definition(&name, 1)));
        match told {
            Ok(Some(probe)) => self.now_ms = probe.created_ms,
            // A store has failed: then the engine was not opened just now, and its time is known.
            other => assert!(self.disks.is_broken(None), "{other:?}"),
        }
    }

    /// A store that had failed is there again.
    pub(super) fn mended(&mut self) {
        for path in self.disks.take_mended() {
            let engine = self.engine();
            for seat in &mut self.seats {
                let Some(status) = seat.status else { continue };
                let stores = [Some(status.initial), status.target].into_iter().flatten();
                let store = stores.into_iter().find(|id| engine.store_path(*id).as_ref() == Some(&path));
                let Some(store) = store else { continue };
                let worlds = std::mem::take(&mut seat.worlds).into_iter();
                seat.worlds = worlds.flat_map(|world| world.mended(store, self.now_ms)).collect();
            }
        }
    }

    pub(super) fn struck(&self) -> bool {
        self.disks.fired() > self.fired
    }

    pub(super) fn show(&self, what: &dyn Debug, answer: &dyn Debug) {
        if self.trace {
            eprintln!("{what:?} -> {answer:?}");
        }
    }

    /// Shows an answer to every world of a tenant and keeps those that it leaves. `writes` says where the operation may have written.
    pub(super) fn judge(&mut self, seat: usize, writes: Writes, left: impl Fn(World, &At) -> Left) {
        let broken = match writes {
            Writes::Home => {
                let paths = self.used_by_launches(seat);
                let coming_back = paths.iter().any(|path| self.disks.was_reopened(path));
                self.disks.is_broken(paths.first().map(PathBuf::as_path).filter(|_| !coming_back))
            }
            // One that is just being opened again cannot be read either.
            Writes::Nothing | Writes::Anywhere => self.disks.is_broken(None),
        };
        let at = At { now_ms: self.now_ms, mono_ms: self.mono_ms, struck: self.struck(), broken };
        let (mut worlds, mut complaints) = (Vec::new(), Vec::new());
        for mut world in std::mem::take(&mut self.seats[seat].worlds) {
            world.expire(&at);
            match left(world, &at) {
                Ok(left) => worlds.extend(left),
                Err(complaint) => complaints.push(complaint),
            }
        }
        assert!(!worlds.is_empty(), "{} at {at:?}: {}", name(seat), complaints.join("\nor: "));
        self.seen.in_doubt += u64::from(worlds.len() > 1);
        self.seats[seat].worlds = worlds;
    }

    /// The stores that a launch looks at, home first. A target before the switch is none of them.
    fn used_by_launches(&self, seat: usize) -> Vec<PathBuf> {
        let Some(status) = self.seats[seat].status else { return Vec::new() };
        let other = (status.phase != Phase::PreMigration).then_some(status.home().other());
        let roles = [Some(status.home()), other].into_iter().flatten();
        roles.filter_map(|role| self.engine().store_path(status.store(role)?)).collect()
    }

    pub(super) fn perform(&mut self, op: &Op) {
        self.fired = self.disks.fired();
        self.seen.operations += 1;
        self.act(op);
        self.observe();
        if self.seats.iter().any(|seat| seat.worlds.len() > WORLDS) {
            self.reopen(Gone::Killed, 0);
        }
    }

    fn act(&mut self, op: &Op) {
        match *op {
            Op::Claim(tenant, queue) => self.claim(usize::from(tenant), queue),
            Op::Complete(task, next) => self.settle(task, Report::Done(next)),
            Op::Fail(task, again) => self.settle(task, Report::Failed(again, next_random())),
            Op::Save(task, state) => self.save(task, state),
            Op::Beat(task) => self.beat(task),
            Op::Step(times) => drop((0..times).map(|_| self.step()).collect::<Vec<_>>()),
            Op::Drain => self.drain(),
            Op::Advance(by) => self.advance(by),
            Op::Reopen(gone, jump) => self.reopen(gone, jump),
            Op::Fail1(fault, skip) => self.disks.arm(fault, skip),
            Op::Remake(tenant) => self.remake(usize::from(tenant)),
            Op::Launch(tenant, _)
            | Op::Define(tenant, ..)
            | Op::Definition(tenant, _)
            | Op::Query(tenant, _)
            | Op::QueryKey(tenant, _)
            | Op::List(tenant, ..)
            | Op::End(tenant, ..)
            | Op::Cancel(tenant, _)
            | Op::Terminate(tenant, _)
            | Op::Payloads(tenant, _)
            | Op::Decide(tenant, ..)
            | Op::Undecided(tenant, _)
            | Op::Start(tenant, ..)
            | Op::Move(tenant, _)
            | Op::MoveStragglers(tenant, _)
            | Op::Hold(tenant, ..) => {
                if let Some(of) = self.seats[usize::from(tenant)].tenant.clone() {
                    self.act_on(usize::from(tenant), &of, op);
                }
            }
        }
    }

    fn act_on(&mut self, seat: usize, tenant: &Tenant, op: &Op) {
        let reason = "because";
        match *op {
            Op::Launch(_, launching) => self.launch(seat, tenant, &launching),
            Op::Define(_, which, body) => self.define(seat, which, body),
            Op::Definition(_, which) => self.definition(seat, tenant, which),
            Op::Query(_, which) => self.query(seat, tenant, self.id(seat, which)),
            Op::QueryKey(_, which) => self.query_key(seat, tenant, which),
            Op::List(_, filter, limit) => self.list(seat, tenant, filter, usize::from(limit % 8)),
            Op::End(_, which, ending) => {
                let id = self.id(seat, which);
                let got = tenant.end(id, ending, ops::OUTPUT, reason);
                self.show(op, &got);
                self.judge(seat, Writes::Anywhere, |mut world, at| {
                    let place = world.place(id, |_| false);
                    world.act(place, &got, at, |world, place| {
                        world.end(place, ending, reason, ops::OUTPUT, at.now_ms);
                        cutover::Ended::Now
                    })
                });
            }
            Op::Cancel(_, which) => {
                let id = self.id(seat, which);
                let got = tenant.cancel(id, reason);
                self.show(op, &got);
                self.judge(seat, Writes::Anywhere, |mut world, at| {
                    let place = world.place(id, |_| false);
                    world.act(place, &got, at, |world, place| world.cancel(place, reason, at.now_ms))
                });
            }
            Op::Terminate(_, which) => {
                let id = self.id(seat, which);
                let got = tenant.terminate(id, reason);
                self.show(op, &got);
                self.judge(seat, Writes::Anywhere, |mut world, at| {
                    let place = world.place(id, |_| false);
                    world.act(place, &got, at, |world, place| {
                        world.end(place, cutover::Ending::Terminated, reason, &[], at.now_ms);
                        cutover::Ended::Now
                    })
                });
            }
            Op::Payloads(_, which) => {
                let id = self.id(seat, which);
                let got = (tenant.input(id), tenant.step_result(id, "a"));
                self.show(op, &got);
                self.judge(seat, Writes::Nothing, |mut world, at| {
                    let place = world.place(id, |_| false);
                    world.payloads(place, &got, at)
                });
            }
            Op::Decide(_, which, again) => self.decide(seat, tenant, which, again),
            Op::Undecided(_, limit) => self.undecided(seat, tenant, usize::from(limit % 4)),
            _ => self.steer(tenant, op),
        }
    }

    /// One of the instances that were launched, or one that never was.
    pub(super) fn id(&self, seat: usize, which: u8) -> InstanceId {
        let instances = self.seats[seat].worlds.first().map_or(&[][..], |world| &world.instances);
        let never = InstanceId::new(cutover::StoreId(1), BEGIN, u64::from(which));
        // The latest ones are the ones that live.
        let back = usize::from(which).checked_rem(instances.len()).unwrap_or(0);
        instances.iter().rev().nth(back).and_then(|one| one.id).unwrap_or(never)
    }

    fn launch(&mut self, seat: usize, tenant: &Tenant, launching: &ops::Launching) {
        let before = tenant.status();
        let got = tenant.launch(&launching.build());
        self.show(launching, &got);
        // One whose launch was not answered may be told of now, by the same request.
        let may_be = |one: &One, id| match one.id {
            Some(known) => known == id,
            None => launching.request.is_some() && one.launching.request == launching.request,
        };
        let another = self.seats[seat].worlds.iter().all(|world| match got {
            Ok(cutover::Launched::Started(id)) => !world.instances.iter().any(|one| may_be(one, id)),
            _ => false,
        });
        if let Ok(cutover::Launched::Started(id)) = got
            && another
        {
            self.seen.launched += 1;
            // I3: nothing is born where launches do not go.
            assert_eq!(Some(id.store()), before.store(before.home()), "{launching:?} in {before:?}");
        }
        // Only what replaces an instance writes to the other store as well.
        let replaces = launching.conflict == cutover::ConflictPolicy::TerminateExisting;
        let writes = if replaces { Writes::Anywhere } else { Writes::Home };
        self.judge(seat, writes, |world, at| world.launch(launching, &got, at));
    }

    pub(super) fn define(&mut self, seat: usize, which: u8, body: u8) {
        let Some(tenant) = self.seats[seat].tenant.clone() else { return };
        let got = tenant.define(&ops::definition_name(which), 1, "t", &ops::body(which, body));
        self.show(&("define", which, body), &got);
        self.judge(seat, Writes::Anywhere, |world, at| world.define(which, body, &got, at));
    }

    fn definition(&mut self, seat: usize, tenant: &Tenant, which: u8) {
        let got = tenant.definition(&ops::definition_name(which), 1);
        self.show(&("definition", which), &got);
        let got = got.map(|found| found.map(|found| (found.body, found.created_ms)));
        // What one store lacks is brought to it.
        self.judge(seat, Writes::Anywhere, |world, at| world.definition(which, &got, at));
    }

    fn query(&mut self, seat: usize, tenant: &Tenant, id: InstanceId) {
        let got = tenant.instance(id);
        self.show(&("query", id), &got);
        self.judge(seat, Writes::Nothing, |world, at| world.query(id, &got, at));
    }

    fn query_key(&mut self, seat: usize, tenant: &Tenant, which: u8) {
        let (scope, key) = ops::key(which);
        let got = tenant.instance_by_key(&scope, &key);
        self.show(&("query by key", which), &got);
        self.judge(seat, Writes::Nothing, |world, at| world.query_key(which, &got, at));
    }

    fn list(&mut self, seat: usize, tenant: &Tenant, which: u8, limit: usize) {
        let filter = match which % 4 {
            0 => Filter::default(),
            1 => Filter { live: Some(true), ..Filter::default() },
            2 => Filter { live: Some(false), ..Filter::default() },
            _ => Filter { scope: Some("s1".into()), definition: Some("d0".into()), ..Filter::default() },
        };
        let wanted = |one: &One| match which % 4 {
            0 => true,
            1 => one.ended.is_none(),
            2 => one.ended.is_some(),
            _ => one.launching.definition == 0 && one.launching.key.is_some_and(|key| key % 2 == 1),
        };
        match pages(tenant, &filter, limit) {
            Ok(found) => {
                self.show(&("list", which), &found);
                self.judge(seat, Writes::Nothing, |world, at| world.list(&found, &wanted, at));
            }
            Err(err) => {
                let excused = self.struck() || self.disks.is_broken(None);
                assert!(of_the_world(&err) && excused, "the list failed: {err:?}");
            }
        }
    }

    fn claim(&mut self, seat: usize, queue: u8) {
        let Some(tenant) = self.seats[seat].tenant.clone() else { return };
        let (queue, length_ms) = ops::QUEUES[usize::from(queue)];
        let gate = tenant.register("w").expect("a good name");
        let got = gate.claim(queue, Duration::ZERO);
        self.show(&("claim", queue), &got);
        if let Ok(Some(task)) = &got {
            // I9 rests on this: a later lease has a higher token, whatever happened in between.
            assert!(self.tasks.iter().all(|earlier| earlier.task.token < task.token), "{task:?}");
            self.tasks.push(Held { seat, task: task.clone(), gate: Some(gate) });
        }
        self.judge(seat, Writes::Anywhere, |world, at| world.claim(queue, length_ms, &got, at));
    }

    /// A task, and what its worker does with it. Without a gate he registers anew.
    pub(super) fn with_task<T>(
        &self,
        which: u8,
        act: impl FnOnce(&Gate, &Task) -> T,
    ) -> Option<(usize, Task, T)> {
        let back = usize::from(which).checked_rem(self.tasks.len().min(8))?;
        let Held { seat, task, gate } = self.tasks.iter().rev().nth(back)?;
        let tenant = self.seats[*seat].tenant.as_ref()?;
        let got = match gate {
            Some(gate) => act(gate, task),
            None => act(&tenant.register("w").expect("a good name"), task),
        };
        Some((*seat, task.clone(), got))
    }

    /// The tenants of these seats are gone, and with them whoever worked for them.
    pub(super) fn forget_gates(&mut self, of: impl Fn(usize) -> bool) {
        self.tasks.iter_mut().filter(|held| of(held.seat)).for_each(|held| held.gate = None);
    }

    fn settle(&mut self, which: u8, report: Report) {
        let done = self.with_task(which, |gate, task| match report {
            Report::Done(next) => gate.complete(task, ops::completion(next)),
            Report::Failed(again, _) => gate.fail(task, &cutover::Failure { reason: WHY.into(), again }),
        });
        let Some((seat, task, got)) = done else { return };
        self.show(&(report, &task), &got);
        self.judge(seat, Writes::Anywhere, |world, at| world.settle(&task, report, &got, at));
    }

    fn beat(&mut self, which: u8) {
        let done = self.with_task(which, |gate, task| gate.heartbeat(task));
        let Some((seat, task, got)) = done else { return };
        self.show(&("heartbeat", &task), &got);
        self.judge(seat, Writes::Nothing, |world, at| world.beat(&task, &got, at));
    }

    pub(super) fn advance(&mut self, by_ms: u64) {
        self.clock.advance(Duration::from_millis(by_ms));
        self.running_ms += by_ms;
        self.now_ms = self.now_ms.max(self.running_ms);
        self.mono_ms += by_ms;
    }

    /// Reads everything, which decides between the worlds that are still possible.
    pub(super) fn read_all(&mut self, seat: usize) {
        let Some(tenant) = self.seats[seat].tenant.clone() else { return };
        // Instances that were launched without an answer are seen here first.
        self.list(seat, &tenant, 0, 3);
        self.undecided(seat, &tenant, 2);
        for which in 0..4 {
            self.definition(seat, &tenant, which);
            self.query_key(seat, &tenant, which);
        }
        let instances = self.seats[seat].worlds.first().map_or(&[][..], |world| &world.instances);
        let ids: Vec<InstanceId> = instances.iter().filter_map(|one| one.id).collect();
        ids.into_iter().for_each(|id| self.query(seat, &tenant, id));
    }
}

/// The number that whoever in this thread asks next for a random one is given.
fn next_random() -> u64 {
    fastrand::Rng::with_seed(fastrand::get_seed()).u64(..)
}

/// Where an operation may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    Nothing,
    Home,
    Anywhere,
}

/// All pages of a list.
pub(super) fn pages(tenant: &Tenant, filter: &Filter, limit: usize) -> cutover::Result<Vec<Instance>> {
    let (mut found, mut after) = (Vec::new(), None);
    for _ in 0..10_000 {
        let page = tenant.list(filter, after, limit)?;
        assert!(page.instances.len() <= limit.max(1), "{page:?}");
        found.extend(page.instances);
        match page.next {
            None => return Ok(found),
            next => {
                assert!(next > after, "a list that comes back to {next:?}");
                after = next;
            }
        }
    }
    panic!("a list without an end");
}

/// Whether deleting or making failed in a way that a store's failure explains.
pub(super) fn is_kind(err: &cutover::Error, kinds: &[ErrorKind]) -> bool {
    kinds.contains(&err.kind())
}
