//! How annotations and the ConfigMap of ingress-nginx trace requests, while flags trace all of them.

use portico::api::ingress_nginx::PREFIX;

use super::nginx_guards::{CLASS, WITH_CONFIG_MAP, config_map, echo, get, ingress, rule, start};
use crate::harness::eventually;
use crate::harness::site::Site;
use crate::otlp_exports::{Collector, entries};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The fields of the trace that the endpoint gets: `traceparent` and `tracestate`.
fn received(address: &str, host: &str, fields: &str) -> (Option<String>, Option<String>) {
    let response = get(address, &format!("{host}.example"), "/", fields);
    assert_eq!(response.status, 200, "{host}");
    let headers = response.json()["headers"].clone();
    let field = |name: &str| headers[name][0].as_str().map(str::to_owned);
    (field("traceparent"), field("tracestate"))
}

#[test]
fn annotations_switch_traces_and_name_spans() {
    let site = Site::new();
    site.save("headers", "X-Token: secret\n");
    let collector = Collector::start();
    let own = format!(
        "{PREFIX}enable-opentelemetry: \"true\", {PREFIX}opentelemetry-trust-incoming-span: \"false\", \
         {PREFIX}opentelemetry-operation-name: own-span"
    );
    let alone = format!("{PREFIX}opentelemetry-trust-incoming-span: \"false\"");
    let mut objects = CLASS.to_owned() + &echo("default");
    for (name, annotations) in [
        ("plain", ""),
        ("off", &format!("{PREFIX}enable-opentelemetry: \"false\"")),
        ("own", &own),
        ("alone", &alone),
        ("bad", &format!("{PREFIX}enable-opentelemetry: \"no\"")),
    ] {
        objects += &ingress("default", name, "01", annotations, &rule(&format!("{name}.example"), "/"));
    }
    site.save("manifests/all.yaml", &objects);
    site.save("manifests/config.yaml", &config_map(""));
    let flags = [
        ["--trace-otlp-endpoint", &collector.url],
        ["--trace-sampling", "1"],
        ["--otlp-protocol", "http/json"],
        ["--otlp-headers-file", "headers"],
        WITH_CONFIG_MAP,
    ];
    let (_program, address) = start(&site, &flags.concat());
    let sent = format!("00-{TRACE}-00f067aa0ba902b7-00");
    let fields = format!("traceparent: {sent}\r\ntracestate: a=1\r\n");
    let parent = |host: &str, fields: &str| received(&address, host, fields).0;
    assert_eq!(received(&address, "off", &fields), (Some(sent.clone()), Some("a=1".to_owned())));
    assert_eq!(received(&address, "off", ""), (None, None));
    // What is missing, bad or ineffective leaves a location as all others are.
    for host in ["plain", "alone", "bad"] {
        let traced = parent(host, &fields).unwrap();
        assert!(traced.starts_with(&format!("00-{TRACE}-")) && traced != sent, "{host}: {traced}");
    }
    let (begun, state) = received(&address, "own", &fields);
    let begun = begun.unwrap();
    assert!(!begun.contains(TRACE) && begun.ends_with("-01") && state.is_none(), "{begun} {state:?}");
    let span = collector.wait_for("/v1/traces", |message| {
        let spans = entries(message, ["resourceSpans", "scopeSpans", "spans"]);
        spans.into_iter().find(|span| span["kind"] == 2 && span["name"] == "own-span")
    });
    assert_eq!(span["traceId"].as_str(), begun.split('-').nth(1));
    assert!(span["parentSpanId"].as_str().unwrap_or_default().is_empty(), "{span}");
    // An edit of the ConfigMap applies to all, except where an annotation says otherwise.
    site.save("manifests/config.yaml", &config_map(", enable-opentelemetry: \"false\""));
    eventually("the ConfigMap is in effect", || parent("plain", "").is_none().then_some(()));
    assert_eq!(parent("plain", &fields).as_deref(), Some(&*sent));
    assert!(parent("own", "").is_some());
}
