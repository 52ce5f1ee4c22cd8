//! Everything that BackendPolicies know of a target by its kind: which upstreams it has, which targets an upstream
//! belongs to, and what the settings of a block depend on.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::core::ServicePort;
use crate::api::{Kind, ObjectKey};
use crate::compile::policies::target::{Target, TargetKind};
use crate::store::Store;
use crate::transport_protocol::TransportProtocol;
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

/// The targets whose policies apply to an upstream, in the order of precedence.
pub(super) fn targets_of_upstream<'s>(
    store: &'s Store,
    upstream: &UpstreamKey,
) -> impl Iterator<Item = Target<'s>> + use<'s> {
    let key = backend_key(upstream);
    let of_kind = |kind, name: &Arc<str>| {
        let key = ObjectKey { namespace: key.namespace.clone(), name: name.clone() };
        Target { kind, key, section: None }
    };
    let facade = upstream.facade.as_ref().map(|name| of_kind(TargetKind::Facade, name));
    let [port, backend] = match upstream.source {
        UpstreamSource::XBackend => [None, Some(of_kind(TargetKind::XBackend, &key.name))],
        UpstreamSource::Service => {
            let port = port_name(store, &key, upstream);
            [port.map(|name| Target::of_service(&key, Some(name))), Some(Target::of_service(&key, None))]
        }
    };
    [facade, port, backend].into_iter().flatten()
}

/// The name of the port of a Service that an upstream is for.
fn port_name<'s>(store: &'s Store, service: &ObjectKey, upstream: &UpstreamKey) -> Option<&'s str> {
    let service = store.services.get(service)?;
    let port = service.spec.ports.iter().find(|port| {
        port.port == i32::from(upstream.port)
            && TransportProtocol::from_field(port.protocol.as_deref()) == Some(upstream.transport)
    });
    port.map(|port| &*port.name).filter(|name| !name.is_empty())
}

/// The upstreams of a target, one for each port.
pub(super) fn upstreams_of(store: &Store, target: &Target<'_>) -> Vec<UpstreamKey> {
    let ObjectKey { namespace, name: service } = target.key.clone();
    let of_port = |port: i32, source| {
        let port = u16::try_from(port).unwrap_or_default();
        UpstreamKey { namespace: namespace.clone(), service: service.clone(), port, source, ..UpstreamKey::default() }
    };
    match target.kind {
        TargetKind::Service => {
            let ports = store.services.get(&target.key).into_iter().flat_map(|service| &service.spec.ports);
            let ports = ports.filter(|port| target.section.is_none_or(|section| port.name == section));
            let upstream = |port: &ServicePort| {
                let transport = TransportProtocol::from_field(port.protocol.as_deref()).unwrap_or_default();
                UpstreamKey { transport, ..of_port(port.port, UpstreamSource::Service) }
            };
            ports.map(upstream).collect()
        }
        TargetKind::XBackend => {
            let backend = store.x_backends.get(&target.key);
            let port = backend.and_then(|backend| backend.spec.port.number);
            port.map(|port| of_port(port, UpstreamSource::XBackend)).into_iter().collect()
        }
        TargetKind::Facade => {
            let Some(service) = store.service_behind_facade(&target.key) else { return Vec::new() };
            let upstreams = upstreams_of(store, &Target::of_service(&service, None)).into_iter();
            upstreams.map(|key| UpstreamKey { facade: Some(target.key.name.clone()), ..key }).collect()
        }
    }
}

/// Whether an upstream belongs to a target. `ports`: the numbers of the ports that the target is limited to.
pub(super) fn is_of_target(upstream: &UpstreamKey, target: &Target<'_>, ports: Option<&BTreeSet<i32>>) -> bool {
    let has_name = |source| {
        upstream.source == source && upstream.namespace == target.key.namespace && upstream.service == target.key.name
    };
    match target.kind {
        TargetKind::Service => {
            has_name(UpstreamSource::Service) && ports.is_none_or(|ports| ports.contains(&i32::from(upstream.port)))
        }
        TargetKind::XBackend => has_name(UpstreamSource::XBackend),
        TargetKind::Facade => {
            upstream.namespace == target.key.namespace && upstream.facade.as_ref() == Some(&target.key.name)
        }
    }
}
