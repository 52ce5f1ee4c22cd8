//! Real servers behind TCP, TLS and UDP listeners of `portico run`, with their own clients: PostgreSQL, Redis and
//! dnsmasq, also while the configuration changes.

mod dnsmasq;
mod postgres;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{ChildStdin, Command, Stdio};

use crate::harness::eventually;
use crate::harness::program::{Program, run};
use crate::harness::site::Site;
use crate::redis::server::{Authority, RedisProcess};
use dnsmasq::Dnsmasq;
use postgres::Postgres;

/// A GatewayClass, and a Gateway with these listeners.
pub(crate) fn gateway(listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{ name: portico }}
spec: {{ controllerName: portico.dev/gateway-controller }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{ name: servers }}
spec:
  gatewayClassName: portico
  listeners:
{listeners}"
    )
}

/// A Service with this endpoint.
pub(crate) fn service(name: &str, protocol: &str, endpoint: impl Into<SocketAddr>) -> String {
    let endpoint = endpoint.into();
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, annotations: {{ portico.dev/address: {} }} }}
spec: {{ ports: [{{ port: 1, protocol: {protocol}, targetPort: {} }}] }}
",
        endpoint.ip(),
        endpoint.port()
    )
}

/// A route of this kind with weighted backends.
fn route(kind: &str, listener: &str, more: &str, backends: &[(&str, u32)]) -> String {
    let backends: Vec<_> =
        backends.iter().map(|(name, weight)| format!("{{ name: {name}, port: 1, weight: {weight} }}")).collect();
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{ name: {listener} }}
spec:
  parentRefs: [{{ name: servers, sectionName: {listener} }}]
{more}  rules: [{{ backendRefs: [{}] }}]
",
        backends.join(", ")
    )
}

/// An interactive client, which sends a line and prints lines in response.
struct ClientSession {
    program: Program,
    input: ChildStdin,
    lines: usize,
}

impl ClientSession {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped());
        let mut program = Program::start(command);
        let input = program.stdin();
        ClientSession { program, input, lines: 0 }
    }

    /// The next line in response to a line.
    fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        self.lines += 1;
        let lines = self.program.wait_lines(self.lines);
        lines[self.lines - 1].trim_end().to_owned()
    }
}

fn text_of(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)).trim().to_owned()
}

/// Waits until the program has applied a change that the route table shows.
pub(crate) fn apply(site: &Site, program: &Program, manifests: &str) {
    let changes = program.messages().matches("live after").count();
    site.save("manifests/servers.yaml", manifests);
    let applied = program.wait_messages(|messages| messages.matches("live after").count() > changes);
    applied.expect("the change is applied");
}

#[test]
fn postgres_sessions_keep_their_server_while_routes_change() {
    let (first, second) = (Postgres::start("first"), Postgres::start("second"));
    let site = Site::new();
    let manifests = |backends: &[(&str, u32)]| {
        gateway("  - { name: db, protocol: TCP, port: @port@ }\n")
            + &service("first", "TCP", first.address)
            + &service("second", "TCP", second.address)
            + &route("TCPRoute", "db", "", backends)
    };
    site.save("manifests/servers.yaml", &manifests(&[("first", 1)]));
    let program = run(&site, &[]);
    program.wait_started();
    let psql = || postgres::psql(&site.address().to_string(), site.port("port"));
    let name_of_server = || {
        let mut command = psql();
        command.args(["--command", "SHOW cluster_name"]);
        text_of(command)
    };

    let mut session = ClientSession::start(psql());
    assert_eq!(session.ask("SHOW cluster_name;"), "first");
    assert_eq!(session.ask("CREATE TEMPORARY TABLE kept AS SELECT 42 AS answer; SELECT 'made';"), "made");
    for backends in [&[("first", 1), ("second", 9)][..], &[("first", 0), ("second", 1)], &[("second", 1)]] {
        apply(&site, &program, &manifests(backends));
        // The table exists in this session only.
        assert_eq!(session.ask("SELECT answer FROM kept;"), "42", "{backends:?}");
    }
    assert_eq!(name_of_server(), "second");
    // Bulk data in both directions.
    let mut bulk = ClientSession::start(psql());
    assert_eq!(bulk.ask("SELECT length(repeat('x', 50000000));"), "50000000");
    assert_eq!(bulk.ask("SELECT count(*) FROM generate_series(1, 300000);"), "300000");
    // The client cancels a query over another connection.
    let mut query = ClientSession::start(psql());
    let process = query.ask("SELECT pg_backend_pid();");
    writeln!(query.input, "SELECT pg_sleep(600);").unwrap();
    let state = format!("SELECT state FROM pg_stat_activity WHERE pid = {process} AND query LIKE '%sleep%'");
    eventually("the query runs", || {
        let mut command = psql();
        command.args(["--command", &state]);
        (text_of(command) == "active").then_some(())
    });
    let interrupted = Command::new("kill").args(["-INT", &query.program.id().to_string()]).status();
    assert!(interrupted.unwrap().success());
    let canceled = query.program.wait_messages(|messages| messages.contains("canceling statement due to user request"));
    canceled.expect("the query is canceled");
    drop((session, bulk, query));
    program.stop().expect_success();
}

#[tokio::test]
async fn redis_is_served_over_tcp_and_passed_through_tls() {
    let authority = Authority::new();
    let plain = RedisProcess::start(&[]).await;
    let (encrypted, other) = (
        RedisProcess::start_with_tls(&authority, "redis.example").await,
        RedisProcess::start_with_tls(&authority, "redis.example").await,
    );
    let site = Site::new();
    let listeners = "  - { name: plain, protocol: TCP, port: @port@ }
  - { name: encrypted, protocol: TLS, port: @other@, tls: { mode: Passthrough } }
";
    let manifests = |backend| {
        gateway(listeners)
            + &service("plain", "TCP", (Ipv4Addr::LOCALHOST, plain.port))
            + &service("encrypted", "TCP", (Ipv4Addr::LOCALHOST, encrypted.port))
            + &service("other", "TCP", (Ipv4Addr::LOCALHOST, other.port))
            + &route("TCPRoute", "plain", "", &[("plain", 1)])
            + &route("TLSRoute", "encrypted", "  hostnames: [redis.example]\n", &[(backend, 1)])
    };
    site.save("manifests/servers.yaml", &manifests("encrypted"));
    site.save_bytes("ca.pem", authority.pem().as_bytes());
    let program = run(&site, &[]);
    program.wait_started();
    let redis_cli = |port: &str, more: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-h", &site.address().to_string(), "-p", &site.port(port).to_string()]).args(more);
        command.current_dir(site.path("."));
        command
    };
    let tls = ["--tls", "--cacert", "ca.pem", "--sni", "redis.example"];
    let set = |port, more: &[&str], value: &str| {
        let mut command = redis_cli(port, more);
        command.args(["SET", "key", value]);
        text_of(command)
    };
    assert_eq!(set("port", &[], "plain"), "OK");
    assert_eq!(plain.redis_cli(&["GET", "key"]).trim(), "plain");

    let mut session = ClientSession::start(redis_cli("other", &tls));
    assert_eq!(session.ask("CLIENT SETNAME kept"), "OK");
    assert_eq!(session.ask("SET key before"), "OK");
    apply(&site, &program, &manifests("other"));
    assert_eq!(session.ask("CLIENT GETNAME"), "kept");
    assert_eq!(session.ask("GET key"), "before");
    let mut new = ClientSession::start(redis_cli("other", &tls));
    assert_eq!(new.ask("EXISTS key"), "0", "the other server has no keys");
    // Pipelined requests and large values.
    let large = "x".repeat(1 << 20);
    assert_eq!(new.ask(&format!("SET large {large}")), "OK");
    assert_eq!(new.ask("STRLEN large"), (1 << 20).to_string());
    // A name without a route gets no connection.
    let unknown = set("other", &["--tls", "--cacert", "ca.pem", "--sni", "other.example"], "x");
    assert!(unknown.contains("Could not connect"), "{unknown}");
    drop((session, new));
    program.stop().expect_success();
}

#[test]
fn dns_is_served_over_udp_and_tcp_while_routes_change() {
    let (first, second) = (Dnsmasq::start("192.0.2.1"), Dnsmasq::start("192.0.2.2"));
    let site = Site::new();
    let listeners = "  - { name: udp, protocol: UDP, port: @port@ }
  - { name: tcp, protocol: TCP, port: @port@ }
";
    let manifests = |backend: &str| {
        let of = |transport: &str| format!("{backend}-{transport}");
        gateway(listeners)
            + &service("first-udp", "UDP", first.address)
            + &service("first-tcp", "TCP", first.address)
            + &service("second-udp", "UDP", second.address)
            + &service("second-tcp", "TCP", second.address)
            + &route("UDPRoute", "udp", "", &[(&of("udp"), 1)])
            + &route("TCPRoute", "tcp", "", &[(&of("tcp"), 1)])
    };
    site.save("manifests/servers.yaml", &manifests("first"));
    let program = run(&site, &[]);
    program.wait_started();
    let dig = |arguments: &[&str]| {
        let mut command = Command::new("dig");
        command.args([&format!("@{}", site.address()), "-p", &site.port("port").to_string(), "+short", "+timeout=10"]);
        command.args(arguments);
        text_of(command)
    };
    let mut expected = "192.0.2.1";
    for backend in ["second", "first", "second"] {
        assert_eq!(dig(&["+tries=1", "host.test", "A"]), expected);
        assert_eq!(dig(&["+tcp", "host.test", "A"]), expected);
        apply(&site, &program, &manifests(backend));
        expected = if backend == "second" { "192.0.2.2" } else { "192.0.2.1" };
    }
    // A response that is too large for a datagram is truncated, and the client asks again over TCP.
    let large = dig(&["+bufsize=512", "large.test", "TXT"]);
    assert_eq!(large.matches(&"x".repeat(200)).count(), dnsmasq::LARGE_TEXTS, "{large}");
    // Many questions, each from its own port.
    let batch = site.path("questions");
    std::fs::write(&batch, "host.test A +tries=1\n".repeat(50)).unwrap();
    let answers = dig(&["-f", batch.to_str().unwrap()]);
    assert_eq!(answers.lines().filter(|line| *line == expected).count(), 50, "{answers}");
    program.stop().expect_success();
}
