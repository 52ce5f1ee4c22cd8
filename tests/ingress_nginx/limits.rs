//! How many requests of a client the rates of an Ingress admit, in comparison with nginx.

use std::net::SocketAddr;

use super::Subject;
use super::client::send_text;
use super::directives::{self, DirectiveCase, annotated, host_of};
use super::nginx_conf::NginxLines;

/// Requests that a client sends at once.
struct Burst {
    case: DirectiveCase,
    /// Of the requests, one after the other.
    targets: &'static [&'static str],
    count: usize,
    /// How many requests the two may admit more or fewer than each other: those that a pause of the machine permits.
    tolerance: usize,
}

/// A burst for `/` with a rate per minute, of which a pause permits at most one request more. `zones` are the keys and
/// the rates of nginx, and `limits` the directives for them.
fn burst(name: &str, annotations: &[(&'static str, &str)], zones: &str, limits: &str) -> Burst {
    let case = annotated(name, annotations, limits, "/");
    let lines = NginxLines { http: zones.to_owned(), ..case.lines };
    Burst { case: DirectiveCase { lines, ..case }, targets: &["/"], count: 25, tolerance: 1 }
}

fn bursts() -> Vec<Burst> {
    let of_two_paths = burst(
        "all paths of an Ingress share a rate",
        &[("limit-rpm", "4"), ("limit-burst-multiplier", "2")],
        "limit_req_zone $binary_remote_addr zone=paths:1m rate=4r/m;",
        "limit_req zone=paths burst=8 nodelay;",
    );
    vec![
        burst(
            "requests per minute",
            &[("limit-rpm", "3")],
            "limit_req_zone $binary_remote_addr zone=minute:1m rate=3r/m;",
            "limit_req zone=minute burst=15 nodelay;",
        ),
        burst(
            "another multiplier",
            &[("limit-rpm", "10"), ("limit-burst-multiplier", "1")],
            "limit_req_zone $binary_remote_addr zone=multiplier:1m rate=10r/m;",
            "limit_req zone=multiplier burst=10 nodelay;",
        ),
        burst(
            "a multiplier of zero",
            &[("limit-rpm", "5"), ("limit-burst-multiplier", "0")],
            "limit_req_zone $binary_remote_addr zone=zero:1m rate=5r/m;",
            "limit_req zone=zero nodelay;",
        ),
        Burst {
            // A pause of some seconds permits as many requests.
            tolerance: 3,
            ..burst(
                "requests per second",
                &[("limit-rps", "1"), ("limit-burst-multiplier", "15")],
                "limit_req_zone $binary_remote_addr zone=second:1m rate=1r/s;",
                "limit_req zone=second burst=15 nodelay;",
            )
        },
        burst(
            "both rates",
            &[("limit-rps", "100"), ("limit-rpm", "4"), ("limit-burst-multiplier", "2")],
            "limit_req_zone $binary_remote_addr zone=both_minute:1m rate=4r/m;
             limit_req_zone $binary_remote_addr zone=both_second:1m rate=100r/s;",
            "limit_req zone=both_minute burst=8 nodelay; limit_req zone=both_second burst=200 nodelay;",
        ),
        burst(
            "addresses without limits",
            &[("limit-rpm", "1"), ("limit-burst-multiplier", "1"), ("limit-allowlist", "127.0.0.0/8")],
            "geo $is_limited { default 1; 127.0.0.0/8 0; }
             map $is_limited $limited_address { 0 \"\"; 1 $binary_remote_addr; }
             limit_req_zone $limited_address zone=exempt:1m rate=1r/m;",
            "limit_req zone=exempt burst=1 nodelay;",
        ),
        burst(
            "rates come before lists of addresses",
            &[("limit-rpm", "4"), ("limit-burst-multiplier", "2"), ("denylist-source-range", "127.0.0.1")],
            "limit_req_zone $binary_remote_addr zone=denied:1m rate=4r/m;",
            "limit_req zone=denied burst=8 nodelay; deny 127.0.0.1;",
        ),
        burst(
            "replies of a snippet do not count",
            &[
                ("limit-rpm", "4"),
                ("limit-burst-multiplier", "2"),
                ("configuration-snippet", "if ($arg_a) { return 200 a; }"),
            ],
            "limit_req_zone $binary_remote_addr zone=replies:1m rate=4r/m;",
            "if ($arg_a) { return 200 a; } limit_req zone=replies burst=8 nodelay;",
        )
        .with_targets(&["/", "/?a=1"]),
        Burst { case: DirectiveCase { rules: &["/a Prefix s0", "/b Exact s1"], ..of_two_paths.case }, ..of_two_paths }
            .with_targets(&["/a/x", "/b", "/c"]),
    ]
}

impl Burst {
    fn with_targets(self, targets: &'static [&'static str]) -> Burst {
        Burst { targets, ..self }
    }

    /// Sends all requests on one connection, without waiting for responses, and counts those that are refused.
    fn refused(&self, address: SocketAddr, host: &str) -> usize {
        let mut text = String::new();
        for (index, target) in self.targets.iter().cycle().take(self.count).enumerate() {
            let last = if index + 1 == self.count { "Connection: close\r\n" } else { "" };
            text += &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{last}\r\n");
        }
        let responses = send_text(address, &text).unwrap();
        let count = responses.matches("HTTP/1.1 ").count();
        assert_eq!(count, self.count, "{}: {responses}", self.case.name);
        responses.matches("HTTP/1.1 503 ").count()
    }
}

#[test]
fn rates_admit_as_many_requests_as_in_nginx() {
    let mut served = directives::start();
    let mut differential = served.differential();
    let bursts = bursts();
    let cases: Vec<DirectiveCase> = bursts.iter().map(|burst| burst.case.clone()).collect();
    directives::load(&mut served, &mut differential, &cases);
    let (nginx, portico) = (differential.nginx_address(), served.address());
    for (index, burst) in bursts.iter().enumerate() {
        let host = host_of(index);
        let (expected, found) = (burst.refused(nginx, &host), burst.refused(portico, &host));
        let message = format!("{}: nginx refused {expected}, and Portico {found}", burst.case.name);
        assert!(expected.abs_diff(found) <= burst.tolerance, "{message}");
        let has_limit = burst.case.name != "addresses without limits";
        assert_eq!(expected > 0, has_limit, "{message}");
    }
}
