//! What there was when something was planned, to be held against what there is when it is done: the drift of deployment tools.

use std::collections::{BTreeMap, BTreeSet};

use cutover_formats::{StoreId, TenantId};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Every tenant, the stores that it was in, and every store that there was when a migration was planned; see [`Engine::plan`](crate::Engine::plan).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    pub(crate) tenants: BTreeMap<TenantId, BTreeSet<StoreId>>,
    pub(crate) stores: BTreeMap<StoreId, String>,
}

impl Plan {
    /// Refuses what was planned if something has changed from this plan to what there is `now`.
    pub(crate) fn check(&self, now: &Self) -> Result<()> {
        match self.drift(now) {
            Some(drift) => {
                Err(Error::new(ErrorKind::Drift, format!("the plan does not fit any more: {drift}")))
            }
            None => Ok(()),
        }
    }

    /// What has changed from this plan to what there is `now`, in words.
    fn drift(&self, now: &Self) -> Option<String> {
        let mut said = Vec::new();
        let tenants = |here: &Self, there: &Self| -> Vec<String> {
            here.tenants
                .keys()
                .filter(|id| !there.tenants.contains_key(id))
                .map(ToString::to_string)
                .collect()
        };
        let stores = |here: &Self, there: &Self| -> Vec<String> {
            let other = here.stores.iter().filter(|(id, what)| there.stores.get(id) != Some(what));
            other.map(|(id, what)| format!("{id} ({what})")).collect()
        };
        for (what, which) in [
            ("was added", [tenants(now, self), stores(now, self)].concat()),
            ("is gone", [tenants(self, now), stores(self, now)].concat()),
        ] {
            said.extend(which.into_iter().map(|name| format!("{name} {what}")));
        }
        let both = self.tenants.iter().filter_map(|(id, was)| Some((id, was, now.tenants.get(id)?)));
        said.extend(
            both.filter(|(_, was, is)| was != is)
                .map(|(id, was, is)| format!("{id} was in {} and is in {}", in_words(was), in_words(is))),
        );
        (!said.is_empty()).then(|| said.join(", "))
    }
}

fn in_words(stores: &BTreeSet<StoreId>) -> String {
    stores.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_drifts_with_every_tenant_and_store_that_comes_goes_or_is_another() {
        let store = |id, what: &str| (StoreId(id), what.to_owned());
        let plan = Plan {
            tenants: BTreeMap::from([1, 2].map(|id| (TenantId(id), BTreeSet::from([StoreId(1)])))),
            stores: BTreeMap::from([store(1, "sled at a")]),
        };
        assert_eq!(plan.drift(&plan), None);
        let mut now = plan.clone();
        now.tenants.insert(TenantId(3), BTreeSet::from([StoreId(1)]));
        assert_eq!(plan.drift(&now).unwrap(), "tenant 3 was added");
        assert_eq!(now.drift(&plan).unwrap(), "tenant 3 is gone");
        let mut now = plan.clone();
        now.tenants.insert(TenantId(2), BTreeSet::from([StoreId(1), StoreId(2)]));
        assert_eq!(plan.drift(&now).unwrap(), "tenant 2 was in store 1 and is in store 1 and store 2");
        let mut now = plan.clone();
        now.stores.extend([store(2, "rocksdb at b")]);
        assert_eq!(plan.drift(&now).unwrap(), "store 2 (rocksdb at b) was added");
        now.stores.extend([store(1, "sled at c")]);
        let said = plan.drift(&now).unwrap();
        assert!(
            said.contains("store 1 (sled at a) is gone") && said.contains("store 1 (sled at c) was"),
            "{said}"
        );
    }
}
