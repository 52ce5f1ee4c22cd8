//! Portico and its peers as proxies of TCP, TLS passthrough and UDP, with one worker each and without access logs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde_json::json;

use super::variant::ServerVariant;
use super::{HOST, Server, free_address, pinned, start};

/// Where a proxy listens, and the backend.
struct Listeners<'a> {
    folder: &'a Path,
    /// The address for TCP, and for UDP if the proxy supports it.
    plain: SocketAddr,
    /// The address for TLS that is passed through by server name.
    tls: SocketAddr,
    /// The address of the backend for TCP and for UDP.
    backend: SocketAddr,
}

/// Starts Portico, or a peer, with a folder of its own. The address of the server is that for TCP and UDP.
pub(crate) fn start_streams(
    peer: Option<StreamPeer>,
    binary: &Path,
    core: usize,
    folder: &Path,
    backend: SocketAddr,
) -> Result<Server> {
    let name = peer.map_or("portico", StreamPeer::name);
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    let listeners = Listeners { folder: &folder, plain: free_address()?, tls: free_address()?, backend };
    let mut command = pinned(&[core], binary);
    match peer {
        None => portico(&mut command, &listeners)?,
        Some(StreamPeer::Nginx) => nginx(&mut command, &listeners)?,
        Some(StreamPeer::Haproxy) => haproxy(&mut command, &listeners)?,
        Some(StreamPeer::Envoy) => envoy(&mut command, &listeners)?,
    }
    start(name, ServerVariant::PLAIN, (listeners.plain, listeners.tls), command, folder.join("output"))
}

/// A proxy whose forwarding is compared with Portico's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamPeer {
    Nginx,
    Haproxy,
    Envoy,
}

impl StreamPeer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            StreamPeer::Nginx => "nginx",
            StreamPeer::Haproxy => "haproxy",
            StreamPeer::Envoy => "envoy",
        }
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, text)?;
    Ok(path)
}

fn portico(command: &mut Command, listeners: &Listeners<'_>) -> Result<()> {
    let (plain, tls, backend) = (listeners.plain.port(), listeners.tls.port(), listeners.backend.port());
    let route = |kind: &str, more: &str| {
        let section = kind.trim_end_matches("Route").to_lowercase();
        format!(
            "---
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{ name: {section} }}
spec:
  parentRefs: [{{ name: bench, sectionName: {section} }}]
{more}  rules: [{{ backendRefs: [{{ name: backend, port: 80 }}] }}]
"
        )
    };
    let objects = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{ name: portico }}
spec: {{ controllerName: portico.dev/gateway-controller }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{ name: bench }}
spec:
  gatewayClassName: portico
  listeners:
  - {{ name: tcp, port: {plain}, protocol: TCP }}
  - {{ name: udp, port: {plain}, protocol: UDP }}
  - {{ name: tls, port: {tls}, protocol: TLS, tls: {{ mode: Passthrough }} }}
---
apiVersion: v1
kind: Service
metadata: {{ name: backend, annotations: {{ portico.dev/address: 127.0.0.1 }} }}
spec:
  ports:
  - {{ name: tcp, port: 80, targetPort: {backend} }}
  - {{ name: udp, port: 80, protocol: UDP, targetPort: {backend} }}
"
    );
    let routes = [route("TCPRoute", ""), route("UDPRoute", ""), route("TLSRoute", &format!("  hostnames: [{HOST}]\n"))];
    let manifests = listeners.folder.join("manifests");
    fs::create_dir_all(&manifests)?;
    write(&manifests, "all.yaml", &(objects + &routes.concat()))?;
    command.args(["run", "--admin-listen", "off", "--status-listen", "127.0.0.1:0", "--workers", "1"]);
    command.args(["--access-log", "off", "--max-udp-sessions", "100000", "--manifests"]).arg(manifests);
    Ok(())
}

/// The module for streams is not part of `nginx-light`, but of `libnginx-mod-stream`. Without `reuseport`, nginx
/// cannot assign the datagrams of many clients to their sessions.
fn nginx(command: &mut Command, listeners: &Listeners<'_>) -> Result<()> {
    let Listeners { folder, plain, tls, backend } = listeners;
    let folder_name = folder.display();
    let configuration = format!(
        "load_module {NGINX_STREAM_MODULE};
daemon off;
worker_processes 1;
pid {folder_name}/nginx.pid;
events {{ worker_connections 65536; }}
stream {{
    proxy_timeout 600s;
    proxy_buffer_size 64k;
    tcp_nodelay on;
    map $ssl_preread_server_name $passed {{ {HOST} {backend}; }}
    server {{ listen {plain} backlog=4096; proxy_buffer_size 64k; proxy_pass {backend}; }}
    server {{ listen {tls} backlog=4096; ssl_preread on; proxy_pass $passed; }}
    server {{ listen {plain} udp reuseport; proxy_pass {backend}; }}
}}
"
    );
    let configuration = write(folder, "nginx.conf", &configuration)?;
    command.arg("-e").arg(folder.join("error.log")).arg("-c").arg(configuration);
    Ok(())
}

/// Where Debian installs the module.
pub(crate) const NGINX_STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// HAProxy does not forward UDP.
fn haproxy(command: &mut Command, listeners: &Listeners<'_>) -> Result<()> {
    let Listeners { folder, plain, tls, backend } = listeners;
    let configuration = format!(
        "global
    nbthread 1
    maxconn 65536
    no strict-limits
defaults
    mode tcp
    option splice-auto
    timeout connect 5s
    timeout client 600s
    timeout server 600s
frontend tcp
    bind {plain} backlog 4096
    default_backend backend
frontend tls
    bind {tls} backlog 4096
    tcp-request inspect-delay 5s
    tcp-request content accept if {{ req_ssl_hello_type 1 }}
    use_backend backend if {{ req_ssl_sni -i {HOST} }}
backend backend
    server backend {backend}
"
    );
    command.arg("-db").arg("-f").arg(write(folder, "haproxy.cfg", &configuration)?);
    Ok(())
}

fn envoy(command: &mut Command, listeners: &Listeners<'_>) -> Result<()> {
    let Listeners { folder, plain, tls, backend } = listeners;
    let socket = |address: &SocketAddr| json!({ "address": address.ip().to_string(), "port_value": address.port() });
    let to_backend = json!([{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "bench",
            "cluster": "backend",
        },
    }]);
    let inspector = json!([{
        "name": "envoy.filters.listener.tls_inspector",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        },
    }]);
    let mut udp_socket = socket(plain);
    udp_socket["protocol"] = json!("UDP");
    let udp_proxy = json!([{
        "name": "envoy.filters.udp_listener.udp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig",
            "stat_prefix": "bench",
            "matcher": { "on_no_match": { "action": {
                "name": "route",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.Route",
                    "cluster": "backend",
                },
            } } },
        },
    }]);
    let bootstrap = json!({ "static_resources": {
        "listeners": [
            {
                "name": "tcp",
                "address": { "socket_address": socket(plain) },
                "filter_chains": [{ "filters": to_backend }],
            },
            {
                "name": "tls",
                "address": { "socket_address": socket(tls) },
                "listener_filters": inspector,
                "filter_chains": [{ "filter_chain_match": { "server_names": [HOST] }, "filters": to_backend }],
            },
            {
                "name": "udp",
                "address": { "socket_address": udp_socket },
                "udp_listener_config": { "downstream_socket_config": { "max_rx_datagram_size": 9000 } },
                "listener_filters": udp_proxy,
            },
        ],
        "clusters": [{
            "name": "backend",
            "type": "STATIC",
            "circuit_breakers": { "thresholds": [{ "max_connections": 65536, "max_requests": 65536 }] },
            "load_assignment": { "cluster_name": "backend", "endpoints": [{ "lb_endpoints": [
                { "endpoint": { "address": { "socket_address": socket(backend) } } },
            ] }] },
        }],
    } });
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]);
    command.arg(write(folder, "envoy.json", &bootstrap.to_string())?);
    Ok(())
}
