//! Paths that get no requests, because a path of another route has the same conditions and comes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::api::ObjectKey;
use crate::compile::ingress::plan::{IngressPlan, PathPosition};
use crate::diagnostic::{Diagnostic, Topic};
use crate::snapshot::router::by_conditions::{
    ConditionRoute, ConditionsRouter, HostCondition, PathCondition, RouteEntry, RouterFlavor,
};

/// Diagnostics for the Ingresses with such a path.
pub(in crate::compile::ingress) fn find<'p>(
    flavor: RouterFlavor,
    plans: &[(&'p ObjectKey, &'p Arc<IngressPlan>)],
) -> Vec<(&'p ObjectKey, Diagnostic)> {
    let mut owners: BTreeMap<*const ConditionRoute, (&'p ObjectKey, &'p IngressPlan)> = BTreeMap::new();
    for (key, plan) in plans {
        owners.extend(plan.routes.iter().map(|route| (Arc::as_ptr(route), (*key, &***plan))));
    }
    if owners.len() < 2 {
        return Vec::new();
    }
    let routes = plans.iter().flat_map(|(_, plan)| &plan.routes);
    let entries = ConditionsRouter::ordered_entries(flavor, routes);
    let place_of = |entry: &RouteEntry| {
        let (key, plan) = *owners.get(&Arc::as_ptr(&entry.route))?;
        let group = plan.path_positions.get(usize::from(entry.route.tie_breaker.rule))?;
        Some(Place { ingress: key, position: *group.get(entry.path_index()?)? })
    };
    #[expect(clippy::mutable_key_type, reason = "expressions are hashed by their text, which does not change")]
    let mut firsts: HashMap<(Option<&HostCondition>, &PathCondition), SmallVec<[&RouteEntry; 1]>> = HashMap::new();
    let mut places: BTreeMap<Place<'p>, FirstsByHost<'_, 'p>> = BTreeMap::new();
    for entry in &entries {
        let (Some(path), Some(place)) = (entry.path(), place_of(entry)) else { continue };
        let any_host = entry.hosts().is_empty().then_some(None);
        for host in entry.hosts().iter().map(Some).chain(any_host) {
            let earlier = firsts.entry((host, path)).or_default();
            let first = earlier.iter().find(|earlier| includes(&earlier.route, &entry.route)).copied();
            if first.is_none() && earlier.len() < MAX_COMPARED {
                earlier.push(entry);
            }
            let first = first.map(|first| place_of(first).unwrap_or(place));
            places.entry(place).or_default().entry(host).or_default().push(first);
        }
    }
    let problem = |(place, hosts): (Place<'p>, FirstsByHost<'_, 'p>)| {
        // A path of type Prefix has two conditions: the path itself, and those below it.
        let firsts = hosts.iter().map(|(host, firsts)| (*host, firsts.iter().copied().collect::<Option<Vec<_>>>()));
        let lost: Vec<(Option<&HostCondition>, Place<'p>)> =
            firsts.filter_map(|(host, firsts)| Some((host, *firsts?.first()?))).collect();
        let (host, first) = *lost.first()?;
        let first = match first.ingress == place.ingress {
            true => first.position.to_string(),
            false => format!("Ingress {}", first.ingress),
        };
        let host = host.filter(|_| lost.len() < hosts.len()).map(|host| format!(" for {host}")).unwrap_or_default();
        let message =
            format!("{first} has the same host and path and comes first, so no request{host} gets to this backend");
        let remedy = "remove one of them, or change its path or its conditions";
        let note = Diagnostic::warning(place.position.to_string(), message, remedy);
        Some((place.ingress, note.with_topic(Topic::Conflict)))
    };
    places.into_iter().filter_map(problem).collect()
}

/// For each host of a path, and each of its conditions, the path that comes first.
type FirstsByHost<'e, 'p> = BTreeMap<Option<&'e HostCondition>, Vec<Option<Place<'p>>>>;

/// A path of an Ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place<'p> {
    ingress: &'p ObjectKey,
    position: PathPosition,
}

/// Whether `earlier` matches all requests that `later` matches, if their hosts and paths are the same.
fn includes(earlier: &ConditionRoute, later: &ConditionRoute) -> bool {
    let methods = &earlier.methods;
    let includes_methods = !later.methods.is_empty() && later.methods.iter().all(|method| methods.contains(method));
    (methods.is_empty() || includes_methods)
        && earlier.headers.iter().all(|header| later.headers.contains(header))
        && (earlier.server_names.is_empty() || earlier.server_names == later.server_names)
}

/// The number of routes with one host and path that others are compared with, so that many of them with different
/// conditions do not slow down each edit.
const MAX_COMPARED: usize = 32;

#[cfg(test)]
mod tests {
    use http::{HeaderName, Method};

    use super::*;
    use crate::snapshot::regex::RegexLimit;
    use crate::snapshot::router::TieBreaker;
    use crate::snapshot::router::by_conditions::HeaderCondition;
    use crate::snapshot::rule::{Action, Filters, RouteFailure, RouteRule, RuleId};

    /// A route of one rule, described by words: `host=a.example`, `path=/a`, `exact=/a`, `method=GET`, `header=x`,
    /// `priority=1`.
    fn route(key: &ObjectKey, rule: u16, text: &str) -> Arc<ConditionRoute> {
        let id = RuleId { route: key.to_string().into(), rule: rule.to_string().into() };
        let action = Action::Fail(RouteFailure::NoService);
        let target = RouteRule { id, filters: Filters::default(), plugins: None, action, options: None };
        let created = Some(i64::from(key.name.as_bytes()[0]));
        let tie_breaker = TieBreaker { created, route: key.to_string().into(), rule, index: 0 };
        let mut route = ConditionRoute::new(tie_breaker, Arc::new(target));
        for word in text.split(' ') {
            match word.split_once('=').unwrap() {
                ("host", host) => route.hosts.push(HostCondition::parse(host).unwrap()),
                ("path", path) => route.paths.push(PathCondition::prefix(path)),
                ("exact", path) => route.paths.push(PathCondition::exact(path)),
                ("regex", path) => route.paths.push(PathCondition::regex(path).unwrap()),
                ("method", method) => route.methods.push(Method::from_bytes(method.as_bytes()).unwrap()),
                ("header", value) => {
                    let name = HeaderName::from_static("x");
                    route.headers = [HeaderCondition::parse(name, [value], RegexLimit::MEMORY_ONLY).unwrap()].into();
                }
                ("priority", priority) => route.regex_priority = priority.parse().unwrap(),
                (other, _) => panic!("{other}"),
            }
        }
        Arc::new(route)
    }

    /// The diagnostics of Ingresses named `a`, `b` …, each of which has these routes, and is older than the next one.
    fn found(ingresses: &[&[&str]]) -> Vec<String> {
        let plans: Vec<(ObjectKey, Arc<IngressPlan>)> = ingresses
            .iter()
            .zip('a'..)
            .map(|(routes, name)| {
                let key = ObjectKey::new("ns", &name.to_string());
                let routes: Vec<_> = (0..).zip(*routes).map(|(rule, text)| route(&key, rule, text)).collect();
                // Each route is a rule with one path, which may have several conditions, as with type Prefix.
                let positions = routes
                    .iter()
                    .enumerate()
                    .map(|(rule, route)| route.paths.iter().map(|_| PathPosition { rule, path: 0 }).collect());
                let plan = IngressPlan { path_positions: positions.collect(), routes, ..IngressPlan::default() };
                (key, Arc::new(plan))
            })
            .collect();
        let plans: Vec<_> = plans.iter().map(|(key, plan)| (key, plan)).collect();
        let text = |(key, problem): (&ObjectKey, Diagnostic)| {
            assert!(!problem.is_error(), "{problem}");
            let message =
                problem.message.replace(" has the same host and path and comes first, so no request", " first");
            format!("{} {}: {}", key.name, problem.field, message.replace(" gets to this backend", ""))
        };
        find(RouterFlavor::default(), &plans).into_iter().map(text).collect()
    }

    #[test]
    fn paths_that_get_no_requests_are_reported() {
        const FIRST: &str = "spec.rules[0].http.paths[0]: Ingress ns/a first";
        let b_lost = || vec![format!("b {FIRST}")];
        let none = Vec::<String>::new;
        type Case<'c> = (&'c [&'c [&'c str]], Vec<String>);
        let cases: &[Case<'_>] = &[
            (&[&["host=x path=/a"], &["host=x path=/a"]], b_lost()),
            (&[&["path=/a"], &["path=/a"]], b_lost()),
            (&[&["host=x exact=/a"], &["host=x exact=/a"]], b_lost()),
            (&[&["host=x regex=/a.*"], &["host=x regex=/a.*"]], b_lost()),
            (&[&["host=x path=/a"], &["host=x path=/b"]], none()),
            (&[&["host=x path=/a"], &["host=y path=/a"]], none()),
            (&[&["host=x path=/a"], &["path=/a"]], none()),
            (&[&["host=x path=/a"], &["host=x exact=/a"]], none()),
            // Both conditions of a path of type Prefix.
            (&[&["host=x path=/a/ exact=/a"], &["host=x path=/a/ exact=/a"]], b_lost()),
            (&[&["host=x exact=/a"], &["host=x path=/a/ exact=/a"]], none()),
            // Some of several hosts.
            (&[&["host=x path=/a"], &["host=x host=y path=/a"]], vec![format!("b {FIRST} for x")]),
            (&[&["host=x host=y path=/a"], &["host=y host=x path=/a"]], b_lost()),
            (&[&["host=x:80 path=/a"], &["host=x:81 path=/a"]], none()),
            // More conditions come first, but leave requests.
            (&[&["host=x path=/a method=GET"], &["host=x path=/a"]], none()),
            (&[&["host=x path=/a"], &["host=x path=/a method=GET"]], none()),
            (&[&["host=x path=/a method=GET method=PUT"], &["host=x path=/a method=GET"]], b_lost()),
            (&[&["host=x path=/a method=GET"], &["host=x path=/a method=GET method=PUT"]], none()),
            (&[&["host=x path=/a header=1"], &["host=x path=/a header=1"]], b_lost()),
            (&[&["host=x path=/a header=1"], &["host=x path=/a header=2"]], none()),
            // The priority decides, not the age.
            (
                &[&["host=x regex=/a"], &["host=x regex=/a priority=1"]],
                vec!["a spec.rules[0].http.paths[0]: Ingress ns/b first".to_owned()],
            ),
            (&[&["host=x path=/a"], &["host=x path=/a priority=1"]], b_lost()),
            // Two rules of one Ingress.
            (
                &[&["host=x path=/a", "host=x path=/a"]],
                vec!["a spec.rules[1].http.paths[0]: spec.rules[0].http.paths[0] first".to_owned()],
            ),
        ];
        for (ingresses, expected) in cases {
            assert_eq!(found(ingresses), *expected, "{ingresses:?}");
        }
    }
}
