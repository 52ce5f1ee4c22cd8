//! What fuzzing runs: a function for each parser of untrusted bytes, which panics if a property of the parser does not
//! hold. Compiled only for tests and by cargo-fuzz; the binary does not contain it.
//!
//! ```text
//!   fuzz/fuzz_targets/NAME.rs ──run(NAME, bytes)──▶ TARGETS of the crates ──▶ property of the parser
//!   tests of each crate ──▶ every file of fuzz/corpus/NAME ─────┘
//! ```
//!
//! A property that needs private items is in the module of its parser, in a file `fuzzing.rs` or a folder `fuzzing`.

mod annotations;
#[cfg(test)]
mod tests;

/// A fuzz target, which panics if a property does not hold for these bytes.
pub type FuzzTarget = fn(&[u8]);

/// The fuzz targets of this crate by name, sorted. Each has a file in `fuzz/fuzz_targets` and a folder in
/// `fuzz/corpus`.
pub const TARGETS: &[(&str, FuzzTarget)] = &[("annotations", annotations::check)];

/// Runs a target of any crate.
///
/// # Panics
///
/// If a property of the parser does not hold, or if there is no such target.
#[cfg(fuzzing)]
pub fn run(target: &str, input: &[u8]) {
    let lists = [
        TARGETS,
        portico_base::fuzzing::TARGETS,
        portico_bodies::fuzzing::TARGETS,
        portico_guards::fuzzing::TARGETS,
        portico_logins::fuzzing::TARGETS,
        portico_plugin_formats::fuzzing::TARGETS,
        portico_proxy::fuzzing::TARGETS,
        portico_snapshot::fuzzing::TARGETS,
        portico_sources::fuzzing::TARGETS,
        portico_wire::fuzzing::TARGETS,
    ];
    let found = lists.into_iter().flatten().find(|(name, _)| *name == target);
    let (_, check) = found.unwrap_or_else(|| panic!("no fuzz target is named {target}; see src/fuzzing/mod.rs"));
    check(input);
}
