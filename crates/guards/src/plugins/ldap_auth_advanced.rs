//! `ldap-auth-advanced`: ldap-auth with the fields and defaults of Kong's plugin of this name, for users that are
//! consumers.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: directory-advanced
//! plugin: ldap-auth-advanced
//! config:
//!   ldap_host: ldap.example.com
//!   ldap_port: 636
//!   ldaps: true
//!   verify_ldap_host: true
//!   bind_dn: cn=portico,dc=example,dc=com
//!   base_dn: dc=example,dc=com
//!   attribute: uid
//!   group_base_dn: ou=groups,dc=example,dc=com
//!   group_name_attribute: cn
//!   groups_required: [staff]
//!   consumer_optional: true
//! configPatches:
//! - path: /ldap_password
//!   valueFrom:
//!     secretKeyRef: {name: directory, key: ldap_password}
//! ```
//!
//! The value in the Secret is a JSON text in quotes.
//!
//! The plugin does what `ldap-auth` does, with the same protection of names and passwords. The difference is in the
//! defaults: a user needs a KongConsumer with the same username or custom id unless
//! `consumer_optional` is true, the groups of each user are read, and only groups below `group_base_dn` whose name
//! begins with `group_name_attribute` count.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use super::ldap_auth::LdapAuth;
use super::ldap_auth::config::{self, ConsumerLookup};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::dumped_fields::{DumpedFields, DumpedValue};
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::{
    AccessOutcome, Assertions, ChangedFields, CredentialLocations, NamedConsumer, Plugin, RequestCx,
};

/// ldap-auth with the settings that the fields of this plugin stand for.
pub(crate) struct LdapAuthAdvanced(LdapAuth);

impl PluginKind for LdapAuthAdvanced {
    const NAME: &'static str = "ldap-auth-advanced";
    const HAS_CREDENTIALS: bool = true;
    const PRIORITY: i32 = LdapAuth::PRIORITY;
    const PHASES: Phases = LdapAuth::PHASES;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] = &[DumpedFields::new(&["anonymous"], DumpedValue::Text(""), "3.4")];
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = AdvancedConfig;
    type Plugin = Self;

    fn build(config: AdvancedConfig, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        if config.consumer_by.is_empty() && !config.consumer_optional {
            let message = "is empty, so no user has a consumer, but config.consumer_optional is false";
            let remedy = "list username, custom_id or both, or set config.consumer_optional";
            return Err(vec![Diagnostic::in_config("consumer_by", message, remedy)]);
        }
        if config.log_search_results {
            let message = "is true, so the names of users and their groups are in the log";
            cx.note(Diagnostic::in_config(
                "log_search_results",
                message,
                "set it to false after the search for errors",
            ));
        }
        LdapAuth::build(config.into_settings(), cx).map(LdapAuthAdvanced)
    }
}

impl Plugin for LdapAuthAdvanced {
    fn named_consumers(&self) -> Vec<NamedConsumer<'_>> {
        self.0.named_consumers()
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        self.0.declare_assertions(assertions);
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        self.0.declare_fields(fields);
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        self.0.credential_locations()
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        self.0.access(cx)
    }
}

/// Authenticates users of an LDAP directory as consumers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdvancedConfig {
    /// The server: a name, an IP address, or a Service such as `ldap` or `ldap.directory`.
    ldap_host: String,
    /// The port of the server. With `ldaps`, servers usually have 636.
    #[serde(default = "config::default_port")]
    #[schemars(range(min = 1))]
    ldap_port: u16,
    /// Connect with TLS. Cannot be combined with `start_tls`.
    #[serde(default)]
    ldaps: bool,
    /// Start TLS after the connection is open. Cannot be combined with `ldaps`.
    #[serde(default)]
    start_tls: bool,
    /// Verify the certificate of the server, and that it is for `ldap_host`. The certificate authorities are those of
    /// the system.
    #[serde(default)]
    verify_ldap_host: bool,
    /// The entry below which users are, such as `ou=users,dc=example,dc=com`.
    base_dn: String,
    /// The attribute that has the username, such as `uid` or `cn`.
    attribute: String,
    /// The entry that searches for the entry of a user, anywhere below `base_dn`, with the password in `ldap_password`.
    /// If unset, the entry of a user is `attribute`, an equals sign and the username, directly below `base_dn`.
    #[serde(default)]
    bind_dn: Option<String>,
    /// The password of `bind_dn`.
    #[serde(default)]
    ldap_password: Option<String>,
    /// How many seconds an accepted login is valid before the directory decides again; 0 for each request. A
    /// rejected login is not stored.
    #[serde(default = "config::default_cache_ttl")]
    cache_ttl: u32,
    /// Remove the header with the username and password before the request is sent to the endpoint.
    #[serde(default)]
    hide_credentials: bool,
    /// How many milliseconds a login may take, including the time to connect. The longest time that takes effect is
    /// one minute.
    #[serde(default = "config::default_timeout")]
    #[schemars(range(min = 1))]
    timeout: u32,
    /// How many milliseconds an idle connection is kept; 0 to close it after a login.
    #[serde(default = "config::default_keepalive")]
    keepalive: u32,
    /// Id or username of the consumer for requests without a valid login. If unset, such requests are rejected.
    #[serde(default)]
    anonymous: Option<String>,
    /// The scheme of the header with the username and password. Browsers and most clients only know `basic`.
    #[serde(default = "config::default_header_type")]
    header_type: String,
    /// The parameter `realm` of the header `WWW-Authenticate` in 401 responses.
    #[serde(default)]
    realm: Option<String>,
    /// How the consumer of a user is found: by the username or the custom id that equals the username in the
    /// directory. The first consumer that is found counts.
    #[serde(default = "default_consumer_by")]
    consumer_by: Vec<ConsumerLookup>,
    /// Accept users without looking for a consumer. Otherwise, a user without a consumer gets 401.
    #[serde(default)]
    consumer_optional: bool,
    /// The entry below which groups count. If unset, that of `base_dn`.
    #[serde(default)]
    group_base_dn: Option<String>,
    /// The attribute that has the name of a group, such as `cn`; it must be the first part of the group's name. If
    /// unset, that of `attribute`.
    #[serde(default)]
    group_name_attribute: Option<String>,
    /// The attribute of a user's entry that has the names of the user's groups. They are the groups of the client for
    /// the plugin acl if the request has no consumer.
    #[serde(default = "default_group_member_attribute")]
    group_member_attribute: String,
    /// Groups that a user must have, or else the request gets 403. One entry is enough; if an entry lists several
    /// groups, separated by spaces, the user must have all of them.
    #[serde(default)]
    groups_required: Vec<String>,
    /// Log the name of the entry of each accepted login, and the values of `group_member_attribute`, to find out why
    /// a group does not count.
    #[serde(default)]
    log_search_results: bool,
}

impl AdvancedConfig {
    /// The same settings as fields of ldap-auth.
    fn into_settings(self) -> config::Config {
        config::Config {
            ldap_host: self.ldap_host,
            ldap_port: self.ldap_port,
            ldaps: self.ldaps,
            start_tls: self.start_tls,
            verify_ldap_host: self.verify_ldap_host,
            cache_ttl: self.cache_ttl,
            hide_credentials: self.hide_credentials,
            timeout: self.timeout,
            keepalive: self.keepalive,
            anonymous: self.anonymous,
            header_type: self.header_type,
            realm: self.realm,
            bind_dn: self.bind_dn,
            ldap_password: self.ldap_password,
            group_member_attribute: Some(self.group_member_attribute),
            group_base_dn: Some(self.group_base_dn.unwrap_or_else(|| self.base_dn.clone())),
            group_name_attribute: Some(self.group_name_attribute.unwrap_or_else(|| self.attribute.clone())),
            groups_required: self.groups_required,
            consumer_by: if self.consumer_optional { Vec::new() } else { self.consumer_by },
            consumer_optional: false,
            logs_search_results: self.log_search_results,
            base_dn: self.base_dn,
            attribute: self.attribute,
        }
    }
}

impl fmt::Debug for AdvancedConfig {
    /// Omits the password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AdvancedConfig").field("ldap_host", &self.ldap_host).finish_non_exhaustive()
    }
}

fn default_consumer_by() -> Vec<ConsumerLookup> {
    vec![ConsumerLookup::Username, ConsumerLookup::CustomId]
}

fn default_group_member_attribute() -> String {
    "memberOf".to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugin_api::RegisteredKind;
    use crate::plugin_chain::testing::{build, notes};

    const KIND: RegisteredKind<LdapAuthAdvanced> = RegisteredKind::NEW;

    fn config(fields: Value) -> Value {
        let mut config = json!({"ldap_host": "ldap.example", "base_dn": "dc=x", "attribute": "cn", "ldaps": true,
            "ldap_port": 636, "verify_ldap_host": true});
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        config
    }

    // docs/kong-compatibility.md, 5.24
    #[test]
    fn unset_fields_follow_from_others() {
        let settings = |fields| {
            let config: AdvancedConfig = serde_json::from_value(config(fields)).unwrap();
            config.into_settings()
        };
        let of_user = settings(json!({}));
        let groups = |settings: &config::Config| {
            let fields = [&settings.group_base_dn, &settings.group_name_attribute, &settings.group_member_attribute];
            fields.map(|field| field.clone().unwrap())
        };
        assert_eq!(groups(&of_user), ["dc=x", "cn", "memberOf"]);
        assert_eq!(of_user.consumer_by, [ConsumerLookup::Username, ConsumerLookup::CustomId]);
        let set = settings(json!({
            "group_base_dn": "ou=g", "group_name_attribute": "name", "group_member_attribute": "m",
            "consumer_optional": true,
        }));
        assert_eq!(groups(&set), ["ou=g", "name", "m"]);
        assert!(set.consumer_by.is_empty(), "no consumer is looked for");
    }

    #[test]
    fn configurations_are_validated() {
        let fields = |result: Vec<Diagnostic>| result.into_iter().map(|found| found.field).collect::<Vec<_>>();
        for (config, field) in [
            (config(json!({"consumer_by": []})), "config.consumer_by"),
            (config(json!({"consumer_by": ["id"]})), "config.consumer_by[0]"),
            (config(json!({"bind_dn": "cn=a"})), "config.ldap_password"),
            (config(json!({"group_base_dn": "groups"})), "config.group_base_dn"),
            (config(json!({"group_name_attribute": "a b"})), "config.group_name_attribute"),
            (config(json!({"groups_required": [" "]})), "config.groups_required[0]"),
            (config(json!({"start_tls": true})), "config.start_tls"),
            (config(json!({"ldap_uri": "x"})), "config.ldap_uri"),
        ] {
            let Err(invalid) = build(&KIND, &config) else { panic!("{config} is accepted") };
            assert_eq!(fields(invalid), [field], "{config}");
        }
        assert_eq!(fields(notes(&KIND, &config(json!({})))), [""; 0]);
        let logging = config(json!({"log_search_results": true, "verify_ldap_host": false}));
        assert_eq!(fields(notes(&KIND, &logging)), ["config.log_search_results", "config.verify_ldap_host"]);
    }
}
