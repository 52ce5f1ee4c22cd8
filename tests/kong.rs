//! End-to-end tests of Kong compatibility: WebSockets behind plugins, rate-limit counters, and metrics with Kong's
//! names.

mod counting;
mod websocket;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::harness::client::get;
use crate::harness::eventually;
use crate::harness::objects::{place_good, route};
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

// kong-compat §3.8
// kong-compat §4.17
// kong-compat §4.25
#[test]
fn websockets_need_a_key_and_are_rate_limited() {
    let site = Site::new();
    site.save("manifests/chat.yaml", &CHAT.replace("ADDRESS", &websocket::endpoint().to_string()));
    let own = site.at("other");
    let flags = ["--ingress-class", "kong", "--ingress-http-listen", &own, "--ingress-https-listen", "off"];
    let program = run(&site, &[&["--access-log", "off"][..], &flags].concat());
    program.wait_started();
    let open = |headers: &str| WebSocket::open(&own, "/chat/room", headers).unwrap();
    let key = "apikey: only-for-this-test\r\n";

    for (headers, message) in [("", "No API key found in request"), ("apikey: another\r\n", "Unauthorized")] {
        let refused = open(headers).err().expect("a key is required");
        assert_eq!((refused.status, refused.json()["message"].as_str()), (401, Some(message)));
        assert_eq!(refused.field("www-authenticate"), Some("Key"));
        assert_eq!(refused.field("ratelimit-limit"), None, "unauthenticated requests are not counted");
    }
    let mut talks = [0, 1].map(|_| open(key).unwrap_or_else(|response| panic!("{}", response.head)));
    let large = Message::Binary((0..200_000_u32).map(|number| (number % 251) as u8).collect());
    for talk in &mut talks {
        // The endpoint first sends the head of the request.
        let Message::Text(head) = talk.receive().unwrap() else { panic!("the first message must be text") };
        let head = head.to_ascii_lowercase();
        assert!(
            head.starts_with("get /chat/room http/1.1\r\n") && head.contains("x-consumer-username: anna\r\n"),
            "{head}"
        );
        assert!(head.contains("upgrade: websocket\r\n") && !head.contains("only-for-this-test"), "{head}");
        for message in [Message::Text("hello".into()), large.clone(), Message::Text("x".repeat(300))] {
            talk.send(&message).unwrap();
            assert_eq!(talk.receive().unwrap(), message);
        }
    }
    let refused = open(key).err().expect("the limit is two requests");
    assert_eq!((refused.status, refused.json()["message"].as_str()), (429, Some("API rate limit exceeded")));
    assert_eq!((refused.field("ratelimit-limit"), refused.field("ratelimit-remaining")), (Some("2"), Some("0")));
    assert!(refused.field("retry-after").is_some(), "{}", refused.head);

    for talk in &mut talks {
        talk.send(&Message::Text("still there".into())).unwrap();
        assert_eq!(talk.receive().unwrap(), Message::Text("still there".into()), "open connections are not affected");
        talk.send(&Message::Close(1000)).unwrap();
        assert_eq!(talk.receive().unwrap(), Message::Close(1000));
        assert!(talk.is_closed(), "the endpoint has closed the connection");
    }
    // Otherwise the drain would wait for these connections.
    drop(talks);
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

const LOST: &str = "apiVersion: v1
kind: Service
metadata:
  name: lost
  annotations:
    portico.dev/address: ADDRESS
spec:
  ports:
    - port: 80
---
";

fn page(site: &Site) -> String {
    get(&site.at("status"), "/metrics").body
}

fn has_sample(page: &str, sample: &str) -> bool {
    page.lines().any(|line| line == sample)
}

// kong-compat §4.23
// kong-compat §6.1
#[test]
fn upstream_health_is_exported_while_a_plugin_requests_it() {
    let site = Site::new();
    place_good(&site);
    // An address without a listener.
    let lost = site.at("other");
    site.save("manifests/lost.yaml", &(LOST.replace("ADDRESS", &lost) + &route("good", "lost", "lost")));
    let program = run(&site, &["--access-log", "off", "--ingress-class", "kong"]);
    program.wait_started();
    let page = || page(&site);
    assert!(!page().contains("kong_"), "no plugin requests these metrics");
    let of = |upstream: &str, address: &str, state: &str, number: usize| {
        format!(
            "kong_upstream_target_health{{upstream=\"{upstream}.default.80.svc\",target=\"{address}\",\
             address=\"{address}\",state=\"{state}\",subsystem=\"http\"}} {number}"
        )
    };
    let echo = site.at("echo");
    site.save("manifests/health.yaml", HEALTH);
    eventually("endpoints are exported", || has_sample(&page(), &of("echo", &echo, "healthy", 1)).then_some(()));
    assert!(has_sample(&page(), &of("lost", &lost, "healthy", 1)), "endpoints are healthy initially");
    // The status is Kong's, because a global plugin is attached.
    assert_eq!(get(&site.at("port"), "/lost").status, 502);
    assert_eq!(get(&site.at("port"), "/good").status, 200);
    for (upstream, address, state, number) in
        [("lost", &lost, "healthy", 0), ("lost", &lost, "unhealthy", 1), ("echo", &echo, "healthy", 1)]
    {
        let sample = of(upstream, address, state, number);
        assert!(has_sample(&page(), &sample), "{sample} is not in\n{}", page());
    }
    site.remove("manifests/health.yaml");
    eventually("the metrics are removed", || (!page().contains("kong_")).then_some(()));
    program.stop().expect_success();
}

// kong-compat §6.1
#[test]
fn kong_metrics_flag_exports_all_families() {
    let site = Site::new();
    place_good(&site);
    let program = run(&site, &["--access-log", "off", "--kong-metrics"]);
    program.wait_started();
    for _ in 0..3 {
        let response = get(&site.at("port"), "/good");
        assert_eq!((response.status, response.field("via")), (200, None), "the route does not get Kong's headers");
    }
    let page = page(&site);
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
