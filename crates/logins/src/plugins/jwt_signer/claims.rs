//! Which claims a token must have, and which claims the new one gets.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::config::TokenConfig;

/// The requirements of a configuration.
#[derive(Debug)]
pub(super) struct ClaimRules {
    verifies_expiry: bool,
    verifies_start: bool,
    /// Seconds.
    leeway: f64,
    issuers: Box<[Box<str>]>,
    audiences: Box<[Box<str>]>,
    subjects: Box<[Box<str>]>,
    scopes_claim: Box<[Box<str>]>,
    /// The alternatives, each with all scopes that it requires.
    scopes: Box<[Box<[Box<str>]>]>,
}

/// The changes of claims for the new token.
#[derive(Debug)]
pub(super) struct TokenClaimChanges {
    issuer: Box<str>,
    /// Seconds.
    leeway: f64,
    /// Whether the client has proved that it has the key in `cnf`.
    verifies_binding: bool,
    set: BTreeMap<String, String>,
    add: BTreeMap<String, String>,
    remove: Vec<String>,
}

pub(super) fn boxed(names: &[String]) -> Box<[Box<str>]> {
    names.iter().map(|name| Box::from(name.as_str())).collect()
}

impl ClaimRules {
    pub(super) fn new(config: &TokenConfig) -> Self {
        let alternative = |scopes: &String| scopes.split_ascii_whitespace().map(Box::from).collect::<Box<[Box<str>]>>();
        ClaimRules {
            verifies_expiry: config.verify_expiry,
            verifies_start: config.verify_notbefore,
            leeway: config.leeway.into(),
            issuers: boxed(&config.issuers_allowed),
            audiences: boxed(&config.audiences_allowed),
            subjects: boxed(&config.subjects_allowed),
            scopes_claim: boxed(&config.scopes_claim),
            scopes: config.scopes_required.iter().map(alternative).collect(),
        }
    }

    /// Whether the claims, except times, are accepted.
    pub(super) fn accept(&self, claims: &Map<String, Value>) -> bool {
        let is_listed = |listed: &[Box<str>], claim: &str| listed.is_empty() || has_one_of(claims.get(claim), listed);
        is_listed(&self.issuers, "iss")
            && is_listed(&self.audiences, "aud")
            && is_listed(&self.subjects, "sub")
            && self.accept_scopes(claims)
    }

    fn accept_scopes(&self, claims: &Map<String, Value>) -> bool {
        if self.scopes.is_empty() {
            return true;
        }
        let found = find(claims, &self.scopes_claim);
        let found: Vec<&str> = match found {
            Some(Value::String(scopes)) => scopes.split_ascii_whitespace().collect(),
            Some(Value::Array(scopes)) => scopes.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        self.scopes.iter().any(|alternative| alternative.iter().all(|scope| found.contains(&&**scope)))
    }

    /// Whether the times in the claims are valid now. A time that is not a number is not.
    pub(super) fn accept_times(&self, claims: &Map<String, Value>, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let is_valid = |claim: &str, is_valid: &dyn Fn(f64) -> bool| match claims.get(claim) {
            None => true,
            Some(time) => time.as_f64().is_some_and(is_valid),
        };
        (!self.verifies_expiry || is_valid("exp", &|exp| exp + self.leeway > now))
            && (!self.verifies_start || is_valid("nbf", &|nbf| nbf - self.leeway <= now))
    }
}

impl TokenClaimChanges {
    pub(super) fn new(config: &TokenConfig) -> Self {
        TokenClaimChanges {
            issuer: config.issuer.as_str().into(),
            leeway: config.upstream_leeway.into(),
            verifies_binding: config.verify_binding,
            set: config.set_claims.clone(),
            add: config.add_claims.clone(),
            remove: config.remove_claims.clone(),
        }
    }

    pub(super) fn apply(&self, claims: &Map<String, Value>) -> Map<String, Value> {
        let mut changed = claims.clone();
        // A member of introspection that says nothing about the subject.
        changed.remove("active");
        // The key is that of the client, and the endpoint gets the token over a connection of Portico.
        if self.verifies_binding {
            changed.remove("cnf");
        }
        if let Some(original) = changed.insert("iss".to_owned(), (*self.issuer).into()) {
            changed.insert("original_iss".to_owned(), original);
        }
        if self.leeway > 0.0
            && let Some(exp) = changed.get("exp").and_then(Value::as_f64)
        {
            changed.insert("exp".to_owned(), (exp + self.leeway).into());
        }
        for (name, value) in &self.add {
            changed.entry(name.as_str()).or_insert_with(|| value.as_str().into());
        }
        for (name, value) in &self.set {
            changed.insert(name.clone(), value.as_str().into());
        }
        for name in &self.remove {
            changed.remove(name);
        }
        changed
    }
}

/// The value at a path of claims.
pub(super) fn find<'c>(claims: &'c Map<String, Value>, path: &[Box<str>]) -> Option<&'c Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(claims.get(&**first)?, |value, name| value.get(&**name))
}

fn has_one_of(value: Option<&Value>, listed: &[Box<str>]) -> bool {
    let is_listed = |value: &Value| value.as_str().is_some_and(|text| listed.iter().any(|name| **name == *text));
    match value {
        Some(Value::Array(values)) => values.iter().any(is_listed),
        Some(value) => is_listed(value),
        None => false,
    }
}
