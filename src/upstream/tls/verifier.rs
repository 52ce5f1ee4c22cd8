//! Verifiers of endpoint certificates: by chain and name, or not at all.

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

/// Accepts certificates for the requested name that a trusted authority has issued.
pub(super) struct EndpointVerifier {
    pub(super) trust: TlsTrust,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for EndpointVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = EndEntityCert::try_from(certificate).map_err(to_rustls_error)?;
        match self.trust.anchors.validity_of(certificate) {
            // A self-signed server certificate that is itself configured as trusted: no chain is needed.
            Some(span) => check_period(span, now).map_err(to_rustls_error)?,
            None => self.chain(&parsed, others, now)?,
        }
        parsed.verify_is_valid_for_subject_name(name).map_err(to_rustls_error)?;
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
    fn chain(&self, parsed: &EndEntityCert<'_>, others: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let TlsTrust { anchors, max_intermediates: depth } = &self.trust;
        let too_long = Cell::new(false);
        let is_allowed = |path: &VerifiedPath<'_>| {
            // The library ignores the validity of trust anchors, and has no configurable depth limit.
            anchors.check_validity(path.anchor(), now)?;
            if depth.is_some_and(|depth| path.intermediate_certificates().count() > depth) {
                too_long.set(true);
                return Err(webpki::Error::MaximumPathDepthExceeded);
            }
            Ok(())
        };
        let found = parsed.verify_for_usage(
            self.provider.signature_verification_algorithms.all,
            anchors.anchors(),
            others,
            now,
            KeyUsage::server_auth(),
            None,
            Some(&is_allowed),
        );
        match found {
            Ok(_) => Ok(()),
            Err(_) if too_long.get() => Err(other_error(ChainTooLong(depth.unwrap_or_default()))),
            Err(error) => Err(to_rustls_error(error)),
        }
    }
}

impl fmt::Debug for EndpointVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Verifier").finish_non_exhaustive()
    }
}

/// Accepts any certificate, as configured. TLS then protects against eavesdropping, not against a man in the middle.
/// Signatures are not verified either, since the key is unauthenticated, so unusual certificates work as in other
/// proxies.
#[derive(Debug)]
pub struct AcceptAnyCertificate(pub Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
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
        self.0.signature_verification_algorithms.supported_schemes()
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
