//! `acl`: restricts access to members of groups.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: staff-only
//! plugin: acl
//! config:
//!   allow: [staff]
//! ```
//!
//! Each group membership is a Secret with the name of the group in `group`. It is labeled
//! `konghq.com/credential: acl`, and a KongConsumer lists it in `credentials`. An authentication plugin on the same
//! route must identify the consumer. With `deny`, consumers with a Secret that may be such a one and cannot be read are
//! denied, too: it may name a denied group.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::dumped_fields::{DumpedFields, DumpedValue};
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::{AccessOutcome, Assertions, Identity, Plugin, Reply, RequestCx};
use crate::plugin_kit::authentication::{AUTHENTICATED_GROUPS, CONSUMER_GROUPS, declare_identity, missing_credentials};

/// Allows only members of some groups, or all consumers except members of some groups.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Groups whose members are allowed. Exactly one of `allow` and `deny` must be set.
    allow: Option<Vec<String>>,
    /// Groups whose members are denied.
    deny: Option<Vec<String>>,
    /// Do not send the groups to the endpoint. If false, groups of the consumer are sent in the header
    /// `X-Consumer-Groups`. Groups from an authentication plugin are sent in the header `X-Authenticated-Groups`.
    hide_groups_header: bool,
    /// Use groups from an authentication plugin even if the consumer is known. If false, they are used only if there is
    /// no consumer, or if it is the anonymous one.
    always_use_authenticated_groups: bool,
}

#[derive(Debug)]
pub(crate) struct Acl {
    groups: HashSet<Box<str>, RandomState>,
    is_allow_list: bool,
    hides_groups: bool,
    prefers_authenticated_groups: bool,
}

impl PluginKind for Acl {
    const NAME: &'static str = "acl";
    const HAS_CREDENTIALS: bool = false;
    const JUDGES_CONSUMERS: bool = true;
    const PRIORITY: i32 = 950;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] =
        &[DumpedFields::new(&["include_consumer_groups"], DumpedValue::Flag(false), "3.7")];
    const SCOPES: Scopes = Scopes::NO_CONSUMER;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        // As in Kong, an empty list is the same as none.
        let listed = |groups: Option<Vec<String>>| groups.filter(|groups| !groups.is_empty());
        let (field, groups) = match (listed(config.allow), listed(config.deny)) {
            (Some(allow), None) => ("allow", allow),
            (None, Some(deny)) => ("deny", deny),
            (None, None) => return Err(invalid_config("", "has neither `allow` nor `deny`", "set one of them")),
            (Some(_), Some(_)) => {
                return Err(invalid_config("", "has both `allow` and `deny`", "set only one of them"));
            }
        };
        Ok(Acl {
            groups: groups.into_iter().map(String::into_boxed_str).collect(),
            is_allow_list: field == "allow",
            hides_groups: config.hide_groups_header,
            prefers_authenticated_groups: config.always_use_authenticated_groups,
        })
    }
}

fn invalid_config(path: &str, message: &str, remedy: &str) -> Vec<Diagnostic> {
    vec![Diagnostic::in_config(path, message, remedy)]
}

impl Plugin for Acl {
    fn may_wait(&self) -> bool {
        false
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        declare_identity(assertions);
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        // Those that an earlier plugin has asserted. The endpoint gets them as this one says.
        cx.assert_none(&CONSUMER_GROUPS);
        cx.assert_none(&AUTHENTICATED_GROUPS);
        let Some(membership) = self.membership(cx.identity) else {
            return AccessOutcome::Reply(reject_without_groups(cx.identity));
        };
        let is_member = membership.groups().iter().any(|group| self.groups.contains(&**group));
        let may_be_member = match membership {
            GroupMembership::Consumer(..) => cx.identity.consumer.as_ref().is_some_and(|user| user.has_unknown_acls()),
            GroupMembership::Authenticated(_) => false,
        };
        if may_be_member && !self.is_allow_list {
            let may_follow = cx.consumers.lacks_credentials;
            return AccessOutcome::Reply(if may_follow { missing_credentials() } else { forbidden() });
        }
        if is_member != self.is_allow_list {
            let has_groups = !membership.groups().is_empty();
            return AccessOutcome::Reply(if has_groups { forbidden() } else { reject_without_groups(cx.identity) });
        }
        if !self.hides_groups {
            let (name, value) = match membership {
                // Without groups, the endpoint gets an empty field, as in Kong.
                GroupMembership::Consumer([], _) => (CONSUMER_GROUPS, Some(HeaderValue::from_static(""))),
                GroupMembership::Consumer(_, value) => (CONSUMER_GROUPS, value.cloned()),
                GroupMembership::Authenticated(groups) => {
                    (AUTHENTICATED_GROUPS, HeaderValue::from_bytes(groups.join(", ").as_bytes()).ok())
                }
            };
            if let Some(value) = value {
                cx.assert_field(&name, value);
            }
        }
        AccessOutcome::Continue
    }
}

/// The groups that are compared with the configured ones.
enum GroupMembership<'i> {
    /// Groups of the consumer, as a list and as a header value.
    Consumer(&'i [Arc<str>], Option<&'i HeaderValue>),
    /// Groups that an authentication plugin provided.
    Authenticated(&'i [Arc<str>]),
}

impl<'i> GroupMembership<'i> {
    fn groups(&self) -> &'i [Arc<str>] {
        match self {
            GroupMembership::Consumer(groups, _) | GroupMembership::Authenticated(groups) => groups,
        }
    }
}

impl Acl {
    /// The groups of the client. `None` if there are neither a consumer nor authenticated groups.
    fn membership<'i>(&self, identity: &'i Identity) -> Option<GroupMembership<'i>> {
        let authenticated = Some(&identity.groups[..]).filter(|groups| !groups.is_empty());
        let authenticated = authenticated.map(GroupMembership::Authenticated);
        let Some(consumer) = &identity.consumer else { return authenticated };
        let is_anonymous = !identity.is_authenticated();
        authenticated
            .filter(|_| is_anonymous || self.prefers_authenticated_groups)
            .or(Some(GroupMembership::Consumer(consumer.acls(), consumer.acls_header())))
    }
}

/// The reply to a request without groups: 401 if the client is not authenticated, otherwise 403.
fn reject_without_groups(identity: &Identity) -> Box<Reply> {
    if identity.is_authenticated() {
        return forbidden();
    }
    Reply::negotiated(StatusCode::UNAUTHORIZED, "Unauthorized", "no_groups")
}

fn forbidden() -> Box<Reply> {
    Reply::negotiated(StatusCode::FORBIDDEN, "You cannot consume this service", "blocked_by_group")
}

#[cfg(test)]
mod tests;
