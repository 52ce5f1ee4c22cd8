//! Validates an object like the API server under strict field validation: types, bounds, patterns, enums, defaults,
//! unknown fields and CEL rules. Violations are reported at the fields where the API server reports them.
//!
//! ```text
//!   metadata   apiVersion, kind, metadata: the same for every kind   syntax     grammars of names, labels, keys
//!   kinds      (kind, channel, version) → tree, compiled once        format     date-time, ipv4, base64 …
//!   tree       a structural schema, compiled                         patterns   a cache of regular expressions
//!   walk       object against tree: defaults, then violations        path       spec.rules[0].name
//!   cel_rule   a CEL rule, compiled                                  report     the violations of an object
//!   rules      the rules of a tree, for values of the correct type   quote      values in messages
//!   core/      Service, Secret …: checks that no schema expresses
//!   remedy, pattern_description, nearest   messages and remedies; patterns in words; did you mean …?
//! ```

use serde_json::Value;

use crate::api::Kind;
use crate::diagnostic::Diagnostic;

mod cel_rule;
mod core;
mod format;
mod kinds;
mod metadata;
mod nearest;
mod path;
mod pattern_description;
mod patterns;
mod quote;
mod remedy;
mod report;
mod rules;
mod syntax;
mod tree;
mod walk;

pub use crate::api::gateway::Channel;
pub use nearest::{misspells, nearest, nearest_kind};

use path::ObjectPath;
use report::ViolationReport;

/// Applies the defaults of the kind to `object` and returns its violations; an empty list means that the API server
/// would accept it.
pub fn check(kind: Kind, object: &mut Value, channel: Channel) -> Vec<Diagnostic> {
    let mut report = if kind == Kind::Secret { ViolationReport::for_secret() } else { ViolationReport::new() };
    if !walk::is_object_of_bounded_depth(object, &mut report) {
        return report.finish();
    }
    let version = metadata::version(object).to_owned();
    let Some(tree) = kinds::tree(kind, channel, &version) else {
        report.add(
            &ObjectPath::Root.field("kind"),
            format!("{kind} is not in the {} channel of the Gateway API", channel.name()),
            "it requires the experimental channel: set `--channel experimental`",
        );
        return report.finish();
    };
    walk::validate(tree, object, &walk::ValidationCx { kind, channel, version: &version }, &mut report);
    metadata::check(kind, channel, object, &mut report);
    rules::run(tree, object, &mut report);
    let mut core_report = report.empty_copy();
    core::check(kind, object, &mut core_report);
    report.add_unblocked(core_report);
    report.finish()
}

/// The structural schema of a kind in its preferred version, as JSON without the fields of `metadata`. `None` if the
/// channel lacks the kind.
pub fn structural(kind: Kind, channel: Channel) -> Option<Value> {
    kinds::schema(kind, channel, kinds::versions(kind, channel).first()?)
}

#[cfg(test)]
mod tests;
