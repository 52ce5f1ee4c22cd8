//! What fuzzing runs: a function for each parser of untrusted bytes, which panics if a property of the parser does not
//! hold. Compiled only for tests and by cargo-fuzz; the binary does not contain it.
//!
//! ```text
//!   fuzz/fuzz_targets/NAME.rs ──run(NAME, bytes)──▶ TARGETS ──▶ property of the parser
//!   tests.rs ──▶ every file of fuzz/corpus/NAME ──────┘
//! ```
//!
//! A property that needs private items is in the module of its parser, in a file `fuzzing.rs` or a folder `fuzzing`.

mod annotations;
mod path_templates;
mod quantities;
#[cfg(test)]
mod tests;
mod transformer_templates;

use crate::http1::fuzzing as http1;
use crate::proxy::fuzzing as proxy;
use crate::{manifests, plugin_kit, plugins, request_target};

/// A fuzz target, which panics if a property does not hold for these bytes.
pub type FuzzTarget = fn(&[u8]);

/// The fuzz targets by name, sorted. Each has a file in `fuzz/fuzz_targets` and a folder in `fuzz/corpus`.
pub const TARGETS: &[(&str, FuzzTarget)] = &[
    ("access_log_lines", proxy::access_log_lines::check),
    ("annotations", annotations::check),
    ("bodies", plugin_kit::request_edits::fuzzing::body),
    ("check_responses", proxy::check_responses::check),
    ("client_hello", proxy::client_hello::check),
    ("forwarded_for", proxy::forwarded_for::check),
    ("headers", proxy::headers::check),
    ("http1_chunked_bodies", http1::requests::chunked_body),
    ("http1_messages", http1::messages::messages),
    ("http1_requests", http1::requests::requests),
    ("http1_responses", http1::responses::responses),
    ("http2_frames", proxy::http2_frames::check),
    ("json_threats", plugins::json_threats),
    ("jwt", plugins::token),
    ("manifests", manifests::fuzzing::check),
    ("oauth2_requests", plugins::token_request),
    ("path_templates", path_templates::check),
    ("proxy_header", proxy::proxy_header::check),
    ("quantities", quantities::check),
    ("request_targets", request_target::fuzzing::check),
    ("sessions", proxy::sessions::check),
    ("transformer_templates", transformer_templates::check),
    ("xml_threats", plugins::xml_threats),
];

/// Runs a target.
///
/// # Panics
///
/// If a property of the parser does not hold, or if there is no such target.
pub fn run(target: &str, input: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    let (_, check) = found.unwrap_or_else(|| panic!("no fuzz target is named {target}; see src/fuzzing/mod.rs"));
    check(input);
}
