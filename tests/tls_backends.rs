//! Renews the certificate of a TLS backend, and the authorities that Portico trusts, during requests; and sends
//! requests to XBackends.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::client::{ContinuousClient, get, try_get};
use crate::harness::eventually;
use crate::harness::objects::GATEWAY;
use crate::harness::program::run;
use crate::harness::site::Site;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::cipher_suite::{TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256};
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedCipherSuite, SupportedProtocolVersion};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> Arc<CertifiedKey> {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&key).unwrap()))
    }
}

/// The certificate of the backend, which a test can replace.
#[derive(Clone, Debug)]
struct RenewableCertificate(Arc<Mutex<Arc<CertifiedKey>>>);

impl ResolvesServerCert for RenewableCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        (hello.server_name() == Some("backend.example")).then(|| Arc::clone(&self.0.lock().unwrap()))
    }
}

/// Starts a backend that responds to every request on keep-alive connections until the test ends.
fn backend(certificate: RenewableCertificate) -> SocketAddr {
    backend_with_suites(certificate, &default_provider().cipher_suites)
}

/// The same with these cipher suites, and the versions of TLS that they are of.
fn backend_with_suites(certificate: RenewableCertificate, suites: &[SupportedCipherSuite]) -> SocketAddr {
    let provider = CryptoProvider { cipher_suites: suites.to_vec(), ..default_provider() };
    let is_used = |version: &SupportedProtocolVersion| suites.iter().any(|suite| suite.version() == version);
    let versions: Vec<_> = [&TLS13, &TLS12].into_iter().filter(|version| is_used(version)).collect();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            thread::spawn(move || {
                let mut stream = BufReader::new(StreamOwned::new(connection, socket));
                let mut line = String::new();
                while stream.read_line(&mut line).is_ok_and(|read| read > 0) {
                    if line == "\r\n" {
                        let response = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        if stream.get_mut().write_all(response.as_bytes()).is_err() {
                            return;
                        }
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

/// A route, and its Service with the backend and its authorities.
fn objects(address: SocketAddr) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: secure
  annotations:
    konghq.com/preserve-host: \"false\"
spec:
  parentRefs:
    - name: good
  rules:
    - backendRefs:
        - name: secure
          port: 443
---
apiVersion: v1
kind: Service
metadata:
  name: secure
  annotations:
    portico.dev/address: {address}
    konghq.com/protocol: https
    konghq.com/host-header: backend.example
    konghq.com/tls-verify: \"true\"
    konghq.com/ca-certificates-secrets: authority
spec:
  ports:
    - port: 443
"
    )
}

/// The Secret with the authorities that Portico trusts.
fn secret(authorities: &[&Authority]) -> String {
    let pem: String = authorities.iter().map(|authority| authority.0.pem()).collect();
    let pem = pem.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: authority\n  labels:\n    konghq.com/ca-cert: \"true\"\n\
         stringData:\n  cert: |\n    {pem}\n"
    )
}

// Kong's documentation: annotations `tls-verify`, `ca-certificates-secrets` and `host-header` of Services.
#[test]
fn certificate_renewal_fails_no_request() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let certificate = RenewableCertificate(Arc::new(Mutex::new(old.issue("backend.example"))));
    let site = Site::new();
    site.save("manifests/gateway.yaml", GATEWAY);
    site.save("manifests/secure.yaml", &objects(backend(certificate.clone())));
    site.save("manifests/authority.yaml", &secret(&[&old]));
    let program = run(&site, &[]);
    program.wait_started();
    let address = site.address_of("port");
    let wait_for_edit = |number: usize| {
        let is_reported = |messages: &str| messages.matches("Changed, live after").count() >= number;
        program
            .wait_messages(is_reported)
            .unwrap_or_else(|messages| panic!("edit {number} was not reported\n{messages}"));
    };
    let clients = [true, false].map(|keep| ContinuousClient::start(address.clone(), "/", keep));
    let step = |number: usize, authorities: &[&Authority]| {
        site.save("manifests/authority.yaml", &secret(authorities));
        wait_for_edit(number);
        clients.iter().for_each(|client| client.wait_for_completed(5));
        for _ in 0..5 {
            assert_eq!(get(&address, "/").status, 200, "step {number}");
        }
    };
    step(1, &[&old, &new]);
    *certificate.0.lock().unwrap() = new.issue("backend.example");
    step(2, &[&new]);
    for client in clients {
        client.stop();
    }

    site.save("manifests/authority.yaml", &secret(&[&old]));
    wait_for_edit(3);
    assert_eq!(get(&address, "/").status, 502, "old connections are not reused");
    program.wait_stderr(|stderr| stderr.contains("TLS handshake with an endpoint failed").then_some(()));
    site.remove("manifests/authority.yaml");
    wait_for_edit(4);
    assert_eq!(get(&address, "/").status, 503, "without an authority no request is sent");
    let ended = program.stop().expect_success();
    let failures = ended.stdout.matches("error=tls_handshake").count();
    assert_eq!(failures, 1, "{}", ended.messages());
    assert!(ended.messages().contains("Secret default/authority does not exist"), "{}", ended.messages());
}

/// A Secret with a certificate for clients, and with an authority if there is one.
fn client_secret(authority: Option<&Authority>) -> String {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["portico.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let indented = |pem: String| pem.replace('\n', "\n    ");
    let ca = authority.map(|authority| format!("  ca.crt: |\n    {}\n", indented(authority.0.pem())));
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: proxy\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    \
         {}\n  tls.key: |\n    {}\n{}",
        indented(certificate.pem()),
        indented(key.serialize_pem()),
        ca.unwrap_or_default()
    )
}

/// ingress-nginx, annotations `proxy-ssl-*`.
#[test]
fn annotations_of_ingress_nginx_verify_the_backend() {
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
    let certificate = RenewableCertificate(Arc::new(Mutex::new(trusted.issue("backend.example"))));
    let address = backend(certificate);
    let ingress = |host: &str, annotations: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {host}
  annotations:
    nginx.ingress.kubernetes.io/backend-protocol: HTTPS
    nginx.ingress.kubernetes.io/upstream-vhost: backend.example
    {annotations}
spec:
  ingressClassName: nginx
  rules:
    - host: {host}.example
      http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: secure, port: {{number: 443}}}}}}}}]}}
---
"
        )
    };
    let verified = |name: &str| {
        format!(
            "nginx.ingress.kubernetes.io/proxy-ssl-secret: default/proxy
    nginx.ingress.kubernetes.io/proxy-ssl-verify: \"on\"
    nginx.ingress.kubernetes.io/proxy-ssl-name: {name}"
        )
    };
    let mut objects = "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: nginx}\n\
                       spec: {controller: k8s.io/ingress-nginx}\n---\napiVersion: v1\nkind: Service\nmetadata:\n  \
                       name: secure\n  annotations: {portico.dev/address: \"@backend@\"}\nspec: {ports: [{port: 443}]}\n---\n"
        .replace("@backend@", &address.to_string());
    objects += &ingress("unverified", "example.com/note: none");
    objects += &ingress("verified", &verified("backend.example"));
    objects += &ingress("wrong-name", &verified("other.example"));
    objects += &ingress("no-name", &verified("\"\""));
    let site = Site::new();
    site.save("manifests/all.yaml", &objects);
    site.save("manifests/proxy.yaml", &client_secret(Some(&trusted)));
    let address = site.address_of("other");
    let class = ["--nginx-controller-class", "k8s.io/ingress-nginx", "--ingress-http-listen", &address];
    let program = run(&site, &[&class[..], &["--ingress-https-listen", "off"]].concat());
    program.wait_started();
    let status = |host: &str| try_get(&address, &format!("{host}.example"), "/").unwrap().status;
    let statuses = || ["unverified", "verified", "wrong-name", "no-name"].map(status);
    assert_eq!(statuses(), [200, 200, 502, 503]);
    site.save("manifests/proxy.yaml", &client_secret(Some(&other)));
    eventually("another authority", || (status("verified") == 502).then_some(()));
    site.save("manifests/proxy.yaml", &client_secret(None));
    eventually("no authority", || (status("verified") == 503).then_some(()));
    site.save("manifests/proxy.yaml", &client_secret(Some(&trusted)));
    eventually("the authority is back", || (status("verified") == 200).then_some(()));
    site.remove("manifests/proxy.yaml");
    eventually("no Secret", || (status("verified") == 503).then_some(()));
    assert_eq!(status("unverified"), 200);
    let ended = program.stop().expect_success();
    for message in ["has no key ca.crt, which proxy-ssl-verify needs", "proxy-ssl-name is missing"] {
        assert!(ended.messages().contains(message), "{message}: {}", ended.messages());
    }
}

/// The annotation without which the others about TLS have no effect.
const SECRET: &str = "proxy-ssl-secret: default/proxy";

/// ingress-nginx, annotations `proxy-ssl-ciphers` and `proxy-ssl-protocols`.
#[test]
fn annotations_of_ingress_nginx_select_cipher_suites_and_versions() {
    let authority = Authority::new("trusted");
    let start = |suite: SupportedCipherSuite| {
        let certificate = RenewableCertificate(Arc::new(Mutex::new(authority.issue("backend.example"))));
        backend_with_suites(certificate, &[suite])
    };
    let old = start(TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    let new = start(TLS13_AES_128_GCM_SHA256);
    let mut objects = "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: nginx}\n\
                       spec: {controller: k8s.io/ingress-nginx}\n---\n"
        .to_owned();
    for (name, address) in [("old", old), ("new", new)] {
        objects += &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{portico.dev/address: \
             \"{address}\"}}}}\nspec: {{ports: [{{port: 443}}]}}\n---\n"
        );
    }
    let cases = [
        ("old", vec![SECRET], 200),
        ("new", vec![SECRET], 200),
        ("old", vec![SECRET, "proxy-ssl-protocols: TLSv1.2"], 200),
        ("new", vec![SECRET, "proxy-ssl-protocols: TLSv1.2"], 502),
        ("old", vec![SECRET, "proxy-ssl-protocols: TLSv1.3"], 502),
        ("new", vec![SECRET, "proxy-ssl-protocols: TLSv1.3"], 200),
        ("old", vec![SECRET, "proxy-ssl-protocols: TLSv1.2 TLSv1.3"], 200),
        ("old", vec![SECRET, "proxy-ssl-protocols: SSLv3"], 200),
        ("old", vec![SECRET, "proxy-ssl-ciphers: DEFAULT"], 200),
        ("old", vec![SECRET, "proxy-ssl-ciphers: ECDHE-ECDSA-AES128-GCM-SHA256:AES128-SHA"], 200),
        ("old", vec![SECRET, "proxy-ssl-ciphers: ECDHE-ECDSA-AES256-GCM-SHA384"], 502),
        ("new", vec![SECRET, "proxy-ssl-ciphers: ECDHE-ECDSA-AES256-GCM-SHA384"], 200),
        ("old", vec![SECRET, "proxy-ssl-ciphers: AES128-SHA"], 503),
        ("new", vec![SECRET, "proxy-ssl-ciphers: AES128-SHA"], 503),
        ("new", vec![SECRET, "proxy-ssl-ciphers: AES128-SHA", "proxy-ssl-protocols: TLSv1.3"], 200),
        // Without the Secret, they have no effect.
        ("old", vec!["proxy-ssl-ciphers: AES128-SHA", "proxy-ssl-protocols: TLSv1.3"], 200),
    ];
    for (index, (service, annotations, _)) in cases.iter().enumerate() {
        let lines = annotations.iter().map(|annotation| format!("    nginx.ingress.kubernetes.io/{annotation}\n"));
        let annotations: String = lines.collect();
        objects += &format!(
            "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: case-{index}
  annotations:
    nginx.ingress.kubernetes.io/backend-protocol: HTTPS
    nginx.ingress.kubernetes.io/upstream-vhost: backend.example
{annotations}spec:
  ingressClassName: nginx
  rules:
    - host: case-{index}.example
      http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 443}}}}}}}}]}}
---
"
        );
    }
    let site = Site::new();
    site.save("manifests/all.yaml", &objects);
    site.save("manifests/proxy.yaml", &client_secret(Some(&authority)));
    let address = site.address_of("other");
    let class = ["--nginx-controller-class", "k8s.io/ingress-nginx", "--ingress-http-listen", &address];
    let program = run(&site, &[&class[..], &["--ingress-https-listen", "off"]].concat());
    program.wait_started();
    for (index, (service, annotations, expected)) in cases.iter().enumerate() {
        let found = try_get(&address, &format!("case-{index}.example"), "/").unwrap().status;
        assert_eq!(found, *expected, "{service}: {annotations:?}");
    }
    let ended = program.stop().expect_success();
    for message in [
        "\"AES128-SHA\" names no cipher suite that is supported, so requests get status 503",
        "no cipher suite that is supported is named by AES128-SHA",
        "\"SSLv3\" is not a valid value, so it has no effect",
        "proxy-ssl-protocols permits only TLS 1.3, whose ciphers no list names, so it has no effect",
        "proxy-ssl-secret is missing, so it has no effect",
    ] {
        assert!(ended.messages().contains(message), "{message}: {}", ended.messages());
    }
}

/// A route for each of these XBackends of host `localhost`: name, port and further fields.
fn x_backends(backends: &[(&str, u16, &str)]) -> String {
    let documents = backends.iter().map(|(name, port, fields)| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {name}
spec:
  parentRefs:
    - name: good
  rules:
    - matches:
        - path: {{ value: /{name} }}
      backendRefs:
        - {{ group: gateway.networking.x-k8s.io, kind: XBackend, name: {name} }}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata:
  name: {name}
spec:
  type: ExternalHostname
  externalHostname:
    hostname: localhost
  port:
    number: {port}
{fields}"
        )
    });
    documents.collect::<Vec<_>>().join("---\n")
}

/// A ClusterTrustBundle with an authority.
fn trust_bundle(authority: &Authority) -> String {
    let pem = authority.0.pem().replace('\n', "\n    ");
    format!(
        "apiVersion: certificates.k8s.io/v1\nkind: ClusterTrustBundle\nmetadata:\n  name: roots\nspec:\n  \
         trustBundle: |\n    {pem}\n"
    )
}

/// Gateway API, GEP-4894 and GEP-4768.
#[test]
fn x_backends_are_reached_with_the_tls_that_they_require() {
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
    let certificate = RenewableCertificate(Arc::new(Mutex::new(trusted.issue("backend.example"))));
    let port = backend(certificate.clone()).port();
    let tls = |hostname: &str| {
        format!(
            "  tls:
    mode: ServerOnly
    validation:
      hostname: {hostname}
      caCertificateRefs:
        - {{ group: certificates.k8s.io, kind: ClusterTrustBundle, name: roots }}
"
        )
    };
    let site = Site::new();
    site.save("manifests/gateway.yaml", GATEWAY);
    let (right, wrong) = (tls("backend.example"), tls("other.example"));
    let backends =
        x_backends(&[("tls", port, &right), ("wrong-name", port, &wrong), ("mcp", port, "  protocol: MCP\n")]);
    site.save("manifests/backends.yaml", &backends);
    site.save("manifests/roots.yaml", &trust_bundle(&trusted));
    let program = run(&site, &["--channel", "experimental"]);
    program.wait_started();
    let address = site.address_of("port");
    let wait_for_edit = |number: usize| {
        let is_reported = |messages: &str| messages.matches("Changed, live after").count() >= number;
        let reported = program.wait_messages(is_reported);
        reported.unwrap_or_else(|messages| panic!("edit {number} was not reported\n{messages}"));
    };
    eventually("the name is resolved", || (get(&address, "/tls").status == 200).then_some(()));
    assert_eq!(get(&address, "/wrong-name").status, 502, "the backend has no certificate for this name");
    assert_eq!(get(&address, "/mcp").status, 500, "nothing is sent with a protocol that is not supported");

    // Requests that begin after the edit use neither the old authority nor a connection that it verified.
    site.save("manifests/roots.yaml", &trust_bundle(&other));
    wait_for_edit(1);
    assert_eq!(get(&address, "/tls").status, 502, "another authority");
    site.remove("manifests/roots.yaml");
    wait_for_edit(2);
    assert_eq!(get(&address, "/tls").status, 500, "without an authority no request is sent");
    let ended = program.stop().expect_success();
    for message in ["protocol MCP is not served", "ClusterTrustBundle roots does not exist"] {
        assert!(ended.messages().contains(message), "{message}: {}", ended.messages());
    }
}
