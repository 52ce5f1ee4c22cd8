//! Which BackendTLSPolicy applies to a port of a Service, and the trust that it requires.
//!
//! Plain text is never a fallback: a policy that cannot be used, or that cannot be parsed, prevents requests from being
//! sent. While Portico cannot read the kind BackendTLSPolicy, any Service may have a policy.

use std::sync::Arc;

use super::BackendError;
use crate::api::core::{Service, ServicePort};
use crate::api::gateway::{BackendTlsPolicy, PolicyTargetReference};
use crate::api::kind::CORE_GROUP;
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::certificates::backend_client::BackendClient;
use crate::compile::certificates::endpoint_trust::ReadValidation;
use crate::compile::policies::precedence::policy_in_effect;
use crate::compile::policies::target::Target;
use crate::endpoint_tls::UpstreamProtocol;
use crate::endpoint_tls::{TlsTrust, UpstreamTlsSettings};
use crate::store::Store;

/// The trust that a policy requires for connections to a port of a Service.
pub(super) struct RequiredTrust<'a> {
    policy: &'a ObjectKey,
    service: &'a ObjectKey,
    trust: TlsTrust,
}

/// `None` if the port has no policy.
pub(super) fn required_trust<'a>(
    cx: CompileContext<'a>,
    service: &'a ObjectKey,
    port: &ServicePort,
) -> Result<Option<RequiredTrust<'a>>, BackendError> {
    if let Some(policy) = unparseable_policy(cx.store, service, port) {
        return Err(BackendError::TlsRequired(unusable(policy, service), "correct the policy"));
    }
    if cx.inputs.unreadable_kinds.contains(&Kind::BackendTlsPolicy) {
        let message = format!(
            "BackendTLSPolicies cannot be read, so it is unknown whether one requires TLS to Service {service}"
        );
        let remedy =
            "let Portico's ClusterRole list and watch backendtlspolicies; the log has the reason of the failure";
        return Err(BackendError::TlsRequired(message, remedy));
    }
    let Some(policy) = applied_policy(cx.store, service, port) else { return Ok(None) };
    let (trust, policy) = (ReadValidation::of_policy(cx, policy).trust, &policy.meta.key);
    let required = trust.map(|trust| RequiredTrust { policy, service, trust });
    required.map(Some).ok_or_else(|| BackendError::InvalidPolicy(unusable(policy, service)))
}

impl RequiredTrust<'_> {
    /// Why no datagrams are sent to the Service.
    pub(super) fn refusal_of_datagrams(&self) -> String {
        let RequiredTrust { policy, service, .. } = self;
        format!("BackendTLSPolicy {policy} requires TLS to Service {service}, but datagrams are not encrypted")
    }

    /// `protocol` is the one that handshakes offer; `None` for connections whose bytes are forwarded unparsed.
    pub(super) fn tls_settings(
        self,
        cx: CompileContext<'_>,
        protocol: Option<UpstreamProtocol>,
    ) -> Result<UpstreamTlsSettings, BackendError> {
        let RequiredTrust { policy, service, trust } = self;
        let client = match cx.backend_client {
            BackendClient::Anonymous => None,
            BackendClient::Certificate(certificate) => Some(Arc::clone(&certificate.key)),
            BackendClient::Unusable(gateway) => {
                let message =
                    format!("the client certificate of Gateway {gateway} for Service {service} cannot be used");
                return Err(BackendError::NoClientCertificate(message));
            }
        };
        let settings = cx.inputs.upstreams.tls_settings(protocol, Some(trust), client);
        settings.map_err(|_| BackendError::InvalidPolicy(unusable(policy, service)))
    }
}

/// The message for the referrers of a Service. It has no details, since the users of another namespace may not be
/// allowed to read the policy.
fn unusable(policy: &ObjectKey, service: &ObjectKey) -> String {
    format!("BackendTLSPolicy {policy}, which requires TLS to Service {service}, cannot be used")
}

/// The policy of a Service if each of its ports has one. It replaces the annotations that configure TLS.
pub(in crate::compile) fn policy_of_all_ports<'a>(
    store: &'a Store,
    service: &'a Object<Service>,
) -> Option<&'a ObjectKey> {
    let key = &service.meta.key;
    let applied = |port| applied_policy(store, key, port).map(|policy| &policy.meta.key);
    let mut policies =
        service.spec.ports.iter().map(|port| unparseable_policy(store, key, port).or_else(|| applied(port)));
    let first = policies.next()??;
    policies.all(|policy| policy.is_some()).then_some(first)
}

/// The policy with the highest precedence for this port: one for the port precedes one for the whole Service.
fn applied_policy<'a>(
    store: &'a Store,
    service: &ObjectKey,
    port: &ServicePort,
) -> Option<&'a Object<BackendTlsPolicy>> {
    let named_port = Some(&*port.name).filter(|name| !name.is_empty());
    policy_in_effect::<BackendTlsPolicy>(store, &Target::of_service(service, named_port))
}

/// Whether a target is this Service or one of its ports. Targets are in the namespace of their policy.
fn is_target_service(target: &PolicyTargetReference, service: &ObjectKey) -> bool {
    target.group == CORE_GROUP && target.kind == Kind::Service.name() && *target.name == *service.name
}

/// A policy that cannot be parsed and that may target this port, unless its last valid version does.
fn unparseable_policy<'a>(store: &'a Store, service: &ObjectKey, port: &ServicePort) -> Option<&'a ObjectKey> {
    if store.unparseable.is_empty() {
        return None;
    }
    let targets_port = |targets: &[PolicyTargetReference]| {
        targets.iter().any(|target| {
            is_target_service(target, service)
                && target.section_name.as_deref().is_none_or(|section| section == port.name)
        })
    };
    let first = ObjectKey { namespace: service.namespace.clone(), name: "".into() };
    let policies = store.unparseable.range(ObjectId::new(Kind::BackendTlsPolicy, first)..);
    let mut policies = policies
        .map(|(id, policy)| (&id.key, policy))
        .take_while(|(key, policy)| policy.kind == Kind::BackendTlsPolicy && key.namespace == service.namespace);
    let serves_port = |key: &ObjectKey| {
        store.backend_tls_policies.get(key).is_some_and(|valid| targets_port(&valid.spec.target_refs))
    };
    // `targets` is None if they cannot be parsed either: the policy may target any Service of its namespace.
    let policy = policies.find(|(key, policy)| policy.targets.as_deref().is_none_or(targets_port) && !serves_port(key));
    policy.map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::compile::Compiler;
    use crate::compile::testing::TestInputs;
    use crate::plugin_api::PluginRegistry;
    use crate::store::{AnyObject, Batch, UnparseableObject, VISITED_DEPENDENTS};
    use crate::verdict::{Code, Verdict};

    fn object(kind: Kind, name: &str, spec: &Value) -> AnyObject {
        AnyObject::parse(kind, json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).unwrap()
    }

    /// An invalid BackendTLSPolicy: `hostname` is a number. Only an API server without the schema of the Gateway API
    /// accepts it.
    fn unparseable_policy(namespace: &str, target_refs: &Value) -> AnyObject {
        let object = json!({"metadata": {"namespace": namespace, "name": "tls", "generation": 1},
            "spec": {"targetRefs": target_refs, "validation": {"hostname": 5}}});
        AnyObject::Unparseable(Arc::new(UnparseableObject::read(Kind::BackendTlsPolicy, &object).unwrap()))
    }

    /// Otherwise, compiling all routes to one Service costs the square of their number.
    #[test]
    fn work_per_route_does_not_grow_with_the_routes_to_its_service() {
        let visited_for = |routes: usize| {
            let inputs = TestInputs::new(PluginRegistry { kinds: &[], internal: &[] });
            let backend = json!({"name": "shop", "port": 80});
            let spec = json!({"parentRefs": [{"name": "web"}], "rules": [{"backendRefs": [backend]}]});
            let labels = json!({"kubernetes.io/service-name": "shop"});
            let slice = json!({"metadata": {"namespace": "ns", "name": "shop", "labels": labels},
                "addressType": "IPv4", "endpoints": [], "ports": []});
            let mut upserts: Vec<_> =
                (0..routes).map(|index| object(Kind::HttpRoute, &format!("r{index}"), &spec)).collect();
            upserts.push(object(Kind::Service, "shop", &json!({"ports": [{"port": 80}]})));
            upserts.push(AnyObject::parse(Kind::EndpointSlice, slice).unwrap());
            let mut store = Store::default();
            let changes = store.apply(Batch { upserts, removes: vec![] });
            let before = VISITED_DEPENDENTS.get();
            inputs.compile(&mut Compiler::default(), &store, &changes);
            VISITED_DEPENDENTS.get() - before
        };
        let (few, many) = (visited_for(20), visited_for(200));
        assert!(many < 15 * few, "{few} dependents for 20 routes, {many} for 200");
    }

    #[test]
    fn unparseable_tls_policy_blocks_its_targets() {
        let mut store = Store::default();
        let inputs = TestInputs {
            controllers: vec!["a.b/c".to_owned()],
            ..TestInputs::new(PluginRegistry { kinds: &[], internal: &[] })
        };
        let mut compiler = Compiler::default();
        let target_ref = |kind: &str, name: &str| json!({"group": "", "kind": kind, "name": name});
        let policy = |target: &str| {
            let validation = json!({"hostname": "x.example", "wellKnownCACertificates": "System"});
            object(
                Kind::BackendTlsPolicy,
                "tls",
                &json!({"targetRefs": [target_ref("Service", target)], "validation": validation}),
            )
        };
        let initial_objects = vec![
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
        // Applies the changes, compiles, and returns whether the route is rejected because its Service needs TLS.
        let mut is_blocked_after = |upserts: Vec<AnyObject>, removes: Vec<ObjectId>| {
            let changes = store.apply(Batch { upserts, removes });
            inputs.compile(&mut compiler, &store, &changes);
            let route = ObjectId::new(Kind::HttpRoute, ObjectKey::new("ns", "shop"));
            let verdict: &Verdict = &compiler.verdicts()[&route];
            verdict.all_conditions().any(|(_, condition)| condition.code == Code::RouteUnsupportedProtocol)
        };
        let policy_id = || vec![ObjectId::new(Kind::BackendTlsPolicy, ObjectKey::new("ns", "tls"))];
        assert!(!is_blocked_after(initial_objects, vec![]));
        assert!(
            is_blocked_after(vec![unparseable_policy("ns", &json!([target_ref("Service", "shop")]))], vec![]),
            "targets the Service"
        );
        assert!(
            !is_blocked_after(vec![unparseable_policy("ns", &json!([target_ref("Service", "other")]))], vec![]),
            "targets another Service"
        );
        assert!(
            is_blocked_after(
                vec![unparseable_policy("ns", &json!([target_ref("Service", "other"), {"name": 5}]))],
                vec![]
            ),
            "may target any Service"
        );
        assert!(
            is_blocked_after(vec![unparseable_policy("ns", &json!("shop"))], vec![]),
            "`targetRefs` is not a list, so it may target any Service"
        );
        assert!(!is_blocked_after(vec![], policy_id()), "the policy was deleted");
        assert!(
            !is_blocked_after(vec![unparseable_policy("elsewhere", &Value::Null)], vec![]),
            "a policy of another namespace"
        );
        assert!(
            is_blocked_after(vec![unparseable_policy("ns", &json!([]))], vec![]),
            "an empty list is invalid, so it may target any Service"
        );
        assert!(!is_blocked_after(vec![policy("other")], vec![]), "the policy was fixed");
        assert!(
            !is_blocked_after(vec![unparseable_policy("ns", &Value::Null)], vec![]),
            "its last valid version targets another Service"
        );
        assert!(!is_blocked_after(vec![policy("shop")], vec![]), "a valid policy targets the Service");
        assert!(
            !is_blocked_after(vec![unparseable_policy("ns", &Value::Null)], vec![]),
            "its last valid version applies"
        );
        assert!(
            !is_blocked_after(vec![unparseable_policy("ns", &json!([target_ref("Service", "shop")]))], vec![]),
            "its last valid version applies to this target"
        );
        assert!(!is_blocked_after(vec![policy("other")], vec![]), "a valid policy targets another Service");
        assert!(
            is_blocked_after(vec![unparseable_policy("ns", &json!([target_ref("Service", "shop")]))], vec![]),
            "its rejected version targets the Service, and its last valid one does not"
        );
        assert!(!is_blocked_after(vec![], policy_id()), "the policy was deleted");
        let in_other_namespace = |kind, spec: Value| {
            AnyObject::parse(kind, json!({"metadata": {"namespace": "elsewhere", "name": "x"}, "spec": spec})).unwrap()
        };
        let foreign_route_spec = json!({"rules": [{"backendRefs": [{"name": "shop", "namespace": "ns", "port": 80}]}]});
        let validation = json!({"hostname": "x.example", "wellKnownCACertificates": "System"});
        let foreign_objects = vec![
            in_other_namespace(Kind::HttpRoute, foreign_route_spec),
            in_other_namespace(
                Kind::BackendTlsPolicy,
                json!({"targetRefs": [target_ref("Service", "shop")], "validation": validation}),
            ),
        ];
        let changed_service =
            object(Kind::Service, "shop", &json!({"ports": [{"name": "http", "port": 80}, {"name": "b", "port": 81}]}));
        assert!(
            !is_blocked_after(foreign_objects, vec![]) && !is_blocked_after(vec![changed_service], vec![]),
            "a policy of another namespace targets a Service with the same name there"
        );
    }
}
