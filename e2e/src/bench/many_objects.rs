//! Creates and deletes tens of thousands of objects, in namespaces with a thousand objects of each kind.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use futures_util::stream::{self, StreamExt};
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::objects::{MAX_CONCURRENCY, create, resource};
use crate::cluster::Cluster;
use crate::progress::report;

/// Objects of each kind in a namespace. The budgets of a namespace are for fewer than all routes.
const OBJECTS_PER_NAMESPACE: usize = 1000;
/// Label of all namespaces.
const LABEL: &str = "bench";

/// The API of the objects.
pub(super) struct ManyObjects {
    client: Client,
}

/// An object to create: its kind, its namespace, and its fields without `apiVersion` and `kind`.
pub(super) struct NewObject(pub(super) &'static str, pub(super) String, pub(super) Value);

/// The namespace of the object with this number.
pub(super) fn namespace(prefix: &str, number: usize) -> String {
    format!("{prefix}-{}", number / OBJECTS_PER_NAMESPACE)
}

pub(super) fn object_name(number: usize) -> String {
    format!("n{number}")
}

/// A Service, and its EndpointSlice with one endpoint.
pub(super) fn service_with_endpoint(namespace: &str, name: &str, endpoint: SocketAddr) -> [NewObject; 2] {
    // Without cluster addresses, of which the API server has fewer than Services may be measured.
    let spec = json!({ "clusterIP": "None", "ports": [{ "name": "http", "port": 80 }] });
    let service = json!({ "metadata": { "name": name }, "spec": spec });
    let slice = json!({
        "addressType": "IPv4",
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
        "endpoints": [{ "addresses": [endpoint.ip()], "conditions": { "ready": true } }],
        "ports": [{ "name": "http", "port": endpoint.port(), "protocol": "TCP" }],
    });
    [NewObject("Service", namespace.to_owned(), service), NewObject("EndpointSlice", namespace.to_owned(), slice)]
}

impl ManyObjects {
    pub(super) fn of(cluster: &Cluster) -> ManyObjects {
        ManyObjects { client: cluster.client() }
    }

    /// Creates the namespaces of this number of objects, and returns their names.
    pub(super) async fn create_namespaces(&self, prefix: &str, objects: usize) -> Result<Vec<String>> {
        let names: Vec<_> = (0..objects).step_by(OBJECTS_PER_NAMESPACE).map(|first| namespace(prefix, first)).collect();
        for name in &names {
            let metadata = json!({ "name": name, "labels": { LABEL: prefix } });
            self.create(NewObject("Namespace", String::new(), json!({ "metadata": metadata }))).await?;
        }
        Ok(names)
    }

    /// Calls `objects` with the numbers below `count`, and creates the objects of several numbers at a time.
    pub(super) async fn create_many<Objects: IntoIterator<Item = NewObject>>(
        &self,
        description: &str,
        count: usize,
        objects: impl Fn(usize) -> Objects,
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

    pub(super) async fn create(&self, NewObject(kind, namespace, mut object): NewObject) -> Result<()> {
        let resource = resource(kind);
        object["apiVersion"] = json!(resource.api_version);
        object["kind"] = json!(kind);
        create(&self.api(kind, &namespace), &object).await.with_context(|| format!("cannot create a {kind}"))
    }

    /// Requests the deletion of all namespaces. Waits only for the API server.
    pub(super) async fn delete_namespaces(&self) -> Result<()> {
        let namespaces = self.api("Namespace", "");
        for object in namespaces.list_metadata(&ListParams::default().labels(LABEL)).await?.items {
            let name = object.metadata.name.unwrap_or_default();
            namespaces.delete(&name, &DeleteParams::default()).await?;
        }
        Ok(())
    }

    /// The objects of a kind in a namespace; in no namespace if its name is empty.
    pub(super) fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let (client, resource) = (self.client.clone(), resource(kind));
        if namespace.is_empty() {
            Api::all_with(client, &resource)
        } else {
            Api::namespaced_with(client, namespace, &resource)
        }
    }
}
