//! The routing of one request: its listener, then its rule, which may depend on the port of the listener. It reads
//! plain facts of the connection and of the request.

use std::sync::Arc;

use super::client_validation::ClientValidation;
use super::regex_steps::RegexInput;
use super::router::{Matched, RoutingRequest};
use super::{HttpBind, HttpListener, Routes};

/// What decides about the listener of the requests on a TLS connection.
#[derive(Clone, Copy, Debug)]
pub struct ClientTls<'c> {
    /// In lower case. `None` if the client sent no server name, or an IP address instead.
    pub server_name: Option<&'c str>,
    /// How the certificate of the client was verified; `None` if the client was not asked for one.
    pub client_validation: Option<&'c Arc<ClientValidation>>,
}

/// Why no rule serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrouted {
    /// No listener of the address has this host.
    NoListener,
    /// The host belongs to another listener than the connection.
    Misdirected,
    /// No rule of the listener matches.
    NoRule,
    /// A part of the request is too long for the regular expressions that it would be matched with.
    TooLong(RegexInput),
}

impl HttpBind {
    /// The listener of the host, if requests for it may arrive on this connection.
    ///
    /// A connection that was opened for another listener must not be used (RFC 9110, section 15.5.20): browsers reuse a
    /// connection for every name in its certificate, but the TLS settings of a listener apply only to the connections
    /// that were opened for it. The same applies if the listener requires client certificates now that it did not
    /// require then. A host without a listener has no better connection, so it gets 404 instead of 421.
    pub fn select_listener(
        &self,
        client_tls: Option<ClientTls<'_>>,
        host: &str,
    ) -> Result<&Arc<HttpListener>, Unrouted> {
        let Some(listener) = self.listener(host) else {
            return Err(if self.is_for_streams(host) { Unrouted::Misdirected } else { Unrouted::NoListener });
        };
        if self.is_misdirected(listener, client_tls, host) { Err(Unrouted::Misdirected) } else { Ok(listener) }
    }

    /// The one listener whose routes a request for this host may use. The host is lower case and has no port.
    pub fn listener(&self, host: &str) -> Option<&Arc<HttpListener>> {
        // Otherwise a less specific listener would serve a host that this process must not decrypt.
        if self.is_for_streams(host) {
            return None;
        }
        self.listeners.most_specific(host)
    }

    /// Whether the connection was opened for another listener than this one, which is the listener of the host.
    fn is_misdirected(&self, listener: &Arc<HttpListener>, client_tls: Option<ClientTls<'_>>, host: &str) -> bool {
        match (client_tls, &self.tls) {
            (None, None) => false,
            (Some(ClientTls { server_name, client_validation }), Some(tls)) => {
                if !tls.accepts_client(server_name, client_validation) {
                    return true;
                }
                // The common case, which needs no lookup.
                if server_name == Some(host) {
                    return false;
                }
                let selected = self.listener_by_server_name(server_name);
                !selected.is_some_and(|selected| Arc::ptr_eq(selected, listener))
                    // Without a server name, there is no other host that the client could have meant.
                    || server_name.is_some_and(|server_name| listener.separates_hosts(server_name, host))
            }
            // The port was changed from HTTP to HTTPS, or back, while the connection was open.
            (None, Some(_)) | (Some(_), None) => true,
        }
    }
}

impl HttpListener {
    /// The rule that serves this request, as `find` selects it, unless regular expressions would take too many
    /// steps: then a rule of higher precedence may match.
    pub fn route(&self, host: &str, request: &RoutingRequest<'_>) -> Result<Matched<'_>, Unrouted> {
        let found = self.find(host, request);
        match request.regex_steps.exceeded() {
            Some(input) => Err(Unrouted::TooLong(input)),
            None => found.ok_or(Unrouted::NoRule),
        }
    }

    /// The rule that serves this request. The host is lower case and has no port.
    ///
    /// In the order by host, the rules of the most specific host are tried first. If none of them matches, the search
    /// continues with the next less specific host.
    fn find(&self, host: &str, request: &RoutingRequest<'_>) -> Option<Matched<'_>> {
        match &self.routes {
            // Exact paths come before expressions, and these before prefixes, of which the longest comes first.
            Routes::ByHost(hosts) => hosts.candidates(host).find_map(|router| router.find(request)),
            Routes::ByConditions(router) => router.find(host, request),
            Routes::Ingresses(routes) => routes.find(host, request),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;

    use super::*;
    use crate::snapshot::Bind;
    use crate::snapshot::certs::Certificates;
    use crate::snapshot::client_validation::ClientValidationMode;
    use crate::snapshot::host::{HostMap, HostPattern};
    use crate::snapshot::port_tls::{PortTls, StreamHosts, TlsListener};
    use crate::snapshot::rule_options::UnmatchedStyle;
    use crate::snapshot::stream::StreamRule;

    fn pattern(host: &str) -> HostPattern {
        HostPattern::parse(Some(host).filter(|host| *host != "*"))
    }

    fn listeners(hosts: &[&'static str]) -> HostMap<Arc<HttpListener>> {
        let listener = |host: &&'static str| {
            let listener = HttpListener {
                gateway: "a/gateway".into(),
                name: (*host).into(),
                port: 443,
                routes: Routes::ByHost(HostMap::default()),
                unmatched: UnmatchedStyle::default(),
            };
            (pattern(host), Arc::new(listener))
        };
        hosts.iter().map(listener).collect()
    }

    /// Listeners that terminate TLS for some hosts, and others that pass it through.
    fn https(terminated: &[&'static str], passthrough: &[&'static str], certificates: &Arc<Certificates>) -> Bind {
        let terminate = |host: &&'static str| (pattern(host), TlsListener::Terminate(Arc::clone(certificates)));
        let pass = |host: &&'static str| {
            let rule = StreamRule { gateway: "a/gateway".into(), listener: (*host).into(), port: 443, route: None };
            let hosts = StreamHosts { hosts: HostMap::default(), unrouted: Arc::new(rule) };
            (pattern(host), TlsListener::Passthrough(hosts))
        };
        let tls = terminated.iter().map(terminate).chain(passthrough.iter().map(pass)).collect();
        Bind::with_http(listeners(terminated), Some(PortTls::new(tls)))
    }

    fn client_tls<'c>(server_name: &'c str, client_validation: Option<&'c Arc<ClientValidation>>) -> ClientTls<'c> {
        ClientTls { server_name: Some(server_name).filter(|name| !name.is_empty()), client_validation }
    }

    /// The name of the listener, or the status of the response.
    fn outcome(bind: &Bind, client_tls: Option<ClientTls<'_>>, host: &str) -> String {
        match bind.http().unwrap().select_listener(client_tls, host) {
            Ok(listener) => listener.name.to_string(),
            Err(Unrouted::NoListener) => "404".to_owned(),
            Err(Unrouted::Misdirected) => "421".to_owned(),
            Err(unrouted) => panic!("{unrouted:?} is about rules"),
        }
    }

    #[test]
    fn host_and_connection_decide_between_listener_404_and_421() {
        let certificates = Arc::default();
        let http = Bind::with_http(listeners(&["a.example", "*.wide.example"]), None);
        let tls = https(&["a.example", "b.example", "*.wide.example"], &["pass.wide.example", "*.org"], &certificates);
        let with_any = https(&["*", "a.example"], &["pass.example"], &certificates);
        // The columns: no TLS, and connections with these server names.
        let connections = [None, Some("a.example"), Some("x.wide.example"), Some("unknown.test"), Some("")];
        let offered = connections.map(|name| name.map(|name| client_tls(name, None)));
        for (what, bind, host, expected) in [
            ("HTTP", &http, "a.example", ["a.example", "421", "421", "421", "421"]),
            ("HTTP", &http, "y.wide.example", ["*.wide.example", "421", "421", "421", "421"]),
            ("HTTP", &http, "unknown.test", ["404"; 5]),
            ("HTTPS", &tls, "a.example", ["421", "a.example", "421", "421", "421"]),
            ("HTTPS", &tls, "b.example", ["421"; 5]),
            ("HTTPS", &tls, "y.wide.example", ["421", "421", "*.wide.example", "421", "421"]),
            ("HTTPS", &tls, "pass.wide.example", ["421"; 5]),
            ("HTTPS", &tls, "z.org", ["421"; 5]),
            ("HTTPS", &tls, "unknown.test", ["404"; 5]),
            // The listeners of connections to this name were removed.
            ("HTTPS", &tls, "removed.example", ["404"; 5]),
            ("any host", &with_any, "a.example", ["421", "a.example", "421", "421", "421"]),
            ("any host", &with_any, "unknown.test", ["421", "421", "*", "*", "*"]),
            ("any host", &with_any, "pass.example", ["421"; 5]),
        ] {
            let found = offered.map(|client_tls| outcome(bind, client_tls, host));
            assert_eq!(found, expected, "{what}, {host}, over {connections:?}");
        }
    }

    #[test]
    fn client_that_is_not_verified_as_required_now_needs_a_new_connection() {
        let authority = rcgen::generate_simple_self_signed(vec!["authority.example".to_owned()]).unwrap();
        let authority: CertificateDer<'static> = authority.cert.der().clone();
        let validation = |mode| Arc::new(ClientValidation::new(mode, vec![authority.clone()]).unwrap());
        let required = validation(ClientValidationMode::Required);
        let certificates = Arc::new(Certificates::default().with_client_validation(Some(Arc::clone(&required))));
        let bind = https(&["a.example"], &["pass.example"], &certificates);
        let fallback = validation(ClientValidationMode::InsecureFallback);
        for (verified_by, expected) in [(None, "421"), (Some(&fallback), "421"), (Some(&required), "a.example")] {
            let client_tls = client_tls("a.example", verified_by);
            assert_eq!(outcome(&bind, Some(client_tls), "a.example"), expected, "{verified_by:?}");
            assert_eq!(outcome(&bind, Some(client_tls), "pass.example"), "421", "{verified_by:?}");
            assert_eq!(outcome(&bind, Some(client_tls), "unknown.test"), "404", "{verified_by:?}");
        }
    }
}
