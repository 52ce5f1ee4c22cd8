//! Whether a snippet restricts access. One that does and cannot be compiled closes its location, so that a directive
//! counts as restricting unless it is known not to.

use super::directive_tree::WrittenDirective;
use super::remedies::matches_name;

/// Whether a directive refuses requests, or could.
pub(super) fn restricts_access(directives: &[WrittenDirective]) -> bool {
    directives.iter().any(|directive| is_restricting(directive, false))
}

/// `depends_on_client`: whether it is in an `if` that could distinguish clients or paths, or in a location. Sending
/// some of the requests to another place is a restriction, as a redirect to a login page is.
fn is_restricting(directive: &WrittenDirective, depends_on_client: bool) -> bool {
    let inner = directive.block.as_deref().unwrap_or_default();
    match &directive.name[..] {
        "return" => depends_on_client || !is_harmless_return(&directive.arguments),
        // Without it, the endpoint would get requests for other paths.
        "rewrite" => depends_on_client || !is_redirect(&directive.arguments),
        // The endpoint may trust a field that clients must not send.
        "proxy_set_header" | "grpc_set_header" => directive.arguments.get(1).is_some_and(String::is_empty),
        "more_clear_input_headers" => true,
        "if" => {
            let depends_on_client = depends_on_client || !is_harmless_condition(&directive.arguments);
            inner.iter().any(|directive| is_restricting(directive, depends_on_client))
        }
        // What it returns is in place of what the endpoint would.
        "location" => inner.iter().any(|directive| is_restricting(directive, true)),
        name => !HARMLESS.split_whitespace().any(|pattern| matches_name(pattern, name)),
    }
}

fn is_redirect(arguments: &[String]) -> bool {
    matches!(arguments.last().map(String::as_str), Some("redirect" | "permanent"))
        || arguments.get(1).is_some_and(|target| target.starts_with("http://") || target.starts_with("https://"))
}

/// Whether the status is below 400. A target without a status is a redirect.
fn is_harmless_return(arguments: &[String]) -> bool {
    match arguments {
        [first, ..] => match first.parse::<u16>() {
            Ok(status) => status < 400,
            Err(_) => arguments.len() == 1,
        },
        [] => false,
    }
}

/// Whether a condition reads only what says nothing about the client, such as the host.
fn is_harmless_condition(arguments: &[String]) -> bool {
    let condition = arguments.join(" ");
    // All that is not a variable of this list, such as a file test, counts.
    condition.trim_start_matches(['(', ' ']).starts_with('$')
        && condition.split('$').skip(1).all(|variable| {
            let end = variable.find(|character: char| !character.is_ascii_alphanumeric() && character != '_');
            let name = variable.get(..end.unwrap_or(variable.len())).unwrap_or_default();
            // A dollar sign of an expression has no name.
            name.is_empty() || HARMLESS_VARIABLES.contains(&name)
        })
}

/// Patterns of directives that refuse no request.
const HARMLESS: &str = "
    set break more_* add_header add_trailer expires etag default_type charset* override_charset source_charset
    proxy_set_header grpc_set_header proxy_hide_header grpc_hide_header proxy_pass_header proxy_ignore_headers
    proxy_pass grpc_pass proxy_buffer* proxy_busy_buffers_size proxy_request_buffering proxy_max_temp_file_size
    proxy_temp_* proxy_http_version proxy_redirect proxy_cookie_* proxy_connect_timeout proxy_read_timeout
    proxy_send_timeout proxy_next_upstream* proxy_intercept_errors proxy_cache* proxy_store* proxy_no_cache proxy_bind
    proxy_socket_keepalive proxy_ssl_server_name proxy_ssl_name proxy_headers_hash* grpc_read_timeout
    grpc_send_timeout grpc_connect_timeout grpc_buffer_size fastcgi_* uwsgi_* scgi_* memcached_*
    client_max_body_size client_body_* client_header_* large_client_header_buffers send_timeout keepalive_*
    reset_timedout_connection tcp_nodelay tcp_nopush sendfile chunked_transfer_encoding gzip* brotli* sub_filter*
    root alias index try_files autoindex* access_log log_format log_not_found log_subrequest error_log error_page
    mirror* opentelemetry* opentracing* otel_* resolver* stub_status variables_hash* server_names_hash*
    http2_* server_tokens merge_slashes absolute_redirect port_in_redirect server_name_in_redirect
";

const HARMLESS_VARIABLES: &[&str] = &[
    "host",
    "http_host",
    "best_http_host",
    "server_name",
    "server_port",
    "pass_port",
    "scheme",
    "pass_access_scheme",
    "http_x_forwarded_proto",
    "request_method",
    "http_user_agent",
    "http_accept",
    "http_accept_language",
    "http_origin",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::location_snippet::directive_tree::read;

    #[test]
    fn restrictions_are_found_anywhere() {
        for (text, restricts) in [
            ("more_set_headers 'A: b'; proxy_set_header C d; expires 1h;", false),
            ("deny all;", true),
            ("allow 10.0.0.0/8;", true),
            ("return 301 /a;", false),
            ("return https://a.example;", false),
            ("return 403;", true),
            ("return 503 busy;", true),
            ("return $status a;", true),
            ("return;", true),
            ("if ($host = a) { return 301 /b; }", false),
            ("if ( $request_method = OPTIONS) { add_header A b; return 204; }", false),
            ("if ($host = a) { return 403; }", true),
            ("if ($cookie_session = '') { return 302 /login; }", true),
            ("if ($flag) { rewrite ^ /login last; }", true),
            ("if ($host = $cookie_a) { return 301 /b; }", true),
            ("if ($host ~ ^a$) { return 301 /b; }", false),
            ("rewrite ^/admin /login last;", true),
            ("rewrite ^/api/(.*) /$1 break;", true),
            ("rewrite ^/a https://b.example;", false),
            ("proxy_set_header X-Remote-User '';", true),
            ("proxy_set_header X-Remote-User $remote_user;", false),
            ("more_clear_input_headers X-Remote-User;", true),
            ("if ($cookie_dark) { more_set_headers 'A: b'; }", false),
            ("rewrite ^/a /b permanent;", false),
            ("if ($request_uri ~ ^/admin) { return 301 /; }", true),
            ("location /a { deny all; }", true),
            ("location = /metrics { return 200; }", true),
            ("location /a { add_header A b; }", false),
            ("location /a { add_header A b; if ($arg_a) { return 200; } }", true),
            ("auth_basic off;", true),
            ("limit_except GET { deny all; }", true),
            ("limit_rate 1m;", true),
            ("satisfy any;", true),
            ("ssl_verify_client on;", true),
            ("access_by_lua_file a;", true),
            ("root /a; sub_filter a b; proxy_pass http://a;", false),
            ("unknown_directive a;", true),
            ("proxy_ssl_verify on;", true),
            ("include a;", true),
            ("", false),
        ] {
            assert_eq!(restricts_access(&read(text).unwrap()), restricts, "{text}");
        }
    }
}
