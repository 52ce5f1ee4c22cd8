//! HAProxy with one thread.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use super::{HOST, Server, Site, free_address, pinned, start};

pub(crate) fn haproxy(binary: &Path, core: usize, site: &Site<'_>) -> Result<Server> {
    let (address, secure) = (free_address()?, free_address()?);
    let folder = site.folder_of("haproxy")?;
    let configuration = folder.join("haproxy.cfg");
    fs::write(&configuration, haproxy_cfg(address, secure, site))?;
    let mut command = pinned(core, binary);
    // In the foreground, as a single process.
    command.arg("-db").arg("-f").arg(&configuration);
    start("haproxy", (address, secure), command, folder.join("output"))
}

/// Configures HAProxy like Portico. Bodies are spliced where HAProxy expects an advantage from that. HAProxy writes
/// each line of its access log at once, here to its standard output, which is a file: it has no buffer for lines.
fn haproxy_cfg(address: SocketAddr, secure: SocketAddr, site: &Site<'_>) -> String {
    let (certificate, backend) = (site.key_pair.both.display(), site.backend);
    let access_log = if site.access_log { LOG } else { "" };
    format!(
        r#"global
    nbthread 1
    maxconn 32768
    no strict-limits
    tune.h2.max-concurrent-streams 128
defaults
    mode http
    option splice-auto
    http-reuse always
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout http-keep-alive 600s
frontend bench
    bind {address} backlog 4096
    bind {secure} ssl crt {certificate} alpn h2,http/1.1 curves X25519 backlog 4096
    unique-id-format %[uuid()]
    acl bench hdr(host),field(1,:) -i {HOST}
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
    http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request set-header X-Request-Id %[unique-id]
    http-response set-header X-Request-Id %[unique-id]
{access_log}    use_backend bench if bench
backend bench
    server backend {backend}
"#
    )
}

/// One JSON object for each request.
const LOG: &str = r#"    log stdout format raw local0 info
    capture request header Host len 128
    capture request header User-Agent len 128
    log-format '{"time":"%T","client":"%ci","method":"%HM","host":"%[capture.req.hdr(0),json(utf8s)]","path":"%[capture.req.uri,json(utf8s)]","status":%ST,"bytes_in":%U,"bytes_out":%B,"duration":%Ta,"upstream":"%si:%sp","id":"%ID","agent":"%[capture.req.hdr(1),json(utf8s)]"}'
"#;
