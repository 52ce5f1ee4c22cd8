//! Flags for Ingresses: their class, listeners and published status.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::{Args, ValueEnum};

use super::network::ListenArg;
use super::nginx_classes::{NginxArgs, NginxOptions};
use super::object_name::{
    NamespacedName, is_dns_subdomain, parse_class, parse_ingress_controller_name, parse_namespaced_name,
};
use crate::api::names::{INGRESS_CLASS_NAME, INGRESS_CONTROLLER};

/// How Ingresses are interpreted, for `run` and `check` alike.
#[derive(Debug, Args)]
#[command(next_help_heading = "Ingress")]
pub(super) struct IngressClassArgs {
    /// IngressClass of the Ingresses, consumers and other Kong resources to serve; kong takes over the objects of
    /// Kong's ingress controller
    #[arg(long, value_name = "NAME", env = "PORTICO_INGRESS_CLASS", value_parser = parse_class)]
    #[arg(default_value = INGRESS_CLASS_NAME)]
    ingress_class: String,

    /// Controller of the IngressClasses to serve, whatever their names are; a second installation needs another name
    #[arg(long, value_name = "NAME", env = "PORTICO_INGRESS_CONTROLLER_NAME")]
    #[arg(value_parser = parse_ingress_controller_name, default_value = INGRESS_CONTROLLER)]
    ingress_controller_name: String,

    #[command(flatten)]
    nginx: NginxArgs,

    /// Kong router flavor whose precedence orders the paths of Ingresses
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = KongRouter::TraditionalCompatible)]
    #[arg(env = "PORTICO_KONG_ROUTER")]
    kong_router: KongRouter,

    /// Whose an exact host of Ingresses is: any namespace's that names it, or only that of the oldest Ingress that does
    #[arg(long, value_enum, value_name = "OWNER", default_value_t = HostOwner::Any)]
    #[arg(env = "PORTICO_INGRESS_HOST_OWNER")]
    ingress_host_owner: HostOwner,

    /// Whose routes a consumer may use: those of its namespace and those whose namespace has a ReferenceGrant for it,
    /// or those of the whole cluster, as in Kong
    #[arg(long, value_enum, value_name = "SCOPE", default_value_t = ConsumerScopeArg::Namespace)]
    #[arg(env = "PORTICO_CONSUMER_SCOPE")]
    consumer_scope: ConsumerScopeArg,

    /// Serve Ingresses although annotations of other controllers that restrict their requests, such as ingress-nginx's
    /// auth-url, have no effect, instead of responding 503
    #[arg(long, env = "PORTICO_IGNORE_FOREIGN_GUARDS", value_parser = clap::builder::BoolishValueParser::new())]
    ignore_foreign_guards: bool,

    /// Serve routes without a plugin that cannot be used even if it guards them, as Kong does, instead of responding
    /// 503; and let objects of any namespace set the scope of a KongClusterPlugin that also runs in other namespaces
    #[arg(long, env = "PORTICO_KONG_COMPAT_FAIL_OPEN", value_parser = clap::builder::BoolishValueParser::new())]
    kong_compat_fail_open: bool,
}

/// Flags that exist only for commands that serve Ingresses.
#[derive(Debug, Args)]
#[command(next_help_heading = "Ingress")]
pub(super) struct IngressArgs {
    /// Plain HTTP address for Ingresses, or off; an explicit address is always bound, the default, 127.0.0.1:8000 or
    /// 0.0.0.0:8000 in a cluster, only while an Ingress of the class exists
    #[arg(long, value_name = "ADDR", env = "PORTICO_INGRESS_HTTP_LISTEN")]
    ingress_http_listen: Option<ListenArg>,

    /// HTTPS address for Ingresses, or off; default as for HTTP: 127.0.0.1:8443, or 0.0.0.0:8443 in a cluster
    #[arg(long, value_name = "ADDR", env = "PORTICO_INGRESS_HTTPS_LISTEN")]
    ingress_https_listen: Option<ListenArg>,

    /// Ports of TCPIngresses, UDPIngresses, --nginx-tcp-services and --nginx-udp-services: 9000 for TCP, 9443/tls for
    /// TLS that ends here, 5353/udp for UDP; they are opened at the IP address of the HTTP listener, or else of the
    /// HTTPS listener, while a rule uses them (repeatable)
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_delimiter = ',', env = "PORTICO_INGRESS_STREAM_PORTS")]
    #[arg(value_parser = parse_stream_port)]
    ingress_stream_ports: Vec<StreamPort>,

    /// HTTP and HTTPS ports that clients connect to, for redirects and X-Forwarded-Port; default: the listening ports,
    /// or 80,443 in a cluster
    #[arg(long, value_name = "HTTP,HTTPS", env = "PORTICO_INGRESS_PUBLIC_PORTS", value_parser = parse_ports)]
    ingress_public_ports: Option<PublicPorts>,

    /// Secret with the certificate for Ingress hosts without one; default: a self-signed certificate created at startup
    #[arg(long, value_name = "NAMESPACE/NAME", env = "PORTICO_INGRESS_DEFAULT_CERTIFICATE")]
    #[arg(value_parser = parse_namespaced_name)]
    ingress_default_certificate: Option<NamespacedName>,

    /// Service in front of Portico whose addresses are published in the status of Ingresses (repeatable)
    #[arg(long, value_name = "NAMESPACE/NAME", value_delimiter = ',', env = "PORTICO_PUBLISH_SERVICE")]
    #[arg(value_parser = parse_namespaced_name)]
    publish_service: Vec<NamespacedName>,

    /// Address or host name to publish in the status of Ingresses instead of those of a Service (repeatable)
    #[arg(long, value_name = "ADDR", value_delimiter = ',', env = "PORTICO_PUBLISH_STATUS_ADDRESS")]
    #[arg(value_parser = parse_published_address)]
    publish_status_address: Vec<String>,

    /// Write the status of Ingresses; off while another controller serves them too
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = OnOff::On, env = "PORTICO_INGRESS_STATUS")]
    ingress_status: OnOff,
}

/// Values of `--kong-router`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KongRouter {
    #[value(name = "traditional_compatible")]
    TraditionalCompatible,
    #[value(name = "expressions")]
    Expressions,
}

/// Values of `--ingress-host-owner`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HostOwner {
    Any,
    Namespace,
}

/// Values of `--consumer-scope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConsumerScopeArg {
    Namespace,
    Cluster,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnOff {
    On,
    Off,
}

/// The ports for HTTP and HTTPS.
type PublicPorts = (u16, u16);

/// A port that is not for HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StreamPort {
    pub port: u16,
    pub protocol: StreamPortProtocol,
}

/// The protocol of the clients of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamPortProtocol {
    Tcp,
    Tls,
    Udp,
}

impl StreamPortProtocol {
    pub(super) fn is_udp(self) -> bool {
        self == StreamPortProtocol::Udp
    }
}

/// Interpretation of Ingresses, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressClassOptions {
    pub class: String,
    /// The controller of the IngressClasses that are served.
    pub controller: String,
    pub nginx: NginxOptions,
    pub router: KongRouter,
    pub host_owner: HostOwner,
    pub consumer_scope: ConsumerScopeArg,
    pub ignore_foreign_guards: bool,
    pub fail_open: bool,
}

/// Listeners and status of Ingresses, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressOptions {
    /// `None` means off.
    pub http: Option<IngressListenAddress>,
    /// `None` means off.
    pub https: Option<IngressListenAddress>,
    /// Where TCPIngresses and UDPIngresses are served.
    pub streams: Vec<(SocketAddr, StreamPortProtocol)>,
    pub default_certificate: Option<NamespacedName>,
    pub publish: PublishOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IngressListenAddress {
    pub address: SocketAddr,
    /// The port that clients connect to.
    pub public_port: u16,
    /// Set by a flag and therefore bound even without an Ingress.
    pub explicit: bool,
}

/// What the status of Ingresses contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishOptions {
    Nothing,
    Addresses(Vec<String>),
    Services(Vec<NamespacedName>),
}

impl IngressClassOptions {
    /// The defaults of all flags, with another class.
    pub fn of_class(class: String) -> Self {
        IngressClassOptions {
            class,
            controller: INGRESS_CONTROLLER.to_owned(),
            nginx: NginxOptions::default(),
            router: KongRouter::TraditionalCompatible,
            host_owner: HostOwner::Any,
            consumer_scope: ConsumerScopeArg::Namespace,
            ignore_foreign_guards: false,
            fail_open: false,
        }
    }
}

impl IngressClassOptions {
    /// Whether the consumers of all namespaces may use all routes.
    pub fn shares_consumers(&self) -> bool {
        self.consumer_scope == ConsumerScopeArg::Cluster
    }
}

impl IngressClassArgs {
    pub(super) fn resolve(self) -> IngressClassOptions {
        let IngressClassArgs {
            ingress_class,
            ingress_controller_name,
            nginx,
            kong_router,
            ingress_host_owner,
            consumer_scope,
            ignore_foreign_guards,
            kong_compat_fail_open,
        } = self;
        IngressClassOptions {
            class: ingress_class,
            controller: ingress_controller_name,
            nginx: nginx.resolve(),
            router: kong_router,
            host_owner: ingress_host_owner,
            consumer_scope,
            ignore_foreign_guards,
            fail_open: kong_compat_fail_open,
        }
    }
}

impl IngressArgs {
    pub(super) fn resolve(self, in_cluster: bool) -> IngressOptions {
        let public_ports = self.ingress_public_ports.or(in_cluster.then_some((80, 443)));
        let default_address = if in_cluster { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        let listen = |given: Option<ListenArg>, default_port: u16, public_port: Option<u16>| {
            let address = match given {
                Some(given) => given.address()?,
                None => SocketAddr::new(IpAddr::V4(default_address), default_port),
            };
            Some(IngressListenAddress {
                address,
                public_port: public_port.unwrap_or(address.port()),
                explicit: given.is_some(),
            })
        };
        let publish = match self.ingress_status {
            OnOff::Off => PublishOptions::Nothing,
            OnOff::On if !self.publish_status_address.is_empty() => {
                PublishOptions::Addresses(self.publish_status_address)
            }
            OnOff::On if !self.publish_service.is_empty() => PublishOptions::Services(self.publish_service),
            OnOff::On => PublishOptions::Nothing,
        };
        let http = listen(self.ingress_http_listen, DEFAULT_HTTP_PORT, public_ports.map(|(http, _)| http));
        let https = listen(self.ingress_https_listen, DEFAULT_HTTPS_PORT, public_ports.map(|(_, https)| https));
        let ip = http.or(https).map_or(IpAddr::V4(default_address), |listener| listener.address.ip());
        let streams = self.ingress_stream_ports.iter();
        IngressOptions {
            http,
            https,
            streams: streams.map(|entry| (SocketAddr::new(ip, entry.port), entry.protocol)).collect(),
            default_certificate: self.ingress_default_certificate,
            publish,
        }
    }
}

const DEFAULT_HTTP_PORT: u16 = 8000;
const DEFAULT_HTTPS_PORT: u16 = 8443;

fn parse_ports(text: &str) -> Result<PublicPorts, String> {
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let both = text.split_once(',').and_then(|(http, https)| Some((port(http)?, port(https)?)));
    both.ok_or_else(|| "not two ports; write for example 80,443".to_owned())
}

fn parse_stream_port(text: &str) -> Result<StreamPort, String> {
    let (port, protocol) = text.trim().split_once('/').unwrap_or((text.trim(), "tcp"));
    let protocol = match protocol {
        "tcp" => Some(StreamPortProtocol::Tcp),
        "tls" => Some(StreamPortProtocol::Tls),
        "udp" => Some(StreamPortProtocol::Udp),
        _ => None,
    };
    match (port.parse::<u16>(), protocol) {
        (Ok(port), Some(protocol)) if port > 0 => Ok(StreamPort { port, protocol }),
        _ => {
            Err("not a port, optionally with tcp, tls or udp; write for example 9000, 9443/tls or 5353/udp".to_owned())
        }
    }
}

fn parse_published_address(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() || is_dns_subdomain(text) {
        return Ok(text.to_owned());
    }
    Err("not an address or a host name; write for example 192.0.2.10 or lb.example.com".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_validated() {
        assert_eq!(parse_ports("80,443"), Ok((80, 443)));
        assert_eq!(parse_namespaced_name("a/b"), Ok(("a".to_owned(), "b".to_owned())));
        for (text, is_valid) in
            [("192.0.2.1", true), ("2001:db8::1", true), ("lb.example.com", true), ("", false), ("a b", false)]
        {
            assert_eq!(parse_published_address(text).is_ok(), is_valid, "{text}");
        }
        for text in ["80", "80,", "0,443", "80,443,1", "a,b"] {
            assert!(parse_ports(text).is_err(), "{text}");
        }
        for text in ["a", "a/", "/b", "a/b/c", "A/b"] {
            assert!(parse_namespaced_name(text).is_err(), "{text}");
        }
        assert!(parse_class("kong").is_ok() && parse_class("Kong!").is_err());
    }
}
