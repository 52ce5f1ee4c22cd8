//! Converts the Ingress flags to compiler inputs and creates the default certificate.

use std::sync::Arc;

use anyhow::Context;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use crate::api::ObjectKey;
use crate::args::{
    HostOwner, IngressClassOptions, IngressListenAddress, IngressOptions, KongRouter, NginxClassOptions,
    PublishOptions, StreamPortProtocol,
};
use crate::compile::{
    Classes, HostOwnership, IngressListener, IngressSettings, NginxClasses, PublishSource, StreamListener,
    StreamProtocol,
};
use crate::snapshot::certs::{Certificate, SELF_GENERATED};
use crate::snapshot::host::HostPattern;
use crate::snapshot::router::by_conditions::RouterFlavor;
use crate::verdict::PublishedAddress;

/// The class of the served Ingresses, and the settings that are the same for all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct IngressConfig {
    pub(super) classes: Classes,
    pub(super) settings: IngressSettings,
}

impl IngressConfig {
    /// The configuration for `portico check`, which has no listeners.
    pub(super) fn without_listeners(class: &IngressClassOptions) -> Self {
        let flavor = match class.router {
            KongRouter::TraditionalCompatible => RouterFlavor::TraditionalCompatible,
            KongRouter::Expressions => RouterFlavor::Expressions,
        };
        let host_ownership = match class.host_owner {
            HostOwner::Any => HostOwnership::Any,
            HostOwner::Namespace => HostOwnership::Namespace,
        };
        let nginx = class.nginx.classes.as_ref().map(nginx_classes);
        let classes = Classes { name: class.class.clone(), controller: class.controller.clone(), nginx };
        let ignore_foreign_guards = class.ignore_foreign_guards;
        let key = |(namespace, name): &(String, String)| ObjectKey::new(namespace, name);
        let settings = IngressSettings {
            flavor,
            host_ownership,
            ignore_foreign_guards,
            nginx_ssl_passthrough: class.nginx.ssl_passthrough,
            nginx_config_map: class.nginx.config_map.as_ref().map(key),
            nginx_default_backend: class.nginx.default_backend.as_ref().map(key),
            nginx_namespaces: class.nginx.namespaces.clone(),
            nginx_excludes_catch_all: class.nginx.excludes_catch_all,
            nginx_tcp_services: class.nginx.tcp_services.as_ref().map(key),
            nginx_udp_services: class.nginx.udp_services.as_ref().map(key),
            ..IngressSettings::default()
        };
        IngressConfig { classes, settings }
    }

    pub(super) fn with_listeners(class: &IngressClassOptions, options: &IngressOptions) -> anyhow::Result<Self> {
        let IngressConfig { classes, settings } = IngressConfig::without_listeners(class);
        let listener = |listen: Option<IngressListenAddress>| {
            listen.map(|IngressListenAddress { address, public_port, explicit }| IngressListener {
                address,
                public_port,
                always_listen: explicit,
            })
        };
        let key = |(namespace, name): &(String, String)| ObjectKey::new(namespace, name);
        let streams = options.streams.iter().map(|&(address, protocol)| {
            let protocol = match protocol {
                StreamPortProtocol::Tcp => StreamProtocol::Tcp,
                StreamPortProtocol::Tls => StreamProtocol::Tls,
                StreamPortProtocol::Udp => StreamProtocol::Udp,
            };
            StreamListener { address, protocol }
        });
        let settings = IngressSettings {
            streams: Some(streams.collect()),
            http: listener(options.http),
            https: listener(options.https),
            default_secret: options.default_certificate.as_ref().map(key),
            default_certificate: Some(Arc::new(self_signed()?)),
            publish: match &options.publish {
                PublishOptions::Nothing => PublishSource::Nothing,
                PublishOptions::Addresses(addresses) => {
                    PublishSource::Addresses(addresses.iter().map(|address| parse_published(address)).collect())
                }
                PublishOptions::Services(services) => PublishSource::Services(services.iter().map(key).collect()),
            },
            ..settings
        };
        Ok(IngressConfig { classes, settings })
    }
}

/// The classes of ingress-nginx, as the compiler gets them.
pub(super) fn nginx_classes(options: &NginxClassOptions) -> NginxClasses {
    let NginxClassOptions { controller, annotated, by_name, without_class } = options.clone();
    NginxClasses { controller, annotated, by_name, without_class }
}

fn parse_published(text: &str) -> PublishedAddress {
    match text.parse::<std::net::IpAddr>() {
        Ok(_) => PublishedAddress::Ip(text.to_owned()),
        Err(_) => PublishedAddress::Hostname(text.to_owned()),
    }
}

/// Creates a certificate that no client trusts. Clients without verification can connect, and others report the reason.
fn self_signed() -> anyhow::Result<Certificate> {
    let failure = "cannot create the self-signed default certificate for Ingresses";
    let certificate = rcgen::generate_simple_self_signed(vec![DEFAULT_CERTIFICATE_HOST.to_owned()]).context(failure)?;
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der())
        .map_err(anyhow::Error::msg)
        .context(failure)?;
    let key = any_supported_type(&key).context(failure)?;
    let chain = vec![certificate.cert.der().clone()];
    let parsed = x509_parser::parse_x509_certificate(&chain[0]).context(failure)?.1;
    let (not_before, expires) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    Ok(Certificate {
        secret: SELF_GENERATED.into(),
        names: [HostPattern::parse(Some(DEFAULT_CERTIFICATE_HOST))].into(),
        expires,
        lifetime: expires - not_before,
        key: Arc::new(CertifiedKey::new(chain, key)),
    })
}

const DEFAULT_CERTIFICATE_HOST: &str = "portico.invalid";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn self_signed_certificate_matches_its_key() {
        let certificate = self_signed().unwrap();
        assert!(certificate.key.keys_match().is_ok());
        let now = jiff::Timestamp::now().as_second();
        assert!(certificate.expires > now && certificate.expires - certificate.lifetime <= now, "{certificate:?}");
    }
}
