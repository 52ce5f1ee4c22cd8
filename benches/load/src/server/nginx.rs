//! nginx, with a process for each worker.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::variant::ServerVariant;
use super::{CACHE_HOST, H2C_HOST, HOST, Server, Site, WEBSOCKET_HOST, counted, free_address, pinned, start};
use crate::websocket;

pub(crate) fn nginx(binary: &Path, cores: &[usize], site: &Site<'_>) -> Result<Server> {
    start_nginx(pinned(cores, binary), site)
}

/// nginx under valgrind, as a single process, since valgrind counts per process.
pub(crate) fn counted_nginx(binary: &Path, counts_file: &Path, site: &Site<'_>) -> Result<Server> {
    let mut command = counted(counts_file, binary);
    command.args(["-g", "master_process off;"]);
    start_nginx(command, site)
}

fn start_nginx(mut command: Command, site: &Site<'_>) -> Result<Server> {
    let (address, secure) = (free_address()?, free_address()?);
    let folder = site.folder_of("nginx")?;
    let configuration = folder.join("nginx.conf");
    fs::write(&configuration, nginx_conf(&folder, address, secure, site))?;
    command.arg("-e").arg(folder.join("error.log")).arg("-c").arg(&configuration);
    start("nginx", site.variant, (address, secure), command, folder.join("output"))
}

/// Configures nginx like Portico: a buffered access log, memory for long bodies, which nginx would otherwise write to
/// disk, uploads that are passed on as they arrive, and the same added headers. `keepalive_requests` must exceed its
/// default of 1,000, at which nginx would close keep-alive connections of the load. nginx uses HTTP/2 to backends
/// for gRPC only.
fn nginx_conf(folder: &Path, address: SocketAddr, secure: SocketAddr, site: &Site<'_>) -> String {
    let folder = folder.display();
    let backend = site.backend;
    let workers = site.variant.workers;
    // Without it, a worker that is awake accepts most connections.
    let reuseport = if workers > 1 { " reuseport" } else { "" };
    // Not for all servers: nginx creates a TLS context for each one that has a certificate or inherits it.
    let certificate = format!(
        "ssl_certificate {}; ssl_certificate_key {};",
        site.key_pair.certificate.display(),
        site.key_pair.key.display()
    );
    let (proxy_fields, grpc_fields) = (request_fields("proxy_set_header"), request_fields("grpc_set_header"));
    let access_log =
        if site.access_log { format!("{folder}/access.log json buffer=64k flush=1s") } else { "off".to_owned() };
    let websocket_path = websocket::PATH;
    let further_servers = further_servers(site.variant, address);
    format!(
        r#"daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
events {{ worker_connections 32768; }}
http {{
    log_format json escape=json '{{"time":"$time_iso8601","client":"$remote_addr","method":"$request_method",'
        '"host":"$http_host","path":"$request_uri","status":$status,"bytes_in":$request_length,'
        '"bytes_out":$body_bytes_sent,"duration":$request_time,"upstream":"$upstream_addr","id":"$request_id",'
        '"agent":"$http_user_agent"}}';
    access_log {access_log};
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
    ssl_protocols TLSv1.2 TLSv1.3;
    proxy_http_version 1.1;
    proxy_buffers 8 16k;
    proxy_max_temp_file_size 0;
    proxy_request_buffering off;
    client_max_body_size 0;
    client_body_buffer_size 128k;
    proxy_set_header Connection "";
{proxy_fields}    add_header X-Request-Id $request_id always;
    upstream backend {{
        server {backend};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    upstream h2c {{
        server {backend};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address} default_server;
        listen {secure} ssl http2 default_server;
        {certificate}
        return 404;
    }}
    server {{
        listen {address} backlog=4096{reuseport};
        listen {secure} ssl http2 backlog=4096{reuseport};
        {certificate}
        server_name {HOST};
        location / {{ proxy_pass http://backend; }}
        location = {websocket_path} {{
            proxy_pass http://backend;
            proxy_read_timeout 600s;
            proxy_set_header Connection "upgrade";
            proxy_set_header Upgrade $http_upgrade;
{proxy_fields}        }}
    }}
    server {{
        listen {address};
        listen {secure} ssl http2;
        {certificate}
        server_name {WEBSOCKET_HOST};
        location / {{
            proxy_pass http://backend;
            proxy_read_timeout 600s;
            proxy_buffer_size 64k;
            proxy_buffers 8 64k;
            proxy_set_header Connection "upgrade";
            proxy_set_header Upgrade $http_upgrade;
{proxy_fields}        }}
    }}
    proxy_cache_path {folder}/cache keys_zone=responses:10m max_size=100m inactive=1h;
    server {{
        listen {address};
        listen {secure} ssl http2;
        {certificate}
        server_name {CACHE_HOST};
        location / {{
            proxy_pass http://backend;
            proxy_cache responses;
            proxy_cache_valid 200 1h;
            sendfile on;
            add_header X-Request-Id $request_id always;
            add_header X-Cache-Status $upstream_cache_status always;
        }}
    }}
    server {{
        listen {address};
        listen {secure} ssl http2;
        {certificate}
        server_name {H2C_HOST};
        location / {{
            grpc_pass grpc://h2c;
{grpc_fields}        }}
    }}
{further_servers}}}
"#
    )
}

/// The fields that nginx adds to requests, as lines with this directive. A location with such a directive inherits none
/// of them, so it repeats all.
fn request_fields(directive: &str) -> String {
    let fields = [
        ("Host", "$http_host"),
        ("X-Forwarded-For", "$remote_addr"),
        ("X-Forwarded-Proto", "$scheme"),
        ("X-Forwarded-Host", "$http_host"),
        ("X-Forwarded-Port", "$server_port"),
        ("X-Request-Id", "$request_id"),
    ];
    fields.map(|(name, value)| format!("    {directive} {name} {value};\n")).concat()
}

/// A server for each further route, which nginx finds in its hash of names.
fn further_servers(variant: ServerVariant, address: SocketAddr) -> String {
    if variant.routes == 1 {
        return String::new();
    }
    let server = |host: String| {
        format!("    server {{ listen {address}; server_name {host}; location / {{ proxy_pass http://backend; }} }}\n")
    };
    let servers: String = variant.further_hosts().map(server).collect();
    // The default is 512 buckets, too few for more than some hundred names.
    format!("    server_names_hash_max_size 65536;\n{servers}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_further_routes_have_servers_of_their_own() {
        let address = SocketAddr::from(([127, 0, 0, 1], 8080));
        let servers = |routes| further_servers(ServerVariant { routes, ..ServerVariant::PLAIN }, address);
        assert_eq!(servers(1), "");
        assert_eq!(servers(1000).matches("    server { listen 127.0.0.1:8080; server_name r").count(), 999);
    }
}
