//! Routes of requests, which become Ingresses.

use super::super::fields::EntityFields;
use super::super::model::{Entity, FormatVersion};
use super::super::objects::Draft;
use super::super::services::ServicePlan;
use super::conditions::RouteConditions;
use super::protocols::{RouteProtocol, RouteProtocols};
use super::{options, rule};
use crate::api::kong::annotations::PROTOCOLS;

/// The Ingress. `None` if the route is not served.
pub(super) fn plan(
    mut route: Entity<'_>,
    mut draft: Draft,
    service: Option<&ServicePlan>,
    protocols: &RouteProtocols,
    version: FormatVersion,
) -> Option<Draft> {
    let is_http = protocols.protocol == RouteProtocol::Http;
    draft.identify(&mut route);
    let fields = &mut route.fields;
    if let Some(annotation) = &protocols.annotation {
        draft.annotate(PROTOCOLS, annotation.as_str());
    }
    let serves_grpc = protocols.annotation.as_ref().is_some_and(|protocols| protocols.contains("grpc"));
    if serves_grpc {
        reject_methods(fields);
    }
    let conditions = RouteConditions::read(fields, protocols);
    conditions.annotate(&mut draft);
    rule::add(&conditions, service, version, fields, &mut draft);
    options::read(fields, &mut draft, serves_grpc);
    let is_expression = fields.value("expression").is_some() | fields.value("priority").is_some();
    let findings = fields.findings;
    route.fields.finish();
    if is_expression {
        let message = "routes with expressions are not supported, and without one the order of all routes would change";
        findings.reject(&*draft.source, message, "write its conditions as hosts, paths, methods and headers");
    }
    let stream = service.and_then(|service| service.stream);
    if let Some(stream) = stream.filter(|_| is_http) {
        let message = format!("a route of HTTP has a service of protocol {stream}");
        findings.leave_out(&*draft.source, message, "set protocols of the route, or protocol of the service");
    }
    if is_http && !conditions.exist && !is_expression {
        let message = "the route has no condition, and Kong does not accept such a route";
        let remedy = "add hosts, paths, methods, headers or snis; paths: [/] matches everything";
        findings.reject(&*draft.source, message, remedy);
    }
    let has_service = service.is_none_or(|service| service.draft.is_some() && stream.is_none());
    (is_http && has_service).then_some(draft)
}

fn reject_methods(fields: &mut EntityFields<'_>) {
    if fields.has_entries("methods") {
        fields.findings.reject(fields.field("methods"), "all requests of gRPC have the method POST", "remove it");
    }
}
