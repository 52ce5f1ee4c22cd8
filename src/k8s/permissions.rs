//! What we ask of the API server, so that manifests/ can grant exactly that. A call that is not in here is refused by every
//! cluster with RBAC, and by our tests.

use std::collections::BTreeSet;

use super::bodies::FETCHED;
use super::discovery::watched;
pub use super::lease::NAME as LEASE;
use crate::api::Kind;

/// One verb on one kind of resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    pub group: String,
    /// With the subresource, if any: `gateways/status`.
    pub resource: String,
    pub verb: &'static str,
}

/// Verbs on resources of one group, and what they are for. There is no permission without a reason.
#[derive(Clone, Debug)]
pub struct Rule {
    pub group: &'static str,
    /// With the subresource, if any: `gateways/status`.
    pub resources: Vec<String>,
    pub verbs: &'static [&'static str],
    /// One or two sentences for whoever decides whether to grant it.
    pub why: &'static str,
}

impl Rule {
    fn new(group: &'static str, resources: &[&str], verbs: &'static [&'static str], why: &'static str) -> Rule {
        Rule { group, resources: resources.iter().map(|&resource| resource.to_owned()).collect(), verbs, why }
    }

    fn permissions(&self) -> Vec<Permission> {
        let mut all = Vec::new();
        for resource in &self.resources {
            let of = |&verb| Permission { group: self.group.to_owned(), resource: resource.clone(), verb };
            all.extend(self.verbs.iter().map(of));
        }
        all
    }
}

/// In all namespaces, or those that are watched.
pub fn everywhere() -> BTreeSet<Permission> {
    rules_everywhere().iter().flat_map(Rule::permissions).collect()
}

/// In the namespace that we run in.
pub fn at_home() -> BTreeSet<Permission> {
    rules_at_home().iter().flat_map(Rule::permissions).collect()
}

/// What `everywhere` consists of.
pub fn rules_everywhere() -> Vec<Rule> {
    const WATCH: &[&str] = &["list", "watch"];
    let is_fetched = |kind: &Kind| FETCHED.contains(kind);
    let whole: Vec<Kind> = watched().filter(|kind| !is_fetched(kind)).collect();
    let mut rules =
        of_kinds(&whole, WATCH, "", "What is served, and what it refers to: every change of it is a new snapshot.");
    rules.extend(of_kinds(
        FETCHED,
        WATCH,
        "",
        "Which Secrets and ConfigMaps there are, to notice that one appears, changes or goes. Only metadata is asked for, and \
         of that only names and versions are kept.",
    ));
    rules.extend(of_kinds(
        FETCHED,
        &["get"],
        "",
        "The content of those that a Gateway, an Ingress, a Service, a plugin or a consumer of ours refers to, and of no \
         others.",
    ));
    rules.push(Rule::new(
        "apiextensions.k8s.io",
        &["customresourcedefinitions"],
        WATCH,
        "Which release of the Gateway API is installed and whether Kong's kinds are, to begin and end watches as they come and go.",
    ));
    rules.extend(of_kinds(
        WITH_STATUS,
        &["patch"],
        "/status",
        "The verdict about each object, where its author looks for it: conditions and addresses.",
    ));
    rules.extend(of_kinds(
        WITH_STATUS,
        &["get"],
        "",
        "Another look at an object whose status somebody else wrote at the same time, before the patch is tried again.",
    ));
    rules.push(Rule::new(
        "events.k8s.io",
        &["events"],
        &["get", "create", "patch"],
        "What is wrong with an object, in `kubectl describe`. What was told before is counted in the event that there is.",
    ));
    rules.push(Rule::new(
        Kind::Service.group(),
        &[Kind::Service.plural()],
        &["get", "create", "patch", "delete"],
        "The Service in front of each Gateway, in the Gateway's namespace. `get` finds out whether the name is somebody else's, \
         which is then left alone.",
    ));
    rules.push(Rule::new(
        Kind::EndpointSlice.group(),
        &[Kind::EndpointSlice.plural()],
        &["create", "patch", "delete"],
        "To which Pods of Portico, and which of their ports, that Service leads.",
    ));
    rules
}

/// What `at_home` consists of.
pub fn rules_at_home() -> Vec<Rule> {
    vec![
        Rule::new(
            "coordination.k8s.io",
            &["leases"],
            &["get", "create", "patch"],
            "Which replica leads and writes: the one that holds the Lease `portico-leader`, the only one that `get` and `patch` \
             are granted for.",
        ),
        Rule::new(
            "",
            &["pods"],
            &["list", "watch"],
            "Which replicas are ready, and at which addresses, for the Services of Gateways.",
        ),
    ]
}

/// A rule for each group that the kinds are of.
fn of_kinds(kinds: &[Kind], verbs: &'static [&'static str], suffix: &str, why: &'static str) -> Vec<Rule> {
    let groups = by_group(kinds).into_iter();
    let rules = groups.map(|(group, kinds)| {
        let resources = kinds.iter().map(|kind| format!("{}{suffix}", kind.plural())).collect();
        Rule { group, resources, verbs, why }
    });
    rules.collect()
}

/// By group, in the order of the first kind of each.
fn by_group(kinds: &[Kind]) -> Vec<(&'static str, Vec<Kind>)> {
    let mut groups: Vec<(&'static str, Vec<Kind>)> = Vec::new();
    for &kind in kinds {
        match groups.iter_mut().find(|(group, _)| *group == kind.group()) {
            Some((_, kinds)) => kinds.push(kind),
            None => groups.push((kind.group(), vec![kind])),
        }
    }
    groups
}

/// Kinds into whose status we write.
pub const WITH_STATUS: &[Kind] = &[
    Kind::GatewayClass,
    Kind::Gateway,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::TlsRoute,
    Kind::TcpRoute,
    Kind::UdpRoute,
    Kind::Ingress,
    Kind::KongPlugin,
    Kind::KongClusterPlugin,
    Kind::KongConsumer,
    Kind::KongConsumerGroup,
    Kind::KongUpstreamPolicy,
    Kind::KongIngress,
    Kind::KongVault,
    Kind::KongLicense,
    Kind::KongCustomEntity,
    Kind::KongServiceFacade,
    Kind::TcpIngress,
    Kind::UdpIngress,
];
