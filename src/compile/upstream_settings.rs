//! The settings of an upstream, and which object or annotation sets each block of them, for the view of policies. Both
//! ask the same sources in the same order.
//!
//! ```text
//!   own sessions ─▶ BackendPolicy ─▶ XBackendTrafficPolicy ─▶ KongUpstreamPolicy, KongIngress, annotations ─▶ defaults
//!   └ XBackends ──┘ └ all upstreams ┘└─────────────────────── those of Services ─────────────────────────┘
//! ```

use std::collections::BTreeMap;

use super::backend::x_backend;
use super::kong::policy_conflicts::PolicyConflicts;
use super::kong::upstream_policy;
use super::policies::{backend_policy, backend_traffic};
use crate::api::{Kind, ObjectKey};
use crate::store::Store;
use crate::upstream::settings::Balancing;
use crate::upstream::{BackendTraffic, UpstreamKey, UpstreamSource};

/// The object or annotation by the block that it sets, such as `health.active`. Other blocks have their defaults.
pub type PolicySources = BTreeMap<&'static str, String>;

/// The settings of one upstream, except its alternatives.
pub(super) fn settings(
    store: &Store,
    upstream: &UpstreamKey,
    conflicts: &PolicyConflicts,
) -> (Balancing, BackendTraffic) {
    let (balance, traffic) = match upstream.source {
        UpstreamSource::Service => {
            let balance = upstream_policy::upstream_balance(store, upstream, conflicts);
            let settings = upstream_policy::policy_settings(store, upstream, conflicts);
            (balance, settings.below(backend_traffic::backend_traffic(store, &service_key(upstream))))
        }
        UpstreamSource::XBackend => (Balancing::default(), BackendTraffic::default()),
    };
    let (balance, mut traffic) = backend_policy::apply(store, upstream, balance, traffic);
    if let Some(sessions) = x_backend::own_sessions(store, upstream) {
        traffic.affinity = Some(sessions);
    }
    (balance, traffic)
}

/// The sources of the settings of one upstream.
pub(super) fn sources(store: &Store, upstream: &UpstreamKey, conflicts: &PolicyConflicts) -> PolicySources {
    let mut sources = PolicySources::new();
    // Later ones precede.
    if upstream.source == UpstreamSource::Service {
        sources.extend(upstream_policy::sources(store, upstream, conflicts));
        sources.extend(backend_traffic::sources(store, &service_key(upstream)));
    }
    sources.extend(backend_policy::sources(store, upstream));
    if x_backend::own_sessions(store, upstream).is_some() {
        let backend = format!("{} {}", Kind::XBackend, backend_policy::backend_key(upstream));
        sources.insert("loadBalancing.sessionPersistence", backend);
    }
    sources
}

fn service_key(upstream: &UpstreamKey) -> ObjectKey {
    ObjectKey { namespace: upstream.namespace.clone(), name: upstream.service.clone() }
}
