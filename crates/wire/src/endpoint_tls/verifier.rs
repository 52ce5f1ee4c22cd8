//! The verifier of endpoint certificates, by name and a chain or a configured certificate.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::TlsTrust;
use super::anchors::check_period;

/// Accepts certificates for the requested name, or with the configured identity, that a trusted authority has issued,
/// or that are trusted themselves.
pub(super) struct EndpointVerifier {
    pub(super) trust: TlsTrust,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for EndpointVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = EndEntityCert::try_from(certificate).map_err(to_rustls_error)?;
        match self.trust.anchors.find_validity(certificate) {
            // The certificate itself is configured as trusted: no chain is needed.
            Some(period) => check_period(period, now).map_err(to_rustls_error)?,
            None => self.verify_chain(&parsed, intermediates, now)?,
        }
        let identity = self.trust.identity.as_ref();
        match identity.and_then(|identity| identity.verify(certificate, &parsed)) {
            Some(verified) => verified.map_err(Error::InvalidCertificate)?,
            None => parsed.verify_is_valid_for_subject_name(name).map_err(to_rustls_error)?,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl EndpointVerifier {
    /// Verifies that a chain of certificates leads to a trusted authority.
    fn verify_chain(
        &self,
        parsed: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let TlsTrust { anchors, max_intermediates, identity: _ } = &self.trust;
        // The library continues with other paths after a rejected one, and may return another error than `is_allowed`.
        let is_too_long = Cell::new(false);
        let is_allowed = |path: &VerifiedPath<'_>| {
            // The library ignores the validity period of trust anchors, and its limit of intermediates is fixed.
            anchors.check_validity(path.anchor(), now)?;
            if max_intermediates.is_some_and(|max| path.intermediate_certificates().count() > max) {
                is_too_long.set(true);
                return Err(webpki::Error::MaximumPathDepthExceeded);
            }
            Ok(())
        };
        let verified = parsed.verify_for_usage(
            self.provider.signature_verification_algorithms.all,
            anchors.anchors(),
            intermediates,
            now,
            KeyUsage::server_auth(),
            None,
            Some(&is_allowed),
        );
        match verified {
            Ok(_) => Ok(()),
            Err(_) if is_too_long.get() => Err(other_error(ChainTooLong(max_intermediates.unwrap_or_default()))),
            Err(error) => Err(to_rustls_error(error)),
        }
    }
}

impl fmt::Debug for EndpointVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EndpointVerifier").finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("more than {0} intermediate certificates between it and a trusted authority")]
struct ChainTooLong(usize);

/// Converts the library's error, which determines the alert that the endpoint gets.
fn to_rustls_error(error: webpki::Error) -> Error {
    Error::InvalidCertificate(match error {
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        webpki::Error::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        webpki::Error::CertNotValidForName(context) => {
            CertificateError::NotValidForNameContext { expected: context.expected, presented: context.presented }
        }
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        error => return other_error(error),
    })
}

fn other_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}
