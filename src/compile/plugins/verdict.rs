//! What is said of an object that configures a plugin.

use super::super::Inputs;
use super::super::verdict::{Code, Condition, Problem, Verdict};
use super::{Everywhere, Made, references};
use crate::api::{Kind, ObjectId};
use crate::store::Store;

pub(super) fn of(store: &Store, inputs: &Inputs<'_>, id: &ObjectId, made: &Made, everywhere: &Everywhere) -> Verdict {
    let uses = references::uses(store, inputs, id);
    let mut problems = made.problems.clone();
    if everywhere.ambiguous.contains(id) {
        let message =
            format!("another KongClusterPlugin with this label configures {} too, so neither runs", made.name);
        problems.push(Problem::new("metadata.labels[global]", message, "keep the label on one of them"));
    }
    if let Some(kind) = made.kind
        && !kind.scopes().consumer
        && !uses.people.is_nobody()
    {
        let message = format!("{} cannot be attached to a consumer or group, so there it has no effect", kind.name());
        problems.push(Problem::new("plugin", message, "remove it from the annotation konghq.com/plugins of these"));
    }
    let is_used = uses.is_attached() || !uses.people.is_nobody() || everywhere.global.contains(id);
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
    Verdict { generation, conditions: vec![condition], notes: made.notes.clone(), ..Verdict::default() }
}
