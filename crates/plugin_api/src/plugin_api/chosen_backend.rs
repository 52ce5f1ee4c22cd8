//! The Services that a plugin may choose for a request in place of the backends of its rule.
//!
//! A plugin lists them when it is built, and they are resolved for each rule that it is attached to, like the backends
//! of the rule. In `access` it chooses one by its index, so that a request needs no lookup.

use std::fmt;

use crate::diagnostic::Diagnostic;

/// A port of a Service that the configuration of a plugin names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendName {
    /// The path of the field below `config`.
    pub field: String,
    /// `None` for the namespace of the object that configures the plugin.
    pub namespace: Option<String>,
    pub service: String,
    pub port: u16,
}

/// The backend that a plugin has chosen for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChosenBackend {
    /// The index among all backends that plugins of the rule may choose.
    pub index: u16,
    /// Whether a backend of the rule gets the request if this one is not available.
    pub has_fallback: bool,
}

/// How many backends the plugins of a rule may name together.
pub const MAX_CHOSEN_BACKENDS: usize = 1_000;

impl BackendName {
    /// Parses the name of a Service: `svc`, `svc.ns`, `svc.ns.svc`, `svc.ns.svc.cluster.local`, or `svc.ns.80.svc` as
    /// Kong's ingress controller names it. `port`: what another field of the configuration says.
    pub fn parse(field: &str, host: &str, port: Option<u16>) -> Result<Self, Diagnostic> {
        let problem = |message: String, remedy: &str| Diagnostic::in_config(field, message, remedy);
        let mut labels = host.strip_suffix('.').unwrap_or(host).split('.');
        let parts = (labels.next().unwrap_or_default(), labels.next(), labels.next(), labels.next(), labels.next());
        let (service, namespace, named_port) = match (parts, labels.next()) {
            ((service, None, ..), None) => (service, None, None),
            (
                (service, Some(namespace), None, ..)
                | (service, Some(namespace), Some("svc"), None, _)
                | (service, Some(namespace), Some("svc"), Some("cluster"), Some("local")),
                None,
            ) => (service, Some(namespace), None),
            ((service, Some(namespace), Some(port), Some("svc"), None), None) => {
                let number = port.parse::<u16>().ok().filter(|number| *number > 0);
                let remedy = "write the number of the port, as in shop.default.80.svc";
                let number = number.ok_or_else(|| problem(format!("{port:?} is not a port number"), remedy))?;
                (service, Some(namespace), Some(number))
            }
            _ => return Err(problem(format!("{host} is not the name of a Service"), SERVICES_ONLY)),
        };
        if !is_label(service) || namespace.is_some_and(|namespace| !is_label(namespace)) {
            return Err(problem(format!("{host} is not the name of a Service"), SERVICES_ONLY));
        }
        let port = match (named_port, port) {
            (Some(named), Some(other)) if named != other => {
                let message = format!("{host} names port {named}, but the configuration sets port {other}");
                return Err(problem(message, "write the same port in both places, or only in one of them"));
            }
            (named, other) => named.or(other),
        };
        let remedy = "add the port of the Service to the name, as in shop.default.80.svc";
        let port = port.ok_or_else(|| problem(format!("{host} has no port"), remedy))?;
        Ok(BackendName {
            field: field.to_owned(),
            namespace: namespace.map(str::to_owned),
            service: service.to_owned(),
            port,
        })
    }
}

/// A Service without namespace is written without it.
impl fmt::Display for BackendName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(formatter, "{namespace}/")?;
        }
        write!(formatter, "{}:{}", self.service, self.port)
    }
}

/// Whether a text may be a label of a DNS name, as names of Services and namespaces are.
fn is_label(text: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_valid) && !text.starts_with('-') && !text.ends_with('-')
}

const SERVICES_ONLY: &str = "write SERVICE.NAMESPACE.PORT.svc; for a host outside of the cluster, create a Service of \
                             type ExternalName";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services_are_parsed() {
        for (host, port, expected) in [
            ("shop", Some(80), "shop:80"),
            ("shop.a", Some(80), "a/shop:80"),
            ("shop.a.svc", Some(8080), "a/shop:8080"),
            ("shop.a.svc.cluster.local", Some(80), "a/shop:80"),
            ("shop.a.svc.cluster.local.", Some(80), "a/shop:80"),
            ("shop.a.81.svc", None, "a/shop:81"),
            ("shop.a.81.svc", Some(81), "a/shop:81"),
        ] {
            let name = BackendName::parse("upstream_host", host, port).map(|name| name.to_string());
            assert_eq!(name.as_deref(), Ok(expected), "{host}");
        }
    }

    #[test]
    fn other_hosts_are_refused_with_what_would_be_right() {
        for (host, port, message) in [
            ("", Some(80), "is not the name of a Service"),
            ("shop", None, "shop has no port"),
            ("shop.a.svc", None, "has no port"),
            ("shop.a.0.svc", None, "\"0\" is not a port number"),
            ("shop.a.web.svc", None, "\"web\" is not a port number"),
            ("shop.a.81.svc", Some(80), "names port 81, but the configuration sets port 80"),
            ("www.shop.example", Some(80), "is not the name of a Service"),
            ("shop.a.svc.cluster.local.x", Some(80), "is not the name of a Service"),
            ("shop..svc", Some(80), "is not the name of a Service"),
            ("Shop.a", Some(80), "is not the name of a Service"),
            ("-shop.a", Some(80), "is not the name of a Service"),
            ("127.0.0.1", Some(80), "is not the name of a Service"),
            ("[::1]", Some(80), "is not the name of a Service"),
        ] {
            let problem = BackendName::parse("upstream_host", host, port).unwrap_err();
            assert!(problem.message.contains(message), "{host}: {problem:?}");
            assert_eq!(problem.field, "config.upstream_host", "{host}");
            assert!(!problem.remedy.is_empty(), "{host}");
        }
    }
}
