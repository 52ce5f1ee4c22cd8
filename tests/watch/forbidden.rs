//! Kinds that the API server does not allow Portico to read: at the start, later, and for a moment.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use portico::api::kind::KindFamily;
use portico::api::{Kind, ObjectId, ObjectKey};
use tokio::time::timeout;

use super::api::{FakeApiServer, InjectedFailure};
use super::site::{WatchSite, gateway, route, secret};

/// Without these, a new process would not serve what the one serves that it replaces, or serve it unprotected.
const CORE: &[Kind] = &[
    Kind::GatewayClass,
    Kind::Gateway,
    Kind::ListenerSet,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::BackendPolicy,
    Kind::Ingress,
    Kind::IngressClass,
    Kind::IngressClassParameters,
    Kind::KongClusterPlugin,
    Kind::KongConsumer,
    Kind::KongConsumerGroup,
    Kind::KongCustomEntity,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Secret,
    Kind::ConfigMap,
    Kind::Namespace,
];

const FORBIDDEN: &str = "it is forbidden: User \"portico\" cannot list resource";
const UNKNOWN_ROLE: &str = "it is forbidden: User \"portico\" cannot list resource: RBAC: \
                            clusterrole.rbac.authorization.k8s.io \"portico\" not found";

fn version(kind: Kind) -> String {
    match kind.group() {
        "" => kind.versions()[0].to_owned(),
        group => format!("{group}/{}", kind.versions()[0]),
    }
}

/// An API server with this kind, and with routes.
async fn api_with(kind: Kind) -> FakeApiServer {
    let api = FakeApiServer::start().await;
    api.serve("gateway.networking.k8s.io/v1", "httproutes", true);
    api.put("httproutes", route("a", "one.example"));
    if kind.family() != KindFamily::Kubernetes || !matches!(kind.group(), "" | "discovery.k8s.io") {
        api.serve(&version(kind), kind.plural(), kind.namespaced());
    }
    api
}

fn refusals(message: &'static str, count: usize) -> Vec<InjectedFailure> {
    vec![InjectedFailure::Status(403, message); count]
}

/// A Pod that may not read HTTPRoutes replaced Pods that served them: all requests got 404.
#[tokio::test]
async fn new_processes_wait_for_core_kinds_that_they_may_not_read() {
    join_all(Kind::ALL.iter().map(|kind| async move {
        let api = api_with(*kind).await;
        api.fail(kind.plural(), refusals(FORBIDDEN, 10_000));
        let mut site = WatchSite::start(&api).await;
        if !CORE.contains(kind) {
            site.wait_until(&format!("{kind} is not needed"), |site| site.complete).await;
            return;
        }
        site.wait_until_missing(&format!("the first list of {} (403 {FORBIDDEN}: grant the rules", kind.plural()))
            .await;
        // The server refuses again and again, which is when a kind counts as absent that need not be readable.
        api.wait_for_requests_of(kind.plural(), 0, 3).await;
        while timeout(Duration::from_millis(100), site.next()).await.is_ok() {}
        assert!(!site.complete && site.missing().contains(&format!("--optional-kinds {kind} ")), "{}", site.missing());
        api.clear_failures(kind.plural());
        site.wait_until(&format!("{kind} is granted"), |site| site.complete).await;
    }))
    .await;
}

#[tokio::test]
async fn kinds_that_need_not_be_readable_are_left_out() {
    join_all(CORE.iter().map(|kind| async move {
        let api = api_with(*kind).await;
        api.fail(kind.plural(), refusals(FORBIDDEN, 10_000));
        let mut site = WatchSite::start_without(&api, &[], &[*kind], Duration::from_secs(300)).await;
        site.wait_until(&format!("it is complete without {kind}"), |site| {
            site.complete && site.installed.unreadable.contains_key(kind)
        })
        .await;
    }))
    .await;
}

/// Its roles are gone with it, and the other namespaces are still served.
#[tokio::test]
async fn namespaces_in_which_no_kind_may_be_read_are_left_out() {
    let api = api_with(Kind::HttpRoute).await;
    for plural in ["httproutes", "services", "secrets", "configmaps", "endpointslices"] {
        api.fail_in("gone", plural, refusals(FORBIDDEN, 10_000));
    }
    let mut site = WatchSite::start_in(&api, &["default", "gone"]).await;
    site.wait_until("the other namespace is served", |site| site.complete && site.routes() == ["a one.example"]).await;
    site.wait_until("nothing is unknown", |site| site.installed.unreadable_before_first_list.is_empty()).await;
    // A single missing rule is a mistake.
    let api = api_with(Kind::HttpRoute).await;
    api.fail_in("other", "httproutes", refusals(FORBIDDEN, 10_000));
    let mut site = WatchSite::start_in(&api, &["default", "other"]).await;
    site.wait_until_missing("the first list of httproutes (403").await;
    api.wait_for_requests_of("httproutes", 0, 5).await;
    while timeout(Duration::from_millis(100), site.next()).await.is_ok() {}
    assert!(!site.complete);
}

/// Statuses named the kind and the log told to add a rule that existed, because the API server had just started.
#[tokio::test]
async fn roles_that_a_starting_server_does_not_know_are_an_outage() {
    join_all(Kind::ALL.iter().map(|kind| async move {
        let api = api_with(*kind).await;
        api.fail(kind.plural(), refusals(UNKNOWN_ROLE, 3));
        let mut site = WatchSite::start(&api).await;
        while !site.complete {
            site.next().await;
            assert!(site.installed.unreadable.is_empty(), "{kind}: {:?}", site.installed);
        }
        assert_eq!(site.routes(), ["a one.example"], "{kind}");
    }))
    .await;
}

/// A role with list and without get: a new process was ready without certificates and credentials, and said that they
/// do not exist.
#[tokio::test]
async fn objects_that_may_not_be_fetched_are_known_until_they_are() {
    let api = FakeApiServer::start().await;
    api.serve("gateway.networking.k8s.io/v1", "gateways", true);
    api.put("gateways", gateway("web", "tls"));
    api.put("secrets", secret("tls", "b25l"));
    api.fail("secrets/tls", refusals(FORBIDDEN, 10_000));
    let mut site = WatchSite::start(&api).await;
    site.wait_until("everything is listed", |site| site.complete && site.store.gateways.len() == 1).await;
    let id = ObjectId::new(Kind::Secret, ObjectKey::new("default", "tls"));
    // The second request follows what became of the first.
    api.wait_for_requests("/api/v1/namespaces/default/secrets/tls", 2).await;
    assert_eq!(site.source.forbidden(), BTreeSet::from([id]));
    api.clear_failures("secrets/tls");
    site.wait_until("it is granted", |site| site.secrets() == ["tls one"]).await;
    assert!(site.source.forbidden().is_empty());
    // What was fetched stays in use.
    api.fail("secrets/tls", refusals(FORBIDDEN, 10_000));
    let before = api.requests("").len();
    api.put("secrets", secret("tls", "dHdv"));
    api.wait_for_requests_of("secrets/tls", before, 2).await;
    assert!(site.source.forbidden().is_empty() && site.secrets() == ["tls one"]);
}

/// The same error followed each of thirty kinds, without what helps.
#[tokio::test]
async fn kinds_that_need_the_same_unknown_role_are_one_entry() {
    let api = FakeApiServer::start().await;
    for plural in ["services", "secrets", "configmaps", "namespaces", "endpointslices"] {
        api.fail(plural, refusals(UNKNOWN_ROLE, 10_000));
    }
    let site = WatchSite::start(&api).await;
    site.wait_until_missing("the first lists of services and 4 other kinds (403 RBAC: clusterrole").await;
    let missing = site.missing();
    assert_eq!(missing.matches("403").count(), 1, "{missing}");
    assert!(
        missing.ends_with(
            "\"portico\" not found: if it lasts, create this role, or correct the binding that \
                               refers to it)"
        ),
        "{missing}"
    );
}

#[tokio::test]
async fn listed_kinds_stay_in_use_when_they_are_forbidden() {
    join_all(CORE.iter().map(|kind| async move {
        let api = api_with(*kind).await;
        let mut site = WatchSite::start(&api).await;
        site.wait_until("everything is listed", |site| site.complete).await;
        for (message, count) in [(FORBIDDEN, 2), (UNKNOWN_ROLE, 3)] {
            let before = api.requests("").len();
            api.fail(kind.plural(), refusals(message, count));
            api.bookmark_and_cut(kind.plural(), 50 + before as u64);
            api.wait_for_requests_of(kind.plural(), before, count + 1).await;
            // Everything that is delivered by then.
            while timeout(Duration::from_millis(100), site.next()).await.is_ok() {}
            assert!(site.installed.unreadable.is_empty(), "{kind} was forbidden for a moment");
        }
        api.fail(kind.plural(), refusals(FORBIDDEN, 10_000));
        api.bookmark_and_cut(kind.plural(), 100_000);
        site.wait_until(&format!("{kind} is reported"), |site| site.installed.unreadable.contains_key(kind)).await;
        assert_eq!((site.routes(), site.missing()), (vec!["a one.example".to_owned()], String::new()), "{kind}");
    }))
    .await;
}
