//! The annotation on a Service that requests a PROXY header on the connections of TCPRoutes and TLSRoutes.

use crate::api::Meta;
use crate::api::names::PROXY_PROTOCOL_ANNOTATION;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::Diagnostic;
use crate::upstream::ProxyProtocol;

/// The version in the annotation. An unknown value is an error: without a header, a backend that expects one would
/// accept any address that a client sends in its place.
pub(in crate::compile) fn annotated_proxy_protocol(meta: &Meta) -> Result<Option<ProxyProtocol>, Diagnostic> {
    let Some(text) = meta.annotations.get(PROXY_PROTOCOL_ANNOTATION) else { return Ok(None) };
    let version = [ProxyProtocol::V1, ProxyProtocol::V2].into_iter().find(|version| version.name() == &**text);
    version.map(Some).ok_or_else(|| {
        let message = format!(
            "{:?} is not a version of the PROXY protocol, so TCPRoutes and TLSRoutes do not connect to the Service",
            &**text
        );
        let remedy = "write v1 or v2, as the backend expects, or remove the annotation";
        Diagnostic::error(annotation_field(PROXY_PROTOCOL_ANNOTATION), message, remedy)
    })
}
