//! HTTP in layers. A layer imports those below it only.
//!
//! ```text
//!   client ─▶ steps ─▶ exchange ─▶ forwarding ─▶ record ─▶ fields
//! ```

pub(in crate::proxy) mod client;
pub(in crate::proxy) mod exchange;
pub(in crate::proxy) mod fields;
pub(in crate::proxy) mod forwarding;
pub(in crate::proxy) mod record;
pub(in crate::proxy) mod steps;
