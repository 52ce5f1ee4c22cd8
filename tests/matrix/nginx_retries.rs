//! After which outcomes the Ingresses of the dialect nginx send a request to another endpoint.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use portico::api::ingress_nginx::PREFIX;

use super::nginx_guards::{CLASS, WITH_CONFIG_MAP, config_map, ingress, rule, rule_for, start};
use crate::harness::client::{ClientResponse, Connection};
use crate::harness::site::Site;

/// Starts a backend that sends this in response to each request, until the test ends.
pub(super) fn backend(response: &'static str) -> u16 {
    slow_backend(response, Duration::ZERO)
}

fn slow_backend(response: &'static str, delay: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || serve(socket, response, delay));
        }
    });
    port
}

fn serve(mut socket: TcpStream, response: &str, delay: Duration) {
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    loop {
        let mut body_bytes = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or_default() == 0 {
                return;
            }
            if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                body_bytes = length.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; body_bytes];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "a slow endpoint is tested, and this is its own thread")]
        thread::sleep(delay); // A slow endpoint is what is tested.
        if socket.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

/// The Service `echo` with these backends.
pub(super) fn service(ports: &[u16]) -> String {
    service_named("echo", ports)
}

pub(super) fn service_named(name: &str, ports: &[u16]) -> String {
    let slices = ports.iter().map(|port| {
        format!(
            "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{namespace: default, name: {name}-{port}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
---
"
        )
    });
    let metadata = format!("metadata: {{namespace: default, name: {name}}}");
    let service = format!("apiVersion: v1\nkind: Service\n{metadata}\nspec: {{ports: [{{port: 80}}]}}\n---\n");
    slices.fold(service, |objects, slice| objects + &slice)
}

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
pub(super) const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy";
const INVALID: &str = "HTTP/1.1 2 OK\r\n\r\n";

/// One Ingress for each list of annotations, named after it.
fn ingresses(all: &[(&str, &str)]) -> String {
    let objects = all.iter().map(|(name, annotations)| {
        ingress("default", name, "01", &in_turn(annotations), &rule(&format!("{name}.example"), "/"))
    });
    objects.collect()
}

/// These annotations for endpoints in turn: otherwise, one of them could get all requests.
fn in_turn(annotations: &str) -> String {
    let all = ["load-balance: round_robin"].into_iter().chain(annotations.split_terminator(", "));
    all.map(|one| format!("{PREFIX}{one}")).collect::<Vec<_>>().join(", ")
}

/// The statuses of several requests at the same time, which begin at different endpoints. Together, those of a test are
/// so few that the retry budget of the Service allows their retries.
fn statuses(address: &str, host: &str, method: &str, body: &str) -> BTreeSet<u16> {
    let request = || -> ClientResponse {
        let mut connection = Connection::open(address).unwrap();
        let length = body.len();
        connection
            .send(format!("{method} / HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n{body}"))
            .unwrap()
    };
    thread::scope(|scope| {
        let requests: Vec<_> = (0..4).map(|_| scope.spawn(request)).collect();
        requests.into_iter().map(|request| request.join().unwrap().status).collect()
    })
}

#[test]
fn requests_go_to_another_endpoint_after_the_outcomes_of_the_list() {
    for (failing, error, condition) in [(UNAVAILABLE, 503, "http_503"), (INVALID, 502, "invalid_header")] {
        let site = Site::new();
        let list = format!("proxy-next-upstream: \"error {condition}\"");
        let once = format!("{list}, proxy-next-upstream-tries: \"1\"");
        let any_method = format!("proxy-next-upstream: \"{condition} non_idempotent\"");
        let off = "proxy-next-upstream: \"off\"";
        let (all, good) = (BTreeSet::from([200, error]), BTreeSet::from([200]));
        let cases = [
            ("plain", "", "GET", "", &all),
            ("get", &list, "GET", "", &good),
            ("put", &list, "PUT", "body", &good),
            ("post", &list, "POST", "body", &all),
            ("once", &once, "GET", "", &all),
            ("never", off, "GET", "", &all),
            ("any", &any_method, "POST", "body", &good),
        ];
        let ports = [backend(failing), backend(OK)];
        let mut objects = CLASS.to_owned();
        for (name, annotations, ..) in cases {
            // Each has a Service of its own, whose endpoints no other request has taken out of service.
            let rule = rule_for(&format!("{name}.example"), "/", name);
            objects += &service_named(name, &ports);
            objects += &ingress("default", name, "01", &in_turn(annotations), &rule);
        }
        site.save("manifests/all.yaml", &objects);
        let (program, address) = start(&site, &[]);
        for (name, _, method, body, expected) in cases {
            let found = statuses(&address, &format!("{name}.example"), method, body);
            assert_eq!(found, *expected, "{condition}, {name}");
        }
        program.stop().expect_success();
    }
}

#[test]
fn attempts_begin_only_within_their_time() {
    let site = Site::new();
    let list = "proxy-next-upstream: \"http_503\", proxy-next-upstream-timeout";
    let objects = ingresses(&[("short", &format!("{list}: \"1\"")), ("long", &format!("{list}: \"60\""))]);
    let ports = [slow_backend(UNAVAILABLE, Duration::from_millis(1500)), backend(OK)];
    site.save("manifests/all.yaml", &(CLASS.to_owned() + &service(&ports) + &objects));
    let (program, address) = start(&site, &[]);
    assert_eq!(statuses(&address, "short.example", "GET", ""), BTreeSet::from([200, 503]));
    assert_eq!(statuses(&address, "long.example", "GET", ""), BTreeSet::from([200]));
    program.stop().expect_success();
}

#[test]
fn the_config_map_has_defaults() {
    let site = Site::new();
    let keys = ", proxy-next-upstream: \"http_503\", retry-non-idempotent: \"true\"";
    let objects = ingresses(&[("default", ""), ("own", "proxy-next-upstream: \"error\"")]);
    let ports = [backend(UNAVAILABLE), backend(OK)];
    site.save("manifests/all.yaml", &(CLASS.to_owned() + &config_map(keys) + &service(&ports) + &objects));
    let (program, address) = start(&site, &WITH_CONFIG_MAP);
    assert_eq!(statuses(&address, "default.example", "POST", "body"), BTreeSet::from([200]));
    assert_eq!(statuses(&address, "own.example", "POST", "body"), BTreeSet::from([200, 503]));
    program.stop().expect_success();
}
