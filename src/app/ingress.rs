//! What the command line says about Ingresses, in the words of the compiler, and the certificate for hosts without one.

use std::sync::Arc;

use anyhow::Context;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use crate::api::ObjectKey;
use crate::args::{IngressClassOptions, IngressListen, IngressOptions, KongRouter, PublishOptions};
use crate::compile::verdict::Published;
use crate::compile::{Classes, Entrance, IngressSettings, Publish};
use crate::snapshot::certs::{Certificate, MADE_HERE};
use crate::snapshot::host::HostPattern;
use crate::snapshot::kong::Flavor;

/// Which Ingresses are ours, and how they are served.
#[derive(Clone, Debug, Default)]
pub(super) struct Ingresses {
    pub(super) classes: Classes,
    pub(super) settings: IngressSettings,
}

impl Ingresses {
    /// To look at them without serving any.
    pub(super) fn unserved(class: &IngressClassOptions) -> Self {
        let flavor = match class.router {
            KongRouter::TraditionalCompatible => Flavor::TraditionalCompatible,
            KongRouter::Expressions => Flavor::Expressions,
        };
        let classes = Classes { name: class.class.clone() };
        Ingresses { classes, settings: IngressSettings { flavor, ..IngressSettings::default() } }
    }

    pub(super) fn served(class: &IngressClassOptions, options: &IngressOptions) -> anyhow::Result<Self> {
        let Ingresses { classes, settings } = Ingresses::unserved(class);
        let entrance = |listen: Option<IngressListen>| {
            listen.map(|IngressListen { address, public, always }| Entrance { address, public, always })
        };
        let key = |(namespace, name): &(String, String)| ObjectKey::new(namespace, name);
        let settings = IngressSettings {
            http: entrance(options.http),
            https: entrance(options.https),
            default_secret: options.default_certificate.as_ref().map(key),
            default_certificate: Some(Arc::new(self_signed()?)),
            publish: match &options.publish {
                PublishOptions::Nothing => Publish::Nothing,
                PublishOptions::Addresses(addresses) => {
                    Publish::Addresses(addresses.iter().map(|address| published(address)).collect())
                }
                PublishOptions::Services(services) => Publish::Services(services.iter().map(key).collect()),
            },
            ..settings
        };
        Ok(Ingresses { classes, settings })
    }
}

fn published(text: &str) -> Published {
    match text.parse::<std::net::IpAddr>() {
        Ok(_) => Published::Ip(text.to_owned()),
        Err(_) => Published::Hostname(text.to_owned()),
    }
}

/// Nobody is to trust it. It lets clients shake hands that do not check, and tells the others what is missing.
fn self_signed() -> anyhow::Result<Certificate> {
    let what = "cannot make a certificate for hosts of Ingresses without one";
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).context(what)?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg).context(what)?;
    let key = any_supported_type(&key).context(what)?;
    let chain = vec![made.cert.der().clone()];
    let parsed = x509_parser::parse_x509_certificate(&chain[0]).context(what)?.1;
    let (begins, expires) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    Ok(Certificate {
        secret: MADE_HERE.into(),
        names: [HostPattern::parse(Some(NAME))].into(),
        expires,
        lifetime: expires - begins,
        key: Arc::new(CertifiedKey::new(chain, key)),
    })
}

const NAME: &str = "portico.invalid";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_made_at_the_start_belongs_to_its_key() {
        let made = self_signed().unwrap();
        assert!(made.key.keys_match().is_ok());
        let now = jiff::Timestamp::now().as_second();
        assert!(made.expires > now && made.expires - made.lifetime <= now, "{made:?}");
    }
}
