//! Which object or annotation sets each block of the settings of a Service, for the view of policies.

use std::collections::BTreeMap;

use super::backend::x_backend;
use super::kong::policy_conflicts::PolicyConflicts;
use super::kong::upstream_policy;
use super::policies::{backend_policy, backend_traffic};
use crate::api::{Kind, ObjectKey};
use crate::store::Store;
use crate::upstream::{UpstreamKey, UpstreamSource};

/// The object or annotation by the block that it sets, such as `health.active`. Other blocks have their defaults.
pub type PolicySources = BTreeMap<&'static str, String>;

/// The sources for one upstream.
pub(super) fn policy_sources(store: &Store, upstream: &UpstreamKey, conflicts: &PolicyConflicts) -> PolicySources {
    let mut sources = PolicySources::new();
    // Later ones precede.
    if upstream.source == UpstreamSource::Service {
        let service = ObjectKey { namespace: upstream.namespace.clone(), name: upstream.service.clone() };
        sources.extend(upstream_policy::sources(store, upstream, conflicts));
        sources.extend(backend_traffic::sources(store, &service));
    }
    sources.extend(backend_policy::sources(store, upstream));
    if x_backend::own_sessions(store, upstream).is_some() {
        let backend = format!("{} {}", Kind::XBackend, backend_policy::backend_key(upstream));
        sources.insert("loadBalancing.sessionPersistence", backend);
    }
    sources
}
