//! The locations of each host that follow from a list of Ingresses, in the order in which nginx has to have them.
//!
//! ```text
//!   Ingresses ──by age──▶ rules of a host ──longest path first──▶ locations: `/foo` becomes `/foo/` and `= /foo`
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::annotations::Settings;
use super::model::{PathType, TestIngress, Tls};

/// What to follow where the specification and the source of the original differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// A rewrite target that is equal to the path of the rule never has an effect.
    Specification,
    /// The original compares the target with the path of the location. For the type Prefix, that is `/foo/` for the
    /// rule `/foo`, so the target `/foo` has an effect: it switches the host to regex mode.
    Original,
}

/// The locations of a host.
#[derive(Debug)]
pub(crate) struct HostTable {
    /// None is the default server.
    pub(crate) host: Option<String>,
    /// A plain request for the host, or for a host below its wildcard, can be redirected to HTTPS.
    pub(crate) has_tls: bool,
    /// All paths are patterns.
    pub(crate) is_regex: bool,
    pub(crate) locations: Vec<Location>,
}

#[derive(Clone, Debug)]
pub(crate) struct Location {
    /// The path that nginx compares, which can have one more slash than that of the rule.
    pub(crate) path: String,
    pub(crate) is_exact: bool,
    /// The path of the rule.
    rule: String,
    /// Namespace and name of a Service. None is the default backend.
    pub(crate) service: Option<String>,
    pub(crate) settings: Settings,
    /// The rewrite target, if it has an effect.
    pub(crate) rewrite: Option<String>,
}

/// The tables of all hosts, and that of the default server, which is the first.
pub(crate) fn host_tables(ingresses: &[TestIngress], reading: Reading) -> Vec<HostTable> {
    let mut by_age: Vec<&TestIngress> = ingresses.iter().collect();
    // Of Ingresses with equal age, the larger name has precedence.
    by_age.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| b.key().cmp(&a.key())));
    let mut rules: BTreeMap<Option<&str>, Vec<&TestIngress>> = BTreeMap::from([(None, Vec::new())]);
    for ingress in by_age {
        rules.entry(ingress.rule_host()).or_default().push(ingress);
    }
    let hosts_with_tls: BTreeSet<&str> =
        ingresses.iter().filter(|one| one.tls != Tls::None).filter_map(TestIngress::rule_host).collect();
    rules.into_iter().map(|(host, ingresses)| table(host, &ingresses, &hosts_with_tls, reading)).collect()
}

fn table(host: Option<&str>, by_age: &[&TestIngress], hosts_with_tls: &BTreeSet<&str>, reading: Reading) -> HostTable {
    let mut locations = vec![implicit_root(host, by_age)];
    let mut is_implicit = locations[0].service.is_none() || host.is_some();
    for ingress in by_age {
        let settings = Settings::of(ingress);
        for path in &ingress.paths {
            let rule = if path.path.is_empty() { "/" } else { &path.path };
            let is_exact = path.path_type == Some(PathType::Exact);
            let location = Location {
                service: Some(format!("{}/{}", ingress.namespace, path.backend)),
                ..location(rule, is_exact, settings.clone())
            };
            // The first rule for `/` takes the place of the implicit location, with its annotations.
            if is_implicit && rule == "/" && !is_exact {
                locations[0] = location;
                is_implicit = false;
            } else if !locations.iter().any(|known| (known.path.as_str(), known.is_exact) == (rule, is_exact)) {
                locations.push(location);
            }
        }
    }
    // Paths of equal length are in reverse order. Both sorts are stable, so that Prefix and Exact stay in order of age.
    locations.sort_by(|a, b| b.path.len().cmp(&a.path.len()).then_with(|| b.path.cmp(&a.path)));
    let mut locations = doubled(locations);
    for location in &mut locations {
        location.rewrite = effective_rewrite(location, reading);
    }
    let is_regex = locations.iter().any(|location| location.rewrite.is_some() || location.settings.use_regex);
    if !is_regex {
        // The rules `/foo` and `/foo/` would be two locations `/foo/`, which nginx refuses. The longer rule keeps it.
        let mut seen = BTreeSet::new();
        locations.retain(|location| seen.insert((location.path.clone(), location.is_exact)));
    }
    let wildcard = host.and_then(|host| host.split_once('.')).map(|(_, domain)| format!("*.{domain}"));
    let has_tls = host.is_some_and(|host| hosts_with_tls.contains(host))
        || wildcard.is_some_and(|wildcard| hosts_with_tls.contains(wildcard.as_str()));
    HostTable { host: host.map(str::to_owned), has_tls, is_regex, locations }
}

/// The location `/` of a host without such a rule. That of the default server has no annotations.
fn implicit_root(host: Option<&str>, by_age: &[&TestIngress]) -> Location {
    let catch_all = |one: &&&TestIngress| host.is_some() || one.paths.is_empty() && one.default_backend.is_some();
    let Some(ingress) = by_age.iter().find(catch_all) else {
        return location("/", false, Settings::none());
    };
    let settings = if host.is_some() { Settings::of(ingress) } else { Settings::none() };
    let service = ingress.default_backend.as_ref().map(|name| format!("{}/{name}", ingress.namespace));
    Location { service, ..location("/", false, settings) }
}

fn location(rule: &str, is_exact: bool, settings: Settings) -> Location {
    let (path, rule) = (rule.to_owned(), rule.to_owned());
    Location { path, is_exact, rule, service: None, settings, rewrite: None }
}

/// Paths of type Prefix without a pattern become a prefix that ends with a slash, and an exact path.
fn doubled(locations: Vec<Location>) -> Vec<Location> {
    let exact: BTreeSet<String> = locations.iter().filter(|one| one.is_exact).map(|one| one.path.clone()).collect();
    let mut doubled = Vec::new();
    for location in locations {
        let has_rewrite = location.settings.rewrite_target.as_ref().is_some_and(|target| *target != location.rule);
        if location.is_exact || location.path == "/" || has_rewrite || location.settings.use_regex {
            doubled.push(location);
            continue;
        }
        let slash = if location.path.ends_with('/') { "" } else { "/" };
        doubled.push(Location { path: format!("{}{slash}", location.path), ..location.clone() });
        if !exact.contains(&location.path) {
            doubled.push(Location { is_exact: true, ..location });
        }
    }
    doubled
}

fn effective_rewrite(location: &Location, reading: Reading) -> Option<String> {
    let compared = match reading {
        Reading::Specification => &location.rule,
        Reading::Original => &location.path,
    };
    location.settings.rewrite_target.clone().filter(|target| target != compared)
}

#[cfg(test)]
mod tests {
    use super::super::expectations::ingress;
    use super::*;

    /// The table of one host as one line, with the type of each location.
    fn check(ingresses: &[TestIngress], reading: Reading, expected: &str) {
        let table = &host_tables(ingresses, reading)[1];
        let texts = table.locations.iter().map(|location| match (table.is_regex, location.is_exact) {
            (true, _) => format!("~{}", location.path),
            (false, true) => format!("={}", location.path),
            (false, false) => location.path.clone(),
        });
        assert_eq!(texts.collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn plain_paths_are_doubled_and_patterns_are_not() {
        let rules = ["/foo Prefix s0", "/foo/bar Exact s1", "/foo Exact s2", "/a/ - s3"];
        check(&[ingress("a", "h", &[], &rules)], Reading::Specification, "=/foo/bar /foo/ =/foo /a/ =/a/ /");
        let pattern = ingress("b", "h", &[("use-regex", "true")], &["/x(.*) - s4"]);
        check(
            &[ingress("a", "h", &[], &rules), pattern],
            Reading::Specification,
            "~/foo/bar ~/x(.*) ~/foo/ ~/foo ~/a/ ~/a/ ~/",
        );
    }

    #[test]
    fn the_two_readings_differ_in_a_target_that_is_equal_to_a_prefix() {
        let rewrite = [("rewrite-target", "/foo")];
        let ingresses = [ingress("a", "h", &[], &["/ - s1"]), ingress("b", "h", &rewrite, &["/foo Prefix s0"])];
        check(&ingresses, Reading::Specification, "/foo/ =/foo /");
        check(&ingresses, Reading::Original, "~/foo/ ~/foo ~/");
    }
}
