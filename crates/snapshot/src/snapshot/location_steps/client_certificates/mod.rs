//! Which clients a host permits by their certificates, as the annotations `auth-tls-…` of ingress-nginx say.
//!
//! ```text
//!   handshake, which every certificate passes ─▶ trust.rs: once for a connection ─▶ fields.rs: what the endpoint gets
//!                                                        │
//!                          400, or the error page ◀──────┘ 403 for another subject
//! ```
//!
//! It comes before everything else that a location does, since ingress-nginx rejects such requests before it looks for
//! their location.

mod distinguished_name;
mod fields;
mod trust;
mod variables;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::LOCATION;
use http::{HeaderName, HeaderValue, StatusCode};
use rustls::pki_types::CertificateDer;

use self::fields::CertificateFields;
pub use self::trust::ClientAuthorities;
use self::trust::{RejectedCertificate, seconds};
use crate::plugin_api::assertions::Assertions;
use crate::plugin_api::{CertificateFindings, ClientCertificate, ClientInfo, Reply, ReplyBody, RequestCx, Scheme};
use crate::snapshot::regex::Regex;

/// What a host requires of the certificates of its clients.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    pub mode: CertificateMode,
    pub authorities: Arc<ClientAuthorities>,
    /// How many certificates may be between that of a client and that of an authority.
    pub max_intermediates: usize,
    /// Where clients without a valid certificate are redirected to.
    pub error_page: Option<HeaderValue>,
    /// Whether the endpoint gets the certificate itself.
    pub forwards_certificate: bool,
    /// What the whole subject of a certificate must match.
    pub subject: Option<Regex>,
}

/// Which certificates are required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateMode {
    /// A valid one.
    Required,
    /// A valid one, or none.
    Optional,
    /// Also one of an unknown authority, or none. The endpoint decides about it.
    AnyAuthority,
    /// None, and handshakes request none.
    Off,
}

/// What a location does about the certificates of its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateStep {
    Verify {
        settings: Arc<ClientCertificates>,
        /// Whether requests in plain text pass although a certificate is required: those of ACME challenges.
        permits_plain_text: bool,
    },
    /// What the host requires is not known, so no request passes.
    Deny,
}

/// The fields with which the endpoint gets what is known of a certificate.
pub(super) static CERTIFICATE_FIELDS: [HeaderName; 4] = [VERIFY, SUBJECT, ISSUER, CERTIFICATE];

const VERIFY: HeaderName = HeaderName::from_static("ssl-client-verify");
const SUBJECT: HeaderName = HeaderName::from_static("ssl-client-subject-dn");
const ISSUER: HeaderName = HeaderName::from_static("ssl-client-issuer-dn");
const CERTIFICATE: HeaderName = HeaderName::from_static("ssl-client-cert");

impl CertificateStep {
    /// Whether handshakes for the host request a certificate.
    pub(crate) fn requests_certificate(&self) -> bool {
        match self {
            CertificateStep::Verify { settings, .. } => settings.mode != CertificateMode::Off,
            CertificateStep::Deny => false,
        }
    }

    pub(super) fn declare_assertions(assertions: &mut Assertions) {
        assertions.fields.add_all(&CERTIFICATE_FIELDS);
    }

    /// Rejects the request, or sets the fields for the endpoint. A request in plain text has no certificate, and passes
    /// unless [`CertificateStep::requires_tls`].
    pub(super) fn check(&self, cx: &mut RequestCx<'_>) -> Result<(), Box<Reply>> {
        let CertificateStep::Verify { settings, permits_plain_text } = self else { return Err(denied()) };
        match (cx.client.received.scheme, cx.client.certificate) {
            // A challenge has no subject either.
            (Scheme::Http, _) if *permits_plain_text => {
                CERTIFICATE_FIELDS.iter().for_each(|name| cx.assert_none(name));
                Ok(())
            }
            (Scheme::Http, _) => settings.accept(cx, Verified::default()),
            _ if settings.mode == CertificateMode::Off => settings.accept(cx, Verified::no_certificate()),
            (_, ClientCertificate::Chain(chain, _, findings)) => {
                VerifiedChain::with(settings, (chain, findings), cx.now, |verified| settings.accept_chain(cx, verified))
            }
            (_, ClientCertificate::NotRequested) if cx.needs_another_connection() => Err(another_connection()),
            (_, ClientCertificate::NotRequested | ClientCertificate::Missing) => match settings.mode {
                CertificateMode::Required => {
                    Err(settings.reject("No required SSL certificate was sent", "no_credentials"))
                }
                _ => settings.accept(cx, Verified::no_certificate()),
            },
        }
    }

    /// Whether requests in plain text do not pass, because they have no certificate. Whatever a proxy in front of
    /// Portico has verified is not known here.
    pub(super) fn requires_tls(&self, client: ClientInfo<'_>) -> bool {
        let CertificateStep::Verify { settings, permits_plain_text } = self else { return true };
        client.received.scheme == Scheme::Http && settings.mode == CertificateMode::Required && !permits_plain_text
    }
}

/// What the endpoint gets. The default is that of a request in plain text.
#[derive(Clone, Copy, Default)]
struct Verified<'c> {
    result: Option<&'c HeaderValue>,
    fields: Option<&'c CertificateFields>,
}

static NONE: HeaderValue = HeaderValue::from_static("NONE");

impl Verified<'_> {
    fn no_certificate() -> Verified<'static> {
        Verified { result: Some(&NONE), fields: None }
    }
}

impl ClientCertificates {
    fn accept_chain(&self, cx: &mut RequestCx<'_>, chain: &VerifiedChain) -> Result<(), Box<Reply>> {
        match &chain.result {
            Some(result) => self.accept(cx, Verified { result: Some(result), fields: Some(&chain.fields) }),
            None => Err(self.reject("The SSL certificate error", "wrong_credentials")),
        }
    }

    fn accept(&self, cx: &mut RequestCx<'_>, verified: Verified<'_>) -> Result<(), Box<Reply>> {
        let Verified { result, fields } = verified;
        let subject = fields.and_then(|fields| fields.subject.as_ref());
        if let Some(pattern) = &self.subject {
            let text = subject.map(HeaderValue::as_bytes).unwrap_or_default();
            let states = usize::try_from(pattern.states()).unwrap_or(usize::MAX);
            if !cx.regex_steps.take(states, text.len()) || !pattern.is_match(text) {
                let message = "client certificate unauthorized";
                return Err(Reply::plain(StatusCode::FORBIDDEN, message, "wrong_certificate_subject"));
            }
        }
        let issuer = fields.and_then(|fields| fields.issuer.as_ref());
        let certificate = fields.and_then(|fields| fields.certificate.as_ref());
        for (name, value) in [(VERIFY, result), (SUBJECT, subject), (ISSUER, issuer), (CERTIFICATE, certificate)] {
            match value {
                Some(value) => cx.assert_field(&name, value.clone()),
                None => cx.assert_none(&name),
            }
        }
        Ok(())
    }

    /// The reply to a client without a valid certificate.
    fn reject(&self, message: &'static str, reason: &'static str) -> Box<Reply> {
        match &self.error_page {
            Some(page) => Reply::new(StatusCode::FOUND, ReplyBody::Empty, reason).with_header(LOCATION, page.clone()),
            None => Reply::negotiated(StatusCode::BAD_REQUEST, message, reason),
        }
    }
}

/// What was found out about the certificates of a connection.
struct VerifiedChain {
    settings: Arc<ClientCertificates>,
    /// The value of `ssl-client-verify`; `None` if the client is rejected.
    result: Option<HeaderValue>,
    fields: CertificateFields,
    /// Until when the result holds, in seconds since 1970.
    ends: i64,
}

impl VerifiedChain {
    fn new(settings: &Arc<ClientCertificates>, chain: &[CertificateDer<'static>], now: SystemTime) -> Self {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let verified = settings.authorities.verify(chain, settings.max_intermediates, since);
        let (result, ends) = match verified {
            Ok(ends) => (Some(HeaderValue::from_static("SUCCESS")), ends),
            Err(RejectedCertificate::UnknownAuthority(reason)) if settings.mode == CertificateMode::AnyAuthority => (
                HeaderValue::try_from(format!("FAILED:{reason}")).ok(),
                settings.authorities.end(chain, seconds(since)),
            ),
            // It may become valid, but a client that sends it again can open another connection.
            Err(_) => (None, i64::MAX),
        };
        let fields = chain.first().map(|own| CertificateFields::new(own, settings.forwards_certificate));
        VerifiedChain { settings: Arc::clone(settings), result, fields: fields.unwrap_or_default(), ends }
    }

    /// Reads what is known of the certificates of a connection, which is found out if it is not.
    fn with<R>(
        settings: &Arc<ClientCertificates>,
        (chain, findings): (&[CertificateDer<'static>], &CertificateFindings),
        now: SystemTime,
        read: impl FnOnce(&VerifiedChain) -> R,
    ) -> R {
        let is_kept = |kept: &VerifiedChain| kept.is_of(settings, now);
        match findings.find_or_add(is_kept, || VerifiedChain::new(settings, chain, now)) {
            Ok(kept) => read(kept),
            Err(added) => read(&added),
        }
    }

    fn is_of(&self, settings: &Arc<ClientCertificates>, now: SystemTime) -> bool {
        let is_same = Arc::ptr_eq(&self.settings, settings) || self.settings == *settings;
        is_same && seconds(now.duration_since(UNIX_EPOCH).unwrap_or_default()) <= self.ends
    }
}

pub(super) fn denied() -> Box<Reply> {
    Reply::negotiated(StatusCode::FORBIDDEN, "Forbidden", "certificate_required")
}

/// The reply to a client that must open another connection, whose handshake requests a certificate.
fn another_connection() -> Box<Reply> {
    Reply::negotiated(StatusCode::MISDIRECTED_REQUEST, "Misdirected request", "not_asked")
}

#[cfg(test)]
mod tests;
