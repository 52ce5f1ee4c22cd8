//! The objects of `scale`: Services with an EndpointSlice each, HTTPRoutes and Ingresses with a host each, and
//! HTTPRoutes of another controller.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::EditedKind;
use crate::bench::backend::Backend;
use crate::bench::client::Target;
use crate::bench::edits::Edit;
use crate::bench::many_objects::{ManyObjects, NewObject, namespace, object_name, service_with_endpoint};
use crate::bench::objects::wait_until_programmed;
use crate::cluster::Cluster;

/// The listener for plain-text requests to Ingresses, outside the addresses of Gateways.
pub(super) const INGRESS_ADDRESS: &str = "198.18.1.1:80";
/// Each certificate is used by many Secrets.
const CERTIFICATES: usize = 20;
/// Name of the Gateway, and prefix of the namespaces.
const NAME: &str = "scale";
/// Name of the other controller's GatewayClass and Gateway, and prefix of the namespaces of its routes.
const FOREIGN_NAME: &str = "foreign";

pub(super) struct ScaleObjects {
    objects: ManyObjects,
    backend: Backend,
    /// PEM certificates and keys.
    certificates: Vec<(String, String)>,
    /// The number of Services, each with an EndpointSlice.
    services: usize,
    /// Only the objects with lower numbers are edited and get requests; only the endpoints of the others change.
    edited: usize,
    /// The number of the next edit, so that each edit changes the object.
    revision: Cell<usize>,
}

impl ScaleObjects {
    /// `edited`: how many objects of each kind may be edited.
    pub(super) async fn prepare(cluster: &Cluster, services: usize, edited: usize) -> Result<ScaleObjects> {
        let certificate = |_| -> Result<(String, String)> {
            let generated = rcgen::generate_simple_self_signed(["*.scale.example".to_owned()])?;
            Ok((generated.cert.pem(), generated.signing_key.serialize_pem()))
        };
        Ok(ScaleObjects {
            objects: ManyObjects::of(cluster),
            backend: Backend::start().await?,
            certificates: (0..CERTIFICATES).map(certificate).collect::<Result<_>>()?,
            services,
            edited,
            revision: Cell::new(1),
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
        self.objects.create(NewObject("GatewayClass", String::new(), class)).await?;
        self.objects.create(gateway(NAME, "portico")).await?;
        self.objects.create(gateway(FOREIGN_NAME, FOREIGN_NAME)).await?;
        self.objects.create_namespaces(NAME, self.services).await?;
        let service =
            |number| service_with_endpoint(&namespace(NAME, number), &object_name(number), self.backend.address);
        self.objects.create_many("Services, each with an EndpointSlice", self.services, service).await
    }

    /// Creates the routes of another controller.
    pub(super) async fn create_foreign_routes(&self, count: usize) -> Result<()> {
        self.objects.create_namespaces(FOREIGN_NAME, count).await?;
        let route = |number| [http_route(FOREIGN_NAME, number)];
        self.objects.create_many("HTTPRoutes of another controller", count, route).await
    }

    pub(super) async fn create_http_routes(&self, count: usize) -> Result<()> {
        self.objects.create_many("HTTPRoutes", count, |number| [http_route(NAME, number)]).await
    }

    /// Creates Ingresses, each with a Secret with its certificate.
    pub(super) async fn create_ingresses(&self, count: usize) -> Result<()> {
        let secret_and_ingress = |number| {
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
            [("Secret", secret), ("Ingress", ingress)]
                .map(|(kind, object)| NewObject(kind, namespace(NAME, number), object))
        };
        self.objects.create_many("Ingresses, each with a certificate", count, secret_and_ingress).await
    }

    /// The address for requests to objects of a kind.
    pub(super) async fn address(&self, kind: EditedKind) -> Result<SocketAddr> {
        match kind {
            EditedKind::HttpRoute => wait_until_programmed(&self.objects.api("Gateway", "default"), NAME).await,
            EditedKind::Ingress => Ok(INGRESS_ADDRESS.parse()?),
        }
    }

    /// An edit of the path of one of the objects that may be edited. `address`: for requests to objects of this kind.
    pub(super) fn next_edit(&self, kind: EditedKind, address: SocketAddr) -> Edit {
        let revision = self.revision.replace(self.revision.get() + 1);
        let number = revision % self.edited;
        let field = match kind {
            EditedKind::HttpRoute => "/spec/rules/0/matches/0/path/value",
            EditedKind::Ingress => "/spec/rules/0/http/paths/0/path",
        };
        let path = path_of_revision(revision);
        Edit {
            api: self.objects.api(kind.name(), &namespace(NAME, number)),
            name: object_name(number),
            field,
            value: path.clone(),
            target: Target { address, host: kind.host(number), path },
        }
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
            let other_address = format!("198.18.127.{}", 1 + change % 250);
            let endpoints = [self.backend.address.ip().to_string(), other_address]
                .map(|address| json!({ "addresses": [address], "conditions": { "ready": true } }));
            let patch = Patch::Merge(json!({ "endpoints": endpoints }));
            let slices = self.objects.api("EndpointSlice", &namespace(NAME, number));
            let changed = slices.patch(&object_name(number), &PatchParams::default(), &patch).await;
            if let Err(error) = changed {
                return anyhow::Error::new(error).context("the change of an EndpointSlice was rejected");
            }
            changes.set(changes.get() + 1);
        }
    }

    /// Requests the deletion of everything. Waits only for the API server.
    pub(super) async fn delete(&self) -> Result<()> {
        self.objects.delete_namespaces().await?;
        for name in [NAME, FOREIGN_NAME] {
            self.objects.api("Gateway", "default").delete(name, &DeleteParams::default()).await?;
        }
        self.objects.api("GatewayClass", "").delete(FOREIGN_NAME, &DeleteParams::default()).await?;
        Ok(())
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

fn path_of_revision(revision: usize) -> String {
    format!("/revision-{revision}")
}

/// A route to the Service with the same number, attached to the Gateway with this name.
fn http_route(gateway: &str, number: usize) -> NewObject {
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
    let route = json!({ "metadata": { "name": object_name(number) }, "spec": spec });
    NewObject("HTTPRoute", namespace(gateway, number), route)
}
