//! Routes: each becomes an Ingress whose annotations have the conditions that an Ingress has no fields for, or a
//! TCPIngress or UDPIngress.
//!
//! ```text
//!   protocols.rs ─▶ requests.rs: conditions.rs (read) ─▶ rule.rs (convert), options.rs ─▶ Ingress
//!              └──▶ streams.rs ─▶ TCPIngress, UDPIngress
//! ```

mod conditions;
mod headers;
mod options;
mod protocols;
mod requests;
mod rule;
mod streams;

use super::model::{Entity, EntityIndex, EntityKind, FormatVersion};
use super::names::Names;
use super::objects::Draft;
use super::services::ServicePlan;
use super::settings::TranslationSettings;
use protocols::RouteProtocol;

pub(super) use rule::NO_SERVICE;

/// What became of a route.
pub(super) struct ConvertedRoute {
    /// `None` if it is not served.
    pub(super) draft: Option<Draft>,
    pub(super) service: Option<usize>,
    /// Its name in the file, for messages and names.
    pub(super) label: String,
}

pub(super) struct RouteContext<'a> {
    pub(super) settings: &'a TranslationSettings,
    pub(super) version: FormatVersion,
    pub(super) index: &'a EntityIndex,
    pub(super) services: &'a [ServicePlan],
}

pub(super) fn plan(
    mut route: Entity<'_>,
    position: usize,
    context: &RouteContext<'_>,
    names: &mut Names,
) -> ConvertedRoute {
    let position_of_service = route.parent(EntityKind::Service, context.index);
    let service = position_of_service.map(|service| &context.services[service]);
    let label = route.label(&match service {
        Some(service) => format!("{}-route-{position}", service.label),
        None => format!("route-{position}"),
    });
    let name = names.name("Ingress", &label);
    let protocols = protocols::read(&mut route.fields);
    let (api_version, kind) = match protocols.protocol {
        RouteProtocol::Stream("udp") => ("configuration.konghq.com/v1beta1", "UDPIngress"),
        RouteProtocol::Stream(_) => ("configuration.konghq.com/v1beta1", "TCPIngress"),
        RouteProtocol::Http | RouteProtocol::Unserved => ("networking.k8s.io/v1", "Ingress"),
    };
    let draft = Draft::new(api_version, kind, &name, route.path()).of_class(context.settings);
    let draft = match protocols.protocol {
        RouteProtocol::Stream(stream) => streams::plan(route, draft, service, stream),
        RouteProtocol::Http | RouteProtocol::Unserved => {
            requests::plan(route, draft, service, &protocols, context.version)
        }
    };
    ConvertedRoute { draft, service: position_of_service, label }
}
