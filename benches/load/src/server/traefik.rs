//! Traefik, with a scheduler thread for each worker.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{H2C_HOST, HOST, Server, Site, WEBSOCKET_HOST, free_address, pinned, start};

pub(crate) fn traefik(binary: &Path, cores: &[usize], site: &Site<'_>) -> Result<Server> {
    let (address, secure) = (free_address()?, free_address()?);
    let folder = site.folder_of("traefik")?;
    // JSON is YAML.
    let file = folder.join("routes.yml");
    fs::write(&file, routes(site).to_string())?;
    let mut command = pinned(cores, binary);
    command.env("GOMAXPROCS", site.variant.workers.to_string());
    command.args(["--global.checkNewVersion=false", "--global.sendAnonymousUsage=false", "--log.level=ERROR"]);
    command.arg(format!("--providers.file.filename={}", file.display()));
    for (entry_point, address) in [("plain", address), ("tls", secure)] {
        let option = |name: &str, value: &str| format!("--entryPoints.{entry_point}.{name}={value}");
        command.arg(option("address", &address.to_string()));
        command.arg(option("http2.maxConcurrentStreams", "128"));
        // Traefik would wait for its connections when it ends, and close those that are idle for three minutes.
        command.arg(option("transport.lifeCycle.graceTimeOut", "0s"));
        command.arg(option("transport.respondingTimeouts.idleTimeout", "600s"));
    }
    if site.access_log {
        command.arg(format!("--accessLog.filePath={}", folder.join("access.log").display()));
        command.args(["--accessLog.format=json", "--accessLog.bufferingSize=1000"]);
    }
    start("traefik", site.variant, (address, secure), command, folder.join("output"))
}

/// Configures Traefik like Portico. It sets the fields of `X-Forwarded-` by itself, but cannot make request IDs: every
/// request has the same one.
fn routes(site: &Site<'_>) -> Value {
    let mut routers = Map::new();
    let hosts = [(HOST, "backend"), (WEBSOCKET_HOST, "backend"), (H2C_HOST, "h2c")];
    let hosts = hosts.map(|(host, service)| (host.to_owned(), service)).into_iter();
    for (host, service) in hosts.chain(site.variant.further_hosts().map(|host| (host, "backend"))) {
        let router = json!({
            "rule": format!("Host(`{host}`)"),
            "service": service,
            "entryPoints": ["plain"],
            "middlewares": ["request-id"],
        });
        let mut with_tls = router.clone();
        with_tls["entryPoints"] = json!(["tls"]);
        with_tls["tls"] = json!({});
        routers.insert(format!("{host}-tls"), with_tls);
        routers.insert(host, router);
    }
    let service = |scheme: &str| {
        json!({ "loadBalancer": {
            "servers": [{ "url": format!("{scheme}://{}", site.backend) }],
            "serversTransport": "kept",
        } })
    };
    let request_id = json!({ "X-Request-Id": REQUEST_ID });
    json!({
        "http": {
            "routers": routers,
            "services": { "backend": service("http"), "h2c": service("h2c") },
            "middlewares": { "request-id": { "headers": {
                "customRequestHeaders": request_id,
                "customResponseHeaders": request_id,
            } } },
            "serversTransports": { "kept": { "maxIdleConnsPerHost": 1024 } },
        },
        "tls": {
            "options": { "default": { "curvePreferences": ["X25519"] } },
            "stores": { "default": { "defaultCertificate": {
                "certFile": site.key_pair.certificate,
                "keyFile": site.key_pair.key,
            } } },
        },
    })
}

/// As long as that of the others.
const REQUEST_ID: &str = "00000000-0000-4000-8000-000000000000";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::variant::ServerVariant;
    use crate::server::with_test_site;

    #[test]
    fn each_host_has_a_router_for_each_entry_point() {
        with_test_site(ServerVariant { routes: 1000, ..ServerVariant::PLAIN }, |site| {
            let routes = routes(site);
            // Those for WebSockets and HTTP/2 to the backend are in addition.
            let routers = routes["http"]["routers"].as_object().unwrap();
            assert_eq!(routers.len(), 2 * 1002);
            assert_eq!(routers["r0001.example"]["rule"], "Host(`r0001.example`)");
            assert_eq!(routers["r0001.example-tls"]["entryPoints"], json!(["tls"]));
            assert_eq!(routers[H2C_HOST]["service"], "h2c");
            assert_eq!(routes["http"]["services"]["h2c"]["loadBalancer"]["servers"][0]["url"], "h2c://127.0.0.1:9000");
        });
    }
}
