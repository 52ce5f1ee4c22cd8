//! Portico with a Gateway, routes and a Service, from manifests.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::objects::{CHAIN, HostRoute, POLICY, consumer, plugins};
use super::variant::CHAIN_HOST;
use super::{HOST, KeyPair, Server, Site, counted, free_address, pinned, start};
use crate::token_pool::TOKEN_HOST;

/// Settings for starting Portico.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// The name of the server, in which it differs from other servers of the same site.
    pub(crate) name: &'static str,
    pub(crate) binary: &'a Path,
    pub(crate) site: Site<'a>,
    /// Flags in addition to those of every measurement.
    pub(crate) flags: &'a [&'a str],
    /// Objects in addition to those of the site, as YAML documents.
    pub(crate) objects: &'a str,
    /// Filters of the route with the chain, as the items of a list.
    pub(crate) filters: &'a str,
    /// Listener for Ingresses, if any.
    pub(crate) ingress: Option<SocketAddr>,
}

impl<'a> Setup<'a> {
    /// The routes of the site, and no further settings.
    pub(crate) fn new(binary: &'a Path, site: Site<'a>) -> Setup<'a> {
        Setup { name: "portico", binary, site, flags: &[], objects: "", filters: "", ingress: None }
    }
}

pub(crate) fn portico(cores: &[usize], setup: &Setup<'_>) -> Result<Server> {
    start_portico(pinned(cores, setup.binary), setup)
}

/// Portico under valgrind, whose dumps are `counts_file` with a number.
pub(crate) fn counted_portico(counts_file: &Path, setup: &Setup<'_>) -> Result<Server> {
    start_portico(counted(counts_file, setup.binary), setup)
}

fn start_portico(mut command: Command, setup: &Setup<'_>) -> Result<Server> {
    let (address, secure) = (free_address()?, free_address()?);
    let site = &setup.site;
    let folder = site.folder_of(setup.name)?;
    let manifests = folder.join("manifests");
    fs::create_dir_all(&manifests)?;
    let objects =
        base_objects(address, secure, site.backend, site.key_pair)? + &routes(site, setup.filters) + setup.objects;
    fs::write(manifests.join("all.yaml"), objects)?;
    command.args(["run", "--admin-listen", "off", "--status-listen", "127.0.0.1:0"]);
    command.args(["--workers", &site.variant.workers.to_string()]);
    let access_log = if site.access_log { folder.join("access.log") } else { "off".into() };
    command.arg("--manifests").arg(&manifests).arg("--access-log").arg(access_log).args(setup.flags);
    if let Some(address) = setup.ingress {
        command.args(["--ingress-http-listen", &address.to_string()]);
    }
    start(setup.name, site.variant, (address, secure), command, folder.join("output"))
}

/// The routes of the site's variant, the plugins and the consumer of its chain, and its policy, as YAML documents. The
/// route with the chain has these filters.
fn routes(site: &Site<'_>, filters: &str) -> String {
    let mut objects = route_to_backend("bench", HOST, &[], "");
    for host in site.variant.further_hosts() {
        objects += &route_to_backend(host.split('.').next().unwrap_or_default(), &host, &[], "");
    }
    if let Some(length) = site.variant.chain {
        let chain = &CHAIN[..length];
        objects += &route_to_backend("chain", CHAIN_HOST, chain, filters);
        objects += &plugins(chain);
        objects += &consumer(&["bench-key"]);
    }
    if site.variant.policy {
        objects += POLICY;
    }
    if let Some(tokens) = site.variant.tokens {
        objects += &route_to_backend("token", TOKEN_HOST, &["jwt"], "");
        objects += &plugins(&["jwt"]);
        objects += &consumer(&["bench-token"]);
        objects += &tokens.algorithm.pool().expect("a key can be made").secret();
    }
    objects
}

fn route_to_backend(name: &str, host: &str, plugins: &[&str], filters: &str) -> String {
    HostRoute { name, host, plugins, service: "backend", filters }.to_yaml()
}

/// A Gateway with a listener with TLS and one without, and the Service of the backend, as YAML.
fn base_objects(address: SocketAddr, secure: SocketAddr, backend: SocketAddr, key: &KeyPair) -> Result<String> {
    let (port, secure, backend) = (address.port(), secure.port(), backend.port());
    let indented = |path: &Path| Ok::<_, anyhow::Error>(fs::read_to_string(path)?.replace('\n', "\n    "));
    let (certificate, key) = (indented(&key.certificate)?, indented(&key.key)?);
    Ok(format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: portico
spec:
  controllerName: portico.dev/gateway-controller
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: bench
spec:
  gatewayClassName: portico
  listeners:
    - name: http
      port: {port}
      protocol: HTTP
    - name: https
      port: {secure}
      protocol: HTTPS
      tls:
        certificateRefs:
          - name: certificate
---
apiVersion: v1
kind: Service
metadata:
  name: backend
  annotations:
    portico.dev/address: 127.0.0.1
spec:
  ports:
    - port: 80
      targetPort: {backend}
---
apiVersion: v1
kind: Secret
metadata:
  name: certificate
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {certificate}
  tls.key: |
    {key}
"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::variant::ServerVariant;
    use crate::server::with_test_site;
    use crate::token_pool::{TokenAlgorithm, TokenLoad};

    const TOKENS: TokenLoad = TokenLoad { algorithm: TokenAlgorithm::EdDsa, tokens: 1 };

    #[test]
    fn manifests_have_the_routes_and_plugins_of_the_variant() {
        let plain = ServerVariant::PLAIN;
        for (variant, http_routes, kong_plugins) in [
            (plain, 1, 0),
            (ServerVariant { policy: true, ..plain }, 1, 0),
            (ServerVariant { routes: 20, ..plain }, 20, 0),
            (ServerVariant { chain: Some(0), ..plain }, 2, 0),
            (ServerVariant { chain: Some(CHAIN.len()), ..plain }, 2, CHAIN.len()),
            (ServerVariant { tokens: Some(TOKENS), ..plain }, 2, 1),
        ] {
            let mut objects = String::new();
            with_test_site(variant, |site| objects = routes(site, "{type: A}"));
            assert_eq!(objects.matches("\nkind: HTTPRoute\n").count(), http_routes, "{variant:?}");
            assert_eq!(objects.matches("\nkind: KongPlugin\n").count(), kong_plugins, "{variant:?}");
            assert_eq!(objects.matches("\nkind: BackendPolicy\n").count(), usize::from(variant.policy), "{variant:?}");
            let filtered = usize::from(variant.chain.is_some());
            assert_eq!(objects.matches("filters: [{type: A}]").count(), filtered, "{variant:?}");
        }
    }
}
