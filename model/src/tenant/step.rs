//! What each action of the tenant model does.

use super::state::{Id, Line, State, Step, Up};
use super::{Action, Mutant, Tenants};

impl Tenants {
    /// The state after an action.
    pub(super) fn after(&self, state: &State, action: Action) -> State {
        let mut next = *state;
        match action {
            Action::Enter(n) => {
                let tenant = next.tenant_mut(n);
                tenant.holds = 1 << tenant.home | tenant.target.map_or(0, |id| 1 << id);
            }
            Action::Write(n, id) => next.tenant_mut(n).rows |= 1 << id,
            Action::Leave(n) => {
                let tenant = next.tenant_mut(n);
                (tenant.holds, tenant.awaited) = (0, false);
            }
            Action::Place(n, path) => self.place(&mut next, n, path),
            Action::Create(n) => self.create(&mut next, n),
            Action::Start(n) => {
                let tenant = next.tenant_mut(n);
                if let Step::Placed(id) = tenant.step {
                    (tenant.target, tenant.step) = (Some(id), Step::Rest);
                }
            }
            Action::Finish(n, there) => self.finish(&mut next, n, there),
            Action::Release(n) => self.release(&mut next, n),
            Action::Destroy(n) => {
                let Some(id) = next.tenant(n).leaving() else { return next };
                let struck = next.tenant(n).step == Step::Struck;
                destroy(&mut next, id, struck);
                next.tenant_mut(n).step = if struck { Step::Released } else { Step::Destroyed };
            }
            Action::Strike(n) => {
                let Some(id) = next.tenant(n).leaving() else { return next };
                let first = next.tenant(n).step == Step::Removing;
                next.set_line(id, Line::Retired);
                next.change_users(id, |_| 0);
                next.tenant_mut(n).step = if first { Step::Struck } else { Step::Released };
            }
            Action::RemoveRows(n) => remove_rows(&mut next, n),
            Action::ReleaseShared(n) => self.release_shared(&mut next, n),
            Action::Retired(n) => {
                let tenant = next.tenant_mut(n);
                tenant.retire &= tenant.retire.wrapping_sub(1);
                tenant.step = Step::Rest;
            }
            Action::Crash => crash(&mut next),
            Action::Open => {
                next.up = Up::Opening;
                next.count_users();
            }
            Action::DestroyOrphan(id) => {
                destroy(&mut next, id, false);
                next.orphan_destroyed = true;
            }
            Action::StrikeOrphan(id) => {
                next.set_line(id, Line::Retired);
                next.orphan_destroyed = false;
            }
            Action::Serve => next.up = Up::Serving,
        }
        next
    }

    fn place(&self, state: &mut State, n: u8, path: u8) {
        if let Some(id) = state.listed_at(path) {
            state.wrongs.stale |= state.tenant(n).rows & 1 << id != 0;
            // Opening it makes it, if a crash has cut its removal short.
            if state.files_at(path).is_none() {
                state.set_files(path, Some(id));
            }
            state.change_users(id, |users| users | 1 << n);
            state.tenant_mut(n).step = Step::Placed(id);
            return;
        }
        if state.files_at(path).is_some() {
            // What is there is not ours, says the catalog: the migration is refused.
            state.wrongs.blocked = true;
            return;
        }
        let id = state.next_id();
        if self.is(Mutant::CreatedFirst) {
            state.set_files(path, Some(id));
        } else {
            state.set_line(id, Line::Listed(path));
        }
        state.tenant_mut(n).step = Step::Placing(id);
    }

    fn create(&self, state: &mut State, n: u8) {
        let Step::Placing(id) = state.tenant(n).step else { return };
        if self.is(Mutant::CreatedFirst) {
            let path = (0..2).find(|path| state.files_at(*path) == Some(id)).unwrap_or_default();
            state.set_line(id, Line::Listed(path));
        } else if let Some(path) = state.path(id) {
            state.set_files(path, Some(id));
        }
        state.change_users(id, |users| users | 1 << n);
        state.tenant_mut(n).step = Step::Placed(id);
    }

    fn finish(&self, state: &mut State, n: u8, there: bool) {
        let no_list = self.is(Mutant::NoList);
        let tenant = state.tenant_mut(n);
        let Some(target) = tenant.target.take() else { return };
        let left = if there { tenant.home } else { target };
        tenant.home = if there { target } else { tenant.home };
        tenant.awaited = tenant.holds != 0;
        if no_list {
            state.change_users(left, |users| users & !(1 << n));
        } else {
            tenant.retire |= 1 << left;
        }
    }

    fn release(&self, state: &mut State, n: u8) {
        let Some(id) = state.tenant(n).leaving() else { return };
        let others = state.users(id) & !(1 << n) != 0 && !self.is(Mutant::OthersNotCounted);
        state.tenant_mut(n).step = match state.is_listed(id) {
            false => Step::Released,
            true if others => Step::Sharing,
            true => Step::Removing,
        };
    }

    fn release_shared(&self, state: &mut State, n: u8) {
        let Some(id) = state.tenant(n).leaving() else { return };
        if state.users(id) & !(1 << n) != 0 || !state.is_listed(id) {
            state.change_users(id, |users| users & !(1 << n));
            state.tenant_mut(n).step = Step::Released;
        } else if self.is_busy(state, n, id) {
            // It is asked again from the start.
            state.tenant_mut(n).step = Step::Rest;
        } else {
            state.tenant_mut(n).step = Step::Removing;
        }
    }
}

/// Removes what is at the store's path. `struck` says that the catalog does not tell the path any more.
fn destroy(state: &mut State, id: Id, struck: bool) {
    let path = if struck { (0..2).find(|path| state.files_at(*path) == Some(id)) } else { state.path(id) };
    let Some(path) = path else { return };
    if let Some(there) = state.files_at(path) {
        state.wrongs.lost |=
            state.tenants.iter().any(|tenant| tenant.uses(there) || tenant.is_placing(there));
        state.wrongs.pulled |= state.tenants.iter().any(|tenant| tenant.holds & 1 << there != 0);
        state.tenants.iter_mut().for_each(|tenant| tenant.rows &= !(1 << there));
    }
    state.set_files(path, None);
}

fn remove_rows(state: &mut State, n: u8) {
    let tenant = state.tenant_mut(n);
    let Some(id) = tenant.leaving() else { return };
    let lost = tenant.uses(id);
    tenant.rows &= !(1 << id);
    tenant.step = Step::RowsRemoved;
    state.wrongs.lost |= lost;
}

/// The process is gone, and what it knew.
fn crash(state: &mut State) {
    for tenant in &mut state.tenants {
        (tenant.step, tenant.holds, tenant.awaited) = (Step::Rest, 0, false);
    }
    state.users = Default::default();
    state.up = Up::Down;
    state.orphan_destroyed = false;
    state.crashes += 1;
}
