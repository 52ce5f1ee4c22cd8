//! Caddy, with a scheduler thread for each worker.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{H2C_HOST, HOST, Server, Site, WEBSOCKET_HOST, free_address, pinned, start};

pub(crate) fn caddy(binary: &Path, cores: &[usize], site: &Site<'_>) -> Result<Server> {
    let (address, secure) = (free_address()?, free_address()?);
    let folder = site.folder_of("caddy")?;
    let file = folder.join("caddy.json");
    fs::write(&file, configuration(&folder, address, secure, site).to_string())?;
    let mut command = pinned(cores, binary);
    command.args(["run", "--config"]).arg(&file);
    command.env("GOMAXPROCS", site.variant.workers.to_string());
    // Caddy writes its state to these folders.
    command.env("XDG_DATA_HOME", &folder).env("XDG_CONFIG_HOME", &folder);
    start("caddy", site.variant, (address, secure), command, folder.join("output"))
}

/// Configures Caddy like Portico. It sets `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` by itself.
fn configuration(folder: &Path, address: SocketAddr, secure: SocketAddr, site: &Site<'_>) -> Value {
    let server = |address: SocketAddr| {
        let mut server = json!({
            "listen": [address.to_string()],
            "automatic_https": { "disable": true },
            "routes": routes(address.port(), site),
        });
        if site.access_log {
            server["logs"] = json!({});
        }
        server
    };
    let (plain, mut with_tls) = (server(address), server(secure));
    with_tls["tls_connection_policies"] = json!([{ "curves": ["x25519"] }]);
    json!({
        "admin": { "disabled": true, "config": { "persist": false } },
        "logging": { "logs": {
            "default": { "level": "ERROR", "exclude": ["http.log.access"] },
            "access": {
                "include": ["http.log.access"],
                "writer": { "output": "file", "filename": folder.join("access.log") },
            },
        } },
        "apps": {
            // Without it, Caddy waits for its connections when it ends.
            "http": { "servers": { "plain": plain, "tls": with_tls }, "grace_period": "1ms" },
            "tls": { "certificates": { "load_files": [
                { "certificate": site.key_pair.certificate, "key": site.key_pair.key },
            ] } },
        },
    })
}

/// The hosts of all routes to a backend are those of one route, in which Caddy looks for a host with a binary search.
fn routes(port: u16, site: &Site<'_>) -> Vec<Value> {
    let route = |hosts: Vec<String>, versions: &[&str]| {
        json!({
            "match": [{ "host": hosts }],
            "terminal": true,
            "handle": [
                { "handler": "headers", "response": { "set": { "X-Request-Id": [REQUEST_ID] } } },
                {
                    "handler": "reverse_proxy",
                    "upstreams": [{ "dial": site.backend.to_string() }],
                    "headers": { "request": { "set": {
                        "X-Forwarded-Port": [port.to_string()],
                        "X-Request-Id": [REQUEST_ID],
                    } } },
                    "transport": {
                        "protocol": "http",
                        "versions": versions,
                        // The default is 32, fewer than there are clients.
                        "keep_alive": { "max_idle_conns_per_host": 1024 },
                    },
                },
            ],
        })
    };
    let hosts = [HOST, WEBSOCKET_HOST].map(str::to_owned).into_iter().chain(site.variant.further_hosts()).collect();
    vec![
        route(hosts, &["1.1"]),
        route(vec![H2C_HOST.to_owned()], &["h2c"]),
        // Without a route, Caddy responds with 200.
        json!({ "handle": [{ "handler": "static_response", "status_code": 404 }] }),
    ]
}

/// Each request has one ID, wherever it is used.
const REQUEST_ID: &str = "{http.request.uuid}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::variant::ServerVariant;
    use crate::server::with_test_site;

    #[test]
    fn the_first_route_has_all_hosts_of_one_backend() {
        with_test_site(ServerVariant { routes: 1000, ..ServerVariant::PLAIN }, |site| {
            let routes = routes(8080, site);
            // That for WebSockets is in addition.
            let hosts = routes[0]["match"][0]["host"].as_array().unwrap();
            assert_eq!(hosts.len(), 1001);
            assert_eq!([&hosts[0], &hosts[2]], ["bench.example", "r0001.example"]);
            assert_eq!(routes[1]["match"][0]["host"], json!([H2C_HOST]));
            // Requests for other hosts are not routed.
            assert_eq!(routes[2]["handle"][0]["status_code"], 404);
        });
    }
}
