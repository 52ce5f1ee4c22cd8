//! The verdict on consumers and groups that their class leaves out: a warning, since their clients are unknown here.

use super::served::is_of_this_control_plane;
use crate::api::kong::annotations::{INGRESS_CLASS, IS_DEFAULT_CLASS};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};
use crate::verdict::Verdict;

/// `None` if the object does not exist, has a served class, or belongs to another control plane.
pub(super) fn verdict(cx: CompileContext<'_>, id: &ObjectId) -> Option<Verdict> {
    let meta = cx.store.meta(id)?;
    if cx.inputs.classes.serves_object(cx.store, meta, None) || !is_of_this_control_plane(cx, id) {
        return None;
    }
    let configured = &cx.inputs.classes.name;
    let consequence = match id.kind {
        Kind::KongConsumerGroup => "it has no members, and none of its plugins runs",
        _ => "its credentials are unknown, and none of its plugins runs",
    };
    let class = meta.annotations.get(INGRESS_CLASS).map(|class| &**class);
    let remedy = format!("set it to {configured} to serve the object with Portico");
    let (message, remedy, topic) = match class {
        None => {
            let message = format!("it has no class, and no class of Portico is the default class, so {consequence}");
            // The controller of another default class serves it, which needs no event.
            let mut classes = cx.store.ingress_classes.values();
            let is_default = |annotation: &std::sync::Arc<str>| &**annotation == "true";
            let has_other = classes.any(|class| class.meta.annotations.get(IS_DEFAULT_CLASS).is_some_and(is_default));
            (message, remedy, if has_other { Topic::Field } else { Topic::Annotation })
        }
        Some("") => (format!("its class is empty, so {consequence}"), remedy, Topic::Annotation),
        // It may be an object of another controller, which needs no event.
        Some(name) if cx.store.ingress_classes.contains_key(&ObjectKey::cluster(name)) => {
            let message = format!("Portico does not serve its class, {name}, so {consequence}");
            (message, remedy, Topic::Field)
        }
        Some(name) => {
            let message =
                format!("IngressClass {name} does not exist, and Portico serves {configured}, so {consequence}");
            (message, format!("set it to {configured}, or run Portico with --ingress-class {name}"), Topic::Field)
        }
    };
    let note = Diagnostic::warning(annotation_field(INGRESS_CLASS), message, remedy).with_topic(topic);
    Some(Verdict { generation: meta.generation, diagnostics: vec![note], ..Verdict::default() })
}
