//! How a listener verifies the certificates of its clients (`tls.frontend` of a Gateway).

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerConfig, WebPkiClientVerifier};

use crate::unverified_certificates::AcceptClientWithoutProof;

/// The verification of client certificates, with the TLS state that only its listeners share.
pub struct ClientValidation {
    mode: ClientValidationMode,
    authorities: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// The configuration of handshakes, which the proxy creates for the first one. It accepts no session of another
    /// listener: the certificate of a client that resumes a session is not verified.
    pub server_config: OnceLock<ServerConfig>,
}

/// What happens to clients without a valid certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientValidationMode {
    /// Their handshakes fail.
    Required,
    /// They are served like other clients.
    InsecureFallback,
}

impl ClientValidation {
    /// Trusts these authorities. An error if one of them cannot be used.
    pub fn new(mode: ClientValidationMode, authorities: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.clone()).map_err(|error| error.to_string())?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let strict = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let strict = strict.map_err(|error| error.to_string())?;
        let verifier: Arc<dyn ClientCertVerifier> = match mode {
            ClientValidationMode::Required => strict,
            ClientValidationMode::InsecureFallback => Arc::new(AcceptClientWithoutProof { strict }),
        };
        Ok(ClientValidation { mode, authorities, verifier, server_config: OnceLock::new() })
    }

    pub fn mode(&self) -> ClientValidationMode {
        self.mode
    }

    pub fn verifier(&self) -> &Arc<dyn ClientCertVerifier> {
        &self.verifier
    }

    /// Whether this is the validation with these settings.
    pub fn has_settings(&self, mode: ClientValidationMode, authorities: &[CertificateDer<'_>]) -> bool {
        self.mode == mode && self.authorities == authorities
    }

    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }
}

impl fmt::Debug for ClientValidation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authorities = self.authorities.len();
        formatter.debug_struct("ClientValidation").field("mode", &self.mode).field("authorities", &authorities).finish()
    }
}

/// Equal settings accept the same clients.
impl PartialEq for ClientValidation {
    fn eq(&self, other: &Self) -> bool {
        self.has_settings(other.mode, &other.authorities)
    }
}
