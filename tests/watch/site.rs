//! An `ApiServerSource` that watches the fake API server, and the store with the objects that it delivers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portico::api::{Kind, ObjectId, ObjectKey};
use portico::k8s::{Access, ApiServerSource, InstalledApis, Observed, ReferenceChanges, RejectedObject};
use portico::store::{LargeObjects, Store};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::watch::api::FakeApiServer;

pub(crate) struct WatchSite {
    pub(crate) source: ApiServerSource,
    pub(crate) store: Store,
    pub(crate) complete: bool,
    pub(crate) installed: Arc<InstalledApis>,
    pub(crate) observed: BTreeMap<ObjectId, Option<Observed>>,
    pub(crate) rejected: BTreeMap<ObjectId, Option<RejectedObject>>,
    /// Leaves the referenced Secrets and ConfigMaps as the test has set them, instead of setting those that the store
    /// refers to.
    pub(crate) keep_referenced: bool,
    referenced: BTreeSet<ObjectId>,
    folder: TempDir,
}

impl WatchSite {
    /// Watches all namespaces.
    pub(crate) async fn start(api: &FakeApiServer) -> WatchSite {
        WatchSite::start_in(api, &[]).await
    }

    /// Watches these namespaces, or all if there are none.
    pub(crate) async fn start_in(api: &FakeApiServer, namespaces: &[&str]) -> WatchSite {
        WatchSite::start_with(api, namespaces, Duration::from_secs(300)).await
    }

    pub(crate) async fn start_with(api: &FakeApiServer, namespaces: &[&str], startup_timeout: Duration) -> WatchSite {
        WatchSite::start_without(api, namespaces, &[], startup_timeout).await
    }

    /// `optional`: kinds that need not be readable.
    pub(crate) async fn start_without(
        api: &FakeApiServer,
        namespaces: &[&str],
        optional: &[Kind],
        startup_timeout: Duration,
    ) -> WatchSite {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "first").unwrap();
        let kubeconfig = api.kubeconfig(&json!({"tokenFile": folder.path().join("token")}));
        let file: PathBuf = folder.path().join("config");
        std::fs::write(&file, kubeconfig).unwrap();
        let access = Access::Kubeconfig { file: Some(file), context: None };
        let connection = access.connect().await.unwrap();
        let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
        let optional = optional.iter().copied().collect();
        let source =
            ApiServerSource::start(access, connection, namespaces, optional, startup_timeout, LargeObjects::Reduce);
        WatchSite {
            source,
            store: Store::default(),
            complete: false,
            installed: Arc::default(),
            observed: BTreeMap::new(),
            rejected: BTreeMap::new(),
            keep_referenced: false,
            referenced: BTreeSet::new(),
            folder,
        }
    }

    pub(crate) fn write_token(&self, token: &str) {
        // The token is replaced atomically, because a partial one is invalid.
        let (new, file) = (self.folder.path().join("new"), self.folder.path().join("token"));
        std::fs::write(&new, token).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// Applies one delivery to the store, as the control loop does.
    pub(crate) async fn next(&mut self) {
        let delivery = self.source.next().await;
        self.store.apply(delivery.batch);
        self.complete |= delivery.complete;
        self.observed.extend(delivery.observed);
        self.rejected.extend(delivery.rejected);
        if let Some(installed) = delivery.installed {
            self.installed = installed;
        }
        if !self.keep_referenced {
            let dependencies = self.store.dependency_index();
            let referenced: BTreeSet<_> = dependencies
                .referenced(Kind::Secret)
                .chain(dependencies.referenced(Kind::ConfigMap))
                .cloned()
                .collect();
            self.set_referenced(referenced);
        }
    }

    /// Sets the wanted Secrets and ConfigMaps. Returns whether none of them is awaited.
    pub(crate) fn set_referenced(&mut self, wanted: BTreeSet<ObjectId>) -> bool {
        let changes = ReferenceChanges {
            added: wanted.difference(&self.referenced).cloned().collect(),
            removed: self.referenced.difference(&wanted).cloned().collect(),
        };
        self.referenced = wanted;
        self.source.change_referenced(&changes)
    }

    pub(crate) async fn wait_until(&mut self, event: &str, condition: impl Fn(&WatchSite) -> bool) {
        let waiting = async {
            while !condition(self) {
                self.next().await;
            }
        };
        if timeout(DEADLINE, waiting).await.is_err() {
            panic!("not within {DEADLINE:?}: {event}; routes {:?}, {:?}", self.routes(), self.installed);
        }
    }

    /// Waits until a precondition that contains this word is missing.
    pub(crate) async fn wait_until_missing(&self, word: &str) {
        let mut waiting = self.source.waiting_for();
        let mentioned = waiting.wait_for(|waiting| waiting.join(", ").contains(word));
        timeout(DEADLINE, mentioned).await.expect("in time").unwrap();
    }

    /// The missing preconditions for readiness.
    pub(crate) fn missing(&self) -> String {
        self.source.waiting_for().borrow().join(", ")
    }

    /// The routes, each as its name and first hostname.
    pub(crate) fn routes(&self) -> Vec<String> {
        let is_valid = |key: &ObjectKey| !self.store.is_rejected(&ObjectId::new(Kind::HttpRoute, key.clone()));
        let routes = self.store.http_routes.values().filter(|route| is_valid(&route.meta.key));
        routes.map(|route| format!("{} {}", route.meta.key.name, route.spec.hostnames[0])).collect()
    }

    /// The ConfigMaps, each as its name and certificate.
    pub(crate) fn config_maps(&self) -> Vec<String> {
        let maps = self.store.config_maps.values();
        maps.map(|map| format!("{} {}", map.meta.key.name, map.data["cert"])).collect()
    }

    /// The Secrets, each as its name and certificate.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let secrets = self.store.secrets.values();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        secrets.map(|secret| format!("{} {}", secret.meta.key.name, text(secret.value("tls.crt").unwrap()))).collect()
    }
}

/// A Service with TLS that refers to the ConfigMap of an authority.
pub(crate) fn service(name: &str, authority: &str) -> Value {
    let annotations = json!({
        "konghq.com/protocol": "https", "konghq.com/tls-verify": "true",
        "konghq.com/ca-certificates-configmaps": authority,
    });
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": name, "annotations": annotations},
        "spec": {"ports": [{"port": 443}]},
    })
}

pub(crate) fn config_map(name: &str, certificate: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "default", "name": name},
        "data": {"cert": certificate},
    })
}

pub(crate) fn route(name: &str, hostname: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": "default", "name": name, "generation": 1, "managedFields": [{"manager": "test"}]},
        "spec": {"parentRefs": [{"name": "web"}], "hostnames": [hostname]},
        "status": {"parents": []},
    })
}

pub(crate) fn gateway(name: &str, secret: &str) -> Value {
    let tls = json!({"certificateRefs": [{"name": secret}]});
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"namespace": "default", "name": name},
        "spec": {"gatewayClassName": "portico",
            "listeners": [{"name": "https", "port": 443, "protocol": "HTTPS", "tls": tls}]},
    })
}

pub(crate) fn secret(name: &str, certificate: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"namespace": "default", "name": name}, "data": {"tls.crt": certificate, "tls.key": ""},
    })
}

pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// Long, for machines whose cores are busy.
const DEADLINE: Duration = Duration::from_secs(60);
