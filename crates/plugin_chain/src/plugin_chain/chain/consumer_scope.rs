//! Whose consumers may use a rule.

use std::borrow::Cow;
use std::sync::Arc;

use http::StatusCode;

use crate::plugin_api::identity::Identity;
use crate::plugin_api::reply::Reply;

/// The namespaces whose consumers and groups count for the requests of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ConsumerScope {
    /// All, as in Kong.
    #[default]
    Cluster,
    /// These.
    Namespaces(Box<[Arc<str>]>),
}

impl ConsumerScope {
    /// The identity without what does not count, see [`ConsumerScope::restrict`].
    pub(super) fn restricted<'i>(&self, identity: &'i Identity) -> Cow<'i, Identity> {
        if self.admits_consumer(identity) && identity.found_consumer_groups.iter().all(|group| self.admits_group(group))
        {
            return Cow::Borrowed(identity);
        }
        let mut identity = identity.clone();
        self.restrict(&mut identity);
        Cow::Owned(identity)
    }

    /// Removes from an identity what does not count: groups that a token names, and all of a consumer that may not use
    /// the rule, so that no session begins for it. Returns whether there was one.
    pub(super) fn restrict(&self, identity: &mut Identity) -> bool {
        if !self.admits_consumer(identity) {
            *identity = Identity::default();
            return true;
        }
        identity.found_consumer_groups.retain(|group| self.admits_group(group));
        false
    }

    /// Whether there is no consumer, or one that may use the rule.
    fn admits_consumer(&self, identity: &Identity) -> bool {
        identity
            .consumer
            .as_ref()
            .is_none_or(|consumer| self.admits(consumer.namespace().map(|namespace| &**namespace)))
    }

    /// Whether a group counts that has this name for plugins.
    fn admits_group(&self, group: &str) -> bool {
        self.admits(group.split_once('/').map(|(namespace, _)| namespace))
    }

    fn admits(&self, namespace: Option<&str>) -> bool {
        match self {
            ConsumerScope::Cluster => true,
            ConsumerScope::Namespaces(admitted) => {
                namespace.is_some_and(|namespace| admitted.iter().any(|admitted| **admitted == *namespace))
            }
        }
    }
}

/// What clients get that are consumers of a namespace outside the scope. The credential is valid, so another one would
/// have to be of another consumer: that is no 401.
pub(super) fn refusal() -> Box<Reply> {
    let message = "The consumer may not use routes of this namespace";
    Reply::negotiated(StatusCode::FORBIDDEN, message, "consumer_of_other_namespace")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_api::VerifiedSubject;
    use crate::plugin_api::consumers::{Consumer, EntityId};

    fn identity(namespace: Option<&str>, groups: &[&str]) -> Identity {
        let consumer = Consumer::new(EntityId::from_text("id"), None, None, Vec::new(), Vec::new());
        let consumer = match namespace {
            Some(namespace) => consumer.of_namespace(namespace.into()),
            None => consumer,
        };
        let found_consumer_groups = groups.iter().copied().map(Arc::from).collect();
        let subject = VerifiedSubject::of_credential(&EntityId::from_text("key"));
        Identity {
            consumer: Some(Arc::new(consumer)),
            subjects: vec![Some(subject)].into(),
            groups: vec!["staff".into()],
            found_consumer_groups,
        }
    }

    #[test]
    fn consumers_and_groups_of_other_namespaces_do_not_count() {
        let all = ["friends/gold", "other/gold", "own/gold"];
        let granted = ConsumerScope::Namespaces(["friends".into(), "own".into()].into());
        let own = ConsumerScope::Namespaces(["own".into()].into());
        for (scope, namespace, is_refused, groups) in [
            (&ConsumerScope::Cluster, Some("other"), false, &all[..]),
            (&ConsumerScope::Cluster, None, false, &all),
            (&granted, Some("own"), false, &["friends/gold", "own/gold"]),
            (&granted, Some("friends"), false, &["friends/gold", "own/gold"]),
            (&granted, Some("other"), true, &[]),
            (&granted, None, true, &[]),
            (&own, Some("friends"), true, &[]),
            (&own, Some("own"), false, &["own/gold"]),
            (&ConsumerScope::Namespaces(Box::default()), Some("own"), true, &[]),
        ] {
            let mut identity = identity(namespace, &all);
            let restricted = scope.restricted(&identity).into_owned();
            assert_eq!(scope.restrict(&mut identity), is_refused, "{scope:?} {namespace:?}");
            assert_eq!(identity.consumer.is_none(), is_refused, "{scope:?} {namespace:?}");
            assert_eq!(restricted.consumer.is_none(), is_refused, "{scope:?} {namespace:?}");
            assert_eq!(restricted.found_consumer_groups, identity.found_consumer_groups, "{scope:?} {namespace:?}");
            let is_known = identity.has_accepted_credential() || !identity.groups.is_empty();
            assert_eq!(is_known, !is_refused, "a session would begin: {scope:?} {namespace:?}");
            let left: Vec<&str> = identity.found_consumer_groups.iter().map(|group| &**group).collect();
            assert_eq!(left, groups, "{scope:?} {namespace:?}");
        }
    }
}
