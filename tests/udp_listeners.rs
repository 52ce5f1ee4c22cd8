//! Runs `portico run` and `portico check` with UDP listeners: what is served, what edits change, and what is reported.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use crate::harness::client::get;
use crate::harness::eventually;
use crate::harness::objects::GATEWAY;
use crate::harness::program::{output, portico, run};
use crate::harness::site::Site;

/// A Gateway with a UDP listener, and a Service with a UDP port and a TCP port of the same number.
fn udp_gateway() -> String {
    let ports = "    - { name: tcp, port: 80, targetPort: @status@ }
    - { name: udp, port: 80, protocol: UDP, targetPort: @echo@ }
    - { name: only-tcp, port: 81, targetPort: @echo@ }
";
    let gateway = GATEWAY.replace("    - name: http\n      protocol: HTTP\n", "    - name: dns\n      protocol: UDP\n");
    gateway.replace("    - port: 80\n      targetPort: @echo@\n", ports)
}

fn udp_route(name: &str, annotations: &str, port: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata:
  name: {name}
  annotations: {{{annotations}}}
spec:
  parentRefs:
    - name: good
      sectionName: dns
  rules:
    - backendRefs:
        - name: echo
          port: {port}
"
    )
}

/// Sends every datagram back, until the test process ends.
fn start_echo(address: &str) {
    let socket = UdpSocket::bind(address).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from).unwrap();
        }
    });
}

#[test]
fn datagrams_are_served_and_follow_edits() {
    let site = Site::new();
    start_echo(&site.address_of("echo"));
    site.save("manifests/gateway.yaml", &udp_gateway());
    site.save("manifests/route.yaml", &udp_route("dns", "", 80));
    let fields = ["--access-log-fields", "protocol,route,upstream,bytes_in,bytes_out,error"];
    // Long enough for the reply, also if the machine pauses.
    let program = run(&site, &[&fields[..], &["--udp-idle-timeout", "3s"]].concat());
    let started = program.wait_started();
    // The route table has the route with its backend.
    assert!(started.contains("UDPRoute default/dns 0") && started.contains("default/echo:80/UDP"), "{started}");
    let client = UdpSocket::bind((site.address(), 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.connect(site.address_of("port")).unwrap();
    client.send(b"over UDP").unwrap();
    let mut buffer = [0; 100];
    let length = client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"over UDP");
    let line = program.wait_stdout(|lines| lines.lines().next().map(str::to_owned));
    assert_eq!(line, "UDP route=UDPRoute/default/dns upstream=default/echo:80/UDP in=8 out=8 error=-");
    let metrics = || get(&site.address_of("status"), "/metrics").body;
    let series = "portico_stream_connections_total{gateway=\"default/good\",listener=\"dns\",\
                  route=\"UDPRoute/default/dns\",rule=\"0\",backend=\"default/echo:80/UDP\",outcome=\"completed\"} 1";
    assert!(metrics().contains(series), "{}", metrics());

    site.save("manifests/route.yaml", &udp_route("dns", "", 81));
    let message = "Service default/echo has no UDP port 81: its port 81 is for TCP";
    let reported = program.wait_messages(|messages| messages.contains(message));
    reported.expect("the wrong protocol is reported");
    eventually("the datagram is dropped", || {
        client.send(b"dropped").unwrap();
        let is_dropped = |line: &str| {
            let count = line.strip_prefix("portico_udp_datagrams_dropped_total{reason=\"invalid_backend\"} ");
            count.is_some_and(|count| count != "0")
        };
        metrics().lines().any(is_dropped).then_some(())
    });
    program.stop().expect_success();
}

#[test]
fn mistakes_are_reported_with_their_position() {
    for (route, message, remedy) in [
        (
            udp_route("wrong-protocol", "", 81),
            "Service default/echo has no UDP port 81: its port 81 is for TCP",
            "use port 80",
        ),
        (
            udp_route("guarded", "konghq.com/plugins: deny", 80),
            "there is neither a KongPlugin default/deny nor a KongClusterPlugin deny, so nothing is forwarded",
            "create one of them or correct the name",
        ),
        (
            udp_route("tcp", "", 80).replace("UDPRoute", "TCPRoute"),
            "no listener of Gateway default/good supports routes of kind TCPRoute",
            "change allowedRoutes.kinds or protocol of the listener",
        ),
    ] {
        let site = Site::new();
        site.save("manifests/gateway.yaml", &udp_gateway());
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
        assert!(text.contains("manifests/route.yaml:"), "{text}");
    }
}
