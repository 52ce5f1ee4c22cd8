//! `acl`: groups that may or may not come here.
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
//! Groups are Secrets labeled `konghq.com/credential: acl`, which a KongConsumer lists. An authentication plugin on the same
//! route says who is asking.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugin::authentication::{AUTHENTICATED_GROUPS, CONSUMER_GROUPS, remove_lookalikes};
use crate::plugin::kind::{BuildCx, Invalid, Kind, Phases, Scopes};
use crate::plugin::{Identity, Outcome, Plugin, Reply, RequestCx};

/// Lets in the members of some groups, or everybody but them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Groups whose members are let in. Exactly one of `allow` and `deny` must be set.
    allow: Option<Vec<String>>,
    /// Groups whose members are not let in.
    deny: Option<Vec<String>>,
    /// Whether the endpoint is not told the groups. Otherwise they stand in `X-Consumer-Groups`, or in
    /// `X-Authenticated-Groups` if an authentication plugin vouched for them.
    hide_groups_header: bool,
    /// Whether groups that an authentication plugin vouched for count even if the consumer is known. Otherwise they count
    /// only if there is no consumer, or an anonymous one.
    always_use_authenticated_groups: bool,
}

#[derive(Debug)]
pub(crate) struct Acl {
    groups: HashSet<Box<str>, RandomState>,
    lets_members_in: bool,
    hides_groups: bool,
    prefers_authenticated: bool,
}

impl Kind for Acl {
    const NAME: &'static str = "acl";
    const PRIORITY: i32 = 950;
    const PHASES: Phases = Phases::ACCESS;
    const GUARD: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
        let (field, groups) = match (config.allow, config.deny) {
            (Some(allow), None) => ("allow", allow),
            (None, Some(deny)) => ("deny", deny),
            (None, None) => return Err(refused("", "names no groups", "set `allow` or `deny`")),
            (Some(_), Some(_)) => return Err(refused("", "has both `allow` and `deny`", "set one of them")),
        };
        if groups.is_empty() {
            return Err(refused(field, "is empty", "name at least one group"));
        }
        Ok(Acl {
            groups: groups.into_iter().map(String::into_boxed_str).collect(),
            lets_members_in: field == "allow",
            hides_groups: config.hide_groups_header,
            prefers_authenticated: config.always_use_authenticated_groups,
        })
    }
}

fn refused(path: &str, message: &str, remedy: &str) -> Vec<Invalid> {
    vec![Invalid::new(path, message, remedy)]
}

impl Plugin for Acl {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
        // The endpoint takes these for ours, so what a client writes there must not pass.
        cx.head.headers.remove(CONSUMER_GROUPS);
        cx.head.headers.remove(AUTHENTICATED_GROUPS);
        remove_lookalikes(&mut cx.head.headers);
        let Some(membership) = self.membership(cx.identity) else {
            return Outcome::Reply(stranger(cx.identity));
        };
        let is_member = membership.groups().iter().any(|group| self.groups.contains(&**group));
        if is_member != self.lets_members_in {
            let without_groups = membership.groups().is_empty();
            return Outcome::Reply(if without_groups { stranger(cx.identity) } else { blocked() });
        }
        if !self.hides_groups {
            let (name, value) = match membership {
                Membership::Consumer(_, value) => (CONSUMER_GROUPS, value.cloned()),
                Membership::Authenticated(groups) => {
                    (AUTHENTICATED_GROUPS, HeaderValue::from_bytes(groups.join(", ").as_bytes()).ok())
                }
            };
            if let Some(value) = value {
                cx.head.headers.insert(name, value);
            }
        }
        Outcome::Next
    }
}

/// The groups that count.
enum Membership<'i> {
    /// Of the consumer, and as a header.
    Consumer(&'i [Arc<str>], Option<&'i HeaderValue>),
    Authenticated(&'i [Arc<str>]),
}

impl<'i> Membership<'i> {
    fn groups(&self) -> &'i [Arc<str>] {
        match self {
            Membership::Consumer(groups, _) | Membership::Authenticated(groups) => groups,
        }
    }
}

impl Acl {
    /// None if nobody is known who could be a member.
    fn membership<'i>(&self, identity: &'i Identity) -> Option<Membership<'i>> {
        let authenticated = Some(&identity.groups[..]).filter(|groups| !groups.is_empty());
        let authenticated = authenticated.map(Membership::Authenticated);
        let Some(consumer) = &identity.consumer else { return authenticated };
        let is_anonymous = identity.credential.is_none();
        authenticated
            .filter(|_| is_anonymous || self.prefers_authenticated)
            .or(Some(Membership::Consumer(consumer.acls(), consumer.acls_header())))
    }
}

/// Somebody without groups: told to log in, unless that has happened already.
fn stranger(identity: &Identity) -> Box<Reply> {
    if identity.credential.is_some() {
        return blocked();
    }
    Reply::negotiated(StatusCode::UNAUTHORIZED, "Unauthorized", "no_groups")
}

fn blocked() -> Box<Reply> {
    Reply::negotiated(StatusCode::FORBIDDEN, "You cannot consume this service", "blocked_by_group")
}

#[cfg(test)]
mod tests;
