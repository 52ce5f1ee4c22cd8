//! Fuzzing of the codec: its readers are compared with themselves for other divisions of the input, with a strict
//! reader and with hyper, and what it writes is read by both.
//!
//! ```text
//!   input ──▶ portico_reader (at once, in parts) ──▶ FoundMessage ─┐
//!     ├─────▶ strict_reader ──▶ StrictRequest ─────────────────────┼──▶ equal, except for known differences
//!     └─────▶ hyper_reader ──▶ FoundMessage ───────────────────────┘
//! ```

pub(crate) mod fast_cgi_responses;
mod found_message;
mod hyper_reader;
mod message_plan;
pub(crate) mod messages;
mod odd_stream;
mod portico_reader;
pub(crate) mod received_fields;
pub(crate) mod requests;
pub(crate) mod responses;
mod sending;
pub(crate) mod strict_reader;

use super::HeadLimits;

/// Those of the proxy by default.
const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 100 };
