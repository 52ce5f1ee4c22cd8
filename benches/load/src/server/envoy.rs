//! Envoy, with a worker thread for each worker.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::variant::ServerVariant;
use super::{H2C_HOST, HOST, Server, Site, WEBSOCKET_HOST, free_address, pinned, start};
use crate::token_pool::{TOKEN_HOST, TokenLoad};

pub(crate) fn envoy(binary: &Path, cores: &[usize], site: &Site<'_>) -> Result<Server> {
    let (address, secure) = (free_address()?, free_address()?);
    let folder = site.folder_of("envoy")?;
    let configuration = folder.join("envoy.json");
    fs::write(&configuration, bootstrap(&folder, address, secure, site)?.to_string())?;
    let mut command = pinned(cores, binary);
    command.args(["--concurrency", &site.variant.workers.to_string()]);
    command.args(["--disable-hot-restart", "--log-level", "error", "-c"]).arg(&configuration);
    start("envoy", site.variant, (address, secure), command, folder.join("output"))
}

/// Configures Envoy like Portico: it makes request ids, adds the same headers, and buffers its access log.
fn bootstrap(folder: &Path, address: SocketAddr, secure: SocketAddr, site: &Site<'_>) -> Result<Value> {
    let socket = |address: SocketAddr| json!({ "address": address.ip().to_string(), "port_value": address.port() });
    let access_log = if site.access_log { vec![access_log(folder)] } else { vec![] };
    let header = |name: &str, value: &str| json!({ "header": { "key": name, "value": value }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" });
    let mut http_filters: Vec<Value> = site.variant.tokens.map(token_filter).transpose()?.into_iter().collect();
    http_filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
    }));
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "use_remote_address": true,
        "always_set_request_id_in_response": true,
        "http2_protocol_options": { "max_concurrent_streams": 128 },
        "access_log": access_log,
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "route_config": {
            "request_headers_to_add": [
                header("X-Forwarded-Host", "%REQ(:AUTHORITY)%"),
                header("X-Forwarded-Port", "%DOWNSTREAM_LOCAL_PORT%"),
            ],
            "virtual_hosts": virtual_hosts(site.variant),
        },
        "http_filters": http_filters,
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
    let cluster = |name: &str| {
        json!({
            "name": name,
            "type": "STATIC",
            // The default is 1024, fewer than there are WebSockets.
            "circuit_breakers": { "thresholds": [{ "max_connections": 32768, "max_requests": 32768 }] },
            "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [
                { "endpoint": { "address": { "socket_address": socket(site.backend) } } },
            ] }] },
        })
    };
    let mut h2c = cluster("h2c");
    h2c["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        },
    });
    Ok(json!({ "static_resources": {
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
        "clusters": [cluster("backend"), h2c],
    } }))
}

/// Verifies the tokens of requests to [`TOKEN_HOST`]. With one token, verified ones are cached, as Portico does.
fn token_filter(load: TokenLoad) -> Result<Value> {
    let provider = load.algorithm.pool()?.envoy_provider(load.tokens == 1)?;
    let of_host = json!({ "name": ":authority", "string_match": { "exact": TOKEN_HOST } });
    Ok(json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": { "bench": provider },
            "rules": [{
                "match": { "prefix": "/", "headers": [of_host] },
                "requires": { "provider_name": "bench" },
            }],
        },
    }))
}

/// A virtual host for each route, which Envoy finds in a map of hosts.
fn virtual_hosts(variant: ServerVariant) -> Vec<Value> {
    let virtual_host = |name: &str, cluster: &str, domains: &[String]| {
        json!({
            "name": name,
            "domains": domains,
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": cluster, "timeout": "0s" } }],
        })
    };
    let hosts = [("bench", "backend", HOST), ("websocket", "backend", WEBSOCKET_HOST), ("h2c", "h2c", H2C_HOST)];
    let mut all: Vec<Value> = hosts
        .into_iter()
        .map(|(name, cluster, host)| virtual_host(name, cluster, &[host.to_owned(), format!("{host}:*")]))
        .collect();
    if variant.tokens.is_some() {
        all.push(virtual_host("token", "backend", &[TOKEN_HOST.to_owned()]));
    }
    all.extend(variant.further_hosts().map(|host| virtual_host(&host, "backend", std::slice::from_ref(&host))));
    all
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token_pool::TokenAlgorithm;

    #[test]
    fn only_requests_to_one_host_need_a_token() {
        let load = TokenLoad { algorithm: TokenAlgorithm::EdDsa, tokens: 1 };
        let filter = token_filter(load).unwrap();
        assert_eq!(filter["typed_config"]["rules"][0]["match"]["headers"][0]["string_match"]["exact"], TOKEN_HOST);
        let caches = |filter: &Value| filter["typed_config"]["providers"]["bench"].get("jwt_cache_config").is_some();
        let uncached = token_filter(TokenLoad { tokens: 2, ..load }).unwrap();
        assert_eq!((caches(&filter), caches(&uncached)), (true, false));
        let all = virtual_hosts(ServerVariant { tokens: Some(load), ..ServerVariant::PLAIN });
        assert_eq!(all.last().unwrap()["domains"], json!([TOKEN_HOST]));
    }

    #[test]
    fn each_route_has_a_virtual_host_with_a_host_of_its_own() {
        let all = virtual_hosts(ServerVariant { routes: 1000, ..ServerVariant::PLAIN });
        // Those for WebSockets and HTTP/2 to the backend are in addition.
        assert_eq!(all.len(), 1002);
        assert_eq!(all[0]["domains"], json!(["bench.example", "bench.example:*"]));
        assert_eq!(all[3]["domains"], json!(["r0001.example"]));
        let cluster = |host: usize| &all[host]["routes"][0]["route"]["cluster"];
        assert_eq!([0, 1, 2, 3].map(cluster), ["backend", "backend", "h2c", "backend"]);
    }
}
