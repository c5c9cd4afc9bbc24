//! Which changes of a runner's access are legal: pure, and the one place of that rule.

use std::fmt;

use cutover_formats::Access;

/// Something that may change a runner's access to a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// It attaches, to act. One that acts already is taken as such.
    Attach,
    /// It attaches, to be ready. One that acts already is taken as such.
    AttachStandby,
    /// A flip makes it the one that acts.
    Promote,
    /// A flip takes that from it.
    Deactivate,
    /// The roll-back of a flip undoes its promotion.
    Demote,
    /// The roll-back of a flip undoes its deactivation.
    Reinstate,
    /// It has nothing to do with the tenant any more.
    Terminate,
}

impl Change {
    /// Every change.
    pub const ALL: [Self; 7] = [
        Self::Attach,
        Self::AttachStandby,
        Self::Promote,
        Self::Deactivate,
        Self::Demote,
        Self::Reinstate,
        Self::Terminate,
    ];

    /// Its name in sentences.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::AttachStandby => "attach as standby",
            Self::Promote => "promote",
            Self::Deactivate => "deactivate",
            Self::Demote => "demote",
            Self::Reinstate => "reinstate",
            Self::Terminate => "terminate",
        }
    }
}

/// A change that is not legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Illegal {
    /// The access; none if the runner is not known.
    pub access: Option<Access>,
    /// The change.
    pub tried: Change,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = self.access.map_or("without access", Access::name);
        write!(f, "{} is not legal for a runner that is {access}", self.tried.name())
    }
}

/// The access after a change. That at most one runner is primary is for the caller to see to: this is about one runner.
///
/// # Errors
/// If the change is not legal.
pub const fn next(access: Option<Access>, tried: Change) -> Result<Access, Illegal> {
    use Access::{Deactivated, Primary, Standby, Terminated};
    Ok(match (access, tried) {
        (None | Some(Primary), Change::Attach) | (Some(Primary), Change::AttachStandby) => Primary,
        (None | Some(Standby), Change::AttachStandby) | (Some(Primary), Change::Demote) => Standby,
        (Some(Standby), Change::Promote) | (Some(Deactivated), Change::Reinstate) => Primary,
        (Some(Primary), Change::Deactivate) => Deactivated,
        (Some(_), Change::Terminate) => Terminated,
        _ => return Err(Illegal { access, tried }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every access and every change, written out: the table that the code has to agree with.
    #[test]
    fn all_pairs() {
        use Access::{Deactivated, Primary, Standby, Terminated};
        let legal = [
            (None, Change::Attach, Primary),
            (None, Change::AttachStandby, Standby),
            (Some(Primary), Change::Attach, Primary),
            (Some(Primary), Change::AttachStandby, Primary),
            (Some(Primary), Change::Deactivate, Deactivated),
            (Some(Primary), Change::Demote, Standby),
            (Some(Primary), Change::Terminate, Terminated),
            (Some(Standby), Change::AttachStandby, Standby),
            (Some(Standby), Change::Promote, Primary),
            (Some(Standby), Change::Terminate, Terminated),
            (Some(Deactivated), Change::Reinstate, Primary),
            (Some(Deactivated), Change::Terminate, Terminated),
            (Some(Terminated), Change::Terminate, Terminated),
        ];
        let mut pairs = 0;
        for access in std::iter::once(None).chain(Access::ALL.map(Some)) {
            for tried in Change::ALL {
                let found = legal.iter().find(|(from, with, _)| (*from, *with) == (access, tried));
                assert_eq!(
                    next(access, tried),
                    found.map(|(.., to)| *to).ok_or(Illegal { access, tried }),
                    "{access:?} {tried:?}"
                );
                pairs += 1;
            }
        }
        assert_eq!(pairs, 35);
    }

    #[test]
    fn nobody_comes_back_by_attaching() {
        for gone in [Access::Deactivated, Access::Terminated] {
            for tried in [Change::Attach, Change::AttachStandby, Change::Promote] {
                assert!(next(Some(gone), tried).is_err(), "{gone} {tried:?}");
            }
        }
    }

    #[test]
    fn only_a_flip_makes_a_standby_primary_and_only_its_roll_back_a_deactivated_one() {
        let ways = |from: Access| {
            let all = Change::ALL.into_iter();
            all.filter(|tried| next(Some(from), *tried) == Ok(Access::Primary)).collect::<Vec<_>>()
        };
        assert_eq!(ways(Access::Standby), [Change::Promote]);
        assert_eq!(ways(Access::Deactivated), [Change::Reinstate]);
        assert!(ways(Access::Terminated).is_empty());
    }
}
