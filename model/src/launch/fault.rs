//! Commits that fail: nobody knows whether they happened until the store is opened again, which is what a crash does here.
//!
//! | here | in the engine |
//! |---|---|
//! | [`Do::Fail`], [`Do::FailSync`] | an I/O error of a commit, before or after its rows were visible: `Inner::commit` and `Doubts::add` |
//! | [`Do::Refused`] | a store that takes no writes after such an error; `Inner::withdraw` and `commit_or_doubt` where a replacement had begun |

use super::state::{At, Client, Plan, State};
use super::{Action, Do, Launches, Mutant};
use crate::status::Store;

impl Launches {
    /// The commit, or the sync of one, that a client makes next, and where.
    fn commit_of(&self, client: &Client) -> Option<(Do, Store)> {
        let home = self.statuses.home(client.status);
        Some(match client.at {
            At::LaunchChecked if client.plan == Plan::ReplaceOther && !self.is(Mutant::NoIntent) => {
                (Do::Intend, home)
            }
            At::LaunchChecked if client.plan == Plan::ReplaceOther => (Do::EndOld, 1 - home),
            At::LaunchChecked | At::OldEndDurable => (Do::Apply, home),
            At::IntentDurable => (Do::EndOld, 1 - home),
            At::EndChecked => (Do::ApplyEnd, client.store),
            At::CollectChecked => (Do::Delete, client.store),
            At::LaunchApplied | At::Intended => (Do::Sync, home),
            At::OldEnded => (Do::Sync, 1 - home),
            At::EndApplied => (Do::Sync, client.store),
            _ => return None,
        })
    }

    /// What a client that is to commit can do, and what the store can do to it.
    pub(super) fn offer_commit(&self, state: &State, n: usize, client: &Client, out: &mut Vec<Action>) {
        let Some((what, store)) = self.commit_of(client) else { return };
        let mut act = |what| out.push(Action::Client(n as u8, what));
        let may_fail = state.faults < self.bounds.faults;
        match (state.is_broken(store), what) {
            (true, Do::Sync) => act(Do::FailSync),
            (true, _) => act(Do::Refused),
            (false, Do::Sync) => {
                act(what);
                if may_fail {
                    act(Do::FailSync);
                }
            }
            (false, _) => {
                act(what);
                if may_fail && what != Do::Delete {
                    [false, true].into_iter().for_each(|kept| act(Do::Fail { kept }));
                }
            }
        }
    }

    /// The commit fails and shows nothing. `kept` says whether it is on the disk nevertheless.
    pub(super) fn fail(&self, state: &mut State, n: usize, client: &Client, kept: bool) {
        let Some((what, store)) = self.commit_of(client) else { return };
        state.faults += 1;
        if kept {
            let mut done = *state;
            self.client(&mut done, n, what);
            let after = *done.cell(store, client.key);
            let cell = state.cell(store, client.key);
            (cell.disk, cell.intent_disk) = (after.seen, after.intent);
        }
        self.doubt(state, store, client.key);
    }

    /// The rows are visible, and that they are durable is not known.
    pub(super) fn fail_sync(&self, state: &mut State, client: &Client) {
        let Some((_, store)) = self.commit_of(client) else { return };
        state.faults += u8::from(!state.is_broken(store));
        self.doubt(state, store, client.key);
    }

    /// The store has failed before and takes nothing.
    pub(super) fn refused(&self, state: &mut State, client: &Client) {
        let home = self.statuses.home(client.status);
        match client.at {
            // The end of the old instance is refused: the intent is taken back, if home still takes that.
            At::IntentDurable if !state.is_broken(home) => {
                state.cell(home, client.key).intent = 0;
                state.flush(home);
            }
            // The replacement was begun and is finished at opening.
            At::IntentDurable | At::OldEndDurable => self.doubt(state, home, client.key),
            _ => {}
        }
    }

    fn doubt(&self, state: &mut State, store: Store, key: u8) {
        state.broken |= 1 << store;
        if !self.is(Mutant::NoDoubts) {
            state.doubts |= 1 << key;
        }
    }
}
