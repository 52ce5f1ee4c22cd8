//! TCPIngresses and UDPIngresses of the running program.

use std::net::UdpSocket;
use std::time::Duration;

use crate::harness::client::try_get;
use crate::harness::program::run;
use crate::harness::site::Site;

const OBJECTS: &str = "apiVersion: v1
kind: Service
metadata: {name: web, annotations: {portico.dev/address: \"@address@\"}}
spec: {ports: [{name: http, port: 80, targetPort: @echo@}]}
---
apiVersion: v1
kind: Service
metadata: {name: dns, annotations: {portico.dev/address: \"@address@\"}}
spec: {ports: [{port: 53, protocol: UDP, targetPort: @dns@}]}
---
apiVersion: configuration.konghq.com/v1beta1
kind: TCPIngress
metadata: {name: open, annotations: {kubernetes.io/ingress.class: kong}}
spec: {rules: [{port: @open@, backend: {serviceName: web, servicePort: 80}}]}
---
apiVersion: configuration.konghq.com/v1beta1
kind: TCPIngress
metadata: {name: guarded, annotations: {kubernetes.io/ingress.class: kong, konghq.com/plugins: one-address}}
spec: {rules: [{port: @guarded@, backend: {serviceName: web, servicePort: 80}}]}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: one-address}
plugin: ip-restriction
config: {allow: [192.0.2.1]}
---
apiVersion: configuration.konghq.com/v1beta1
kind: UDPIngress
metadata: {name: dns, annotations: {kubernetes.io/ingress.class: kong}}
spec: {rules: [{port: @datagrams@, backend: {serviceName: dns, servicePort: 53}}]}
";

// docs/kong-compatibility.md, 1.13
// docs/kong-compatibility.md, 7.26
#[test]
fn listed_ports_serve_tcp_ingresses_and_udp_ingresses() {
    let site = Site::new();
    site.save("manifests/streams.yaml", OBJECTS);
    let server = UdpSocket::bind(site.address_of("dns")).unwrap();
    let address = site.address_of("http");
    let ports = format!("{},{},{}/udp", site.port("open"), site.port("guarded"), site.port("datagrams"));
    let flags = ["--ingress-class", "kong", "--ingress-http-listen", &address, "--ingress-https-listen", "off"];
    let program = run(&site, &[&["--access-log", "off", "--ingress-stream-ports", &ports][..], &flags].concat());
    program.wait_started();
    let response = try_get(&site.address_of("open"), "any.example", "/").unwrap();
    assert_eq!(response.status, 200, "{}", response.head);
    assert_eq!(response.field("via"), None, "the bytes are forwarded as they are");
    try_get(&site.address_of("guarded"), "any.example", "/").expect_err("the plugin admits another address only");

    let client = UdpSocket::bind((site.address(), 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.send_to(b"question", site.address_of("datagrams")).unwrap();
    let mut buffer = [0; 100];
    let (length, peer) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"question");
    server.send_to(b"answer", peer).unwrap();
    let (length, _) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"answer");
    program.stop().expect_success();
}
