//! What each action of the definition model does.

use super::state::{At, Client, Op, Replicator, State, Task, bytes, fresh};
use super::{Action, Copying, Definitions, Do, Mutant};
use crate::control::Step;
use crate::engine::decide::Next;
use crate::moves::{self, Turn};
use crate::status::Store;
use cutover::{Move, Phase};

impl Definitions {
    /// The state after an action.
    pub(super) fn after(&self, state: &State, action: Action) -> State {
        let mut next = *state;
        match action {
            Action::Client(n, what) => self.client(&mut next, usize::from(n), what),
            Action::Replicate(what) => self.replicate(&mut next, what),
            Action::Drive(step) => self.drive(&mut next, step),
            Action::Turn(turn) => self.turn(&mut next, turn),
            Action::Flush(store) => next.side(store).flush(),
            Action::Crash { lose_slot } => next.crash(lose_slot),
            Action::Open => {
                next.control.open(&self.statuses);
                for store in next.stores.open(&next.control, &self.statuses) {
                    *next.side(store) = Default::default();
                    next.stores.remove(store);
                }
            }
        }
        next
    }

    fn turn(&self, state: &mut State, turn: Turn) {
        match turn {
            Turn::Remove(store) => *state.side(store) = Default::default(),
            // Positions belong to a migration.
            Turn::Move(Move::Start) => {
                state.sides.iter_mut().for_each(|side| side.position = Default::default())
            }
            // What was defined since is compared first.
            Turn::AskReverse => state.verified = false,
            _ => {}
        }
        moves::turn(&self.statuses, &mut state.control, &mut state.stores, turn);
    }

    fn drive(&self, state: &mut State, step: Step) {
        if step == Step::Sync && !self.is(Mutant::NoSync) {
            [0, 1].into_iter().for_each(|store| state.side(store).flush());
        }
        if !state.control.step(step, self.weak()) {
            return;
        }
        let phase = self.statuses.phase(state.control.register.1);
        // As `transition::publish` has it: between these two nothing can come apart.
        let stays = phase == Phase::PreRollback || self.is(Mutant::EarlierCompareCounts);
        (state.copied, state.verified) = (false, stays && state.verified);
        if !state.control.waited {
            state.clients.iter_mut().for_each(|client| client.awaited |= client.at != At::Idle);
            state.replicator.awaited |= state.replicator.pinned;
        }
    }

    fn client(&self, state: &mut State, n: usize, what: Do) {
        let Some(client) = state.clients.get(n).copied() else { return };
        let home = self.statuses.home(client.status);
        let next = match what {
            Do::Pin => Client { at: At::Pinned, ..client },
            Do::Enter => self.enter(state, client),
            Do::Lock(op, definition) => Client { at: At::Locked, op, definition, ..client },
            Do::LookHome => match (state.seen(home, client.definition), self.statuses.other(client.status)) {
                (0, Some(_)) if !self.is(Mutant::LookHomeOnly) => Client { at: At::LookedHome, ..client },
                (found, _) => self.found(state, client, found),
            },
            Do::LookOther => {
                let found = self
                    .statuses
                    .other(client.status)
                    .map_or(0, |other| state.seen(other, client.definition));
                self.found(state, client, found)
            }
            Do::Create => self.create(state, client),
            Do::Bring => self.bring(state, client),
            Do::Fail { kept } => {
                state.failures += 1;
                let value = state.seen(home, client.definition);
                if let Some(other) = self.statuses.other(client.status).filter(|_| kept) {
                    state.record(other, client.definition).disk = value;
                }
                if self.is(Mutant::NoGap) {
                    finish(state, client, home)
                } else {
                    Client { at: At::Failed, ..client }
                }
            }
            Do::Note => {
                state.gap(home, client.definition).seen = true;
                Client { at: At::Noted, ..client }
            }
            Do::GiveUp => {
                state.failures += 1;
                Client::default()
            }
            Do::Sync => self.sync(state, client, home),
        };
        if let Some(slot) = state.clients.get_mut(n) {
            *slot = next;
        }
    }

    fn enter(&self, state: &mut State, client: Client) -> Client {
        let (_, status) = state.control.register;
        if [0, 1].into_iter().any(|store| self.statuses.names(status, store) && !state.stores.is_open(store))
        {
            state.wrongs.failed = true;
            return Client::default();
        }
        Client { at: At::Entered, status, ..client }
    }

    fn create(&self, state: &mut State, client: Client) -> Client {
        let Op::Define(new) = client.op else { return Client::default() };
        let definition = usize::from(client.definition);
        let cells = state.sides.iter().filter_map(|side| side.records.get(definition));
        let there: Vec<u8> = cells
            .flat_map(|cell| [cell.seen, cell.disk])
            .chain(state.told.get(definition).copied())
            .collect();
        state.record(self.statuses.home(client.status), client.definition).seen = fresh(new, there);
        Client { at: At::Created, ..client }
    }

    /// The look at both stores is over, and this is what was found.
    fn found(&self, state: &mut State, client: Client, found: u8) -> Client {
        match (client.op, found) {
            (Op::Define(_), 0) => Client { at: At::Absent, ..client },
            (_, 0) => Client::default(),
            (Op::Define(new), found) if bytes(found) != new => {
                // A conflict: it says that the definition exists with other bytes.
                state.tell(client.definition, found, false);
                Client::default()
            }
            (Op::Look, found) => {
                state.tell(client.definition, found, false);
                Client::default()
            }
            (Op::Define(_), found) if self.is(Mutant::RepeatReturnsEarly) => {
                state.tell(client.definition, found, true);
                Client::default()
            }
            (Op::Define(_) | Op::Read, _) => Client { at: At::Bringing, ..client },
        }
    }

    fn bring(&self, state: &mut State, client: Client) -> Client {
        let home = self.statuses.home(client.status);
        let Some(other) = self.statuses.other(client.status) else { return finish(state, client, home) };
        let [at_home, there] = [home, other].map(|store| state.seen(store, client.definition));
        let (store, value) = match (at_home, there) {
            (0, value) => (home, value),
            (value, 0) => (other, value),
            _ => return finish(state, client, home),
        };
        state.record(store, client.definition).seen = value;
        Client { at: At::Brought(store), ..client }
    }

    fn sync(&self, state: &mut State, client: Client, home: Store) -> Client {
        match client.at {
            At::Brought(store) => {
                state.side(store).flush();
                finish(state, client, home)
            }
            At::Created => {
                state.side(home).flush();
                Client { at: At::Bringing, ..client }
            }
            _ => {
                state.side(home).flush();
                finish(state, client, home)
            }
        }
    }

    fn replicate(&self, state: &mut State, what: Copying) {
        let last = self.bounds.definitions;
        match (what, state.replicator.task) {
            (Copying::Job, _) => self.job(state),
            (Copying::Read, Task::Copy(definition)) => {
                let from = initial(self, state);
                let value = state.seen(from, definition);
                state.replicator.task = Task::Copying(definition, value);
                state.replicator.pinned = true;
            }
            (Copying::Put, Task::Copying(definition, value)) => {
                let to = 1 - initial(self, state);
                if value != 0 {
                    self.put(state, to, definition, value);
                    state.side(to).position.seen = definition + 1;
                }
                self.go_on(
                    state,
                    if definition + 1 < last {
                        Task::Copy(definition + 1)
                    } else {
                        Task::Done { compared: false }
                    },
                );
            }
            (Copying::Mend, task) => self.mend(state, task),
            (Copying::Compare, Task::Compare(definition)) => {
                state.replicator.pinned = true;
                match self.level(state, definition) {
                    Some(store) if !self.is(Mutant::CompareNotSynced) => {
                        state.replicator.task = Task::Levelled(definition, store);
                    }
                    _ => self.go_on(state, compare_next(definition, last)),
                }
            }
            (Copying::Compare, Task::Levelled(definition, store)) => {
                state.side(store).flush();
                self.go_on(state, compare_next(definition, last));
            }
            (Copying::Tell, Task::Done { compared }) => {
                if state.control.record.epoch == state.replicator.epoch {
                    if compared { state.verified = true } else { state.copied = true }
                }
                state.replicator = Replicator::default();
            }
            _ => {}
        }
    }

    fn job(&self, state: &mut State) {
        let record = state.control.record;
        let next = moves::next(&self.statuses, &state.control, self.known(state));
        let to = self.statuses.store(record.status, cutover::Role::Target).unwrap_or_default();
        let task = if next == Next::Copy {
            let position = state.side(to).position.seen;
            if position < self.bounds.definitions {
                Task::Copy(position)
            } else {
                Task::Done { compared: false }
            }
        } else {
            Task::Mend(0, 0)
        };
        state.replicator =
            Replicator { task, epoch: record.epoch, status: record.status, pinned: false, awaited: false };
    }

    /// A batch is over: the pin goes, and with it the job if its epoch is over.
    fn go_on(&self, state: &mut State, task: Task) {
        state.replicator.pinned = false;
        state.replicator.awaited = false;
        state.replicator.task = task;
        if state.control.record.epoch != state.replicator.epoch {
            state.replicator = Replicator::default();
        }
    }

    fn put(&self, state: &mut State, to: Store, definition: u8, value: u8) {
        let there = state.seen(to, definition);
        if there == 0 {
            let copy = if self.is(Mutant::CopyMakesNew) { fresh(bytes(value), [value]) } else { value };
            state.record(to, definition).seen = copy;
        }
    }

    /// Under the lock: whichever store lacks the definition gets the record of the other. Says which.
    fn level(&self, state: &mut State, definition: u8) -> Option<Store> {
        let (store, value) = match [0, 1].map(|store| state.seen(store, definition)) {
            [0, 0] => return None,
            [0, value] => (0, value),
            [value, 0] => (1, value),
            _ => return None,
        };
        self.put(state, store, definition, value);
        Some(store)
    }

    fn mend(&self, state: &mut State, task: Task) {
        let (definition, noted) = match task {
            Task::Mend(definition, store)
            | Task::Mended(definition, store)
            | Task::MendSynced(definition, store) => (definition, store),
            _ => return,
        };
        let next = if noted == 0 {
            Task::Mend(definition, 1)
        } else if definition + 1 < self.bounds.definitions {
            Task::Mend(definition + 1, 0)
        } else {
            Task::Compare(0)
        };
        match task {
            Task::Mend(..) if self.notes(state, definition, noted) => {
                state.replicator.pinned = true;
                self.level(state, definition);
                let synced = self.is(Mutant::MendNotSynced);
                state.replicator.task = if synced {
                    Task::MendSynced(definition, noted)
                } else {
                    Task::Mended(definition, noted)
                };
            }
            Task::Mended(..) => {
                state.side(1 - noted).flush();
                state.replicator.task = Task::MendSynced(definition, noted);
            }
            Task::MendSynced(..) => {
                state.gap(noted, definition).seen = false;
                state.side(noted).flush();
                self.go_on(state, next);
            }
            _ => self.go_on(state, next),
        }
    }
}

fn compare_next(definition: u8, last: u8) -> Task {
    if definition + 1 < last { Task::Compare(definition + 1) } else { Task::Done { compared: true } }
}

/// The store that the replicator copies from.
fn initial(model: &Definitions, state: &State) -> Store {
    model.statuses.store(state.replicator.status, cutover::Role::Initial).unwrap_or_default()
}

/// The answer: what the client found or made exists.
fn finish(state: &mut State, client: Client, home: Store) -> Client {
    let value = state.seen(home, client.definition);
    state.tell(client.definition, value, true);
    Client::default()
}
