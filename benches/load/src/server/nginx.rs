//! nginx with one worker.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{HOST, Server, Site, counted, free_address, pinned, start};

pub(crate) fn nginx(binary: &Path, core: usize, site: &Site<'_>) -> Result<Server> {
    start_nginx(pinned(core, binary), site)
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
    start("nginx", (address, secure), command, folder.join("output"))
}

/// Configures nginx like Portico: a buffered access log, memory for long bodies, which nginx would otherwise write to
/// disk, uploads that are passed on as they arrive, and the same added headers. `keepalive_requests` must exceed its
/// default of 1,000, at which nginx would close keep-alive connections of the load.
fn nginx_conf(folder: &Path, address: SocketAddr, secure: SocketAddr, site: &Site<'_>) -> String {
    let folder = folder.display();
    let (certificate, key) = (site.key_pair.certificate.display(), site.key_pair.key.display());
    let backend = site.backend;
    let access_log =
        if site.access_log { format!("{folder}/access.log json buffer=64k flush=1s") } else { "off".to_owned() };
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
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    upstream backend {{
        server {backend};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address} default_server;
        listen {secure} ssl http2 default_server;
        return 404;
    }}
    server {{
        listen {address} backlog=4096;
        listen {secure} ssl http2 backlog=4096;
        server_name {HOST};
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_buffers 8 16k;
            proxy_max_temp_file_size 0;
            proxy_request_buffering off;
            client_max_body_size 0;
            client_body_buffer_size 128k;
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
