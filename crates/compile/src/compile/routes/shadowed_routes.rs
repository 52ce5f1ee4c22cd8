//! Matches of routes that get no request, because another route of the same host has the same conditions and comes
//! first. Nothing else reports that to the owner of such a route: the Gateway API accepts it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::ObjectId;
use crate::diagnostic::{Diagnostic, Topic};
use crate::snapshot::host::HostPattern;
use crate::snapshot::router::{CallMatch, HostRouter, PathMatch, RouteMatch};

/// A match without requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShadowedMatch {
    route: ObjectId,
    rule: u16,
    /// `None` for all requests of a rule that has no other match: it may be one without a list of matches.
    index: Option<u16>,
    /// The route that gets the requests.
    by: ObjectId,
}

impl ShadowedMatch {
    /// Those of a router whose matches are those of these routes, sorted.
    pub(super) fn of_router(router: &HostRouter, routes: &[ObjectId]) -> Arc<[ShadowedMatch]> {
        let mut shadowed = router.shadowed().peekable();
        if shadowed.peek().is_none() {
            return Arc::default();
        }
        let name = |route: &ObjectId| format!("{}/{}", route.kind, route.key);
        let by_name: BTreeMap<String, &ObjectId> = routes.iter().map(|route| (name(route), route)).collect();
        let rule_of = |entry: &RouteMatch| (Arc::clone(&entry.rule.id.route), entry.tie_breaker.rule);
        let further = router.matches().iter().filter(|entry| entry.tie_breaker.index > 0);
        let with_several: BTreeSet<_> = further.map(rule_of).collect();
        let route_of = |name: &str| by_name.get(name).map(|route| (*route).clone());
        let mut found: Vec<_> = shadowed
            .filter_map(|(later, first)| {
                let (route, by) = route_of(&later.rule.id.route).zip(route_of(&first.rule.id.route))?;
                let is_whole_rule = is_unconditional(later) && !with_several.contains(&rule_of(later));
                let index = (!is_whole_rule).then_some(later.tie_breaker.index);
                Some(ShadowedMatch { route, rule: later.tie_breaker.rule, index, by })
            })
            .collect();
        found.sort_unstable();
        found.into()
    }

    /// Those of one route, of sorted ones.
    fn of_route<'m>(sorted: &'m [ShadowedMatch], route: &ObjectId) -> &'m [ShadowedMatch] {
        let start = sorted.partition_point(|shadowed| shadowed.route < *route);
        let from_start = &sorted[start..];
        &from_start[..from_start.partition_point(|shadowed| shadowed.route == *route)]
    }
}

/// Whether it is a match of all requests, or of all gRPC calls.
fn is_unconditional(entry: &RouteMatch) -> bool {
    matches!(&entry.path, PathMatch::Prefix(path) if path.is_empty())
        && entry.method.is_none()
        && entry.headers.is_empty()
        && entry.query.is_empty()
        && entry.call.as_deref().is_none_or(|call| *call == CallMatch::default())
}

/// The shadowed matches of one listener, by host.
#[derive(Debug, Default)]
pub(super) struct ShadowedMatches {
    /// Only hosts with such matches, which are sorted.
    by_host: BTreeMap<HostPattern, Arc<[ShadowedMatch]>>,
    /// The hosts of `by_host` with matches of a route. A change then looks only at the matches of its routes.
    hosts: BTreeMap<ObjectId, BTreeSet<HostPattern>>,
}

impl ShadowedMatches {
    /// Sets those of a host, which are sorted, and adds the routes for which that is a change.
    pub(super) fn set(&mut self, host: &HostPattern, matches: Arc<[ShadowedMatch]>, changed: &mut BTreeSet<ObjectId>) {
        let before = match matches.is_empty() {
            true => self.by_host.remove(host),
            false => self.by_host.insert(host.clone(), Arc::clone(&matches)),
        };
        let before = before.unwrap_or_default();
        if before == matches {
            return;
        }
        let [old, new] = [&before, &matches].map(|matches| matches.iter().collect::<BTreeSet<_>>());
        let differing: BTreeSet<&ObjectId> = old.symmetric_difference(&new).map(|shadowed| &shadowed.route).collect();
        for route in differing {
            let hosts = self.hosts.entry(route.clone()).or_default();
            if ShadowedMatch::of_route(&matches, route).is_empty() {
                hosts.remove(host);
            } else {
                hosts.insert(host.clone());
            }
            if hosts.is_empty() {
                self.hosts.remove(route);
            }
            changed.insert(route.clone());
        }
    }

    /// The routes with such matches.
    pub(super) fn routes(&self) -> impl Iterator<Item = ObjectId> {
        self.hosts.keys().cloned()
    }

    /// The matches of a route, each with a host.
    fn of_route<'a>(&'a self, route: &'a ObjectId) -> impl Iterator<Item = (&'a ShadowedMatch, &'a HostPattern)> {
        self.hosts.get(route).into_iter().flatten().flat_map(move |host| {
            let of_host = self.by_host.get(host).map_or(&[][..], |matches| ShadowedMatch::of_route(matches, route));
            of_host.iter().map(move |shadowed| (shadowed, host))
        })
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
        let (field, part) = match index {
            Some(index) => (format!("spec.rules[{rule}].matches[{index}]"), "match"),
            None => (format!("spec.rules[{rule}]"), "rule"),
        };
        let message = format!(
            "{by} has the same conditions for {}{more} and comes first, so this {part} gets no request",
            host.unwrap_or_default()
        );
        let remedy = format!("remove the {part} from one of them, or change its host or conditions");
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
        let mut inputs = TestInputs {
            controllers: vec!["a.b/c".to_owned()],
            ..TestInputs::new(PluginRegistry { kinds: &[], internal: &[] })
        };
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
        // A rule without matches has none that a field could name.
        let whole = || route("team-b", "steal", 2, "shop.example", &[]);
        let of_rule = of_steal(0, "host shop.example").replace(".matches[0]", "").replace("this match", "this rule");
        assert_eq!(notes_after(vec![whole()], vec![]), [of_rule.as_str()]);
        let single = || route("team-b", "steal", 2, "shop.example", &["/cart"]);
        assert_eq!(notes_after(vec![single()], vec![]), [of_steal(0, "host shop.example")]);
        let gateway = ObjectId::new(Kind::Gateway, ObjectKey::new("infra", "web"));
        assert_eq!(notes_after(vec![], vec![gateway]), [""; 0], "nothing is served");
    }

    /// Otherwise, an edit of one route costs the square of the number of such routes.
    #[test]
    fn only_routes_whose_matches_differ_have_changed() {
        let id = |name: &str| ObjectId::new(Kind::HttpRoute, ObjectKey::new("a", name));
        let shadowed =
            |name: &str, index: u16| ShadowedMatch { route: id(name), rule: 0, index: Some(index), by: id("first") };
        let hosts = ["a.example", "b.example"].map(|host| HostPattern::parse(Some(host)));
        let mut matches = ShadowedMatches::default();
        let mut changed_after = |host: &HostPattern, shadowed: Vec<ShadowedMatch>| {
            let mut changed = BTreeSet::new();
            matches.set(host, shadowed.into(), &mut changed);
            let changed: Vec<_> = changed.iter().map(|id| id.key.name.to_string()).collect();
            let of_routes = ["x", "y"].map(|name| matches.of_route(&id(name)).count());
            (changed.join(" "), of_routes, matches.routes().count())
        };
        let x = || shadowed("x", 0);
        let [y, other_y] = [0, 1].map(|index| shadowed("y", index));
        assert_eq!(changed_after(&hosts[0], vec![x(), y.clone()]), ("x y".to_owned(), [1, 1], 2));
        assert_eq!(changed_after(&hosts[1], vec![x()]), ("x".to_owned(), [2, 1], 2));
        assert_eq!(changed_after(&hosts[0], vec![x(), y.clone(), other_y.clone()]), ("y".to_owned(), [2, 2], 2));
        assert_eq!(changed_after(&hosts[0], vec![x(), y, other_y]), (String::new(), [2, 2], 2));
        assert_eq!(changed_after(&hosts[0], vec![x()]), ("y".to_owned(), [2, 0], 1));
        assert_eq!(changed_after(&hosts[0], vec![]), ("x".to_owned(), [1, 0], 1));
        assert_eq!(changed_after(&hosts[1], vec![]), ("x".to_owned(), [0, 0], 0));
    }
}
