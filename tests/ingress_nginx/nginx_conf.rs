//! The configuration of nginx that follows from Ingresses by the specification of the dialect.
//!
//! Each value is a quoted token. Only values whose characters were checked may contain a `$`, which is a variable.
//! Lines that a test gives for a host stay as they are.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use super::locations::{HostTable, Location};

/// What snippets and annotations of a host become.
#[derive(Clone, Debug, Default)]
pub(crate) struct NginxLines {
    /// In the block `http`.
    pub(crate) http: String,
    /// In the server, before its locations.
    pub(crate) server: String,
    /// In each location, before what the test has there itself.
    pub(crate) location: String,
}

impl NginxLines {
    /// All lines, changed.
    pub(crate) fn map(&self, change: impl Fn(&str) -> String) -> NginxLines {
        let NginxLines { http, server, location } = self;
        NginxLines { http: change(http), server: change(server), location: change(location) }
    }
}

/// A complete configuration. `services` are the names and addresses of all Services; `folder` is the prefix of nginx;
/// `lines` are those of some hosts.
pub(crate) fn configuration(
    tables: &[HostTable],
    services: &[(String, SocketAddr)],
    listen: SocketAddr,
    folder: &Path,
    lines: &BTreeMap<String, NginxLines>,
) -> String {
    let mut text = PREAMBLE.to_owned();
    for NginxLines { http, .. } in lines.values() {
        write_line(&mut text, 1, http);
    }
    let default_backend = format!("unix:{}/default-backend.sock", folder.display());
    for (service, address) in services {
        write_line(&mut text, 1, &format!("upstream {} {{ server {address}; keepalive 4; }}", upstream(Some(service))));
    }
    write_line(&mut text, 1, &format!("upstream {} {{ server {}; }}", upstream(None), quoted(&default_backend)));
    write_line(
        &mut text,
        1,
        &format!("server {{ listen {}; location / {{ return 404; }} }}", quoted(&default_backend)),
    );
    let no_lines = NginxLines::default();
    for table in tables {
        let lines = table.host.as_ref().and_then(|host| lines.get(host)).unwrap_or(&no_lines);
        write_server(&mut text, table, listen, lines);
    }
    text + "}\n"
}

fn write_server(text: &mut String, table: &HostTable, listen: SocketAddr, lines: &NginxLines) {
    write_line(text, 1, "server {");
    match &table.host {
        None => {
            write_line(text, 2, &format!("listen {listen} default_server;"));
            write_line(text, 2, "server_name _;");
            // As in the original, a pattern for `/` would come first: this location is not exempt from regex mode.
            write_line(text, 2, "location /healthz { return 200; }");
        }
        Some(host) => {
            write_line(text, 2, &format!("listen {listen};"));
            write_line(text, 2, &format!("server_name {};", quoted(&server_name(host))));
        }
    }
    write_line(text, 2, &lines.server);
    for app_root in table.locations.iter().filter_map(|location| location.settings.app_root.as_ref()) {
        let target = quoted(&format!("$scheme://$http_host{app_root}"));
        write_line(text, 2, &format!("if ($uri = /) {{ return 302 {target}; }}"));
    }
    for (index, location) in table.locations.iter().enumerate() {
        write_location(text, table, index, location, lines);
    }
    write_line(text, 1, "}");
}

/// The order of the directives is that of the specification: the snippet, the redirect of the Ingress, then that to
/// HTTPS.
fn write_location(text: &mut String, table: &HostTable, index: usize, location: &Location, lines: &NginxLines) {
    let settings = &location.settings;
    write_line(text, 2, &format!("location {} {{", matcher(table, location)));
    write_line(text, 3, &lines.location);
    if let Some(redirect) = &settings.redirect {
        write_line(text, 3, &format!("return {} {};", redirect.code, quoted(&redirect.url)));
    }
    let rewrite = location.rewrite.as_ref().map(|target| {
        let pattern = quoted(&format!("(?i){}", location.path));
        (format!("rewrite {pattern} {} break;", quoted(target)), is_absolute(target))
    });
    // A target with a scheme is a redirect, which nginx sends in the phase before the redirect to HTTPS. A path only
    // takes effect after it; both are one phase here, in which `break` ends the processing.
    if let Some((rewrite, true)) = &rewrite {
        write_line(text, 3, rewrite);
    }
    if redirects_to_https(table, location) {
        let target = if settings.preserve_trailing_slash { "$request_uri" } else { "$target_without_slash" };
        write_line(text, 3, &format!("return 308 \"https://$host_without_port{target}\";"));
    }
    if let Some((rewrite, false)) = &rewrite {
        write_line(text, 3, rewrite);
    }
    // nginx inherits these headers only if the location has none, so that each location has all.
    if !lines.location.contains("proxy_set_header Host ") {
        write_line(text, 3, "proxy_set_header Host $http_host;");
    }
    write_line(text, 3, "proxy_set_header Connection \"\";");
    let name = format!("{index} {}", percent_encoded(&location.path));
    write_line(text, 3, &format!("proxy_set_header X-Location {};", quoted(&name)));
    if let (Some(prefix), Some(_)) = (&settings.forwarded_prefix, &location.rewrite) {
        write_line(text, 3, &format!("proxy_set_header X-Forwarded-Prefix {};", quoted(prefix)));
    }
    write_line(text, 3, &format!("proxy_pass http://{};", upstream(location.service.as_ref())));
    write_line(text, 2, "}");
}

fn matcher(table: &HostTable, location: &Location) -> String {
    match (table.is_regex, location.is_exact) {
        (true, _) => format!("~* {}", quoted(&format!("^{}", location.path))),
        (false, true) => format!("= {}", quoted(&location.path)),
        (false, false) => quoted(&location.path),
    }
}

fn redirects_to_https(table: &HostTable, location: &Location) -> bool {
    let settings = &location.settings;
    // The path of the rule is exempt, not that of the request.
    let is_exempt = location.path.starts_with("/.well-known/acme-challenge");
    !is_exempt && (settings.force_ssl_redirect || settings.ssl_redirect && table.has_tls)
}

fn is_absolute(target: &str) -> bool {
    target.starts_with("http://") || target.starts_with("https://")
}

/// A wildcard stands for exactly one label.
fn server_name(host: &str) -> String {
    match host.strip_prefix("*.") {
        Some(domain) => format!("~^[\\w-]+\\.{}$", domain.replace('.', "\\.")),
        None => host.to_owned(),
    }
}

fn upstream(service: Option<&String>) -> String {
    service.map_or("default_backend".to_owned(), |service| service.replace('/', "."))
}

/// A token of the configuration. Control characters are not in any value of a test.
fn quoted(value: &str) -> String {
    assert!(!value.contains(char::is_control), "{value:?} would not be one line");
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A path without special characters, for a header that only helps to read a report.
fn percent_encoded(path: &str) -> String {
    let mut encoded = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~()[]*+?".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string accepts all text");
        }
    }
    encoded
}

fn write_line(text: &mut String, level: usize, line: &str) {
    writeln!(text, "{:indent$}{line}", "", indent = level * 4).expect("a string accepts all text");
}

/// One process that writes only below its prefix. The hash sizes are for some hundred hosts.
const PREAMBLE: &str = r#"daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {
    worker_connections 1024;
}
http {
    access_log off;
    client_body_temp_path client_body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    default_type text/html;
    server_tokens off;
    server_names_hash_max_size 4096;
    server_names_hash_bucket_size 128;
    server_name_in_redirect off;
    port_in_redirect off;
    proxy_http_version 1.1;
    proxy_redirect off;
    map $http_host $host_without_port {
        default $http_host;
        "~^(?<host_before_port>[^:]*):" $host_before_port;
    }
    map $request_uri $target_without_slash {
        default $request_uri;
        "~^(?<target_before_slash>.*)/$" $target_before_slash;
    }
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        assert_eq!(quoted("a\"b\\c;{"), r#""a\"b\\c;{""#);
        assert_eq!(server_name("*.set1.example"), r"~^[\w-]+\.set1\.example$");
        assert_eq!(percent_encoded("/a b$1"), "/a%20b%241");
    }
}
