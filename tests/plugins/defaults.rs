//! Comparison of fields and defaults with those of Kong 3.10. Later releases of Kong changed some defaults.

use portico::plugins::REGISTRY;
use serde_json::{Map, Value, json};

use crate::plugins::fields;

/// The fields of Kong's plugin with their defaults, `null` for a field without a default.
fn kong_defaults(plugin: &str) -> Value {
    match plugin {
        "acl" => json!({
            "allow": null, "deny": null, "hide_groups_header": false, "always_use_authenticated_groups": false,
        }),
        "basic-auth" => json!({"anonymous": null, "hide_credentials": false, "realm": "service"}),
        "bot-detection" => json!({"allow": [], "deny": []}),
        "correlation-id" => json!({
            "header_name": "Kong-Request-ID", "generator": "uuid#counter", "echo_downstream": false,
        }),
        "cors" => json!({
            "origins": [], "headers": [], "exposed_headers": [],
            "methods": ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT"],
            "max_age": null, "credentials": false, "private_network": false, "preflight_continue": false,
            "allow_origin_absent": true,
        }),
        "http-log" => json!({
            "http_endpoint": null, "method": "POST", "content_type": "application/json", "timeout": 10000,
            "keepalive": 60000, "headers": {}, "custom_fields_by_lua": {}, "retry_count": null, "queue_size": null,
            "flush_timeout": null, "queue": null, "queue.max_batch_size": 1, "queue.max_coalescing_delay": 1.0,
            "queue.max_entries": 10000, "queue.max_bytes": null, "queue.max_retry_time": 60.0,
            "queue.initial_retry_delay": 0.01, "queue.max_retry_delay": 60.0, "queue.concurrency_limit": 1,
        }),
        "ip-restriction" => json!({"allow": [], "deny": [], "status": 403, "message": null}),
        "jwt" => json!({
            "uri_param_names": ["jwt"], "cookie_names": [], "header_names": ["authorization"], "key_claim_name": "iss",
            "secret_is_base64": false, "claims_to_verify": [], "maximum_expiration": 0, "run_on_preflight": true,
            "anonymous": null, "realm": null,
        }),
        "key-auth" => json!({
            "key_names": ["apikey"], "hide_credentials": false, "anonymous": null, "key_in_header": true,
            "key_in_query": true, "key_in_body": false, "run_on_preflight": true, "realm": null,
        }),
        // The fields whose defaults Kong documents. This plugin belongs to Kong's enterprise edition.
        "openid-connect" => json!({
            "scopes": ["openid"], "leeway": 0, "scopes_claim": ["scope"], "audience_claim": ["aud"],
            "groups_claim": ["groups"], "roles_claim": ["roles"], "consumer_by": ["username", "custom_id"],
            "consumer_optional": false, "credential_claim": ["sub"], "session_storage": "cookie",
            "session_cookie_name": "session", "session_cookie_path": "/", "session_cookie_same_site": "Lax",
            "session_cookie_http_only": true, "session_idling_timeout": 900, "session_rolling_timeout": 3600,
            "session_absolute_timeout": 86400, "login_action": "upstream", "logout_methods": ["POST", "DELETE"],
            "authorization_cookie_name": "authorization", "authorization_rolling_timeout": 600,
            "upstream_access_token_header": "authorization:bearer", "hide_credentials": true, "cache_ttl": 3600,
            "cache_introspection": true, "cache_tokens": true, "timeout": 10000, "ssl_verify": true,
            "unauthorized_error_message": "Unauthorized", "forbidden_error_message": "Forbidden",
            "run_on_preflight": true, "anonymous": null,
        }),
        "prometheus" => json!({
            "per_consumer": false, "status_code_metrics": false, "ai_metrics": false, "latency_metrics": false,
            "bandwidth_metrics": false, "upstream_health_metrics": false, "wasm_metrics": false,
        }),
        "rate-limiting" => json!({
            "second": null, "minute": null, "hour": null, "day": null, "month": null, "year": null,
            "limit_by": "consumer", "header_name": null, "path": null, "policy": "local", "fault_tolerant": true,
            "hide_client_headers": false, "error_code": 429, "error_message": "API rate limit exceeded",
            "sync_rate": -1.0, "redis": null, "redis.host": null, "redis.port": 6379, "redis.timeout": 2000,
            "redis.username": null, "redis.password": null, "redis.database": 0, "redis.ssl": false,
            "redis.ssl_verify": false, "redis.server_name": null, "redis_host": null, "redis_port": null,
            "redis_password": null, "redis_username": null, "redis_ssl": null, "redis_ssl_verify": null,
            "redis_server_name": null, "redis_timeout": null, "redis_database": null,
        }),
        "redirect" => json!({"status_code": 301, "location": null, "keep_incoming_path": false}),
        "request-transformer" => json!({
            "http_method": null,
            "remove": null, "remove.body": [], "remove.headers": [], "remove.querystring": [],
            "rename": null, "rename.body": [], "rename.headers": [], "rename.querystring": [],
            "replace": null, "replace.body": [], "replace.headers": [], "replace.querystring": [], "replace.uri": null,
            "add": null, "add.body": [], "add.headers": [], "add.querystring": [],
            "append": null, "append.body": [], "append.headers": [], "append.querystring": [],
        }),
        "request-size-limiting" => json!({
            "allowed_payload_size": 128, "size_unit": "megabytes", "require_content_length": false,
        }),
        "request-termination" => json!({
            "status_code": 503, "message": null, "body": null, "content_type": null, "echo": false, "trigger": null,
        }),
        "response-transformer" => json!({
            "remove": null, "remove.json": [], "remove.headers": [],
            "rename": null, "rename.json": [], "rename.headers": [],
            "replace": null, "replace.json": [], "replace.json_types": [], "replace.headers": [],
            "add": null, "add.json": [], "add.json_types": [], "add.headers": [],
            "append": null, "append.json": [], "append.json_types": [], "append.headers": [],
        }),
        "session" => json!({
            "secret": null, "storage": "cookie", "audience": "default", "idling_timeout": 900, "rolling_timeout": 3600,
            "absolute_timeout": 86400, "stale_ttl": 10, "cookie_name": "session", "cookie_path": "/",
            "cookie_domain": null, "cookie_same_site": "Strict", "cookie_http_only": true, "cookie_secure": true,
            "remember": false, "remember_cookie_name": "remember", "remember_rolling_timeout": 604800,
            "remember_absolute_timeout": 2592000, "response_headers": [], "request_headers": [],
            "read_body_for_logout": false, "logout_methods": ["POST", "DELETE"],
            "logout_query_arg": "session_logout", "logout_post_arg": "session_logout", "hash_subject": false,
            "store_metadata": false, "cookie_lifetime": null, "cookie_idletime": null, "cookie_discard": null,
            "cookie_samesite": null, "cookie_httponly": null, "cookie_persistent": null, "cookie_renew": null,
        }),
        other => panic!("{other}: add the fields of Kong's plugin to kong_defaults"),
    }
}

/// Top-level fields that Kong 3.10 does not have, each after the name of its plugin.
const NOT_IN_KONG_3_10: [&str; 6] = [
    "basic-auth brute_force_protection",
    "basic-auth identity_realms",
    "http-log ssl_verify",
    "jwt jwks",
    "key-auth identity_realms",
    "session former_secret",
];

// docs/kong-compatibility.md, 4.0
// docs/kong-compatibility.md, 4.1
// docs/kong-compatibility.md, 4.5
// docs/kong-compatibility.md, 4.6
// docs/kong-compatibility.md, 4.7
// docs/kong-compatibility.md, 4.8
// docs/kong-compatibility.md, 4.14
// docs/kong-compatibility.md, 4.15
// docs/kong-compatibility.md, 4.16
// docs/kong-compatibility.md, 4.17
// docs/kong-compatibility.md, 4.23
// docs/kong-compatibility.md, 4.25
// docs/kong-compatibility.md, 4.26
// docs/kong-compatibility.md, 4.27
// docs/kong-compatibility.md, 4.28
// docs/kong-compatibility.md, 4.29
// docs/kong-compatibility.md, 4.31
// docs/kong-compatibility.md, 4.32
// docs/kong-compatibility.md, 7.27
#[test]
fn fields_and_defaults_match_kong() {
    for kind in REGISTRY.iter() {
        let name = kind.name();
        let is_not_in_kong = |path: &str| {
            let top_level = path.split(['.', '[']).next().unwrap_or_default();
            NOT_IN_KONG_3_10.contains(&format!("{name} {top_level}").as_str())
        };
        let fields = fields::list(kind).into_iter().filter(|field| !is_not_in_kong(&field.path));
        let mut found: Map<String, Value> =
            fields.map(|field| (field.path, field.default.unwrap_or_default())).collect();
        if name == "openid-connect" {
            found.retain(|path, _| kong_defaults(name).get(path).is_some());
        }
        assert_eq!(Value::Object(found), kong_defaults(name), "{name}: left: Portico, right: Kong");
    }
}
