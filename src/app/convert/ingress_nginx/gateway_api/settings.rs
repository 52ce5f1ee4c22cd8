//! What one Ingress sets for its hosts, if the Gateway API has an equal of all of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::subject::value;
use super::input::{GatewayApiInput, Obstacle};
use crate::api::Object;
use crate::api::ingress_nginx::{PREFIX, flag, integer, size};
use crate::api::networking::Ingress;
use crate::compile::{AnnotationSupport, annotation_support};
use crate::report::migration::MigrationVerdict;

/// The settings of an Ingress, with the defaults of ingress-nginx and of its ConfigMap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConvertedSettings {
    /// Whether a host with TLS redirects plain text.
    pub(super) redirects: bool,
    /// `None` without a limit.
    pub(super) max_body_bytes: Option<u64>,
}

/// What stands in the way of all hosts, and what they have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConfigSettings {
    ssl_redirect: bool,
    body_bytes: u64,
    /// Whether responses over TLS have `Strict-Transport-Security`.
    pub(super) has_strict_transport: bool,
}

/// The settings of the ConfigMap, or the key that stands in the way and why.
pub(super) fn of_config(config: &BTreeMap<String, Arc<str>>) -> Result<ConfigSettings, (String, &'static str)> {
    let mut settings = ConfigSettings { ssl_redirect: true, body_bytes: 1 << 20, has_strict_transport: true };
    for (key, value) in config.iter().filter(|(_, value)| !value.is_empty()) {
        let value = value.trim();
        let read = match key.as_str() {
            "ssl-redirect" => flag(value).map(|redirects| settings.ssl_redirect = redirects),
            "hsts" => flag(value).map(|is_on| settings.has_strict_transport = is_on),
            "proxy-body-size" => size(value).map(|bytes| settings.body_bytes = bytes),
            key if INERT_KEYS.contains(&key) => Some(()),
            _ => return Err((key.clone(), "this key has no equal in the Gateway API")),
        };
        read.ok_or_else(|| (key.clone(), "its value is not valid"))?;
    }
    Ok(settings)
}

/// The settings of an Ingress. What stands in the way is added to the obstacles. `request`: an example.
pub(super) fn of_ingress(
    input: &GatewayApiInput<'_>,
    ingress: &Object<Ingress>,
    request: &str,
    obstacles: &mut Vec<Obstacle>,
) -> Option<ConvertedSettings> {
    let before = obstacles.len();
    let mut add = |field: &str, reason: String, remedy: &str| {
        obstacles.push(Obstacle {
            object: ingress.meta.key.to_string(),
            field: field.to_owned(),
            reason,
            request: request.to_owned(),
            remedy: remedy.to_owned(),
        });
    };
    let object = ingress.meta.key.to_string();
    match input.verdicts.iter().find(|verdict| verdict.object == object).map(|verdict| verdict.verdict) {
        Some(MigrationVerdict::Same) => {}
        verdict => {
            let verdict = verdict.map_or("missing", MigrationVerdict::name);
            add("verdict", format!("its verdict is {verdict}"), "see the reasons of the verdict");
        }
    }
    let config = match of_config(input.config) {
        Ok(config) => Some(config),
        Err((key, reason)) => {
            add(&format!("ConfigMap, {key}"), reason.to_owned(), "remove the key if its default is right");
            None
        }
    };
    for (key, value) in ingress.meta.annotations.iter().filter(|(_, value)| !value.is_empty()) {
        if let Some(reason) = why_not(key, value) {
            add(&format!("metadata.annotations[{key}]"), reason, "keep the Ingress, or remove the annotation");
        }
    }
    if ingress.spec.default_backend.is_some() {
        let reason = "the paths that no rule has would get 404".to_owned();
        add("spec.defaultBackend", reason, "write the path / for the Service into the rule");
    }
    let config = config.filter(|_| obstacles.len() == before)?;
    let body_bytes = value(ingress, "proxy-body-size").and_then(size).unwrap_or(config.body_bytes);
    Some(ConvertedSettings {
        redirects: value(ingress, "ssl-redirect").and_then(flag).unwrap_or(config.ssl_redirect),
        max_body_bytes: (body_bytes > 0).then_some(body_bytes),
    })
}

/// Why an annotation stands in the way. `None` if it does not.
fn why_not(key: &str, value: &str) -> Option<String> {
    let Some(name) = key.strip_prefix(PREFIX) else {
        let is_read = RELATED.iter().any(|part| key.contains(part));
        return is_read.then(|| "it may change or restrict what the Ingress serves".to_owned());
    };
    let default = |seconds| (integer(value) == Some(seconds), "only the default has an equal in the Gateway API");
    let (is_equal, reason) = match name {
        "ssl-redirect" => (flag(value).is_some(), "its value is not valid"),
        "proxy-body-size" => (size(value).is_some(), "its value is not valid"),
        "proxy-connect-timeout" => default(5),
        "proxy-read-timeout" | "proxy-send-timeout" => default(60),
        name => {
            let is_inert = matches!(annotation_support(name), AnnotationSupport::NotNeeded);
            (is_inert, "it has no equal in the Gateway API")
        }
    };
    (!is_equal).then(|| reason.to_owned())
}

/// Keys without an effect on responses that ingress-nginx sends for Ingresses without snippets.
const INERT_KEYS: &[&str] = &[
    "allow-snippet-annotations",
    "annotations-risk-level",
    "max-worker-connections",
    "max-worker-open-files",
    "worker-cpu-affinity",
    "worker-processes",
    "worker-shutdown-timeout",
];

/// Parts of annotations that Portico, or a controller for the same Ingresses, reads.
const RELATED: &[&str] = &["ingress.kubernetes.io/", "konghq.com/", "portico.dev/"];
