//! What there was when something was planned, to be held against what there is when it is done: the drift of deployment tools.

use std::collections::{BTreeMap, BTreeSet};

use cutover_formats::{StoreId, TenantId};
use serde::{Deserialize, Serialize};

/// Every tenant and every store that there was when a migration was planned; see [`Engine::plan`](crate::Engine::plan).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    pub(crate) tenants: BTreeSet<TenantId>,
    pub(crate) stores: BTreeMap<StoreId, String>,
}

impl Plan {
    /// What has changed from this plan to what there is `now`, in words.
    pub(crate) fn drift(&self, now: &Self) -> Option<String> {
        let mut said = Vec::new();
        let tenants = |here: &Self, there: &Self| -> Vec<String> {
            here.tenants.difference(&there.tenants).map(ToString::to_string).collect()
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
        (!said.is_empty()).then(|| said.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_drifts_with_every_tenant_and_store_that_comes_goes_or_is_another() {
        let store = |id, what: &str| (StoreId(id), what.to_owned());
        let plan = Plan {
            tenants: BTreeSet::from([TenantId(1), TenantId(2)]),
            stores: BTreeMap::from([store(1, "sled at a")]),
        };
        assert_eq!(plan.drift(&plan), None);
        let mut now = plan.clone();
        now.tenants.insert(TenantId(3));
        assert_eq!(plan.drift(&now).unwrap(), "tenant 3 was added");
        assert_eq!(now.drift(&plan).unwrap(), "tenant 3 is gone");
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
