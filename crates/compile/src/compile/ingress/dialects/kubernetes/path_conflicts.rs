//! Equal paths of one host: the path of the oldest Ingress is used, and the others report it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::ObjectKey;
use crate::compile::ingress::plan::{HostPath, IngressPlan};
use crate::diagnostic::{Diagnostic, Topic};
use crate::request_target::path_encoding::{decode_unreserved, upper_case_escapes};
use crate::snapshot::host::HostPattern;
use crate::snapshot::router::PathMatch;

/// Diagnostics for the Ingresses with a path that equals an earlier one for the same host.
pub(in crate::compile::ingress) fn find<'p>(
    plans: &[(&'p ObjectKey, &'p Arc<IngressPlan>)],
) -> Vec<(&'p ObjectKey, Diagnostic)> {
    let mut paths: Vec<(&ObjectKey, &HostPath)> = plans
        .iter()
        .flat_map(|(key, plan)| plan.by_host.iter().flat_map(|routes| &routes.paths).map(|path| (*key, path)))
        .collect();
    // The order in which the router prefers equal paths.
    paths.sort_by(|(_, a), (_, b)| a.route_match.tie_breaker.cmp(&b.route_match.tie_breaker));
    let mut owners: BTreeMap<_, (&ObjectKey, &HostPath)> = BTreeMap::new();
    let mut problems = Vec::new();
    for (key, path) in paths {
        let (owner, first) = *owners.entry(path_key(path)).or_insert((key, path));
        if std::ptr::eq(first, path) {
            continue;
        }
        let message = if owner == key {
            format!("{} has the same host and path and comes first, so no request gets to this backend", first.field)
        } else {
            format!("Ingress {owner} has the same host and path and comes first, so no request gets to this backend")
        };
        let note = Diagnostic::warning(path.field.as_str(), message, "remove one of them, or change its path");
        problems.push((key, note.with_topic(Topic::Conflict)));
    }
    problems
}

/// Equal for paths that match the same requests.
fn path_key(path: &HostPath) -> (&HostPattern, bool, String) {
    let (is_exact, text) = match &path.route_match.path {
        PathMatch::Exact(text) => (true, &**text),
        PathMatch::Prefix(text) => (false, &**text),
        PathMatch::Regex(pattern) => (false, &**pattern),
    };
    (&path.host, is_exact, upper_case_escapes(&decode_unreserved(text)).into_owned())
}
