//! Tests of what a compilation is given.

use serde_json::json;

use super::*;
use crate::api::ObjectKey;
use crate::api::core::ServiceType;
use crate::api::names::GATEWAY_CONTROLLER;
use crate::args::AddressSource;
use crate::store::{AnyObject, VISITED_DEPENDENTS};
use crate::upstream::UpstreamSource;

fn control(ingresses: IngressConfig) -> Control {
    let gateways = GatewayOptions {
        controller_names: vec![GATEWAY_CONTROLLER.to_owned()],
        addresses: AddressSource::Services(ServiceType::ClusterIp),
    };
    let factory = PluginFactory::offline(crate::plugins::REGISTRY);
    Control::new(gateways, Arc::default(), factory, ingresses, Budgets::default(), Arc::default())
}

#[test]
fn plugins_are_found_by_their_names() {
    for (kind, key) in
        [(Kind::KongPlugin, ObjectKey::new("ns", "limit")), (Kind::KongClusterPlugin, ObjectKey::cluster("limit"))]
    {
        let id = ObjectId::new(kind, key);
        assert_eq!(plugin_id(&object_name(&id)), Some(id));
    }
    assert_eq!(plugin_id("portico"), None);
}

/// Each attempt at a server that fails would write the status of its plugin, and an event.
#[test]
fn causes_that_differ_only_by_the_attempt_change_no_verdict() {
    let mut control = control(IngressConfig::default());
    let config = json!({"http_endpoint": "http://log.example/"});
    let plugin = json!({"metadata": {"namespace": "ns", "name": "log"}, "plugin": "http-log", "config": config});
    let plugin = AnyObject::parse(Kind::KongPlugin, plugin).unwrap();
    let id = plugin.id();
    control.apply(Batch { upserts: vec![plugin], removes: vec![] });
    control.take_verdict_changes();
    let mut is_change = |cause: &str| {
        let problem = Diagnostic::error("config", cause, "see the log of the server");
        control.set_plugin_diagnostics(BTreeMap::from([(object_name(&id), problem)]));
        let changes = control.take_verdict_changes();
        changes.after.iter().any(|(changed, _)| *changed == id)
    };
    assert!(is_change("10.0.0.7:41000 -> 10.0.0.9:80: refused after 1.5ms"));
    assert!(!is_change("10.0.0.7:41001 -> 10.0.0.9:80: refused after 2.5ms"));
    assert!(is_change("10.0.0.7:41001 -> 10.0.0.9:80: closed"));
}

/// Most events of a cluster are about objects that refer to nothing that is fetched.
#[test]
fn needed_references_follow_changes_only() {
    let ingress = |index: usize, secret: &str| {
        let spec = json!({"ingressClassName": "portico", "tls": [{"secretName": secret}]});
        let metadata = json!({"namespace": "ns", "name": format!("i{index}")});
        AnyObject::parse(Kind::Ingress, json!({"metadata": metadata, "spec": spec})).unwrap()
    };
    let mut ingresses = IngressConfig::default();
    ingresses.settings.default_secret = Some(ObjectKey::new("ns", "default"));
    ingresses.settings.nginx_config_map = Some(ObjectKey::new("ns", "controller"));
    ingresses.settings.nginx_tcp_services = Some(ObjectKey::new("ns", "ports"));
    ingresses.settings.nginx_udp_services = Some(ObjectKey::new("ns", "ports"));
    let mut control = control(ingresses);
    let upserts = (0..100).map(|index| ingress(index, &format!("s{index}"))).collect();
    control.stage(Batch { upserts, removes: vec![] });
    assert_eq!(control.take_reference_changes().added.len(), 103, "one for each Ingress, and those of flags");
    let names = |ids: &BTreeSet<ObjectId>| ids.iter().map(|id| id.key.name.to_string()).collect::<Vec<_>>();
    let slice = json!({"metadata": {"namespace": "ns", "name": "x"}, "addressType": "IPv4", "endpoints": []});
    let slice = AnyObject::parse(Kind::EndpointSlice, slice).unwrap();
    for (object, added, removed, visited) in
        [(slice, &[][..], &[][..], 0), (ingress(7, "new"), &["new"][..], &["s7"][..], 1)]
    {
        let before = VISITED_DEPENDENTS.get();
        control.stage(Batch { upserts: vec![object], removes: vec![] });
        let changes = control.take_reference_changes();
        assert_eq!(
            (names(&changes.added), names(&changes.removed)),
            (added.iter().map(ToString::to_string).collect(), removed.iter().map(ToString::to_string).collect())
        );
        assert_eq!(VISITED_DEPENDENTS.get() - before, visited, "{added:?}");
    }
}

#[test]
fn only_routed_services_are_relevant() {
    let mut control = control(IngressConfig::default());
    let object = |kind, name: &str, spec| {
        let metadata = json!({"namespace": "ns", "name": name, "labels": {"kubernetes.io/service-name": name}});
        AnyObject::parse(kind, json!({"metadata": metadata, "spec": spec, "addressType": "IPv4", "endpoints": []}))
            .unwrap()
    };
    let mut upserts =
        vec![object(Kind::HttpRoute, "r", json!({"rules": [{"backendRefs": [{"name": "used", "port": 80}]}]}))];
    for name in ["used", "other"] {
        upserts.push(object(Kind::Service, name, json!({"ports": [{"port": 80}]})));
        upserts.push(object(Kind::EndpointSlice, name, json!(null)));
    }
    control.stage(Batch { upserts, removes: vec![] });
    assert!(control.is_relevant(&ObjectId::new(Kind::Service, ObjectKey::new("ns", "other"))), "without a cluster");
    control.set_installed(Arc::default());
    for (kind, name, expected) in [
        (Kind::Service, "used", true),
        (Kind::EndpointSlice, "used", true),
        (Kind::Service, "other", false),
        (Kind::EndpointSlice, "other", false),
        (Kind::HttpRoute, "r", true),
    ] {
        assert_eq!(control.is_relevant(&ObjectId::new(kind, ObjectKey::new("ns", name))), expected, "{kind} {name}");
    }
}

/// Requests in progress use the endpoints of an upstream that no route refers to any more.
#[test]
fn unused_upstreams_have_endpoints_while_their_object_exists() {
    let mut control = control(IngressConfig::default());
    let object = |kind, name: &str, spec| {
        AnyObject::parse(kind, json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).unwrap()
    };
    let class = json!({"metadata": {"name": "c"}, "spec": {"controllerName": GATEWAY_CONTROLLER}});
    let listeners = json!([{"name": "http", "port": 80, "protocol": "HTTP"}]);
    let host = json!({"type": "ExternalHostname", "externalHostname": {"hostname": "a.example"},
            "port": {"number": 80}, "protocol": "HTTP"});
    let route = |backends| {
        object(Kind::HttpRoute, "r", json!({"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": backends}]}))
    };
    let uses = || route(json!([{"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": "x"}]));
    let mut key = UpstreamKey { namespace: "ns".into(), service: "x".into(), port: 80, ..UpstreamKey::default() };
    key.source = UpstreamSource::XBackend;
    for (removes, kept) in [(vec![], 1), (vec![ObjectId::new(Kind::XBackend, ObjectKey::new("ns", "x"))], 0)] {
        let upserts = vec![
            AnyObject::parse(Kind::GatewayClass, class.clone()).unwrap(),
            object(Kind::Gateway, "g", json!({"gatewayClassName": "c", "listeners": listeners})),
            object(Kind::XBackend, "x", host.clone()),
            uses(),
        ];
        control.apply(Batch { upserts, removes: vec![] });
        let upstream = control.upstreams.upstream(&key);
        assert_eq!(upstream.endpoints().addresses.len(), 1);
        control.apply(Batch { upserts: vec![route(json!([]))], removes });
        assert!(!control.compiler.uses_upstream(&key));
        assert_eq!(upstream.endpoints().addresses.len(), kept);
    }
}

/// Otherwise, their status would still say that the class cannot be read.
#[test]
fn gateways_are_compiled_again_when_classes_become_readable() {
    let mut control = control(IngressConfig::default());
    let metadata = json!({"namespace": "ns", "name": "web"});
    let object = json!({"metadata": metadata, "spec": {"gatewayClassName": "c", "listeners": []}});
    let gateway = AnyObject::parse(Kind::Gateway, object).unwrap();
    let id = gateway.id();
    control.stage(Batch { upserts: vec![gateway], removes: vec![] });
    let unreadable = |kinds: &[Kind]| {
        let unreadable_before_first_list = kinds.iter().copied().collect();
        Arc::new(InstalledApis { unreadable_before_first_list, ..InstalledApis::default() })
    };
    for (kinds, expected) in [
        (&[Kind::GatewayClass][..], true),
        (&[Kind::GatewayClass, Kind::HttpRoute][..], false),
        (&[Kind::HttpRoute][..], true),
        (&[][..], false),
    ] {
        control.uncompiled.clear();
        control.set_installed(unreadable(kinds));
        assert_eq!(control.uncompiled.contains(&id), expected, "{kinds:?}");
    }
}

/// Otherwise, their users would report that the cluster lacks the kind, or that it cannot be read.
#[test]
fn references_are_compiled_again_when_their_kind_appears() {
    let mut control = control(IngressConfig::default());
    let reference = json!({"group": "certificates.k8s.io", "kind": "ClusterTrustBundle", "name": "roots"});
    let spec = json!({"targetRefs": [], "validation": {"hostname": "a", "caCertificateRefs": [reference]}});
    let policy = json!({"metadata": {"namespace": "ns", "name": "p"}, "spec": spec});
    let policy = AnyObject::parse(Kind::BackendTlsPolicy, policy).unwrap();
    control.stage(Batch { upserts: vec![policy], removes: vec![] });
    let id = ObjectId::new(Kind::ClusterTrustBundle, ObjectKey::cluster("roots"));
    let with_version = || BTreeMap::from([(Kind::ClusterTrustBundle, "v1".to_owned())]);
    let unlisted = InstalledApis {
        unreadable: BTreeMap::from([(Kind::ClusterTrustBundle, "403".to_owned())]),
        unreadable_before_first_list: BTreeSet::from([Kind::ClusterTrustBundle]),
        ..InstalledApis::default()
    };
    for (installed, expected) in [
        (InstalledApis::default(), true),
        (InstalledApis::default(), false),
        (unlisted.clone(), true),
        (unlisted, false),
        (InstalledApis { versions: with_version(), ..InstalledApis::default() }, true),
        (InstalledApis { versions: with_version(), release_settled: true, ..InstalledApis::default() }, false),
        (InstalledApis::default(), true),
    ] {
        control.uncompiled.clear();
        control.set_installed(Arc::new(installed.clone()));
        assert_eq!(control.uncompiled.contains(&id), expected, "{installed:?}");
    }
}
