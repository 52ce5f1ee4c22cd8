//! The timeouts for endpoints that plugins set for one request.

use std::num::NonZeroU32;

/// Timeouts in milliseconds. One that is not set is that of the rule, or else of the Service.
///
/// They have 32 bits to save memory, as those of rules have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointTimeouts {
    /// For connecting to one endpoint.
    pub connect: Option<NonZeroU32>,
    /// How long the proxy may wait until it can send the next part of the request.
    pub write: Option<NonZeroU32>,
    /// How long the proxy may wait for the start of the response or for its next part.
    pub read: Option<NonZeroU32>,
}

impl EndpointTimeouts {
    /// Whether no timeout is set.
    pub fn is_unset(self) -> bool {
        self == EndpointTimeouts::default()
    }

    /// Takes over the timeouts that the other one sets.
    pub fn replace_by(&mut self, other: EndpointTimeouts) {
        self.connect = other.connect.or(self.connect);
        self.write = other.write.or(self.write);
        self.read = other.read.or(self.read);
    }
}
