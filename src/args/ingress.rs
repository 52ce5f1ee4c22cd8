//! Which Ingresses are ours, where they are served, and what their status says.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::{Args, ValueEnum};

use super::network::Listen;

/// What decides how Ingresses are read, for `run` and `check` alike.
#[derive(Debug, Args)]
#[command(next_help_heading = "Ingress")]
pub(super) struct IngressClassArgs {
    /// Class of the Ingresses, consumers and other Kong resources to serve; kong takes over those of Kong's ingress
    /// controller
    #[arg(long, value_name = "NAME", default_value = "portico", env = "PORTICO_INGRESS_CLASS", value_parser = class)]
    ingress_class: String,

    /// Whose order decides between the paths of Ingresses: that of Kong's usual router, or that of its expressions
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = KongRouter::TraditionalCompatible)]
    #[arg(env = "PORTICO_KONG_ROUTER")]
    kong_router: KongRouter,

    /// Serve routes without a plugin that cannot be used even if it guards them, as Kong does; without it they answer 503.
    /// And let who names a KongClusterPlugin in one namespace decide for whom it runs in others
    #[arg(long, env = "PORTICO_KONG_COMPAT_FAIL_OPEN", value_parser = clap::builder::BoolishValueParser::new())]
    kong_compat_fail_open: bool,
}

/// What matters only where Ingresses are served.
#[derive(Debug, Args)]
#[command(next_help_heading = "Ingress")]
pub(super) struct IngressArgs {
    /// Address for Ingresses in plain text, or off. If given it is listened on at once; without it, while there is an
    /// Ingress of ours, 127.0.0.1:8000, and 0.0.0.0:8000 in a cluster
    #[arg(long, value_name = "ADDR", env = "PORTICO_INGRESS_HTTP_LISTEN")]
    ingress_http_listen: Option<Listen>,

    /// Address for Ingresses over TLS, or off; without it likewise 127.0.0.1:8443, and 0.0.0.0:8443 in a cluster
    #[arg(long, value_name = "ADDR", env = "PORTICO_INGRESS_HTTPS_LISTEN")]
    ingress_https_listen: Option<Listen>,

    /// The ports of HTTP and HTTPS that clients see, as redirects and X-Forwarded-Port say them; without it the ports that
    /// are listened on, and 80,443 in a cluster
    #[arg(long, value_name = "HTTP,HTTPS", env = "PORTICO_INGRESS_PUBLIC_PORTS", value_parser = ports)]
    ingress_public_ports: Option<Ports>,

    /// Secret with the certificate for hosts of Ingresses that have none; without it one is made at the start
    #[arg(long, value_name = "NAMESPACE/NAME", env = "PORTICO_INGRESS_DEFAULT_CERTIFICATE", value_parser = name)]
    ingress_default_certificate: Option<Name>,

    /// Service in front of Portico whose addresses the status of Ingresses says (repeatable)
    #[arg(long, value_name = "NAMESPACE/NAME", value_delimiter = ',', env = "PORTICO_PUBLISH_SERVICE")]
    #[arg(value_parser = name)]
    publish_service: Vec<Name>,

    /// Address or name that the status of Ingresses says instead (repeatable)
    #[arg(long, value_name = "ADDR", value_delimiter = ',', env = "PORTICO_PUBLISH_STATUS_ADDRESS")]
    #[arg(value_parser = reachable)]
    publish_status_address: Vec<String>,

    /// Whether the status of Ingresses is written; off while another controller serves them, too
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Switch::On, env = "PORTICO_INGRESS_STATUS")]
    ingress_status: Switch,
}

/// As `--kong-router` spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KongRouter {
    #[value(name = "traditional_compatible")]
    TraditionalCompatible,
    #[value(name = "expressions")]
    Expressions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Namespace and name.
pub type Name = (String, String);

type Ports = (u16, u16);

/// How Ingresses are read, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressClassOptions {
    pub class: String,
    pub router: KongRouter,
    pub fail_open: bool,
}

/// Where Ingresses are served, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressOptions {
    /// None is off.
    pub http: Option<IngressListen>,
    pub https: Option<IngressListen>,
    pub default_certificate: Option<Name>,
    pub publish: PublishOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IngressListen {
    pub address: SocketAddr,
    /// The port that clients see.
    pub public: u16,
    /// Somebody asked for it, so that it does not wait for an Ingress.
    pub always: bool,
}

/// What the status of Ingresses says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishOptions {
    Nothing,
    Addresses(Vec<String>),
    Services(Vec<Name>),
}

impl IngressClassArgs {
    pub(super) fn resolve(self) -> IngressClassOptions {
        let IngressClassArgs { ingress_class, kong_router, kong_compat_fail_open } = self;
        IngressClassOptions { class: ingress_class, router: kong_router, fail_open: kong_compat_fail_open }
    }
}

impl IngressArgs {
    pub(super) fn resolve(self, in_cluster: bool) -> IngressOptions {
        let ports = self.ingress_public_ports.or(in_cluster.then_some((80, 443)));
        let address = if in_cluster { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        let listen = |given: Option<Listen>, usual: u16, public: Option<u16>| {
            let address = match given {
                Some(given) => given.address()?,
                None => SocketAddr::new(IpAddr::V4(address), usual),
            };
            Some(IngressListen { address, public: public.unwrap_or(address.port()), always: given.is_some() })
        };
        let publish = match self.ingress_status {
            Switch::Off => PublishOptions::Nothing,
            Switch::On if !self.publish_status_address.is_empty() => {
                PublishOptions::Addresses(self.publish_status_address)
            }
            Switch::On if !self.publish_service.is_empty() => PublishOptions::Services(self.publish_service),
            Switch::On => PublishOptions::Nothing,
        };
        IngressOptions {
            http: listen(self.ingress_http_listen, HTTP, ports.map(|(http, _)| http)),
            https: listen(self.ingress_https_listen, HTTPS, ports.map(|(_, https)| https)),
            default_certificate: self.ingress_default_certificate,
            publish,
        }
    }
}

const HTTP: u16 = 8000;
const HTTPS: u16 = 8443;

fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    !text.is_empty() && text.len() <= 253 && text.bytes().all(good)
}

fn class(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("not the name of an IngressClass; write for example kong".into())
    }
}

fn name(text: &str) -> Result<Name, String> {
    match text.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => Ok((namespace.to_owned(), name.to_owned())),
        _ => Err("not a namespace and a name; write for example portico-system/portico".into()),
    }
}

fn ports(text: &str) -> Result<Ports, String> {
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let both = text.split_once(',').and_then(|(http, https)| Some((port(http)?, port(https)?)));
    both.ok_or_else(|| "not two ports; write for example 80,443".to_owned())
}

fn reachable(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() || is_name(text) {
        return Ok(text.to_owned());
    }
    Err("neither an address nor a host name; write for example 192.0.2.10 or lb.example.com".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken() {
        assert_eq!(ports("80,443"), Ok((80, 443)));
        assert_eq!(name("a/b"), Ok(("a".to_owned(), "b".to_owned())));
        for (text, good) in
            [("192.0.2.1", true), ("2001:db8::1", true), ("lb.example.com", true), ("", false), ("a b", false)]
        {
            assert_eq!(reachable(text).is_ok(), good, "{text}");
        }
        for text in ["80", "80,", "0,443", "80,443,1", "a,b"] {
            assert!(ports(text).is_err(), "{text}");
        }
        for text in ["a", "a/", "/b", "a/b/c", "A/b"] {
            assert!(name(text).is_err(), "{text}");
        }
        assert!(class("kong").is_ok() && class("Kong!").is_err());
    }
}
