//! Equal paths of one host: the path of the oldest Ingress is used, and the others report it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::ObjectKey;
use crate::compile::ingress::joined_locations;
use crate::compile::ingress::plan::IngressPlan;
use crate::diagnostic::{Diagnostic, Topic};

/// Diagnostics for the Ingresses with a path that equals an earlier one for the same host.
pub(in crate::compile::ingress) fn find<'p>(
    plans: &[(&'p ObjectKey, &'p Arc<IngressPlan>)],
) -> Vec<(&'p ObjectKey, Diagnostic)> {
    let mut problems = Vec::new();
    for of_host in joined_locations::by_host(plans).into_values() {
        let mut owners: BTreeMap<(bool, &str), (&ObjectKey, &str)> = BTreeMap::new();
        for (key, locations) in of_host {
            for path in &locations.paths {
                let place = (path.is_exact, &*path.path);
                let Some((owner, field)) = owners.get(&place) else {
                    owners.insert(place, (key, &path.field));
                    continue;
                };
                let first = if *owner == key { (*field).to_owned() } else { format!("Ingress {owner}") };
                let message =
                    format!("{first} has the same host and path and comes first, so no request gets to this backend");
                let note = Diagnostic::warning(path.field.as_str(), message, "remove one of them, or change its path");
                problems.push((key, note.with_topic(Topic::Conflict)));
            }
        }
    }
    problems
}
