//! Validates an object like the API server under strict field validation: types, bounds, patterns, enums, defaults,
//! unknown fields and CEL rules, reported at the same field.
//!
//! ```text
//!   head       apiVersion, kind, metadata: the same for every kind       syntax    grammars of names, labels, keys
//!   kinds      (kind, channel, version) → tree, compiled once            format    date-time, ipv4, base64 …
//!   tree       a structural schema, compiled                             remedy    remedies in words
//!   walk       object against tree: defaults, then violations            nearest   did you mean …?
//!   rules      CEL, only if the walk found the types right               path      spec.rules[0].name
//!   core/      Service, Secret …: the API server's coded validation      report    limited in number and length
//! ```

use serde_json::Value;

use crate::api::Kind;
use crate::diagnostic::Diagnostic;

mod core;
mod format;
mod kinds;
mod metadata;
mod nearest;
mod path;
mod pattern_description;
mod patterns;
mod remedy;
mod report;
mod rules;
mod syntax;
mod tree;
mod walk;

pub use crate::api::gateway::Channel;
pub use nearest::{nearest, nearest_kind};

use path::ObjectPath;
use report::ViolationReport;

/// Applies the defaults of the kind to `object` and returns its violations; an empty list means that the API server
/// would accept it.
pub fn check(kind: Kind, object: &mut Value, channel: Channel) -> Vec<Diagnostic> {
    // Messages never quote the content of a Secret.
    let mut report = ViolationReport::new(kind != Kind::Secret);
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
    let mut further = report.for_alternative();
    core::check(kind, object, &mut further);
    report.add_consequent(further);
    report.finish()
}

#[cfg(test)]
mod tests;
