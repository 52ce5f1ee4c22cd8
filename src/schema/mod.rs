//! Does an object satisfy its kind? Types, bounds, patterns, enums, defaults, unknown fields and CEL, as the API server
//! would decide it under strict field validation, with the same field named.
//!
//! ```text
//!   head       apiVersion, kind, metadata: the same for every kind       syntax    grammars of names, labels, keys
//!   kinds      (kind, channel, version) → tree, compiled once            format    date-time, ipv4, base64 …
//!   tree       a structural schema, compiled                             remedy    what would be right, in words
//!   walk       object against tree: defaults, then violations            nearest   did you mean …?
//!   rules      CEL, only when the walk found the shape right             path      spec.rules[0].name
//!   core/      Service, Secret …: what the API server checks by hand     report    bounded in number and length
//! ```

use serde_json::Value;

use crate::api::Kind;

mod core;
mod format;
mod head;
mod kinds;
mod nearest;
mod path;
mod patterns;
mod remedy;
mod report;
mod rules;
mod syntax;
mod tree;
mod walk;
mod wording;

pub use crate::api::gateway::Channel;
pub use nearest::{nearest, nearest_kind};

use path::Path;
use report::Report;

/// One reason why the API server would refuse the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path in the object, for example `spec.rules[0].matches[1].path.value`; keys of maps, which may hold dots, stand in
    /// brackets (`metadata.labels[app.kubernetes.io/name]`). Empty for the object itself.
    pub field: String,
    /// What is wrong, without the path.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

/// Applies the defaults of the kind to `object` and says what is wrong with it; an empty list means that the API server
/// would take it.
pub fn check(kind: Kind, object: &mut Value, channel: Channel) -> Vec<Violation> {
    // What a Secret holds is never repeated in a message.
    let mut report = Report::new(kind != Kind::Secret);
    if !walk::is_object_of_bounded_depth(object, &mut report) {
        return report.finish();
    }
    let version = head::version(object).to_owned();
    let Some(tree) = kinds::tree(kind, channel, &version) else {
        report.add(
            &Path::Root.field("kind"),
            format!("{kind} is not in the {} channel of the Gateway API", channel.name()),
            "it needs the experimental one: set `--channel experimental`",
        );
        return report.finish();
    };
    walk::walk(tree, object, &walk::Cx { kind, channel, version: &version }, &mut report);
    head::check(kind, channel, object, &mut report);
    if !report.blocked() {
        rules::run(tree, object, &mut report);
        core::check(kind, object, &mut report);
    }
    report.finish()
}

#[cfg(test)]
mod tests;
