//! The definition model: clients that define and read, and the replicator that copies, mends and compares, while a tenant moves between two
//! stores, writes fail and the engine crashes.
//!
//! | action | in the engine |
//! |---|---|
//! | [`Do::Pin`], [`Do::Enter`] | `tenant::Inner::enter` |
//! | [`Do::Lock`] | the lock of the definition, in `Tenant::define`, `Tenant::definition` and `Inner::is_defined` |
//! | [`Do::LookHome`], [`Do::LookOther`] | `Inner::find_definition` |
//! | [`Do::Create`], [`Do::Sync`] | `Inner::commit` of a new record at home: visible, then durable |
//! | [`Do::Bring`], [`Do::Sync`] | `Inner::bring_to_both`, `put_definition` |
//! | [`Do::Fail`], [`Do::Note`], [`Do::GiveUp`] | a store that takes no write, `Inner::note_gap`, and its error |
//! | [`Copying::Job`] | `Replicator::job`, `Inner::copy_position` |
//! | [`Copying::Read`], [`Copying::Put`] | `Inner::copy_definitions`, a batch of one: the page, then the copy under the lock |
//! | [`Copying::Mend`] | `Inner::repair_gaps`: `settle_difference`, the sync, the removal of the note |
//! | [`Copying::Compare`] | `Inner::compare_definitions`, a batch of one, and `settle_difference` |
//! | [`Copying::Tell`] | the end of `Work::step`: only in the epoch in which the job was given |
//! | [`Action::Drive`], [`Action::Turn`] | [`crate::control`], [`crate::moves`] |
//! | [`Action::Flush`], [`Action::Crash`], [`Action::Open`] | as in [`crate::launch`] |
//!
//! What is left out: whether the store that is left has drained (it always may have), and the names that are known to be defined (`Known`),
//! which only save looks. A failed write at home is answered as unknown and kept from readers until the engine opens again, as if the client had not
//! come back from it.

pub mod state;
mod step;

use std::fmt;

use cutover::Phase;
use stateright::{Model, Property};

use crate::control::{Stage, Step, Weakened};
use crate::engine::decide::Next;
use crate::moves::{self, Known, Turn};
use crate::status::{Statuses, Store};
use state::{At, CLIENTS, DEFINITIONS, Op, State, Task};

/// How large the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Clients, up to [`CLIENTS`].
    pub clients: usize,
    /// Definitions, up to [`DEFINITIONS`].
    pub definitions: u8,
    /// The highest epoch.
    pub epochs: u8,
    /// Crashes.
    pub crashes: u8,
    /// Failed writes of a definition to the store that launches do not go to, and of gaps.
    pub failures: u8,
    /// Whether states that differ only in the names of clients are one.
    pub symmetric: bool,
}

/// A rule of the protocol that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A define takes no lock.
    NoLock,
    /// A define looks at home only before it writes.
    LookHomeOnly,
    /// A repeat returns without making sure that both stores have it.
    RepeatReturnsEarly,
    /// A copy writes a record of its own instead of the one that exists.
    CopyMakesNew,
    /// A store is given up without having been compared.
    NoCompareAtEnd,
    /// A comparison of an earlier phase counts.
    EarlierCompareCounts,
    /// The stores are not synced before a switch.
    NoSync,
    /// Nobody waits for the pins taken before a status was published.
    NoWait,
    /// A status is published before its record is durable.
    PublishFirst,
    /// A gap is not noted.
    NoGap,
    /// Launches are switched though a gap is noted.
    SwitchOverGap,
    /// What the comparison copies becomes durable some time.
    CompareNotSynced,
    /// The note of a gap is taken away before what mends it is durable.
    MendNotSynced,
}

/// The model.
#[derive(Debug, Clone)]
pub struct Definitions {
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
    /// Lock a definition.
    Lock(Op, u8),
    /// Look at home.
    LookHome,
    /// Look in the other store.
    LookOther,
    /// Make a new record visible at home.
    Create,
    /// Look in both, and make the record visible where it lacks; or be done.
    Bring,
    /// The other store fails to take it.
    Fail {
        /// It is on its disk nevertheless.
        kept: bool,
    },
    /// Make the gap visible at home.
    Note,
    /// Home takes no gap either: the caller gets an error.
    GiveUp,
    /// Make what was written durable.
    Sync,
}

/// What the replicator does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Copying {
    /// Ask what there is to do.
    Job,
    /// Pin, and read the next definition.
    Read,
    /// Write it, under its lock, if it lacks; unpin.
    Put,
    /// The next step of mending a gap.
    Mend,
    /// Compare the next definition, and copy it, under its lock, if one store lacks it.
    Compare,
    /// Tell the control.
    Tell,
}

/// A step of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A client does something.
    Client(u8, Do),
    /// The replicator does something.
    Replicate(Copying),
    /// The next step of a transition.
    Drive(Step),
    /// Somebody decides something about the migration.
    Turn(Turn),
    /// A store syncs what it has.
    Flush(Store),
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
            Self::Replicate(what) => write!(f, "replicator: {what:?}"),
            Self::Drive(step) => write!(f, "control: {step:?}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl Definitions {
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
            publish_after_one_slot: false,
            no_wait: self.is(Mutant::NoWait),
        }
    }

    /// Whether somebody holds the lock of the definition.
    fn is_locked(&self, state: &State, definition: u8) -> bool {
        let holds = |at: At| !matches!(at, At::Idle | At::Pinned | At::Entered);
        !self.is(Mutant::NoLock)
            && (state.clients.iter().any(|client| client.definition == definition && holds(client.at))
                || matches!(state.replicator.task, Task::Mended(one, _) | Task::Levelled(one, _) if one == definition))
    }

    fn client_actions(&self, state: &State, n: usize, out: &mut Vec<Action>) {
        let Some(client) = state.clients.get(n).copied() else { return };
        let mut act = |what| out.push(Action::Client(n as u8, what));
        match client.at {
            At::Idle => act(Do::Pin),
            At::Pinned => act(Do::Enter),
            At::Entered => {
                for definition in (0..self.bounds.definitions).filter(|one| !self.is_locked(state, *one)) {
                    for op in [Op::Define(0), Op::Define(1), Op::Read, Op::Look] {
                        act(Do::Lock(op, definition));
                    }
                }
            }
            At::Locked => act(Do::LookHome),
            At::LookedHome => act(Do::LookOther),
            At::Created | At::Brought(_) | At::Noted => act(Do::Sync),
            At::Bringing => {
                act(Do::Bring);
                let home = self.statuses.home(client.status);
                let lacks = |store| state.seen(store, client.definition) == 0;
                let may_fail = state.failures < self.bounds.failures && !lacks(home);
                if may_fail && self.statuses.other(client.status).is_some_and(lacks) {
                    [false, true].into_iter().for_each(|kept| act(Do::Fail { kept }));
                }
            }
            At::Absent => act(Do::Create),
            At::Failed => {
                act(Do::Note);
                if state.failures < self.bounds.failures {
                    act(Do::GiveUp);
                }
            }
        }
    }

    /// What there is to know for the next move.
    fn known(&self, state: &State) -> Known {
        let phase = self.statuses.phase(state.control.record.status);
        let first = matches!(phase, Phase::PreMigration);
        let waived = match phase {
            Phase::PostMigration | Phase::PostRollback => self.is(Mutant::NoCompareAtEnd),
            _ => false,
        };
        let gaps = state.has_gaps() && !(self.is(Mutant::SwitchOverGap) && first);
        Known { copied: state.copied, verified: waived || (state.verified && !gaps), drained: true }
    }

    fn replicator_actions(&self, state: &State, out: &mut Vec<Action>) {
        let mut act = |what| out.push(Action::Replicate(what));
        let free = |definition| !self.is_locked(state, definition);
        match state.replicator.task {
            Task::Rest => {
                let asked = state.control.is_settled() && state.control.record.retire.is_none();
                let next = moves::next(&self.statuses, &state.control, self.known(state));
                if asked && matches!(next, Next::Copy | Next::Verify) {
                    act(Copying::Job);
                }
            }
            Task::Copy(_) => act(Copying::Read),
            Task::Copying(definition, _) if free(definition) => act(Copying::Put),
            Task::Mend(definition, store) => {
                if !self.notes(state, definition, store) || free(definition) {
                    act(Copying::Mend);
                }
            }
            Task::Mended(..) | Task::MendSynced(..) => act(Copying::Mend),
            Task::Levelled(..) => act(Copying::Compare),
            Task::Compare(definition) => {
                let [one, two] = [0, 1].map(|store| state.seen(store, definition));
                // Records that differ are an error, again and again: nothing goes on.
                if one == two || ((one == 0 || two == 0) && free(definition)) {
                    act(Copying::Compare);
                }
            }
            // The end of a job takes the control lock.
            Task::Done { .. } if state.control.is_settled() => act(Copying::Tell),
            Task::Copying(..) | Task::Done { .. } => {}
        }
    }

    /// Whether a gap of the definition is noted in the store.
    fn notes(&self, state: &State, definition: u8, store: Store) -> bool {
        let side = state.sides.get(usize::from(store));
        side.and_then(|side| side.gaps.get(usize::from(definition))).is_some_and(|gap| gap.seen)
    }

    fn turns(&self, state: &State, out: &mut Vec<Action>) {
        let control = &state.control;
        if control.is_settled() && control.record.epoch.max(control.highest) < self.bounds.epochs {
            moves::moves(&self.statuses, control, self.known(state), |turn| out.push(Action::Turn(turn)));
        }
        let busy = |store| {
            let holds = |client: &state::Client| {
                !matches!(client.at, At::Idle | At::Pinned) && self.statuses.names(client.status, store)
            };
            state.clients.iter().any(holds)
                || (state.replicator.pinned && self.statuses.names(state.replicator.status, store))
        };
        out.extend(moves::retirement(control, state.stores, busy).map(Action::Turn));
    }

    fn protocol(&self, state: &State, out: &mut Vec<Action>) {
        if !state.control.up {
            out.push(Action::Open);
            return;
        }
        for n in 0..self.bounds.clients.min(CLIENTS) {
            if self.bounds.symmetric && n > 0 && state.clients.get(n) == state.clients.get(n - 1) {
                continue;
            }
            self.client_actions(state, n, out);
        }
        self.replicator_actions(state, out);
        let waiting = state.replicator.awaited || state.clients.iter().any(|client| client.awaited);
        state.control.steps(self.weak(), false, waiting, &mut |step| out.push(Action::Drive(step)));
    }

    fn is_stuck(&self, state: &State) -> bool {
        let busy =
            state.clients.iter().any(|client| client.at != At::Idle) || state.replicator.task != Task::Rest;
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
    /// I4, the first half.
    pub const BOTH: &str =
        "I4: from the switch on what is acknowledged is in both stores, or its gap is noted";
    /// I4, the second half.
    pub const SAME: &str = "I4: no definition differs between the stores";
    /// And it is never another one.
    pub const UNCHANGED: &str = "I4: no definition is ever changed";
    /// I8: whatever anybody was told stays, through every move and crash.
    pub const KEPT: &str = "I8: what was answered stays in a store that the status names, durably";
    /// I7.
    pub const DURABLE: &str = "I7: the register is not ahead of the record, epochs do not go back";
    /// Operations do not fail because of a move.
    pub const SERVED: &str = "no operation misses a store that its status names";
    /// Progress.
    pub const GOES_ON: &str = "no deadlock";
}

impl Model for Definitions {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.protocol(state, actions);
        self.turns(state, actions);
        if state.control.up {
            for (store, side) in (0..).zip(&state.sides) {
                if side.is_dirty() {
                    actions.push(Action::Flush(store));
                }
            }
            if state.crashes < self.bounds.crashes {
                actions.push(Action::Crash { lose_slot: false });
                if state.control.in_one_slot() {
                    actions.push(Action::Crash { lose_slot: true });
                }
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = self.after(state, action);
        Some(if self.bounds.symmetric { next.canonical(self.bounds.clients) } else { next })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = safety();
        match self.only {
            Some(only) => all.retain(|property| property.name == only),
            // With fewer changes of the status not all of it can be, nor without a crash.
            None if self.bounds.epochs >= 5 && self.bounds.crashes > 0 => all.extend(reached()),
            None => {}
        }
        all
    }
}

/// Whether both stores have an acknowledged definition, or the one that has it has a note; on disk as well as to readers.
fn in_both(model: &Definitions, state: &State, definition: usize) -> bool {
    let (_, status) = state.control.register;
    let phase = model.statuses.phase(status);
    let acknowledged = state.acknowledged.get(definition).copied().unwrap_or_default();
    if !acknowledged || !state.control.up || matches!(phase, Phase::Stable | Phase::PreMigration) {
        return true;
    }
    let told = state.told.get(definition).copied().unwrap_or_default();
    let has = |store: usize, disk: bool| {
        let cell = state.sides.get(store).and_then(|side| side.records.get(definition));
        cell.is_some_and(|cell| told == if disk { cell.disk } else { cell.seen })
    };
    let noted = |store: usize, disk: bool| {
        let gap = state.sides.get(store).and_then(|side| side.gaps.get(definition));
        gap.is_some_and(|gap| if disk { gap.disk } else { gap.seen })
    };
    [false, true]
        .into_iter()
        .all(|disk| (has(0, disk) && (has(1, disk) || noted(0, disk))) || (has(1, disk) && noted(1, disk)))
}

fn is_kept(model: &Definitions, state: &State, definition: usize) -> bool {
    let told = state.told.get(definition).copied().unwrap_or_default();
    let has = |store: usize| {
        let cell = state.sides.get(store).and_then(|side| side.records.get(definition));
        cell.is_some_and(|cell| cell.seen == told && cell.disk == told)
    };
    let keeps = |record: crate::control::Record| {
        [0, 1].into_iter().any(|store| model.statuses.names(record.status, store) && has(usize::from(store)))
    };
    told == 0 || state.control.may_remain().all(keeps)
}

fn safety() -> Vec<Property<Definitions>> {
    use property::{BOTH, DURABLE, GOES_ON, KEPT, SAME, SERVED, UNCHANGED};
    vec![
        Property::always(BOTH, |model: &Definitions, state: &State| {
            (0..DEFINITIONS).all(|definition| in_both(model, state, definition))
        }),
        Property::always(SAME, |_, state: &State| {
            (0..DEFINITIONS as u8).all(|definition| {
                let [one, two] = [0, 1].map(|store| state.seen(store, definition));
                one == 0 || two == 0 || one == two
            })
        }),
        Property::always(UNCHANGED, |_, state: &State| !state.wrongs.changed),
        Property::always(KEPT, |model: &Definitions, state: &State| {
            (0..DEFINITIONS).all(|definition| is_kept(model, state, definition))
        }),
        Property::always(DURABLE, |_, state: &State| state.control.register_is_durable()),
        Property::always(SERVED, |_, state: &State| !state.wrongs.failed),
        Property::always(GOES_ON, |model: &Definitions, state: &State| !model.is_stuck(state)),
    ]
}

/// What must be reachable, so that the rest does not hold for want of cases.
fn reached() -> Vec<Property<Definitions>> {
    macro_rules! phase {
        ($phase:ident) => {
            Property::sometimes(
                concat!("phase ", stringify!($phase)),
                |model: &Definitions, state: &State| {
                    model.statuses.phase(state.control.register.1) == Phase::$phase
                },
            )
        };
    }
    vec![
        phase!(PreMigration),
        phase!(Migration),
        phase!(PostMigration),
        phase!(PreRollback),
        phase!(RollingBack),
        phase!(PostRollback),
        Property::sometimes("completed, with a definition", |_, state: &State| {
            let record = &state.control.record;
            state.control.stage == Stage::Settled
                && record.retire.is_none()
                && record.status == crate::status::Compact::stable(1)
                && state.acknowledged.first() == Some(&true)
        }),
        Property::sometimes(
            "a definition in one store only after a crash",
            |model: &Definitions, state: &State| {
                state.control.up
                    && state.crashes > 0
                    && model.statuses.phase(state.control.register.1) == Phase::PostMigration
                    && (state.seen(0, 0) == 0) != (state.seen(1, 0) == 0)
            },
        ),
    ]
}
