//! Plans each Ingress in the dialect of its class.

use super::plan::IngressPlan;
use super::{kong, kubernetes};
use crate::api::Object;
use crate::api::kong::annotations::INGRESS_CLASS;
use crate::api::names::DIALECT_ANNOTATION;
use crate::api::networking::Ingress;
use crate::compile::CompileContext;
use crate::compile::annotation_reader::annotation_field;
use crate::compile::certificates::SecretCache;
use crate::compile::ingress_class;
use crate::compile::ingress_class::dialect::{self, Dialect};
use crate::compile::kong::plugins::Plugins;
use crate::diagnostic::Diagnostic;

/// Plans an Ingress in the dialect of its class. `None` if this process does not serve the Ingress. `over_namespace`:
/// the diagnostic if its namespace exceeds its budget because of it.
pub(super) fn plan(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    secrets: &mut SecretCache,
    ingress: &Object<Ingress>,
    over_namespace: Option<Diagnostic>,
) -> Option<IngressPlan> {
    let class = ingress_class::served_class(cx, ingress)?;
    Some(match dialect::of_served_class(class) {
        Ok(Dialect::Kong) => kong::plan::plan(cx, plugins, secrets, ingress, class, over_namespace),
        Ok(Dialect::Kubernetes) => kubernetes::plan(cx, plugins, secrets, ingress, None),
        // Which protection the unknown dialect would have is unknown too, so no request is forwarded.
        Err(value) => {
            let class = class.map(|class| &*class.meta.key.name).unwrap_or_default();
            let is_annotated = ingress.meta.annotations.contains_key(INGRESS_CLASS);
            let problem = Diagnostic::error(
                if is_annotated { annotation_field(INGRESS_CLASS) } else { "spec.ingressClassName".to_owned() },
                format!("IngressClass {class} has the unknown dialect {value:?}, so requests get status 503"),
                format!("set annotation {DIALECT_ANNOTATION} of IngressClass {class} to {}", dialect::VALUES),
            );
            kubernetes::plan(cx, plugins, secrets, ingress, Some(problem))
        }
    })
}
