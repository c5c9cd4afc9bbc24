//! What goes on around the answers: moves, steps of the engine, restarts.

use std::time::Duration;

use cutover::clock::Clock as _;
use cutover::migration::phase;
use cutover::{Engine, ErrorKind, Event, Filter, Hold, InstanceId, MigrationOptions, Move, Phase, Tenant};

use super::Seen;
use super::ops::{DWELL, Gone, Op};
use super::run::{AHEAD, Run, is_kind, name, pages, store};
use super::world::of_the_world;

/// Longer than anything takes, unless it hangs.
const LONG: Duration = Duration::from_secs(30);
/// Steps after which an engine that still has something to do goes in circles.
const STEPS: usize = 2_000;

impl Run {
    pub(super) fn steer(&mut self, tenant: &Tenant, op: &Op) {
        let migration = tenant.migration();
        let phase = tenant.status().phase;
        match *op {
            Op::Start(_, target, bits) => {
                let got = migration.start(store(target), options(bits));
                self.show(op, &got);
                match got {
                    Ok(_) => assert_eq!(phase, Phase::Stable, "started twice"),
                    Err(err) => {
                        // The target may be its own store, or one that it is still leaving.
                        let refused = is_kind(&err, &[ErrorKind::IllegalMove, ErrorKind::InvalidInput]);
                        self.check_refusal(refused, &err);
                    }
                }
            }
            Op::Move(_, which) => {
                let made = [Move::Switch, Move::Complete, Move::Cancel, Move::Reverse][usize::from(which)];
                let got = match made {
                    Move::Switch => migration.switch(),
                    Move::Complete => migration.complete(),
                    Move::Cancel => migration.cancel(),
                    _ => migration.reverse(),
                };
                self.show(&made, &got);
                match got {
                    Ok(()) => assert!(phase::next(phase, made).is_ok(), "{made} in {phase}"),
                    Err(err) => self.check_refusal(is_kind(&err, &[ErrorKind::IllegalMove]), &err),
                }
            }
            Op::MoveStragglers(_, older_ms) => {
                let got = migration.move_stragglers(Duration::from_millis(older_ms));
                self.show(op, &got);
                let drains = matches!(phase, Phase::PostMigration | Phase::PostRollback);
                match got {
                    Ok(()) => assert!(drains, "moved in {phase}"),
                    Err(err) => self.check_refusal(!drains && is_kind(&err, &[ErrorKind::IllegalMove]), &err),
                }
            }
            Op::Hold(_, hold, on) => {
                let got = if on { migration.hold(hold) } else { migration.release(hold) };
                self.show(op, &got);
                assert_eq!(got.is_ok(), phase != Phase::Stable, "{got:?}");
            }
            _ => {}
        }
    }

    fn check_refusal(&self, refused: bool, err: &cutover::Error) {
        let excused = of_the_world(err) && (self.struck() || self.disks.is_broken(None));
        assert!(refused || excused, "the move failed: {err:?}");
    }

    /// The status changes by legal moves only, one at a time, and its epoch rises with each.
    pub(super) fn observe(&mut self) {
        for seat in &mut self.seats {
            let (Some(tenant), Some(before)) = (&seat.tenant, seat.status) else { continue };
            let status = tenant.status();
            if status == before {
                continue;
            }
            let legal = Move::ALL.into_iter().any(|made| phase::next(before.phase, made) == Ok(status.phase));
            assert!(legal && status.epoch > before.epoch, "{before:?} became {status:?}");
            seat.status = Some(status);
            self.seen.moves += 1;
            if self.setup.moving && matches!(status.phase, Phase::PostMigration | Phase::PostRollback) {
                // If a store has failed it is not asked for.
                drop(tenant.migration().move_stragglers(Duration::ZERO));
            }
        }
    }

    pub(super) fn step(&mut self) -> bool {
        let more = self.engine().step().expect("it is open");
        self.observe();
        self.moved();
        self.mended();
        more
    }

    /// What the engine has told of instances that it moved.
    fn moved(&mut self) {
        let mut on_the_way = None;
        let events = std::mem::take(&mut *self.events.0.lock().unwrap());
        for event in events {
            let (tenant, id, there) = match event {
                Event::Moving { tenant, instance } => (tenant, instance, false),
                Event::Moved { tenant, instance, .. } => (tenant, instance, true),
                _ => continue,
            };
            self.show(&tenant, &(id, there));
            self.seen.relocated += u64::from(there);
            let seat = usize::from(tenant != name(0));
            self.seats[seat].worlds.iter_mut().for_each(|world| world.moved(id, there));
            if let Some((seat, id)) = on_the_way.take().filter(|_| !there) {
                self.lost_on_the_way(seat, id);
            }
            on_the_way = (!there).then_some((seat, id));
        }
        if let Some((seat, id)) = on_the_way {
            self.lost_on_the_way(seat, id);
        }
    }

    fn lost_on_the_way(&mut self, seat: usize, id: InstanceId) {
        assert!(self.struck() || self.disks.is_broken(None), "the move of {id} failed");
        self.seats[seat].worlds.iter_mut().for_each(|world| world.lost_on_the_way(id));
    }

    /// Steps until nothing is left to do right now. Then everything that is due has been collected, if nothing stood in the way.
    pub(super) fn drain(&mut self) {
        for _ in 0..STEPS {
            if !self.step() {
                if !self.struck() && !self.disks.is_broken(None) {
                    let now_ms = self.now_ms;
                    let worlds = self.seats.iter_mut().flat_map(|seat| &mut seat.worlds);
                    worlds.for_each(|world| world.collected(now_ms));
                }
                return;
            }
        }
        let progress = self
            .seats
            .each_ref()
            .map(|seat| seat.tenant.as_ref().map(|tenant| tenant.migration().progress()));
        panic!("{STEPS} steps were not enough: {progress:?}");
    }

    pub(super) fn open(&mut self) {
        let mut opened = self.try_open();
        if opened.is_err() && self.struck() {
            // The store that failed to open is not armed any more.
            opened = self.try_open();
        }
        self.engine = Some(opened.unwrap_or_else(|err| panic!("it does not open: {err:?}")));
        self.seen.openings += 1;
    }

    /// The engine goes and comes back. What was in doubt has become one or the other, which reading everything shows.
    pub(super) fn reopen(&mut self, gone: Gone, jump_ms: u64) {
        let gone = if self.setup.buffered && gone == Gone::PowerCut { Gone::Killed } else { gone };
        let Some(engine) = self.engine.take() else { return };
        self.seats.iter_mut().for_each(|seat| seat.tenant = None);
        self.forget_gates(|_| true);
        let orderly = gone == Gone::Closed && self.close(&engine);
        self.disks.crash(gone);
        if gone != Gone::Closed {
            self.files = self.files.copy();
        }
        if gone == Gone::PowerCut {
            self.files.power_cut();
        }
        if !orderly {
            // Whoever was killed closes nothing; only its handles go.
            drop(engine.close(LONG));
        }
        drop(engine);
        self.show(&(gone, jump_ms), &orderly);
        // After an end in order not even a clock that was set back takes time back.
        self.now_ms += jump_ms;
        self.clock.set_wall(if orderly && jump_ms == 0 { self.now_ms - 100_000 } else { self.now_ms });
        self.open();
        drop(self.disks.take_mended());
        for seat in 0..self.seats.len() {
            self.sit_down(seat);
        }
        if self.seats.iter().all(|seat| seat.tenant.is_none()) {
            // Nobody would tell the time, and later nobody knows any more how far it runs behind what it tells.
            self.make(0);
        }
        self.learn_time();
        let now_ms = self.now_ms;
        self.running_ms = self.clock.wall_ms().max(now_ms - AHEAD);
        for seat in 0..self.seats.len() {
            let worlds = std::mem::take(&mut self.seats[seat].worlds);
            let worlds = worlds.into_iter().map(|world| world.reopen(gone != Gone::Closed, now_ms));
            self.seats[seat].worlds = worlds.collect();
        }
        self.observe();
        for seat in 0..self.seats.len() {
            self.read_all(seat);
        }
    }

    fn close(&mut self, engine: &Engine) -> bool {
        let closed = engine.close(LONG);
        let excused = self.struck() || self.disks.is_broken(None);
        assert!(closed.is_ok() || excused, "it does not close: {closed:?}");
        closed.is_ok()
    }

    /// Finds the tenant of a seat again. One that was being deleted may be gone.
    fn sit_down(&mut self, seat: usize) {
        let there = self.engine().tenants().iter().any(|other| other == name(seat));
        let expected = !self.seats[seat].worlds.is_empty();
        let leaving = std::mem::take(&mut self.seats[seat].leaving);
        assert!(there == expected || leaving, "{}: there {there}, expected {expected}", name(seat));
        if there {
            self.seats[seat].tenant = self.engine().tenant(name(seat)).ok();
        } else {
            self.seats[seat].worlds.clear();
            self.seats[seat].status = None;
        }
    }

    /// Deletes a tenant, or makes one again.
    pub(super) fn remake(&mut self, seat: usize) {
        if self.seats[seat].leaving {
            return;
        }
        let Some(tenant) = self.seats[seat].tenant.clone() else { return self.make(seat) };
        let got = self.engine().delete_tenant(name(seat));
        self.show(&("delete", seat), &got);
        self.seats[seat].tenant = None;
        self.seats[seat].status = None;
        self.forget_gates(|of| of == seat);
        match got {
            Ok(()) => {
                self.seats[seat].worlds.clear();
                let late = tenant.define("late", 1, "t", b"");
                assert!(late.is_err_and(|err| err.kind() == ErrorKind::NotFound), "a deleted tenant answers");
            }
            Err(err) => {
                let excused = of_the_world(&err) && (self.struck() || self.disks.is_broken(None));
                assert!(excused, "it is not deleted: {err:?}");
                self.seats[seat].leaving = true;
            }
        }
    }

    /// Nothing fails any more: everything that lives is ended, its time passes, and what is left is what should be.
    pub(super) fn wind_down(mut self) -> Seen {
        self.disks.disarm();
        self.reopen(Gone::Killed, 0);
        for seat in 0..self.seats.len() {
            if let Some(tenant) = self.seats[seat].tenant.clone() {
                for hold in [Hold::Switch, Hold::Complete, Hold::All] {
                    // There may be no migration.
                    drop(tenant.migration().release(hold));
                }
                self.end_all(seat, &tenant);
            }
        }
        self.advance(10_000 + DWELL);
        for _ in 0..8 {
            self.drain();
            // Each phase may dwell.
            self.advance(DWELL);
        }
        self.drain();
        let tenants: Vec<Tenant> = self.seats.iter().filter_map(|seat| seat.tenant.clone()).collect();
        for tenant in &tenants {
            let progress = tenant.migration().progress();
            assert!(tenant.migration().wait_settled(Duration::ZERO).unwrap(), "{progress:?}");
        }
        for seat in 0..self.seats.len() {
            self.read_all(seat);
        }
        let stores: std::collections::BTreeSet<_> =
            tenants.iter().map(|tenant| tenant.status().initial).collect();
        assert_eq!(self.disks.count(), stores.len(), "stores that nobody uses are left");
        self.seen.faults = self.disks.fired();
        self.seen
    }

    fn end_all(&mut self, seat: usize, tenant: &Tenant) {
        let live = Filter { live: Some(true), ..Filter::default() };
        let ids: Vec<_> =
            pages(tenant, &live, 100).unwrap().into_iter().map(|instance| instance.id).collect();
        for id in ids {
            let got = tenant.terminate(id, "over");
            self.judge(seat, super::run::Writes::Nothing, |mut world, at| {
                let place = world.place(id, |_| false);
                world.act(place, &got, at, |world, place| {
                    world.end(place, cutover::Ending::Terminated, "over", &[], at.now_ms);
                    cutover::Ended::Now
                })
            });
        }
    }
}

fn options(bits: u8) -> MigrationOptions {
    let dwell = |options: MigrationOptions, (at, phase): (u32, Phase)| {
        if bits >> at & 1 == 1 { options.dwell(phase, Duration::from_millis(DWELL)) } else { options }
    };
    [(4, Phase::PreMigration), (5, Phase::Migration), (6, Phase::PostMigration), (7, Phase::RollingBack)]
        .into_iter()
        .fold(
            MigrationOptions::default()
                .move_rate(0)
                .hold_switch(bits & 3 == 3)
                .hold_complete(bits & 12 == 12),
            dwell,
        )
}
