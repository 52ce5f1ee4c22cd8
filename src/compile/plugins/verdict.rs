//! What is said of an object that configures a plugin.

use super::super::verdict::{Code, Condition, Problem, Verdict};
use super::references::{Misplaced, Uses};
use super::{Everywhere, Made};
use crate::api::{Kind, ObjectId};
use crate::store::Store;

pub(super) fn of(store: &Store, id: &ObjectId, made: &Made, uses: &Uses, everywhere: &Everywhere) -> Verdict {
    let mut problems = made.problems.clone();
    if everywhere.ambiguous.contains(id) {
        let message =
            format!("another KongClusterPlugin with this label configures {} too, so neither runs", made.name);
        problems.push(Problem::new("metadata.labels[global]", message, "keep the label on one of them"));
    }
    let misplaced = match uses.misplaced {
        Misplaced { consumers: true, groups: true } => Some("consumers and groups"),
        Misplaced { consumers: true, groups: false } => Some("consumers"),
        Misplaced { consumers: false, groups: true } => Some("groups"),
        Misplaced { consumers: false, groups: false } => None,
    };
    if let Some(people) = misplaced {
        let message = format!("{} cannot be attached to {people}, so there it has no effect", made.name);
        problems.push(Problem::new("plugin", message, "remove it from the annotation konghq.com/plugins of these"));
    }
    let is_used = uses.is_any() || everywhere.global.contains(id);
    let condition = if !problems.is_empty() {
        Condition::new(Code::KongInvalid, problems)
    } else if is_used {
        Condition::plain(Code::KongProgrammed)
    } else {
        let remedy = if id.kind == Kind::KongClusterPlugin {
            "name it in an annotation konghq.com/plugins, or set the label global: \"true\" and the class"
        } else {
            "name it in an annotation konghq.com/plugins, or in an ExtensionRef filter of an HTTPRoute"
        };
        Condition::new(Code::KongPending, vec![Problem::new("", "nothing refers to it", remedy)])
    };
    let generation = store.meta(id).map_or(0, |meta| meta.generation);
    let notes = made.idle.iter().chain(&made.notes).cloned().chain(about(uses)).collect();
    Verdict { generation, conditions: vec![condition], notes, ..Verdict::default() }
}

/// What may surprise whoever refers to it.
fn about(uses: &Uses) -> impl Iterator<Item = Problem> {
    let apart = uses.is_kept_apart().then(|| {
        let message = "consumers or groups name it, and routes of other namespaces: these people take it along wherever \
                       they go, and on these routes it is for everybody";
        let remedy = "to have it for these people on these routes only, make it a KongPlugin and let both use it with \
                      a ReferenceGrant";
        Problem::new("", message, remedy)
    });
    let passed_over = uses.passes_groups_over().then(|| {
        let message = "consumers name it as well as groups, so the groups do not count, as in Kong";
        Problem::new("", message, "configure a second plugin for the groups")
    });
    apart.into_iter().chain(passed_over)
}
