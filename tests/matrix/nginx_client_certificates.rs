//! Client certificates as the annotations `auth-tls-…` require them, over TLS: which clients each path of a host
//! serves, what the backend gets, and what closes the host.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use portico::api::ingress_nginx::PREFIX;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned, SupportedCipherSuite,
    SupportedProtocolVersion,
};

use super::nginx_guards::{CLASS, echo, ingress, rule, start_with_tls};
use crate::harness::TEST_TIMEOUT;
use crate::harness::client::try_get;
use crate::harness::eventually;
use crate::harness::site::Site;

pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn issue(&self, name: &str) -> Arc<CertifiedKey> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Shop");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&key).unwrap()))
    }

    /// The Secret with its certificate.
    fn secret(&self, namespace: &str, key: &str) -> String {
        let pem = self.0.pem().replace("\r\n", "\n").replace('\n', "\n    ");
        format!(
            "apiVersion: v1
kind: Secret
metadata: {{namespace: {namespace}, name: authorities}}
stringData:
  {key}: |
    {pem}
---
"
        )
    }
}

/// The certificate of the server is not what is tested.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A connection over TLS that sends one request after the other.
pub(super) struct TlsConnection(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl TlsConnection {
    pub(super) fn open(address: &str, server_name: &str, certificate: Option<&Arc<CertifiedKey>>) -> Self {
        TlsConnection::open_with(address, server_name, certificate, &default_provider().cipher_suites)
    }

    /// The client offers these cipher suites, and the versions of TLS that they are of.
    pub(super) fn open_with(
        address: &str,
        server_name: &str,
        certificate: Option<&Arc<CertifiedKey>>,
        suites: &[SupportedCipherSuite],
    ) -> Self {
        let provider = CryptoProvider { cipher_suites: suites.to_vec(), ..default_provider() };
        let is_used = |version: &SupportedProtocolVersion| suites.iter().any(|suite| suite.version() == version);
        let versions: Vec<_> = [&TLS13, &TLS12].into_iter().filter(|version| is_used(version)).collect();
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer));
        let config = match certificate {
            Some(certificate) => {
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(certificate))))
            }
            None => config.with_no_client_auth(),
        };
        let name = ServerName::try_from(server_name.to_owned()).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        TlsConnection(BufReader::new(StreamOwned::new(connection, stream)))
    }

    /// The status and the body. The client claims to have a certificate.
    pub(super) fn get(&mut self, host: &str, path: &str) -> (u16, String) {
        self.try_get(host, path).unwrap()
    }

    /// The cipher suite after the first response.
    pub(super) fn suite(&self) -> Option<SupportedCipherSuite> {
        self.0.get_ref().conn.negotiated_cipher_suite()
    }

    /// An error if the handshake or the connection fails.
    pub(super) fn try_get(&mut self, host: &str, path: &str) -> io::Result<(u16, String)> {
        let forged = "ssl-client-verify: SUCCESS\r\nssl-client-subject-dn: CN=forged\r\nssl_client_cert: forged\r\n";
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{forged}\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body)?;
        Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), String::from_utf8(body).unwrap()))
    }
}

fn status(address: &str, host: &str, certificate: Option<&Arc<CertifiedKey>>, path: &str) -> u16 {
    TlsConnection::open(address, host, certificate).get(host, path).0
}

/// The annotations for the Secret of the namespace `default`, with further ones.
fn with_authorities(more: &str) -> String {
    let more = more.split_terminator(", ").map(|annotation| format!(", {PREFIX}auth-tls-{annotation}"));
    format!("{PREFIX}auth-tls-secret: default/authorities{}", more.collect::<String>())
}

#[test]
fn clients_need_the_certificates_that_annotations_require() {
    let site = Site::new();
    let (own, other) = (Authority::new("ca"), Authority::new("other"));
    let mut objects = CLASS.to_owned() + &echo("default") + &own.secret("default", "ca.crt");
    // The statuses of: no certificate, a good one, one of another authority, and plain text.
    let cases = [
        ("on", "", [400, 200, 400, 403]),
        ("optional", "verify-client: optional", [200, 200, 400, 200]),
        ("any", "verify-client: optional_no_ca", [200, 200, 200, 200]),
        ("off", "verify-client: \"off\"", [200, 200, 200, 200]),
        ("invalid", "verify-client: maybe", [400, 200, 400, 403]),
        ("subject", "match-cn: CN=anna", [400, 200, 400, 403]),
        ("wrong", "match-cn: CN=bert", [400, 403, 400, 403]),
        ("page", "error-page: https://a.example/denied", [302, 200, 302, 403]),
    ];
    for (name, more, _) in cases {
        let host = format!("{name}.example");
        let annotations = with_authorities(more) + &format!(", {PREFIX}server-alias: alias-{host}");
        objects += &ingress("default", name, "02", &annotations, &rule(&host, "/own"));
        // An older one without the annotations.
        objects += &ingress("default", &format!("open-{name}"), "01", "", &rule(&host, "/open"));
    }
    site.save("manifests/all.yaml", &objects);
    let (_program, http, https) = start_with_tls(&site);
    let (good, bad) = (own.issue("anna"), other.issue("anna"));
    for (name, _, expected) in cases {
        for host in [format!("{name}.example"), format!("alias-{name}.example")] {
            for path in ["/own", "/open", "/open/x"] {
                let found = [
                    status(&https, &host, None, path),
                    status(&https, &host, Some(&good), path),
                    status(&https, &host, Some(&bad), path),
                    try_get(&http, &host, path).unwrap().status,
                ];
                assert_eq!(found, expected, "{host}{path}");
            }
            // The root of the host has no backend.
            let rejected = status(&https, &host, None, "/other");
            assert_eq!(rejected, if expected[0] == 200 { 404 } else { expected[0] }, "{host}");
        }
    }
    // One connection, and the headers of each request.
    let mut connection = TlsConnection::open(&https, "on.example", Some(&good));
    for _ in 0..2 {
        let (status, body) = connection.get("on.example", "/own");
        assert_eq!(status, 200);
        let body = body.to_ascii_lowercase();
        assert!(body.contains("success") && body.contains("cn=anna,o=shop") && body.contains("cn=ca"), "{body}");
        assert!(!body.contains("forged"), "{body}");
    }
    let (_, body) = TlsConnection::open(&https, "optional.example", None).get("optional.example", "/own");
    assert!(body.contains("NONE") && !body.contains("SUCCESS") && !body.contains("forged"), "{body}");
}

#[test]
fn hosts_that_verify_clients_share_no_connection_with_others() {
    let site = Site::new();
    let own = Authority::new("ca");
    let mut objects = CLASS.to_owned() + &echo("default") + &own.secret("default", "ca.crt");
    objects += &ingress("default", "on", "01", &with_authorities(""), &rule("on.example", "/"));
    objects += &ingress("default", "off", "01", &with_authorities("verify-client: \"off\""), &rule("off.example", "/"));
    objects += &ingress("default", "open", "01", "", &rule("open.example", "/"));
    site.save("manifests/all.yaml", &objects);
    let (_program, _, https) = start_with_tls(&site);
    let certificate = own.issue("anna");
    for (server_name, host, expected) in [
        ("on.example", "on.example", 200),
        ("on.example", "open.example", 421),
        ("open.example", "on.example", 421),
        ("unknown.example", "on.example", 421),
        ("open.example", "off.example", 200),
        ("off.example", "open.example", 200),
    ] {
        let found = TlsConnection::open(&https, server_name, Some(&certificate)).get(host, "/").0;
        assert_eq!(found, expected, "{server_name} {host}");
    }
}

#[test]
fn host_is_closed_without_its_authorities() {
    let site = Site::new();
    let own = Authority::new("ca");
    let mut objects = CLASS.to_owned() + &echo("default") + &echo("other") + &own.secret("other", "ca.crt");
    let guarded = |annotations: &str| ingress("default", "guard", "02", annotations, &rule("web.example", "/own"));
    objects += &ingress("default", "open", "01", "", &rule("web.example", "/open"));
    site.save("manifests/all.yaml", &objects);
    site.save("manifests/guard.yaml", &guarded(&with_authorities("")));
    let (_program, http, https) = start_with_tls(&site);
    let (good, another) = (own.issue("anna"), Authority::new("ca").issue("anna"));
    let statuses = || {
        ["/own", "/open"].map(|path| {
            let plain = try_get(&http, "web.example", path).unwrap().status;
            [status(&https, "web.example", Some(&good), path), plain]
        })
    };
    let is = |what: &str, expected: [u16; 2]| {
        eventually(what, || (statuses() == [expected; 2]).then_some(()));
    };
    is("closed without the Secret", [403, 403]);
    site.save("manifests/secret.yaml", &own.secret("default", "ca.crt"));
    is("served with it", [200, 403]);
    assert_eq!(status(&https, "web.example", Some(&another), "/open"), 400);
    site.save("manifests/secret.yaml", &own.secret("default", "tls.crt"));
    is("closed without its key", [503, 503]);
    site.save("manifests/secret.yaml", &Authority::new("ca").secret("default", "ca.crt"));
    is("only another authority", [400, 403]);
    site.save("manifests/secret.yaml", &own.secret("default", "ca.crt"));
    is("served again", [200, 403]);
    let secret = format!("{PREFIX}auth-tls-secret");
    for (annotations, expected) in [
        (format!("{secret}: other/authorities"), 403),
        (format!("{secret}: authorities"), 403),
        (with_authorities("match-cn: anna"), 503),
        (with_authorities("match-cn: \"CN=(anna\""), 503),
        (with_authorities("pass-certificate-to-upstream: maybe"), 503),
    ] {
        site.save("manifests/guard.yaml", &guarded(&annotations));
        is(&annotations, [expected, expected]);
    }
    site.save("manifests/guard.yaml", &guarded(""));
    is("open", [200, 200]);
    // The oldest one decides, and the requirement of another namespace is that of its own paths.
    let foreign = format!("{PREFIX}auth-tls-secret: other/authorities");
    site.save("manifests/guard.yaml", &ingress("other", "guard", "02", &foreign, &rule("web.example", "/own")));
    eventually("own paths", || (statuses() == [[200, 403], [200, 200]]).then_some(()));
    assert_eq!(status(&https, "web.example", None, "/own"), 400);
}
