//! What each action of the launch model does.

use super::state::{At, Client, KEYS, Kind, Plan, Row, State};
use super::{Action, Do, Launches, Mutant};
use crate::control::Step;
use crate::moves::{self, Turn};
use crate::status::Store;

impl Launches {
    /// The state after an action.
    pub(super) fn after(&self, state: &State, action: Action) -> State {
        let mut next = *state;
        match action {
            Action::Client(n, what) => self.client(&mut next, usize::from(n), what),
            Action::Drive(step) => {
                if step == Step::Sync {
                    if next.broken & next.stores.open != 0 {
                        next.control.abandon();
                        return next;
                    }
                    [0, 1].into_iter().for_each(|store| next.flush(store));
                }
                next.failures += u8::from(matches!(step, Step::FailWrite { .. }));
                if next.control.step(step, self.weak()) {
                    self.begin_wait(&mut next);
                }
            }
            Action::Turn(turn) => {
                if let Turn::Remove(store) = turn {
                    empty(&mut next, store);
                }
                moves::turn(&self.statuses, &mut next.control, &mut next.stores, turn);
            }
            Action::Flush(store) => next.flush(store),
            Action::Expire(store, key) => expire(&mut next, store, key),
            Action::Crash { lose_slot } => next.crash(lose_slot),
            Action::Open => self.open(&mut next),
        }
        next
    }

    /// Everybody who is pinned now is waited for.
    fn begin_wait(&self, state: &mut State) {
        if state.control.waited {
            return;
        }
        for client in &mut state.clients {
            let pinned = match client.at {
                At::Idle => false,
                At::Pinned => !self.is(Mutant::ReadBeforePin),
                _ => true,
            };
            client.awaited |= pinned;
        }
    }

    /// Opening: stores that nobody names are removed, those that the status names are opened, intents are finished. All of it is durable
    /// before the first call is served; a crash in between is one before, since each part is repeated.
    fn open(&self, state: &mut State) {
        state.control.open(&self.statuses);
        for store in state.stores.open(&state.control, &self.statuses) {
            empty(state, store);
            state.stores.remove(store);
        }
        for key in 0..KEYS as u8 {
            for store in [0, 1] {
                self.redo(state, store, key);
            }
        }
    }

    /// `Inner::redo_replaces`.
    fn redo(&self, state: &mut State, store: Store, key: u8) {
        let epoch = state.cell(store, key).intent;
        if epoch == 0 {
            return;
        }
        let old = state.cell(1 - store, key);
        if old.seen.is_live() {
            old.seen.kind = Kind::Replaced;
        }
        state.launch(store, key, epoch);
        state.cell(store, key).intent = 0;
        state.flush(0);
        state.flush(1);
    }

    pub(super) fn client(&self, state: &mut State, n: usize, what: Do) {
        let Some(client) = state.clients.get(n).copied() else { return };
        let home = self.statuses.home(client.status);
        let next = match what {
            Do::Pin => self.pin(state, client),
            Do::Enter => self.enter(state, client),
            Do::Launch(key) => Client { at: At::LaunchLocked, key, ..client },
            Do::LookHome => Client { at: At::LaunchLooked, saw: state.row(home, client.key), ..client },
            Do::Decide { start } => self.decide(state, client, start),
            Do::Recheck if client.epoch == state.control.register.0 || self.is(Mutant::NoRecheck) => {
                Client { at: At::LaunchChecked, ..client }
            }
            // It lets go of everything and begins again.
            Do::Recheck => Client::default(),
            Do::Intend => {
                state.cell(home, client.key).intent = client.epoch;
                Client { at: At::Intended, ..client }
            }
            Do::EndOld => {
                state.cell(1 - home, client.key).seen.kind = Kind::Replaced;
                Client { at: At::OldEnded, ..client }
            }
            Do::Apply => {
                if client.plan == Plan::ReplaceHome {
                    state.cell(home, client.key).seen.kind = Kind::Ended;
                }
                state.launch(home, client.key, client.epoch);
                state.cell(home, client.key).intent = 0;
                Client { at: At::LaunchApplied, epoch: 0, plan: Plan::Fresh, ..client }
            }
            Do::Sync => sync(state, client, home),
            Do::Fail { kept } => {
                self.fail(state, n, &client, kept);
                Client::default()
            }
            Do::FailSync => {
                self.fail_sync(state, &client);
                Client::default()
            }
            Do::Refused => {
                self.refused(state, &client);
                Client::default()
            }
            Do::End(store, key) => Client { at: At::EndLocked, key, store, epoch: 0, ..client },
            Do::CheckLive if state.row(client.store, client.key).is_live() => {
                Client { at: At::EndChecked, ..client }
            }
            Do::CheckLive | Do::Unsure => Client::default(),
            Do::ApplyEnd => {
                state.cell(client.store, client.key).seen.kind = Kind::Ended;
                Client { at: At::EndApplied, ..client }
            }
            Do::Collect(store, key) => Client { at: At::CollectLocked, key, store, epoch: 0, ..client },
            Do::CheckExpired if state.row(client.store, client.key).kind == Kind::Expired => {
                Client { at: At::CollectChecked, ..client }
            }
            Do::CheckExpired => Client::default(),
            Do::Delete => {
                let row = &mut state.cell(client.store, client.key).seen;
                let kind = if row.is_live() { Kind::Orphan } else { Kind::None };
                *row = Row { kind, ..Row::default() };
                Client::default()
            }
        };
        if let Some(slot) = state.clients.get_mut(n) {
            *slot = next;
        }
    }

    fn pin(&self, state: &State, client: Client) -> Client {
        let read = self.is(Mutant::ReadBeforePin);
        let (epoch, status) = if read { state.control.register } else { Default::default() };
        Client { at: At::Pinned, epoch, status, ..client }
    }

    fn enter(&self, state: &mut State, client: Client) -> Client {
        let early = self.is(Mutant::ReadBeforePin);
        let (epoch, status) = if early { (client.epoch, client.status) } else { state.control.register };
        let missing = |store: Store| self.statuses.names(status, store) && !state.stores.is_open(store);
        if missing(0) || missing(1) {
            state.wrongs.failed = true;
            return Client::default();
        }
        Client { at: At::Entered, epoch, status, ..client }
    }

    fn decide(&self, state: &mut State, client: Client, start: bool) -> Client {
        let (chosen, store) = self.lookup(state, &client);
        let holder = |store| state.row(store, client.key).in_scope();
        let [one, two] = [holder(0), holder(1)];
        let truth = match (one.is_live(), two.is_live()) {
            (true, _) => (one, 0),
            (_, true) => (two, 1),
            _ if one.order >= two.order => (one, 0),
            _ => (two, 1),
        };
        let same = truth.0.kind == chosen.kind && (chosen.kind == Kind::None || truth.1 == store);
        state.wrongs.misjudged |= !same;
        if !start {
            return Client::default();
        }
        let home = self.statuses.home(client.status);
        let plan = match chosen.is_live() {
            false => Plan::Fresh,
            true if store == home => Plan::ReplaceHome,
            true => Plan::ReplaceOther,
        };
        Client { at: At::LaunchDecided, saw: Row::default(), plan, ..client }
    }
}

/// The row leaves scope, and with it whatever an earlier launch of the key has left on a disk: it has ended before.
fn expire(state: &mut State, store: Store, key: u8) {
    let epoch = state.row(store, key).epoch;
    state.cell(store, key).seen.kind = Kind::Expired;
    for side in [0, 1] {
        let disk = &mut state.cell(side, key).disk;
        if disk.is_ended() && disk.epoch <= epoch {
            disk.kind = Kind::Expired;
        }
    }
}

/// What was written is durable; where that was the end of it, lock and pin are let go of.
fn sync(state: &mut State, client: Client, home: Store) -> Client {
    let (store, at) = match client.at {
        At::Intended => (home, At::IntentDurable),
        At::OldEnded => (1 - home, At::OldEndDurable),
        At::EndApplied => (client.store, At::Idle),
        _ => (home, At::Idle),
    };
    state.flush(store);
    if at == At::Idle { Client::default() } else { Client { at, ..client } }
}

/// What is in a store goes with it.
fn empty(state: &mut State, store: Store) {
    for cell in state.cells.get_mut(usize::from(store)).into_iter().flatten() {
        state.wrongs.lost |= cell.disk.living() > 0 || !cell.is_empty();
        *cell = Default::default();
    }
}
