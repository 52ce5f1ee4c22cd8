//! The fields about which authorization servers of a rule decide. No endpoint of the rule gets them from the client:
//! neither one whose backend has no such server, nor a plugin that runs before the server has decided.

use http::{HeaderMap, HeaderName};

use super::backend::SelectedAction;
use crate::snapshot::external_auth::ExternalAuthFilter;
use crate::snapshot::rule::{Action, Filters, RouteRule};

/// Removes the fields from the request of a client, in all spellings, before plugins run. Those stay that a server or a
/// plugin reads, because they may be the credentials of the client.
pub(super) fn remove_from_request(rule: &RouteRule, headers: &mut HeaderMap) {
    let of_rule = rule.filters.asserted_by_server();
    let of_backends = if let Action::Forward(split) = &rule.action { split.asserted_by_servers() } else { None };
    for asserted in of_rule.into_iter().chain(of_backends) {
        asserted.remove_from(headers, |name| is_read(rule, name));
    }
}

/// Removes the fields that may still be those of the client when the servers of its request have decided: the servers
/// of other backends read them, or plugins, and nothing has set them.
pub(super) fn remove_undecided(rule: &RouteRule, action: SelectedAction<'_>, headers: &mut HeaderMap) {
    let SelectedAction::Forward(backends, backend) = action else { return };
    let Some(asserted) = backends.asserted_by_servers() else { return };
    let has_decided =
        |filters: &Filters, name: &HeaderName| filters.asserted_by_server().is_some_and(|fields| fields.contains(name));
    let is_of_plugin = |name: &HeaderName| rule.plugins.as_ref().is_some_and(|chain| chain.asserts(name));
    asserted.remove_from(headers, |name| {
        let is_decided = has_decided(&rule.filters, name) || has_decided(&backend.filters, name);
        is_decided || is_of_plugin(name) || !is_read(rule, name)
    });
}

/// Whether a server or a plugin of the rule may find a credential in the field.
fn is_read(rule: &RouteRule, name: &HeaderName) -> bool {
    let split = if let Action::Forward(split) = &rule.action { Some(split) } else { None };
    let backends = split.into_iter().flat_map(|split| split.all_backends()).map(|backend| &backend.filters);
    let reads = |server: &ExternalAuthFilter| server.reads(name);
    rule.plugins.as_ref().is_some_and(|chain| chain.reads_credential(name))
        || [&rule.filters].into_iter().chain(backends).filter_map(|filters| filters.external_auth.as_deref()).any(reads)
}
