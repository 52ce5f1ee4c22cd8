//! The value of `Host` that Kong sends to endpoints.

pub(super) fn default_port(protocol: &str) -> i64 {
    if matches!(protocol, "https" | "grpcs" | "wss" | "tls") { 443 } else { 80 }
}

/// `Host` as Kong writes it: without the default port of the protocol.
pub(super) fn with_port(host: &str, port: i64, protocol: &str) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if port == default_port(protocol) { host } else { format!("{host}:{port}") }
}
