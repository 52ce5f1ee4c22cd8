//! Starts Portico and nginx so that both do the same work: one worker, a pinned core, keep-alive connections to the
//! backend, the same added request headers, and an access log on disk.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::process::Process;

/// The host of all requests.
pub const HOST: &str = "bench.example";

pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// The address of the listener with TLS.
    pub(crate) tls_address: SocketAddr,
    child: Child,
    output: PathBuf,
}

impl Server {
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// Output of the server, for error messages.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx forwards SIGTERM to its workers; SIGKILL would leave them running.
        let terminated = Command::new("kill").arg(self.child.id().to_string()).status();
        if !terminated.is_ok_and(|status| status.success()) {
            self.child.kill().ok();
        }
        self.child.wait().ok();
    }
}

/// Settings for starting Portico.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) folder: &'a Path,
    pub(crate) backend: SocketAddr,
    pub(crate) key_pair: &'a KeyPair,
    /// Flags in addition to those of every measurement.
    pub(crate) flags: &'a [&'a str],
    /// Objects in addition to the route to the backend, as YAML.
    pub(crate) objects: &'a str,
    /// Listener for Ingresses, if any.
    pub(crate) ingress: Option<SocketAddr>,
    /// Whether requests are logged to a file.
    pub(crate) access_log: bool,
}

pub(crate) fn portico(core: usize, setup: &Setup<'_>) -> Result<Server> {
    start_portico(pinned(core, setup.binary), setup)
}

/// Portico under valgrind, which writes its counts to `counts_file` at the end.
pub(crate) fn counted_portico(counts_file: &Path, setup: &Setup<'_>) -> Result<Server> {
    start_portico(counted(counts_file, setup.binary), setup)
}

/// The command that runs a program under callgrind.
fn counted(counts_file: &Path, binary: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", counts_file.display())).arg(binary);
    command
}

fn start_portico(mut command: Command, setup: &Setup<'_>) -> Result<Server> {
    let (address, secure) = (free_address()?, free_address()?);
    let folder = setup.folder.join("portico");
    let manifests = folder.join("manifests");
    fs::create_dir_all(&manifests)?;
    let objects = base_objects(address, secure, setup.backend, setup.key_pair)? + "---\n" + setup.objects;
    fs::write(manifests.join("all.yaml"), objects)?;
    command.args(["run", "--workers", "1", "--admin-listen", "off", "--status-listen", "127.0.0.1:0"]);
    let access_log = if setup.access_log { folder.join("access.log") } else { "off".into() };
    command.arg("--manifests").arg(&manifests).arg("--access-log").arg(access_log).args(setup.flags);
    if let Some(address) = setup.ingress {
        command.args(["--ingress-http-listen", &address.to_string()]);
    }
    start("portico", (address, secure), command, folder.join("output"))
}

pub(crate) fn nginx(binary: &Path, core: usize, folder: &Path, backend: SocketAddr, key: &KeyPair) -> Result<Server> {
    start_nginx(pinned(core, binary), folder, backend, key)
}

/// nginx as a single process, since valgrind counts per process.
pub(crate) fn counted_nginx(
    binary: &Path,
    counts_file: &Path,
    folder: &Path,
    backend: SocketAddr,
    key: &KeyPair,
) -> Result<Server> {
    let mut command = counted(counts_file, binary);
    command.args(["-g", "master_process off;"]);
    start_nginx(command, folder, backend, key)
}

fn start_nginx(mut command: Command, folder: &Path, backend: SocketAddr, key: &KeyPair) -> Result<Server> {
    let (address, secure) = (free_address()?, free_address()?);
    let folder = folder.join("nginx");
    fs::create_dir_all(&folder)?;
    let configuration = folder.join("nginx.conf");
    fs::write(&configuration, nginx_conf(&folder, address, secure, backend, key))?;
    command.arg("-e").arg(folder.join("error.log")).arg("-c").arg(&configuration);
    start("nginx", (address, secure), command, folder.join("output"))
}

/// The command that runs a program on one core.
fn pinned(core: usize, binary: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(binary);
    command
}

fn start(
    name: &'static str,
    (address, secure): (SocketAddr, SocketAddr),
    mut command: Command,
    output: PathBuf,
) -> Result<Server> {
    let file = File::create(&output)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let child = command.spawn().with_context(|| format!("cannot start {name} with {command:?}"))?;
    Ok(Server { name, address, tls_address: secure, child, output })
}

/// A loopback address with a port that was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// PEM files of a certificate and its key.
pub(crate) struct KeyPair {
    certificate: PathBuf,
    key: PathBuf,
}

/// Writes a self-signed certificate for [`HOST`] and its key.
pub(crate) fn write_certificate(folder: &Path) -> Result<KeyPair> {
    let generated = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
    let pair = KeyPair { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
    fs::write(&pair.certificate, generated.cert.pem())?;
    fs::write(&pair.key, generated.signing_key.serialize_pem())?;
    Ok(pair)
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

/// Configures nginx like Portico: a buffered access log, memory for the longest body, which nginx would otherwise write
/// to disk, and the same added headers. `keepalive_requests` must exceed its default of 1,000, at which nginx would
/// close keep-alive connections of the load.
fn nginx_conf(folder: &Path, address: SocketAddr, secure: SocketAddr, backend: SocketAddr, key: &KeyPair) -> String {
    let (folder, certificate, key) = (folder.display(), key.certificate.display(), key.key.display());
    format!(
        r#"daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 32768; }}
http {{
    log_format json escape=json '{{"time":"$time_iso8601","client":"$remote_addr","method":"$request_method",'
        '"host":"$http_host","path":"$request_uri","status":$status,"bytes_in":$request_length,'
        '"bytes_out":$body_bytes_sent,"duration":$request_time,"upstream":"$upstream_addr","id":"$request_id",'
        '"agent":"$http_user_agent"}}';
    access_log {folder}/access.log json buffer=64k flush=1s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    tcp_nodelay on;
    server_tokens off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    http2_max_concurrent_streams 128;
    upstream backend {{
        server {backend};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address} backlog=4096;
        listen {secure} ssl http2 backlog=4096;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        server_name {HOST};
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_buffers 8 16k;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Port $server_port;
            proxy_set_header X-Request-Id $request_id;
            add_header X-Request-Id $request_id always;
        }}
    }}
}}
"#
    )
}
