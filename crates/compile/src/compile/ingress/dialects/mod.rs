//! The dialects of Ingresses. Each plans an Ingress on its own, and finds paths that get no requests. What their plans
//! have in common is in the folder above: a further dialect is a folder here, and an arm of `plan`.

pub(in crate::compile) mod kong;
mod kubernetes;
pub(in crate::compile) mod nginx;
mod plain_service;
mod refused_annotations;

use std::sync::Arc;

use self::nginx::NginxHosts;
use super::plan::IngressPlan;
use crate::api::kong::annotations::INGRESS_CLASS;
use crate::api::names::DIALECT_ANNOTATION;
use crate::api::networking::{Ingress, IngressClass};
use crate::api::{Kind, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::budgets::{BudgetShare, Expansion, Planned};
use crate::compile::certificates::SecretCache;
use crate::compile::ingress_class;
use crate::compile::ingress_class::dialect;
use crate::compile::ingress_class::dialect::Dialect;
use crate::compile::kong::plugins::Plugins;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::Diagnostic;
use crate::snapshot::router::by_conditions::RouterFlavor;

/// Plans an Ingress in the dialect of its class. `None` if this process does not serve the Ingress. An error if it
/// expands to more than its share of its namespace's budget.
pub(super) fn plan(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    secrets: &mut SecretCache,
    nginx_hosts: &NginxHosts,
    before: Option<&IngressPlan>,
    ingress: &Object<Ingress>,
    share: BudgetShare,
) -> Result<Planned<Option<IngressPlan>>, Expansion> {
    let Some(class) = ingress_class::served_class(cx, ingress) else {
        return Ok(Planned::without_budget(None));
    };
    let (plan, expansion) = match dialect::of_served_ingress(cx, ingress, class) {
        Ok(Dialect::Kong) => kong::plan::plan(cx, plugins, secrets, ingress, class, share)?,
        // Its paths do not expand: the dialect has neither regular expressions nor host aliases.
        Ok(Dialect::Kubernetes) => (plan_kubernetes(cx, plugins, secrets, ingress, class), 0),
        Ok(Dialect::Nginx) => nginx::plan(cx, plugins, secrets, nginx_hosts, before, ingress, class, share)?,
        // Which protection the unknown dialect would have is unknown too, so no request is forwarded.
        Err(value) => {
            let class_name = class.map(|class| &*class.meta.key.name).unwrap_or_default();
            let is_annotated = ingress.meta.annotations.contains_key(INGRESS_CLASS);
            let problem = Diagnostic::error(
                if is_annotated { annotation_field(INGRESS_CLASS) } else { "spec.ingressClassName".to_owned() },
                format!("IngressClass {class_name} has the unknown dialect {value:?}, so requests get status 503"),
                format!("set annotation {DIALECT_ANNOTATION} of IngressClass {class_name} to {}", dialect::VALUES),
            );
            (kubernetes::plan(cx, plugins, secrets, ingress, class, Some(problem)), 0)
        }
    };
    let (expressions, hosts) = plan.path_expressions();
    Ok(Planned { plan: Some(plan), expansion, expressions, hosts })
}

/// Diagnostics for the Ingresses with a path that gets no requests, because an equal one comes first.
pub(super) fn path_conflicts<'p>(
    flavor: RouterFlavor,
    plans: &[(&'p ObjectKey, &'p Arc<IngressPlan>)],
) -> impl Iterator<Item = (&'p ObjectKey, Diagnostic)> {
    let by_host = kubernetes::path_conflicts::find(plans).into_iter();
    by_host.chain(nginx::path_conflicts::find(plans)).chain(kong::path_conflicts::find(flavor, plans))
}

/// Why an Ingress is refused without looking at what is left of it, or a warning that it is too large.
fn refusal(cx: CompileContext<'_>, ingress: &Object<Ingress>) -> (Option<Diagnostic>, Option<Diagnostic>) {
    let mut refused = cx.inputs.budgets.refusal(cx.store, Kind::Ingress, &ingress.meta.key);
    let note = refused.take_if(|problem| !problem.is_error());
    (refused, note)
}

/// Plans an Ingress of the dialect `kubernetes`. It is refused if it was rejected, or is larger than an object may be.
fn plan_kubernetes(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    secrets: &mut SecretCache,
    ingress: &Object<Ingress>,
    class: Option<&Object<IngressClass>>,
) -> IngressPlan {
    let (refused, note) = refusal(cx, ingress);
    let mut plan = kubernetes::plan(cx, plugins, secrets, ingress, class, refused);
    plan.notes.extend(note);
    plan
}
