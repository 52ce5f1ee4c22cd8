//! The tokens that plugins sign or fetch for an endpoint.

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::consumers::digests::Sha256Digest;

/// The tokens of a request. Few have any.
pub type EndpointTokens = SmallVec<[EndpointToken; 1]>;

/// A token in a field of the request.
#[derive(Clone, Debug)]
pub struct EndpointToken {
    name: HeaderName,
    value: HeaderValue,
    stands_for: Sha256Digest,
}

impl EndpointToken {
    pub fn new(name: HeaderName, value: HeaderValue, stands_for: Sha256Digest) -> Self {
        EndpointToken { name, value, stands_for }
    }

    pub fn name(&self) -> &HeaderName {
        &self.name
    }

    /// What the endpoint learns from the token, which another one for the same client has, too.
    pub fn stands_for(&self) -> &Sha256Digest {
        &self.stands_for
    }

    /// Whether a field of the request is this token, and no later plugin has replaced it.
    pub fn is_sent_as(&self, name: &HeaderName, value: &HeaderValue) -> bool {
        self.name == *name && self.value == *value
    }
}
