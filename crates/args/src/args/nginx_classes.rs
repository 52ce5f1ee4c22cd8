//! Flags about the Ingresses of ingress-nginx: which they are, and what the controller has elsewhere.

use clap::Args;
use clap::builder::BoolishValueParser;

use super::label_selector::parse_label_selector;
use super::object_name::{
    NamespacedName, is_dns_subdomain, parse_class, parse_ingress_controller_name, parse_namespaced_name,
};
use crate::api::gateway::LabelSelector;

/// The classes of the Ingresses of ingress-nginx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NginxClassOptions {
    pub controller: String,
    /// The value of the annotation with the class.
    pub annotated: String,
    /// Whether an IngressClass with that name counts, whatever its controller is.
    pub by_name: bool,
    /// Whether Ingresses without a class are served.
    pub without_class: bool,
}

/// What is the same for all Ingresses in the dialect of ingress-nginx.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NginxOptions {
    /// `None` if no Ingresses of ingress-nginx are served.
    pub classes: Option<NginxClassOptions>,
    /// The labels of the namespaces whose Ingresses are served; `None` for those of all.
    pub namespaces: Option<LabelSelector>,
    /// Whether Ingresses with a default backend are left out.
    pub excludes_catch_all: bool,
    /// The prefixes of annotations, without the slash at their end; empty for that of ingress-nginx.
    pub annotation_prefixes: Vec<String>,
    pub config_map: Option<NamespacedName>,
    pub default_backend: Option<NamespacedName>,
    /// The ConfigMaps of ports.
    pub tcp_services: Option<NamespacedName>,
    pub udp_services: Option<NamespacedName>,
    /// Whether annotations may let the TLS connections of a host pass through.
    pub ssl_passthrough: bool,
}

/// The flags, for `run` and `check` alike.
#[derive(Debug, Args)]
#[command(next_help_heading = "Ingress")]
pub(super) struct NginxArgs {
    /// Also serve the Ingresses of the IngressClasses of this controller, in the dialect of ingress-nginx;
    /// k8s.io/ingress-nginx takes over those of ingress-nginx
    #[arg(long, value_name = "NAME", env = "PORTICO_NGINX_CONTROLLER_CLASS")]
    #[arg(value_parser = parse_ingress_controller_name)]
    nginx_controller_class: Option<String>,

    /// With --nginx-controller-class: also serve Ingresses without ingressClassName whose annotation
    /// kubernetes.io/ingress.class has this value
    #[arg(long, value_name = "NAME", env = "PORTICO_NGINX_CLASS", value_parser = parse_class)]
    #[arg(default_value = NGINX_CLASS)]
    nginx_class: String,

    /// With --nginx-controller-class: also serve the Ingresses of the IngressClass whose name is that of --nginx-class,
    /// whatever its controller is
    #[arg(long, env = "PORTICO_NGINX_CLASS_BY_NAME", value_parser = BoolishValueParser::new())]
    nginx_class_by_name: bool,

    /// With --nginx-controller-class: also serve Ingresses with neither ingressClassName nor the annotation
    #[arg(long, env = "PORTICO_NGINX_WITHOUT_CLASS", value_parser = BoolishValueParser::new())]
    nginx_without_class: bool,

    /// Labels of the namespaces whose Ingresses are served in the dialect of ingress-nginx, such as team=web,env!=test;
    /// default: all
    #[arg(long, value_name = "LABELS", env = "PORTICO_NGINX_NAMESPACE_SELECTOR", value_parser = parse_label_selector)]
    nginx_namespace_selector: Option<LabelSelector>,

    /// Leave out Ingresses in the dialect of ingress-nginx with spec.defaultBackend
    #[arg(long, env = "PORTICO_NGINX_DISABLE_CATCH_ALL", value_parser = BoolishValueParser::new())]
    nginx_disable_catch_all: bool,

    /// Prefix of the annotations in the dialect of ingress-nginx in place of nginx.ingress.kubernetes.io; of several
    /// with the same annotation, the first one decides (repeatable)
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', env = "PORTICO_NGINX_ANNOTATION_PREFIX")]
    #[arg(value_parser = parse_annotation_prefix)]
    nginx_annotation_prefix: Vec<String>,

    /// ConfigMap with the settings of ingress-nginx for all Ingresses of its dialect
    #[arg(long, value_name = "NAMESPACE/NAME", env = "PORTICO_NGINX_CONFIGMAP", value_parser = parse_namespaced_name)]
    nginx_configmap: Option<NamespacedName>,

    /// Service that responds to requests for hosts and paths that no Ingress in the dialect of ingress-nginx has, and
    /// in place of errors that they list
    #[arg(long, value_name = "NAMESPACE/NAME", env = "PORTICO_NGINX_DEFAULT_BACKEND")]
    #[arg(value_parser = parse_namespaced_name)]
    nginx_default_backend: Option<NamespacedName>,

    /// ConfigMap of ingress-nginx whose keys are TCP ports and whose values are the Services to which their connections
    /// go; --ingress-stream-ports opens the ports
    #[arg(long, value_name = "NAMESPACE/NAME", env = "PORTICO_NGINX_TCP_SERVICES")]
    #[arg(value_parser = parse_namespaced_name)]
    nginx_tcp_services: Option<NamespacedName>,

    /// ConfigMap of ingress-nginx whose keys are UDP ports; --ingress-stream-ports opens the ports
    #[arg(long, value_name = "NAMESPACE/NAME", env = "PORTICO_NGINX_UDP_SERVICES")]
    #[arg(value_parser = parse_namespaced_name)]
    nginx_udp_services: Option<NamespacedName>,

    /// Let annotation ssl-passthrough of ingress-nginx forward the TLS connections of a host to its backend unchanged;
    /// nothing else of an Ingress or of the ConfigMap applies to them
    #[arg(long, env = "PORTICO_NGINX_SSL_PASSTHROUGH", value_parser = clap::builder::BoolishValueParser::new())]
    nginx_ssl_passthrough: bool,
}

impl NginxArgs {
    pub(super) fn resolve(self) -> NginxOptions {
        let (annotated, by_name, without_class) =
            (self.nginx_class, self.nginx_class_by_name, self.nginx_without_class);
        let classes = self.nginx_controller_class.map(|controller| NginxClassOptions {
            controller,
            annotated,
            by_name,
            without_class,
        });
        NginxOptions {
            classes,
            namespaces: self.nginx_namespace_selector,
            excludes_catch_all: self.nginx_disable_catch_all,
            annotation_prefixes: self.nginx_annotation_prefix,
            config_map: self.nginx_configmap,
            default_backend: self.nginx_default_backend,
            tcp_services: self.nginx_tcp_services,
            udp_services: self.nginx_udp_services,
            ssl_passthrough: self.nginx_ssl_passthrough,
        }
    }
}

fn parse_annotation_prefix(text: &str) -> Result<String, String> {
    let prefix = text.trim_end_matches('/');
    if is_dns_subdomain(prefix) {
        return Ok(prefix.to_owned());
    }
    Err("not the prefix of annotations; write a domain, for example nginx.ingress.kubernetes.io".to_owned())
}

/// The class of ingress-nginx in its installation instructions.
pub const NGINX_CLASS: &str = "nginx";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_domains() {
        assert_eq!(parse_annotation_prefix("web.example/").as_deref(), Ok("web.example"));
        for text in ["", "/", "a/b", "Web.example", "web example"] {
            assert!(parse_annotation_prefix(text).is_err(), "{text}");
        }
    }
}
