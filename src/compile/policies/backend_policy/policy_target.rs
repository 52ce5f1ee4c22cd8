//! The target of a policy, as far as the settings of a block depend on it.

use crate::api::{Kind, ObjectKey};
use crate::compile::policies::target::TargetKind;
use crate::store::Store;
use crate::upstream::{UpstreamKey, UpstreamSource};

/// What the settings of a block depend on besides the block.
pub(super) struct PolicyTarget {
    /// The name that identifies sessions in all replicas.
    pub owner: String,
    /// The host of health checks.
    pub host: String,
}

impl PolicyTarget {
    pub(super) fn of_upstream(store: &Store, upstream: &UpstreamKey) -> PolicyTarget {
        let key = backend_key(upstream);
        match upstream.source {
            UpstreamSource::Service => PolicyTarget::new(TargetKind::Service, &key),
            UpstreamSource::XBackend => {
                let target = PolicyTarget::new(TargetKind::XBackend, &key);
                let backend = store.x_backends.get(&key);
                let external = backend.and_then(|backend| backend.spec.external_hostname.as_ref());
                match external {
                    Some(external) => PolicyTarget { host: external.hostname.clone(), ..target },
                    None => target,
                }
            }
        }
    }

    pub(super) fn new(kind: TargetKind, key: &ObjectKey) -> PolicyTarget {
        let kind = match kind {
            TargetKind::Service | TargetKind::Facade => Kind::Service,
            TargetKind::XBackend => Kind::XBackend,
        };
        let ObjectKey { namespace, name } = key;
        PolicyTarget { owner: format!("{kind}/{namespace}/{name}"), host: format!("{name}.{namespace}.svc") }
    }
}

/// The Service or XBackend of an upstream.
pub(in crate::compile) fn backend_key(upstream: &UpstreamKey) -> ObjectKey {
    ObjectKey { namespace: upstream.namespace.clone(), name: upstream.service.clone() }
}
