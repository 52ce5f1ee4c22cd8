//! Matches of routes that get no request, because another route of the same host has the same conditions and comes
//! first. Nothing else reports that to the owner of such a route: the Gateway API accepts it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::ObjectId;
use crate::diagnostic::{Diagnostic, Topic};
use crate::snapshot::host::HostPattern;
use crate::snapshot::router::HostRouter;

/// A match without requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShadowedMatch {
    route: ObjectId,
    rule: u16,
    index: u16,
    /// The route that gets the requests.
    by: ObjectId,
}

impl ShadowedMatch {
    /// Those of a router whose matches are those of these routes.
    pub(super) fn of_router(router: &HostRouter, routes: &[ObjectId]) -> Arc<[ShadowedMatch]> {
        let name = |route: &ObjectId| format!("{}/{}", route.kind, route.key);
        let mut by_name: Option<BTreeMap<String, &ObjectId>> = None;
        let shadowed = router.shadowed().filter_map(|(later, first)| {
            let by_name = by_name.get_or_insert_with(|| routes.iter().map(|route| (name(route), route)).collect());
            let route_of = |name: &str| by_name.get(name).map(|route| (*route).clone());
            let (route, by) = route_of(&later.rule.id.route).zip(route_of(&first.rule.id.route))?;
            Some(ShadowedMatch { route, rule: later.tie_breaker.rule, index: later.tie_breaker.index, by })
        });
        shadowed.collect()
    }
}

/// The shadowed matches of one listener, by host.
#[derive(Debug, Default)]
pub(super) struct ShadowedMatches {
    /// Only hosts with such matches.
    by_host: BTreeMap<HostPattern, Arc<[ShadowedMatch]>>,
}

impl ShadowedMatches {
    /// Sets those of a host, and adds the routes for which that is a change.
    pub(super) fn set(&mut self, host: &HostPattern, matches: Arc<[ShadowedMatch]>, changed: &mut BTreeSet<ObjectId>) {
        let before = match matches.is_empty() {
            true => self.by_host.remove(host),
            false => self.by_host.insert(host.clone(), Arc::clone(&matches)),
        };
        let before = before.unwrap_or_default();
        if before != matches {
            changed.extend(before.iter().chain(&*matches).map(|shadowed| shadowed.route.clone()));
        }
    }

    /// The routes with such matches.
    pub(super) fn routes(&self) -> impl Iterator<Item = ObjectId> {
        self.by_host.values().flat_map(|matches| matches.iter()).map(|shadowed| shadowed.route.clone())
    }

    /// The matches of a route, each with a host.
    fn of_route<'a>(&'a self, route: &'a ObjectId) -> impl Iterator<Item = (&'a ShadowedMatch, &'a HostPattern)> {
        let of_host = |(host, matches): (&'a HostPattern, &'a Arc<[ShadowedMatch]>)| {
            matches.iter().map(move |shadowed| (shadowed, host))
        };
        self.by_host.iter().flat_map(of_host).filter(move |(shadowed, _)| shadowed.route == *route)
    }
}

/// What the verdict on a route says, for the listeners that it attaches to: one diagnostic for each match.
pub(super) fn notes<'a>(listeners: impl Iterator<Item = &'a ShadowedMatches>, route: &'a ObjectId) -> Vec<Diagnostic> {
    let mut hosts: BTreeMap<&ShadowedMatch, BTreeSet<&HostPattern>> = BTreeMap::new();
    for (shadowed, host) in listeners.flat_map(|listener| listener.of_route(route)) {
        hosts.entry(shadowed).or_default().insert(host);
    }
    let notes = hosts.into_iter().take(MAX_NOTES).map(|(shadowed, hosts)| {
        let ShadowedMatch { rule, index, by, .. } = shadowed;
        let host = hosts.first().map(|host| match host {
            HostPattern::Any => "all hosts".to_owned(),
            host => format!("host {host}"),
        });
        let more = if hosts.len() > 1 { format!(" and {} more", hosts.len() - 1) } else { String::new() };
        let message = format!(
            "{by} has the same conditions for {}{more} and comes first, so this match gets no request",
            host.unwrap_or_default()
        );
        let remedy = "remove the match from one of them, or change its host or conditions";
        let field = format!("spec.rules[{rule}].matches[{index}]");
        Diagnostic::warning(field, message, remedy).with_topic(Topic::Conflict)
    });
    notes.collect()
}

/// Further matches of a route are in the same situation as a rule.
const MAX_NOTES: usize = 8;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::{Kind, ObjectKey};
    use crate::compile::Compiler;
    use crate::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
    use crate::compile::testing::TestInputs;
    use crate::plugin_api::PluginRegistry;
    use crate::store::{AnyObject, Batch, Store};

    fn object(kind: Kind, namespace: &str, name: &str, created: u8, spec: &Value) -> AnyObject {
        let created = format!("2026-01-01T00:00:{created:02}Z");
        let metadata = json!({"namespace": namespace, "name": name, "creationTimestamp": created});
        AnyObject::parse(kind, json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn route(namespace: &str, name: &str, created: u8, host: &str, paths: &[&str]) -> AnyObject {
        let matches: Vec<_> = paths.iter().map(|path| json!({"path": {"type": "PathPrefix", "value": path}})).collect();
        let parent = json!({"namespace": "infra", "name": "web"});
        let spec = json!({"parentRefs": [parent], "hostnames": [host], "rules": [{"matches": matches}]});
        object(Kind::HttpRoute, namespace, name, created, &spec)
    }

    /// A route of another team with the same host and path was accepted, and neither its status nor an event said that
    /// it never gets a request.
    #[test]
    fn routes_that_get_no_request_name_the_one_that_comes_first() {
        let (mut store, mut compiler) = (Store::default(), Compiler::default());
        let listener = |name: &str, port: u16| json!({"name": name, "port": port, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}});
        let listeners = [listener("a", 80), listener("b", 81)];
        let class = json!({"metadata": {"name": "c"}, "spec": {"controllerName": "a.b/c"}});
        let gateway = json!({"gatewayClassName": "c", "listeners": listeners});
        let gateway = object(Kind::Gateway, "infra", "web", 0, &gateway);
        let AnyObject::Gateway(web) = &gateway else { panic!("it is a Gateway") };
        let mut inputs = TestInputs { controllers: vec!["a.b/c".to_owned()], ..TestInputs::new(PluginRegistry(&[])) };
        let pool = AddressProvider::Pool(GatewayAddressPool::loopback(vec![]));
        inputs.addresses.assign(&pool, &AddressState::default(), [(&web.meta.key, &web.spec)].into_iter());
        let mut notes_after = |upserts: Vec<AnyObject>, removes: Vec<ObjectId>| {
            let changes = store.apply(Batch { upserts, removes });
            inputs.compile(&mut compiler, &store, &changes);
            let mut fresh = Compiler::default();
            inputs.compile(&mut fresh, &store, &store.everything());
            assert_eq!(compiler.verdicts(), fresh.verdicts());
            let noted = compiler.verdicts().iter().filter(|(id, _)| id.kind == Kind::HttpRoute);
            let notes = noted.flat_map(|(id, verdict)| {
                let conflicts = verdict.diagnostics.iter().filter(|note| note.topic == Topic::Conflict);
                conflicts.map(move |note| format!("{}: {} {}", id.key, note.field, note.message))
            });
            notes.collect::<Vec<_>>()
        };
        let of_steal = |index: u8, host: &str| {
            format!(
                "team-b/steal: spec.rules[0].matches[{index}] HTTPRoute team-a/shop has the same conditions for {host} \
                 and comes first, so this match gets no request"
            )
        };
        let shop = |host: &str| route("team-a", "shop", 1, host, &["/", "/cart"]);
        let initial = vec![AnyObject::parse(Kind::GatewayClass, class).unwrap(), gateway, shop("shop.example")];
        assert_eq!(notes_after(initial, vec![]), [""; 0]);
        let steal = || route("team-b", "steal", 2, "shop.example", &["/", "/login"]);
        assert_eq!(notes_after(vec![steal()], vec![]), [of_steal(0, "host shop.example")], "once for both listeners");
        assert_eq!(notes_after(vec![shop("other.example")], vec![]), [""; 0], "it has another host now");
        assert_eq!(notes_after(vec![shop("shop.example")], vec![]).len(), 1);
        let key = ObjectKey::new("team-a", "shop");
        assert_eq!(notes_after(vec![], vec![ObjectId::new(Kind::HttpRoute, key)]), [""; 0]);
        assert_eq!(notes_after(vec![shop("shop.example")], vec![]).len(), 1);
        let gateway = ObjectId::new(Kind::Gateway, ObjectKey::new("infra", "web"));
        assert_eq!(notes_after(vec![], vec![gateway]), [""; 0], "nothing is served");
    }
}
