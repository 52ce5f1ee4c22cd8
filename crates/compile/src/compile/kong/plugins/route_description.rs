//! The objects `route` and `service` of log plugins: what they write about a rule, in the format of Kong.

use std::sync::Arc;

use serde_json::{Value, json};

use super::stream_plugin_site::StreamPluginSite;
use crate::api::kong::annotations::{TAGS, list};
use crate::api::{Kind, Meta};
use crate::compile::kong::consumers::identity::uuid_from_text;
use crate::endpoint_tls::UpstreamProtocol;
use crate::plugin_api::RouteNames;
use crate::plugin_api::route_description::RouteDescription;
use crate::snapshot::rule::{Action, Backend, BackendTarget, WeightedBackends};
use crate::snapshot::rule_options::{RuleOptions, UpstreamHost};
use crate::upstream::{Upstream, UpstreamSource};

/// What is known about a rule. Collected only if a log plugin may need it.
pub(in crate::compile) struct RouteFacts<'a> {
    pub hosts: Vec<String>,
    /// In the notation of Kong: regular expressions begin with `~`.
    pub paths: Vec<String>,
    pub methods: Vec<String>,
    pub server_names: Vec<String>,
    pub regex_priority: i64,
    /// The name of the rule, if it has one.
    pub rule_name: Option<&'a str>,
    pub options: Option<&'a RuleOptions>,
    pub action: &'a Action,
}

/// `kind` and `meta`: the route. `backends`: its Services by kind and metadata.
pub(super) fn describe(
    kind: Kind,
    meta: &Meta,
    backends: &[(Kind, &Meta)],
    names: &RouteNames,
    facts: &RouteFacts<'_>,
) -> RouteDescription {
    let service_id = uuid_from_text(&format!("service {}", names.service));
    let options = facts.options.unwrap_or(RuleOptions::DEFAULT);
    let upstream_path = options.upstream_path.as_ref();
    let preserves_host = matches!(options.host, UpstreamHost::Preserved);
    let mut route_tags = tags(kind, meta);
    route_tags.extend(facts.rule_name.map(|name| format!("k8s-named-route-rule:{name}")));
    let mut route = json!({
        "id": &*uuid_from_text(&format!("route {}", names.route)),
        "name": &*names.route,
        "protocols": options.protocols.names().collect::<Vec<_>>(),
        "strip_path": upstream_path.is_some_and(|path| path.strip_matched),
        "preserve_host": preserves_host,
        "regex_priority": facts.regex_priority,
        "path_handling": "v0",
        "https_redirect_status_code": options.https_redirect.status.as_u16(),
        "request_buffering": true,
        "response_buffering": true,
        "tags": route_tags,
        "service": {"id": &*service_id},
    });
    let lists =
        [("hosts", &facts.hosts), ("paths", &facts.paths), ("methods", &facts.methods), ("snis", &facts.server_names)];
    for (field, values) in lists {
        if !values.is_empty() {
            route[field] = json!(values);
        }
    }
    set_created(&mut route, meta);
    if names.service.is_empty() {
        route["service"] = Value::Null;
        return RouteDescription::new(&route, &Value::Null);
    }
    let path = upstream_path.map_or("/", |path| &path.prefix);
    let mut service = json!({"id": &*service_id, "name": &*names.service, "path": path, "enabled": true});
    if let Action::Forward(split) = &facts.action {
        describe_upstream(&mut service, split);
    }
    if let [(kind, meta), ..] = backends {
        service["tags"] = json!(tags(*kind, meta));
        set_created(&mut service, meta);
    }
    RouteDescription::new(&route, &service)
}

/// The names and the description of a route of connections or UDP sessions.
pub(super) fn describe_stream(site: &StreamPluginSite<'_>) -> (RouteNames, RouteDescription) {
    let StreamPluginSite { kind, meta, rule, .. } = *site;
    let key = &meta.key;
    let service_of = |backend: &Backend| match &backend.target {
        BackendTarget::Upstream(upstream) => Some(Arc::clone(upstream)),
        BackendTarget::Fail(_) => None,
    };
    let upstream = site.backends.iter().find_map(service_of);
    let lower_kind = kind.name().to_ascii_lowercase();
    let names = match (kind, &upstream) {
        (Kind::TcpIngress | Kind::UdpIngress, Some(upstream)) => RouteNames {
            namespace: Arc::clone(&key.namespace),
            route: format!("{}.{}.{rule}", key.namespace, key.name).into(),
            service: format!("{}.{}.{}", upstream.key.namespace, upstream.key.service, upstream.key.port).into(),
            // Connections and datagrams have no responses that are stored.
            content: 0,
        },
        _ => RouteNames {
            namespace: Arc::clone(&key.namespace),
            route: format!("{lower_kind}.{}.{}.{rule}.0", key.namespace, key.name).into(),
            service: format!("{lower_kind}.{}.{}.{rule}", key.namespace, key.name).into(),
            content: 0,
        },
    };
    let protocol = match kind {
        Kind::UdpRoute | Kind::UdpIngress => "udp",
        Kind::TlsRoute => "tls",
        Kind::TcpIngress if !site.server_names.is_empty() => "tls",
        _ => "tcp",
    };
    let service_id = uuid_from_text(&format!("service {}", names.service));
    let mut route = json!({
        "id": &*uuid_from_text(&format!("route {}", names.route)),
        "name": &*names.route,
        "protocols": [protocol],
        "tags": tags(kind, meta),
        "service": {"id": &*service_id},
    });
    if !site.server_names.is_empty() {
        route["snis"] = json!(site.server_names);
    }
    set_created(&mut route, meta);
    let mut service = json!({"id": &*service_id, "name": &*names.service, "enabled": true});
    if let Some(upstream) = upstream {
        let upstream = &upstream.key;
        service["host"] = json!(format!("{}.{}.{}.svc", upstream.service, upstream.namespace, upstream.port));
        service["port"] = json!(upstream.port);
        service["protocol"] = json!(if protocol == "udp" { "udp" } else { "tcp" });
    }
    if let [(meta, _), ..] = site.services {
        service["tags"] = json!(tags(Kind::Service, meta));
        set_created(&mut service, meta);
    }
    (names, RouteDescription::new(&route, &service))
}

/// Adds the server and the timeouts. Of several backends, the first one is described.
fn describe_upstream(service: &mut Value, split: &WeightedBackends) {
    let upstream: Option<&Arc<Upstream>> = split.backends().iter().find_map(|Backend { target, .. }| match target {
        BackendTarget::Upstream(upstream) => Some(upstream),
        BackendTarget::Fail(_) => None,
    });
    let Value::Object(fields) = service else { return };
    if let Some(upstream) = upstream {
        let key = &upstream.key;
        let protocol = match (key.protocol, key.tls.is_some()) {
            (UpstreamProtocol::Http1 | UpstreamProtocol::FastCgi, false) => "http",
            (UpstreamProtocol::Http1 | UpstreamProtocol::FastCgi, true) => "https",
            (UpstreamProtocol::Http2, false) => "grpc",
            (UpstreamProtocol::Http2, true) => "grpcs",
        };
        let suffix = match key.source {
            UpstreamSource::Service => "svc",
            UpstreamSource::XBackend => "xbackend",
        };
        let host = format!("{}.{}.{}.{suffix}", key.service, key.namespace, key.port);
        fields.insert("host".to_owned(), json!(host));
        fields.insert("port".to_owned(), json!(key.port));
        fields.insert("protocol".to_owned(), json!(protocol));
    }
    let Some(policy) = split.timeouts_and_retries.as_deref() else { return };
    let timeouts =
        [("connect_timeout", policy.connect), ("write_timeout", policy.write), ("read_timeout", policy.read)];
    for (field, timeout) in timeouts {
        if let Some(timeout) = timeout.duration() {
            fields.insert(field.to_owned(), json!(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)));
        }
    }
    if let Some(retry) = &policy.retry {
        fields.insert("retries".to_owned(), json!(retry.max_retries));
    }
}

fn set_created(object: &mut Value, meta: &Meta) {
    if let Some(created) = meta.created {
        object["created_at"] = json!(created);
        object["updated_at"] = json!(created);
    }
}

/// The tags that Kong's ingress controller sets, and those of the annotation.
fn tags(kind: Kind, meta: &Meta) -> Vec<String> {
    let mut tags = vec![
        format!("k8s-name:{}", meta.key.name),
        format!("k8s-namespace:{}", meta.key.namespace),
        format!("k8s-kind:{kind}"),
    ];
    // Known for Services only, because no other code needs the UIDs of routes.
    tags.extend(meta.uid.as_ref().map(|uid| format!("k8s-uid:{uid}")));
    if !kind.group().is_empty() {
        tags.push(format!("k8s-group:{}", kind.group()));
    }
    tags.extend(kind.versions().first().map(|version| format!("k8s-version:{version}")));
    let annotated = meta.annotations.get(TAGS).map(|tags| &**tags).unwrap_or_default();
    tags.extend(list(annotated).map(str::to_owned));
    tags
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ObjectKey;
    use crate::snapshot::rule::Filters;
    use crate::snapshot::timeouts_and_retries::TimeoutsAndRetries;
    use crate::snapshot::upstream_path::UpstreamPath;
    use crate::upstream::UpstreamKey;

    fn meta(name: &str, tags: &str) -> Meta {
        Meta {
            created: Some(1_700_000_000),
            annotations: [(TAGS.into(), tags.into())].into(),
            ..Meta::new(ObjectKey::new("shop", name))
        }
    }

    // docs/kong-compatibility.md, 2.4
    // docs/kong-compatibility.md, 6.3
    #[test]
    fn route_and_service_have_the_fields_of_kong() {
        let key = UpstreamKey { namespace: "shop".into(), service: "cart".into(), port: 80, ..UpstreamKey::default() };
        let target = BackendTarget::Upstream(Arc::new(Upstream::new(key)));
        let mut split =
            WeightedBackends::new(vec![Backend { weight: 1, filters: Filters::default(), target }]).unwrap();
        let minute = std::time::Duration::from_secs(60);
        split.timeouts_and_retries = Some(Box::new(TimeoutsAndRetries::per_attempt(minute, minute, minute, 5)));
        let upstream_path = Some(UpstreamPath { strip_matched: true, ..UpstreamPath::default() });
        let options = RuleOptions { upstream_path, ..RuleOptions::default() };
        let facts = RouteFacts {
            hosts: vec!["a.example".to_owned()],
            paths: vec!["/cart".to_owned(), "~/cart$".to_owned()],
            methods: Vec::new(),
            server_names: Vec::new(),
            regex_priority: 7,
            rule_name: Some("first"),
            options: Some(&options),
            action: &Action::Forward(split),
        };
        let names = RouteNames {
            namespace: "shop".into(),
            route: "shop.web.cart..80".into(),
            service: "shop.cart.80".into(),
            ..RouteNames::default()
        };
        let (route_meta, mut service_meta) = (meta("web", "blue, green"), meta("cart", ""));
        service_meta.uid = Some("5f1c".into());
        let backends = [(Kind::Service, &service_meta)];
        let description = describe(Kind::Ingress, &route_meta, &backends, &names, &facts);
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let (route, service) = (parse(description.route.get()), parse(description.service.get()));
        assert_eq!(route["id"].as_str().unwrap().len(), 36);
        assert_eq!(route["service"]["id"], service["id"]);
        let expected_route = json!({
            "id": route["id"],
            "name": "shop.web.cart..80",
            "protocols": ["grpc", "grpcs", "http", "https"],
            "strip_path": true,
            "preserve_host": true,
            "regex_priority": 7,
            "path_handling": "v0",
            "https_redirect_status_code": 426,
            "request_buffering": true,
            "response_buffering": true,
            "tags": [
                "k8s-name:web", "k8s-namespace:shop", "k8s-kind:Ingress", "k8s-group:networking.k8s.io",
                "k8s-version:v1", "blue", "green", "k8s-named-route-rule:first",
            ],
            "service": {"id": service["id"]},
            "hosts": ["a.example"],
            "paths": ["/cart", "~/cart$"],
            "created_at": 1_700_000_000,
            "updated_at": 1_700_000_000,
        });
        assert_eq!(route, expected_route);
        let expected_service = json!({
            "id": service["id"],
            "name": "shop.cart.80",
            "path": "/",
            "enabled": true,
            "host": "cart.shop.80.svc",
            "port": 80,
            "protocol": "http",
            "connect_timeout": 60_000,
            "write_timeout": 60_000,
            "read_timeout": 60_000,
            "retries": 5,
            "tags": [
                "k8s-name:cart", "k8s-namespace:shop", "k8s-kind:Service", "k8s-uid:5f1c", "k8s-version:v1",
            ],
            "created_at": 1_700_000_000,
            "updated_at": 1_700_000_000,
        });
        assert_eq!(service, expected_service);
    }
}
