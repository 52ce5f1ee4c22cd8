//! Resolves the backends of a rule to Service ports, or to the reason why they cannot be resolved.

use super::CompileInputs;
use super::endpoints;
use super::ingress::service_settings::{self, AppProtocol};
use super::ingress::upstream_tls;
use super::reference_grants::CrossNamespaceReference;
use super::verdict::Code;
use crate::api::core::{Service, ServicePort};
use crate::api::gateway::{BackendObjectReference, PolicyTargetReference};
use crate::api::kind::CORE_GROUP;
use crate::api::kong::annotations::PROTOCOL;
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::snapshot::rule::{BackendTarget, RouteFailure};
use crate::store::Store;
use crate::upstream::{UpstreamKey, UpstreamProtocol};

/// Resolves a backend of a route. A backend that cannot be resolved keeps its share of the requests and fails them, as
/// Gateway API specifies, instead of moving them to other backends.
pub(super) fn resolve(
    store: &Store,
    inputs: &CompileInputs<'_>,
    from: (Kind, &str),
    backend: &BackendObjectReference,
    field: &str,
) -> Result<(UpstreamKey, BackendTarget), (Code, Diagnostic, BackendTarget)> {
    match resolve_service_port(store, inputs, from, backend, field) {
        Ok(key) => {
            let target = BackendTarget::Upstream(inputs.upstreams.upstream(&key));
            Ok((key, target))
        }
        // Kong responds in the same way for a Service that exists but cannot be connected to.
        Err((Code::RouteInvalidBackendTls, problem)) => {
            Err((Code::RouteInvalidBackendTls, problem, BackendTarget::Fail(RouteFailure::NoService)))
        }
        Err((code, problem)) => Err((code, problem, BackendTarget::Fail(RouteFailure::InvalidBackend))),
    }
}

/// The key of the object that a backend of a route in `namespace` refers to.
pub(super) fn service_key(namespace: &str, backend: &BackendObjectReference) -> ObjectKey {
    ObjectKey::new(backend.namespace.as_deref().unwrap_or(namespace), &backend.name)
}

/// The Service that a backend refers to, if routes of `namespace` may refer to it.
pub(super) fn resolve_service<'s>(
    store: &'s Store,
    (kind, namespace): (Kind, &str),
    backend: &BackendObjectReference,
    field: &str,
) -> Result<&'s Object<Service>, (Code, Diagnostic)> {
    if backend.group != CORE_GROUP || backend.kind != Kind::Service.name() {
        let (part, what) = if backend.group == CORE_GROUP {
            ("kind", backend.kind.clone())
        } else {
            ("group", format!("{}/{}", backend.group, backend.kind))
        };
        let message = format!("backends of kind {what} are not served");
        return Err((
            Code::RouteInvalidKind,
            Diagnostic::error(format!("{field}.{part}"), message, "refer to a Service"),
        ));
    }
    let target = service_key(namespace, backend);
    // Permission is checked before existence, so that a route without permission does not reveal whether the Service
    // exists.
    let crossing = CrossNamespaceReference { from: kind, namespace, to: Kind::Service, target: &target };
    if !crossing.is_allowed(store) {
        return Err((Code::RouteRefNotPermitted, crossing.problem(format!("{field}.namespace"))));
    }
    store.services.get(&target).map(|service| &**service).ok_or_else(|| {
        let service = format!("Service {target}");
        let problem = Diagnostic::not_found(format!("{field}.name"), service, "create it or correct the name");
        (Code::RouteBackendNotFound, problem)
    })
}

fn resolve_service_port(
    store: &Store,
    inputs: &CompileInputs<'_>,
    from: (Kind, &str),
    backend: &BackendObjectReference,
    field: &str,
) -> Result<UpstreamKey, (Code, Diagnostic)> {
    let service = resolve_service(store, from, backend, field)?;
    let target = service.meta.key.clone();
    let not_found = |message: String, remedy: String| {
        Err((Code::RouteBackendNotFound, Diagnostic::error(format!("{field}.port"), message, remedy)))
    };
    let Some(number) = backend.port else {
        let message = format!("the backend names no port of Service {target}");
        return not_found(message, ports_remedy(&service.spec.ports));
    };
    let Some(port) = service.spec.ports.iter().find(|port| port.port == number && is_tcp(port)) else {
        let message = format!("Service {target} has no TCP port {number}");
        return not_found(message, ports_remedy(&service.spec.ports));
    };
    let named = port.app_protocol.as_deref().unwrap_or_default();
    // The annotation of each Service applies to that Service only, independent of the rule's other backends.
    let annotated = AppProtocol::from_annotations(&service.meta);
    let protocol = match annotated {
        Some(speech) => speech.protocol(),
        None => protocol_from_app_protocol(named),
    };
    let Some(protocol) = protocol else {
        let (message, remedy) = match annotated {
            Some(_) => (
                format!("annotation {PROTOCOL} of Service {target} names a protocol that is not HTTP"),
                "set it to http, https, grpc, grpcs, ws or wss if the Service serves one of these",
            ),
            None => (
                format!("port {number} of Service {target} has appProtocol {named}, which is not served"),
                "use kubernetes.io/h2c if the backend serves HTTP/2 without TLS; http, or no appProtocol, if it serves \
                 HTTP/1.1 without TLS",
            ),
        };
        let problem = Diagnostic::error(format!("{field}.port"), message, remedy);
        return Err((Code::RouteUnsupportedProtocol, problem));
    };
    if let Some((message, remedy)) = requires_tls(store, inputs, &target, port) {
        return Err((Code::RouteUnsupportedProtocol, Diagnostic::error(format!("{field}.name"), message, remedy)));
    }
    let is_tls = annotated.is_some_and(AppProtocol::is_tls);
    let terms = || {
        let settings = service_settings::read(&service.meta, "a Service", true).tls;
        upstream_tls::tls_settings(store, inputs, &service.meta, protocol, &settings)
    };
    let tls = is_tls.then(terms).transpose().map_err(|problem| {
        let at = format!("{field}.name");
        let problem = if *target.namespace == *from.1 {
            upstream_tls::for_referrer(Kind::Service, &service.meta, &problem, &at)
        } else {
            upstream_tls::for_foreign_referrer(Kind::Service, &service.meta, &at)
        };
        (Code::RouteInvalidBackendTls, problem)
    })?;
    let number = u16::try_from(number).unwrap_or_default();
    Ok(UpstreamKey {
        namespace: target.namespace,
        service: target.name,
        port: number,
        protocol,
        tls,
        via_cluster_ip: service_settings::is_via_cluster_ip(&service.meta) && !endpoints::is_headless(service),
        ..UpstreamKey::default()
    })
}

/// Why connections to this port must not use plain text, and the remedy; `None` if they may.
pub(super) fn requires_tls(
    store: &Store,
    inputs: &CompileInputs<'_>,
    service: &ObjectKey,
    port: &ServicePort,
) -> Option<(String, &'static str)> {
    if let Some(policy) = tls_policy_for(store, service, port) {
        let message = format!(
            "BackendTLSPolicy {policy} requires TLS to Service {service}, which this version does not support, so no \
             requests are sent to it"
        );
        return Some((message, "remove the policy if plain text is acceptable"));
    }
    inputs.unreadable_kinds.contains(&Kind::BackendTlsPolicy).then(|| {
        let message = format!(
            "BackendTLSPolicies cannot be read, so it is unknown whether Service {service} requires TLS, and no \
             requests are sent to it"
        );
        (message, "let Portico's ClusterRole list and watch backendtlspolicies; the log has the reason of the failure")
    })
}

/// The policy that requires TLS for this port, if any. A policy that cannot be parsed counts too.
fn tls_policy_for<'a>(store: &'a Store, service: &ObjectKey, port: &ServicePort) -> Option<&'a ObjectKey> {
    let concerns = |targets: &[PolicyTargetReference]| {
        targets.iter().any(|target| {
            target.group == CORE_GROUP
                && target.kind == Kind::Service.name()
                && *target.name == *service.name
                && target.section_name.as_deref().is_none_or(|section| section == port.name)
        })
    };
    let id = ObjectId::new(Kind::Service, service.clone());
    // A policy targets Services of its own namespace only; objects of other namespaces may refer to this one as well.
    let is_policy = |id: &&ObjectId| id.kind == Kind::BackendTlsPolicy && id.key.namespace == service.namespace;
    let policies = store.dependency_index().dependents(&id).filter(is_policy);
    let mut policies = policies.filter_map(|id| store.backend_tls_policies.get(&id.key));
    let policy = policies.find(|policy| concerns(&policy.spec.target_refs)).map(|policy| &policy.meta.key);
    let mut guards = store.guards.values().filter(|guard| guard.meta.key.namespace == service.namespace);
    let guard = || guards.find(|guard| guard.targets.as_deref().is_none_or(concerns)).map(|guard| &guard.meta.key);
    policy.or_else(guard)
}

pub(super) fn is_tcp(port: &ServicePort) -> bool {
    port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
}

/// The protocol for an `appProtocol`. WebSocket starts as HTTP/1.1 and is allowed for every backend.
pub(super) fn protocol_from_app_protocol(protocol: &str) -> Option<UpstreamProtocol> {
    match protocol {
        "" | "http" | "HTTP" | "kubernetes.io/http" | "kubernetes.io/ws" => Some(UpstreamProtocol::Http1),
        "kubernetes.io/h2c" => Some(UpstreamProtocol::Http2),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::compile::addresses::GatewayAddresses;
    use crate::compile::verdict::Verdict;
    use crate::compile::{CompileInputs, Compiler};
    use crate::store::{AnyObject, Batch, UnparseablePolicy};
    use crate::upstream::UpstreamRegistry;

    fn object(kind: Kind, name: &str, spec: &Value) -> AnyObject {
        AnyObject::parse(kind, json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).unwrap()
    }

    /// An object that an API server without Portico's schema accepts.
    fn unparseable_policy(namespace: &str, target_refs: &Value) -> AnyObject {
        let object = json!({"spec": {"targetRefs": target_refs, "validation": {"hostname": 5}}});
        AnyObject::Guard(Arc::new(UnparseablePolicy::from_value(ObjectKey::new(namespace, "tls"), 1, &object)))
    }

    #[test]
    fn unparseable_tls_policy_blocks_its_targets() {
        let mut store = Store::default();
        let controllers = ["a.b/c".to_owned()];
        let (addresses, upstreams) = (GatewayAddresses::default(), UpstreamRegistry::default());
        let unknown = std::collections::BTreeSet::new();
        let ingress = super::super::IngressSettings::default();
        let (classes, workshop) = (
            super::super::Classes::default(),
            crate::plugin_api::PluginFactory::offline(crate::plugin_api::PluginRegistry(&[])),
        );
        let inputs = CompileInputs {
            controllers: &controllers,
            addresses: &addresses,
            upstreams: &upstreams,
            classes: &classes,
            plugin_factory: &workshop,
            unreadable_kinds: &unknown,
            ingress: &ingress,
        };
        let mut compiler = Compiler::default();
        let to = |kind: &str, name: &str| json!({"group": "", "kind": kind, "name": name});
        let policy = |target: &str| {
            let validation = json!({"hostname": "x.example", "wellKnownCACertificates": "System"});
            object(
                Kind::BackendTlsPolicy,
                "tls",
                &json!({"targetRefs": [to("Service", target)], "validation": validation}),
            )
        };
        let begin = vec![
            AnyObject::parse(
                Kind::GatewayClass,
                json!({"metadata": {"name": "c"}, "spec": {"controllerName": "a.b/c"}}),
            )
            .unwrap(),
            object(
                Kind::Gateway,
                "web",
                &json!({"gatewayClassName": "c", "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"}]}),
            ),
            object(Kind::Service, "shop", &json!({"ports": [{"name": "http", "port": 80}]})),
            object(
                Kind::HttpRoute,
                "shop",
                &json!({"parentRefs": [{"name": "web"}], "rules": [{"backendRefs": [{"name": "shop", "port": 80}]}]}),
            ),
        ];
        let mut guarded = |upserts: Vec<AnyObject>, removes: Vec<ObjectId>| {
            let changes = store.apply(Batch { upserts, removes });
            compiler.compile(&store, &changes, &inputs);
            let route = ObjectId::new(Kind::HttpRoute, ObjectKey::new("ns", "shop"));
            let verdict: &Verdict = &compiler.verdicts()[&route];
            verdict.all_conditions().any(|(_, condition)| condition.code == Code::RouteUnsupportedProtocol)
        };
        let policy_id = || vec![ObjectId::new(Kind::BackendTlsPolicy, ObjectKey::new("ns", "tls"))];
        assert!(!guarded(begin, vec![]));
        assert!(
            guarded(vec![unparseable_policy("ns", &json!([to("Service", "shop")]))], vec![]),
            "targets the Service"
        );
        assert!(
            !guarded(vec![unparseable_policy("ns", &json!([to("Service", "other")]))], vec![]),
            "targets another Service"
        );
        assert!(
            guarded(vec![unparseable_policy("ns", &json!([to("Service", "other"), {"name": 5}]))], vec![]),
            "may target any Service"
        );
        assert!(guarded(vec![unparseable_policy("ns", &json!("shop"))], vec![]));
        assert!(!guarded(vec![], policy_id()), "the policy was deleted");
        assert!(!guarded(vec![unparseable_policy("elsewhere", &Value::Null)], vec![]), "a policy of another namespace");
        assert!(guarded(vec![unparseable_policy("ns", &json!([]))], vec![]));
        assert!(!guarded(vec![policy("other")], vec![]), "the policy was fixed");
        assert!(
            !guarded(vec![unparseable_policy("ns", &Value::Null)], vec![]),
            "the targets of its last valid version count"
        );
        assert!(guarded(vec![policy("shop")], vec![]));
        assert!(guarded(vec![unparseable_policy("ns", &Value::Null)], vec![]));
        assert!(!guarded(vec![], policy_id()));
        let of_another = |kind, spec: Value| {
            AnyObject::parse(kind, json!({"metadata": {"namespace": "elsewhere", "name": "x"}, "spec": spec})).unwrap()
        };
        let foreign = json!({"rules": [{"backendRefs": [{"name": "shop", "namespace": "ns", "port": 80}]}]});
        let validation = json!({"hostname": "x.example", "wellKnownCACertificates": "System"});
        let strangers = vec![
            of_another(Kind::HttpRoute, foreign),
            of_another(
                Kind::BackendTlsPolicy,
                json!({"targetRefs": [to("Service", "shop")], "validation": validation}),
            ),
        ];
        let touched =
            object(Kind::Service, "shop", &json!({"ports": [{"name": "http", "port": 80}, {"name": "b", "port": 81}]}));
        assert!(
            !guarded(strangers, vec![]) && !guarded(vec![touched], vec![]),
            "a route and a policy of the same name in another namespace"
        );
    }
}
