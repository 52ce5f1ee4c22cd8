//! Reads the certificates of trusted authorities from PEM text, and from the ConfigMaps and ClusterTrustBundles that
//! policies and Gateways refer to.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::api::kind::CORE_GROUP;
use crate::api::{Kind, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::objects::missing_object::missing_object;
use crate::diagnostic::Diagnostic;
use crate::endpoint_tls::TrustAnchors;
use crate::store::Store;

/// Why a bundle cannot be used.
pub(in crate::compile) struct CaBundleProblem {
    /// Continues a sentence whose subject is the object with the bundle.
    pub predicate: &'static str,
    pub remedy: &'static str,
}

/// The certificates of a bundle, at least one. Other blocks, such as private keys, are skipped. One block that cannot
/// be used makes the whole bundle invalid: its author expects that it is trusted.
pub(in crate::compile) fn parse(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CaBundleProblem> {
    let invalid = |predicate, remedy| Err(CaBundleProblem { predicate, remedy });
    let Ok(certificates) = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() else {
        return invalid("has content that is not PEM", PEM_REMEDY);
    };
    if certificates.is_empty() {
        return invalid("has no certificate", PEM_REMEDY);
    }
    if certificates.iter().any(|certificate| x509_parser::parse_x509_certificate(certificate).is_err()) {
        return invalid("has a block that is not an X.509 certificate", PEM_REMEDY);
    }
    // A parsed certificate is rarely rejected here; if it is, it must not be ignored.
    if TrustAnchors::new(certificates.iter().cloned()).certificates().len() < certificates.len() {
        return invalid("has a certificate that cannot be used", "issue a new one");
    }
    Ok(certificates)
}

/// Whether all certificates are those of authorities (CA:TRUE).
pub(in crate::compile) fn are_authorities(certificates: &[CertificateDer<'_>]) -> bool {
    certificates.iter().all(|certificate| {
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
        parsed.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca)
    })
}

/// Why a reference leads to no authorities.
pub(in crate::compile) enum AuthorityProblem {
    /// The kind has no authorities, or the cluster does not have the kind.
    Kind(Diagnostic),
    Object(Diagnostic),
}

/// The kind of an object with authorities; `None` for other kinds.
pub(in crate::compile) fn authority_kind(group: &str, kind: &str) -> Option<Kind> {
    Kind::find(group, kind).filter(|kind| matches!(kind, Kind::ConfigMap | Kind::ClusterTrustBundle))
}

/// The certificates in the object to which a reference at `field` leads, at least one. `namespace`: that of a
/// ConfigMap.
pub(in crate::compile) fn read(
    cx: CompileContext<'_>,
    group: &str,
    kind: &str,
    namespace: &str,
    name: &str,
    field: &str,
) -> Result<Vec<CertificateDer<'static>>, AuthorityProblem> {
    let read = match authority_kind(group, kind) {
        Some(Kind::ConfigMap) => from_config_map(cx.store, &ObjectKey::new(namespace, name)),
        Some(_) => {
            let key = ObjectKey::cluster(name);
            if cx.inputs.absent_kinds.contains(&Kind::ClusterTrustBundle)
                && !cx.store.cluster_trust_bundles.contains_key(&key)
            {
                let message = "the cluster does not serve ClusterTrustBundles";
                let remedy = "refer to a ConfigMap, or use a cluster that serves certificates.k8s.io/v1 \
                              ClusterTrustBundles, as Kubernetes 1.37 does";
                return Err(AuthorityProblem::Kind(Diagnostic::error(format!("{field}.kind"), message, remedy)));
            }
            from_trust_bundle(cx, &key)
        }
        None => return Err(AuthorityProblem::Kind(unsupported_kind(group, kind, field))),
    };
    read.map_err(|problem| AuthorityProblem::Object(problem.at(format!("{field}.name"))))
}

/// The certificates under `ca.crt`. The diagnostic about the ConfigMap has no field.
fn from_config_map(store: &Store, key: &ObjectKey) -> Result<Vec<CertificateDer<'static>>, Diagnostic> {
    let invalid = |predicate: &str, remedy: &str| Diagnostic::of_object(format!("ConfigMap {key} {predicate}"), remedy);
    let map = store.config_maps.get(key).ok_or_else(|| missing_object(store, "", Kind::ConfigMap, key))?;
    let bundle = map.data.get("ca.crt").filter(|bundle| !bundle.is_empty());
    let bundle = bundle.ok_or_else(|| invalid("has no ca.crt", "store the PEM of the authorities under ca.crt"))?;
    parse(bundle.as_bytes()).map_err(|CaBundleProblem { predicate, remedy }| invalid(predicate, remedy))
}

/// All certificates of a ClusterTrustBundle. The diagnostic about it has no field.
fn from_trust_bundle(cx: CompileContext<'_>, key: &ObjectKey) -> Result<Vec<CertificateDer<'static>>, Diagnostic> {
    let kind = Kind::ClusterTrustBundle;
    let Some(bundle) = cx.store.cluster_trust_bundles.get(key) else {
        if cx.inputs.unreadable_kinds.contains(&kind) {
            let message = format!("{kind} {key} cannot be read");
            let remedy = "let Portico's ClusterRole list and watch clustertrustbundles; the log has the reason of \
                          the failure";
            return Err(Diagnostic::of_object(message, remedy));
        }
        return Err(missing_object(cx.store, "", kind, key));
    };
    parse(bundle.spec.trust_bundle.as_bytes()).map_err(|CaBundleProblem { predicate, remedy }| {
        Diagnostic::of_object(format!("{kind} {key} {predicate}"), remedy)
    })
}

/// The diagnostic for a reference at `field` to an object of another kind.
fn unsupported_kind(group: &str, kind: &str, field: &str) -> Diagnostic {
    let (subfield, found) =
        if group == CORE_GROUP { ("kind", kind.to_owned()) } else { ("group", format!("{group}/{kind}")) };
    let message = format!("authorities are not read from objects of kind {found}");
    Diagnostic::error(format!("{field}.{subfield}"), message, "refer to a ConfigMap or a ClusterTrustBundle")
}

const PEM_REMEDY: &str = "store the authority's certificate as a block BEGIN CERTIFICATE";
