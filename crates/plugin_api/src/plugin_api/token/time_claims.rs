//! Time claims of tokens, and their validation.

use std::time::{SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A claim in `claims_to_verify`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum TimeClaimName {
    /// Expiration time: must be in the future.
    Exp,
    /// Start of validity: must not be in the future.
    Nbf,
    /// Time of issue: must not be in the future.
    Iat,
}

/// In the order of the variants, so that `claim as usize` is an index.
const CLAIMS: [TimeClaimName; 3] = [TimeClaimName::Exp, TimeClaimName::Nbf, TimeClaimName::Iat];

impl TimeClaimName {
    fn name(self) -> &'static str {
        match self {
            TimeClaimName::Exp => "exp",
            TimeClaimName::Nbf => "nbf",
            TimeClaimName::Iat => "iat",
        }
    }
}

/// The time claims of a token.
#[derive(Clone, Copy, Debug)]
pub struct TimeClaims([TimeClaim; CLAIMS.len()]);

#[derive(Clone, Copy, Debug)]
enum TimeClaim {
    Absent,
    /// Seconds since 1970; fractions are allowed.
    At(f64),
    NotNumber,
}

impl TimeClaims {
    pub fn from_claims(claims: &Map<String, Value>) -> Self {
        TimeClaims(CLAIMS.map(|claim| match claims.get(claim.name()) {
            None => TimeClaim::Absent,
            Some(value) => value.as_f64().map_or(TimeClaim::NotNumber, TimeClaim::At),
        }))
    }

    /// Whether the token has expired according to `exp`.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        matches!(self.get(TimeClaimName::Exp), TimeClaim::At(exp) if exp <= unix_seconds(now))
    }

    fn get(&self, claim: TimeClaimName) -> TimeClaim {
        self.0[claim as usize]
    }
}

/// The requirements for time claims.
#[derive(Clone, Copy, Debug)]
pub struct TimeClaimRules {
    requirements: [ClaimRequirement; CLAIMS.len()],
    /// Maximum remaining lifetime of a token in seconds; 0 for no limit.
    max_lifetime: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClaimRequirement {
    /// The claim is ignored.
    Ignored,
    /// The claim must be valid if the token contains it.
    IfPresent,
    /// The token must contain the claim, and it must be valid.
    Required,
}

/// Invalid claims and the error of each.
pub type ClaimViolations = Vec<(&'static str, &'static str)>;

impl TimeClaimRules {
    /// Claims that are not in `verified` are ignored.
    pub fn new(verified: &[TimeClaimName], max_lifetime: u32) -> Self {
        let requirement =
            |claim| if verified.contains(&claim) { ClaimRequirement::Required } else { ClaimRequirement::Ignored };
        TimeClaimRules { requirements: CLAIMS.map(requirement), max_lifetime }
    }

    /// These rules, but `exp` and `nbf` must be valid if they are present.
    #[must_use]
    pub fn with_present_claims(mut self) -> Self {
        for claim in [TimeClaimName::Exp, TimeClaimName::Nbf] {
            if self.requirements[claim as usize] == ClaimRequirement::Ignored {
                self.requirements[claim as usize] = ClaimRequirement::IfPresent;
            }
        }
        self
    }

    pub fn check(&self, times: &TimeClaims, now: SystemTime) -> Result<(), ClaimViolations> {
        let now = unix_seconds(now);
        let violations = CLAIMS.into_iter().filter_map(|claim| {
            let error = match (self.requirements[claim as usize], times.get(claim)) {
                (ClaimRequirement::Ignored, _) | (ClaimRequirement::IfPresent, TimeClaim::Absent) => None,
                (ClaimRequirement::Required, TimeClaim::Absent) | (_, TimeClaim::NotNumber) => Some("must be a number"),
                (_, TimeClaim::At(time)) => time_error(claim, time, now),
            };
            error.map(|error| (claim.name(), error))
        });
        let violations: ClaimViolations = violations.collect();
        if !violations.is_empty() {
            return Err(violations);
        }
        match times.get(TimeClaimName::Exp) {
            TimeClaim::At(exp) if self.max_lifetime > 0 && exp - now > f64::from(self.max_lifetime) => {
                Err(vec![(TimeClaimName::Exp.name(), "exceeds maximum allowed expiration")])
            }
            _ => Ok(()),
        }
    }
}

/// The error of a claim whose time is not valid now.
fn time_error(claim: TimeClaimName, time: f64, now: f64) -> Option<&'static str> {
    match claim {
        TimeClaimName::Exp => (time <= now).then_some("token expired"),
        TimeClaimName::Nbf => (time > now).then_some("token not valid yet"),
        TimeClaimName::Iat => (time > now).then_some("token issued in the future"),
    }
}

/// Seconds since 1970, rounded down, because issuers and clients use whole seconds, too.
fn unix_seconds(now: SystemTime) -> f64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    // The conversion is exact: 53 bits hold the seconds of many million years.
    since.as_secs() as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    // docs/kong-compatibility.md, 4.16
    #[test]
    fn listed_time_claims_are_verified() {
        use TimeClaimName::{Exp, Iat, Nbf};
        const NOT_NUMBER: &str = "must be a number";
        const EXPIRED: (&str, &str) = ("exp", "token expired");
        type Errors = &'static [(&'static str, &'static str)];
        // Verified claims, maximum lifetime, claims of the token, and the errors of the rules without and with
        // `with_present_claims`. The current time is 1000.9.
        let cases: [(&[TimeClaimName], u32, Value, Errors, Errors); 17] = [
            (
                &[],
                0,
                json!({"exp": 1, "nbf": 9999, "iat": 9999}),
                &[],
                &[("exp", "token expired"), ("nbf", "token not valid yet")],
            ),
            (&[], 0, json!({}), &[], &[]),
            (&[], 0, json!({"exp": "x"}), &[], &[("exp", NOT_NUMBER)]),
            (&[Exp], 0, json!({"exp": 1001}), &[], &[]),
            (&[Exp], 0, json!({"exp": 1000.5}), &[], &[]),
            (&[Exp], 0, json!({"exp": 1000}), &[EXPIRED], &[EXPIRED]),
            (&[Exp], 0, json!({"exp": -1e300}), &[EXPIRED], &[EXPIRED]),
            (&[Exp], 0, json!({"exp": "2000"}), &[("exp", NOT_NUMBER)], &[("exp", NOT_NUMBER)]),
            (&[Exp], 0, json!({}), &[("exp", NOT_NUMBER)], &[("exp", NOT_NUMBER)]),
            (&[Exp], 0, json!({"exp": null}), &[("exp", NOT_NUMBER)], &[("exp", NOT_NUMBER)]),
            (&[Nbf], 0, json!({"nbf": 1000}), &[], &[]),
            (&[Nbf], 0, json!({"nbf": 1001}), &[("nbf", "token not valid yet")], &[("nbf", "token not valid yet")]),
            (&[Iat], 0, json!({"iat": 1000}), &[], &[]),
            (
                &[Iat],
                0,
                json!({"iat": 1001}),
                &[("iat", "token issued in the future")],
                &[("iat", "token issued in the future")],
            ),
            (&[Nbf, Exp], 0, json!({"exp": 1}), &[EXPIRED, ("nbf", NOT_NUMBER)], &[EXPIRED, ("nbf", NOT_NUMBER)]),
            (&[Exp], 60, json!({"exp": 1060}), &[], &[]),
            (
                &[Exp],
                60,
                json!({"exp": 1061}),
                &[("exp", "exceeds maximum allowed expiration")],
                &[("exp", "exceeds maximum allowed expiration")],
            ),
        ];
        let now = UNIX_EPOCH + Duration::from_millis(1_000_900);
        for (verified, max_lifetime, claims, errors, errors_if_present) in cases {
            let times = TimeClaims::from_claims(claims.as_object().unwrap());
            let rules = TimeClaimRules::new(verified, max_lifetime);
            assert_eq!(rules.check(&times, now).err().unwrap_or_default(), errors, "{verified:?} {claims}");
            let rules = rules.with_present_claims();
            assert_eq!(
                rules.check(&times, now).err().unwrap_or_default(),
                errors_if_present,
                "{verified:?} {claims}, if present"
            );
        }
    }
}
