//! Launching in every phase, that is, for every combination of primary and statuses there is: where it lands, and that the answer is the one
//! that a single store would give.

use std::time::Duration;

use cutover::{
    ConflictPolicy, Ending, InstanceId, Launched, MigrationOptions, Phase, ReusePolicy, Role, StoreStatus,
    Tenant,
};

use crate::common::{Home, KEEP, keyed, memory, reach, started, tenant};

const FOR_EVER: Duration = Duration::from_secs(7 * 86_400);
const CONFLICT: [ConflictPolicy; 3] =
    [ConflictPolicy::Fail, ConflictPolicy::UseExisting, ConflictPolicy::TerminateExisting];
const REUSE: [ReusePolicy; 3] =
    [ReusePolicy::AllowDuplicate, ReusePolicy::AllowDuplicateFailedOnly, ReusePolicy::RejectDuplicate];

/// Each phase with its primary, both statuses, and where launches go.
const PHASES: [(Phase, Role, StoreStatus, StoreStatus, Role); 7] = {
    use Role::{Initial, Target};
    use StoreStatus::{Closed, Open};
    [
        (Phase::Stable, Initial, Open, Closed, Initial),
        (Phase::PreMigration, Initial, Open, Open, Initial),
        (Phase::Migration, Initial, Closed, Open, Target),
        (Phase::PostMigration, Target, Closed, Open, Target),
        (Phase::PreRollback, Target, Open, Open, Target),
        (Phase::RollingBack, Target, Open, Closed, Initial),
        (Phase::PostRollback, Initial, Open, Closed, Initial),
    ]
};

/// What became of the key before.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Before {
    Never,
    Live(Role),
    Ended(Role, Ending),
}

const BEFORE: [Before; 7] = [
    Before::Never,
    Before::Live(Role::Initial),
    Before::Live(Role::Target),
    Before::Ended(Role::Initial, Ending::Completed),
    Before::Ended(Role::Initial, Ending::Failed),
    Before::Ended(Role::Target, Ending::Completed),
    Before::Ended(Role::Target, Ending::Failed),
];

fn name(before: Before, conflict: ConflictPolicy, reuse: ReusePolicy) -> String {
    format!("{before:?} {conflict:?} {reuse:?}")
}

/// Launches, and ends, the keys whose history begins in this store. Launches go there now.
fn seed(tenant: &Tenant, role: Role) {
    assert_eq!(tenant.status().home(), role);
    for before in BEFORE {
        let (Before::Live(at) | Before::Ended(at, _)) = before else { continue };
        if at != role {
            continue;
        }
        for (conflict, reuse) in policies() {
            let id = started(tenant.launch(&keyed(&name(before, conflict, reuse))).unwrap());
            if let Before::Ended(_, ending) = before {
                tenant.end(id, ending, b"", "").unwrap();
            }
        }
    }
}

fn policies() -> impl Iterator<Item = (ConflictPolicy, ReusePolicy)> {
    CONFLICT.into_iter().flat_map(|conflict| REUSE.into_iter().map(move |reuse| (conflict, reuse)))
}

/// Brings a tenant to a phase and leaves it there, with keys in both stores where the way there allows that.
fn bring(tenant: &Tenant, phase: Phase) {
    seed(tenant, Role::Initial);
    if phase == Phase::Stable {
        return;
    }
    tenant.migration().start(memory("b"), MigrationOptions::default().dwell(phase, FOR_EVER)).unwrap();
    if matches!(phase, Phase::PreRollback | Phase::RollingBack | Phase::PostRollback) {
        // What lives in the initial store keeps it there.
        reach(tenant, Phase::PostMigration);
        seed(tenant, Role::Target);
        tenant.migration().reverse().unwrap();
    }
    reach(tenant, phase);
    if matches!(phase, Phase::Migration | Phase::PostMigration) {
        seed(tenant, Role::Target);
    }
}

/// What one store would answer, given who had the key before.
fn expected(
    before: Before,
    holder: Option<InstanceId>,
    conflict: ConflictPolicy,
    reuse: ReusePolicy,
) -> Option<Launched> {
    let instance = holder?;
    match before {
        Before::Never => None,
        Before::Live(_) => match conflict {
            ConflictPolicy::Fail => Some(Launched::Conflict { instance }),
            ConflictPolicy::UseExisting => Some(Launched::Existing(instance)),
            _ => None,
        },
        Before::Ended(_, ending) => match (reuse, ending) {
            (ReusePolicy::AllowDuplicate, _) => None,
            (ReusePolicy::AllowDuplicateFailedOnly, Ending::Failed) => None,
            _ => Some(Launched::Rejected { instance, ending }),
        },
    }
}

fn check_key(tenant: &Tenant, before: Before, conflict: ConflictPolicy, reuse: ReusePolicy) {
    let status = tenant.status();
    let key = name(before, conflict, reuse);
    let look = || tenant.instance_by_key("scope", key.as_bytes()).unwrap().map(|found| found.id);
    let holder = look();
    let answer = tenant.launch(&keyed(&key).on_conflict(conflict).reuse(reuse)).unwrap();
    let told = format!("{}: {key}", status.phase);
    if let Some(expected) = expected(before, holder, conflict, reuse) {
        assert_eq!(answer, expected, "{told}");
        assert_eq!(look(), holder, "{told}");
        return;
    }
    let id = started(answer);
    assert_eq!(Some(id.store()), status.store(status.home()), "{told}");
    assert_eq!(look(), Some(id), "{told}");
    if let (Before::Live(_), Some(old)) = (before, holder) {
        let ending = tenant.instance(old).unwrap().unwrap().ending();
        assert_eq!(ending, Some(Ending::Terminated), "{told}");
    }
    assert_eq!(tenant.launch(&keyed(&key)).unwrap(), Launched::Conflict { instance: id }, "{told}");
}

#[test]
fn in_every_phase_a_launch_lands_where_it_should_and_gets_the_answer_of_a_single_store() {
    for (phase, primary, initial, target, launches_go) in PHASES {
        let home = Home::new();
        let engine = home.open();
        let tenant = tenant(&engine, memory("a"), KEEP);
        bring(&tenant, phase);
        let status = tenant.status();
        assert_eq!((status.phase, status.primary), (phase, primary));
        assert_eq!((status.initial_status, status.home()), (initial, launches_go), "{phase}");
        if phase != Phase::Stable {
            assert_eq!(status.target_status, target, "{phase}");
        }
        let mut checked = 0;
        for before in BEFORE {
            let seeded = match before {
                Before::Live(Role::Target) | Before::Ended(Role::Target, _) => {
                    !matches!(phase, Phase::Stable | Phase::PreMigration)
                }
                _ => true,
            };
            for (conflict, reuse) in policies().filter(|_| seeded) {
                check_key(&tenant, before, conflict, reuse);
                checked += 1;
            }
        }
        let situations = if matches!(phase, Phase::Stable | Phase::PreMigration) { 4 } else { 7 };
        assert_eq!(checked, situations * 9, "{phase}");
        assert_eq!(tenant.status().phase, phase, "it stayed there meanwhile");
    }
}
