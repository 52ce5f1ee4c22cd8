//! Text form of a snapshot for goldens, `/debug/snapshot` and the route table: sorted, stable, without secrets.
//!
//! Matches appear in the order in which they are evaluated: the first one that applies to a request serves it. For
//! Ingresses of several dialects, the routes of each order follow each other, and the host decides which come first.

mod lines;
mod rows;

use std::sync::Arc;

use serde::Serialize;

use super::certs::Certificates;
use super::client_validation::ClientValidationMode;
use super::host::{HostMap, HostPattern};
use super::port_tls::{PortTls, StreamHosts, TlsListener};
use super::router::by_conditions::{ConditionsRouter, HeaderCondition, RouteEntry};
use super::router::locations::LocationRouter;
use super::router::{HostRouter, MatchedPath, QueryMatch, RouteMatch, ValueMatch};
use super::rule::{Action, Backend, BackendTarget, Filters, RedirectAction, Rewrite, RouteRule};
use super::stream::{StreamAction, StreamRule};
use super::timeouts_and_retries::TimeoutsAndRetries;
use super::{Bind, HttpBind, HttpListener, Routes, Served, Snapshot};
use crate::bind_address::BindAddress;
use crate::plugin_api::consumers::plugins::{ConsumerPlugin, OrderedPlugins, PluginSubject};
use lines::{
    certificate_line, external_auth_lines, header_edit_lines, header_line, header_text, mirror_line, path_edit_text,
    protocol, stream_option_lines,
};
pub use rows::RouteTableRow;

/// The whole snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotDump {
    pub binds: Vec<BindDump>,
    /// The plugins that run for consumers and groups on all rules. Rules do not repeat them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub consumer_plugins: Vec<ConsumerPluginsDump>,
}

/// The plugins of one consumer or group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsumerPluginsDump {
    /// `Consumer id` or `Group namespace/name`.
    pub subject: String,
    /// `rate-limiting: KongPlugin/default/gold`, in the order in which they run.
    pub plugins: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BindDump {
    pub address: BindAddress,
    /// The HTTP listeners.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerDump>,
    /// The TLS listeners whose connections are forwarded, by the hostnames of their routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls_streams: Vec<TlsStreamDump>,
    /// `a.example: TLS 1.2 (TLS_ECDHE_…), TLS 1.3`: what handshakes for a host may use, where less than usual.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub handshake_limits: Vec<String>,
    /// The TCP listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<StreamDump>,
    /// The UDP listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<StreamDump>,
}

/// A TLS listener with the rule for the connections of one hostname.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsStreamDump {
    /// The hostname of the listener.
    pub hostname: String,
    /// `Passthrough`, or `Terminate`: the endpoint gets the decrypted bytes.
    pub mode: &'static str,
    /// The hostname of the route; absent if no route is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(flatten)]
    pub stream: StreamDump,
}

/// A listener with the rule for its connections or UDP sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamDump {
    /// `namespace/gateway/listener`.
    pub listener: String,
    /// The port that clients see.
    pub port: u16,
    /// `Kind/namespace/name`, for example `TCPRoute/default/db`; absent if no route is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// As for requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<String>,
    /// `reads PROXY header`, `idle timeout 600s`, …: the options that differ from the defaults.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    pub action: ActionDump,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListenerDump {
    /// `namespace/gateway/listener`.
    pub listener: String,
    pub hostname: String,
    /// The port that clients see.
    pub port: u16,
    /// `namespace/secret: names, until date`, if the listener serves TLS; for the listener of Ingresses `host:
    /// namespace/secret: …`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Vec<String>>,
    /// What clients need; absent if they are not asked for a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificates: Option<&'static str>,
    /// `a.example: by host`: the order that comes first for a host that Ingresses of several dialects name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub first_orders: Vec<String>,
    pub hosts: Vec<HostDump>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostDump {
    pub host: String,
    pub matches: Vec<MatchDump>,
}

/// One match of a rule, with the rule's settings and action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MatchDump {
    /// `Exact /a`, `PathPrefix /`, `RegularExpression /a.*`; in the order by conditions `Exact /a`, `Prefix /`, `Regex
    /// ~/a`, `any path`; of locations `= /a`, `/a/`, `~* ^/a`.
    pub path: String,
    /// Several methods are alternatives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// `gRPC`, or `gRPC method SayHello`: only gRPC calls match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// `name: value`, or `name ~ pattern`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// `name=value`, or `name ~ pattern`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<String>,
    /// SNI names, for TLS connections.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub server_names: Vec<String>,
    /// `Kind/namespace/name`, for example `HTTPRoute/default/web`.
    pub route: String,
    pub rule: String,
    /// `strip path`, `protocols https`, …: the options that differ from the defaults.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// `key-auth: route KongPlugin/default/key`, in the order in which they run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<String>,
    /// The backends that plugins may choose, without their weights, which have no effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chosen_by_plugins: Vec<BackendDump>,
    #[serde(skip_serializing_if = "FiltersDump::is_empty")]
    pub filters: FiltersDump,
    /// `request 10s`, `backendRequest unlimited`, `retries 2, also on 503, after 25ms`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timeouts_and_retries: Vec<String>,
    /// `cookie name; Path=/; HttpOnly; SameSite=Strict`, `header name`, with the timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    pub action: ActionDump,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FiltersDump {
    /// `remove name`, `set name: value`, `add name: value`, in the order in which they are applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_headers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite_host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite_path: Option<String>,
    /// `origins *`, `methods GET, PUT`, …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cors: Vec<String>,
    /// `namespace/service:port, h2, TLS verified (terms …)`, then `HTTP`, `path /check`, `request headers cookie`, …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external_auth: Vec<String>,
    /// `namespace/service:port 20/100, h2, TLS verified (terms …)`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionDump {
    Redirect(RedirectDump),
    Forward(Vec<BackendDump>),
    /// Why every request that matches gets an error.
    Fail(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RedirectDump {
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A weighted backend: an upstream, or an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendDump {
    /// `namespace/service:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// The protocol to the upstream, if it is not HTTP/1.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<&'static str>,
    /// `TLS verified with client certificate (terms …)`, if the upstream uses TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail: Option<String>,
    pub weight: u32,
    #[serde(skip_serializing_if = "FiltersDump::is_empty")]
    pub filters: FiltersDump,
}

impl Snapshot {
    /// The complete snapshot, for goldens and `/debug/snapshot`.
    pub fn dump(&self) -> SnapshotDump {
        let consumer_plugins = self.consumers.plugins.iter().flat_map(|plugins| plugins.entries());
        let consumer_plugins = consumer_plugins.map(ConsumerPluginsDump::from).collect();
        SnapshotDump { binds: self.dump_binds(), consumer_plugins }
    }

    /// The dump without the plugins of consumers, of which there may be very many.
    pub fn dump_binds(&self) -> Vec<BindDump> {
        let bind = |(address, bind): (&BindAddress, &Arc<Bind>)| {
            let mut dumped = BindDump {
                address: *address,
                listeners: Vec::new(),
                tls_streams: Vec::new(),
                handshake_limits: Vec::new(),
                tcp: None,
                udp: None,
            };
            match &bind.served {
                Served::Http(http) => {
                    dumped.listeners = http.dump();
                    dumped.tls_streams = http.tls.as_ref().map(PortTls::dump).unwrap_or_default();
                    dumped.handshake_limits = http.tls.as_ref().map(PortTls::limit_lines).unwrap_or_default();
                }
                Served::Tcp(rule) => dumped.tcp = Some(StreamDump::from(&**rule)),
                Served::Udp(rule) => dumped.udp = Some(StreamDump::from(&**rule)),
            }
            dumped
        };
        self.binds.iter().map(bind).collect()
    }
}

impl HttpBind {
    fn dump(&self) -> Vec<ListenerDump> {
        let certificates = |hostname: &HostPattern, listener: &HttpListener| {
            let tls = self.tls.as_ref()?;
            let lines = |certificates: &Certificates| {
                certificates.all().iter().map(|certificate| certificate_line(certificate)).collect::<Vec<_>>()
            };
            if !listener.serves_ingresses() {
                return tls.certificates_of(hostname).map(|certificates| lines(certificates));
            }
            // The listener of Ingresses serves all hosts, with certificates for each.
            let lines_by_host = tls.certificates().flat_map(|(host, certificates)| {
                lines(certificates).into_iter().map(move |line| format!("{host}: {line}"))
            });
            Some(lines_by_host.collect())
        };
        let listeners = self.listeners.sorted().into_iter();
        let listeners = listeners.map(|(hostname, listener)| {
            let own = self.tls.as_ref().and_then(|tls| tls.certificates_of(hostname));
            let validation = own.and_then(|certificates| certificates.client_validation());
            let client_certificates = validation.map(|validation| match validation.mode() {
                ClientValidationMode::Required => "required",
                ClientValidationMode::InsecureFallback => "accepted without verification",
            });
            let certificates = certificates(hostname, listener);
            ListenerDump { client_certificates, ..listener.dump(hostname, certificates) }
        });
        listeners.collect()
    }
}

impl PortTls {
    fn dump(&self) -> Vec<TlsStreamDump> {
        let mut dumped = Vec::new();
        for (hostname, listener) in self.listeners().sorted() {
            let Some(StreamHosts { hosts, unrouted }) = listener.stream_hosts() else { continue };
            let mode = if matches!(listener, TlsListener::Passthrough(_)) { "Passthrough" } else { "Terminate" };
            let dump = |host: Option<&HostPattern>, rule: &Arc<StreamRule>| TlsStreamDump {
                hostname: hostname.to_string(),
                mode,
                host: host.map(HostPattern::to_string),
                stream: StreamDump::from(&**rule),
            };
            dumped.extend(hosts.is_empty().then(|| dump(None, unrouted)));
            dumped.extend(hosts.sorted().into_iter().map(|(host, rule)| dump(Some(host), rule)));
        }
        dumped
    }
}

impl From<&StreamRule> for StreamDump {
    fn from(rule: &StreamRule) -> Self {
        let StreamRule { gateway, listener, port, route } = rule;
        StreamDump {
            listener: format!("{gateway}/{listener}"),
            port: *port,
            route: route.as_ref().map(|route| route.id.route.to_string()),
            rule: route.as_ref().map(|route| route.id.rule.to_string()),
            plugins: route
                .iter()
                .filter_map(|route| route.plugins.as_ref())
                .flat_map(|chain| chain.attachments())
                .map(plugin_line)
                .collect(),
            options: route.iter().flat_map(|route| route.options.as_deref()).flat_map(stream_option_lines).collect(),
            action: match route.as_ref().map(|route| &route.action) {
                Some(StreamAction::Forward(split)) => {
                    ActionDump::Forward(split.backends().iter().map(BackendDump::from).collect())
                }
                Some(StreamAction::Reset(failure)) => ActionDump::Fail(failure.to_string()),
                None => ActionDump::Fail("no route".to_owned()),
            },
        }
    }
}

impl HttpListener {
    fn dump(&self, hostname: &HostPattern, certificates: Option<Vec<String>>) -> ListenerDump {
        ListenerDump {
            listener: format!("{}/{}", self.gateway, self.name),
            hostname: hostname.to_string(),
            port: self.port,
            certificates,
            client_certificates: None,
            first_orders: match &self.routes {
                Routes::Ingresses(routes) => routes.contested_hosts(),
                Routes::ByHost(_) | Routes::ByConditions(_) => Vec::new(),
            },
            hosts: self.routes.dump(),
        }
    }
}

impl Routes {
    fn dump(&self) -> Vec<HostDump> {
        match self {
            Routes::ByHost(hosts) => dump_by_host(hosts),
            Routes::ByConditions(router) => dump_by_conditions(router),
            Routes::Ingresses(routes) => routes.dump(),
        }
    }
}

/// The matches of each host.
pub(super) fn dump_by_host(hosts: &HostMap<Arc<HostRouter>>) -> Vec<HostDump> {
    let matches = |router: &HostRouter| router.matches().iter().map(MatchDump::from).collect();
    let hosts = hosts.sorted().into_iter();
    hosts.map(|(host, router)| HostDump { host: host.to_string(), matches: matches(router) }).collect()
}

/// The locations of each host.
pub(super) fn dump_locations(hosts: &HostMap<Arc<LocationRouter>>) -> Vec<HostDump> {
    let matches = |router: &LocationRouter| {
        let locations = router.locations().iter();
        let dumped = locations
            .map(|location| MatchDump { path: location.path.to_string(), ..MatchDump::for_rule(&location.rule) });
        dumped.collect()
    };
    let hosts = hosts.sorted().into_iter();
    hosts.map(|(host, router)| HostDump { host: host.to_string(), matches: matches(router) }).collect()
}

/// The entries are in evaluation order, so a host may occur more than once.
pub(super) fn dump_by_conditions(router: &ConditionsRouter) -> Vec<HostDump> {
    let entries = router.entries();
    let runs = entries.chunk_by(|a, b| a.hosts() == b.hosts());
    let matches = |run: &[&RouteEntry]| run.iter().map(|entry| MatchDump::from(*entry)).collect();
    runs.map(|run| HostDump { host: hosts_text(run[0]), matches: matches(run) }).collect()
}

/// The hosts of an entry: `a.example, *.b.example`, or `*` for any host.
fn hosts_text(entry: &RouteEntry) -> String {
    if entry.hosts().is_empty() {
        return "*".to_owned();
    }
    joined(entry.hosts(), ", ")
}

fn joined<T: ToString>(items: &[T], separator: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

impl From<&RouteMatch> for MatchDump {
    fn from(route_match: &RouteMatch) -> Self {
        let headers = route_match.headers.iter().map(|header| match &header.value {
            ValueMatch::Exact(value) => header_line(&header.name, value),
            ValueMatch::Regex(regex) => format!("{} ~ {}", header.name, regex.as_str()),
        });
        MatchDump {
            path: route_match.path.to_string(),
            method: route_match.method.as_ref().map(ToString::to_string),
            call: route_match.call.as_ref().map(ToString::to_string),
            headers: headers.collect(),
            query: route_match.query.iter().map(query_line).collect(),
            server_names: route_match.server_names.iter().map(ToString::to_string).collect(),
            ..MatchDump::for_rule(&route_match.rule)
        }
    }
}

impl From<&RouteEntry> for MatchDump {
    fn from(entry: &RouteEntry) -> Self {
        let route = &entry.route;
        let header = |header: &HeaderCondition| format!("{}: {}", header.name, joined(&header.values, " | "));
        MatchDump {
            path: MatchedPath::ByConditions(entry.path()).to_string(),
            method: (!route.methods.is_empty()).then(|| joined(&route.methods, " | ")),
            call: None,
            headers: route.headers.iter().map(header).collect(),
            query: Vec::new(),
            server_names: route.server_names.iter().map(ToString::to_string).collect(),
            ..MatchDump::for_rule(&route.rule)
        }
    }
}

impl From<(PluginSubject, &OrderedPlugins)> for ConsumerPluginsDump {
    fn from((subject, plugins): (PluginSubject, &OrderedPlugins)) -> Self {
        let line = |plugin: &Arc<ConsumerPlugin>| format!("{}: {}", plugin.place.kind, plugin.instance.object);
        ConsumerPluginsDump { subject: subject.to_string(), plugins: plugins.iter().map(line).collect() }
    }
}

impl MatchDump {
    /// The settings and action of a rule, without conditions.
    fn for_rule(rule: &RouteRule) -> Self {
        MatchDump {
            path: String::new(),
            method: None,
            call: None,
            headers: Vec::new(),
            query: Vec::new(),
            server_names: Vec::new(),
            route: rule.id.route.to_string(),
            rule: rule.id.rule.to_string(),
            options: rule.options().describe(),
            plugins: rule.plugins.iter().flat_map(|chain| chain.attachments()).map(plugin_line).collect(),
            chosen_by_plugins: match &rule.action {
                Action::Forward(split) => split.chosen_by_plugins().iter().map(BackendDump::from).collect(),
                Action::Redirect(_) | Action::Fail(_) => Vec::new(),
            },
            filters: FiltersDump::from(&rule.filters),
            timeouts_and_retries: match &rule.action {
                Action::Forward(split) => {
                    split.timeouts_and_retries.as_deref().map(TimeoutsAndRetries::describe).unwrap_or_default()
                }
                Action::Redirect(_) | Action::Fail(_) => Vec::new(),
            },
            session: match &rule.action {
                Action::Forward(split) => split.affinity().map(|affinity| affinity.to_string()),
                Action::Redirect(_) | Action::Fail(_) => None,
            },
            action: ActionDump::from(&rule.action),
        }
    }
}

/// `name=value`, or `name ~ pattern`.
fn query_line(parameter: &QueryMatch) -> String {
    match &parameter.value {
        ValueMatch::Exact(value) => format!("{}={value}", parameter.name),
        ValueMatch::Regex(regex) => format!("{} ~ {}", parameter.name, regex.as_str()),
    }
}

impl FiltersDump {
    fn is_empty(&self) -> bool {
        *self == FiltersDump::default()
    }
}

/// A kind of plugin with the attachment points and objects of all its instances: `key-auth: route
/// KongPlugin/default/key`.
fn plugin_line((kind, instances): (&'static str, Vec<(String, &Arc<str>)>)) -> String {
    let instances: Vec<_> =
        instances.into_iter().map(|(attached_to, object)| format!("{attached_to} {object}")).collect();
    format!("{kind}: {}", instances.join(", "))
}

impl From<&Filters> for FiltersDump {
    fn from(filters: &Filters) -> Self {
        let Filters { request_headers, response_headers, rewrite, cors, external_auth, mirrors } = filters;
        let rewrite = rewrite.as_ref();
        FiltersDump {
            request_headers: request_headers.as_ref().map(header_edit_lines).unwrap_or_default(),
            response_headers: response_headers.as_ref().map(header_edit_lines).unwrap_or_default(),
            rewrite_host: rewrite.and_then(|Rewrite { host, .. }| host.as_ref()).map(header_text),
            rewrite_path: rewrite.and_then(|Rewrite { path, .. }| path.as_ref()).map(path_edit_text),
            cors: cors.as_ref().map(|cors| cors.describe()).unwrap_or_default(),
            external_auth: external_auth.as_deref().map(external_auth_lines).unwrap_or_default(),
            mirrors: mirrors.iter().map(mirror_line).collect(),
        }
    }
}

impl From<&Action> for ActionDump {
    fn from(action: &Action) -> Self {
        match action {
            Action::Redirect(redirect) => ActionDump::Redirect(RedirectDump::from(redirect)),
            Action::Forward(split) => ActionDump::Forward(split.backends().iter().map(BackendDump::from).collect()),
            Action::Fail(failure) => ActionDump::Fail(failure.to_string()),
        }
    }
}

impl From<&RedirectAction> for RedirectDump {
    fn from(redirect: &RedirectAction) -> Self {
        let RedirectAction { scheme, host, path, port, status, style: _ } = redirect;
        RedirectDump {
            status: status.as_u16(),
            scheme: scheme.map(|scheme| scheme.to_string()),
            host: host.as_deref().map(String::from),
            port: *port,
            path: path.as_ref().map(path_edit_text),
        }
    }
}

impl From<&Backend> for BackendDump {
    fn from(backend: &Backend) -> Self {
        let protocol = match &backend.target {
            BackendTarget::Upstream(upstream) => protocol(&upstream.key),
            BackendTarget::Fail(_) => None,
        };
        let tls = match &backend.target {
            BackendTarget::Upstream(upstream) => upstream.key.tls.as_ref().map(ToString::to_string),
            BackendTarget::Fail(_) => None,
        };
        let (upstream, fail) = match &backend.target {
            BackendTarget::Upstream(upstream) => (Some(upstream.key.to_string()), None),
            BackendTarget::Fail(failure) => (None, Some(failure.to_string())),
        };
        BackendDump {
            upstream,
            protocol,
            tls,
            fail,
            weight: backend.weight,
            filters: FiltersDump::from(&backend.filters),
        }
    }
}

#[cfg(test)]
mod tests;
