//! Updates the verdicts on touched objects whose kind no other step updates.

use super::notes;
use super::served::ServedObjects;
use crate::api::Kind;
use crate::compile::gateways::gateway;
use crate::compile::kong::verdict_updates::VerdictSource;
use crate::compile::objects::route_kind::RouteKind;
use crate::compile::verdicts::table::VerdictTable;
use crate::compile::{CompileContext, ingress_class, kong};
use crate::store::Changes;

/// `is_of_other_step`: whether another step updates the verdicts on objects of a kind.
pub(in crate::compile) fn update(
    cx: CompileContext<'_>,
    touched: &Changes,
    is_of_other_step: impl Fn(Kind) -> bool,
    served: ServedObjects<'_>,
    verdicts: &mut VerdictTable,
) {
    for id in touched {
        let is_used = served.is_used(cx.store, id);
        let verdict = match id.kind {
            Kind::Gateway | Kind::ListenerSet | Kind::Ingress | Kind::TcpIngress | Kind::UdpIngress => continue,
            kind if is_of_other_step(kind) || served.stream_ingresses.is_served(id) => continue,
            kind if RouteKind::of(kind).is_some() || !kind.is_served() => continue,
            Kind::IngressClass => cx.store.ingress_classes.get(&id.key).map(|class| ingress_class::verdict(cx, class)),
            Kind::GatewayClass => cx.store.gateway_classes.get(&id.key).map(|class| gateway::class_verdict(cx, class)),
            _ => match kong::verdict_updates::verdict(cx, id, is_used) {
                VerdictSource::OwnStep => continue,
                VerdictSource::Known(verdict) => verdict,
                VerdictSource::OtherKind => notes::verdict(cx, id, served.forbidden, served.policy_conflicts, is_used),
            },
        };
        verdicts.set(id.clone(), verdict);
    }
}
