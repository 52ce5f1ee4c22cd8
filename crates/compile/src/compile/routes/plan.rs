//! The compiled state of a route of any kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{ObjectId, ObjectKey};
use crate::compile::budgets::{PathExpressions, RouterHost};
use crate::compile::parents::attachment::Attachment;
use crate::snapshot::host::HostPattern;
use crate::snapshot::router::RouteMatches;
use crate::snapshot::stream::StreamRoute;
use crate::upstream::UpstreamKey;

/// The key includes the kind, since routes of different kinds may have the same name.
pub(in crate::compile) type RoutePlans = BTreeMap<ObjectId, Arc<RoutePlan>>;

/// The compiled state of a route: its parts of the snapshot.
#[derive(Debug)]
pub(in crate::compile) struct RoutePlan {
    pub attachments: Box<[Attachment]>,
    pub rules: PlannedRules,
    /// The rules for Gateways with another client certificate for backends than the first one, if the route has such
    /// backends.
    pub rules_of_gateways: Box<[(ObjectKey, PlannedRules)]>,
    /// Each once, sorted.
    pub upstreams: Box<[UpstreamKey]>,
    /// Services to which the route refers but cannot connect, because their TLS settings are invalid.
    pub unreachable_services: BTreeSet<ObjectKey>,
}

/// What a route adds to its listeners.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::compile) enum PlannedRules {
    Http {
        /// Its hostnames and those of its annotations; `Any` if it has none.
        hosts: Box<[HostPattern]>,
        matches: RouteMatches,
    },
    /// A listener uses the oldest of its stream routes with a host. `created` is in seconds since 1970.
    Stream {
        /// As for HTTP; `Any` for TCP and UDP.
        hosts: Box<[HostPattern]>,
        created: Option<i64>,
        route: Arc<StreamRoute>,
        /// For listeners that pass TLS through, if `route` is for those that terminate it.
        passthrough: Option<Arc<StreamRoute>>,
    },
}

impl RoutePlan {
    /// The regular expressions of the paths, and the hosts of the listeners whose requests are matched with them.
    pub(in crate::compile) fn path_expressions(&self) -> (PathExpressions, BTreeSet<RouterHost>) {
        let PlannedRules::Http { hosts, matches } = &self.rules else { return Default::default() };
        let expressions: PathExpressions = matches.path_expressions().collect();
        if expressions.is_empty() {
            return Default::default();
        }
        let listeners = self.attachments.iter().flat_map(|attachment| &attachment.listeners);
        let router_hosts = listeners.flat_map(|listener| {
            let host = |host: &HostPattern| host.to_string().into();
            let id = (listener.declared_by.clone(), Arc::clone(&listener.name));
            hosts.iter().map(move |pattern| RouterHost { listener: Some(id.clone()), host: host(pattern) })
        });
        (expressions, router_hosts.collect())
    }

    /// Whether the routers would be the same with another plan of the route.
    pub(in crate::compile) fn is_alike_for_routers(&self, other: &RoutePlan) -> bool {
        self.attachments == other.attachments
            && self.rules == other.rules
            && self.rules_of_gateways == other.rules_of_gateways
    }

    /// The plan of a route that no parent accepts: it has a verdict, and keeps nothing else.
    pub(in crate::compile) fn unattached() -> Self {
        RoutePlan {
            attachments: Box::default(),
            rules: PlannedRules::Http { hosts: Box::default(), matches: RouteMatches::default() },
            rules_of_gateways: Box::default(),
            upstreams: Box::default(),
            unreachable_services: BTreeSet::new(),
        }
    }

    /// The rules for the listeners of a Gateway.
    pub(in crate::compile) fn rules_for(&self, gateway: &ObjectKey) -> &PlannedRules {
        let own = self.rules_of_gateways.iter().find(|(key, _)| key == gateway);
        own.map_or(&self.rules, |(_, rules)| rules)
    }

    /// The matches of an HTTP route for the listeners of a Gateway.
    pub(in crate::compile) fn matches(&self, gateway: &ObjectKey) -> Option<&RouteMatches> {
        match self.rules_for(gateway) {
            PlannedRules::Http { matches, .. } => Some(matches),
            PlannedRules::Stream { .. } => None,
        }
    }
}
