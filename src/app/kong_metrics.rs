//! Appends the metrics of prometheus plugins to Portico's own, while such a plugin or `--kong-metrics` is active.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::metrics::{Exposition, resident_memory};
use crate::plugin_api::PluginState;
use crate::plugin_chain::factory::{BuiltinPlugin, PluginFactory};
use crate::plugins::prometheus::{
    self, ConnectionCounts, HealthTarget, KongExpositionFormat, ProcessFacts, TargetState,
};
use crate::upstream::{UpstreamKey, UpstreamRegistry, UpstreamSource};
use crate::version;

pub(super) struct KongMetrics {
    /// State in which the plugins keep their counters.
    pub(super) state: PluginState,
    /// Name of this process among its replicas.
    pub(super) node: Arc<str>,
    /// Source of endpoint health, if a plugin enables it.
    pub(super) upstreams: Arc<UpstreamRegistry>,
}

impl KongMetrics {
    /// Appends the plugins' metrics to a page, if any plugin has some. `requests` and `connections` are totals of the
    /// process.
    pub(super) fn append_to(
        &self,
        page: String,
        exposition: Exposition,
        requests: u64,
        connections: ConnectionCounts,
    ) -> String {
        let Some(series) = prometheus::series(&self.state) else { return page };
        let targets =
            if prometheus::is_health_requested(&self.state) { health_targets(&self.upstreams) } else { Vec::new() };
        let facts = ProcessFacts {
            node: self.node.to_string(),
            version: version::VERSION.to_owned(),
            requests,
            connections,
            memory: resident_memory(),
            process_id: std::process::id(),
            targets,
        };
        match exposition {
            Exposition::Text => page + &series.render(&facts, KongExpositionFormat::Text),
            // OpenMetrics has an end marker.
            Exposition::OpenMetrics => {
                let page = page.strip_suffix(OPEN_METRICS_END).unwrap_or(&page);
                [page, &series.render(&facts, KongExpositionFormat::OpenMetrics), OPEN_METRICS_END].concat()
            }
        }
    }
}

/// The plugin instance created by `--kong-metrics`.
pub(super) fn builtin_plugin(factory: &PluginFactory) -> BuiltinPlugin {
    let kind = factory.registry.find(prometheus::PLUGIN_NAME).expect("the registry has all plugins");
    let object = "--kong-metrics";
    let built = factory.build(kind, object, &prometheus::all_metrics_config());
    let (plugin, _) = built.expect("the built-in configuration is valid");
    BuiltinPlugin { kind, plugin, enabled_by: object.into() }
}

/// The state of every endpoint of every upstream, in order. Upstreams with the same name in Kong are merged. As in
/// Kong, an endpoint is healthy only if health checks are configured; but without them it may be unhealthy, because
/// failed connections are always noticed.
fn health_targets(upstreams: &UpstreamRegistry) -> Vec<HealthTarget> {
    let mut states = BTreeMap::new();
    for upstream in upstreams.all() {
        let name = kong_upstream_name(&upstream.key);
        let usable = match upstream.endpoints().traffic.health {
            Some(_) => TargetState::Healthy,
            None => TargetState::HealthchecksOff,
        };
        for report in upstream.endpoint_reports() {
            let state = match report.address {
                None => TargetState::DnsError,
                Some(_) if report.is_healthy => usable,
                Some(_) => TargetState::Unhealthy,
            };
            let target = (name.clone(), report.target, report.address);
            // An endpoint is healthy only if it is healthy for every protocol.
            let merged = states.entry(target).or_insert(state);
            if matches!(*merged, TargetState::Healthy | TargetState::HealthchecksOff) {
                *merged = state;
            }
        }
    }
    let target = |((upstream, target, address), state): ((String, _, Option<SocketAddr>), _)| HealthTarget {
        upstream,
        target: ToString::to_string(&target),
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        state,
    };
    states.into_iter().map(target).collect()
}

/// Upstream name as Kong's ingress controller writes it: `SERVICE.NAMESPACE.PORT.svc`, or
/// `NAMESPACE.FACADE.svc.facade` for a KongServiceFacade. Its names end in `.xbackend` for XBackends.
fn kong_upstream_name(key: &UpstreamKey) -> String {
    let UpstreamKey { namespace, service, port, facade, source, .. } = key;
    match (source, facade) {
        (UpstreamSource::XBackend, _) => format!("{service}.{namespace}.{port}.xbackend"),
        (UpstreamSource::Service, Some(facade)) => format!("{namespace}.{facade}.svc.facade"),
        (UpstreamSource::Service, None) => format!("{service}.{namespace}.{port}.svc"),
    }
}

const OPEN_METRICS_END: &str = "# EOF\n";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::upstream::settings::HealthSettings;
    use crate::upstream::{BackendTraffic, EndpointAddress, Endpoints, Outcome, OutcomeClass};

    fn plugin(state: &PluginState, config: &Value) -> Arc<dyn crate::plugin_api::Plugin> {
        let factory = PluginFactory { state: state.clone(), ..PluginFactory::offline(crate::plugins::REGISTRY) };
        let kind = factory.registry.find(prometheus::PLUGIN_NAME).unwrap();
        factory.build(kind, "KongPlugin/default/test", config).unwrap().0
    }

    // Target states as in Kong's documentation of the prometheus plugin.
    #[tokio::test]
    async fn endpoint_health_is_exported_if_enabled() {
        let upstreams = Arc::<UpstreamRegistry>::default();
        let key = |service: &str| UpstreamKey {
            namespace: "shop".into(),
            service: service.into(),
            port: 80,
            ..UpstreamKey::default()
        };
        let (healthy, ejected): (SocketAddr, SocketAddr) =
            ("10.0.0.1:8080".parse().unwrap(), "10.0.0.2:8080".parse().unwrap());
        let cart = upstreams.upstream(&key("cart"));
        let nowhere = EndpointAddress::Name { host: "cart.example".into(), port: 443 };
        let addresses = vec![EndpointAddress::Ip(healthy), EndpointAddress::Ip(ejected), nowhere];
        let health = Some(Arc::new(HealthSettings::default()));
        let checked = BackendTraffic { health, ..BackendTraffic::default() };
        cart.set_endpoints(Endpoints { addresses, traffic: checked.clone(), ..Endpoints::default() });
        cart.report(ejected, &Outcome::of(OutcomeClass::ConnectFailed));
        // The same Service in another protocol, where the failure has not been noticed yet.
        let cart_http2 =
            upstreams.upstream(&UpstreamKey { protocol: crate::endpoint_tls::UpstreamProtocol::Http2, ..key("cart") });
        cart_http2.set_endpoints(Endpoints {
            addresses: vec![EndpointAddress::Ip(healthy), EndpointAddress::Ip(ejected)],
            traffic: checked,
            ..Endpoints::default()
        });
        let facade = upstreams.upstream(&UpstreamKey { facade: Some("front".into()), ..key("cart") });
        facade.set_endpoints(Endpoints { addresses: vec![EndpointAddress::Ip(healthy)], ..Endpoints::default() });

        let state = PluginState::default();
        let metrics = KongMetrics { state: state.clone(), node: "one".into(), upstreams };
        let scrape = || metrics.append_to(String::new(), Exposition::Text, 3, ConnectionCounts::default());
        let without_health = plugin(&state, &json!({"status_code_metrics": true}));
        assert!(!scrape().contains("kong_upstream_target_health"));
        let with_health = plugin(&state, &json!({"upstream_health_metrics": true}));
        let page = scrape();
        let mut ones: Vec<_> = page
            .lines()
            .filter_map(|line| {
                line.strip_prefix("kong_upstream_target_health{")?.strip_suffix(",subsystem=\"http\"} 1")
            })
            .collect();
        ones.sort_unstable();
        assert_eq!(
            ones,
            [
                r#"upstream="cart.shop.80.svc",target="10.0.0.1:8080",address="10.0.0.1:8080",state="healthy""#,
                r#"upstream="cart.shop.80.svc",target="10.0.0.2:8080",address="10.0.0.2:8080",state="unhealthy""#,
                r#"upstream="cart.shop.80.svc",target="cart.example:443",address="",state="dns_error""#,
                r#"upstream="shop.front.svc.facade",target="10.0.0.1:8080",address="10.0.0.1:8080",state="healthchecks_off""#,
            ]
        );
        let zeros =
            page.lines().filter(|line| line.starts_with("kong_upstream_target_health{") && line.ends_with(" 0"));
        assert_eq!(zeros.count(), 3 * ones.len());
        drop(with_health);
        assert!(!scrape().contains("kong_upstream_target_health"), "no plugin enables it any more");
        drop(without_health);
    }

    #[test]
    fn metrics_exist_only_while_a_plugin_does() {
        let state = PluginState::default();
        let metrics = KongMetrics { state: state.clone(), node: "one".into(), upstreams: Arc::default() };
        let append = |page: &str, form| metrics.append_to(page.to_owned(), form, 3, ConnectionCounts::default());
        let page = "a 1\n# EOF\n";
        assert_eq!(append(page, Exposition::OpenMetrics), page);
        let plugin = plugin(&state, &json!({}));
        let open = append(page, Exposition::OpenMetrics);
        let between = open.strip_prefix("a 1\n").and_then(|rest| rest.strip_suffix("\n# EOF\n")).unwrap();
        assert!(between.contains("kong_node_info{node_id=\"one\",version=") && !between.contains("EOF"), "{open}");
        let text = append("a 1\n", Exposition::Text);
        assert!(text.starts_with("a 1\n# HELP kong_") && !text.contains("EOF"), "{text}");
        drop(plugin);
        assert_eq!(append(page, Exposition::Text), page);
    }
}
