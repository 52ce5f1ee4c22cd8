//! Which clients a plugin accepts by their certificates, and as which consumers.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::CertificateNames;
use super::trust::{CertificateTrust, RevocationMode, UntrustedCertificate};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::assertions::Assertions;
use crate::plugin_api::consumers::{Consumer, ConsumerDirectory, Sha256Digest};
use crate::plugin_api::context::RequestCx;
use crate::plugin_api::subjects::VerifiedSubject;
use crate::plugin_api::{NamedConsumer, Reply};
use crate::plugin_kit::authentication::{AuthPolicy, VerifiedCredential, declare_identity};
use crate::plugin_kit::digest_cache::{DigestCache, Expiring};

/// A field of consumers that is compared with the names in certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConsumerField {
    Username,
    CustomId,
}

/// What the group of a client without a consumer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GroupSource {
    /// The common name.
    #[serde(rename = "CN")]
    CommonName,
    /// The whole subject.
    #[serde(rename = "DN")]
    Subject,
}

/// The fields of the configuration of a plugin that accepts clients by their certificates.
#[derive(Clone, Debug)]
pub(crate) struct CertificateSettings {
    pub ca_certificates: Vec<String>,
    pub crls: Vec<String>,
    pub revocation_check_mode: RevocationMode,
    pub skip_consumer_lookup: bool,
    pub consumer_by: Vec<ConsumerField>,
    pub default_consumer: Option<String>,
    pub anonymous: Option<String>,
    pub authenticated_group_by: Option<GroupSource>,
    /// In milliseconds.
    pub cert_cache_ttl: u32,
}

/// The built settings, with the certificates that were verified lately.
#[derive(Debug)]
pub(crate) struct CertificatePolicy {
    trust: CertificateTrust,
    skips_lookup: bool,
    consumer_by: Box<[ConsumerField]>,
    default_consumer: Option<Box<str>>,
    policy: AuthPolicy,
    group_source: Option<GroupSource>,
    cache_ttl: Duration,
    verified: DigestCache<Expiring<VerifiedCertificate>>,
    /// Those that are not trusted, so that a client cannot cause a verification with each request. They have a cache of
    /// their own, so that invented certificates replace no trusted ones.
    untrusted: DigestCache<Expiring<()>>,
}

/// A certificate that is trusted.
#[derive(Debug)]
struct VerifiedCertificate {
    names: CertificateNames,
    subject: Option<HeaderValue>,
    alternative: Option<HeaderValue>,
}

const CLIENT_CERT_DN: HeaderName = HeaderName::from_static("x-client-cert-dn");
const CLIENT_CERT_SAN: HeaderName = HeaderName::from_static("x-client-cert-san");

/// How long a certificate is rejected without being verified again. It may become valid.
const MAX_UNTRUSTED_TTL: Duration = Duration::from_secs(10);

/// Why a client is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateRejection {
    Untrusted,
    NoConsumer,
}

impl CertificatePolicy {
    pub(crate) fn new(settings: CertificateSettings) -> Result<Self, Vec<Diagnostic>> {
        let CertificateSettings { ca_certificates, crls, revocation_check_mode, .. } = &settings;
        let mut invalid = Vec::new();
        let trust = CertificateTrust::parse(ca_certificates, crls, *revocation_check_mode);
        let trust = trust.map_err(|errors| invalid.extend(errors));
        let policy = AuthPolicy::new(settings.anonymous, true).map_err(|error| invalid.push(error));
        if settings.default_consumer.as_deref() == Some("") {
            let remedy = "set it to the id or username of a consumer, or remove it";
            invalid.push(Diagnostic::in_config("default_consumer", "is empty", remedy));
        }
        if settings.skip_consumer_lookup && settings.default_consumer.is_some() {
            let remedy = "remove it, or set skip_consumer_lookup to false";
            invalid.push(Diagnostic::in_config("default_consumer", "has no effect with skip_consumer_lookup", remedy));
        }
        let (Ok(trust), Ok(policy), []) = (trust, policy, &invalid[..]) else { return Err(invalid) };
        Ok(CertificatePolicy {
            trust,
            skips_lookup: settings.skip_consumer_lookup,
            consumer_by: settings.consumer_by.into(),
            default_consumer: settings.default_consumer.map(String::into_boxed_str),
            policy,
            group_source: settings.authenticated_group_by,
            cache_ttl: Duration::from_millis(settings.cert_cache_ttl.into()),
            verified: DigestCache::default(),
            untrusted: DigestCache::default(),
        })
    }

    pub(crate) fn auth_policy(&self) -> &AuthPolicy {
        &self.policy
    }

    pub(crate) fn named_consumers(&self) -> Vec<NamedConsumer<'_>> {
        let default = self.default_consumer.as_deref().map(|name| {
            let consequence = "certificates for which no consumer is found are rejected";
            NamedConsumer { path: "default_consumer".to_owned(), name, consequence }
        });
        self.policy.anonymous_consumer().into_iter().chain(default).collect()
    }

    pub(crate) fn declare_assertions(assertions: &mut Assertions) {
        declare_identity(assertions);
        assertions.fields.add_all(&[CLIENT_CERT_DN, CLIENT_CERT_SAN]);
    }

    /// Accepts the client with these certificates, of which the first is its own, or says why not. `digest` is that of
    /// all of them.
    pub(crate) fn accept(
        &self,
        cx: &mut RequestCx<'_>,
        chain: &[CertificateDer<'_>],
        digest: &Sha256Digest,
    ) -> Result<(), CertificateRejection> {
        let verified = self.verify(chain, digest, cx.now).map_err(|_| CertificateRejection::Untrusted)?;
        if self.skips_lookup {
            let subject = Some(verified.names.owner.clone());
            self.policy.accept(cx, VerifiedCredential { consumer: None, subject, identifier: None });
            let group = match self.group_source {
                Some(GroupSource::CommonName) => verified.names.common.as_deref(),
                Some(GroupSource::Subject) => Some(&*verified.names.subject),
                None => None,
            };
            cx.identity.groups = group.map(Arc::from).into_iter().collect();
            for (name, value) in [(CLIENT_CERT_DN, &verified.subject), (CLIENT_CERT_SAN, &verified.alternative)] {
                if let Some(value) = value {
                    cx.assert_field(&name, value.clone());
                }
            }
            return Ok(());
        }
        let consumers = cx.consumers;
        if let Some(credential) = verified.names.all().find_map(|name| consumers.certificates.get(name)) {
            let (consumer, identifier) = (Some(&credential.consumer), credential.subject.header());
            let owner = verified.names.owner.credential();
            let subject = Some(VerifiedSubject::of_credential(&credential.id).acting_for(owner));
            self.policy.accept(cx, VerifiedCredential { consumer, subject, identifier });
            return Ok(());
        }
        let consumer = self.consumer(&verified.names, consumers).ok_or(CertificateRejection::NoConsumer)?;
        let subject = Some(verified.names.owner.clone());
        self.policy.accept(cx, VerifiedCredential { consumer: Some(consumer), subject, identifier: None });
        Ok(())
    }

    /// The consumer that a name in the certificate identifies, or else the one for all others.
    fn consumer<'c>(&self, names: &CertificateNames, consumers: &'c ConsumerDirectory) -> Option<&'c Arc<Consumer>> {
        let by_field = |name: &str| {
            self.consumer_by.iter().find_map(|field| match field {
                ConsumerField::Username => consumers.usernames.get(name),
                ConsumerField::CustomId => consumers.custom_ids.get(name),
            })
        };
        let default = || consumers.by_id_or_username(self.default_consumer.as_deref()?);
        names.all().find_map(by_field).or_else(default)
    }

    fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        digest: &Sha256Digest,
        now: SystemTime,
    ) -> Result<Arc<VerifiedCertificate>, UntrustedCertificate> {
        if let Some(verified) = self.verified.find_value(digest, now) {
            return Ok(verified);
        }
        if self.untrusted.find_value(digest, now).is_some() {
            return Err(UntrustedCertificate);
        }
        if let Err(untrusted) = self.trust.verify(chain, now) {
            self.untrusted.insert_value(*digest, Arc::new(()), now + self.cache_ttl.min(MAX_UNTRUSTED_TTL), now);
            return Err(untrusted);
        }
        let names = chain.first().and_then(CertificateNames::parse).ok_or(UntrustedCertificate)?;
        let header = |text: &str| HeaderValue::from_bytes(text.as_bytes()).ok().filter(|text| !text.is_empty());
        let verified = Arc::new(VerifiedCertificate {
            subject: header(&names.subject),
            alternative: header(&names.alternative_list()),
            names,
        });
        let expires = u64::try_from(verified.names.expires).unwrap_or_default();
        let expires = UNIX_EPOCH.checked_add(Duration::from_secs(expires)).unwrap_or(now);
        self.verified.insert_value(*digest, Arc::clone(&verified), expires.min(now + self.cache_ttl), now);
        Ok(verified)
    }

    /// Rejects the request, or continues as the anonymous consumer.
    pub(crate) fn reject(&self, cx: &mut RequestCx<'_>, reply: impl FnOnce() -> Box<Reply>) -> Option<Box<Reply>> {
        self.policy.reject(cx, reply)
    }
}
