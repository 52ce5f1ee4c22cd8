//! What to use instead of the directives that snippets do not have.

use super::refusal::DirectiveRefusal;
use crate::schema::nearest;

/// The refusal of a directive because of its name.
pub(super) fn unsupported(name: &str) -> DirectiveRefusal {
    let remedy = REMEDIES.iter().find(|(names, _)| names.split(' ').any(|pattern| matches_name(pattern, name)));
    let remedy = match (remedy, nearest(name, SUPPORTED.split_whitespace())) {
        (Some((_, remedy)), _) => (*remedy).to_owned(),
        (None, Some(known)) => format!("did you mean {known}? Otherwise, {NO_REMEDY}"),
        (None, None) => NO_REMEDY.to_owned(),
    };
    DirectiveRefusal::new("is not supported", remedy)
}

const NO_REMEDY: &str = "use an annotation or a plugin, or remove it";

/// The directives that snippets may have, for names that are misspelled.
const SUPPORTED: &str = "
    return rewrite break location limit_except allow deny error_page expires default_type access_log
    add_header more_set_headers more_clear_headers more_set_input_headers more_clear_input_headers
    proxy_set_header proxy_hide_header proxy_redirect proxy_cookie_path proxy_cookie_domain proxy_cookie_flags
    proxy_connect_timeout proxy_send_timeout proxy_read_timeout proxy_next_upstream proxy_next_upstream_tries
    proxy_next_upstream_timeout proxy_buffering proxy_buffer_size proxy_buffers proxy_http_version
    proxy_method proxy_pass_request_headers client_max_body_size client_body_buffer_size
    grpc_set_header grpc_hide_header grpc_connect_timeout grpc_send_timeout grpc_read_timeout
    sub_filter sub_filter_once sub_filter_types sub_filter_last_modified
";

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

#[cfg(test)]
mod tests {
    use super::super::{Snippet, SnippetPlace};
    use super::*;
    use crate::snapshot::regex::RegexLimit;

    #[test]
    fn misspelled_names_have_a_suggestion() {
        for (name, expected) in [
            ("ad_header", "did you mean add_header?"),
            ("more_set_header", "did you mean more_set_headers?"),
            ("proxy_set_headers", "did you mean proxy_set_header?"),
            ("retrun", "did you mean return?"),
            ("sub_filter_type", "did you mean sub_filter_types?"),
            ("root", "serve files with a backend"),
        ] {
            let remedy = unsupported(name).remedy;
            assert!(remedy.starts_with(expected), "{name}: {remedy}");
        }
    }

    #[test]
    fn suggested_names_are_supported() {
        // The first two belong to requests to authorization servers, and the others have other arguments.
        let others = ["proxy_method", "proxy_pass_request_headers", "proxy_http_version", "access_log"];
        for name in SUPPORTED.split_whitespace().filter(|name| !others.contains(name)) {
            let is_unsupported = |place| {
                let parsed = Snippet::parse(&format!("{name} /a b c d;"), place, RegexLimit::MEMORY_ONLY);
                parsed.is_err_and(|refused| refused.message == "is not supported")
            };
            let places = [SnippetPlace::Location, SnippetPlace::Server];
            assert!(!places.into_iter().all(is_unsupported), "{name}");
        }
    }
}
