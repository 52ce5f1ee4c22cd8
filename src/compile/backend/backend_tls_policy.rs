//! Whether a BackendTLSPolicy forbids plain-text connections to a Service whose own settings do not require TLS.
//! Portico does not apply the settings of such a policy, so requests to the Service fail instead of being sent in plain
//! text. Policies that cannot be parsed count. While Portico cannot read the kind BackendTLSPolicy, any Service may
//! have one.

use super::super::CompileContext;
use crate::api::core::ServicePort;
use crate::api::gateway::PolicyTargetReference;
use crate::api::kind::CORE_GROUP;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::store::Store;

/// Why connections to this port must not use plain text, and the remedy; `None` if they may.
pub(super) fn plain_text_problem(
    cx: CompileContext<'_>,
    service: &ObjectKey,
    port: &ServicePort,
) -> Option<(String, &'static str)> {
    if let Some(policy) = tls_policy_for(cx.store, service, port) {
        let message = format!(
            "BackendTLSPolicy {policy} requires TLS to Service {service}, which this version does not support, so no \
             requests are sent to it"
        );
        return Some((message, "remove the policy if plain text is acceptable"));
    }
    cx.inputs.unreadable_kinds.contains(&Kind::BackendTlsPolicy).then(|| {
        let message = format!(
            "BackendTLSPolicies cannot be read, so it is unknown whether Service {service} requires TLS, and no \
             requests are sent to it"
        );
        (message, "let Portico's ClusterRole list and watch backendtlspolicies; the log has the reason of the failure")
    })
}

/// The policy that requires TLS for this port, if any. A policy that cannot be parsed counts too.
fn tls_policy_for<'a>(store: &'a Store, service: &ObjectKey, port: &ServicePort) -> Option<&'a ObjectKey> {
    let targets_port = |targets: &[PolicyTargetReference]| {
        targets.iter().any(|target| {
            target.group == CORE_GROUP
                && target.kind == Kind::Service.name()
                && *target.name == *service.name
                && target.section_name.as_deref().is_none_or(|section| section == port.name)
        })
    };
    let id = ObjectId::new(Kind::Service, service.clone());
    // Thousands of routes may depend on the Service, and each of them asks for its policies.
    let policies = store.dependency_index().dependents_of_kind(&id, Kind::BackendTlsPolicy);
    let mut policies = policies.filter_map(|id| store.backend_tls_policies.get(&id.key));
    let policy = policies.find(|policy| targets_port(&policy.spec.target_refs)).map(|policy| &policy.meta.key);
    // `targets` is None if they cannot be parsed either: the policy may target any Service of its namespace.
    let in_namespace = ObjectKey { namespace: service.namespace.clone(), name: "".into() }..;
    let mut unparseable = store.unparseable_policies.range(in_namespace).map(|(_, policy)| policy);
    let mut unparseable = unparseable.by_ref().take_while(|policy| policy.meta.key.namespace == service.namespace);
    let unparseable_policy =
        || unparseable.find(|policy| policy.targets.as_deref().is_none_or(targets_port)).map(|policy| &policy.meta.key);
    policy.or_else(unparseable_policy)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::compile::Compiler;
    use crate::compile::testing::TestInputs;
    use crate::compile::verdict::{Code, Verdict};
    use crate::plugin_api::PluginRegistry;
    use crate::store::{AnyObject, Batch, UnparseablePolicy, VISITED_DEPENDENTS};

    fn object(kind: Kind, name: &str, spec: &Value) -> AnyObject {
        AnyObject::parse(kind, json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).unwrap()
    }

    /// An invalid BackendTLSPolicy: `hostname` is a number. Only an API server without the schema of the Gateway API
    /// accepts it.
    fn unparseable_policy(namespace: &str, target_refs: &Value) -> AnyObject {
        let object = json!({"spec": {"targetRefs": target_refs, "validation": {"hostname": 5}}});
        AnyObject::UnparseablePolicy(Arc::new(UnparseablePolicy::from_value(
            ObjectKey::new(namespace, "tls"),
            1,
            &object,
        )))
    }

    /// Otherwise, compiling all routes to one Service costs the square of their number.
    #[test]
    fn work_per_route_does_not_grow_with_the_routes_to_its_service() {
        let visited_for = |routes: usize| {
            let inputs = TestInputs::new(PluginRegistry(&[]));
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
        let inputs = TestInputs { controllers: vec!["a.b/c".to_owned()], ..TestInputs::new(PluginRegistry(&[])) };
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
        assert!(is_blocked_after(vec![policy("shop")], vec![]), "a valid policy targets the Service");
        assert!(
            is_blocked_after(vec![unparseable_policy("ns", &Value::Null)], vec![]),
            "its last valid version targets the Service"
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
