//! The client certificate of a Gateway for TLS to backends: `spec.tls.backend.clientCertificateRef`.

use std::sync::Arc;

use super::SecretCache;
use crate::api::gateway::Gateway;
use crate::api::{Kind, Object, ObjectId};
use crate::compile::certificates;
use crate::snapshot::certs::Certificate;
use crate::store::Store;
use crate::verdict::{Code, Condition};

/// How connections through a Gateway authenticate themselves to backends whose BackendTLSPolicy requires TLS.
#[derive(Clone, Debug, Default)]
pub(in crate::compile) enum BackendClient {
    #[default]
    Anonymous,
    Certificate(Arc<Certificate>),
    /// The certificate of this Gateway cannot be used, so no requests are sent to these backends.
    Unusable(Arc<str>),
}

/// Equal if connections authenticate themselves in the same way. An unchanged certificate keeps its `Arc`.
impl PartialEq for BackendClient {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (BackendClient::Anonymous, BackendClient::Anonymous) => true,
            (BackendClient::Certificate(this), BackendClient::Certificate(other)) => Arc::ptr_eq(this, other),
            (BackendClient::Unusable(this), BackendClient::Unusable(other)) => this == other,
            _ => false,
        }
    }
}

impl BackendClient {
    /// The client of a Gateway, and the condition ResolvedRefs, if the Gateway refers to a certificate.
    pub(in crate::compile) fn of_gateway(
        store: &Store,
        secrets: &mut SecretCache,
        gateway: &Object<Gateway>,
    ) -> (BackendClient, Option<Condition>) {
        let backend = gateway.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref());
        let Some(reference) = backend.and_then(|backend| backend.client_certificate_ref.as_ref()) else {
            return (BackendClient::Anonymous, None);
        };
        let field = "spec.tls.backend.clientCertificateRef";
        match certificates::resolve(
            store,
            secrets,
            &ObjectId::new(Kind::Gateway, gateway.meta.key.clone()),
            reference,
            field,
        ) {
            Ok(certificate) => {
                let resolved = Condition::without_diagnostics(Code::GatewayResolvedRefs);
                (BackendClient::Certificate(certificate), Some(resolved))
            }
            Err((reason, problem)) => {
                let code = match reason {
                    Code::ListenerRefNotPermitted => Code::GatewayRefNotPermitted,
                    _ => Code::GatewayInvalidClientCertificateRef,
                };
                let name = gateway.meta.key.to_string().into();
                (BackendClient::Unusable(name), Some(Condition::new(code, vec![problem])))
            }
        }
    }
}
