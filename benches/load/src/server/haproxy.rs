//! HAProxy, with a thread for each worker.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use super::variant::ServerVariant;
use super::{H2C_HOST, HOST, Server, Site, WEBSOCKET_HOST, free_address, pinned, start};

pub(crate) fn haproxy(binary: &Path, cores: &[usize], site: &Site<'_>) -> Result<Server> {
    let (address, secure) = (free_address()?, free_address()?);
    let folder = site.folder_of("haproxy")?;
    let configuration = folder.join("haproxy.cfg");
    let map = folder.join("hosts.map");
    fs::write(&map, hosts_map(site.variant))?;
    fs::write(&configuration, haproxy_cfg(&map, address, secure, site))?;
    let mut command = pinned(cores, binary);
    // In the foreground, as a single process.
    command.arg("-db").arg("-f").arg(&configuration);
    start("haproxy", site.variant, (address, secure), command, folder.join("output"))
}

/// Configures HAProxy like Portico. Bodies are spliced where HAProxy expects an advantage from that. HAProxy writes
/// each line of its access log at once, here to its standard output, which is a file: it has no buffer for lines.
fn haproxy_cfg(map: &Path, address: SocketAddr, secure: SocketAddr, site: &Site<'_>) -> String {
    let (certificate, backend) = (site.key_pair.both.display(), site.backend);
    let access_log = if site.access_log { LOG } else { "" };
    let threads = site.variant.workers;
    // Few hosts need no map. If the map lacks the host of a request, the result is no backend, and the response 503.
    let routes = if site.variant.routes == 1 {
        format!(
            "use_backend bench if {{ hdr(host),field(1,:) -i {HOST} {WEBSOCKET_HOST} }}
    use_backend h2c if {{ hdr(host),field(1,:) -i {H2C_HOST} }}"
        )
    } else {
        format!("use_backend %[req.hdr(host),field(1,:),lower,map({})]", map.display())
    };
    format!(
        r#"global
    nbthread {threads}
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
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
    http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request set-header X-Request-Id %[unique-id]
    http-response set-header X-Request-Id %[unique-id]
{access_log}    {routes}
backend bench
    server backend {backend}
backend h2c
    server backend {backend} proto h2
"#
    )
}

/// The backend of each host.
fn hosts_map(variant: ServerVariant) -> String {
    let hosts = [HOST, WEBSOCKET_HOST].map(str::to_owned).into_iter().chain(variant.further_hosts());
    let map: String = hosts.map(|host| format!("{host} bench\n")).collect();
    map + &format!("{H2C_HOST} h2c\n")
}

/// One JSON object for each request.
const LOG: &str = r#"    log stdout format raw local0 info
    capture request header Host len 128
    capture request header User-Agent len 128
    log-format '{"time":"%T","client":"%ci","method":"%HM","host":"%[capture.req.hdr(0),json(utf8s)]","path":"%[capture.req.uri,json(utf8s)]","status":%ST,"bytes_in":%U,"bytes_out":%B,"duration":%Ta,"upstream":"%si:%sp","id":"%ID","agent":"%[capture.req.hdr(1),json(utf8s)]"}'
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_has_the_hosts_of_all_routes() {
        let map = hosts_map(ServerVariant { routes: 1000, ..ServerVariant::PLAIN });
        // Those for WebSockets and HTTP/2 to the backend are in addition.
        assert_eq!(map.lines().count(), 1002);
        assert_eq!(map.lines().filter(|line| line.ends_with(".example bench")).count(), 1001);
        assert!(map.starts_with("bench.example bench\nwebsocket.bench.example bench\nr0001.example bench\n"), "{map}");
        assert!(map.ends_with("\nh2c.bench.example h2c\n"), "{map}");
    }
}
