//! Envoy with one worker thread.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{HOST, Server, Site, free_address, pinned, start};

pub(crate) fn envoy(binary: &Path, core: usize, site: &Site<'_>) -> Result<Server> {
    let (address, secure) = (free_address()?, free_address()?);
    let folder = site.folder_of("envoy")?;
    let configuration = folder.join("envoy.json");
    fs::write(&configuration, bootstrap(&folder, address, secure, site).to_string())?;
    let mut command = pinned(core, binary);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]).arg(&configuration);
    start("envoy", (address, secure), command, folder.join("output"))
}

/// Configures Envoy like Portico: it makes request ids, adds the same headers, and buffers its access log.
fn bootstrap(folder: &Path, address: SocketAddr, secure: SocketAddr, site: &Site<'_>) -> Value {
    let socket = |address: SocketAddr| json!({ "address": address.ip().to_string(), "port_value": address.port() });
    let access_log = if site.access_log { vec![access_log(folder)] } else { vec![] };
    let header = |name: &str, value: &str| json!({ "header": { "key": name, "value": value }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" });
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "use_remote_address": true,
        "always_set_request_id_in_response": true,
        "http2_protocol_options": { "max_concurrent_streams": 128 },
        "access_log": access_log,
        "route_config": { "virtual_hosts": [{
            "name": "bench",
            "domains": [HOST, format!("{HOST}:*")],
            "request_headers_to_add": [
                header("X-Forwarded-Host", "%REQ(:AUTHORITY)%"),
                header("X-Forwarded-Port", "%DOWNSTREAM_LOCAL_PORT%"),
            ],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "backend", "timeout": "0s" } }],
        }] },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    });
    let filters = json!([{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }]);
    let tls = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [{
                    "certificate_chain": { "filename": site.key_pair.certificate },
                    "private_key": { "filename": site.key_pair.key },
                }],
            },
        },
    });
    json!({ "static_resources": {
        "listeners": [
            {
                "name": "http",
                "address": { "socket_address": socket(address) },
                "filter_chains": [{ "filters": filters }],
            },
            {
                "name": "https",
                "address": { "socket_address": socket(secure) },
                "filter_chains": [{ "filters": filters, "transport_socket": tls }],
            },
        ],
        "clusters": [{
            "name": "backend",
            "type": "STATIC",
            "load_assignment": { "cluster_name": "backend", "endpoints": [{ "lb_endpoints": [
                { "endpoint": { "address": { "socket_address": socket(site.backend) } } },
            ] }] },
        }],
    } })
}

/// One JSON object for each request, in a file.
fn access_log(folder: &Path) -> Value {
    json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": folder.join("access.log"),
            "log_format": { "json_format": {
                "time": "%START_TIME%",
                "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
                "method": "%REQ(:METHOD)%",
                "host": "%REQ(:AUTHORITY)%",
                "path": "%REQ(:PATH)%",
                "status": "%RESPONSE_CODE%",
                "bytes_in": "%BYTES_RECEIVED%",
                "bytes_out": "%BYTES_SENT%",
                "duration": "%DURATION%",
                "upstream": "%UPSTREAM_HOST%",
                "id": "%REQ(X-REQUEST-ID)%",
                "agent": "%REQ(USER-AGENT)%",
            } },
        },
    })
}
