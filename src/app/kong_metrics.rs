//! What prometheus plugins count, behind our own families, while there is such a plugin or `--kong-metrics` stands for one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::metrics::{Exposition, resident_memory};
use crate::plugin::State;
use crate::plugin::workshop::{Builtin, Workshop};
use crate::plugins::prometheus::{self, Connections, Facts, Form, Target, TargetState};
use crate::upstream::{Registry, UpstreamKey};
use crate::version;

pub(super) struct KongMetrics {
    /// Where the plugins keep what they count.
    pub(super) state: State,
    /// The name of this process among its replicas.
    pub(super) node: Arc<str>,
    /// Whose endpoints are shown if a plugin asks for that.
    pub(super) upstreams: Arc<Registry>,
}

impl KongMetrics {
    /// `requests` and `connections` are those of the whole process.
    pub(super) fn append_to(
        &self,
        page: String,
        exposition: Exposition,
        requests: u64,
        connections: Connections,
    ) -> String {
        let Some(series) = prometheus::series(&self.state) else { return page };
        let targets = if prometheus::shows_health(&self.state) { targets(&self.upstreams) } else { Vec::new() };
        let facts = Facts {
            node: self.node.to_string(),
            version: version::VERSION.to_owned(),
            requests,
            connections,
            memory: resident_memory(),
            process: std::process::id(),
            targets,
        };
        match exposition {
            Exposition::Text => page + &series.text(&facts, Form::Text),
            // There the end is marked.
            Exposition::OpenMetrics => {
                let page = page.strip_suffix(END).unwrap_or(&page);
                [page, &series.text(&facts, Form::OpenMetrics), END].concat()
            }
        }
    }
}

/// The plugin that `--kong-metrics` stands for.
pub(super) fn of_everything(workshop: &Workshop) -> Builtin {
    let kind = workshop.registry.find(prometheus::KIND).expect("the registry has all plugins");
    let object = "--kong-metrics";
    let built = workshop.build(kind, object, &prometheus::everything());
    let (plugin, _) = built.expect("its own configuration is one that it takes");
    Builtin { kind, plugin, asked_for_by: object.into() }
}

/// Every endpoint of every upstream, in order. Upstreams that differ in nothing that Kong knows are one.
fn targets(upstreams: &Registry) -> Vec<Target> {
    let mut states = BTreeMap::new();
    for upstream in upstreams.all() {
        let name = name(&upstream.key);
        for standing in upstream.standings() {
            let state = match standing.address {
                None => TargetState::DnsError,
                Some(_) if standing.is_well => TargetState::Healthy,
                Some(_) => TargetState::Unhealthy,
            };
            let target = (name.clone(), standing.target, standing.address);
            // Who cannot be reached in one protocol is not well.
            let known = states.entry(target).or_insert(state);
            if *known == TargetState::Healthy {
                *known = state;
            }
        }
    }
    let target = |((upstream, target, address), state): ((String, _, Option<SocketAddr>), _)| Target {
        upstream,
        target: ToString::to_string(&target),
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        state,
    };
    states.into_iter().map(target).collect()
}

/// As Kong calls it (`kong-compat.md` §3.2).
fn name(key: &UpstreamKey) -> String {
    let UpstreamKey { namespace, service, port, facade, .. } = key;
    match facade {
        Some(facade) => format!("{namespace}.{facade}.svc.facade"),
        None => format!("{service}.{namespace}.{port}.svc"),
    }
}

const END: &str = "# EOF\n";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::upstream::{Address, Endpoints};

    fn plugin(state: &State, config: &Value) -> Arc<dyn crate::plugin::Plugin> {
        let workshop = Workshop { state: state.clone(), ..Workshop::offline(crate::plugins::REGISTRY) };
        let kind = workshop.registry.find(prometheus::KIND).unwrap();
        workshop.build(kind, "KongPlugin/default/test", config).unwrap().0
    }

    // kong-compat §6.1
    #[tokio::test]
    async fn endpoints_are_shown_as_they_fare_if_a_plugin_asks_for_it() {
        let upstreams = Arc::<Registry>::default();
        let key = |service: &str| UpstreamKey {
            namespace: "shop".into(),
            service: service.into(),
            port: 80,
            ..UpstreamKey::default()
        };
        let (well, lost): (SocketAddr, SocketAddr) =
            ("10.0.0.1:8080".parse().unwrap(), "10.0.0.2:8080".parse().unwrap());
        let cart = upstreams.upstream(&key("cart"));
        let nowhere = Address::Name { host: "cart.example".into(), port: 443 };
        let addresses = vec![Address::Ip(well), Address::Ip(lost), nowhere];
        cart.set_endpoints(Endpoints { addresses, ..Endpoints::default() });
        cart.failed(lost);
        // The same in another protocol, where it has not been noticed yet.
        let same = upstreams.upstream(&UpstreamKey { protocol: crate::upstream::Protocol::Http2, ..key("cart") });
        same.set_endpoints(Endpoints { addresses: vec![Address::Ip(well), Address::Ip(lost)], ..Endpoints::default() });
        let stands_in = upstreams.upstream(&UpstreamKey { facade: Some("front".into()), ..key("cart") });
        stands_in.set_endpoints(Endpoints { addresses: vec![Address::Ip(well)], ..Endpoints::default() });

        let state = State::default();
        let metrics = KongMetrics { state: state.clone(), node: "one".into(), upstreams };
        let scrape = || metrics.append_to(String::new(), Exposition::Text, 3, Connections::default());
        let without = plugin(&state, &json!({"status_code_metrics": true}));
        assert!(!scrape().contains("kong_upstream_target_health"));
        let with = plugin(&state, &json!({"upstream_health_metrics": true}));
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
                r#"upstream="shop.front.svc.facade",target="10.0.0.1:8080",address="10.0.0.1:8080",state="healthy""#,
            ]
        );
        let zeros =
            page.lines().filter(|line| line.starts_with("kong_upstream_target_health{") && line.ends_with(" 0"));
        assert_eq!(zeros.count(), 3 * ones.len());
        drop(with);
        assert!(!scrape().contains("kong_upstream_target_health"), "nobody asks for it any more");
        drop(without);
    }

    #[test]
    fn they_are_there_while_there_is_a_plugin() {
        let state = State::default();
        let metrics = KongMetrics { state: state.clone(), node: "one".into(), upstreams: Arc::default() };
        let append = |page: &str, form| metrics.append_to(page.to_owned(), form, 3, Connections::default());
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
