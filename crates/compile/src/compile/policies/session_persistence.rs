//! Translates session persistence (GEP-1619) of a rule or a policy.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderName;

use super::cookie::{CookiePart, CookieProblem, CookieSpec};
use crate::api::gateway::{SessionCookie, SessionHeader, SessionPersistence};
use crate::compile::objects::duration::parse_duration;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::field_names::{WrittenValue, refusal};
use crate::upstream::settings::SameSite;
use crate::upstream::{AffinityCarrier, AffinitySettings};

/// `owner`: the name of the rule or Service that the sessions belong to, which identifies them in all replicas. `None`
/// if there are problems, which are added to `problems`. The standard has no attribute `SameSite`; it is `Strict`.
pub(in crate::compile) fn translate(
    raw: &SessionPersistence,
    owner: &str,
    field: &str,
    problems: &mut Vec<Diagnostic>,
) -> Option<Arc<AffinitySettings>> {
    translate_with(raw, SameSite::Strict, owner, field, problems)
}

/// Translates sessions whose cookie has this attribute `SameSite`; see [`translate`].
pub(super) fn translate_with(
    raw: &SessionPersistence,
    same_site: SameSite,
    owner: &str,
    field: &str,
    problems: &mut Vec<Diagnostic>,
) -> Option<Arc<AffinitySettings>> {
    let scope = scope(owner);
    let mut found = Vec::new();
    let absolute_timeout = raw.absolute_timeout.as_deref().and_then(|text| {
        let timeout = parse_duration(text).filter(|timeout| !timeout.is_zero());
        if timeout.is_none() {
            let message = format!("{text:?} is not the duration of a session");
            let remedy = "write a duration above zero, such as 1h30m";
            found.push(Diagnostic::error(format!("{field}.absoluteTimeout"), message, remedy));
        }
        timeout.map(whole_seconds)
    });
    let carrier = match (&*raw.kind, &raw.cookie, &raw.header) {
        ("Cookie", Some(cookie), None) => {
            let lifetime = Lifetime { absolute_timeout, has_timeout_field: raw.absolute_timeout.is_some() };
            cookie_carrier(cookie, same_site, scope, &lifetime, field, &mut found)
        }
        ("Header", None, Some(header)) => header_carrier(header, field, &mut found),
        ("Cookie" | "Header", _, _) => {
            let (set, other) = if raw.kind == "Cookie" { ("cookie", "header") } else { ("header", "cookie") };
            let message = format!("type {} needs the field {set} and cannot have the field {other}", raw.kind);
            let remedy = format!("set {set} and remove {other}, or change the type");
            found.push(Diagnostic::error(field, message, remedy));
            None
        }
        (other, _, _) => {
            let message = format!("{other:?} is not a type of session persistence");
            found.push(Diagnostic::error(format!("{field}.type"), message, "use Cookie or Header"));
            None
        }
    };
    let settings = carrier.filter(|_| found.is_empty());
    problems.append(&mut found);
    settings.map(|carrier| {
        Arc::new(AffinitySettings { scope, carrier, absolute_timeout, idle_timeout: None, strip: false, keys: None })
    })
}

/// How long clients keep a cookie.
struct Lifetime {
    absolute_timeout: Option<Duration>,
    has_timeout_field: bool,
}

fn cookie_carrier(
    cookie: &SessionCookie,
    same_site: SameSite,
    scope: u64,
    lifetime: &Lifetime,
    field: &str,
    found: &mut Vec<Diagnostic>,
) -> Option<AffinityCarrier> {
    let SessionCookie { name, path, lifetime_type } = cookie;
    let mut problem = |subfield: &str, message: String, remedy: &str| {
        found.push(Diagnostic::error(format!("{field}.cookie.{subfield}"), message, remedy));
    };
    match (&**lifetime_type, lifetime.absolute_timeout) {
        ("Session", _) | ("Permanent", Some(_)) => {}
        // The timeout has a problem of its own.
        ("Permanent", None) if lifetime.has_timeout_field => {}
        ("Permanent", None) => {
            let message = "a Permanent cookie needs absoluteTimeout".to_owned();
            problem("lifetimeType", message, "add absoluteTimeout, or use Session");
        }
        (other, _) => {
            let message = format!("{other:?} is not a lifetime of cookies");
            problem("lifetimeType", message, "use Session or Permanent");
        }
    }
    let name = name.clone().unwrap_or_else(|| format!("portico-{scope:016x}"));
    match (CookieSpec { name: &name, path, max_age: None, same_site }).build() {
        Ok(cookie) => Some(AffinityCarrier::Cookie { cookie, is_permanent: lifetime_type == "Permanent" }),
        Err(problems) => {
            for CookieProblem { part, message, remedy } in problems {
                let subfield = match part {
                    CookiePart::Name => "name",
                    CookiePart::Path => "path",
                };
                problem(subfield, message, remedy);
            }
            None
        }
    }
}

fn header_carrier(header: &SessionHeader, field: &str, found: &mut Vec<Diagnostic>) -> Option<AffinityCarrier> {
    let mut problem = |message: String| {
        let remedy = "use a name of your own, such as x-session";
        found.push(Diagnostic::error(format!("{field}.header.name"), message, remedy));
        None
    };
    let Ok(name) = HeaderName::try_from(&*header.name) else {
        return problem(format!("{:?} is not the name of a header", header.name));
    };
    if let Some(reason) = refusal(&name, WrittenValue::Generated) {
        return problem(format!("header {name} {reason}, so it cannot contain a session"));
    }
    Some(AffinityCarrier::Header(name))
}

/// A hash of the name of the owner, equal in all processes.
fn scope(owner: &str) -> u64 {
    let hash = digest(&SHA256, owner.as_bytes());
    hash.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Sessions are measured in seconds. Rounded up, so that none ends at once.
fn whole_seconds(timeout: Duration) -> Duration {
    Duration::from_secs(timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0))
}
