//! The fields `host` and `port` of log plugins.

use std::time::Duration;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::remote::Remote;

/// The server without TLS, or `None` after an addition to `invalid`.
pub(crate) fn parse_server(
    host: Option<&str>,
    port: Option<u16>,
    timeout: Duration,
    cx: &BuildCx<'_>,
    invalid: &mut Vec<Diagnostic>,
) -> Option<Remote> {
    let before = invalid.len();
    let host = host.unwrap_or_default();
    if host.is_empty() {
        let remedy = "set it to the name of the server, such as logs.shop.svc";
        invalid.push(Diagnostic::in_config("host", "is missing", remedy));
    } else {
        invalid.extend(cx.check_host("host", host));
    }
    let remedy = "set it to the port of the server, from 1 to 65535";
    match port {
        None => invalid.push(Diagnostic::in_config("port", "is missing", remedy)),
        Some(0) => invalid.push(Diagnostic::in_config("port", "0 is not a valid port", remedy)),
        Some(_) => {}
    }
    if timeout.is_zero() {
        let remedy = "use a number of milliseconds, such as 10000";
        invalid.push(Diagnostic::in_config("timeout", "must not be 0", remedy));
    }
    (invalid.len() == before).then(|| Remote {
        host: host.to_owned(),
        port: port.unwrap_or_default(),
        namespace: cx.namespace().map(str::to_owned),
        tls: None,
        timeout,
    })
}
