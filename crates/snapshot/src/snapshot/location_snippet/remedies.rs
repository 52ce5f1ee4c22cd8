//! What to use instead of the directives that snippets do not have.

use super::refusal::DirectiveRefusal;

/// The refusal of a directive because of its name.
pub(super) fn unsupported(name: &str) -> DirectiveRefusal {
    let remedy = REMEDIES.iter().find(|(names, _)| names.split(' ').any(|pattern| matches_name(pattern, name)));
    let remedy = remedy.map_or("use an annotation or a plugin, or remove it", |(_, remedy)| remedy);
    DirectiveRefusal::new("is not supported", remedy)
}

/// Whether a name is that of a pattern, which may have an asterisk at its start, at its end, or both.
pub(super) fn matches_name(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(_)) => name.contains(pattern.trim_matches('*')),
        (Some(end), None) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => name == pattern,
    }
}

const CLIENT_FLAGS: &str = "remove it; flags of Portico limit all clients alike";

/// Patterns of names, and what to use instead. The first that matches counts.
const REMEDIES: &[(&str, &str)] = &[
    ("*_by_lua* lua_* perl* js_* set_by_lua*", "use the plugin pre-function or post-function"),
    ("proxy_pass grpc_pass", "give the path a Service in `spec.rules` of an Ingress"),
    ("fastcgi_param*", "use the annotation `fastcgi-params-configmap`"),
    ("fastcgi_index", "use the annotation `fastcgi-index`"),
    ("fastcgi_pass", "use the annotation `backend-protocol` with the value FCGI"),
    ("fastcgi_*", "use the annotations for all backends, such as `proxy-read-timeout`"),
    ("uwsgi_* scgi_* memcached_*", "run the server in a container with an HTTP port, and name its Service"),
    ("root alias try_files index autoindex* dav_*", "serve files with a backend, and name its Service in the Ingress"),
    ("include", "write the directives into the snippet"),
    ("proxy_cache* proxy_store* proxy_no_cache", "use the plugin proxy-cache"),
    ("auth_basic", "use the annotation `auth-type`, on an Ingress of its own for other paths"),
    ("auth_basic_user_file", "use the annotation `auth-secret`"),
    ("auth_request_set", "use the annotation `auth-response-headers`"),
    ("auth_request*", "use the annotation `auth-url`"),
    ("auth_jwt*", "use the plugin jwt"),
    ("auth_digest*", "use the annotation `auth-type`"),
    ("limit_req*", "use the annotation `limit-rps` or `limit-rpm`"),
    ("limit_conn*", "use the annotation `limit-connections`"),
    ("limit_rate*", "use the annotations `limit-rate` and `limit-rate-after`"),
    ("satisfy", "use the annotation `satisfy`"),
    ("mirror*", "use an HTTPRoute with the filter RequestMirror"),
    ("error_page", "use the plugin error-pages"),
    ("proxy_intercept_errors", "use the plugin error-pages"),
    ("access_log log_format", "use the flags --access-log and --access-log-format"),
    ("error_log", "remove it; Portico has one log of errors"),
    ("proxy_ssl_* grpc_ssl_*", "use a BackendTLSPolicy"),
    ("proxy_pass_header", "set the field with `more_set_headers`"),
    ("proxy_bind", "remove it; the node selects the address of connections to endpoints"),
    ("proxy_method proxy_pass_request_headers proxy_pass_request_body", "use the annotation `auth-method`"),
    ("proxy_set_body", "use the plugin request-transformer-advanced"),
    ("gzip* brotli*", "use the plugin compression"),
    ("client_header_* client_body_timeout large_client_header_buffers keepalive_requests", CLIENT_FLAGS),
    ("ssl_ciphers ssl_protocols", "use the flags --tls-ciphers and --tls-min-version"),
    ("ssl_client_certificate ssl_verify* ssl_crl", "use the plugin mtls-auth"),
    ("ssl_certificate*", "name the Secret in `spec.tls` of the Ingress"),
    ("ssl_*", "use the flags whose names begin with --tls"),
    ("server_name listen server", "name the host in `spec.rules` of the Ingress"),
    ("upstream upstream_* keepalive", "use a Service, and a BackendPolicy for its settings"),
    ("map geo split_clients", "use `set` and `if`"),
    ("set_real_ip_from real_ip_*", "use the flag --trusted-ips"),
    ("modsecurity*", "use the plugin injection-protection"),
    ("opentelemetry* opentracing* otel_*", "use the plugin opentelemetry"),
    ("stub_status", "read the metrics of Portico"),
    ("resolver*", "remove it; Portico uses the resolver of its node"),
    ("location", "use a `server-snippet`"),
    ("http http2 load_module env user worker_*", "remove it; it is a setting of the process"),
    ("internal", "use `deny all`"),
    ("valid_referers secure_link*", "use `if` with `$http_referer`, or the plugin hmac-auth"),
    ("proxy_headers_hash* variables_hash* server_names_hash*", "remove it; Portico needs no such size"),
    ("charset* override_charset source_charset", "set the field `Content-Type` with `more_set_headers`"),
    ("etag", "remove the field with `more_clear_headers \"ETag\"`"),
    ("add_trailer", "use `add_header`"),
    ("proxy_ignore_headers", "remove it; Portico does not evaluate these fields"),
];
