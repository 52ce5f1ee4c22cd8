//! Whether connections to a Service must use TLS although its own settings do not: a BackendTLSPolicy, readable or not,
//! may require it.

use super::super::CompileContext;
use crate::api::core::ServicePort;
use crate::api::gateway::PolicyTargetReference;
use crate::api::kind::CORE_GROUP;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::store::Store;

/// Why connections to this port must not use plain text, and the remedy; `None` if they may.
pub(super) fn requires_tls(
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::compile::Compiler;
    use crate::compile::testing::TestInputs;
    use crate::compile::verdict::{Code, Verdict};
    use crate::plugin_api::PluginRegistry;
    use crate::store::{AnyObject, Batch, UnparseablePolicy};

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
        let inputs = TestInputs { controllers: vec!["a.b/c".to_owned()], ..TestInputs::new(PluginRegistry(&[])) };
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
            inputs.compile(&mut compiler, &store, &changes);
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
