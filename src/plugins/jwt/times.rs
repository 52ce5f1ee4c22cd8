//! The claims about time, and what a configuration wants of them.

use std::time::{SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A claim that is verified when it is listed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Claim {
    /// When the token ends.
    Exp,
    /// Before when it is not valid.
    Nbf,
    /// When it was issued.
    Iat,
}

const CLAIMS: [Claim; 3] = [Claim::Exp, Claim::Nbf, Claim::Iat];

impl Claim {
    fn name(self) -> &'static str {
        match self {
            Claim::Exp => "exp",
            Claim::Nbf => "nbf",
            Claim::Iat => "iat",
        }
    }
}

/// What a token says of time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times([Time; CLAIMS.len()]);

#[derive(Clone, Copy, Debug)]
enum Time {
    Absent,
    /// In seconds since 1970; fractions are allowed.
    At(f64),
    NoNumber,
}

impl Times {
    pub(super) fn of(claims: &Map<String, Value>) -> Self {
        Times(CLAIMS.map(|claim| match claims.get(claim.name()) {
            None => Time::Absent,
            Some(value) => value.as_f64().map_or(Time::NoNumber, Time::At),
        }))
    }

    /// Whether a token says itself that it has ended.
    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        matches!(self.of_claim(Claim::Exp), Time::At(exp) if exp <= seconds(now))
    }

    fn of_claim(&self, claim: Claim) -> Time {
        self.0[claim as usize]
    }
}

/// What is wanted of these claims.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    wanted: [Wanted; CLAIMS.len()],
    /// Seconds that a token may still be valid for; 0 for any number.
    longest: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Not looked at.
    No,
    IfThere,
    Yes,
}

/// The claims that do not hold, with what is wrong with each.
pub(super) type Violations = Vec<(&'static str, &'static str)>;

impl Rules {
    /// Only what is listed is looked at.
    pub(super) fn new(verified: &[Claim], longest: u32) -> Self {
        let wanted = |claim| if verified.contains(&claim) { Wanted::Yes } else { Wanted::No };
        Rules { wanted: CLAIMS.map(wanted), longest }
    }

    /// Besides what is listed, `exp` and `nbf` must hold if they are there.
    #[must_use]
    pub(super) fn and_what_is_there(mut self) -> Self {
        for claim in [Claim::Exp, Claim::Nbf] {
            if self.wanted[claim as usize] == Wanted::No {
                self.wanted[claim as usize] = Wanted::IfThere;
            }
        }
        self
    }

    pub(super) fn check(&self, times: &Times, now: SystemTime) -> Result<(), Violations> {
        let now = seconds(now);
        let violations = CLAIMS.into_iter().filter_map(|claim| {
            let wrong = match (self.wanted[claim as usize], times.of_claim(claim)) {
                (Wanted::No, _) | (Wanted::IfThere, Time::Absent) => None,
                (Wanted::Yes, Time::Absent) | (_, Time::NoNumber) => Some("must be a number"),
                (_, Time::At(time)) => violation(claim, time, now),
            };
            wrong.map(|wrong| (claim.name(), wrong))
        });
        let violations: Violations = violations.collect();
        if !violations.is_empty() {
            return Err(violations);
        }
        match times.of_claim(Claim::Exp) {
            Time::At(exp) if self.longest > 0 && exp - now > f64::from(self.longest) => {
                Err(vec![(Claim::Exp.name(), "exceeds maximum allowed expiration")])
            }
            _ => Ok(()),
        }
    }
}

fn violation(claim: Claim, time: f64, now: f64) -> Option<&'static str> {
    match claim {
        Claim::Exp => (time <= now).then_some("token expired"),
        Claim::Nbf => (time > now).then_some("token not valid yet"),
        Claim::Iat => (time > now).then_some("token issued in the future"),
    }
}

/// Whole seconds, as clients reckon who compare their clock with ours.
fn seconds(now: SystemTime) -> f64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    // Exact: the seconds of a million years fit into the 53 bits.
    since.as_secs() as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    // kong-compat §4.16
    #[test]
    fn claims_are_verified_as_listed() {
        use Claim::{Exp, Iat, Nbf};
        const MUST: &str = "must be a number";
        const EXPIRED: (&str, &str) = ("exp", "token expired");
        type Wrong = &'static [(&'static str, &'static str)];
        let cases: [(&[Claim], u32, Value, Wrong, Wrong); 17] = [
            (
                &[],
                0,
                json!({"exp": 1, "nbf": 9999, "iat": 9999}),
                &[],
                &[("exp", "token expired"), ("nbf", "token not valid yet")],
            ),
            (&[], 0, json!({}), &[], &[]),
            (&[], 0, json!({"exp": "x"}), &[], &[("exp", MUST)]),
            (&[Exp], 0, json!({"exp": 1001}), &[], &[]),
            (&[Exp], 0, json!({"exp": 1000.5}), &[], &[]),
            (&[Exp], 0, json!({"exp": 1000}), &[EXPIRED], &[EXPIRED]),
            (&[Exp], 0, json!({"exp": -1e300}), &[EXPIRED], &[EXPIRED]),
            (&[Exp], 0, json!({"exp": "2000"}), &[("exp", MUST)], &[("exp", MUST)]),
            (&[Exp], 0, json!({}), &[("exp", MUST)], &[("exp", MUST)]),
            (&[Exp], 0, json!({"exp": null}), &[("exp", MUST)], &[("exp", MUST)]),
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
            (&[Nbf, Exp], 0, json!({"exp": 1}), &[EXPIRED, ("nbf", MUST)], &[EXPIRED, ("nbf", MUST)]),
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
        for (verified, longest, claims, listed, there) in cases {
            let times = Times::of(claims.as_object().unwrap());
            let rules = Rules::new(verified, longest);
            assert_eq!(rules.check(&times, now).err().unwrap_or_default(), listed, "{verified:?} {claims}");
            let rules = rules.and_what_is_there();
            assert_eq!(rules.check(&times, now).err().unwrap_or_default(), there, "{verified:?} {claims}, if there");
        }
    }
}
