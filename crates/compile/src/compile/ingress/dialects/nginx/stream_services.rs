//! The ConfigMaps of ports: those of `--nginx-tcp-services` and `--nginx-udp-services`. A key is a port, and its value
//! the Service to which the connections or datagrams of that port are forwarded.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::config_map;
use super::stream_defaults::{self, StreamDefaults};
use crate::api::core::ConfigMap;
use crate::api::{Kind, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::backend::{self, PortReference, StreamBackend, reference};
use crate::compile::ingress::settings::StreamProtocol;
use crate::compile::ingress::streams::guarded_route::{GuardedRoute, UnguardedStream};
use crate::compile::ingress::streams::plan::{PlannedRule, StreamIngressPlan, open_port};
use crate::compile::kong::plugins::{Plugins, StreamPluginSite};
use crate::compile::kong::service_annotations;
use crate::compile::objects::missing_object::missing_object;
use crate::diagnostic::Diagnostic;
use crate::snapshot::host::HostPattern;
use crate::snapshot::rule::{Backend, BackendTarget, Filters, RouteFailure, RuleId, WeightedBackends};
use crate::snapshot::stream::{StreamAction, StreamOptions};
use crate::upstream::{ProxyProtocol, UpstreamKey};
use crate::verdict::unique_diagnostics::UniqueDiagnostics;

/// The flags that name ConfigMaps of ports, with the protocol of each.
fn flags(cx: CompileContext<'_>) -> [(&'static str, StreamProtocol, Option<&ObjectKey>); 2] {
    let settings = cx.inputs.ingress;
    [
        ("--nginx-tcp-services", StreamProtocol::Tcp, settings.nginx_tcp_services.as_ref()),
        ("--nginx-udp-services", StreamProtocol::Udp, settings.nginx_udp_services.as_ref()),
    ]
}

/// Plans the ports of a ConfigMap that flags name. One that does not exist has an error, which nothing else reports.
pub(in crate::compile::ingress) fn plan(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    key: &ObjectKey,
) -> StreamIngressPlan {
    let of_flags = flags(cx).into_iter().filter(|(.., named)| *named == Some(key));
    let Some(config_map) = cx.store.config_maps.get(key) else {
        let names: Vec<&str> = of_flags.map(|(flag, ..)| flag).collect();
        let mut problem = missing_object(cx.store, "", Kind::ConfigMap, key);
        problem.message.push_str(&format!(", and it is that of {}, so its ports are closed", names.join(" and ")));
        return StreamIngressPlan { errors: vec![problem], ..StreamIngressPlan::default() };
    };
    let defaults = config_map::read(cx).streams;
    let mut planner = PortPlanner {
        cx,
        plugins,
        config_map,
        defaults: &defaults,
        rules: Vec::new(),
        upstreams: BTreeSet::new(),
        errors: UniqueDiagnostics::default(),
        notes: UniqueDiagnostics::default(),
    };
    for (_, protocol, _) in of_flags {
        for (index, (port, service)) in config_map.data.iter().enumerate() {
            planner.add(index, protocol, port, service);
        }
        if protocol == StreamProtocol::Udp && defaults.has_idle_timeout && !config_map.data.is_empty() {
            planner.notes.push(idle_timeout_note());
        }
    }
    StreamIngressPlan {
        generation: config_map.meta.generation,
        created: config_map.meta.created,
        rules: planner.rules,
        upstreams: planner.upstreams.into_iter().collect(),
        errors: planner.errors.into_vec(),
        notes: planner.notes.into_vec(),
        ..StreamIngressPlan::default()
    }
}

/// The Services that the values of a ConfigMap name, whether they exist or not.
pub(in crate::compile::ingress) fn services(cx: CompileContext<'_>, key: &ObjectKey) -> BTreeSet<ObjectKey> {
    let values = cx.store.config_maps.get(key).into_iter().flat_map(|config_map| config_map.data.values());
    values.filter_map(|value| PortTarget::parse(value).ok()).map(|target| target.service).collect()
}

/// Plans the ports of one ConfigMap.
struct PortPlanner<'a> {
    cx: CompileContext<'a>,
    plugins: &'a Plugins,
    config_map: &'a Object<ConfigMap>,
    defaults: &'a StreamDefaults,
    rules: Vec<PlannedRule>,
    upstreams: BTreeSet<UpstreamKey>,
    errors: UniqueDiagnostics,
    notes: UniqueDiagnostics,
}

impl PortPlanner<'_> {
    /// `index`: of the key in the ConfigMap.
    fn add(&mut self, index: usize, protocol: StreamProtocol, key: &str, value: &str) {
        let field = format!("data[{key}]");
        let Some(port) = key.parse::<u16>().ok().filter(|port| *port != 0 && !key.starts_with('+')) else {
            let message = format!("the key {key:?} is not a port");
            return self.errors.push(Diagnostic::error(field, message, "write a number from 1 to 65535"));
        };
        let target = match PortTarget::parse(value) {
            Ok(target) => target,
            Err(message) => return self.errors.push(Diagnostic::error(field, message, VALUE_REMEDY)),
        };
        let listeners = self.cx.inputs.ingress.streams.as_deref();
        match open_port(listeners, port, protocol, &field) {
            Ok(StreamProtocol::Tls) => {
                let message = format!("port {port} is decrypted, which ingress-nginx does not do");
                let remedy = format!("write {port} in --ingress-stream-ports, or use a TCPIngress");
                return self.errors.push(Diagnostic::error(field, message, remedy));
            }
            Ok(StreamProtocol::Tcp | StreamProtocol::Udp) => {}
            Err(problem) => return self.errors.push(problem),
        }
        if protocol == StreamProtocol::Udp && (target.reads_proxy_header || target.sends_proxy_header) {
            let message = "PROXY has no effect on UDP, as in ingress-nginx";
            self.notes.push(Diagnostic::warning(&*field, message, "remove it"));
        }
        let rule = self.rule(index, port, protocol, &target, field);
        self.rules.push(rule);
    }

    fn rule(
        &mut self,
        index: usize,
        port: u16,
        protocol: StreamProtocol,
        target: &PortTarget<'_>,
        field: String,
    ) -> PlannedRule {
        let is_tcp = protocol == StreamProtocol::Tcp;
        let backend = match self.upstream(protocol, target, &field) {
            Ok(key) => {
                let upstream = self.cx.inputs.upstreams.upstream(&key);
                self.upstreams.insert(key);
                BackendTarget::Upstream(upstream)
            }
            Err(problem) => {
                self.errors.push(problem);
                BackendTarget::Fail(RouteFailure::InvalidBackend)
            }
        };
        let backend = Backend { weight: 1, filters: Filters::default(), target: backend };
        let action = match WeightedBackends::new(vec![backend]) {
            Some(split) => StreamAction::Forward(split),
            None => StreamAction::Reset(RouteFailure::NoBackends),
        };
        let service = self.cx.store.services.get(&target.service);
        let services: Vec<_> = service.map(|service| (&service.meta, field.clone())).into_iter().collect();
        let site = StreamPluginSite {
            kind: Kind::ConfigMap,
            meta: &self.config_map.meta,
            services: &services,
            rule: index,
            server_names: Vec::new(),
            backends: &[],
        };
        let id = RuleId {
            route: format!("{}/{}", Kind::ConfigMap, self.config_map.meta.key).into(),
            rule: format!("{}-{port}", protocol.name()).into(),
        };
        let options = is_tcp.then(|| StreamOptions {
            reads_proxy_header: target.reads_proxy_header,
            idle_timeout: Some(self.defaults.idle_timeout),
            connect_attempts: Some(self.defaults.attempts()),
            connect_time: self.defaults.attempts_time(),
        });
        let stream = UnguardedStream { id, action, options: options.map(Arc::new) };
        let GuardedRoute { route, errors, notes } = stream.guarded(self.cx, self.plugins, site);
        self.errors.extend(errors);
        self.notes.extend(notes);
        PlannedRule { port, protocol, host: HostPattern::Any, route, field }
    }

    fn upstream(
        &self,
        protocol: StreamProtocol,
        target: &PortTarget<'_>,
        field: &str,
    ) -> Result<UpstreamKey, Diagnostic> {
        let service = backend::find_service(self.cx.store, &target.service, field)?;
        let transport = protocol.transport();
        let port = backend::find_port(service, target.port, transport, field)?;
        let settings = service_annotations::for_gateway_api(service);
        let stream = StreamBackend { transport, is_encrypted: false };
        let key = reference::stream_upstream_of_port(self.cx, service, &port, &settings, stream, field);
        let mut key = key.map_err(|(_, problem)| problem.at(field.to_owned()))?;
        if target.sends_proxy_header && protocol == StreamProtocol::Tcp {
            key.proxy_protocol = Some(ProxyProtocol::V1);
        }
        Ok(key)
    }
}

/// What the value of a port says.
#[derive(Debug, PartialEq)]
struct PortTarget<'a> {
    service: ObjectKey,
    port: PortReference<'a>,
    /// Connections begin with a PROXY header.
    reads_proxy_header: bool,
    /// The endpoint gets a PROXY header.
    sends_proxy_header: bool,
}

impl<'a> PortTarget<'a> {
    /// The error says what is wrong.
    fn parse(text: &'a str) -> Result<Self, String> {
        let text = text.trim();
        let mut parts = text.split(':');
        let service = parts.next().and_then(|service| service.split_once('/'));
        let service = service.filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
        let port = parts.next().filter(|port| !port.is_empty());
        let (Some((namespace, name)), Some(port)) = (service, port) else {
            return Err(format!("{text:?} does not name a Service with its namespace and its port"));
        };
        if name.contains('/') {
            return Err(format!("{text:?} has more than one slash"));
        }
        let mut is_proxy = || match parts.next() {
            None | Some("") => Ok(false),
            Some(word) if word.eq_ignore_ascii_case("PROXY") => Ok(true),
            Some(word) => Err(format!("{word:?} is not PROXY")),
        };
        let (reads_proxy_header, sends_proxy_header) = (is_proxy()?, is_proxy()?);
        if parts.next().is_some() {
            return Err(format!("{text:?} has more than four parts"));
        }
        let port = match port.parse::<i32>() {
            Ok(number) => PortReference::Number(number),
            Err(_) => PortReference::Name(port),
        };
        Ok(PortTarget { service: ObjectKey::new(namespace, name), port, reads_proxy_header, sends_proxy_header })
    }
}

const VALUE_REMEDY: &str = "write NAMESPACE/SERVICE:PORT, followed by :PROXY if clients send a PROXY header, and by \
                            another :PROXY if the Service gets one, or by ::PROXY for only that";

/// What is reported if there are ports for UDP, and the idle timeout is configured.
fn idle_timeout_note() -> Diagnostic {
    let message = format!("{} has no effect on UDP ports", stream_defaults::IDLE_TIMEOUT);
    Diagnostic::of_object(message, "set --udp-idle-timeout, which is that of all UDP sessions").into_warning()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_name_a_service_a_port_and_proxy_headers() {
        for (text, port, reads, sends) in [
            ("db/postgres:5432", PortReference::Number(5432), false, false),
            (" db/postgres:5432 ", PortReference::Number(5432), false, false),
            ("db/postgres:sql", PortReference::Name("sql"), false, false),
            ("db/postgres:5432:PROXY", PortReference::Number(5432), true, false),
            ("db/postgres:5432:proxy:Proxy", PortReference::Number(5432), true, true),
            ("db/postgres:5432::PROXY", PortReference::Number(5432), false, true),
            ("db/postgres:5432::", PortReference::Number(5432), false, false),
        ] {
            let service = ObjectKey::new("db", "postgres");
            let expected = PortTarget { service, port, reads_proxy_header: reads, sends_proxy_header: sends };
            assert_eq!(PortTarget::parse(text), Ok(expected), "{text}");
        }
        for text in ["", "postgres:5432", "db/postgres", "db/postgres:", "/postgres:1", "db/:1", "a/b/c:1"] {
            assert!(PortTarget::parse(text).is_err(), "{text}");
        }
        for text in ["db/postgres:1:TLS", "db/postgres:1:PROXY:on", "db/postgres:1:PROXY:PROXY:PROXY"] {
            assert!(PortTarget::parse(text).is_err(), "{text}");
        }
    }
}
