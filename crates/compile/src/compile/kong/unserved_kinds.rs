//! Verdicts on objects of Kong's kinds that are validated but not served: a KongLicense is always valid, since Portico
//! does not need it.

use crate::api::ObjectId;
use crate::compile::CompileContext;
use crate::verdict::{Code, Condition, Verdict};

/// `None` if the object does not exist.
pub(in crate::compile) fn verdict(cx: CompileContext<'_>, id: &ObjectId) -> Option<Verdict> {
    let meta = cx.store.meta(id)?;
    // Deployments with a license wait for its condition Programmed.
    let conditions = vec![Condition::without_diagnostics(Code::ObjectProgrammed)];
    Some(Verdict { generation: meta.generation, conditions, ..Verdict::default() })
}
