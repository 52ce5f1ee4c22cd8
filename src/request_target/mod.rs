//! The target of a request, validated and normalized: the host and the path that routes are compared with and that
//! endpoints get, so that no parser reads another one.
//!
//! ```text
//!   target, Host ─▶ RequestHost, RequestPath, or a TargetError
//! ```

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod host;
mod path;

pub use host::RequestHost;
pub use path::RequestPath;

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// The target is malformed or ambiguous, with a sentence about it without the full stop.
    InvalidTarget(&'static str),
    /// The host is missing, malformed or ambiguous, with such a sentence.
    InvalidHost(&'static str),
    /// The method is CONNECT, whose target is the address of a tunnel.
    ConnectNotSupported,
}
