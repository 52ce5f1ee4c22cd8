//! Whether an Ingress lets the TLS connections of a host pass through, as its annotation `ssl-passthrough` says.
//!
//! Nothing but the annotation decides about these connections, so it needs a flag. Only the namespace of the oldest
//! Ingress that names a host, in any dialect, may use it, because it takes over all connections of the host.

use super::value_reader::written;
use crate::api::Object;
use crate::api::ingress_nginx::flag;
use crate::api::networking::Ingress;
use crate::compile::CompileContext;
use crate::compile::ingress::host_claims::HostClaims;
use crate::snapshot::host::HostPattern;

/// `host`: one of its rules.
pub(super) fn is_wanted(
    cx: CompileContext<'_>,
    claims: &HostClaims,
    ingress: &Object<Ingress>,
    host: &HostPattern,
) -> bool {
    let HostPattern::Exact(name) = host else { return false };
    cx.inputs.ingress.nginx_ssl_passthrough
        && written(&ingress.meta, ANNOTATION).and_then(flag) == Some(true)
        && claims.belongs_to(name, &ingress.meta.key.namespace)
}

pub(super) const ANNOTATION: &str = "ssl-passthrough";
