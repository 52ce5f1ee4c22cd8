//! The kinds of policies, as two tables: what verdicts on them say, and which settings of upstreams they have. Both
//! also have other kinds that work alike. A further kind is a module of `policies`, and a row in each table that
//! concerns it.
//!
//! ```text
//!   KindsWithUsers   BackendTLSPolicy, XBackendTrafficPolicy, BackendPolicy, XBackend ─▶ changes, verdicts
//!   SOURCES          KongUpstreamPolicy, KongIngress, annotations of the Service ─▶ annotations of Ingresses of the
//!                    dialect nginx ─▶ XBackendTrafficPolicy ─▶ BackendPolicy
//!                    ─▶ own sessions of an XBackend; later ones precede
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::affected::BackendChange;
use super::backend::{route_balancing, x_backend, x_backend_verdict};
use super::kong::policy_conflicts::PolicyConflicts;
use super::kong::upstream_policy;
use super::policies::users::{Findings, Users, WithUsers};
use super::policies::{backend_policy, backend_tls, backend_traffic};
use super::verdict_updates::served::ServedObjects;
use super::verdicts::table::VerdictTable;
use super::{CompileContext, alternatives};
use crate::api::gateway::{BackendTlsPolicy, XBackend, XBackendTrafficPolicy};
use crate::api::portico::BackendPolicy;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::store::{Changes, Store};
use crate::upstream::settings::Balancing;
use crate::upstream::{BackendTraffic, UpstreamKey, UpstreamSource};

/// The kinds whose verdicts have an entry for each Gateway through which an object has an effect.
#[derive(Debug)]
pub(super) struct KindsWithUsers(Vec<Box<dyn KindWithUsers>>);

impl Default for KindsWithUsers {
    fn default() -> Self {
        KindsWithUsers(vec![
            row::<BackendTlsPolicy>(|cx, _, key| backend_tls::findings(cx, key)),
            row::<XBackendTrafficPolicy>(|cx, _, key| backend_traffic::findings(cx, key)),
            row::<BackendPolicy>(|cx, served, key| {
                let reference_problems = |upstream: &UpstreamKey| alternatives::reference_problems(cx, upstream);
                backend_policy::findings(cx.store, key, served, reference_problems)
            }),
            row::<XBackend>(|cx, served, key| x_backend_verdict::findings(cx, served.forbidden, key)),
        ])
    }
}

/// What the verdict on an object says; `None` if the object does not exist.
type Find = fn(CompileContext<'_>, &ServedObjects<'_>, &ObjectKey) -> Option<Findings>;

fn row<T: WithUsers + fmt::Debug>(find: Find) -> Box<dyn KindWithUsers> {
    Box::new(UsersOfKind { users: Users::<T>::default(), find })
}

impl KindsWithUsers {
    /// What a change of an object of each kind affects, if it affects the objects to which it refers.
    pub(super) fn changes(&self) -> Vec<(Kind, BackendChange)> {
        self.0.iter().filter_map(|row| Some((row.kind(), row.change()?))).collect()
    }

    /// Whether there may be an object of these kinds. Nothing is recorded for them otherwise.
    pub(super) fn may_be_needed(&self, store: &Store) -> bool {
        self.0.iter().any(|row| row.may_be_needed(store))
    }

    pub(super) fn contains(&self, kind: Kind) -> bool {
        self.0.iter().any(|row| row.kind() == kind)
    }

    /// Updates the verdicts on touched objects, and on those that have an effect on `replanned` routes and Ingresses,
    /// or had one before.
    pub(super) fn update(
        &mut self,
        cx: CompileContext<'_>,
        touched: &Changes,
        replanned: &BTreeSet<ObjectId>,
        served: &ServedObjects<'_>,
        verdicts: &mut VerdictTable,
    ) {
        for row in &mut self.0 {
            row.update(cx, touched, replanned, served, verdicts);
        }
    }
}

/// One kind, with what uses its objects.
trait KindWithUsers: fmt::Debug + Send + Sync {
    fn kind(&self) -> Kind;
    fn change(&self) -> Option<BackendChange>;
    fn may_be_needed(&self, store: &Store) -> bool;
    fn update(
        &mut self,
        cx: CompileContext<'_>,
        touched: &Changes,
        replanned: &BTreeSet<ObjectId>,
        served: &ServedObjects<'_>,
        verdicts: &mut VerdictTable,
    );
}

#[derive(Debug)]
struct UsersOfKind<T> {
    users: Users<T>,
    find: Find,
}

impl<T: WithUsers + fmt::Debug> KindWithUsers for UsersOfKind<T> {
    fn kind(&self) -> Kind {
        T::KIND
    }

    fn change(&self) -> Option<BackendChange> {
        T::CHANGE
    }

    fn may_be_needed(&self, store: &Store) -> bool {
        self.users.may_be_needed(store)
    }

    fn update(
        &mut self,
        cx: CompileContext<'_>,
        touched: &Changes,
        replanned: &BTreeSet<ObjectId>,
        served: &ServedObjects<'_>,
        verdicts: &mut VerdictTable,
    ) {
        let find = |key: &ObjectKey| (self.find)(cx, served, key);
        self.users.update(cx.store, touched, replanned, served, find, verdicts);
    }
}

/// The object or annotation by the block that it sets, such as `health.active`. Other blocks have their defaults.
pub type PolicySources = BTreeMap<&'static str, String>;

/// The settings of one upstream, except its alternatives.
pub(super) fn settings(
    store: &Store,
    upstream: &UpstreamKey,
    conflicts: &PolicyConflicts,
) -> (Balancing, BackendTraffic) {
    let query = SettingsQuery { store, upstream, conflicts };
    query.sources().fold(UpstreamSettings::default(), |settings, source| (source.apply)(&query, settings))
}

/// What sets each block of the settings of one upstream, for the view of policies.
pub(super) fn sources(store: &Store, upstream: &UpstreamKey, conflicts: &PolicyConflicts) -> PolicySources {
    let query = SettingsQuery { store, upstream, conflicts };
    query.sources().flat_map(|source| (source.names)(&query)).collect()
}

type UpstreamSettings = (Balancing, BackendTraffic);

/// What has settings for upstreams.
struct SettingsSource {
    /// Whether upstreams of XBackends have none of these settings.
    is_for_services_only: bool,
    /// Puts its settings in place of those of sources with less precedence.
    apply: fn(&SettingsQuery<'_>, UpstreamSettings) -> UpstreamSettings,
    /// The object or annotation by the block that it sets.
    names: fn(&SettingsQuery<'_>) -> PolicySources,
}

/// From the lowest precedence to the highest.
const SOURCES: &[SettingsSource] = &[
    SettingsSource {
        is_for_services_only: true,
        apply: |SettingsQuery { store, upstream, conflicts }, (_, traffic)| {
            let balance = upstream_policy::upstream_balance(store, upstream, conflicts);
            (balance, upstream_policy::policy_settings(store, upstream, conflicts).apply(traffic))
        },
        names: |SettingsQuery { store, upstream, conflicts }| upstream_policy::sources(store, upstream, conflicts),
    },
    SettingsSource {
        is_for_services_only: true,
        apply: |query, (balance, traffic)| match &query.upstream.balancing {
            Some(balancing) => (route_balancing::apply(balancing, balance), traffic),
            None => (balance, traffic),
        },
        names: |query| match &query.upstream.balancing {
            Some(_) => PolicySources::from([("loadBalancing", ROUTE_ANNOTATIONS.to_owned())]),
            None => PolicySources::new(),
        },
    },
    SettingsSource {
        is_for_services_only: true,
        apply: |query, (balance, traffic)| (balance, backend_traffic::apply(query.store, &query.service(), traffic)),
        names: |query| backend_traffic::sources(query.store, &query.service()),
    },
    SettingsSource {
        is_for_services_only: false,
        apply: |query, (balance, traffic)| backend_policy::apply(query.store, query.upstream, balance, traffic),
        names: |query| backend_policy::sources(query.store, query.upstream),
    },
    SettingsSource {
        is_for_services_only: false,
        apply: |query, (balance, traffic)| {
            let sessions = x_backend::own_sessions(query.store, query.upstream);
            (balance, BackendTraffic { affinity: sessions.or(traffic.affinity), ..traffic })
        },
        names: |query| {
            let sessions = x_backend::own_sessions(query.store, query.upstream);
            let backend = || format!("{} {}", Kind::XBackend, backend_policy::backend_key(query.upstream));
            sessions.map(|_| ("loadBalancing.sessionPersistence", backend())).into_iter().collect()
        },
    },
];

/// What sets the load balancing of an upstream that some Ingresses have for themselves.
const ROUTE_ANNOTATIONS: &str = "annotations of Ingresses";

/// The upstream whose settings are read.
struct SettingsQuery<'a> {
    store: &'a Store,
    upstream: &'a UpstreamKey,
    conflicts: &'a PolicyConflicts,
}

impl SettingsQuery<'_> {
    fn sources(&self) -> impl Iterator<Item = &'static SettingsSource> + use<> {
        let is_service = self.upstream.source == UpstreamSource::Service;
        SOURCES.iter().filter(move |source| is_service || !source.is_for_services_only)
    }

    fn service(&self) -> ObjectKey {
        ObjectKey { namespace: self.upstream.namespace.clone(), name: self.upstream.service.clone() }
    }
}
