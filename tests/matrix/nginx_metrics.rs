//! The metrics of ingress-nginx, with `--nginx-metrics`: that every expression of its two dashboards has data, and what
//! the labels of requests are.

use std::collections::{BTreeMap, BTreeSet};

use portico::api::ingress_nginx::PREFIX;

use super::nginx_guards::{CLASS, echo, ingress, rule, rule_for, service, start};
use crate::harness::client::{Connection, get, try_get};
use crate::harness::eventually;
use crate::harness::program::{root, run};
use crate::harness::site::Site;

const METRICS: &str = "nginx_ingress_controller_";

/// The value of a series, with its name without the prefix, and its labels.
#[derive(Debug)]
struct MetricSample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl MetricSample {
    fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.name == name && labels.iter().all(|(label, value)| self.labels.get(*label).is_some_and(|it| it == value))
    }
}

fn page(site: &Site) -> String {
    get(&site.address_of("status"), "/metrics").body
}

fn samples(page: &str) -> Vec<MetricSample> {
    let lines = page.lines().filter_map(|line| line.strip_prefix(METRICS));
    lines.map(|line| sample(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

fn sample(line: &str) -> Option<MetricSample> {
    let (name, rest) = line.split_once('{')?;
    let (labels, value) = rest.rsplit_once("} ")?;
    let pairs = labels.strip_suffix('"')?.split("\",");
    let labels = pairs.map(|pair| pair.split_once("=\"").map(|(name, value)| (name.to_owned(), value.to_owned())));
    Some(MetricSample { name: name.to_owned(), labels: labels.collect::<Option<_>>()?, value: value.parse().ok()? })
}

/// The requests with these labels.
fn requests(samples: &[MetricSample], labels: &[(&str, &str)]) -> f64 {
    samples.iter().filter(|sample| sample.has("requests", labels)).map(|sample| sample.value).sum()
}

/// The series that the panels and variables of the two dashboards of ingress-nginx select, and the labels by which they
/// select and group them: requests, then the performance of requests.
const SELECTED: &[(&str, &[&str])] = &[
    ("config_hash", CONTROLLER),
    ("config_last_reload_successful", &["controller_pod", "controller_namespace"]),
    ("config_last_reload_successful_timestamp_seconds", &["controller_class"]),
    ("nginx_process_connections", &["controller_class", "controller_namespace", "controller_pod", "state"]),
    ("nginx_process_cpu_seconds_total", CONTROLLER),
    ("nginx_process_resident_memory_bytes", CONTROLLER),
    ("request_duration_seconds_bucket", OF_INGRESS),
    ("request_size_sum", OF_INGRESS),
    ("requests", OF_INGRESS),
    ("response_size_sum", OF_INGRESS),
    ("ssl_expire_time_seconds", &["host", "namespace"]),
    ("success", CONTROLLER),
    ("request_duration_seconds_count", OF_REQUEST),
    ("response_duration_seconds_bucket", OF_REQUEST),
    ("response_duration_seconds_sum", OF_REQUEST),
    ("response_size_bucket", OF_REQUEST),
    ("response_size_count", OF_REQUEST),
];
const CONTROLLER: &[&str] = &["controller_class", "controller_namespace", "controller_pod"];
const OF_INGRESS: &[&str] =
    &["controller_class", "controller_namespace", "controller_pod", "namespace", "ingress", "status"];
const OF_REQUEST: &[&str] = &["ingress", "method", "host", "path", "status"];

#[test]
fn dashboards_of_ingress_nginx_have_data() {
    let site = Site::new();
    let secret = "apiVersion: v1
kind: Secret
metadata: {namespace: shop, name: tls}
type: kubernetes.io/tls
data: {tls.crt: \"@certificate@\", tls.key: \"@key@\"}
---
";
    let secure = ingress("shop", "secure", "02", "", &rule("tls.example", "/"))
        .replace("spec:\n", "spec:\n  tls: [{hosts: [tls.example], secretName: tls}]\n");
    let objects = [CLASS, secret, &echo("shop"), &secure].concat();
    site.save("manifests/all.yaml", &(objects + &ingress("shop", "web", "01", "", &rule("a.example", "/a"))));
    let (http, https) = (site.address_of("other"), site.address_of("guarded"));
    let class = ["--nginx-controller-class", "k8s.io/ingress-nginx", "--access-log", "off"];
    let listeners = ["--ingress-http-listen", &http, "--ingress-https-listen", &https];
    let program = run(&site, &[&class[..], &listeners, &["--nginx-metrics", "per-host"]].concat());
    program.wait_started();
    for (path, status) in [("/a/b", 200), ("/none", 404)] {
        assert_eq!(try_get(&http, "a.example", path).unwrap().status, status, "{path}");
    }
    let counted = || {
        let samples = samples(&page(&site));
        let of_error = [("ingress", "web"), ("path", "/"), ("status", "404"), ("host", "a.example"), ("method", "GET")];
        (requests(&samples, &of_error) > 0.0).then_some(samples)
    };
    let samples = eventually("both requests are counted", counted);
    for (name, labels) in SELECTED {
        let has_labels = |sample: &&MetricSample| labels.iter().all(|label| sample.labels.contains_key(*label));
        let found = samples.iter().filter(|sample| sample.name == *name).find(has_labels);
        assert!(found.is_some(), "no series {name} has {labels:?}");
    }
    let web = [("namespace", "shop"), ("ingress", "web"), ("service", "echo"), ("path", "/a"), ("canary", "")];
    let controller = [("controller_class", "k8s.io/ingress-nginx"), ("controller_namespace", "default")];
    assert_eq!(requests(&samples, &[&web[..], &controller, &[("status", "200")]].concat()), 1.0);
    let value = |name: &str, labels: &[(&str, &str)]| {
        samples.iter().find(|sample| sample.has(name, labels)).unwrap_or_else(|| panic!("{name} {labels:?}")).value
    };
    assert!(value("request_size_sum", &web) > 30.0 && value("response_size_sum", &web) > 100.0);
    assert_eq!(value("request_duration_seconds_bucket", &[&web[..], &[("le", "+Inf")]].concat()), 1.0);
    assert_eq!(value("connect_duration_seconds_count", &web), 1.0);
    assert!(value("nginx_process_connections_total", &[("state", "accepted")]) >= 2.0);
    assert!(value("config_last_reload_successful_timestamp_seconds", &[]) > 1.7e9);
    assert_eq!((value("config_last_reload_successful", &[]), value("errors", &[])), (1.0, 0.0));
    let of_certificate = [("host", "tls.example"), ("namespace", "shop"), ("secret_name", "tls")];
    assert!(value("ssl_expire_time_seconds", &of_certificate) > 1.7e9);
    assert_eq!(value("ssl_certificate_info", &of_certificate), 1.0);
    for kind in ["no-service", "no-endpoint"] {
        assert_eq!(value("orphan_ingress", &[("ingress", "web"), ("type", kind)]), 0.0, "{kind}");
    }
    let text = page(&site);
    let served = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let served: BTreeSet<&str> = served.filter(|name| name.starts_with(METRICS)).collect();
    let guide = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = guide.lines().filter(|line| line.starts_with(&format!("| `{METRICS}")));
    let documented = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2));
    assert_eq!(served, documented.collect::<BTreeSet<_>>(), "left: exported; right: docs/metrics.md");
}

#[test]
fn requests_have_the_names_of_their_rule_and_of_no_client() {
    let site = Site::new();
    let canary = format!("{PREFIX}canary: \"true\", {PREFIX}canary-by-header: x-canary");
    let denied = format!("{PREFIX}denylist-source-range: 0.0.0.0/0");
    let rejected = format!("{PREFIX}allowlist-source-range: office");
    let mut objects = [CLASS, &echo("default"), &echo("other"), &service("default", "next", "@echo@")].concat();
    objects += &ingress("default", "web", "01", "", &rule("web.example", "/"));
    objects += &ingress("default", "next", "02", &canary, &rule_for("web.example", "/", "next"));
    objects += &ingress("default", "denied", "03", &denied, &rule("denied.example", "/"));
    objects += &ingress("default", "rejected", "04", &rejected, &rule("rejected.example", "/"));
    objects += &ingress("default", "lost", "05", "", &rule_for("lost.example", "/", "missing"));
    objects += &ingress("other", "web", "06", "", &rule("other.example", "/"));
    site.save("manifests/all.yaml", &objects);
    let (_program, address) = start(&site, &["--nginx-metrics", "status-classes"]);
    let send = |request: String| Connection::open(&address).unwrap().send(request).unwrap().status;
    let get = |host: &str, method: &str, fields: &str| {
        send(format!("{method} /p?q=1 HTTP/1.1\r\nhost: {host}.example\r\n{fields}\r\n"))
    };
    for (host, method, fields, status) in [
        ("web", "GET", "", 200),
        ("web", "GET", "x-canary: always\r\n", 200),
        ("web", "BREW", "", 200),
        ("denied", "GET", "", 403),
        ("rejected", "GET", "", 503),
        ("lost", "GET", "", 503),
        ("unknown", "GET", "", 404),
        ("other", "GET", "", 200),
    ] {
        assert_eq!(get(host, method, fields), status, "{host} {method}");
    }
    let expected = |(namespace, ingress, service, canary, method, status): (&str, &str, &str, &str, &str, &str)| {
        let names = [("namespace", namespace), ("ingress", ingress), ("service", service), ("canary", canary)];
        let labels = [("method", method), ("status", status), ("path", "/")];
        names.into_iter().chain(labels).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let expected: BTreeSet<BTreeMap<String, String>> = [
        ("default", "web", "echo", "", "GET", "2xx"),
        ("default", "web", "echo", "default-next-80", "GET", "2xx"),
        ("default", "web", "echo", "", "other", "2xx"),
        ("default", "denied", "echo", "", "GET", "4xx"),
        ("default", "rejected", "echo", "", "GET", "5xx"),
        ("default", "lost", "missing", "", "GET", "5xx"),
        ("other", "web", "echo", "", "GET", "2xx"),
    ]
    .map(expected)
    .into();
    let found = eventually("all requests are counted", || {
        let samples = samples(&page(&site));
        let found: Vec<_> = samples.into_iter().filter(|sample| sample.name == "requests").collect();
        (found.len() >= expected.len()).then_some(found)
    });
    let labels = found.iter().map(|sample| {
        let mut labels = sample.labels.clone();
        labels.retain(|name, _| !name.starts_with("controller_"));
        labels
    });
    assert_eq!(labels.collect::<BTreeSet<_>>(), expected);
    assert!(found.iter().all(|sample| sample.value == 1.0), "{found:?}");
    let text = page(&site);
    let series: Vec<&str> = text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series).collect();
    let once: BTreeSet<_> = series.iter().filter(|series| series.starts_with(METRICS)).collect();
    assert_eq!(series.iter().filter(|series| series.starts_with(METRICS)).count(), once.len(), "no series is repeated");
    let all = samples(&text);
    let orphaned = |name: &str, kind: &str| {
        let labels = [("namespace", "default"), ("ingress", name), ("type", kind)];
        all.iter().find(|sample| sample.has("orphan_ingress", &labels)).map(|sample| sample.value)
    };
    assert_eq!((orphaned("lost", "no-service"), orphaned("web", "no-service")), (Some(1.0), Some(0.0)));
}

#[test]
fn series_are_bounded_and_exist_only_with_the_flag() {
    let site = Site::new();
    let objects = [CLASS, &echo("default"), &ingress("default", "web", "01", "", &rule("web.example", "/"))].concat();
    site.save("manifests/all.yaml", &objects);
    let send_all = |address: &str| {
        for method in ["GET", "PUT", "DELETE", "POST"] {
            let request = format!("{method} / HTTP/1.1\r\nhost: web.example\r\ncontent-length: 0\r\n\r\n");
            assert_eq!(Connection::open(address).unwrap().send(request).unwrap().status, 200, "{method}");
        }
    };
    let (program, address) = start(&site, &["--nginx-metrics", "--metrics-max-series", "2"]);
    send_all(&address);
    let samples = eventually("all are counted", || {
        let samples = samples(&page(&site));
        (requests(&samples, &[]) >= 4.0).then_some(samples)
    });
    assert_eq!(requests(&samples, &[("ingress", "web")]), 2.0);
    assert_eq!(requests(&samples, &[("ingress", "other"), ("method", "other"), ("status", "other")]), 2.0);
    program.stop().expect_success();
    let (_program, address) = start(&site, &[]);
    send_all(&address);
    assert!(!page(&site).contains(METRICS));
}
