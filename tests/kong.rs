//! Kong compatibility of the running program: WebSockets behind plugins, protocols of plugins, rate limits of
//! consumers, rate-limit counters, connections of plugins, streams, vaults, declarative files, Secrets that may not be
//! read, and metrics with Kong's names.

mod checked_files;
mod consumer_plugins;
mod consumer_scope;
mod counting;
mod declarative_files;
mod forbidden_secrets;
mod plugin_connections;
mod plugin_protocols;
mod streams;
mod upstream_policies;
mod vaults;
mod websocket;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::harness::client::get;
use crate::harness::eventually;
use crate::harness::objects::{route, save_good_objects};
use crate::harness::program::run;
use crate::harness::site::Site;
use websocket::{Message, WebSocket};

const CHAT: &str = "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: chat
  annotations:
    konghq.com/plugins: keys, two-a-year
spec:
  ingressClassName: kong
  rules:
    - http:
        paths:
          - path: /chat
            pathType: Prefix
            backend:
              service:
                name: chat
                port:
                  number: 80
---
apiVersion: v1
kind: Service
metadata:
  name: chat
  annotations:
    portico.dev/address: ADDRESS
spec:
  ports:
    - port: 80
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata:
  name: keys
plugin: key-auth
config:
  hide_credentials: true
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata:
  name: two-a-year
plugin: rate-limiting
config:
  year: 2
---
apiVersion: configuration.konghq.com/v1
kind: KongConsumer
metadata:
  name: anna
  annotations:
    kubernetes.io/ingress.class: kong
username: anna
credentials:
  - anna-key
---
apiVersion: v1
kind: Secret
metadata:
  name: anna-key
  labels:
    konghq.com/credential: key-auth
stringData:
  key: only-for-this-test
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: kong
spec:
  controller: ingress-controllers.konghq.com/kong
";

// docs/kong-compatibility.md, 3.8
// docs/kong-compatibility.md, 4.17
// docs/kong-compatibility.md, 4.25
#[test]
fn websockets_need_a_key_and_are_rate_limited() {
    let site = Site::new();
    site.save("manifests/chat.yaml", &CHAT.replace("ADDRESS", &websocket::start_endpoint().to_string()));
    // `other` is a port of the site that no other flag uses.
    let ingress_address = site.address_of("other");
    let flags = ["--ingress-class", "kong", "--ingress-http-listen", &ingress_address, "--ingress-https-listen", "off"];
    let program = run(&site, &[&["--access-log", "off"][..], &flags].concat());
    program.wait_started();
    // The outer error is an I/O error. The inner one is a response that rejects the WebSocket.
    let open = |headers: &str| WebSocket::open(&ingress_address, "/chat/room", headers).unwrap();
    let key = "apikey: only-for-this-test\r\n";

    for (headers, message) in [("", "No API key found in request"), ("apikey: another\r\n", "Unauthorized")] {
        let rejected = open(headers).err().expect("a key is required");
        assert_eq!((rejected.status, rejected.json()["message"].as_str()), (401, Some(message)));
        assert_eq!(rejected.field("www-authenticate"), Some("Key"));
        assert_eq!(rejected.field("ratelimit-limit"), None, "unauthenticated requests are not counted");
    }
    let mut sockets = [0, 1].map(|_| open(key).unwrap_or_else(|response| panic!("{}", response.head)));
    let large = Message::Binary((0..200_000_u32).map(|number| (number % 251) as u8).collect());
    for socket in &mut sockets {
        // The endpoint first sends the head of the request.
        let Message::Text(head) = socket.receive().unwrap() else { panic!("the first message must be text") };
        let head = head.to_ascii_lowercase();
        assert!(
            head.starts_with("get /chat/room http/1.1\r\n") && head.contains("x-consumer-username: anna\r\n"),
            "{head}"
        );
        assert!(head.contains("upgrade: websocket\r\n") && !head.contains("only-for-this-test"), "{head}");
        for message in [Message::Text("hello".into()), large.clone(), Message::Text("x".repeat(300))] {
            socket.send(&message).unwrap();
            assert_eq!(socket.receive().unwrap(), message);
        }
    }
    let rejected = open(key).err().expect("the limit is two requests");
    assert_eq!((rejected.status, rejected.json()["message"].as_str()), (429, Some("API rate limit exceeded")));
    assert_eq!((rejected.field("ratelimit-limit"), rejected.field("ratelimit-remaining")), (Some("2"), Some("0")));
    assert!(rejected.field("retry-after").is_some(), "{}", rejected.head);

    for socket in &mut sockets {
        socket.send(&Message::Text("after the limit".into())).unwrap();
        assert_eq!(
            socket.receive().unwrap(),
            Message::Text("after the limit".into()),
            "open connections are not affected"
        );
        socket.send(&Message::Close(1000)).unwrap();
        assert_eq!(socket.receive().unwrap(), Message::Close(1000));
        assert!(socket.is_closed(), "the endpoint has closed the connection");
    }
    // Otherwise the drain would wait for these connections.
    drop(sockets);
    program.stop().expect_success();
}

const HEALTH: &str = "apiVersion: configuration.konghq.com/v1
kind: KongClusterPlugin
metadata:
  name: health
  labels:
    global: \"true\"
  annotations:
    kubernetes.io/ingress.class: kong
plugin: prometheus
config:
  upstream_health_metrics: true
";

const UNREACHABLE: &str = "apiVersion: v1
kind: Service
metadata:
  name: unreachable
  annotations:
    portico.dev/address: ADDRESS
spec:
  ports:
    - port: 80
---
";

fn metrics_page(site: &Site) -> String {
    get(&site.address_of("status"), "/metrics").body
}

fn has_sample(page: &str, sample: &str) -> bool {
    page.lines().any(|line| line == sample)
}

// docs/kong-compatibility.md, 4.23
// docs/kong-compatibility.md, 6.1
#[test]
fn upstream_health_is_exported_while_a_plugin_requests_it() {
    let site = Site::new();
    save_good_objects(&site);
    // `other` is a port of the site on which nothing listens here.
    let unreachable = site.address_of("other");
    site.save(
        "manifests/unreachable.yaml",
        &(UNREACHABLE.replace("ADDRESS", &unreachable) + &route("good", "unreachable", "unreachable")),
    );
    let program = run(&site, &["--access-log", "off", "--ingress-class", "kong"]);
    program.wait_started();
    let page = || metrics_page(&site);
    assert!(!page().contains("kong_"), "no plugin requests these metrics");
    let health_sample = |upstream: &str, address: &str, state: &str, value: usize| {
        format!(
            "kong_upstream_target_health{{upstream=\"{upstream}.default.80.svc\",target=\"{address}\",\
             address=\"{address}\",state=\"{state}\",subsystem=\"http\"}} {value}"
        )
    };
    let echo = site.address_of("echo");
    let snapshot = || page().lines().find(|line| line.starts_with("portico_snapshot_hash")).map(str::to_owned);
    let without_plugin = snapshot();
    site.save("manifests/health.yaml", HEALTH);
    // The metrics of endpoints appear earlier.
    eventually("the plugin is in effect", || (snapshot() != without_plugin).then_some(()));
    eventually("endpoints are exported", || {
        has_sample(&page(), &health_sample("echo", &echo, "healthchecks_off", 1)).then_some(())
    });
    assert!(
        has_sample(&page(), &health_sample("unreachable", &unreachable, "healthchecks_off", 1)),
        "endpoints are not ejected initially"
    );
    // With a global plugin, the response to a refused connection has Kong's status instead of Portico's own, 503.
    assert_eq!(get(&site.address_of("port"), "/unreachable").status, 502);
    assert_eq!(get(&site.address_of("port"), "/good").status, 200);
    for (upstream, address, state, value) in [
        ("unreachable", &unreachable, "healthchecks_off", 0),
        ("unreachable", &unreachable, "unhealthy", 1),
        ("echo", &echo, "healthchecks_off", 1),
    ] {
        let sample = health_sample(upstream, address, state, value);
        assert!(has_sample(&page(), &sample), "{sample} is not in\n{}", page());
    }
    site.remove("manifests/health.yaml");
    eventually("the metrics are removed", || (!page().contains("kong_")).then_some(()));
    program.stop().expect_success();
}

// docs/kong-compatibility.md, 6.1
#[test]
fn kong_metrics_flag_exports_all_families() {
    let site = Site::new();
    save_good_objects(&site);
    let program = run(&site, &["--access-log", "off", "--kong-metrics"]);
    program.wait_started();
    for _ in 0..3 {
        let response = get(&site.address_of("port"), "/good");
        assert_eq!((response.status, response.field("via")), (200, None), "the route does not get Kong's headers");
    }
    let page = metrics_page(&site);
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let served: BTreeSet<&str> = families.filter(|name| name.starts_with("kong_")).collect();
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap();
    let rows = guide.lines().filter(|line| line.starts_with("| `kong_"));
    let documented = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2));
    assert_eq!(served, documented.collect::<BTreeSet<_>>(), "left: exported; right: docs/metrics.md");
    let counted = page.lines().find(|line| line.starts_with("kong_http_requests_total{")).unwrap();
    assert!(counted.contains("code=\"200\",source=\"service\"") && counted.ends_with(" 3"), "{counted}");
    program.stop().expect_success();
}
