//! The limits of WebSocket messages that plugins set for one request.

use std::num::NonZeroU32;

/// The most bytes of one message, without the headers of its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimits {
    /// Of those that the client sends.
    pub client: NonZeroU32,
    pub endpoint: NonZeroU32,
}
