//! What a port does with TLS connections: it terminates TLS or forwards the connections unchanged, as the listener of
//! the server name says.
//!
//! ```text
//!   server name ─▶ listener, the most specific ┬▶ Terminate: its certificates, for requests
//!                                              ├▶ TerminateStream: its certificates ┬ the route of the server name,
//!                                              └▶ Passthrough ──────────────────────┘ the most specific
//! ```

use std::sync::Arc;

use super::certs::Certificates;
use super::client_validation::{ClientValidation, ClientValidationMode};
use super::handshake_limits::HandshakeLimits;
use super::host::{HostMap, HostPattern};
use super::stream::StreamRule;

/// The TLS listeners of a port, by their hostname.
#[derive(Clone, Debug, Default)]
pub struct PortTls {
    listeners: HostMap<TlsListener>,
    /// How many of them forward connections, decrypted or not.
    stream_count: usize,
    passthrough_count: usize,
    /// Of the listeners that terminate TLS.
    limits: HostMap<Arc<HandshakeLimits>>,
    /// Whether a listener rejects clients without a valid certificate.
    verifies_clients: bool,
}

/// What one listener does with TLS connections.
#[derive(Clone, Debug)]
pub enum TlsListener {
    /// TLS ends here. The requests are those of the HTTP listener with the same hostname.
    Terminate(Arc<Certificates>),
    /// TLS ends here, and the decrypted connections are forwarded.
    TerminateStream(Arc<Certificates>, StreamHosts),
    /// The connections are forwarded without being decrypted.
    Passthrough(StreamHosts),
}

/// The rules of a listener that forwards connections.
#[derive(Clone, Debug)]
pub struct StreamHosts {
    /// One rule for each hostname of the routes.
    pub hosts: HostMap<Arc<StreamRule>>,
    /// For server names without a route: the connections are counted and reset.
    pub unrouted: Arc<StreamRule>,
}

/// What to do with a TLS connection.
#[derive(Clone, Copy, Debug)]
pub enum TlsAction<'a> {
    Terminate(&'a Arc<Certificates>),
    TerminateStream(&'a Arc<StreamRule>),
    Passthrough(&'a Arc<StreamRule>),
}

impl StreamHosts {
    /// The rule for a server name.
    fn rule(&self, name: Option<&str>) -> &Arc<StreamRule> {
        // The empty name matches only a route for any host.
        self.hosts.most_specific(name.unwrap_or_default()).unwrap_or(&self.unrouted)
    }
}

impl TlsListener {
    /// The certificates with which the listener terminates TLS.
    fn certificates(&self) -> Option<&Arc<Certificates>> {
        match self {
            TlsListener::Terminate(certificates) | TlsListener::TerminateStream(certificates, _) => Some(certificates),
            TlsListener::Passthrough(_) => None,
        }
    }

    fn is_passthrough(&self) -> bool {
        matches!(self, TlsListener::Passthrough(_))
    }

    /// The rules for its connections; `None` if it serves requests.
    pub(crate) fn stream_hosts(&self) -> Option<&StreamHosts> {
        match self {
            TlsListener::Terminate(_) => None,
            TlsListener::TerminateStream(_, hosts) | TlsListener::Passthrough(hosts) => Some(hosts),
        }
    }
}

impl PortTls {
    pub fn new(listeners: HostMap<TlsListener>) -> Self {
        let stream_count = listeners.iter().filter(|(_, listener)| listener.stream_hosts().is_some()).count();
        let passthrough_count = listeners.iter().filter(|(_, listener)| listener.is_passthrough()).count();
        let verifies_clients = listeners.iter().any(|(_, listener)| {
            let validation = listener.certificates().and_then(|certificates| certificates.client_validation());
            validation.is_some_and(|validation| validation.mode() == ClientValidationMode::Required)
        });
        PortTls { listeners, stream_count, passthrough_count, limits: HostMap::default(), verifies_clients }
    }

    /// A port whose listeners all terminate TLS.
    pub fn terminating(listeners: impl IntoIterator<Item = (HostPattern, Arc<Certificates>)>) -> Self {
        let listeners = listeners.into_iter().map(|(host, all)| (host, TlsListener::Terminate(all)));
        PortTls::new(listeners.collect())
    }

    pub fn listeners(&self) -> &HostMap<TlsListener> {
        &self.listeners
    }

    /// What the listener for this server name does. `None` if there is no such listener. The name is lower case.
    pub fn action(&self, name: Option<&str>) -> Option<TlsAction<'_>> {
        Some(match select_by_server_name(&self.listeners, name)? {
            TlsListener::Terminate(certificates) => TlsAction::Terminate(certificates),
            TlsListener::TerminateStream(_, hosts) => TlsAction::TerminateStream(hosts.rule(name)),
            TlsListener::Passthrough(hosts) => TlsAction::Passthrough(hosts.rule(name)),
        })
    }

    /// Whether some listener of the port passes TLS through.
    pub fn has_passthrough(&self) -> bool {
        self.passthrough_count > 0
    }

    /// The certificates of the listener for this server name. `None` if there is no listener, or if it does not
    /// terminate TLS.
    pub fn certificates_for(&self, name: Option<&str>) -> Option<&Arc<Certificates>> {
        select_by_server_name(&self.listeners, name)?.certificates()
    }

    /// Whether the listener for this server name accepts a client that an earlier version of the listener verified in
    /// this way. A client that was not verified as the listener requires now needs a new connection.
    pub(crate) fn accepts_client(&self, name: Option<&str>, verified_by: Option<&Arc<ClientValidation>>) -> bool {
        if !self.verifies_clients {
            return true;
        }
        let required = self.certificates_for(name).and_then(|certificates| certificates.client_validation());
        let required = required.filter(|required| required.mode() == ClientValidationMode::Required);
        required.is_none_or(|required| {
            verified_by.is_some_and(|verified_by| Arc::ptr_eq(verified_by, required) || verified_by == required)
        })
    }

    /// A copy with other listeners for some hosts, none of which verifies clients.
    pub fn with_listeners(&self, changed: impl IntoIterator<Item = (HostPattern, Option<TlsListener>)>) -> Self {
        let mut changed_copy = self.clone();
        for (host, listener) in changed {
            if let Some(before) = changed_copy.listeners.get(&host) {
                changed_copy.stream_count -= usize::from(before.stream_hosts().is_some());
                changed_copy.passthrough_count -= usize::from(before.is_passthrough());
            }
            if let Some(after) = &listener {
                changed_copy.stream_count += usize::from(after.stream_hosts().is_some());
                changed_copy.passthrough_count += usize::from(after.is_passthrough());
            }
            changed_copy.listeners.set(host, listener);
        }
        changed_copy
    }

    /// A copy with other limits for some hosts.
    pub fn with_limits(&self, changed: impl IntoIterator<Item = (HostPattern, Option<Arc<HandshakeLimits>>)>) -> Self {
        let mut changed_copy = self.clone();
        for (host, limits) in changed {
            changed_copy.limits.set(host, limits);
        }
        changed_copy
    }

    /// A line for the limits of each host, sorted.
    pub(super) fn limit_lines(&self) -> Vec<String> {
        self.limits.sorted().into_iter().map(|(host, limits)| format!("{host}: {}", limits.choice)).collect()
    }

    /// The limits of exactly this hostname.
    pub fn limits_of(&self, hostname: &HostPattern) -> Option<&Arc<HandshakeLimits>> {
        self.limits.get(hostname)
    }

    /// The limits of handshakes with this server name.
    pub fn limits_for(&self, name: Option<&str>) -> Option<&Arc<HandshakeLimits>> {
        if self.limits.is_empty() {
            return None;
        }
        // The empty name matches only `HostPattern::Any`.
        self.limits.most_specific(name.unwrap_or_default())
    }

    /// The certificates of all listeners that terminate TLS, by the hostname of the listener, sorted.
    pub fn certificates(&self) -> impl Iterator<Item = (&HostPattern, &Arc<Certificates>)> {
        self.listeners.sorted().into_iter().filter_map(|(host, listener)| Some((host, listener.certificates()?)))
    }

    /// The certificates of the listener with this hostname. `None` if it does not terminate TLS.
    pub fn certificates_of(&self, hostname: &HostPattern) -> Option<&Arc<Certificates>> {
        self.listeners.get(hostname)?.certificates()
    }

    /// Whether no listener of the port terminates TLS.
    pub fn only_passes_through(&self) -> bool {
        self.listeners.iter().all(|(_, listener)| listener.certificates().is_none())
    }

    /// Whether the host is one of a listener that forwards connections. A request for it came on a connection that was
    /// opened for another host.
    pub(super) fn is_for_streams(&self, host: &str) -> bool {
        let forwards = |listener: &TlsListener| listener.stream_hosts().is_some();
        self.stream_count > 0 && self.listeners.most_specific(host).is_some_and(forwards)
    }
}

/// Selects a listener by server name: the one with the most specific hostname.
///
/// Without SNI, the one without a hostname is selected, or else the only one of the port. If there are several, and all
/// have a hostname, none is selected.
pub(super) fn select_by_server_name<'m, T: Clone>(listeners: &'m HostMap<T>, name: Option<&str>) -> Option<&'m T> {
    let only_listener =
        || (listeners.len() == 1).then(|| listeners.iter().next()).flatten().map(|(_, listener)| listener);
    match name {
        Some(name) => listeners.most_specific(name),
        // The empty name matches only `HostPattern::Any`.
        None => listeners.most_specific("").or_else(only_listener),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_name_selects_listener() {
        let map = |patterns: &[&'static str]| -> HostMap<&'static str> {
            let text = |text: &'static str| Some(text).filter(|text| *text != "*");
            patterns.iter().map(|pattern| (HostPattern::parse(text(pattern)), *pattern)).collect()
        };
        let all = map(&["*", "*.example.com", "a.example.com"]);
        let without_any = map(&["*.example.com", "a.example.com"]);
        let only = map(&["a.example.com"]);
        for (listeners, name, expected) in [
            (&all, Some("a.example.com"), Some("a.example.com")),
            (&all, Some("x.y.example.com"), Some("*.example.com")),
            (&all, Some("example.com"), Some("*")),
            (&all, None, Some("*")),
            (&without_any, Some("b.example.org"), None),
            (&without_any, None, None),
            (&only, None, Some("a.example.com")),
            (&only, Some("b.example.com"), None),
            (&map(&[]), None, None),
        ] {
            assert_eq!(select_by_server_name(listeners, name).copied(), expected, "{name:?} among {listeners:?}");
        }
    }

    fn rule(listener: &str) -> Arc<StreamRule> {
        Arc::new(StreamRule { gateway: "a/gateway".into(), listener: listener.into(), port: 443, route: None })
    }

    fn host(text: &str) -> HostPattern {
        HostPattern::parse(Some(text).filter(|text| *text != "*"))
    }

    #[test]
    fn listener_of_the_server_name_terminates_or_passes_through() {
        let hosts = ["*.example.com", "a.example.com"].map(|name| (host(name), rule(name)));
        let passthrough = StreamHosts { hosts: hosts.into_iter().collect(), unrouted: rule("unrouted") };
        let certificates = Arc::new(Certificates::default());
        let tls = PortTls::new(HostMap::new([
            (host("*.com"), TlsListener::Passthrough(passthrough)),
            (host("secure.example.com"), TlsListener::Terminate(certificates)),
            (host("*.org"), TlsListener::Terminate(Arc::default())),
            (host("db.org"), {
                let hosts = StreamHosts { hosts: HostMap::new([(host("db.org"), rule("db"))]), unrouted: rule("") };
                TlsListener::TerminateStream(Arc::default(), hosts)
            }),
        ]));
        for (name, expected) in [
            (Some("a.example.com"), Some("a.example.com")),
            (Some("b.c.example.com"), Some("*.example.com")),
            (Some("example.com"), Some("unrouted")),
            (Some("secure.example.com"), Some("terminate")),
            (Some("a.org"), Some("terminate")),
            (Some("db.org"), Some("db")),
            (Some("a.net"), None),
            (None, None),
        ] {
            let action = tls.action(name).map(|action| match action {
                TlsAction::Terminate(_) => "terminate",
                TlsAction::TerminateStream(rule) | TlsAction::Passthrough(rule) => &*rule.listener,
            });
            assert_eq!(action, expected, "{name:?}");
        }
        assert_eq!(tls.certificates().count(), 3);
        assert!(
            tls.certificates_for(Some("db.org")).is_some() && tls.certificates_for(Some("a.example.com")).is_none()
        );
        for (name, expected) in
            [("a.example.com", true), ("secure.example.com", false), ("a.org", false), ("db.org", true)]
        {
            assert_eq!(tls.is_for_streams(name), expected, "{name}");
        }
    }

    #[test]
    fn connection_without_a_server_name_needs_a_route_for_any_host() {
        let passthrough = |hosts: &[&str]| {
            let hosts = hosts.iter().map(|name| (host(name), rule(name))).collect();
            let passthrough = StreamHosts { hosts, unrouted: rule("unrouted") };
            PortTls::new(HostMap::new([(HostPattern::Any, TlsListener::Passthrough(passthrough))]))
        };
        for (hosts, expected) in [(&["*", "a.example.com"][..], "*"), (&["a.example.com"], "unrouted")] {
            let tls = passthrough(hosts);
            let Some(TlsAction::Passthrough(rule)) = tls.action(None) else { panic!("no rule") };
            assert_eq!(&*rule.listener, expected);
        }
    }

    #[test]
    fn listeners_of_hosts_are_replaced() {
        let pass = |name: &str| {
            let hosts = HostMap::new([(host(name), rule(name))]);
            Some(TlsListener::Passthrough(StreamHosts { hosts, unrouted: rule("") }))
        };
        let terminate = || Some(TlsListener::Terminate(Arc::default()));
        let (a, b) = ("a.example", "b.example");
        let mut tls = PortTls::default();
        for (changes, passthrough, streams) in [
            (vec![("*", terminate()), (a, terminate())], false, [false, false]),
            (vec![(a, pass(a))], true, [true, false]),
            (vec![(a, pass(a)), (b, pass(b))], true, [true, true]),
            (vec![(a, None)], true, [false, true]),
            (vec![(b, terminate()), (a, None)], false, [false, false]),
        ] {
            tls = tls.with_listeners(changes.into_iter().map(|(name, listener)| (host(name), listener)));
            assert_eq!(tls.has_passthrough(), passthrough, "{tls:?}");
            assert_eq!([a, b].map(|name| tls.is_for_streams(name)), streams, "{tls:?}");
            let passes = [a, b].map(|name| matches!(tls.action(Some(name)), Some(TlsAction::Passthrough(_))));
            assert_eq!(passes, streams, "{tls:?}");
        }
    }
}
