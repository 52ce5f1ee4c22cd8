//! The `protocols` of a plugin: they do not depend on the protocol of a request.

use crate::harness::client::try_get;
use crate::harness::program::run;
use crate::harness::site::Site;

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: web, annotations: {portico.dev/address: \"@address@\"}}
spec: {ports: [{name: http, port: 80, targetPort: @echo@}]}
";

const ROUTE_AND_PLUGIN: &str = "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: PROTOCOL, annotations: {konghq.com/plugins: key-PROTOCOL}}
spec:
  ingressClassName: kong
  rules:
  - host: PROTOCOL.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: key-PROTOCOL}
plugin: key-auth
protocols: [PROTOCOL]
";

// docs/kong-compatibility.md, 1.3
#[test]
fn guard_for_one_http_protocol_rejects_plain_http() {
    const PROTOCOLS: [&str; 4] = ["http", "https", "grpc", "grpcs"];
    let site = Site::new();
    let routes = PROTOCOLS.map(|protocol| ROUTE_AND_PLUGIN.replace("PROTOCOL", protocol));
    site.save("manifests/guarded.yaml", &[SERVICE, &routes.concat()].concat());
    let address = site.address_of("other");
    let flags = ["--ingress-class", "kong", "--ingress-http-listen", &address, "--ingress-https-listen", "off"];
    let program = run(&site, &[&["--access-log", "off"][..], &flags].concat());
    program.wait_started();
    for protocol in PROTOCOLS {
        let response = try_get(&address, &format!("{protocol}.example"), "/").unwrap();
        assert_eq!(response.status, 401, "{protocol}: {}", response.head);
    }
    program.stop().expect_success();
}
