//! How a listener verifies the certificates of its clients (`tls.frontend` of a Gateway).

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

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
            ClientValidationMode::InsecureFallback => Arc::new(AcceptAnyClient { strict }),
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

/// Asks for a certificate as a strict verifier does, and accepts every client, whatever it sends. Nothing depends on
/// the certificate, so its signature does not matter either.
#[derive(Debug)]
struct AcceptAnyClient {
    strict: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for AcceptAnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Clients choose a certificate by the hints, and send none if none matches.
        self.strict.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}
