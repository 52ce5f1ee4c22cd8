//! What becomes of the annotations of an Ingress: the compiler decides, and the table of annotations says what
//! ingress-nginx does with each.

use super::findings::{IngressFindings, field};
use super::snippets;
use super::subject::Subject;
use crate::api::foreign_annotations::classify;
use crate::api::ingress_nginx::{self, AnnotationRisk, OnBadValue, PREFIX, items, prefixes, risk, written_key};
use crate::api::names::IGNORE_GUARDS_ANNOTATION;
use crate::compile::{AnnotationSupport, annotation_support};
use crate::diagnostic::Diagnostic;
use crate::report::migration::{FoundAnnotation, FoundSnippet, MigrationVerdict};

/// All annotations that one of both reads, and the snippets among them.
pub(super) fn evaluate(subject: Subject<'_>, found: &IngressFindings<'_>) -> (Vec<FoundAnnotation>, Vec<FoundSnippet>) {
    let (mut annotations, mut directives) = (Vec::new(), Vec::new());
    for (key, value) in &subject.ingress.meta.annotations {
        // Of several prefixes, one decides.
        let is_read = |name: &&str| written_key(&subject.ingress.meta.annotations, name) == Some(&**key);
        let Some(name) = prefixes().find_map(|prefix| key.strip_prefix(prefix)).filter(is_read) else {
            annotations.extend(of_other_program(found, key, value));
            continue;
        };
        match snippets::place(name).filter(|_| !value.is_empty()) {
            Some((annotation, place)) => {
                let (of_snippet, rows) = snippets::evaluate(subject, found, annotation, place, value);
                annotations.push(of_snippet);
                directives.extend(rows);
            }
            None => annotations.push(of_nginx(subject, found, key, name, value)),
        }
    }
    (annotations, directives)
}

/// An annotation of Kong or of another controller. ingress-nginx reads none, so one that closes the Ingress here is
/// left out, and the others change nothing.
fn of_other_program(found: &IngressFindings<'_>, key: &str, value: &str) -> Option<FoundAnnotation> {
    let error = found.at(&field(key)).find(|problem| problem.is_error())?;
    Some(FoundAnnotation {
        name: key.to_owned(),
        value: value.to_owned(),
        verdict: MigrationVerdict::LeftOut,
        guard: true,
        effect: error.message.clone(),
        remedy: error.remedy.clone(),
        ..FoundAnnotation::default()
    })
}

fn of_nginx(subject: Subject<'_>, found: &IngressFindings<'_>, key: &str, name: &str, value: &str) -> FoundAnnotation {
    let field = field(key);
    let row = FoundAnnotation { name: name.to_owned(), value: value.to_owned(), ..FoundAnnotation::default() };
    let same = |effect: String| FoundAnnotation { effect, is_without_effect: true, ..row.clone() };
    if value.is_empty() {
        return same("an empty value counts as unset".to_owned());
    }
    let problems: Vec<&Diagnostic> = found.at(&field).collect();
    if let Some(error) = problems.iter().find(|problem| problem.is_error()) {
        let verdict = match is_wrong_for_both(name, value) || !is_permitted(subject, name, value) {
            true => MigrationVerdict::Invalid,
            false => MigrationVerdict::LeftOut,
        };
        let guard = verdict == MigrationVerdict::LeftOut && is_guard(name, value);
        let (effect, remedy) = (error.message.clone(), error.remedy.clone());
        return FoundAnnotation { verdict, guard, effect, remedy, ..row };
    }
    if !ingress_nginx::has(name) {
        let effect = match ingress_nginx::removed(name) {
            Some(_) => "only earlier releases of ingress-nginx read it",
            None => "ingress-nginx has no such annotation",
        };
        let remedy = problems.first().map(|problem| problem.remedy.clone()).unwrap_or_default();
        let effect = effect.to_owned();
        return FoundAnnotation { effect, remedy, is_unknown: true, ..row };
    }
    if let Some(object) = found.missing_at(&field) {
        let effect = format!("{object} is not in the input, so that it was not checked");
        return FoundAnnotation { effect, ..row };
    }
    match problems.first() {
        Some(problem) => match why_same(subject, name, value) {
            Some(effect) => FoundAnnotation { remedy: problem.remedy.clone(), ..same(effect.to_owned()) },
            None => {
                let (effect, remedy) = (problem.message.clone(), problem.remedy.clone());
                FoundAnnotation { verdict: MigrationVerdict::LeftOut, effect, remedy, ..row }
            }
        },
        None => match annotation_support(name) {
            AnnotationSupport::Supported => FoundAnnotation { effect: "it is in effect".to_owned(), ..row },
            AnnotationSupport::NotNeeded => same("it configures the inside of nginx".to_owned()),
            AnnotationSupport::Refused | AnnotationSupport::Reported => {
                same("with this value, it changes nothing in ingress-nginx either".to_owned())
            }
        },
    }
}

/// Why an annotation that the compiler warns of has no effect in ingress-nginx either. `None` if it has.
fn why_same(subject: Subject<'_>, name: &str, value: &str) -> Option<&'static str> {
    if ingress_nginx::find(name)?.consequence(value).is_some() {
        return Some(match name {
            "auth-tls-verify-client" => "ingress-nginx ignores the value, too, and requires a certificate",
            _ => "ingress-nginx ignores the value, too",
        });
    }
    if subject.is_canary() && !name.starts_with("canary") {
        let is_of_canary = OF_CANARIES.contains(&name);
        return (!is_of_canary).then_some("that of the main Ingress applies, as in ingress-nginx");
    }
    if let Some((_, needed)) = NEEDS.iter().find(|(dependent, _)| *dependent == name)
        && subject.value_or_key(needed).is_none()
    {
        return Some("it needs another annotation, which is missing, as in ingress-nginx");
    }
    // The compiler reports an error about rules that refuse requests, unless they may be ignored.
    if MODSECURITY.contains(&name) && !subject.ingress.meta.annotations.contains_key(IGNORE_GUARDS_ANNOTATION) {
        return Some("it changes no response: ModSecurity only logs what it finds");
    }
    if annotation_support(name) != AnnotationSupport::Supported {
        return None;
    }
    match name {
        "upstream-hash-by" if !value.contains('$') => Some("all requests have the same hash, as in ingress-nginx"),
        "custom-http-errors" => Some("clients get status 404 in place of these errors, as in ingress-nginx"),
        // What Portico does not support of a valid value has its effect in ingress-nginx: hashes of passwords,
        // expressions, variables, ciphers, and pages that are no URLs.
        "auth-secret"
        | "auth-tls-error-page"
        | "canary-by-header-pattern"
        | "mirror-host"
        | "mirror-target"
        | "proxy-ssl-ciphers"
        | "ssl-ciphers"
        | "upstream-hash-by" => None,
        "server-alias" if items(value).any(|name| !is_host(name)) || subject.shares_host_with_other_namespace() => None,
        "server-alias" => Some("another host or Ingress has the name, as in ingress-nginx"),
        _ => Some("it has no effect in ingress-nginx either"),
    }
}

/// Whether ingress-nginx rejects the Ingress, too.
fn is_wrong_for_both(name: &str, value: &str) -> bool {
    let consequence = ingress_nginx::find(name).and_then(|row| row.consequence(value));
    matches!(consequence, Some(OnBadValue::Reject | OnBadValue::Deny503)) || REFER_TO_OBJECTS.contains(&name)
}

/// Whether the ConfigMap permits an annotation, apart from snippets, about which it has another key, too.
fn is_permitted(subject: Subject<'_>, name: &str, value: &str) -> bool {
    let written = |key: &str| subject.config.get(key).map(|value| value.trim());
    let highest = written("annotations-risk-level").and_then(AnnotationRisk::parse).unwrap_or(AnnotationRisk::High);
    let mut words = items(written("annotation-value-word-blocklist").unwrap_or_default());
    let is_risky = risk(name).is_some_and(|risk| risk > highest && risk != AnnotationRisk::Critical);
    !is_risky && !words.any(|word| value.contains(word))
}

/// Whether an annotation that is not in effect restricts requests.
fn is_guard(name: &str, value: &str) -> bool {
    let is_refused = annotation_support(name) == AnnotationSupport::Refused;
    is_refused || classify(&format!("{PREFIX}{name}"), value).is_some_and(|annotation| annotation.is_guard())
}

fn is_host(name: &str) -> bool {
    let name = name.strip_prefix("*.").or_else(|| name.strip_prefix('.')).unwrap_or(name);
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

/// Annotations that ingress-nginx reads on a canary, and not only on the main Ingress.
const OF_CANARIES: &[&str] =
    &["affinity-canary-behavior", "load-balance", "upstream-hash-by", "upstream-hash-by-subset"];

/// Annotations without an effect in ingress-nginx unless another one is set.
const NEEDS: &[(&str, &str)] = &[
    ("auth-secret", "auth-type"),
    ("auth-tls-error-page", "auth-tls-secret"),
    ("auth-tls-match-cn", "auth-tls-secret"),
    ("auth-tls-pass-certificate-to-upstream", "auth-tls-secret"),
    ("auth-tls-verify-client", "auth-tls-secret"),
    ("auth-tls-verify-depth", "auth-tls-secret"),
    ("canary-by-header-pattern", "canary"),
    ("fastcgi-index", "backend-protocol"),
    ("fastcgi-params-configmap", "backend-protocol"),
    ("limit-rate-after", "limit-rate"),
    ("mirror-host", "mirror-target"),
    ("mirror-request-body", "mirror-target"),
    ("enable-owasp-core-rules", "enable-modsecurity"),
    ("modsecurity-snippet", "enable-modsecurity"),
    ("modsecurity-transaction-id", "enable-modsecurity"),
    ("opentelemetry-operation-name", "enable-opentelemetry"),
    ("opentelemetry-trust-incoming-span", "enable-opentelemetry"),
    ("proxy-redirect-to", "proxy-redirect-from"),
    ("proxy-ssl-ciphers", "proxy-ssl-secret"),
    ("upstream-hash-by-subset", "upstream-hash-by"),
    ("upstream-hash-by-subset-size", "upstream-hash-by"),
];

/// Annotations about ModSecurity. The table of differences says what Portico does.
const MODSECURITY: &[&str] =
    &["enable-modsecurity", "enable-owasp-core-rules", "modsecurity-snippet", "modsecurity-transaction-id"];

/// Annotations whose other errors are about objects that ingress-nginx does not accept either.
const REFER_TO_OBJECTS: &[&str] =
    &["auth-proxy-set-headers", "auth-secret", "custom-headers", "fastcgi-params-configmap", "proxy-ssl-secret"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_tables_exist() {
        let needed = NEEDS.iter().flat_map(|(dependent, needed)| [dependent, needed]);
        for name in OF_CANARIES.iter().chain(MODSECURITY).chain(REFER_TO_OBJECTS).chain(needed) {
            assert!(ingress_nginx::has(name), "{name}");
        }
    }

    #[test]
    fn values_are_wrong_for_both_or_left_out() {
        for (name, value, expected) in [
            ("auth-tls-secret", "a/b", false),
            ("auth-cache-duration", "5x", true),
            ("limit-rps", "ten", true),
            ("backend-protocol", "AUTO_HTTP", false),
            ("fastcgi-params-configmap", "params", true),
            ("auth-secret", "users", true),
        ] {
            assert_eq!(is_wrong_for_both(name, value), expected, "{name}: {value}");
        }
    }
}
