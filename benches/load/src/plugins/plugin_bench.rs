//! Backends, objects and requests of the plugin measurements.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use tempfile::TempDir;

use super::variant::{ClientCredential, Variant, lines};
use crate::backend::Backend;
use crate::plan::RequestShape;
use crate::server::added_fields::AddedFields;
use crate::server::objects::{API_KEY, HostRoute, annotations, consumer, plugins};
use crate::server::portico::Setup;
use crate::server::variant::ServerVariant;
use crate::server::{self, CACHE_HOST, Server, Site};
use crate::tokens::{self, token};

/// What all variants share, and the route of each.
pub(super) struct PluginBench {
    folder: TempDir,
    certificate: server::KeyPair,
    backend: Backend,
    /// A backend that sends the response fields of the chain.
    verbose_backend: Backend,
    objects: String,
    /// JWTs. The first may be used repeatedly, the others once.
    tokens: Vec<Arc<str>>,
    /// Index of the first unused token.
    next_token: Cell<usize>,
    /// The host of each variant.
    hosts: Vec<(&'static str, String)>,
    /// Address of the listener for Ingresses, if the routes are Ingresses.
    ingress: Option<SocketAddr>,
}

impl PluginBench {
    /// Creates `new_tokens` unused tokens if a variant needs them. The routes are Ingresses if `ingress` is set,
    /// otherwise HTTPRoutes.
    pub(super) async fn new(variants: &[Variant], new_tokens: usize, ingress: bool) -> Result<PluginBench> {
        let folder = tempfile::tempdir()?;
        let certificate = server::write_certificate(folder.path())?;
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let imitating = variants.iter().find(|variant| variant.uses_verbose_backend());
        let response_fields = imitating.map(|variant| lines(&variant.added_fields.response)).unwrap_or_default();
        let verbose_backend = Backend::start_with_fields(listen, "backend", &response_fields).await?;
        let signer = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        let unused_tokens = if variants.iter().any(Variant::needs_new_tokens) { new_tokens } else { 0 };
        let tokens = (0..=unused_tokens).map(|number| token(&signer, number)).collect::<Result<_>>()?;
        // All hosts that are compared have the same length, so that variants differ only in what is compared.
        let hosts: Vec<_> = variants
            .iter()
            .enumerate()
            .map(|(index, variant)| {
                let host = || format!("v{index:02}.bench.example");
                (variant.name, if variant.is_cached() { CACHE_HOST.to_owned() } else { host() })
            })
            .collect();
        let mut objects = consumer_objects(&signer, verbose_backend.address.port());
        for (variant, (_, host)) in variants.iter().zip(&hosts) {
            objects += &if ingress { self::ingress(variant, host) } else { route(variant, host) };
        }
        let backend = Backend::start(listen, "backend").await?;
        let ingress = if ingress { Some(server::free_address()?) } else { None };
        Ok(PluginBench {
            folder,
            certificate,
            backend,
            verbose_backend,
            objects,
            tokens,
            next_token: Cell::new(1),
            hosts,
            ingress,
        })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn setup<'w>(&'w self, binary: &'w Path) -> Setup<'w> {
        let site = Site {
            folder: self.folder.path(),
            backend: self.backend.address,
            key_pair: &self.certificate,
            access_log: true,
            variant: ServerVariant::PLAIN,
        };
        Setup { objects: &self.objects, ingress: self.ingress, ..Setup::new(binary, site) }
    }

    /// The address that serves the routes: the listener for Ingresses or the Gateway.
    pub(super) fn target(&self, server: &Server) -> SocketAddr {
        self.ingress.unwrap_or(server.address)
    }

    /// The address of the backend of a variant.
    pub(super) fn endpoint(&self, variant: &Variant) -> SocketAddr {
        if variant.uses_verbose_backend() { self.verbose_backend.address } else { self.backend.address }
    }

    /// The requests that a run sends in rotation. New tokens are used only if the number of its requests is given.
    pub(super) fn shapes(&self, variant: &Variant, requests: Option<usize>) -> Vec<RequestShape> {
        let host = self.hosts.iter().find(|(name, _)| *name == variant.name).map_or("", |(_, host)| host);
        let shape = |credential: &str| {
            let fields = format!("{credential}{}", variant.client_fields());
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
                let first_unused = self.next_token.replace(self.next_token.get() + requests);
                self.tokens.iter().skip(first_unused).take(requests).map(bearer).collect()
            }
        }
    }
}

/// The plugins, one consumer, and the Service of the backend that sends the response fields of the chain.
fn consumer_objects(signer: &KeyPair, verbose_port: u16) -> String {
    let plugins = plugins(&["key-auth", "rate-limiting", "correlation-id", "jwt", "proxy-cache"]);
    let consumer = consumer(&["bench-key", "bench-token"]);
    let token_secret = tokens::secret(signer);
    format!(
        "{plugins}{consumer}{token_secret}---
apiVersion: v1
kind: Service
metadata:
  name: verbose
  annotations:
    portico.dev/address: 127.0.0.1
spec:
  ports:
    - port: 80
      targetPort: {verbose_port}
"
    )
}

/// The HTTPRoute of a variant.
fn route(variant: &Variant, host: &str) -> String {
    let name = host.split('.').next().unwrap_or_default();
    let filters = variant.filters().map(AddedFields::filters).unwrap_or_default();
    HostRoute { name, host, plugins: variant.plugins, service: service_of(variant), filters: &filters }.to_yaml()
}

/// The Service of the backend of a variant.
fn service_of(variant: &Variant) -> &'static str {
    if variant.uses_verbose_backend() { "verbose" } else { "backend" }
}

/// The Ingress of a variant.
fn ingress(variant: &Variant, host: &str) -> String {
    let name = host.split('.').next().unwrap_or_default();
    let annotations = annotations(variant.plugins);
    let service = service_of(variant);
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
