//! The RBAC permissions that Portico needs; manifests/ grants exactly these. Clusters with RBAC, and the tests, reject
//! every other call.

use std::collections::BTreeSet;

use super::discovery::watched_kinds;
pub use super::key_secret::KEY_SECRET_NAME as KEY_SECRET;
pub use super::lease::LEASE_NAME as LEASE;
use crate::api::Kind;

/// One verb on one kind of resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    pub group: String,
    /// With the subresource, if any: `gateways/status`.
    pub resource: String,
    pub verb: &'static str,
}

/// Verbs on resources of one group, and the reason for them. Every permission has a reason.
#[derive(Clone, Debug)]
pub struct PermissionRule {
    pub group: &'static str,
    /// With the subresource, if any: `gateways/status`.
    pub resources: Vec<String>,
    pub verbs: &'static [&'static str],
    /// One or two sentences for the administrator who decides whether to grant it.
    pub reason: &'static str,
}

impl PermissionRule {
    fn new(
        group: &'static str,
        resources: &[&str],
        verbs: &'static [&'static str],
        reason: &'static str,
    ) -> PermissionRule {
        PermissionRule {
            group,
            resources: resources.iter().map(|&resource| resource.to_owned()).collect(),
            verbs,
            reason,
        }
    }

    fn permissions(&self) -> Vec<Permission> {
        let mut all = Vec::new();
        for resource in &self.resources {
            let permission = |&verb| Permission { group: self.group.to_owned(), resource: resource.clone(), verb };
            all.extend(self.verbs.iter().map(permission));
        }
        all
    }
}

/// The permissions that Portico needs in all namespaces, or in those that are watched.
pub fn watched_namespace_permissions() -> BTreeSet<Permission> {
    watched_namespace_rules().iter().flat_map(PermissionRule::permissions).collect()
}

/// The permissions that Portico needs in its own namespace.
pub fn own_namespace_permissions() -> BTreeSet<Permission> {
    own_namespace_rules().iter().flat_map(PermissionRule::permissions).collect()
}

/// The rules behind [`watched_namespace_permissions`].
pub fn watched_namespace_rules() -> Vec<PermissionRule> {
    const WATCH: &[&str] = &["list", "watch"];
    const WHOLE_OBJECT: &str = "";
    const STATUS: &str = "/status";
    let (fetched, whole): (Vec<Kind>, Vec<Kind>) = watched_kinds().partition(|kind| kind.is_fetched_on_reference());
    let with_status: Vec<Kind> = watched_kinds().filter(|kind| kind.has_written_status()).collect();
    let mut rules = rules_for_kinds(
        &whole,
        WATCH,
        WHOLE_OBJECT,
        "The configuration and the objects that it refers to: every change makes a new snapshot.",
    );
    rules.extend(rules_for_kinds(
        &fetched,
        WATCH,
        WHOLE_OBJECT,
        "Which Secrets and ConfigMaps exist, to notice when one appears, changes or disappears. Only metadata is \
         requested, and only names and resource versions are kept.",
    ));
    rules.extend(rules_for_kinds(
        &fetched,
        &["get"],
        WHOLE_OBJECT,
        "The content of the Secrets and ConfigMaps that a served Gateway, ListenerSet, BackendTLSPolicy, XBackend, \
         Ingress, TCPIngress, Service, plugin, vault or consumer refers to, and of no others.",
    ));
    rules.push(PermissionRule::new(
        "apiextensions.k8s.io",
        &["customresourcedefinitions"],
        WATCH,
        "Which release of the Gateway API is installed, and whether Portico's and Kong's CRDs are, to start and stop \
         watches accordingly.",
    ));
    rules.extend(rules_for_kinds(
        &with_status,
        &["patch"],
        STATUS,
        "The result for each object in its status: conditions and addresses.",
    ));
    rules.extend(rules_for_kinds(
        &with_status,
        &["get"],
        WHOLE_OBJECT,
        "The current object after a write conflict, before the patch is retried.",
    ));
    rules.push(PermissionRule::new(
        "events.k8s.io",
        &["events"],
        &["get", "create", "patch"],
        "What is wrong with an object, for `kubectl describe`. Repetitions are counted in the existing event.",
    ));
    rules.push(PermissionRule::new(
        Kind::Service.group(),
        &[Kind::Service.plural()],
        &["get", "create", "patch", "delete"],
        "The Service in front of each Gateway, in the Gateway's namespace, and the Service of each XBackend that \
         selects Pods. `get` detects that another owner has the name of a Gateway's Service, which is then left alone.",
    ));
    rules.push(PermissionRule::new(
        Kind::EndpointSlice.group(),
        &[Kind::EndpointSlice.plural()],
        &["create", "patch", "delete"],
        "The Pods of Portico and their ports, to which the Service in front of each Gateway sends clients.",
    ));
    rules
}

/// The rules behind [`own_namespace_permissions`].
pub fn own_namespace_rules() -> Vec<PermissionRule> {
    vec![
        PermissionRule::new(
            "coordination.k8s.io",
            &["leases"],
            &["get", "create", "patch"],
            "Leader election: the replica that holds the Lease `portico-leader` writes. `get` and `patch` are granted \
             for this Lease only.",
        ),
        PermissionRule::new(
            "",
            &["secrets"],
            &["list", "watch", "create"],
            "The keys with which all replicas seal sessions: the leader creates the Secret `portico-keys` if it does \
             not exist. `list` and `watch` are granted for this Secret only.",
        ),
        PermissionRule::new(
            "",
            &["pods"],
            &["list", "watch"],
            "Which replicas are ready, and their addresses, for the Services of Gateways, and for Gateways that \
             listen on all interfaces.",
        ),
    ]
}

/// One rule for each API group of the kinds.
fn rules_for_kinds(
    kinds: &[Kind],
    verbs: &'static [&'static str],
    subresource: &str,
    reason: &'static str,
) -> Vec<PermissionRule> {
    let groups = by_group(kinds).into_iter();
    let rules = groups.map(|(group, kinds)| {
        let resources = kinds.iter().map(|kind| format!("{}{subresource}", kind.plural())).collect();
        PermissionRule { group, resources, verbs, reason }
    });
    rules.collect()
}

/// The kinds by API group. The groups are in the order of their first kinds.
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
