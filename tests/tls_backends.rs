//! Renews the certificate of a TLS backend, and the authorities that Portico trusts, during requests.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::client::{ContinuousClient, get};
use crate::harness::objects::GATEWAY;
use crate::harness::program::run;
use crate::harness::site::Site;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

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
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
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
