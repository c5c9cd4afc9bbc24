//! The families that every store keeps apart.

/// A family of rows: a column family in RocksDB, a key prefix in sled.
///
/// The discriminant is on disk (sled) and never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    /// (name, version) to body, content type, digest, creation time. Immutable.
    Definitions = 1,
    /// (scope, key) to the instance that holds or held it.
    Keys = 2,
    /// Request id to what it was answered.
    Requests = 3,
    /// Instance id to its head; beside it, its input and output.
    Instances = 4,
    /// (instance id, step) to the step's state.
    Steps = 5,
    /// Steps that a worker may take, by queue and time, and those that wait for a decision.
    Ready = 6,
    /// (deadline, what) in the order in which garbage collection reads it.
    Expiry = 7,
    /// What the engine notes beside a tenant's rows: gaps to repair, intents, copy positions.
    Notes = 8,
}

impl Family {
    /// Every family, in the order of the discriminants.
    pub const ALL: [Self; 8] = [
        Self::Definitions,
        Self::Keys,
        Self::Requests,
        Self::Instances,
        Self::Steps,
        Self::Ready,
        Self::Expiry,
        Self::Notes,
    ];

    /// Its name, as the column family in RocksDB and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Definitions => "definitions",
            Self::Keys => "keys",
            Self::Requests => "requests",
            Self::Instances => "instances",
            Self::Steps => "steps",
            Self::Ready => "ready",
            Self::Expiry => "expiry",
            Self::Notes => "notes",
        }
    }

    /// The family with this discriminant.
    #[must_use]
    pub fn from_u8(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|family| *family as u8 == byte)
    }

    /// The family of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_on_disk_and_lead_back() {
        let names = Family::ALL.map(Family::name);
        let on_disk = ["definitions", "keys", "requests", "instances", "steps", "ready", "expiry", "notes"];
        assert_eq!(names, on_disk);
        assert_eq!(names.map(Family::from_name), Family::ALL.map(Some));
        assert_eq!(Family::from_name("leases"), None);
    }
}
