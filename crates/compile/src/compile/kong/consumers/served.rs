//! Which consumers and groups this process serves.

use crate::api::kong::ControlPlaneRef;
use crate::api::{Kind, ObjectId};
use crate::compile::CompileContext;

/// Whether the consumer or group exists, has a served class and belongs to no other control plane.
pub(in crate::compile) fn is_served(cx: CompileContext<'_>, id: &ObjectId) -> bool {
    let is_of_class = cx.store.meta(id).is_some_and(|meta| cx.inputs.classes.serves_object(cx.store, meta, None));
    (is_of_class || cx.store.has_unreadable_class(id)) && is_of_this_control_plane(cx, id)
}

/// Whether the consumer or group belongs to no other control plane.
pub(super) fn is_of_this_control_plane(cx: CompileContext<'_>, id: &ObjectId) -> bool {
    let reference = match id.kind {
        Kind::KongConsumerGroup => {
            let group = cx.store.kong_consumer_groups.get(&id.key).and_then(|group| group.spec.as_ref());
            group.and_then(|spec| spec.control_plane_ref.as_ref())
        }
        _ => {
            let consumer = cx.store.kong_consumers.get(&id.key).and_then(|consumer| consumer.spec.as_ref());
            consumer.and_then(|spec| spec.control_plane_ref.as_ref())
        }
    };
    reference.is_none_or(ControlPlaneRef::is_this_controller)
}
