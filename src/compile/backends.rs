//! Backends of a rule: which Service port each one means, or why it means none.

use super::Inputs;
use super::grants::Reference;
use super::verdict::{Code, Problem};
use crate::api::core::ServicePort;
use crate::api::gateway::BackendObjectReference;
use crate::api::kind::CORE_GROUP;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::snapshot::rule::{Failure, Target};
use crate::store::Store;
use crate::upstream::{Protocol, UpstreamKey};

/// Resolves a backend of a route of `namespace`. What cannot be resolved takes its share of the requests and fails
/// them, since nobody asked for them to go elsewhere.
pub(super) fn resolve(
    store: &Store,
    inputs: &Inputs<'_>,
    from: (Kind, &str),
    backend: &BackendObjectReference,
    field: &str,
) -> Result<(UpstreamKey, Target), (Code, Problem, Target)> {
    match find(store, inputs, from, backend, field) {
        Ok(key) => {
            let target = Target::Upstream(inputs.upstreams.upstream(&key));
            Ok((key, target))
        }
        Err((code, problem)) => Err((code, problem, Target::Fail(Failure::InvalidBackend))),
    }
}

fn find(
    store: &Store,
    inputs: &Inputs<'_>,
    (kind, namespace): (Kind, &str),
    backend: &BackendObjectReference,
    field: &str,
) -> Result<UpstreamKey, (Code, Problem)> {
    if backend.group != CORE_GROUP || backend.kind != Kind::Service.name() {
        let (part, what) = if backend.group == CORE_GROUP {
            ("kind", backend.kind.clone())
        } else {
            ("group", format!("{}/{}", backend.group, backend.kind))
        };
        let message = format!("backends of kind {what} are not served");
        return Err((Code::RouteInvalidKind, Problem::new(format!("{field}.{part}"), message, "refer to a Service")));
    }
    let target = ObjectKey::new(backend.namespace.as_deref().unwrap_or(namespace), &backend.name);
    // Permission comes before existence, so that who may not use a Service does not learn whether it is there.
    let crossing = Reference { from: kind, namespace, to: Kind::Service, target: &target };
    if !crossing.is_allowed(store) {
        return Err((Code::RouteRefNotPermitted, crossing.problem(format!("{field}.namespace"))));
    }
    let not_found = |part: &str, message: String, remedy: String| {
        Err((Code::RouteBackendNotFound, Problem::new(format!("{field}.{part}"), message, remedy)))
    };
    let Some(service) = store.services.get(&target) else {
        let message = format!("Service {target} does not exist");
        return not_found("name", message, "create it or correct the name".to_owned());
    };
    let Some(number) = backend.port else {
        let message = format!("no port of Service {target} is named");
        return not_found("port", message, ports_remedy(&service.spec.ports));
    };
    let Some(port) = service.spec.ports.iter().find(|port| port.port == number && is_tcp(port)) else {
        let message = format!("Service {target} has no TCP port {number}");
        return not_found("port", message, ports_remedy(&service.spec.ports));
    };
    let named = port.app_protocol.as_deref().unwrap_or_default();
    let Some(protocol) = spoken(named) else {
        let message = format!("port {number} of Service {target} has appProtocol {named}, which is not served");
        let remedy = "use kubernetes.io/h2c if the backend speaks HTTP/2 without TLS; http, or no appProtocol, if it \
                      speaks HTTP/1.1 without TLS";
        let problem = Problem::new(format!("{field}.port"), message, remedy);
        return Err((Code::RouteUnsupportedProtocol, problem));
    };
    if let Some((message, remedy)) = wants_tls(store, inputs, &target, port) {
        return Err((Code::RouteUnsupportedProtocol, Problem::new(format!("{field}.name"), message, remedy)));
    }
    let number = u16::try_from(number).unwrap_or_default();
    Ok(UpstreamKey {
        namespace: target.namespace,
        service: target.name,
        port: number,
        protocol,
        ..UpstreamKey::default()
    })
}

/// Why this port must not be spoken to in plain text, if so, and what would be right.
pub(super) fn wants_tls(
    store: &Store,
    inputs: &Inputs<'_>,
    service: &ObjectKey,
    port: &ServicePort,
) -> Option<(String, &'static str)> {
    if let Some(policy) = policy_of(store, service, port) {
        let message = format!(
            "BackendTLSPolicy {policy} wants TLS towards Service {service}, which this version cannot speak, so nothing \
             is sent there"
        );
        return Some((message, "remove the policy only if plain text will do"));
    }
    inputs.unknown.contains(&Kind::BackendTlsPolicy).then(|| {
        let message = format!(
            "no BackendTLSPolicy can be read, so whether Service {service} has to be spoken to in TLS is not known, and \
             nothing is sent there"
        );
        (message, "let Portico's ClusterRole list and watch backendtlspolicies; its log says why it cannot")
    })
}

/// The policy that wants this port spoken to in TLS, if any.
fn policy_of<'a>(store: &'a Store, service: &ObjectKey, port: &ServicePort) -> Option<&'a ObjectKey> {
    let id = ObjectId::new(Kind::Service, service.clone());
    let policies = store.refs().dependents(&id).filter_map(|id| store.backend_tls_policies.get(&id.key));
    policies.map(|policy| (&policy.meta.key, &policy.spec.target_refs)).find_map(|(key, targets)| {
        let concerns = targets.iter().any(|target| {
            target.group == CORE_GROUP
                && target.kind == Kind::Service.name()
                && *target.name == *service.name
                && target.section_name.as_deref().is_none_or(|section| section == port.name)
        });
        concerns.then_some(key)
    })
}

pub(super) fn is_tcp(port: &ServicePort) -> bool {
    port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
}

/// What a backend that calls itself so is spoken to in. WebSocket begins as HTTP/1.1, and is let through for every backend.
pub(super) fn spoken(protocol: &str) -> Option<Protocol> {
    match protocol {
        "" | "http" | "HTTP" | "kubernetes.io/http" | "kubernetes.io/ws" => Some(Protocol::Http1),
        "kubernetes.io/h2c" => Some(Protocol::Http2),
        _ => None,
    }
}

pub(super) fn ports_remedy(ports: &[ServicePort]) -> String {
    let known: Vec<_> = ports.iter().filter(|port| is_tcp(port)).map(|port| port.port.to_string()).collect();
    match known.as_slice() {
        [] => "add a TCP port to the Service".to_owned(),
        [one] => format!("use port {one}"),
        several => format!("use one of {}", several.join(", ")),
    }
}
