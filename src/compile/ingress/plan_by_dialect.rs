//! Plans each Ingress in the dialect of its class.

use super::plan::IngressPlan;
use super::{kong, kubernetes};
use crate::api::kong::annotations::INGRESS_CLASS;
use crate::api::names::DIALECT_ANNOTATION;
use crate::api::networking::{Ingress, IngressClass};
use crate::api::{Kind, Object};
use crate::compile::CompileContext;
use crate::compile::budgets::{BudgetShare, Expansion, Planned};
use crate::compile::certificates::SecretCache;
use crate::compile::ingress_class;
use crate::compile::ingress_class::dialect;
use crate::compile::ingress_class::dialect::Dialect;
use crate::compile::kong::plugins::Plugins;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::Diagnostic;

/// Plans an Ingress in the dialect of its class. `None` if this process does not serve the Ingress. An error if it
/// expands to more than its share of its namespace's budget.
pub(super) fn plan(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    secrets: &mut SecretCache,
    ingress: &Object<Ingress>,
    share: BudgetShare,
) -> Result<Planned<Option<IngressPlan>>, Expansion> {
    let Some(class) = ingress_class::served_class(cx, ingress) else {
        return Ok(Planned::without_budget(None));
    };
    let plan = match dialect::of_served_class(class) {
        Ok(Dialect::Kong) => {
            let (plan, expansion) = kong::plan::plan(cx, plugins, secrets, ingress, class, share)?;
            let (expressions, hosts) = plan.path_expressions();
            return Ok(Planned { plan: Some(plan), expansion, expressions, hosts });
        }
        // Its paths do not expand: the dialect has neither regular expressions nor host aliases.
        Ok(Dialect::Kubernetes) => plan_kubernetes(cx, plugins, secrets, ingress, class),
        // Which protection the unknown dialect would have is unknown too, so no request is forwarded.
        Err(value) => {
            let class_name = class.map(|class| &*class.meta.key.name).unwrap_or_default();
            let is_annotated = ingress.meta.annotations.contains_key(INGRESS_CLASS);
            let problem = Diagnostic::error(
                if is_annotated { annotation_field(INGRESS_CLASS) } else { "spec.ingressClassName".to_owned() },
                format!("IngressClass {class_name} has the unknown dialect {value:?}, so requests get status 503"),
                format!("set annotation {DIALECT_ANNOTATION} of IngressClass {class_name} to {}", dialect::VALUES),
            );
            kubernetes::plan(cx, plugins, secrets, ingress, class, Some(problem))
        }
    };
    Ok(Planned::without_budget(Some(plan)))
}

/// Plans an Ingress of the dialect `kubernetes`. It is refused if it is larger than an object may be.
fn plan_kubernetes(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    secrets: &mut SecretCache,
    ingress: &Object<Ingress>,
    class: Option<&Object<IngressClass>>,
) -> IngressPlan {
    let mut refused = cx.inputs.budgets.size_problem(cx.store, Kind::Ingress, &ingress.meta.key);
    let note = refused.take_if(|problem| !problem.is_error());
    let mut plan = kubernetes::plan(cx, plugins, secrets, ingress, class, refused);
    plan.notes.extend(note);
    plan
}
