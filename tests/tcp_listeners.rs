//! Runs `portico run` and `portico check` with TCP and TLS listeners: what is served, what edits change, and what is
//! reported.

use crate::harness::client::get;
use crate::harness::eventually;
use crate::harness::objects::GATEWAY;
use crate::harness::program::{output, portico, run};
use crate::harness::site::Site;

fn tcp_gateway() -> String {
    GATEWAY.replace("    - name: http\n      protocol: HTTP\n", "    - name: stream\n      protocol: TCP\n")
}

/// A TCPRoute to port 80 of a Service.
fn tcp_route(name: &str, section: &str, service: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata:
  name: {name}
spec:
  parentRefs:
    - name: good
      sectionName: {section}
  rules:
    - backendRefs:
        - name: {service}
          port: 80
"
    )
}

#[test]
fn connections_are_served_and_follow_edits() {
    let site = Site::new();
    site.save("manifests/gateway.yaml", &tcp_gateway());
    site.save("manifests/route.yaml", &tcp_route("stream", "stream", "echo"));
    let program = run(&site, &["--access-log-fields", "protocol,route,upstream,error,connect_ms"]);
    let started = program.wait_started();
    // The route table has the route with its backend.
    assert!(started.contains("TCPRoute default/stream 0") && started.contains("default/echo:80"), "{started}");
    // The echo server responds to HTTP, which the listener forwards as bytes.
    assert_eq!(get(&site.address_of("port"), "/over/tcp").status, 200);
    let line = program.wait_stdout(|lines| lines.lines().next().map(str::to_owned));
    let expected = "TCP route=TCPRoute/default/stream upstream=default/echo:80 error=- connect=";
    assert!(line.starts_with(expected) && line.ends_with("ms"), "{line}");
    let metrics = get(&site.address_of("status"), "/metrics").body;
    let series = "portico_stream_connections_total{gateway=\"default/good\",listener=\"stream\",\
                  route=\"TCPRoute/default/stream\",rule=\"0\",backend=\"default/echo:80\",outcome=\"completed\"} 1";
    assert!(metrics.contains(series), "{metrics}");

    site.save("manifests/route.yaml", &tcp_route("stream", "stream", "absent"));
    let reported = program.wait_messages(|messages| messages.contains("Service default/absent does not exist"));
    reported.expect("the missing Service is reported");
    let metrics = || get(&site.address_of("status"), "/metrics").body;
    eventually("the connection is reset", || {
        std::net::TcpStream::connect(site.address_of("port")).ok();
        metrics().contains("outcome=\"invalid_backend\"").then_some(())
    });
    program.stop().expect_success();
}

/// A TLSRoute to port 80 of a Service.
fn tls_route(name: &str, hostname: &str) -> String {
    tcp_route(name, "stream", "echo")
        .replace("kind: TCPRoute", "kind: TLSRoute")
        .replace("  rules:\n", &format!("  hostnames: [{hostname}]\n  rules:\n"))
}

/// A Gateway with a TLS listener in this mode for `*.example`.
fn tls_gateway(mode: &str) -> String {
    let tls = format!("      protocol: TLS\n      hostname: \"*.example\"\n      tls: {{ mode: {mode} }}\n");
    tcp_gateway().replace("      protocol: TCP\n", &tls)
}

/// The route `guarded` with a plugin that authenticates requests.
fn with_key_auth(route: &str) -> String {
    let annotations = "  name: guarded\n  annotations: {konghq.com/plugins: keys}\n";
    let plugin = "---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: { name: keys }
plugin: key-auth
";
    route.replacen("  name: guarded\n", annotations, 1) + plugin
}

#[test]
fn mistakes_are_reported_with_their_position() {
    let tcp_cases = [
        (tcp_route("typo", "streams", "echo"), "has no listener streams", "use one of stream (port 18080)"),
        (tcp_route("missing", "stream", "absent"), "Service default/absent does not exist", "create it"),
        (
            tcp_route("wrong", "stream", "echo").replace("kind: TCPRoute", "kind: HTTPRoute"),
            "no listener of Gateway default/good supports routes of kind HTTPRoute",
            "change allowedRoutes.kinds or protocol of the listener",
        ),
        (
            with_key_auth(&tcp_route("guarded", "stream", "echo")),
            "the route has KongPlugin/default/keys, but key-auth does not support the connections of TCPRoutes, so \
             nothing is forwarded",
            "remove it from the annotation",
        ),
    ];
    let tls_cases = [
        (
            "Passthrough",
            tls_route("outside", "a.other"),
            "no hostname intersects a listener hostname of Gateway default/good",
            "use hostnames within *.example",
        ),
        (
            "Passthrough",
            with_key_auth(&tls_route("guarded", "a.example")),
            "key-auth does not support the connections of TLSRoutes, so nothing is forwarded",
            "remove it from the annotation",
        ),
        (
            "Passthrough",
            tcp_route("wrong", "stream", "echo"),
            "no listener of Gateway default/good supports routes of kind TCPRoute",
            "write a TLSRoute, which listeners of protocol TLS serve",
        ),
        (
            "\"Terminate\", certificateRefs: [{ name: cert }]",
            tls_route("terminated", "a.example"),
            "Secret default/cert does not exist",
            "create it or correct the name",
        ),
    ];
    let tcp_cases = tcp_cases.map(|(route, message, remedy)| (tcp_gateway(), route, message, remedy));
    let tls_cases = tls_cases.map(|(mode, route, message, remedy)| (tls_gateway(mode), route, message, remedy));
    for (gateway, route, message, remedy) in tcp_cases.into_iter().chain(tls_cases) {
        let site = Site::new();
        site.save("manifests/gateway.yaml", &gateway);
        site.save("manifests/route.yaml", &route);
        let mut command = portico(&site);
        command.args(["check", "manifests", "--gateway-address-pool", &site.address().to_string()]);
        let checked = output(command);
        let text = site.normalize(&String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()));
        // The report wraps long lines.
        let unwrapped: Vec<_> = text.split_whitespace().collect();
        let unwrapped = unwrapped.join(" ");
        assert!(!checked.status.success(), "{text}");
        assert!(unwrapped.contains(message) && unwrapped.contains(remedy), "{message}\n{remedy}\n{text}");
        assert!(text.contains("manifests/route.yaml:") || text.contains("manifests/gateway.yaml:"), "{text}");
    }
}

#[test]
fn tcp_and_http_on_one_port_conflict() {
    let site = Site::new();
    let both = tcp_gateway().replace(
        "      port: @port@\n",
        "      port: @port@\n    - name: web\n      protocol: HTTP\n      port: @port@\n",
    );
    site.save("manifests/gateway.yaml", &both);
    let mut command = portico(&site);
    command.args(["check", "manifests", "--gateway-address-pool", &site.address().to_string()]);
    let checked = output(command);
    let text = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(!checked.status.success() && text.contains("cannot share it with"), "{text}");
}
