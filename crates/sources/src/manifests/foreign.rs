//! What files say about objects that other programs read or write: policies of other gateways, webhooks, and what
//! controllers of a cluster write because of an object.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::api::{Kind, ObjectId, ObjectKey};

/// A policy of another gateway. No cluster tells Portico of it, since its kind is not watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignPolicy {
    /// Its API group.
    pub group: String,
    /// Its kind and name: `SecurityPolicy default/jwt`.
    pub name: String,
    /// The objects that it is about, of kinds that Portico reads.
    pub targets: Vec<ObjectId>,
    /// The field that restricts requests, or `kind` if the kind does.
    pub restriction: Option<String>,
}

impl ForeignPolicy {
    /// Reads an object of another group. `None` if it has no targets that Portico reads.
    pub(super) fn read(object: &Value) -> Option<Self> {
        let (group, _) = object["apiVersion"].as_str()?.split_once('/')?;
        let kind = object["kind"].as_str()?;
        let namespace = namespace(object);
        let spec = object.get("spec")?;
        let listed = spec.get("targetRefs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let references = listed.iter().chain(spec.get("targetRef"));
        let targets: Vec<ObjectId> = references
            .filter_map(|reference| {
                let target = Kind::find(text(reference, "group").unwrap_or_default(), text(reference, "kind")?)?;
                let namespace = text(reference, "namespace").unwrap_or(namespace);
                let key = match target.namespaced() {
                    true => ObjectKey::new(namespace, text(reference, "name")?),
                    false => ObjectKey::cluster(text(reference, "name")?),
                };
                Some(ObjectId::new(target, key))
            })
            .collect();
        if targets.is_empty() {
            return None;
        }
        let restriction = if restricts(kind) { Some("kind".to_owned()) } else { restricting_field(spec, "spec", 0) };
        let name = format!("{kind} {namespace}/{}", object["metadata"]["name"].as_str().unwrap_or_default());
        Some(ForeignPolicy { group: group.to_owned(), name, targets, restriction })
    }
}

/// Whether a kind or a field has a name of what restricts requests. In doubt it has, because what it protected would
/// be open otherwise.
fn restricts(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    WHOLE_RESTRICTIONS.contains(&&*name)
        || name.starts_with("waf")
        || RESTRICTIONS.iter().any(|word| name.contains(word))
}

/// The path of the first field that restricts requests.
fn restricting_field(value: &Value, path: &str, level: usize) -> Option<String> {
    if level >= MAX_LEVELS {
        return None;
    }
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, field)| {
            let path = format!("{path}.{name}");
            if restricts(name) { Some(path) } else { restricting_field(field, &path, level + 1) }
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| restricting_field(item, &format!("{path}[{index}]"), level + 1)),
        _ => None,
    }
}

/// Adds what controllers of a cluster write because of an object: Secrets, and as a Service, the endpoints of one.
pub(super) fn add_written_later(object: &Value, written: &mut BTreeSet<ObjectId>) {
    let Some(kind) = object["kind"].as_str() else { return };
    let group =
        object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
    let namespace = namespace(object);
    let mut add = |kind, name: Option<&str>| {
        if let Some(name) = name {
            written.insert(ObjectId::new(kind, ObjectKey::new(namespace, name)));
        }
    };
    let (spec, name) = (&object["spec"], object["metadata"]["name"].as_str());
    match (group, kind) {
        ("", "Service") => {
            let has_selector = spec["selector"].as_object().is_some_and(|labels| !labels.is_empty());
            add(Kind::Service, name.filter(|_| has_selector));
        }
        ("networking.k8s.io", "Ingress") | ("gateway.networking.k8s.io", "Gateway" | "ListenerSet") => {
            let annotations = object["metadata"]["annotations"].as_object();
            if !annotations.is_some_and(|annotations| annotations.keys().any(|key| ISSUES.contains(&&**key))) {
                return;
            }
            for tls in spec["tls"].as_array().into_iter().flatten() {
                add(Kind::Secret, tls["secretName"].as_str());
            }
            for listener in spec["listeners"].as_array().into_iter().flatten() {
                for reference in listener["tls"]["certificateRefs"].as_array().into_iter().flatten() {
                    add(Kind::Secret, reference["name"].as_str().filter(|_| reference["namespace"].is_null()));
                }
            }
        }
        ("cert-manager.io", "Certificate") => add(Kind::Secret, spec["secretName"].as_str()),
        ("external-secrets.io", "ExternalSecret") => {
            add(Kind::Secret, spec["target"]["name"].as_str().or(name));
        }
        ("bitnami.com", "SealedSecret") => {
            add(Kind::Secret, spec["template"]["metadata"]["name"].as_str().or(name));
        }
        ("secrets.hashicorp.com", "VaultStaticSecret" | "VaultDynamicSecret" | "VaultPKISecret") => {
            add(Kind::Secret, spec["destination"]["name"].as_str());
        }
        ("secrets-store.csi.x-k8s.io", "SecretProviderClass") => {
            for secret in spec["secretObjects"].as_array().into_iter().flatten() {
                add(Kind::Secret, secret["secretName"].as_str());
            }
        }
        _ => {}
    }
}

/// The name of a ValidatingWebhookConfiguration. One whose program is removed lets the API server reject changes.
pub(super) fn validating_webhook(object: &Value) -> Option<&str> {
    let is_of_group = text(object, "apiVersion")?.starts_with("admissionregistration.k8s.io/");
    let is_webhook = is_of_group && text(object, "kind")? == "ValidatingWebhookConfiguration";
    text(&object["metadata"], "name").filter(|_| is_webhook)
}

fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().filter(|namespace| !namespace.is_empty()).unwrap_or("default")
}

fn text<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    value.get(field)?.as_str()
}

/// Annotations with which cert-manager writes the Secrets of an object.
const ISSUES: [&str; 3] = ["cert-manager.io/cluster-issuer", "cert-manager.io/issuer", "kubernetes.io/tls-acme"];

/// Parts of names of kinds and fields, in lower case.
const RESTRICTIONS: [&str; 21] = [
    "acl",
    "allow",
    "apikey",
    "authentication",
    "authn",
    "authorization",
    "authpolicy",
    "authz",
    "basicauth",
    "block",
    "clientvalidation",
    "csrf",
    "deny",
    "extauth",
    "extension",
    "jwt",
    "oauth",
    "oidc",
    "ratelimit",
    "rbac",
    "security",
];

/// Whole names, in lower case, that are parts of names of other things.
const WHOLE_RESTRICTIONS: [&str; 6] = ["auth", "envoypatchpolicy", "iap", "snippets", "snippetspolicy", "waf"];

/// More levels than policies have above the field that says what they do.
const MAX_LEVELS: usize = 5;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_name_their_targets_and_what_they_restrict() {
        let route = json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r"});
        let read = |kind: &str, spec: Value| {
            let metadata = json!({"name": "p", "namespace": "n"});
            ForeignPolicy::read(
                &json!({"apiVersion": "a.example/v1", "kind": kind, "metadata": metadata, "spec": spec}),
            )
        };
        for (kind, spec, expected) in [
            ("SecurityPolicy", json!({"targetRefs": [route], "cors": {}}), Some(Some("kind"))),
            ("WAFPolicy", json!({"targetRef": route}), Some(Some("kind"))),
            ("RateLimitPolicy", json!({"targetRef": route}), Some(Some("kind"))),
            (
                "TrafficPolicy",
                json!({"targetRefs": [route], "traffic": {"jwtAuthentication": {}}}),
                Some(Some("spec.traffic.jwtAuthentication")),
            ),
            ("TrafficPolicy", json!({"targetRefs": [route], "timeout": "5s"}), Some(None)),
            ("TrafficPolicy", json!({"targetRefs": [{"group": "x", "kind": "Y", "name": "r"}]}), None),
            ("Widget", json!({"size": 1}), None),
        ] {
            let found = read(kind, spec.clone());
            let found = found.as_ref().map(|policy| policy.restriction.as_deref());
            assert_eq!(found, expected, "{kind} {spec}");
        }
        let policy = read("SecurityPolicy", json!({"targetRefs": [route]})).unwrap();
        assert_eq!((&*policy.name, &*policy.group), ("SecurityPolicy n/p", "a.example"));
        assert_eq!(policy.targets, [ObjectId::new(Kind::HttpRoute, ObjectKey::new("n", "r"))]);
    }

    #[test]
    fn what_controllers_write_is_known() {
        let found = |api_version: &str, kind: &str, annotations: Value, spec: Value| {
            let metadata = json!({"name": "a", "annotations": annotations});
            let mut written = BTreeSet::new();
            let object = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec});
            add_written_later(&object, &mut written);
            written.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let issued = json!({"cert-manager.io/cluster-issuer": "x"});
        let tls = json!({"tls": [{"secretName": "s"}]});
        for (version, kind, annotations, spec, expected) in [
            ("v1", "Service", json!({}), json!({"selector": {"app": "a"}}), Some("Service default/a")),
            ("v1", "Service", json!({}), json!({"selector": {}}), None),
            ("networking.k8s.io/v1", "Ingress", issued.clone(), tls.clone(), Some("Secret default/s")),
            ("networking.k8s.io/v1", "Ingress", json!({}), tls, None),
            (
                "gateway.networking.k8s.io/v1",
                "Gateway",
                issued,
                json!({"listeners": [{"tls": {"certificateRefs": [{"name": "g"}]}}]}),
                Some("Secret default/g"),
            ),
            ("cert-manager.io/v1", "Certificate", json!({}), json!({"secretName": "c"}), Some("Secret default/c")),
            ("external-secrets.io/v1", "ExternalSecret", json!({}), json!({}), Some("Secret default/a")),
            ("bitnami.com/v1alpha1", "SealedSecret", json!({}), json!({}), Some("Secret default/a")),
            ("v1", "Secret", json!({}), json!({}), None),
        ] {
            let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(found(version, kind, annotations, spec.clone()), expected, "{kind} {spec}");
        }
    }
}
