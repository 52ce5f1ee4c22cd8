//! Budgets: what objects may expand to when they are compiled, so that the objects of a tenant cannot exhaust the
//! memory and the time of the process.
//!
//! An API server accepts objects of 1.5 MiB, with annotations of 256 KiB. Without budgets such an object expands to a
//! multiple: a regular expression of five characters to hundreds of kilobytes, and a list of hosts to one router for
//! each of them. The constants below are several times what objects of real clusters have, and keep the largest object
//! below 32 MiB.
//!
//! An object that exceeds a budget is refused as a whole: its hosts respond with errors. It is not served in part,
//! since the part that is left out may be the one that restricts access.

mod host_budget;
mod namespace_budget;
mod prefix_states;
mod regex_budget;
mod shared_budgets;

use crate::api::kong::annotations::{HEADERS_PREFIX, HOST_ALIASES, METHODS, PLUGINS, SNIS, list};
use crate::api::{Kind, Meta, ObjectId, ObjectKey};
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::verdicts::rejected_objects::rejected;
use crate::diagnostic::{Diagnostic, Reason};
use crate::snapshot::regex::{RegexError, RegexLimit};
use crate::store::{MAX_LEVELS, MAX_OBJECT_SIZE, NESTED_TOO_DEEPLY, Store, max_object_size};
pub(super) use host_budget::{PathExpressions, RouterHost};
pub(super) use regex_budget::RegexBudget;
pub(super) use shared_budgets::{BudgetShare, Planned, SharedBudgets};

/// What an object expands to in bytes, about, or at least the part that was planned until it exceeded its share.
pub(super) type Expansion = u64;

/// The settings of all budgets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Report objects that exceed a budget, and serve them nevertheless.
    pub warn_only: bool,
    /// What the HTTPRoutes of a namespace may expand to together, and so may its Ingresses, in bytes.
    pub namespace_bytes: u64,
    /// The number of ports of a Gateway with ListenerSets. Each port is a socket for each worker and address, so a
    /// namespace that may add listeners could exhaust the open files of the process.
    pub gateway_ports: usize,
}

impl Default for Budgets {
    fn default() -> Self {
        Budgets { warn_only: false, namespace_bytes: 64 << 20, gateway_ports: 256 }
    }
}

impl Budgets {
    /// What the objects of a namespace may expand to before one of them is refused, in bytes.
    fn available(&self) -> u64 {
        if self.warn_only { u64::MAX } else { self.namespace_bytes }
    }

    /// The limit of the size of one regular expression.
    pub(super) fn regex_limit(&self) -> RegexLimit {
        if self.warn_only { RegexLimit::MEMORY_ONLY } else { RegexLimit { max_states: MAX_REGEX_STATES } }
    }

    /// Adds a diagnostic if the object has more of something than the limit. `what` follows the number: "host names".
    pub(super) fn check(
        &self,
        field: impl Into<String>,
        what: &str,
        size: usize,
        limit: usize,
        problems: &mut Vec<Diagnostic>,
    ) {
        if size > limit {
            let message = format!("{size} {what}, which is more than the limit of {limit} for one object");
            let remedy = "split the object into several, or remove some";
            let problem = Diagnostic::error(field, message, remedy).with_reason(OVER_BUDGET);
            problems.push(if self.warn_only { problem.into_warning() } else { problem });
        }
    }

    /// Why a route or Ingress is refused without looking at what is left of it: no valid version of it is known, or it
    /// is too large, which may also be a warning.
    pub(super) fn refusal(&self, store: &Store, kind: Kind, key: &ObjectKey) -> Option<Diagnostic> {
        let is_rejected = !store.unparseable.is_empty() && store.is_rejected(&ObjectId::new(kind, key.clone()));
        if is_rejected { Some(rejected()) } else { self.size_problem(store, kind, key) }
    }

    /// A diagnostic if the object is larger than an object may be, or nested more deeply. If it is an error, the object
    /// is refused without looking at what is left of it.
    pub(super) fn size_problem(&self, store: &Store, kind: Kind, key: &ObjectKey) -> Option<Diagnostic> {
        if store.oversized.is_empty() {
            return None;
        }
        let oversized = store.oversized.get(&ObjectId::new(kind, key.clone()))?;
        if oversized.size == NESTED_TOO_DEEPLY {
            let message = format!("the object has more than {MAX_LEVELS} lists and objects inside each other");
            return Some(Diagnostic::of_object(message, "nest its fields less deeply").with_reason(OVER_BUDGET));
        }
        let message = format!(
            "the object has a size of {} KiB, which is more than the limit of {} KiB for one object",
            oversized.size.div_ceil(1024),
            max_object_size(kind) / 1024
        );
        let remedy = "split it into several objects, or remove what is not needed; docs/limits.md explains how the size is counted";
        let problem = Diagnostic::of_object(message, remedy).with_reason(OVER_BUDGET);
        Some(if self.warn_only { problem.into_warning() } else { problem })
    }

    /// The maximum size of what is decoded from Secrets for one plugin.
    pub(super) fn max_secret_values(&self) -> u64 {
        if self.warn_only { u64::MAX } else { MAX_OBJECT_SIZE }
    }

    /// The annotations with too many entries.
    pub(super) fn check_annotations(&self, meta: &Meta) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        for (key, limit) in [(HOST_ALIASES, MAX_HOST_ALIASES), (SNIS, MAX_LIST_ENTRIES), (METHODS, MAX_LIST_ENTRIES)] {
            let entries = meta.annotations.get(key).map_or(0, |value| list(value).count());
            self.check(annotation_field(key), "entries", entries, limit, &mut problems);
        }
        let headers = meta.annotations.iter().filter(|(key, _)| key.starts_with(HEADERS_PREFIX));
        for (key, value) in headers.clone() {
            let entries = value.split(',').count();
            self.check(annotation_field(key), "entries", entries, MAX_LIST_ENTRIES, &mut problems);
        }
        let conditions = headers.count();
        let field = annotation_field(&format!("{HEADERS_PREFIX}*"));
        self.check(field, "conditions on headers", conditions, MAX_HEADER_CONDITIONS, &mut problems);
        problems
    }

    /// A diagnostic if an annotation attaches so many plugins that none of them can be used.
    pub(super) fn too_many_plugins(&self, entries: usize) -> Option<Diagnostic> {
        let mut problems = Vec::new();
        self.check(annotation_field(PLUGINS), "entries", entries, MAX_PLUGINS, &mut problems);
        problems.pop().filter(|_| !self.warn_only)
    }
}

/// Whether an object that exceeds these budgets is refused.
pub(super) fn is_refused(over_budget: &[Diagnostic]) -> bool {
    over_budget.iter().any(Diagnostic::is_error)
}

/// The bytes that an object expands to, about: `regex_bytes` have its automata, and `pairs` is the number of pairs of
/// its hosts and its matches or paths.
fn expansion(regex_bytes: usize, pairs: usize) -> Expansion {
    let bytes = regex_bytes.saturating_mul(REGEX_FACTOR).saturating_add(pairs.saturating_mul(BYTES_PER_PAIR));
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// A diagnostic about a regular expression that cannot be used. `syntax`: where its syntax is documented.
fn regex_problem(error: &RegexError, field: &str, syntax: &str) -> Diagnostic {
    if error.is_too_large {
        let remedy = "a smaller expression is also matched with longer paths and headers; see docs/limits.md";
        return Diagnostic::error(field, format!("the regular expression is {error}"), remedy).with_reason(OVER_BUDGET);
    }
    Diagnostic::error(field, format!("the regular expression is invalid: {error}"), syntax)
}

/// The literal text at the start of a regular expression, as far as it consists of whole segments: every path that the
/// expression matches from its start has this prefix. The expression is not compiled.
pub(super) fn literal_segments(pattern: &str) -> &str {
    if pattern.contains('|') || pattern.contains("(?") {
        return "";
    }
    let is_literal = |character: char| character.is_ascii_alphanumeric() || "/-_~%".contains(character);
    let end = pattern.find(|character| !is_literal(character)).unwrap_or(pattern.len());
    let is_repeated = pattern[end..].starts_with(['*', '?', '{']);
    let literal = &pattern[..end.saturating_sub(usize::from(is_repeated))];
    match end == pattern.len() {
        true => pattern,
        false => &literal[..literal.rfind('/').unwrap_or(0)],
    }
}

/// The reason of all diagnostics about budgets.
pub const OVER_BUDGET: Reason = Reason::Named("OverBudget");

/// The maximum number of states of one regular expression. With the limit of 2,000,000 steps for a request, every
/// expression can be matched with at least 1,000 bytes.
const MAX_REGEX_STATES: u32 = 2_000;

/// The maximum number of regular expressions of one object: four times the number of matches that an HTTPRoute may
/// have.
const MAX_REGEXES: usize = 512;

/// The maximum memory of the automata of one object, in bytes, before they are compiled for matching, which multiplies
/// it by about six. 512 expressions of usual size, with 50 states, have 1 MiB.
const MAX_REGEX_BYTES: usize = 2 << 20;

/// The maximum number of states of the regular expressions of a host that one path may be matched with. With the limit
/// of 2,000,000 steps for a request, paths of 99 bytes never exceed it, whatever the expressions are.
const MAX_HOST_STATES: u64 = 20_000;

/// How much larger the compiled expressions of an object are than their automata, in the routes and in the router.
const REGEX_FACTOR: usize = 8;

/// The memory of a match of a host in its router, in bytes.
const BYTES_PER_PAIR: usize = 512;

/// The maximum number of `konghq.com/host-aliases`. Each is an entry in the map of hosts.
pub(super) const MAX_HOST_ALIASES: usize = 4_096;

/// The maximum number of names in `server-alias`. The other Ingresses of the host have their paths for them, too.
pub(super) const MAX_SERVER_ALIASES: usize = 64;

/// The maximum product of hosts and matches of a route, or of hosts and paths of an Ingress with host aliases. Without
/// aliases, an HTTPRoute has at most 16 hosts and 128 matches, which are 2,048.
pub(super) const MAX_HOST_MATCHES: usize = 16_384;

/// The maximum number of entries of annotations that are compared one by one for each request.
const MAX_LIST_ENTRIES: usize = 256;

/// The maximum number of entries of `konghq.com/plugins`, which are resolved for each rule: several times the number of
/// plugins that exist.
const MAX_PLUGINS: usize = 128;

/// The maximum number of annotations for conditions on headers: more than the number of headers of a request.
const MAX_HEADER_CONDITIONS: usize = 128;

/// The maximum product of the conditions on headers and the paths of an Ingress.
pub(super) const MAX_HEADERS_AND_PATHS: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_segments_are_a_prefix_of_every_match() {
        for (pattern, expected) in [
            ("/admin/.*", "/admin"),
            ("/admin/users/[0-9]+/x", "/admin/users"),
            ("/admin", "/admin"),
            ("/users?", ""),
            ("/a/?b", ""),
            ("/a/*", ""),
            ("/a/b+/c", "/a"),
            ("/a|/b", ""),
            ("(?i)/a/b/c", ""),
            ("/a/(?i)b", ""),
            (r"/a/b\.c", "/a"),
            (".*", ""),
            ("", ""),
        ] {
            assert_eq!(literal_segments(pattern), expected, "{pattern}");
        }
    }
}
