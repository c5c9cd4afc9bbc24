//! The launch model: clients that launch, end and collect, step by step, while a tenant moves between two stores and the engine
//! crashes.
//!
//! | action | in the engine |
//! |---|---|
//! | [`Do::Pin`], [`Do::Enter`] | `tenant::Inner::enter`: pin; then read the status and look up the stores |
//! | [`Do::Launch`] | `Inner::try_launch`: the lock of the key |
//! | [`Do::LookHome`], [`Do::Decide`] | `Inner::key_record`, home first, then the other store, and `launch::decide` |
//! | [`Do::Recheck`] | `Register::unchanged` |
//! | [`Do::Apply`], [`Do::Sync`] | `Inner::commit`: visible, then durable; the lock and the pin go with the answer |
//! | [`Do::Intend`] to [`Do::Sync`] | `Inner::replace`, `Inner::intend`: terminate and launch over two stores |
//! | [`Do::End`], [`Do::CheckLive`] | `Inner::with_locked`: the lock of the key, then the look at the instance |
//! | [`Do::ApplyEnd`] | `Inner::end_now` |
//! | [`Do::Collect`], [`Do::CheckExpired`], [`Do::Delete`] | `gc::collect_together`, a relaxed write |
//! | [`Do::Fail`], [`Do::FailSync`], [`Do::Refused`] | commits that fail: `Inner::commit`, `Doubts`, and what a store that failed refuses |
//! | [`Action::Drive`] | the next step of a transition, see [`crate::control`] |
//! | [`Action::Turn`] | the moves of the operator and of the driver, and the removal of a store that was left, see [`crate::moves`] |
//! | [`Action::Flush`] | whatever makes a relaxed or unfinished write durable after all |
//! | [`Action::Expire`] | time passes |
//! | [`Action::Crash`], [`Action::Open`] | a power cut, and `engine::open`: stores nobody names are removed, intents are finished |
//!
//! What is left out, and why nothing is missed by it. *Instances* are not told apart from the row of their key: a row that is live is one live instance,
//! and an end that finds another instance than it meant ends that one, as another end could have. *Requests* are keys that nobody
//! ends, under a lock of their own. *Instance locks* are always taken under the key's. *Definitions* have a model of their own; here they are always copied and
//! compared. A *kill* is a power cut after a flush. Letting go of lock and pin is part of the step before it, because nobody can
//! tell the two moments apart except by waiting longer.

mod fault;
pub mod state;
mod step;

use std::fmt;

use cutover::Phase;
use stateright::{Model, Property};

use crate::control::{Step, Weakened};
use crate::moves::{self, Known, Turn};
use crate::status::{Compact, Statuses, Store};
use state::{At, CLIENTS, KEYS, Kind, Row, State};

/// How large the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Clients, up to [`CLIENTS`].
    pub clients: usize,
    /// Keys, up to [`KEYS`].
    pub keys: u8,
    /// The highest epoch: one more than there are changes of the status.
    pub epochs: u8,
    /// Crashes.
    pub crashes: u8,
    /// Failed writes of the record.
    pub failures: u8,
    /// Commits that fail.
    pub faults: u8,
    /// Whether launches may replace the instance that holds their key.
    pub replaces: bool,
    /// Whether keys leave scope and are collected.
    pub collects: bool,
    /// Whether states that differ only in the names of clients and keys are one.
    pub symmetric: bool,
}

/// A rule of the protocol that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Launches do not lock their key.
    NoKeyLock,
    /// Nobody waits for the pins taken before a status was published.
    NoWait,
    /// A status is published before its record is durable.
    PublishFirst,
    /// A status is published when one of the two slots is written.
    PublishAfterOneSlot,
    /// An end lets go of the key when it is visible, before it is durable.
    EndVisibleBeforeDurable,
    /// Among ended holders the one at home counts, not the later epoch.
    HomeFirst,
    /// Launches do not look again at the status before they commit.
    NoRecheck,
    /// The collector looks without the lock of the key and deletes what it has seen.
    CollectUnlocked,
    /// A replacement over two stores makes no intent.
    NoIntent,
    /// The status is read before the pin is taken.
    ReadBeforePin,
    /// A store is given up before it has drained.
    NotDrained,
    /// Launches look for their key at home only.
    LookHomeOnly,
    /// After a commit that failed its key is answered from what the store shows.
    NoDoubts,
}

/// The model.
#[derive(Debug, Clone)]
pub struct Launches {
    /// How large it is.
    pub bounds: Bounds,
    /// What is left out.
    pub mutant: Option<Mutant>,
    /// Check only the property of this name.
    pub only: Option<&'static str>,
    pub(crate) statuses: Statuses,
}

/// What a client does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Do {
    /// Pin.
    Pin,
    /// Read the status, look up the stores.
    Enter,
    /// Lock a key to launch.
    Launch(u8),
    /// Look for the key at home.
    LookHome,
    /// Look for it in the other store, and decide.
    Decide {
        /// To start, and not to answer.
        start: bool,
    },
    /// Look whether the status is still the same.
    Recheck,
    /// Make the rows visible.
    Apply,
    /// Make the intent to replace visible.
    Intend,
    /// Make the end of the old instance visible.
    EndOld,
    /// Make what was written durable.
    Sync,
    /// Lock a key to end its instance in a store.
    End(Store, u8),
    /// Look whether it lives.
    CheckLive,
    /// Make the end visible.
    ApplyEnd,
    /// Lock a key to collect its row in a store.
    Collect(Store, u8),
    /// Look whether it is out of scope.
    CheckExpired,
    /// Delete it.
    Delete,
    /// The commit fails and shows nothing.
    Fail {
        /// It is on the disk nevertheless.
        kept: bool,
    },
    /// What was made visible is not known to be durable.
    FailSync,
    /// The store takes no writes.
    Refused,
    /// A commit of the key has failed: the answer is that nobody knows.
    Unsure,
}

/// A step of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A client does something.
    Client(u8, Do),
    /// The next step of a transition.
    Drive(Step),
    /// Somebody decides something about the migration.
    Turn(Turn),
    /// A store syncs what it has.
    Flush(Store),
    /// A key leaves scope in a store.
    Expire(Store, u8),
    /// Power is cut.
    Crash {
        /// The slot that was written last cannot be read.
        lose_slot: bool,
    },
    /// The engine opens.
    Open,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client, what) => write!(f, "client {client}: {what:?}"),
            Self::Drive(step) => write!(f, "control: {step:?}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl Launches {
    /// A model of this size.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, mutant: None, only: None, statuses: Statuses::new() }
    }

    /// With this rule left out; only the property that this is expected to break is checked.
    #[must_use]
    pub fn mutant(mut self, mutant: Mutant, breaks: &'static str) -> Self {
        (self.mutant, self.only) = (Some(mutant), Some(breaks));
        self
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(crate) fn weak(&self) -> Weakened {
        Weakened {
            publish_first: self.is(Mutant::PublishFirst),
            publish_after_one_slot: self.is(Mutant::PublishAfterOneSlot),
            no_wait: self.is(Mutant::NoWait),
        }
    }

    /// Whether somebody holds the lock of the key.
    pub(crate) fn is_locked(&self, state: &State, key: u8) -> bool {
        let holds = |at: At| match at {
            At::Idle | At::Pinned | At::Entered => false,
            At::LaunchLocked
            | At::LaunchLooked
            | At::LaunchDecided
            | At::LaunchChecked
            | At::LaunchApplied => !self.is(Mutant::NoKeyLock),
            At::EndApplied => !self.is(Mutant::EndVisibleBeforeDurable),
            At::CollectLocked | At::CollectChecked => !self.is(Mutant::CollectUnlocked),
            _ => true,
        };
        state.clients.iter().any(|client| client.key == key && holds(client.at))
    }

    fn client_actions(&self, state: &State, n: usize, out: &mut Vec<Action>) {
        let Some(client) = state.clients.get(n).copied() else { return };
        let mut act = |what| out.push(Action::Client(n as u8, what));
        match client.at {
            At::Idle => act(Do::Pin),
            At::Pinned => act(Do::Enter),
            At::Entered => {
                for key in 0..self.bounds.keys {
                    let locked = self.is_locked(state, key);
                    let sure = !state.is_doubtful(key);
                    if !sure {
                        act(Do::Unsure);
                    }
                    if sure && (!locked || self.is(Mutant::NoKeyLock)) {
                        act(Do::Launch(key));
                    }
                    for store in [0, 1] {
                        if !self.statuses.names(client.status, store) {
                            continue;
                        }
                        if sure && !locked && state.row(store, key).is_live() {
                            act(Do::End(store, key));
                        }
                        if state.row(store, key).kind == Kind::Expired
                            && (!locked || self.is(Mutant::CollectUnlocked))
                        {
                            act(Do::Collect(store, key));
                        }
                    }
                }
            }
            At::LaunchLocked => act(Do::LookHome),
            At::LaunchLooked => {
                let (chosen, ..) = self.lookup(state, &client);
                if !chosen.is_live() || self.bounds.replaces {
                    act(Do::Decide { start: true });
                }
                if chosen.kind != Kind::None {
                    act(Do::Decide { start: false });
                }
            }
            At::LaunchDecided => act(Do::Recheck),
            At::EndLocked => act(Do::CheckLive),
            At::CollectLocked => act(Do::CheckExpired),
            _ => self.offer_commit(state, n, &client, out),
        }
    }

    /// What a launch that has looked at home finds in all: the row that counts, and where it is.
    pub(crate) fn lookup(&self, state: &State, client: &state::Client) -> (Row, Store) {
        let home = self.statuses.home(client.status);
        let at_home = client.saw.in_scope();
        let Some(other) = self.statuses.other(client.status) else { return (at_home, home) };
        let there = state.row(other, client.key).in_scope();
        let rank = |row: &Row| (row.is_live(), row.epoch);
        let home_first = self.is(Mutant::HomeFirst) && at_home.is_ended() && there.is_ended();
        let home_counts = self.is(Mutant::LookHomeOnly)
            || home_first
            || there.kind == Kind::None
            || (at_home.kind != Kind::None && rank(&at_home) >= rank(&there));
        if home_counts { (at_home, home) } else { (there, other) }
    }

    fn turns(&self, state: &State, out: &mut Vec<Action>) {
        let control = &state.control;
        if control.is_settled() && control.record.epoch.max(control.highest) < self.bounds.epochs {
            let left = self.statuses.left(control.record.status);
            let drained = left
                .and_then(|store| state.cells.get(usize::from(store)))
                .is_some_and(|cells| cells.iter().all(state::Cell::is_empty));
            // Definitions have a model of their own.
            let drained = drained || self.is(Mutant::NotDrained);
            let known = Known { copied: true, verified: true, drained };
            moves::moves(&self.statuses, control, known, |turn| out.push(Action::Turn(turn)));
        }
        let busy = |store| {
            let holds =
                |client: &state::Client| client.has_handles() && self.statuses.names(client.status, store);
            state.clients.iter().any(holds)
        };
        out.extend(moves::retirement(control, state.stores, busy).map(Action::Turn));
    }

    fn surroundings(&self, state: &State, out: &mut Vec<Action>) {
        for store in [0, 1_u8] {
            let Some(cells) = state.cells.get(usize::from(store)) else { continue };
            if state.control.up && !state.is_broken(store) && cells.iter().any(state::Cell::is_dirty) {
                out.push(Action::Flush(store));
            }
            for (key, cell) in cells.iter().enumerate().take(KEYS) {
                let other = state.row(1 - store, key as u8);
                let first = !other.is_ended() || other.order >= cell.seen.order;
                // A lookup takes the time once, before it looks at home: for it nothing expires in between, and nobody else can see the row.
                let looking =
                    |client: &state::Client| client.at == At::LaunchLooked && usize::from(client.key) == key;
                if self.bounds.collects
                    && cell.seen.is_ended()
                    && cell.seen == cell.disk
                    && first
                    && !state.clients.iter().any(looking)
                {
                    out.push(Action::Expire(store, key as u8));
                }
            }
        }
        if state.control.up && state.crashes < self.bounds.crashes {
            out.push(Action::Crash { lose_slot: false });
            if state.control.in_one_slot() {
                out.push(Action::Crash { lose_slot: true });
            }
        }
    }

    /// The steps of the engine, without those of its surroundings.
    fn protocol(&self, state: &State, out: &mut Vec<Action>) {
        if !state.control.up {
            out.push(Action::Open);
            return;
        }
        for n in 0..self.bounds.clients.min(CLIENTS) {
            // Clients are sorted: those that stand at the same place do the same.
            if self.bounds.symmetric && n > 0 && state.clients.get(n) == state.clients.get(n - 1) {
                continue;
            }
            self.client_actions(state, n, out);
        }
        let waiting = state.clients.iter().any(|client| client.awaited);
        let may_fail = state.failures < self.bounds.failures;
        state.control.steps(self.weak(), may_fail, waiting, &mut |step| out.push(Action::Drive(step)));
    }

    /// Whether something was begun and nobody can go on with it.
    fn is_stuck(&self, state: &State) -> bool {
        let busy = state.clients.iter().any(|client| client.at != At::Idle);
        if !busy && state.control.is_settled() && state.control.waited {
            return false;
        }
        let mut steps = Vec::new();
        self.protocol(state, &mut steps);
        !steps.iter().any(|action| !matches!(action, Action::Client(_, Do::Pin)))
    }
}

/// The names of the properties.
pub mod property {
    /// I1.
    pub const ONE_LIVE: &str = "I1: at most one live instance per key";
    /// I3.
    pub const CLOSED: &str = "I3: nothing lands in a closed store after the wait";
    /// I6.
    pub const KEPT: &str = "I6: a store is removed only when drained";
    /// I7.
    pub const DURABLE: &str = "I7: the register is not ahead of the record, epochs do not go back";
    /// I8.
    pub const IN_USE: &str = "I8: every live instance is in a store that the status names";
    /// Launches do not fail because of a move.
    pub const SERVED: &str = "no operation misses a store that its status names";
    /// What the policies are applied to.
    pub const LAST: &str = "a launch is judged by the last holder of its key";
    /// What decides that.
    pub const ORDER: &str = "launches of a key are in the order of their epochs";
    /// Replacements are whole.
    pub const WHOLE: &str = "no instance is terminated for a launch that never comes";
    /// Progress.
    pub const GOES_ON: &str = "no deadlock";
}

impl Model for Launches {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.protocol(state, actions);
        self.turns(state, actions);
        self.surroundings(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = self.after(state, action);
        Some(if self.bounds.symmetric {
            next.canonical(self.bounds.clients, usize::from(self.bounds.keys) == KEYS)
        } else {
            next
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = safety();
        match self.only {
            Some(only) => all.retain(|property| property.name == only),
            // With fewer changes of the status not all of it can be.
            None if self.bounds.epochs >= 6 => all.extend(reached()),
            None => {}
        }
        all
    }
}

fn safety() -> Vec<Property<Launches>> {
    use property::{CLOSED, DURABLE, GOES_ON, IN_USE, KEPT, LAST, ONE_LIVE, ORDER, SERVED, WHOLE};
    vec![
        Property::always(ONE_LIVE, |_, state: &State| {
            (0..KEYS as u8).all(|key| state.row(0, key).living() + state.row(1, key).living() <= 1)
        }),
        Property::always(CLOSED, |model: &Launches, state: &State| {
            let (_, status) = state.control.register;
            let closed = model.statuses.closed(status);
            // Whoever has checked the status commits next, and nothing stops him.
            let lands = |client: &state::Client| {
                matches!(
                    client.at,
                    At::LaunchChecked | At::Intended | At::IntentDurable | At::OldEnded | At::OldEndDurable
                ) && Some(model.statuses.home(client.status)) == closed
            };
            !(state.control.up && state.control.waited && state.clients.iter().any(lands))
        }),
        Property::always(KEPT, |_, state: &State| !state.wrongs.lost),
        Property::always(DURABLE, |_, state: &State| state.control.register_is_durable()),
        Property::always(IN_USE, |model: &Launches, state: &State| {
            let record = &state.control.record;
            let used = |store| model.statuses.names(record.status, store);
            [0, 1]
                .into_iter()
                .all(|store| used(store) || (0..KEYS as u8).all(|key| state.row(store, key).living() == 0))
        }),
        Property::always(SERVED, |_, state: &State| !state.wrongs.failed),
        Property::always(LAST, |_, state: &State| !state.wrongs.misjudged),
        Property::always(ORDER, |_, state: &State| {
            (0..KEYS as u8).all(|key| {
                let [one, two] = [state.row(0, key), state.row(1, key)];
                !one.is_ended() || !two.is_ended() || (one.epoch < two.epoch) == (one.order < two.order)
            })
        }),
        Property::always(WHOLE, |_, state: &State| {
            let replacing = |client: &state::Client| matches!(client.at, At::OldEnded | At::OldEndDurable);
            !state.control.up
                || (0..KEYS as u8).all(|key| {
                    let last = |store| {
                        state.row(store, key).order == 2 && state.row(store, key).kind == Kind::Replaced
                    };
                    !(last(0) || last(1))
                        // Then opening finishes it, and until then nothing is said about the key.
                        || state.is_doubtful(key)
                        || state.clients.iter().any(|client| client.key == key && replacing(client))
                })
        }),
        Property::always(GOES_ON, |model: &Launches, state: &State| !model.is_stuck(state)),
    ]
}

/// What must be reachable, so that the rest does not hold for want of cases.
fn reached() -> Vec<Property<Launches>> {
    macro_rules! phase {
        ($phase:ident) => {
            Property::sometimes(concat!("phase ", stringify!($phase)), |model: &Launches, state: &State| {
                model.statuses.phase(state.control.register.1) == Phase::$phase
            })
        };
    }
    vec![
        phase!(PreMigration),
        phase!(Migration),
        phase!(PostMigration),
        phase!(PreRollback),
        phase!(RollingBack),
        phase!(PostRollback),
        // A way that no write of the record fails on changes parity with every move, so these epochs say how it came about.
        Property::sometimes("completed, and the store left is gone", |_, state: &State| ended(state, 1, 5)),
        Property::sometimes("cancelled, and the target is gone", |_, state: &State| ended(state, 0, 3)),
        Property::sometimes("rolled back, and the target is gone", |_, state: &State| ended(state, 0, 6)),
        Property::sometimes(
            "forward again from the end of a roll-back",
            |model: &Launches, state: &State| {
                let (epoch, status) = state.control.register;
                epoch == 6 && model.statuses.phase(status) == Phase::Migration
            },
        ),
        Property::sometimes(
            "forward again from the beginning of a roll-back",
            |model: &Launches, state: &State| {
                let (epoch, status) = state.control.register;
                epoch == 6 && model.statuses.phase(status) == Phase::PostMigration
            },
        ),
        Property::sometimes(
            "a live instance in the store that is left",
            |model: &Launches, state: &State| {
                let record = &state.control.record;
                model.statuses.phase(record.status) == Phase::PostMigration
                    && model.statuses.left(record.status).is_some_and(|store| state.row(store, 0).is_live())
            },
        ),
        Property::sometimes("a wait that somebody holds up", |_, state: &State| {
            !state.control.waited
                && state.clients.iter().any(|client| client.awaited && client.at == At::LaunchChecked)
        }),
    ]
}

/// Whether the tenant is stable in this store, in this epoch, with nothing left to retire.
fn ended(state: &State, store: Store, epoch: u8) -> bool {
    let record = &state.control.record;
    state.control.is_settled()
        && record.retire.is_none()
        && (record.epoch, record.status) == (epoch, Compact::stable(store))
}
