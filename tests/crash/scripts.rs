//! The scripts that are swept.

use cutover::{Phase, Role};

use crate::script::Action::{
    self, CallOff, Create, CreateDedicated, Define, DefineWithGap, Delete, End, Fumble, MoveStragglers, Pass,
    Reach, Restart, Reverse, Settle, Start, Step, Terminate, Work,
};
use crate::script::{Script, free, on, replace, run, steps};

const ACME: &str = "acme";
const OTHER: &str = "other";
/// Longer than anything is kept.
const LATER: Action = Pass(8_000);

fn script(
    name: &'static str,
    before: impl Iterator<Item = (&'static str, Action)>,
    calls: impl Iterator<Item = (&'static str, Action)>,
) -> Script {
    Script { name, before: before.collect(), calls: calls.collect() }
}

/// A tenant in `a` with three runs.
fn loaded() -> impl Iterator<Item = (&'static str, Action)> {
    on(ACME, [Create("a"), Define(1), run(1, "one"), steps(2, "two", 2), free(3)])
}

/// From nothing: the directory, the first tenant and its first run.
pub(crate) fn first_opening() -> Script {
    let calls =
        on(ACME, [Create("a"), Define(1), run(1, "one"), End(1), run(2, "one"), Restart, run(3, "three")]);
    script("first opening", std::iter::empty(), calls)
}

/// To the other store, with launches, ends, steps and definitions in each phase.
pub(crate) fn forward() -> Script {
    let before_switch =
        on(ACME, [Define(2), Start("b"), run(4, "four"), Define(3), Step, run(5, "one"), Step, Work(2)]);
    let after_switch =
        on(ACME, [Reach(Phase::Migration), run(6, "six"), Define(4), run(7, "two"), replace(8, "one")]);
    let draining = on(
        ACME,
        [
            Reach(Phase::PostMigration),
            Fumble(2),
            Work(2),
            End(3),
            Define(5),
            End(4),
            Step,
            Work(8),
            LATER,
            Step,
        ],
    );
    let settled = on(ACME, [Settle, run(9, "four"), End(6), Restart, run(10, "six"), Terminate(9)]);
    script("forward", loaded(), before_switch.chain(after_switch).chain(draining).chain(settled))
}

/// Called off before the switch.
pub(crate) fn cancel() -> Script {
    let calls = on(
        ACME,
        [
            Define(2),
            Start("b"),
            run(4, "four"),
            Step,
            Define(3),
            Step,
            Work(2),
            CallOff,
            run(5, "five"),
            End(1),
            Settle,
            Define(4),
            run(6, "one"),
        ],
    );
    script("cancel", loaded(), calls)
}

/// Turned back while the initial store is closed and not left yet.
pub(crate) fn reverse_at_once() -> Script {
    let calls = on(
        ACME,
        [
            Start("b"),
            Reach(Phase::Migration),
            run(4, "four"),
            Define(2),
            Reverse(Role::Initial),
            run(5, "five"),
            replace(6, "four"),
            Define(3),
            Step,
            Work(2),
            Reach(Phase::PostRollback),
            run(7, "seven"),
            End(1),
            LATER,
            Settle,
            run(8, "one"),
            Work(2),
        ],
    );
    script("reverse from migration", loaded(), calls)
}

/// Turned back when launches have long gone to the target.
pub(crate) fn reverse() -> Script {
    let there = on(
        ACME,
        [
            Start("b"),
            Reach(Phase::PostMigration),
            run(4, "four"),
            Define(2),
            steps(5, "five", 1),
            replace(6, "one"),
        ],
    );
    let back = on(
        ACME,
        [
            Reverse(Role::Initial),
            Define(3),
            Step,
            Reach(Phase::PreRollback),
            run(7, "seven"),
            Define(4),
            Reach(Phase::RollingBack),
            run(8, "eight"),
            replace(9, "four"),
            Reach(Phase::PostRollback),
            Work(5),
            Define(5),
            End(6),
            End(7),
            LATER,
            Settle,
            run(10, "one"),
            Work(2),
        ],
    );
    script("reverse from post-migration", loaded(), there.chain(back))
}

/// Turned back, and forward again.
pub(crate) fn reverse_twice() -> Script {
    let there = on(ACME, [Start("b"), Reach(Phase::PostMigration), run(4, "four"), Reverse(Role::Initial)]);
    let back = on(ACME, [Reach(Phase::PostRollback), run(5, "five"), Define(2), Reverse(Role::Target), Step]);
    let again = on(
        ACME,
        [
            Reach(Phase::Migration),
            replace(6, "four"),
            run(7, "seven"),
            Reach(Phase::PostMigration),
            Define(3),
            End(1),
            Terminate(2),
            End(3),
            End(5),
            LATER,
            Settle,
            run(8, "five"),
        ],
    );
    script("reverse twice", loaded(), there.chain(back).chain(again))
}

/// Two tenants share a store; one leaves it for another, which they share from then on too.
pub(crate) fn shared() -> Script {
    let other = on(OTHER, [Create("a"), Define(1), run(1, "one"), steps(2, "two", 2)]);
    let calls = on(
        ACME,
        [Start("b"), Reach(Phase::PostMigration), run(4, "four"), End(1), Terminate(2), End(3), LATER],
    )
    .chain(on(OTHER, [run(3, "three"), Work(2), Define(2)]))
    .chain(on(ACME, [Settle, run(5, "one")]))
    .chain(on(
        OTHER,
        [Start("b"), Work(2), Reach(Phase::PreMigration), run(4, "four"), Step, CallOff, Settle],
    ))
    .chain(on(OTHER, [End(1), run(5, "one")]));
    script("shared stores", loaded().chain(other), calls)
}

/// A tenant goes, in the middle of a migration; the other one stays.
pub(crate) fn delete() -> Script {
    let other = on(OTHER, [Create("a"), Define(1), run(1, "one"), steps(2, "two", 1)]);
    let calls = on(ACME, [Start("b"), Reach(Phase::PostMigration), run(4, "four"), Delete])
        .chain(on(OTHER, [Work(2), run(3, "three"), Step]))
        .chain(on(ACME, [Create("b"), Define(1), run(11, "one"), Restart]))
        .chain(on(OTHER, [End(1), Delete]))
        .chain(on(ACME, [run(12, "two")]));
    script("delete", loaded().chain(other), calls)
}

/// Tenants are made, in stores that are there, that are not, and of their own.
pub(crate) fn create() -> Script {
    let calls = on(OTHER, [Create("b"), Define(1), run(1, "one")])
        .chain(on("third", [Create("a"), Define(1), run(1, "one")]))
        .chain(on("fourth", [CreateDedicated("c"), Define(1), steps(1, "one", 1), Work(1)]))
        .chain(on(ACME, [Work(2), End(1), run(4, "one")]));
    script("create", loaded(), calls)
}

/// Runs take each other's keys over the switch, forth and back.
pub(crate) fn take_over() -> Script {
    let there = on(
        ACME,
        [
            Start("b"),
            Step,
            replace(4, "one"),
            Reach(Phase::Migration),
            replace(5, "one"),
            replace(6, "two"),
            replace(7, "one"),
            Reach(Phase::PostMigration),
            replace(8, "two"),
            Work(8),
            replace(9, "two"),
        ],
    );
    let back = on(
        ACME,
        [
            Reverse(Role::Initial),
            Reach(Phase::RollingBack),
            replace(10, "one"),
            replace(11, "two"),
            Reach(Phase::PostRollback),
            replace(12, "one"),
            LATER,
            Settle,
            Work(11),
            replace(13, "one"),
        ],
    );
    script("take over", loaded(), there.chain(back))
}

/// The store where launches do not go fails while a definition is made, in each phase where there are two.
pub(crate) fn repair() -> Script {
    let there = on(
        ACME,
        [
            Start("b"),
            Step,
            DefineWithGap(2),
            run(4, "four"),
            Restart,
            Define(3),
            Reach(Phase::Migration),
            DefineWithGap(4),
            run(5, "five"),
            Restart,
            Reach(Phase::PostMigration),
            DefineWithGap(5),
            Restart,
            Step,
        ],
    );
    let back = on(
        ACME,
        [
            DefineWithGap(6),
            Restart,
            Reverse(Role::Initial),
            Step,
            Reach(Phase::PreRollback),
            DefineWithGap(7),
            Restart,
            Reach(Phase::PostRollback),
            End(4),
            End(5),
            LATER,
            Settle,
            run(6, "six"),
        ],
    );
    script("repair of definitions", loaded(), there.chain(back))
}

/// What lives and what has ended is moved instead of waited for.
pub(crate) fn moved() -> Script {
    let there = on(
        ACME,
        [Start("b"), Reach(Phase::PostMigration), run(4, "four"), replace(5, "one"), Work(2), MoveStragglers],
    );
    let moved = on(
        ACME,
        [Step, run(6, "six"), Step, Work(2), End(3), Define(2), Step, Work(5), Settle, replace(7, "four")],
    );
    let settled = on(ACME, [End(6), Restart, run(8, "six"), Terminate(7)]);
    script("moved", loaded(), there.chain(moved).chain(settled))
}

/// The same, and back again while it lasts.
pub(crate) fn moved_back() -> Script {
    let there = on(
        ACME,
        [
            Start("b"),
            Reach(Phase::PostMigration),
            run(4, "four"),
            steps(5, "five", 2),
            MoveStragglers,
            Step,
            Work(2),
            Reverse(Role::Initial),
        ],
    );
    let back = on(
        ACME,
        [
            Reach(Phase::PostRollback),
            Work(5),
            Step,
            run(6, "six"),
            Fumble(5),
            End(1),
            Settle,
            Work(5),
            Work(2),
            replace(7, "four"),
            End(3),
        ],
    );
    script("moved back", loaded(), there.chain(back))
}

pub(crate) const ALL: [fn() -> Script; 13] = [
    first_opening,
    forward,
    cancel,
    reverse_at_once,
    reverse,
    reverse_twice,
    shared,
    delete,
    create,
    take_over,
    repair,
    moved,
    moved_back,
];
