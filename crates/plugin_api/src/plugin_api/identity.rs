//! What authentication plugins have established about the client of a request.

use std::sync::Arc;

use super::consumers::{Consumer, EntityId};
use super::subjects::{VerifiedSubject, VerifiedSubjects};

/// The authenticated identity of a request.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    pub consumer: Option<Arc<Consumer>>,
    /// The subjects that authentication plugins have verified. None for anonymous consumers.
    pub subjects: VerifiedSubjects,
    /// Groups of the client that an authentication plugin determines independently of the consumer.
    pub groups: Vec<Arc<str>>,
    /// The KongConsumerGroups of the consumer and those that an authentication plugin has found, sorted. Empty if it
    /// has found none.
    pub found_consumer_groups: Vec<Arc<str>>,
}

impl Identity {
    /// Whether a plugin has accepted a credential, or has let the client through, such as the server of forward-auth
    /// does without a name.
    pub fn is_authenticated(&self) -> bool {
        !self.subjects.is_empty()
    }

    /// Whether a plugin has accepted a credential. Only then is the client not anonymous: later plugins need no other
    /// credential, and a session may begin.
    pub fn has_accepted_credential(&self) -> bool {
        self.subjects.has_accepted()
    }

    /// The id of the credential that was used, by which requests are counted. `None` for anonymous consumers, and if
    /// the credential has no subject, so that many clients may have it.
    pub fn credential(&self) -> Option<&EntityId> {
        self.subjects.last().map(VerifiedSubject::credential)
    }

    /// The names of the KongConsumerGroups whose plugins run, sorted.
    pub fn consumer_groups(&self) -> &[Arc<str>] {
        match &*self.found_consumer_groups {
            [] => self.consumer.as_ref().map_or(&[], |consumer| consumer.groups()),
            found => found,
        }
    }

    /// Adds KongConsumerGroups to those of the consumer. The next plugin that accepts a credential replaces them.
    pub fn add_consumer_groups(&mut self, mut names: Vec<Arc<str>>) {
        if names.is_empty() {
            return;
        }
        names.extend_from_slice(self.consumer_groups());
        names.sort();
        names.dedup();
        self.found_consumer_groups = names;
    }

    /// Whether a consumer or a KongConsumerGroup may have plugins that run for the request.
    pub fn may_have_plugins(&self) -> bool {
        self.consumer.is_some() || !self.found_consumer_groups.is_empty()
    }
}
