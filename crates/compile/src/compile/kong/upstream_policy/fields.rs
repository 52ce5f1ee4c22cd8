//! The fields of a KongUpstreamPolicy or KongIngress, in one form.

use super::findings::Findings;
use super::hash_input::HashInput;
use crate::api::kong::{
    ActiveHealthcheck, KongIngressUpstream, KongUpstreamPolicySpec, PassiveHealthcheck, StickySessions,
};

/// Fields of one of the kinds. `None`: absent or invalid.
#[derive(Clone, Debug)]
pub(super) struct UpstreamFields<'o> {
    pub(super) notation: Notation,
    pub(super) algorithm: Option<&'o str>,
    pub(super) slots: Option<i32>,
    pub(super) hash_on: Option<HashInput<'o>>,
    pub(super) hash_fallback: Option<HashInput<'o>>,
    pub(super) sticky_sessions: Option<&'o StickySessions>,
    /// In percent.
    pub(super) threshold: Option<f64>,
    pub(super) active: Option<&'o ActiveHealthcheck>,
    pub(super) passive: Option<&'o PassiveHealthcheck>,
    pub(super) host_header: Option<&'o str>,
}

/// How a kind writes the names of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notation {
    KongUpstreamPolicy,
    KongIngress,
}

impl Notation {
    /// The path of a field, such as `healthchecks.active.httpPath`, in an object of the kind.
    pub(super) fn field(self, path: &str) -> String {
        match self {
            Notation::KongUpstreamPolicy => format!("spec.{path}"),
            Notation::KongIngress => {
                let mut text = "upstream.".to_owned();
                for letter in path.chars() {
                    if letter.is_ascii_uppercase() {
                        text.push('_');
                    }
                    text.push(letter.to_ascii_lowercase());
                }
                text
            }
        }
    }
}

impl<'o> UpstreamFields<'o> {
    pub(super) fn of_policy(spec: &'o KongUpstreamPolicySpec, findings: &mut Findings) -> Self {
        let checks = spec.healthchecks.as_ref();
        UpstreamFields {
            notation: Notation::KongUpstreamPolicy,
            algorithm: spec.algorithm.as_deref(),
            slots: spec.slots,
            hash_on: spec.hash_on.as_ref().and_then(|hash| HashInput::of_policy(hash, findings)),
            hash_fallback: spec.hash_on_fallback.as_ref().and_then(|hash| HashInput::of_fallback(hash, findings)),
            sticky_sessions: spec.sticky_sessions.as_ref(),
            threshold: checks.and_then(|checks| checks.threshold).map(f64::from),
            active: checks.and_then(|checks| checks.active.as_ref()),
            passive: checks.and_then(|checks| checks.passive.as_ref()),
            host_header: None,
        }
    }

    pub(super) fn of_kong_ingress(upstream: &'o KongIngressUpstream, findings: &mut Findings) -> Self {
        let checks = upstream.healthchecks.as_ref();
        let hash_on = HashInput::of_kong_ingress(upstream, findings);
        let mut algorithm = upstream.algorithm.as_deref();
        // In Kong, `hash_on` enables hashing, whatever the algorithm is.
        if hash_on.is_some_and(|input| input != HashInput::Nothing) {
            if let Some(other) = algorithm.filter(|algorithm| *algorithm != HASHING) {
                let message = format!("hash_on enables hashing, so {other} has no effect");
                findings.note("upstream.algorithm", message, "write consistent-hashing, or remove hash_on");
            }
            algorithm = Some(HASHING);
        }
        UpstreamFields {
            notation: Notation::KongIngress,
            algorithm,
            slots: upstream.slots,
            hash_on,
            hash_fallback: HashInput::of_kong_ingress_fallback(upstream, findings),
            sticky_sessions: None,
            threshold: checks.and_then(|checks| checks.threshold.as_ref()?.as_f64()),
            active: checks.and_then(|checks| checks.active.as_ref()),
            passive: checks.and_then(|checks| checks.passive.as_ref()),
            host_header: upstream.host_header.as_deref(),
        }
    }

    /// These fields, and those of another object where they are absent.
    pub(super) fn or(self, other: UpstreamFields<'o>) -> Self {
        UpstreamFields {
            notation: self.notation,
            algorithm: self.algorithm.or(other.algorithm),
            slots: self.slots.or(other.slots),
            hash_on: self.hash_on.or(other.hash_on),
            hash_fallback: self.hash_fallback.or(other.hash_fallback),
            sticky_sessions: self.sticky_sessions.or(other.sticky_sessions),
            threshold: self.threshold.or(other.threshold),
            active: self.active.or(other.active),
            passive: self.passive.or(other.passive),
            host_header: self.host_header.or(other.host_header),
        }
    }
}

/// The algorithm that hashes.
pub(super) const HASHING: &str = "consistent-hashing";
