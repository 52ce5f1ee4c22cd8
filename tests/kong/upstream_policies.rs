//! KongUpstreamPolicies of Services: health checks with Kong's counters, and sticky sessions under Kong's cookie.

use serde_json::Value;

use crate::harness::client::{Connection, get};
use crate::harness::eventually;
use crate::harness::objects::{route, save_good_objects};
use crate::harness::program::run;
use crate::harness::site::Site;

const CHECKED: &str = "apiVersion: v1
kind: Service
metadata:
  name: checked
  annotations:
    konghq.com/upstream-policy: checked
    portico.dev/address: ADDRESSES
spec:
  ports:
    - port: 80
---
apiVersion: configuration.konghq.com/v1beta1
kind: KongUpstreamPolicy
metadata:
  name: checked
spec:
  healthchecks:
    threshold: THRESHOLD
    active:
      type: tcp
      healthy: {interval: 1, successes: 1}
      unhealthy: {interval: 1, tcpFailures: 1}
---
";

const STICKY: &str = "apiVersion: v1
kind: Service
metadata:
  name: sticky
  annotations:
    konghq.com/upstream-policy: sticky
    portico.dev/address: ADDRESS
spec:
  ports:
    - port: 80
---
apiVersion: configuration.konghq.com/v1beta1
kind: KongUpstreamPolicy
metadata:
  name: sticky
spec:
  algorithm: sticky-sessions
  hashOn: {input: none}
  stickySessions: {cookie: endpoint, cookiePath: /sticky}
---
";

/// A site with a Service whose endpoints are the echo server and a port on which nothing listens.
fn site_with_threshold(threshold: u8) -> Site {
    let site = Site::new();
    save_good_objects(&site);
    let addresses = format!("\"{},{}\"", site.address_of("echo"), site.address_of("other"));
    let checked = CHECKED.replace("ADDRESSES", &addresses).replace("THRESHOLD", &threshold.to_string());
    site.save("manifests/checked.yaml", &(checked + &route("good", "checked", "checked")));
    site
}

/// The endpoints of the Service as the admin listener shows them.
fn endpoints(site: &Site) -> Vec<Value> {
    let view = get(&site.address_of("admin"), "/debug/upstreams?name=default/checked:80").json();
    view[0]["endpoints"].as_array().cloned().unwrap_or_default()
}

// docs/kong-compatibility.md, 1.7
// docs/kong-compatibility.md, 3.8
#[test]
fn active_check_finds_an_endpoint_that_gets_no_requests() {
    let site = site_with_threshold(0);
    let program = run(&site, &["--access-log", "off", "--ingress-class", "kong", "--kong-metrics"]);
    program.wait_started();
    eventually("the check ejects the endpoint", || {
        let ejected = endpoints(&site).into_iter().find(|endpoint| endpoint["healthy"] == false)?;
        assert_eq!(ejected["address"], site.address_of("other").as_str());
        (ejected["cause"] == "active" && ejected["check"]["passed"] == false).then_some(())
    });
    let page = get(&site.address_of("status"), "/metrics").body;
    for (endpoint, state) in [("echo", "healthy"), ("other", "unhealthy")] {
        let address = site.address_of(endpoint);
        let sample = format!("address=\"{address}\",state=\"{state}\",subsystem=\"http\"}} 1");
        let is_of_service = |line: &&str| line.contains("upstream=\"checked.default.80.svc\"");
        assert!(page.lines().filter(is_of_service).any(|line| line.ends_with(&sample)), "{sample} is not in\n{page}");
    }
    let ejections = "portico_upstream_ejected_endpoints{upstream=\"default/checked:80\",cause=\"active\"} 1";
    assert!(page.lines().any(|line| line == ejections), "{page}");
    for _ in 0..10 {
        assert_eq!(get(&site.address_of("port"), "/checked").status, 200);
    }
    program.stop().expect_success();
}

/// Half of the endpoints is healthy, which is not more than the threshold.
#[test]
fn requests_fail_unless_more_endpoints_than_the_threshold_are_healthy() {
    let site = site_with_threshold(50);
    let program = run(&site, &["--access-log", "off", "--ingress-class", "kong"]);
    program.wait_started();
    eventually("requests are not sent", || (get(&site.address_of("port"), "/checked").status == 503).then_some(()));
    program.stop().expect_success();
}

#[test]
fn sticky_sessions_use_the_cookie_of_the_policy() {
    let site = Site::new();
    save_good_objects(&site);
    let sticky = STICKY.replace("ADDRESS", &site.address_of("echo"));
    site.save("manifests/sticky.yaml", &(sticky + &route("good", "sticky", "sticky")));
    let program = run(&site, &["--access-log", "off", "--ingress-class", "kong"]);
    program.wait_started();
    let first = get(&site.address_of("port"), "/sticky");
    let cookie = first.field("set-cookie").expect("the first request has no session").to_owned();
    assert!(cookie.starts_with("endpoint=") && cookie.contains("Path=/sticky"), "{cookie}");
    let value = cookie.split(';').next().unwrap_or_default();
    let mut connection = Connection::open(&site.address_of("port")).unwrap();
    let second = connection.get_with("good.example", "/sticky", &format!("cookie: {value}\r\n")).unwrap();
    assert_eq!((second.status, second.field("set-cookie")), (200, None));
    program.stop().expect_success();
}
