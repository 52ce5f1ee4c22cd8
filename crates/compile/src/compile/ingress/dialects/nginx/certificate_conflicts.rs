//! Reports the hosts for which the annotations of an Ingress about client certificates do not have their whole effect,
//! because another Ingress decides.

use std::collections::BTreeSet;

use super::client_certificates::{CertificateRequirement, OwnCertificates, SECRET};
use super::host_facts::NginxHosts;
use super::value_reader::ValueReader;
use crate::api::Object;
use crate::api::networking::Ingress;
use crate::snapshot::host::HostPattern;
use crate::snapshot::location_steps::CertificateMode;

/// `named`: the hosts of the Ingress.
pub(super) fn report(
    reader: &mut ValueReader<'_>,
    hosts: &NginxHosts,
    ingress: &Object<Ingress>,
    own: &OwnCertificates,
    named: &BTreeSet<HostPattern>,
) {
    if own.requirement.is_none() {
        return;
    }
    let own_namespace = &ingress.meta.key.namespace;
    for host in named.iter().filter(|host| hosts.belongs_to(host, ingress)) {
        match hosts.certificates(host) {
            Some(of_host) if of_host.ingress == ingress.meta.key => {}
            Some(of_host) if Some(&of_host.requirement) == own.requirement.as_ref() => {}
            Some(of_host) if is_weaker(&of_host.requirement, own) && of_host.ingress.namespace != *own_namespace => {
                let message = format!(
                    "Ingress {} of another namespace decides about the client certificates of {host}, and \
                     requires less",
                    of_host.ingress
                );
                reader.refuse(SECRET, &message, "use a host of your own, or remove the annotation");
            }
            Some(of_host) => {
                let message = format!("Ingress {} decides about the client certificates of {host}", of_host.ingress);
                reader.note(SECRET, &message, "write the annotations only in the oldest Ingress of the host");
            }
            None => {
                let message = format!(
                    "the oldest Ingress of {host} is in another namespace, so it protects only the paths of this one"
                );
                reader.warn(SECRET, message, "write the annotations in the oldest Ingress of the host");
            }
        }
    }
}

/// Whether a host may serve clients that the Ingress would not.
fn is_weaker(of_host: &CertificateRequirement, own: &OwnCertificates) -> bool {
    let requires = |requirement: &CertificateRequirement| match requirement {
        CertificateRequirement::Verified(settings) => settings.mode == CertificateMode::Required,
        // No client is served.
        CertificateRequirement::UnknownAuthorities | CertificateRequirement::Rejected => true,
    };
    own.requirement.as_ref().is_some_and(requires) && !requires(of_host)
}
