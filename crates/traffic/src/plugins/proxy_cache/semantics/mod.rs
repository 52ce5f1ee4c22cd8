//! What RFC 9111 says about one request and one response, as functions of their heads and of the time.
//!
//! ```text
//!   cache_control, dictionary ─▶ response_directives ─▶ storing: may the response be stored, and how long is it fresh?
//!        └────────────────────────────────────────────▶ reuse: may the stored response be sent for this request?
//!   vary: for which requests was it chosen?     conditional: 304, validation     ranges: 206, 416
//! ```

pub(super) mod cache_control;
pub(super) mod conditional;
mod dictionary;
pub(super) mod ranges;
pub(super) mod response_directives;
pub(super) mod reuse;
pub(super) mod storing;
pub(super) mod vary;
