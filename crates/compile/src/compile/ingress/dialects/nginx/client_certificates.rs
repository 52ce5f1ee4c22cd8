//! The certificates of clients: the annotations `auth-tls-…`, which apply to all paths of the hosts of an Ingress, also
//! to those of other Ingresses.
//!
//! ```text
//!   Ingresses of a host ─ read ─▶ host_facts.rs: one whose Secret cannot be used, or else the oldest
//!                                                  └▶ rule.rs: a step of each location
//! ```
//!
//! What cannot be resolved closes the host, as in ingress-nginx: with 403 if the authorities are not known, and with
//! 503 if a value is rejected.

use std::sync::Arc;

use http::HeaderValue;

use super::authority_cache::AuthorityCache;
use super::config_map::NginxConfig;
use super::value_reader::{ValueReader, written};
use crate::api::ingress_nginx::{OnBadValue, PREFIX, find};
use crate::api::{Kind, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::objects::missing_object::missing_object;
use crate::diagnostic::Diagnostic;
use crate::snapshot::location_steps::{CertificateMode, CertificateStep, ClientAuthorities, ClientCertificates};
use crate::snapshot::regex::{Regex, RegexAnchor, RegexLimit, RegexSize};

/// What the annotations of an Ingress require of the clients of its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CertificateRequirement {
    Verified(Arc<ClientCertificates>),
    /// The authorities are not known, so that requests get status 403.
    UnknownAuthorities,
    /// A value is rejected, so that requests get status 503.
    Rejected,
}

impl CertificateRequirement {
    /// What a location does. `permits_plain_text`: whether its requests may pass without TLS.
    pub(super) fn step(&self, permits_plain_text: bool) -> CertificateStep {
        match self {
            CertificateRequirement::Verified(settings) => {
                CertificateStep::Verify { settings: Arc::clone(settings), permits_plain_text }
            }
            CertificateRequirement::UnknownAuthorities | CertificateRequirement::Rejected => CertificateStep::Deny,
        }
    }

    /// Whether each client needs a certificate, so that no request may be in plain text.
    pub(super) fn requires_certificate(&self) -> bool {
        matches!(self, CertificateRequirement::Verified(settings) if settings.mode == CertificateMode::Required)
    }

    /// Whether connections for the host are not used for other hosts.
    pub(super) fn verifies_clients(&self) -> bool {
        matches!(self, CertificateRequirement::Verified(settings) if settings.mode != CertificateMode::Off)
    }
}

/// What a host requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostCertificates {
    /// The Ingress that decides about it.
    pub ingress: ObjectKey,
    pub requirement: CertificateRequirement,
}

/// What the annotations of an Ingress say.
#[derive(Debug, Default)]
pub(super) struct OwnCertificates {
    pub requirement: Option<CertificateRequirement>,
    /// Why the authorities are not known. It is no error of the rules, which respond with 403.
    pub problem: Option<Diagnostic>,
    /// What the automaton of the expression takes.
    pub regex_bytes: usize,
}

/// Reads the annotations. Errors of the reader are those of rejected values.
pub(super) fn read(
    cx: CompileContext<'_>,
    reader: &mut ValueReader<'_>,
    config: &NginxConfig,
    cache: &AuthorityCache,
    limit: RegexLimit,
) -> OwnCertificates {
    let errors_before = reader.errors.len();
    let has_secret = written(reader.meta, SECRET).is_some();
    if !has_secret {
        reader.note_without(&OF_SECRET, SECRET);
    }
    let mode = match reader.text("auth-tls-verify-client").map(str::trim) {
        Some("off") => CertificateMode::Off,
        Some("optional") => CertificateMode::Optional,
        Some("optional_no_ca") => CertificateMode::AnyAuthority,
        _ => CertificateMode::Required,
    };
    let depth = reader.number("auth-tls-verify-depth").and_then(|depth| usize::try_from(depth).ok());
    let error_page = error_page(reader);
    let forwards_certificate = reader.flag("auth-tls-pass-certificate-to-upstream", false);
    let (subject, regex_bytes) = subject(reader, limit).unzip();
    let authorities = authorities(cx, reader, config, cache);
    let (requirement, problem) = match authorities {
        _ if !has_secret => (None, None),
        _ if reader.errors.len() > errors_before => (Some(CertificateRequirement::Rejected), None),
        Ok(authorities) => {
            let settings = ClientCertificates {
                mode,
                authorities,
                // As in ingress-nginx, 0 counts as the default.
                max_intermediates: depth.filter(|depth| *depth > 0).unwrap_or(DEFAULT_DEPTH),
                error_page,
                forwards_certificate,
                subject,
            };
            (Some(CertificateRequirement::Verified(Arc::new(settings))), None)
        }
        Err(problem) => (Some(CertificateRequirement::UnknownAuthorities), problem),
    };
    OwnCertificates { requirement, problem, regex_bytes: regex_bytes.unwrap_or_default() }
}

/// The authorities in the Secret.
///
/// # Errors
///
/// Why they are not known; `None` if the reader has an error that says it.
fn authorities(
    cx: CompileContext<'_>,
    reader: &mut ValueReader<'_>,
    config: &NginxConfig,
    cache: &AuthorityCache,
) -> Result<Arc<ClientAuthorities>, Option<Diagnostic>> {
    let field = || annotation_field(&format!("{PREFIX}{SECRET}"));
    let denied = |mut problem: Diagnostic| {
        problem.message.push_str(", so requests for its hosts get status 403");
        Err(Some(problem))
    };
    let value = written(reader.meta, SECRET).ok_or(None)?;
    if find(SECRET).is_some_and(|row| row.consequence(value) == Some(OnBadValue::Deny503)) {
        let message = format!("{value:?} is not the namespace of a Secret, a slash and its name");
        return denied(Diagnostic::error(field(), message, "write it like default/authorities"));
    }
    let name = reader.text(SECRET).ok_or(None)?.replace(' ', "");
    let (namespace, name) = name.split_once('/').ok_or(None)?;
    let key = ObjectKey::new(namespace, name);
    let own = &reader.meta.key.namespace;
    if key.namespace != *own && !config.allows_other_namespaces {
        let message = format!("{key} is in another namespace");
        let remedy =
            format!("name a Secret in namespace {own}, or set allow-cross-namespace-resources in the ConfigMap");
        return denied(Diagnostic::error(field(), message, remedy));
    }
    let Some(secret) = cx.store.secrets.get(&key) else {
        return denied(missing_object(cx.store, field(), Kind::Secret, &key));
    };
    let Some(authorities) = secret.value("ca.crt") else {
        // ingress-nginx would request no certificates.
        let remedy = "add the key ca.crt, whose value has the certificates of the authorities in PEM";
        reader.refuse(SECRET, &format!("Secret {key} has no key ca.crt"), remedy);
        return Err(None);
    };
    match cache.parse(secret, authorities) {
        Ok(authorities) => Ok(authorities),
        Err(clause) => denied(Diagnostic::error(field(), format!("Secret {key}: {clause}"), "correct the Secret")),
    }
}

/// The URL to which clients without a valid certificate are redirected.
fn error_page(reader: &mut ValueReader<'_>) -> Option<HeaderValue> {
    let page = reader.text(ERROR_PAGE)?.replace(' ', "");
    let is_url = page.starts_with("https://") || page.starts_with("http://");
    let url = HeaderValue::try_from(&page).ok().filter(|_| is_url);
    if url.is_none() {
        let message = "only URLs are supported, so clients without a valid certificate get status 400";
        reader.warn(ERROR_PAGE, message.to_owned(), "write a URL, such as https://www.example.com/certificates");
    }
    url
}

/// What the subject of a certificate must match somewhere, and what its automaton takes.
fn subject(reader: &mut ValueReader<'_>, limit: RegexLimit) -> Option<(Regex, usize)> {
    let pattern = reader.text(MATCH_CN)?;
    // By itself, too, so that the parentheses around it are not its own.
    let compiled = RegexSize::of(pattern, RegexAnchor::Whole, limit).and_then(|size| {
        let regex = Regex::compile(&format!("(?s:.*)(?:{pattern})(?s:.*)"), limit)?;
        Ok((regex, 2 * size.bytes))
    });
    compiled
        .inspect_err(|error| {
            let message = format!("{pattern:?} cannot be used as an expression: {error}");
            reader.refuse(MATCH_CN, &message, "correct it");
        })
        .ok()
}

pub(super) const SECRET: &str = "auth-tls-secret";
const ERROR_PAGE: &str = "auth-tls-error-page";
const MATCH_CN: &str = "auth-tls-match-cn";

/// The annotations that have no effect without the Secret.
const OF_SECRET: [&str; 5] =
    [ERROR_PAGE, MATCH_CN, "auth-tls-pass-certificate-to-upstream", "auth-tls-verify-client", "auth-tls-verify-depth"];

const DEFAULT_DEPTH: usize = 1;
