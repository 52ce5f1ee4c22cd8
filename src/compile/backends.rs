//! Backends of a rule: which Service port each one means, or why it means none.

use super::Inputs;
use super::endpoints;
use super::grants::Reference;
use super::ingress::service_settings::{self, Speech};
use super::ingress::upstream_tls;
use super::verdict::{Code, Problem};
use crate::api::core::{Service, ServicePort};
use crate::api::gateway::{BackendObjectReference, PolicyTargetReference};
use crate::api::kind::CORE_GROUP;
use crate::api::kong::annotations::PROTOCOL;
use crate::api::{Kind, Object, ObjectId, ObjectKey};
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
        // As Kong says it of a Service that is there and cannot be spoken to.
        Err((Code::RouteInvalidBackendTls, problem)) => {
            Err((Code::RouteInvalidBackendTls, problem, Target::Fail(Failure::NoService)))
        }
        Err((code, problem)) => Err((code, problem, Target::Fail(Failure::InvalidBackend))),
    }
}

/// The key of what a backend means, of a route of `namespace`.
pub(super) fn key(namespace: &str, backend: &BackendObjectReference) -> ObjectKey {
    ObjectKey::new(backend.namespace.as_deref().unwrap_or(namespace), &backend.name)
}

/// The Service that a backend means, if routes of `namespace` may refer to it.
pub(super) fn service<'s>(
    store: &'s Store,
    (kind, namespace): (Kind, &str),
    backend: &BackendObjectReference,
    field: &str,
) -> Result<&'s Object<Service>, (Code, Problem)> {
    if backend.group != CORE_GROUP || backend.kind != Kind::Service.name() {
        let (part, what) = if backend.group == CORE_GROUP {
            ("kind", backend.kind.clone())
        } else {
            ("group", format!("{}/{}", backend.group, backend.kind))
        };
        let message = format!("backends of kind {what} are not served");
        return Err((Code::RouteInvalidKind, Problem::new(format!("{field}.{part}"), message, "refer to a Service")));
    }
    let target = key(namespace, backend);
    // Permission comes before existence, so that who may not use a Service does not learn whether it is there.
    let crossing = Reference { from: kind, namespace, to: Kind::Service, target: &target };
    if !crossing.is_allowed(store) {
        return Err((Code::RouteRefNotPermitted, crossing.problem(format!("{field}.namespace"))));
    }
    store.services.get(&target).map(|service| &**service).ok_or_else(|| {
        let message = format!("Service {target} does not exist");
        let problem = Problem::new(format!("{field}.name"), message, "create it or correct the name");
        (Code::RouteBackendNotFound, problem)
    })
}

fn find(
    store: &Store,
    inputs: &Inputs<'_>,
    from: (Kind, &str),
    backend: &BackendObjectReference,
    field: &str,
) -> Result<UpstreamKey, (Code, Problem)> {
    let service = service(store, from, backend, field)?;
    let target = service.meta.key.clone();
    let not_found = |message: String, remedy: String| {
        Err((Code::RouteBackendNotFound, Problem::new(format!("{field}.port"), message, remedy)))
    };
    let Some(number) = backend.port else {
        let message = format!("no port of Service {target} is named");
        return not_found(message, ports_remedy(&service.spec.ports));
    };
    let Some(port) = service.spec.ports.iter().find(|port| port.port == number && is_tcp(port)) else {
        let message = format!("Service {target} has no TCP port {number}");
        return not_found(message, ports_remedy(&service.spec.ports));
    };
    let named = port.app_protocol.as_deref().unwrap_or_default();
    // Of each Service its own annotation, whatever others of the rule say.
    let annotated = Speech::of(&service.meta);
    let protocol = match annotated {
        Some(speech) => speech.protocol(),
        None => spoken(named),
    };
    let Some(protocol) = protocol else {
        let (message, remedy) = match annotated {
            Some(_) => (
                format!("annotation {PROTOCOL} of Service {target} names a protocol that carries no requests"),
                "set it to http, https, grpc, grpcs, ws or wss if the Service speaks one of these",
            ),
            None => (
                format!("port {number} of Service {target} has appProtocol {named}, which is not served"),
                "use kubernetes.io/h2c if the backend speaks HTTP/2 without TLS; http, or no appProtocol, if it speaks \
                 HTTP/1.1 without TLS",
            ),
        };
        let problem = Problem::new(format!("{field}.port"), message, remedy);
        return Err((Code::RouteUnsupportedProtocol, problem));
    };
    if let Some((message, remedy)) = wants_tls(store, inputs, &target, port) {
        return Err((Code::RouteUnsupportedProtocol, Problem::new(format!("{field}.name"), message, remedy)));
    }
    let is_tls = annotated.is_some_and(Speech::is_tls);
    let terms = || {
        let settings = service_settings::read(&service.meta, "a Service", true).tls;
        upstream_tls::terms(store, inputs, &service.meta, protocol, &settings)
    };
    let tls = is_tls.then(terms).transpose().map_err(|problem| {
        let at = format!("{field}.name");
        let problem = if *target.namespace == *from.1 {
            upstream_tls::at_referrer(Kind::Service, &service.meta, &problem, &at)
        } else {
            upstream_tls::at_stranger(Kind::Service, &service.meta, &at)
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
        whole: service_settings::is_whole(&service.meta) && !endpoints::is_headless(service),
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

/// The policy that wants this port spoken to in TLS, if any. One that cannot be read wants it too.
fn policy_of<'a>(store: &'a Store, service: &ObjectKey, port: &ServicePort) -> Option<&'a ObjectKey> {
    let concerns = |targets: &[PolicyTargetReference]| {
        targets.iter().any(|target| {
            target.group == CORE_GROUP
                && target.kind == Kind::Service.name()
                && *target.name == *service.name
                && target.section_name.as_deref().is_none_or(|section| section == port.name)
        })
    };
    let id = ObjectId::new(Kind::Service, service.clone());
    // A policy is of the namespace of its targets. Others may mention the Service as well, whatever their names are.
    let is_policy = |id: &&ObjectId| id.kind == Kind::BackendTlsPolicy && id.key.namespace == service.namespace;
    let policies = store.refs().dependents(&id).filter(is_policy);
    let mut policies = policies.filter_map(|id| store.backend_tls_policies.get(&id.key));
    let policy = policies.find(|policy| concerns(&policy.spec.target_refs)).map(|policy| &policy.meta.key);
    let mut guards = store.guards.values().filter(|guard| guard.meta.key.namespace == service.namespace);
    let guard = || guards.find(|guard| guard.targets.as_deref().is_none_or(concerns)).map(|guard| &guard.meta.key);
    policy.or_else(guard)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::compile::addresses::Addresses;
    use crate::compile::verdict::Verdict;
    use crate::compile::{Compiler, Inputs};
    use crate::store::{AnyObject, Batch, Guard};
    use crate::upstream::Registry;

    fn object(kind: Kind, name: &str, spec: &Value) -> AnyObject {
        AnyObject::parse(kind, json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).unwrap()
    }

    /// What an API server without our schema lets in.
    fn guard(namespace: &str, target_refs: &Value) -> AnyObject {
        let object = json!({"spec": {"targetRefs": target_refs, "validation": {"hostname": 5}}});
        AnyObject::Guard(Arc::new(Guard::of(ObjectKey::new(namespace, "tls"), 1, &object)))
    }

    #[test]
    fn a_policy_that_cannot_be_read_guards_what_it_is_about() {
        let mut store = Store::default();
        let controllers = ["a.b/c".to_owned()];
        let (addresses, upstreams) = (Addresses::default(), Registry::default());
        let unknown = std::collections::BTreeSet::new();
        let ingress = super::super::IngressSettings::default();
        let (classes, workshop) =
            (super::super::Classes::default(), crate::plugin::Workshop::offline(crate::plugin::Registry(&[])));
        let inputs = Inputs {
            controllers: &controllers,
            addresses: &addresses,
            upstreams: &upstreams,
            classes: &classes,
            workshop: &workshop,
            unknown: &unknown,
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
            verdict.every_condition().any(|(_, condition)| condition.code == Code::RouteUnsupportedProtocol)
        };
        let policy_id = || vec![ObjectId::new(Kind::BackendTlsPolicy, ObjectKey::new("ns", "tls"))];
        assert!(!guarded(begin, vec![]));
        assert!(guarded(vec![guard("ns", &json!([to("Service", "shop")]))], vec![]), "its target");
        assert!(!guarded(vec![guard("ns", &json!([to("Service", "other")]))], vec![]), "it is about another");
        assert!(guarded(vec![guard("ns", &json!([to("Service", "other"), {"name": 5}]))], vec![]), "about anything");
        assert!(guarded(vec![guard("ns", &json!("shop"))], vec![]));
        assert!(!guarded(vec![], policy_id()), "it is gone");
        assert!(!guarded(vec![guard("elsewhere", &Value::Null)], vec![]), "that of another namespace");
        assert!(guarded(vec![guard("ns", &json!([]))], vec![]));
        assert!(!guarded(vec![policy("other")], vec![]), "it is mended");
        assert!(!guarded(vec![guard("ns", &Value::Null)], vec![]), "its last good version says what it was about");
        assert!(guarded(vec![policy("shop")], vec![]));
        assert!(guarded(vec![guard("ns", &Value::Null)], vec![]));
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
            "a route and a policy of one name elsewhere"
        );
    }
}
