//! What a router reads of a request.

use std::fmt;

use http::{HeaderMap, HeaderName, Method};

use crate::snapshot::redirect::Scheme;
use crate::snapshot::regex_steps::RegexSteps;
use crate::snapshot::rule_options::ForwardingHeaderStyle;

/// The fields that the proxy itself sets, replaces or removes before it forwards a request.
pub trait ForwardedFields: fmt::Debug {
    /// The fields among which conditions on this name find it. `None` if those of the request are forwarded as they
    /// are. `style` is that of the rule with the condition.
    fn find(&self, name: &HeaderName, style: ForwardingHeaderStyle) -> Option<&HeaderMap>;
}

/// What selects the rule of a request, in addition to the hostname without port, which is passed separately.
#[derive(Clone, Debug)]
pub struct RoutingRequest<'a> {
    /// Normalized: dot segments resolved, escapes of unreserved characters decoded (docs/routing.md).
    pub path: &'a str,
    /// The path as the client sent it.
    pub raw_path: &'a str,
    pub query: Option<&'a str>,
    pub method: &'a Method,
    /// As the client sent them. Conditions see some of them as they will be forwarded.
    pub headers: &'a HeaderMap,
    /// The fields that the proxy changes. `None` if it changes none.
    pub forwarded: Option<&'a dyn ForwardedFields>,
    /// The host as the client sent it, with its port if it has one. The port may be a condition of a route.
    pub authority: &'a [u8],
    /// The port of the listener, as clients see it.
    pub listener_port: u16,
    /// The scheme of the connection.
    pub scheme: Scheme,
    /// The server name (SNI) of the TLS handshake, in lower case.
    pub server_name: Option<&'a str>,
    /// The work that its regular expressions may still cause.
    pub regex_steps: RegexSteps,
}

impl<'a> RoutingRequest<'a> {
    /// A plain-text request without an authority.
    pub fn plaintext(path: &'a str, query: Option<&'a str>, method: &'a Method, headers: &'a HeaderMap) -> Self {
        RoutingRequest {
            path,
            raw_path: path,
            query,
            method,
            headers,
            forwarded: None,
            authority: b"",
            listener_port: Scheme::Http.port(),
            scheme: Scheme::Http,
            server_name: None,
            regex_steps: RegexSteps::default(),
        }
    }

    /// The port in the request's authority, or else that of the listener.
    pub(in crate::snapshot) fn port(&self) -> u16 {
        let digits = self.authority.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let (host, port) = self.authority.split_at(self.authority.len() - digits);
        let port =
            if host.ends_with(b":") { str::from_utf8(port).ok().and_then(|port| port.parse().ok()) } else { None };
        port.unwrap_or(self.listener_port)
    }
}
