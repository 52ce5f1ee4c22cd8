//! Joins the locations that several Ingresses have for one host.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::{HeaderValue, StatusCode};

use super::plan::{HostLocations, IngressPlan, LocationPrecedence};
use crate::api::ObjectKey;
use crate::plugin_api::instance::ExecutionPlace;
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use crate::snapshot::host::HostPattern;
use crate::snapshot::location_path::LocationPath;
use crate::snapshot::location_steps::{FixedResponse, LocationSteps};
use crate::snapshot::router::locations::{HostLocation, LocationRouter};
use crate::snapshot::rule::{Action, Filters, RouteFailure, RouteRule, RuleId};

/// What the Ingresses have for a host, the oldest first; of equal age, the later name first, as in ingress-nginx.
pub(super) type OfHost<'p> = Vec<(&'p ObjectKey, &'p HostLocations)>;

/// What the Ingresses have for each host.
pub(super) fn by_host<'p>(plans: &[(&'p ObjectKey, &'p Arc<IngressPlan>)]) -> BTreeMap<&'p HostPattern, OfHost<'p>> {
    let mut by_age: Vec<_> = plans.iter().filter(|(_, plan)| plan.by_location.is_some()).collect();
    by_age.sort_by_key(|(key, plan)| (plan.created, Reverse(*key)));
    let mut by_host: BTreeMap<&HostPattern, OfHost<'p>> = BTreeMap::new();
    for (key, plan) in by_age {
        for locations in plan.by_location.iter().flatten() {
            by_host.entry(&locations.host).or_default().push((key, locations));
        }
    }
    by_host
}

/// The router of a host with what the Ingresses have for it; `None` if that is nothing.
pub(super) fn router(host: &HostPattern, of_host: &OfHost<'_>) -> Option<LocationRouter> {
    let of_host: Vec<&HostLocations> = of_host.iter().map(|(_, locations)| *locations).collect();
    let oldest = of_host.first()?;
    // In their order, which decides between expressions with equal paths.
    let mut chosen: Vec<(LocationPrecedence, &HostLocation)> = Vec::new();
    let mut positions: BTreeMap<(u8, &str), usize> = BTreeMap::new();
    let mut add = |precedence: LocationPrecedence, location| match positions.entry(key(location)) {
        Entry::Vacant(entry) => {
            entry.insert(chosen.len());
            chosen.push((precedence, location));
        }
        Entry::Occupied(entry) => {
            let known = &mut chosen[*entry.get()];
            if precedence < known.0 {
                *known = (precedence, location);
            }
        }
    };
    let health = (*host == HostPattern::Any).then(health_location);
    if let Some(health) = &health {
        add(LocationPrecedence::Written, health);
    }
    let paths: Vec<_> =
        of_host.iter().flat_map(|locations| locations.paths.iter().map(move |path| (path, *locations))).collect();
    let catch_all = of_host.iter().find(|locations| locations.is_catch_all);
    let written_root = paths.iter().find(|(path, _)| !path.is_exact && *path.path == *"/");
    // Whichever Ingress has it, the root comes before expressions with the same path.
    if let Some(root) = catch_all.and_then(|locations| locations.root.as_ref()) {
        add(LocationPrecedence::Forced, root);
    } else if let Some((path, _)) = written_root {
        path.locations.iter().for_each(|(precedence, location)| add(*precedence, location));
    } else if let Some(root) = &oldest.root {
        add(LocationPrecedence::Written, root);
    }
    let mut written: BTreeSet<(bool, &str)> = BTreeSet::new();
    // The Ingress of the first of its paths, in the order of expressions, decides about the root of the host.
    let mut app_root: Option<((usize, &str), &HostLocation)> = None;
    let own_root = oldest.app_root.as_ref().filter(|_| written_root.is_none()).map(|location| ((1, "/"), location));
    for (path, locations) in paths.iter().copied() {
        if !written.insert((path.is_exact, &path.path)) {
            continue;
        }
        path.locations.iter().for_each(|(precedence, location)| add(*precedence, location));
        let place = (path.path.len(), &*path.path);
        if let Some(location) = &locations.app_root
            && app_root.is_none_or(|(first, _)| place > first)
        {
            app_root = Some((place, location));
        }
    }
    if let Some((_, app_root)) = app_root.or(own_root) {
        add(LocationPrecedence::Forced, app_root);
    }
    let verifies_clients = of_host.iter().any(|locations| locations.verifies_clients);
    let router = LocationRouter::new(chosen.into_iter().map(|(_, location)| location.clone()).collect());
    Some(router.with_client_verification(verifies_clients))
}

/// The locations of hosts that no Ingress names. Load balancers ask for the health of ingress-nginx with such hosts.
/// `rule`: that of all other requests.
pub(super) fn router_of_unnamed_hosts(rule: Option<&Arc<RouteRule>>) -> LocationRouter {
    let root = rule.map(|rule| HostLocation { path: LocationPath::Prefix("/".into()), rule: Arc::clone(rule) });
    LocationRouter::new(root.into_iter().chain([health_location()]).collect())
}

fn health_location() -> HostLocation {
    let response = FixedResponse { status: StatusCode::OK, target: HeaderValue::from_static("") };
    let steps = LocationSteps { response: Some(response), ..LocationSteps::default() };
    let (scope, object) = ("ingress".into(), "ingress".into());
    let mut builder = ChainBuilder::default();
    let (ExecutionPlace { kind, priority }, instance) = Arc::new(steps).into_instance(scope, object);
    builder.add(kind, priority, AttachmentPoint::Base(BaseScope::Route), instance);
    let rule = RouteRule {
        id: RuleId { route: "Ingress".into(), rule: "health".into() },
        filters: Filters::default(),
        plugins: builder.build(Arc::default()),
        action: Action::Fail(RouteFailure::NoDefaultBackend),
        options: None,
    };
    // Without a slash at its end, it matches texts that begin so.
    HostLocation { path: LocationPath::Prefix("/healthz".into()), rule: Arc::new(rule) }
}

/// Equal for locations that match the same requests.
fn key(location: &HostLocation) -> (u8, &str) {
    match &location.path {
        LocationPath::Exact(path) => (0, path),
        LocationPath::Expression { path, .. } => (1, path),
        LocationPath::Prefix(path) => (2, path),
    }
}
