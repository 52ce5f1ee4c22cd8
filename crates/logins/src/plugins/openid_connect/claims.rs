//! What claims decide: whether the request is allowed, and which consumer, credential and groups it has.

use std::sync::Arc;

use serde_json::Value;

use super::config::{Config, ConsumerBy};
use super::tokens::TokenClaims;
use crate::plugin_api::VerifiedSubject;
use crate::plugin_api::consumers::{Consumer, ConsumerDirectory};

/// The claims about one client, from several tokens. The first token that has a claim decides.
#[derive(Debug, Default)]
pub(super) struct ClaimSources(pub(super) Vec<TokenClaims>);

/// The configured decisions about claims.
#[derive(Debug)]
pub(super) struct ClaimRules {
    /// Scopes, audiences, groups and roles.
    requirements: Vec<RequiredValues>,
    forbidden: Box<[Box<str>]>,
    groups: ClaimPath,
    consumer: ClaimPath,
    consumer_by: Box<[ConsumerBy]>,
    consumer_groups: ClaimPath,
    /// The namespace of the groups, if the names in the claim have none.
    groups_namespace: Option<Box<str>>,
    consumer_groups_are_optional: bool,
    credential: ClaimPath,
}

/// The names of nested members. Empty if the field is not set.
type ClaimPath = Box<[Box<str>]>;

/// A list of values that a claim must have.
#[derive(Debug)]
struct RequiredValues {
    name: &'static str,
    path: ClaimPath,
    /// One of these must be satisfied, by all of its words.
    alternatives: Box<[Box<str>]>,
}

impl ClaimSources {
    /// The value at a path.
    pub(super) fn find(&self, path: &[Box<str>]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        self.0.iter().find_map(|claims| {
            rest.iter()
                .try_fold(claims.get(&**first)?, |value, name| value.get(&**name))
                .filter(|value| !value.is_null())
        })
    }

    /// The value of a claim that is not nested.
    pub(super) fn claim(&self, name: &str) -> Option<&Value> {
        self.0.iter().find_map(|claims| claims.get(name).filter(|value| !value.is_null()))
    }

    /// The value of a claim as a text.
    pub(super) fn text(&self, path: &[Box<str>]) -> Option<String> {
        match self.find(path)? {
            Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }
}

impl ClaimRules {
    /// `namespace`: that of the plugin. `None` for a cluster-wide one.
    pub(super) fn new(config: &Config, namespace: Option<&str>) -> Self {
        let requirement = |name, path: &[String], alternatives: &[String]| RequiredValues {
            name,
            path: boxed(path),
            alternatives: boxed(alternatives),
        };
        let requirements = [
            requirement("scopes_required", &config.scopes_claim, &config.scopes_required),
            requirement("audience_required", &config.audience_claim, &config.audience_required),
            requirement("groups_required", &config.groups_claim, &config.groups_required),
            requirement("roles_required", &config.roles_claim, &config.roles_required),
        ];
        ClaimRules {
            requirements: requirements.into_iter().filter(|it| !it.alternatives.is_empty()).collect(),
            forbidden: boxed(&config.claims_forbidden),
            groups: boxed(&config.authenticated_groups_claim),
            consumer: boxed(&config.consumer_claim),
            consumer_by: config.consumer_by.as_slice().into(),
            consumer_groups: boxed(&config.consumer_groups_claim),
            groups_namespace: namespace.map(Box::from),
            consumer_groups_are_optional: config.consumer_groups_optional,
            credential: boxed(&config.credential_claim),
        }
    }

    /// The field of the configuration that does not allow the claims.
    pub(super) fn violated(&self, claims: &ClaimSources) -> Option<&'static str> {
        let has_forbidden =
            self.forbidden.iter().any(|name| claims.0.iter().any(|source| source.contains_key(&**name)));
        if has_forbidden {
            return Some("claims_forbidden");
        }
        if has_elsewhere(&self.groups, claims) {
            return Some("authenticated_groups_claim");
        }
        let lacks_group = || !self.consumer_groups_are_optional && self.consumer_groups(claims).is_empty();
        if !self.consumer_groups.is_empty() && (has_elsewhere(&self.consumer_groups, claims) || lacks_group()) {
            return Some("consumer_groups_claim");
        }
        self.requirements.iter().find(|requirement| !requirement.is_met(claims)).map(|requirement| requirement.name)
    }

    /// Whether requests have consumers.
    pub(super) fn maps_consumers(&self) -> bool {
        !self.consumer.is_empty()
    }

    pub(super) fn consumer<'c>(
        &self,
        claims: &ClaimSources,
        consumers: &'c ConsumerDirectory,
    ) -> Option<&'c Arc<Consumer>> {
        let name = claims.text(&self.consumer)?;
        self.consumer_by.iter().find_map(|by| match by {
            ConsumerBy::Id => consumers.consumers.get(&*name),
            ConsumerBy::Username => consumers.usernames.get(&*name),
            ConsumerBy::CustomId => consumers.custom_ids.get(&*name),
        })
    }

    pub(super) fn credential(&self, claims: &ClaimSources) -> Option<String> {
        claims.text(&self.credential)
    }

    /// The user with these claims, or what `credential_claim` has in place of it, which several users may have.
    /// `issuer`: that of claims which do not name it.
    pub(super) fn subject(&self, claims: &ClaimSources, issuer: impl FnOnce() -> String) -> Option<VerifiedSubject> {
        let text = |name| claims.claim(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let issuer = text("iss").map_or_else(issuer, str::to_owned);
        match (self.credential(claims), text("sub")) {
            (None, user) => VerifiedSubject::issued(&issuer, user?),
            (Some(credential), Some(user)) if credential == user => VerifiedSubject::issued(&issuer, user),
            (Some(credential), Some(user)) => Some(VerifiedSubject::issued(&issuer, &credential)?.acting_for(user)),
            (Some(credential), None) => Some(VerifiedSubject::issued(&issuer, &credential)?.for_an_unknown_user()),
        }
    }

    /// The KongConsumerGroups, with their namespaces. A name that can be none of a group is left out.
    pub(super) fn consumer_groups(&self, claims: &ClaimSources) -> Vec<Arc<str>> {
        let names = claims.find(&self.consumer_groups).map(words).unwrap_or_default();
        let qualified = names.into_iter().filter_map(|name| match (&self.groups_namespace, name.contains('/')) {
            (Some(namespace), false) => Some(format!("{namespace}/{name}").into()),
            (None, true) => Some(name.into()),
            _ => None,
        });
        qualified.collect()
    }

    /// The groups for acl.
    pub(super) fn groups(&self, claims: &ClaimSources) -> Vec<Arc<str>> {
        claims.find(&self.groups).map(|value| words(value).into_iter().map(Arc::from).collect()).unwrap_or_default()
    }
}

impl RequiredValues {
    fn is_met(&self, claims: &ClaimSources) -> bool {
        claims.find(&self.path).is_some_and(|value| satisfies_any(value, &self.alternatives))
    }
}

/// Whether the tokens name the groups only as a claim to fetch elsewhere (OpenID Connect Core, section 5.6.2), as
/// Microsoft Entra does for users with many groups. A list of denied groups would not find them.
fn has_elsewhere(groups: &[Box<str>], claims: &ClaimSources) -> bool {
    let Some(name) = groups.first() else { return false };
    let is_elsewhere = |source: &TokenClaims| {
        source.get("_claim_names").is_some_and(|names| names.get(&**name).is_some())
            || (&**name == "groups" && source.get("hasgroups").is_some_and(states_true))
    };
    claims.0.iter().any(is_elsewhere) && claims.find(groups).is_none()
}

/// Whether a value has all words of one alternative.
pub(super) fn satisfies_any(value: &Value, alternatives: &[Box<str>]) -> bool {
    let found = words(value);
    // An alternative without words would be met by any token.
    let is_met = |alternative: &str| {
        let mut required = alternative.split_ascii_whitespace().peekable();
        required.peek().is_some() && required.all(|word| found.contains(&word))
    };
    alternatives.iter().any(|alternative| is_met(alternative))
}

/// The texts of a list, or the words of a text.
fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => text.split_ascii_whitespace().collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Some versions of Entra's tokens have the text.
fn states_true(value: &Value) -> bool {
    value == &Value::Bool(true) || value.as_str() == Some("true")
}

pub(super) fn boxed(texts: &[String]) -> Box<[Box<str>]> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin_chain::testing::consumer;

    fn sources(values: &[Value]) -> ClaimSources {
        ClaimSources(values.iter().map(|value| value.as_object().unwrap().clone()).collect())
    }

    fn rules(config: Value) -> ClaimRules {
        ClaimRules::new(&serde_json::from_value(config).unwrap(), Some("shop"))
    }

    #[test]
    fn required_values_are_alternatives_of_words() {
        let required = json!({
            "scopes_required": ["read write", "admin"], "roles_claim": ["realm_access", "roles"],
            "roles_required": ["staff"], "claims_forbidden": ["act"],
        });
        let rules = rules(required);
        let roles = json!({"realm_access": {"roles": ["staff"]}});
        for (claims, expected) in [
            (vec![json!({"scope": "write a read"}), roles.clone()], None),
            (vec![json!({"scope": ["admin"]}), roles.clone()], None),
            (vec![json!({"scope": "read"}), roles.clone()], Some("scopes_required")),
            (vec![json!({"scope": "administrator"}), roles.clone()], Some("scopes_required")),
            (vec![json!({"scope": {"admin": true}}), roles.clone()], Some("scopes_required")),
            (vec![json!({}), roles.clone()], Some("scopes_required")),
            (vec![json!({"scope": "admin"})], Some("roles_required")),
            (vec![json!({"scope": "admin", "realm_access": "staff"})], Some("roles_required")),
            (vec![json!({"scope": "admin"}), roles.clone(), json!({"act": null})], Some("claims_forbidden")),
        ] {
            assert_eq!(rules.violated(&sources(&claims)), expected, "{claims:?}");
        }
        let blank = super::tests::rules(json!({"scopes_required": [" "]}));
        assert_eq!(blank.violated(&sources(&[json!({"scope": ""})])), Some("scopes_required"));
    }

    /// The claims are those that Microsoft Entra documents for access tokens and for its limit of groups.
    #[test]
    fn groups_that_are_elsewhere_are_not_taken_as_none() {
        let by_groups = rules(json!({"authenticated_groups_claim": ["groups"], "roles_required": ["Orders.Read"]}));
        let of_entra = |more: Value| {
            let mut claims = json!({"tid": "72f988bf-86f1-41af-91ab-2d7cd011db47", "roles": ["Orders.Read"]});
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            claims
        };
        let overage = of_entra(json!({
            "_claim_names": {"groups": "src1"},
            "_claim_sources": {"src1": {"endpoint": "https://graph.example/getMemberObjects"}},
        }));
        let refused = Some("authenticated_groups_claim");
        for (claims, expected) in [
            (vec![of_entra(json!({"groups": ["a"]}))], None),
            (vec![of_entra(json!({}))], None),
            (vec![overage.clone()], refused),
            (vec![of_entra(json!({})), overage.clone()], refused),
            (vec![overage.clone(), json!({"groups": ["a"]})], None),
            (vec![of_entra(json!({"hasgroups": true}))], refused),
            (vec![of_entra(json!({"hasgroups": "true"}))], refused),
            (vec![of_entra(json!({"hasgroups": false}))], None),
            (vec![of_entra(json!({"_claim_names": {"address": "src1"}}))], None),
        ] {
            assert_eq!(by_groups.violated(&sources(&claims)), expected, "{claims:?}");
        }
        let by_roles = rules(json!({"roles_required": ["Orders.Read"]}));
        assert_eq!(by_roles.violated(&sources(&[overage])), None);
    }

    /// Auth0 requires that claims of its users' own are named by URLs, and its audience is a list.
    #[test]
    fn claims_named_by_urls_are_found() {
        let rules = rules(json!({
            "authenticated_groups_claim": ["https://example.com/roles"],
            "roles_claim": ["https://example.com/roles"], "roles_required": ["editor"],
            "audience_required": ["https://api.example.com"],
        }));
        let of_auth0 = |audience: Value, roles: Value| json!({"iss": "https://shop.eu.auth0.com/", "aud": audience, "https://example.com/roles": roles});
        let audiences = json!(["https://api.example.com", "https://shop.eu.auth0.com/userinfo"]);
        let claims = sources(&[of_auth0(audiences.clone(), json!(["editor", "author"]))]);
        assert_eq!(rules.violated(&claims), None);
        assert_eq!(rules.groups(&claims).iter().map(|group| &**group).collect::<Vec<_>>(), ["editor", "author"]);
        let claims = sources(&[of_auth0(audiences, json!(["author"]))]);
        assert_eq!(rules.violated(&claims), Some("roles_required"));
        let claims = sources(&[of_auth0(json!("https://shop.eu.auth0.com/userinfo"), json!(["editor"]))]);
        assert_eq!(rules.violated(&claims), Some("audience_required"));
    }

    #[test]
    fn consumer_groups_are_those_of_the_namespace() {
        let config = json!({"consumer_groups_claim": ["realm", "tiers"]});
        let of_shop = rules(config.clone());
        let of_cluster = ClaimRules::new(&serde_json::from_value(config).unwrap(), None);
        let optional = rules(json!({"consumer_groups_claim": ["tiers"], "consumer_groups_optional": true}));
        for (tiers, in_shop, in_cluster) in [
            (json!(["gold", "other/gold"]), &["shop/gold"][..], &["other/gold"][..]),
            (json!("gold silver"), &["shop/gold", "shop/silver"], &[]),
            (json!([5, {}]), &[], &[]),
        ] {
            let claims = sources(&[json!({"realm": {"tiers": tiers}})]);
            for (rules, expected) in [(&of_shop, in_shop), (&of_cluster, in_cluster)] {
                let groups = rules.consumer_groups(&claims);
                assert_eq!(groups.iter().map(|group| &**group).collect::<Vec<_>>(), expected, "{tiers}");
                let violated = expected.is_empty().then_some("consumer_groups_claim");
                assert_eq!(rules.violated(&claims), violated, "{tiers}");
            }
            assert_eq!(optional.violated(&claims), None);
        }
        let elsewhere = json!({"_claim_names": {"tiers": "src1"}});
        assert_eq!(optional.violated(&sources(&[elsewhere])), Some("consumer_groups_claim"));
        assert_eq!(rules(json!({})).violated(&sources(&[json!({})])), None);
    }

    #[test]
    fn claims_select_consumers_and_groups() {
        let mut consumers = ConsumerDirectory::default();
        consumers.add(&consumer("anna", &[]));
        let by_default = rules(json!({"consumer_claim": ["user", "name"], "authenticated_groups_claim": ["g"]}));
        let by_id = rules(json!({"consumer_claim": ["user", "name"], "consumer_by": ["id"]}));
        for (name, found, found_by_id) in [
            (json!("anna"), true, false),
            (json!("custom-anna"), true, false),
            (json!("id-anna"), false, true),
            (json!(["anna"]), false, false),
            (json!(""), false, false),
        ] {
            let claims = sources(&[json!({}), json!({"user": {"name": name}, "g": ["a", 5, "b"], "sub": 7})]);
            assert_eq!(by_default.consumer(&claims, &consumers).is_some(), found, "{name}");
            assert_eq!(by_id.consumer(&claims, &consumers).is_some(), found_by_id, "{name}");
            assert_eq!(by_default.groups(&claims).iter().map(|group| &**group).collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(by_default.credential(&claims).as_deref(), Some("7"));
        }
    }
}
