//! TLS connections that pass through, as the annotation `ssl-passthrough` says: which server names are not decrypted,
//! what else of the host is served, and that no other namespace takes a host over.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use portico::api::ingress_nginx::PREFIX;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::nginx_client_certificates::TlsConnection;
use super::nginx_guards::{CLASS, echo, ingress, rule, rule_for, start_with_tls, start_with_tls_and};
use crate::harness::client::try_get;
use crate::harness::eventually;
use crate::harness::site::Site;

const FLAG: &str = "--nginx-ssl-passthrough";

/// Starts a backend with TLS that serves until the test ends. It responds with `direct`, or with `forwarded` to a
/// request that a proxy has read.
fn backend() -> SocketAddr {
    let generated = rcgen::generate_simple_self_signed(vec!["backend.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(generated.signing_key.serialize_der()).unwrap();
    let key = CertifiedKey::new(vec![generated.cert.der().clone()], any_supported_type(&key).unwrap());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            thread::spawn(move || {
                let mut stream = BufReader::new(StreamOwned::new(connection, socket));
                let (mut line, mut body) = (String::new(), "direct");
                while stream.read_line(&mut line).is_ok_and(|read| read > 0) {
                    if line.to_ascii_lowercase().starts_with("via:") {
                        body = "forwarded";
                    }
                    if line == "\r\n" {
                        let length = body.len();
                        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
                        if stream.get_mut().write_all(response.as_bytes()).is_err() {
                            return;
                        }
                        body = "direct";
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

/// The Service `secure` with this backend.
fn secure(namespace: &str, address: SocketAddr) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{namespace: {namespace}, name: secure, annotations: {{portico.dev/address: \"{address}\"}}}}
spec: {{ports: [{{port: 80}}]}}
---
"
    )
}

/// The annotation with further ones.
fn passing(more: &str) -> String {
    let more = more.split_terminator(", ").map(|annotation| format!(", {PREFIX}{annotation}"));
    let more: String = more.collect();
    format!("{PREFIX}ssl-passthrough: \"true\", {PREFIX}backend-protocol: HTTPS{more}")
}

/// What serves a request over TLS: the backend, directly or not, the echo server, or a status that is an error. `None`
/// if the connection fails.
fn over_tls(address: &str, server_name: &str, host: &str, path: &str) -> Option<String> {
    let (status, body) = TlsConnection::open(address, server_name, None).try_get(host, path).ok()?;
    Some(match (status, &*body) {
        (200, "direct" | "forwarded") => body,
        (200, _) => "echo".to_owned(),
        (status, _) => status.to_string(),
    })
}

#[test]
fn connections_pass_through_by_server_name() {
    let site = Site::new();
    let mut objects = CLASS.to_owned() + &echo("default") + &secure("default", backend());
    let aliased = passing("server-alias: alias.example");
    objects += &ingress("default", "pass", "01", &aliased, &rule_for("pass.example", "/", "secure"));
    objects += &ingress("default", "more", "02", "", &rule("pass.example", "/api"));
    objects += &ingress("default", "open", "01", "", &rule("open.example", "/"));
    objects += &ingress("default", "wild", "01", &passing(""), &rule_for("\"*.wild.example\"", "/", "secure"));
    // Another Ingress of the namespace has the annotation.
    objects += &ingress("default", "root", "01", "", &rule_for("shared.example", "/", "secure"));
    objects += &ingress("default", "says", "02", &passing(""), &rule("shared.example", "/says"));
    objects += &ingress("default", "no-root", "01", &passing(""), &rule_for("no-root.example", "/api", "secure"));
    let firewall = ["enable-modsecurity: \"true\"", "modsecurity-snippet: SecRuleEngine On"];
    let guarded = passing(&firewall.join(", "));
    objects += &ingress("default", "guarded", "01", &guarded, &rule_for("guarded.example", "/", "secure"));
    objects += &ingress("default", "lost", "01", &passing(""), &rule_for("lost.example", "/", "missing"));
    let bad = format!("{PREFIX}ssl-passthrough: maybe");
    objects += &ingress("default", "bad", "01", &bad, &rule("bad.example", "/"));
    let off = format!("{PREFIX}ssl-passthrough: \"false\"");
    objects += &ingress("default", "off", "01", &off, &rule("off.example", "/"));
    site.save("manifests/all.yaml", &objects);
    let (program, http, https) = start_with_tls_and(&site, &[FLAG]);
    for (server_name, host, path, expected) in [
        ("pass.example", "pass.example", "/", Some("direct")),
        ("PASS.example", "pass.example", "/", Some("direct")),
        ("pass.example", "pass.example", "/api", Some("direct")),
        ("pass.example", "open.example", "/", Some("direct")),
        ("shared.example", "shared.example", "/", Some("direct")),
        ("alias.example", "alias.example", "/", Some("forwarded")),
        ("a.wild.example", "a.wild.example", "/", Some("forwarded")),
        ("open.example", "open.example", "/", Some("echo")),
        ("open.example", "pass.example", "/", Some("421")),
        ("unknown.example", "pass.example", "/", Some("421")),
        ("no-root.example", "no-root.example", "/api", Some("forwarded")),
        ("guarded.example", "guarded.example", "/", None),
        ("lost.example", "lost.example", "/", None),
        ("bad.example", "bad.example", "/", Some("503")),
        ("off.example", "off.example", "/", Some("echo")),
    ] {
        let found = over_tls(&https, server_name, host, path);
        assert_eq!(found.as_deref(), expected, "{server_name}: {host}{path}");
    }
    // Without TLS, all paths of the host are served.
    let plain = |host: &str, path: &str| try_get(&http, host, path).unwrap().status;
    assert_eq!([plain("pass.example", "/"), plain("pass.example", "/api")], [200, 200]);
    assert_eq!([plain("guarded.example", "/"), plain("bad.example", "/")], [503, 503]);
    let ended = program.stop().expect_success();
    for message in [
        "*.wild.example is not the name of one host, so it has no effect for it",
        "the Ingress has no path / for no-root.example, whose backend would get its TLS connections",
        "TLS connections for pass.example pass through to the backend of its path /, so its paths apply without TLS",
        "\"maybe\" is not a valid value, so requests get status 503",
    ] {
        assert!(ended.messages().contains(message), "{message}: {}", ended.messages());
    }
}

#[test]
fn connections_are_decrypted_without_the_flag() {
    let site = Site::new();
    let objects = CLASS.to_owned() + &secure("default", backend());
    let objects = objects + &ingress("default", "a", "01", &passing(""), &rule_for("a.example", "/", "secure"));
    site.save("manifests/all.yaml", &objects);
    let (program, _, https) = start_with_tls(&site);
    assert_eq!(over_tls(&https, "a.example", "a.example", "/").as_deref(), Some("forwarded"));
    let ended = program.stop().expect_success();
    let message = "--nginx-ssl-passthrough is not set, so it has no effect";
    assert!(ended.messages().contains(message), "{}", ended.messages());
}

/// Only the namespace of the oldest Ingress of a host, in any dialect, decides about its connections.
#[test]
fn another_namespace_takes_over_no_host() {
    for owner in ["any", "namespace"] {
        let site = Site::new();
        let mut objects = CLASS.to_owned() + &echo("default") + &echo("other") + &secure("other", backend());
        let passed = |name: &str| {
            let host = format!("{name}.example");
            ingress("other", name, "02", &passing(""), &rule_for(&host, "/", "secure"))
        };
        objects += &(passed("nginx") + &passed("kong") + &passed("certificate"));
        site.save("manifests/all.yaml", &objects);
        let of_kong = |rules: &str, tls: &str| {
            format!(
                "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: kong, creationTimestamp: \"2026-01-01T00:00:00Z\"}}
spec: {{ingressClassName: portico, rules: [{rules}], tls: [{tls}]}}
---
"
            )
        };
        let older = ingress("default", "nginx", "01", "", &rule("nginx.example", "/own"));
        let certificate = "{hosts: [certificate.example], secretName: none}";
        site.save("manifests/older.yaml", &(older + &of_kong(&rule("kong.example", "/"), certificate)));
        let (_program, _, https) = start_with_tls_and(&site, &[FLAG, "--ingress-host-owner", owner]);
        let hosts = ["nginx.example", "kong.example", "certificate.example"];
        let passes = || hosts.map(|host| over_tls(&https, host, host, "/own").as_deref() == Some("direct"));
        assert_eq!(passes(), [false; 3], "{owner}");
        let own = over_tls(&https, "nginx.example", "nginx.example", "/own");
        assert_eq!(own.as_deref(), Some("echo"), "{owner}");
        site.remove("manifests/older.yaml");
        eventually("its own hosts", || (passes() == [true; 3]).then_some(()));
        // An older one of the same namespace has other paths.
        site.save("manifests/older.yaml", &ingress("other", "own", "01", "", &rule("nginx.example", "/own")));
        let younger = ingress("default", "young", "03", "", &rule("kong.example", "/own"));
        site.save("manifests/younger.yaml", &younger);
        eventually("reported", || {
            let found = over_tls(&https, "kong.example", "kong.example", "/own");
            (found.as_deref() == Some("direct")).then_some(())
        });
        assert_eq!(passes(), [true; 3], "{owner}");
    }
}

/// Edits of the annotation and of the backend apply to new connections, and open ones are kept.
#[test]
fn edits_apply_to_new_connections() {
    let site = Site::new();
    let own = |annotations: &str, service: &str| {
        let rule = rule_for("a.example", "/", service);
        site.save("manifests/own.yaml", &ingress("default", "a", "01", annotations, &rule));
    };
    site.save("manifests/all.yaml", &(CLASS.to_owned() + &echo("default") + &secure("default", backend())));
    own(&passing(""), "secure");
    let (_program, _, https) = start_with_tls_and(&site, &[FLAG]);
    let is = |what: &str, expected: Option<&str>| {
        eventually(what, || (over_tls(&https, "a.example", "a.example", "/").as_deref() == expected).then_some(()));
    };
    is("passes through", Some("direct"));
    let mut open = TlsConnection::open(&https, "a.example", None);
    assert_eq!(open.try_get("a.example", "/").unwrap().1, "direct");
    own("", "echo");
    is("decrypted", Some("echo"));
    assert_eq!(open.try_get("a.example", "/").unwrap().1, "direct");
    own(&passing(""), "missing");
    is("no backend", None);
    own(&passing(""), "secure");
    is("passes through again", Some("direct"));
}
