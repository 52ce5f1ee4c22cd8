//! The objects of `scale`: Services with an EndpointSlice each, HTTPRoutes and Ingresses with a host each, and
//! HTTPRoutes of another controller.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::stream::{self, StreamExt};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::EditedKind;
use crate::bench::backend::Backend;
use crate::bench::client::Target;
use crate::bench::objects::{MAX_CONCURRENCY, create, resource, wait_until_programmed};
use crate::cluster::Cluster;
use crate::progress::report;

/// The listener for plain-text requests to Ingresses, outside the addresses of Gateways.
pub(super) const INGRESS_ADDRESS: &str = "198.18.1.1:80";
/// Objects of each kind in a namespace. The budgets of a namespace are for fewer than all routes.
const OBJECTS_PER_NAMESPACE: usize = 1000;
/// Each certificate is used by many Secrets.
const CERTIFICATES: usize = 20;
/// Name of the Gateway, and prefix of the namespaces.
const NAME: &str = "scale";
/// Name of the other controller's GatewayClass and Gateway, and prefix of the namespaces of its routes.
const FOREIGN_NAME: &str = "foreign";

pub(super) struct ScaleObjects {
    client: Client,
    backend: Backend,
    /// PEM certificates and keys.
    certificates: Vec<(String, String)>,
    /// The number of Services, each with an EndpointSlice.
    services: usize,
    /// Only the objects with lower numbers are edited and get requests; only the endpoints of the others change.
    edited: usize,
    /// The number of the next edit, so that each edit changes the object.
    revision: Cell<usize>,
    gateway_address: Cell<Option<SocketAddr>>,
}

/// An object to create, with its namespace.
struct NewObject(&'static str, String, Value);

impl ScaleObjects {
    /// `edited`: how many objects of each kind may be edited.
    pub(super) async fn prepare(cluster: &Cluster, services: usize, edited: usize) -> Result<ScaleObjects> {
        let certificate = |_| -> Result<(String, String)> {
            let generated = rcgen::generate_simple_self_signed(["*.scale.example".to_owned()])?;
            Ok((generated.cert.pem(), generated.signing_key.serialize_pem()))
        };
        Ok(ScaleObjects {
            client: cluster.client(),
            backend: Backend::start().await?,
            certificates: (0..CERTIFICATES).map(certificate).collect::<Result<_>>()?,
            services,
            edited,
            revision: Cell::new(1),
            gateway_address: Cell::new(None),
        })
    }

    /// Creates the Gateway and the Services with their EndpointSlices.
    pub(super) async fn create_services(&self) -> Result<()> {
        let listener = json!({
            "name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": { "namespaces": { "from": "All" } },
        });
        let gateway = |name: &str, class: &str| {
            let spec = json!({ "gatewayClassName": class, "listeners": [listener] });
            NewObject("Gateway", "default".to_owned(), json!({ "metadata": { "name": name }, "spec": spec }))
        };
        let class = json!({
            "metadata": { "name": FOREIGN_NAME }, "spec": { "controllerName": "example.com/gateway-controller" },
        });
        self.create(NewObject("GatewayClass", String::new(), class)).await?;
        self.create(gateway(NAME, "portico")).await?;
        self.create(gateway(FOREIGN_NAME, FOREIGN_NAME)).await?;
        self.create_namespaces(NAME, self.services).await?;
        self.create_many("Services, each with an EndpointSlice", self.services, |number| {
            let metadata = json!({ "name": object_name(number) });
            // Without cluster addresses, of which the API server has fewer than Services may be measured.
            let spec = json!({ "clusterIP": "None", "ports": [{ "name": "http", "port": 80 }] });
            let service = json!({ "metadata": metadata, "spec": spec });
            let slice = json!({
                "addressType": "IPv4",
                "metadata": { "name": object_name(number), "labels": { "kubernetes.io/service-name": object_name(number) } },
                "endpoints": [self.endpoint(&self.backend.address.ip().to_string())],
                "ports": [{ "name": "http", "port": self.backend.address.port(), "protocol": "TCP" }],
            });
            let new = |kind, object| NewObject(kind, namespace(NAME, number), object);
            vec![new("Service", service), new("EndpointSlice", slice)]
        })
        .await
    }

    /// Creates the routes of another controller.
    pub(super) async fn create_foreign_routes(&self, count: usize) -> Result<()> {
        self.create_namespaces(FOREIGN_NAME, count).await?;
        self.create_many("HTTPRoutes of another controller", count, |number| {
            vec![NewObject("HTTPRoute", namespace(FOREIGN_NAME, number), http_route(FOREIGN_NAME, number))]
        })
        .await
    }

    pub(super) async fn create_http_routes(&self, count: usize) -> Result<()> {
        self.create_many("HTTPRoutes", count, |number| {
            vec![NewObject("HTTPRoute", namespace(NAME, number), http_route(NAME, number))]
        })
        .await
    }

    /// Creates Ingresses, each with a Secret with its certificate.
    pub(super) async fn create_ingresses(&self, count: usize) -> Result<()> {
        self.create_many("Ingresses, each with a certificate", count, |number| {
            let (certificate, key) = &self.certificates[number % self.certificates.len()];
            let secret_name = format!("tls-{number}");
            let secret = json!({
                "metadata": { "name": secret_name }, "type": "kubernetes.io/tls",
                "stringData": { "tls.crt": certificate, "tls.key": key },
            });
            let host = EditedKind::Ingress.host(number);
            let backend = json!({ "service": { "name": object_name(number), "port": { "number": 80 } } });
            let path = json!({ "path": path_of_revision(0), "pathType": "Prefix", "backend": backend });
            let spec = json!({
                "ingressClassName": "portico",
                "rules": [{ "host": host, "http": { "paths": [path] } }],
                "tls": [{ "hosts": [host], "secretName": secret_name }],
            });
            let ingress = json!({ "metadata": { "name": object_name(number) }, "spec": spec });
            let new = |kind, object| NewObject(kind, namespace(NAME, number), object);
            vec![new("Secret", secret), new("Ingress", ingress)]
        })
        .await
    }

    /// An edit of the path of one of the objects that may be edited, and the target of requests that the edited object
    /// serves. The edit is not sent yet.
    pub(super) async fn next_edit(&self, kind: EditedKind) -> Result<(Target, Edit<'_>)> {
        let revision = self.revision.replace(self.revision.get() + 1);
        let number = revision % self.edited;
        let address = match kind {
            EditedKind::HttpRoute => self.gateway_address().await?,
            EditedKind::Ingress => INGRESS_ADDRESS.parse()?,
        };
        let path = path_of_revision(revision);
        let edit = Edit { objects: self, kind, number, path: path.clone() };
        Ok((Target { address, host: kind.host(number), path }, edit))
    }

    /// Changes EndpointSlices at this rate, one after another, and counts the changes. Returns when a change fails.
    pub(super) async fn change_slices(&self, rate: f64, changes: &Cell<u32>) -> anyhow::Error {
        if rate <= 0.0 {
            return std::future::pending().await;
        }
        let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            ticks.tick().await;
            let change = changes.get() as usize;
            let number = self.edited + change % (self.services - self.edited);
            // No requests are sent to these endpoints.
            let address = format!("198.18.127.{}", 1 + change % 250);
            let endpoints = [self.endpoint(&self.backend.address.ip().to_string()), self.endpoint(&address)];
            let patch = Patch::Merge(json!({ "endpoints": endpoints }));
            let slices = self.api("EndpointSlice", &namespace(NAME, number));
            let changed = slices.patch(&object_name(number), &PatchParams::default(), &patch).await;
            if let Err(error) = changed {
                return anyhow::Error::new(error).context("the change of an EndpointSlice was rejected");
            }
            changes.set(changes.get() + 1);
        }
    }

    /// Requests the deletion of everything. Waits only for the API server.
    pub(super) async fn delete(&self) -> Result<()> {
        let namespaces = self.api("Namespace", "");
        for object in namespaces.list_metadata(&kube::api::ListParams::default().labels(LABEL)).await?.items {
            let name = object.metadata.name.unwrap_or_default();
            namespaces.delete(&name, &DeleteParams::default()).await?;
        }
        for name in [NAME, FOREIGN_NAME] {
            self.api("Gateway", "default").delete(name, &DeleteParams::default()).await?;
        }
        self.api("GatewayClass", "").delete(FOREIGN_NAME, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn gateway_address(&self) -> Result<SocketAddr> {
        if let Some(address) = self.gateway_address.get() {
            return Ok(address);
        }
        let address = wait_until_programmed(&self.api("Gateway", "default"), NAME).await?;
        self.gateway_address.set(Some(address));
        Ok(address)
    }

    fn endpoint(&self, address: &str) -> Value {
        json!({ "addresses": [address], "conditions": { "ready": true } })
    }

    /// Creates the namespaces of this number of objects.
    async fn create_namespaces(&self, prefix: &str, objects: usize) -> Result<()> {
        for first in (0..objects).step_by(OBJECTS_PER_NAMESPACE) {
            let metadata = json!({ "name": namespace(prefix, first), "labels": { LABEL: "scale" } });
            self.create(NewObject("Namespace", String::new(), json!({ "metadata": metadata }))).await?;
        }
        Ok(())
    }

    /// Creates objects, several at a time.
    async fn create_many(
        &self,
        description: &str,
        count: usize,
        objects: impl Fn(usize) -> Vec<NewObject>,
    ) -> Result<()> {
        report(format_args!("bench: creating {count} {description}"));
        let numbers = (0..count).map(objects);
        let requests = stream::iter(numbers).map(|objects| async move {
            for object in objects {
                self.create(object).await?;
            }
            anyhow::Ok(())
        });
        let mut created = std::pin::pin!(requests.buffer_unordered(MAX_CONCURRENCY));
        let mut done = 0;
        while let Some(outcome) = created.next().await {
            outcome?;
            done += 1;
            if done % OBJECTS_PER_NAMESPACE == 0 && done < count {
                report(format_args!("bench: {done} of {count}"));
            }
        }
        Ok(())
    }

    async fn create(&self, NewObject(kind, namespace, mut object): NewObject) -> Result<()> {
        let resource = resource(kind);
        object["apiVersion"] = json!(resource.api_version);
        object["kind"] = json!(kind);
        create(&self.api(kind, &namespace), &object).await.with_context(|| format!("cannot create a {kind}"))
    }

    /// The objects of a kind in a namespace; in no namespace if its name is empty.
    fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let (client, resource) = (self.client.clone(), resource(kind));
        if namespace.is_empty() {
            Api::all_with(client, &resource)
        } else {
            Api::namespaced_with(client, namespace, &resource)
        }
    }
}

/// An edit that has not been sent yet.
pub(super) struct Edit<'o> {
    objects: &'o ScaleObjects,
    kind: EditedKind,
    number: usize,
    path: String,
}

impl Edit<'_> {
    /// Sends the edit to the API server.
    pub(super) async fn send(self) -> Result<()> {
        let (kind, field) = match self.kind {
            EditedKind::HttpRoute => ("HTTPRoute", "/spec/rules/0/matches/0/path/value"),
            EditedKind::Ingress => ("Ingress", "/spec/rules/0/http/paths/0/path"),
        };
        let patch = json!([{ "op": "replace", "path": field, "value": self.path }]);
        let patch = Patch::<DynamicObject>::Json(serde_json::from_value(patch)?);
        let api = self.objects.api(kind, &namespace(NAME, self.number));
        let edited = api.patch(&object_name(self.number), &PatchParams::default(), &patch).await;
        edited.map(drop).context("the edit was rejected")
    }
}

/// Checks that `scale` can be measured with these numbers, before objects are created.
pub(super) fn check_counts(routes: usize, services: usize, samples: usize) -> Result<()> {
    ensure!(routes > 0 && samples > 0, "--scale and --samples must be at least 1");
    ensure!(
        services >= routes,
        "--slices must be at least --scale, which is {routes}: each HTTPRoute has a Service of its own"
    );
    ensure!(
        services > samples.min(routes),
        "--slices must be greater than --samples, which is {samples}: the endpoints of Services of edited HTTPRoutes \
         do not change"
    );
    Ok(())
}

/// Label of all namespaces.
const LABEL: &str = "bench";

fn namespace(prefix: &str, number: usize) -> String {
    format!("{prefix}-{}", number / OBJECTS_PER_NAMESPACE)
}

fn object_name(number: usize) -> String {
    format!("n{number}")
}

fn path_of_revision(revision: usize) -> String {
    format!("/revision-{revision}")
}

/// A route to the Service with the same number, attached to the Gateway with this name.
fn http_route(gateway: &str, number: usize) -> Value {
    let host = match gateway {
        NAME => EditedKind::HttpRoute.host(number),
        _ => format!("{gateway}-{number}.scale.example"),
    };
    let rule = json!({
        "matches": [{ "path": { "type": "PathPrefix", "value": path_of_revision(0) } }],
        "backendRefs": [{ "name": object_name(number), "port": 80 }],
    });
    let parent = json!({ "name": gateway, "namespace": "default" });
    let spec = json!({ "parentRefs": [parent], "hostnames": [host], "rules": [rule] });
    json!({ "metadata": { "name": object_name(number) }, "spec": spec })
}
