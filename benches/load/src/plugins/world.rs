//! The backends and the objects that the server is started with.

use std::cell::Cell;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize, SigningKey as _};
use serde_json::json;
use tempfile::TempDir;

use super::variant::{AddedFields, ClientCredential, Variant, lines};
use crate::backend::Backend;
use crate::plan::RequestShape;
use crate::server::{self, Server, Setup};

pub(super) struct PluginBench {
    folder: TempDir,
    certificate: server::KeyPair,
    backend: Backend,
    /// A backend that sends the response fields of the chain.
    verbose_backend: Backend,
    objects: String,
    /// One token per request; the first is reused.
    tokens: Vec<Arc<str>>,
    next: Cell<usize>,
    hosts: Vec<(&'static str, String)>,
    /// Address of the listener for Ingresses, if the routes are Ingresses.
    ingress: Option<SocketAddr>,
}

impl PluginBench {
    /// Creates `new_tokens` unused tokens. The routes are Ingresses or HTTPRoutes.
    pub(super) async fn new(variants: &[Variant], new_tokens: usize, ingress: bool) -> Result<PluginBench> {
        let folder = tempfile::tempdir()?;
        let certificate = server::write_certificate(folder.path())?;
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let answered = variants.iter().find(|variant| variant.has_own_backend());
        let answered = answered.map(|variant| lines(&variant.added_fields.answer)).unwrap_or_default();
        let talkative = Backend::start_with_fields(listen, "backend", &answered).await?;
        let signer = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        let wanted = if variants.iter().any(Variant::needs_new_tokens) { new_tokens } else { 0 };
        let tokens = (0..=wanted).map(|number| token(&signer, number)).collect::<Result<_>>()?;
        // All hosts have the same length, so that only the compared aspects differ.
        let hosts: Vec<_> = variants
            .iter()
            .enumerate()
            .map(|(at, variant)| (variant.name, format!("v{at:02}.bench.example")))
            .collect();
        let mut objects = consumer_objects(&signer, talkative.address.port());
        for (variant, (_, host)) in variants.iter().zip(&hosts) {
            objects += &if ingress { self::ingress(variant, host) } else { route(variant, host) };
        }
        let backend = Backend::start(listen, "backend").await?;
        let ingress = if ingress { Some(server::free_address()?) } else { None };
        Ok(PluginBench {
            folder,
            certificate,
            backend,
            verbose_backend: talkative,
            objects,
            tokens,
            next: Cell::new(1),
            hosts,
            ingress,
        })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn setup<'w>(&'w self, binary: &'w Path) -> Setup<'w> {
        Setup {
            binary,
            folder: self.folder.path(),
            backend: self.backend.address,
            key: &self.certificate,
            flags: &[],
            objects: &self.objects,
            ingress: self.ingress,
            access_log: true,
        }
    }

    /// Address of the routes.
    pub(super) fn target(&self, server: &Server) -> SocketAddr {
        self.ingress.unwrap_or(server.address)
    }

    pub(super) fn endpoint(&self, variant: &Variant) -> SocketAddr {
        if variant.has_own_backend() { self.verbose_backend.address } else { self.backend.address }
    }

    /// Requests to send in rotation for this number of requests. Without a number, no new tokens are used.
    pub(super) fn shapes(&self, variant: &Variant, requests: Option<usize>) -> Vec<RequestShape> {
        let host = self.hosts.iter().find(|(name, _)| *name == variant.name).map_or("", |(_, host)| host);
        let shape = |shown: &str| {
            let fields = format!("{shown}{}", variant.client_fields());
            RequestShape { fields: fields.into(), ..RequestShape::get(host, "/") }
        };
        let bearer = |token: &Arc<str>| shape(&format!("authorization: Bearer {token}\r\n"));
        match (variant.credential, requests) {
            (ClientCredential::Nothing, _) => vec![shape("")],
            (ClientCredential::Key, _) => vec![shape(&format!("apikey: {API_KEY}\r\n"))],
            (ClientCredential::Token, _) | (ClientCredential::NewToken, None) => {
                self.tokens.iter().take(1).map(bearer).collect()
            }
            (ClientCredential::NewToken, Some(requests)) => {
                let from = self.next.replace(self.next.get() + requests);
                self.tokens.iter().skip(from).take(requests).map(bearer).collect()
            }
        }
    }
}

/// A key with the usual length.
const API_KEY: &str = "b3a1c6f2d94e4f0f8a7b5c3d2e1f0a9b";

/// A token signed with the consumer's key, valid for an hour.
fn token(signer: &KeyPair, number: usize) -> Result<Arc<str>> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let part = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(json!({"alg": "RS256", "typ": "JWT"}));
    let claims = part(json!({"iss": "bench", "sub": format!("user-{number:06}"), "exp": now + 3600}));
    let signed = format!("{head}.{claims}");
    let signature = signer.sign(signed.as_bytes()).context("cannot sign a token")?;
    Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)).into())
}

/// Plugins, one consumer, and the Service of the endpoint that sends more.
fn consumer_objects(signer: &KeyPair, talkative: u16) -> String {
    let pem = signer.public_key_pem().trim_end().replace('\n', "\n    ");
    let mut objects = String::new();
    // The limit exceeds the load, so that all requests are counted and none is rejected.
    for (name, config) in [
        ("key-auth", "{}"),
        ("rate-limiting", "{minute: 100000000, policy: local}"),
        ("correlation-id", "{}"),
        ("jwt", "{claims_to_verify: [exp]}"),
    ] {
        write!(
            objects,
            "apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata:
  name: {name}
plugin: {name}
config: {config}
---
"
        )
        .expect("writing to a String succeeds");
    }
    write!(
        objects,
        "apiVersion: configuration.konghq.com/v1
kind: KongConsumer
metadata:
  name: bench
  annotations:
    kubernetes.io/ingress.class: portico
username: bench
credentials: [bench-key, bench-token]
---
apiVersion: v1
kind: Secret
metadata:
  name: bench-key
  labels:
    konghq.com/credential: key-auth
stringData:
  key: {API_KEY}
---
apiVersion: v1
kind: Secret
metadata:
  name: bench-token
  labels:
    konghq.com/credential: jwt
stringData:
  key: bench
  algorithm: RS256
  rsa_public_key: |
    {pem}
---
apiVersion: v1
kind: Service
metadata:
  name: talkative
  annotations:
    portico.dev/address: 127.0.0.1
spec:
  ports:
    - port: 80
      targetPort: {talkative}
"
    )
    .expect("writing to a String succeeds");
    objects
}

fn route(variant: &Variant, host: &str) -> String {
    let name = host.split('.').next().unwrap_or_default();
    let plugins = variant.plugins.join(",");
    let annotations = if plugins.is_empty() { String::new() } else { format!("konghq.com/plugins: \"{plugins}\"") };
    let service = if variant.has_own_backend() { "talkative" } else { "backend" };
    let filters = variant.filters().map(filters).unwrap_or_default();
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {name}
  annotations: {{{annotations}}}
spec:
  parentRefs:
    - name: bench
  hostnames: [{host}]
  rules:
    - backendRefs:
        - name: {service}
          port: 80
      filters: [{filters}]
"
    )
}

fn ingress(variant: &Variant, host: &str) -> String {
    let name = host.split('.').next().unwrap_or_default();
    let plugins = variant.plugins.join(",");
    let annotations = if plugins.is_empty() { String::new() } else { format!("konghq.com/plugins: \"{plugins}\"") };
    let service = if variant.has_own_backend() { "talkative" } else { "backend" };
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  annotations: {{{annotations}}}
spec:
  ingressClassName: portico
  rules:
    - host: {host}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend: {{service: {{name: {service}, port: {{number: 80}}}}}}
"
    )
}

fn filters(learned: &AddedFields) -> String {
    let filter = |kind: &str, field: &str, fields: &[(String, String)]| {
        let fields: Vec<_> = fields.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        (!fields.is_empty()).then(|| json!({"type": kind, field: {"set": fields}}).to_string())
    };
    let request = filter("RequestHeaderModifier", "requestHeaderModifier", &learned.request);
    let answer = filter("ResponseHeaderModifier", "responseHeaderModifier", &learned.answer);
    request.into_iter().chain(answer).collect::<Vec<_>>().join(", ")
}
