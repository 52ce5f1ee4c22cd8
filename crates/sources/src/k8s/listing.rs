//! Reads objects of a cluster once, for commands that report about a cluster and end: lists of whole kinds, page by
//! page, and single objects.

use std::time::Duration;

use kube::api::ListParams;
use kube::core::ApiResource;
use kube::{Api, Client};
use tokio::time::timeout;

use super::api_error::{ApiError, with_timeout};
use super::client::ApiConnection;
use super::raw::{RawObject, api_resource};
use crate::api::{Kind, ObjectKey};
use crate::store::{AnyObject, LargeObjects, MalformedObject};

/// The objects of a kind in all namespaces.
#[derive(Debug, Default)]
pub struct ListedObjects {
    pub objects: Vec<AnyObject>,
    /// Those that cannot be parsed as their kind.
    pub malformed: Vec<(ObjectKey, MalformedObject)>,
}

/// Lists a kind of version v1. `progress` gets the number of objects after each page.
pub async fn list_objects(
    connection: &ApiConnection,
    kind: Kind,
    progress: &mut dyn FnMut(usize),
) -> Result<ListedObjects, ApiError> {
    let mut listed = ListedObjects::default();
    for raw in list(&connection.client, &api_resource(kind, "v1"), progress).await? {
        let Some(key) = raw.key() else { continue };
        match parse(kind, raw) {
            Ok(object) => listed.objects.push(object),
            Err(malformed) => listed.malformed.push((key, malformed)),
        }
    }
    Ok(listed)
}

/// One object of a namespace, of a kind of version v1. `None` if it does not exist, or cannot be parsed as its kind.
pub async fn read_object(
    connection: &ApiConnection,
    kind: Kind,
    key: &ObjectKey,
) -> Result<Option<AnyObject>, ApiError> {
    let client = connection.client.clone();
    let api: Api<RawObject> = Api::namespaced_with(client, &key.namespace, &api_resource(kind, "v1"));
    let raw = with_timeout(PAGE_TIMEOUT, api.get_opt(&key.name)).await?;
    Ok(raw.and_then(|raw| parse(kind, raw).ok()))
}

/// The names of the ValidatingWebhookConfigurations.
pub async fn validating_webhooks(connection: &ApiConnection) -> Result<Vec<String>, ApiError> {
    let resource = ApiResource {
        group: "admissionregistration.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "admissionregistration.k8s.io/v1".to_owned(),
        kind: "ValidatingWebhookConfiguration".to_owned(),
        plural: "validatingwebhookconfigurations".to_owned(),
    };
    let raw = list(&connection.client, &resource, &mut |_| {}).await?;
    Ok(raw.into_iter().filter_map(|raw| raw.key()).map(|key| key.name.to_string()).collect())
}

fn parse(kind: Kind, raw: RawObject) -> Result<AnyObject, MalformedObject> {
    let size = raw.size();
    AnyObject::parse_with_size(kind, raw.into_parts().0, size, LargeObjects::Reduce)
}

/// All pages. If the list changes so much that a page is gone, it begins again.
async fn list(
    client: &Client,
    resource: &ApiResource,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<RawObject>, ApiError> {
    let api: Api<RawObject> = Api::all_with(client.clone(), resource);
    let mut restarts = 0;
    let mut objects = Vec::new();
    let mut page = ListParams::default().limit(PAGE_SIZE);
    loop {
        let list = match timeout(PAGE_TIMEOUT, api.list(&page)).await {
            Ok(Ok(list)) => list,
            Ok(Err(kube::Error::Api(status))) if status.code == GONE && restarts < MAX_RESTARTS => {
                restarts += 1;
                objects.clear();
                page = ListParams::default().limit(PAGE_SIZE);
                continue;
            }
            Ok(Err(error)) => return Err(ApiError::from(error)),
            Err(_) => return Err(ApiError::Unreachable(format!("no response within {PAGE_TIMEOUT:?}"))),
        };
        objects.extend(list.items);
        progress(objects.len());
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(objects),
        }
    }
}

const PAGE_SIZE: u32 = 500;
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// The status of a page whose list the API server no longer has.
const GONE: u16 = 410;
const MAX_RESTARTS: u32 = 3;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::ready;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::sync::mpsc::{Receiver, channel};
    use tower::service_fn;

    use super::*;

    /// An API server that sends these statuses and bodies, and the URIs that it receives.
    fn connection(responses: Vec<(u16, Value)>) -> (ApiConnection, Receiver<String>) {
        let (sender, uris) = channel(responses.len());
        let mut responses = responses.into_iter();
        let service = service_fn(move |request: Request<Body>| {
            sender.try_send(request.uri().to_string()).unwrap();
            let (status, body) = responses.next().expect("a request without a response");
            let body = Body::from(body.to_string().into_bytes());
            ready(Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap()))
        });
        let client = Client::new(service, "default");
        (ApiConnection { client, server: "http://api.example".to_owned(), context: None }, uris)
    }

    fn page(next: &str, names: &[&str]) -> (u16, Value) {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let ingress =
            |name: &&str| json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"defaultBackend": backend}});
        let items: Vec<Value> = names.iter().map(ingress).collect();
        let metadata = json!({"resourceVersion": "7", "continue": next});
        let list =
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressList", "metadata": metadata, "items": items});
        (200, list)
    }

    fn failure(code: u16, reason: &str) -> (u16, Value) {
        let status = json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": reason,
            "reason": reason, "code": code,
        });
        (code, status)
    }

    #[tokio::test]
    async fn lists_are_read_in_pages_and_begin_again_when_they_expire() {
        let responses =
            vec![page("next", &["a"]), failure(410, "Expired"), page("more", &["a", "b"]), page("", &["c"])];
        let (connection, mut uris) = connection(responses);
        let mut counts = Vec::new();
        let listed = list_objects(&connection, Kind::Ingress, &mut |count| counts.push(count)).await.unwrap();
        let names: Vec<String> = listed.objects.iter().map(|object| object.meta().key.to_string()).collect();
        assert_eq!(names, ["shop/a", "shop/b", "shop/c"]);
        assert!(listed.malformed.is_empty(), "{:?}", listed.malformed);
        assert_eq!(counts, [1, 2, 3]);
        for expected in [None, Some("continue=next"), None, Some("continue=more")] {
            let uri = uris.recv().await.unwrap();
            assert!(uri.starts_with("/apis/networking.k8s.io/v1/ingresses?"), "{uri}");
            assert!(uri.contains("limit=500"), "{uri}");
            assert_eq!(uri.contains("continue="), expected.is_some(), "{uri}");
            assert!(expected.is_none_or(|part| uri.contains(part)), "{uri}");
        }
    }

    #[tokio::test]
    async fn a_missing_permission_is_an_error_and_a_missing_object_is_none() {
        let (connection, _uris) = connection(vec![failure(403, "Forbidden"), failure(404, "NotFound")]);
        let listed = list_objects(&connection, Kind::IngressClass, &mut |_| {}).await;
        assert!(matches!(listed, Err(ApiError::Forbidden(_))), "{listed:?}");
        let key = ObjectKey::new("shop", "settings");
        assert!(read_object(&connection, Kind::ConfigMap, &key).await.unwrap().is_none());
    }
}
