//! Portico with a Gateway, a route and a Service, from manifests.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{HOST, KeyPair, Server, Site, counted, free_address, pinned, start};

/// Settings for starting Portico.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) site: Site<'a>,
    /// Flags in addition to those of every measurement.
    pub(crate) flags: &'a [&'a str],
    /// Objects in addition to the route to the backend, as YAML.
    pub(crate) objects: &'a str,
    /// Listener for Ingresses, if any.
    pub(crate) ingress: Option<SocketAddr>,
}

impl<'a> Setup<'a> {
    /// One route to the backend, and no further settings.
    pub(crate) fn new(binary: &'a Path, site: Site<'a>) -> Setup<'a> {
        Setup { binary, site, flags: &[], objects: "", ingress: None }
    }
}

pub(crate) fn portico(core: usize, setup: &Setup<'_>) -> Result<Server> {
    start_portico(pinned(core, setup.binary), setup)
}

/// Portico under valgrind, which writes its counts to `counts_file` at the end.
pub(crate) fn counted_portico(counts_file: &Path, setup: &Setup<'_>) -> Result<Server> {
    start_portico(counted(counts_file, setup.binary), setup)
}

fn start_portico(mut command: Command, setup: &Setup<'_>) -> Result<Server> {
    let (address, secure) = (free_address()?, free_address()?);
    let folder = setup.site.folder_of("portico")?;
    let manifests = folder.join("manifests");
    fs::create_dir_all(&manifests)?;
    let objects = base_objects(address, secure, setup.site.backend, setup.site.key_pair)? + "---\n" + setup.objects;
    fs::write(manifests.join("all.yaml"), objects)?;
    command.args(["run", "--workers", "1", "--admin-listen", "off", "--status-listen", "127.0.0.1:0"]);
    let access_log = if setup.site.access_log { folder.join("access.log") } else { "off".into() };
    command.arg("--manifests").arg(&manifests).arg("--access-log").arg(access_log).args(setup.flags);
    if let Some(address) = setup.ingress {
        command.args(["--ingress-http-listen", &address.to_string()]);
    }
    start("portico", (address, secure), command, folder.join("output"))
}

/// A Gateway with a listener with TLS and one without, and a route to the backend, as YAML.
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
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: bench
spec:
  parentRefs:
    - name: bench
  hostnames: [{HOST}]
  rules:
    - backendRefs:
        - name: backend
          port: 80
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
