//! Values of vaults in the configurations of plugins of the running program, and the order of plugins.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::harness::client::try_get;
use crate::harness::eventually;
use crate::harness::program::{Program, portico, run_arguments};
use crate::harness::site::Site;

const OBJECTS: &str = "apiVersion: v1
kind: Service
metadata: {name: web, annotations: {portico.dev/address: \"@address@\"}}
spec: {ports: [{name: http, port: 80, targetPort: @echo@}]}
---
apiVersion: configuration.konghq.com/v1alpha1
kind: KongVault
metadata: {name: server, annotations: {kubernetes.io/ingress.class: kong}}
spec:
  backend: hcv
  prefix: server
  config:
    host: \"@address@\"
    port: @vault@
    kv: v2
    token: \"{vault://env/vault-token}\"
    ttl: 1
    neg_ttl: 1
---
apiVersion: v1
kind: Secret
metadata: {name: listed, namespace: secrets}
stringData: {text: of the listed Secret}
---
apiVersion: configuration.konghq.com/v1alpha1
kind: KongVault
metadata: {name: cluster, annotations: {kubernetes.io/ingress.class: kong}}
spec: {backend: kubernetes, prefix: cluster, config: {namespace: secrets, secrets: [listed]}}
";

/// A route that replies with a message, or that a guard without its value protects.
const ROUTE: &str = "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: NAME, annotations: {konghq.com/plugins: NAME}}
spec:
  ingressClassName: kong
  rules:
  - host: NAME.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: NAME}
";

/// Responds to reads of one secret with this token as a vault does. The value contains the number of the read, and
/// reads are refused from the third one on.
fn start_vault(site: &Site) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind(site.address_of("vault")).unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reads);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            assert_eq!(head[0], "GET /v1/secret/data/shop/texts HTTP/1.1");
            let has = |expected: &str| head.iter().any(|line| line.eq_ignore_ascii_case(expected));
            assert!(has("x-vault-token: root-token") && has("x-vault-request: true"), "{head:?}");
            let read = count.fetch_add(1, Ordering::SeqCst) + 1;
            let body = format!(r#"{{"data":{{"data":{{"greeting":"read {read}"}},"metadata":{{"version":1}}}}}}"#);
            let status = if read < 3 { "200 OK" } else { "503 Service Unavailable" };
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").unwrap();
        }
    });
    reads
}

fn start(site: &Site) -> Program {
    let address = site.address_of("http");
    let flags = ["--ingress-class", "kong", "--ingress-http-listen", &address, "--ingress-https-listen", "off"];
    let mut command = portico(site);
    command.args(run_arguments(site)).args(["--access-log", "off"]).args(flags);
    command.env("PORTICO_VAULT_GREETING", "of the environment").env("PORTICO_VAULT_VAULT_TOKEN", "root-token");
    let program = Program::start(command);
    program.wait_started();
    program
}

// docs/kong-compatibility.md, 1.9
#[test]
fn values_of_vaults_take_the_place_of_references() {
    let site = Site::new();
    let reads = start_vault(&site);
    let terminating = |name: &str, message: &str| {
        let config = format!("plugin: request-termination\nconfig: {{status_code: 403, message: \"{message}\"}}\n");
        [&ROUTE.replace("NAME", name), &*config].concat()
    };
    let guarded = "plugin: key-auth\nconfig: {key_names: [\"{vault://env/unset}\"]}\n";
    let objects = [
        OBJECTS,
        &terminating("environment", "{vault://env/greeting}"),
        &terminating("cluster", "{vault://cluster/listed/text}"),
        &terminating("server", "{vault://server/shop/texts/greeting}"),
        &ROUTE.replace("NAME", "guarded"),
        guarded,
    ];
    site.save("manifests/vaults.yaml", &objects.concat());
    let program = start(&site);
    let address = site.address_of("http");
    let get = |host: &str| try_get(&address, &format!("{host}.example"), "/").unwrap();
    for (host, status, body) in [
        ("environment", 403, "of the environment"),
        ("cluster", 403, "of the listed Secret"),
        ("guarded", 503, "cannot be used"),
    ] {
        let response = get(host);
        assert!(response.status == status && response.body.contains(body), "{host}: {response:?}");
    }
    // Without its value, the plugin rejects requests. The value then follows the server.
    eventually("the value is read", || (get("server").status == 403).then_some(()));
    assert!(get("server").body.contains("read "));
    eventually("the value is read again", || get("server").body.contains("read 2").then_some(()));
    // The server refuses further reads, so the last value stays.
    eventually("the server gets more requests", || (reads.load(Ordering::SeqCst) > 4).then_some(()));
    assert!(get("server").body.contains("read 2"));
    let messages = program.messages();
    assert!(messages.contains("KongVault server: spec.config: the vault has responded with 503"), "{messages}");
    assert!(!messages.contains("root-token") && !messages.contains("read 2"), "{messages}");
    program.stop().expect_success();
}

// docs/kong-compatibility.md, 1.3
#[test]
fn rate_limit_before_authentication_counts_rejected_requests() {
    let site = Site::new();
    let keys = "plugin: key-auth\n";
    let limit = "---\napiVersion: configuration.konghq.com/v1\nkind: KongPlugin\nmetadata: {name: limit}\nplugin: \
                 rate-limiting\nconfig: {year: 1, limit_by: ip}\nordering: {before: {access: [key-auth]}}\n";
    let route = ROUTE.replace("plugins: NAME", "plugins: \"keys, limit\"").replace("NAME", "keys");
    let service = OBJECTS.split("---").next().unwrap();
    site.save("manifests/ordered.yaml", &[service, &route, keys, limit].concat());
    let program = start(&site);
    let statuses = [1, 2].map(|_| try_get(&site.address_of("http"), "keys.example", "/").unwrap().status);
    assert_eq!(statuses, [401, 429]);
    program.stop().expect_success();
}
