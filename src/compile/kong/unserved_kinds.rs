//! Verdicts on objects of Kong's kinds that are validated but not served: a condition reports the fields without
//! effect. A KongLicense is always valid, since Portico does not need it.

use crate::api::{Kind, ObjectId};
use crate::compile::CompileContext;
use crate::compile::verdict::{Code, Condition, Verdict};
use crate::diagnostic::Diagnostic;

/// `None` if the object does not exist. Objects of other classes get no condition.
pub(in crate::compile) fn verdict(cx: CompileContext<'_>, id: &ObjectId) -> Option<Verdict> {
    let meta = cx.store.meta(id)?;
    let problem = match id.kind {
        Kind::KongCustomEntity => {
            let entity = cx.store.kong_custom_entities.get(&id.key)?;
            let message = format!("entities of type {} are not served by this version", entity.spec.kind);
            let remedy = "remove the object if it is not needed";
            let names_this_class = cx.inputs.classes.name == entity.spec.controller_name;
            names_this_class.then(|| Diagnostic::error("spec.type", message, remedy))
        }
        // Deployments with a license wait for its condition Programmed.
        Kind::KongLicense => {
            let conditions = vec![Condition::without_diagnostics(Code::ObjectProgrammed)];
            return Some(Verdict { generation: meta.generation, conditions, ..Verdict::default() });
        }
        _ => None,
    };
    let conditions = problem.into_iter().map(|problem| Condition::new(Code::ObjectInvalid, vec![problem])).collect();
    Some(Verdict { generation: meta.generation, conditions, ..Verdict::default() })
}
