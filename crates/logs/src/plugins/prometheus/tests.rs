//! Tests of the exposition after some requests.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::services::OfflineServices;
use crate::plugin_api::{AccessOutcome, AnyPluginKind, PluginKind, PluginServices, RegisteredKind, Reply, RequestCx};
use crate::plugin_chain::Chain;
use crate::plugin_chain::testing;
use crate::plugin_chain::testing::{TestRequest, chain_with};

const KIND: RegisteredKind<Prometheus> = RegisteredKind::NEW;

/// Rejects every request, or sets a consumer for every request.
struct TestAuth {
    rejects: bool,
}

/// The kind of the `TestAuth` that rejects requests.
struct RejectingAuth;
/// The kind of the `TestAuth` that sets a consumer.
struct AcceptingAuth;

impl Plugin for TestAuth {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if self.rejects {
            return AccessOutcome::Reply(Reply::plain(StatusCode::FORBIDDEN, "no", "no"));
        }
        let consumer = crate::plugin_api::Consumer::new(
            crate::plugin_api::consumers::EntityId::from_text("1"),
            Some("an\"na\n"),
            None,
            vec![],
            vec![],
        );
        cx.identity.consumer = Some(Arc::new(consumer));
        AccessOutcome::Continue
    }
}

macro_rules! impl_test_auth {
    ($kind:ty, $rejects:expr) => {
        impl PluginKind for $kind {
            const NAME: &'static str = "test-auth";
            const HAS_CREDENTIALS: bool = false;
            const PRIORITY: i32 = 100;
            const PHASES: Phases = Phases::ACCESS;
            const FAIL_CLOSED: bool = false;
            type Config = serde_json::Map<String, Value>;
            type Plugin = TestAuth;

            fn build(_: Self::Config, _: &BuildCx<'_>) -> Result<TestAuth, Vec<Diagnostic>> {
                Ok(TestAuth { rejects: $rejects })
            }
        }
    };
}

impl_test_auth!(RejectingAuth, true);
impl_test_auth!(AcceptingAuth, false);

fn chain(auth: &dyn AnyPluginKind, config: Value, state: &PluginState) -> Arc<Chain> {
    let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
    chain_with(&[(auth, json!({})), (&KIND, config)], state, &services)
}

fn scrape(state: &PluginState, format: KongExpositionFormat) -> String {
    let facts = ProcessFacts { node: "n1".into(), version: "0.1.0".into(), requests: 3, ..ProcessFacts::default() };
    series(state).unwrap().render(&facts, format)
}

/// The lines with one of these prefixes.
fn lines<'t>(text: &'t str, prefixes: &[&str]) -> Vec<&'t str> {
    text.lines().filter(|line| prefixes.iter().any(|prefix| line.starts_with(prefix))).collect()
}

// docs/kong-compatibility.md, 6.1
// docs/kong-compatibility.md, 4.23
#[tokio::test]
async fn metrics_have_kongs_names_and_labels() {
    let state = PluginState::default();
    let all =
        json!({"status_code_metrics": true, "latency_metrics": true, "bandwidth_metrics": true, "per_consumer": true});
    let (rejecting, accepting) = (
        chain(&RegisteredKind::<RejectingAuth>::NEW, all.clone(), &state),
        chain(&RegisteredKind::<AcceptingAuth>::NEW, all, &state),
    );
    TestRequest::get("/").run(&rejecting).await;
    for status in [200, 200, 503] {
        let mut request = TestRequest::get("/");
        *request.request.body_mut() = "12345".into();
        request.upstream_response = Response::builder().status(status).body(()).unwrap();
        request.run(&accepting).await;
    }
    let text = scrape(&state, KongExpositionFormat::Text);
    assert_eq!(
        lines(&text, &["kong_http_requests_total", "# TYPE kong_http_requests_total"]),
        [
            "# TYPE kong_http_requests_total counter",
            r#"kong_http_requests_total{service="default.web.80",route="default.test.web..80",code="403",source="kong",workspace="default",consumer=""} 1"#,
            r#"kong_http_requests_total{service="default.web.80",route="default.test.web..80",code="200",source="service",workspace="default",consumer="an\"na\n"} 2"#,
            r#"kong_http_requests_total{service="default.web.80",route="default.test.web..80",code="503",source="service",workspace="default",consumer="an\"na\n"} 1"#,
        ]
    );
    assert_eq!(
        lines(&text, &["kong_bandwidth_bytes", "# TYPE kong_bandwidth_bytes"]),
        [
            "# TYPE kong_bandwidth_bytes counter",
            r#"kong_bandwidth_bytes{service="default.web.80",route="default.test.web..80",direction="egress",workspace="default",consumer=""} 0"#,
            r#"kong_bandwidth_bytes{service="default.web.80",route="default.test.web..80",direction="ingress",workspace="default",consumer=""} 0"#,
            r#"kong_bandwidth_bytes{service="default.web.80",route="default.test.web..80",direction="egress",workspace="default",consumer="an\"na\n"} 0"#,
            r#"kong_bandwidth_bytes{service="default.web.80",route="default.test.web..80",direction="ingress",workspace="default",consumer="an\"na\n"} 15"#,
        ]
    );
    // A request takes 7 ms, including 5 ms at the endpoint if it is forwarded.
    let labels = r#"{service="default.web.80",route="default.test.web..80",workspace="default""#;
    for (family, bounds, expected) in [
        (
            "kong_kong_latency_ms",
            "1 2 5 7 10 15 20 30 50 75 100 200 500 750 1000 3000 6000",
            "0 3 3 4 4 4 4 4 4 4 4 4 4 4 4 4 4",
        ),
        (
            "kong_upstream_latency_ms",
            "25 50 80 100 250 400 700 1000 2000 5000 10000 30000 60000",
            "3 3 3 3 3 3 3 3 3 3 3 3 3",
        ),
        (
            "kong_request_latency_ms",
            "25 50 80 100 250 400 700 1000 2000 5000 10000 30000 60000",
            "4 4 4 4 4 4 4 4 4 4 4 4 4",
        ),
    ] {
        let buckets = bounds.split(' ').zip(expected.split(' '));
        let mut expected: Vec<String> =
            buckets.map(|(bound, count)| format!("{family}_bucket{labels},le=\"{bound}\"}} {count}")).collect();
        let count = expected.last().and_then(|last| last.rsplit(' ').next()).unwrap().to_owned();
        let sum = match family {
            "kong_kong_latency_ms" => 13,
            "kong_upstream_latency_ms" => 15,
            _ => 28,
        };
        expected.push(format!("{family}_bucket{labels},le=\"+Inf\"}} {count}"));
        expected.push(format!("{family}_count{labels}}} {count}"));
        expected.push(format!("{family}_sum{labels}}} {sum}"));
        assert_eq!(lines(&text, &[family]), expected);
        assert!(text.contains(&format!("# TYPE {family} histogram\n")));
    }
}

// docs/kong-compatibility.md, 4.23
#[tokio::test]
async fn families_are_exported_if_enabled() {
    for (config, expected) in [
        (json!({}), vec![]),
        (json!({"per_consumer": true}), vec![]),
        (json!({"status_code_metrics": true}), vec!["kong_http_requests_total"]),
        (json!({"bandwidth_metrics": true}), vec!["kong_bandwidth_bytes"]),
        (
            json!({"latency_metrics": true}),
            vec!["kong_kong_latency_ms", "kong_request_latency_ms", "kong_upstream_latency_ms"],
        ),
    ] {
        let state = PluginState::default();
        let chain = chain(&RegisteredKind::<AcceptingAuth>::NEW, config.clone(), &state);
        TestRequest::get("/").run(&chain).await;
        let text = scrape(&state, KongExpositionFormat::Text);
        let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let (mut families, process_families): (Vec<_>, Vec<_>) =
            families.partition(|name| !name.contains("nginx") && !name.contains("node") && !name.contains("datastore"));
        families.sort_unstable();
        assert_eq!(families, expected, "{config}");
        assert_eq!(process_families.len(), 5, "{process_families:?}");
        assert!(!text.contains("an\\\"na"), "the label `consumer` is empty by default: {text}");
    }
}

// docs/kong-compatibility.md, 6.1
#[test]
fn process_metrics_are_exported() {
    let state = PluginState::default();
    let plugin = testing::build_with(
        &KIND,
        &json!({"upstream_health_metrics": true}),
        &state,
        &(Arc::new(OfflineServices) as _),
    );
    assert!(plugin.is_ok());
    let series = series(&state).unwrap();
    assert!(is_health_requested(&state));
    let target = HealthTarget {
        upstream: "web.default.80.svc".into(),
        target: "10.0.0.1:80".into(),
        address: "10.0.0.1:80".into(),
        state: TargetState::Healthy,
    };
    let connections = ConnectionCounts { accepted: 5, active: 2 };
    let (memory, process) = (Some(1 << 20), 7);
    let (node, version, targets) = ("n1".into(), "0.1.0".into(), vec![target]);
    let facts = ProcessFacts { node, version, requests: 9, connections, memory, process_id: process, targets };
    let text = series.render(&facts, KongExpositionFormat::Text);
    let health = r#"kong_upstream_target_health{upstream="web.default.80.svc",target="10.0.0.1:80",address="10.0.0.1:80",state="#;
    for line in [
        r#"kong_node_info{node_id="n1",version="0.1.0"} 1"#.to_owned(),
        "kong_datastore_reachable 1".to_owned(),
        "kong_nginx_metric_errors_total 0".to_owned(),
        r#"kong_nginx_requests_total{node_id="n1",subsystem="http"} 9"#.to_owned(),
        r#"kong_nginx_connections_total{node_id="n1",subsystem="http",state="accepted"} 5"#.to_owned(),
        r#"kong_nginx_connections_total{node_id="n1",subsystem="http",state="active"} 2"#.to_owned(),
        r#"kong_memory_workers_lua_vms_bytes{node_id="n1",pid="7",kong_subsystem="http"} 1048576"#.to_owned(),
        format!("{health}\"healthy\",subsystem=\"http\"}} 1"),
        format!("{health}\"unhealthy\",subsystem=\"http\"}} 0"),
        format!("{health}\"healthchecks_off\",subsystem=\"http\"}} 0"),
        format!("{health}\"dns_error\",subsystem=\"http\"}} 0"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    // Another plugin keeps the series, but does not request the health of endpoints.
    let services = Arc::new(OfflineServices) as Arc<dyn PluginServices>;
    let _other = testing::build_with(&KIND, &json!({"status_code_metrics": true}), &state, &services);
    drop(plugin);
    assert!(!is_health_requested(&state) && super::series(&state).is_some());
}

#[test]
fn all_metrics_config_enables_everything_but_consumers() {
    let state = PluginState::default();
    let services = Arc::new(OfflineServices) as Arc<dyn PluginServices>;
    assert!(
        testing::build_with(&KIND, &all_metrics_config(), &state, &services).is_ok_and(|_| is_health_requested(&state))
    );
    let flags = all_metrics_config();
    for (flag, is_set) in [
        ("status_code_metrics", true),
        ("latency_metrics", true),
        ("bandwidth_metrics", true),
        ("upstream_health_metrics", true),
        ("per_consumer", false),
    ] {
        assert_eq!(flags.get(flag).is_some(), is_set, "{flag}");
    }
}

#[test]
fn the_number_of_series_is_limited() {
    let series = KongSeries::with_capacity(10);
    // Two updates of each of 15 series, of which 10 fit.
    for number in 0..30 {
        let route = (number % 15).to_string();
        series.count_request(&SeriesLabelsRef { service: "a", route: &route, consumer: "", code: None });
    }
    let text = series.render(&ProcessFacts::default(), KongExpositionFormat::Text);
    let samples = lines(&text, &["kong_http_requests_total"]);
    assert_eq!(samples.len(), 10);
    assert!(samples.iter().all(|line| line.ends_with(" 2")), "{samples:?}");
    assert!(text.contains("kong_nginx_metric_errors_total 10\n"), "{text}");
}

#[tokio::test]
async fn openmetrics_format_differs_as_required() {
    let state = PluginState::default();
    let all = json!({"status_code_metrics": true, "latency_metrics": true, "bandwidth_metrics": true});
    let chain = chain(&RegisteredKind::<AcceptingAuth>::NEW, all, &state);
    TestRequest::get("/").run(&chain).await;
    let text = scrape(&state, KongExpositionFormat::OpenMetrics);
    for part in
        ["# TYPE kong_http_requests counter\n", "# TYPE kong_bandwidth_bytes unknown\n", "le=\"25.0\"", "le=\"+Inf\""]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn fields_without_effect_get_a_note() {
    let fields = |config: Value| testing::notes(&KIND, &config).into_iter().map(|note| note.field).collect::<Vec<_>>();
    assert_eq!(fields(json!({"ai_metrics": true, "wasm_metrics": true})), ["config.ai_metrics", "config.wasm_metrics"]);
    assert_eq!(fields(json!({"ai_metrics": false})), Vec::<String>::new());
}

#[test]
fn counters_survive_configuration_changes() {
    let (state, services) = (PluginState::default(), Arc::new(OfflineServices) as Arc<dyn PluginServices>);
    let build =
        |config| testing::build_with(&KIND, &config, &state, &services).unwrap_or_else(|errors| panic!("{errors:?}"));
    let first = build(json!({"status_code_metrics": true}));
    series(&state).unwrap().count_request(&SeriesLabelsRef { service: "a", route: "b", consumer: "", code: None });
    let second = build(json!({"latency_metrics": true}));
    drop(first);
    assert_eq!(lines(&scrape(&state, KongExpositionFormat::Text), &["kong_http_requests_total"]).len(), 1);
    drop(second);
    assert!(series(&state).is_none(), "the series are dropped with the last plugin");
}
