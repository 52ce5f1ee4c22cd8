//! The fields of the plugin, and what is wrong with them.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connection::DirectoryServer;
use super::directory::DirectoryQuery;
use super::names::{GroupNames, parse_name};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::remote::MAX_REMOTE_TIMEOUT;
use crate::plugin_api::{Remote, RemoteTls};

/// Authenticates users of an LDAP directory.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The server: a name, an IP address, or a Service such as `ldap` or `ldap.directory`.
    pub(in crate::plugins) ldap_host: String,
    /// The port of the server. With `ldaps`, servers usually have 636.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1))]
    pub(in crate::plugins) ldap_port: u16,
    /// Connect with TLS. Cannot be combined with `start_tls`.
    #[serde(default)]
    pub(in crate::plugins) ldaps: bool,
    /// Start TLS after the connection is open. Cannot be combined with `ldaps`.
    #[serde(default)]
    pub(in crate::plugins) start_tls: bool,
    /// Verify the certificate of the server, and that it is for `ldap_host`. The certificate authorities are those of
    /// the system.
    #[serde(default)]
    pub(in crate::plugins) verify_ldap_host: bool,
    /// The entry below which users are, such as `ou=users,dc=example,dc=com`.
    pub(in crate::plugins) base_dn: String,
    /// The attribute that has the username, such as `uid` or `cn`.
    pub(in crate::plugins) attribute: String,
    /// How many seconds an accepted login is valid before the directory decides again; 0 for each request. A
    /// rejected login is not stored.
    #[serde(default = "default_cache_ttl")]
    pub(in crate::plugins) cache_ttl: u32,
    /// Remove the header with the username and password before the request is sent to the endpoint.
    #[serde(default)]
    pub(in crate::plugins) hide_credentials: bool,
    /// How many milliseconds a login may take, including the time to connect. The longest time that takes effect is
    /// one minute.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1))]
    pub(in crate::plugins) timeout: u32,
    /// How many milliseconds an idle connection is kept; 0 to close it after a login.
    #[serde(default = "default_keepalive")]
    pub(in crate::plugins) keepalive: u32,
    /// Id or username of the consumer for requests without a valid login. If unset, such requests are rejected.
    #[serde(default)]
    pub(in crate::plugins) anonymous: Option<String>,
    /// The scheme of the header with the username and password. Browsers and most clients only know `basic`.
    #[serde(default = "default_header_type")]
    pub(in crate::plugins) header_type: String,
    /// The parameter `realm` of the header `WWW-Authenticate` in 401 responses.
    #[serde(default)]
    pub(in crate::plugins) realm: Option<String>,
    /// The entry that searches for the entry of a user, anywhere below `base_dn`, with the password in `ldap_password`.
    /// If unset, the entry of a user is `attribute`, an equals sign and the username, directly below `base_dn`.
    #[serde(default)]
    pub(in crate::plugins) bind_dn: Option<String>,
    /// The password of `bind_dn`.
    #[serde(default)]
    pub(in crate::plugins) ldap_password: Option<String>,
    /// The attribute of a user's entry that has the names of the user's groups. If this or another field about groups
    /// is set, the groups are read; its default is then `memberOf`. They are the groups of the client for the plugin
    /// acl if the request has no consumer.
    #[serde(default)]
    pub(in crate::plugins) group_member_attribute: Option<String>,
    /// The entry below which groups count. If unset, all of them.
    #[serde(default)]
    pub(in crate::plugins) group_base_dn: Option<String>,
    /// The attribute that has the name of a group, such as `cn`; it must be the first part of the group's name. If
    /// unset, whichever attribute that is.
    #[serde(default)]
    pub(in crate::plugins) group_name_attribute: Option<String>,
    /// Groups that a user must have, or else the request gets 403. One entry is enough; if an entry lists several
    /// groups, separated by spaces, the user must have all of them.
    #[serde(default)]
    pub(in crate::plugins) groups_required: Vec<String>,
    /// How the consumer of a user is found: by the username or the custom id that equals the username in the
    /// directory. If empty, requests have no consumer.
    #[serde(default)]
    pub(in crate::plugins) consumer_by: Vec<ConsumerLookup>,
    /// Accept users without a consumer, if `consumer_by` is set.
    #[serde(default)]
    pub(in crate::plugins) consumer_optional: bool,
    /// Only `ldap-auth-advanced` has this field.
    #[serde(skip)]
    pub(in crate::plugins) logs_search_results: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ConsumerLookup {
    Username,
    CustomId,
}

pub(in crate::plugins) fn default_port() -> u16 {
    389
}

pub(in crate::plugins) fn default_cache_ttl() -> u32 {
    60
}

pub(in crate::plugins) fn default_timeout() -> u32 {
    10_000
}

pub(in crate::plugins) fn default_keepalive() -> u32 {
    60_000
}

pub(in crate::plugins) fn default_header_type() -> String {
    "ldap".to_owned()
}

impl fmt::Debug for Config {
    /// Omits the password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Config").field("ldap_host", &self.ldap_host).finish_non_exhaustive()
    }
}

impl Config {
    /// The server, with notes about what others can read or pretend.
    pub(super) fn server(&self, cx: &BuildCx<'_>) -> Result<DirectoryServer, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        if self.ldap_host.is_empty() {
            let remedy = "set it to the name of the server, for example ldap.example.com";
            invalid.push(Diagnostic::in_config("ldap_host", "is empty", remedy));
        }
        invalid.extend(cx.check_host("ldap_host", &self.ldap_host).filter(|_| !self.ldap_host.is_empty()));
        if self.ldap_port == 0 {
            invalid.push(Diagnostic::in_config("ldap_port", "is 0", "set it to the port of the server, such as 389"));
        }
        if self.ldaps && self.start_tls {
            let message = "cannot be combined with config.ldaps, which starts TLS before";
            invalid.push(Diagnostic::in_config("start_tls", message, "set only one of both"));
        }
        if self.timeout == 0 {
            let remedy = "set it to a number of milliseconds, for example 10000";
            invalid.push(Diagnostic::in_config("timeout", "is 0, so no login can succeed", remedy));
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let has_tls = self.ldaps || self.start_tls;
        if !has_tls {
            let message = "and config.start_tls are false, so passwords are sent to the directory in plain text";
            cx.note(Diagnostic::in_config("ldaps", message, "set one of both, unless the network is trusted"));
        } else if !self.verify_ldap_host {
            let message = "is false, so any server can pretend to be the directory and read passwords";
            cx.note(Diagnostic::in_config("verify_ldap_host", message, "set it, unless the network is trusted"));
        }
        if self.ldaps && self.ldap_port == default_port() {
            let message = "is 389, where servers usually expect connections without TLS";
            cx.note(Diagnostic::in_config("ldap_port", message, "set it to 636, unless this is intended"));
        }
        let tls = has_tls.then_some(RemoteTls { server_name: None, verify: self.verify_ldap_host, files: None });
        let remote = Remote {
            host: self.ldap_host.clone(),
            port: self.ldap_port,
            namespace: cx.namespace().map(str::to_owned),
            tls,
            timeout: cx.limited_duration("timeout", self.timeout, MAX_REMOTE_TIMEOUT),
        };
        Ok(DirectoryServer { remote, starts_tls: self.start_tls })
    }

    pub(super) fn query(&self) -> Result<DirectoryQuery, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let is_name = |name: &str| parse_name(name).is_some_and(|parts| !parts.is_empty());
        let mut check_name = |field: &str, name: &str| {
            if !is_name(name) {
                let remedy = "write it as in ou=users,dc=example,dc=com";
                invalid.push(Diagnostic::in_config(field, "is not a distinguished name", remedy));
            }
        };
        check_name("base_dn", &self.base_dn);
        for (field, name) in [("bind_dn", &self.bind_dn), ("group_base_dn", &self.group_base_dn)] {
            if let Some(name) = name {
                check_name(field, name);
            }
        }
        let attributes = [
            ("attribute", Some(&self.attribute)),
            ("group_member_attribute", self.group_member_attribute.as_ref()),
            ("group_name_attribute", self.group_name_attribute.as_ref()),
        ];
        for (field, attribute) in attributes {
            let is_attribute = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
            let is_valid = |name: &String| !name.is_empty() && name.bytes().all(is_attribute);
            if attribute.is_some_and(|name| !is_valid(name)) {
                let remedy = "use letters, digits, `-` and `.` only, as in uid";
                invalid.push(Diagnostic::in_config(field, "is not the name of an attribute", remedy));
            }
        }
        match (&self.bind_dn, self.ldap_password.as_deref()) {
            (Some(_), None | Some("")) => {
                // A server takes a login without a password for an anonymous one.
                let remedy = "set it to the password of the entry in config.bind_dn";
                invalid.push(Diagnostic::in_config("ldap_password", "is required with config.bind_dn", remedy));
            }
            (None, Some(_)) => {
                let remedy = "set config.bind_dn, or remove the password";
                invalid.push(Diagnostic::in_config("ldap_password", "has no effect without config.bind_dn", remedy));
            }
            _ => {}
        }
        for (index, groups) in self.groups_required.iter().enumerate() {
            if groups.split_whitespace().next().is_none() {
                let field = format!("groups_required[{index}]");
                invalid.push(Diagnostic::in_config(field, "is empty, so every user has it", "name at least one group"));
            }
        }
        let names = GroupNames::new(self.group_base_dn.as_deref(), self.group_name_attribute.as_deref());
        let Some(names) = names.filter(|_| invalid.is_empty()) else { return Err(invalid) };
        let member_attribute = || self.group_member_attribute.as_deref().unwrap_or("memberOf").to_owned();
        Ok(DirectoryQuery {
            attribute: self.attribute.clone(),
            base: self.base_dn.clone(),
            searcher: self.bind_dn.clone().zip(self.ldap_password.clone().map(String::into_bytes)),
            logs_results: self.logs_search_results,
            groups: self.reads_groups().then(|| (member_attribute(), names)),
        })
    }

    fn reads_groups(&self) -> bool {
        let fields = [&self.group_member_attribute, &self.group_base_dn, &self.group_name_attribute];
        !self.groups_required.is_empty() || fields.into_iter().any(Option::is_some)
    }

    /// The groups of each entry of `groups_required`.
    pub(super) fn required_groups(&self) -> Box<[Box<[Box<str>]>]> {
        self.groups_required.iter().map(|groups| groups.split_whitespace().map(Box::from).collect()).collect()
    }

    pub(super) fn cache_lifetime(&self) -> Duration {
        Duration::from_secs(self.cache_ttl.into())
    }

    pub(super) fn keepalive(&self) -> Duration {
        Duration::from_millis(self.keepalive.into())
    }
}
